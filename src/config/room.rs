//! Rules for rooms: what holds for a room by its id, where it differs from room to room.
//!
//! In the file a rule is a `[[room]]` table. The environment and the flag write it on one line, the same keys with
//! commas between them.

use std::time::Duration;

use super::error::{Problem, shown};
use super::pattern::Pattern;
use super::source::Source;
use super::suggest::nearest_row;
use super::table::{ROOM, ROOM_MATCH, Setting};
use super::values::Values;
use super::{Config, HistoryBounds};

/// Rules of all sources together. One more is refused.
pub const ROOM_RULES_MAX: usize = 1000;

/// What holds for the rooms that a pattern means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRule {
    /// Which rooms.
    pub pattern: Pattern,
    /// What is kept of the messages of each.
    pub history: HistoryBounds,
    /// What is kept of the items of each; `None` where the rooms are not keyed.
    pub keyed: Option<KeyedBounds>,
}

/// What is kept of the items of one keyed room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedBounds {
    /// Items, removed ones that are remembered included.
    pub max: u32,
    /// Bytes that they may take.
    pub bytes_max: u64,
    /// Time after its last update when an item is removed; zero removes none.
    pub ttl: Duration,
    /// Time that a removed item is remembered.
    pub removed_ttl: Duration,
    /// Time without an update after which the room is stale; zero is never.
    pub stale_after: Duration,
}

impl RoomRule {
    pub(super) fn from_values(from: &Values) -> RoomRule {
        RoomRule {
            pattern: from.pattern(ROOM_MATCH).clone(),
            history: HistoryBounds::from_values(from, "room.history.size", "room.history.ttl"),
            keyed: from.switch("room.keyed").then(|| KeyedBounds::from_values(from)),
        }
    }
}

impl KeyedBounds {
    fn from_values(from: &Values) -> KeyedBounds {
        KeyedBounds {
            max: u32::try_from(from.number("room.items.max")).unwrap_or(u32::MAX),
            bytes_max: from.number("room.items.bytes_max"),
            ttl: from.duration("room.items.ttl"),
            removed_ttl: from.duration("room.items.removed_ttl"),
            stale_after: from.duration("room.items.stale_after"),
        }
    }
}

impl Config {
    /// The rule for a room: the first that matches. Without one the room is as if no rule had been written; it keeps
    /// no history and is not keyed. Whether a raw room is keyed is asked for as `raw/ROOM`.
    pub fn room_rule(&self, room: &str) -> Option<&RoomRule> {
        self.room.iter().find(|rule| rule.pattern.matches(room))
    }
}

/// Reads rules as environment and flags write them, with semicolons between them. White space around a rule, a key or
/// a value is ignored; a comma or a semicolon always ends what it stands behind.
pub(super) fn parse(text: &str, source: &Source, problems: &mut Vec<Problem>) -> Vec<Values> {
    text.split(';').filter_map(|rule| parse_rule(rule.trim(), source, problems)).collect()
}

/// What is wrong with a rule as a whole.
pub(super) fn fault(rule: &Values) -> Option<String> {
    let text = "the rule names no rooms; add match = \"market.*\", or match = \"*\" for every room";
    (!rule.is_said(ROOM_MATCH)).then(|| text.to_owned())
}

/// Whether a rule says which rooms it is for, rightly.
pub(super) fn has_pattern(rule: &Values) -> bool {
    rule.is_said(ROOM_MATCH) && !rule.is_faulty(ROOM_MATCH)
}

/// No more rules than are allowed.
pub(super) fn check_count(rules: &[Values], problems: &mut Vec<Problem>) {
    if let Some(beyond) = rules.get(ROOM_RULES_MAX) {
        let text = format!("{} rules are too many; write at most {ROOM_RULES_MAX}", rules.len());
        problems.push(Problem::new(beyond.source(ROOM_MATCH).clone(), ROOM.name, text));
    }
}

fn parse_rule(text: &str, source: &Source, problems: &mut Vec<Problem>) -> Option<Values> {
    let mut rule = Values::defaults(ROOM.rows);
    let mut found = Vec::new();
    if text.is_empty() {
        found.push(format!("the rule is empty; write it as {}", ROOM.example));
    } else {
        found.extend(text.split(',').filter_map(|pair| set_pair(&mut rule, pair, source).err()));
    }
    if found.is_empty() && !rule.is_said(ROOM_MATCH) {
        found.push("the rule names no rooms; add match=market.*, or match=* for every room".to_owned());
    }
    let place = if text.is_empty() { String::new() } else { format!(" (in {})", shown(text)) };
    problems.extend(found.into_iter().map(|what| Problem::new(source.clone(), ROOM.name, format!("{what}{place}"))));
    has_pattern(&rule).then_some(rule)
}

/// Takes one `key=value` of a rule, or says what is wrong with it.
fn set_pair(rule: &mut Values, pair: &str, source: &Source) -> Result<(), String> {
    let Some((name, value)) = pair.split_once('=') else {
        let text = shown(pair.trim());
        return Err(format!("{text} is no KEY=VALUE; a pattern with a comma or a semicolon belongs in the file"));
    };
    let (name, value) = (name.trim(), value.trim());
    let Some(setting) = ROOM.rows.iter().find(|row| row.name_in_entry() == Some(name)) else {
        return Err(unknown(name));
    };
    if rule.is_said(setting.key) {
        return Err(format!("{name} is given twice; give it once"));
    }
    match setting.kind.parse(value) {
        Ok(value) => rule.set(setting, source.clone(), value),
        Err(what) => {
            rule.fault(setting);
            return Err(format!("{name}: {what}"));
        }
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    let near = nearest_row(ROOM.rows, &format!("{}.{name}", ROOM.name)).and_then(Setting::name_in_entry);
    match near {
        Some(near) => format!("unknown key {}; did you mean {near}?", shown(name)),
        None => {
            let names: Vec<_> = ROOM.rows.iter().filter_map(Setting::name_in_entry).collect();
            format!("unknown key {}; a rule may have {}", shown(name), names.join(", "))
        }
    }
}

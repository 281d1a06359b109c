//! What a keyed room should be: the list of all its updates.
//!
//! One publisher's commands are carried out in order, so each answer says what the list is to be from then on. The rest is
//! looked up in the list: what is newest, which version an item has, what everybody may be sent.

use std::collections::{BTreeMap, VecDeque};

use fanfare_simulated::keyed::Known;
use serde_json::{Value, json};

/// An update on its way to the room.
#[derive(Clone, Debug)]
pub struct Update {
    pub item: String,
    /// JSON text; `None` removes the item.
    pub content: Option<String>,
    pub version: Option<i64>,
}

/// A command whose answer has not come.
#[derive(Clone, Debug)]
pub struct Command {
    pub updates: Vec<Update>,
    /// Whether it is a list of updates, with indices in its answer.
    pub is_list: bool,
    /// Whether items that are not named are removed.
    pub replaces: bool,
}

impl Update {
    /// Whether it is dropped where the item has one of these versions; `None` where it depends on which.
    fn is_stale_behind(&self, versions: &[Option<i64>]) -> Option<bool> {
        // An update without a version is never stale, nor is one of an item that has none.
        let is_stale =
            |before: &Option<i64>| matches!((before, self.version), (Some(before), Some(own)) if own <= *before);
        let first = is_stale(versions.first()?);
        versions.iter().all(|before| is_stale(before) == first).then_some(first)
    }
}

/// An update that has its place.
#[derive(Debug)]
struct Entry {
    item: String,
    content: Option<String>,
    /// Versions that the item may have from then on: more than one where it is not known whether one was forgotten.
    versions: Vec<Option<i64>>,
    /// The item's count, where it follows from the list or somebody was told.
    seq: Option<u64>,
}

/// An item while it is looked at whether a command finds room.
struct Counted {
    is_present: bool,
    versions: Vec<Option<i64>>,
}

/// All updates of an epoch: that with offset 1 is the first.
#[derive(Debug, Default)]
struct Epoch {
    name: String,
    updates: Vec<Entry>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Model {
    /// The newest is the last.
    epochs: Vec<Epoch>,
    items_max: usize,
    /// Whether a removal may be forgotten, and with it the item's version and count.
    is_forgetful: bool,
    asked: VecDeque<Command>,
}

impl Model {
    pub fn new(items_max: usize, is_forgetful: bool) -> Model {
        Model { epochs: vec![Epoch::default()], items_max, is_forgetful, asked: VecDeque::new() }
    }

    pub fn ask(&mut self, command: Command) {
        self.asked.push_back(command);
    }

    /// Commands whose answers have not come.
    pub fn asked(&self) -> usize {
        self.asked.len()
    }

    fn now(&self) -> &Epoch {
        self.epochs.last().expect("there is always one")
    }

    /// The publisher is answered.
    pub fn hear_answer(&mut self, answer: &Value) {
        let command = self.asked.pop_front().expect("an answer to a command");
        if answer["type"] == "error" {
            return self.hear_refusal(&command, answer);
        }
        assert_eq!(answer["type"], "ack", "{answer}");
        self.enter_epoch(answer["epoch"].as_str().expect("an epoch"));
        let stale = match (&answer["stale"], command.is_list) {
            (Value::Null, _) => Vec::new(),
            (Value::Bool(true), false) => vec![0],
            (list, true) => serde_json::from_value(list.clone()).expect("indices"),
            (other, false) => panic!("stale or not, not {other}"),
        };
        assert_eq!(self.refused_at(&command, |at| stale.contains(&at)), None, "{command:?} finds no room: {answer}");
        for (at, update) in command.updates.iter().enumerate() {
            self.place(update, stale.contains(&at));
        }
        if command.replaces {
            self.remove_others(&command);
        }
        assert_eq!(answer["offset"], json!(self.now().updates.len()), "one offset for each: {command:?}: {answer}");
    }

    fn hear_refusal(&self, command: &Command, answer: &Value) {
        assert_eq!(answer["code"], "too_many_items", "{answer}");
        // Nobody says which of its updates would have been stale: the bits of each choice.
        let choices = 0..1_u32 << command.updates.len();
        let mut may_be = choices.into_iter().filter_map(|stale| self.refused_at(command, |at| stale >> at & 1 == 1));
        let index = answer["index"].as_u64();
        let is_right = may_be.any(|at| index == command.is_list.then_some(at as u64));
        assert!(is_right, "{command:?} finds room: {answer}");
    }

    /// The first update of a command for which there is no place, if there is one. `is_stale` says by its index of which
    /// updates it has to be so where the list leaves it open.
    fn refused_at(&self, command: &Command, is_stale: impl Fn(usize) -> bool) -> Option<usize> {
        let mut items: BTreeMap<&str, Counted> = BTreeMap::new();
        for entry in &self.now().updates {
            items.insert(
                &entry.item,
                Counted {
                    is_present: entry.content.is_some(),
                    versions: versions_behind(Some(entry), self.is_forgetful),
                },
            );
        }
        if command.replaces {
            let is_named = |item: &str| command.updates.iter().any(|update| update.item == item);
            items.retain(|item, _| is_named(item));
        }
        for (at, update) in command.updates.iter().enumerate() {
            let unknown = Counted { is_present: false, versions: versions_behind(None, self.is_forgetful) };
            let item = items.entry(&update.item).or_insert(unknown);
            let is_stale = update.is_stale_behind(&item.versions).unwrap_or_else(|| is_stale(at));
            item.versions.retain(|before| update.is_stale_behind(&[*before]) == Some(is_stale));
            if is_stale {
                continue;
            }
            if update.version.is_some() {
                item.versions = vec![update.version];
            }
            let was_present = std::mem::replace(&mut item.is_present, update.content.is_some());
            let is_new = update.content.is_some() && !was_present;
            if is_new && items.values().filter(|item| item.is_present).count() > self.items_max {
                return Some(at);
            }
        }
        None
    }

    /// A room of which nothing was left begins a new epoch.
    fn enter_epoch(&mut self, name: &str) {
        let now = self.epochs.last_mut().expect("there is always one");
        if now.name.is_empty() {
            name.clone_into(&mut now.name);
        }
        if now.name == name {
            return;
        }
        assert!(self.epochs.iter().all(|epoch| epoch.name != name), "an epoch comes once");
        assert!(self.may_be_unknown(), "what has items, or remembers removals, keeps its epoch");
        self.epochs.push(Epoch { name: name.to_owned(), updates: Vec::new() });
    }

    /// Whether nothing of the room may be left.
    fn may_be_unknown(&self) -> bool {
        let is_empty = self.newest().values().all(|known| known.content.is_none());
        is_empty && (self.is_forgetful || self.now().updates.is_empty())
    }

    fn place(&mut self, update: &Update, is_stale: bool) {
        let is_forgetful = self.is_forgetful;
        let epoch = self.epochs.last_mut().expect("there is always one");
        let last = epoch.updates.iter_mut().rev().find(|entry| entry.item == update.item);
        let may_be_forgotten = is_forgetful && last.as_ref().is_none_or(|last| last.content.is_none());
        let mut versions = versions_behind(last.as_deref(), is_forgetful);
        versions.retain(|before| update.is_stale_behind(&[*before]) == Some(is_stale));
        assert!(!versions.is_empty(), "{update:?} is stale: {is_stale}, behind {last:?}");
        if is_stale {
            if let Some(last) = last {
                last.versions = versions;
            }
            return;
        }
        if update.version.is_some() {
            versions = vec![update.version];
        }
        let seq = match last {
            _ if may_be_forgotten => None,
            None => Some(1),
            Some(last) => last.seq.map(|seq| seq + 1),
        };
        let (item, content) = (update.item.clone(), update.content.clone());
        epoch.updates.push(Entry { item, content, versions, seq });
    }

    /// Items that a command does not name are removed, the one first whose last update is the oldest.
    fn remove_others(&mut self, command: &Command) {
        let newest = self.newest();
        let is_other = |item: &str| command.updates.iter().all(|update| update.item != item);
        let mut others: Vec<(u64, String)> = newest
            .into_iter()
            .filter(|(item, known)| known.content.is_some() && is_other(item))
            .map(|(item, known)| (known.offset, item))
            .collect();
        others.sort();
        for (_, item) in others {
            self.place(&Update { item, content: None, version: None }, false);
        }
    }

    /// Somebody was sent an update: it stands in the list.
    pub fn hear_update(&mut self, epoch: &str, item: &str, known: &Known) {
        let epoch = self.epochs.iter_mut().find(|known| known.name == epoch);
        let epoch = epoch.unwrap_or_else(|| panic!("{item} came in an epoch without updates"));
        let at = usize::try_from(known.offset).expect("64-bit sizes") - 1;
        let (before, from) = epoch.updates.split_at_mut(at);
        let entry = from
            .first_mut()
            .unwrap_or_else(|| panic!("{item} came at {}, and nothing was published there", known.offset));
        assert_eq!((&*entry.item, &entry.content), (item, &known.content), "what was published at {}", known.offset);
        let seq = *entry.seq.get_or_insert(known.seq);
        assert_eq!(seq, known.seq, "the count of {item} at {}", known.offset);
        let last = before.iter().rev().find(|before| before.item == item);
        let last = last.and_then(|last| last.seq);
        assert!(last.is_none_or(|last| last < seq), "the count of {item} at {} grows", known.offset);
    }

    /// Of each item the newest update. The count is 0 where nobody was told of it.
    pub fn newest(&self) -> BTreeMap<String, Known> {
        let entries = self.now().updates.iter().zip(1..);
        let known = |(entry, offset): (&Entry, u64)| {
            let known = Known { seq: entry.seq.unwrap_or(0), offset, content: entry.content.clone() };
            (entry.item.clone(), known)
        };
        entries.map(known).collect()
    }

    /// The same for who is in this epoch.
    pub fn newest_of(&self, epoch: &str) -> BTreeMap<String, Known> {
        if self.now().name == epoch {
            return self.newest();
        }
        assert!(self.may_be_unknown(), "who is in the room is in its epoch");
        BTreeMap::new()
    }
}

/// Versions that an item may have behind its last update: none, if that was a removal which may be forgotten.
fn versions_behind(last: Option<&Entry>, is_forgetful: bool) -> Vec<Option<i64>> {
    let mut versions = last.map_or_else(|| vec![None], |last| last.versions.clone());
    if is_forgetful && last.is_none_or(|last| last.content.is_none()) && !versions.contains(&None) {
        versions.push(None);
    }
    versions
}

//! Commands that are on their way: what is not acked, and what has to be sent again. Sees no socket.
//!
//! ```text
//!   Flowing ─ refused for now, or one update of many is bad ─► Halted: nothing new is sent
//!      ▲                                                          │ all others are answered, and the pause is over
//!      └── what was refused goes again, without what is older ◄───┘
//! ```
//!
//! A command that is sent again is known by its key: the server counts it once. What was refused while later commands
//! were not may hold values that are older than those that are there now; they are left out.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::update::{Place, Update};

/// Commands that may wait for their acks.
const COMMANDS_MAX: usize = 64;

/// Bytes of updates in them.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// A command whose ack is awaited.
#[derive(Debug)]
struct Command {
    updates: Vec<Update>,
    /// The last place that was read for it.
    last: Place,
    bytes: usize,
    sent_at: Instant,
}

/// What was refused, and what happened since.
#[derive(Debug)]
struct Halt {
    until: Instant,
    refused: BTreeMap<u64, Command>,
    /// The newest command that was acked for each item since.
    newer: HashMap<String, u64>,
}

/// The commands.
#[derive(Debug)]
pub(super) struct Window {
    room: String,
    /// What keys begin with: another in every process.
    run: String,
    next: u64,
    unacked: BTreeMap<u64, Command>,
    bytes: usize,
    halt: Option<Halt>,
    /// Last places of commands that are done while an earlier one is not.
    done: BTreeMap<u64, Place>,
    /// Up to where all is done.
    reached: Option<Place>,
}

impl Window {
    /// Of this room, with keys that begin like this.
    pub(super) fn new(room: &str, run: String) -> Window {
        Window {
            room: room.to_owned(),
            run,
            next: 0,
            unacked: BTreeMap::new(),
            bytes: 0,
            halt: None,
            done: BTreeMap::new(),
            reached: None,
        }
    }

    /// Whether one more command may be on its way.
    pub(super) fn has_room(&self) -> bool {
        self.halt.is_none() && self.unacked.len() < COMMANDS_MAX && self.bytes < BYTES_MAX
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.halt.is_none() && self.unacked.is_empty()
    }

    /// A new command, to be sent. `last` is the last place that was read for it.
    pub(super) fn add(&mut self, updates: Vec<Update>, last: Place, now: Instant) -> String {
        let number = self.next;
        self.next += 1;
        self.insert(number, updates, last, now)
    }

    /// A command is acked: how many updates it held, if it was on its way.
    pub(super) fn acked(&mut self, number: u64) -> Option<usize> {
        let Command { updates, last, bytes, .. } = self.unacked.remove(&number)?;
        self.bytes -= bytes;
        let count = updates.len();
        if let Some(halt) = &mut self.halt {
            halt.newer.extend(updates.into_iter().map(|update| (update.item, number)));
        }
        self.finish(number, last);
        Some(count)
    }

    /// A command was refused, and may be sent again after a pause. Answers whether it was on its way.
    pub(super) fn refused(&mut self, number: u64, pause: Duration, now: Instant) -> bool {
        let Some(command) = self.unacked.remove(&number) else { return false };
        self.bytes -= command.bytes;
        let new = || Halt { until: now, refused: BTreeMap::new(), newer: HashMap::new() };
        let halt = self.halt.get_or_insert_with(new);
        halt.until = halt.until.max(now + pause);
        halt.refused.insert(number, command);
        true
    }

    /// One update of a command was refused for good, and with it all of the command: what it was. The rest goes again.
    pub(super) fn without(&mut self, number: u64, index: usize, now: Instant) -> Option<Update> {
        let command = self.unacked.get_mut(&number)?;
        if index >= command.updates.len() {
            return None;
        }
        let update = command.updates.remove(index);
        self.refused(number, Duration::ZERO, now);
        Some(update)
    }

    /// The place of the first update of a command that is on its way.
    pub(super) fn first_of(&self, number: u64) -> Option<&Place> {
        Some(&self.unacked.get(&number)?.updates.first()?.place)
    }

    /// When something is due: the end of a halt's pause, or the answer to the oldest command.
    pub(super) fn next_at(&self, patience: Duration) -> Option<Instant> {
        let halted = self.halt.as_ref().filter(|_| self.unacked.is_empty()).map(|halt| halt.until);
        let answer = self.unacked.values().map(|command| command.sent_at + patience).min();
        halted.or(answer)
    }

    /// Whether an answer has not come for so long.
    pub(super) fn is_overdue(&self, patience: Duration, now: Instant) -> bool {
        self.unacked.values().any(|command| command.sent_at + patience <= now)
    }

    /// Commands to be sent again, once all others are answered and the pause is over; and how many of their updates are
    /// left out, since newer ones of their items are there.
    pub(super) fn resume(&mut self, now: Instant) -> (Vec<String>, usize) {
        match &self.halt {
            Some(halt) if self.unacked.is_empty() && halt.until <= now => self.send_refused(now),
            Some(_) | None => (Vec::new(), 0),
        }
    }

    /// After a lost connection: everything that is not acked, in order, and how many updates are left out.
    pub(super) fn again(&mut self, now: Instant) -> (Vec<String>, usize) {
        let (mut texts, superseded) = self.send_refused(now);
        texts.clear();
        for (number, command) in &mut self.unacked {
            command.sent_at = now;
            texts.push(text(&self.room, &self.run, *number, &command.updates));
        }
        (texts, superseded)
    }

    /// Updates that are on their way, or wait to be.
    pub(super) fn updates(&self) -> usize {
        let refused = self.halt.iter().flat_map(|halt| halt.refused.values());
        self.unacked.values().chain(refused).map(|command| command.updates.len()).sum()
    }

    /// The oldest place that is not done.
    pub(super) fn oldest(&self) -> Option<&Place> {
        let refused = self.halt.iter().flat_map(|halt| halt.refused.iter());
        let (_, command) = self.unacked.iter().chain(refused).min_by_key(|(number, _)| **number)?;
        command.updates.first().map(|update| &update.place)
    }

    /// Up to where everything is done, where that has gone on since this was last asked.
    pub(super) fn take_reached(&mut self) -> Option<Place> {
        self.reached.take()
    }

    fn send_refused(&mut self, now: Instant) -> (Vec<String>, usize) {
        let Some(Halt { refused, newer, .. }) = self.halt.take() else { return (Vec::new(), 0) };
        let (mut texts, mut superseded) = (Vec::new(), 0);
        for (number, Command { mut updates, last, .. }) in refused {
            let before = updates.len();
            updates.retain(|update| newer.get(&update.item).is_none_or(|newer| *newer < number));
            superseded += before - updates.len();
            match updates.is_empty() {
                true => self.finish(number, last),
                false => texts.push(self.insert(number, updates, last, now)),
            }
        }
        (texts, superseded)
    }

    fn insert(&mut self, number: u64, updates: Vec<Update>, last: Place, now: Instant) -> String {
        let text = text(&self.room, &self.run, number, &updates);
        self.bytes += text.len();
        self.unacked.insert(number, Command { updates, last, bytes: text.len(), sent_at: now });
        text
    }

    fn finish(&mut self, number: u64, last: Place) {
        self.done.insert(number, last);
        let refused = self.halt.iter().flat_map(|halt| halt.refused.keys());
        let oldest = self.unacked.keys().chain(refused).min().copied().unwrap_or(u64::MAX);
        while let Some(entry) = self.done.first_entry()
            && *entry.key() < oldest
        {
            self.reached = Some(entry.remove());
        }
    }
}

/// A command of these updates.
fn text(room: &str, run: &str, number: u64, updates: &[Update]) -> String {
    let bytes: usize = updates.iter().map(|update| update.json.len() + 1).sum();
    let mut text = String::with_capacity(bytes + room.len() + run.len() + 96);
    text.push_str(r#"{"type":"room_msgs","roomId":"#);
    text.push_str(&Value::from(room).to_string());
    text.push_str(&format!(r#","id":{number},"key":"{run}-{number}","updates":["#));
    for (index, update) in updates.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(&update.json);
    }
    text.push_str("]}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(item: &str, number: u64) -> Update {
        Update::of_line(format!(r#"{{"item":"{item}","content":{number}}}"#).as_bytes(), number).unwrap()
    }

    fn window() -> Window {
        Window::new("px", "run".to_owned())
    }

    fn add(window: &mut Window, updates: &[(&str, u64)]) -> String {
        let updates: Vec<Update> = updates.iter().map(|(item, number)| update(item, *number)).collect();
        let last = updates.last().unwrap().place.clone();
        window.add(updates, last, Instant::now())
    }

    #[test]
    fn a_command_carries_its_key() {
        let mut window = window();
        let text = add(&mut window, &[("A", 1), ("B", 2)]);
        assert_eq!(
            text,
            r#"{"type":"room_msgs","roomId":"px","id":0,"key":"run-0","updates":[{"item":"A","content":1},{"item":"B","content":2}]}"#
        );
        assert_eq!(window.again(Instant::now()), (vec![text], 0));
        assert_eq!((window.updates(), window.oldest()), (2, Some(&Place::Line(1))));
    }

    #[test]
    fn what_is_reached_has_nothing_undone_in_front_of_it() {
        let mut window = window();
        for number in 1..=4 {
            add(&mut window, &[("A", number)]);
        }
        assert_eq!(window.acked(1), Some(1));
        assert_eq!(window.take_reached(), None);
        assert_eq!(window.acked(0), Some(1));
        assert_eq!(window.take_reached(), Some(Place::Line(2)));
        assert!(window.refused(2, Duration::ZERO, Instant::now()));
        assert_eq!((window.acked(3), window.take_reached()), (Some(1), None));
        assert_eq!((window.acked(9), window.has_room(), window.is_empty()), (None, false, false));
        // A newer value of its only item is there.
        assert_eq!(window.resume(Instant::now()), (Vec::new(), 1));
        assert_eq!((window.take_reached(), window.is_empty()), (Some(Place::Line(4)), true));
    }

    #[test]
    fn what_was_refused_goes_again_without_what_is_older() {
        let mut window = window();
        add(&mut window, &[("A", 1), ("B", 2)]);
        add(&mut window, &[("B", 3)]);
        add(&mut window, &[("A", 4)]);
        let now = Instant::now();
        window.refused(0, Duration::from_millis(200), now);
        window.refused(2, Duration::from_millis(100), now);
        assert_eq!(window.resume(now + Duration::from_secs(1)), (Vec::new(), 0), "one is not answered");
        window.acked(1);
        assert_eq!(window.next_at(Duration::ZERO), Some(now + Duration::from_millis(200)));
        assert_eq!(window.resume(now), (Vec::new(), 0), "the pause is not over");
        let (texts, superseded) = window.resume(now + Duration::from_millis(200));
        assert_eq!(superseded, 1);
        let first = r#"{"type":"room_msgs","roomId":"px","id":0,"key":"run-0","updates":[{"item":"A","content":1}]}"#;
        let second = r#"{"type":"room_msgs","roomId":"px","id":2,"key":"run-2","updates":[{"item":"A","content":4}]}"#;
        assert_eq!(texts, [first, second]);
        assert!(window.has_room());
    }

    #[test]
    fn a_bad_update_is_taken_out_and_the_rest_goes_again() {
        let mut window = window();
        add(&mut window, &[("A", 1), ("B", 2), ("C", 3)]);
        let now = Instant::now();
        assert_eq!(window.without(0, 3, now), None);
        assert_eq!(window.without(0, 1, now).map(|update| update.place), Some(Place::Line(2)));
        let (texts, _) = window.resume(now);
        assert!(texts[0].ends_with(r#"[{"item":"A","content":1},{"item":"C","content":3}]}"#), "{texts:?}");
        add(&mut window, &[("D", 4)]);
        assert_eq!(window.acked(0), Some(2));
        assert_eq!(window.without(1, 0, now).map(|update| update.place), Some(Place::Line(4)));
        assert_eq!(window.resume(now), (Vec::new(), 0));
        assert_eq!((window.is_empty(), window.take_reached()), (true, Some(Place::Line(4))));
    }

    #[test]
    fn after_a_lost_connection_everything_goes_again_in_order() {
        let mut window = window();
        for number in 1..=4 {
            add(&mut window, &[("A", number)]);
        }
        let now = Instant::now();
        window.acked(0);
        window.refused(2, Duration::from_secs(9), now);
        let (texts, superseded) = window.again(now);
        let numbers: Vec<_> = texts.iter().map(|text| text.split_once("run-").unwrap().1.as_bytes()[0]).collect();
        assert_eq!((numbers, superseded), (b"123".to_vec(), 0));
    }
}

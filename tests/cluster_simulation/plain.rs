//! Topics without history: nothing twice, each publisher's order, and nothing missed while nothing is in trouble.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_simulated::message::Serial;

use super::said::{AllSaid, GuestAt, Topic};

/// What makes a guest a receiver: the same number as long as it is one without a break.
pub type Membership = u64;

/// Who must get a message.
#[derive(Debug, Default)]
pub struct Due {
    /// Members on the publisher's node, whatever happens in between.
    pub here: Vec<(GuestAt, Membership)>,
    /// Members on other nodes, if nothing does.
    pub elsewhere: Vec<(GuestAt, Membership)>,
}

#[derive(Debug, Default)]
struct Seen {
    serials: BTreeSet<Serial>,
    /// The last of each publisher.
    last_of: BTreeMap<GuestAt, Serial>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Plain {
    seen: BTreeMap<(GuestAt, Topic), Seen>,
    due: BTreeMap<Serial, Due>,
    /// What was said before this was heard of for the last time.
    settled: Serial,
    pub received: u64,
    pub demanded_here: u64,
    pub demanded_elsewhere: u64,
}

impl Plain {
    /// A message was said.
    pub fn publish(&mut self, serial: Serial, due: Due) {
        self.due.insert(serial, due);
    }

    /// A message has come.
    pub fn receive(&mut self, guest: GuestAt, topic: &Topic, serial: Serial, all: &AllSaid) {
        let by = all.get(serial).by;
        let what = format!("#{serial}# to {topic:?} at guest {guest}");
        assert!(serial >= self.settled, "{what} comes after everything had come to rest");
        let seen = self.seen.entry((guest, topic.clone())).or_default();
        assert!(seen.serials.insert(serial), "{what} comes twice");
        let last = seen.last_of.insert(by, serial);
        assert!(last.is_none_or(|last| last < serial), "{what} comes behind #{last:?}# of guest {by}");
        self.received += 1;
    }

    /// Everything has come to rest. `is_member` tells whether a guest has been a receiver all the while, `has_said`
    /// whether a publisher is still there, `is_calm` whether nothing was in trouble since the last rest.
    pub fn judge_rest(
        &mut self,
        all: &AllSaid,
        next: Serial,
        is_calm: bool,
        has_said: impl Fn(GuestAt) -> bool,
        is_member: impl Fn(GuestAt, &Topic, Membership) -> bool,
    ) {
        for (serial, due) in std::mem::take(&mut self.due) {
            let said = all.get(serial);
            if !has_said(said.by) {
                continue;
            }
            let here = due.here.into_iter().map(|member| (member, "here"));
            let elsewhere = due.elsewhere.into_iter().filter(|_| is_calm).map(|member| (member, "elsewhere"));
            for ((guest, membership), wherefrom) in here.chain(elsewhere) {
                if !is_member(guest, &said.topic, membership) {
                    continue;
                }
                let seen = self.seen.get(&(guest, said.topic.clone()));
                let has_come = seen.is_some_and(|seen| seen.serials.contains(&serial));
                assert!(
                    has_come,
                    "#{serial}# of guest {} to {:?} never came to guest {guest} {wherefrom}",
                    said.by, said.topic
                );
                match wherefrom {
                    "here" => self.demanded_here += 1,
                    _ => self.demanded_elsewhere += 1,
                }
            }
        }
        self.seen.clear();
        self.settled = next;
    }
}

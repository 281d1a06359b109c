//! Topics with history: each connection reads an epoch in order, each message once, and is told of every break.

use std::collections::BTreeMap;

use fanfare::ids::ConnId;
use fanfare_simulated::message::{Page, Position, Serial, Wish};

use super::redis::Redis;
use super::said::{GuestAt, Topic};

/// What may excuse a break.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    pub redis: &'a Redis,
    /// Whether nothing was in trouble since the last rest.
    pub is_calm: bool,
    /// Whether nodes have hardly any room for history.
    pub is_forgetful: bool,
    /// Whether all data was ever deleted under living connections: nobody hears of that before there is something new.
    pub is_flushed: bool,
}

/// What a break, or that there is none, shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Recovered,
    RecoveredNothing,
    NotRecovered,
    GapInEpoch,
    NewEpoch,
}

/// One connection as it reads one topic.
#[derive(Debug)]
struct Reader {
    /// Whose own messages it does not get live, with the node's run.
    conn: (u64, ConnId),
    /// Where it is; `None` before it was told.
    live: Option<Position>,
    /// What it has asked for, and what came of that.
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    wish: Wish,
    came: Vec<(u64, Serial)>,
    /// How many epochs had begun.
    begun: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Kept {
    readers: BTreeMap<(GuestAt, Topic), Reader>,
    /// Messages that came live, and those that came out of history.
    pub live: u64,
    pub recovered: u64,
}

impl Kept {
    /// A connection joins a room.
    pub fn join(&mut self, guest: GuestAt, topic: &Topic, conn: (u64, ConnId), wish: Wish, facts: Facts<'_>) {
        let asked = Some(Asked { wish, came: Vec::new(), begun: facts.redis.chronicle.begun() });
        let before = self.readers.insert((guest, topic.clone()), Reader { conn, live: None, asked });
        assert!(before.is_none(), "guest {guest} joins {topic:?} as a member");
    }

    /// Its inbox is open, and perhaps known to be at a place.
    pub fn welcome(&mut self, guest: GuestAt, topic: &Topic, conn: (u64, ConnId), live: Option<Position>) {
        self.readers.insert((guest, topic.clone()), Reader { conn, live, asked: None });
    }

    /// Where a reader is.
    pub fn position(&self, guest: GuestAt, topic: &Topic) -> Option<&Position> {
        self.readers.get(&(guest, topic.clone()))?.live.as_ref()
    }

    /// It asks for what came to its inbox before it was welcomed.
    pub fn resume(&mut self, guest: GuestAt, topic: &Topic, from: Position, facts: Facts<'_>) {
        let reader = self.reader(guest, topic);
        assert!(reader.asked.is_none());
        let begun = facts.redis.chronicle.begun();
        reader.asked = Some(Asked { wish: Wish::Since(from), came: Vec::new(), begun });
    }

    /// It has left the topic, or could not join.
    pub fn leave(&mut self, guest: GuestAt, topic: &Topic) {
        if let Some(reader) = self.readers.remove(&(guest, topic.clone())) {
            let came = reader.asked.map_or(0, |asked| asked.came.len());
            assert_eq!(came, 0, "guest {guest} could not join {topic:?}, and got something out of its history");
        }
    }

    /// What it asked for of its inbox was refused.
    pub fn refuse_resume(&mut self, guest: GuestAt, topic: &Topic) {
        let came = self.reader(guest, topic).asked.take().map_or(0, |asked| asked.came.len());
        assert_eq!(came, 0, "guest {guest} could not resume, and got something out of its inbox's history");
    }

    /// The connection is over.
    pub fn die(&mut self, guest: GuestAt) {
        self.readers.retain(|(other, _), _| *other != guest);
    }

    /// A message has come.
    pub fn receive(&mut self, guest: GuestAt, topic: &Topic, offset: u64, serial: Serial, facts: Facts<'_>) {
        let chronicle = &facts.redis.chronicle;
        let channel = topic.channel();
        let reader = self.reader(guest, topic);
        if let (Some(live), Some(asked)) = (&reader.live, &mut reader.asked) {
            let next = chronicle.epoch(&channel, &live.epoch).and_then(|epoch| epoch.written.get(&offset));
            let is_next = offset == live.offset + 1 && next.is_some_and(|next| next.serial == serial);
            if !is_next {
                return asked.came.push((offset, serial));
            }
        }
        let conn = reader.conn;
        match (&mut reader.live, &mut reader.asked) {
            (Some(live), _) => {
                let what = || format!("guest {guest}, which is at {live:?} of {topic:?}, gets #{serial}# as {offset}");
                assert!(offset > live.offset, "{}", what());
                for missed in live.offset + 1..offset {
                    let written = chronicle.written(&channel, &live.epoch, missed);
                    assert_eq!(written.exclude, Some(conn), "{}: it has missed {missed}", what());
                }
                let written = chronicle.written(&channel, &live.epoch, offset);
                assert_eq!(written.serial, serial, "{}", what());
                assert_ne!(written.exclude, Some(conn), "{}: it is its own", what());
                live.offset = offset;
                self.live += 1;
            }
            (None, Some(asked)) => asked.came.push((offset, serial)),
            (None, None) => panic!("guest {guest} gets #{serial}# of {topic:?} and does not know where it is"),
        }
    }

    /// It is told of a break.
    pub fn gap(&mut self, guest: GuestAt, topic: &Topic, to: Position, facts: Facts<'_>) -> Told {
        let channel = topic.channel();
        let live = self.reader(guest, topic).live.replace(to.clone());
        check_place(&channel, &to, facts);
        let what = format!("guest {guest} of {topic:?} is told of a gap from {live:?} to {to:?}");
        let Some(live) = live else { return Told::Nothing };
        if live.epoch != to.epoch {
            assert!(!facts.is_calm || facts.is_flushed, "{what}, and nothing was in trouble");
            return Told::NewEpoch;
        }
        assert!(!facts.is_calm, "{what}, and nothing was in trouble");
        assert!(to.offset > live.offset, "{what}");
        assert!(facts.redis.is_gone(&channel, &live.epoch, live.offset + 1), "{what}, and the next one is there");
        Told::GapInEpoch
    }

    /// It is in, or has been told what there was of its inbox. `recovered` as it was said.
    pub fn answer(
        &mut self,
        guest: GuestAt,
        topic: &Topic,
        place: Option<Position>,
        recovered: Option<bool>,
        facts: Facts<'_>,
    ) -> Told {
        let reader = self.reader(guest, topic);
        let asked = reader.asked.take().expect("what is answered was asked");
        let what = format!("guest {guest} of {topic:?}, which wished for {asked:?}, is told {recovered:?}, {place:?}");
        assert_eq!(recovered.is_some(), matches!(asked.wish, Wish::Since(_)), "{what}");
        if let (Topic::Room(_), Some(place)) = (topic, &place) {
            reader.live = Some(place.clone());
        }
        assert!(place.is_some() || recovered == Some(false), "{what}");
        let Some(place) = place else { return Told::NotRecovered };
        let channel = topic.channel();
        check_place(&channel, &place, facts);
        self.recovered += asked.came.len() as u64;
        for (offset, serial) in &asked.came {
            assert_eq!(facts.redis.chronicle.written(&channel, &place.epoch, *offset).serial, *serial, "{what}");
        }
        let offsets: Vec<u64> = asked.came.iter().map(|(offset, _)| *offset).collect();
        let is_there = |offset| !facts.redis.is_gone(&channel, &place.epoch, offset) && !facts.is_forgetful;
        match asked.wish {
            Wish::Nothing => {
                assert!(offsets.is_empty(), "{what}");
                Told::Nothing
            }
            Wish::Last(count) => {
                let first = place.offset + 1 - offsets.len() as u64;
                assert!(offsets.len() as u64 <= count, "{what}");
                assert!(offsets.into_iter().eq(first..=place.offset), "{what}");
                let is_all = first + count == place.offset + 1 || first == 1;
                assert!(is_all || !is_there(first - 1), "{what}, and {} is there", first - 1);
                Told::Nothing
            }
            Wish::Since(from) if recovered == Some(true) => {
                assert_eq!(from.epoch, place.epoch, "{what}");
                assert!(offsets.iter().copied().eq(from.offset + 1..=place.offset), "{what}");
                if offsets.is_empty() { Told::RecoveredNothing } else { Told::Recovered }
            }
            Wish::Since(from) => {
                assert!(offsets.is_empty(), "{what}");
                check_loss(&channel, &from, &place, asked.begun, &what, facts);
                Told::NotRecovered
            }
        }
    }

    /// A page of history has come.
    pub fn page(
        &mut self,
        guest: GuestAt,
        topic: &Topic,
        page: &Page,
        place: &Position,
        messages: &[(u64, Serial)],
        facts: Facts<'_>,
    ) {
        let channel = topic.channel();
        let what = format!("guest {guest} gets {messages:?} up to {place:?} of {topic:?} for {page:?}");
        check_place(&channel, place, facts);
        let end = page.before.unwrap_or(u64::MAX).min(place.offset + 1);
        let first = end.saturating_sub(messages.len() as u64);
        assert!(messages.len() as u64 <= page.limit, "{what}");
        for (expected, (offset, serial)) in (first..).zip(messages) {
            assert_eq!(*offset, expected, "{what}");
            assert_eq!(facts.redis.chronicle.written(&channel, &place.epoch, *offset).serial, *serial, "{what}");
        }
        let is_all = messages.len() as u64 == page.limit || first <= 1;
        let is_gone = facts.is_forgetful || is_all || facts.redis.is_gone(&channel, &place.epoch, first - 1);
        assert!(is_gone, "{what}, and there is more");
    }

    /// Everything has come to rest: every reader is where its topic ends.
    pub fn judge_rest(&self, facts: Facts<'_>) {
        for ((guest, topic), reader) in &self.readers {
            assert!(reader.asked.is_none(), "guest {guest}: what it asked of {topic:?} is not answered");
            let channel = topic.channel();
            let Some((epoch, last)) = facts.redis.primary().and_then(|primary| primary.end(&channel)) else { continue };
            let Some(live) = &reader.live else {
                panic!("guest {guest}: everything rests, and it does not know where it is in {topic:?}")
            };
            let what = format!("guest {guest} is at {live:?} of {topic:?}, which is at {last} of {epoch}");
            if *live.epoch != **epoch {
                let has_new = facts.redis.chronicle.epoch(&channel, epoch).is_some_and(|epoch| epoch.has_new());
                assert!(!has_new, "{what}");
                continue;
            }
            for offset in live.offset + 1..=*last {
                let written = facts.redis.chronicle.written(&channel, epoch, offset);
                assert_eq!(written.exclude, Some(reader.conn), "{what}");
            }
        }
    }

    fn reader(&mut self, guest: GuestAt, topic: &Topic) -> &mut Reader {
        let reader = self.readers.get_mut(&(guest, topic.clone()));
        reader.unwrap_or_else(|| panic!("guest {guest} is no member of {topic:?}"))
    }
}

/// What clients are told is a place that there was.
fn check_place(channel: &str, place: &Position, facts: Facts<'_>) {
    let Some(epoch) = facts.redis.chronicle.epoch(channel, &place.epoch) else {
        panic!("{channel}: there never was an epoch {}", place.epoch)
    };
    assert!(place.offset <= epoch.last, "{channel}: {place:?} is still to come");
}

/// What is said to be lost has to be.
fn check_loss(channel: &str, from: &Position, place: &Position, begun: u64, what: &str, facts: Facts<'_>) {
    let redis = facts.redis;
    if facts.is_forgetful || redis.is_split() {
        return;
    }
    let Some(primary) = redis.primary() else { return };
    // What a replica has kept of an epoch that is over is none of its own.
    let is_current =
        from.epoch.starts_with(&primary.run) && primary.end(channel).is_some_and(|(epoch, _)| **epoch == *from.epoch);
    let was_before = redis.chronicle.epoch(channel, &from.epoch).is_some_and(|epoch| epoch.begun <= begun);
    if !is_current || !was_before {
        return;
    }
    assert_eq!(from.epoch, place.epoch, "{what}, and that is the epoch");
    assert!(from.offset < place.offset, "{what}, and it has missed nothing");
    assert!(redis.is_gone(channel, &from.epoch, from.offset + 1), "{what}, and the next one is there");
}

//! What a subscriber of the keyed room shows, held against what it may: no value is older than one before, none is missing
//! where each is promised, and what it does not know of it was told.

use std::collections::BTreeMap;

use super::audit::Place;

/// An update as it was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tick {
    pub offset: u64,
    pub seq: u64,
    pub item: String,
    pub number: u64,
}

/// What was found. All of it must be zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// Values that are older than one that was shown.
    pub older: u64,
    /// Updates that somebody who gets each one was not sent, nor told of.
    pub missed: u64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Ladder {
    /// Whether it gets each update that it wants, and not the newest alone.
    gets_each: bool,
    /// Whether it wants all items.
    wants_all: bool,
    pub shown: BTreeMap<String, Tick>,
    /// Where it stands, as far as it knows.
    pub place: Option<Place>,
    pub is_member: bool,
    /// Whether what it shows may lack something, as it was told.
    pub lacks_some: bool,
    /// What came since it has asked to join.
    incoming: BTreeMap<String, Tick>,
    next_offset: Option<u64>,
    pub heard: u64,
    pub gaps: u64,
    pub flaws: Flaws,
}

impl Ladder {
    pub fn new(gets_each: bool, wants_all: bool) -> Ladder {
        Ladder { gets_each, wants_all, ..Ladder::default() }
    }

    /// It asks to join, on a new connection.
    pub fn ask(&mut self) {
        (self.is_member, self.next_offset) = (false, None);
        self.incoming.clear();
    }

    /// An update comes; the epoch in which its offset counts, where that is known.
    pub fn hear(&mut self, tick: Tick) -> Option<u32> {
        self.heard += 1;
        if !self.is_member {
            let older = self.incoming.get(&tick.item).is_some_and(|known| known.offset >= tick.offset);
            self.flaws.older += u64::from(older);
            self.incoming.insert(tick.item.clone(), tick);
            return None;
        }
        if let Some(next) = &mut self.next_offset {
            self.flaws.missed += tick.offset.saturating_sub(*next);
            self.flaws.older += u64::from(tick.offset < *next);
            *next = tick.offset + 1;
        }
        if let Some(place) = &mut self.place {
            place.offset = place.offset.max(tick.offset);
        }
        if let Some(known) = self.shown.get(&tick.item).filter(|_| self.gets_each && !self.wants_all) {
            self.flaws.missed += tick.seq.saturating_sub(known.seq + 1);
        }
        self.show(tick);
        self.place.map(|place| place.epoch)
    }

    fn show(&mut self, tick: Tick) {
        if let Some(known) = self.shown.get(&tick.item) {
            self.flaws.older += u64::from(known.offset >= tick.offset || known.number > tick.number);
        }
        self.shown.insert(tick.item.clone(), tick);
    }

    /// The join is answered; what came in front of that.
    pub fn join(&mut self, place: Place, recovered: Option<bool>) -> Vec<Tick> {
        let incoming = std::mem::take(&mut self.incoming);
        if recovered != Some(true) {
            self.shown.clear();
        }
        let ticks: Vec<Tick> = incoming.into_values().collect();
        ticks.iter().for_each(|tick| self.show(tick.clone()));
        (self.place, self.is_member, self.lacks_some) = (Some(place), true, false);
        self.next_offset = (self.gets_each && self.wants_all).then_some(place.offset + 1);
        ticks
    }

    /// It is told of a gap: what it knows says nothing any more.
    pub fn gap(&mut self, place: Place) {
        self.gaps += 1;
        self.shown.clear();
        self.place = Some(place);
        // Who gets the newest is sent all of them; others would have to join anew.
        self.lacks_some = self.gets_each;
        self.next_offset = self.next_offset.map(|_| place.offset + 1);
    }
}

/// The ladder is judged first: it finds nothing in what is as it should be, and each flaw.
pub fn prove() {
    let tick = |offset: u64, number: u64| Tick { offset, seq: number, item: "A".to_owned(), number };
    let place = |epoch: u32, offset: u64| Place { epoch, offset };
    let joined = |gets_each: bool| {
        let mut ladder = Ladder::new(gets_each, true);
        ladder.ask();
        ladder.hear(tick(3, 1));
        ladder.join(place(0, 4), None);
        ladder.hear(tick(5, 2));
        ladder
    };
    let flaws = |mut ladder: Ladder, tell: &dyn Fn(&mut Ladder)| {
        tell(&mut ladder);
        (ladder.flaws.older, ladder.flaws.missed)
    };
    assert_eq!(flaws(joined(true), &|_| {}), (0, 0));
    assert_eq!(flaws(joined(false), &|ladder| _ = ladder.hear(tick(9, 6))), (0, 0), "it gets the newest alone");
    assert_eq!(flaws(joined(true), &|ladder| _ = ladder.hear(tick(9, 6))), (0, 3));
    assert_eq!(flaws(joined(false), &|ladder| _ = ladder.hear(tick(5, 2))), (1, 0), "the same again");
    assert_eq!(flaws(joined(false), &|ladder| _ = ladder.hear(tick(7, 1))), (1, 0), "an older one");
    let comes_back = |ladder: &mut Ladder, offset: u64, recovered: bool| {
        ladder.ask();
        ladder.hear(tick(offset, 2));
        ladder.join(place(0, 5), Some(recovered));
    };
    assert_eq!(flaws(joined(false), &|ladder| comes_back(ladder, 4, true)), (1, 0), "older than what it had");
    assert_eq!(flaws(joined(false), &|ladder| comes_back(ladder, 4, false)), (0, 0), "it has forgotten what it had");
    let told = |ladder: &mut Ladder| {
        ladder.gap(place(1, 2));
        ladder.hear(tick(3, 1));
    };
    assert_eq!(flaws(joined(true), &told), (0, 0), "a gap leads anywhere");
}

//! Seeds of `keyed`: a script for each way to follow a keyed room, and for each that it may get difficult.

use fanfare_seeds::market::{Market, Room, Step, Terms, Update};

use super::Seed;

const LATEST: u8 = 1;
const INTERVAL: u8 = 2;
const VERSIONED: u8 = 4;
const REMOVAL: u8 = 6;
/// Content of a thousand bytes.
const LARGE: u8 = 6 << 3;

pub fn seeds() -> Vec<Seed> {
    let room = Room::default();
    let scripts = [
        ("modes", market(1, room, modes())),
        ("reactors", market(3, room, modes())),
        ("small-mailboxes", market(2, Room { small_mailboxes: true, ..room }, modes())),
        ("tunes", market(2, room, tunes())),
        ("stalls", market(2, room, stalls())),
        ("returns", market(2, room, returns())),
        ("forgetful-returns", market(2, Room { forgets: true, jumpy: true, ..room }, returns())),
        ("few-items", market(1, Room { few_items: true, ..room }, batches())),
        ("batches", market(2, room, batches())),
        ("history", market(2, Room { keeps_history: true, ..room }, returns())),
        ("stale", market(2, Room { gets_stale: true, jumpy: true, ..room }, stalls())),
    ];
    scripts.into_iter().map(|(name, market)| (name, market.write())).collect()
}

/// Every step has two turns of workers behind it.
fn market(reactors: u8, room: Room, steps: Vec<Step>) -> Market {
    Market { reactors, seed: 1, room, steps: steps.into_iter().map(|step| (2, step)).collect() }
}

fn publish(item: u8, what: u8, version: i8) -> Step {
    Step::Publish(Update { item, what, version })
}

fn join(guest: u8, bits: u8, filter: u8, resumes: bool) -> Step {
    Step::Join { guest, terms: Terms { bits, filter, names: 0x0D }, resumes }
}

fn read(guest: u8, amount: u8) -> Step {
    Step::Read { guest, amount }
}

/// Every mode and filter, with updates before, meanwhile and afterwards.
fn modes() -> Vec<Step> {
    let mut steps: Vec<Step> = (0..4).map(|item| publish(item, 0, 0)).collect();
    steps.extend((0..4).map(|guest| join(guest, guest * 3, guest, false)));
    for item in 0..12 {
        steps.extend([publish(item, [0, REMOVAL, VERSIONED][usize::from(item) % 3], 3), Step::Pass { ms: 7 }]);
    }
    steps.push(Step::Rest);
    steps
}

/// Everything about a subscription changes while updates flow.
fn tunes() -> Vec<Step> {
    let mut steps: Vec<Step> = (0..4).map(|guest| join(guest, LATEST, 0, false)).collect();
    for turn in 0..16 {
        let terms = Terms { bits: turn * 5, filter: turn, names: turn * 17 };
        steps.extend([publish(turn, 0, 0), Step::Tune { guest: turn, terms }, read(turn, 0)]);
    }
    steps
}

/// Some read little or nothing of much that comes.
fn stalls() -> Vec<Step> {
    let mut steps: Vec<Step> = (0..4).map(|guest| join(guest, LATEST | (INTERVAL * (guest % 2)), 0, false)).collect();
    for item in 0..24 {
        steps.extend([publish(item, LARGE, 0), read(item, 9), Step::Pass { ms: 30 }]);
    }
    steps.extend((0..4).map(|guest| read(guest, 0)));
    steps.push(publish(0, REMOVAL, 0));
    steps
}

/// Connections end, and their subscribers come back with a position or without.
fn returns() -> Vec<Step> {
    let mut steps: Vec<Step> = (0..4).map(|guest| join(guest, guest, guest, false)).collect();
    for turn in 0..8 {
        steps.extend([publish(turn, 0, 0), publish(turn + 1, REMOVAL, 0), read(turn, 0)]);
        steps.push(Step::Return { guest: turn, reactor: turn, way: turn });
        steps.extend([Step::Pass { ms: 200 }, publish(turn + 2, VERSIONED, 1), Step::Rest]);
        steps.push(join(turn, turn, turn, turn % 4 != 3));
    }
    steps.extend([Step::Leave { guest: 0 }, publish(0, 0, 0), join(0, LATEST, 0, true)]);
    steps
}

/// Lists of updates, and lists that say what is there.
fn batches() -> Vec<Step> {
    let list = |from: u8| -> Vec<Update> {
        (from..from + 7).map(|at| Update { item: at, what: at * 3, version: at.cast_signed() % 4 }).collect()
    };
    let mut steps = vec![join(0, 0, 0, false), join(1, LATEST, 0, false)];
    for turn in 0..10 {
        steps.push(Step::Batch { replace: turn % 3 == 2, updates: list(turn) });
        steps.push(publish(turn, VERSIONED, 2));
    }
    steps.push(Step::Batch { replace: true, updates: Vec::new() });
    steps
}

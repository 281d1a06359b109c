//! Seeds of `operations`: a script for each thing that a node is there for, and for each that may go wrong.

use fanfare_seeds::frame::{CLOSE, PING, TEXT};
use fanfare_seeds::script::{Hard, Script, Step, WORDS, Who};

use super::Seed;

pub fn seeds() -> Vec<Seed> {
    let calm = Hard::default();
    let tight = Hard { tight_outbox: true, tight_node: true, ..calm };
    let scripts = [
        ("room", script(2, calm, room())),
        ("room-with-notices", script(3, Hard { notices: true, ..calm }, room())),
        ("room-under-pressure", script(3, Hard { small_mailboxes: true, ..tight }, room())),
        ("everything", script(2, calm, everything())),
        ("few-rooms", script(1, Hard { few_rooms: true, ..calm }, everything())),
        ("jumpy", script(2, Hard { jumpy: true, ..calm }, silence())),
        ("full", script(1, Hard { few_places: true, ..calm }, crowd())),
        ("raw", script(2, calm, raw())),
        ("wild", script(2, calm, wild())),
        ("wild-and-tight", script(1, tight, wild())),
        ("drain", script(3, calm, drain())),
    ];
    scripts.into_iter().map(|(name, script)| (name, script.write())).collect()
}

/// Every step has two turns of workers behind it.
fn script(reactors: u8, hard: Hard, steps: Vec<Step>) -> Script {
    Script { reactors, seed: 1, hard, steps: steps.into_iter().map(|step| (2, step)).collect() }
}

fn connect(reactor: u8, way: u8, who: Who) -> Step {
    Step::Connect { reactor, way, who }
}

fn say(guest: u8, word: &str, about: u8, size: u8) -> Step {
    let word = WORDS.iter().position(|known| *known == word).expect("a word of scripts");
    Step::Say { guest, word: word as u8, about, size }
}

/// Three members, messages of all sizes, one that reads slowly, one that leaves, one that closes and one that vanishes.
fn room() -> Vec<Step> {
    let mut steps: Vec<Step> = (0..4).map(|at| connect(at, at, Who::User(at))).collect();
    steps.extend((0..4).map(|at| say(at, "join_room", 1, 0)));
    steps.push(Step::Rest);
    steps.extend((0..20).map(|at| say(at % 4, "room_msg", 1, [3, 200, 254, 100, 0][usize::from(at) % 5])));
    steps.push(say(0, "room_msg", 1, 255));
    steps.push(Step::Read { guest: 1, amount: 9 });
    steps.push(say(2, "leave_room", 1, 0));
    steps.extend((0..8).map(|at| say(at % 4, "room_msg", 1, at)));
    steps.push(Step::Close { guest: 0, code: 1 });
    steps.push(Step::Vanish { guest: 3 });
    steps
}

/// Every word, with an id and without, before the answer to the request and at rest.
fn everything() -> Vec<Step> {
    let mut steps = vec![connect(0, 0, Who::User(0)), connect(1, 1, Who::Anonymous), connect(1, 0, Who::User(1))];
    for about in [0, 1, 2, 0x80, 0x83, 0x47] {
        steps.extend(WORDS.iter().map(|word| say(about % 3, word, about, 5)));
        steps.push(Step::Rest);
    }
    steps
}

/// Clients that say nothing for long, or read nothing.
fn silence() -> Vec<Step> {
    let mut steps = vec![connect(0, 0, Who::User(0)), connect(1, 2, Who::User(1)), connect(0, 0, Who::Wild)];
    steps.extend((0..10).map(|at| Step::Pass { ms: 100 * at }));
    steps.extend((0..20).map(|_| say(0, "broadcast data", 0, 250)));
    steps.extend((0..5).map(|_| Step::Pass { ms: 3_000 }));
    steps
}

fn crowd() -> Vec<Step> {
    let mut steps: Vec<Step> = (0..6).map(|at| connect(0, 0, Who::User(at))).collect();
    steps.push(Step::Close { guest: 0, code: 0 });
    steps.push(Step::Rest);
    steps.push(connect(0, 0, Who::Anonymous));
    steps
}

fn raw() -> Vec<Step> {
    let mut steps: Vec<Step> = (0..4).map(|at| connect(at, at, Who::Raw { room: at / 2, echo: at % 2 == 1 })).collect();
    steps.extend((0..20).map(|at| say(at % 4, "ping", 0, at * 7)));
    steps
}

/// One that breaks rules beside two that keep them.
fn wild() -> Vec<Step> {
    let text = |text: &str| Step::WildFrame { guest: 0, first: 0x80 | TEXT, payload: text.into() };
    let rest_of_a_request = " HTTP/1.1\r\nHost: x\r\n\r\n";
    vec![
        connect(0, 0, Who::User(0)),
        connect(1, 1, Who::User(1)),
        connect(0, 2, Who::Wild),
        connect(1, 0, Who::WildRaw),
        connect(1, 0, Who::WildHead(rest_of_a_request.into())),
        say(0, "join_room", 0, 0),
        say(1, "join_room", 0, 0),
        text(r#"{"type":"join_room","roomId":"room0","id":1}"#),
        text(r#"{"type":"room_msg","roomId":"room0","content":"x"}"#),
        text(r#"{"type":"private_msg","toUser":"user0","content":"x"}"#),
        text(r#"{"type":"broadcast","data":[]}"#),
        text("no json"),
        say(0, "room_msg", 0, 9),
        Step::WildFrame { guest: 0, first: 0x80 | PING, payload: b"p".to_vec() },
        Step::WildFrame { guest: 0, first: TEXT, payload: b"unfinished".to_vec() },
        Step::WildFrame { guest: 1, first: 0x80 | CLOSE, payload: vec![3, 0xE8] },
        Step::WildBytes { guest: 0, bytes: vec![0x81, 0x02, b'{', b'}'] },
        say(1, "room_msg", 0, 9),
    ]
}

/// The node goes away while messages are under way, and somebody comes too late.
fn drain() -> Vec<Step> {
    let mut steps = room();
    steps.truncate(25);
    steps.push(Step::Drain);
    steps.push(connect(0, 0, Who::Anonymous));
    steps.extend((0..6).map(|at| say(at % 4, "room_msg", 1, 9)));
    steps
}

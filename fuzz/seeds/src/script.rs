//! What happens to a node, step by step.
//!
//! ```text
//!  reactors │ seed of the world's dice │ what is hard (bits) │ steps
//!  step: kind in the low four bits, turns of workers behind it in the high four │ what the kind needs
//!  text: its length │ that many bytes
//! ```
//!
//! Every input is a script: numbers are taken modulo what there is, and what is missing at the end is 0.

use crate::steps::{self, Head, Input};

/// Most steps of a script; the rest is not read.
pub const STEPS_MAX: usize = 150;

/// A script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Reactors of the node, 1 to 3.
    pub reactors: u8,
    /// What the world's dice begin with.
    pub seed: u8,
    /// What is hard about the run.
    pub hard: Hard,
    /// What happens, each with the number of turns that workers have behind it.
    pub steps: Vec<(u8, Step)>,
}

/// What is hard about a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hard {
    /// A mailbox holds one parcel.
    pub small_mailboxes: bool,
    /// The clock jumps, so that deadlines come.
    pub jumpy: bool,
    /// Slow consumers are ended soon.
    pub tight_outbox: bool,
    /// The node has little memory for messages.
    pub tight_node: bool,
    /// A connection may be in two rooms.
    pub few_rooms: bool,
    /// The node has three places for connections.
    pub few_places: bool,
    /// Rooms are told who comes and goes.
    pub notices: bool,
}

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A client comes to a reactor, over a way of this sort.
    Connect {
        /// Its reactor.
        reactor: u8,
        /// The sort of way.
        way: u8,
        /// Who it is.
        who: Who,
    },
    /// A tame client sends something.
    Say {
        /// Which tame client.
        guest: u8,
        /// What, one of [`WORDS`].
        word: u8,
        /// The room, user or client it is about.
        about: u8,
        /// How large the message is.
        size: u8,
    },
    /// A client reads so many times 16 bytes; 0 is everything.
    Read {
        /// Which client.
        guest: u8,
        /// How much.
        amount: u8,
    },
    /// A tame client sends a close frame.
    Close {
        /// Which tame client.
        guest: u8,
        /// Chooses the code.
        code: u8,
    },
    /// A client is gone without a word.
    Vanish {
        /// Which client.
        guest: u8,
    },
    /// A wild client sends a frame with this byte in front.
    WildFrame {
        /// Which wild client.
        guest: u8,
        /// The first byte: the end of the message, reserved bits, opcode.
        first: u8,
        /// The payload.
        payload: Vec<u8>,
    },
    /// A wild client sends bytes.
    WildBytes {
        /// Which wild client.
        guest: u8,
        /// What.
        bytes: Vec<u8>,
    },
    /// Time passes, in milliseconds.
    Pass {
        /// How much.
        ms: u16,
    },
    /// One worker has a turn.
    Turn {
        /// Which.
        reactor: u8,
    },
    /// Everything said arrives, and everything is judged.
    Rest,
    /// The node goes away.
    Drain,
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// A connection of a user.
    User(u8),
    /// A JSON connection without a user.
    Anonymous,
    /// A member of a raw room, which gets its own messages too if `echo`.
    Raw {
        /// The room.
        room: u8,
        /// Whether it gets its own messages.
        echo: bool,
    },
    /// A JSON connection that may send anything.
    Wild,
    /// A member of a raw room of its own sort that may send anything.
    WildRaw,
    /// A client whose request ends in these bytes.
    WildHead(Vec<u8>),
}

/// What a tame client says; one in a raw room sends a message, whatever the word.
pub const WORDS: [&str; 13] = [
    "room_msg",
    "private_msg",
    "private",
    "broadcast content",
    "broadcast data",
    "join_room",
    "join_room from a position",
    "join_room of many",
    "leave_room",
    "presence",
    "presence many times",
    "ping",
    "nonsense",
];

impl Script {
    /// The script that any bytes are.
    pub fn read(input: &[u8]) -> Script {
        let (Head { reactors, seed, bits }, steps) = steps::read(input, STEPS_MAX, Step::read);
        Script { reactors, seed, hard: Hard::from_bits(bits), steps }
    }

    /// Its bytes.
    pub fn write(&self) -> Vec<u8> {
        let head = Head { reactors: self.reactors, seed: self.seed, bits: self.hard.bits() };
        steps::write(&head, &self.steps, Step::write)
    }
}

impl Hard {
    fn from_bits(bits: u8) -> Hard {
        let is_set = |bit| steps::is_set(bits, bit);
        Hard {
            small_mailboxes: is_set(0),
            jumpy: is_set(1),
            tight_outbox: is_set(2),
            tight_node: is_set(3),
            few_rooms: is_set(4),
            few_places: is_set(5),
            notices: is_set(6),
        }
    }

    fn bits(self) -> u8 {
        let Hard { small_mailboxes, jumpy, tight_outbox, tight_node, few_rooms, few_places, notices } = self;
        let all = [small_mailboxes, jumpy, tight_outbox, tight_node, few_rooms, few_places, notices];
        steps::bits(all)
    }
}

impl Step {
    fn read(kind: u8, input: &mut Input<'_>) -> Step {
        match kind {
            0 => Step::Connect { reactor: input.byte(), way: input.byte(), who: Who::read(input) },
            1..=4 => Step::Say { guest: input.byte(), word: input.byte(), about: input.byte(), size: input.byte() },
            5 | 6 => Step::Read { guest: input.byte(), amount: input.byte() },
            7 => Step::Close { guest: input.byte(), code: input.byte() },
            8 => Step::Vanish { guest: input.byte() },
            9 | 10 => Step::WildFrame { guest: input.byte(), first: input.byte(), payload: input.text() },
            11 => Step::WildBytes { guest: input.byte(), bytes: input.text() },
            12 => Step::Pass { ms: u16::from_be_bytes([input.byte(), input.byte()]) },
            13 => Step::Turn { reactor: input.byte() },
            14 => Step::Rest,
            _ => Step::Drain,
        }
    }

    fn write(&self, turns: u8, out: &mut Vec<u8>) {
        let mut kind = |kind: u8, needs: &[u8]| {
            out.push(turns << 4 | kind);
            out.extend_from_slice(needs);
        };
        match self {
            Step::Connect { reactor, way, who } => {
                kind(0, &[*reactor, *way]);
                who.write(out);
            }
            Step::Say { guest, word, about, size } => kind(1, &[*guest, *word, *about, *size]),
            Step::Read { guest, amount } => kind(5, &[*guest, *amount]),
            Step::Close { guest, code } => kind(7, &[*guest, *code]),
            Step::Vanish { guest } => kind(8, &[*guest]),
            Step::WildFrame { guest, first, payload } => kind(9, &[&[*guest, *first][..], &text(payload)].concat()),
            Step::WildBytes { guest, bytes } => kind(11, &[&[*guest][..], &text(bytes)].concat()),
            Step::Pass { ms } => kind(12, &ms.to_be_bytes()),
            Step::Turn { reactor } => kind(13, &[*reactor]),
            Step::Rest => kind(14, &[]),
            Step::Drain => kind(15, &[]),
        }
    }
}

impl Who {
    fn read(input: &mut Input<'_>) -> Who {
        match input.byte() % 6 {
            0 => Who::User(input.byte()),
            1 => Who::Anonymous,
            2 => Who::Raw { room: input.byte(), echo: input.byte() % 2 == 1 },
            3 => Who::Wild,
            4 => Who::WildRaw,
            _ => Who::WildHead(input.text()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Who::User(user) => out.extend([0, *user]),
            Who::Anonymous => out.push(1),
            Who::Raw { room, echo } => out.extend([2, *room, u8::from(*echo)]),
            Who::Wild => out.push(3),
            Who::WildRaw => out.push(4),
            Who::WildHead(bytes) => {
                out.push(5);
                out.extend(text(bytes));
            }
        }
    }
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a text of a script has at most 255 bytes");
    [&[length], bytes].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let steps = [
            Step::Connect { reactor: 1, way: 2, who: Who::User(3) },
            Step::Connect { reactor: 0, way: 0, who: Who::Anonymous },
            Step::Connect { reactor: 0, way: 0, who: Who::Raw { room: 1, echo: true } },
            Step::Connect { reactor: 0, way: 0, who: Who::Wild },
            Step::Connect { reactor: 0, way: 0, who: Who::WildRaw },
            Step::Connect { reactor: 0, way: 0, who: Who::WildHead(b"x\r\n".to_vec()) },
            Step::Say { guest: 1, word: 2, about: 3, size: 4 },
            Step::Read { guest: 1, amount: 0 },
            Step::Close { guest: 1, code: 9 },
            Step::Vanish { guest: 1 },
            Step::WildFrame { guest: 1, first: 0x81, payload: b"{}".to_vec() },
            Step::WildBytes { guest: 1, bytes: vec![0; 255] },
            Step::Pass { ms: 65_535 },
            Step::Turn { reactor: 2 },
            Step::Rest,
            Step::Drain,
        ];
        let hard = Hard { jumpy: true, notices: true, ..Hard::default() };
        let steps = steps.into_iter().enumerate().map(|(at, step)| (at as u8, step)).collect();
        let script = Script { reactors: 3, seed: 7, hard, steps };
        assert_eq!(Script::read(&script.write()), script);
    }

    #[test]
    fn a_script_may_end_anywhere() {
        let script = Script::read(&[]);
        assert_eq!((script.reactors, script.steps.len()), (1, 0));
        let cut = Script::read(&[0, 0, 0, 0x10]);
        assert_eq!(cut.steps, [(1, Step::Connect { reactor: 0, way: 0, who: Who::User(0) })]);
    }
}

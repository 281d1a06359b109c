//! What the nodes of a cluster say to each other through Redis, as bytes.
//!
//! A message on a channel is an *envelope*: a version, the run of the node that sent it, and any number of records. What
//! goes into a history is one *entry* each, which the append script puts into the stream and, with its offset, onto the
//! channel. All numbers are big-endian.
//!
//! ```text
//!   envelope:  '1' │ run (8) │ record …                  record:  tag (1) │ length (4) │ body
//!   kept:      'H' │ epoch '\n' │ first offset '\n' │ { length (4) │ entry } …
//!   entry:     run (8) │ reactor (2) │ slot (4) │ generation (4) │ whether it is excluded (1) │ payload
//! ```
//!
//! Whatever comes in may be anything: what cannot be read is skipped, and counted by the caller.

use super::items::{PLACEMENT, RECORDS};
pub use super::survey_record::{read_found, read_survey, write_found, write_survey};
use crate::frame::whole_frames;
use crate::ids::{ConnId, ReactorId, Slot};
use crate::metrics::Vitals;

/// What an envelope begins with.
const VERSION: u8 = b'1';
/// What a message out of a history begins with.
const KEPT: u8 = b'H';

/// One thing that a node tells others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// Messages for the members of the channel's topic: whole frames, one after another.
    Messages(&'a [u8]),
    /// A join or leave notice for them: a whole frame.
    Notice(&'a [u8]),
    /// Who is in the channel's room? To be answered on the asking node's channel.
    Presence {
        /// The question's number at that node.
        number: u64,
        /// What users are hashed with in the answers.
        key: [u64; 2],
        /// How many are to be named, if there are so many.
        names: u16,
    },
    /// Who is, at the answering node: a piece of that.
    Present(Present<'a>),
    /// The next piece of an answer is wanted, on the answering node's channel.
    PresentMore {
        /// The question's number at the asking node.
        number: u64,
    },
    /// A message for one connection of the node whose channel it is.
    Direct {
        /// Whose.
        to: ConnId,
        /// What the client gets.
        payload: &'a [u8],
    },
    /// A node is there.
    Hello {
        /// Its number in its client ids.
        node: u16,
        /// The key that its client ids are made with.
        key: [u8; 16],
        /// Whether it wants to know who else is there.
        asks: bool,
        /// How it is doing.
        vitals: Vitals,
    },
    /// What a node sends to itself, to see that what is published arrives.
    Canary {
        /// One more than the one before.
        number: u64,
    },
    /// Every connection of a user is to end.
    Disconnect {
        /// Whose.
        user: &'a str,
    },
    /// A user is to leave the channel's room.
    Kick {
        /// Who.
        user: &'a str,
        /// Told in the message `left`.
        reason: &'a str,
    },
    /// A user's tokens are good no more.
    Revoke {
        /// Whose.
        user: &'a str,
        /// The last Unix second whose tokens are refused.
        unix_s: u64,
    },
    /// Every reactor is asked. To be answered on the asking node's channel.
    Survey {
        /// The survey's number at that node.
        number: u64,
        /// What is asked, as [`read_survey`] reads it.
        body: &'a [u8],
    },
    /// What one reactor of the answering node has found.
    Found {
        /// The survey's number.
        number: u64,
        /// Reactors of the answering node.
        reactors: u16,
        /// What was found, as [`read_found`] reads it.
        body: &'a [u8],
    },
}

/// A piece of a node's answer who is in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present<'a> {
    /// The question's number.
    pub number: u64,
    /// How many users there are, those of the other pieces too.
    pub users: u64,
    /// Whether more pieces can be asked for.
    pub more: bool,
    /// Some by name, as [`users`] reads them.
    pub names: &'a [u8],
    /// Some others by their hashes, as [`hashes`] reads them.
    pub hashes: &'a [u8],
    /// All of them as a sketch, or nothing.
    pub sketch: &'a [u8],
}

/// Begins an envelope of the node with this run.
pub fn begin(run: u64) -> Vec<u8> {
    let mut out = vec![VERSION];
    out.extend_from_slice(&run.to_be_bytes());
    out
}

impl Record<'_> {
    /// Appends the record to an envelope.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(self.tag());
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        match self {
            Record::Messages(frames) | Record::Notice(frames) => out.extend_from_slice(frames),
            Record::PresentMore { number } | Record::Canary { number } => out.extend_from_slice(&number.to_be_bytes()),
            Record::Presence { number, key, names } => {
                for part in [number, &key[0], &key[1]] {
                    out.extend_from_slice(&part.to_be_bytes());
                }
                out.extend_from_slice(&names.to_be_bytes());
            }
            Record::Present(Present { number, users, more, names, hashes, sketch }) => {
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&users.to_be_bytes());
                out.push(u8::from(*more));
                write_prefixed(out, names);
                write_prefixed(out, hashes);
                out.extend_from_slice(sketch);
            }
            Record::Direct { to, payload } => {
                write_conn(out, *to);
                out.extend_from_slice(payload);
            }
            Record::Hello { node, key, asks, vitals } => {
                out.extend_from_slice(&node.to_be_bytes());
                out.extend_from_slice(key);
                out.push(u8::from(*asks));
                out.extend_from_slice(&vitals.to_bytes());
            }
            Record::Disconnect { user } => out.extend_from_slice(user.as_bytes()),
            Record::Kick { user, reason } => {
                write_user(out, user);
                out.extend_from_slice(reason.as_bytes());
            }
            Record::Revoke { user, unix_s } => {
                out.extend_from_slice(&unix_s.to_be_bytes());
                out.extend_from_slice(user.as_bytes());
            }
            Record::Survey { number, body } => {
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(body);
            }
            Record::Found { number, reactors, body } => {
                out.extend_from_slice(&number.to_be_bytes());
                out.extend_from_slice(&reactors.to_be_bytes());
                out.extend_from_slice(body);
            }
        }
        let length = u32::try_from(out.len() - at - 4).expect("a record is shorter than 4 GiB");
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn tag(&self) -> u8 {
        match self {
            Record::Messages(_) => 1,
            Record::Notice(_) => 2,
            Record::Direct { .. } => 5,
            Record::Hello { .. } => 6,
            Record::Canary { .. } => 7,
            Record::Disconnect { .. } => 8,
            Record::Kick { .. } => 9,
            // 3 and 4 were a question and its whole answer in one.
            Record::Presence { .. } => 10,
            Record::Present(_) => 11,
            Record::PresentMore { .. } => 12,
            Record::Revoke { .. } => 13,
            Record::Survey { .. } => 14,
            Record::Found { .. } => 15,
        }
    }
}

/// What comes on a channel.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Of a node, by its run.
    Envelope {
        /// Whose.
        run: u64,
        /// What it says.
        records: Records<'a>,
    },
    /// Out of a history.
    Kept(Kept<'a>),
    /// Which places updates of items have, that come next: a whole message, as [`Placement`](super::items::Placement) reads
    /// it.
    Placement(&'a [u8]),
    /// Updates of items.
    Items(&'a [u8]),
}

/// Reads what came on a channel; `None` where no node of this version wrote it.
pub fn read(bytes: &[u8]) -> Option<Incoming<'_>> {
    match bytes.split_first()? {
        (&VERSION, rest) => {
            let (run, rest) = rest.split_first_chunk::<8>()?;
            Some(Incoming::Envelope { run: u64::from_be_bytes(*run), records: Records(rest) })
        }
        (&KEPT, rest) => {
            let (epoch, rest) = line(rest)?;
            let (first, entries) = line(rest)?;
            Some(Incoming::Kept(Kept { epoch, first: first.parse().ok()?, entries: Entries(entries) }))
        }
        (&PLACEMENT, _) => Some(Incoming::Placement(bytes)),
        (&RECORDS, records) => Some(Incoming::Items(records)),
        _ => None,
    }
}

pub(super) fn line(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memchr(b'\n', bytes)?;
    Some((std::str::from_utf8(&bytes[..end]).ok()?, &bytes[end + 1..]))
}

/// The records of an envelope. Those of another version are passed over.
#[derive(Clone, Debug)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            let (&tag, rest) = self.0.split_first()?;
            let (body, rest) = prefixed(rest)?;
            self.0 = rest;
            if let Some(record) = read_record(tag, body) {
                return Some(record);
            }
        }
    }
}

fn read_record(tag: u8, body: &[u8]) -> Option<Record<'_>> {
    Some(match tag {
        1 => Record::Messages(frames(body)?),
        2 => Record::Notice(frames(body)?),
        5 => {
            let (to, payload) = read_conn(body)?;
            Record::Direct { to, payload }
        }
        6 => {
            let (node, rest) = body.split_first_chunk::<2>()?;
            let (key, rest) = rest.split_first_chunk::<16>()?;
            let (&asks, vitals) = rest.split_first()?;
            // A node of a version that does not tell has none.
            let vitals = vitals.first_chunk().map(Vitals::from_bytes).unwrap_or_default();
            Record::Hello { node: u16::from_be_bytes(*node), key: *key, asks: asks == 1, vitals }
        }
        7 => Record::Canary { number: number(body)?.0 },
        8 => Record::Disconnect { user: std::str::from_utf8(body).ok()? },
        9 => {
            let (user, reason) = read_user(body)?;
            Record::Kick { user, reason: std::str::from_utf8(reason).ok()? }
        }
        10 => {
            let (asked, rest) = number(body)?;
            let (first, rest) = number(rest)?;
            let (second, rest) = number(rest)?;
            let (names, _) = rest.split_first_chunk::<2>()?;
            Record::Presence { number: asked, key: [first, second], names: u16::from_be_bytes(*names) }
        }
        11 => {
            let (asked, rest) = number(body)?;
            let (users, rest) = number(rest)?;
            let (&more, rest) = rest.split_first()?;
            let (names, rest) = prefixed(rest)?;
            let (hashes, sketch) = prefixed(rest)?;
            Record::Present(Present { number: asked, users, more: more == 1, names, hashes, sketch })
        }
        12 => Record::PresentMore { number: number(body)?.0 },
        13 => {
            let (unix_s, user) = number(body)?;
            Record::Revoke { user: std::str::from_utf8(user).ok()?, unix_s }
        }
        14 => {
            let (number, body) = number(body)?;
            Record::Survey { number, body }
        }
        15 => {
            let (number, rest) = number(body)?;
            let (reactors, body) = rest.split_first_chunk::<2>()?;
            Record::Found { number, reactors: u16::from_be_bytes(*reactors), body }
        }
        _ => return None,
    })
}

/// What is to go to clients as it is has to be frames and nothing else.
fn frames(bytes: &[u8]) -> Option<&[u8]> {
    (whole_frames(bytes).map(<[u8]>::len).sum::<usize>() == bytes.len()).then_some(bytes)
}

/// Messages that the append script has put into a stream, one after another.
#[derive(Clone, Debug)]
pub struct Kept<'a> {
    /// The history's epoch.
    pub epoch: &'a str,
    /// The offset of the first.
    pub first: u64,
    /// The messages.
    pub entries: Entries<'a>,
}

/// Entries behind each other, each with its length in front.
#[derive(Clone, Debug)]
pub struct Entries<'a>(&'a [u8]);

impl Entries<'_> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (entry, rest) = prefixed(self.0)?;
        self.0 = rest;
        Some(entry)
    }
}

/// One message of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// A connection that is not to get it, with its node's run.
    pub exclude: Option<(u64, ConnId)>,
    /// What clients get, without the offset.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry as bytes.
    pub fn to_bytes(self) -> Vec<u8> {
        let none = ConnId { reactor: ReactorId(0), slot: Slot(0), generation: 0 };
        let (run, conn) = self.exclude.unwrap_or((0, none));
        let mut out = Vec::with_capacity(19 + self.payload.len());
        out.extend_from_slice(&run.to_be_bytes());
        write_conn(&mut out, conn);
        out.push(u8::from(self.exclude.is_some()));
        out.extend_from_slice(self.payload);
        out
    }

    /// Reads an entry; `None` where it is none.
    pub fn read(bytes: &'a [u8]) -> Option<Entry<'a>> {
        let (run, rest) = number(bytes)?;
        let (conn, rest) = read_conn(rest)?;
        let (&excluded, payload) = rest.split_first()?;
        // An offset is put into it, so it has to be a message of ours.
        let is_message = payload.first() == Some(&b'{') && payload.last() == Some(&b'}');
        is_message.then_some(Entry { exclude: (excluded == 1).then_some((run, conn)), payload })
    }
}

/// The hashes of a [`Present`].
pub fn hashes(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<8>().0.iter().map(|hash| u64::from_be_bytes(*hash))
}

/// The names of a [`Present`], each of which [`write_user`] wrote.
pub fn users(mut bytes: &[u8]) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (user, rest) = read_user(bytes)?;
        bytes = rest;
        Some(user)
    })
}

/// Writes a user's name with its length.
pub fn write_user(out: &mut Vec<u8>, user: &str) {
    let length = u16::try_from(user.len()).expect("a user id is short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(user.as_bytes());
}

pub(super) fn read_user(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (user, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((std::str::from_utf8(user).ok()?, rest))
}

pub(super) fn write_conn(out: &mut Vec<u8>, conn: ConnId) {
    out.extend_from_slice(&conn.reactor.0.to_be_bytes());
    out.extend_from_slice(&conn.slot.0.to_be_bytes());
    out.extend_from_slice(&conn.generation.to_be_bytes());
}

pub(super) fn read_conn(bytes: &[u8]) -> Option<(ConnId, &[u8])> {
    let (reactor, rest) = bytes.split_first_chunk::<2>()?;
    let (slot, rest) = rest.split_first_chunk::<4>()?;
    let (generation, rest) = rest.split_first_chunk::<4>()?;
    let conn = ConnId {
        reactor: ReactorId(u16::from_be_bytes(*reactor)),
        slot: Slot(u32::from_be_bytes(*slot)),
        generation: u32::from_be_bytes(*generation),
    };
    Some((conn, rest))
}

pub(super) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), rest))
}

fn write_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a part of a record is shorter than 4 GiB");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CONN: ConnId = ConnId { reactor: ReactorId(1), slot: Slot(2), generation: 3 };

    #[test]
    fn every_record_is_read_as_it_was_written() {
        let mut users = Vec::new();
        ["alice", "bøb", ""].into_iter().for_each(|user| write_user(&mut users, user));
        let hashes = [7_u64, u64::MAX].map(u64::to_be_bytes).concat();
        let present = Present { number: 7, users: 5, more: true, names: &users, hashes: &hashes, sketch: b"s" };
        let records = [
            Record::Messages(b"\x82\x02\x00\xff\x81\x00"),
            Record::Notice(b"\x81\x02{}"),
            Record::Presence { number: 7, key: [1, u64::MAX], names: 1_000 },
            Record::Present(present),
            Record::PresentMore { number: 7 },
            Record::Direct { to: CONN, payload: b"x" },
            Record::Hello { node: 9, key: [1; 16], asks: true, vitals: Vitals { connections: 3, ..Vitals::default() } },
            Record::Canary { number: u64::MAX },
            Record::Disconnect { user: "alice" },
            Record::Kick { user: "bob", reason: "why" },
        ];
        let mut envelope = begin(42);
        records.iter().for_each(|record| record.write(&mut envelope));
        let Some(Incoming::Envelope { run: 42, records: read }) = read(&envelope) else { panic!("an envelope") };
        assert_eq!(read.collect::<Vec<_>>(), records);
        assert_eq!(super::users(&users).collect::<Vec<_>>(), ["alice", "bøb", ""]);
        assert_eq!(super::hashes(&hashes).collect::<Vec<_>>(), [7, u64::MAX]);
    }

    #[test]
    fn entries_are_read_as_the_script_puts_them_together() {
        let entries =
            [Entry { exclude: Some((5, CONN)), payload: b"{\"a\":1}" }, Entry { exclude: None, payload: b"{}" }];
        let mut bytes = b"Hepoch-1\n41\n".to_vec();
        for entry in entries {
            let entry = entry.to_bytes();
            bytes.extend_from_slice(&(entry.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&entry);
        }
        let Some(Incoming::Kept(kept)) = read(&bytes) else { panic!("kept messages") };
        assert_eq!((kept.epoch, kept.first), ("epoch-1", 41));
        assert_eq!(kept.entries.filter_map(Entry::read).collect::<Vec<_>>(), entries);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..100), kind in 0_u8..3) {
            let bytes = match kind {
                0 => [&[VERSION][..], &bytes].concat(),
                1 => [&b"He\n1\n"[..], &bytes].concat(),
                _ => bytes,
            };
            match read(&bytes) {
                None => {}
                Some(Incoming::Envelope { records, .. }) => prop_assert!(records.count() <= bytes.len()),
                Some(Incoming::Kept(kept)) => prop_assert!(kept.entries.filter_map(Entry::read).count() <= bytes.len()),
                Some(Incoming::Placement(_) | Incoming::Items(_)) => {}
            }
        }
    }
}

//! Surveys and what is found as bytes, inside of records.
//!
//! ```text
//!   survey:       1 │ after │ matching │ pattern …              2 │ user
//!   rooms:        1 │ up to │ { name │ members (8) │ users (8) } …
//!   connections:  2 │ truncated (1) │ { client id │ since (8) │ rooms (2) │ room … } …
//! ```
//!
//! Texts have their length in two bytes in front. An empty text where none is said stands for none.

use arcstr::ArcStr;

use super::record::{number, read_user, write_user};
use crate::config::Pattern;
use crate::router::{ConnectionFound, ConnectionsFound, Found, RoomFilter, RoomFound, RoomsFound, RoomsQuery, Survey};

const ROOMS: u8 = 1;
const CONNECTIONS: u8 = 2;
const DONE: u8 = 3;

/// Appends a survey.
pub fn write_survey(out: &mut Vec<u8>, survey: &Survey) {
    match survey {
        Survey::Rooms(RoomsQuery { after, filter }) => {
            out.push(ROOMS);
            write_user(out, after);
            write_user(out, filter.matching.as_deref().unwrap_or_default());
            filter.any_of.iter().for_each(|pattern| write_user(out, pattern));
        }
        Survey::Connections { user } => {
            out.push(CONNECTIONS);
            write_user(out, user);
        }
        Survey::Disconnect { user } => {
            out.push(DONE);
            write_user(out, user);
        }
    }
}

/// Reads a survey; `None` where it is none.
pub fn read_survey(bytes: &[u8]) -> Option<Survey> {
    let (&kind, rest) = bytes.split_first()?;
    let (first, rest) = read_user(rest)?;
    match kind {
        ROOMS => {
            let (matching, mut rest) = read_user(rest)?;
            let matching = if matching.is_empty() { None } else { Some(matching.parse().ok()?) };
            let mut any_of = Vec::new();
            while !rest.is_empty() {
                let (pattern, behind) = read_user(rest)?;
                any_of.push(pattern.parse().ok()?);
                rest = behind;
            }
            Some(Survey::Rooms(RoomsQuery { after: first.into(), filter: room_filter(any_of, matching) }))
        }
        CONNECTIONS => Some(Survey::Connections { user: first.into() }),
        DONE => Some(Survey::Disconnect { user: first.into() }),
        _ => None,
    }
}

fn room_filter(any_of: Vec<Pattern>, matching: Option<Pattern>) -> RoomFilter {
    let texts: Vec<&str> = any_of.iter().map(Pattern::as_str).collect();
    let filter = RoomFilter::new(&texts, matching.as_ref().map(Pattern::as_str));
    filter.tested_by(move |room| Pattern::any_means(&any_of, matching.as_ref(), room))
}

/// Appends what was found.
pub fn write_found(out: &mut Vec<u8>, found: &Found) {
    match found {
        Found::Rooms(RoomsFound { rooms, up_to }) => {
            out.push(ROOMS);
            write_user(out, up_to.as_deref().unwrap_or_default());
            for RoomFound { name, members, users } in rooms {
                write_user(out, name);
                out.extend_from_slice(&members.to_be_bytes());
                out.extend_from_slice(&users.to_be_bytes());
            }
        }
        Found::Connections(ConnectionsFound { connections, is_truncated }) => {
            out.push(CONNECTIONS);
            out.push(u8::from(*is_truncated));
            for ConnectionFound { client_id, since_unix_ms, rooms } in connections {
                write_user(out, client_id);
                out.extend_from_slice(&since_unix_ms.to_be_bytes());
                out.extend_from_slice(&(rooms.len() as u16).to_be_bytes());
                rooms.iter().for_each(|room| write_user(out, room));
            }
        }
        Found::Done => out.push(DONE),
    }
}

/// Reads what was found; `None` where it is nothing of the kind.
pub fn read_found(bytes: &[u8]) -> Option<Found> {
    let (&kind, mut rest) = bytes.split_first()?;
    match kind {
        ROOMS => {
            let (up_to, mut rest) = read_user(rest)?;
            let up_to = (!up_to.is_empty()).then(|| ArcStr::from(up_to));
            let mut rooms = Vec::new();
            while !rest.is_empty() {
                let (name, behind) = read_user(rest)?;
                let (members, behind) = number(behind)?;
                let (users, behind) = number(behind)?;
                rooms.push(RoomFound { name: name.into(), members, users });
                rest = behind;
            }
            Some(Found::Rooms(RoomsFound { rooms, up_to }))
        }
        CONNECTIONS => {
            let is_truncated = *rest.split_off_first()? == 1;
            let mut connections = Vec::new();
            while !rest.is_empty() {
                let (client_id, behind) = read_user(rest)?;
                let (since_unix_ms, behind) = number(behind)?;
                let (count, mut behind) = behind.split_first_chunk::<2>()?;
                let mut rooms = Vec::new();
                for _ in 0..u16::from_be_bytes(*count) {
                    let (room, further) = read_user(behind)?;
                    rooms.push(room.into());
                    behind = further;
                }
                connections.push(ConnectionFound { client_id: client_id.into(), since_unix_ms, rooms });
                rest = behind;
            }
            Some(Found::Connections(ConnectionsFound { connections, is_truncated }))
        }
        DONE => Some(Found::Done),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_cut_is_nothing() {
        let any_of = ["chat.*", "*"].map(|text| text.parse().expect("a pattern")).to_vec();
        let filter = room_filter(any_of, Some("chat.a*".parse().expect("a pattern")));
        for survey in [
            Survey::Rooms(RoomsQuery { after: "chat.b".into(), filter }),
            Survey::Connections { user: "bøb".into() },
            Survey::Disconnect { user: "".into() },
        ] {
            let mut bytes = Vec::new();
            write_survey(&mut bytes, &survey);
            assert_eq!(read_survey(&bytes), Some(survey));
            assert_eq!(read_survey(&bytes[..2]), None);
        }
        let rooms = vec![RoomFound { name: "den".into(), members: 3, users: 2 }];
        let connection =
            ConnectionFound { client_id: "c".into(), since_unix_ms: 7, rooms: vec!["a".into(), "b".into()] };
        for found in [
            Found::Rooms(RoomsFound { rooms: rooms.clone(), up_to: None }),
            Found::Rooms(RoomsFound { rooms, up_to: Some("den".into()) }),
            Found::Connections(ConnectionsFound {
                connections: vec![connection.clone(), connection],
                is_truncated: true,
            }),
            Found::Done,
        ] {
            let mut bytes = Vec::new();
            write_found(&mut bytes, &found);
            assert_eq!(read_found(&bytes), Some(found.clone()));
            if found != Found::Done {
                assert_eq!(read_found(&bytes[..bytes.len() - 1]), None);
            }
        }
    }

    #[test]
    fn a_filter_means_what_its_patterns_mean() {
        let pattern = |text: &str| text.parse::<Pattern>().expect("a pattern");
        let filter = room_filter(vec![pattern("a*"), pattern("b*")], Some(pattern("*x")));
        let meant: Vec<_> = ["ax", "bx", "cx", "a"].into_iter().filter(|room| (filter.test)(room)).collect();
        assert_eq!((meant, &*filter.prefix), (vec!["ax", "bx"], ""));
        assert_eq!(&*room_filter(vec![pattern("*")], Some(pattern("chat.*"))).prefix, "chat.");
        assert_eq!(&*room_filter(vec![pattern("chat.*")], Some(pattern("*x"))).prefix, "chat.");
        assert_eq!(&*room_filter(vec![pattern("chat.*")], Some(pattern("chat.d*"))).prefix, "chat.d");
    }
}

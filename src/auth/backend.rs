//! What the team's backend is asked, and what its answers mean: it decides about a connection in place of a token, and
//! about joins in place of the permission for them.
//!
//! An answer that is not understood is none: nobody gets in by a mistake.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::json::{object, present};
use super::{Auth, Grant};
use crate::limits::{DECISION_BYTES_MAX, USER_ID_BYTES_MAX};

/// What the backend is asked. Each question has one answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether a client may connect, and as whom.
    Connect(Visitor),
    /// Whether a connection may be in these rooms.
    Join {
        /// The connection's user id.
        user: String,
        /// Its client id.
        client_id: String,
        /// The rooms, raw ones as `raw/ROOM`.
        rooms: Arc<[String]>,
        /// Whether they are asked for as a list: a single one is asked for by its name.
        is_list: bool,
    },
}

/// A client that connects, or an open connection that shows another token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it comes from, if that is known.
    pub address: Option<String>,
    /// The page that asks, as its browser says.
    pub origin: Option<String>,
    /// The user that its TLS certificate names, where it has shown one.
    pub certificate_user: Option<String>,
    /// What its token says, where it has shown one, which is good.
    pub token: Option<TokenSays>,
    /// Whether its connection is open already, and the token comes in `refresh`.
    pub is_open: bool,
}

/// What of a good token an answer builds on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSays {
    /// The user id.
    pub user: Box<str>,
    /// When it ends, in Unix milliseconds.
    pub expires_unix_ms: Option<u64>,
    /// When it was made, in Unix seconds.
    pub issued_unix_s: Option<u64>,
}

/// What a client speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protocol {
    /// JSON commands.
    Json,
    /// Plain messages of this raw room.
    Raw(String),
    /// Messages that come back.
    Echo,
}

/// What the backend has decided.
#[derive(Debug, Clone)]
pub enum Decision {
    /// The client may connect, as this user.
    Grant(Grant),
    /// What holds for each room that was asked for, in their order.
    Rooms(Vec<RoomDecision>),
    /// The client may not connect, or nothing was decided.
    Denied(Denial),
}

/// What was decided about one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomDecision {
    /// Whether it may be joined.
    pub allow: bool,
    /// Whether it may be published into, in place of the permission for that; `None` leaves it to the permission.
    pub publish: Option<bool>,
}

/// Why a client does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The backend does not know who it is: 401.
    Unauthorized,
    /// The backend does not want it: 403.
    Forbidden,
    /// There is no answer, or one that is not understood.
    Unavailable,
}

/// Why an answer counts as none. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The status is none that means something.
    Status(u16),
    /// The body is no JSON object with what has to be in it.
    Body(&'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Status(status) => write!(f, "it answered {status}; 200, 401 and 403 mean something here"),
            Fault::Body(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Fault {}

#[derive(Serialize)]
struct ConnectBody<'a> {
    protocol: &'static str,
    #[serde(rename = "roomId", skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    refresh: bool,
}

#[derive(Serialize)]
struct JoinBody<'a> {
    user: &'a str,
    #[serde(rename = "clientId")]
    client_id: &'a str,
    #[serde(rename = "roomId", skip_serializing_if = "Option::is_none")]
    room: Option<&'a str>,
    #[serde(rename = "roomIds", skip_serializing_if = "Option::is_none")]
    rooms: Option<&'a [String]>,
}

#[derive(Deserialize)]
struct ConnectAnswer<'a> {
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    fanfare: Option<&'a RawValue>,
    #[serde(default, deserialize_with = "present")]
    expires: Option<u64>,
}

#[derive(Deserialize)]
struct RoomAnswer {
    allow: bool,
    #[serde(default, deserialize_with = "present")]
    publish: Option<bool>,
}

#[derive(Deserialize)]
struct RoomsAnswer {
    allow: Vec<String>,
    #[serde(default, deserialize_with = "present")]
    publish: Option<Vec<String>>,
}

impl Question {
    /// The JSON text that asks it: not longer than what the client has sent for it, escapes and a fixed part aside.
    pub fn body(&self) -> Vec<u8> {
        let written = match self {
            Question::Connect(visitor) => {
                let (protocol, room) = match &visitor.protocol {
                    Protocol::Json => ("json", None),
                    Protocol::Raw(room) => ("raw", Some(room.as_str())),
                    Protocol::Echo => ("echo", None),
                };
                serde_json::to_vec(&ConnectBody {
                    protocol,
                    room,
                    user: visitor.token.as_ref().map(|token| &*token.user),
                    certificate_user: visitor.certificate_user.as_deref(),
                    address: visitor.address.as_deref(),
                    origin: visitor.origin.as_deref(),
                    refresh: visitor.is_open,
                })
            }
            Question::Join { user, client_id, rooms, is_list } => {
                let room = (!is_list).then(|| rooms.first().map(String::as_str)).flatten();
                serde_json::to_vec(&JoinBody { user, client_id, room, rooms: is_list.then_some(rooms) })
            }
        };
        written.expect("texts have a form in JSON")
    }

    /// Bytes of what the client has sent that it holds.
    pub fn held_bytes(&self) -> usize {
        match self {
            Question::Connect(visitor) => visitor.origin.as_ref().map_or(0, String::len),
            Question::Join { rooms, .. } => rooms.iter().map(|room| room.len() + size_of::<String>()).sum(),
        }
    }

    /// Bytes of its answer that are read; a longer one counts as none.
    pub fn answer_bytes_max(&self) -> usize {
        let asked_bytes = match self {
            Question::Connect(_) => 0,
            Question::Join { rooms, .. } => rooms.iter().map(String::len).sum(),
        };
        // A list names each room twice at most: once to join it, once to publish.
        DECISION_BYTES_MAX + 2 * asked_bytes
    }

    /// What an answer means.
    ///
    /// # Errors
    ///
    /// It counts as none: another status than 200, 401 and 403, or not the body that belongs to it.
    pub fn read(&self, auth: &Auth, status: u16, body: &[u8]) -> Result<Decision, Fault> {
        match (status, self) {
            (200, Question::Connect(visitor)) => read_grant(visitor, auth, body).map(Decision::Grant),
            (200, Question::Join { rooms, is_list, .. }) => {
                let decided = if *is_list { read_rooms(rooms, body) } else { read_room(body).map(|room| vec![room]) };
                decided.map(Decision::Rooms)
            }
            (401, Question::Connect(_)) => Ok(Decision::Denied(Denial::Unauthorized)),
            (403, Question::Connect(_)) => Ok(Decision::Denied(Denial::Forbidden)),
            (401 | 403, Question::Join { rooms, .. }) => {
                Ok(Decision::Rooms(vec![RoomDecision { allow: false, publish: None }; rooms.len()]))
            }
            (other, _) => Err(Fault::Status(other)),
        }
    }
}

/// What the answer does not say comes from the token, as to its end, or from the default, as to what may be done.
fn read_grant(visitor: &Visitor, auth: &Auth, body: &[u8]) -> Result<Grant, Fault> {
    let wrong =
        Fault::Body("the answer is no JSON object with a text `user` (and `fanfare`, and `expires` in milliseconds)");
    let text = str::from_utf8(body).map_err(|_| wrong)?;
    let answer: ConnectAnswer<'_> = object(text).map_err(|_| wrong)?;
    if !(1..=USER_ID_BYTES_MAX).contains(&answer.user.len()) {
        return Err(Fault::Body("the answer's `user` has no byte or more than 128"));
    }
    let claim = answer.fanfare.map(RawValue::get);
    let permissions = auth.compiled.permissions(claim);
    let permissions = permissions.map_err(|_| Fault::Body("the answer's `fanfare` is not what it has to be"))?;
    let token = visitor.token.as_ref();
    Ok(Grant {
        user: answer.user.into(),
        permissions,
        expires_unix_ms: answer.expires.or_else(|| token?.expires_unix_ms),
        issued_unix_s: token.and_then(|token| token.issued_unix_s),
    })
}

fn read_room(body: &[u8]) -> Result<RoomDecision, Fault> {
    let wrong = Fault::Body("the answer is no JSON object with `allow`: true or false (and `publish`)");
    let text = str::from_utf8(body).map_err(|_| wrong)?;
    let RoomAnswer { allow, publish } = object(text).map_err(|_| wrong)?;
    Ok(RoomDecision { allow, publish })
}

fn read_rooms(rooms: &[String], body: &[u8]) -> Result<Vec<RoomDecision>, Fault> {
    let wrong = Fault::Body("the answer is no JSON object with `allow`: a list of room ids (and `publish`, another)");
    let text = str::from_utf8(body).map_err(|_| wrong)?;
    let RoomsAnswer { mut allow, mut publish } = object(text).map_err(|_| wrong)?;
    allow.sort_unstable();
    if let Some(publish) = &mut publish {
        publish.sort_unstable();
    }
    let decide = |room: &String| RoomDecision {
        allow: allow.binary_search(room).is_ok(),
        publish: publish.as_ref().map(|publish| publish.binary_search(room).is_ok()),
    };
    Ok(rooms.iter().map(decide).collect())
}

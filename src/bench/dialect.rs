//! The messages of a client: of the user dialect, or of Centrifugo's JSON protocol, whose server this one is compared with.

use serde::Deserialize;
use serde_json::Value;
use serde_json::json;
use serde_json::value::RawValue;

use super::seat::Seat;

/// Whose messages are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The user dialect of `docs/wire.md`: a token comes with the request, and the server welcomes first.
    User,
    /// Centrifugo's JSON protocol: a token comes with the first command, whose reply is the welcome; a WebSocket message
    /// may carry several replies, a line each; and `{}` is a ping, answered alike.
    Centrifugo,
}

const USER: &str = "user";
const CENTRIFUGO: &str = "centrifugo";

/// The words of `--dialect`.
pub(super) const DIALECT_NAMES: &[&str] = &[USER, CENTRIFUGO];

/// The id of every publish to Centrifugo: its server asks for one, and nothing is told by it.
const PUBLISH_ID: u32 = 1_000_000_001;

/// What Centrifugo answers to such a publish.
const PUBLISHED: &[u8] = br#"{"id":1000000001,"publish":{}}"#;

/// How a room's message begins, as this server writes it.
const ROOM_MSG: &[u8] = br#"{"type":"room_msg","#;

/// The id of the command at the end of a run to Centrifugo, higher than those of subscriptions.
const BARRIER_ID: u32 = 1_000_000_002;

/// What a message is that carries no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyKind {
    /// The first message.
    Welcome,
    /// The answer to a join.
    Joined,
    /// The answer to what ends a run.
    Pong,
    /// A refused command.
    Error,
    /// Notices and the like.
    Other,
}

/// An epoch and an offset: where a client stands in a room's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamPosition {
    /// The word that names the stretch in which offsets count.
    pub(super) epoch: String,
    /// The number of the last message before it.
    pub(super) offset: u64,
}

/// What the answer to a join says.
#[derive(Debug, Default)]
pub(super) struct Joined<'a> {
    /// Where the room stands, if it keeps history.
    pub(super) position: Option<StreamPosition>,
    /// Messages that the answer itself carries: Centrifugo's recovery.
    pub(super) messages: Vec<&'a [u8]>,
}

#[derive(Deserialize)]
struct UserJoined {
    epoch: Option<String>,
    offset: Option<u64>,
}

#[derive(Deserialize)]
struct CentrifugoReply<'a> {
    #[serde(borrow)]
    subscribe: CentrifugoSubscribed<'a>,
}

#[derive(Deserialize)]
struct CentrifugoSubscribed<'a> {
    epoch: Option<String>,
    /// Left out where it is 0.
    #[serde(default)]
    offset: u64,
    #[serde(borrow, default)]
    publications: Vec<&'a RawValue>,
}

impl Dialect {
    /// The one of this name.
    pub(super) fn from_name(name: &str) -> Dialect {
        if name == CENTRIFUGO { Dialect::Centrifugo } else { Dialect::User }
    }

    /// Its name on the command line and in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Dialect::User => USER,
            Dialect::Centrifugo => CENTRIFUGO,
        }
    }

    /// Whether the request carries the token.
    pub(super) fn brings_token_in_request(self) -> bool {
        match self {
            Dialect::User => true,
            Dialect::Centrifugo => false,
        }
    }

    /// Whether, with tokens, publishers have to be members. A member gets its own messages from Centrifugo, which asks for
    /// no membership.
    pub(super) fn asks_for_membership(self) -> bool {
        match self {
            Dialect::User => true,
            Dialect::Centrifugo => false,
        }
    }

    /// Whether each WebSocket message is one message, so that those that are not inflated can be counted.
    pub(super) fn has_one_message_a_frame(self) -> bool {
        match self {
            Dialect::User => true,
            Dialect::Centrifugo => false,
        }
    }

    /// The message by which a client enters right behind its handshake, if it needs one. With a position it comes back to
    /// its rooms, and asks for what it has missed.
    pub(super) fn entrance(self, token: Option<&str>, seat: &Seat) -> Option<String> {
        let Seat { rooms, since, join_fields, .. } = seat;
        match (self, since) {
            (Dialect::User, since) => match (&rooms[..], since) {
                ([], _) => None,
                ([room], None) => Some(format!(r#"{{"type":"join_room","roomId":"{room}","id":1{join_fields}}}"#)),
                ([room, ..], Some(StreamPosition { epoch, offset })) => {
                    let since = json!({"epoch": epoch, "offset": offset});
                    Some(format!(r#"{{"type":"join_room","roomId":"{room}","id":1,"since":{since}{join_fields}}}"#))
                }
                (rooms, None) => Some(json!({"type": "join_room", "roomIds": rooms, "id": 1}).to_string()),
            },
            (Dialect::Centrifugo, since) => {
                let connect = token.map_or(json!({}), |token| json!({"token": token}));
                let mut commands = json!({"connect": connect, "id": 1}).to_string();
                for (at, room) in rooms.iter().enumerate() {
                    let mut subscribe = json!({"channel": room});
                    if let Some(StreamPosition { epoch, offset }) = since {
                        subscribe = json!({"channel": room, "recover": true, "epoch": epoch, "offset": offset});
                    }
                    commands += "\n";
                    commands += &json!({"subscribe": subscribe, "id": at + 2}).to_string();
                }
                Some(commands)
            }
        }
    }

    /// The command that publishes a content into room 0.
    pub(super) fn publish(self, content: &str) -> String {
        match self {
            Dialect::User => format!(r#"{{"type":"room_msg","roomId":"r000000","content":{content}}}"#),
            Dialect::Centrifugo => {
                format!(r#"{{"publish":{{"channel":"r000000","data":{content}}},"id":{PUBLISH_ID}}}"#)
            }
        }
    }

    /// A command whose answer comes behind everything that was sent before. Centrifugo takes no ping of a client, and answers
    /// who leaves a channel that it is not in.
    pub(super) fn barrier(self) -> String {
        match self {
            Dialect::User => r#"{"type":"ping"}"#.to_owned(),
            Dialect::Centrifugo => format!(r#"{{"unsubscribe":{{"channel":"barrier"}},"id":{BARRIER_ID}}}"#),
        }
    }

    /// The answer to a message, where it is a ping.
    #[inline]
    pub(super) fn pong(self, message: &[u8]) -> Option<&'static [u8]> {
        match self {
            Dialect::Centrifugo if message == b"{}" => Some(b"{}"),
            Dialect::Centrifugo | Dialect::User => None,
        }
    }

    /// Takes a WebSocket message apart into messages.
    #[inline]
    pub(super) fn messages(self, payload: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut left = Some(payload);
        std::iter::from_fn(move || {
            let bytes = left?;
            let end = match self {
                Dialect::User => None,
                Dialect::Centrifugo => memchr::memchr(b'\n', bytes),
            };
            left = end.map(|end| &bytes[end + 1..]).filter(|rest| !rest.is_empty());
            Some(&bytes[..end.unwrap_or(bytes.len())])
        })
    }

    /// Tells replies apart, whatever else they carry and however their JSON is spaced.
    pub(super) fn reply_kind(self, reply: &[u8]) -> ReplyKind {
        // What most replies to a publisher are.
        if reply == PUBLISHED {
            return ReplyKind::Other;
        }
        // And what a snapshot is made of.
        if reply.starts_with(ROOM_MSG) {
            return ReplyKind::Other;
        }
        let Ok(reply) = serde_json::from_slice::<Value>(reply) else { return ReplyKind::Other };
        match self {
            Dialect::User => match reply.get("type").and_then(Value::as_str) {
                Some("welcome") => ReplyKind::Welcome,
                Some("joined" | "ack") => ReplyKind::Joined,
                Some("pong") => ReplyKind::Pong,
                Some("error") => ReplyKind::Error,
                Some(_) | None => ReplyKind::Other,
            },
            Dialect::Centrifugo if reply.get("id").and_then(Value::as_u64) == Some(BARRIER_ID.into()) => {
                ReplyKind::Pong
            }
            Dialect::Centrifugo if reply.get("error").is_some() => ReplyKind::Error,
            Dialect::Centrifugo if reply.get("connect").is_some() => ReplyKind::Welcome,
            Dialect::Centrifugo if reply.get("subscribe").is_some() => ReplyKind::Joined,
            Dialect::Centrifugo => ReplyKind::Other,
        }
    }

    /// Reads the answer to a join.
    pub(super) fn joined(self, reply: &[u8]) -> Joined<'_> {
        match self {
            Dialect::User => {
                let Ok(joined) = serde_json::from_slice::<UserJoined>(reply) else { return Joined::default() };
                let position = joined.epoch.zip(joined.offset);
                let position = position.map(|(epoch, offset)| StreamPosition { epoch, offset });
                Joined { position, messages: Vec::new() }
            }
            Dialect::Centrifugo => {
                let Ok(reply) = serde_json::from_slice::<CentrifugoReply<'_>>(reply) else { return Joined::default() };
                let CentrifugoSubscribed { epoch, offset, publications } = reply.subscribe;
                Joined {
                    position: epoch.map(|epoch| StreamPosition { epoch, offset }),
                    messages: publications.into_iter().map(|publication| publication.get().as_bytes()).collect(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centrifugos_replies_are_told_apart_line_by_line() {
        let payload =
            b"{\"id\":1,\"connect\":{\"client\":\"c\"}}\n{\"id\":2,\"subscribe\":{}}\n{}\n{\"id\":3,\"error\":{}}\n\
              {\"id\":1000000001,\"publish\":{}}\n{\"id\":1000000002,\"unsubscribe\":{}}\n";
        let kinds: Vec<_> =
            Dialect::Centrifugo.messages(payload).map(|reply| Dialect::Centrifugo.reply_kind(reply)).collect();
        assert_eq!(
            kinds,
            [
                ReplyKind::Welcome,
                ReplyKind::Joined,
                ReplyKind::Other,
                ReplyKind::Error,
                ReplyKind::Other,
                ReplyKind::Pong
            ]
        );
        let spaced = b"{\n\"type\": \"welcome\"\n}";
        let kinds: Vec<_> = Dialect::User.messages(spaced).map(|reply| Dialect::User.reply_kind(reply)).collect();
        assert_eq!(kinds, [ReplyKind::Welcome]);
    }

    #[test]
    fn a_ping_of_centrifugo_is_answered_and_nothing_else_is() {
        assert_eq!(Dialect::Centrifugo.pong(b"{}"), Some(&b"{}"[..]));
        assert_eq!(Dialect::Centrifugo.pong(br#"{"id":1}"#), None);
        assert_eq!(Dialect::User.pong(b"{}"), None);
    }

    #[test]
    fn who_enters_says_so_in_the_servers_words() {
        let seat = |rooms: &[&str]| Seat::new("u".to_owned(), rooms.iter().map(|room| (*room).to_owned()).collect());
        assert_eq!(Dialect::User.entrance(Some("t"), &seat(&[])), None);
        let join = Dialect::User.entrance(None, &seat(&["r"])).unwrap();
        assert_eq!(join, r#"{"type":"join_room","roomId":"r","id":1}"#);
        let join = Dialect::User.entrance(None, &seat(&["r", "s"])).unwrap();
        assert_eq!(join, r#"{"id":1,"roomIds":["r","s"],"type":"join_room"}"#);
        let with_fields = Seat { join_fields: r#","mode":"latest""#.to_owned(), ..seat(&["r"]) };
        let join = Dialect::User.entrance(None, &with_fields).unwrap();
        assert_eq!(join, r#"{"type":"join_room","roomId":"r","id":1,"mode":"latest"}"#);
        let both = Dialect::Centrifugo.entrance(Some("t"), &seat(&["r"])).unwrap();
        assert_eq!(both, "{\"connect\":{\"token\":\"t\"},\"id\":1}\n{\"id\":2,\"subscribe\":{\"channel\":\"r\"}}");
    }

    #[test]
    fn who_comes_back_names_its_position() {
        let since = Some(StreamPosition { epoch: "e".to_owned(), offset: 7 });
        let seat = Seat { since, ..Seat::new("u".to_owned(), vec!["r".to_owned()]) };
        let join = Dialect::User.entrance(None, &seat).unwrap();
        let expected = json!({"type": "join_room", "roomId": "r", "id": 1, "since": {"epoch": "e", "offset": 7}});
        assert_eq!(serde_json::from_str::<Value>(&join).unwrap(), expected);
        let commands = Dialect::Centrifugo.entrance(None, &seat).unwrap();
        let subscribe: Value = serde_json::from_str(commands.lines().nth(1).unwrap()).unwrap();
        let expected = json!({"channel": "r", "recover": true, "epoch": "e", "offset": 7});
        assert_eq!(subscribe["subscribe"], expected);
    }

    #[test]
    fn the_answer_to_a_join_says_where_the_room_stands() {
        let position = |epoch: &str, offset| Some(StreamPosition { epoch: epoch.to_owned(), offset });
        let user = Dialect::User.joined(br#"{"type":"joined","id":1,"roomId":"r","epoch":"e","offset":0}"#);
        assert_eq!((user.position, user.messages.len()), (position("e", 0), 0));
        assert_eq!(Dialect::User.joined(br#"{"type":"joined","id":1,"roomId":"r"}"#).position, None);
        let reply = br##"{"id":2,"subscribe":{"recoverable":true,"epoch":"f","publications":[{"data":"#1","offset":1},{"data":"#2","offset":2}],"recovered":true,"offset":2}}"##;
        let centrifugo = Dialect::Centrifugo.joined(reply);
        assert_eq!(centrifugo.position, position("f", 2));
        assert_eq!(centrifugo.messages, [&br##"{"data":"#1","offset":1}"##[..], &br##"{"data":"#2","offset":2}"##[..]]);
        assert_eq!(Dialect::Centrifugo.joined(br#"{"id":2,"subscribe":{"epoch":"f"}}"#).position, position("f", 0));
    }
}

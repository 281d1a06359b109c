//! How a client enters, in the words of the user dialect or of Centrifugo's, which logins are compared with.

use serde_json::{Value, json};

/// Whose messages are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The user dialect of `docs/wire.md`: a token comes with the request, and the server welcomes first.
    User,
    /// Centrifugo's JSON protocol: a token comes with the first command, whose reply is the welcome.
    Centrifugo,
}

const USER: &str = "user";
const CENTRIFUGO: &str = "centrifugo";

/// The words of `--dialect`.
pub(super) const DIALECT_NAMES: &[&str] = &[USER, CENTRIFUGO];

/// What a message is that carries no stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyKind {
    /// The first message.
    Welcome,
    /// The answer to a join.
    Joined,
    /// The answer to a JSON ping.
    Pong,
    /// A refused command.
    Error,
    /// Notices and the like.
    Other,
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

    /// The message by which a client enters right behind its handshake, if it needs one.
    pub(super) fn entrance(self, token: Option<&str>, rooms: &[String]) -> Option<String> {
        match self {
            Dialect::User => match rooms {
                [] => None,
                [room] => Some(format!(r#"{{"type":"join_room","roomId":"{room}","id":1}}"#)),
                rooms => Some(json!({"type": "join_room", "roomIds": rooms, "id": 1}).to_string()),
            },
            Dialect::Centrifugo => {
                let connect = token.map_or(json!({}), |token| json!({"token": token}));
                let mut commands = json!({"connect": connect, "id": 1}).to_string();
                for (at, room) in rooms.iter().enumerate() {
                    commands += "\n";
                    commands += &json!({"subscribe": {"channel": room}, "id": at + 2}).to_string();
                }
                Some(commands)
            }
        }
    }

    /// Takes a message apart into replies: Centrifugo's may have several, a line each.
    pub(super) fn replies(self, payload: &[u8]) -> impl Iterator<Item = &[u8]> {
        payload.split(move |byte| self == Dialect::Centrifugo && *byte == b'\n')
    }

    /// Tells replies apart, whatever else they carry and however their JSON is spaced.
    pub(super) fn reply_kind(self, reply: &[u8]) -> ReplyKind {
        let Ok(reply) = serde_json::from_slice::<Value>(reply) else { return ReplyKind::Other };
        match self {
            Dialect::User => match reply.get("type").and_then(Value::as_str) {
                Some("welcome") => ReplyKind::Welcome,
                Some("joined" | "ack") => ReplyKind::Joined,
                Some("pong") => ReplyKind::Pong,
                Some("error") => ReplyKind::Error,
                Some(_) | None => ReplyKind::Other,
            },
            Dialect::Centrifugo if reply.get("error").is_some() => ReplyKind::Error,
            Dialect::Centrifugo if reply.get("connect").is_some() => ReplyKind::Welcome,
            Dialect::Centrifugo if reply.get("subscribe").is_some() => ReplyKind::Joined,
            Dialect::Centrifugo => ReplyKind::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centrifugos_replies_are_told_apart_line_by_line() {
        let payload =
            b"{\"id\":1,\"connect\":{\"client\":\"c\"}}\n{\"id\":2,\"subscribe\":{}}\n{}\n{\"id\":3,\"error\":{}}";
        let kinds: Vec<_> =
            Dialect::Centrifugo.replies(payload).map(|reply| Dialect::Centrifugo.reply_kind(reply)).collect();
        assert_eq!(kinds, [ReplyKind::Welcome, ReplyKind::Joined, ReplyKind::Other, ReplyKind::Error]);
        let spaced = b"{\n\"type\": \"welcome\"\n}";
        let kinds: Vec<_> = Dialect::User.replies(spaced).map(|reply| Dialect::User.reply_kind(reply)).collect();
        assert_eq!(kinds, [ReplyKind::Welcome]);
    }

    #[test]
    fn who_enters_says_so_in_the_servers_words() {
        let rooms = ["r".to_owned(), "s".to_owned()];
        assert_eq!(Dialect::User.entrance(Some("t"), &[]), None);
        let join = Dialect::User.entrance(None, &rooms[..1]).unwrap();
        assert_eq!(join, r#"{"type":"join_room","roomId":"r","id":1}"#);
        let join = Dialect::User.entrance(None, &rooms).unwrap();
        assert_eq!(join, r#"{"id":1,"roomIds":["r","s"],"type":"join_room"}"#);
        let both = Dialect::Centrifugo.entrance(Some("t"), &rooms[..1]).unwrap();
        assert_eq!(both, "{\"connect\":{\"token\":\"t\"},\"id\":1}\n{\"id\":2,\"subscribe\":{\"channel\":\"r\"}}");
    }
}

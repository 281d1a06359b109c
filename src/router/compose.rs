//! From what a user says to what is published: one function makes the bytes, wherever the command came from.
//!
//! A reactor composes what its connections say, and an HTTP request's message is composed the same way. The composer is
//! given the author and the time; it sees neither connections nor topics' tables.

use super::topic::{Kind, TopicRef};
use crate::frame::{FrameBuilder, Opcode};
use crate::protocol;

/// Who publishes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// The user id that receivers are told.
    pub user: &'a str,
    /// Unix time in milliseconds.
    pub unix_ms: u64,
}

/// What is said to a topic. Contents are JSON text, and are copied as they are.
#[derive(Clone, Copy, Debug)]
pub enum Draft<'a> {
    /// `private_msg`, for every connection of a user.
    PrivateMsg {
        /// The user.
        to: &'a str,
        /// Any JSON value.
        content: &'a str,
    },
    /// `room_msg`, for the members of a room.
    RoomMsg {
        /// The room.
        room: &'a str,
        /// Any JSON value.
        content: &'a str,
    },
    /// `broadcast` with `content`.
    BroadcastContent(&'a str),
    /// `broadcast` with `data`.
    BroadcastData(&'a str),
}

/// Which members of the topic get a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All, the sending connection too where it is a member.
    Everyone,
    /// All but the sending connection.
    Others,
}

/// A message as it is published.
#[derive(Debug)]
pub struct Composed<'d, 'f> {
    /// To whom.
    pub topic: TopicRef<'d>,
    /// A whole frame. It lives until the composer's next message.
    pub frame: &'f [u8],
    /// Who of them.
    pub audience: Audience,
}

/// Composes messages in one reused buffer: each is written once, as a whole frame.
#[derive(Debug, Default)]
pub struct Composer {
    frames: FrameBuilder,
}

impl Composer {
    /// A message to a topic.
    #[inline]
    pub fn compose<'d>(&mut self, author: Author<'_>, draft: Draft<'d>) -> Composed<'d, '_> {
        let Author { user, unix_ms } = author;
        match draft {
            Draft::PrivateMsg { to, content } => Composed {
                topic: TopicRef { kind: Kind::Inbox, name: to },
                frame: self.text(|out| protocol::private_msg(out, user, content, unix_ms)),
                audience: Audience::Everyone,
            },
            Draft::RoomMsg { room, content } => Composed {
                topic: TopicRef { kind: Kind::Room, name: room },
                frame: self.text(|out| protocol::room_msg(out, room, user, content, unix_ms)),
                audience: Audience::Others,
            },
            Draft::BroadcastContent(content) => Composed {
                topic: TopicRef::EVERYONE,
                frame: self.text(|out| protocol::broadcast_content(out, user, content, unix_ms)),
                audience: Audience::Others,
            },
            Draft::BroadcastData(data) => Composed {
                topic: TopicRef::EVERYONE,
                frame: self.text(|out| protocol::broadcast_data(out, user, data)),
                audience: Audience::Everyone,
            },
        }
    }

    /// A `private` to one connection, as a whole frame. `data` is JSON text.
    pub fn private(&mut self, author: Author<'_>, data: &str) -> &[u8] {
        self.text(|out| protocol::private(out, author.user, data))
    }

    /// A raw room's message: what was sent is all that receivers get.
    pub fn raw(&mut self, opcode: Opcode, payload: &[u8]) -> &[u8] {
        self.frames.build(opcode, |out| out.extend_from_slice(payload))
    }

    /// Frees the buffer where one large message made it grow beyond `bytes_max`.
    pub fn shrink(&mut self, bytes_max: usize) {
        self.frames.shrink(bytes_max);
    }

    #[inline]
    fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        self.frames.build(Opcode::Text, write)
    }
}

/// The key by which histories know a retry of this user's publish. Keys are each publisher's own: the length says where
/// the user ends.
pub fn key_of(user: &str, key: &str) -> String {
    format!("{}:{user}{key}", user.len())
}

/// Appends the key by which histories know a retry of a publish that was made with an API key of this name. It is that of no
/// user's publish, which begins with a digit.
pub(super) fn push_key_of_api(out: &mut String, name: &str, key: &str) {
    out.push_str("api:");
    out.push_str(itoa::Buffer::new().format(name.len()));
    out.push(':');
    out.push_str(name);
    out.push_str(key);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::split_frame;

    const ALICE: Author<'static> = Author { user: "al\"ice", unix_ms: 5 };

    #[test]
    fn what_is_said_goes_to_its_topic_with_its_author_and_time() {
        let mut composer = Composer::default();
        let cases = [
            (
                Draft::PrivateMsg { to: "bob", content: "1" },
                (Kind::Inbox, "bob", Audience::Everyone),
                r#"{"type":"private_msg","from":"al\"ice","content":1,"time":5}"#,
            ),
            (
                Draft::RoomMsg { room: "den", content: "[2]" },
                (Kind::Room, "den", Audience::Others),
                r#"{"type":"room_msg","roomId":"den","from":"al\"ice","content":[2],"time":5}"#,
            ),
            (
                Draft::BroadcastContent("3"),
                (Kind::Everyone, "", Audience::Others),
                r#"{"type":"broadcast","from":"al\"ice","content":3,"time":5}"#,
            ),
            (
                Draft::BroadcastData("4"),
                (Kind::Everyone, "", Audience::Everyone),
                r#"{"type":"broadcast","data":4,"from":"al\"ice"}"#,
            ),
        ];
        for (draft, (kind, name, audience), text) in cases {
            let composed = composer.compose(ALICE, draft);
            assert_eq!((composed.topic.kind, composed.topic.name, composed.audience), (kind, name, audience));
            assert_eq!(split_frame(composed.frame), (Opcode::Text, text.as_bytes()));
        }
    }

    #[test]
    fn a_key_is_its_users_own() {
        assert_ne!(key_of("ab", "c"), key_of("a", "bc"));
        assert_eq!(key_of("ab", "c"), "2:abc");
        let mut of_api = String::new();
        push_key_of_api(&mut of_api, "ab", "c");
        assert_eq!(of_api, "api:2:abc");
    }
}

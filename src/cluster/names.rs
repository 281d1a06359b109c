//! The names of channels and keys in Redis.
//!
//! ```text
//!   fanfare:all                 everyone, and what all nodes are told
//!   fanfare:node:<run>          one node
//!   fanfare:room:{den}          a topic's channel; rooms, inboxes and raw rooms each with a word of their own
//!   fanfare:room:{den}:m        its history: epoch and end
//!   fanfare:room:{den}:s        its history: the stream
//!   fanfare:room:{den}:k:…      a publish's key
//!   fanfare:revoked             whose tokens are revoked, each with the last Unix second whose tokens are refused
//! ```
//!
//! The braces make a Redis Cluster put all of a topic into one slot. A brace or percent sign in the topic's own name is
//! written as in a URL, so that two names are never one.

use std::fmt::Write;
use std::sync::Arc;

use crate::router::{Kind, TopicRef};

/// The names under one prefix.
#[derive(Clone, Debug)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Names that begin with `prefix`.
    pub fn new(prefix: &str) -> Names {
        Names { prefix: prefix.to_owned() }
    }

    /// The channel of everyone and of all nodes.
    pub fn everyone(&self) -> Arc<str> {
        format!("{}:all", self.prefix).into()
    }

    /// The channel of the node with this run.
    pub fn node(&self, run: u64) -> Arc<str> {
        format!("{}:node:{run:016x}", self.prefix).into()
    }

    /// The table of users whose tokens are revoked.
    pub fn revoked(&self) -> Arc<str> {
        format!("{}:revoked", self.prefix).into()
    }

    /// The channel of a topic, with which the names of its keys begin.
    pub fn topic(&self, topic: TopicRef<'_>) -> Arc<str> {
        let word = match topic.kind {
            Kind::Everyone => return self.everyone(),
            Kind::Room => "room",
            Kind::Inbox => "inbox",
            Kind::Raw => "raw",
        };
        let mut name = format!("{}:{word}:{{", self.prefix);
        for part in topic.name.split_inclusive(['{', '}', '%']) {
            match part.char_indices().next_back() {
                Some((at, special @ ('{' | '}' | '%'))) => {
                    name.push_str(&part[..at]);
                    // Writing to a string does not fail.
                    let _ = write!(name, "%{:02X}", special as u32);
                }
                _ => name.push_str(part),
            }
        }
        name.push('}');
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(name: &str) -> String {
        Names::new("p").topic(TopicRef { kind: Kind::Room, name }).to_string()
    }

    #[test]
    fn names_are_told_apart() {
        assert_eq!(room("den"), "p:room:{den}");
        assert_eq!(room("a}b{c%7D"), "p:room:{a%7Db%7Bc%257D}");
        assert_eq!(room("}"), "p:room:{%7D}");
        assert_eq!(&*Names::new("p").node(255), "p:node:00000000000000ff");
        assert_eq!(&*Names::new("p").topic(TopicRef::EVERYONE), "p:all");
    }
}

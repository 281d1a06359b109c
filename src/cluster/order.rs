//! An operator's order to all nodes, given through Redis by a process that is no node.

use std::fmt;
use std::sync::Arc;

use tokio::task::LocalSet;

use super::connections::Redis;
use super::core::{Command, Reply};
use super::names::Names;
use super::record::{self, Record};
use crate::config;
use crate::limits::{KICK_REASON_BYTES_MAX, ROOM_ID_BYTES_MAX, USER_ID_BYTES_MAX};
use crate::router::{Kind, TopicRef};

/// What the nodes are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// End every connection of a user.
    Disconnect {
        /// Whose.
        user: &'a str,
        /// The user's tokens up to this Unix second are refused from then on; `None` leaves them good.
        revoke_unix_s: Option<u64>,
    },
    /// Remove a user from a room; who was removed may come back.
    Kick {
        /// From where.
        room: &'a str,
        /// Who.
        user: &'a str,
        /// Told to the user, at most [`KICK_REASON_BYTES_MAX`] bytes.
        reason: &'a str,
    },
}

/// Why an order was not given.
#[derive(Debug)]
pub enum OrderError {
    /// There is no Redis in the configuration, or a name is none.
    Wrong(String),
    /// Redis cannot be reached, or refuses.
    Redis(String),
    /// A server's HTTP API cannot be reached, or refuses.
    Api(String),
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrderError::Wrong(what) => f.write_str(what),
            OrderError::Redis(why) => write!(f, "Redis cannot be asked: {why}"),
            OrderError::Api(why) => write!(f, "the HTTP API does not take it: {why}"),
        }
    }
}

impl std::error::Error for OrderError {}

/// Gives an order to the nodes around a Redis; how many have heard it. Those are, for a room, the nodes with members.
///
/// # Errors
/// [`OrderError`]: no node has heard it then.
pub fn give(redis: &config::Redis, order: Order<'_>) -> Result<u64, OrderError> {
    order.check()?;
    let address = redis.url.address().ok_or_else(|| {
        OrderError::Wrong("there is no Redis, and so no way to the nodes; say which with --redis URL".to_owned())
    })?;
    let lost = |why: &dyn fmt::Display| OrderError::Redis(why.to_string());
    let connections = Arc::new(Redis::new(address.clone(), &redis.tls_ca).map_err(|error| lost(&error))?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| lost(&error))?;
    let run = getrandom::u64().map_err(|error| lost(&error))?;
    let names = Names::new(&redis.prefix);
    let answers = LocalSet::new().block_on(&runtime, async {
        let (mut commands, _) = connections.commands().await?;
        // Nodes that come later find it in Redis: it has to be there before those that are there hear of it.
        if let Some(note) = order.note(&names) {
            let noted = commands.run(vec![note]).await?;
            if noted.replies.first() != Some(&Reply::Revoked) {
                return Ok(noted);
            }
        }
        commands.run(order.records(&names, run)).await
    });
    let answers = answers.map_err(|why| lost(&why))?;
    match answers.replies.last() {
        Some(Reply::Published(nodes)) => Ok(*nodes),
        _ => Err(lost(&answers.refusal.unwrap_or_else(|| "it does not say who has heard".to_owned()))),
    }
}

impl Order<'_> {
    /// Whether the names, and the reason, are within their bounds.
    ///
    /// # Errors
    /// [`OrderError::Wrong`].
    pub fn check(self) -> Result<(), OrderError> {
        let (room, user, reason) = match self {
            Order::Disconnect { user, revoke_unix_s: _ } => (None, user, ""),
            Order::Kick { room, user, reason } => (Some(room), user, reason),
        };
        let wrong = |what: &str, bytes_max: usize| OrderError::Wrong(format!("{what} of 1 to {bytes_max} bytes"));
        if !(1..=USER_ID_BYTES_MAX).contains(&user.len()) {
            return Err(wrong("a user id is a text", USER_ID_BYTES_MAX));
        }
        if room.is_some_and(|room| !(1..=ROOM_ID_BYTES_MAX).contains(&room.len())) {
            return Err(wrong("a room id is a text", ROOM_ID_BYTES_MAX));
        }
        if reason.len() > KICK_REASON_BYTES_MAX {
            return Err(OrderError::Wrong(format!("the reason is a text of at most {KICK_REASON_BYTES_MAX} bytes")));
        }
        Ok(())
    }

    /// What Redis keeps of it.
    fn note(self, names: &Names) -> Option<Command> {
        match self {
            Order::Disconnect { user, revoke_unix_s: Some(unix_s) } => {
                Some(Command::Revoke { key: names.revoked(), user: user.into(), unix_s })
            }
            Order::Disconnect { revoke_unix_s: None, .. } | Order::Kick { .. } => None,
        }
    }

    /// What the nodes hear, in envelopes of an unknown node; the last is the order itself.
    fn records(self, names: &Names, run: u64) -> Vec<Command> {
        let publish = |channel: Arc<str>, record: Record<'_>| {
            let mut payload = record::begin(run);
            record.write(&mut payload);
            Command::Publish { channel, payload }
        };
        match self {
            Order::Disconnect { user, revoke_unix_s } => {
                let revoke = revoke_unix_s.map(|unix_s| Record::Revoke { user, unix_s });
                let records = revoke.into_iter().chain([Record::Disconnect { user }]);
                records.map(|record| publish(names.everyone(), record)).collect()
            }
            Order::Kick { room, user, reason } => {
                vec![publish(names.topic(TopicRef { kind: Kind::Room, name: room }), Record::Kick { user, reason })]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_bounds() {
        let user = "u".repeat(USER_ID_BYTES_MAX);
        let room = "r".repeat(ROOM_ID_BYTES_MAX);
        let reason = "x".repeat(KICK_REASON_BYTES_MAX);
        let is_good = |order: Order<'_>| order.check().is_ok();
        assert!(is_good(Order::Disconnect { user: &user, revoke_unix_s: None }));
        assert!(is_good(Order::Kick { room: &room, user: &user, reason: &reason }));
        let (more_user, more_room, more_reason) = (user.clone() + "u", room.clone() + "r", reason + "x");
        assert!(!is_good(Order::Disconnect { user: &more_user, revoke_unix_s: None }));
        assert!(!is_good(Order::Disconnect { user: "", revoke_unix_s: Some(1) }));
        assert!(!is_good(Order::Kick { room: &more_room, user: &user, reason: "" }));
        assert!(!is_good(Order::Kick { room: "", user: &user, reason: "" }));
        assert!(!is_good(Order::Kick { room: &room, user: &user, reason: &more_reason }));
    }
}

//! Whose tokens are revoked, as Redis knows it: read when Redis is reached, so that a node that comes later knows, too.

use arcstr::ArcStr;

use super::{Command, Core, Expect, Reply};
use crate::ids::ReactorId;
use crate::router::cluster::FromCluster;

/// How far the table in Redis is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Revocations {
    /// Not at all, or it has to be read again.
    #[default]
    Unread,
    /// A piece of it is asked for.
    Reading,
    /// What comes after that is heard.
    Read,
}

impl Core {
    /// Reads the table, unless it is read.
    pub(super) fn read_revocations(&mut self) {
        if self.revocations == Revocations::Unread && self.reachable {
            self.read_revocations_from(0);
        }
    }

    fn read_revocations_from(&mut self, cursor: u64) {
        self.revocations = Revocations::Reading;
        let command = Command::Revocations { key: self.names.revoked(), cursor };
        self.pending.push(command, Expect::Revocations);
    }

    /// A piece of the table, or Redis has not answered.
    pub(super) fn revocations_read(&mut self, reply: Reply) {
        let Reply::Revocations { cursor, entries } = reply else {
            // The next canary asks again.
            self.revocations = Revocations::Unread;
            return;
        };
        for (user, unix_s) in entries {
            // The table is the node's: one reactor is enough.
            self.notify(ReactorId(0), FromCluster::Revoked { user: user.as_str().into(), unix_s });
        }
        match cursor {
            0 => self.revocations = Revocations::Read,
            cursor => self.read_revocations_from(cursor),
        }
    }

    /// A node says that a user's tokens are revoked: every reactor knows before it is told to end the connections.
    pub(super) fn heard_revoke(&mut self, user: &str, unix_s: u64) {
        let user = ArcStr::from(user);
        self.notify_all(|| FromCluster::Revoked { user: user.clone(), unix_s });
    }
}

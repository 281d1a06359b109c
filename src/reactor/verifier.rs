//! Signatures by public keys are checked elsewhere: one takes as long as hundreds of deliveries, and many clients may come
//! at once.
//!
//! ```text
//!   reactors ── Job: token ──► one bounded channel ──► a thread of the server's ── Verdict ──► the reactor's mailbox
//! ```
//!
//! Each reactor has at most `limits::VERIFICATIONS_UNDER_WAY` jobs in the channel, which has room for those of all: sending
//! never blocks and never fails. What is more waits in its connection, and its deadline applies.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::backend::Token;
use super::driver::SlotKey;
use super::mailbox::PostOffice;
use crate::auth::{Auth, Grant, TokenError, When};
use crate::ids::ReactorId;
use crate::limits::VERIFICATIONS_UNDER_WAY;

/// Where reactors send tokens.
#[derive(Clone, Debug)]
pub struct Verifier(Sender<Job>);

/// Where a thread gets them.
#[derive(Clone, Debug)]
pub struct Jobs(Receiver<Job>);

/// A token to be looked at.
pub(super) struct Job {
    pub(super) reactor: ReactorId,
    pub(super) slot: SlotKey,
    pub(super) token: Token,
    pub(super) unix_ms: u64,
    pub(super) when: When,
    pub(super) auth: Arc<Auth>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) slot: SlotKey,
    /// It goes on to the backend, where there is one.
    pub(super) token: Token,
    pub(super) outcome: Result<Grant, TokenError>,
}

/// The channel of a node with so many reactors.
pub fn verifier(reactors: usize) -> (Verifier, Jobs) {
    let (sender, receiver) = bounded(reactors * VERIFICATIONS_UNDER_WAY);
    (Verifier(sender), Jobs(receiver))
}

impl Verifier {
    pub(super) fn send(&self, job: Job) {
        // Nobody is there any more in a node that is going away: the connection's deadline answers it.
        let _ = self.0.try_send(job);
    }
}

impl Jobs {
    /// Looks at the next token, if there is one; whether there was.
    pub fn run_one(&self, post: &PostOffice) -> bool {
        let Ok(job) = self.0.try_recv() else { return false };
        judge(job, post);
        true
    }

    /// Looks at tokens until the last reactor is gone.
    pub fn run(self, post: &PostOffice) {
        while let Ok(job) = self.0.recv() {
            judge(job, post);
        }
    }
}

fn judge(job: Job, post: &PostOffice) {
    let Job { reactor, slot, token, unix_ms, when, auth } = job;
    let outcome = auth.verify(&token.0, unix_ms, when);
    post.verdict(reactor, Verdict { slot, token, outcome });
}

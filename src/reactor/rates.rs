//! What a connection sends counts against its rate: messages, and control frames as well.

use super::connection::{CloseCause, Connection};
use super::driver::{Driver, SlotKey};
use super::worker::Worker;
use crate::conn::PeerError;
use crate::frame::Opcode;

impl<D: Driver> Worker<D> {
    /// Whether a message of so many bytes is within the connection's rate.
    ///
    /// # Errors
    /// [`PeerError::RateAbuse`] after too many beyond it.
    pub(super) fn within_rate(&mut self, slot: SlotKey, bytes: usize) -> Result<bool, PeerError> {
        let now = self.now;
        let Some(grant) = self.connections.get_mut(slot).and_then(|connection| connection.grant.as_mut()) else {
            return Ok(true);
        };
        grant.rate_mut().map_or(Ok(true), |rate| rate.take(bytes as u64, now))
    }

    /// A ping of an open connection: answered, unless there are too many (RFC 6455 §5.5.3 allows to answer only the
    /// latest of several).
    pub(super) fn ping(&mut self, slot: SlotKey, payload: &[u8]) {
        match self.control_within_rate(slot, payload.len()) {
            Ok(true) => self.connections.frame(slot, Opcode::Pong, |out| out.extend_from_slice(payload)),
            Ok(false) => {}
            Err(error) => self.quiesce(slot, CloseCause::Error(error)),
        }
    }

    /// A pong of an open connection: the first behind a ping of ours is free, others were not asked for.
    pub(super) fn pong(&mut self, slot: SlotKey) {
        let is_answer =
            |connection: &mut Connection| std::mem::take(&mut connection.heartbeat.unanswered).pinged().is_some();
        if self.connections.get_mut(slot).is_some_and(is_answer) {
            return;
        }
        if let Err(error) = self.control_within_rate(slot, 0) {
            self.quiesce(slot, CloseCause::Error(error));
        }
    }

    /// Whether a control frame is within what holds for every connection, and within the connection's own rate.
    fn control_within_rate(&mut self, slot: SlotKey, bytes: usize) -> Result<bool, PeerError> {
        let now = self.now;
        let Some(connection) = self.connections.get_mut(slot) else { return Ok(false) };
        let within_bound = connection.control_frames.take(now)?;
        Ok(self.within_rate(slot, bytes)? && within_bound)
    }
}

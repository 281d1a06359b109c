//! From serving to the end: what a signal asks for, and the drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::Reactors;
use super::error::{ServeError, io_error};
use super::signals::Request;
use super::supervisor::Supervisor;
use super::unix::UnixSocket;
use crate::config;
use crate::control::ReloadRequest;
use crate::current::Current;
use crate::limits::{CLUSTER_FINISH_MS_MAX, STOP_SPARE_MS, WEBHOOK_FINISH_MS_MAX};
use crate::reactor::Order;

/// Why the node is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A supervisor asks: balancers are to notice first.
    ToDrain,
    /// A person at a terminal asks, who does not wait for balancers.
    ToDrainNow,
}

/// What the way out needs.
pub(super) struct Ending {
    pub(super) requests: Receiver<Request>,
    pub(super) reactors: Reactors,
    /// What `/health/ready` says.
    pub(super) ready: Arc<AtomicBool>,
    /// Their paths are the next process's from the drain on.
    pub(super) unix: Vec<UnixSocket>,
    pub(super) supervisor: Supervisor,
}

impl Ending {
    /// Waits for the signal that ends the node, and for the node's end. `drain` is what holds when it begins.
    ///
    /// # Errors
    /// A reactor has failed.
    pub(super) fn wait(self, reload: &Sender<ReloadRequest>, drain: &Current<config::Drain>) -> Result<(), ServeError> {
        let asked = self.wait_for_signal(reload)?;
        let drain = drain.get();
        let delay = match asked {
            Asked::ToDrain => drain.delay,
            Asked::ToDrainNow => Duration::ZERO,
        };
        self.ready.store(false, Ordering::Relaxed);
        self.supervisor.stopping(delay + drain.timeout + Duration::from_millis(STOP_SPARE_MS));
        if self.delay(delay) { self.drain(drain.timeout) } else { Ok(()) }
    }

    /// Until the node is to end, or a reactor fails. Other requests are passed on.
    fn wait_for_signal(&self, reload: &Sender<ReloadRequest>) -> Result<Asked, ServeError> {
        loop {
            select! {
                recv(self.requests) -> request => match request {
                    // Where a reload waits already, it will read the same.
                    Ok(Request::Reload) => drop(reload.try_send(ReloadRequest { answer: None })),
                    Ok(Request::Drain) => return Ok(Asked::ToDrain),
                    Ok(Request::DrainNow | Request::Leave) | Err(_) => return Ok(Asked::ToDrainNow),
                },
                recv(self.reactors.ended) -> ended => {
                    ended.unwrap_or(Ok(())).map_err(io_error("a reactor failed"))?;
                    return Ok(Asked::ToDrainNow);
                }
            }
        }
    }

    /// Goes on serving while balancers find out that the node is not ready any more; whether it is to drain then.
    fn delay(&self, delay: Duration) -> bool {
        if delay.is_zero() {
            return true;
        }
        tracing::info!(delay_ms = delay.as_millis() as u64, "not ready any more: draining begins after drain.delay");
        if self.requests.recv_timeout(delay).is_err() {
            return true;
        }
        tracing::warn!("second signal: leaving at once");
        false
    }

    /// Waits for all reactors to have drained, for the time to be up, or for a second signal.
    fn drain(self, drain_max: Duration) -> Result<(), ServeError> {
        let Ending { requests, reactors, unix, .. } = self;
        let within_ms = super::settings::ms(drain_max);
        tracing::info!(timeout_ms = within_ms, "draining: a second signal leaves at once");
        drop(unix);
        reactors.post.order(Order::Drain { within_ms });
        let deadline = Instant::now() + drain_max;
        let mut left = reactors.count;
        while left > 0 {
            select! {
                recv(reactors.ended) -> ended => {
                    ended.unwrap_or(Ok(())).map_err(io_error("a reactor failed while draining"))?;
                    left -= 1;
                }
                recv(requests) -> _ => {
                    tracing::warn!("second signal: leaving at once");
                    return Ok(());
                }
                recv(crossbeam_channel::at(deadline)) -> _ => {
                    tracing::warn!("drain.timeout is over: the connections left are cut");
                    return Ok(());
                }
            }
        }
        reactors.post.order(Order::Finish);
        if let Some(finished) = &reactors.cluster_finished {
            // The other nodes hear of the last leaves, if Redis is there to tell them.
            let _ = finished.recv_timeout(Duration::from_millis(CLUSTER_FINISH_MS_MAX));
        }
        if let Some(finished) = &reactors.webhooks_finished {
            // Receivers get what is due, if they take it.
            let _ = finished.recv_timeout(Duration::from_millis(WEBHOOK_FINISH_MS_MAX));
        }
        tracing::info!("drained");
        Ok(())
    }
}

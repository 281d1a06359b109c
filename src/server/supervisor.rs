//! What a supervisor that has started the process is told (sd_notify(3)): that it serves, reads its configuration again, or
//! goes away; and, where it has a watchdog, that every reactor still turns.
//!
//! A thread of its own tells it: a supervisor that does not read holds nothing up. Without `NOTIFY_SOCKET` there is none.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use sd_notify::NotifyState;

use crate::limits::PULSE_LOOK_MS;
use crate::reactor::Pulse;

/// Pieces of news that may wait; beyond it the newest is lost.
const NEWS_MAX: usize = 16;

/// What the supervisor is told.
#[derive(Debug)]
enum News {
    /// The process serves; what it says of that.
    Serving(String),
    /// The configuration is being read again, since this moment of the monotonic clock in microseconds.
    Reloading(i128),
    /// The process goes away, and takes so long at most.
    Stopping(Duration),
}

/// Tells the supervisor, if there is one. Clones tell the same.
#[derive(Clone, Debug)]
pub(super) struct Supervisor(Option<Sender<News>>);

impl Supervisor {
    /// Starts the thread where a supervisor wants to be told.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub(super) fn start(pulse: Arc<Pulse>) -> io::Result<Supervisor> {
        if std::env::var_os("NOTIFY_SOCKET").is_none_or(|path| path.is_empty()) {
            return Ok(Supervisor(None));
        }
        let (sender, news) = bounded(NEWS_MAX);
        let watchdog = sd_notify::watchdog_enabled().map(|within| Watchdog::new(pulse, within));
        std::thread::Builder::new().name("supervisor".into()).spawn(move || tell_all(&news, watchdog))?;
        Ok(Supervisor(Some(sender)))
    }

    /// The process serves: with the configuration of the start, or with one that was read again.
    pub(super) fn serving(&self, status: &str) {
        self.tell(News::Serving(status.to_owned()));
    }

    /// The configuration is being read again, from now until [`Supervisor::serving`].
    pub(super) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        self.tell(News::Reloading(i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000));
    }

    /// The process goes away, which takes so long at most.
    pub(super) fn stopping(&self, within: Duration) {
        self.tell(News::Stopping(within));
    }

    fn tell(&self, news: News) {
        if let Some(sender) = &self.0
            && sender.try_send(news).is_err()
        {
            tracing::warn!("the supervisor (NOTIFY_SOCKET) reads nothing: it is not told what the process does");
        }
    }
}

/// Tells all that there is to tell, and feeds the watchdog, until the process ends.
fn tell_all(news: &Receiver<News>, mut watchdog: Option<Watchdog>) {
    loop {
        let next = match &watchdog {
            Some(watchdog) => news.recv_deadline(watchdog.look_at),
            None => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(News::Serving(status)) => notify(&[NotifyState::Ready, NotifyState::Status(&status)]),
            Ok(News::Reloading(since)) => notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(since)]),
            Ok(News::Stopping(within)) => {
                let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
                notify(&[
                    NotifyState::Stopping,
                    NotifyState::ExtendTimeoutUsec(within),
                    NotifyState::Status("draining: connections are told to come back elsewhere"),
                ]);
            }
            Err(RecvTimeoutError::Timeout) => {
                if let Some(watchdog) = &mut watchdog
                    && watchdog.look(Instant::now())
                {
                    notify(&[NotifyState::Watchdog]);
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the supervisor (NOTIFY_SOCKET) what the process does");
    }
}

/// Is fed when every reactor has turned since it was asked to; the supervisor ends a process whose watchdog is not fed.
struct Watchdog {
    pulse: Arc<Pulse>,
    /// Three questions in the time in which it has to be fed once.
    every: Duration,
    look_at: Instant,
    /// When the reactors were asked, until all have answered.
    asked: Option<Instant>,
}

impl Watchdog {
    fn new(pulse: Arc<Pulse>, within: Duration) -> Watchdog {
        Watchdog { pulse, every: within / 3, look_at: Instant::now(), asked: None }
    }

    /// Whether it is to be fed now.
    fn look(&mut self, now: Instant) -> bool {
        let asked = match self.asked {
            Some(asked) => asked,
            None => {
                self.pulse.ask(now);
                self.asked = Some(now);
                now
            }
        };
        let silent = self.pulse.silent(now);
        if silent.is_empty() {
            self.asked = None;
            self.look_at = asked + self.every;
            return true;
        }
        for silence in silent.iter().filter(|silence| silence.lasts > self.every) {
            let (reactor, silent_ms) = (silence.reactor.0, silence.lasts.as_millis() as u64);
            tracing::error!(reactor, silent_ms, "a reactor does not turn: the watchdog is not fed");
        }
        self.look_at = now + Duration::from_millis(PULSE_LOOK_MS);
        false
    }
}

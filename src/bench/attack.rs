//! Attackers: connections that keep the rules badly or not at all, on a thread of their own, so that who measures
//! beside them never waits for them. How many there are, what they send and how long they last is bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::bombers::{Blasts, Bombers, Charge};
use super::dribblers::Dribblers;
use super::greedy::{Greedy, Spoils};
use super::handshake::Handshake;
use super::limits::{ATTACK_TICK_MS, EVENTS_PER_TURN};
use super::{BenchError, Options};

/// What became of an attack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tally {
    /// Dribblers that the server had not ended when the patience with it was.
    pub(super) dribblers_left: usize,
    /// Bytes they sent.
    pub(super) dribbled_bytes: u64,
    /// The deflate bombs.
    pub(super) bombs: Blasts,
    /// The messages of empty fragments.
    pub(super) fragments: Blasts,
    /// What greedy clients got.
    pub(super) spoils: Spoils,
    /// Greedy clients whose connection was open at the end.
    pub(super) greedy_left: usize,
}

/// An attack under way.
#[derive(Debug)]
pub(super) struct Attack {
    ending: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally, BenchError>>,
}

impl Attack {
    /// Starts it, to last about as long as a round.
    pub(super) fn start(
        options: &Options,
        bomb: &Charge,
        fragments: &Charge,
        mask: [u8; 4],
    ) -> Result<Attack, BenchError> {
        let ending = Arc::new(AtomicBool::new(false));
        let siege = Siege::new(options, bomb, fragments, mask, Arc::clone(&ending))?;
        let thread = std::thread::Builder::new().name("attack".to_owned()).spawn(|| siege.run())?;
        Ok(Attack { ending, thread })
    }

    /// Has it come to its end: from now on the patience with what the server has not answered or ended runs out.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Whether it goes on.
    pub(super) fn is_running(&self) -> bool {
        !self.thread.is_finished()
    }

    /// What became of it, once it has ended.
    pub(super) fn tally(self) -> Result<Tally, BenchError> {
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

struct Siege {
    poll: Poll,
    handshake: Handshake,
    dribblers: Dribblers,
    bombers: Bombers,
    fragmenters: Bombers,
    greedy: Greedy,
    timeout: Duration,
    ending: Arc<AtomicBool>,
}

impl Siege {
    fn new(
        options: &Options,
        bomb: &Charge,
        fragments: &Charge,
        mask: [u8; 4],
        ending: Arc<AtomicBool>,
    ) -> Result<Siege, BenchError> {
        let handshake = Handshake::new(options);
        let start = Instant::now();
        let bombers = |count, charge: &Charge, token| Bombers::new(options, count, charge.clone(), token, start);
        Ok(Siege {
            poll: Poll::new()?,
            dribblers: Dribblers::new(options.dribblers, &handshake)?,
            bombers: bombers(options.bombers, bomb, options.dribblers),
            fragmenters: bombers(options.fragmenters, fragments, options.dribblers + options.bombers),
            greedy: Greedy::new(options, options.dribblers + options.bombers + options.fragmenters, mask),
            handshake,
            timeout: options.timeout,
            ending,
        })
    }

    fn run(mut self) -> Result<Tally, BenchError> {
        let tick = Duration::from_millis(ATTACK_TICK_MS);
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        let mut next = Instant::now();
        let mut deadline = None;
        loop {
            let now = Instant::now();
            if now >= next {
                // A tick that was missed is not made up for: that would be a burst.
                next = (next + tick).max(now);
                self.tick(now)?;
            }
            match self.poll.poll(&mut events, Some(next.saturating_duration_since(now))) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                outcome => outcome?,
            }
            for event in &events {
                let at = event.token().0;
                if self.greedy.holds(at) {
                    self.greedy.ready(at, event.is_writable(), &self.handshake)?;
                } else if !self.dribblers.ready(at) {
                    let is_bomber = self.bombers.holds(at);
                    let group = if is_bomber { &mut self.bombers } else { &mut self.fragmenters };
                    group.ready(at, event.is_writable(), &self.handshake)?;
                }
            }
            if deadline.is_none() && self.ending.load(Ordering::Relaxed) {
                deadline = Some(Instant::now() + self.timeout);
                self.greedy.stop();
            }
            let siege_is_over = self.dribblers.left() == 0 && self.bombers.is_over() && self.fragmenters.is_over();
            let is_over = siege_is_over && self.greedy.is_over();
            if deadline.is_some_and(|deadline| is_over || Instant::now() >= deadline) {
                return Ok(Tally {
                    dribblers_left: self.dribblers.left(),
                    dribbled_bytes: self.dribblers.sent_bytes(),
                    bombs: self.bombers.blasts(),
                    fragments: self.fragmenters.blasts(),
                    spoils: self.greedy.spoils(),
                    greedy_left: self.greedy.left(),
                });
            }
        }
    }

    fn tick(&mut self, now: Instant) -> Result<(), BenchError> {
        let target = self.handshake.target();
        self.dribblers.tick(target.address, self.poll.registry())?;
        self.bombers.tick(now, target, self.poll.registry())?;
        self.fragmenters.tick(now, target, self.poll.registry())?;
        self.greedy.tick(target, self.poll.registry())
    }
}

//! `fanfare feed`: updates from stdin or from a stream into a keyed room, each acked.
//!
//! ```text
//!   source ─► update ─► window ─► link ─► the server
//!   (stdin, a thread)   │   ▲               │
//!                       │   └── acks ◄──────┘
//!   keep the place ◄────┘
//! ```
//!
//! As much as has been read goes into one command, and so many commands may wait for their acks: then nothing more is
//! read. A connection that ends is opened again, with the next of the servers, and what is not acked is sent again under
//! its key. Of a stream the place up to which all is acked is kept.

mod source;
mod update;
mod window;

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::io::Write;
use std::time::{Duration, Instant};

use self::source::{Next, Source};
pub use self::source::{Stream, StreamEntry};
use self::update::Place;
use self::window::Window;
use super::backoff::Backoff;

use super::error::Loss;
use super::interrupt::Interrupt;
use super::link::{Event, Fault, Link, PATIENCE};
use super::message::{Message, Refusal};
use super::{ClientError, Target, note};

/// After which pause what was refused for now is sent again.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// The close code of a server that was sent a message too large.
const TOO_BIG: u16 = 1009;

/// What to feed, and where.
#[derive(Debug)]
pub struct Feed {
    /// The servers, all with the same room: the next is tried where one is lost. At least one.
    pub targets: Vec<Target>,
    /// The room.
    pub room: String,
    /// Where updates come from.
    pub source: FeedSource,
    /// Updates in one command at most.
    pub batch_max: usize,
    /// Bytes of updates in one command at most; one larger update goes alone.
    pub batch_bytes_max: usize,
    /// Whether the first bad line or entry is the end.
    pub strict: bool,
}

/// Where updates come from.
pub enum FeedSource {
    /// The lines of stdin.
    Stdin,
    /// A stream.
    Stream {
        /// It.
        stream: Box<dyn Stream>,
        /// Behind which id to begin where none was kept.
        from: String,
        /// Whether the ids of entries are versions, where these say none.
        versions: bool,
    },
}

impl Debug for FeedSource {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            FeedSource::Stdin => out.write_str("Stdin"),
            FeedSource::Stream { from, versions, .. } => {
                out.debug_struct("Stream").field("from", from).field("versions", versions).finish_non_exhaustive()
            }
        }
    }
}

/// Publishes until stdin ends, or until SIGINT or SIGTERM. The answer says whether all that was read was published; what was
/// not is told on `err`.
///
/// # Errors
///
/// Where no server takes it, or what is not acked may be lost.
pub fn feed(options: Feed, err: &mut dyn Write) -> Result<bool, ClientError> {
    let interrupt = Interrupt::catch_both().map_err(|error| ClientError::Io { what: "catch SIGINT", error })?;
    let Feed { targets, room, source, batch_max, batch_bytes_max, strict } = options;
    let source = match source {
        FeedSource::Stdin => Source::of_stdin()?,
        FeedSource::Stream { stream, from, versions } => {
            let (source, begin) = Source::of_stream(stream, &from, versions)?;
            note(err, format_args!("reads the stream behind {begin}"));
            source
        }
    };
    let run = format!("{:016x}", fastrand::u64(..));
    let window = Window::new(&room, run);
    let feeder = Feeder {
        targets,
        at: 0,
        batch: Batch { updates_max: batch_max, bytes_max: batch_bytes_max, strict },
        source,
        window,
        queue: VecDeque::new(),
        carried: None,
        counts: Counts::default(),
        was_open: false,
        ending: None,
        is_refused: false,
        err,
    };
    feeder.run(&interrupt)
}

/// How updates become commands.
#[derive(Clone, Copy, Debug)]
struct Batch {
    updates_max: usize,
    bytes_max: usize,
    strict: bool,
}

/// What became of what was read.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    acked: u64,
    stale: u64,
    superseded: u64,
    bad: u64,
    returns: u64,
}

/// Why nothing more is read.
#[derive(Debug)]
enum Ending {
    /// A signal.
    Told,
    /// A bad line or entry, which is the end.
    Strict(String),
}

struct Feeder<'a> {
    targets: Vec<Target>,
    /// The server that is spoken to.
    at: usize,
    batch: Batch,
    source: Source,
    window: Window,
    /// Commands that wait until the socket takes them.
    queue: VecDeque<String>,
    /// An update that had no room in the last command.
    carried: Option<update::Update>,
    counts: Counts,
    /// Whether a server was ever there.
    was_open: bool,
    ending: Option<Ending>,
    /// Whether the server refuses for now, which was told.
    is_refused: bool,
    err: &'a mut dyn Write,
}

impl Feeder<'_> {
    fn run(mut self, interrupt: &Interrupt) -> Result<bool, ClientError> {
        let mut backoff = Backoff::default();
        let mut attempts = 0;
        let outcome = loop {
            let mut opened_at = None;
            attempts += 1;
            let loss = match self.attend(interrupt, &mut opened_at) {
                Ok(()) => break Ok(()),
                Err(Fault::Final(error)) => break Err(error),
                Err(Fault::Loss(loss)) => loss,
            };
            if interrupt.is_told() && self.window.is_empty() {
                break Ok(());
            }
            if interrupt.is_told() || (!self.was_open && attempts >= self.targets.len()) {
                break Err(self.unacked(&loss.why));
            }
            if loss.code == Some(TOO_BIG) {
                let what = "a command is larger than the server takes (limits.message_bytes_max): lower --batch-bytes, or \
                            raise it there";
                break Err(self.unacked(&format!("{}; {what}", loss.why)));
            }
            let lived = opened_at.map_or(Duration::ZERO, |at: Instant| at.elapsed());
            let Some(pause) = backoff.pause(loss.retry, lived) else { break Err(self.unacked(&loss.why)) };
            self.at = (self.at + 1) % self.targets.len();
            let what = format!("{}; again in {} ms with {}", loss.why, pause.as_millis(), self.target().url);
            note(self.err, what);
            interrupt.pause(pause);
        };
        let kept = self.source.end();
        let Counts { acked, stale, superseded, bad, returns } = self.counts;
        let mut summary = format!("{acked} updates are acked");
        for (count, what) in [
            (stale, "of them were stale"),
            (superseded, "were left out, since newer ones of their items had come first"),
            (bad, "lines or entries were bad"),
            (returns, "times the connection was opened again"),
        ] {
            if count > 0 {
                summary.push_str(&format!(", {count} {what}"));
            }
        }
        if self.was_open {
            note(self.err, summary);
        }
        outcome.and(kept)?;
        match self.ending {
            Some(Ending::Strict(why)) => Err(ClientError::Refused(why)),
            Some(Ending::Told) | None => Ok(bad == 0),
        }
    }

    fn target(&self) -> &Target {
        &self.targets[self.at]
    }

    /// One connection. Ends without a fault when all is acked and there will be nothing more.
    fn attend(&mut self, interrupt: &Interrupt, opened_at: &mut Option<Instant>) -> Result<(), Fault> {
        let opened = match self.window.is_empty() {
            true => interrupt.while_blocked(|| Link::open(self.target())),
            // There is something to be saved.
            false => Some(Link::open(self.target())),
        };
        let Some(link) = opened else { return Ok(()) };
        let mut link = link?;
        *opened_at = Some(Instant::now());
        self.counts.returns += u64::from(std::mem::replace(&mut self.was_open, true));
        let (again, superseded) = self.window.again(Instant::now());
        self.counts.superseded += superseded as u64;
        self.queue = again.into();
        loop {
            if interrupt.is_told() {
                self.ending.get_or_insert(Ending::Told);
            }
            let (again, superseded) = self.window.resume(Instant::now());
            self.counts.superseded += superseded as u64;
            self.queue.extend(again);
            while !link.is_unflushed()
                && let Some(command) = self.queue.pop_front()
            {
                link.send(command);
            }
            self.send_what_is_there(&mut link);
            if let Some(place) = self.window.take_reached() {
                self.source.keep(place);
            }
            let is_over = self.ending.is_some() || (self.source.is_over() && self.carried.is_none());
            if is_over && self.window.is_empty() {
                link.leave();
                return Ok(());
            }
            let until = self.window.next_at(PATIENCE);
            let input = self.source.descriptor().filter(|_| self.may_read(&link));
            let signal = (!interrupt.is_told()).then(|| interrupt.descriptor());
            let others: Vec<_> = signal.into_iter().chain(input).collect();
            match link.next(&others, until)? {
                Event::Message(text) => self.take(&text)?,
                Event::Other if interrupt.is_told() => {}
                Event::Other => self.source.read()?,
                Event::Late if self.is_overdue() => {
                    return Err(Loss::passing(format!("no answer within {PATIENCE:?}")).into());
                }
                Event::Late => {}
            }
        }
    }

    fn may_read(&self, link: &Link) -> bool {
        self.ending.is_none() && self.window.has_room() && self.queue.is_empty() && !link.is_unflushed()
    }

    /// Whether a command waits for its answer for too long.
    fn is_overdue(&self) -> bool {
        self.window.is_overdue(PATIENCE, Instant::now())
    }

    /// As much as has been read, in as few commands as may be.
    fn send_what_is_there(&mut self, link: &mut Link) {
        while self.may_read(link) {
            let (mut updates, mut bytes, mut last) = (Vec::new(), 0, None);
            while updates.len() < self.batch.updates_max && self.ending.is_none() {
                let next = self.carried.take().map(Next::Update).or_else(|| self.source.next());
                match next {
                    Some(Next::Update(update)) => {
                        bytes += update.json.len() + 1;
                        if bytes > self.batch.bytes_max && !updates.is_empty() {
                            self.carried = Some(update);
                            break;
                        }
                        last = Some(update.place.clone());
                        updates.push(update);
                    }
                    Some(Next::Bad(place, why)) => {
                        self.complain(&place, &why);
                        last = Some(place);
                    }
                    Some(Next::Note(what)) => note(self.err, what),
                    None => break,
                }
            }
            match last {
                Some(last) if !updates.is_empty() => link.send(self.window.add(updates, last, Instant::now())),
                Some(_) | None => return,
            }
        }
    }

    fn take(&mut self, text: &str) -> Result<(), ClientError> {
        let Some(message) = Message::parse(text) else { return Ok(()) };
        match (message.kind().as_str(), message.number("id")) {
            ("ack", Some(number)) => {
                if let Some(count) = self.window.acked(number) {
                    self.counts.acked += count as u64;
                    self.counts.stale += stale(&message, count);
                    self.is_refused = false;
                }
                Ok(())
            }
            ("error", number) => self.refused(number, &message),
            ("expiring", _) => {
                let left = Duration::from_millis(message.number("in").unwrap_or_default());
                note(self.err, format_args!("the token expires in {left:.0?}; the connection ends with it"));
                Ok(())
            }
            (_, _) => Ok(()),
        }
    }

    fn refused(&mut self, number: Option<u64>, message: &Message<'_>) -> Result<(), ClientError> {
        let refusal = message.refusal();
        let Some(number) = number else { return Err(self.unacked(&refusal.to_string())) };
        let now = Instant::now();
        // These pass.
        if matches!(refusal.code.as_str(), "unavailable" | "rate_limited") {
            if self.window.refused(number, REFUSED_PAUSE, now) && !std::mem::replace(&mut self.is_refused, true) {
                note(self.err, format_args!("{refusal}; it is sent again every {REFUSED_PAUSE:?}"));
            }
            return Ok(());
        }
        if let Some(index) = message.number("index")
            && let Some(update) = self.window.without(number, index as usize, now)
        {
            self.complain(&update.place, &refusal.to_string());
            return Ok(());
        }
        match self.window.first_of(number) {
            Some(place) => Err(self.lasting(&refusal, &place.to_string())),
            None => Ok(()),
        }
    }

    /// A refusal that would come again.
    fn lasting(&self, refusal: &Refusal, place: &str) -> ClientError {
        let what_to_do = match refusal.code.as_str() {
            "bad_options" => "; the room has to be keyed: [[room]] with a match of its name and keyed = true",
            "forbidden" => "; the token has to allow publishing into the room",
            _ => "",
        };
        self.unacked(&format!("{refusal}{what_to_do}; that was the command that begins with {place}"))
    }

    fn complain(&mut self, place: &Place, why: &str) {
        self.counts.bad += 1;
        let what = format!("{place}: {why}");
        match self.batch.strict {
            // Once is enough.
            true => {
                self.ending.get_or_insert(Ending::Strict(format!("{what}; nothing more was read (--strict)")));
            }
            false => note(self.err, what),
        }
    }

    /// An end that leaves something unacked, perhaps.
    fn unacked(&self, why: &str) -> ClientError {
        let text = match (self.window.updates(), self.window.oldest()) {
            (count @ 1.., Some(place)) => {
                format!("{why}; whether {count} updates from {place} on were taken is not known")
            }
            _ => why.to_owned(),
        };
        ClientError::Lost(text)
    }
}

/// How many updates of a command were stale, as its ack says.
fn stale(message: &Message<'_>, count: usize) -> u64 {
    match message.raw("stale") {
        Some("true") => count as u64,
        Some(list) => serde_json::from_str::<Vec<u64>>(list).map_or(0, |indexes| indexes.len() as u64),
        None => 0,
    }
}

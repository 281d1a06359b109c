//! `fanfare sub`: what a room gets, and the way back into it when a connection ends.
//!
//! ```text
//!   ┌─► open ─► join (since the position, where there is one) ─► messages, position moves along
//!   │                                                               │ the connection ends
//!   └───────────────────────── pause ◄──────────────────────────────┘
//! ```
//!
//! The first attempt has to succeed: a wrong name is no reason to try for ever. After it, only what would happen again
//! ends the command.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::backoff::Backoff;
use super::error::Loss;
use super::interrupt::Interrupt;
use super::link::{Event, Fault, Link, PATIENCE};
use super::message::{Message, Position, Refusal};
use super::{ClientError, Line, Target, note, print};
use crate::config::one_line;

/// What to listen to, and how to print it.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// As whom, and with whom.
    pub target: Target,
    /// The room.
    pub room: String,
    /// Which past messages to ask for.
    pub start: Start,
    /// After how many messages to end.
    pub count: Option<u64>,
    /// What a message looks like.
    pub format: Format,
    /// What is wanted of a keyed room.
    pub keyed: Keyed,
}

/// What is wanted of a keyed room; of what is not said the server has its own opinion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keyed {
    /// `all` or `latest`.
    pub mode: Option<&'static str>,
    /// The time between two rounds, in milliseconds.
    pub interval_ms: Option<u64>,
    /// Names of items, and patterns that end with `*`.
    pub items: Option<Vec<String>>,
}

/// Which past messages come first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// None.
    Now,
    /// Those behind a position.
    Since(Position),
    /// So many of the newest.
    Last(u64),
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Messages and notices, for people.
    People,
    /// Messages alone, for people.
    MessagesOnly,
    /// All that the server sends of the room, each on one line.
    Json,
}

/// Prints what the room gets until SIGINT, or until so many messages have come. What happens to the connection is told
/// on `err`.
///
/// # Errors
///
/// Where the first attempt fails, or coming back has no point.
pub fn subscribe(options: &Subscribe, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), ClientError> {
    let interrupt = Interrupt::catch().map_err(|error| ClientError::Io { what: "catch SIGINT", error })?;
    let position = match &options.start {
        Start::Since(position) => Some(position.clone()),
        Start::Now | Start::Last(_) => None,
    };
    let room = one_line(&options.room);
    let mut subscriber = Subscriber { options, room, position, joins: 0, printed: 0, out, err };
    let mut backoff = Backoff::default();
    let outcome = loop {
        let mut joined_at = None;
        let loss = match subscriber.attend(&interrupt, &mut joined_at) {
            Ok(()) => break Ok(()),
            Err(Fault::Final(error)) => break Err(error),
            Err(Fault::Loss(loss)) => loss,
        };
        let lived = joined_at.map_or(Duration::ZERO, |at: Instant| at.elapsed());
        let pause = if subscriber.joins > 0 { backoff.pause(loss.retry, lived) } else { None };
        let Some(pause) = pause else { break Err(loss.into()) };
        subscriber.tell_loss(&loss, pause);
        if interrupt.pause(pause) {
            break Ok(());
        }
    };
    subscriber.part();
    outcome
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Listen,
    End,
}

struct Subscriber<'a> {
    options: &'a Subscribe,
    /// The room, for people.
    room: String,
    /// Up to where the room's messages have come, where it keeps them.
    position: Option<Position>,
    /// Joins that were answered, on all connections.
    joins: u64,
    /// Messages that were printed.
    printed: u64,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Subscriber<'_> {
    /// One connection, from its beginning to its end. Ends without a fault at SIGINT, and when all has come.
    fn attend(&mut self, interrupt: &Interrupt, joined_at: &mut Option<Instant>) -> Result<(), Fault> {
        let Some(link) = interrupt.while_blocked(|| Link::open(&self.options.target)) else { return Ok(()) };
        let mut link = link?;
        link.send(self.join());
        let mut until = Some(Instant::now() + PATIENCE);
        while !interrupt.is_told() {
            let event = link.next(&[interrupt.descriptor()], until)?;
            let text = match event {
                Event::Message(text) => text,
                Event::Other => continue,
                Event::Late => return Err(Loss::passing(format!("no answer to the join within {PATIENCE:?}")).into()),
            };
            let Some(message) = Message::parse(&text) else { continue };
            let next = match message.kind().as_str() {
                "joined" => {
                    joined_at.get_or_insert_with(Instant::now);
                    self.joined(&message);
                    Next::Listen
                }
                "error" => {
                    self.refused(message.refusal(), joined_at.is_some())?;
                    Next::Listen
                }
                kind => self.take(kind, &text, &message)?,
            };
            if next == Next::End {
                break;
            }
            // A recovery may be long: what counts is that it goes on.
            until = joined_at.is_none().then(|| Instant::now() + PATIENCE);
        }
        link.leave();
        Ok(())
    }

    fn join(&self) -> String {
        let room = &self.options.room;
        let mut command = match (&self.position, &self.options.start) {
            (Some(Position { epoch, offset }), _) => {
                json!({"type": "join_room", "roomId": room, "since": {"epoch": epoch, "offset": offset}, "id": 1})
            }
            (None, Start::Last(last)) if self.joins == 0 => {
                json!({"type": "join_room", "roomId": room, "last": last, "id": 1})
            }
            (None, _) => json!({"type": "join_room", "roomId": room, "id": 1}),
        };
        let Keyed { mode, interval_ms, items } = &self.options.keyed;
        for (name, value) in [
            ("mode", mode.map(Value::from)),
            ("interval", interval_ms.map(Value::from)),
            ("items", items.clone().map(Value::from)),
        ] {
            if let Some(value) = value {
                command[name] = value;
            }
        }
        command.to_string()
    }

    fn joined(&mut self, message: &Message<'_>) {
        let asked_since = self.position.is_some();
        self.position = message.position();
        let again = if self.joins == 0 { "" } else { " again" };
        let at = match &self.position {
            Some(position) => format!(": {}", position.flag()),
            None => ", which keeps no history".to_owned(),
        };
        let recovered = match (message.flag("recovered"), asked_since || self.joins > 0) {
            (Some(true), _) => ", recovered: nothing is missing",
            (Some(false), _) => ", not recovered: what came in between is not here",
            (None, true) => ", not recovered: what came meanwhile is not here",
            (None, false) => "",
        };
        self.joins += 1;
        note(self.err, format_args!("joined {}{again}{at}{recovered}", self.room));
    }

    fn refused(&mut self, refusal: Refusal, has_joined: bool) -> Result<(), Fault> {
        if has_joined {
            note(self.err, refusal);
            return Ok(());
        }
        match refusal.code.as_str() {
            // These pass, and a client that was in the room before waits for it.
            "unavailable" | "rate_limited" => Err(Loss::passing(refusal.to_string()).into()),
            _ => Err(ClientError::from(refusal).into()),
        }
    }

    /// Takes what is no answer. Only what concerns the room is printed.
    fn take(&mut self, kind: &str, text: &str, message: &Message<'_>) -> Result<Next, ClientError> {
        if kind == "expiring" {
            let left = Duration::from_millis(message.number("in").unwrap_or_default());
            note(self.err, format_args!("the token expires in {left:.0?}; the connection ends with it"));
        }
        if message.string("roomId").as_deref() != Some(&self.options.room) {
            return Ok(Next::Listen);
        }
        if kind == "gap" {
            self.gap(message);
        }
        let line = match (self.options.format, kind) {
            (Format::Json, _) => Some(Line::of_json(text)),
            (Format::People | Format::MessagesOnly, "room_msg") => Some(Line::of_text(&shown(message))),
            (Format::People, "stale" | "live") => Some(Line::of_text(&format!("* {kind}"))),
            (Format::People, "system") => Some(Line::of_text(&format!("* {}", message.shown("content")))),
            (Format::People | Format::MessagesOnly, _) => None,
        };
        if let Some(line) = line
            && !print(self.out, &line)?
        {
            return Ok(Next::End);
        }
        if kind != "room_msg" {
            return Ok(Next::Listen);
        }
        if let (Some(position), Some(offset)) = (&mut self.position, message.number("offset")) {
            position.offset = offset;
        }
        self.printed += 1;
        match self.options.count == Some(self.printed) {
            true => Ok(Next::End),
            false => Ok(Next::Listen),
        }
    }

    fn gap(&mut self, message: &Message<'_>) {
        self.position = message.position().or(self.position.take());
        let at = self.position.as_ref().map_or(String::new(), |position| format!(": {}", position.flag()));
        note(self.err, format_args!("gap in {}, messages are missing; it goes on behind{at}", self.room));
    }

    fn tell_loss(&mut self, loss: &Loss, pause: Duration) {
        let at = self.position.as_ref().map_or(String::new(), |position| format!(" at {}", position.flag()));
        note(self.err, format_args!("{}; again in {} ms{at}", loss.why, pause.as_millis()));
    }

    /// Says where to go on another time.
    fn part(&mut self) {
        if let Some(position) = &self.position
            && self.joins > 0
        {
            note(self.err, format_args!("left {}: {}", self.room, position.flag()));
        }
    }
}

/// A message for people: `time user: content`, or of a keyed room `time item: content`, or `time item is removed`.
fn shown(message: &Message<'_>) -> String {
    let name = if message.raw("item").is_some() { message.shown("item") } else { message.shown("from") };
    let what = match message.flag("removed") {
        Some(true) => format!("{name} is removed"),
        Some(false) | None => format!("{name}: {}", message.shown("content")),
    };
    match message.time() {
        Some(time) => format!("{time} {what}"),
        None => what,
    }
}

//! `fanfare pub`: one message, or the lines of stdin, into a room; each is acked or the command has failed.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::Loss;
use super::lines::Lines;
use super::link::{Event, Link, PATIENCE};
use super::message::Message;
use super::{ClientError, Line, Target, note, print};

/// Messages that may wait for their acks.
const IN_FLIGHT_MAX: usize = 64;

/// What to publish, and where.
#[derive(Clone, Debug)]
pub struct Publish {
    /// As whom, and with whom.
    pub target: Target,
    /// The room.
    pub room: String,
    /// The message, or where the messages are.
    pub content: Content,
    /// Whether a message is JSON, in place of a text.
    pub json: bool,
    /// By which a retry is known. Of lines each has its own: `KEY:1`, `KEY:2`, …
    pub key: Option<String>,
}

/// What is published.
#[derive(Clone, Debug)]
pub enum Content {
    /// One message.
    Argument(String),
    /// Each line of stdin.
    Stdin,
}

/// Publishes, and prints the place of each message that has one. The answer says whether all were acked; those that
/// were not are told on `err`.
///
/// # Errors
///
/// Where a message is not what it is said to be, or the connection ends before all is acked.
pub fn publish(options: &Publish, out: &mut dyn Write, err: &mut dyn Write) -> Result<bool, ClientError> {
    let feed = match &options.content {
        Content::Argument(text) => {
            Feed::One(Some(value(text, options.json).map_err(|why| ClientError::Options(format!("MESSAGE {why}")))?))
        }
        Content::Stdin => Feed::Lines(Lines::of_stdin()?),
    };
    let link = Link::open(&options.target)?;
    let publisher = Publisher {
        options,
        feed,
        link,
        membership: Membership::Unknown(BTreeMap::new()),
        in_flight: BTreeMap::new(),
        sent: 0,
        strays: 0,
        failed: false,
        out,
        err,
    };
    publisher.run()
}

/// The id of the join; messages count from 1.
const JOIN_ID: u64 = 0;

/// Whether one has to be in the room to publish into it, as where tokens are asked for. The first answer tells.
///
/// ```text
///   Unknown ─┬─ forbidden: join ─► Entering ─ what was refused before is sent again ─► Settled
///            └─ acked ───────────────────────────────────────────────────────────────► Settled
/// ```
enum Membership {
    /// Not known yet; these commands are on their way, by their numbers.
    Unknown(BTreeMap<u64, String>),
    /// The join is sent. These commands were sent before it, and are refused one by one.
    Entering(BTreeMap<u64, String>),
    /// An answer says what it says.
    Settled,
}

/// A message as JSON text.
fn value(text: &str, json: bool) -> Result<String, String> {
    if !json {
        return Ok(Value::from(text).to_string());
    }
    match serde_json::from_str::<&RawValue>(text) {
        Ok(raw) => Ok(raw.get().to_owned()),
        Err(error) => Err(format!("is no JSON: {error}; leave out --json to send it as a text")),
    }
}

struct Publisher<'a> {
    options: &'a Publish,
    feed: Feed,
    link: Link,
    membership: Membership,
    /// Numbers of the messages whose ack is awaited, which are their ids, and since when.
    in_flight: BTreeMap<u64, Instant>,
    /// Messages taken from the feed; the number of the newest.
    sent: u64,
    /// Refusals that do not say of what.
    strays: usize,
    failed: bool,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

impl Publisher<'_> {
    fn run(mut self) -> Result<bool, ClientError> {
        loop {
            self.send_what_is_there();
            if self.in_flight.len() <= self.strays && (self.strays > 0 || self.feed.is_over()) {
                break;
            }
            let until = self.in_flight.values().min().map(|since| *since + PATIENCE);
            let input = if self.may_send() { self.feed.descriptor() } else { None };
            match self.link.next(input.as_slice(), until) {
                Ok(Event::Message(text)) => self.take(&text)?,
                Ok(Event::Other) => self.feed.read()?,
                Ok(Event::Late) => return Err(self.unanswered(&format!("no answer within {PATIENCE:?}"))),
                Err(loss) => return Err(self.lost(loss)),
            }
        }
        if self.strays > 0 && self.feed.is_of_lines() {
            return Err(ClientError::Refused(format!("that was {}{}", self.which(), self.unsent())));
        }
        self.link.leave();
        Ok(!self.failed)
    }

    /// Whether one more message may be on its way.
    fn may_send(&self) -> bool {
        // What is sent again goes before what is new.
        let is_entering = matches!(self.membership, Membership::Entering(_));
        self.in_flight.len() < IN_FLIGHT_MAX && !self.link.is_unflushed() && self.strays == 0 && !is_entering
    }

    fn send_what_is_there(&mut self) {
        while self.may_send()
            && let Some(next) = self.feed.next(self.options.json)
        {
            self.sent += 1;
            match next {
                Ok(content) => {
                    let command = self.command(&content);
                    if let Membership::Unknown(sent) = &mut self.membership {
                        sent.insert(self.sent, command.clone());
                    }
                    self.link.send(command);
                    self.in_flight.insert(self.sent, Instant::now());
                }
                Err(why) => self.complain(self.sent, &why),
            }
        }
    }

    fn command(&self, content: &str) -> String {
        let room = Value::from(self.options.room.as_str());
        let key = match (&self.options.key, &self.feed) {
            (None, _) => String::new(),
            (Some(key), Feed::One(_)) => format!(r#","key":{}"#, Value::from(key.as_str())),
            (Some(key), Feed::Lines(_)) => format!(r#","key":{}"#, Value::from(format!("{key}:{}", self.sent))),
        };
        format!(r#"{{"type":"room_msg","roomId":{room},"content":{content},"id":{}{key}}}"#, self.sent)
    }

    fn take(&mut self, text: &str) -> Result<(), ClientError> {
        let Some(message) = Message::parse(text) else { return Ok(()) };
        let number = message.number("id").filter(|id| self.in_flight.contains_key(id));
        match (message.kind().as_str(), number) {
            ("ack", Some(number)) => {
                self.in_flight.remove(&number);
                if let Membership::Unknown(_) = self.membership {
                    self.membership = Membership::Settled;
                }
                if let Some(position) = message.position() {
                    // Where stdout has no reader the messages are published all the same.
                    let place = format!("offset {} epoch {}", position.offset, position.epoch);
                    print(self.out, &Line::of_text(&place))?;
                }
            }
            ("error", Some(number)) => {
                let refusal = message.refusal();
                if self.sends_again(number, &refusal.code) {
                    self.in_flight.insert(number, Instant::now());
                } else {
                    self.in_flight.remove(&number);
                    self.complain(number, &refusal.to_string());
                }
            }
            // Where the join is refused, the answer to the message that is sent again says what is forbidden.
            ("error", None) if message.number("id") == Some(JOIN_ID) => {}
            // What is no JSON to the server has no id.
            ("error", None) => {
                self.strays += 1;
                self.failed = true;
                note(self.err, message.refusal());
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends a refused message again, from inside the room, where that may help. Once.
    fn sends_again(&mut self, number: u64, code: &str) -> bool {
        if code == "forbidden"
            && let Membership::Unknown(sent) = &mut self.membership
        {
            let sent = std::mem::take(sent);
            let join = json!({"type": "join_room", "roomId": self.options.room, "id": JOIN_ID});
            self.link.send(join.to_string());
            self.membership = Membership::Entering(sent);
        }
        let Membership::Entering(sent) = &mut self.membership else { return false };
        let command = sent.remove(&number);
        if sent.is_empty() {
            self.membership = Membership::Settled;
        }
        match command {
            Some(command) if code == "forbidden" => {
                self.link.send(command);
                true
            }
            Some(_) | None => false,
        }
    }

    fn complain(&mut self, number: u64, why: &str) {
        self.failed = true;
        match self.feed {
            Feed::One(_) => note(self.err, why),
            Feed::Lines(_) => note(self.err, format_args!("line {number}: {why}")),
        }
    }

    /// The messages in flight, in words.
    fn which(&self) -> String {
        match (&self.feed, self.in_flight.len(), self.in_flight.keys().next()) {
            (Feed::One(_), ..) | (_, _, None) => "the message".to_owned(),
            (Feed::Lines(_), 1, Some(number)) => format!("line {number}"),
            (Feed::Lines(_), count, Some(number)) => format!("{count} lines from line {number} on"),
        }
    }

    /// What was not even tried, in words.
    fn unsent(&self) -> String {
        if self.feed.is_over() { String::new() } else { format!("; nothing behind line {} was sent", self.sent) }
    }

    fn unanswered(&self, why: &str) -> ClientError {
        let again = if self.options.key.is_some() { ": with the same --key it may be sent again" } else { "" };
        let (which, unsent) = (self.which(), self.unsent());
        ClientError::Lost(format!("{why}; whether {which} was taken is not known{again}{unsent}"))
    }

    fn lost(&self, loss: Loss) -> ClientError {
        match self.in_flight.is_empty() {
            true => ClientError::Lost(format!("{}{}", loss.why, self.unsent())),
            false => self.unanswered(&loss.why),
        }
    }
}

/// Where the messages come from.
enum Feed {
    /// The command line, as JSON already.
    One(Option<String>),
    /// Stdin.
    Lines(Lines),
}

impl Feed {
    /// The next message as JSON, as far as it has been read; or why it is none.
    fn next(&mut self, json: bool) -> Option<Result<String, String>> {
        match self {
            Feed::One(content) => content.take().map(Ok),
            Feed::Lines(lines) => {
                let line = lines.next()?;
                let text = str::from_utf8(&line).map_err(|error| format!("is not UTF-8: {error}"));
                Some(text.and_then(|text| value(text, json)))
            }
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Feed::One(content) => content.is_none(),
            Feed::Lines(lines) => lines.is_over(),
        }
    }

    fn is_of_lines(&self) -> bool {
        matches!(self, Feed::Lines(_))
    }

    /// What can be read, while there may be more.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Feed::Lines(lines) => lines.descriptor(),
            Feed::One(_) => None,
        }
    }

    fn read(&mut self) -> Result<(), ClientError> {
        match self {
            Feed::One(_) => Ok(()),
            Feed::Lines(lines) => lines.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_text_or_the_json_it_is() {
        assert_eq!(value("say \"hi\"\n", false).unwrap(), r#""say \"hi\"\n""#);
        for json in ["1e400", "{\"b\": 1, \"a\":[\"\\ud800\"]}", "0.10", "null"] {
            assert_eq!(value(&format!(" {json}\n"), true).unwrap(), json);
        }
        for text in ["", "hi", "{\"a\":}", "1 2", "'x'"] {
            let why = value(text, true).unwrap_err();
            assert!(why.starts_with("is no JSON: ") && why.ends_with("leave out --json to send it as a text"), "{why}");
        }
    }
}

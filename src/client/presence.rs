//! `fanfare presence`: who is in a room.

use std::io::Write;
use std::time::Instant;

use serde_json::json;

use super::error::Loss;
use super::link::{Event, Link, PATIENCE};
use super::message::Message;
use super::{ClientError, Line, Target, note, print};

/// What to ask, and how to print the answer.
#[derive(Clone, Debug)]
pub struct Presence {
    /// As whom, and whom.
    pub target: Target,
    /// The room.
    pub room: String,
    /// Whether to print the reply itself.
    pub json: bool,
}

/// Prints how many users are in the room, and who, one a line.
///
/// # Errors
///
/// Where there is no answer, or a refusal.
pub fn presence(options: &Presence, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), ClientError> {
    let mut link = Link::open(&options.target)?;
    link.send(json!({"type": "presence", "roomId": options.room, "id": 1}).to_string());
    let until = Instant::now() + PATIENCE;
    loop {
        let Event::Message(text) = link.next(&[], Some(until))? else {
            return Err(Loss::passing(format!("no answer within {PATIENCE:?}")).into());
        };
        let Some(message) = Message::parse(&text) else { continue };
        match message.kind().as_str() {
            "error" => return Err(message.refusal().into()),
            "presence" => {
                link.leave();
                return show(&text, &message, options.json, out, err);
            }
            _ => {}
        }
    }
}

fn show(
    text: &str,
    message: &Message<'_>,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), ClientError> {
    if json {
        return print(out, &Line::of_json(text)).map(drop);
    }
    let count = message.number("count").unwrap_or_default();
    let mut users = message.strings("users");
    users.sort_unstable();
    if message.flag("approximate") == Some(true) {
        note(err, format_args!("the room has so many users that {count} is an estimate"));
    }
    if message.flag("truncated") == Some(true) {
        note(err, format_args!("the server names only {} of the {count} users", users.len()));
    }
    let lines = [count.to_string()].into_iter().chain(users);
    for line in lines {
        if !print(out, &Line::of_text(&line))? {
            break;
        }
    }
    Ok(())
}

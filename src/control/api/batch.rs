//! `POST /api/v1/batch`: many messages in one request.
//!
//! ```text
//!   body ─► commands, each read and checked ─► piece ─► piece ─► …        two at most wait for their fates
//!           none is published before all are read  └─► fates ─► results, in the order of the commands
//! ```

use std::collections::VecDeque;
use std::ops::Range;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use utoipa::ToSchema;

use super::body::Format;
use super::command::{Command, Fields, Kind, RoomsNamed};
use super::error::{Code, ErrorDetail, is_false, json_response};
use super::publish::{Accepted, malformed, utf8};
use super::query::in_time;
use super::{Api, ApiError, Caller};
use crate::clock;
use crate::control::requests::Fates;
use crate::limits::{API_COMMANDS_MAX, API_PIECES_MAX, PUBLISHES_BYTES_MAX, PUBLISHES_MAX};
use crate::protocol::scan::{self, Malformed, Walk};
use crate::protocol::{Decoder, ErrorCode};
use crate::router::Fate;

/// Many commands.
#[derive(Debug, Default, ToSchema)]
pub(super) struct Batch<'a> {
    /// They are carried out in this order, at most 10,000.
    #[schema(value_type = Vec<Command>, max_items = 10_000)]
    commands: Vec<Result<Command<'a>, ApiError>>,
}

/// What became of many commands.
#[derive(Serialize, ToSchema)]
struct BatchAnswer<'a> {
    /// Of each command, in their order.
    results: Vec<BatchResult<'a>>,
}

/// What became of one of them: as of a request by itself, or its error.
#[derive(Default, Serialize, ToSchema)]
struct BatchResult<'a> {
    /// The epoch in which the offset counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    epoch: Option<&'a str>,
    /// The message's number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    offset: Option<u64>,
    /// Whether it was an update of an item whose version was not above the item's last one: it was dropped.
    #[serde(skip_serializing_if = "is_false")]
    #[schema(required = false)]
    stale: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorDetail>,
}

impl<'a> BatchResult<'a> {
    fn of(fate: &'a Result<Fate, ApiError>) -> BatchResult<'a> {
        match fate.as_ref().map_err(Clone::clone).and_then(Accepted::of) {
            Ok(Accepted { epoch, offset, stale }) => BatchResult { epoch, offset, stale, error: None },
            Err(error) => BatchResult { error: Some(error.into_detail()), ..BatchResult::default() },
        }
    }
}

/// Publishes many messages. Each command has its own result; those to one room, or one user, are in their order.
#[utoipa::path(
    post,
    path = "/api/v1/batch",
    request_body(content((Batch = "application/json"), (String = "application/x-ndjson"))),
    responses((status = 200, description = "What became of each.", body = BatchAnswer), ApiError),
    security(("key" = [])),
)]
pub(super) async fn batch(State(api): State<Api>, caller: Caller, request: Request) -> Result<Response, ApiError> {
    let body = api.read(request, &[Format::Json, Format::Ndjson]).await?;
    let Batch { mut commands } = match body.format {
        Format::Json => read_json(&api, utf8(&body.bytes)?)?,
        Format::Ndjson => read_lines(&api, &body.bytes)?,
    };
    for command in &mut commands {
        if let Err(error) = command.as_ref().map_or(Ok(()), |command| command.check(&api, &caller)) {
            *command = Err(error);
        }
    }
    let fates = publish(&api, &caller, &commands).await?;
    Ok(json_response(StatusCode::OK, &BatchAnswer { results: fates.iter().map(BatchResult::of).collect() }))
}

/// The commands of one JSON object.
fn read_json<'a>(api: &Api, text: &'a str) -> Result<Batch<'a>, ApiError> {
    let (mut walk, mut decoder, mut rooms) = (Walk::new(text), Decoder::default(), RoomsNamed::new(api));
    let mut batch = None;
    walk.enter_object().map_err(malformed)?;
    while let Some(name) = walk.next_member().map_err(malformed)? {
        match decoder.decode_within(name, "commands".len()).as_deref() {
            Some("commands") if walk.kind() == scan::Kind::Array => {
                batch = Some(read_array(&mut walk, &mut decoder, &mut rooms)?);
            }
            Some("commands") => return Err(ApiError::wire(ErrorCode::BadJson, "`commands` must be an array")),
            _ => drop(walk.value().map_err(malformed)?),
        }
    }
    walk.end().map_err(malformed)?;
    batch.ok_or_else(|| ApiError::wire(ErrorCode::MissingField, "the field `commands` is missing"))
}

fn read_array<'a>(
    walk: &mut Walk<'a>,
    decoder: &mut Decoder,
    rooms: &mut RoomsNamed<'_>,
) -> Result<Batch<'a>, ApiError> {
    let mut batch = Batch::default();
    walk.enter_array().map_err(malformed)?;
    while walk.next_element().map_err(malformed)? {
        batch.push(read_command(walk, decoder, rooms).map_err(malformed)?)?;
    }
    Ok(batch)
}

/// One command a line; lines with nothing in them do not count.
fn read_lines<'a>(api: &Api, bytes: &'a [u8]) -> Result<Batch<'a>, ApiError> {
    let (mut batch, mut decoder, mut rooms) = (Batch::default(), Decoder::default(), RoomsNamed::new(api));
    for line in bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        batch.push(utf8(line).and_then(|line| {
            let mut walk = Walk::new(line);
            let command = read_command(&mut walk, &mut decoder, &mut rooms).map_err(malformed)?;
            walk.end().map_err(malformed)?;
            command
        }))?;
    }
    Ok(batch)
}

/// The command that begins where `walk` is: an object with one member, named as the command.
fn read_command<'a>(
    walk: &mut Walk<'a>,
    decoder: &mut Decoder,
    rooms: &mut RoomsNamed<'_>,
) -> Result<Result<Command<'a>, ApiError>, Malformed> {
    const RULE: &str = "a command must be an object with one member: publish, private or broadcast";
    if walk.kind() != scan::Kind::Object {
        walk.value()?;
        return Ok(Err(ApiError::wire(ErrorCode::BadJson, RULE)));
    }
    let mut found: Option<(Kind, Option<Fields<'a>>)> = None;
    let mut is_one = true;
    walk.enter_object()?;
    while let Some(name) = walk.next_member()? {
        let Some(kind) = decoder.decode_within(name, KIND_BYTES_MAX).as_deref().and_then(Kind::named) else {
            walk.value()?;
            continue;
        };
        is_one &= found.as_ref().is_none_or(|(before, _)| *before == kind);
        let fields = match walk.kind() {
            scan::Kind::Object => Some(Fields::read(walk, decoder)?),
            _ => walk.value().map(|_| None)?,
        };
        found = Some((kind, fields));
    }
    Ok(match found {
        Some((kind, Some(fields))) if is_one => fields.command(kind, decoder, rooms),
        Some(_) => Err(ApiError::wire(ErrorCode::BadJson, RULE)),
        None => Err(ApiError::wire(ErrorCode::UnknownType, RULE)),
    })
}

/// The longest name of a command.
const KIND_BYTES_MAX: usize = "broadcast".len();

impl<'a> Batch<'a> {
    /// One more command, or what is wrong with it.
    fn push(&mut self, command: Result<Command<'a>, ApiError>) -> Result<(), ApiError> {
        if self.commands.len() == API_COMMANDS_MAX {
            let message = format!("a batch has at most {API_COMMANDS_MAX} commands: send the rest in another");
            return Err(ApiError::new(Code::TooManyCommands, message));
        }
        self.commands.push(command);
        Ok(())
    }
}

/// Commands that are on their way, and where their fates come from: `None` where nothing of them was published.
type Underway = (Range<usize>, Option<oneshot::Receiver<Fates>>);

/// Publishes piece by piece, so that no reactor has more than a few at once of it: between them it serves its clients.
///
/// # Errors
/// Where nothing was published.
async fn publish(
    api: &Api,
    caller: &Caller,
    commands: &[Result<Command<'_>, ApiError>],
) -> Result<Vec<Result<Fate, ApiError>>, ApiError> {
    let unix_ms = clock::unix_ms();
    let mut fates = Vec::with_capacity(commands.len());
    let mut underway: VecDeque<Underway> = VecDeque::new();
    let mut next = 0;
    while next < commands.len() {
        let piece = piece(commands, next);
        next = piece.end;
        let valid: SmallVec<[&Command<'_>; PUBLISHES_MAX]> =
            commands[piece.clone()].iter().filter_map(|command| command.as_ref().ok()).collect();
        if underway.len() == API_PIECES_MAX
            && let Some(first) = underway.pop_front()
        {
            settle(commands, first, &mut fates).await;
        }
        let publications = valid.iter().map(|command| command.publication(caller));
        let asked = match publications.len() {
            0 => None,
            _ => api.requests.publish(unix_ms, publications).ok(),
        };
        if asked.is_none() && !valid.is_empty() && fates.is_empty() && underway.is_empty() {
            return Err(ApiError::busy());
        }
        underway.push_back((piece, asked));
    }
    while let Some(first) = underway.pop_front() {
        settle(commands, first, &mut fates).await;
    }
    Ok(fates)
}

/// As many commands from `start` on as go together.
fn piece(commands: &[Result<Command<'_>, ApiError>], start: usize) -> Range<usize> {
    let mut bytes = 0;
    let full = commands[start..].iter().take(PUBLISHES_MAX).position(|command| {
        bytes += command.as_ref().map_or(0, Command::content_bytes);
        bytes >= PUBLISHES_BYTES_MAX
    });
    start..full.map_or((start + PUBLISHES_MAX).min(commands.len()), |last| start + last + 1)
}

/// Notes what became of a piece.
async fn settle(
    commands: &[Result<Command<'_>, ApiError>],
    (piece, asked): Underway,
    fates: &mut Vec<Result<Fate, ApiError>>,
) {
    let published = match asked {
        Some(asked) => in_time(asked).await,
        None => Err(ApiError::busy()),
    };
    let (mut published, error) = match published {
        Ok(published) => (published, None),
        Err(error) => (Fates::new(), Some(error)),
    };
    let mut published = published.drain(..);
    fates.extend(commands[piece].iter().map(|command| match (command, &error) {
        (Ok(_), None) => published.next().ok_or_else(ApiError::unavailable),
        (Ok(_), Some(error)) | (Err(error), _) => Err(error.clone()),
    }));
}

//! What the server says: each function appends the JSON text of one message to
//! `out`, in the field order clients may rely on, with the added fields last.
//!
//! Nothing is allocated but what `out` itself needs to grow. Arguments named
//! `…_raw` are JSON text already and are copied as they are; all others are
//! plain strings, and are escaped (RFC 8259, section 7).

use super::{ErrorCode, command::Rejection, keyed::Body, scan::find_special};

/// A change in a room's membership that the members are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A connection has joined.
    Join,
    /// A connection has left.
    Leave,
}

/// A message's place in the history of its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InEpoch<'a> {
    /// The word within which offsets count.
    pub epoch: &'a str,
    /// The message's number, from 1; 0 is before all messages.
    pub offset: u64,
}

/// `welcome`, the first message to a connection. `heartbeat_ms` is the interval
/// of the server's pings, in milliseconds; `inbox` where the user's inbox keeps
/// history.
pub fn welcome(out: &mut Vec<u8>, client_id: &str, user: &str, heartbeat_ms: u64, inbox: Option<InEpoch<'_>>) {
    text(out, r#"{"type":"welcome","clientId":"#);
    string(out, client_id);
    text(out, r#","userId":"#);
    string(out, user);
    text(out, r#","heartbeat":"#);
    integer(out, heartbeat_ms);
    if let Some(InEpoch { epoch, offset }) = inbox {
        text(out, r#","inbox":{"epoch":"#);
        string(out, epoch);
        text(out, r#","offset":"#);
        integer(out, offset);
        text(out, "}");
    }
    text(out, "}");
}

/// Puts `offset` into a message that was written without it: what one of the
/// functions here wrote, `message`, is appended with the field last.
pub fn put_offset(out: &mut Vec<u8>, message: &[u8], offset: u64) {
    let open = message.strip_suffix(b"}").expect("a message is one JSON object");
    out.extend_from_slice(open);
    text(out, r#","offset":"#);
    integer(out, offset);
    text(out, "}");
}

/// `private_msg`, for every connection of a user. `time_ms` is Unix time in
/// milliseconds.
pub fn private_msg(out: &mut Vec<u8>, from: &str, content_raw: &str, time_ms: u64) {
    text(out, r#"{"type":"private_msg","from":"#);
    string(out, from);
    content_and_time(out, content_raw, time_ms);
}

/// `private`, for one connection.
pub fn private(out: &mut Vec<u8>, from: &str, data_raw: &str) {
    text(out, r#"{"type":"private","data":"#);
    data_and_from(out, data_raw, from);
}

/// `broadcast` with `content`. `time_ms` is Unix time in milliseconds.
pub fn broadcast_content(out: &mut Vec<u8>, from: &str, content_raw: &str, time_ms: u64) {
    text(out, r#"{"type":"broadcast","from":"#);
    string(out, from);
    content_and_time(out, content_raw, time_ms);
}

/// `broadcast` with `data`.
pub fn broadcast_data(out: &mut Vec<u8>, from: &str, data_raw: &str) {
    text(out, r#"{"type":"broadcast","data":"#);
    data_and_from(out, data_raw, from);
}

/// `room_msg`, for the members of a room. `time_ms` is Unix time in
/// milliseconds.
pub fn room_msg(out: &mut Vec<u8>, room: &str, from: &str, content_raw: &str, time_ms: u64) {
    text(out, r#"{"type":"room_msg","roomId":"#);
    string(out, room);
    text(out, r#","from":"#);
    string(out, from);
    content_and_time(out, content_raw, time_ms);
}

/// What [`keyed_tail`] writes of a removal that nobody asked for, in front of its time and `}`.
pub const REMOVED_AT: &str = r#","removed":true,"time":"#;

/// The end of a `room_msg` of a keyed room, behind [`keyed_head`]: what its
/// publisher says. `from` is nobody where the server itself removes an item.
/// `time_ms` is Unix time in milliseconds.
pub fn keyed_tail(out: &mut Vec<u8>, from: Option<&str>, body: Body<'_>, time_ms: u64) {
    if let Some(from) = from {
        text(out, r#","from":"#);
        string(out, from);
    }
    match body {
        Body::Content(content_raw) => content_and_time(out, content_raw, time_ms),
        Body::Removal => {
            text(out, REMOVED_AT);
            integer(out, time_ms);
            text(out, "}");
        }
    }
}

/// The beginning of a `room_msg` of a keyed room, in front of [`keyed_tail`]:
/// what its room says. `seq` counts the updates of the item, `offset` those of
/// the room.
pub fn keyed_head(out: &mut Vec<u8>, room: &str, item: &str, seq: u64, offset: u64) {
    text(out, r#"{"type":"room_msg","roomId":"#);
    string(out, room);
    text(out, r#","item":"#);
    string(out, item);
    text(out, r#","seq":"#);
    integer(out, seq);
    text(out, r#","offset":"#);
    integer(out, offset);
}

/// An update as members of a raw keyed room get it: `seq`, `offset`, the length of the item's name, its name, the payload,
/// which is empty where the item is removed. Numbers are big endian.
pub fn raw_keyed(out: &mut Vec<u8>, item: &str, seq: u64, offset: u64, payload: &[u8]) {
    out.extend_from_slice(&seq.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&(item.len() as u16).to_be_bytes());
    text(out, item);
    out.extend_from_slice(payload);
}

/// `joined` of a keyed room. `interval_ms` is the time between two rounds that
/// is in force, where there are any; `recovered` where the client asked for what
/// it missed.
pub fn joined_keyed(
    out: &mut Vec<u8>,
    id_raw: Option<&str>,
    room: &str,
    place: InEpoch<'_>,
    interval_ms: Option<u64>,
    recovered: Option<bool>,
) {
    text(out, r#"{"type":"joined""#);
    id(out, id_raw);
    text(out, r#","roomId":"#);
    string(out, room);
    in_epoch(out, Some(place));
    interval(out, interval_ms);
    recovery(out, recovered);
    text(out, "}");
}

/// `ack` of a `tune`; `interval_ms` as in [`joined_keyed`].
pub fn tuned(out: &mut Vec<u8>, id_raw: &str, place: InEpoch<'_>, interval_ms: Option<u64>) {
    text(out, r#"{"type":"ack""#);
    id(out, Some(id_raw));
    in_epoch(out, Some(place));
    interval(out, interval_ms);
    text(out, "}");
}

/// Which updates of a command were not above their item's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale<'a> {
    /// The only one was not, or was.
    One(bool),
    /// Those with these indexes in `updates`, which may be none.
    Of(&'a [u32]),
}

/// `ack` of a `room_msg` or `room_msgs` in a keyed room. `place` is that of the
/// last update, or where the room is if none was carried out.
pub fn updated(out: &mut Vec<u8>, id_raw: &str, place: InEpoch<'_>, stale: Stale<'_>) {
    text(out, r#"{"type":"ack""#);
    id(out, Some(id_raw));
    in_epoch(out, Some(place));
    match stale {
        Stale::One(false) | Stale::Of([]) => {}
        Stale::One(true) => text(out, r#","stale":true"#),
        Stale::Of(indexes) => {
            text(out, r#","stale":["#);
            for (at, index) in indexes.iter().enumerate() {
                if at > 0 {
                    text(out, ",");
                }
                integer(out, u64::from(*index));
            }
            text(out, "]");
        }
    }
    text(out, "}");
}

/// `stale`, where nobody has published into a keyed room for so long as its
/// rule says, and `live` in front of the first update behind that. `offset` is
/// that of the newest update which the reader was sent.
pub fn freshness(out: &mut Vec<u8>, room: &str, offset: u64, is_stale: bool) {
    let kind = if is_stale { "stale" } else { "live" };
    text(out, r#"{"type":""#);
    text(out, kind);
    text(out, r#"","roomId":"#);
    string(out, room);
    text(out, r#","offset":"#);
    integer(out, offset);
    text(out, "}");
}

/// `system`, the notice that someone joined or left. `notice_text` is what it
/// says to people.
pub fn notice(out: &mut Vec<u8>, room: &str, notice: Notice, user: &str, notice_text: &str) {
    text(out, r#"{"type":"system","roomId":"#);
    string(out, room);
    match notice {
        Notice::Join => text(out, r#","event":"join","userId":"#),
        Notice::Leave => text(out, r#","event":"leave","userId":"#),
    }
    string(out, user);
    text(out, r#","content":"#);
    string(out, notice_text);
    text(out, "}");
}

/// `joined`, the answer to `join_room`, one per room. `place` is that of the
/// room's newest message, where it keeps history; `recovered` where the client
/// asked for what it missed.
pub fn joined(
    out: &mut Vec<u8>,
    id_raw: Option<&str>,
    room: &str,
    place: Option<InEpoch<'_>>,
    recovered: Option<bool>,
) {
    text(out, r#"{"type":"joined""#);
    id(out, id_raw);
    text(out, r#","roomId":"#);
    string(out, room);
    in_epoch(out, place);
    recovery(out, recovered);
    text(out, "}");
}

/// `resumed`, the answer to `resume`, behind what was missed. `place` is what
/// the welcome said of the inbox.
pub fn resumed(out: &mut Vec<u8>, id_raw: Option<&str>, place: Option<InEpoch<'_>>, recovered: bool) {
    text(out, r#"{"type":"resumed""#);
    id(out, id_raw);
    in_epoch(out, place);
    text(out, if recovered { r#","recovered":true}"# } else { r#","recovered":false}"# });
}

/// `gap`, where members of a room have missed something that is gone, or where
/// that cannot be ruled out. `place` is what the next message comes behind.
pub fn gap(out: &mut Vec<u8>, room: &str, place: InEpoch<'_>) {
    text(out, r#"{"type":"gap","roomId":"#);
    string(out, room);
    in_epoch(out, Some(place));
    text(out, r#","recovered":false}"#);
}

/// `gap` in a user's inbox; `place` as in `welcome`.
pub fn inbox_gap(out: &mut Vec<u8>, place: InEpoch<'_>) {
    text(out, r#"{"type":"gap","inbox":{"epoch":"#);
    string(out, place.epoch);
    text(out, r#","offset":"#);
    integer(out, place.offset);
    text(out, r#"},"recovered":false}"#);
}

/// `left`, where the connection was removed from a room.
pub fn left(out: &mut Vec<u8>, room: &str, reason: &str) {
    text(out, r#"{"type":"left","roomId":"#);
    string(out, room);
    text(out, r#","reason":"#);
    string(out, reason);
    text(out, "}");
}

/// `history`, a page of what a room has kept, oldest first. `messages` are
/// whole messages as they were sent.
pub fn history<'a>(
    out: &mut Vec<u8>,
    id_raw: Option<&str>,
    room: &str,
    place: Option<InEpoch<'_>>,
    messages: impl IntoIterator<Item = &'a [u8]>,
) {
    text(out, r#"{"type":"history""#);
    id(out, id_raw);
    text(out, r#","roomId":"#);
    string(out, room);
    in_epoch(out, place);
    text(out, r#","messages":["#);
    for (index, message) in messages.into_iter().enumerate() {
        if index > 0 {
            text(out, ",");
        }
        out.extend_from_slice(message);
    }
    text(out, "]}");
}

/// `ack`, the answer to a command with an `id` and no answer of its own. `place`
/// is that of the message, where it was put into history.
pub fn ack(out: &mut Vec<u8>, id_raw: &str, place: Option<InEpoch<'_>>) {
    text(out, r#"{"type":"ack""#);
    id(out, Some(id_raw));
    in_epoch(out, place);
    text(out, "}");
}

/// `error`, the answer to a command that was refused.
pub fn error(out: &mut Vec<u8>, rejection: &Rejection<'_>) {
    let Rejection { id: id_raw, code, message, room, index } = rejection;
    text(out, r#"{"type":"error""#);
    id(out, *id_raw);
    text(out, r#","code":""#);
    text(out, code.as_str());
    text(out, r#"","message":"#);
    string(out, message);
    if let Some(room) = room {
        text(out, r#","roomId":"#);
        string(out, room);
    }
    if let Some(index) = *index {
        text(out, r#","index":"#);
        integer(out, index as u64);
    }
    text(out, "}");
}

/// `ack` of a `refresh`. `expires_unix_ms` is the end of the token now in force, where it has one.
pub fn refreshed(out: &mut Vec<u8>, id_raw: &str, expires_unix_ms: Option<u64>) {
    text(out, r#"{"type":"ack""#);
    id(out, Some(id_raw));
    if let Some(expires) = expires_unix_ms {
        text(out, r#","expires":"#);
        integer(out, expires);
    }
    text(out, "}");
}

/// `expiring`: the token ends in so many milliseconds, unless another one comes.
pub fn expiring(out: &mut Vec<u8>, in_ms: u64) {
    text(out, r#"{"type":"expiring","in":"#);
    integer(out, in_ms);
    text(out, "}");
}

/// `error` with the code `forbidden` about one room of a `join_room`.
pub fn forbidden_room(out: &mut Vec<u8>, id_raw: Option<&str>, room: &str) {
    text(out, r#"{"type":"error""#);
    id(out, id_raw);
    text(out, r#","code":""#);
    text(out, ErrorCode::Forbidden.as_str());
    text(out, r#"","roomId":"#);
    string(out, room);
    text(out, "}");
}

/// How many users are in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserCount {
    /// So many.
    Exact(u64),
    /// About so many.
    About(u64),
}

/// `presence`, the answer to the command. `users` are all of them, or as many as
/// are listed.
pub fn presence<'a>(
    out: &mut Vec<u8>,
    id_raw: Option<&str>,
    room: &str,
    count: UserCount,
    users: impl IntoIterator<Item = &'a str>,
) {
    presence_head(out, room, count, users);
    presence_end(out, id_raw);
}

/// `presence` without its end, which is each asker's own: [`presence_end`].
pub fn presence_head<'a>(out: &mut Vec<u8>, room: &str, count: UserCount, users: impl IntoIterator<Item = &'a str>) {
    let (UserCount::Exact(number) | UserCount::About(number)) = count;
    text(out, r#"{"type":"presence","roomId":"#);
    string(out, room);
    text(out, r#","count":"#);
    integer(out, number);
    text(out, r#","users":["#);
    let mut listed = 0;
    for user in users {
        if listed > 0 {
            text(out, ",");
        }
        string(out, user);
        listed += 1;
    }
    text(out, "]");
    if listed < number {
        text(out, r#","truncated":true"#);
    }
    if let UserCount::About(_) = count {
        text(out, r#","approximate":true"#);
    }
}

/// The end of a message that [`presence_head`] began.
pub fn presence_end(out: &mut Vec<u8>, id_raw: Option<&str>) {
    id(out, id_raw);
    text(out, "}");
}

/// `pong`, the answer to `ping`.
pub fn pong(out: &mut Vec<u8>, id_raw: Option<&str>) {
    text(out, r#"{"type":"pong""#);
    id(out, id_raw);
    text(out, "}");
}

fn in_epoch(out: &mut Vec<u8>, place: Option<InEpoch<'_>>) {
    if let Some(InEpoch { epoch, offset }) = place {
        text(out, r#","epoch":"#);
        string(out, epoch);
        text(out, r#","offset":"#);
        integer(out, offset);
    }
}

fn recovery(out: &mut Vec<u8>, recovered: Option<bool>) {
    match recovered {
        Some(true) => text(out, r#","recovered":true"#),
        Some(false) => text(out, r#","recovered":false"#),
        None => {}
    }
}

fn interval(out: &mut Vec<u8>, interval_ms: Option<u64>) {
    if let Some(interval_ms) = interval_ms {
        text(out, r#","interval":"#);
        integer(out, interval_ms);
    }
}

#[inline]
fn content_and_time(out: &mut Vec<u8>, content_raw: &str, time_ms: u64) {
    text(out, r#","content":"#);
    text(out, content_raw);
    text(out, r#","time":"#);
    integer(out, time_ms);
    text(out, "}");
}

#[inline]
fn data_and_from(out: &mut Vec<u8>, data_raw: &str, from: &str) {
    text(out, data_raw);
    text(out, r#","from":"#);
    string(out, from);
    text(out, "}");
}

#[inline]
fn id(out: &mut Vec<u8>, id_raw: Option<&str>) {
    if let Some(id_raw) = id_raw {
        text(out, r#","id":"#);
        text(out, id_raw);
    }
}

#[inline]
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn integer(out: &mut Vec<u8>, value: u64) {
    text(out, itoa::Buffer::new().format(value));
}

/// A JSON string: quoted, and escaped where RFC 8259, section 7, demands it.
#[inline]
fn string(out: &mut Vec<u8>, value: &str) {
    let bytes = value.as_bytes();
    out.push(b'"');
    let mut copied = 0;
    loop {
        let special = find_special(bytes, copied);
        out.extend_from_slice(&bytes[copied..special]);
        let Some(&byte) = bytes.get(special) else {
            break;
        };
        escape(out, byte);
        copied = special + 1;
    }
    out.push(b'"');
}

#[cold]
fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' => text(out, r#"\""#),
        b'\\' => text(out, r"\\"),
        b'\n' => text(out, r"\n"),
        b'\r' => text(out, r"\r"),
        b'\t' => text(out, r"\t"),
        _ => {
            text(out, r"\u00");
            out.push(HEX_DIGITS[usize::from(byte >> 4)]);
            out.push(HEX_DIGITS[usize::from(byte & 0xf)]);
        }
    }
}

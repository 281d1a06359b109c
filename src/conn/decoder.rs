//! Frames into messages (RFC 6455 §5), whatever pieces the bytes arrive in.
//!
//! ```text
//!  received bytes ──► whole unfragmented frame in one piece ──► Event borrowing the receive buffer
//!                └──► anything else ──► Partial (boxed, only while a header, frame or message is incomplete)
//! ```
//!
//! A compressed message (RFC 7692) is decompressed as it arrives, so that what it holds is bounded and checked at once.
//! An idle connection holds no buffer, but for what a client may refer to of its earlier messages.

use std::borrow::Cow;

use super::close::{PeerError, parse_close};
use super::frame::{Header, parse_header};
use super::mask::unmask;
use super::utf8::{Utf8Stream, validate};
use crate::compress::{Agreement, History, Inflaters, Stream};
use crate::frame::Opcode;
use crate::limits::INFLATE_STREAM_BYTES;

/// Bounds of one message.
#[derive(Clone, Copy, Debug)]
pub struct MessageLimits {
    /// Bytes it holds, its fragments together, decompressed; more is 1009.
    pub bytes_max: usize,
    /// Its fragments, empty ones counted; more is 1008.
    pub fragments_max: u32,
}

impl MessageLimits {
    /// Bytes a message's frames may carry: a little more where they are compressed, for not everything becomes smaller.
    fn wire_bytes_max(&self, compressed: bool) -> u64 {
        let bytes_max = self.bytes_max as u64;
        if compressed { bytes_max + bytes_max / 8 + 64 } else { bytes_max }
    }
}

/// What the bytes of a client amounted to. A payload is borrowed from the receive buffer where it came in one piece,
/// else it was assembled in a buffer of its own.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole text message.
    Text(Cow<'a, str>),
    /// A whole binary message.
    Binary(Cow<'a, [u8]>),
    /// A ping; its payload is to be sent back.
    Ping(Cow<'a, [u8]>),
    /// A pong.
    Pong,
    /// The peer's close frame with the code it gave, checked.
    Close(Option<u16>),
}

/// The inbound half of one connection.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    deflate: Deflate,
}

/// What a connection keeps for decompressing.
#[derive(Debug, Default)]
struct Deflate {
    agreement: Option<Agreement>,
    history: Option<Box<History>>,
}

impl Decoder {
    /// The decoder of a connection for which this was agreed.
    pub fn new(agreement: Option<Agreement>) -> Decoder {
        Decoder { partial: None, deflate: Deflate { agreement, history: None } }
    }

    /// Takes bytes from the front of `input` up to the next event. `None`: all of `input` was taken and no event is
    /// complete. Call again until then.
    ///
    /// Memory grows with the bytes that arrived, never with a length that was only announced; a compressed message is
    /// decompressed up to its bound. The buffer of an owned message may be given back to `inflaters`.
    ///
    /// # Errors
    /// A [`PeerError`] at the first byte that shows it; the connection is lost then, and the rest of `input` has no
    /// meaning.
    #[inline]
    pub fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limits: MessageLimits,
        inflaters: &mut Inflaters,
    ) -> Result<Option<Event<'a>>, PeerError> {
        if self.partial.is_none() {
            if let Some(event) = whole_frame(input, limits, &mut self.deflate, inflaters)? {
                return Ok(Some(event));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let partial = self.partial.get_or_insert_default();
        let event = partial.next(input, limits, &mut self.deflate, inflaters)?;
        if partial.is_empty() {
            self.partial = None;
        }
        Ok(event)
    }

    /// Whether a header, frame or message is incomplete.
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Bytes held for incomplete input. What may be referred to of earlier messages is not among them: it has its own
    /// bound, which is kept when compression is agreed on.
    #[inline]
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.held_bytes())
    }
}

impl Deflate {
    /// A message is complete: the client's next one may refer to it.
    fn remember(&mut self, message: &[u8]) {
        if let Some(agreement) = self.agreement
            && agreement.client_takeover
        {
            self.history.get_or_insert_default().push(message, agreement.history_bytes_max());
        }
    }
}

/// The fast path: the next frame lies whole in `input` and is a message or control frame of its own.
#[inline]
fn whole_frame<'a>(
    input: &mut &'a mut [u8],
    limits: MessageLimits,
    deflate: &mut Deflate,
    inflaters: &mut Inflaters,
) -> Result<Option<Event<'a>>, PeerError> {
    let Some((header, header_bytes)) = parse_header(input, deflate.agreement.is_some())? else { return Ok(None) };
    if header.opcode == Opcode::Continuation {
        return Err(PeerError::StrayContinuation);
    }
    if header.payload_bytes > limits.wire_bytes_max(header.compressed) && !header.opcode.is_control() {
        return Err(PeerError::MessageTooBig);
    }
    let frame_bytes = header_bytes + header.payload_bytes as usize;
    if !header.fin || input.len() < frame_bytes {
        return Ok(None);
    }
    let (frame, rest) = std::mem::take(input).split_at_mut(frame_bytes);
    *input = rest;
    let payload = &mut frame[header_bytes..];
    unmask(payload, header.key, 0);
    if header.compressed {
        let message = inflate(payload, limits, deflate, inflaters)?;
        return owned(header.opcode == Opcode::Text, message).map(Some);
    }
    Ok(Some(match header.opcode {
        Opcode::Text => {
            let text = validate(payload).map_err(|_| PeerError::InvalidUtf8)?;
            Event::Text(Cow::Borrowed(text))
        }
        Opcode::Binary => Event::Binary(Cow::Borrowed(payload)),
        Opcode::Ping => Event::Ping(Cow::Borrowed(payload)),
        Opcode::Pong => Event::Pong,
        Opcode::Close => Event::Close(parse_close(payload)?),
        Opcode::Continuation => return Err(PeerError::StrayContinuation),
    }))
}

/// What a compressed message that is here in one piece holds.
fn inflate(
    payload: &[u8],
    limits: MessageLimits,
    deflate: &mut Deflate,
    inflaters: &mut Inflaters,
) -> Result<Vec<u8>, PeerError> {
    let mut message = inflaters.buffer();
    inflaters.inflate(payload, deflate.history.as_deref(), &mut message, limits.bytes_max)?;
    deflate.remember(&message);
    Ok(message)
}

fn owned<'a>(text: bool, message: Vec<u8>) -> Result<Event<'a>, PeerError> {
    match text {
        true => {
            let text = String::from_utf8(message).map_err(|_| PeerError::InvalidUtf8)?;
            Ok(Event::Text(Cow::Owned(text)))
        }
        false => Ok(Event::Binary(Cow::Owned(message))),
    }
}

/// What is incomplete. `frame` is the frame being received, `opened` the data message it or its successors belong to.
#[derive(Debug, Default)]
struct Partial {
    head: Head,
    frame: Option<Frame>,
    opened: Option<Opened>,
    message: Vec<u8>,
    control: Vec<u8>,
}

/// A header that came in pieces; a client's has at most 14 bytes.
#[derive(Debug, Default)]
struct Head {
    bytes: [u8; 14],
    len: usize,
}

#[derive(Debug)]
struct Frame {
    header: Header,
    received_bytes: u64,
}

#[derive(Debug)]
struct Opened {
    text: bool,
    utf8: Utf8Stream,
    fragments: u32,
    /// Bytes its frames have announced so far.
    wire_bytes: u64,
    form: Form,
}

/// How a message's bytes become what it holds.
#[derive(Debug)]
enum Form {
    Plain,
    /// Decompressed as they arrive.
    Stream(Box<Stream>),
    /// Compressed, and too many others are: to be decompressed when all is here.
    Gathered,
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.head.len == 0 && self.frame.is_none() && self.opened.is_none()
    }

    fn held_bytes(&self) -> usize {
        let stream = match &self.opened {
            Some(Opened { form: Form::Stream(_), .. }) => INFLATE_STREAM_BYTES,
            Some(Opened { form: Form::Plain | Form::Gathered, .. }) | None => 0,
        };
        self.message.capacity() + self.control.capacity() + stream
    }

    fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        limits: MessageLimits,
        deflate: &mut Deflate,
        inflaters: &mut Inflaters,
    ) -> Result<Option<Event<'a>>, PeerError> {
        loop {
            if self.frame.is_none() {
                match self.take_header(input, deflate.agreement.is_some())? {
                    Some(header) => self.open_frame(header, limits, deflate, inflaters)?,
                    None => return Ok(None),
                }
            }
            if !self.take_payload(input, limits, deflate)? {
                return Ok(None);
            }
            if let Some(event) = self.end_frame(limits, deflate, inflaters)? {
                return Ok(Some(event));
            }
        }
    }

    /// A header may be split anywhere: bytes are gathered one by one until it parses.
    fn take_header(&mut self, input: &mut &mut [u8], deflate: bool) -> Result<Option<Header>, PeerError> {
        if self.head.len == 0
            && let Some((header, used)) = parse_header(input, deflate)?
        {
            *input = &mut std::mem::take(input)[used..];
            return Ok(Some(header));
        }
        while let Some((first, rest)) = std::mem::take(input).split_first_mut() {
            self.head.bytes[self.head.len] = *first;
            self.head.len += 1;
            *input = rest;
            if let Some((header, _)) = parse_header(&self.head.bytes[..self.head.len], deflate)? {
                self.head.len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn open_frame(
        &mut self,
        header: Header,
        limits: MessageLimits,
        deflate: &Deflate,
        inflaters: &mut Inflaters,
    ) -> Result<(), PeerError> {
        let opened = match (header.opcode, &mut self.opened) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {
                self.frame = Some(Frame { header, received_bytes: 0 });
                return Ok(());
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(PeerError::InterleavedMessage),
            (Opcode::Continuation, None) => return Err(PeerError::StrayContinuation),
            (Opcode::Text | Opcode::Binary, opened @ None) => {
                let text = header.opcode == Opcode::Text;
                let form = Form::Plain;
                opened.insert(Opened { text, utf8: Utf8Stream::new(), fragments: 0, wire_bytes: 0, form })
            }
            (Opcode::Continuation, Some(opened)) => opened,
        };
        opened.fragments += 1;
        if opened.fragments > limits.fragments_max {
            return Err(PeerError::TooManyFragments);
        }
        let compressed = header.compressed || !matches!(opened.form, Form::Plain);
        if header.payload_bytes > limits.wire_bytes_max(compressed) - opened.wire_bytes {
            return Err(PeerError::MessageTooBig);
        }
        opened.wire_bytes += header.payload_bytes;
        if header.compressed {
            opened.form = match inflaters.take(deflate.history.as_deref()) {
                Some(stream) => Form::Stream(Box::new(stream)),
                None => Form::Gathered,
            };
        }
        self.frame = Some(Frame { header, received_bytes: 0 });
        Ok(())
    }

    /// Moves payload from `input`; whether the frame is complete.
    fn take_payload(
        &mut self,
        input: &mut &mut [u8],
        limits: MessageLimits,
        deflate: &Deflate,
    ) -> Result<bool, PeerError> {
        let Some(frame) = &mut self.frame else { return Ok(false) };
        let missing = frame.header.payload_bytes - frame.received_bytes;
        let take = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
        let (bytes, rest) = std::mem::take(input).split_at_mut(take);
        *input = rest;
        unmask(bytes, frame.header.key, (frame.received_bytes % 4) as usize);
        frame.received_bytes += take as u64;
        let complete = frame.received_bytes == frame.header.payload_bytes;
        match &mut self.opened {
            _ if frame.header.opcode.is_control() => self.control.extend_from_slice(bytes),
            Some(opened) => opened.take(bytes, &mut self.message, limits, deflate)?,
            None => {}
        }
        Ok(complete)
    }

    /// The frame is complete: the event it makes, if it makes one.
    fn end_frame<'a>(
        &mut self,
        limits: MessageLimits,
        deflate: &mut Deflate,
        inflaters: &mut Inflaters,
    ) -> Result<Option<Event<'a>>, PeerError> {
        let Some(frame) = self.frame.take() else { return Ok(None) };
        match frame.header.opcode {
            Opcode::Ping => Ok(Some(Event::Ping(Cow::Owned(std::mem::take(&mut self.control))))),
            Opcode::Pong => {
                self.control.clear();
                Ok(Some(Event::Pong))
            }
            Opcode::Close => {
                let code = parse_close(&self.control)?;
                self.control.clear();
                Ok(Some(Event::Close(code)))
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                if !frame.header.fin {
                    return Ok(None);
                }
                let Some(opened) = self.opened.take() else { return Ok(None) };
                let payload = std::mem::take(&mut self.message);
                opened.end(payload, limits, deflate, inflaters).map(Some)
            }
        }
    }
}

impl Opened {
    /// More of the message has arrived; what it holds is appended to `message`.
    fn take(
        &mut self,
        bytes: &[u8],
        message: &mut Vec<u8>,
        limits: MessageLimits,
        deflate: &Deflate,
    ) -> Result<(), PeerError> {
        let before = message.len();
        match &mut self.form {
            Form::Plain => message.extend_from_slice(bytes),
            Form::Stream(stream) => stream.push(bytes, deflate.history.as_deref(), message, limits.bytes_max)?,
            Form::Gathered => {
                message.extend_from_slice(bytes);
                return Ok(());
            }
        }
        self.check(&message[before..])
    }

    /// The message is complete.
    fn end<'a>(
        mut self,
        mut message: Vec<u8>,
        limits: MessageLimits,
        deflate: &mut Deflate,
        inflaters: &mut Inflaters,
    ) -> Result<Event<'a>, PeerError> {
        match std::mem::replace(&mut self.form, Form::Plain) {
            Form::Plain => {}
            Form::Stream(mut stream) => {
                stream.end(deflate.history.as_deref(), &mut message, limits.bytes_max)?;
                inflaters.give_back(*stream);
                deflate.remember(&message);
            }
            Form::Gathered => return owned(self.text, inflate(&message, limits, deflate, inflaters)?),
        }
        if self.text {
            self.utf8.finish().map_err(|_| PeerError::InvalidUtf8)?;
        }
        owned(self.text, message)
    }

    /// Text is refused at the first byte that cannot be UTF-8 (RFC 6455 §8.1).
    fn check(&mut self, bytes: &[u8]) -> Result<(), PeerError> {
        match self.text {
            true => self.utf8.push(bytes).map_err(|_| PeerError::InvalidUtf8),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;

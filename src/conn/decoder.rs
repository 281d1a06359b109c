//! Frames into messages (RFC 6455 §5), whatever pieces the bytes arrive in.
//!
//! ```text
//!  received bytes ──► whole unfragmented frame in one piece ──► Event borrowing the receive buffer
//!                └──► anything else ──► Partial (boxed, only while a header, frame or message is incomplete)
//! ```
//!
//! An idle connection holds no buffer: `Decoder` is one pointer.

use std::borrow::Cow;

use super::close::{PeerError, parse_close};
use super::frame::{Header, parse_header};
use super::mask::unmask;
use super::utf8::{Utf8Stream, validate};
use crate::frame::Opcode;
use crate::limits::FRAGMENTS_MAX;

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
}

impl Decoder {
    /// Takes bytes from the front of `input` up to the next event. `None`: all of `input` was taken and no event is
    /// complete. Call again until then.
    ///
    /// A message holds at most `message_bytes_max` bytes; memory grows with the bytes that arrived, never with a
    /// length that was only announced.
    ///
    /// # Errors
    /// A [`PeerError`] at the first byte that shows it; the connection is lost then, and the rest of `input` has no
    /// meaning.
    #[inline]
    pub fn next<'a>(
        &mut self,
        input: &mut &'a mut [u8],
        message_bytes_max: usize,
    ) -> Result<Option<Event<'a>>, PeerError> {
        if self.partial.is_none() {
            if let Some(event) = whole_frame(input, message_bytes_max)? {
                return Ok(Some(event));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        let partial = self.partial.get_or_insert_default();
        let event = partial.next(input, message_bytes_max)?;
        if partial.is_empty() {
            self.partial = None;
        }
        Ok(event)
    }

    /// Whether a header, frame or message is incomplete.
    pub fn is_partial(&self) -> bool {
        self.partial.is_some()
    }

    /// Bytes held for incomplete input.
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| partial.message.capacity() + partial.control.capacity())
    }
}

/// The fast path: the next frame lies whole in `input` and is a message or control frame of its own.
#[inline]
fn whole_frame<'a>(input: &mut &'a mut [u8], message_bytes_max: usize) -> Result<Option<Event<'a>>, PeerError> {
    let Some((header, header_bytes)) = parse_header(input)? else { return Ok(None) };
    if header.opcode == Opcode::Continuation {
        return Err(PeerError::StrayContinuation);
    }
    if header.payload_bytes > message_bytes_max as u64 && !header.opcode.is_control() {
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
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.head.len == 0 && self.frame.is_none() && self.opened.is_none()
    }

    fn next<'a>(&mut self, input: &mut &'a mut [u8], message_bytes_max: usize) -> Result<Option<Event<'a>>, PeerError> {
        loop {
            if self.frame.is_none() {
                match self.take_header(input)? {
                    Some(header) => self.open_frame(header, message_bytes_max)?,
                    None => return Ok(None),
                }
            }
            if !self.take_payload(input)? {
                return Ok(None);
            }
            if let Some(event) = self.end_frame()? {
                return Ok(Some(event));
            }
        }
    }

    /// A header may be split anywhere: bytes are gathered one by one until it parses.
    fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, PeerError> {
        if self.head.len == 0
            && let Some((header, used)) = parse_header(input)?
        {
            *input = &mut std::mem::take(input)[used..];
            return Ok(Some(header));
        }
        while let Some((first, rest)) = std::mem::take(input).split_first_mut() {
            self.head.bytes[self.head.len] = *first;
            self.head.len += 1;
            *input = rest;
            if let Some((header, _)) = parse_header(&self.head.bytes[..self.head.len])? {
                self.head.len = 0;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn open_frame(&mut self, header: Header, message_bytes_max: usize) -> Result<(), PeerError> {
        match (header.opcode, &mut self.opened) {
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(PeerError::InterleavedMessage),
            (Opcode::Continuation, None) => return Err(PeerError::StrayContinuation),
            (Opcode::Text | Opcode::Binary, opened @ None) => {
                let text = header.opcode == Opcode::Text;
                *opened = Some(Opened { text, utf8: Utf8Stream::new(), fragments: 1 });
            }
            (Opcode::Continuation, Some(opened)) => {
                opened.fragments += 1;
                if opened.fragments > FRAGMENTS_MAX {
                    return Err(PeerError::TooManyFragments);
                }
            }
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => {}
        }
        if !header.opcode.is_control() && header.payload_bytes > (message_bytes_max - self.message.len()) as u64 {
            return Err(PeerError::MessageTooBig);
        }
        self.frame = Some(Frame { header, received_bytes: 0 });
        Ok(())
    }

    /// Moves payload from `input`; whether the frame is complete.
    fn take_payload(&mut self, input: &mut &mut [u8]) -> Result<bool, PeerError> {
        let Some(frame) = &mut self.frame else { return Ok(false) };
        let missing = frame.header.payload_bytes - frame.received_bytes;
        let take = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
        let (bytes, rest) = std::mem::take(input).split_at_mut(take);
        *input = rest;
        unmask(bytes, frame.header.key, (frame.received_bytes % 4) as usize);
        frame.received_bytes += take as u64;
        if frame.header.opcode.is_control() {
            self.control.extend_from_slice(bytes);
        } else {
            if let Some(opened) = &mut self.opened
                && opened.text
            {
                opened.utf8.push(bytes).map_err(|_| PeerError::InvalidUtf8)?;
            }
            self.message.extend_from_slice(bytes);
        }
        Ok(frame.received_bytes == frame.header.payload_bytes)
    }

    /// The frame is complete: the event it makes, if it makes one.
    fn end_frame<'a>(&mut self) -> Result<Option<Event<'a>>, PeerError> {
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
                let Some(mut opened) = self.opened.take() else { return Ok(None) };
                let payload = std::mem::take(&mut self.message);
                if !opened.text {
                    return Ok(Some(Event::Binary(Cow::Owned(payload))));
                }
                opened.utf8.finish().map_err(|_| PeerError::InvalidUtf8)?;
                let text = String::from_utf8(payload).map_err(|_| PeerError::InvalidUtf8)?;
                Ok(Some(Event::Text(Cow::Owned(text))))
            }
        }
    }
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;

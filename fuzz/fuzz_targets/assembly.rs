//! Frames that are right or nearly right, put together into messages.
//!
//! The input says which frames a client sends: messages in fragments with control frames between them, and frames in
//! which something is wrong. A naive assembler goes through the frames one by one by RFC 6455 §5.2–5.6, §7.4 and §8.1
//! and says what they amount to, and at which byte it shows. `Decoder`, given the bytes in any pieces, must say the
//! same in the piece with that byte: the events, and the error if there is one.
//!
//! Input: an [`Input`], read by `arbitrary`.

#![no_main]

use fanfare::conn::PeerError;
use fanfare::frame::Opcode;
use fanfare_fuzz::decoding::{Outcome, in_pieces, outcomes};
use fanfare_seeds::frame::{CLOSE, Frame, LengthForm, PING, PONG};
use fanfare_seeds::pieces;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Frames of one input; more are left out.
const FRAMES_MAX: usize = 64;

/// Payload of all frames of one input; frames beyond it are left out.
const PAYLOAD_BYTES_MAX: usize = 140_000;

/// Payload of one frame that repeats something.
const REPEATED_BYTES_MAX: usize = 70_000;

/// What `message_bytes_max` is chosen from.
const MESSAGE_BYTES_MAX: [usize; 4] = [70_000, 1, 60, 1_000];

/// Payloads at the edges of the forms of a length (RFC 6455 §5.2).
const PAYLOAD_BYTES: [usize; 6] = [0, 125, 126, 127, 65_535, 65_536];

/// Close codes at the edges of what may be sent (RFC 6455 §7.4.2).
const CODES: [u16; 20] = [
    0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1013, 1014, 1015, 1016, 2999, 3000, 4999, 5000,
    65_535,
];

fuzz_target!(|input: Input| {
    let limit = MESSAGE_BYTES_MAX[usize::from(input.limit) % MESSAGE_BYTES_MAX.len()];
    let frames = input.frames();
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.write(&mut bytes));
    bytes.truncate(bytes.len().saturating_sub(usize::from(input.cut)));
    let expected = Assembler::assemble(&frames, limit);
    let ends = pieces::ends(&input.sizes, bytes.len());
    assert_eq!(outcomes(&bytes, &ends, limit), in_pieces(&expected, &ends), "pieces up to {ends:?} of {frames:?}");
});

/// What a client sends.
#[derive(Arbitrary, Debug)]
struct Input {
    limit: u8,
    /// Bytes that are missing at the end.
    cut: u8,
    sizes: Vec<u8>,
    parts: Vec<Part>,
}

#[derive(Arbitrary, Debug)]
enum Part {
    /// A message in fragments, with a control frame in front of each but the first.
    Message {
        text: Option<Content>,
        binary: Content,
        cuts: Vec<u16>,
        between: Option<Control>,
        key: [u8; 4],
    },
    Control(Control),
    /// Any frame.
    Any {
        fin: bool,
        reserved: u8,
        opcode: u8,
        key: Option<[u8; 4]>,
        form: Form,
        payload: Content,
    },
}

#[derive(Arbitrary, Debug)]
enum Control {
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Code, String),
}

#[derive(Arbitrary, Debug)]
enum Code {
    None,
    /// One at the edge of what is allowed.
    Edge(u8),
    Any(u16),
}

#[derive(Arbitrary, Debug)]
enum Form {
    Shortest,
    Middle,
    Long,
}

#[derive(Arbitrary, Debug)]
enum Content {
    Text(String),
    Bytes(Vec<u8>),
    /// Something over and over again.
    Repeated(String, u16),
    /// As many bytes as need another form of the length, or nearly.
    Edge(u8),
}

impl Input {
    fn frames(&self) -> Vec<Frame> {
        let mut frames: Vec<Frame> = self.parts.iter().flat_map(Part::frames).take(FRAMES_MAX).collect();
        let mut payload_bytes = 0;
        frames.retain(|frame| {
            payload_bytes += frame.payload.len();
            payload_bytes <= PAYLOAD_BYTES_MAX
        });
        frames
    }
}

impl Part {
    fn frames(&self) -> Vec<Frame> {
        match self {
            Part::Control(control) => vec![control.frame()],
            Part::Any { fin, reserved, opcode, key, form, payload } => {
                let form = match form {
                    Form::Shortest => LengthForm::Shortest,
                    Form::Middle => LengthForm::Middle,
                    Form::Long => LengthForm::Long,
                };
                let (reserved, opcode) = (reserved % 8, opcode % 16);
                vec![Frame { fin: *fin, reserved, opcode, key: *key, form, payload: payload.bytes() }]
            }
            Part::Message { text, binary, cuts, between, key } => {
                let opcode = if text.is_some() { Opcode::Text } else { Opcode::Binary };
                let payload = text.as_ref().unwrap_or(binary).bytes();
                let mut cuts: Vec<usize> = cuts.iter().map(|&cut| usize::from(cut) % (payload.len() + 1)).collect();
                cuts.sort_unstable();
                cuts.push(payload.len());
                let mut frames = Vec::new();
                let mut from = 0;
                for (at, &to) in cuts.iter().enumerate() {
                    let opcode = if at == 0 { opcode } else { Opcode::Continuation };
                    frames.extend(between.iter().filter(|_| at > 0).map(Control::frame));
                    let fragment = Frame::new(opcode.bits(), &payload[from..to]).masked(*key);
                    frames.push(Frame { fin: at + 1 == cuts.len(), ..fragment });
                    from = to;
                }
                frames
            }
        }
    }
}

impl Control {
    fn frame(&self) -> Frame {
        match self {
            Control::Ping(payload) => Frame::new(PING, payload.as_slice()),
            Control::Pong(payload) => Frame::new(PONG, payload.as_slice()),
            Control::Close(code, reason) => {
                let code = match code {
                    Code::None => None,
                    Code::Edge(at) => Some(CODES[usize::from(*at) % CODES.len()]),
                    Code::Any(code) => Some(*code),
                };
                let code = code.map(u16::to_be_bytes);
                Frame::new(CLOSE, [code.as_slice().concat(), reason.clone().into_bytes()].concat())
            }
        }
    }
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Content::Text(text) => text.clone().into_bytes(),
            Content::Bytes(bytes) => bytes.clone(),
            Content::Repeated(text, times) => {
                text.repeat(usize::from(*times).min(REPEATED_BYTES_MAX / text.len().max(1))).into_bytes()
            }
            Content::Edge(at) => vec![b'x'; PAYLOAD_BYTES[usize::from(*at) % PAYLOAD_BYTES.len()]],
        }
    }
}

/// The naive reading. It keeps every message whole and looks at all of it anew for each fragment.
#[derive(Default)]
struct Assembler {
    /// The message that is not finished: whether it is text, and what came of it.
    open: Option<(bool, Vec<u8>)>,
    /// Everything up to the first error, each with the number of bytes that show it.
    outcomes: Vec<(usize, Outcome)>,
}

impl Assembler {
    fn assemble(frames: &[Frame], limit: usize) -> Vec<(usize, Outcome)> {
        let mut assembler = Assembler::default();
        let mut start = 0;
        for frame in frames {
            if let Err((at, error)) = assembler.take(frame, start, limit) {
                assembler.outcomes.push((at, Outcome::Error(error)));
                break;
            }
            start += frame.header_bytes() + frame.payload.len();
        }
        assembler.outcomes
    }

    fn take(&mut self, frame: &Frame, start: usize, limit: usize) -> Result<(), (usize, PeerError)> {
        let opcode = check_header(frame).map_err(|(bytes, error)| (start + bytes, error))?;
        let header_end = start + frame.header_bytes();
        let end = header_end + frame.payload.len();
        let payload = &frame.payload;
        match opcode {
            Opcode::Ping => self.outcomes.push((end, Outcome::Ping(payload.clone()))),
            Opcode::Pong => self.outcomes.push((end, Outcome::Pong)),
            Opcode::Close => {
                let code = close_code(payload).map_err(|error| (end, error))?;
                self.outcomes.push((end, Outcome::Close(code)));
            }
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                let (text, mut message) = match (opcode, self.open.take()) {
                    (Opcode::Continuation, None) => return Err((header_end, PeerError::StrayContinuation)),
                    (Opcode::Continuation, Some(open)) => open,
                    (_, Some(_)) => return Err((header_end, PeerError::InterleavedMessage)),
                    (opcode, None) => (opcode == Opcode::Text, Vec::new()),
                };
                let before = message.len();
                if before + payload.len() > limit {
                    return Err((header_end, PeerError::MessageTooBig));
                }
                message.extend_from_slice(payload);
                let fault = if text { first_fault(&message, frame.fin) } else { None };
                if let Some(bytes) = fault {
                    return Err((header_end + bytes.saturating_sub(before), PeerError::InvalidUtf8));
                }
                match (frame.fin, text) {
                    (false, _) => self.open = Some((text, message)),
                    (true, true) => self.outcomes.push((end, Outcome::Text(message))),
                    (true, false) => self.outcomes.push((end, Outcome::Binary(message))),
                }
            }
        }
        Ok(())
    }
}

/// RFC 6455 §5.2 and §5.5; with an error, how many bytes of the frame show it.
fn check_header(frame: &Frame) -> Result<Opcode, (usize, PeerError)> {
    if frame.reserved != 0 {
        return Err((1, PeerError::ReservedBits));
    }
    let opcode = Opcode::from_bits(frame.opcode).ok_or((1, PeerError::UnknownOpcode))?;
    if opcode.is_control() && !frame.fin {
        return Err((1, PeerError::FragmentedControl));
    }
    if frame.key.is_none() {
        return Err((2, PeerError::Unmasked));
    }
    let length_bytes = frame.length_bytes();
    if opcode.is_control() && length_bytes > 0 {
        return Err((2, PeerError::LongControl));
    }
    let shortest = match frame.payload.len() {
        0..=125 => 0,
        126..=0xFFFF => 2,
        _ => 8,
    };
    if length_bytes != shortest {
        return Err((2 + length_bytes, PeerError::BadLength));
    }
    Ok(opcode)
}

/// How many bytes of a text show that it is not UTF-8; one that goes on may be cut off inside of a character.
fn first_fault(text: &[u8], is_whole: bool) -> Option<usize> {
    let error = std::str::from_utf8(text).err()?;
    let valid = error.valid_up_to();
    let is_lost = |bytes: &usize| std::str::from_utf8(&text[..*bytes]).is_err_and(|error| error.error_len().is_some());
    (valid + 1..=text.len()).find(is_lost).or(is_whole.then_some(text.len()))
}

/// RFC 6455 §5.5.1 and §7.4, with 1012 to 1014 from the registry.
fn close_code(payload: &[u8]) -> Result<Option<u16>, PeerError> {
    match payload {
        [] => Ok(None),
        [_] => Err(PeerError::BadClose),
        [high, low, reason @ ..] => match u16::from_be_bytes([*high, *low]) {
            code @ (1000..=1003 | 1007..=1014 | 3000..=4999) => match std::str::from_utf8(reason) {
                Ok(_) => Ok(Some(code)),
                Err(_) => Err(PeerError::InvalidUtf8),
            },
            _ => Err(PeerError::BadClose),
        },
    }
}

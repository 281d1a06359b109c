//! A decoder fed piece by piece, and what it tells, kept.

use fanfare::compress::{Agreement, Inflaters};
use fanfare::conn::{Decoder, Event, MessageLimits, PeerError};

/// What bytes amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The bytes of a text message.
    Text(Vec<u8>),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping, with its payload.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// A close frame, with its code.
    Close(Option<u16>),
    /// The end of the connection.
    Error(PeerError),
}

/// Everything that bytes amount to, in pieces that end at `ends`: each up to the first error, with the end of the piece
/// that brought it.
///
/// # Panics
/// If a piece is not taken whole.
pub fn outcomes(bytes: &[u8], ends: &[usize], message_bytes_max: usize) -> Vec<(usize, Outcome)> {
    outcomes_of(Decoder::default(), bytes, ends, message_bytes_max)
}

/// As [`outcomes`], where this was agreed about compression.
///
/// # Panics
/// If a piece is not taken whole.
pub fn outcomes_agreed(
    agreement: Agreement,
    bytes: &[u8],
    ends: &[usize],
    message_bytes_max: usize,
) -> Vec<(usize, Outcome)> {
    outcomes_of(Decoder::new(Some(agreement)), bytes, ends, message_bytes_max)
}

/// The bounds of a message with so many bytes.
pub fn limits(bytes_max: usize) -> MessageLimits {
    MessageLimits { bytes_max, fragments_max: 131_072 }
}

fn outcomes_of(mut decoder: Decoder, bytes: &[u8], ends: &[usize], message_bytes_max: usize) -> Vec<(usize, Outcome)> {
    let mut bytes = bytes.to_vec();
    let mut inflaters = Inflaters::default();
    let mut outcomes = Vec::new();
    let mut from = 0;
    for &end in ends {
        let mut piece = &mut bytes[from..end];
        from = end;
        loop {
            let outcome = match decoder.next(&mut piece, limits(message_bytes_max), &mut inflaters) {
                Ok(None) => break,
                Ok(Some(Event::Text(text))) => Outcome::Text(text.into_owned().into_bytes()),
                Ok(Some(Event::Binary(bytes))) => Outcome::Binary(bytes.into_owned()),
                Ok(Some(Event::Ping(payload))) => Outcome::Ping(payload.into_owned()),
                Ok(Some(Event::Pong)) => Outcome::Pong,
                Ok(Some(Event::Close(code))) => Outcome::Close(code),
                Err(error) => {
                    outcomes.push((end, Outcome::Error(error)));
                    return outcomes;
                }
            };
            outcomes.push((end, outcome));
        }
        assert!(piece.is_empty(), "a piece is taken whole");
    }
    outcomes
}

/// Outcomes that show at certain bytes, as they are told in pieces that end at `ends`: no earlier and no later than in
/// the piece with that byte, and not at all behind the last.
pub fn in_pieces(outcomes: &[(usize, Outcome)], ends: &[usize]) -> Vec<(usize, Outcome)> {
    let piece_of = |at: usize| ends.get(ends.partition_point(|&end| end < at));
    outcomes.iter().filter_map(|(at, outcome)| Some((*piece_of(*at)?, outcome.clone()))).collect()
}

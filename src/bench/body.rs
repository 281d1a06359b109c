//! What is published into rooms: the commands, and whether what arrives is what they carried.
//!
//! There are two payloads. Filler is one stamp and many equal letters, the cheapest there is. JSON looks like the
//! traffic of a trading desk with a chat: names that come back, numbers that do not, and words. It compresses as such
//! traffic does, and is the same in every run, so that compressed and plain runs and all servers carry the same bytes.

use std::fmt::Write;

use memchr::memmem;

use super::dialect::Dialect;
use super::limits::JSON_BODIES;
use super::scenario::Payload;
use super::wire::{NAME_DIGITS, SEQUENCE_DIGITS, STAMP_BYTES, Template};

/// The stamp of message 0 of stream 0.
const STAMP: &str = "#000000:00000000";

/// What a server adds to a command: the sender and the time.
const ADDED: &str = r#","from":"p000000","time":1700000000000"#;

/// From which the JSON bodies are made: any number would do.
const SEED: u64 = 0x0FAE_FA2E;

/// The messages that all rooms have in turn.
#[derive(Debug)]
pub(super) struct Bodies {
    templates: Vec<Template>,
    contents: Vec<String>,
    /// The content that is compared at the moment.
    expected: Vec<u8>,
}

impl Bodies {
    /// Of which a delivered message of the user dialect has so many bytes, with what a server adds. In every dialect they
    /// have the same contents.
    pub(super) fn new(dialect: Dialect, payload: Payload, payload_bytes: usize, mask: [u8; 4]) -> Bodies {
        let content_bytes = payload_bytes.saturating_sub(Dialect::User.publish("").len() + ADDED.len());
        let contents = match payload {
            Payload::Filler => vec![filler(content_bytes)],
            Payload::Json => json_contents(content_bytes),
        };
        let templates = contents.iter().map(|content| Template::new(&dialect.publish(content), mask)).collect();
        Bodies { templates, contents, expected: Vec::new() }
    }

    /// Appends the frame that publishes a room's next message.
    #[inline]
    pub(super) fn append(&mut self, room: u32, sequence: u32, out: &mut Vec<u8>) {
        let body = sequence as usize % self.templates.len();
        self.templates[body].append_into(room, sequence, out);
    }

    /// Whether a delivered message carries a room's message byte for byte.
    pub(super) fn carries(&mut self, payload: &[u8], room: u32, sequence: u32) -> bool {
        let content = &self.contents[sequence as usize % self.contents.len()];
        let stamp_at = content.find('#').expect("a content carries a stamp");
        self.expected.clear();
        self.expected.extend_from_slice(content.as_bytes());
        let stamp = format!("#{room:0NAME_DIGITS$}:{sequence:0SEQUENCE_DIGITS$}");
        self.expected[stamp_at..stamp_at + STAMP_BYTES].copy_from_slice(stamp.as_bytes());
        memmem::find(payload, &self.expected).is_some()
    }
}

fn filler(content_bytes: usize) -> String {
    format!(r#""{STAMP}{}""#, "x".repeat(content_bytes.saturating_sub(STAMP_BYTES + 2)))
}

fn json_contents(content_bytes: usize) -> Vec<String> {
    let mut desk = Desk::new();
    (0..JSON_BODIES).map(|_| desk.content(content_bytes)).collect()
}

const SYMBOLS: [&str; 24] = [
    "ACME", "ALFA", "BOLT", "BRIO", "CIRX", "CODA", "DELT", "DUNE", "ECHO", "ENVO", "FLUX", "GALE", "HELM", "IRON",
    "JADE", "KITE", "LUMA", "MESA", "NOVA", "OPAL", "PIKE", "QUAY", "RUNE", "SAGE",
];

const WORDS: [&str; 96] = [
    "the",
    "a",
    "to",
    "and",
    "of",
    "is",
    "it",
    "in",
    "on",
    "that",
    "for",
    "was",
    "at",
    "with",
    "this",
    "are",
    "not",
    "but",
    "we",
    "you",
    "I",
    "they",
    "have",
    "be",
    "from",
    "or",
    "by",
    "what",
    "all",
    "can",
    "out",
    "up",
    "if",
    "so",
    "about",
    "who",
    "get",
    "just",
    "more",
    "when",
    "then",
    "some",
    "like",
    "time",
    "than",
    "now",
    "could",
    "only",
    "price",
    "order",
    "filled",
    "partial",
    "spread",
    "wide",
    "again",
    "desk",
    "morning",
    "volume",
    "above",
    "below",
    "yesterday",
    "level",
    "watching",
    "closing",
    "auction",
    "liquidity",
    "thin",
    "buyer",
    "seller",
    "size",
    "market",
    "quote",
    "stale",
    "feed",
    "lagging",
    "check",
    "please",
    "thanks",
    "meeting",
    "later",
    "position",
    "flat",
    "short",
    "long",
    "hedge",
    "rates",
    "curve",
    "client",
    "asked",
    "sent",
    "confirm",
    "booked",
    "cancel",
    "limit",
    "stop",
    "open",
];

/// Prices that wander, and people who talk.
struct Desk {
    random: fastrand::Rng,
    /// In hundredths, by symbol.
    prices: Vec<u32>,
    time_ms: u64,
}

impl Desk {
    fn new() -> Desk {
        let mut random = fastrand::Rng::with_seed(SEED);
        let prices = SYMBOLS.iter().map(|_| random.u32(2_000..90_000)).collect();
        Desk { random, prices, time_ms: 1_700_000_000_000 }
    }

    /// A JSON object of so many bytes: quotes, then talk for a quarter of it at least. Its names are in order, and its
    /// numbers written as every JSON library writes them, so that it survives being parsed and written anew.
    fn content(&mut self, content_bytes: usize) -> String {
        let user = self.random.u32(1_000..10_000);
        let mut out = format!(r#"{{"channel":"quotes","id":"{STAMP}","quotes":["#);
        let tail = format!(r#"","user":"u{user}"}}"#);
        let talk = r#"],"text":""#;
        let quotes_end = (content_bytes - content_bytes / 4).saturating_sub(tail.len() + talk.len());
        loop {
            let quote = self.quote();
            if out.len() + quote.len() + 1 > quotes_end {
                break;
            }
            if out.ends_with('}') {
                out.push(',');
            }
            out.push_str(&quote);
        }
        out.push_str(talk);
        let talk_end = content_bytes.saturating_sub(tail.len());
        while out.len() < talk_end {
            // The product of two throws favours the first words, as languages do.
            let word = self.random.usize(..WORDS.len()) * self.random.usize(..WORDS.len()) / WORDS.len();
            out.push_str(WORDS[word]);
            out.push(' ');
        }
        out.truncate(talk_end);
        out.push_str(&tail);
        out
    }

    fn quote(&mut self) -> String {
        let at = self.random.usize(..SYMBOLS.len());
        let price = self.prices[at].saturating_add(self.random.u32(..41)).saturating_sub(20).max(100);
        self.prices[at] = price;
        self.time_ms += self.random.u64(1..40);
        let ask = price + self.random.u32(1..6);
        let mut lot = || self.random.u32(1..100) * 10;
        let (ask_size, bid_size) = (lot(), lot());
        let mut out = String::new();
        let _ = write!(
            out,
            r#"{{"ask":"{}.{:02}","askSize":{ask_size},"bid":"{}.{:02}","bidSize":{bid_size},"symbol":"{}","time":{}}}"#,
            ask / 100,
            ask % 100,
            price / 100,
            price % 100,
            SYMBOLS[at],
            self.time_ms,
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;
    use crate::bench::limits::{JSON_PAYLOAD_BYTES_MIN, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};

    const PLAIN: [u8; 4] = [0; 4];

    #[test]
    fn a_delivered_message_has_the_size_that_was_asked_for() {
        let sizes = [JSON_PAYLOAD_BYTES_MIN, 512, 4096, PAYLOAD_BYTES_MAX];
        for (payload, size) in
            sizes.map(|size| (Payload::Json, size)).into_iter().chain([(Payload::Filler, PAYLOAD_BYTES_MIN)])
        {
            let bodies = Bodies::new(Dialect::User, payload, size as usize, PLAIN);
            for content in &bodies.contents {
                assert_eq!((Dialect::User.publish(content).len() + ADDED.len()) as u64, size, "{payload:?}: {content}");
            }
        }
    }

    #[test]
    fn json_survives_being_parsed_and_written_anew() {
        for content in json_contents(2_000) {
            let parsed: serde_json::Value = serde_json::from_str(&content).unwrap();
            assert_eq!(parsed.to_string(), content);
        }
    }

    #[test]
    fn json_is_the_same_in_every_run_and_varies_within_one() {
        let contents = json_contents(400);
        assert_eq!(contents, json_contents(400));
        assert_eq!(contents.iter().collect::<std::collections::BTreeSet<_>>().len(), JSON_BODIES);
    }

    /// Neither filler nor noise: what a message by itself comes to.
    #[test]
    fn json_compresses_as_traffic_does() {
        for (content_bytes, percent) in [(430, 50..75), (4_000, 25..45)] {
            let deflated = |content: &String| {
                let mut out = Vec::with_capacity(content.len() * 2);
                let mut state = Compress::new(Compression::default(), false);
                state.compress_vec(content.as_bytes(), &mut out, FlushCompress::Sync).unwrap();
                out.len()
            };
            let sum: usize = json_contents(content_bytes).iter().map(deflated).sum();
            let share = sum * 100 / (content_bytes * JSON_BODIES);
            assert!(percent.contains(&share), "{content_bytes} bytes come to {share} %");
        }
    }

    #[test]
    fn an_altered_byte_is_seen() {
        for (payload, dialect) in [Payload::Filler, Payload::Json]
            .into_iter()
            .flat_map(|payload| [(payload, Dialect::User), (payload, Dialect::Centrifugo)])
        {
            let mut bodies = Bodies::new(dialect, payload, 512, PLAIN);
            let mut frame = Vec::new();
            bodies.append(7, 300, &mut frame);
            assert!(bodies.carries(&frame, 7, 300));
            assert!(!bodies.carries(&frame, 7, 301) && !bodies.carries(&frame, 8, 300));
            *frame.iter_mut().rev().nth(20).unwrap() ^= 1;
            assert!(!bodies.carries(&frame, 7, 300));
        }
    }
}

//! Raw rooms: what their members say, and what a request wants of a keyed one. And echoes, which are in no room.
//!
//! There are no words for an error: what is wrong with a request is a refusal, and what is wrong with a message is the end of
//! its connection.

use super::commands::Message;
use super::connection::{CloseCause, RawMessages};
use super::driver::{Driver, SlotKey};
use super::worker::Worker;
use crate::conn::{HttpRefusal, ItemOptions, ItemWords, PeerError, Target};
use crate::limits::{ITEM_PATTERNS_MAX, ROUND_INTERVAL_MS_MAX};
use crate::protocol::Mode;
use crate::protocol::keyed::{is_pattern, raw_update};
use crate::router::{
    CommandKind, ItemFilter, ItemState, JoinReply, Kind, Publish, PublishItems, RecoverFrom, Subscribe, Terms,
    TermsChange, TopicRef,
};

/// How a request's connection that speaks no JSON begins.
pub(super) struct RawEntry {
    /// What it sends there.
    pub(super) messages: RawMessages,
    /// What it wants, and how it is answered.
    pub(super) reply: JoinReply,
}

impl<D: Driver> Worker<D> {
    /// How a request enters its raw room, or an echo; `None` where it asks for neither.
    ///
    /// # Errors
    /// What is wrong with its options, where the room is keyed.
    pub(super) fn raw_entry(&mut self, target: &Target) -> Result<Option<RawEntry>, HttpRefusal> {
        let (room, echo, options) = match target {
            Target::Raw { room, echo, options } => (room, echo, options),
            Target::Echo => return Ok(Some(RawEntry { messages: RawMessages::Echo, reply: JoinReply::Silent })),
            Target::Json { .. } => return Ok(None),
        };
        if !self.router.is_keyed(TopicRef { kind: Kind::Raw, name: room }) {
            let messages = RawMessages::Bytes { echo: *echo };
            return Ok(Some(RawEntry { messages, reply: JoinReply::Silent }));
        }
        let (terms, recover) = wanted(options).map_err(HttpRefusal::Bad)?;
        if terms.filter.bytes() > self.settings.router.keyed.subscription_bytes_max {
            return Err(HttpRefusal::Bad(
                "items names more bytes of items than a connection may: use patterns like fx.*",
            ));
        }
        let subscribe = Box::new(Subscribe { terms, snapshot: None });
        Ok(Some(RawEntry { messages: RawMessages::Updates, reply: JoinReply::Raw { recover, subscribe } }))
    }

    /// A message of a connection without commands.
    pub(super) fn raw_message(&mut self, slot: SlotKey, messages: RawMessages, message: Message<'_>) {
        match messages {
            RawMessages::Bytes { echo } => self.pass_on(slot, echo, message),
            RawMessages::Updates => self.raw_update(slot, message.bytes()),
            RawMessages::Echo => self.connections.echo(slot, message.opcode(), message.bytes()),
        }
    }

    fn pass_on(&mut self, slot: SlotKey, echo: bool, message: Message<'_>) {
        let id = self.connections.id(slot);
        let Some(room) = self.router.name(id).cloned() else { return };
        let frame = self.composer.raw(message.opcode(), message.bytes());
        let topic = TopicRef { kind: Kind::Raw, name: &room };
        let publish = Publish { topic, frame, exclude: (!echo).then_some(id), key: None, publisher: id.into() };
        self.router.publish(publish, None, &mut self.connections);
    }

    fn raw_update(&mut self, slot: SlotKey, message: &[u8]) {
        let id = self.connections.id(slot);
        let Some((item, payload)) = raw_update(message) else {
            return self.quiesce(slot, CloseCause::Error(PeerError::BadItem));
        };
        let Some(room) = self.router.name(id).cloned() else { return };
        let state = match payload.is_empty() {
            true => ItemState::Removed,
            false => ItemState::Present,
        };
        self.updates.begin(CommandKind::One);
        self.updates.push(item, None, state, |out| out.extend_from_slice(payload));
        let topic = TopicRef { kind: Kind::Raw, name: &room };
        let publish =
            PublishItems { topic, updates: &self.updates, exclude: Some(id), key: None, publisher: id.into() };
        self.router.publish_items(publish, None, &mut self.connections);
    }
}

/// What a request's options say.
fn wanted(options: &ItemOptions) -> Result<(Terms, Option<RecoverFrom>), &'static str> {
    let words = match options {
        ItemOptions::None => return Ok((Terms::default(), None)),
        ItemOptions::Malformed => return Err("mode, interval, items and since must be percent-encoded UTF-8"),
        ItemOptions::Said(words) => words,
    };
    let ItemWords { mode, interval, items, since } = &**words;
    let change = TermsChange {
        mode: mode.as_deref().map(mode_of).transpose()?,
        interval_ms: interval.as_deref().map(interval_of).transpose()?,
        filter: items.as_deref().map(filter_of).transpose()?,
    };
    let recover = since.as_deref().map(since_of).transpose()?;
    Ok((change.applied_to(&Terms::default()), recover))
}

fn mode_of(text: &str) -> Result<Mode, &'static str> {
    match text {
        "all" => Ok(Mode::All),
        "latest" => Ok(Mode::Latest),
        _ => Err("mode must be either all or latest"),
    }
}

fn interval_of(text: &str) -> Result<u32, &'static str> {
    let interval_ms = number(text).ok_or("interval must be a whole number of milliseconds, like 100")?;
    // More is taken for so much, which has 32 bits.
    Ok(interval_ms.min(ROUND_INTERVAL_MS_MAX) as u32)
}

fn filter_of(text: &str) -> Result<ItemFilter, &'static str> {
    if text.is_empty() {
        return Ok(ItemFilter::new([]));
    }
    if text.split(',').nth(ITEM_PATTERNS_MAX).is_some() {
        return Err("items may name 1000 items: use patterns like fx.*");
    }
    match text.split(',').all(is_pattern) {
        true => Ok(ItemFilter::new(text.split(','))),
        false => {
            Err("items must be names of 1 to 128 bytes with commas between them, with * at most at the end of one")
        }
    }
}

fn since_of(text: &str) -> Result<RecoverFrom, &'static str> {
    let position = text.rsplit_once(':').and_then(|(epoch, offset)| Some((epoch, number(offset)?)));
    let (epoch, offset) = position.ok_or("since must be EPOCH:OFFSET, as the end of a snapshot says them")?;
    Ok(RecoverFrom::Since { epoch: epoch.into(), offset })
}

/// A number in digits; one that is too large is the largest.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(ITEM_PATTERNS_MAX == 1_000, "the refusal says so");

    fn said(words: ItemWords) -> Result<(Terms, Option<RecoverFrom>), &'static str> {
        wanted(&ItemOptions::Said(Box::new(words)))
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn options_say_what_a_join_says() {
        assert_eq!(wanted(&ItemOptions::None), Ok((Terms::default(), None)));
        let words =
            ItemWords { mode: text("latest"), interval: text("250"), items: text("a,fx.*"), since: text("e:1:7") };
        let filter = ItemFilter::new(["a", "fx.*"]);
        let recover = RecoverFrom::Since { epoch: "e:1".into(), offset: 7 };
        assert_eq!(said(words), Ok((Terms { mode: Mode::Latest, interval_ms: 250, filter }, Some(recover))));
        let nothing = said(ItemWords { items: text(""), ..ItemWords::default() }).map(|(terms, _)| terms.filter);
        assert_eq!(nothing, Ok(ItemFilter::new([])));
        let (mode, interval) = (text("latest"), text("99999999999999999999999"));
        let slowest = said(ItemWords { mode, interval, ..ItemWords::default() }).map(|(terms, _)| terms.interval_ms);
        assert_eq!(slowest, Ok(ROUND_INTERVAL_MS_MAX as u32));
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let many = vec!["a"; ITEM_PATTERNS_MAX + 1].join(",");
        for (mode, interval, items, since) in [
            (text("newest"), None, None, None),
            (None, text("-1"), None, None),
            (None, text(""), None, None),
            (None, None, text("a,,b"), None),
            (None, None, text("a*b"), None),
            (None, None, text(&"x".repeat(129)), None),
            (None, None, Some(many), None),
            (None, None, None, text("7")),
            (None, None, None, text("e:x")),
        ] {
            assert!(said(ItemWords { mode, interval, items, since }).is_err());
        }
        assert!(wanted(&ItemOptions::Malformed).is_err());
    }
}

//! Publishes of the control thread, many in one piece of mail.
//!
//! ```text
//!   control: push, push, … ── PublishMany ─► home: routes each, notes what became of it ── the same back ─► control
//! ```
//!
//! All of one piece are for topics with the same home, and are routed in their order. What is into history in Redis, or
//! waits for the cluster, is answered one by one later. The piece goes back without its texts, and is filled again.

use std::ops::Range;

use super::compose::push_key_of_api;
use super::history::StreamPosition;
use super::keyed::{ItemUpdates, ItemsUpdate};
use super::mail::{Content, HomeMail, Mail, Publish, Published};
use super::requests::Homeward;
use super::topic::{HashedTopic, Kind, TopicHash, TopicRef};
use super::{Router, Sink};
use crate::ids::{PeerId, ReactorId, ReplyTo, RequestId};
use crate::limits::{PUBLISHES_BYTES_MAX, PUBLISHES_MAX};

/// See the module's documentation. Bounded by [`PublishMany::is_full`].
#[derive(Debug, Default)]
pub struct PublishMany(Box<Publishes>);

#[derive(Debug, Default)]
struct Publishes {
    entries: Vec<Entry>,
    /// The topics' names, each with the publish's key behind it.
    names: String,
    /// Whole frames.
    frames: Vec<u8>,
}

/// One publish. Its texts begin where those of the one before it end.
#[derive(Debug)]
struct Entry {
    publisher: CommandId,
    kind: Kind,
    hash: TopicHash,
    name_end: u32,
    key_end: u32,
    frame_end: u32,
    fate: Fate,
}

/// A command of a request of the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandId {
    /// The request.
    pub request: RequestId,
    /// Which of its commands.
    pub index: u32,
}

/// What a retry of a publish is known by.
#[derive(Clone, Copy, Debug)]
pub struct ApiKeyed<'a> {
    /// The name of the API key that the publish is made with.
    pub name: &'a str,
    /// The publish's own key, not empty.
    pub key: &'a str,
}

/// What has become of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is on its way: the answer comes by itself.
    Open,
    /// It is routed, or in history: where, if it was put into history.
    Acked(Option<StreamPosition>),
    /// It was an update of an item, and is stored, or was dropped as stale.
    Updated {
        /// Where it is; of a stale one, where the room was.
        position: StreamPosition,
        /// Whether its version was not above the item's last one.
        is_stale: bool,
    },
    /// It was an update of an item for which there was no room. Nothing has happened.
    TooManyItems,
    /// It needs Redis, which does not answer. It may have been stored all the same.
    Unavailable,
}

/// An id for commands of a request that are answered together, one behind the other.
pub(super) fn id_of_commands(commands: Range<u32>) -> Box<str> {
    match commands.len() {
        1 => commands.start.to_string().into(),
        _ => format!("{}-{}", commands.start, commands.end).into(),
    }
}

/// Which commands an id of [`id_of_commands`] is for.
///
/// # Panics
/// Where it is another id.
pub(super) fn commands_of_id(id: &str) -> Range<u32> {
    let index = |text: &str| text.parse().expect("a publish of a request has its indexes as its id");
    match id.split_once('-') {
        Some((start, end)) => index(start)..index(end),
        None => index(id)..index(id) + 1,
    }
}

impl PublishMany {
    /// Takes one more; `frame` is whole.
    pub fn push(&mut self, publisher: CommandId, topic: AddressedTopic<'_>, key: Option<ApiKeyed<'_>>, frame: &[u8]) {
        let Publishes { entries, names, frames } = &mut *self.0;
        let HashedTopic { kind, hash, name } = topic.name;
        names.push_str(name);
        let name_end = names.len() as u32;
        if let Some(ApiKeyed { name, key }) = key {
            push_key_of_api(names, name, key);
        }
        frames.extend_from_slice(frame);
        let (key_end, frame_end) = (names.len() as u32, frames.len() as u32);
        entries.push(Entry { publisher, kind, hash, name_end, key_end, frame_end, fate: Fate::Open });
    }

    /// Whether it is to leave before it takes another.
    pub fn is_full(&self) -> bool {
        self.0.entries.len() >= PUBLISHES_MAX || self.text_bytes() >= PUBLISHES_BYTES_MAX
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.entries.is_empty()
    }

    /// The mail for the home of its topics.
    pub fn into_mail(self) -> Mail {
        Mail(Content::PublishMany(self))
    }

    /// What has become of each, once it is back.
    pub fn fates(&mut self) -> impl Iterator<Item = (CommandId, Fate)> {
        self.0.entries.drain(..).map(|entry| (entry.publisher, entry.fate))
    }

    /// Gives back what one large publish made it grow to.
    pub fn shrink(&mut self) {
        self.0.names.shrink_to(PUBLISHES_BYTES_MAX);
        self.0.frames.shrink_to(2 * PUBLISHES_BYTES_MAX);
    }

    /// Bytes of names, keys and frames.
    pub(super) fn text_bytes(&self) -> usize {
        self.0.names.len() + self.0.frames.len()
    }
}

/// A topic, hashed, and its home.
#[derive(Clone, Copy, Debug)]
pub struct AddressedTopic<'a> {
    pub(super) name: HashedTopic<'a>,
    /// The reactor that its publishes go to.
    pub home: ReactorId,
}

impl Homeward {
    /// Where publishes to a topic go.
    pub fn address<'a>(&self, topic: TopicRef<'a>) -> AddressedTopic<'a> {
        let name = self.hashed(topic);
        AddressedTopic { name, home: self.home(name) }
    }

    /// The mail with updates of items of one room, and to whom: of each of these commands one, in their order. With a key
    /// there is one command.
    pub fn update_items(
        &self,
        request: RequestId,
        commands: Range<u32>,
        room: &str,
        updates: ItemUpdates,
        key: Option<ApiKeyed<'_>>,
    ) -> (PeerId, Mail) {
        let topic = self.key(Kind::Room, room);
        let home = self.home(topic.hashed());
        let key = key.map(|ApiKeyed { name, key }| {
            let mut text = String::new();
            push_key_of_api(&mut text, name, key);
            text.into()
        });
        let update = ItemsUpdate {
            topic,
            updates,
            exclude: None,
            key,
            publisher: ReplyTo::Request(request),
            published_at: None,
            id: Some(id_of_commands(commands)),
        };
        (home.into(), Mail(Content::Home(HomeMail::Items(Box::new(update)))))
    }
}

impl Router {
    /// Publishes of the control thread, to topics that are at home here.
    pub(super) fn publish_many(&mut self, mut many: PublishMany, sink: &mut impl Sink) {
        let Publishes { entries, names, frames } = &mut *many.0;
        let (mut name_at, mut frame_at) = (0, 0);
        for entry in entries {
            let (name_end, key_end, frame_end) =
                (entry.name_end as usize, entry.key_end as usize, entry.frame_end as usize);
            let name = HashedTopic { kind: entry.kind, hash: entry.hash, name: &names[name_at..name_end] };
            let key = (key_end > name_end).then(|| &names[name_end..key_end]);
            let frame = &frames[frame_at..frame_end];
            (name_at, frame_at) = (key_end, frame_end);
            let CommandId { request, index } = entry.publisher;
            let (topic, publisher) = (TopicRef { kind: name.kind, name: name.name }, ReplyTo::Request(request));
            let publish = Publish { topic, frame, exclude: None, key, publisher };
            match self.publish_at_home(name, &publish, sink) {
                Some(position) => entry.fate = Fate::Acked(position),
                None => {
                    let id = Some(id_of_commands(index..index + 1));
                    let (topic, frame, key) = (name.to_key(), frame.into(), key.map(Into::into));
                    let published_at = Some(self.turn_began_at);
                    let published = Published { topic, frame, exclude: None, key, publisher, published_at, id };
                    self.send_home(HomeMail::Publish(Box::new(published)), sink);
                }
            }
        }
        names.clear();
        frames.clear();
        self.send(PeerId::Control, Content::PublishedMany(many), sink);
    }
}

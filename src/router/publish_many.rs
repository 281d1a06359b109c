//! Publishes of the control thread, many in one piece of mail.
//!
//! ```text
//!   control: push, push, … ── PublishMany ─► home: routes each, notes what became of it ── the same back ─► control
//! ```
//!
//! All of one piece are for topics with the same home, and are routed in their order. What is into history in Redis, or
//! waits for the cluster, is answered one by one later. The piece goes back without its texts, and is filled again.

use super::compose::push_key_of_api;
use super::history::StreamPosition;
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
    /// It needs Redis, which does not answer. It may have been stored all the same.
    Unavailable,
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
                    let id = Some(index.to_string().into());
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

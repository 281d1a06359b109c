//! What clients say to keyed rooms: updates, subscriptions and their changes. A room that is not keyed takes none of it.

use std::borrow::Cow;

use super::commands::recover_from;
use super::driver::Driver;
use super::worker::Worker;
use crate::ids::ConnId;
use crate::protocol::keyed::read_updates;
use crate::protocol::scan::RawValue;
use crate::protocol::{
    self, ErrorCode, KeyedFields, Mode, Position, Rejection, Rooms, SubscribeOptions, Update, keyed,
};
use crate::router::{
    CommandKind, Draft, ItemFilter, ItemState, JoinReply, Kind, PublishItems, Subscribe, Terms, TermsChange, TopicRef,
    Tune, key_of,
};

impl<D: Driver> Worker<D> {
    /// Whether a room is keyed.
    #[inline]
    pub(super) fn is_keyed(&mut self, room: &str) -> bool {
        self.router.is_keyed(TopicRef { kind: Kind::Room, name: room })
    }

    /// A `room_msg`: an update where the room is keyed.
    #[inline]
    pub(super) fn room_msg<'a>(
        &mut self,
        me: ConnId,
        room: Cow<'a, str>,
        (content, keyed): (Option<&'a str>, KeyedFields<'a>),
        key: Option<&str>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        if self.is_keyed(&room) {
            let update = keyed.update(content).map_err(|error| error.about(id, room.clone()))?;
            return self.update(me, room, &update, key, id);
        }
        let Some(content) = content else { return Err(Rejection::content_missing(id, room)) };
        self.publish(me, Draft::RoomMsg { room: &room, content }, key, id);
        Ok(())
    }

    /// A `room_msgs`.
    pub(super) fn room_msgs<'a>(
        &mut self,
        me: ConnId,
        room: Cow<'a, str>,
        (updates, replace): (RawValue<'a>, bool),
        key: Option<&str>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        if !self.is_keyed(&room) {
            return Err(not_keyed(id, room, "this room is not keyed: send each message with room_msg"));
        }
        let updates = read_updates(updates).map_err(|error| error.about(id, room.clone()))?;
        self.update_many(me, room, &updates, replace, key, id)
    }

    /// One update of a keyed room: it is the connection's own, and may be stale.
    fn update<'a>(
        &mut self,
        me: ConnId,
        room: Cow<'a, str>,
        update: &Update<'a>,
        key: Option<&str>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        self.updates.begin(CommandKind::One);
        self.compose_update(me, update);
        self.publish_updates(me, &room, key, id);
        Ok(())
    }

    /// Updates of a keyed room, all of them good, in their order. With `replace`, items that none of them names are removed.
    fn update_many<'a>(
        &mut self,
        me: ConnId,
        room: Cow<'a, str>,
        updates: &[Update<'a>],
        replace: bool,
        key: Option<&str>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        self.updates.begin(CommandKind::Many);
        for update in updates {
            self.compose_update(me, update);
        }
        if replace {
            let (from, unix_ms) = (self.router.name(me).map(|user| &**user), self.unix_ms);
            self.updates.replace(|out| protocol::keyed_tail(out, from, keyed::Body::Removal, unix_ms));
        }
        self.publish_updates(me, &room, key, id);
        Ok(())
    }

    fn compose_update(&mut self, me: ConnId, update: &Update<'_>) {
        let (from, unix_ms) = (self.router.name(me).map(|user| &**user), self.unix_ms);
        let state = match update.body {
            keyed::Body::Content(_) => ItemState::Present,
            keyed::Body::Removal => ItemState::Removed,
        };
        let tail = |out: &mut Vec<u8>| protocol::keyed_tail(out, from, update.body, unix_ms);
        self.updates.push(&update.item, update.version, state, tail);
    }

    fn publish_updates(&mut self, me: ConnId, room: &str, key: Option<&str>, id: Option<&str>) {
        let key = key.map(|key| key_of(self.router.name(me).map_or("", |user| user), key));
        let publish = PublishItems {
            topic: TopicRef { kind: Kind::Room, name: room },
            updates: &self.updates,
            exclude: Some(me),
            key: key.as_deref(),
            publisher: me.into(),
        };
        self.router.publish_items(publish, id, &mut self.connections);
    }

    /// A `join_room` of a keyed room. It may be done: [`Worker::check_options`] was asked.
    pub(super) fn subscribe<'a>(
        &mut self,
        me: ConnId,
        room: Cow<'_, str>,
        position: Option<Position<'_>>,
        options: Option<SubscribeOptions<'_>>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let reject = |code, message: Cow<'static, str>| {
            Rejection::new(id, code, message).about(Cow::Owned(room.clone().into_owned()))
        };
        let change = options.as_ref().map(terms_change).unwrap_or_default();
        self.check_items(me, &room, &change).map_err(|message| reject(ErrorCode::TooManyItems, message))?;
        let terms = change.applied_to(&Terms::default());
        let keeps_history = self.router.keeps_history(&room);
        if matches!(position, Some(Position::Last(_))) && (terms.mode == Mode::Latest || !keeps_history) {
            let message =
                "`last` needs a room that keeps history, in mode \"all\": the newest values come as a snapshot";
            return Err(reject(ErrorCode::BadPosition, message.into()));
        }
        let recover = position.map(recover_from);
        let snapshot = options.as_ref().and_then(|options| options.snapshot);
        let reply = match id.is_some() || recover.is_some() || options.is_some() {
            true => JoinReply::Joined {
                id: id.map(Into::into),
                recover,
                subscribe: Some(Box::new(Subscribe { terms, snapshot })),
            },
            false => JoinReply::Silent,
        };
        let joined = self.router.join(me, &room, reply, &mut self.connections);
        joined.map_err(|error| self.join_rejection(error, &Rooms::One(room), id))
    }

    /// Whether a connection may list these items for a room beside what it lists for others.
    fn check_items(&self, me: ConnId, room: &str, change: &TermsChange) -> Result<(), Cow<'static, str>> {
        let bytes_max = self.settings.router.keyed.subscription_bytes_max;
        let own = change.filter.as_ref().map_or(0, ItemFilter::bytes);
        match own == 0 || own + self.router.items_listed_bytes(me, room) <= bytes_max {
            true => Ok(()),
            false => {
                let message = format!(
                    "the items that a connection names in its rooms may have {bytes_max} bytes in all: name fewer, or use patterns like \"fx.*\""
                );
                Err(message.into())
            }
        }
    }

    /// A `tune`.
    pub(super) fn tune<'a>(
        &mut self,
        me: ConnId,
        room: Cow<'a, str>,
        options: SubscribeOptions<'a>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        if !self.is_keyed(&room) {
            return Err(not_keyed(id, room, "this room is not keyed: there is nothing to tune"));
        }
        if !self.router.is_member(me, &room) {
            let message = "only a subscription can be tuned: join the room first";
            return Err(Rejection::new(id, ErrorCode::NotJoined, message).about(room));
        }
        self.tune_subscription(me, room, &options, id)
    }

    /// A member of a keyed room wants something else of it from now on.
    fn tune_subscription<'a>(
        &mut self,
        me: ConnId,
        room: Cow<'a, str>,
        options: &SubscribeOptions<'a>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let change = terms_change(options);
        if let Err(message) = self.check_items(me, &room, &change) {
            return Err(Rejection::new(id, ErrorCode::TooManyItems, message).about(room));
        }
        self.router.tune(me, &room, Tune { id: id.map(Into::into), change }, &mut self.connections);
        Ok(())
    }

    /// Whether options may be given for these rooms, by a connection that is no member: nothing changes.
    ///
    /// # Errors
    /// A [`Rejection`].
    pub(super) fn check_options<'a>(
        &mut self,
        me: ConnId,
        rooms: &Rooms<'_>,
        options: Option<&SubscribeOptions<'_>>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        let (Rooms::One(room), Some(_)) = (rooms, options) else { return Ok(()) };
        let owned = || Cow::Owned(room.clone().into_owned());
        if !self.is_keyed(room) {
            return Err(not_keyed(id, owned(), "this room is not keyed: join it without options"));
        }
        if self.router.is_member(me, room) {
            let message = "already in this room: change what is wanted of it with tune";
            return Err(Rejection::new(id, ErrorCode::AlreadyJoined, message).about(owned()));
        }
        Ok(())
    }
}

/// What of a subscriber's terms these options change.
fn terms_change(options: &SubscribeOptions<'_>) -> TermsChange {
    let items = options.items.as_ref();
    TermsChange {
        mode: options.mode,
        interval_ms: options.interval_ms.map(|interval_ms| interval_ms as u32),
        filter: items.map(|items| ItemFilter::new(items.iter().map(|item| &**item))),
    }
}

fn not_keyed<'a>(id: Option<&'a str>, room: Cow<'a, str>, message: &'static str) -> Rejection<'a> {
    Rejection::new(id, ErrorCode::BadOptions, message).about(room)
}

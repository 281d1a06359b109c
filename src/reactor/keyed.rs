//! What clients say to keyed rooms: updates, subscriptions and their changes. A room that is not keyed takes none of it.

use std::borrow::Cow;

use super::driver::Driver;
use super::worker::Worker;
use crate::ids::ConnId;
use crate::protocol::keyed::read_updates;
use crate::protocol::scan::RawValue;
use crate::protocol::{ErrorCode, KeyedFields, Position, Rejection, Rooms, SubscribeOptions, Update};
use crate::router::{Draft, Kind, TopicRef};

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
        _me: ConnId,
        room: Cow<'a, str>,
        _update: &Update<'a>,
        _key: Option<&str>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        Err(unavailable(id, room))
    }

    /// Updates of a keyed room, all of them good, in their order. With `replace`, items that none of them names are removed.
    fn update_many<'a>(
        &mut self,
        _me: ConnId,
        room: Cow<'a, str>,
        _updates: &[Update<'a>],
        _replace: bool,
        _key: Option<&str>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        Err(unavailable(id, room))
    }

    /// A `join_room` of a keyed room. It may be done: [`Worker::check_options`] was asked.
    pub(super) fn subscribe<'a>(
        &mut self,
        _me: ConnId,
        room: Cow<'_, str>,
        _position: Option<Position<'_>>,
        _options: Option<SubscribeOptions<'_>>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        Err(unavailable(id, Cow::Owned(room.into_owned())))
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
        self.tune_subscription(me, room, options, id)
    }

    /// A member of a keyed room wants something else of it from now on.
    fn tune_subscription<'a>(
        &mut self,
        _me: ConnId,
        room: Cow<'a, str>,
        _options: SubscribeOptions<'a>,
        id: Option<&'a str>,
    ) -> Result<(), Rejection<'a>> {
        Err(unavailable(id, room))
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

fn not_keyed<'a>(id: Option<&'a str>, room: Cow<'a, str>, message: &'static str) -> Rejection<'a> {
    Rejection::new(id, ErrorCode::BadOptions, message).about(room)
}

fn unavailable<'a>(id: Option<&'a str>, room: Cow<'a, str>) -> Rejection<'a> {
    Rejection::new(id, ErrorCode::Unavailable, "the items of this room cannot be reached: try again later").about(room)
}

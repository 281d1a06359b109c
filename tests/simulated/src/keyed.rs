//! A subscriber of a keyed room, as a client that keeps its values: what it asks for, what it may be sent, and what it has to
//! end with.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};

/// An item as a subscriber knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The item's count of its updates.
    pub seq: u64,
    /// The room's count of all updates.
    pub offset: u64,
    /// JSON text; `None` once it was removed.
    pub content: Option<String>,
}

impl Known {
    /// What an update's message says.
    ///
    /// # Panics
    /// Where it is no update of an item.
    pub fn of(message: &Value) -> (String, Known) {
        let number = |field: &str| message[field].as_u64().unwrap_or_else(|| panic!("{field} in {message}"));
        let item = message["item"].as_str().unwrap_or_else(|| panic!("an item in {message}")).to_owned();
        let content = message.get("content").map(ToString::to_string);
        assert_ne!(content.is_some(), message.get("removed").is_some(), "a value or a removal: {message}");
        (item, Known { seq: number("seq"), offset: number("offset"), content })
    }
}

/// What a subscriber wants of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `all` or `latest`.
    pub mode: &'static str,
    /// In milliseconds.
    pub interval: u64,
    /// Names, or beginnings with `*` behind.
    pub items: Vec<String>,
}

impl Wanted {
    /// Whether it names this item.
    pub fn names(&self, item: &str) -> bool {
        self.items.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(prefix) => item.starts_with(prefix),
            None => wanted == item,
        })
    }

    fn is_everything(&self) -> bool {
        self.items == ["*"]
    }

    /// Whether who has all of this has all that `other` names.
    fn covers(&self, other: &Wanted) -> bool {
        self.is_everything() || self.items == other.items
    }
}

/// What a tune changes; what it does not give stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// See [`Wanted::mode`].
    pub mode: Option<&'static str>,
    /// See [`Wanted::interval`].
    pub interval: Option<u64>,
    /// See [`Wanted::items`].
    pub items: Option<Vec<String>>,
}

/// How far a subscriber is with its membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It has not asked, or has left.
    None,
    /// It has asked, and is not answered.
    Joining,
    /// It is in the room.
    Member,
    /// It has asked to leave, and is not answered.
    Leaving,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Subscriber {
    /// Who it is, for failures.
    pub name: String,
    room: &'static str,
    /// Whether the room keeps history too: in mode `all` that answers who comes back, without a snapshot.
    keeps_history: bool,
    membership: Membership,
    /// In force as far as it was told.
    wanted: Wanted,
    /// What it has asked for since, in order.
    tunes: VecDeque<Wanted>,
    view: BTreeMap<String, Known>,
    /// What came since it has asked to join, before it was answered.
    incoming: BTreeMap<String, Known>,
    /// Up to where the view is complete, of what it wanted: epoch and offset.
    position: Option<(String, u64)>,
    /// In mode `all` of all items, the offset of the next update.
    next_offset: Option<u64>,
    /// Whether it was told that it lacks something that nobody sends it again.
    lacks_some: bool,
}

impl Subscriber {
    /// Somebody who knows nothing of the room yet; `keeps_history` says whether that keeps history too.
    pub fn new(name: &str, room: &'static str, keeps_history: bool) -> Subscriber {
        Subscriber {
            name: name.to_owned(),
            room,
            keeps_history,
            membership: Membership::None,
            wanted: Wanted { mode: "all", interval: 0, items: vec!["*".into()] },
            tunes: VecDeque::new(),
            view: BTreeMap::new(),
            incoming: BTreeMap::new(),
            position: None,
            next_offset: None,
            lacks_some: false,
        }
    }

    /// How far it is with its membership.
    pub fn membership(&self) -> Membership {
        self.membership
    }

    /// Tunes that are not answered.
    pub fn tunes(&self) -> usize {
        self.tunes.len()
    }

    /// Of each item the newest that it was sent.
    pub fn view(&self) -> &BTreeMap<String, Known> {
        &self.view
    }

    /// The epoch that it is in, where it was told.
    pub fn epoch(&self) -> Option<&str> {
        self.position.as_ref().map(|(epoch, _)| &**epoch)
    }

    /// Asks to join, with its position if that is good for what it wants now and `resumes` says so, else for a snapshot.
    pub fn join(&mut self, wanted: Wanted, resumes: bool) -> Value {
        let Wanted { mode, interval, ref items } = wanted;
        let mut command = json!({"type": "join_room", "roomId": self.room, "id": "joined", "mode": mode, "items": items, "interval": interval});
        match self.position.take().filter(|_| resumes && self.wanted.covers(&wanted)) {
            Some((epoch, offset)) => command["since"] = json!({"epoch": epoch, "offset": offset}),
            None => command["snapshot"] = json!(true),
        }
        (self.membership, self.wanted) = (Membership::Joining, wanted);
        (self.next_offset, self.lacks_some, self.incoming) = (None, false, BTreeMap::new());
        command
    }

    /// Asks for something else.
    pub fn tune(&mut self, change: Change) -> Value {
        let mut command = json!({"type": "tune", "roomId": self.room, "id": "tuned"});
        let mut wanted = self.tunes.back().unwrap_or(&self.wanted).clone();
        let Change { mode, interval, items } = change;
        if let Some(mode) = mode {
            (wanted.mode, command["mode"]) = (mode, json!(mode));
        }
        if let Some(interval) = interval {
            (wanted.interval, command["interval"]) = (interval, json!(interval));
        }
        if let Some(items) = items {
            command["items"] = json!(items);
            wanted.items = items;
        }
        self.next_offset = None;
        self.tunes.push_back(wanted);
        command
    }

    /// Asks to leave.
    pub fn leave(&mut self) -> Value {
        self.membership = Membership::Leaving;
        json!({"type": "leave_room", "roomId": self.room, "id": "left"})
    }

    /// Its connection has ended. It keeps its values and their position where they are complete.
    pub fn lose(&mut self) {
        if self.membership != Membership::Member || !self.tunes.is_empty() || self.lacks_some {
            (self.position, self.view) = (None, BTreeMap::new());
        }
        self.membership = Membership::None;
        self.tunes.clear();
    }

    /// Takes a message; `count` is told what came up.
    ///
    /// # Panics
    /// Where it may not be sent this.
    pub fn hear(&mut self, message: &Value, mut count: impl FnMut(&'static str)) {
        match (message["type"].as_str().unwrap_or_default(), message["id"].as_str()) {
            ("room_msg", _) => self.hear_update(message, count),
            ("joined", Some("joined")) => self.hear_joined(message, count),
            ("ack", Some("tuned")) => {
                count("terms were changed");
                self.wanted = self.tunes.pop_front().expect("it has asked for a change");
                let wanted = &self.wanted;
                self.view.retain(|item, _| wanted.names(item));
                self.note_position(message);
            }
            ("ack", Some("left")) => {
                self.membership = Membership::None;
                if self.lacks_some {
                    self.position = None;
                }
            }
            ("gap", _) => {
                count("a gap was told");
                self.view.clear();
                self.incoming.clear();
                // Who gets rounds is sent everything anew; others would have to ask.
                self.lacks_some = self.last_wanted().mode == "all";
                self.next_offset = None;
            }
            ("stale" | "live", _) => self.note_position(message),
            ("system", _) => {}
            _ => panic!("{} hears {message}", self.name),
        }
    }

    fn last_wanted(&self) -> &Wanted {
        self.tunes.back().unwrap_or(&self.wanted)
    }

    fn hear_update(&mut self, message: &Value, mut count: impl FnMut(&'static str)) {
        let (item, known) = Known::of(message);
        let is_wanted = self.wanted.names(&item) || self.tunes.iter().any(|wanted| wanted.names(&item));
        assert!(is_wanted, "{} does not want {item}", self.name);
        let is_whole = self.last_wanted().mode == "all" && self.tunes.is_empty();
        let view = match self.membership {
            Membership::Joining => &mut self.incoming,
            Membership::None | Membership::Member | Membership::Leaving => &mut self.view,
        };
        if let Some(before) = view.get(&item) {
            assert!(before.offset < known.offset, "{} was sent an older value of {item}, or one twice", self.name);
            assert!(before.seq < known.seq, "{}: the count of {item} does not grow: {message}", self.name);
            // An item that was removed and forgotten begins again, above the room's offset.
            if known.seq > before.seq + 1 && before.content.is_some() {
                assert!(!is_whole, "{} misses updates of {item}", self.name);
                count("an update was left out");
            }
        }
        if known.content.is_none() {
            count("an item was removed");
        }
        if let Some(next) = self.next_offset {
            assert_eq!(next, known.offset, "{} is sent every update, once", self.name);
            self.next_offset = Some(next + 1);
        }
        view.insert(item, known);
        self.note_position(message);
    }

    fn hear_joined(&mut self, message: &Value, mut count: impl FnMut(&'static str)) {
        count("a join was answered");
        assert_eq!(self.membership, Membership::Joining, "{} has asked: {message}", self.name);
        let incoming = std::mem::take(&mut self.incoming);
        match message.get("recovered").and_then(Value::as_bool) {
            Some(true) => {
                count("a position was resumed");
                let wanted = &self.wanted;
                self.view.retain(|item, _| wanted.names(item));
                for (item, known) in incoming {
                    let is_newer = self.view.get(&item).is_none_or(|before| before.offset < known.offset);
                    assert!(is_newer, "{} is sent again what it has of {item}", self.name);
                    self.view.insert(item, known);
                }
            }
            Some(false) => {
                count("a position could not be resumed");
                self.view = incoming;
                self.lacks_some = self.keeps_history && self.wanted.mode == "all";
            }
            None => self.view = incoming,
        }
        self.membership = Membership::Member;
        let offset = message["offset"].as_u64().expect("it has an offset");
        let is_whole = self.wanted.mode == "all" && self.wanted.is_everything();
        self.next_offset = is_whole.then_some(offset + 1);
        let epoch = message["epoch"].as_str().expect("it has an epoch").to_owned();
        self.position = Some((epoch, offset));
    }

    fn note_position(&mut self, message: &Value) {
        let offset = message["offset"].as_u64().expect("it has an offset");
        if let Some((_, position)) = &mut self.position {
            *position = offset.max(*position);
        }
    }

    /// At rest, a member has the newest value of all that it wants.
    ///
    /// # Panics
    /// Where it is not so, or where it is not answered.
    pub fn judge(&self, truth: &BTreeMap<String, Known>) {
        let name = &self.name;
        assert!(self.tunes.is_empty(), "{name} is told of all changes");
        assert!(matches!(self.membership, Membership::None | Membership::Member), "{name} is answered");
        if self.membership == Membership::None || self.lacks_some {
            return;
        }
        for (item, newest) in truth.iter().filter(|(item, _)| self.wanted.names(item)) {
            match self.view.get(item) {
                Some(known) => assert_eq!(known, newest, "{name} knows {item}"),
                None => assert_eq!(newest.content, None, "{name} has never heard of {item}"),
            }
        }
        for (item, known) in &self.view {
            assert!(known.content.is_none() || truth.contains_key(item), "{name} shows {item}, which is not there");
        }
    }
}

//! What is done to a world: by its subscribers, its publisher, and its sockets.

use super::*;

impl World {
    fn terms(&mut self) -> Terms {
        let mode = if self.random.below(4) == 0 { Mode::All } else { Mode::Latest };
        let filter = match self.random.below(5) {
            0 => ItemFilter::new(["i1", "i2", "i30"]),
            1 => ItemFilter::new(["i1*", "i3"]),
            2 => ItemFilter::new(["i5", "nothing"]),
            _ => ItemFilter::All,
        };
        let interval_ms = match (mode, self.random.below(3)) {
            (Mode::All, _) | (_, 0) => 0,
            (_, 1) => 20,
            (_, _) => 100,
        };
        Terms { mode, interval_ms, filter }
    }

    fn publish(&mut self, many: bool) {
        let (reactor, slot) = self.place(SUBSCRIBERS);
        let mut updates = ItemUpdates::default();
        updates.begin(CommandKind::Many);
        let padding = "x".repeat(if self.random.below(20) == 0 { 30_000 } else { 10 });
        let count = if many { self.random.below(399) + 1 } else { self.random.below(3) + 1 };
        let items = if many { 400 } else { 40 };
        for _ in 0..count {
            let item = format!("i{}", self.random.below(items));
            let is_removal = self.random.below(8) == 0;
            let content = format!("\"{padding}\"");
            let (state, body) = match is_removal {
                true => (ItemState::Removed, Body::Removal),
                false => (ItemState::Present, Body::Content(&content)),
            };
            updates.push(&item, None, state, |out| keyed_tail(out, Some("p"), body, 7));
        }
        if self.random.below(40) == 0 {
            updates.replace(|out| keyed_tail(out, Some("p"), Body::Removal, 7));
        }
        let conn = self.nets[reactor].sockets[&slot].conn;
        let publish = PublishItems {
            topic: TopicRef { kind: Kind::Room, name: ROOM },
            updates: &updates,
            exclude: Some(conn),
            key: None,
            publisher: conn.into(),
        };
        self.with(reactor, |router, net| router.publish_items(publish, None, net));
    }

    fn join(&mut self, at: usize) {
        let (reactor, slot) = self.place(at);
        let terms = self.terms();
        let comes_back = self.random.below(2) == 0;
        let socket = self.nets[reactor].sockets.get_mut(&slot).unwrap();
        if socket.sub.is_none() {
            let kept = socket.kept.take().filter(|_| comes_back);
            self.join_with(at, terms, kept);
        }
    }

    pub(super) fn is_answered(&self, at: usize) -> bool {
        let (reactor, slot) = self.place(at);
        self.nets[reactor].sockets[&slot].sub.as_ref().is_some_and(|sub| sub.joined && sub.asked.is_empty())
    }

    fn join_with(&mut self, at: usize, mut terms: Terms, kept: Option<Kept>) {
        let (reactor, slot) = self.place(at);
        self.commands += 1;
        let id = self.commands;
        let socket = self.nets[reactor].sockets.get_mut(&slot).unwrap();
        let recover = kept.as_ref().map(|(_, (epoch, offset), before)| {
            terms.filter = before.filter.clone();
            RecoverFrom::Since { epoch: epoch.as_str().into(), offset: *offset }
        });
        let before = kept.map(|(view, ..)| view).unwrap_or_default();
        socket.sub = Some(Sub {
            terms: terms.clone(),
            asked: [(id, terms.clone())].into(),
            joined: false,
            view: BTreeMap::new(),
            before,
            position: (String::new(), 0),
            counts: BTreeMap::new(),
            answered_at: 0,
        });
        let conn = socket.conn;
        let subscribe = Some(Box::new(Subscribe { terms, snapshot: Some(true) }));
        let reply = JoinReply::Joined { id: Some(id.to_string().into()), recover, subscribe };
        self.with(reactor, |router, net| router.join(conn, ROOM, reply, net)).unwrap();
    }

    fn tune(&mut self, at: usize) {
        let (reactor, slot) = self.place(at);
        let to = self.terms();
        self.commands += 1;
        let id = self.commands;
        let change = TermsChange {
            mode: (self.random.below(2) == 0).then_some(to.mode),
            interval_ms: (self.random.below(2) == 0).then_some(to.interval_ms),
            filter: (self.random.below(2) == 0).then_some(to.filter),
        };
        let socket = self.nets[reactor].sockets.get_mut(&slot).unwrap();
        let Some(sub) = &mut socket.sub else { return };
        if sub.asked.len() > 3 {
            return;
        }
        let before = sub.asked.back().map_or(&sub.terms, |(_, terms)| terms);
        let after = change.applied_to(before);
        sub.asked.push_back((id, after));
        let (conn, tune) = (socket.conn, Tune { id: Some(id.to_string().into()), change });
        self.with(reactor, |router, net| router.tune(conn, ROOM, tune, net));
    }

    /// It leaves the room, or its connection ends.
    fn go(&mut self, at: usize, is_lost: bool) {
        let (reactor, slot) = self.place(at);
        let socket = self.nets[reactor].sockets.get_mut(&slot).unwrap();
        let Some(sub) = socket.sub.take() else { return };
        let conn = socket.conn;
        // What it has is complete as of its position, where nothing is under way.
        socket.kept = (sub.joined && sub.asked.is_empty()).then_some((sub.view, sub.position, sub.terms));
        if is_lost {
            self.with(reactor, |router, net| router.disconnect(conn, net));
            self.connect(at);
        } else {
            self.with(reactor, |router, net| router.leave(conn, ROOM, None, net));
            // A client asks again when it has heard that it left, behind all else.
            self.settle_mail();
            self.nets[reactor].sockets.get_mut(&slot).unwrap().queue.clear();
        }
    }

    pub(super) fn writable(&mut self, at: usize) {
        let (reactor, slot) = self.place(at);
        let socket = self.nets[reactor].sockets.get_mut(&slot).unwrap();
        if !std::mem::replace(&mut socket.takes, true) {
            let conn = socket.conn;
            self.with(reactor, |router, _| router.takes_again(conn));
        }
    }

    pub(super) fn settle_mail(&mut self) {
        while self.carry_one() {}
    }

    pub(super) fn settle(&mut self) {
        self.settle_mail();
        for reactor in 0..self.routers.len() {
            self.turn(reactor);
        }
        self.settle_mail();
    }

    pub(super) fn step(&mut self) {
        let at = self.random.below(SUBSCRIBERS);
        match self.random.below(30) {
            0..8 => self.publish(false),
            8 => self.publish(true),
            9..11 => self.join(at),
            11 => self.tune(at),
            12 if self.random.below(2) == 0 => self.go(at, false),
            12 => {
                let is_lost = self.random.below(2) == 0;
                self.go(at, is_lost);
            }
            13..17 => self.writable(at),
            17..20 => drop(self.carry_one()),
            20..23 => self.now += self.random.below(30) as u64,
            _ => {
                let reactor = self.random.below(self.routers.len());
                self.turn(reactor);
            }
        }
    }

    /// Nothing is published any more, and all sockets take what there is: each subscriber has everything.
    pub(super) fn come_to_rest(&mut self) {
        self.take_rounds(100);
        for at in 0..SUBSCRIBERS {
            let (reactor, slot) = self.place(at);
            self.nets[reactor].sockets.get_mut(&slot).unwrap().pace = usize::MAX;
        }
        self.take_rounds(20);
        for at in 0..SUBSCRIBERS {
            let (reactor, slot) = self.place(at);
            let Some(sub) = self.nets[reactor].sockets[&slot].sub.clone() else { continue };
            assert!(sub.joined && sub.asked.is_empty(), "seed {}: slot {slot} is answered", self.seed);
            self.compare(slot, &sub, u64::MAX);
        }
    }

    /// Sockets take what there is, as time passes.
    fn take_rounds(&mut self, rounds: usize) {
        for _ in 0..rounds {
            for at in 0..SUBSCRIBERS {
                self.writable(at);
            }
            self.settle();
            self.now += 50;
        }
    }

    pub(super) fn join_as(&mut self, at: usize, terms: Terms, pace: usize) {
        let (reactor, slot) = self.place(at);
        self.nets[reactor].sockets.get_mut(&slot).unwrap().pace = pace;
        self.join_with(at, terms, None);
        self.settle();
    }

    pub(super) fn publish_all(&mut self, items: usize, padding: usize) {
        let (reactor, slot) = self.place(SUBSCRIBERS);
        let content = format!("\"{}\"", "x".repeat(padding));
        let mut updates = ItemUpdates::default();
        updates.begin(CommandKind::Many);
        for item in 0..items {
            updates.push(&format!("i{item}"), None, ItemState::Present, |out| {
                keyed_tail(out, Some("p"), Body::Content(&content), 7);
            });
        }
        let conn = self.nets[reactor].sockets[&slot].conn;
        let topic = TopicRef { kind: Kind::Room, name: ROOM };
        let publish = PublishItems { topic, updates: &updates, exclude: Some(conn), key: None, publisher: conn.into() };
        self.with(reactor, |router, net| router.publish_items(publish, None, net));
        self.settle();
    }
}

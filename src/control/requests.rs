//! The control thread as a peer: requests that wait for topics' homes, and the mailbox that their answers come by.
//!
//! ```text
//!   a request ── ask ──────► its topic's home ── one reply by mail ─► mailbox ── run ─► the request goes on
//!   many ───── publish ─► a piece for each home, gathered for a turn ──┘
//!   updates of items ───► those of one room that stand together ───────┘
//! ```
//!
//! A request is known by its [`RequestId`], so that a late reply finds only the request that it is for. Requests that
//! wait are bounded; one more is refused.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use super::publication::{Publication, Said, UpdateRun};
use crate::ids::{PeerId, ReactorId, RequestId};
use crate::limits::{BATCH_POOL_BYTES_MAX, CONTROL_SPILL_MS, REQUESTS_MAX};
use crate::reactor::{Mailbox, Order, Parcel, Wake};
use crate::router::cluster;
use crate::router::{
    Author, CommandId, Composed, Composer, Fate, Homeward, Mail, NodeFound, PageRange, PublishMany, Question, Reply,
    Survey, Told,
};

/// Wakes the control thread; its mailbox needs it before the thread is there.
#[derive(Debug, Default)]
pub struct ControlWaker(Notify);

impl Wake for ControlWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// Too many requests wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Asks topics' homes on behalf of requests. Clone it for each that asks.
#[derive(Clone)]
pub struct Requests {
    desk: Arc<Mutex<Desk>>,
    /// The node goes away.
    draining: Arc<Notify>,
    waker: Arc<ControlWaker>,
}

struct Desk {
    mailbox: Mailbox,
    homeward: Homeward,
    waiting: Slab<Waiting>,
    /// Requests so far: the generation of the next.
    asked: u32,
    composer: Composer,
    /// What is published in this turn, by home. Beside `composer`, kept for its memory where it is empty.
    publishes: Vec<PublishMany>,
    /// Pieces that are back, to be filled again.
    spare: Vec<PublishMany>,
    draining: Arc<Notify>,
}

/// A request that has no reply yet.
struct Waiting {
    generation: u32,
    awaited: Awaited,
}

/// What a request waits for.
enum Awaited {
    Reply(oneshot::Sender<Reply>),
    Fates(OpenFates),
    Survey(Surveying),
}

/// A survey, and what was found so far.
struct Surveying {
    /// Answers that are still to come.
    open: usize,
    found: Vec<NodeFound>,
    done: oneshot::Sender<Reply>,
}

/// What has become of publishes, in their order.
pub(super) type Fates = SmallVec<[Fate; 1]>;

/// Publishes of one request.
struct OpenFates {
    each: Fates,
    /// How many of them are open.
    open: usize,
    done: oneshot::Sender<Fates>,
}

/// What the thread does next.
enum Rest {
    /// Mail found no room in a mailbox, which does not tell when it has room again.
    Spilled,
    /// There is more mail.
    Awake,
    /// Until it is woken.
    Asleep,
}

impl Requests {
    /// None yet. `mailbox` is the control thread's and wakes it by `waker`.
    pub fn new(mailbox: Mailbox, waker: Arc<ControlWaker>, homeward: Homeward) -> Requests {
        let publishes = (0..homeward.reactors()).map(|_| PublishMany::default()).collect();
        let draining = Arc::new(Notify::new());
        let desk = Desk {
            mailbox,
            homeward,
            waiting: Slab::new(),
            asked: 0,
            composer: Composer::default(),
            publishes,
            spare: Vec::new(),
            draining: draining.clone(),
        };
        Requests { desk: Arc::new(Mutex::new(desk)), draining, waker }
    }

    /// Asks a topic's home; the reply comes through what is returned, which may be dropped.
    ///
    /// # Errors
    /// [`Busy`] where `limits::REQUESTS_MAX` requests wait.
    pub fn ask(&self, question: Question) -> Result<oneshot::Receiver<Reply>, Busy> {
        self.send(|desk| desk.ask_with(|homeward, request| homeward.ask(request, question)))
    }

    /// Posts what is asked.
    fn send<T>(&self, ask: impl FnOnce(&mut Desk) -> Result<T, Busy>) -> Result<T, Busy> {
        let mut desk = self.lock();
        desk.gather_publishes();
        let asked = ask(&mut desk)?;
        if !desk.mailbox.post() {
            // It is posted as soon as there is room.
            self.waker.wake();
        }
        Ok(asked)
    }

    /// Asks every reactor, in a cluster those of all nodes: answered with [`Reply::Found`], or [`Reply::Unavailable`].
    ///
    /// # Errors
    /// As [`Requests::ask`].
    pub fn survey(&self, survey: &Survey) -> Result<oneshot::Receiver<Reply>, Busy> {
        self.send(|desk| {
            let (done, asked) = oneshot::channel();
            let awaited = Surveying { open: 0, found: Vec::new(), done };
            let request = desk.await_answer(Awaited::Survey(awaited))?;
            let mail = desk.homeward.survey(request, survey);
            if let Some(Waiting { awaited: Awaited::Survey(survey), .. }) = desk.waiting.get_mut(request.slot as usize)
            {
                survey.open = mail.len();
            }
            mail.into_iter().for_each(|(to, mail)| desk.mailbox.gather(to, mail));
            Ok(asked)
        })
    }

    /// Has nodes do something: answered with [`Reply::Heard`], or [`Reply::Unavailable`]. Of a node alone only
    /// [`cluster::Order::Kick`].
    ///
    /// # Errors
    /// As [`Requests::ask`].
    pub fn order(&self, order: cluster::Order) -> Result<oneshot::Receiver<Reply>, Busy> {
        self.send(|desk| desk.ask_with(|homeward, request| homeward.order(request, order)))
    }

    /// Has a room's history forgotten: answered with [`Reply::Heard`], or [`Reply::Unavailable`].
    ///
    /// # Errors
    /// As [`Requests::ask`].
    pub fn purge(&self, room: &str) -> Result<oneshot::Receiver<Reply>, Busy> {
        self.send(|desk| desk.ask_with(|homeward, request| homeward.purge(request, room)))
    }

    /// Reads a page of a room's history: answered with [`Reply::History`], or [`Reply::Unavailable`].
    ///
    /// # Errors
    /// As [`Requests::ask`].
    pub fn read_history(&self, room: &str, range: PageRange, limit: usize) -> Result<oneshot::Receiver<Reply>, Busy> {
        self.send(|desk| desk.ask_with(|homeward, request| homeward.read(request, room, range, limit)))
    }

    /// Reads a page of a keyed room's items: answered with [`Reply::History`], or [`Reply::Unavailable`].
    ///
    /// # Errors
    /// As [`Requests::ask`].
    pub fn read_items(&self, room: &str, after: u64, limit: usize) -> Result<oneshot::Receiver<Reply>, Busy> {
        self.send(|desk| desk.ask_with(|homeward, request| homeward.read_items(request, room, after, limit)))
    }

    /// Publishes in this order; the fate of each comes through what is returned, in the same order, which may be dropped.
    /// What is published in one turn of the thread goes together.
    ///
    /// # Errors
    /// [`Busy`] where `limits::REQUESTS_MAX` requests wait: then nothing is published.
    pub fn publish<'a>(
        &self,
        unix_ms: u64,
        publications: impl ExactSizeIterator<Item = Publication<'a>>,
    ) -> Result<oneshot::Receiver<Fates>, Busy> {
        let asked = self.lock().publish(unix_ms, publications)?;
        self.waker.wake();
        Ok(asked)
    }

    /// Takes what comes by mail, until the process ends.
    pub async fn run(self) {
        loop {
            let rest = self.lock().turn();
            match rest {
                Rest::Spilled => tokio::time::sleep(Duration::from_millis(CONTROL_SPILL_MS)).await,
                Rest::Awake => tokio::task::yield_now().await,
                Rest::Asleep => {
                    self.waker.0.notified().await;
                    self.lock().mailbox.wake_up();
                }
            }
        }
    }

    /// Tells once that the node goes away.
    pub(super) fn draining(&self) -> Arc<Notify> {
        self.draining.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Requests")
    }
}

impl Desk {
    fn ask_with(
        &mut self,
        mail: impl FnOnce(&Homeward, RequestId) -> (PeerId, Mail),
    ) -> Result<oneshot::Receiver<Reply>, Busy> {
        let (reply, asked) = oneshot::channel();
        let request = self.await_answer(Awaited::Reply(reply))?;
        let (to, mail) = mail(&self.homeward, request);
        self.mailbox.gather(to, mail);
        Ok(asked)
    }

    fn publish<'a>(
        &mut self,
        unix_ms: u64,
        publications: impl ExactSizeIterator<Item = Publication<'a>>,
    ) -> Result<oneshot::Receiver<Fates>, Busy> {
        let (done, asked) = oneshot::channel();
        let open = publications.len();
        let each = std::iter::repeat_n(Fate::Open, open).collect();
        let request = self.await_answer(Awaited::Fates(OpenFates { each, open, done }))?;
        let mut run: Option<UpdateRun<'a>> = None;
        for (index, Publication { from, what, key }) in (0..).zip(publications) {
            let draft = match what {
                Said::Message(draft) => draft,
                Said::Update(update) => {
                    if run.as_ref().is_none_or(|run| !run.takes(index, update.room, key)) {
                        self.gather_updates(request, run.take());
                    }
                    let run = run.get_or_insert_with(|| UpdateRun::new(update.room, index, key));
                    run.push(from, unix_ms, &update);
                    continue;
                }
            };
            let Composed { topic, frame, audience: _ } = self.composer.compose(Author { user: from, unix_ms }, draft);
            let topic = self.homeward.address(topic);
            let home = usize::from(topic.home.0);
            self.publishes[home].push(CommandId { request, index }, topic, key, frame);
            if self.publishes[home].is_full() {
                self.gather_publishes_for(home);
            }
        }
        self.gather_updates(request, run);
        self.composer.shrink(BATCH_POOL_BYTES_MAX);
        Ok(asked)
    }

    fn gather_updates(&mut self, request: RequestId, run: Option<UpdateRun<'_>>) {
        let Some(UpdateRun { room, commands, key, updates }) = run else { return };
        let (home, mail) = self.homeward.update_items(request, commands, room, updates, key);
        self.mailbox.gather(home, mail);
    }

    /// What is published goes in front of all that is gathered later.
    fn gather_publishes(&mut self) {
        for home in 0..self.publishes.len() {
            if !self.publishes[home].is_empty() {
                self.gather_publishes_for(home);
            }
        }
    }

    fn gather_publishes_for(&mut self, home: usize) {
        let next = self.spare.pop().unwrap_or_default();
        let full = std::mem::replace(&mut self.publishes[home], next);
        self.mailbox.gather(PeerId::Reactor(ReactorId(home as u16)), full.into_mail());
    }

    /// Gives a request its number.
    fn await_answer(&mut self, awaited: Awaited) -> Result<RequestId, Busy> {
        if self.waiting.len() >= REQUESTS_MAX {
            // Those whose client is gone wait for nothing.
            self.waiting.retain(|_, waiting| !waiting.awaited.is_given_up());
        }
        if self.waiting.len() >= REQUESTS_MAX {
            return Err(Busy);
        }
        self.asked = self.asked.wrapping_add(1);
        let slot = self.waiting.insert(Waiting { generation: self.asked, awaited }) as u32;
        Ok(RequestId { slot, generation: self.asked })
    }

    fn turn(&mut self) -> Rest {
        while let Some(parcel) = self.mailbox.take() {
            match parcel {
                Parcel::Mail(_, mut parcel) => {
                    parcel.drain(..).for_each(|mail| self.told(mail.into_told()));
                    self.mailbox.give_back(parcel);
                }
                // The control thread serves until the process ends.
                Parcel::Order(Order::Drain { .. }) => self.draining.notify_one(),
                Parcel::Order(Order::Finish) | Parcel::News(_) => {}
            }
        }
        self.gather_publishes();
        if !self.mailbox.post() {
            return Rest::Spilled;
        }
        match self.mailbox.fall_asleep() {
            true => Rest::Asleep,
            false => Rest::Awake,
        }
    }

    fn told(&mut self, told: Told) {
        match told {
            Told::Reply(request, reply) => self.answer(request, reply),
            Told::Published(mut many) => {
                many.fates().filter(|(_, fate)| *fate != Fate::Open).for_each(|(of, fate)| self.settle(of, fate));
                if self.spare.len() < SPARE_PIECES_MAX {
                    many.shrink();
                    self.spare.push(many);
                }
            }
            Told::Fates(fates) => fates.into_iter().for_each(|(of, fate)| self.settle(of, fate)),
            Told::Found(request, found) => self.found(request, found),
        }
    }

    fn answer(&mut self, request: RequestId, reply: Reply) {
        if !self.waits(request) {
            return;
        }
        let asker = match self.waiting.remove(request.slot as usize).awaited {
            Awaited::Reply(asker) | Awaited::Survey(Surveying { done: asker, .. }) => asker,
            Awaited::Fates(_) => return,
        };
        // Its client may have gone meanwhile.
        let _ = asker.send(reply);
    }

    /// One more answer to a survey.
    fn found(&mut self, request: RequestId, found: Arc<Vec<NodeFound>>) {
        if !self.waits(request) {
            return;
        }
        let slot = request.slot as usize;
        let Some(Waiting { awaited: Awaited::Survey(survey), .. }) = self.waiting.get_mut(slot) else { return };
        survey.found.extend(Arc::unwrap_or_clone(found));
        survey.open -= 1;
        if survey.open == 0 {
            let all = std::mem::take(&mut survey.found);
            self.answer(request, Reply::Found(all.into()));
        }
    }

    /// A publish is done.
    fn settle(&mut self, CommandId { request, index }: CommandId, fate: Fate) {
        let slot = request.slot as usize;
        if !self.waits(request) {
            return;
        }
        let Some(Waiting { awaited: Awaited::Fates(fates), .. }) = self.waiting.get_mut(slot) else { return };
        fates.each[index as usize] = fate;
        fates.open -= 1;
        if fates.open == 0
            && let Waiting { awaited: Awaited::Fates(OpenFates { each, open: _, done }), .. } =
                self.waiting.remove(slot)
        {
            let _ = done.send(each);
        }
    }

    /// Whether a request waits still: a late answer finds only the one that it is for.
    fn waits(&self, request: RequestId) -> bool {
        self.waiting.get(request.slot as usize).is_some_and(|waiting| waiting.generation == request.generation)
    }
}

impl Awaited {
    /// Whether nobody takes the answer any more.
    fn is_given_up(&self) -> bool {
        match self {
            Awaited::Reply(reply) => reply.is_closed(),
            Awaited::Fates(fates) => fates.done.is_closed(),
            Awaited::Survey(survey) => survey.done.is_closed(),
        }
    }
}

/// Pieces of publishes that are kept to be filled again.
const SPARE_PIECES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::super::publication::RoomUpdate;
    use super::*;
    use crate::ids::{ConnId, Slot};
    use crate::protocol::keyed;
    use crate::reactor::post_office;
    use crate::router::{
        Answer, ApiKeyed, Batch, Draft, HistoryPolicy, HistorySettings, KeyedPolicy, KeyedRooms, KeyedSettings,
        NoticeSettings, RoomPolicies, Router, RouterSettings, Sink, Slice,
    };
    use crate::time::Stamp;

    const REACTORS: u16 = 3;
    const SEED: u64 = 7;
    const TWO_ITEMS: KeyedPolicy =
        KeyedPolicy { items_max: 2, bytes_max: 1 << 20, ttl_ms: None, removed_ttl_ms: 1_000, stale_after_ms: None };

    /// No reactor here has a connection.
    struct NoConnections;

    impl Sink for NoConnections {
        fn deliver(&mut self, _: Batch, _: &[Slot]) {}
        fn takes_rounds(&self, member: Slot) -> bool {
            panic!("{member:?} is not there");
        }
        fn recover(&mut self, to: ConnId, _: Slice) {
            panic!("{to:?} is not there");
        }
        fn direct(&mut self, to: ConnId, _: &[u8], _: Stamp) {
            panic!("{to:?} is not there");
        }
        fn reply(&mut self, to: ConnId, _: &[u8]) {
            panic!("{to:?} is not there");
        }
        fn answer(&mut self, to: ConnId, _: Answer<'_>) {
            panic!("{to:?} is not there");
        }
        fn disconnect(&mut self, _: &str) {}
    }

    /// The routers of a node, each with its mailbox, and the control thread.
    struct Node {
        routers: Vec<(Router, Mailbox)>,
        requests: Requests,
    }

    impl Node {
        /// Rooms whose name begins with `px` are keyed, the others keep history.
        fn new() -> Node {
            let policy = HistoryPolicy { messages_max: 8, ttl_ms: 60_000 };
            let history = HistorySettings {
                rooms: Some(RoomPolicies(Arc::new(move |_: &str| Some(policy)))),
                bytes_max: 1 << 20,
                ..HistorySettings::none()
            };
            let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
            let settings = RouterSettings {
                rooms_max: 8,
                notices,
                history,
                keyed: KeyedSettings {
                    rooms: Some(KeyedRooms(Arc::new(|room: &str| room.starts_with("px").then_some(TWO_ITEMS)))),
                    node_items_max: 1_000,
                    node_bytes_max: 1 << 20,
                    subscription_bytes_max: 1_000,
                },
                user_connections: None,
                cluster: false,
            };
            let waker = Arc::new(ControlWaker::default());
            let peers = PeerId::reactors(REACTORS).chain([PeerId::Control]);
            let (_, mut mailboxes) = post_office(peers.map(|peer| (peer, waker.clone() as Arc<dyn Wake>)).collect());
            let mailbox = mailboxes.pop().expect("the last is the control thread's");
            let router = |at| Router::new(ReactorId(at), REACTORS, SEED, 1, settings.clone());
            let routers = (0..REACTORS).map(router).zip(mailboxes).collect();
            Node { routers, requests: Requests::new(mailbox, waker, Homeward::new(SEED, REACTORS)) }
        }

        /// Carries all mail; how many reactors had some.
        fn run(&mut self) -> usize {
            self.carry().iter().filter(|mail| **mail > 0).count()
        }

        /// Carries all mail; how much each reactor had.
        fn carry(&mut self) -> Vec<usize> {
            let mut asked = Vec::new();
            self.requests.lock().turn();
            for (router, mailbox) in &mut self.routers {
                let mut taken = 0;
                while let Some(Parcel::Mail(from, mail)) = mailbox.take() {
                    assert_eq!(from, PeerId::Control);
                    taken += mail.len();
                    mail.into_iter().for_each(|mail| router.handle_mail(mail, &mut NoConnections));
                }
                router.poll_mail().for_each(|(to, mail)| mailbox.gather(to, mail));
                assert!(mailbox.post());
                asked.push(taken);
            }
            self.requests.lock().turn();
            asked
        }
    }

    fn room_msg<'a>(room: &'a str, content: &'a str) -> Publication<'a> {
        Publication { from: "api", what: Said::Message(Draft::RoomMsg { room, content }), key: None }
    }

    #[test]
    fn a_request_publishes_to_a_room_and_gets_its_ack_with_the_offset() {
        let mut node = Node::new();
        for offset in 1..=3 {
            for room in ["den", "hall", "attic", "cellar"] {
                let mut asked = node.requests.publish(5, [room_msg(room, "\"hi\"")].into_iter()).unwrap();
                assert_eq!(node.run(), 1, "the home alone is asked");
                let fates = asked.try_recv().expect("it is answered");
                let [Fate::Acked(Some(position))] = &fates[..] else { panic!("{room} acks") };
                assert_eq!(position.offset, offset, "{room} counts its own messages");
            }
        }
        let history = Question::History { room: "den".to_owned(), before: Some(2), limit: None };
        let mut asked = node.requests.ask(history).unwrap();
        node.run();
        let Ok(Reply::Message(page)) = asked.try_recv() else { panic!("there is a page") };
        let page = String::from_utf8(page).unwrap();
        let message = r#"{"type":"room_msg","roomId":"den","from":"api","content":"hi","time":5,"offset":1}"#;
        assert!(page.starts_with(r#"{"type":"history","roomId":"den","#), "{page}");
        assert!(page.ends_with(&format!(r#""messages":[{message}]}}"#)), "{page}");
        assert!(node.requests.lock().waiting.is_empty());
    }

    #[test]
    fn requests_that_wait_are_bounded_and_late_replies_find_no_other() {
        let mut node = Node::new();
        let presence = || Question::Presence { room: "den".to_owned() };
        let mut all: Vec<_> = (0..REQUESTS_MAX).map(|_| node.requests.ask(presence()).unwrap()).collect();
        assert_eq!(node.requests.ask(presence()).err(), Some(Busy));
        drop(all.pop());
        let mut newest = node.requests.publish(5, [room_msg("den", "1")].into_iter()).expect("one has given up");
        // The last finds no room in the home's mailbox at first.
        assert_eq!((node.run(), node.run()), (1, 1));
        let text = r#"{"type":"presence","roomId":"den","count":0,"users":[]}"#;
        for asked in &mut all {
            assert_eq!(asked.try_recv(), Ok(Reply::Message(text.as_bytes().to_vec())));
        }
        assert!(matches!(newest.try_recv().as_deref(), Ok([Fate::Acked(_)])), "its slot was another's, told nothing");
    }

    fn update<'a>(room: &'a str, item: &'a str, version: i64) -> Publication<'a> {
        let body = keyed::Body::Content("1");
        Publication {
            from: "api",
            what: Said::Update(RoomUpdate { room, item, version: Some(version), body }),
            key: None,
        }
    }

    fn offsets(fates: &Fates) -> Vec<Option<(u64, bool)>> {
        let place = |fate: &Fate| match fate {
            Fate::Updated { position, is_stale } => Some((position.offset, *is_stale)),
            Fate::TooManyItems => None,
            Fate::Open | Fate::Acked(_) | Fate::Unavailable => panic!("{fate:?} is no update's"),
        };
        fates.iter().map(place).collect()
    }

    #[test]
    fn updates_of_one_room_that_stand_together_are_one_piece_of_mail() {
        let mut node = Node::new();
        let updates = (0..100).map(|at| update("px", ["a", "b"][at % 2], (at / 4) as i64));
        let mut asked = node.requests.publish(5, updates.collect::<Vec<_>>().into_iter()).unwrap();
        assert_eq!(node.carry().iter().sum::<usize>(), 1);
        // Of four updates the last two bring no newer version.
        let expected: Vec<_> = (0..100).map(|at| Some((at / 4 * 2 + (at % 4 + 1).min(2), at % 4 > 1))).collect();
        assert_eq!(offsets(&asked.try_recv().expect("each is answered")), expected);
        let mixed = [update("px", "a", 100), update("px.2", "a", 1), update("px", "a", 101), room_msg("den", "1")];
        drop(node.requests.publish(5, mixed.into_iter()).unwrap());
        assert_eq!(node.carry().iter().sum::<usize>(), 4);
    }

    #[test]
    fn what_has_no_room_is_refused_alone_and_the_others_keep_their_order() {
        let mut node = Node::new();
        let updates = ["a", "b", "c", "a", "d"].map(|item| update("px", item, 1));
        let keyed = Publication { key: Some(ApiKeyed { name: "api", key: "k" }), ..update("px", "b", 2) };
        let all = updates.into_iter().chain([keyed, keyed, update("px", "e", 1)]).collect::<Vec<_>>();
        let mut asked = node.requests.publish(5, all.into_iter()).unwrap();
        assert_eq!(node.carry().iter().sum::<usize>(), 4);
        let expected =
            [Some((1, false)), Some((2, false)), None, Some((2, true)), None, Some((3, false)), Some((3, false)), None];
        assert_eq!(offsets(&asked.try_recv().expect("each is answered")), expected);
        let mut page = node.requests.read_items("px", 0, 1).unwrap();
        node.run();
        let Ok(Reply::History(page)) = page.try_recv() else { panic!("there is a page") };
        assert_eq!((page.position.map(|at| at.offset), page.next), (Some(3), Some(1)));
    }
}

//! The control thread as a peer: requests that wait for topics' homes, and the mailbox that their answers come by.
//!
//! ```text
//!   a request ── ask ─► its topic's home ── one reply by mail ─► mailbox ── run ─► the request goes on
//! ```
//!
//! A request is known by its [`RequestId`], so that a late reply finds only the request that it is for. Requests that
//! wait are bounded; one more is refused.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use slab::Slab;
use tokio::sync::{Notify, oneshot};

use crate::ids::RequestId;
use crate::limits::{CONTROL_SPILL_MS, REQUESTS_MAX};
use crate::reactor::{Mailbox, Parcel, Wake};
use crate::router::{Homeward, Question, Reply};

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
    waker: Arc<ControlWaker>,
}

struct Desk {
    mailbox: Mailbox,
    homeward: Homeward,
    waiting: Slab<Waiting>,
    /// Requests so far: the generation of the next.
    asked: u32,
}

/// A request that has no reply yet.
struct Waiting {
    generation: u32,
    reply: oneshot::Sender<Reply>,
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
        let desk = Desk { mailbox, homeward, waiting: Slab::new(), asked: 0 };
        Requests { desk: Arc::new(Mutex::new(desk)), waker }
    }

    /// Asks a topic's home; the reply comes through what is returned, which may be dropped.
    ///
    /// # Errors
    /// [`Busy`] where `limits::REQUESTS_MAX` requests wait.
    pub fn ask(&self, question: Question) -> Result<oneshot::Receiver<Reply>, Busy> {
        let mut desk = self.lock();
        let asked = desk.ask(question)?;
        if !desk.mailbox.post() {
            // It is posted as soon as there is room.
            self.waker.wake();
        }
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
    fn ask(&mut self, question: Question) -> Result<oneshot::Receiver<Reply>, Busy> {
        if self.waiting.len() >= REQUESTS_MAX {
            // Those whose client is gone wait for nothing.
            self.waiting.retain(|_, waiting| !waiting.reply.is_closed());
        }
        if self.waiting.len() >= REQUESTS_MAX {
            return Err(Busy);
        }
        self.asked = self.asked.wrapping_add(1);
        let (reply, asked) = oneshot::channel();
        let slot = self.waiting.insert(Waiting { generation: self.asked, reply }) as u32;
        let (home, mail) = self.homeward.ask(RequestId { slot, generation: self.asked }, question);
        self.mailbox.gather(home, mail);
        Ok(asked)
    }

    fn turn(&mut self) -> Rest {
        while let Some(parcel) = self.mailbox.take() {
            match parcel {
                Parcel::Mail(_, mut parcel) => {
                    for mail in parcel.drain(..) {
                        let (request, reply) = mail.into_reply();
                        self.answer(request, reply);
                    }
                    self.mailbox.give_back(parcel);
                }
                // The control thread serves until the process ends.
                Parcel::Order(_) | Parcel::News(_) => {}
            }
        }
        if !self.mailbox.post() {
            return Rest::Spilled;
        }
        match self.mailbox.fall_asleep() {
            true => Rest::Asleep,
            false => Rest::Awake,
        }
    }

    fn answer(&mut self, request: RequestId, reply: Reply) {
        let slot = request.slot as usize;
        if self.waiting.get(slot).is_some_and(|waiting| waiting.generation == request.generation) {
            // Its client may have gone meanwhile.
            let _ = self.waiting.remove(slot).reply.send(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ConnId, PeerId, ReactorId, Slot};
    use crate::reactor::post_office;
    use crate::router::{
        Answer, Author, Batch, Composed, Composer, Draft, HistoryPolicy, HistorySettings, Kind, NoticeSettings,
        RoomPolicies, Router, RouterSettings, Sink, Slice,
    };

    const REACTORS: u16 = 3;
    const SEED: u64 = 7;

    /// No reactor here has a connection.
    struct NoConnections;

    impl Sink for NoConnections {
        fn deliver(&mut self, _: Batch, _: &[Slot]) {}
        fn recover(&mut self, to: ConnId, _: Slice) {
            panic!("{to:?} is not there");
        }
        fn direct(&mut self, to: ConnId, _: &[u8]) {
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
        fn new() -> Node {
            let policy = HistoryPolicy { messages_max: 8, ttl_ms: 60_000 };
            let history = HistorySettings {
                rooms: Some(RoomPolicies(Arc::new(move |_: &str| Some(policy)))),
                bytes_max: 1 << 20,
                ..HistorySettings::none()
            };
            let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
            let settings = RouterSettings { rooms_max: 8, notices, history, user_connections: None, cluster: false };
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
            let mut asked = 0;
            for (router, mailbox) in &mut self.routers {
                let mut taken = 0;
                while let Some(Parcel::Mail(from, mail)) = mailbox.take() {
                    assert_eq!(from, PeerId::Control);
                    taken += mail.len();
                    mail.into_iter().for_each(|mail| router.handle_mail(mail, &mut NoConnections));
                }
                router.poll_mail().for_each(|(to, mail)| mailbox.gather(to, mail));
                assert!(mailbox.post());
                asked += usize::from(taken > 0);
            }
            self.requests.lock().turn();
            asked
        }
    }

    fn room_msg(room: &str, content: &str) -> Question {
        let mut composer = Composer::default();
        let author = Author { user: "api", unix_ms: 5 };
        let Composed { topic, frame, .. } = composer.compose(author, Draft::RoomMsg { room, content });
        assert_eq!(topic.kind, Kind::Room);
        Question::Publish { kind: topic.kind, name: topic.name.to_owned(), frame: frame.into(), key: None }
    }

    #[test]
    fn a_request_publishes_to_a_room_and_gets_its_ack_with_the_offset() {
        let mut node = Node::new();
        for offset in 1..=3 {
            for room in ["den", "hall", "attic", "cellar"] {
                let mut asked = node.requests.ask(room_msg(room, "\"hi\"")).unwrap();
                assert_eq!(node.run(), 1, "the home alone is asked");
                let Ok(Reply::Acked { position: Some(position) }) = asked.try_recv() else { panic!("{room} acks") };
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
        let mut newest = node.requests.ask(room_msg("den", "1")).expect("one has given up");
        // The last finds no room in the home's mailbox at first.
        assert_eq!((node.run(), node.run()), (1, 1));
        let text = r#"{"type":"presence","roomId":"den","count":0,"users":[]}"#;
        for asked in &mut all {
            assert_eq!(asked.try_recv(), Ok(Reply::Message(text.as_bytes().to_vec())));
        }
        assert!(matches!(newest.try_recv(), Ok(Reply::Acked { .. })), "its slot was another's, which is told nothing");
    }
}

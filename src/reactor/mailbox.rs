//! Mail between the threads of a node, its *peers*: bounded, in order, with at most one wake a batch.
//!
//! A sender gathers mail per peer in a parcel and posts it at the end of its turn. Where the peer's mailbox is full,
//! the parcel stays and grows: that is the ordered *spill*. Nothing is dropped; a reactor with spill stops reading
//! its clients, so the mail in the system is bounded by what was already under way.
//!
//! A wake is written only to a reactor that sleeps:
//!
//! ```text
//!   receiver: asleep = true ─ fence ─ mailbox empty? ── yes ─► sleep      sender: push ─ fence ─ asleep? ─ yes ─► wake
//! ```
//!
//! What a mailbox may hold is bounded in parcels and in bytes, since one piece of mail may be as large as a message.
//! Whichever fence comes first, either the receiver sees the parcel or the sender sees the sleeper. A nudge is a parcel
//! with nothing in it: a flag.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::backend::{Asker, Decided, KeysOutcome};
use super::sync::{AtomicBool, Ordering, Receiver, Sender, TrySendError, bounded, fence};
use super::verifier::Verdict;
use super::worker::Settings;
use crate::auth::{Auth, Decision};
use crate::ids::{PeerId, ReactorId};
use crate::limits::{MAILBOX_BYTES_MAX, MAILBOX_PARCELS, PARCEL_BYTES_MAX, PARCEL_MAIL_MAX};
use crate::router::Mail;

/// Interrupts a peer's wait, from any thread.
pub trait Wake: Send + Sync {
    /// After this the current or next wait returns.
    fn wake(&self);
}

/// What the server tells all peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Accept nothing more, close every connection with 1001, and end.
    Drain {
        /// In so many milliseconds the connections that are left are cut.
        within_ms: u64,
    },
    /// All reactors have ended: the threads of the cluster and of webhooks send what they still have.
    Finish,
}

/// What is taken out of a mailbox.
#[derive(Debug)]
pub enum Parcel {
    /// Mail of one sender, in order.
    Mail(PeerId, Vec<Mail>),
    /// Of the server.
    Order(Order),
    /// For a reactor, of who decides who gets in.
    News(Box<News>),
}

/// What a reactor is told of tokens and keys.
#[derive(Debug)]
pub struct News(pub(super) Told);

/// See [`News`].
#[derive(Debug)]
pub(super) enum Told {
    /// What became of a token that it has sent away.
    Judged(Verdict),
    /// What the backend has decided.
    Decided(Decided),
    /// From now on tokens are checked so.
    Keys(Arc<Auth>),
    /// There are no newer keys to be had.
    KeysSettled(KeysOutcome),
    /// From now on it is told to do this.
    Settings(Box<Settings>),
}

/// A parcel on its way, with the bytes of its mail.
struct Posted {
    parcel: Parcel,
    bytes: usize,
}

struct Peer {
    id: PeerId,
    sender: Sender<Posted>,
    sleep: Arc<Sleep>,
    wake: Arc<dyn Wake>,
    /// Bytes in its mailbox. It orders nothing: each parcel comes through the channel.
    held_bytes: AtomicUsize,
}

/// Of one peer, what it and the others tell each other about its sleep.
struct Sleep {
    asleep: AtomicBool,
    /// Something it looks at in every turn has changed since its turn began.
    nudged: AtomicBool,
}

impl Peer {
    fn nudge(&self) {
        // A swap, so that what an earlier nudge told of is seen as well.
        self.sleep.nudged.swap(true, Ordering::Release);
        self.ring();
    }

    fn ring(&self) {
        fence(Ordering::SeqCst);
        let asleep = &self.sleep.asleep;
        if asleep.load(Ordering::Relaxed) && asleep.swap(false, Ordering::Relaxed) {
            self.wake.wake();
        }
    }
}

/// The ways to all mailboxes of a node.
#[derive(Clone)]
pub struct PostOffice {
    peers: Arc<Vec<Peer>>,
}

impl fmt::Debug for PostOffice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostOffice")
    }
}

impl PostOffice {
    /// Sends what became of a token to the reactor that has asked. It waits for room in the mailbox.
    pub(super) fn verdict(&self, to: ReactorId, verdict: Verdict) {
        self.tell(to, Told::Judged(verdict));
    }

    /// Sends what the backend has decided to the reactor of the connection that waits for it. It waits for room in the
    /// mailbox.
    pub fn decided(&self, asker: Asker, decision: Decision) {
        let Asker { reactor, slot } = asker;
        self.tell(reactor, Told::Decided(Decided { slot, decision }));
    }

    /// Tells a reactor that has asked for newer keys that there are none beyond those that it was told of before.
    pub fn keys_settled(&self, to: ReactorId, outcome: KeysOutcome) {
        self.tell(to, Told::KeysSettled(outcome));
    }

    /// Tells all reactors how tokens are checked from now on. It waits for room in each mailbox.
    pub(super) fn keys(&self, auth: &Arc<Auth>) {
        for peer in self.peers.iter() {
            if let PeerId::Reactor(reactor) = peer.id {
                self.tell(reactor, Told::Keys(auth.clone()));
            }
        }
    }

    /// Bytes of mail that wait in each mailbox.
    pub fn held_bytes(&self) -> impl Iterator<Item = (PeerId, usize)> {
        self.peers.iter().map(|peer| (peer.id, peer.held_bytes.load(Ordering::Relaxed)))
    }

    /// Tells all reactors to do other things from now on; what tokens are checked with is told by a [`Keyring`]. It waits for
    /// room in each mailbox.
    ///
    /// [`Keyring`]: super::Keyring
    pub fn settings(&self, settings: &Settings) {
        for peer in self.peers.iter() {
            if let PeerId::Reactor(reactor) = peer.id {
                self.tell(reactor, Told::Settings(Box::new(settings.clone())));
            }
        }
    }

    fn tell(&self, to: ReactorId, told: Told) {
        let peer = &self.peers[index_of(&self.peers, to.into())];
        let parcel = Parcel::News(Box::new(News(told)));
        // A reactor that has ended has no connection that waits.
        let _ = peer.sender.send(Posted { parcel, bytes: 0 });
        peer.ring();
    }

    /// Has a reactor turn once more, as [`Mailbox::nudge`] does.
    pub(super) fn nudge(&self, reactor: usize) {
        self.peers[reactor].nudge();
    }

    /// Has all reactors turn once more.
    pub fn nudge_all(&self) {
        self.peers.iter().filter(|peer| matches!(peer.id, PeerId::Reactor(_))).for_each(Peer::nudge);
    }

    /// Sends an order to every peer. Orders wait for room in the mailbox.
    pub fn order(&self, order: Order) {
        for peer in self.peers.iter() {
            // A peer that has ended needs no order any more.
            let _ = peer.sender.send(Posted { parcel: Parcel::Order(order), bytes: 0 });
            peer.ring();
        }
    }
}

/// One peer's mailbox and its outgoing mail.
pub struct Mailbox {
    me: PeerId,
    /// Where it is among the peers.
    at: usize,
    inbox: Receiver<Posted>,
    peers: Arc<Vec<Peer>>,
    /// Mail for each peer that is not posted yet.
    parcels: Vec<Gathered>,
    /// The peers that mail was gathered for, each once: with many reactors a turn looks at few of them.
    waiting: Vec<u16>,
    /// Emptied parcels for reuse.
    spare: Vec<Vec<Mail>>,
}

/// Mail for one peer.
#[derive(Default)]
struct Gathered {
    mail: Vec<Mail>,
    bytes: usize,
}

/// Every peer of a node, and what wakes it: reactors first, in order.
pub type Wakers = Vec<(PeerId, Arc<dyn Wake>)>;

/// The mailboxes of a node, one for each peer in their order, of the usual size. Reactors come first, each at the place of
/// its number; the others may be there or not.
pub fn post_office(wakers: Wakers) -> (PostOffice, Vec<Mailbox>) {
    post_office_of(wakers, MAILBOX_PARCELS)
}

/// The mailboxes of a node with room for `parcels_max` parcels each.
pub(super) fn post_office_of(wakers: Wakers, parcels_max: usize) -> (PostOffice, Vec<Mailbox>) {
    let (mut peers, mut inboxes) = (Vec::new(), Vec::new());
    for (id, wake) in wakers {
        let (sender, inbox) = bounded(parcels_max);
        let sleep = Arc::new(Sleep { asleep: AtomicBool::new(false), nudged: AtomicBool::new(false) });
        peers.push(Peer { id, sender, sleep, wake, held_bytes: AtomicUsize::new(0) });
        inboxes.push(inbox);
    }
    for (at, peer) in peers.iter().enumerate() {
        assert_eq!(index_of(&peers, peer.id), at, "reactors come first, in order, and no peer twice");
    }
    let peers = Arc::new(peers);
    let mailbox = |(at, inbox): (usize, _)| Mailbox {
        me: peers[at].id,
        at,
        inbox,
        peers: peers.clone(),
        parcels: peers.iter().map(|_| Gathered::default()).collect(),
        waiting: Vec::new(),
        spare: Vec::new(),
    };
    let mailboxes = inboxes.into_iter().enumerate().map(mailbox).collect();
    (PostOffice { peers }, mailboxes)
}

/// Where a peer is among all.
#[inline]
fn index_of(peers: &[Peer], id: PeerId) -> usize {
    match id {
        PeerId::Reactor(ReactorId(at)) => usize::from(at),
        // Behind the reactors there are three at most.
        PeerId::Cluster | PeerId::Control | PeerId::Webhooks => {
            peers.iter().rposition(|peer| peer.id == id).expect("mail is for peers that are there")
        }
    }
}

impl Mailbox {
    /// Gathers mail for a peer; a full parcel leaves at once.
    pub fn gather(&mut self, to: PeerId, mail: Mail) {
        let to = index_of(&self.peers, to);
        let gathered = &mut self.parcels[to];
        let before_bytes = gathered.bytes;
        gathered.bytes += mail.bytes();
        gathered.mail.push(mail);
        if gathered.mail.len() == 1 {
            self.waiting.push(to as u16);
        }
        let is_full = gathered.mail.len() == PARCEL_MAIL_MAX
            || (before_bytes < PARCEL_BYTES_MAX && gathered.bytes >= PARCEL_BYTES_MAX);
        if is_full && self.post_to(to) {
            self.waiting.retain(|&waiting| usize::from(waiting) != to);
        }
    }

    /// Posts what was gathered; whether all of it found room. What did not stays, in order, for the next call.
    pub fn post(&mut self) -> bool {
        let mut at = 0;
        while let Some(&to) = self.waiting.get(at) {
            match self.post_to(to.into()) {
                true => {
                    self.waiting.swap_remove(at);
                }
                false => at += 1,
            }
        }
        self.waiting.is_empty()
    }

    /// Has a peer turn once more without mail: something it looks at in every turn has changed. It is woken where it
    /// sleeps, and does not fall asleep where it is about to.
    pub(super) fn nudge(&self, peer: usize) {
        self.peers[peer].nudge();
    }

    /// The next parcel, if there is one.
    pub fn take(&mut self) -> Option<Parcel> {
        let Posted { parcel, bytes } = self.inbox.try_recv().ok()?;
        self.peers[self.at].held_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some(parcel)
    }

    /// Gives back an emptied parcel for reuse.
    pub fn give_back(&mut self, parcel: Vec<Mail>) {
        if self.spare.len() < self.parcels.len() {
            self.spare.push(parcel);
        }
    }

    /// To be called before sleeping; whether there is nothing to stay awake for. From then on a sender wakes us.
    pub fn fall_asleep(&self) -> bool {
        let Sleep { asleep, nudged } = self.sleep();
        asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.inbox.is_empty() && !nudged.load(Ordering::Relaxed) {
            return true;
        }
        asleep.store(false, Ordering::Relaxed);
        false
    }

    /// To be called after sleeping, before anything is looked at: no wakes are needed any more.
    pub fn wake_up(&self) {
        let Sleep { asleep, nudged } = self.sleep();
        asleep.store(false, Ordering::Relaxed);
        if nudged.load(Ordering::Relaxed) {
            nudged.swap(false, Ordering::Acquire);
        }
    }

    fn sleep(&self) -> &Sleep {
        &self.peers[self.at].sleep
    }

    /// Posts what was gathered for one peer, which is something; whether it found room.
    fn post_to(&mut self, to: usize) -> bool {
        let peer = &self.peers[to];
        // An empty mailbox takes a parcel of any size.
        let held_bytes = peer.held_bytes.load(Ordering::Relaxed);
        if held_bytes > 0 && held_bytes + self.parcels[to].bytes > MAILBOX_BYTES_MAX {
            return false;
        }
        let spare = Gathered { mail: self.spare.pop().unwrap_or_default(), bytes: 0 };
        let Gathered { mail, bytes } = std::mem::replace(&mut self.parcels[to], spare);
        // Before the parcel can be taken out again.
        peer.held_bytes.fetch_add(bytes, Ordering::Relaxed);
        match peer.sender.try_send(Posted { parcel: Parcel::Mail(self.me, mail), bytes }) {
            Ok(()) => {
                peer.ring();
                true
            }
            Err(TrySendError::Full(Posted { parcel: Parcel::Mail(_, mail), bytes })) => {
                peer.held_bytes.fetch_sub(bytes, Ordering::Relaxed);
                let spare = std::mem::replace(&mut self.parcels[to], Gathered { mail, bytes });
                self.give_back(spare.mail);
                false
            }
            // A peer that has ended, in a node that is going away.
            Err(
                TrySendError::Disconnected(_)
                | TrySendError::Full(Posted { parcel: Parcel::Order(_) | Parcel::News(_), .. }),
            ) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAIL_BYTES;

    const FIRST: PeerId = PeerId::Reactor(ReactorId(0));

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn two(parcels_max: usize) -> (Arc<Counter>, Vec<Mailbox>) {
        let counter = Arc::new(Counter::default());
        let wakers: [Arc<dyn Wake>; 2] = [counter.clone(), Arc::new(Counter::default())];
        let peers = PeerId::reactors(2).zip(wakers).collect();
        (counter, post_office_of(peers, parcels_max).1)
    }

    #[test]
    fn a_sleeper_is_woken_once_and_the_wakeful_never() {
        let (wakes, mut boxes) = two(8);
        boxes[1].gather(FIRST, Mail::numbered(0));
        assert!(boxes[1].post());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "awake: no wake is written");
        assert!(!boxes[0].fall_asleep(), "there is mail");
        assert!(boxes[0].take().is_some());
        assert!(boxes[0].fall_asleep());
        for _ in 0..3 {
            boxes[1].gather(FIRST, Mail::numbered(0));
            boxes[1].post();
        }
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_nudge_wakes_a_sleeper_and_keeps_the_wakeful_up_for_one_turn() {
        let (wakes, boxes) = two(8);
        boxes[1].nudge(0);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0, "awake: no wake is written");
        assert!(!boxes[0].fall_asleep(), "there is a nudge");
        boxes[0].wake_up();
        assert!(boxes[0].fall_asleep());
        boxes[1].nudge(0);
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        boxes[0].wake_up();
        assert!(boxes[0].fall_asleep(), "the turn after the wake was the one it was nudged for");
    }

    #[test]
    fn what_finds_no_room_stays_in_order_and_is_not_lost() {
        let (_, mut boxes) = two(1);
        let mut posted = 0;
        for number in 0..5 {
            boxes[1].gather(FIRST, Mail::numbered(number));
            posted += usize::from(boxes[1].post());
        }
        assert_eq!(posted, 1);
        let numbers: Vec<Vec<u8>> = std::iter::from_fn(|| {
            let parcel = boxes[0].take();
            boxes[1].post();
            match parcel? {
                Parcel::Mail(from, mail) => {
                    assert_eq!(from, PeerId::Reactor(ReactorId(1)));
                    Some(mail.iter().map(Mail::number).collect())
                }
                Parcel::Order(_) | Parcel::News(_) => None,
            }
        })
        .collect();
        assert_eq!(numbers, [vec![0], vec![1, 2, 3, 4]]);
    }

    #[test]
    fn a_mailbox_is_bounded_in_bytes_and_takes_one_parcel_of_any_size() {
        let (_, mut boxes) = two(1024);
        boxes[1].gather(FIRST, Mail::of_size(2 * MAILBOX_BYTES_MAX));
        assert!(boxes[1].post(), "an empty mailbox takes it");
        boxes[1].gather(FIRST, Mail::numbered(1));
        assert!(!boxes[1].post(), "nothing more, however small");
        assert!(boxes[0].take().is_some());
        assert!(boxes[1].post());
        assert!(boxes[0].take().is_some());
        let mail_bytes = PARCEL_BYTES_MAX / 4;
        let mut posted = 0;
        while boxes[1].post() {
            boxes[1].gather(FIRST, Mail::of_size(mail_bytes));
            posted += 1;
        }
        assert!(posted * mail_bytes <= MAILBOX_BYTES_MAX + PARCEL_BYTES_MAX, "{posted} pieces were taken");
        assert!(posted * mail_bytes >= MAILBOX_BYTES_MAX / 2, "{posted} pieces were taken");
    }

    #[test]
    fn mail_finds_peers_that_are_no_reactors_whichever_of_them_are_there() {
        for others in [vec![PeerId::Cluster], vec![PeerId::Control], vec![PeerId::Control, PeerId::Cluster]] {
            let peers: Vec<PeerId> = PeerId::reactors(2).chain(others.iter().copied()).collect();
            let wakers = peers.iter().map(|&peer| (peer, Arc::new(Counter::default()) as Arc<dyn Wake>));
            let (_, mut boxes) = post_office_of(wakers.collect(), 8);
            for (number, &to) in peers.iter().enumerate() {
                boxes[1].gather(to, Mail::numbered(number as u8));
            }
            assert!(boxes[1].post());
            for (number, mailbox) in boxes.iter_mut().enumerate() {
                let Some(Parcel::Mail(from, mail)) = mailbox.take() else { panic!("{others:?}: peer {number}") };
                assert_eq!((from, mail[0].number()), (PeerId::Reactor(ReactorId(1)), number as u8));
            }
        }
    }

    #[test]
    fn a_parcel_leaves_by_its_bytes_as_well() {
        let (_, mut boxes) = two(8);
        boxes[1].gather(FIRST, Mail::of_size(PARCEL_BYTES_MAX - 2 * MAIL_BYTES));
        assert!(boxes[0].take().is_none());
        boxes[1].gather(FIRST, Mail::of_size(MAIL_BYTES));
        assert!(boxes[0].take().is_some(), "before the turn ends");
    }
}

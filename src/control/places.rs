//! Connections of plain HTTP that are kept: so many places, who makes room for whom, and when one is ended.
//!
//! ```text
//!   a socket comes ─┬─ a place is free ──────► served ─┬─ a request under way ◄──┐
//!                   ├─ one idles: the one that │        └─ idle ─────────────────┘
//!                   │  has idled for longest ends, and its place is taken
//!                   └─ all are busy: 503
//! ```
//!
//! Each connection has a [`Link`]: what the rest of the node sees of it, and may ask of it. Once a second all links of a lane
//! are looked at; nothing on the way of a request looks at a clock.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use slab::Slab;
use tokio::sync::Notify;

use crate::limits::{HTTP_HEAD_S_MAX, HTTP_IDLE_S_MAX, HTTP_REQUEST_S_MAX, HTTP_STALL_S_MAX};

/// How long requests are counted together by when they began, in seconds: one that is older than two such spans is too old.
const SPAN_S: u32 = HTTP_REQUEST_S_MAX / 2;

/// Spans whose requests are counted apart: this one, two before it, and none of a fourth.
const SPANS: usize = 3;

/// What is asked of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing.
    Nothing,
    /// To end behind the requests that are under way, and at once where there is none.
    Finish,
    /// To end at once.
    Cut,
}

/// One connection, as those see it that do not serve it. `Relaxed` throughout: what has to be seen at once comes with a wake.
#[derive(Debug)]
pub(super) struct Link {
    clock: Arc<Clock>,
    asked: AtomicU8,
    task: AtomicWaker,
    /// Requests so far, and those of them that are not answered to the last byte.
    requests: AtomicU32,
    under_way: AtomicU32,
    by_span: [AtomicU32; SPANS],
    /// When the last of them ended, or it came, as the clock counts.
    idle_since: AtomicU64,
    /// Bytes came while no request was under way: the beginning of one.
    has_begun: AtomicBool,
    /// The socket took nothing of what it was given last.
    is_blocked: AtomicBool,
    /// How often it took something.
    writes: AtomicU32,
    /// All that was written is with the kernel, as of the last flush.
    is_flushed: AtomicBool,
    /// Whether it speaks HTTP/2, in which bytes may be no part of a request.
    is_http_2: AtomicBool,
}

/// What the links of a lane have in common.
#[derive(Debug, Default)]
struct Clock {
    /// Ends of requests so far, and connections that came: orders them.
    ends: AtomicU64,
    /// Which span this is.
    span: AtomicU32,
}

impl Link {
    fn new(clock: Arc<Clock>) -> Link {
        Link {
            asked: AtomicU8::new(Asked::Nothing as u8),
            task: AtomicWaker::new(),
            requests: AtomicU32::new(0),
            under_way: AtomicU32::new(0),
            by_span: Default::default(),
            idle_since: AtomicU64::new(clock.ends.fetch_add(1, Ordering::Relaxed)),
            has_begun: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            writes: AtomicU32::new(0),
            is_flushed: AtomicBool::new(true),
            is_http_2: AtomicBool::new(false),
            clock,
        }
    }

    /// From now on it speaks HTTP/2.
    pub(super) fn note_http_2(&self) {
        self.is_http_2.store(true, Ordering::Relaxed);
    }

    /// One that nobody looks at.
    pub(super) fn alone() -> Arc<Link> {
        Arc::new(Link::new(Arc::default()))
    }

    /// What is asked of it. Its task is woken by what is asked later.
    pub(super) fn asked(&self, task: &Waker) -> Asked {
        self.task.register(task);
        match self.asked.load(Ordering::Acquire) {
            asked if asked == Asked::Cut as u8 => Asked::Cut,
            asked if asked == Asked::Finish as u8 => Asked::Finish,
            _ => Asked::Nothing,
        }
    }

    fn ask(&self, asked: Asked) {
        self.asked.fetch_max(asked as u8, Ordering::Release);
        self.task.wake();
    }

    /// Whether nothing of it is under way: it has served, or its client has begun HTTP/2 and asked for nothing.
    pub(super) fn is_idle(&self) -> bool {
        (self.has_served() || self.is_http_2.load(Ordering::Relaxed))
            && self.under_way.load(Ordering::Relaxed) == 0
            && !self.is_blocked.load(Ordering::Relaxed)
    }

    /// Whether a request came before.
    pub(super) fn has_served(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// A request has come. It is under way until what is returned is dropped.
    pub(super) fn begin(self: &Arc<Link>) -> UnderWay {
        let span = self.clock.span.load(Ordering::Relaxed) as usize % SPANS;
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        self.by_span[span].fetch_add(1, Ordering::Relaxed);
        self.has_begun.store(false, Ordering::Relaxed);
        UnderWay { link: self.clone(), span }
    }

    /// Bytes have come.
    pub(super) fn note_read(&self) {
        if self.under_way.load(Ordering::Relaxed) == 0 && !self.is_http_2.load(Ordering::Relaxed) {
            self.has_begun.store(true, Ordering::Relaxed);
        }
    }

    /// Something was written, or all of it is with the kernel.
    pub(super) fn note_flushed(&self, is_flushed: bool) {
        self.is_flushed.store(is_flushed, Ordering::Relaxed);
    }

    /// Whether everything that was written is with the kernel.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_flushed.load(Ordering::Relaxed)
    }

    /// The socket has taken bytes, or none of those that it was given.
    pub(super) fn note_written(&self, took_some: bool) {
        if took_some {
            self.writes.fetch_add(1, Ordering::Relaxed);
        }
        self.is_blocked.store(!took_some, Ordering::Relaxed);
    }
}

/// A request that is not answered to the last byte.
#[derive(Debug)]
pub(super) struct UnderWay {
    link: Arc<Link>,
    span: usize,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Link { clock, under_way, by_span, idle_since, .. } = &*self.link;
        idle_since.store(clock.ends.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        by_span[self.span].fetch_sub(1, Ordering::Relaxed);
        under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a connection had done when it was looked at last, and for how many looks in a row it has done nothing.
#[derive(Debug, Default)]
struct Look {
    requests: u32,
    writes: u32,
    idle_s: u32,
    begun_s: u32,
    blocked_s: u32,
}

impl Look {
    /// What is to be asked of a connection, a second later.
    fn again(&mut self, link: &Link, is_new_span: bool) -> Asked {
        let requests = link.requests.load(Ordering::Relaxed);
        let writes = link.writes.load(Ordering::Relaxed);
        let has_asked = requests != std::mem::replace(&mut self.requests, requests);
        let has_written = writes != std::mem::replace(&mut self.writes, writes);
        let rests = !has_asked && link.under_way.load(Ordering::Relaxed) == 0;
        let counted = |seconds: u32, goes_on: bool| if goes_on { seconds + 1 } else { 0 };
        self.idle_s = counted(self.idle_s, rests);
        self.begun_s = counted(self.begun_s, rests && link.has_begun.load(Ordering::Relaxed));
        self.blocked_s = counted(self.blocked_s, !has_written && link.is_blocked.load(Ordering::Relaxed));
        let span = link.clock.span.load(Ordering::Relaxed) as usize % SPANS;
        let is_too_old = is_new_span && link.by_span[span].load(Ordering::Relaxed) > 0;
        if is_too_old || self.blocked_s >= HTTP_STALL_S_MAX || self.begun_s >= HTTP_HEAD_S_MAX {
            return Asked::Cut;
        }
        match self.idle_s {
            HTTP_IDLE_S_MAX => Asked::Finish,
            // It was asked to, and did not.
            longer if longer > HTTP_IDLE_S_MAX => Asked::Cut,
            _ => Asked::Nothing,
        }
    }
}

#[derive(Debug)]
struct Entry {
    link: Arc<Link>,
    look: Look,
    /// Whether it takes a place; one that makes room does not any more.
    has_place: bool,
}

#[derive(Debug, Default)]
struct Entries {
    all: Slab<Entry>,
    places_taken: usize,
    is_draining: bool,
}

/// The places of one lane.
#[derive(Debug)]
pub(super) struct Places {
    places_max: usize,
    entries: Mutex<Entries>,
    clock: Arc<Clock>,
    /// There is a connection, after there was none.
    news: Notify,
}

impl Places {
    pub(super) fn new(places_max: usize) -> Arc<Places> {
        Arc::new(Places { places_max, entries: Mutex::default(), clock: Arc::default(), news: Notify::new() })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection whose first request is there. Where none is free, who has idled for longest makes room;
    /// `None` where nobody idles.
    pub(super) fn take(self: &Arc<Places>) -> Option<Place> {
        let mut entries = self.entries();
        let Entries { all, places_taken, is_draining } = &mut *entries;
        if *places_taken >= self.places_max {
            let idle = all.iter_mut().map(|(_, entry)| entry).filter(|entry| entry.has_place && entry.link.is_idle());
            let longest = idle.min_by_key(|entry| entry.link.idle_since.load(Ordering::Relaxed))?;
            longest.has_place = false;
            *places_taken -= 1;
            longest.link.ask(Asked::Finish);
        }
        *places_taken += 1;
        let link = Arc::new(Link::new(self.clock.clone()));
        let is_last = *is_draining;
        let at = all.insert(Entry { link: link.clone(), look: Look::default(), has_place: true });
        let was_empty = all.len() == 1;
        drop(entries);
        if was_empty {
            self.news.notify_one();
        }
        Some(Place { places: self.clone(), at, link, is_last })
    }

    /// From now on each connection ends behind its request.
    pub(super) fn drain(&self) {
        let mut entries = self.entries();
        entries.is_draining = true;
        entries.all.iter().for_each(|(_, entry)| entry.link.ask(Asked::Finish));
    }

    /// Looks at all connections once a second, as long as there is one; until the process ends.
    pub(super) async fn watch(self: Arc<Places>) {
        for second in 1.. {
            if self.entries().all.is_empty() {
                self.news.notified().await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.look(second % SPAN_S == 0);
        }
    }

    fn look(&self, is_new_span: bool) {
        if is_new_span {
            self.clock.span.fetch_add(1, Ordering::Relaxed);
        }
        for (_, Entry { link, look, .. }) in &mut self.entries().all {
            match look.again(link, is_new_span) {
                Asked::Nothing => {}
                asked => link.ask(asked),
            }
        }
    }
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    at: usize,
    pub(super) link: Arc<Link>,
    /// Whether its first request is its last.
    pub(super) is_last: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut entries = self.places.entries();
        let entry = entries.all.remove(self.at);
        entries.places_taken -= usize::from(entry.has_place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places_taken(places: &Places) -> usize {
        places.entries().places_taken
    }

    fn asked(place: &Place) -> Asked {
        place.link.asked(Waker::noop())
    }

    #[test]
    fn who_has_idled_for_longest_makes_room_and_who_is_busy_does_not() {
        let places = Places::new(3);
        let all: Vec<Place> = (0..3).map(|_| places.take().expect("a free place")).collect();
        assert!(places.take().is_none(), "none has served yet");
        let mut under_way: Vec<Option<UnderWay>> = all.iter().map(|place| Some(place.link.begin())).collect();
        assert!(places.take().is_none(), "all are busy");
        under_way[1] = None;
        under_way[2] = None;
        let first = places.take().expect("the second idles");
        assert_eq!(all.iter().map(asked).collect::<Vec<_>>(), [Asked::Nothing, Asked::Finish, Asked::Nothing]);
        let second = places.take().expect("the third idles");
        assert_eq!(asked(&all[2]), Asked::Finish);
        assert!(places.take().is_none(), "those that make room do so once");
        assert_eq!(places_taken(&places), 3);
        drop((all, first, second));
        assert_eq!((places_taken(&places), places.entries().all.len()), (0, 0));
    }

    #[test]
    fn who_idles_for_too_long_is_asked_to_finish_and_then_cut() {
        let places = Places::new(1);
        let place = places.take().expect("a free place");
        drop(place.link.begin());
        places.look(false);
        (1..HTTP_IDLE_S_MAX).for_each(|_| places.look(false));
        assert_eq!(asked(&place), Asked::Nothing);
        drop(place.link.begin());
        places.look(false);
        (1..HTTP_IDLE_S_MAX).for_each(|_| places.look(false));
        assert_eq!(asked(&place), Asked::Nothing, "it has asked meanwhile");
        places.look(false);
        assert_eq!(asked(&place), Asked::Finish);
        places.look(false);
        assert_eq!(asked(&place), Asked::Cut);
    }

    #[test]
    fn a_head_that_does_not_end_and_an_answer_that_nobody_takes_are_cut() {
        let places = Places::new(2);
        let [begins, reads_nothing] = [places.take(), places.take()].map(|place| place.expect("a free place"));
        drop(begins.link.begin());
        begins.link.note_read();
        let _answer = reads_nothing.link.begin();
        reads_nothing.link.note_written(false);
        (1..HTTP_STALL_S_MAX).for_each(|_| places.look(false));
        reads_nothing.link.note_written(true);
        reads_nothing.link.note_written(false);
        (0..HTTP_STALL_S_MAX).for_each(|_| places.look(false));
        assert_eq!(asked(&reads_nothing), Asked::Nothing, "it took something meanwhile");
        places.look(false);
        assert_eq!(asked(&reads_nothing), Asked::Cut);
        assert_eq!(asked(&begins), Asked::Nothing);
        (0..HTTP_HEAD_S_MAX).for_each(|_| places.look(false));
        assert_eq!(asked(&begins), Asked::Cut);
    }

    #[test]
    fn a_request_that_takes_too_long_is_cut_however_many_others_come_and_go() {
        let places = Places::new(1);
        let place = places.take().expect("a free place");
        let long = place.link.begin();
        for _ in 0..2 {
            drop(place.link.begin());
            places.look(true);
        }
        assert_eq!(asked(&place), Asked::Nothing);
        places.look(true);
        assert_eq!(asked(&place), Asked::Cut);
        drop(long);
    }

    #[test]
    fn a_draining_node_serves_one_more_request_of_each() {
        let places = Places::new(2);
        let early = places.take().expect("a free place");
        places.drain();
        assert_eq!(asked(&early), Asked::Finish);
        assert!(!early.is_last && places.take().expect("a free place").is_last);
    }
}

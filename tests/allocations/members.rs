//! What routers hold for connections that are in small rooms and do nothing.

use std::sync::Arc;

use fanfare::ids::{ConnId, PeerId, ReactorId, Slot};
use fanfare::protocol::Mode;
use fanfare::router::{
    Answer, Batch, HistorySettings, ItemFilter, JoinReply, KeyedPolicy, KeyedRooms, KeyedSettings, NoticeSettings,
    Router, RouterSettings, Sink, Slice, Subscribe, Terms,
};
use fanfare::time::{Millis, Stamp};
use stats_alloc::Region;

use super::ALLOCATOR;

const CONNECTIONS: usize = 15_000;
const JOINS_PER_TURN: usize = 50;

/// Takes everything, and notes nothing.
struct Silence;

impl Sink for Silence {
    fn deliver(&mut self, _: Batch, _: &[Slot]) {}
    fn takes_rounds(&self, _: Slot) -> bool {
        true
    }
    fn recover(&mut self, _: ConnId, _: Slice) {}
    fn reply(&mut self, _: ConnId, _: &[u8]) {}
    fn direct(&mut self, _: ConnId, _: &[u8], _: Stamp) {}
    fn answer(&mut self, _: ConnId, _: Answer<'_>) {}
    fn disconnect(&mut self, _: &str) {}
}

/// Carries mail until there is none.
fn carry(routers: &mut [Router]) {
    loop {
        let mut mail = Vec::new();
        for router in routers.iter_mut() {
            mail.extend(router.poll_mail());
        }
        if mail.is_empty() {
            return;
        }
        for (to, mail) in mail {
            let PeerId::Reactor(ReactorId(to)) = to else { panic!("{to:?} is not there") };
            routers[usize::from(to)].handle_mail(mail, &mut Silence);
        }
    }
}

/// What the rooms are, and what their members want.
#[derive(Clone, Copy)]
enum Rooms {
    Plain,
    /// Keyed, and the members want the newest values.
    Keyed,
}

fn keyed() -> KeyedSettings {
    let policy = KeyedPolicy {
        items_max: u32::MAX,
        bytes_max: u64::MAX >> 1,
        ttl_ms: None,
        removed_ttl_ms: 60_000,
        stale_after_ms: None,
    };
    KeyedSettings {
        rooms: Some(KeyedRooms(Arc::new(move |_: &str| Some(policy)))),
        node_items_max: u64::MAX >> 1,
        node_bytes_max: u64::MAX >> 1,
        subscription_bytes_max: usize::MAX,
    }
}

fn turn(routers: &mut [Router], now_ms: u64) {
    for router in routers.iter_mut() {
        router.begin_turn(Millis(now_ms));
        router.end_turn(&mut Silence);
    }
    carry(routers);
}

/// Bytes a connection, with a user id of its own and in one of so many rooms.
fn bytes_each(reactors: u16, rooms: usize, kind: Rooms) -> usize {
    let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
    let settings = RouterSettings {
        rooms_max: 128,
        notices,
        history: HistorySettings::none(),
        keyed: match kind {
            Rooms::Plain => KeyedSettings::none(),
            Rooms::Keyed => keyed(),
        },
        user_connections: None,
        cluster: false,
    };
    let subscribe = || {
        let terms = Terms { mode: Mode::Latest, interval_ms: 100, filter: ItemFilter::All };
        JoinReply::Joined { id: None, recover: None, subscribe: Some(Box::new(Subscribe { terms, snapshot: None })) }
    };
    let router = |me| Router::new(ReactorId(me), reactors, 1, 1, settings.clone());
    let mut routers: Vec<Router> = (0..reactors).map(router).collect();
    let region = Region::new(ALLOCATOR);
    for number in 0..CONNECTIONS {
        let reactor = (number % usize::from(reactors)) as u16;
        let slot = Slot((number / usize::from(reactors)) as u32);
        let conn = ConnId { reactor: ReactorId(reactor), slot, generation: 0 };
        let router = &mut routers[usize::from(reactor)];
        router.connect(conn, &format!("user-{number:05}"), &mut Silence);
        let reply = match kind {
            Rooms::Plain => JoinReply::Silent,
            Rooms::Keyed => subscribe(),
        };
        router.join(conn, &format!("room-{:04}", number % rooms), reply, &mut Silence).unwrap();
        carry(&mut routers);
        if number % JOINS_PER_TURN == JOINS_PER_TURN - 1 {
            turn(&mut routers, number as u64);
        }
    }
    // Who has just come is answered.
    (0..4).for_each(|more| turn(&mut routers, (CONNECTIONS + more) as u64));
    let change = region.change();
    (change.bytes_allocated - change.bytes_deallocated) / CONNECTIONS
}

pub fn an_idle_member_is_small() {
    let plain = |reactors, rooms| bytes_each(reactors, rooms, Rooms::Plain);
    let (shared, small, spread) = (plain(1, 1), plain(1, 1_000), plain(52, CONNECTIONS / 10));
    println!(
        "  bytes in a router: {shared} in one room, {small} in rooms of 15, {spread} in rooms of 10 on 52 reactors"
    );
    assert!(shared <= 190 && small <= 180 && spread <= 305);
    let keyed = bytes_each(1, 1, Rooms::Keyed);
    println!("  bytes in a router: {keyed} in one keyed room");
    assert!(keyed <= shared + 64, "a subscription of the newest values that waits takes {} more", keyed - shared);
}

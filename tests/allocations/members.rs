//! What routers hold for connections that are in small rooms and do nothing.

use fanfare::ids::{ConnId, PeerId, ReactorId, Slot};
use fanfare::router::{
    Answer, Batch, HistorySettings, JoinReply, KeyedSettings, NoticeSettings, Router, RouterSettings, Sink, Slice,
};
use fanfare::time::Stamp;
use stats_alloc::Region;

use super::ALLOCATOR;

const CONNECTIONS: usize = 15_000;

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

/// Bytes a connection, with a user id of its own and in one of so many rooms.
fn bytes_each(reactors: u16, rooms: usize) -> usize {
    let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
    let settings = RouterSettings {
        rooms_max: 128,
        notices,
        history: HistorySettings::none(),
        keyed: KeyedSettings::none(),
        user_connections: None,
        cluster: false,
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
        router.join(conn, &format!("room-{:04}", number % rooms), JoinReply::Silent, &mut Silence).unwrap();
        carry(&mut routers);
    }
    routers.iter_mut().for_each(|router| router.end_turn(&mut Silence));
    let change = region.change();
    (change.bytes_allocated - change.bytes_deallocated) / CONNECTIONS
}

pub fn an_idle_member_is_small() {
    let (shared, small, spread) = (bytes_each(1, 1), bytes_each(1, 1_000), bytes_each(52, CONNECTIONS / 10));
    println!(
        "  bytes in a router: {shared} in one room, {small} in rooms of 15, {spread} in rooms of 10 on 52 reactors"
    );
    assert!(shared <= 190 && small <= 180 && spread <= 305);
}

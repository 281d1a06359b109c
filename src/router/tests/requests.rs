//! What requests ask: surveys, histories, orders; on a node alone.

use super::*;
use crate::ids::RequestId;
use crate::router::Told as Delivered;
use crate::router::cluster::Order;

const REQUEST: RequestId = RequestId { slot: 0, generation: 1 };

impl Node {
    /// Has a request's mail carried, and all that comes of it; the answers.
    fn request(&mut self, mail: Vec<(PeerId, Mail)>) -> Vec<Delivered> {
        for (to, mail) in mail {
            let PeerId::Reactor(ReactorId(to)) = to else { panic!("{to:?} is no reactor") };
            self.with(to, |router, told| router.handle_mail(mail, told));
        }
        self.carry_all();
        std::mem::take(&mut self.answers).into_iter().map(Mail::into_told).collect()
    }

    fn survey(&mut self, survey: Survey) -> Vec<Found> {
        let mail = self.homeward.survey(REQUEST, &survey);
        let found = self.request(mail).into_iter().map(|told| match told {
            Delivered::Found(REQUEST, found) => found[0].found.clone(),
            other => panic!("{other:?} is no survey's"),
        });
        found.collect()
    }

    fn one(&mut self, mail: (PeerId, Mail)) -> Reply {
        match self.request(vec![mail]).pop() {
            Some(Delivered::Reply(REQUEST, reply)) => reply,
            other => panic!("{other:?} is no reply"),
        }
    }

    pub(super) fn kick(&mut self, room: &str, user: &str) -> Reply {
        let order = Order::Kick { room: room.into(), user: user.into(), reason: "rude".into() };
        let mail = self.homeward.order(REQUEST, order);
        self.one(mail)
    }

    /// All rooms that a filter means, page by page, each with its members and users.
    pub(super) fn rooms(&mut self, filter: RoomFilter) -> Vec<(String, u64, u64)> {
        let mut listed = Vec::new();
        let mut after = arcstr::ArcStr::new();
        loop {
            let query = RoomsQuery { after, filter: filter.clone() };
            let found = self.survey(Survey::Rooms(query)).into_iter().map(|found| match found {
                Found::Rooms(rooms) => rooms,
                other => panic!("{other:?} is no list of rooms"),
            });
            let found: Vec<RoomsFound> = found.collect();
            let up_to = found.iter().filter_map(|found| found.up_to.clone()).min();
            let mut rooms: Vec<RoomFound> = found.into_iter().flat_map(|found| found.rooms).collect();
            rooms.retain(|room| up_to.as_ref().is_none_or(|up_to| room.name <= *up_to));
            rooms.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            listed.extend(rooms.into_iter().map(|room| (room.name.to_string(), room.members, room.users)));
            match up_to {
                Some(up_to) => after = up_to,
                None => return listed,
            }
        }
    }
}

fn all() -> RoomFilter {
    RoomFilter::new(&["*"], None).tested_by(|_| true)
}

/// A node with one user in so many rooms.
fn crowded(reactors: u16, rooms: usize) -> Node {
    let mut node = Node::new(reactors, 5, NO_NOTICES);
    for at in 0..rooms {
        let member = conn(0, at as u32 / 8);
        if at % 8 == 0 {
            node.with(0, |router, told| router.connect(member, "alice", told));
        }
        node.with(0, |router, told| router.join(member, &format!("room{at:04}"), joined(), told)).unwrap();
    }
    node.carry_all();
    node
}

#[test]
fn every_room_is_listed_once_page_by_page_whatever_comes_and_goes() {
    for reactors in [1, 3] {
        let mut node = crowded(reactors, 1_500);
        let names: Vec<String> = node.rooms(all()).into_iter().map(|(name, ..)| name).collect();
        let expected: Vec<String> = (0..1_500).map(|at| format!("room{at:04}")).collect();
        assert_eq!(names, expected);
        let some = RoomFilter::new(&["*"], Some("room12*")).tested_by(|room| room.starts_with("room12"));
        assert_eq!(node.rooms(some).len(), 100);
        let none = RoomFilter::new(&["*x"], None).tested_by(|room| room.ends_with('x'));
        assert_eq!(node.rooms(none), []);
        node.with(0, |router, told| router.leave(conn(0, 3), "room0024", None, told));
        node.carry_all();
        assert_eq!(node.rooms(all()).len(), 1_499);
    }
}

#[test]
fn one_answer_is_bounded_in_rooms_looked_at_and_listed() {
    let mut node = crowded(1, 1_500);
    let mut ask = |filter: RoomFilter| match node.survey(Survey::Rooms(RoomsQuery { after: "".into(), filter })).pop() {
        Some(Found::Rooms(found)) => found,
        other => panic!("{other:?} is no list of rooms"),
    };
    assert_eq!(ask(all()).rooms.len(), crate::limits::SURVEY_ROOMS_MAX);
    let patterns = ["x"; 16];
    let found = ask(RoomFilter::new(&patterns, None).tested_by(|_| false));
    // One is looked at before it is known that there are more.
    let visited = crate::limits::SURVEY_VISITED_MAX / 16;
    assert_eq!((found.rooms.len(), found.up_to.as_deref()), (0, Some(&*format!("room{visited:04}"))));
}

#[test]
fn who_is_kicked_leaves_the_room_and_is_told_why() {
    for reactors in [1, 3] {
        let mut node = Node::new(reactors, 5, NO_NOTICES);
        let members = [(conn(0, 0), "alice"), (conn(reactors - 1, 1), "alice"), (conn(0, 2), "bob")];
        for (member, user) in members {
            node.with(member.reactor.0, |router, told| {
                router.connect(member, user, told);
                router.join(member, "den", joined(), told).unwrap();
            });
        }
        node.carry_all();
        assert_eq!(node.kick("den", "alice"), Reply::Heard(1));
        assert_eq!(node.rooms(all()), [("den".to_owned(), 1, 1)]);
        assert_eq!(node.told(members[1].0).last().map(String::as_str), Some("left den"));
        assert_eq!(node.kick("attic", "alice"), Reply::Heard(0), "nobody is in it");
    }
}

#[test]
fn a_history_is_read_in_both_directions_and_forgotten() {
    for reactors in [1, 2] {
        let mut node = Node::keeping(reactors, 5, HistoryPolicy { messages_max: 10, ttl_ms: 1_000 });
        let member = conn(0, 0);
        node.with(0, |router, told| {
            router.connect(member, "alice", told);
            router.join(member, "den", joined(), told).unwrap();
        });
        node.carry_all();
        for at in 1..=12 {
            node.publish(conn(0, 9), room("den"), &format!("{{\"n\":{at}}}"), false);
            node.carry_all();
        }
        let mut read = |range, limit| {
            let mail = node.homeward.read(REQUEST, "den", range, limit);
            match node.one(mail) {
                Reply::History(page) => (String::from_utf8(page.messages).unwrap(), page.next),
                other => panic!("{other:?} is no page"),
            }
        };
        let text = |offsets: std::ops::RangeInclusive<u64>| {
            let each: Vec<String> = offsets.map(|at| format!("{{\"n\":{at},\"offset\":{at}}}")).collect();
            format!("[{}]", each.join(","))
        };
        assert_eq!(read(PageRange::Before(None), 3), (text(10..=12), Some(10)));
        assert_eq!(read(PageRange::Before(Some(6)), 3), (text(3..=5), None), "3 is the first that is left");
        assert_eq!(read(PageRange::Before(Some(0)), 3), ("[]".to_owned(), None));
        assert_eq!(read(PageRange::After(0), 4), (text(3..=6), Some(6)));
        assert_eq!(read(PageRange::After(9), 4), (text(10..=12), None));
        assert_eq!(read(PageRange::After(u64::MAX), 4), ("[]".to_owned(), None));
        let mail = node.homeward.purge(REQUEST, "den");
        assert_eq!(node.one(mail), Reply::Heard(1));
        assert!(
            node.told(member).last().is_some_and(|told| told.contains("\"gap\"")),
            "{:?}",
            node.told(member).last()
        );
        let mail = node.homeward.read(REQUEST, "den", PageRange::After(0), 4);
        let Reply::History(page) = node.one(mail) else { panic!("there is a page") };
        assert_eq!((&page.messages[..], page.position.map(|at| at.offset)), (&b"[]"[..], Some(0)));
        node.with(0, |router, told| router.disconnect(member, told));
        node.carry_all();
        let mail = node.homeward.purge(REQUEST, "den");
        assert_eq!(node.one(mail), Reply::Heard(1));
        assert!(node.routers.iter().all(|router| router.topics_count() == 1), "nothing is left of it");
    }
}

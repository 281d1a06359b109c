//! A home and its cluster, of which each test plays the other side.

use std::sync::Arc;

use super::cluster::{AttachId, FromCluster, Older, Rest, ToCluster, Wanted};
use super::tests::Told;
use super::*;
use crate::compress::SharedFrame;
use crate::frame::Opcode;
use crate::limits::CLUSTER_WAITING_MAX;

const CONN: ConnId = ConnId { reactor: ReactorId(0), slot: Slot(0), generation: 0 };
const POLICY: HistoryPolicy = HistoryPolicy { messages_max: 5, ttl_ms: 1_000_000 };

/// The router of a node with one reactor. All rooms and inboxes keep history.
struct Home {
    router: Router,
    told: Told,
}

impl Home {
    fn new() -> Home {
        Home::with_bytes(usize::MAX)
    }

    /// One that holds no more than so many bytes of history.
    fn with_bytes(bytes_max: usize) -> Home {
        let notices = NoticeSettings { members_max: 0, join_text: String::new(), leave_text: String::new() };
        let history = HistorySettings {
            rooms: Some(RoomPolicies(Arc::new(|_| Some(POLICY)))),
            inbox: Some(POLICY),
            bytes_max,
            pinned_bytes_max: u64::MAX,
            ..HistorySettings::none()
        };
        let settings = RouterSettings {
            rooms_max: 8,
            notices,
            history,
            keyed: KeyedSettings::none(),
            user_connections: None,
            cluster: true,
        };
        Home { router: Router::new(ReactorId(0), 1, 1, 1, settings), told: Told::default() }
    }

    /// What the cluster is asked.
    fn asked(&mut self) -> Vec<ToCluster> {
        self.router.end_turn(&mut self.told);
        self.router.poll_mail().map(|(_, mail)| mail.into_cluster()).collect()
    }

    fn tell(&mut self, news: FromCluster) {
        self.router.handle_mail(Mail::from_cluster(news), &mut self.told);
        self.router.check_invariants();
    }

    /// What the connection was told, all that is ready included.
    fn told(&mut self) -> Vec<String> {
        self.router.end_turn(&mut self.told);
        std::mem::take(self.told.of(CONN.slot))
    }
}

fn position(epoch: &str, offset: u64) -> StreamPosition {
    StreamPosition { epoch: epoch.into(), offset }
}

fn attach(asked: &[ToCluster]) -> (TopicKey, AttachId) {
    let [ToCluster::Attach { topic, attach, .. }] = asked else { panic!("one topic is opened: {asked:?}") };
    (topic.clone(), *attach)
}

/// A home whose room has a member and waits for the cluster; the room, and the attachment that was asked for.
fn with_a_member_of_den() -> (Home, TopicKey, AttachId) {
    let mut home = Home::new();
    home.router.connect(CONN, "alice", &mut home.told);
    home.asked();
    home.tell(FromCluster::Reachable(true));
    home.router.join(CONN, "den", JoinReply::Silent, &mut home.told).unwrap();
    let (topic, id) = attach(&home.asked());
    (home, topic, id)
}

#[test]
fn who_came_while_redis_was_away_is_told_where_the_inbox_is_when_it_is_back() {
    let mut home = Home::new();
    home.router.connect(CONN, "alice", &mut home.told);
    let (topic, attach) = attach(&home.asked());
    home.tell(FromCluster::Refused { topic: topic.clone(), attach });
    assert_eq!(home.told(), ["connected"]);
    home.tell(FromCluster::Attached { topic, attach, position: Some(position("e", 7)) });
    assert_eq!(home.told(), [r#"{"type":"gap","inbox":{"epoch":"e","offset":7},"recovered":false}"#]);
}

fn frame(text: &str) -> SharedFrame {
    FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(text.as_bytes())).into()
}

fn older(texts: &[&str]) -> Option<Vec<Older>> {
    Some(texts.iter().map(|text| Older { frame: frame(text), age_ms: 0 }).collect())
}

#[test]
fn what_was_loaded_for_an_end_that_a_gap_has_moved_is_not_put_in_front_of_another() {
    let mut home = Home::new();
    home.router.connect(CONN, "alice", &mut home.told);
    let (inbox, inbox_opening) = attach(&home.asked());
    home.tell(FromCluster::Reachable(true));
    home.tell(FromCluster::Attached { topic: inbox, attach: inbox_opening, position: Some(position("i", 0)) });
    home.router.join(CONN, "den", JoinReply::Silent, &mut home.told).unwrap();
    let (topic, attach) = attach(&home.asked());
    home.tell(FromCluster::Attached { topic: topic.clone(), attach, position: Some(position("e", 5)) });
    home.told();

    assert!(home.router.history(CONN, "den", None, None, None, &mut home.told));
    assert!(matches!(home.asked()[..], [ToCluster::Load { before: 6, .. }]));
    home.tell(FromCluster::Gap { topic: topic.clone(), attach, position: position("e", 9) });
    assert!(matches!(home.asked()[..], [ToCluster::Load { before: 10, .. }]), "it asks for what it needs now");
    home.tell(FromCluster::Loaded {
        topic: topic.clone(),
        attach,
        before: 6,
        older: older(&["4", "5"]),
        rest: Rest::Unread,
    });
    assert_eq!(home.told(), [r#"{"type":"gap","roomId":"den","epoch":"e","offset":9,"recovered":false}"#]);
    home.tell(FromCluster::Loaded { topic, attach, before: 10, older: older(&["8", "9"]), rest: Rest::Nothing });
    assert_eq!(home.told(), [r#"{"type":"history","roomId":"den","epoch":"e","offset":9,"messages":[8,9]}"#]);
}

#[test]
fn an_inbox_that_was_out_of_reach_is_resumed_when_it_is_not() {
    let mut home = Home::new();
    home.router.connect(CONN, "alice", &mut home.told);
    let (topic, attach) = attach(&home.asked());
    home.tell(FromCluster::Refused { topic: topic.clone(), attach });
    home.router.resume(CONN, "e", 5, None, &mut home.told);
    assert_eq!(home.told(), ["connected", "unavailable -"]);
    home.tell(FromCluster::Reachable(true));
    home.tell(FromCluster::Attached { topic: topic.clone(), attach, position: Some(position("e", 7)) });
    home.tell(FromCluster::Kept { topic: topic.clone(), attach, offset: 8, frame: frame("8"), exclude: None });
    home.told();

    home.router.resume(CONN, "e", 5, None, &mut home.told);
    assert!(matches!(home.asked()[..], [ToCluster::Load { before: 8, .. }]));
    home.tell(FromCluster::Loaded { topic, attach, before: 8, older: older(&["6", "7"]), rest: Rest::Unread });
    assert_eq!(home.told(), ["6", "7", "resumed true"], "8 came already");
}

#[test]
fn who_knows_a_newer_place_than_the_welcome_has_missed_nothing() {
    let mut home = Home::new();
    home.router.connect(CONN, "alice", &mut home.told);
    let (topic, attach) = attach(&home.asked());
    home.tell(FromCluster::Reachable(true));
    home.tell(FromCluster::Attached { topic: topic.clone(), attach, position: Some(position("e", 7)) });
    home.told();
    home.router.resume(CONN, "e", 8, None, &mut home.told);
    assert!(matches!(home.asked()[..], [ToCluster::Check { .. }]));
    home.tell(FromCluster::Kept { topic: topic.clone(), attach, offset: 8, frame: frame("8"), exclude: None });
    home.tell(FromCluster::Checked { topic, attach, answered: true });
    assert_eq!(home.told(), ["8", "resumed true"]);
}

#[test]
fn a_page_that_redis_would_have_to_give_is_unavailable_without_it() {
    let (mut home, topic, attach) = with_a_member_of_den();
    home.tell(FromCluster::Attached { topic: topic.clone(), attach, position: Some(position("e", 5)) });
    home.tell(FromCluster::Kept { topic, attach, offset: 6, frame: frame("6"), exclude: None });
    home.tell(FromCluster::Reachable(false));
    home.told();
    home.router.history(CONN, "den", None, None, Some(1), &mut home.told);
    assert_eq!(home.told(), [r#"{"type":"history","roomId":"den","epoch":"e","offset":6,"messages":[6]}"#]);
    home.router.history(CONN, "den", None, None, Some(2), &mut home.told);
    assert_eq!(home.told(), ["unavailable -"]);
}

#[test]
fn what_could_not_be_loaded_is_asked_for_again() {
    let (mut home, topic, attach) = with_a_member_of_den();
    home.tell(FromCluster::Attached { topic: topic.clone(), attach, position: Some(position("e", 5)) });
    home.told();
    for _ in 0..2 {
        home.router.history(CONN, "den", None, None, None, &mut home.told);
        assert!(matches!(home.asked()[..], [ToCluster::Load { before: 6, .. }]));
        home.tell(FromCluster::Loaded { topic: topic.clone(), attach, before: 6, older: None, rest: Rest::Unread });
        assert_eq!(home.told(), ["unavailable -"]);
    }
}

#[test]
fn nothing_overtakes_what_waits_however_much_that_is() {
    let (mut home, topic, attach) = with_a_member_of_den();
    for _ in 0..CLUSTER_WAITING_MAX {
        home.router.presence(CONN, "den", None, &mut home.told);
    }
    assert_eq!(home.told(), ["unavailable -"], "one too many");
    home.router.leave(CONN, "den", Some("1"), &mut home.told);
    home.router
        .join(CONN, "den", JoinReply::Joined { id: Some("2".into()), recover: None, subscribe: None }, &mut home.told)
        .unwrap();
    home.tell(FromCluster::Attached { topic, attach, position: Some(position("e", 5)) });
    assert_eq!(home.told(), ["ack 1", "joined den"]);
}

/// A room at an offset, without a member yet, but in its home's table.
fn room_at(home: &mut Home, offset: u64) -> (TopicKey, AttachId) {
    home.router.connect(CONN, "alice", &mut home.told);
    home.asked();
    home.tell(FromCluster::Reachable(true));
    home.router.join(CONN, "den", JoinReply::Silent, &mut home.told).unwrap();
    let (topic, attach) = attach(&home.asked());
    home.tell(FromCluster::Attached { topic: topic.clone(), attach, position: Some(position("e", offset)) });
    home.router.leave(CONN, "den", None, &mut home.told);
    assert!(matches!(home.asked()[..], [ToCluster::Idle { .. }]));
    home.told();
    (topic, attach)
}

fn join_last(home: &mut Home, count: u64) {
    let ask = JoinReply::Joined { id: None, recover: Some(RecoverFrom::Last(count)), subscribe: None };
    home.router.join(CONN, "den", ask, &mut home.told).unwrap();
}

#[test]
fn who_comes_and_goes_asks_for_what_it_wants_and_only_once() {
    let mut home = Home::new();
    let (topic, attach) = room_at(&mut home, 7);
    join_last(&mut home, 1);
    let wanted = Wanted::Any;
    let expected = ToCluster::Load { topic: topic.clone(), from: 7, before: 8, wanted };
    assert_eq!(format!("{:?}", home.asked()), format!("{:?}", [expected]));
    home.tell(FromCluster::Loaded {
        topic: topic.clone(),
        attach,
        before: 8,
        older: older(&["7"]),
        rest: Rest::Unread,
    });
    assert_eq!(home.told(), ["7", "joined den"]);
    for offset in 8..20 {
        home.router.leave(CONN, "den", None, &mut home.told);
        // What is published while it has no member is here all the same.
        let kept = frame(&offset.to_string());
        home.tell(FromCluster::Kept { topic: topic.clone(), attach, offset, frame: kept, exclude: None });
        assert!(matches!(home.asked()[..], [ToCluster::Idle { .. }]));
        join_last(&mut home, 1);
        assert_eq!(home.told(), [offset.to_string(), "joined den".into()]);
        assert_eq!(home.asked().len(), 0, "the cluster knows of the room");
    }
    home.tell(FromCluster::Lapsed { topic: topic.clone(), attach });
    assert_eq!(home.asked().len(), 0, "it has a member");
    home.router.leave(CONN, "den", None, &mut home.told);
    home.asked();
    home.tell(FromCluster::Lapsed { topic, attach });
    assert!(matches!(home.asked()[..], [ToCluster::Detach { .. }]));
    assert_eq!(home.router.topics_count(), 2, "everyone's and the inbox");
}

#[test]
fn more_than_was_loaded_is_loaded_for_who_wants_more() {
    let mut home = Home::new();
    let (topic, attach) = room_at(&mut home, 7);
    join_last(&mut home, 1);
    home.router.leave(CONN, "den", None, &mut home.told);
    join_last(&mut home, 3);
    assert!(matches!(home.asked()[..], [ToCluster::Load { from: 7, before: 8, .. }]));
    home.tell(FromCluster::Loaded {
        topic: topic.clone(),
        attach,
        before: 8,
        older: older(&["7"]),
        rest: Rest::Unread,
    });
    assert_eq!(home.told(), ["7", "joined den"]);
    let asked = home.asked();
    assert!(matches!(asked[..], [ToCluster::Idle { .. }, ToCluster::Load { from: 5, before: 7, .. }]), "{asked:?}");
    let piece = |before, texts: &[&str], rest| FromCluster::Loaded {
        topic: topic.clone(),
        attach,
        before,
        older: older(texts),
        rest,
    };
    home.tell(piece(7, &["6"], Rest::More));
    assert_eq!(home.told(), [""; 0], "the rest comes next");
    home.tell(piece(6, &["5"], Rest::Unread));
    assert_eq!(home.told(), ["5", "6", "7", "joined den"]);
}

#[test]
fn a_page_further_back_is_given_to_who_waits_for_it_and_not_kept() {
    let mut home = Home::new();
    let (topic, attach) = room_at(&mut home, 70);
    home.router.join(CONN, "den", JoinReply::Silent, &mut home.told).unwrap();
    for _ in 0..2 {
        home.router.history(CONN, "den", None, Some(60), Some(3), &mut home.told);
        assert!(matches!(home.asked()[..], [ToCluster::Load { from: 57, before: 60, .. }]));
        for (before, texts, rest) in [(60, ["58", "59"].as_slice(), Rest::More), (58, &["57"], Rest::Unread)] {
            home.tell(FromCluster::Loaded { topic: topic.clone(), attach, before, older: older(texts), rest });
        }
        let page = r#"{"type":"history","roomId":"den","epoch":"e","offset":70,"messages":[57,58,59]}"#;
        assert_eq!(home.told(), [page]);
        assert_eq!(home.router.history_bytes(), 0, "nothing is kept of it");
    }
}

#[test]
fn what_finds_no_room_is_given_up_and_not_asked_for_again_at_once() {
    let mut home = Home::with_bytes(1_500);
    let (topic, attach) = room_at(&mut home, 70);
    join_last(&mut home, 5);
    assert!(matches!(home.asked()[..], [ToCluster::Load { from: 66, before: 71, .. }]));
    let large = format!("\"{}\"", "x".repeat(300));
    home.tell(FromCluster::Loaded {
        topic: topic.clone(),
        attach,
        before: 71,
        older: older(&[&large, &large]),
        rest: Rest::More,
    });
    assert!(matches!(home.asked()[..], [ToCluster::Enough { .. }]));
    assert_eq!(home.told(), [large, "joined den".into()], "what there is room for");
    home.router.leave(CONN, "den", None, &mut home.told);
    home.asked();
    join_last(&mut home, 5);
    assert_eq!(home.asked().len(), 0, "it would find no room again");
}

//! Who is in a room: how often it is asked, and in which pieces it is answered.

use arcstr::ArcStr;

use super::*;
use crate::limits::{
    CLUSTER_ASKER_BYTES, CLUSTER_ASKERS_BYTES_MAX, CLUSTER_PRESENCE_ANSWERS_BYTES_MAX, CLUSTER_PRESENCE_BYTES_PER_MS,
    CLUSTER_PRESENCE_MS_MAX, CLUSTER_PRESENCE_REST_MS, CLUSTER_PRESENT_BYTES, CLUSTER_PRESENT_OWED_BYTES_MAX,
};
use crate::metrics::Vitals;
use crate::router::cluster::Question;
use crate::router::{Crowd, CrowdKey, Others};

/// What a piece takes beside what it tells.
const PIECE_OVERHEAD_BYTES: usize = 64;

/// What home tells of who is in a room there.
type Here<'a> = &'a dyn Fn(usize, CrowdKey) -> Crowd;

fn users(range: std::ops::Range<usize>) -> Vec<ArcStr> {
    range.map(|at| format!("user-{at}").into()).collect()
}

fn no_member(_: usize, _: CrowdKey) -> Crowd {
    Crowd { users: 0, names: Vec::new(), others: Others::Hashes(Vec::new()) }
}

impl Node {
    /// The node whose run is `run`, connected.
    fn of_run(run: u64) -> Node {
        let key = [run as u8; 16];
        let me = Identity { run, codec: ClientIdCodec::new(key, run as u16), key, reactors: 1 };
        Node { core: Core::new(me, "p"), ..Node::new() }.connect()
    }

    fn ask(&mut self, id: &str) {
        self.ask_about("r", id);
    }

    fn ask_about(&mut self, name: &str, id: &str) {
        let topic = TopicKey::unhashed(Kind::Room, name);
        self.core.handle_mail(HOME.into(), ToCluster::Presence { topic, asker: conn().into(), id: Some(id.into()) });
    }

    /// The home answers all that it is asked; what else was sent to it, in words, and how often it was asked.
    fn home_answers(&mut self, here: Here<'_>) -> (Vec<String>, usize) {
        let (mut other, mut asked) = (Vec::new(), 0);
        let mail: Vec<Mail> = self.core.poll_mail().map(|(_, mail)| mail).collect();
        for mail in mail {
            match mail.news_or_reply() {
                Ok(FromCluster::Asked { question, names, .. }) => {
                    asked += 1;
                    let crowd = here(names, question.key);
                    self.core.handle_mail(HOME.into(), ToCluster::Present { question, crowd });
                }
                Ok(news) => other.push(format!("{news:?}")),
                Err(reply) => other.push(reply),
            }
        }
        self.hand_out();
        (other, asked)
    }

    /// Records of the commands that were sent, each with its channel, and the payload's length.
    fn take_records(&mut self) -> Vec<(Arc<str>, Vec<u8>)> {
        self.hand_out();
        let sent: Vec<Command> = self.sent.iter().flat_map(|(_, commands)| commands.clone()).collect();
        let published = sent.into_iter().map(|command| match command {
            Command::Publish { channel, payload } => (channel, payload),
            other => panic!("{other:?}"),
        });
        published.collect()
    }
}

/// Two nodes and what they publish, until nothing is under way; each piece that was told, in bytes, and the replies.
fn talk(nodes: &mut [Node; 2], here: [Here<'_>; 2]) -> (Vec<usize>, Vec<String>) {
    let (mut pieces, mut replies) = (Vec::new(), Vec::new());
    for _ in 0..1_000 {
        let mut is_over = true;
        for at in 0..2 {
            let (other, asked) = nodes[at].home_answers(here[at]);
            is_over &= other.is_empty() && asked == 0;
            replies.extend(other);
            for (channel, payload) in nodes[at].take_records() {
                is_over = false;
                for node in nodes.iter_mut() {
                    let is_own = *channel == *node.core.own_channel;
                    if is_own || channel.contains(":room:") {
                        node.core.handle(Input::Received { channel: &channel, payload: &payload });
                    }
                    if is_own {
                        pieces.push(payload.len());
                    }
                }
            }
            while !nodes[at].sent.is_empty() {
                nodes[at].answer_published(2);
            }
        }
        if is_over {
            nodes.iter().for_each(|node| node.core.check_invariants());
            return (pieces, replies);
        }
    }
    panic!("they do not come to an end");
}

fn two_nodes() -> [Node; 2] {
    [1, 2].map(|run| {
        let mut node = Node::of_run(run);
        node.open(None);
        node.confirm();
        node.mail();
        node
    })
}

#[test]
fn presence_is_answered_when_every_node_has() {
    let mut node = Node::connected();
    node.ask("1");
    let alice: Vec<ArcStr> = vec!["alice".into()];
    let (_, asked) = node.home_answers(&|names, key| Crowd::of(alice.iter(), names, key));
    assert_eq!(asked, 1, "the home, first");
    node.answer_published(2);
    let own: Arc<str> = node.core.own_channel.clone();
    for (run, more, told) in [(7, true, ["bob", "alice"]), (8, false, ["carol", "bob"]), (7, false, ["dave", "bob"])] {
        assert_eq!(node.mail(), [""; 0], "not all have answered");
        let mut names = Vec::new();
        told.into_iter().for_each(|name| record::write_user(&mut names, name));
        let present = record::Present { number: 1, users: 3, more, names: &names, hashes: b"", sketch: b"" };
        let mut payload = record::begin(run);
        Record::Present(present).write(&mut payload);
        node.core.handle(Input::Received { channel: &own, payload: &payload });
    }
    let reply = r#"{"type":"presence","roomId":"r","count":4,"users":["alice","bob","carol","dave"]"#;
    let (replies, _) = node.home_answers(&no_member);
    assert_eq!(replies, [format!("1 {reply}")]);
}

#[test]
fn a_room_is_asked_about_once_for_all_who_ask_meanwhile() {
    let mut node = Node::connected();
    let mut questions = 0;
    let mut replies = 0;
    for round in 0..10_u64 {
        // Those of this round come while the question of the last round is under way.
        (0..1_000).for_each(|_| node.ask("1"));
        let (told, asked) = node.home_answers(&no_member);
        replies += told.len();
        questions += node.take_records().len();
        assert!(asked <= 1 && questions as u64 <= round + 1, "{asked}, {questions}");
        while !node.sent.is_empty() {
            node.answer_published(0);
        }
        node.at((round + 1) * CLUSTER_PRESENCE_REST_MS / 2);
    }
    assert!(questions <= 6, "at most one for each time that the room has rested: {questions}");
    for extra in 0..4 {
        node.at(10 * CLUSTER_PRESENCE_REST_MS * (extra + 1));
        replies += node.home_answers(&no_member).0.len();
        while !node.sent.is_empty() {
            node.answer_published(0);
        }
    }
    assert_eq!(replies, 10_000, "every asker has one");
    node.core.check_invariants();
}

#[test]
fn who_asks_while_a_question_is_under_way_is_answered_by_the_next() {
    let mut node = Node::connected();
    node.ask("1");
    assert_eq!(node.home_answers(&no_member).1, 1);
    // A join that is answered now is in no answer that the first question gets.
    node.ask("2");
    node.answer_published(0);
    let (replies, _) = node.home_answers(&no_member);
    assert!(replies.len() == 1 && replies[0].starts_with("1 "), "{replies:?}");
    node.at(CLUSTER_PRESENCE_REST_MS);
    let joined: Vec<ArcStr> = vec!["joined".into()];
    let (_, asked) = node.home_answers(&|names, key| Crowd::of(joined.iter(), names, key));
    assert_eq!(asked, 1, "the home is asked again");
    while !node.sent.is_empty() {
        node.answer_published(0);
    }
    let (replies, _) = node.home_answers(&no_member);
    assert!(replies.len() == 1 && replies[0].starts_with("2 ") && replies[0].contains("joined"), "{replies:?}");
}

#[test]
fn a_hundred_thousand_users_are_counted_exactly_in_pieces() {
    let mut nodes = two_nodes();
    let (one, other) = (users(0..60_000), users(40_000..100_000));
    nodes[0].ask("1");
    let here: [Here<'_>; 2] =
        [&|names, key| Crowd::of(one.iter(), names, key), &|names, key| Crowd::of(other.iter(), names, key)];
    let (pieces, replies) = talk(&mut nodes, here);
    assert!(replies.len() == 1 && replies[0].contains(r#""count":100000,"#), "{}", &replies[0][..80]);
    assert!(!replies[0].contains("approximate") && replies[0].ends_with(r#"],"truncated":true"#));
    let answers: Vec<usize> = pieces.into_iter().filter(|bytes| *bytes > PIECE_OVERHEAD_BYTES).collect();
    let total: usize = answers.iter().sum();
    assert!(answers.iter().all(|bytes| *bytes <= CLUSTER_PRESENT_BYTES + PIECE_OVERHEAD_BYTES), "{answers:?}");
    assert!(total < 8 * 60_000 + answers.len() * PIECE_OVERHEAD_BYTES, "a hash for each user there: {total}");
    // It rests as long as what it took is worth.
    nodes[0].ask("2");
    let rest_ms = CLUSTER_PRESENCE_REST_MS + 8 * 120_000 / CLUSTER_PRESENCE_BYTES_PER_MS;
    nodes[0].at(rest_ms - 1);
    assert_eq!(nodes[0].home_answers(&no_member).1, 0);
    nodes[0].at(rest_ms);
    assert_eq!(nodes[0].home_answers(&no_member).1, 1);
}

#[test]
fn beyond_a_hundred_thousand_users_the_count_is_an_estimate_and_says_so() {
    for sizes in [[0..70_000, 60_000..130_000], [0..130_000, 0..10]] {
        let mut nodes = two_nodes();
        let [one, other] = sizes.map(users);
        nodes[0].ask("1");
        let here: [Here<'_>; 2] =
            [&|names, key| Crowd::of(one.iter(), names, key), &|names, key| Crowd::of(other.iter(), names, key)];
        let (_, replies) = talk(&mut nodes, here);
        assert!(replies[0].ends_with(r#"],"truncated":true,"approximate":true"#));
        let count = replies[0].split(r#""count":"#).nth(1).and_then(|rest| rest.split(',').next());
        let count: u64 = count.and_then(|count| count.parse().ok()).expect("a count");
        assert!(count.abs_diff(130_000) < 3_900, "{count}");
    }
}

#[test]
fn answers_that_wait_to_be_asked_for_are_bounded_and_then_estimates() {
    let mut node = Node::connected();
    let crowd = users(0..90_000);
    let key = CrowdKey([1, 2]);
    let whole = Crowd::of(crowd.iter(), 0, key);
    let questions = CLUSTER_PRESENCE_ANSWERS_BYTES_MAX / (8 * 90_000) + 20;
    let mut sketches = 0;
    for number in 0..questions as u64 {
        let question = Question { run: OTHER_RUN, number, key };
        node.core.handle_mail(HOME.into(), ToCluster::Present { question, crowd: whole.clone() });
        for (_, payload) in node.take_records() {
            let Some(Incoming::Envelope { records, .. }) = record::read(&payload) else { panic!("an envelope") };
            let is_sketch = |record: &Record<'_>| matches!(record, Record::Present(told) if !told.sketch.is_empty());
            sketches += records.filter(is_sketch).count();
        }
        while !node.sent.is_empty() {
            node.answer_published(1);
        }
    }
    assert!((19..=21).contains(&sketches), "{sketches}");
    node.at(4 * CLUSTER_PRESENCE_MS_MAX);
    node.receive(&node.core.own_channel.clone(), &Record::PresentMore { number: 0 });
    node.hand_out();
    let presents = node.take_records().iter().filter(|(channel, _)| channel.contains(":node:0000000000000007")).count();
    assert_eq!(presents, 0, "it has waited too long");
}

#[test]
fn questions_wait_for_their_turn_and_askers_are_bounded() {
    let mut node = Node::connected();
    node.receive("p:all", &Record::Hello { node: 2, key: [9; 16], asks: false, vitals: Vitals::default() });
    let at_once = CLUSTER_PRESENT_OWED_BYTES_MAX / CLUSTER_PRESENT_BYTES;
    let rooms = at_once + 10;
    (0..rooms).for_each(|room| node.ask_about(&room.to_string(), "1"));
    let (_, asked) = node.home_answers(&no_member);
    assert_eq!(asked, at_once, "what these may bring is what may be on its way");
    node.answer_published(0);
    let (replies, asked) = node.home_answers(&no_member);
    assert_eq!((replies.len(), asked), (at_once, 10));
    let id = "9".repeat(1_000);
    let askers = CLUSTER_ASKERS_BYTES_MAX / (CLUSTER_ASKER_BYTES + id.len());
    (0..askers + 5).for_each(|_| node.ask_about("0", &id));
    let (replies, _) = node.home_answers(&no_member);
    let refused = replies.iter().filter(|reply| reply.starts_with("unavailable")).count();
    assert!((5..=6).contains(&refused), "{refused}");
}

#[test]
fn who_has_no_turn_in_time_is_told_so() {
    let mut node = Node::connected();
    node.receive("p:all", &Record::Hello { node: 2, key: [9; 16], asks: false, vitals: Vitals::default() });
    let at_once = CLUSTER_PRESENT_OWED_BYTES_MAX / CLUSTER_PRESENT_BYTES;
    (0..=at_once).for_each(|room| node.ask_about(&room.to_string(), "1"));
    // A node that hangs has got all of them.
    node.home_answers(&no_member);
    node.answer_published(1);
    node.at(CLUSTER_PRESENCE_MS_MAX / 2);
    node.ask_about("late", "1");
    node.at(CLUSTER_PRESENCE_MS_MAX + 1);
    let (replies, asked) = node.home_answers(&no_member);
    assert_eq!((replies.len(), asked), (at_once, 2), "it is not waited for, and the others' turn has come");
    node.core.check_invariants();
}

#[test]
fn a_node_that_hangs_is_not_waited_for() {
    let mut node = Node::connected();
    node.ask("1");
    node.home_answers(&no_member);
    node.answer_published(1);
    node.at(CLUSTER_PRESENCE_MS_MAX);
    assert_eq!(node.home_answers(&no_member).0.len(), 0);
    node.at(CLUSTER_PRESENCE_MS_MAX + 1);
    assert_eq!(node.home_answers(&no_member).0.len(), 1);
}

#[test]
fn a_fence_waits_for_who_is_in_a_room() {
    let mut node = Node::connected();
    node.ask("1");
    node.core.handle_mail(HOME.into(), ToCluster::Fence { member: conn(), rounds_left: 0 });
    assert_eq!(node.home_answers(&no_member), (vec![], 1));
    node.answer_published(0);
    let (told, _) = node.home_answers(&no_member);
    assert!(told.len() == 2 && told[0].starts_with("1 ") && told[1].contains("Fenced"), "{told:?}");
}

#[test]
fn who_is_asked_behind_the_end_of_a_subscription_answers_that_nobody_is_there() {
    let mut node = Node::connected();
    node.receive("p:room:{r}", &Record::Presence { number: 7, key: [1, 2], names: 5 });
    let [Command::Publish { channel, payload }] = &node.answer_published(1)[..] else { panic!("one message") };
    assert_eq!(**channel, *node.core.names.node(OTHER_RUN));
    let Some(Incoming::Envelope { mut records, .. }) = record::read(payload) else { panic!("an envelope") };
    let present = record::Present { number: 7, users: 0, more: false, names: b"", hashes: b"", sketch: b"" };
    assert_eq!(records.next(), Some(Record::Present(present)));
}

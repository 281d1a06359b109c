//! How many connections a user may have, over all reactors of a node and under any delivery of mail.

use super::*;

fn bound(max: usize, policy: UserConnectionsPolicy) -> Option<UserConnections> {
    Some(UserConnections { max, policy })
}

/// A node, and the connections that a test has made on it.
struct Crowd {
    node: Node,
    there: Vec<ConnId>,
    made: u32,
}

impl Crowd {
    fn new(reactors: u16, seed: u64, user_connections: Option<UserConnections>) -> Crowd {
        Crowd { node: Node::bounded(reactors, seed, NO_NOTICES, user_connections), there: Vec::new(), made: 0 }
    }

    fn connect(&mut self, reactor: u16, user: &str) -> ConnId {
        let conn = conn(reactor, self.made);
        self.made += 1;
        self.there.push(conn);
        self.node.with(reactor, |router, told| router.connect(conn, user, told));
        conn
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.there.retain(|there| *there != conn);
        self.node.with(conn.reactor.0, |router, told| router.disconnect(conn, told));
    }

    fn is_told(&self, conn: ConnId, what: &str) -> bool {
        self.node.told(conn).iter().any(|told| told == what)
    }

    /// What a reactor does with a connection that is to end.
    fn end_those_told(&mut self) {
        let is_over = |conn: &ConnId| self.is_told(*conn, "full") || self.is_told(*conn, "replaced");
        let over: Vec<ConnId> = self.there.iter().copied().filter(is_over).collect();
        over.into_iter().for_each(|conn| self.disconnect(conn));
    }

    fn rest(&mut self) {
        self.node.carry_all();
        self.end_those_told();
        self.node.carry_all();
    }

    /// Connections that are let in and are not to end.
    fn open(&self) -> Vec<ConnId> {
        let is_open = |conn: &&ConnId| self.is_told(**conn, "connected") && !self.is_told(**conn, "replaced");
        self.there.iter().filter(is_open).copied().collect()
    }
}

#[test]
fn one_more_than_a_user_may_have_is_refused_until_another_ends() {
    for seed in 0..20 {
        let mut crowd = Crowd::new(2, seed, bound(2, UserConnectionsPolicy::Refuse));
        let (first, second) = (crowd.connect(0, "alice"), crowd.connect(1, "alice"));
        crowd.rest();
        let refused = crowd.connect(1, "alice");
        let bob = crowd.connect(1, "bob");
        crowd.node.carry_all();
        // It is counted nowhere, though its reactor has not yet given it up.
        crowd.disconnect(first);
        crowd.node.carry_all();
        let third = crowd.connect(0, "alice");
        crowd.rest();
        assert_eq!(crowd.node.told(refused), ["full"]);
        assert_eq!(crowd.open(), [second, bob, third]);
    }
}

#[test]
fn the_oldest_connection_makes_room_for_one_more() {
    for seed in 0..20 {
        let mut crowd = Crowd::new(2, seed, bound(2, UserConnectionsPolicy::Replace));
        let all: Vec<ConnId> = (0..5)
            .map(|at| {
                let conn = crowd.connect(at % 2, "alice");
                crowd.rest();
                conn
            })
            .collect();
        for replaced in &all[..3] {
            assert_eq!(crowd.node.told(*replaced), ["connected", "replaced"]);
        }
        assert_eq!(crowd.open(), all[3..]);
        crowd.node.publish(all[0], TopicRef { kind: Kind::Inbox, name: "alice" }, "hello", false);
        crowd.node.carry_all();
        assert!(all[3..].iter().all(|conn| crowd.is_told(*conn, "hello")));
    }
}

#[test]
fn members_of_raw_rooms_are_no_users() {
    let mut crowd = Crowd::new(1, 1, bound(1, UserConnectionsPolicy::Refuse));
    for slot in 10..13 {
        crowd.node.with(0, |router, told| router.connect_raw(conn(0, slot), "alice", JoinReply::Silent, told));
    }
    crowd.rest();
    for slot in 10..13 {
        assert_eq!(crowd.node.told(conn(0, slot)), ["connected"]);
    }
}

#[derive(Clone, Debug)]
enum Act {
    Connect(u16, bool),
    Disconnect(usize),
    EndThoseTold,
    Carry(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0_u16..3, any::<bool>()).prop_map(|(reactor, alice)| Act::Connect(reactor, alice)),
        2 => (0_usize..100).prop_map(Act::Disconnect),
        1 => Just(Act::EndThoseTold),
        6 => (0_usize..9).prop_map(Act::Carry),
    ]
}

proptest! {
    #[test]
    fn no_user_has_more_connections_than_allowed(
        seed in 0_u64..50, max in 1_usize..4, replaces in any::<bool>(), acts in proptest::collection::vec(act(), 0..120),
    ) {
        let policy = if replaces { UserConnectionsPolicy::Replace } else { UserConnectionsPolicy::Refuse };
        let mut crowd = Crowd::new(3, seed, bound(max, policy));
        let mut names = BTreeMap::new();
        for act in acts {
            match act {
                Act::Connect(reactor, alice) => {
                    let user = if alice { "alice" } else { "bob" };
                    names.insert(crowd.connect(reactor, user), user);
                }
                Act::Disconnect(which) if !crowd.there.is_empty() => {
                    crowd.disconnect(crowd.there[which % crowd.there.len()]);
                }
                Act::Disconnect(_) => {}
                Act::EndThoseTold => crowd.end_those_told(),
                Act::Carry(choice) => _ = crowd.node.carry(choice),
            }
            for user in ["alice", "bob"] {
                let open = crowd.open().iter().filter(|conn| names[*conn] == user).count();
                prop_assert!(replaces || open <= max, "{user} has {open}");
            }
        }
        crowd.rest();
        for user in ["alice", "bob"] {
            let of_user = |conns: &[ConnId]| conns.iter().filter(|conn| names[*conn] == user).count();
            prop_assert!(of_user(&crowd.open()) <= max);
            // Whoever is there was let in: at rest nobody waits.
            prop_assert_eq!(of_user(&crowd.open()), of_user(&crowd.there));
        }
        for conn in crowd.there.clone() {
            crowd.disconnect(conn);
        }
        crowd.rest();
        prop_assert!(crowd.node.routers.iter().all(|router| router.topics_count() == 1), "nothing is left");
    }
}

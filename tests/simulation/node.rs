//! The node: its reactors, and what must hold for all of them together.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fanfare::ids::ClientIdCodec;
use fanfare::limits::HISTORY_PAGE_BYTES_MAX;
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{Inside, Rest, World, post_office_of, wakers};
use fanfare::reactor::{NodeState, Order, PostOffice};
use fanfare_simulated::seats::Seats;

use super::plan::Plan;

/// Pages of history that may be under way to a connection at once, and what one may hold beyond its bound.
const PAGES_MAX: usize = 5;
const LARGE_BYTES_MAX: usize = 80_000;

/// See the module's documentation.
pub struct Node {
    seats: Seats,
    office: PostOffice,
    metrics: Arc<NodeMetrics>,
}

impl Node {
    /// The node of a plan, before its first turn.
    pub fn new(plan: &Plan) -> Node {
        let world = World::new(plan.reactors, plan.seed);
        let metrics = Arc::new(NodeMetrics::new(plan.reactors));
        let (bells, wakes) = wakers(plan.reactors);
        let (office, mailboxes) = post_office_of(wakes, plan.parcels_max);
        let state = NodeState {
            metrics: metrics.clone(),
            codec: ClientIdCodec::new([7; 16], 0),
            seed: plan.seed.wrapping_mul(31),
            run: plan.seed,
        };
        let mut seats = Seats::new(world, mailboxes, bells, &plan.settings(), &state, plan.seed);
        if plan.history.is_some() {
            seats.permit_answers_of(PAGES_MAX * (HISTORY_PAGE_BYTES_MAX + LARGE_BYTES_MAX));
        }
        Node { seats, office, metrics }
    }

    /// Checks that nothing is left of anybody.
    pub fn check_empty(&self) {
        for (at, worker) in self.workers() {
            let expected = Inside { topics: 1, connections: 0, held_bytes: 0, backlog_bytes: 0, own_bytes: 0 };
            assert_eq!(worker.inside(), expected, "reactor {at}: everybody is gone, only everyone's topic is left");
        }
        self.check_places(0);
    }

    /// Checks the node's count of sockets and of connections against the one that should be.
    pub fn check_places(&self, places: usize) {
        let sockets = self.metrics.sockets.load(Ordering::Relaxed);
        let connections = self.metrics.connections.load(Ordering::Relaxed);
        assert_eq!((sockets, connections), (places, places), "the node's sockets and connections");
    }

    /// Tells all workers to drain.
    ///
    /// # Panics
    /// With `at_rest`, where one has something to do. An order waits for room in a mailbox, here for ever.
    pub fn drain(&mut self, at_rest: bool) {
        if at_rest {
            for (at, rest) in self.rests().enumerate() {
                assert!(matches!(rest, Some(Rest::Asleep(_))), "reactor {at} is at rest: {rest:?}");
            }
        }
        self.office.order(Order::Drain);
    }
}

impl Deref for Node {
    type Target = Seats;

    fn deref(&self) -> &Seats {
        &self.seats
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Seats {
        &mut self.seats
    }
}

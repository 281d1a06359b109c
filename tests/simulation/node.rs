//! The node: its reactors, and what must hold for all of them together.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use fanfare::ids::{ClientIdCodec, PeerId};
use fanfare::limits::HISTORY_PAGE_BYTES_MAX;
use fanfare::metrics::NodeMetrics;
use fanfare::reactor::sim::{Rest, World, post_office_of, wakers};
use fanfare::reactor::{NodeState, Order, PostOffice, Settings};
use fanfare_simulated::seats::Seats;

use super::plan::Plan;

/// Pages of history that may be under way to a connection at once, and what one may hold beyond its bound.
const PAGES_MAX: usize = 5;
const LARGE_BYTES_MAX: usize = 80_000;

/// See the module's documentation.
pub struct Node {
    seats: Seats,
    office: PostOffice,
}

impl Node {
    /// The node of a plan, before its first turn.
    pub fn new(plan: &Plan) -> Node {
        let mut node = Node::with(plan, &plan.settings());
        if plan.history.is_some() {
            node.permit_answers_of(PAGES_MAX * (HISTORY_PAGE_BYTES_MAX + LARGE_BYTES_MAX));
        }
        node
    }

    /// The same with other settings.
    pub fn with(plan: &Plan, settings: &Settings) -> Node {
        let world = World::new(plan.reactors, plan.seed);
        let (bells, wakes) = wakers(PeerId::reactors(plan.reactors as u16));
        let (office, mailboxes) = post_office_of(wakes, plan.parcels_max);
        let state = NodeState {
            metrics: Arc::new(NodeMetrics::new(plan.reactors)),
            codec: ClientIdCodec::new([7; 16], 0),
            seed: plan.seed.wrapping_mul(31),
            run: plan.seed,
        };
        let seats = Seats::new(world, mailboxes, bells, settings, &state, plan.seed);
        Node { seats, office }
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
        self.office.order(Order::Drain { within_ms: 10_000 });
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

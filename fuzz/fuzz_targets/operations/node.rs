//! The node of a script: what its workers are told to do.

use fanfare::reactor::Settings;
use fanfare::router::{NoticeSettings, RouterSettings};
use fanfare_seeds::script::{Hard, Script};
use fanfare_simulated::node::{Make, NEVER_MS, Node, calm};

/// Bytes of the answers that may go beyond a connection's share, more than in the simulations: five of the largest repeat a
/// long id.
const ANSWERS_BYTES_MAX: usize = 5 * 1_000;

/// The node of a script, before its first turn.
pub fn node(script: &Script) -> Node {
    let make = Make {
        reactors: script.reactors,
        seed: script.seed,
        small_mailboxes: script.hard.small_mailboxes,
        answers_bytes_max: ANSWERS_BYTES_MAX,
    };
    Node::new(make, &settings(script.hard))
}

fn settings(hard: Hard) -> Settings {
    let calm = calm();
    let calm_or = |ms| if hard.jumpy { ms } else { NEVER_MS };
    let notices = NoticeSettings { members_max: if hard.notices { 100 } else { 0 }, ..calm.router.notices.clone() };
    Settings {
        connections_max: if hard.few_places { 3 } else { calm.connections_max },
        handshake_ms_max: calm_or(1_000),
        heartbeat_ms: calm_or(3_000),
        outbox_bytes_max: if hard.tight_outbox { 2_000 } else { calm.outbox_bytes_max },
        outbox_age_ms_max: calm_or(2_000),
        outbox_node_bytes_max: if hard.tight_node { 4_000 } else { calm.outbox_node_bytes_max },
        router: RouterSettings {
            rooms_max: if hard.few_rooms { 2 } else { calm.router.rooms_max },
            notices,
            ..calm.router.clone()
        },
        ..calm
    }
}

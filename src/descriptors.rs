//! What a process's descriptors are for: pure arithmetic, which `server` obeys and `doctor` foretells.
//!
//! Connections get what the rest leaves. The rest is kept back, so that a node whose connections use everything still
//! has a descriptor to read a request with and one to say on that it lives. May import `limits`.

use crate::limits::{
    ADMIN_CONNECTIONS_MAX, API_CONNECTIONS_MAX, HANDSHAKES_SPARE, HEALTH_CONNECTIONS_MAX, HTTP_CONNECTIONS_MAX,
    OWN_DESCRIPTORS, REACTOR_DESCRIPTORS,
};

/// Descriptors beyond those of connections and the node's own, where there are enough.
const SPARE_MAX: u64 = (HANDSHAKES_SPARE + HTTP_CONNECTIONS_MAX) as u64 + HEALTH_TIMES * HEALTH_CONNECTIONS_MAX as u64;

/// What is kept at least, be it more than a quarter.
const SPARE_MIN: u64 = 2 + HEALTH_TIMES * HEALTH_MIN;

/// Those who ask about health, those who may, and as many of both that wait.
const HEALTH_TIMES: u64 = 4;

/// Less than one who is answered and one who asks would make balancers wait for each other.
const HEALTH_MIN: u64 = 2;

/// How the sockets of a node are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// WebSocket connections: what is configured, or what the descriptors allow.
    pub connections: u64,
    /// Sockets that are in their handshake or being refused.
    pub handshakes: u64,
    /// Plain HTTP, but for health.
    pub pages: u64,
    /// Health; as many that came when all others were taken; and as many of both that wait.
    pub health: u64,
}

/// Descriptors a node needs for itself, with so many addresses to listen on and so many [`extra_places`].
pub fn own(reactors: u64, addresses: u64, extra_places: u64) -> u64 {
    OWN_DESCRIPTORS + extra_places + reactors * (REACTOR_DESCRIPTORS + addresses)
}

/// Descriptors for those who ask plain HTTP on listeners of the operator's own, and of the API, where there are such.
pub fn extra_places(has_admin: bool, has_api: bool) -> u64 {
    let places = |has, places: usize| if has { places as u64 } else { 0 };
    places(has_admin, ADMIN_CONNECTIONS_MAX) + places(has_api, API_CONNECTIONS_MAX)
}

/// Divides what the process may have; at least a quarter of what is not the node's own, up to all that could be of use,
/// is kept from connections.
pub fn divide(descriptors: u64, own: u64, connections_max: u64) -> Shares {
    let free = descriptors.saturating_sub(own);
    let kept = free.div_ceil(4).clamp(SPARE_MIN, SPARE_MAX);
    let connections = connections_max.min(free.saturating_sub(kept));
    let spare = SPARE_MAX.min(free - connections);
    let health = (spare / 4 / HEALTH_TIMES).clamp(HEALTH_MIN, HEALTH_CONNECTIONS_MAX as u64);
    let others = spare.saturating_sub(HEALTH_TIMES * health);
    let pages = (spare / 4).min(others.saturating_sub(1)).clamp(1, HTTP_CONNECTIONS_MAX as u64);
    Shares { connections, handshakes: others.saturating_sub(pages).max(1), pages, health }
}

/// Descriptors that so many connections need, with all that is kept from them.
pub fn wanted(connections: u64, own: u64) -> u64 {
    connections + SPARE_MAX + own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_what_there_is() {
        for descriptors in (64..4_000).chain([20_000, 65_536, 1 << 20]) {
            for connections_max in [1, 100, 1_000, 100_000, 1_000_000] {
                let own = own(1, 1, 0);
                let shares = divide(descriptors, own, connections_max);
                let Shares { connections, handshakes, pages, health } = shares;
                assert!(connections <= connections_max);
                if descriptors > own + SPARE_MIN {
                    let all = own + connections + handshakes + pages + HEALTH_TIMES * health;
                    assert!(all <= descriptors, "{shares:?} of {descriptors}");
                    assert!(connections > 0 && handshakes > 0 && pages > 0 && health > 0, "{shares:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_wanted_is_enough_and_no_more_than_that() {
        for (connections, reactors) in [(1_000_000, 2), (10_000, 256), (5_000, 1)] {
            let own = own(reactors, 1, 0);
            let wanted = wanted(connections, own);
            let full = Shares { connections, handshakes: 1_024, pages: 256, health: 32 };
            assert_eq!(divide(wanted, own, connections), full);
            assert_eq!(divide(wanted - 1, own, connections), Shares { connections: connections - 1, ..full });
            assert_eq!(divide(u64::MAX, own, connections), full);
        }
    }

    #[test]
    fn few_descriptors_are_shared_and_too_few_carry_nobody() {
        assert_eq!(own(1, 2, extra_places(true, false)), 69 + ADMIN_CONNECTIONS_MAX as u64);
        assert_eq!(extra_places(true, true), (ADMIN_CONNECTIONS_MAX + API_CONNECTIONS_MAX) as u64);
        let own = own(1, 1, 0);
        assert_eq!(own, 68);
        assert_eq!(divide(1_024, own, 1_000_000), Shares { connections: 717, handshakes: 124, pages: 59, health: 14 });
        assert_eq!(divide(96, own, 1_000_000), Shares { connections: 18, handshakes: 1, pages: 1, health: 2 });
        assert_eq!(divide(69, own, 1_000_000).connections, 0);
        assert_eq!(divide(10, own, 1_000_000).connections, 0);
    }
}

//! Whose a connection is, as a node sees it through each proxy.

use std::net::Ipv4Addr;

use fanfare_testing::raw::{RawConn, status_of, upgrade_request};
use fanfare_testing::{Cluster, Front, Proxy, TlsTunnel, http_get};

const ALICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 5);
const BOB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 6);

/// One connection for each address on each node; nothing is exempt.
const ONE_EACH: &[&str] = &["--address.connections_max", "1", "--address.exempt", "192.0.2.0/24"];

/// The status that a client from this address gets, and its connection.
#[track_caller]
fn ask(front: &Front, source: Ipv4Addr, claims: &[(&str, &str)]) -> (u16, RawConn) {
    let tunnel = TlsTunnel::from(source, front.secured_addr(), front.certificates());
    let mut conn = RawConn::connect(&tunnel.addr());
    conn.send(upgrade_request("/ws", claims).as_bytes());
    (status_of(&conn.read_head()), conn)
}

#[test]
fn each_client_has_its_own_address_behind_every_proxy() {
    for proxy in Proxy::ALL {
        let cluster = Cluster::behind(proxy, ONE_EACH);
        let front = cluster.front();
        // One on each node.
        let open = [ask(front, ALICE, &[]), ask(front, ALICE, &[])];
        assert!(open.iter().all(|(status, _)| *status == 101), "{proxy:?}");
        assert_eq!(ask(front, ALICE, &[]).0, 429, "{proxy:?}");
        let (status, _bob) = ask(front, BOB, &[]);
        assert_eq!(status, 101, "{proxy:?}: another client has places of its own");
    }
}

/// What a client writes there does not make it another.
#[test]
fn no_client_chooses_its_address() {
    for proxy in Proxy::ALL {
        let cluster = Cluster::behind(proxy, ONE_EACH);
        let front = cluster.front();
        let _open = [ask(front, ALICE, &[]), ask(front, ALICE, &[])];
        for claim in ["192.0.2.1", "203.0.113.9", "127.0.0.1", "203.0.113.9, 127.0.0.1"] {
            for field in ["X-Forwarded-For", "Forwarded", "X-Real-IP"] {
                let status = ask(front, ALICE, &[(field, claim)]).0;
                assert_eq!(status, 429, "{proxy:?}: {field}: {claim}");
            }
        }
    }
}

#[test]
fn the_counters_stay_inside() {
    for proxy in Proxy::ALL {
        let cluster = Cluster::behind(proxy, &[]);
        let front = cluster.front().addr();
        for target in ["/metrics", "/stats", "/metrics?x=1"] {
            assert_eq!(http_get(&front, target).status, 404, "{proxy:?} {target}");
            assert_eq!(http_get(&cluster.at(0), target).status, 200, "the node itself has {target}");
        }
        for (target, status) in [("/", 200), ("/health/live", 200), ("/health/ready", 200), ("/nope", 404)] {
            assert_eq!(http_get(&front, target).status, status, "{proxy:?} {target}");
        }
    }
}

//! Strangers kept at bay, end to end: what one address may have of the node, which proxies are believed, how many
//! connections a user has, and what those hold who are no connection yet. Each case runs on one reactor and on two.

mod addresses;
mod beginning;
mod control_frames;
mod haproxy;
mod proxies;
mod proxy_protocol;
mod users;

use std::net::{Ipv4Addr, SocketAddr};

use fanfare_testing::raw::{RawConn, header_of, status_of, upgrade_request};
use fanfare_testing::{Server, eventually, http_get};

fanfare_testing::suite! {
    addresses:
        an_address_has_so_many_connections_on_all_reactors,
        sockets_without_a_request_are_bounded_for_each_address,
        handshakes_in_a_second_are_bounded_for_each_address,
        this_machine_is_exempt_unless_told_otherwise;
    proxies:
        a_trusted_proxy_names_the_client,
        what_others_say_about_the_client_is_not_heard,
        nginx_names_the_client,
        a_proxy_behind_a_unix_socket_is_trusted_by_name,
        a_refused_request_of_a_proxy_keeps_no_socket;
    proxy_protocol:
        a_header_names_the_client,
        a_header_may_come_in_pieces_and_with_everything_behind_it,
        what_is_no_header_ends_the_connection,
        only_trusted_proxies_may_connect_where_some_are,
        proxies_may_stand_in_front_of_each_other,
        what_an_unnamed_client_says_of_itself_is_not_heard,
        other_listeners_want_no_header;
    haproxy:
        haproxy_names_the_client;
    users:
        one_connection_more_is_told_why_and_closed,
        the_oldest_connection_makes_room,
        of_many_at_once_no_more_stay_than_allowed;
    control_frames:
        a_flood_of_pings_is_not_answered_and_ends,
        control_frames_take_from_the_rate,
        who_answers_our_pings_pays_nothing;
    beginning:
        the_oldest_without_a_request_makes_room,
        whoever_is_no_connection_yet_is_shed_first;
}

/// Loopback addresses to connect from.
const ALICE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const BOB: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// The status that a request for a connection gets, and the connection.
#[track_caller]
fn ask(source: Ipv4Addr, addr: SocketAddr, before: &[u8], fields: &[(&str, &str)]) -> (u16, RawConn) {
    ask_for("/", source, addr, before, fields)
}

/// The same for another target.
#[track_caller]
fn ask_for(target: &str, source: Ipv4Addr, addr: SocketAddr, before: &[u8], fields: &[(&str, &str)]) -> (u16, RawConn) {
    let mut conn = RawConn::connect_from(source, addr);
    conn.send(before);
    conn.send(upgrade_request(target, fields).as_bytes());
    let head = conn.read_head();
    let status = status_of(&head);
    if status == 429 {
        let seconds: u32 = header_of(&head, "Retry-After").expect("when to come back").parse().expect("seconds");
        assert!((1..=10).contains(&seconds), "{head}");
    }
    (status, conn)
}

/// Descriptors that the server has open.
fn descriptors(server: &Server) -> usize {
    let folder = format!("/proc/{}/fd", server.pid());
    std::fs::read_dir(folder).expect("the server runs").count()
}

/// How many were refused for a reason.
fn refused(server: &Server, reason: &str) -> u64 {
    let page = http_get(server, "/metrics").body;
    let label = format!("reason=\"{reason}\"");
    let samples = page.lines().filter(|line| line.starts_with("fanfare_refused_total{") && line.contains(&label));
    samples.map(|line| line.rsplit(' ').next().expect("a value").parse::<u64>().expect("a count")).sum()
}

/// Waits until so many were refused for a reason: a reactor publishes its counters at the end of a turn.
#[track_caller]
fn await_refused(server: &Server, reason: &str, expected: u64) {
    eventually(&format!("{expected} refused as {reason}"), || refused(server, reason) >= expected);
    assert_eq!(refused(server, reason), expected, "{reason}");
}

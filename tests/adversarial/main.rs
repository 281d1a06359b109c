//! Peers that break the rules, stop answering or never read, each beside clients that keep being served; and
//! what the process itself does at its start and its end. Failures that other servers are known for are in `tests/regressions`.

mod deflate;
mod floods;
mod framing;
mod handshakes;
mod health;
mod lifetime;
mod silence;

use fanfare_testing::{Client, Server};
use serde_json::json;

/// Two well-behaved clients that talk to each other between hostile acts.
struct Bystanders {
    speaker: Client,
    listener: Client,
    count: u64,
}

impl Bystanders {
    fn of(server: &Server) -> Bystanders {
        let speaker = Client::connect(server, "speaker");
        let mut listener = Client::connect(server, "listener");
        listener.join("bystanders");
        listener.expect_type("system");
        Bystanders { speaker, listener, count: 0 }
    }

    /// One message and its arrival, as the very next one.
    #[track_caller]
    fn are_served(&mut self) {
        self.count += 1;
        self.speaker.publish(json!({"type": "room_msg", "roomId": "bystanders", "content": self.count}));
        let message = self.listener.recv_type("room_msg");
        assert_eq!(message["content"], self.count);
    }
}

fanfare_testing::suite! {
    handshakes:
        half_a_handshake_is_ended,
        silence_before_the_handshake_is_ended,
        broken_requests_are_refused,
        what_is_no_head_is_refused_at_once;
    health:
        pages_that_nobody_reads_do_not_silence_health,
        connections_that_use_everything_do_not_silence_health;
    framing:
        protocol_errors_close_with_1002,
        a_bad_sequence_of_fragments_closes_with_1002,
        bad_close_codes_close_with_1002,
        bad_utf8_closes_with_1007,
        the_size_limit_is_exact,
        bad_commands_leave_the_connection_open;
    deflate:
        misplaced_marks_close_with_1002,
        malformed_messages_close_with_1007,
        endless_streams_in_one_message_close_with_1007,
        compressed_text_must_be_utf8,
        bad_utf8_in_a_compressed_fragment_closes_at_once,
        too_much_in_a_compressed_message_closes_with_1009;
    floods:
        ten_thousand_joins,
        a_slow_consumer_delays_nobody,
        a_slow_consumer_is_never_cut_inside_a_frame,
        many_half_open_connections;
    silence:
        a_client_that_answers_no_ping_is_gone,
        a_client_that_answers_stays;
    lifetime:
        sigterm_closes_with_1001,
        a_second_signal_leaves_at_once,
        a_drain_ends_with_its_timeout,
        a_drain_does_not_wait_for_half_a_handshake,
        an_end_right_behind_a_message_is_seen,
        ipv6_is_served,
        a_unix_socket_is_served;
}

#[test]
fn a_port_in_use_is_one_line() {
    lifetime::a_port_in_use_is_one_line();
}

#[test]
fn a_port_of_another_fanfare_is_in_use() {
    lifetime::a_port_of_another_fanfare_is_in_use();
}

#[test]
fn other_than_loopback_needs_open() {
    lifetime::other_than_loopback_needs_open();
}

//! The wire contract, end to end: the built binary against tungstenite's client, with compression beneath it where that
//! is what a case is about. One process with one reactor, one with two, one that is spoken to over TLS, the last two on io_uring
//! as well, two processes with a Redis between them to which the clients of a case connect in turn, and the same two behind
//! each proxy of `deploy/`.
//!
//! Every case is a function of the way it is served; the list at the end makes nine tests of each. What a proxy answers itself,
//! or changes, is served without one; what is by nature about one process is a function of its reactors. Both stand in lists of
//! their own with the reason.

mod compression;
mod connecting;
mod content;
mod decompression;
mod direct;
mod frames;
mod history;
mod offers;
mod order;
mod parting;
mod raw_rooms;
mod replies;
mod rooms;

use std::time::Instant;

use fanfare::reactor::uring::Uring;
use fanfare_testing::{Proxy, Way};

/// A case on io_uring, where this machine offers it.
fn on_ring(case: fn(Way), way: Way) {
    match Uring::new(Vec::new(), Instant::now()) {
        Ok(_) => case(way),
        Err(error) => eprintln!("not tested, there is no io_uring: {error}"),
    }
}

macro_rules! suite {
    (
        any_way { $($module:ident: $($case:ident),* $(,)?;)* }
        without_proxy { $($near:ident: $($near_case:ident = $near_reason:literal),* $(,)?;)* }
        one_process { $($own:ident: $($own_case:ident = $reason:literal),* $(,)?;)* }
    ) => {
        mod one_reactor {
            $($(#[test] fn $case() { super::$module::$case(super::Way::Reactors(1)); })*)*
            $($(#[doc = $near_reason] #[test] fn $near_case() { super::$near::$near_case(super::Way::Reactors(1)); })*)*
            $($(#[doc = $reason] #[test] fn $own_case() { super::$own::$own_case(1); })*)*
        }
        mod two_reactors {
            $($(#[test] fn $case() { super::$module::$case(super::Way::Reactors(2)); })*)*
            $($(#[doc = $near_reason] #[test] fn $near_case() { super::$near::$near_case(super::Way::Reactors(2)); })*)*
            $($(#[doc = $reason] #[test] fn $own_case() { super::$own::$own_case(2); })*)*
        }
        mod secured {
            $($(#[test] fn $case() { super::$module::$case(super::Way::Secured); })*)*
            $($(#[doc = $near_reason] #[test] fn $near_case() { super::$near::$near_case(super::Way::Secured); })*)*
        }
        mod on_ring {
            const WAY: super::Way = super::Way::OnRing { secured: false };
            $($(#[test] fn $case() { super::on_ring(super::$module::$case, WAY); })*)*
            $($(#[doc = $near_reason] #[test] fn $near_case() { super::on_ring(super::$near::$near_case, WAY); })*)*
        }
        mod secured_on_ring {
            const WAY: super::Way = super::Way::OnRing { secured: true };
            $($(#[test] fn $case() { super::on_ring(super::$module::$case, WAY); })*)*
            $($(#[doc = $near_reason] #[test] fn $near_case() { super::on_ring(super::$near::$near_case, WAY); })*)*
        }
        mod two_nodes {
            $($(#[test] fn $case() { super::$module::$case(super::Way::TwoNodes); })*)*
            $($(#[doc = $near_reason] #[test] fn $near_case() { super::$near::$near_case(super::Way::TwoNodes); })*)*
        }
        mod behind_nginx {
            $($(#[test] fn $case() { super::$module::$case(super::Way::Behind(super::Proxy::Nginx)); })*)*
        }
        mod behind_haproxy {
            $($(#[test] fn $case() { super::$module::$case(super::Way::Behind(super::Proxy::Haproxy)); })*)*
        }
        mod behind_caddy {
            $($(#[test] fn $case() { super::$module::$case(super::Way::Behind(super::Proxy::Caddy)); })*)*
        }
    };
}

suite! {
    any_way {
        history:
            messages_and_answers_carry_their_place,
            who_comes_back_gets_what_was_missed,
            what_is_gone_is_told_and_nothing_is_sent,
            a_late_joiner_gets_the_newest,
            members_read_pages,
            a_retry_with_the_same_key_is_one_message,
            an_inbox_is_resumed,
            what_is_too_old_is_gone,
            a_long_history_arrives_whole;
        connecting:
            welcome_names_client_user_and_heartbeat,
            heartbeat_is_the_configured_one,
            anonymous_user_id_is_the_client_id,
            user_ids_are_percent_decoded,
            bad_user_ids_are_refused,
            other_paths_are_not_found,
            only_our_subprotocol_is_echoed;
        direct:
            private_msg_reaches_every_connection_of_a_user,
            private_msg_to_oneself_reaches_the_sender_too,
            private_reaches_one_connection,
            private_to_a_gone_connection_reaches_nobody,
            publishing_to_nobody_is_no_error,
            broadcast_content_spares_the_sender,
            broadcast_data_reaches_the_sender_too,
            user_ids_are_escaped_in_events;
        rooms:
            join_and_leave_are_told,
            disconnect_leaves_every_room,
            joining_twice_is_joining_once,
            many_rooms_in_one_join,
            room_msg_spares_only_the_sending_connection,
            notices_are_per_connection,
            anyone_may_publish_in_open_mode,
            presence_counts_distinct_users,
            presence_lists_at_most_a_thousand,
            notices_can_be_turned_off,
            rooms_are_limited_per_connection;
        replies:
            ping_is_answered,
            protocol_ping_is_answered,
            ids_come_back_as_sent,
            every_command_with_an_id_has_one_reply,
            commands_without_id_have_no_ack,
            bad_json_is_told,
            unknown_types_are_told,
            missing_fields_are_told,
            bad_room_ids_are_told,
            since_as_a_member_is_refused,
            errors_about_a_room_name_it,
            what_is_for_keyed_rooms_is_refused_elsewhere,
            rates_are_limited,
            the_last_of_duplicate_keys_wins,
            escaped_keys_are_keys;
        content:
            content_passes_byte_for_byte,
            whitespace_around_members_is_accepted,
            nesting_is_limited_to_128,
            binary_messages_are_commands_too,
            long_content_passes;
        raw_rooms:
            raw_messages_keep_bytes_and_opcode,
            raw_echo_reaches_the_sender,
            an_echo_sends_back_each_message_and_nothing_else,
            raw_rooms_are_a_namespace_of_their_own,
            raw_room_names_are_percent_decoded,
            raw_rooms_keep_order;
        order:
            a_join_answered_misses_nothing;
        frames:
            messages_byte_by_byte,
            fragments_make_one_message,
            control_frames_between_fragments,
            a_close_is_answered_with_its_code;
        offers:
            offers_are_answered_word_for_word,
            clients_are_told_the_configured_window,
            the_first_acceptable_offer_is_taken,
            unacceptable_offers_leave_the_connection_plain,
            compression_can_be_turned_off;
        compression:
            messages_are_compressed_from_the_configured_size_on,
            what_does_not_become_smaller_comes_plain,
            replies_are_compressed;
        decompression:
            messages_may_refer_to_earlier_ones,
            messages_without_context_takeover,
            compressed_fragments_with_pings_between,
            streams_may_end_within_messages,
            empty_compressed_messages,
            clients_with_windows_of_every_size,
            commands_may_be_compressed,
            many_unfinished_compressed_messages,
            the_size_limit_counts_what_a_message_holds;
        parting:
            echoes_come_before_the_close,
            replies_come_before_the_close,
            nothing_counts_behind_the_last_word;
    }
    without_proxy {
        connecting:
            http_is_served_on_the_same_port =
                "The counters are for this machine, and the proxies keep them to it.",
            options_is_a_check =
                "nginx and Caddy answer `OPTIONS *` themselves.",
            a_handshake_without_its_upgrade_is_told_of_proxies =
                "nginx asks for the upgrade where a client has not, and keeps the connection open.",
            a_request_has_one_host =
                "Proxies refuse such a request themselves.";
        frames:
            many_messages_in_one_segment =
                "Caddy loses what a client sends before it is answered; RFC 6455 §4.1 has clients wait.";
    }
    one_process {
        connecting:
            connection_limit_answers_503 =
                "`limits.connections_max` counts the connections of a node.";
        rooms:
            notices_stop_above_the_limit =
                "`rooms.notice_members_max` counts the members on a node.";
        order:
            every_subscriber_sees_the_same_order =
                "Without history a room has one order on each node; tests/cluster has the rooms with it.";
        history:
            memory_is_bounded_over_all_rooms =
                "`history.memory_max` bounds what a node keeps itself.";
        offers:
            clients_beyond_the_contexts_must_not_refer_to_earlier_messages =
                "`deflate.contexts_max` bounds a node.",
            earlier_messages_are_bounded_in_bytes =
                "`deflate.memory_max` bounds a node.";
        compression:
            a_room_message_is_compressed_once_for_each_window =
                "A message is compressed once on each node.",
            nothing_is_compressed_for_plain_members =
                "It has a connection on each reactor.",
            nothing_is_compressed_for_its_own_sender =
                "It stops the process, so that several messages come in one turn.",
            a_member_of_a_compressed_batch_gets_none_of_its_own =
                "It stops the process, so that several messages come in one turn.",
            private_messages_and_broadcasts_are_compressed =
                "A message is compressed once on each node.",
            raw_rooms_are_compressed =
                "A message is compressed once on each node.",
            a_small_window_is_kept_to =
                "A message is compressed once on each node.",
            members_come_and_go =
                "It counts the reactors that tell of their compressions.";
        decompression:
            a_client_that_was_told_so_must_not_refer_back =
                "`deflate.contexts_max` bounds a node.",
            compressed_messages_cut_at_every_byte =
                "It has a connection on each reactor.";
    }
}

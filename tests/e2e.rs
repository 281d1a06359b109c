//! The wire contract, end to end: the built binary against tungstenite's client, with one reactor and with two.
//!
//! Every case is a function of the number of reactors; the list at the end makes two tests of each.

mod common;

#[path = "e2e/connecting.rs"]
mod connecting;
#[path = "e2e/content.rs"]
mod content;
#[path = "e2e/direct.rs"]
mod direct;
#[path = "e2e/frames.rs"]
mod frames;
#[path = "e2e/order.rs"]
mod order;
#[path = "e2e/raw_rooms.rs"]
mod raw_rooms;
#[path = "e2e/replies.rs"]
mod replies;
#[path = "e2e/rooms.rs"]
mod rooms;

macro_rules! suite {
    ($($module:ident: $($case:ident),* $(,)?;)*) => {
        mod one_reactor {
            $($(#[test] fn $case() { super::$module::$case(1); })*)*
        }
        mod two_reactors {
            $($(#[test] fn $case() { super::$module::$case(2); })*)*
        }
    };
}

suite! {
    connecting:
        welcome_names_client_user_and_heartbeat,
        heartbeat_is_the_configured_one,
        anonymous_user_id_is_the_client_id,
        user_ids_are_percent_decoded,
        bad_user_ids_are_refused,
        other_paths_are_not_found,
        only_our_subprotocol_is_echoed,
        connection_limit_answers_503,
        http_is_served_on_the_same_port;
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
        notices_stop_above_the_limit,
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
        raw_rooms_are_a_namespace_of_their_own,
        raw_room_names_are_percent_decoded,
        raw_rooms_keep_order;
    order:
        every_subscriber_sees_the_same_order,
        a_join_answered_misses_nothing;
    frames:
        many_messages_in_one_segment,
        messages_byte_by_byte,
        fragments_make_one_message,
        control_frames_between_fragments,
        a_close_is_answered_with_its_code;
}

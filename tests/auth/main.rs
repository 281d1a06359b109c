//! Tokens, end to end: the built binary with keys, against tungstenite's client and bytes of our own. Tokens are signed
//! here, with the cryptography alone. Each case runs on one reactor and on two.

mod entering;
mod open_mode;
mod permissions;
mod refresh;
mod tokens;

fanfare_testing::suite! {
    entering:
        a_token_names_the_user_wherever_it_stands,
        who_has_no_good_token_is_refused_and_told_how_to_get_one,
        anonymous_lets_in_who_has_no_token_and_nobody_with_a_bad_one,
        a_page_from_elsewhere_is_refused_before_its_token_is_looked_at,
        many_tokens_of_a_public_key_at_once,
        a_token_of_a_public_key_that_is_not_good;
    permissions:
        each_command_is_asked_for,
        of_many_rooms_those_that_are_forbidden_are_told_and_the_others_joined,
        publishing_needs_membership,
        raw_rooms_are_asked_for_by_their_name,
        the_tokens_rate_replaces_the_configured_one;
    refresh:
        other_permissions_are_in_force_at_once,
        what_is_no_good_token_changes_nothing,
        rooms_that_are_forbidden_are_left_before_the_answer,
        what_stands_behind_a_refresh_waits_for_it,
        a_token_that_ends_closes_its_connection,
        a_refresh_keeps_the_connection;
    open_mode:
        without_keys_tokens_mean_nothing,
        origins_are_asked_without_keys_where_they_are_set;
}

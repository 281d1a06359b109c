//! TLS of the built binary, against openssl, curl and rustls: versions, certificates, tickets, what is no TLS, and what it
//! must not be able to do to others. That every message arrives over it is what `e2e` shows.

mod certificates;
mod peers;
mod refusing;
mod serving;

fanfare_testing::suite! {
    serving:
        both_versions_serve_pages_and_upgrades,
        older_versions_and_weak_ciphers_are_refused,
        a_ticket_resumes_a_session,
        http_2_or_1_1_is_what_is_spoken_behind_it,
        pages_and_health_are_served_on_the_same_port,
        one_port_may_be_plain_and_another_not;
    certificates:
        the_name_asked_for_chooses_the_certificate,
        a_client_certificate_is_its_user,
        who_has_to_have_a_certificate_does_not_get_in_without,
        a_certificate_gets_in_where_tokens_are_asked_for,
        the_backend_is_told_whose_certificate_it_is,
        a_reload_shows_new_certificates_and_drops_nobody;
    refusing:
        a_client_without_tls_is_told_so,
        a_handshake_has_its_time,
        a_stalled_reader_is_a_slow_consumer_and_others_are_not_held_up,
        what_is_no_handshake_costs_its_connection_alone,
        a_certificate_that_is_not_there_is_told;
}

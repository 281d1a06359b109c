//! What is agreed on about compression: the handshake's answer to each kind of offer, word for word.

use fanfare_testing::deflate::{Packer, RSV1};
use fanfare_testing::raw::{RawConn, TEXT};
use fanfare_testing::{Entrance, Server, Way, await_metric};
use serde_json::{Value, json};

/// What every answer begins with.
const AGREED: &str = "permessage-deflate; server_no_context_takeover";

/// Offers that no server may accept, or that this one declines.
const UNACCEPTABLE: [&str; 24] = [
    "",
    "x-webkit-deflate-frame",
    "permessage-deflates",
    "permessage-bzip2; server_max_window_bits=10",
    "permessage-deflate; unknown",
    "permessage-deflate; unknown=1",
    "permessage-deflate; server_max_window_bits",
    "permessage-deflate; server_max_window_bits=",
    "permessage-deflate; server_max_window_bits=7",
    "permessage-deflate; server_max_window_bits=8",
    "permessage-deflate; server_max_window_bits=16",
    "permessage-deflate; server_max_window_bits=010",
    "permessage-deflate; server_max_window_bits=+10",
    "permessage-deflate; server_max_window_bits=x",
    "permessage-deflate; server_max_window_bits=266",
    "permessage-deflate; client_max_window_bits=",
    "permessage-deflate; client_max_window_bits=8",
    "permessage-deflate; client_max_window_bits=16",
    "permessage-deflate; server_no_context_takeover=1",
    "permessage-deflate; client_no_context_takeover=true",
    "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
    "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; client_max_window_bits; client_max_window_bits",
    "permessage-deflate; server_max_window_bits=10; server_max_window_bits=11",
];

pub fn offers_are_answered_word_for_word(way: Way) {
    let server = way.start(&[]);
    for (offer, rest) in [
        ("permessage-deflate", ""),
        ("PerMessage-Deflate", ""),
        ("permessage-deflate; server_no_context_takeover", ""),
        ("permessage-deflate;server_no_context_takeover", ""),
        ("permessage-deflate; client_no_context_takeover", "; client_no_context_takeover"),
        ("permessage-deflate; server_max_window_bits=9", "; server_max_window_bits=9"),
        ("permessage-deflate; server_max_window_bits=15", "; server_max_window_bits=15"),
        ("permessage-deflate; server_max_window_bits=\"10\"", "; server_max_window_bits=10"),
        ("permessage-deflate; client_max_window_bits", "; client_max_window_bits=12"),
        ("permessage-deflate; client_max_window_bits=9", "; client_max_window_bits=9"),
        ("permessage-deflate; client_max_window_bits=12", "; client_max_window_bits=12"),
        ("permessage-deflate; client_max_window_bits=15", "; client_max_window_bits=12"),
        (
            "permessage-deflate ; client_max_window_bits = 11 ; CLIENT_NO_CONTEXT_TAKEOVER",
            "; client_no_context_takeover; client_max_window_bits=11",
        ),
        (
            "permessage-deflate; client_max_window_bits; server_max_window_bits=11; client_no_context_takeover; \
             server_no_context_takeover",
            "; client_no_context_takeover; server_max_window_bits=11; client_max_window_bits=12",
        ),
    ] {
        for target in ["/?userId=alice", "/raw/den"] {
            let (_conn, answer) = RawConn::offer(&server, target, &[offer]);
            assert_eq!(answer.as_deref(), Some(format!("{AGREED}{rest}").as_str()), "{offer} on {target}");
        }
    }
    let (_conn, answer) = RawConn::offer(&server, "/", &[]);
    assert_eq!(answer, None, "nothing was offered");
}

pub fn clients_are_told_the_configured_window(way: Way) {
    for bits in [9, 15] {
        let server = way.start(&["--deflate.client_window_bits", &bits.to_string()]);
        for (offer, told) in [
            ("permessage-deflate", String::new()),
            ("permessage-deflate; client_max_window_bits", format!("; client_max_window_bits={bits}")),
            ("permessage-deflate; client_max_window_bits=15", format!("; client_max_window_bits={bits}")),
            ("permessage-deflate; client_max_window_bits=9", "; client_max_window_bits=9".to_owned()),
        ] {
            let (_conn, answer) = RawConn::offer(&server, "/", &[offer]);
            assert_eq!(answer, Some(format!("{AGREED}{told}")), "{offer}");
        }
    }
}

pub fn the_first_acceptable_offer_is_taken(way: Way) {
    let server = way.start(&[]);
    let offers: [(&[&str], &str); 8] = [
        (&["permessage-deflate, permessage-deflate; server_max_window_bits=10"], ""),
        (&["permessage-deflate; server_max_window_bits=10, permessage-deflate"], "; server_max_window_bits=10"),
        (&["permessage-deflate; server_max_window_bits=8, permessage-deflate"], ""),
        (&["permessage-deflate; client_max_window_bits; mistake, x-other; a=b, permessage-deflate"], ""),
        (
            &["x-other; quoted=\"a, permessage-deflate\", permessage-deflate; client_max_window_bits=10"],
            "; client_max_window_bits=10",
        ),
        (
            &["x-other", "permessage-deflate; server_max_window_bits=11", "permessage-deflate"],
            "; server_max_window_bits=11",
        ),
        (
            &["permessage-deflate; server_max_window_bits=16", "permessage-deflate; server_max_window_bits=9"],
            "; server_max_window_bits=9",
        ),
        (&["", " , ,permessage-deflate; client_no_context_takeover"], "; client_no_context_takeover"),
    ];
    for (fields, rest) in offers {
        let (_conn, answer) = RawConn::offer(&server, "/", fields);
        assert_eq!(answer, Some(format!("{AGREED}{rest}")), "{fields:?}");
    }
}

pub fn unacceptable_offers_leave_the_connection_plain(way: Way) {
    let server = way.start(&["--deflate.min_bytes", "0"]);
    for offer in UNACCEPTABLE {
        let (conn, answer) = RawConn::offer(&server, "/?userId=alice", &[offer]);
        assert_eq!(answer, None, "{offer}");
        is_plain(conn, offer);
    }
    let (conn, answer) = RawConn::offer(&server, "/?userId=alice", &UNACCEPTABLE);
    assert_eq!(answer, None, "all of them together");
    is_plain(conn, "all of them together");
    await_metric(&server, "fanfare_compressions_total", 0);
    await_metric(&server, "fanfare_deflate_contexts", 0);
}

pub fn compression_can_be_turned_off(way: Way) {
    let server = way.start(&["--deflate.enabled", "false", "--deflate.min_bytes", "0"]);
    for offer in ["permessage-deflate", "permessage-deflate; client_max_window_bits; server_max_window_bits=9"] {
        let (conn, answer) = RawConn::offer(&server, "/?userId=alice", &[offer]);
        assert_eq!(answer, None, "{offer}");
        is_plain(conn, offer);
    }
    await_metric(&server, "fanfare_compressions_total", 0);
}

pub fn clients_beyond_the_contexts_must_not_refer_to_earlier_messages(reactors: usize) {
    let without = "; client_no_context_takeover";
    let server = Server::with_reactors(reactors, &["--deflate.contexts_max", "0"]);
    assert_eq!(rest_of_answer(&server, "permessage-deflate").1, without);
    assert_eq!(
        rest_of_answer(&server, "permessage-deflate; client_max_window_bits=10").1,
        format!("{without}; client_max_window_bits=10")
    );

    let server = Server::with_reactors(reactors, &["--deflate.contexts_max", "1"]);
    let unasked = rest_of_answer(&server, "permessage-deflate; client_no_context_takeover");
    assert_eq!(unasked.1, without);
    await_metric(&server, "fanfare_deflate_contexts", 0);
    for goodbye in [true, false] {
        let (mut first, rest) = rest_of_answer(&server, "permessage-deflate");
        assert_eq!(rest, "", "the place is free");
        await_metric(&server, "fanfare_deflate_contexts", 1);
        await_metric(&server, "fanfare_deflate_context_bytes", 32_768);
        let second = rest_of_answer(&server, "permessage-deflate");
        assert_eq!(second.1, without, "the place is taken");
        drop(second);
        await_metric(&server, "fanfare_connections", 2);
        assert_eq!(rest_of_answer(&server, "permessage-deflate").1, without, "the second one had none to give back");
        if goodbye {
            first.send_frame(fanfare_testing::raw::CLOSE, &1000_u16.to_be_bytes());
            first.expect_close(1000, "the first one leaves");
        } else {
            drop(first);
        }
        await_metric(&server, "fanfare_deflate_contexts", 0);
        await_metric(&server, "fanfare_deflate_context_bytes", 0);
    }
}

pub fn earlier_messages_are_bounded_in_bytes(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--deflate.memory_max", "40KiB"]);
    let (_large, rest) = rest_of_answer(&server, "permessage-deflate");
    assert_eq!(rest, "", "32 KiB of 40");
    let (_refused, rest) = rest_of_answer(&server, "permessage-deflate");
    assert_eq!(rest, "; client_no_context_takeover", "64 KiB of 40");
    let small = "permessage-deflate; client_max_window_bits";
    let (first, rest) = rest_of_answer(&server, small);
    assert_eq!(rest, "; client_max_window_bits=12", "36 KiB of 40");
    let (_second, rest) = rest_of_answer(&server, small);
    assert_eq!(rest, "; client_max_window_bits=12", "40 KiB of 40");
    let (_third, rest) = rest_of_answer(&server, "permessage-deflate; client_max_window_bits=9");
    assert_eq!(rest, "; client_no_context_takeover; client_max_window_bits=9", "40.5 KiB of 40");
    await_metric(&server, "fanfare_deflate_contexts", 3);
    await_metric(&server, "fanfare_deflate_context_bytes", 40_960);
    drop(first);
    await_metric(&server, "fanfare_deflate_context_bytes", 36_864);
    let (_fourth, rest) = rest_of_answer(&server, small);
    assert_eq!(rest, "; client_max_window_bits=12", "40 KiB of 40 again");
}

/// Connects with an offer that the server must take; what follows the common beginning of its answer.
#[track_caller]
fn rest_of_answer(server: &dyn Entrance, offer: &str) -> (RawConn, String) {
    let (conn, answer) = RawConn::offer(server, "/raw/den", &[offer]);
    let answer = answer.unwrap_or_else(|| panic!("the server should take {offer}"));
    let rest = answer.strip_prefix(AGREED).unwrap_or_else(|| panic!("{answer} for {offer}"));
    (conn, rest.to_owned())
}

/// A JSON connection works, gets nothing compressed, and may send nothing compressed.
#[track_caller]
fn is_plain(mut conn: RawConn, what: &str) {
    let welcome: Value = serde_json::from_str(&conn.read_text()).expect("a welcome");
    assert_eq!(welcome["type"], "welcome", "{what}");
    let id = "i".repeat(1_000);
    conn.send_frame(TEXT, json!({"type": "ping", "id": id}).to_string().as_bytes());
    let reply: Value = serde_json::from_str(&conn.read_text()).expect("a reply");
    assert_eq!(reply, json!({"type": "pong", "id": id}), "{what}");
    conn.send_frame(TEXT | RSV1, &Packer::new(15, false).pack(br#"{"type":"ping"}"#));
    conn.expect_close(1002, what);
}

//! What a log must not know.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fanfare_testing::raw::{BINARY, CLOSE, PING, RawConn, TEXT, status_of, upgrade_request};
use fanfare_testing::{PATIENCE, Server, http_get};

/// A word that stands in everything secret below, and that no log line would use by itself.
const SECRET: &str = "zqxsecret";

/// Browsers cannot set headers on a WebSocket, so tokens travel in its URL; uvicorn writes that URL into its log, query
/// and all, as many do. Jupyter Server logged cookies and, years later, URLs in the `Referer` of requests that
/// failed (CVE-2022-24757, CVE-2026-86049). Here no line, at any level, has anything of a URL, a header or a message.
#[test]
fn cve_2022_24757_nothing_of_a_request_or_a_message_is_logged() {
    for format in ["human", "json"] {
        let server = Server::with_log("trace", &["--log", format, "--limits.message_bytes_max", "4KiB"]);
        whisper_to_the_upgrade(&server);
        whisper_in_messages(&server);
        whisper_in_plain_http(&server);
        let log = settled_log(&server, "plain HTTP connection failed");
        // Everything from the first line on is there, and debugging was on.
        for said in ["serving", "closing", "protocol_error", "too_big", "plain HTTP connection failed"] {
            assert!(log.contains(said), "{format}: no `{said}` in {log}");
        }
        // As text in any case, or as a list of bytes.
        let lower = log.to_lowercase();
        let bytes = format!("{:?}", SECRET.as_bytes());
        assert_eq!(lower.matches(SECRET).count(), 0, "{format}: {log}");
        assert_eq!(lower.matches(bytes.trim_matches(['[', ']'])).count(), 0, "{format}: {log}");
        let page = http_get(&server, "/metrics").body + &http_get(&server, "/stats").body;
        assert_eq!(page.to_lowercase().matches(SECRET).count(), 0, "{page}");
    }
}

/// Requests to upgrade, good and bad.
fn whisper_to_the_upgrade(server: &Server) {
    let target = format!("/?token={SECRET}&userId={SECRET}");
    let headers = [
        ("Cookie", format!("session={SECRET}")),
        ("Authorization", format!("Bearer {SECRET}")),
        ("Sec-WebSocket-Protocol", format!("bearer.{SECRET}, fanfare.v1")),
        ("Origin", format!("https://{SECRET}.example")),
        ("Referer", format!("https://example/?token={SECRET}")),
    ];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let good = upgrade_request(&target, &headers);
    let filler = SECRET.repeat(2_000);
    let requests = [
        (good.clone(), 101),
        (upgrade_request(&format!("/raw/{SECRET}?token={SECRET}"), &headers), 101),
        (good.replace("Version: 13", "Version: 8"), 426),
        (good.replace("GET ", "POST "), 400),
        (upgrade_request(&format!("/{SECRET}/?token={SECRET}"), &headers), 404),
        (upgrade_request(&format!("/?userId={SECRET}%zz"), &headers), 400),
        (upgrade_request(&target, &[("X-Filler", &filler)]), 431),
        (format!("{SECRET}\0\r\n\r\n"), 400),
    ];
    let mut statuses = BTreeSet::new();
    for (request, status) in requests {
        let mut conn = RawConn::connect(server);
        // The server may close before it has read all of it.
        conn.try_send(request.as_bytes());
        assert_eq!(status_of(&conn.read_head()), status, "{}", request.escape_debug());
        statuses.insert(status);
    }
    assert_eq!(statuses.len(), 5);
}

/// Messages, good and bad, each of the bad ones on a connection of its own.
fn whisper_in_messages(server: &Server) {
    let mut conn = RawConn::connect_as(server, SECRET);
    for text in [
        format!(r#"{{"type":"join_room","roomId":"{SECRET}","id":"{SECRET}"}}"#),
        format!(r#"{{"type":"room_msg","roomId":"{SECRET}","content":"{SECRET}"}}"#),
        format!(r#"{{"type":"private_msg","toUser":"{SECRET}","content":"{SECRET}"}}"#),
        format!(r#"{{"type":"{SECRET}"}}"#),
        format!("{SECRET} is no JSON"),
    ] {
        conn.send_frame(TEXT, text.as_bytes());
        assert!(conn.read_text().starts_with('{'), "an answer to {text}");
    }
    conn.send_frame(PING, SECRET.as_bytes());
    let goodbye = [&1000_u16.to_be_bytes(), SECRET.as_bytes()].concat();
    conn.send_frame(CLOSE, &goodbye);
    conn.expect_close(1000, "a goodbye");
    let endings: [(u16, u8, Vec<u8>); 4] = [
        (1002, BINARY | 0x20, SECRET.into()),
        (1002, CLOSE, [&999_u16.to_be_bytes(), SECRET.as_bytes()].concat()),
        (1007, TEXT, [SECRET.as_bytes(), b"\xFF"].concat()),
        (1009, TEXT, SECRET.repeat(1_000).into()),
    ];
    for (code, first, payload) in endings {
        let mut conn = RawConn::upgrade(server, &format!("/raw/{SECRET}"));
        conn.send_frame(first, &payload);
        conn.expect_close(code, "a broken rule");
    }
}

/// Requests for the control thread: one that it serves, and one that its library refuses.
fn whisper_in_plain_http(server: &Server) {
    for (header, status) in [(format!("Cookie: {SECRET}"), 404), (format!("Content-Length: {SECRET}"), 400)] {
        let mut conn = RawConn::connect(server);
        conn.send(format!("GET /{SECRET}?token={SECRET} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n").as_bytes());
        assert_eq!(status_of(&conn.read_head()), status, "{header}");
    }
}

/// The log once `last` has come: it is read by another thread.
fn settled_log(server: &Server, last: &str) -> String {
    let deadline = Instant::now() + PATIENCE;
    while !server.log().contains(last) {
        assert!(Instant::now() < deadline, "no `{last}` in {}", server.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    server.log()
}

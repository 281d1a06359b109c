use super::*;
use proptest::prelude::*;

const LIMITS: HeadLimits = HeadLimits { bytes_max: 8192, headers_max: 64 };

fn request(target: &str, extra: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
}

#[test]
fn the_rfcs_own_example() {
    let Ok(Head::Upgrade(upgrade)) = parse_head(request("/", "").as_bytes(), LIMITS) else { panic!() };
    assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let mut out = Vec::new();
    write_upgrade(&mut out, &upgrade, None);
    assert!(out.starts_with(b"HTTP/1.1 101 ") && out.ends_with(b"\r\n\r\n"));
    assert!(!String::from_utf8(out).unwrap().contains("Protocol:"));
}

/// Found by fuzzing: other white space than a field may have around its value (RFC 9110 §5.6.3) was taken away.
#[test]
fn white_space_is_spaces_and_tabs() {
    let version = |text: &str| parse_head(request("/", "").replace("13", text).as_bytes(), LIMITS);
    assert!(matches!(version("\t13 \t"), Ok(Head::Upgrade(_))));
    assert_eq!(version("13\u{a0}"), Err(HttpRefusal::Version));
}

#[test]
fn each_rule_of_the_handshake_is_checked() {
    let without = |field: &str| {
        let text = request("/", "");
        let lines: Vec<&str> = text.split("\r\n").filter(|line| !line.starts_with(field)).collect();
        parse_head(lines.join("\r\n").as_bytes(), LIMITS)
    };
    for field in ["Upgrade", "Connection"] {
        assert_eq!(without(field), Err(HttpRefusal::UpgradeLost), "{field}");
    }
    for field in ["Host", "Sec-WebSocket-Key"] {
        assert!(matches!(without(field), Err(HttpRefusal::Bad(_))), "{field}");
    }
    assert_eq!(without("Sec-WebSocket-Version"), Err(HttpRefusal::Version));
    for extra in
        ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n"]
    {
        assert!(matches!(parse_head(request("/", extra).as_bytes(), LIMITS), Err(HttpRefusal::Bad(_))), "{extra}");
    }
    let post = request("/", "").replace("GET", "POST");
    assert!(matches!(parse_head(post.as_bytes(), LIMITS), Err(HttpRefusal::Bad(_))));
    assert!(matches!(parse_head(b"PRI * HTTP/2.0\r\n\r\n", LIMITS), Err(HttpRefusal::Bad(_))));
    assert_eq!(parse_head(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", LIMITS), Ok(Head::Http));
}

/// A proxy that does not know of WebSocket passes the key on, and neither the upgrade nor, as nginx does by itself,
/// the version of HTTP.
#[test]
fn a_handshake_without_its_upgrade_is_told_so_wherever_it_was_sent() {
    let refused = |head: &str| parse_head(head.as_bytes(), LIMITS);
    let good = request("/", "");
    for target in ["/", "/ws", "/raw/x", "/raw/a/b", "/nowhere", "http://x/ws"] {
        let without = request(target, "").replace("Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n", "");
        assert_eq!(refused(&without), Err(HttpRefusal::UpgradeLost), "{target}");
    }
    for (from, to) in [
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("keep-alive, Upgrade", "close"),
        ("HTTP/1.1", "HTTP/1.0"),
        ("keep-alive, Upgrade\r\n", "keep-alive\r\nSec-WebSocket-Key: \r\n"),
    ] {
        assert_eq!(refused(&good.replace(from, to)), Err(HttpRefusal::UpgradeLost), "{to}");
    }
}

#[test]
fn a_request_has_one_host() {
    let plain = |fields: &str| parse_head(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes(), LIMITS);
    for good in ["Host:\r\n", "host: x:80\r\n", "Host: [::1]:8080\r\n", "HOST: a_b.example\r\n"] {
        assert_eq!(plain(good), Ok(Head::Http), "{good}");
    }
    for bad in
        ["", "Host: x\r\nHost: x\r\n", "Host: x\r\nhost: y\r\n", "Host: x, y\r\n", "Host: x/\r\n", "Host: a@x\r\n"]
    {
        assert!(matches!(plain(bad), Err(HttpRefusal::Bad(_))), "{bad}");
        let upgrade = request("/", "").replace("Host: x\r\n", bad);
        assert!(matches!(parse_head(upgrade.as_bytes(), LIMITS), Err(HttpRefusal::Bad(_))), "{bad}");
    }
    // A balancer's check; HTTP/1.0 knows no hosts.
    assert_eq!(parse_head(b"OPTIONS / HTTP/1.0\r\n\r\n", LIMITS), Ok(Head::Http));
    assert_eq!(parse_head(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", LIMITS), Ok(Head::Http));
}

/// Once it was waited for an end that could not come, and once what stood between two ends was passed over (found by
/// fuzzing).
#[test]
fn what_cannot_become_a_head_is_refused_with_the_byte_that_shows_it() {
    for (bytes, shows_at) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], 1),
        (b"\x80\x2e\x01", 1),
        (b"\x81\x85", 1),
        (b"\0", 1),
        (b" GET / HTTP/1.1\r\n", 1),
        (b"\nGET / HTTP/1.1\r\n", 1),
        (b"GET / HTTP/1.1\nHost: x\n\n", 15),
        (b"GET / HTTP/1.1\r\nHost: x\n\r\n", 24),
        (b"GET / HTTP/1.1\r\n\n", 17),
    ] {
        let mut reader = HeadReader::default();
        let mut pushed = bytes.iter().map(|byte| reader.push(&[*byte], LIMITS));
        let refused_at = pushed.position(|pushed| matches!(pushed, Err(HttpRefusal::Bad(_)))).map(|at| at + 1);
        assert_eq!(refused_at, Some(shows_at), "{}", bytes.escape_ascii());
        assert!(matches!(HeadReader::default().push(bytes, LIMITS), Err(HttpRefusal::Bad(_))));
    }
    let mut first = HeadReader::default();
    assert_eq!(first.push(b"\r\nGET / HTTP/1.1\r\n", LIMITS), Ok(None), "an empty line may stand in front");
}

#[test]
fn only_our_subprotocol_is_selected() {
    for (offer, selected) in [("chat", false), ("fanfare.v1", true), ("bearer.x.y, fanfare.v1", true)] {
        let head = request("/", &format!("Sec-WebSocket-Protocol: {offer}\r\n"));
        let Ok(Head::Upgrade(upgrade)) = parse_head(head.as_bytes(), LIMITS) else { panic!() };
        assert_eq!(upgrade.subprotocol, selected, "{offer}");
    }
}

#[test]
fn a_token_is_found_wherever_it_may_stand() {
    let shown = |target: &str, extra: &str| {
        let head = request(target, extra);
        let parsed = parse_head_named(head.as_bytes(), LIMITS, Naming::Token);
        let Ok(Head::Upgrade(upgrade)) = parsed else { panic!("{target} {extra}: {parsed:?}") };
        upgrade.credentials.unwrap().token
    };
    let token = |token: &str| Presented::Token(token.to_owned());
    for (target, extra, expected) in [
        ("/", "", Presented::Nothing),
        ("/?token=a.b", "", token("a.b")),
        ("/ws?x&token=a%2Eb", "", token("a.b")),
        ("/raw/r?echo=1&token=a", "", token("a")),
        ("/?token=", "", token("")),
        ("/?token=%zz", "", token("%zz")),
        ("/", "Authorization: Bearer a.b\r\n", token("a.b")),
        ("/", "authorization: bearer  a.b \r\n", token("a.b")),
        ("/", "Authorization: Bearer\r\n", token("")),
        ("/", "Authorization: Basic YTpi\r\n", Presented::Nothing),
        ("/", "Sec-WebSocket-Protocol: fanfare.v1, bearer.a.b\r\n", token("a.b")),
        ("/?token=a", "Authorization: Bearer a\r\nSec-WebSocket-Protocol: bearer.a\r\n", token("a")),
        ("/?token=a", "Authorization: Bearer b\r\n", Presented::Several),
        ("/?token=a&token=b", "", Presented::Several),
        ("/", "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", Presented::Several),
        ("/", "Sec-WebSocket-Protocol: bearer.a, bearer.b, bearer.a\r\n", Presented::Several),
    ] {
        assert!(shown(target, extra) == expected, "{target} {extra}");
    }
    assert!(matches!(
        parse_head(request("/?token=a", "").as_bytes(), LIMITS),
        Ok(Head::Upgrade(Upgrade { credentials: None, .. }))
    ));
}

#[test]
fn what_names_itself_by_credentials_has_no_user_by_its_own_word() {
    for target in ["/?userId=alice", "/?userId=", "/ws?userId=%FF"] {
        let head = request(target, "Origin: https://a.example\r\n");
        let Ok(Head::Upgrade(upgrade)) = parse_head_named(head.as_bytes(), LIMITS, Naming::Token) else {
            panic!("{target}")
        };
        assert_eq!(upgrade.target, Target::Json { user: None });
        let credentials = upgrade.credentials.unwrap();
        assert_eq!((credentials.origin.as_deref(), &*credentials.host), (Some("https://a.example"), "x"));
    }
    let two = request("/", "Origin: https://a.example\r\nOrigin: https://b.example\r\n");
    let Ok(Head::Upgrade(upgrade)) = parse_head_named(two.as_bytes(), LIMITS, Naming::Token) else { panic!() };
    assert_eq!(upgrade.credentials.unwrap().origin.as_deref(), Some("https://a.example,https://b.example"));
}

#[test]
fn only_fields_that_are_named_are_passed_on_and_they_never_show() {
    let extra = "Cookie: a=secret\r\nX-Other: secret\r\ncookie: b=secret\r\nX-Session: \u{e9}\r\n";
    let head = request("/", extra);
    let names = ["cookie", "x-session", "x-missing"].map(str::to_owned);
    let parsed =
        parse_head_by(head.as_bytes(), LIMITS, &HeadRules { naming: Naming::Token, forward: &names, echo: &[] });
    let Ok(Head::Upgrade(upgrade)) = parsed else { panic!("{parsed:?}") };
    assert!(!format!("{upgrade:?}").contains("secret"));
    let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let expected = [field("cookie", "a=secret"), field("cookie", "b=secret"), field("x-session", "\u{e9}")];
    assert_eq!(upgrade.credentials.unwrap().forwarded.0, expected);
}

#[test]
fn a_token_never_shows() {
    let head = request("/?token=secret", "");
    let upgrade = parse_head_named(head.as_bytes(), LIMITS, Naming::Token);
    assert!(!format!("{upgrade:?}").contains("secret"));
}

#[test]
#[cfg_attr(miri, ignore = "searches a megabyte")]
fn heads_are_bounded_in_bytes_and_fields() {
    let fields = "X: y\r\n".repeat(60);
    assert_eq!(parse_head(request("/", &fields).as_bytes(), LIMITS), Err(HttpRefusal::TooManyHeaders));
    let mut reader = HeadReader::default();
    let mut pushed = 0;
    let refusal = loop {
        match reader.push(b"x", LIMITS) {
            Ok(None) => pushed += 1,
            Ok(Some(_)) => panic!("no end was sent"),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal, pushed), (HttpRefusal::HeadTooLarge, 8191));
    assert!(reader.held_bytes() <= 8192);
    assert_eq!(HeadReader::default().push(&vec![b'x'; 1 << 20], LIMITS), Err(HttpRefusal::HeadTooLarge));
}

#[test]
fn every_refusal_is_whole_http() {
    for refusal in [
        HttpRefusal::Bad("x"),
        HttpRefusal::Unauthorized(Unauthorized::Missing),
        HttpRefusal::Unauthorized(Unauthorized::Several),
        HttpRefusal::Unauthorized(Unauthorized::Invalid("x")),
        HttpRefusal::Forbidden("x"),
        HttpRefusal::NotFound,
        HttpRefusal::PagesOnly,
        HttpRefusal::Timeout,
        HttpRefusal::Version,
        HttpRefusal::UpgradeLost,
        HttpRefusal::HeadTooLarge,
        HttpRefusal::TooManyHeaders,
        HttpRefusal::AtCapacity { retry_after_s: 3 },
    ] {
        let mut out = Vec::new();
        write_refusal(&mut out, refusal);
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = response.parse(&out).unwrap() else { panic!() };
        let length = response.headers.iter().find(|header| header.name == "Content-Length").unwrap();
        assert_eq!(std::str::from_utf8(length.value).unwrap().parse::<usize>().unwrap(), out.len() - end);
    }
}

proptest! {
    #[test]
    fn any_chunking_finds_the_same_end(pieces in proptest::collection::vec(1_usize..50, 1..8), tail in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut bytes = request("/?userId=a", "").into_bytes();
        let end = bytes.len();
        bytes.extend(&tail);
        let mut reader = HeadReader::default();
        let mut at = 0;
        let mut sizes = pieces.iter().cycle();
        loop {
            let size = (*sizes.next().unwrap()).min(bytes.len() - at);
            at += size;
            if let Some((all, found)) = reader.push(&bytes[at - size..at], LIMITS).unwrap() {
                prop_assert_eq!(found, end);
                prop_assert_eq!(&all[..], &bytes[..at]);
                break;
            }
        }
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_head(&bytes, LIMITS);
    }
}

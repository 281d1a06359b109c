//! What the backend is asked, and what its answers mean.

use super::*;

fn visitor(token: Option<TokenSays>) -> Question {
    let (address, origin, certificate_user) = (Some("10.0.0.1".to_owned()), None, None);
    Question::Connect(Visitor { protocol: Protocol::Json, address, origin, certificate_user, token, is_open: false })
}

fn says() -> TokenSays {
    TokenSays { user: "a\"b".into(), expires_unix_ms: Some(NOW + 1_000), issued_unix_s: Some(7) }
}

fn join(rooms: &[&str], is_list: bool) -> Question {
    let rooms = rooms.iter().map(ToString::to_string).collect();
    Question::Join { user: "alice".to_owned(), client_id: "c".to_owned(), rooms, is_list }
}

fn body(question: &Question) -> String {
    String::from_utf8(question.body()).expect("JSON is UTF-8")
}

fn allowing(join: &str) -> Auth {
    let default = Allowance { join: vec![join.parse().expect("a pattern")], ..Allowance::default() };
    auth_with(Settings { default, ..settings() })
}

fn grant(question: &Question, answer: &str) -> Result<Grant, Fault> {
    match question.read(&allowing("lobby"), 200, answer.as_bytes())? {
        Decision::Grant(grant) => Ok(grant),
        other => panic!("{other:?} is about something else"),
    }
}

fn rooms(question: &Question, status: u16, answer: &str) -> Result<Vec<RoomDecision>, Fault> {
    match question.read(&auth(), status, answer.as_bytes())? {
        Decision::Rooms(rooms) => Ok(rooms),
        other => panic!("{other:?} is about something else"),
    }
}

#[test]
fn a_question_says_what_is_known_and_no_more() {
    assert_eq!(body(&visitor(None)), r#"{"protocol":"json","address":"10.0.0.1","refresh":false}"#);
    let raw = Question::Connect(Visitor {
        protocol: Protocol::Raw("r/\u{e9}\n".to_owned()),
        address: None,
        origin: Some("https://a.example".to_owned()),
        certificate_user: Some("carol".to_owned()),
        token: Some(says()),
        is_open: true,
    });
    assert_eq!(
        body(&raw),
        r#"{"protocol":"raw","roomId":"r/é\n","user":"a\"b","certificate_user":"carol","origin":"https://a.example","refresh":true}"#
    );
    assert_eq!(body(&join(&["r"], false)), r#"{"user":"alice","clientId":"c","roomId":"r"}"#);
    assert_eq!(body(&join(&["r", "s"], true)), r#"{"user":"alice","clientId":"c","roomIds":["r","s"]}"#);
}

#[test]
fn what_an_answer_does_not_say_comes_from_the_token_or_the_default() {
    let by_token = visitor(Some(says()));
    let short = grant(&by_token, r#"{"user":"bob"}"#).expect("an answer");
    assert_eq!((&*short.user, short.expires_unix_ms, short.issued_unix_s), ("bob", Some(NOW + 1_000), Some(7)));
    assert!(short.permissions.may_join("lobby") && !short.permissions.may_join("chat"));
    let long = r#" {"user":"bob","expires":5,"fanfare":{"join":["chat"]},"more":[1]} "#;
    let long = grant(&by_token, long).expect("an answer");
    assert_eq!(long.expires_unix_ms, Some(5));
    assert!(long.permissions.may_join("chat") && !long.permissions.may_join("lobby"));
    let nameless = grant(&visitor(None), r#"{"user":"bob"}"#).expect("an answer");
    assert_eq!((nameless.expires_unix_ms, nameless.issued_unix_s), (None, None));
}

#[test]
fn what_is_not_understood_is_no_answer() {
    for answer in [
        "",
        "{}",
        "null",
        "[\"bob\"]",
        "{\"user\":null}",
        "{\"user\":\"\"}",
        "{\"user\":\"a\",\"user\":\"b\"}",
        "{\"user\":\"a\",\"expires\":null}",
        "{\"user\":\"a\",\"expires\":-1}",
        "{\"user\":\"a\",\"expires\":1.5}",
        "{\"user\":\"a\",\"fanfare\":[]}",
        "{\"user\":\"a\",\"fanfare\":{\"private\":1}}",
        "{\"user\":\"a\"}{}",
        "\u{feff}{\"user\":\"a\"}",
    ] {
        assert!(matches!(grant(&visitor(None), answer), Err(Fault::Body(_))), "{answer}");
    }
    assert!(visitor(None).read(&auth(), 200, b"{\"user\":\"\xff\"}").is_err());
    for status in [100, 199, 201, 204, 302, 400, 404, 429, 500, 503] {
        let read = visitor(None).read(&auth(), status, b"{\"user\":\"a\"}");
        assert_eq!(read.expect_err("no answer"), Fault::Status(status));
        assert_eq!(rooms(&join(&["r"], false), status, "{\"allow\":true}"), Err(Fault::Status(status)));
    }
    for (status, denial) in [(401, Denial::Unauthorized), (403, Denial::Forbidden)] {
        let read = visitor(None).read(&auth(), status, b"whatever").expect("an answer");
        assert!(matches!(read, Decision::Denied(found) if found == denial));
    }
}

#[test]
fn each_room_is_decided_about_by_its_name() {
    let of = |allow: bool, publish: Option<bool>| RoomDecision { allow, publish };
    let one = join(&["r"], false);
    assert_eq!(rooms(&one, 200, r#"{"allow":true}"#), Ok(vec![of(true, None)]));
    assert_eq!(rooms(&one, 200, r#"{"allow":false,"publish":true}"#), Ok(vec![of(false, Some(true))]));
    assert_eq!(rooms(&one, 403, ""), Ok(vec![of(false, None)]));
    let list = join(&["r", "s", "r"], true);
    let decided = vec![of(true, None), of(false, None), of(true, None)];
    assert_eq!(rooms(&list, 200, r#"{"allow":["x","r","y"]}"#), Ok(decided));
    let decided = vec![of(true, Some(false)), of(true, Some(true)), of(true, Some(false))];
    assert_eq!(rooms(&list, 200, r#"{"allow":["s","r"],"publish":["s"]}"#), Ok(decided));
    assert_eq!(rooms(&list, 401, ""), Ok(vec![of(false, None); 3]));
    for answer in ["{}", "[]", r#"{"allow":"r"}"#, r#"{"allow":null}"#, r#"{"allow":true,"publish":null}"#] {
        assert!(matches!(rooms(&one, 200, answer), Err(Fault::Body(_))), "{answer}");
    }
    for answer in [r#"{"allow":true}"#, r#"{"allow":[1]}"#, r#"{"allow":["r"],"publish":true}"#] {
        assert!(matches!(rooms(&list, 200, answer), Err(Fault::Body(_))), "{answer}");
    }
}

#[test]
fn other_keys_make_another_generation_with_the_same_permissions() {
    let before = auth();
    let after = before.with_keys(vec![secret(Alg::Hs512, Some("b"))]);
    assert_eq!((before.generation(), after.generation()), (0, 1));
    assert!(Arc::ptr_eq(&before.default_permissions(), &after.default_permissions()));
    let missing = |header: &str| format!("{}.e30.e30", BASE64URL_NOPAD.encode(header.as_bytes()));
    for (header, cost) in [
        (r#"{"alg":"ES256","kid":"b"}"#, Cost::Slow),
        (r#"{"alg":"ES256","kid":"c"}"#, Cost::KeyMissing),
        (r#"{"alg":"ES256"}"#, Cost::KeyMissing),
        (r#"{"alg":"HS256","kid":"c"}"#, Cost::Inline),
        (r#"{"alg":"none","kid":"c"}"#, Cost::Inline),
    ] {
        assert_eq!(after.cost(&missing(header)), cost, "{header}");
    }
}

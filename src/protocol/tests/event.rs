use super::super::keyed::Body;
use super::super::{ERROR_CODES, ErrorCode, InEpoch, Notice, Rejection, Stale, event};
use proptest::prelude::*;
use serde_json::{Value, json};

fn text(append: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = b"kept".to_vec();
    append(&mut out);
    String::from_utf8(out.split_off(4)).unwrap()
}

fn value(append: impl FnOnce(&mut Vec<u8>)) -> Value {
    serde_json::from_str(&text(append)).unwrap()
}

#[test]
fn messages_read_word_for_word() {
    let cases = [
        (
            text(|out| event::welcome(out, "c1", "alice", 30_000, None)),
            r#"{"type":"welcome","clientId":"c1","userId":"alice","heartbeat":30000}"#,
        ),
        (
            text(|out| event::private_msg(out, "alice", "[1, 2]", 17)),
            r#"{"type":"private_msg","from":"alice","content":[1, 2],"time":17}"#,
        ),
        (text(|out| event::private(out, "alice", "1e400")), r#"{"type":"private","data":1e400,"from":"alice"}"#),
        (
            text(|out| event::broadcast_content(out, "alice", "null", u64::MAX)),
            r#"{"type":"broadcast","from":"alice","content":null,"time":18446744073709551615}"#,
        ),
        (
            text(|out| event::broadcast_data(out, "alice", r#""\ud800""#)),
            r#"{"type":"broadcast","data":"\ud800","from":"alice"}"#,
        ),
        (
            text(|out| event::room_msg(out, "R", "alice", "{}", 0)),
            r#"{"type":"room_msg","roomId":"R","from":"alice","content":{},"time":0}"#,
        ),
        (
            text(|out| event::notice(out, "R", Notice::Join, "alice", "alice joined")),
            r#"{"type":"system","roomId":"R","event":"join","userId":"alice","content":"alice joined"}"#,
        ),
        (
            text(|out| event::notice(out, "R", Notice::Leave, "alice", "alice left")),
            r#"{"type":"system","roomId":"R","event":"leave","userId":"alice","content":"alice left"}"#,
        ),
        (text(|out| event::ack(out, "\"a\\u0041\"", None)), r#"{"type":"ack","id":"a\u0041"}"#),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn replies_carry_the_id_where_there_is_one() {
    let cases = [
        (text(|out| event::joined(out, None, "R", None, None)), r#"{"type":"joined","roomId":"R"}"#),
        (
            text(|out| event::joined(out, Some("7"), "R", Some(InEpoch { epoch: "e", offset: 9 }), Some(true))),
            r#"{"type":"joined","id":7,"roomId":"R","epoch":"e","offset":9,"recovered":true}"#,
        ),
        (
            text(|out| event::joined(out, Some("\"7\""), "R", None, Some(false))),
            r#"{"type":"joined","id":"7","roomId":"R","recovered":false}"#,
        ),
        (
            text(|out| event::ack(out, "1", Some(InEpoch { epoch: "e", offset: 9 }))),
            r#"{"type":"ack","id":1,"epoch":"e","offset":9}"#,
        ),
        (
            text(|out| event::welcome(out, "c", "u", 1, Some(InEpoch { epoch: "e", offset: 0 }))),
            r#"{"type":"welcome","clientId":"c","userId":"u","heartbeat":1,"inbox":{"epoch":"e","offset":0}}"#,
        ),
        (
            text(|out| event::resumed(out, Some("1"), Some(InEpoch { epoch: "e", offset: 9 }), true)),
            r#"{"type":"resumed","id":1,"epoch":"e","offset":9,"recovered":true}"#,
        ),
        (
            text(|out| {
                event::history(out, Some("1"), "R", Some(InEpoch { epoch: "e", offset: 9 }), [&b"{}"[..], b"{}"])
            }),
            r#"{"type":"history","id":1,"roomId":"R","epoch":"e","offset":9,"messages":[{},{}]}"#,
        ),
        (text(|out| event::put_offset(out, br#"{"type":"x"}"#, 7)), r#"{"type":"x","offset":7}"#),
        (
            text(|out| event::error(out, &Rejection::new(None, ErrorCode::BadJson, "say \"it\""))),
            r#"{"type":"error","code":"bad_json","message":"say \"it\""}"#,
        ),
        (
            text(|out| {
                let rejection = Rejection::new(None, ErrorCode::BadItem, "no").about("R\n".into());
                event::error(out, &Rejection { index: Some(7), ..rejection });
            }),
            r#"{"type":"error","code":"bad_item","message":"no","roomId":"R\n","index":7}"#,
        ),
        (
            text(|out| event::error(out, &Rejection::new(Some("1.50"), ErrorCode::RateLimited, "slower"))),
            r#"{"type":"error","id":1.50,"code":"rate_limited","message":"slower"}"#,
        ),
        (
            text(|out| event::presence(out, None, "R", event::UserCount::Exact(0), [])),
            r#"{"type":"presence","roomId":"R","count":0,"users":[]}"#,
        ),
        (
            text(|out| event::presence(out, Some("7"), "R", event::UserCount::Exact(3), ["a", "b\n"])),
            r#"{"type":"presence","roomId":"R","count":3,"users":["a","b\n"],"truncated":true,"id":7}"#,
        ),
        (
            text(|out| event::presence(out, Some("7"), "R", event::UserCount::About(100_900), ["a"])),
            r#"{"type":"presence","roomId":"R","count":100900,"users":["a"],"truncated":true,"approximate":true,"id":7}"#,
        ),
        (text(|out| event::pong(out, None)), r#"{"type":"pong"}"#),
        (text(|out| event::pong(out, Some("\"p\""))), r#"{"type":"pong","id":"p"}"#),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn what_a_keyed_room_says_reads_word_for_word() {
    let place = InEpoch { epoch: "e", offset: 9 };
    let updated = |from, body| {
        text(|out| {
            event::keyed_head(out, "px", "A\"B", 3, 9);
            event::keyed_tail(out, from, body, 17);
        })
    };
    let cases = [
        (
            updated(Some("alice"), Body::Content("[1, 2]")),
            r#"{"type":"room_msg","roomId":"px","item":"A\"B","seq":3,"offset":9,"from":"alice","content":[1, 2],"time":17}"#,
        ),
        (
            updated(Some("alice"), Body::Removal),
            r#"{"type":"room_msg","roomId":"px","item":"A\"B","seq":3,"offset":9,"from":"alice","removed":true,"time":17}"#,
        ),
        (
            updated(None, Body::Removal),
            r#"{"type":"room_msg","roomId":"px","item":"A\"B","seq":3,"offset":9,"removed":true,"time":17}"#,
        ),
        (
            text(|out| event::joined_keyed(out, Some("7"), "px", place, Some(100), None)),
            r#"{"type":"joined","id":7,"roomId":"px","epoch":"e","offset":9,"interval":100}"#,
        ),
        (
            text(|out| event::joined_keyed(out, None, "px", place, None, Some(false))),
            r#"{"type":"joined","roomId":"px","epoch":"e","offset":9,"recovered":false}"#,
        ),
        (
            text(|out| event::tuned(out, "7", place, Some(0))),
            r#"{"type":"ack","id":7,"epoch":"e","offset":9,"interval":0}"#,
        ),
        (
            text(|out| event::updated(out, "7", place, Stale::One(false))),
            r#"{"type":"ack","id":7,"epoch":"e","offset":9}"#,
        ),
        (
            text(|out| event::updated(out, "7", place, Stale::One(true))),
            r#"{"type":"ack","id":7,"epoch":"e","offset":9,"stale":true}"#,
        ),
        (
            text(|out| event::updated(out, "7", place, Stale::Of(&[]))),
            r#"{"type":"ack","id":7,"epoch":"e","offset":9}"#,
        ),
        (
            text(|out| event::updated(out, "7", place, Stale::Of(&[0, 12]))),
            r#"{"type":"ack","id":7,"epoch":"e","offset":9,"stale":[0,12]}"#,
        ),
        (text(|out| event::freshness(out, "px", 9, true)), r#"{"type":"stale","roomId":"px","offset":9}"#),
        (text(|out| event::freshness(out, "px", 9, false)), r#"{"type":"live","roomId":"px","offset":9}"#),
    ];
    for (found, expected) in cases {
        assert_eq!(found, expected);
    }
}

#[test]
fn every_code_can_be_sent() {
    for (code, meaning) in ERROR_CODES {
        let found = value(|out| event::error(out, &Rejection::new(None, *code, *meaning)));
        assert_eq!(found, json!({"type": "error", "code": code.as_str(), "message": meaning}));
    }
}

#[test]
fn escapes_are_the_shortest_that_are_valid() {
    let found = text(|out| event::ack(out, "1", None));
    assert_eq!(found, r#"{"type":"ack","id":1}"#);
    let user = "a\"b\\c/d\n\r\t\u{8}\u{0}\u{1f}\u{7f}\u{2028}é😀";
    let found = text(|out| event::welcome(out, "c", user, 1, None));
    let escaped = "a\\\"b\\\\c/d\\n\\r\\t\\u0008\\u0000\\u001f\u{7f}\u{2028}é😀";
    let expected = format!(r#"{{"type":"welcome","clientId":"c","userId":"{escaped}","heartbeat":1}}"#);
    assert_eq!(found, expected);
}

/// Strings that need escapes often, in all lengths the scanner treats apart.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[\u{0}-\u{7f}é😀]{0,100}", "[a-z]{20,70}[\"\\\\\n]?[a-z]{0,40}"]
}

proptest! {
    #[test]
    fn strings_survive(a in any_text(), b in any_text(), c in any_text(), time: u64) {
        prop_assert_eq!(
            value(|out| event::welcome(out, &a, &b, time, None)),
            json!({"type": "welcome", "clientId": a, "userId": b, "heartbeat": time})
        );
        prop_assert_eq!(
            value(|out| event::room_msg(out, &a, &b, "{}", time)),
            json!({"type": "room_msg", "roomId": a, "from": b, "content": {}, "time": time})
        );
        prop_assert_eq!(
            value(|out| {
                event::keyed_head(out, &a, &c, time, time);
                event::keyed_tail(out, Some(&b), Body::Content("{}"), time);
            }),
            json!({
                "type": "room_msg", "roomId": a, "item": c, "seq": time, "offset": time,
                "from": b, "content": {}, "time": time,
            })
        );
        prop_assert_eq!(
            value(|out| event::private_msg(out, &a, "0", time)),
            json!({"type": "private_msg", "from": a, "content": 0, "time": time})
        );
        prop_assert_eq!(
            value(|out| event::private(out, &a, "0")),
            json!({"type": "private", "data": 0, "from": a})
        );
        prop_assert_eq!(
            value(|out| event::broadcast_content(out, &a, "0", time)),
            json!({"type": "broadcast", "from": a, "content": 0, "time": time})
        );
        prop_assert_eq!(
            value(|out| event::broadcast_data(out, &a, "0")),
            json!({"type": "broadcast", "data": 0, "from": a})
        );
        prop_assert_eq!(
            value(|out| event::notice(out, &a, Notice::Join, &b, &c)),
            json!({"type": "system", "roomId": a, "event": "join", "userId": b, "content": c})
        );
        prop_assert_eq!(
            value(|out| event::joined(out, None, &a, None, None)),
            json!({"type": "joined", "roomId": a})
        );
        prop_assert_eq!(
            value(|out| event::error(out, &Rejection::new(None, ErrorCode::BadId, a.clone()))),
            json!({"type": "error", "code": "bad_id", "message": a})
        );
        prop_assert_eq!(
            value(|out| event::presence(out, None, &a, event::UserCount::Exact(2), [b.as_str(), &c])),
            json!({"type": "presence", "roomId": a, "count": 2, "users": [b, c]})
        );
    }
}

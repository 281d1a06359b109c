//! Updates of items that programs publish over HTTP, and items that they read.

use fanfare_testing::{ApiKey, Client, Server};
use serde_json::{Value, json};

const KEYED: &str = "match=px*,keyed=true";

fn server(reactors: usize, key: &ApiKey, rule: &str) -> Server {
    Server::with_reactors(reactors, &["--api.key", key.settings(), "--room", rule, "--rooms.notice_members_max", "0"])
}

fn backend() -> ApiKey {
    ApiKey::new("backend", "publish read private broadcast")
}

fn publish(server: &Server, key: &ApiKey, update: &Value) -> Value {
    key.post(server, "/api/v1/publish", &update.to_string()).json()
}

fn batch(server: &Server, key: &ApiKey, updates: impl IntoIterator<Item = Value>) -> Vec<Value> {
    let commands: Vec<Value> = updates.into_iter().map(|update| json!({"publish": update})).collect();
    let answer = key.post(server, "/api/v1/batch", &json!({"commands": commands}).to_string()).json();
    answer["results"].as_array().unwrap().clone()
}

/// A member of a room that gets every update.
fn member(server: &Server, room: &str) -> Client {
    let mut client = Client::connect(server, "reader");
    client.join(room);
    client
}

/// The same update of a client and of the API, each without its time.
pub(super) fn an_update_looks_like_a_clients_and_is_answered_with_its_place(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    let mut alice = Client::connect(&server, "alice");
    for room in ["px", "px.\u{f6}\"om", "px.3"] {
        let mut bob = member(&server, room);
        let text = |bob: &mut Client| {
            let mut text = bob.expect_type("room_msg");
            assert!(text["time"].take().as_u64().is_some_and(|time| time > 1_700_000_000_000));
            text
        };
        let ack = alice.request(json!({"type": "room_msg", "roomId": room, "item": "a", "content": {"b": 1}}));
        let of_client = text(&mut bob);
        let update = json!({"roomId": room, "item": "a", "content": {"b": 1}, "from": "alice", "other": [1]});
        let answer = publish(&server, &key, &update);
        assert_eq!(answer, json!({"epoch": ack["epoch"], "offset": 2}));
        let mut of_api = text(&mut bob);
        assert_eq!((of_api["seq"].take(), of_api["offset"].take()), (json!(2), json!(2)));
        of_api["seq"] = json!(1);
        of_api["offset"] = json!(1);
        assert_eq!(of_api.to_string(), of_client.to_string());
        publish(&server, &key, &json!({"roomId": room, "item": "a", "remove": true}));
        let removal = text(&mut bob);
        assert_eq!((&removal["from"], &removal["removed"]), (&json!("backend"), &json!(true)));
        assert!(removal.get("content").is_none());
    }
}

pub(super) fn an_update_that_is_not_above_the_last_version_is_stale(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    let mut bob = member(&server, "px");
    let update = |version: i64| json!({"roomId": "px", "item": "a", "content": version, "version": version});
    for (version, offset, is_stale) in
        [(-3, 1, false), (-3, 1, true), (7, 2, false), (6, 2, true), (i64::MAX, 3, false)]
    {
        let answer = publish(&server, &key, &update(version));
        assert_eq!((&answer["offset"], answer.get("stale")), (&json!(offset), is_stale.then_some(&json!(true))));
    }
    let seen: Vec<Value> = (0..3).map(|_| bob.expect_type("room_msg")["content"].take()).collect();
    assert_eq!(seen, [json!(-3), json!(7), json!(i64::MAX)]);
}

pub(super) fn a_retry_with_the_same_key_is_one_update(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    let update = |content: u64, key: &str| json!({"roomId": "px", "item": "a", "content": content, "key": key});
    let first = publish(&server, &key, &update(1, "k"));
    assert_eq!(publish(&server, &key, &update(2, "l"))["offset"], 2);
    assert_eq!(publish(&server, &key, &update(3, "k")), first);
    let results = batch(&server, &key, [update(4, "k"), update(5, "m"), update(6, "m"), update(7, "n")]);
    let offsets: Vec<&Value> = results.iter().map(|result| &result["offset"]).collect();
    assert_eq!(offsets, [1, 3, 3, 4]);
}

pub(super) fn updates_that_are_none_are_refused(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, &format!("{KEYED},items.max=1"));
    let mut bob = member(&server, "px");
    publish(&server, &key, &json!({"roomId": "px", "item": "a", "content": 1}));
    for (update, code) in [
        (json!({"roomId": "px", "content": 1}), "missing_field"),
        (json!({"roomId": "px", "item": "a"}), "missing_field"),
        (json!({"roomId": "px", "item": "a", "remove": false}), "missing_field"),
        (json!({"roomId": "px", "item": "", "content": 1}), "bad_item"),
        (json!({"roomId": "px", "item": "x".repeat(129), "content": 1}), "bad_item"),
        (json!({"roomId": "px", "item": "a*", "content": 1}), "bad_item"),
        (json!({"roomId": "px", "item": 7, "content": 1}), "bad_item"),
        (json!({"roomId": "px", "item": "a", "content": 1, "remove": true}), "bad_item"),
        (json!({"roomId": "px", "item": "a", "content": 1, "version": 1.5}), "bad_item"),
        (json!({"roomId": "px", "item": "b", "content": 1}), "too_many_items"),
    ] {
        let answer = key.post(&server, "/api/v1/publish", &update.to_string());
        assert_eq!(answer.refusal(), (400, code.to_owned()), "{update}");
        let results = batch(&server, &key, [update.clone()]);
        assert_eq!(results[0]["error"]["code"], code, "{update}");
    }
    publish(&server, &key, &json!({"roomId": "px", "item": "a", "content": 2}));
    let seen: Vec<Value> = (0..2).map(|_| bob.expect_type("room_msg")["offset"].take()).collect();
    assert_eq!(seen, [1, 2]);
}

pub(super) fn elsewhere_an_item_has_no_meaning(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    let mut bob = member(&server, "den");
    let update = json!({"roomId": "den", "item": 5, "content": 1, "version": "x", "remove": true});
    assert_eq!(publish(&server, &key, &update), json!({}));
    let message = bob.expect_type("room_msg");
    assert!(message.get("item").is_none() && message["content"] == 1, "{message}");
    let answer = key.get(&server, "/api/v1/rooms/den/items");
    assert_eq!(answer.refusal(), (400, "bad_options".to_owned()));
}

pub(super) fn each_update_of_a_batch_has_its_own_result(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    let mut bob = member(&server, "px");
    bob.join("den");
    let update = |room: &str, item: &str, version: i64| json!({"roomId": room, "item": item, "content": version, "version": version});
    let results = batch(
        &server,
        &key,
        [
            update("px", "a", 5),
            update("px", "b", 1),
            update("px", "a", 5),
            json!({"roomId": "px", "item": "*", "content": 1}),
            update("px", "a", 6),
            json!({"roomId": "den", "content": "between"}),
            update("px.2", "a", 1),
            update("px", "b", 1),
            update("px", "c", 1),
        ],
    );
    let told = |result: &Value| (result["offset"].clone(), result["stale"] == true, result["error"]["code"].clone());
    let told: Vec<(Value, bool, Value)> = results.iter().map(told).collect();
    let at = |offset: u64, is_stale: bool| (json!(offset), is_stale, Value::Null);
    let expected = [
        at(1, false),
        at(2, false),
        at(2, true),
        (Value::Null, false, json!("bad_item")),
        at(3, false),
        (Value::Null, false, Value::Null),
        at(1, false),
        at(3, true),
        at(4, false),
    ];
    assert_eq!(told, expected);
    let mut items = Vec::new();
    while items.len() < 4 {
        let message = bob.expect_type("room_msg");
        if message["roomId"] == "px" {
            items.push((message["item"].clone(), message["content"].clone(), message["offset"].clone()));
        }
    }
    let expected = [("a", 5, 1), ("b", 1, 2), ("a", 6, 3), ("c", 1, 4)];
    assert_eq!(items, expected.map(|(item, content, offset)| (json!(item), json!(content), json!(offset))));
}

pub(super) fn what_has_no_room_in_a_batch_is_refused_alone(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, &format!("{KEYED},items.max=2"));
    let update = |item: &str| json!({"roomId": "px", "item": item, "content": 1});
    let removal = json!({"roomId": "px", "item": "a", "remove": true});
    let updates = [update("a"), update("b"), update("c"), update("a"), removal, update("c"), update("d"), update("b")];
    let results = batch(&server, &key, updates);
    let told: Vec<(&Value, &Value)> =
        results.iter().map(|result| (&result["offset"], &result["error"]["code"])).collect();
    let (none, full) = (Value::Null, json!("too_many_items"));
    let offset = [1, 2, 3, 4, 5, 6].map(|offset| json!(offset));
    let expected = [
        (&offset[0], &none),
        (&offset[1], &none),
        (&none, &full),
        (&offset[2], &none),
        (&offset[3], &none),
        (&offset[4], &none),
        (&none, &full),
        (&offset[5], &none),
    ];
    assert_eq!(told, expected);
}

pub(super) fn a_batch_of_ten_thousand_updates_is_stored_whole_and_in_order(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    let mut bob = member(&server, "px");
    let lines: Vec<String> = (0..10_000_u64)
        .map(|at| format!(r#"{{"publish":{{"roomId":"px","item":"i{}","content":{at}}}}}"#, at % 100))
        .collect();
    let fields = "Content-Type: application/x-ndjson\r\n";
    let answer = key.ask(&server, "POST", "/api/v1/batch", fields, &lines.join("\n")).json();
    let results = answer["results"].as_array().unwrap();
    assert!((1..).zip(results).all(|(offset, result): (u64, _)| result["offset"] == offset));
    assert_eq!(results.len(), 10_000);
    for at in 0..10_000_u64 {
        let message = bob.expect_type("room_msg");
        let place = (message["content"].as_u64(), message["seq"].as_u64(), message["offset"].as_u64());
        assert_eq!(place, (Some(at), Some(at / 100 + 1), Some(at + 1)));
    }
}

pub(super) fn items_are_read_in_pages(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    for room in ["px", "px.2", "px.3"] {
        let items = format!("/api/v1/rooms/{room}/items");
        assert_eq!(key.get(&server, &items).json(), json!({"offset": 0, "items": []}), "nothing is known of it");
        let contents = ["1", r#""\u0041\/""#, r#"{"b" : 1, "a":[ ],"b":2}"#, "null", "1.50"];
        for (item, content) in ["a", "b", "c\u{f6}\"", "d", "e"].into_iter().zip(contents) {
            let item = json!(item);
            let body = format!(r#"{{"roomId":"{room}","item":{item},"content":{content},"from":"\"content\":5"}}"#);
            key.post(&server, "/api/v1/publish", &body).json();
        }
        publish(&server, &key, &json!({"roomId": room, "item": "d", "remove": true}));
        publish(&server, &key, &json!({"roomId": room, "item": "a", "content": "newer"}));
        let whole = key.get(&server, &items);
        let text = whole.body.clone();
        let answer = whole.json();
        let place = |item: &Value| (item["item"].clone(), item["seq"].clone(), item["offset"].clone());
        let listed: Vec<_> = answer["items"].as_array().unwrap().iter().map(place).collect();
        let expected = [("b", 1, 2), ("c\u{f6}\"", 1, 3), ("e", 1, 5), ("a", 2, 7)];
        assert_eq!(listed, expected.map(|(item, seq, offset)| (json!(item), json!(seq), json!(offset))));
        assert_eq!((&answer["offset"], answer.get("next")), (&json!(7), None));
        for content in [contents[1], contents[2], contents[4], r#""newer""#] {
            assert!(text.contains(&format!(r#""content":{content},"time":1"#)), "{content} in {text}");
        }
        let (mut after, mut paged) = (0, Vec::new());
        for page in 0..4 {
            let answer = key.get(&server, &format!("{items}?limit=1&after={after}")).json();
            paged.extend(answer["items"].as_array().unwrap().iter().map(place));
            match answer["next"].as_u64() {
                Some(next) => after = next,
                None => assert_eq!(page, 3, "the last page has no next"),
            }
        }
        assert_eq!(paged, listed);
        for bad in ["limit=0", "after=x", "after=99999999999999999999", "after=9223372036854775808"] {
            let answer = key.get(&server, &format!("{items}?{bad}"));
            assert_eq!(answer.refusal(), (400, "bad_options".to_owned()), "{bad}");
        }
    }
}

pub(super) fn contents_are_read_as_the_same_text(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    let contents = ["1e400", r#""\ud800""#, "123456789012345678901234567890", &deep];
    for (at, content) in (1..).zip(contents) {
        let body = format!(r#"{{"roomId":"px","item":"i{at}","content":{content}}}"#);
        key.post(&server, "/api/v1/publish", &body).json();
        let page = key.get(&server, &format!("/api/v1/rooms/px/items?after={}", at - 1));
        let item = format!(r#""items":[{{"item":"i{at}","seq":1,"offset":{at},"content":{content},"time":"#);
        assert!(page.status == 200 && page.body.contains(&item), "{item} in {}", page.body);
    }
}

pub(super) fn a_page_is_bounded_in_bytes(reactors: usize) {
    let key = backend();
    let server = server(reactors, &key, KEYED);
    let large = "x".repeat(30_000);
    for at in 0..20 {
        publish(&server, &key, &json!({"roomId": "px", "item": format!("i{at}"), "content": large}));
    }
    let (mut after, mut found) = (0, 0);
    for _ in 0..3 {
        let answer = key.get(&server, &format!("/api/v1/rooms/px/items?after={after}")).json();
        let items = answer["items"].as_array().unwrap().len();
        assert!((1..=8).contains(&items), "{items} of 30 KB in 256 KiB");
        found += items;
        after = answer["next"].as_u64().unwrap_or(after);
    }
    assert_eq!(found, 20);
}

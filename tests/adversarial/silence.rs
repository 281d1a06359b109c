//! Heartbeats: who answers stays, who does not is gone.

use std::time::Duration;

use fanfare_testing::raw::{PING, PONG, RawConn, TEXT};
use fanfare_testing::{Client, Server};
use serde_json::json;

pub fn a_client_that_answers_no_ping_is_gone(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--heartbeat.interval", "200ms"]);
    let mut watcher = Client::connect(&server, "watcher");
    watcher.join("den");
    let mut silent = RawConn::connect_as(&server, "silent");
    silent.send_frame(TEXT, br#"{"type":"join_room","roomId":"den"}"#);
    // The watcher answers its own pings while it waits.
    let notice = watcher.expect(|json| json["userId"] == "silent" && json["event"] == "leave");
    assert_eq!(notice["content"], "silent left");
    let mut pings = 0;
    while let Some(frame) = silent.read_frame() {
        if frame.first == PING {
            pings += 1;
        }
    }
    assert!(pings >= 1, "it is asked before it is ended");
    let presence = watcher.request(json!({"type": "presence", "roomId": "den"}));
    assert_eq!(presence["users"], json!(["watcher"]));
}

pub fn a_client_that_answers_stays(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--heartbeat.interval", "200ms"]);
    let mut answering = RawConn::connect_as(&server, "answering");
    let mut pings = 0;
    while pings < 6 {
        let frame = answering.read_frame().expect("a client that answers is not ended");
        if frame.first == PING {
            pings += 1;
            answering.send_frame(PONG, &frame.payload);
        }
    }
    // Any message is a sign of life as good as a pong.
    for _ in 0..20 {
        answering.send_frame(TEXT, br#"{"type":"ping"}"#);
        assert!(answering.read_text().contains(r#""type":"pong""#));
        std::thread::sleep(Duration::from_millis(50));
    }
}

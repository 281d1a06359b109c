//! `fanfare kick` and `fanfare disconnect` through the HTTP API.

use std::fs;

use fanfare_testing::{ApiKey, Client, Way, run_fanfare, temporary_path};
use serde_json::json;

use super::{nodes, operator, servers};

pub(super) fn orders_go_through_the_api_of_any_server(way: Way) {
    let (key, other) = (operator(), ApiKey::new("other", "read"));
    let cluster = servers(way, &[&key, &other], &["--rooms.notice_members_max", "0"]);
    let mut alices: Vec<Client> = (0..4).map(|_| Client::connect(&cluster, "a/b")).collect();
    alices.iter_mut().for_each(|alice| drop(alice.join("d%n")));
    let url = format!("http://{}", cluster.at(0));
    let file = temporary_path("key");
    fs::write(&file, format!("{}\n", key.secret())).expect("a file");
    let path = file.display().to_string();
    let heard = match nodes(way) {
        1 => "1 node has heard it\n".to_owned(),
        nodes => format!("{nodes} nodes have heard it\n"),
    };
    let kick = ["kick", "d%n", "a/b", "--reason", "be \"nice\"", "--url", &url, "--key-file", &path];
    assert_eq!(run_fanfare(&kick, &[]), (Some(0), heard.clone(), String::new()));
    for alice in &mut alices {
        assert_eq!(alice.expect_type("left"), json!({"type": "left", "roomId": "d%n", "reason": "be \"nice\""}));
    }
    let disconnect = ["disconnect", "a/b", "--url", &url];
    let ran = run_fanfare(&disconnect, &[("FANFARE_OPERATOR_KEY", key.secret())]);
    assert_eq!(ran, (Some(0), heard, String::new()));
    for mut alice in alices {
        assert_eq!(alice.close_frame(), (1008, "disconnected".to_owned()));
    }
    let nobody = run_fanfare(&["kick", "empty", "a/b", "--url", &url, "--key-file", &path], &[]);
    assert_eq!((nobody.0, nobody.2.lines().count()), (Some(1), 1), "{}", nobody.2);
    let refused = run_fanfare(&disconnect, &[("FANFARE_OPERATOR_KEY", other.secret())]);
    assert!(refused.0 == Some(1) && refused.2.contains("403: this key may not remove anything"), "{}", refused.2);
    let (code, _, err) = run_fanfare(&disconnect, &[]);
    assert!(code == Some(2) && err.contains("--key-file"), "{err}");
    fs::remove_file(&file).expect("it is there");
    assert!(!err.contains(key.secret()) && !refused.2.contains(other.secret()), "no key is shown");
}

//! The documents of the API are true: the one for programs against generated requests, the one for people by its examples.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use fanfare_testing::{ApiKey, Server, ask_api};
use serde_json::{Value, json};

const VERBS: &str = "publish private broadcast read kick";

/// Generated requests find no error of the server, and no answer that the document does not have. schemathesis also tries
/// each operation without its key, with other methods, and with what the document does not allow.
#[test]
fn generated_requests_are_answered_as_the_document_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/test-python/bin/python");
    assert!(python.exists(), "{} is missing: tests/run sets it up", python.display());
    let key = ApiKey::new("backend", VERBS);
    let server = server_that_keeps(&key);
    let url = format!("http://{}/api/v1/openapi.json", server.addr());
    let authorization = format!("Authorization: Bearer {}", key.secret());
    let run = Command::new(python)
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(root.join("tests/api/schemathesis.toml"))
        .args(["run", &url, "--header", &authorization, "--no-color", "--max-examples", "15", "--seed", "1"])
        .args(["--generation-database", "none", "--request-timeout", "10"])
        .current_dir(std::env::temp_dir())
        .output()
        .expect("schemathesis should start");
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}

/// Every answer is JSON without an error.
#[test]
fn the_examples_of_the_document_work() {
    let document = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api.md")).expect("docs/api.md");
    let key = ApiKey::new("backend", VERBS);
    let server = server_that_keeps(&key);
    let examples: Vec<&str> = document
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```").expect("a block ends").0)
        .filter(|block| block.contains("curl "))
        .collect();
    assert!(examples.len() >= 7, "{} examples", examples.len());
    for example in examples {
        let Output { status, stdout, stderr } = Command::new("bash")
            .args(["-euo", "pipefail", "-c", example])
            .env("API", format!("http://{}", server.addr()))
            .env("KEY", key.secret())
            .output()
            .expect("bash should start");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{example}\n{stderr}");
        let answers: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&stdout).into_iter().collect();
        let answers = answers.unwrap_or_else(|error| panic!("{example}\n{error}: {stdout}"));
        assert_eq!(answers.len(), example.matches("curl ").count(), "{example}\n{stdout}");
        assert!(!stdout.contains("\"error\""), "{example}\n{stdout}");
    }
}

#[test]
fn the_document_names_every_operation_its_key_and_its_answers() {
    let key = ApiKey::new("backend", VERBS);
    let server = server_that_keeps(&key);
    let document = ask_api(&server, "GET", "/api/v1/openapi.json", "", "").json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1.")), "{document}");
    assert_eq!(document["components"]["securitySchemes"]["key"]["scheme"], "bearer");
    let paths = document["paths"].as_object().expect("there are paths");
    for path in ["publish", "private", "broadcast", "batch", "node", "openapi.json"] {
        assert!(paths.contains_key(&format!("/api/v1/{path}")), "{path}");
    }
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            let is_open = path == "/api/v1/openapi.json";
            assert_eq!(operation["security"].is_null(), is_open, "{method} {path}");
            for status in ["400", "401", "403", "429", "503"] {
                assert_eq!(operation["responses"][status].is_null(), is_open, "{method} {path} {status}");
            }
        }
    }
    let schema = |name: &str| -> Vec<String> {
        let properties = document["components"]["schemas"][name]["properties"].as_object().expect("properties");
        properties.keys().cloned().collect()
    };
    // Each of these is read: with what no such field may be, there is a refusal.
    for (name, target, good) in [
        (
            "Publish",
            "publish",
            json!({"roomId": "px", "content": 1, "from": "a", "key": "k", "item": "a", "remove": false, "version": 1}),
        ),
        ("Private", "private", json!({"toUser": "bob", "content": 1, "from": "a", "key": "k"})),
        ("Broadcast", "broadcast", json!({"content": 1, "from": "a"})),
    ] {
        let target = format!("/api/v1/{target}");
        key.post(&server, &target, &good.to_string()).json();
        let documented = schema(name);
        assert_eq!(documented, good.as_object().unwrap().keys().cloned().collect::<Vec<_>>(), "{name}");
        for field in documented.iter().filter(|field| *field != "content") {
            let mut bad = good.clone();
            bad[field] = json!("x".repeat(300));
            assert_eq!(key.post(&server, &target, &bad.to_string()).refusal().0, 400, "{name} {field}");
        }
    }
}

fn server_that_keeps(key: &ApiKey) -> Server {
    let settings =
        ["--room", "match=px*,keyed=true", "--room", "match=*,history.size=10", "--inbox.history.size", "10"];
    super::server(2, &[key], &settings)
}

//! Requests of the HTTP API, with a key for programs.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::{Entrance, HttpAnswer, http_ask, temporary_path};

/// A key for programs. The file with it goes with it.
pub struct ApiKey {
    settings: String,
    secret: String,
    file: PathBuf,
}

impl ApiKey {
    /// A key that is good for all rooms; verbs as `publish read`.
    pub fn new(name: &str, verbs: &str) -> ApiKey {
        ApiKey::for_rooms(name, verbs, "*")
    }

    /// A key that is good for the rooms of a pattern.
    pub fn for_rooms(name: &str, verbs: &str, rooms: &str) -> ApiKey {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let secret = format!("a-key-of-the-tests-of-more-than-32-bytes-{}", MADE.fetch_add(1, Ordering::Relaxed));
        let file = temporary_path("api-key");
        fs::write(&file, &secret).expect("a file for the key");
        let settings = format!("name={name},verbs={verbs},rooms={rooms},secret_file={}", file.display());
        ApiKey { settings, secret, file }
    }

    /// What `--api.key` says for a server to know it.
    pub fn settings(&self) -> &str {
        &self.settings
    }

    /// The key itself.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The answer to a request with it and a body of JSON.
    pub fn post(&self, server: &dyn Entrance, target: &str, body: &str) -> HttpAnswer {
        self.ask(server, "POST", target, "Content-Type: application/json\r\n", body)
    }

    /// The answer to a request with it and no body.
    pub fn get(&self, server: &dyn Entrance, target: &str) -> HttpAnswer {
        self.ask(server, "GET", target, "", "")
    }

    /// The answer to a request with it, with more fields.
    pub fn ask(&self, server: &dyn Entrance, method: &str, target: &str, fields: &str, body: &str) -> HttpAnswer {
        let fields = format!("Authorization: Bearer {}\r\n{fields}", self.secret);
        ask_api(server, method, target, &fields, body)
    }
}

impl Drop for ApiKey {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// The answer to a request over a connection of its own.
pub fn ask_api(server: &dyn Entrance, method: &str, target: &str, fields: &str, body: &str) -> HttpAnswer {
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n");
    http_ask(server, &format!("{head}{fields}\r\n{body}"))
}

impl HttpAnswer {
    /// The body of a 200.
    ///
    /// # Panics
    /// Where it is something else.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The status and the code of a refusal.
    ///
    /// # Panics
    /// Where it is none.
    #[track_caller]
    pub fn refusal(&self) -> (u16, String) {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body));
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no refusal: {body}"));
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        (self.status, error["code"].as_str().expect("a code").to_owned())
    }
}

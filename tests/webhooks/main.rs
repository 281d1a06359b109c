//! Webhooks, end to end: the built binary against a receiver that the test plays, alone and in a cluster with a real Redis.
//!
//! An edge waits three seconds, so tests wait for events, and for the event of a later edge where nothing is to come.

mod alone;
mod cluster;
mod journal;
mod programs;
mod receiver;

use fanfare_testing::Server;

use receiver::{Receiver, SECRET};

/// A file with the secret, of this process.
fn secret_file() -> String {
    static FILE: std::sync::LazyLock<std::path::PathBuf> = std::sync::LazyLock::new(|| {
        let path = fanfare_testing::temporary_path("secret");
        std::fs::write(&path, SECRET).expect("a file can be written");
        path
    });
    FILE.to_str().expect("a path of ours is text").to_owned()
}

/// The value of `--webhook` for a receiver, with more of it.
fn webhook(receiver: &Receiver, more: &str) -> String {
    format!("{},secret_file={}{more}", receiver.entry(), secret_file())
}

/// A node alone with a webhook.
fn start(receiver: &Receiver, more: &str, settings: &[&str]) -> Server {
    let webhook = webhook(receiver, more);
    Server::start(&[&["--reactors", "2", "--webhook", &webhook], settings].concat())
}

//! What a running server takes over when its configuration is read again.

use super::effective::Effective;
use super::table::{LISTS, SETTINGS};
use super::{API_KEY, AUTH_KEY};
use super::{Config, ROOM};

/// Settings that take effect while the server runs; those of lists stand under the name of their list. Others need a restart.
pub const RELOADABLE: &[&str] = &[
    "log_level",
    "tls.certificate",
    "tls.key",
    "tls.client_ca",
    "tls.client_certificates",
    "auth.jwks_file",
    "auth.issuer",
    "auth.audience",
    "auth.anonymous",
    "auth.origins",
    "auth.leeway",
    "auth.expiry_required",
    "auth.expiring_before",
    "auth.default.join",
    "auth.default.publish",
    "auth.default.presence",
    "auth.default.private",
    "auth.default.broadcast",
    "limits.connections_max",
    "limits.message_bytes_max",
    "limits.fragments_max",
    "limits.rooms_max",
    "limits.items_bytes_max",
    "limits.user_connections_max",
    "limits.user_connections_policy",
    "limits.memory_max",
    "limits.head_bytes_max",
    "limits.headers_max",
    "limits.handshake_timeout",
    "address.connections_max",
    "address.handshakes_per_second",
    "address.half_open_max",
    "address.exempt",
    "outbox.bytes_max",
    "outbox.age_max",
    "outbox.node_bytes_max",
    "rate.messages_per_second",
    "rate.bytes_per_second",
    "rooms.notice_members_max",
    "rooms.join_text",
    "rooms.leave_text",
    "history.memory_max",
    "items.node_max",
    "items.node_bytes_max",
    "echo.paths",
    "drain.delay",
    "drain.timeout",
    ROOM.name,
    AUTH_KEY.name,
    API_KEY.name,
];

/// The difference between the configuration in force and one that was read, by the names of settings and lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// What takes effect.
    pub applied: Vec<&'static str>,
    /// What differs, and needs a restart.
    pub left: Vec<&'static str>,
}

impl Config {
    /// The configuration in force once `read` has been taken over as far as a running server can: of the settings that
    /// differ, those that are [`RELOADABLE`], and that can go from the one to the other.
    pub fn reloaded(running: &Effective, read: &Effective) -> (Config, Effective, Changes) {
        let (effective, _) = take_over(running, read, &[]);
        let excluded = excluded(&Config::from_effective(running), &Config::from_effective(&effective));
        let (effective, changes) = take_over(running, read, &excluded);
        (Config::from_effective(&effective), effective, changes)
    }
}

/// What begins with one of `excluded` is left.
fn take_over(running: &Effective, read: &Effective, excluded: &[&str]) -> (Effective, Changes) {
    let mut next = running.clone();
    let mut changes = Changes::default();
    let is_taken = |key: &str| RELOADABLE.contains(&key) && !excluded.iter().any(|prefix| key.starts_with(prefix));
    for setting in SETTINGS.iter().filter(|setting| !running.settings.agree(&read.settings, setting.key)) {
        match is_taken(setting.key) {
            true => {
                next.settings.take_from(&read.settings, setting.key);
                changes.applied.push(setting.key);
            }
            false => changes.left.push(setting.key),
        }
    }
    for list in LISTS.into_iter().filter(|list| !running.agree(read, list)) {
        match is_taken(list.name) {
            true => {
                next.replace(read, list);
                changes.applied.push(list.name);
            }
            false => changes.left.push(list.name),
        }
    }
    (next, changes)
}

/// What cannot go from the one to the other while the server runs: what there is at all was decided at its start.
fn excluded(running: &Config, next: &Config) -> Vec<&'static str> {
    let mut excluded = Vec::new();
    if running.auth.is_on() != next.auth.is_on() {
        excluded.push("auth.");
    }
    let secured = |config: &Config| config.listeners.iter().map(|listener| listener.tls.is_some()).collect::<Vec<_>>();
    if secured(running) != secured(next) {
        excluded.push("tls.");
    }
    let counts_users = |config: &Config| config.limits.user_connections_max > 0;
    if counts_users(running) != counts_users(next) {
        excluded.push("limits.user_connections");
    }
    excluded
}

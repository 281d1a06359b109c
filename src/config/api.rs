//! Keys of the operator's programs: who they are, and what each may do.

use super::auth::Secret;
use super::effective::Effective;
use super::error::Problem;
use super::pattern::Pattern;
use super::table::API_KEY;
use super::values::Values;
use crate::limits::API_KEYS_MAX;

const NAME: &str = "api.key.name";
const SECRET: &str = "api.key.secret";
const SECRET_FILE: &str = "api.key.secret_file";
const VERBS: &str = "api.key.verbs";

/// What plain HTTP serves to programs, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Api {
    /// The keys that programs show, at most [`API_KEYS_MAX`]; several may have one name.
    pub key: Vec<ApiKey>,
    /// Bytes of the body of a request.
    pub body_bytes_max: usize,
}

/// What is for the operator alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Whether what counts as loopback may do what a key is needed for elsewhere.
    pub loopback: bool,
}

/// A key that a program shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Where it is written, for messages: `file f.toml:3`.
    pub place: String,
    /// Whose it is: 1 to 128 bytes.
    pub name: String,
    /// The key itself, or where it is.
    pub secret: SecretPlace,
    /// What it is good for, at least one.
    pub verbs: Vec<Verb>,
    /// Rooms that it is good for.
    pub rooms: Vec<Pattern>,
}

/// A secret, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// The secret, of at least 32 bytes.
    Here(Secret),
    /// A file with it.
    File(String),
}

/// What a key may be good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Messages to rooms.
    Publish,
    /// Messages to users.
    Private,
    /// Messages to all.
    Broadcast,
    /// Counters, rooms, members, histories.
    Read,
    /// Removing users, connections, histories.
    Kick,
}

impl Verb {
    const ALL: [(&'static str, Verb); 5] = [
        ("publish", Verb::Publish),
        ("private", Verb::Private),
        ("broadcast", Verb::Broadcast),
        ("read", Verb::Read),
        ("kick", Verb::Kick),
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Verb> {
        Verb::ALL.into_iter().map(|(_, verb)| verb)
    }
}

impl Api {
    pub(super) fn from_values(from: &Values, keys: &[Values]) -> Api {
        Api { key: keys.iter().map(ApiKey::from_values).collect(), body_bytes_max: from.size("api.body_bytes_max") }
    }
}

impl ApiKey {
    fn from_values(from: &Values) -> ApiKey {
        let secret = match from.is_said(SECRET) {
            true => SecretPlace::Here(from.secret(SECRET).clone()),
            false => SecretPlace::File(from.text(SECRET_FILE).to_owned()),
        };
        let verbs = from.words(VERBS).iter();
        let verbs = verbs.filter_map(|word| Verb::ALL.iter().find(|(name, _)| name == word).map(|(_, verb)| *verb));
        ApiKey {
            place: from.source(NAME).describe(),
            name: from.text(NAME).to_owned(),
            secret,
            verbs: verbs.collect(),
            rooms: from.patterns("api.key.rooms").to_vec(),
        }
    }
}

/// What is wrong with a key as a whole.
pub(super) fn fault(key: &Values) -> Option<String> {
    let text = match (key.is_said(SECRET), key.is_said(SECRET_FILE)) {
        _ if key.text(NAME).is_empty() => "the key has no name; add name, for whoever holds it",
        (false, false) => "there is no key in it; add secret_file",
        (true, true) => "the key stands in it twice; keep secret or secret_file",
        _ if key.words(VERBS).is_empty() => "the key is good for nothing; add verbs, as verbs = [\"read\"]",
        (true, false) | (false, true) => return None,
    };
    Some(text.to_owned())
}

/// No more keys than are allowed.
pub(super) fn check(effective: &Effective, problems: &mut Vec<Problem>) {
    let keys = effective.entries(&API_KEY);
    if let Some(beyond) = keys.get(API_KEYS_MAX) {
        let text = format!("{} keys are too many; write at most {API_KEYS_MAX}", keys.len());
        problems.push(Problem::new(beyond.source(NAME).clone(), API_KEY.name, text));
    }
}

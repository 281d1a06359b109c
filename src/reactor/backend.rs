//! The seam to the team's backend, which is asked by another thread: questions go there, decisions come by mail.
//!
//! ```text
//!   reactors ── Inquiry ──► Backend, a thread of the server's ── decision, or new keys ──► the reactors' mailboxes
//! ```
//!
//! A connection has one question at a time under way, however much it sends: it waits in its handshake, or its commands
//! wait. So the questions of a node are bounded by its connections, and by [`limits::QUESTIONS_MAX`](crate::limits::QUESTIONS_MAX).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::driver::SlotKey;
use super::mailbox::PostOffice;
use crate::auth::{Auth, Decision, Key, Question, Settings};
use crate::conn::Forwarded;
use crate::ids::ReactorId;

/// Asks the backend, and fetches keys, without making a reactor wait.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Takes a question, whose decision comes by [`PostOffice::decided`] within `auth.url_timeout` while its ticket is held;
    /// `None` where too many are under way.
    fn ask(&self, inquiry: Inquiry) -> Option<Ticket>;

    /// A reactor has a token whose key is not among those of this [`Auth::generation`]. It is told by
    /// [`PostOffice::keys_settled`] when there are no newer keys to be had; keys that came before that come by
    /// [`Keyring::fetched`].
    fn want_keys(&self, wanted: KeysWanted);
}

/// A reactor's wish for newer keys.
#[derive(Clone, Copy, Debug)]
pub struct KeysWanted {
    /// Who is told.
    pub reactor: ReactorId,
    /// Newer ones than those of this [`Auth::generation`].
    pub generation: u64,
}

/// What became of the wish for newer keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysOutcome {
    /// The reactor has the newest ones: a token whose key is not among them is signed by none of this server's.
    Newest,
    /// Nothing newer could be fetched: whether there is such a key is not known.
    Unavailable,
}

/// What reactors ask for, and of whom.
#[derive(Clone, Debug)]
pub struct BackendAccess {
    /// Who asks in their place.
    pub backend: Arc<dyn Backend>,
    /// Whether it decides about connections.
    pub decides_connects: bool,
    /// Whether it decides about joins.
    pub decides_joins: bool,
    /// Whether there are keys to be fetched.
    pub has_keys: bool,
    /// Names of the header fields that go with a question about a connection, in lower case.
    pub forward: Arc<[String]>,
}

/// A question of a reactor.
#[derive(Debug)]
pub struct Inquiry {
    /// Who gets the decision.
    pub asker: Asker,
    /// What is asked.
    pub question: Question,
    /// The token that goes with it.
    pub token: Option<Token>,
    /// Header fields that go with it.
    pub forwarded: Forwarded,
    /// By which the answer is read.
    pub auth: Arc<Auth>,
    /// Whether an open connection asks: it does not wait behind handshakes.
    pub is_open: bool,
}

impl Inquiry {
    /// Bytes that it holds of what the client has sent.
    pub(super) fn held_bytes(&self) -> usize {
        self.question.held_bytes() + self.token.as_ref().map_or(0, |token| token.0.len()) + self.forwarded.held_bytes()
    }
}

/// Held by the connection whose question is under way. Where it is dropped, the question is withdrawn: what was not sent
/// yet is not sent, and takes no place of another.
pub struct Ticket {
    /// What its question holds of what the client has sent.
    pub(super) bytes: usize,
    _held: Box<dyn Send>,
}

impl Ticket {
    /// For a question that notices when this is dropped.
    pub fn new(held: impl Send + 'static) -> Ticket {
        Ticket { bytes: 0, _held: Box::new(held) }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket")
    }
}

/// The connection that waits for a decision.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    pub(super) reactor: ReactorId,
    pub(super) slot: SlotKey,
}

/// A token, which is a secret: never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(pub String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A decision on its way to the connection that waits for it.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) slot: SlotKey,
    pub(super) decision: Decision,
}

/// The keys of a node, of both sources: the configuration's, which are read again when the operator says so, and those that
/// are fetched. Whenever one of the two has changed, all reactors are told. Clones are the same keyring.
#[derive(Clone, Debug)]
pub struct Keyring(Arc<Mutex<Keys>>);

#[derive(Debug)]
struct Keys {
    auth: Arc<Auth>,
    configured: Vec<Key>,
    fetched: Vec<Key>,
    /// Of [`Auth`], since the last fetch.
    fetched_generation: u64,
}

impl Keyring {
    /// With the configuration's keys, and none fetched. `auth` gives the settings.
    pub fn new(auth: Arc<Auth>, configured: Vec<Key>) -> Keyring {
        let fetched_generation = auth.generation();
        Keyring(Arc::new(Mutex::new(Keys { auth, configured, fetched: Vec::new(), fetched_generation })))
    }

    /// Other settings and keys take the place of the configuration's.
    pub fn configured(&self, settings: Settings, keys: Vec<Key>, post: &PostOffice) {
        self.replace(post, |all| {
            all.configured = keys;
            settings
        });
    }

    /// Other keys take the place of those that were fetched.
    pub fn fetched(&self, keys: Vec<Key>, post: &PostOffice) {
        self.replace(post, |all| {
            all.fetched = keys;
            all.fetched_generation = all.auth.generation() + 1;
            all.auth.settings().clone()
        });
    }

    /// The [`Auth::generation`] with which fetched keys came last: all reactors have it, or are about to get it.
    pub fn fetched_generation(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fetched_generation
    }

    /// The reactors are told before the next change, so that all end with the same.
    fn replace(&self, post: &PostOffice, change: impl FnOnce(&mut Keys) -> Settings) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let settings = change(&mut all);
        all.auth = Arc::new(all.auth.with(settings, all.configured.iter().chain(&all.fetched).cloned().collect()));
        post.keys(&all.auth);
    }
}

#[cfg(test)]
mod tests {
    use super::super::mailbox::post_office;
    use super::*;
    use crate::auth::Allowance;

    #[test]
    fn keys_of_the_configuration_are_no_answer_to_who_wants_fetched_ones() {
        let settings = || Settings {
            issuer: None,
            audience: None,
            anonymous: false,
            leeway_ms: 0,
            expiry_required: true,
            default: Allowance::default(),
        };
        let keyring = Keyring::new(Arc::new(Auth::new(settings(), Vec::new())), Vec::new());
        let (post, _mailboxes) = post_office(Vec::new());
        let mut generations = vec![keyring.fetched_generation()];
        for is_fetched in [false, true, false, false, true] {
            match is_fetched {
                true => keyring.fetched(Vec::new(), &post),
                false => keyring.configured(settings(), Vec::new(), &post),
            }
            generations.push(keyring.fetched_generation());
        }
        assert_eq!(generations, [0, 0, 2, 2, 2, 5]);
    }
}

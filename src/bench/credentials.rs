//! By what the connections of a run say who they are.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::SystemRandom;
use serde_json::{Map, Value, json};

use super::BenchError;
use super::flags::Given;
use super::limits::{KEY_FILE_BYTES_MAX, TOKEN_TTL_MS};
use crate::auth::{Alg, Mint, SigningKey};
use crate::client::Token;
use crate::config::read_at_most;

/// What a connection brings beside its request.
#[derive(Clone, Debug)]
pub(super) enum Credentials {
    /// Nothing: its user id is its own word.
    UserId,
    /// A token that all have: to the server they are one user.
    Shared(Token),
    /// A token of its own, made before it connects.
    Minted(Arc<Mint>),
}

impl Credentials {
    /// What the flags say, and the environment where they say nothing.
    pub(super) fn from_given(given: &Given<'_>, env: Option<&str>) -> Result<Credentials, BenchError> {
        let (secret, file) = (given.text("token-secret"), given.text("token-secret-file"));
        let (private, alg) = (given.text("token-key-file"), given.text("token-alg"));
        let (token, token_file) = (given.text("token"), given.text("token-file"));
        let material = match (secret, file, private) {
            (None, None, None) if alg.is_some() || given.text("token-kid").is_some() => {
                return Err(wrong(
                    "--token-alg and --token-kid are about a key; name one with --token-secret-file or --token-key-file",
                ));
            }
            (None, None, None) => {
                let token = Token::find(token, token_file, env).map_err(BenchError::Options)?;
                return Ok(token.map_or(Credentials::UserId, Credentials::Shared));
            }
            _ if token.is_some() || token_file.is_some() => {
                return Err(wrong("a token is given, and a key to make tokens with; give one of them"));
            }
            (Some(secret), None, None) => secret.as_bytes().to_vec(),
            (None, Some(path), None) => {
                let mut secret = read("token-secret-file", path)?;
                while let Some(b'\n' | b'\r') = secret.last() {
                    secret.pop();
                }
                secret
            }
            (None, None, Some(path)) => read("token-key-file", path)?,
            _ => return Err(wrong("several keys to make tokens with are given; give one of them")),
        };
        let alg = match (given.word("token-alg")?, private) {
            (Some(name), _) => name,
            (None, None) => "HS256",
            (None, Some(_)) => "ES256",
        };
        let alg = Alg::find(alg).ok_or_else(|| wrong(&format!("--token-alg: {alg} is not known")))?;
        let key = match private {
            None => SigningKey::secret(alg, &material),
            Some(_) => SigningKey::private_pem(alg, &material, &SystemRandom::new()),
        };
        let key = key.map_err(|error| wrong(&format!("the key to make tokens with: {error}")))?;
        Ok(Credentials::Minted(Arc::new(Mint::new(key, given.text("token-kid"), TOKEN_TTL_MS, everything()))))
    }

    /// The token of a user, where there is one.
    pub(super) fn token(&self, user: &str) -> Result<Option<String>, BenchError> {
        match self {
            Credentials::UserId => Ok(None),
            Credentials::Shared(token) => Ok(Some(token.as_str().to_owned())),
            Credentials::Minted(mint) => {
                let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
                let token = mint.token(user, now_ms, &SystemRandom::new());
                let no_random = || BenchError::Machine("the operating system has no random numbers; try again".into());
                token.map(Some).ok_or_else(no_random)
            }
        }
    }

    /// Whether those who publish have to be in the room: where tokens are asked for.
    pub(super) fn ask_for_membership(&self) -> bool {
        match self {
            Credentials::UserId => false,
            Credentials::Shared(_) | Credentials::Minted(_) => true,
        }
    }

    /// In a word, for reports.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Credentials::UserId => "none",
            Credentials::Shared(_) => "shared",
            Credentials::Minted(_) => "minted",
        }
    }
}

/// That the user may do all that a scenario does.
fn everything() -> Map<String, Value> {
    let all = ["*"];
    let may = json!({"join": all, "publish": all, "presence": all, "private": true, "broadcast": true});
    Map::from_iter([("fanfare".to_owned(), may)])
}

fn read(flag: &str, path: &str) -> Result<Vec<u8>, BenchError> {
    read_at_most(path, KEY_FILE_BYTES_MAX).map_err(|what| wrong(&format!("--{flag}: {path:?} {what}")))
}

fn wrong(what: &str) -> BenchError {
    BenchError::Options(what.to_owned())
}

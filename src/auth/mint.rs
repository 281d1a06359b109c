//! Tokens that differ in their user alone.

use ring::rand::SecureRandom;
use serde_json::{Map, Value};

use super::SigningKey;

/// A key, and what all the tokens that it makes say alike. Debug shows nothing of the key.
#[derive(Debug)]
pub struct Mint {
    key: SigningKey,
    kid: Option<String>,
    ttl_ms: u64,
    alike: Map<String, Value>,
}

impl Mint {
    /// For tokens that are good for so long, in milliseconds. What is not in `alike` comes from `auth.default` where a
    /// token is used.
    pub fn new(key: SigningKey, kid: Option<&str>, ttl_ms: u64, alike: Map<String, Value>) -> Mint {
        Mint { key, kid: kid.map(str::to_owned), ttl_ms, alike }
    }

    /// A token of this user, made at this moment of Unix time. `None` where the source of randomness fails.
    pub fn token(&self, user: &str, now_ms: u64, random: &dyn SecureRandom) -> Option<String> {
        let mut claims = self.alike.clone();
        claims.insert("sub".to_owned(), user.into());
        claims.insert("iat".to_owned(), (now_ms / 1_000).into());
        claims.insert("exp".to_owned(), now_ms.saturating_add(self.ttl_ms).div_ceil(1_000).into());
        self.key.sign(self.kid.as_deref(), &Value::Object(claims).to_string(), random)
    }
}

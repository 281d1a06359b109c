//! Keys that programs of the operator show, compared so that the time it takes tells nothing.

use std::fmt;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use ring::hmac;

use super::key::SECRET_BYTES_MIN;
use crate::config::{Pattern, Verb};
use crate::limits::API_KEY_BYTES_MAX;

/// What a key allows whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiGrant {
    /// Whose key it is.
    pub name: String,
    /// What it is good for.
    pub verbs: Vec<Verb>,
    /// Rooms that it is good for.
    pub rooms: Vec<Pattern>,
}

impl ApiGrant {
    /// Whether the key is good for this.
    pub fn may(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }
}

/// All keys of programs. None of them is held, but what it is known by again; Debug shows neither.
#[derive(Clone)]
pub struct ApiKeys {
    /// Of this process alone: what is held is of no use elsewhere.
    marker: hmac::Key,
    keys: Vec<(hmac::Tag, Arc<ApiGrant>)>,
}

/// Why a key cannot be one. Holds nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiKeyError {
    /// It is short enough to be guessed: so many bytes.
    Short(usize),
    /// It is longer than a request shows one: so many bytes.
    Long(usize),
    /// It holds bytes that no `Authorization` field brings (RFC 6750 §2.1).
    Letters,
    /// Another key is the same.
    Twice,
}

impl fmt::Display for ApiKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiKeyError::Short(bytes) => write!(
                f,
                "the key has {bytes} bytes, few enough to be guessed; make one of at least {SECRET_BYTES_MIN} with \
                 `openssl rand -base64 48`"
            ),
            ApiKeyError::Long(bytes) => write!(f, "the key has {bytes} bytes; make one of at most {API_KEY_BYTES_MAX}"),
            ApiKeyError::Letters => {
                f.write_str("the key has blanks or letters beyond ASCII; make one with `openssl rand -base64 48`")
            }
            ApiKeyError::Twice => {
                f.write_str("another key is the same; make one for each, so that one can be replaced")
            }
        }
    }
}

impl std::error::Error for ApiKeyError {}

impl ApiKeys {
    /// None yet. `seed` is random, and told to nobody.
    pub fn new(seed: &[u8; 32]) -> ApiKeys {
        ApiKeys { marker: hmac::Key::new(hmac::HMAC_SHA256, seed), keys: Vec::new() }
    }

    /// Takes one more key.
    ///
    /// # Errors
    ///
    /// It could be guessed, could not be shown, or is there already.
    pub fn add(&mut self, key: &[u8], grant: ApiGrant) -> Result<(), ApiKeyError> {
        match key.len() {
            short @ 0..SECRET_BYTES_MIN => return Err(ApiKeyError::Short(short)),
            SECRET_BYTES_MIN..=API_KEY_BYTES_MAX => {}
            long => return Err(ApiKeyError::Long(long)),
        }
        if !key.iter().all(u8::is_ascii_graphic) {
            return Err(ApiKeyError::Letters);
        }
        if self.find(key).is_some() {
            return Err(ApiKeyError::Twice);
        }
        self.keys.push((hmac::sign(&self.marker, digest(&SHA256, key).as_ref()), Arc::new(grant)));
        Ok(())
    }

    /// What a shown key allows; `None` where it is none. All keys are looked at, each in constant time.
    pub fn find(&self, shown: &[u8]) -> Option<&Arc<ApiGrant>> {
        if shown.len() > API_KEY_BYTES_MAX {
            return None;
        }
        // Hashed once, however many keys there are.
        let shown = digest(&SHA256, shown);
        let mut found = None;
        for (tag, grant) in &self.keys {
            if hmac::verify(&self.marker, shown.as_ref(), tag.as_ref()).is_ok() {
                found = Some(grant);
            }
        }
        found
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({})", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn grant(name: &str, verbs: &[Verb]) -> ApiGrant {
        ApiGrant { name: name.to_owned(), verbs: verbs.to_vec(), rooms: Vec::new() }
    }

    #[test]
    fn a_key_is_known_again_and_another_is_not() {
        let mut keys = ApiKeys::new(&[7; 32]);
        assert!(keys.is_empty() && keys.find(KEY).is_none());
        keys.add(KEY, grant("old", &[Verb::Read])).expect("it is good");
        let next = [KEY, b"!"].concat();
        keys.add(&next, grant("old", &[Verb::Read, Verb::Kick])).expect("several have one name");
        assert_eq!(keys.find(KEY).map(|found| &**found), Some(&grant("old", &[Verb::Read])));
        assert!(keys.find(&next).is_some_and(|grant| grant.may(Verb::Kick) && !grant.may(Verb::Publish)));
        for other in [&KEY[1..], b"", &[KEY, b" "].concat(), &vec![b'a'; API_KEY_BYTES_MAX + 1]] {
            assert_eq!(keys.find(other), None);
        }
        assert_eq!(format!("{keys:?}"), "ApiKeys(2)");
    }

    #[test]
    fn what_could_be_guessed_or_not_be_shown_is_no_key() {
        let mut keys = ApiKeys::new(&[7; 32]);
        let mut add = |key: &[u8]| keys.add(key, grant("a", &[Verb::Read]));
        assert_eq!(add(&KEY[1..]), Err(ApiKeyError::Short(31)));
        assert_eq!(add(&[b'a'; API_KEY_BYTES_MAX + 1]), Err(ApiKeyError::Long(API_KEY_BYTES_MAX + 1)));
        assert_eq!(add(b"0123456789abcdef 0123456789abcdef"), Err(ApiKeyError::Letters));
        assert_eq!(add(&[0xc3; 40]), Err(ApiKeyError::Letters));
        assert_eq!(add(&[b'a'; API_KEY_BYTES_MAX]), Ok(()));
        assert_eq!(add(KEY), Ok(()));
        assert_eq!(add(KEY), Err(ApiKeyError::Twice));
    }
}

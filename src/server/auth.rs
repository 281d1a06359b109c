//! Keys and settings for tokens, as the configuration names them: the files are read here.

use std::fmt;

use crate::auth::{Alg, Allowance, Auth, Key, Origins, Settings, key_set};
use crate::config::{self, AuthKey, KeyMaterial, one_line, read_at_most};
use crate::limits::KEY_SET_BYTES_MAX;

/// Largest file with a key, in bytes. A larger one is refused.
const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

/// What is wrong with a key, where, and what to do, in one line. Holds nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthError(String);

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&one_line(&self.0))
    }
}

impl std::error::Error for AuthError {}

/// What tokens are checked with; `None` where none is asked for.
///
/// # Errors
///
/// A file that cannot be read, or a key that is none, is weak, or is for another `alg`.
pub fn load(config: &config::Auth) -> Result<Option<Auth>, AuthError> {
    if !config.is_on() {
        return Ok(None);
    }
    let mut keys = config.key.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    if !config.jwks_file.is_empty() {
        let what = |what: String| AuthError(format!("auth.jwks_file: {:?}: {what}", config.jwks_file));
        let document = read_at_most(&config.jwks_file, KEY_SET_BYTES_MAX).map_err(what)?;
        keys.extend(key_set(&document).map_err(|error| what(error.to_string()))?.keys);
    }
    Ok(Some(Auth::new(settings(config), keys)))
}

/// Which web pages may connect; `None` where that is not asked.
pub fn origins(config: &config::Auth) -> Option<Origins> {
    (config.is_on() || !config.origins.is_empty()).then(|| Origins::new(config.origins.clone()))
}

/// The bytes of a key: a secret, or a public key in PEM.
///
/// # Errors
///
/// Its file cannot be read.
pub fn material(key: &AuthKey) -> Result<Vec<u8>, AuthError> {
    let file = |name: &str, path: &str| {
        let bytes = read_at_most(path, KEY_FILE_BYTES_MAX);
        bytes.map_err(|what| AuthError(format!("{}: auth.key.{name}: {path:?}: {what}", key.place)))
    };
    match &key.material {
        KeyMaterial::Secret(secret) => Ok(secret.expose().as_bytes().to_vec()),
        KeyMaterial::PublicKey(pem) => Ok(pem.as_bytes().to_vec()),
        KeyMaterial::PublicKeyFile(path) => file("public_key_file", path),
        KeyMaterial::SecretFile(path) => {
            let mut secret = file("secret_file", path)?;
            while let Some(b'\n' | b'\r') = secret.last() {
                secret.pop();
            }
            Ok(secret)
        }
    }
}

fn key(key: &AuthKey) -> Result<Key, AuthError> {
    let bytes = material(key)?;
    let kid = key.kid.as_deref();
    let made = match (Alg::find(key.alg), &key.material) {
        (Some(alg), KeyMaterial::Secret(_) | KeyMaterial::SecretFile(_)) => Key::secret(alg, kid, &bytes),
        (Some(alg), KeyMaterial::PublicKey(_) | KeyMaterial::PublicKeyFile(_)) => Key::public_pem(alg, kid, &bytes),
        (None, _) => return Err(AuthError(format!("{}: auth.key.alg: {} is not known", key.place, key.alg))),
    };
    made.map_err(|error| {
        let (name, path) = match &key.material {
            KeyMaterial::Secret(_) => ("secret", None),
            KeyMaterial::PublicKey(_) => ("public_key", None),
            KeyMaterial::SecretFile(path) => ("secret_file", Some(path)),
            KeyMaterial::PublicKeyFile(path) => ("public_key_file", Some(path)),
        };
        let path = path.map_or(String::new(), |path| format!("{path:?}: "));
        AuthError(format!("{}: auth.key.{name}: {path}{error}", key.place))
    })
}

fn settings(config: &config::Auth) -> Settings {
    let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let default = &config.default;
    Settings {
        issuer: text(&config.issuer),
        audience: text(&config.audience),
        anonymous: config.anonymous,
        leeway_ms: u64::try_from(config.leeway.as_millis()).unwrap_or(u64::MAX),
        expiry_required: config.expiry_required,
        default: Allowance {
            join: default.join.clone(),
            publish: default.publish.clone(),
            presence: default.presence.clone(),
            private: default.private,
            broadcast: default.broadcast,
            messages_per_second: None,
        },
    }
}

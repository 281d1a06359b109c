//! Keys of tokens and of programs, and settings for tokens, as the configuration names them: the files are read here.

use std::io;
use std::sync::Arc;

use super::credential_error::CredentialError;
use super::settings::ms;
use crate::auth::{Alg, Allowance, ApiGrant, ApiKeys, Auth, Key, Origins, Settings, SigningKey, key_set};
use crate::backend::{self, Authorities, Desk};
use crate::config::{self, AuthKey, Config, KeyMaterial, Role, SecretPlace, read_at_most};
use crate::control::{Minter, Tokens};
use crate::limits::{KEY_SET_BYTES_MAX, VERIFIER_NICENESS};
use crate::metrics::BackendMetrics;
use crate::niceness::stand_back;
use crate::reactor::{AddressLimits, Addresses, Gate, Jobs, Keyring, ListenerId, PostOffice, verifier};

/// Largest file with a key, in bytes. A larger one is refused.
const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

/// What tokens are checked with; `None` where none is asked for.
///
/// # Errors
///
/// A file that cannot be read, or a key that is none, is weak, or is for another `alg`.
pub fn load(config: &config::Auth) -> Result<Option<Auth>, CredentialError> {
    match config.is_on() {
        true => Ok(Some(Auth::new(settings(config), keys(config)?))),
        false => Ok(None),
    }
}

/// The keys of the configuration, from the files that it names.
///
/// # Errors
///
/// As [`load`].
pub fn keys(config: &config::Auth) -> Result<Vec<Key>, CredentialError> {
    let mut keys = config.key.iter().map(key).collect::<Result<Vec<_>, _>>()?;
    if !config.jwks_file.is_empty() {
        let what = |what: String| CredentialError(format!("auth.jwks_file: {:?}: {what}", config.jwks_file));
        let document = read_at_most(&config.jwks_file, KEY_SET_BYTES_MAX).map_err(what)?;
        keys.extend(key_set(&document).map_err(|error| what(error.to_string()))?.keys);
    }
    Ok(keys)
}

/// Who gets in, and what works beside the reactors for that.
#[derive(Debug)]
pub(super) struct Entrance {
    pub(super) gate: Gate,
    /// What the backend's thread counts.
    pub(super) metrics: Option<Arc<BackendMetrics>>,
    /// The keys of the node, where tokens are asked for.
    pub(super) keyring: Option<Keyring>,
    jobs: Option<Jobs>,
    desk: Option<Desk>,
}

impl Entrance {
    /// For a node of so many reactors.
    ///
    /// # Errors
    ///
    /// As [`load`], and a file with certificate authorities that is none.
    pub(super) fn new(config: &Config, reactors: usize) -> Result<Entrance, CredentialError> {
        let mut gate = gate(config);
        let config = &config.auth;
        let origins = origins(config).map(Arc::new);
        (gate.origins, gate.expiring_before_ms) = (origins, ms(config.expiring_before));
        if !config.is_on() {
            return Ok(Entrance { gate, metrics: None, keyring: None, jobs: None, desk: None });
        }
        let keys = keys(config)?;
        let auth = Arc::new(Auth::new(settings(config), keys.clone()));
        let keyring = Some(Keyring::new(auth.clone(), keys));
        let (verifier, jobs) = verifier(reactors);
        (gate.auth, gate.verifier) = (Some(auth), Some(verifier));
        let metrics = Arc::<BackendMetrics>::default();
        let (backend, desk) = backend::prepare(config, authorities(config)?, metrics.clone()).unzip();
        let metrics = backend.is_some().then_some(metrics);
        gate.backend = backend;
        Ok(Entrance { gate, metrics, keyring, jobs: Some(jobs), desk })
    }

    /// Starts the threads that check tokens and that ask the backend.
    ///
    /// # Errors
    ///
    /// The operating system gives no thread.
    pub(super) fn start(&mut self, post: &PostOffice) -> io::Result<()> {
        if let Some(jobs) = self.jobs.take() {
            let post = post.clone();
            std::thread::Builder::new().name("auth".into()).spawn(move || {
                stand_back(VERIFIER_NICENESS);
                jobs.run(&post);
            })?;
        }
        match (self.desk.take(), &self.keyring) {
            (Some(desk), Some(keyring)) => desk.start(post.clone(), keyring.clone()),
            (_, _) => Ok(()),
        }
    }
}

/// What is asked of everybody, with tokens or without.
fn gate(config: &Config) -> Gate {
    let pages_only = config.listeners.iter().enumerate().filter(|(_, listener)| listener.role != Role::Clients);
    Gate {
        pages_only: pages_only.map(|(at, _)| ListenerId(at as u16)).collect(),
        addresses: Some(Arc::new(Addresses::new(address_limits(&config.address)))),
        trusted: Arc::new(config.proxy.trusted.clone()),
        proxied_listeners: config.listeners.iter().map(|listener| listener.proxy_protocol).collect(),
        echo: echo_paths(config),
        ..Gate::default()
    }
}

/// Paths whose connections get back what they send.
pub(super) fn echo_paths(config: &Config) -> Arc<[Box<str>]> {
    config.echo.iter().map(|path| path.as_str().into()).collect()
}

/// What one address may have.
pub(super) fn address_limits(config: &config::Address) -> AddressLimits {
    AddressLimits {
        connections_max: config.connections_max,
        handshakes_per_second: config.handshakes_per_second,
        half_open_max: config.half_open_max,
        exempt: config.exempt.clone(),
    }
}

fn authorities(config: &config::Auth) -> Result<Authorities, CredentialError> {
    match &*config.url_ca {
        _ if !config.has_tls_url() => Ok(Authorities::none()),
        "" => Ok(Authorities::of_system()),
        path => Authorities::from_file(path).map_err(|what| CredentialError(format!("auth.url_ca: {path:?} {what}"))),
    }
}

/// The keys of programs.
///
/// # Errors
///
/// A file that cannot be read, or a key that is none, could be guessed, or stands twice; or there is no randomness.
pub fn api_keys(config: &config::Api) -> Result<ApiKeys, CredentialError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| CredentialError(format!("cannot get random bytes: {error}")))?;
    let mut keys = ApiKeys::new(&seed);
    for key in &config.key {
        let (secret, place) = secret_at(&key.secret, &key.place, "api.key")?;
        let grant = ApiGrant { name: key.name.clone(), verbs: key.verbs.clone(), rooms: key.rooms.clone() };
        keys.add(&secret, grant).map_err(|error| CredentialError(format!("{place}{error}")))?;
    }
    Ok(keys)
}

/// A secret from where it is, and what stands in front of a message about it. `place` is where its entry of the list `list`
/// is written.
///
/// # Errors
///
/// Its file cannot be read.
pub(super) fn secret_at(secret: &SecretPlace, place: &str, list: &str) -> Result<(Vec<u8>, String), CredentialError> {
    match secret {
        SecretPlace::Here(secret) => Ok((secret.expose().as_bytes().to_vec(), format!("{place}: {list}.secret: "))),
        SecretPlace::File(path) => {
            let place = format!("{place}: {list}.secret_file: {path:?}: ");
            let bytes = read_at_most(path, KEY_FILE_BYTES_MAX);
            let bytes = bytes.map_err(|what| CredentialError(format!("{place}{what}")))?;
            Ok((without_line_breaks(bytes), place))
        }
    }
}

/// How clients get in, and what tokens of the console are made with.
///
/// # Errors
///
/// As [`load`].
pub fn tokens(config: &config::Auth) -> Result<Tokens, CredentialError> {
    if !config.is_on() {
        return Ok(Tokens::default());
    }
    let required = !config.anonymous && !config.connect_url.is_set();
    let tokens = Tokens { asked: true, required, minter: None };
    let alg_of = |key: &AuthKey| Alg::find(key.alg).filter(|alg| alg.is_hmac());
    let Some((key, alg)) = config.key.iter().find_map(|key| Some((key, alg_of(key)?))) else {
        return Ok(tokens);
    };
    let signing = SigningKey::secret(alg, &material(key)?);
    let signing = signing.map_err(|error| CredentialError(format!("{}: auth.key: {error}", key.place)))?;
    let minter =
        Minter { key: signing, kid: key.kid.clone(), issuer: said(&config.issuer), audience: said(&config.audience) };
    Ok(Tokens { minter: Some(Arc::new(minter)), ..tokens })
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
pub fn material(key: &AuthKey) -> Result<Vec<u8>, CredentialError> {
    let file = |name: &str, path: &str| {
        let bytes = read_at_most(path, KEY_FILE_BYTES_MAX);
        bytes.map_err(|what| CredentialError(format!("{}: auth.key.{name}: {path:?}: {what}", key.place)))
    };
    match &key.material {
        KeyMaterial::Secret(secret) => Ok(secret.expose().as_bytes().to_vec()),
        KeyMaterial::PublicKey(pem) => Ok(pem.as_bytes().to_vec()),
        KeyMaterial::PublicKeyFile(path) => file("public_key_file", path),
        KeyMaterial::SecretFile(path) => Ok(without_line_breaks(file("secret_file", path)?)),
    }
}

/// A secret as it stands in a file: line breaks at the end of that do not count.
fn without_line_breaks(mut secret: Vec<u8>) -> Vec<u8> {
    while let Some(b'\n' | b'\r') = secret.last() {
        secret.pop();
    }
    secret
}

fn key(key: &AuthKey) -> Result<Key, CredentialError> {
    let bytes = material(key)?;
    let kid = key.kid.as_deref();
    let made = match (Alg::find(key.alg), &key.material) {
        (Some(alg), KeyMaterial::Secret(_) | KeyMaterial::SecretFile(_)) => Key::secret(alg, kid, &bytes),
        (Some(alg), KeyMaterial::PublicKey(_) | KeyMaterial::PublicKeyFile(_)) => Key::public_pem(alg, kid, &bytes),
        (None, _) => return Err(CredentialError(format!("{}: auth.key.alg: {} is not known", key.place, key.alg))),
    };
    made.map_err(|error| {
        let (name, path) = match &key.material {
            KeyMaterial::Secret(_) => ("secret", None),
            KeyMaterial::PublicKey(_) => ("public_key", None),
            KeyMaterial::SecretFile(path) => ("secret_file", Some(path)),
            KeyMaterial::PublicKeyFile(path) => ("public_key_file", Some(path)),
        };
        let path = path.map_or(String::new(), |path| format!("{path:?}: "));
        CredentialError(format!("{}: auth.key.{name}: {path}{error}", key.place))
    })
}

/// A text of the configuration, where an empty one says nothing.
fn said(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// What tokens have to be like, and what those that say nothing allow.
pub(super) fn settings(config: &config::Auth) -> Settings {
    let default = &config.default;
    Settings {
        issuer: said(&config.issuer),
        audience: said(&config.audience),
        anonymous: config.anonymous,
        leeway_ms: ms(config.leeway),
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

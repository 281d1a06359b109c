//! Authentication: the settings of `[auth]`, and the keys that tokens are checked by.
//!
//! Whatever is wrong with a key, its secret is never told.

use std::fmt;
use std::time::Duration;

use super::effective::Effective;
use super::error::Problem;
use super::field_name::FieldName;
use super::http_url::HttpUrl;
use super::pattern::Pattern;
use super::table::AUTH_KEY;
use super::values::Values;
use crate::limits::TOKEN_KEYS_MAX;

const ALG: &str = "auth.key.alg";

/// Where the key itself stands: one of these has to be said.
const MATERIALS: [&str; 4] =
    ["auth.key.secret", "auth.key.secret_file", "auth.key.public_key", "auth.key.public_key_file"];

/// Who gets in, and what they may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Keys that tokens are checked by.
    pub key: Vec<AuthKey>,
    /// A file with a key set; empty is none.
    pub jwks_file: String,
    /// Where a key set is fetched.
    pub jwks_url: HttpUrl,
    /// How often.
    pub jwks_refresh: Duration,
    /// Who decides about connections.
    pub connect_url: HttpUrl,
    /// Who decides about joins.
    pub join_url: HttpUrl,
    /// Header fields that are passed on to the former.
    pub forward_headers: Vec<FieldName>,
    /// The file with the certificate authorities of these URLs' certificates; empty are those of the system.
    pub url_ca: String,
    /// Time that such a URL has to answer.
    pub url_timeout: Duration,
    /// Requests to the backend that are under way.
    pub url_concurrency: usize,
    /// How long a decision holds; zero is not at all.
    pub url_cache: Duration,
    /// What a token's `iss` has to equal; empty takes any.
    pub issuer: String,
    /// What a token's `aud` has to name; empty takes any.
    pub audience: String,
    /// Whether who has no token gets in, with what [`Auth::default`] allows.
    pub anonymous: bool,
    /// Web pages that may connect; none are those of the same host and of this machine.
    pub origins: Vec<Pattern>,
    /// By how much a token's times may be missed at the handshake.
    pub leeway: Duration,
    /// Whether a token without `exp` is refused.
    pub expiry_required: bool,
    /// How long before its token's end a connection is told.
    pub expiring_before: Duration,
    /// What a token that says nothing allows.
    pub default: AuthDefault,
}

/// What a token that says nothing allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthDefault {
    /// Rooms that may be joined.
    pub join: Vec<Pattern>,
    /// Rooms that may be published into.
    pub publish: Vec<Pattern>,
    /// Rooms whose members may be asked for.
    pub presence: Vec<Pattern>,
    /// Messages to users and to connections.
    pub private: bool,
    /// Messages to all.
    pub broadcast: bool,
}

/// A key that tokens are checked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthKey {
    /// Where it is written, for messages: `file f.toml:3`.
    pub place: String,
    /// The only `alg` it is for.
    pub alg: &'static str,
    /// Its name, which tokens ask for.
    pub kid: Option<String>,
    /// The key itself, or where it is.
    pub material: KeyMaterial,
}

/// A key itself, or where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// A secret of at least 32 bytes.
    Secret(Secret),
    /// A file with a secret.
    SecretFile(String),
    /// A public key in PEM.
    PublicKey(String),
    /// A file with a public key in PEM.
    PublicKeyFile(String),
}

/// A text that is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// The text, for what needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Auth {
    /// Whether clients are asked who they are.
    pub fn is_on(&self) -> bool {
        !self.key.is_empty() || !self.jwks_file.is_empty() || self.jwks_url.is_set() || self.connect_url.is_set()
    }

    /// Whether a service is asked.
    pub fn has_urls(&self) -> bool {
        self.jwks_url.is_set() || self.connect_url.is_set() || self.join_url.is_set()
    }

    /// Sockets that requests to services may have open at once.
    pub fn url_sockets_max(&self) -> u64 {
        match self.has_urls() {
            // Those in use, those kept for the next request, and the key set's.
            true => 2 * self.url_concurrency as u64 + 1,
            false => 0,
        }
    }

    /// Whether a service is asked over TLS.
    pub fn has_tls_url(&self) -> bool {
        [&self.jwks_url, &self.connect_url, &self.join_url].into_iter().any(HttpUrl::is_tls)
    }

    pub(super) fn from_values(from: &Values, keys: &[Values]) -> Auth {
        Auth {
            key: keys.iter().map(AuthKey::from_values).collect(),
            jwks_file: from.text("auth.jwks_file").to_owned(),
            jwks_url: from.http_url("auth.jwks_url").clone(),
            jwks_refresh: from.duration("auth.jwks_refresh"),
            connect_url: from.http_url("auth.connect_url").clone(),
            join_url: from.http_url("auth.join_url").clone(),
            forward_headers: from.fields("auth.forward_headers").to_vec(),
            url_ca: from.text("auth.url_ca").to_owned(),
            url_timeout: from.duration("auth.url_timeout"),
            url_concurrency: from.size("auth.url_concurrency"),
            url_cache: from.duration("auth.url_cache"),
            issuer: from.text("auth.issuer").to_owned(),
            audience: from.text("auth.audience").to_owned(),
            anonymous: from.switch("auth.anonymous"),
            origins: from.patterns("auth.origins").to_vec(),
            leeway: from.duration("auth.leeway"),
            expiry_required: from.switch("auth.expiry_required"),
            expiring_before: from.duration("auth.expiring_before"),
            default: AuthDefault {
                join: from.patterns("auth.default.join").to_vec(),
                publish: from.patterns("auth.default.publish").to_vec(),
                presence: from.patterns("auth.default.presence").to_vec(),
                private: from.switch("auth.default.private"),
                broadcast: from.switch("auth.default.broadcast"),
            },
        }
    }
}

impl AuthKey {
    fn from_values(from: &Values) -> AuthKey {
        let material = if from.is_said(MATERIALS[0]) {
            KeyMaterial::Secret(from.secret(MATERIALS[0]).clone())
        } else if from.is_said(MATERIALS[1]) {
            KeyMaterial::SecretFile(from.text(MATERIALS[1]).to_owned())
        } else if from.is_said(MATERIALS[2]) {
            KeyMaterial::PublicKey(from.text(MATERIALS[2]).to_owned())
        } else {
            KeyMaterial::PublicKeyFile(from.text(MATERIALS[3]).to_owned())
        };
        let kid = Some(from.text("auth.key.kid")).filter(|kid| !kid.is_empty());
        AuthKey { place: from.source(ALG).describe(), alg: from.word(ALG), kid: kid.map(str::to_owned), material }
    }
}

/// Whether auth is on where nothing is wrong with it.
pub(super) fn is_meant(effective: &Effective) -> bool {
    let settings = &effective.settings;
    let has_url = |key: &str| settings.is_faulty(key) || settings.http_url(key).is_set();
    effective.gives(&AUTH_KEY)
        || settings.is_faulty("auth.jwks_file")
        || !settings.text("auth.jwks_file").is_empty()
        || has_url("auth.jwks_url")
        || has_url("auth.connect_url")
}

/// What is wrong with a key as a whole.
pub(super) fn fault(key: &Values) -> Option<String> {
    if !key.is_said(ALG) {
        return Some("the key says not what it is for; add alg = \"HS256\", or another".to_owned());
    }
    let said: Vec<&str> = MATERIALS.into_iter().filter(|material| key.is_said(material)).collect();
    let [material] = said[..] else {
        return Some(match said.is_empty() {
            true => "there is no key in it; add secret_file, or public_key_file for a public key".to_owned(),
            false => {
                "the key stands in it more than once; keep one of secret, secret_file, public_key, public_key_file"
                    .to_owned()
            }
        });
    };
    let alg = key.word(ALG);
    match (alg.starts_with("HS"), material.contains("secret")) {
        (true, false) => Some(format!(
            "{alg} takes a secret and no public key, which everybody may know; give secret_file, or the key's own alg"
        )),
        (false, true) => Some(format!("{alg} takes a public key and no secret; give public_key_file")),
        (true, true) | (false, false) => None,
    }
}

/// What does not fit together.
pub(super) fn check(effective: &Effective, problems: &mut Vec<Problem>) {
    let (settings, keys) = (&effective.settings, effective.entries(&AUTH_KEY));
    if let Some(beyond) = keys.get(TOKEN_KEYS_MAX) {
        let text = format!("{} keys are too many; write at most {TOKEN_KEYS_MAX}", keys.len());
        problems.push(Problem::new(beyond.source(ALG).clone(), AUTH_KEY.name, text));
    }
    for (index, key) in keys.iter().enumerate() {
        let kid = key.text("auth.key.kid");
        if !kid.is_empty() && keys[..index].iter().any(|other| other.text("auth.key.kid") == kid) {
            let text = "another key has this kid; name each key once, since a token asks for one of them".to_owned();
            problems.push(Problem::new(key.source("auth.key.kid").clone(), "auth.key.kid", text));
        }
    }
    check_authorities(settings, problems);
    if is_meant(effective) {
        return;
    }
    let is_set = |key: &str| match key {
        "auth.join_url" => settings.http_url(key).is_set(),
        "auth.anonymous" | "auth.default.private" | "auth.default.broadcast" => settings.switch(key),
        "auth.issuer" | "auth.audience" => !settings.text(key).is_empty(),
        _ => !settings.patterns(key).is_empty(),
    };
    for key in [
        "auth.join_url",
        "auth.issuer",
        "auth.audience",
        "auth.anonymous",
        "auth.default.join",
        "auth.default.publish",
        "auth.default.presence",
        "auth.default.private",
        "auth.default.broadcast",
    ] {
        if is_set(key) {
            let text = "there is no key, so that no token would be checked and everybody may do everything; add an \
                        [[auth.key]] or auth.connect_url, or leave this out";
            problems.push(Problem::new(settings.source(key).clone(), key, text.to_owned()));
        }
    }
}

/// Who names certificate authorities means to have TLS.
fn check_authorities(settings: &Values, problems: &mut Vec<Problem>) {
    const URLS: [&str; 3] = ["auth.jwks_url", "auth.connect_url", "auth.join_url"];
    let is_unset = settings.is_faulty("auth.url_ca") || settings.text("auth.url_ca").is_empty();
    if is_unset || URLS.iter().any(|key| settings.is_faulty(key)) {
        return;
    }
    let urls: Vec<_> = URLS.iter().map(|key| settings.http_url(key)).filter(|url| url.is_set()).collect();
    if urls.is_empty() || urls.iter().any(|url| url.is_tls()) {
        return;
    }
    let text = "no URL of auth begins with https://, so no certificate would be checked; write one, or leave this out";
    problems.push(Problem::new(settings.source("auth.url_ca").clone(), "auth.url_ca", text.to_owned()));
}

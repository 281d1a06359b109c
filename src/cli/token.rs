//! `fanfare token`: makes a token with a key of the configuration, or explains one.

use std::io::{Read, Write};
use std::time::{Duration, UNIX_EPOCH};

use clap::{Arg, ArgAction, ArgMatches, Command};
use ring::rand::SystemRandom;
use serde_json::{Map, Value as Json, json};

use super::{EXIT_FAULTS, Env, complain, file_flag, flag, list_flag, load, print, refuse};
use crate::auth::{Alg, Auth, Mint, SigningKey, TokenError, When, texts};
use crate::clock;
use crate::config::{
    AUTH_KEY, AuthKey, Bounds, Config, Kind, SETTINGS, Setting, Value, nearest, one_line, read_at_most,
};
use crate::limits::TOKEN_BYTES_MAX;
use crate::server::auth::{load as load_auth, material};

pub(super) const TOKEN: &str = "token";

const SUB: &str = "sub";
const JOIN: &str = "join";
const PUBLISH: &str = "publish";
const PRESENCE: &str = "presence";
const PRIVATE: &str = "private";
const BROADCAST: &str = "broadcast";
const RATE: &str = "rate";
const TTL: &str = "ttl";
const KID: &str = "kid";
const PRIVATE_KEY: &str = "private-key-file";
const INSPECT: &str = "inspect";

/// Largest file with a private key, in bytes.
const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

const TTL_KIND: Kind = Kind::Duration(Bounds { min: 1_000, max: 3_650 * 24 * 60 * 60 * 1_000, zero: false });
const RATE_KIND: Kind = Kind::Integer(Bounds { min: 0, max: 1_000_000_000, zero: false });

/// The command, for the parser of the command line.
pub(super) fn command() -> Command {
    let patterns = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("PATTERN").action(ArgAction::Append).help(help)
    };
    let switch =
        |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let text = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    Command::new(TOKEN)
        .about("Make a token with a key of the configuration, or explain one")
        .after_help(
            "What is not said with a flag is not in the token, and comes from auth.default where the token is used.\n\
             Exit code 1 where the server would refuse the token, 2 where the command line or the configuration is \
             wrong.\n\nSources of settings, later ones win: default, file, environment (FANFARE_AUTH_KEY), flag \
             (--auth.key).",
        )
        .arg(text(SUB, "USER", "The user id"))
        .arg(patterns(JOIN, "Rooms that may be joined; may be repeated"))
        .arg(patterns(PUBLISH, "Rooms that may be published into; may be repeated"))
        .arg(patterns(PRESENCE, "Rooms whose members may be asked for; may be repeated"))
        .arg(switch(PRIVATE, "Allow private messages"))
        .arg(switch(BROADCAST, "Allow broadcasts"))
        .arg(text(RATE, "N", "Messages per second, in place of the configured ones; 0 is no limit"))
        .arg(text(TTL, "TIME", "How long it is good [default: 1h]"))
        .arg(text(KID, "KID", "The key to sign with [default: the first that can]"))
        .arg(text(PRIVATE_KEY, "FILE", "The private half of the key in PEM, where the alg is not one of the HS"))
        .arg(
            Arg::new(INSPECT)
                .long(INSPECT)
                .value_name("TOKEN")
                .num_args(0..=1)
                .default_missing_value("-")
                .help("Explain this token, or the one on stdin, and say whether the server would take it"),
        )
        .arg(file_flag())
        .args(settings().map(flag))
        .arg(list_flag(&AUTH_KEY))
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.section().is_some_and(|section| section.starts_with("auth")))
}

/// Carries the command out.
pub(super) fn run(matches: &ArgMatches, env: Env, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let config = match load(matches, env) {
        Ok((config, _)) => config,
        Err(error) => return refuse(err, error),
    };
    let auth = match load_auth(&config.auth) {
        Ok(Some(auth)) => auth,
        Ok(None) => {
            let text = "there is no key for tokens; add an [[auth.key]] to the configuration, or --auth.key \
                        alg=HS256,secret_file=FILE";
            return refuse(err, text);
        }
        Err(error) => return refuse(err, error),
    };
    match matches.get_one::<String>(INSPECT) {
        Some(_) if matches.contains_id(SUB) => {
            refuse(err, "say --sub to make a token or --inspect to explain one, not both")
        }
        Some(token) => inspect(&config, &auth, token, out, err),
        None => match make(matches, &config, clock::unix_ms()) {
            Ok(token) => give(&auth, &token, out, err),
            Err(what) => refuse(err, what),
        },
    }
}

/// Prints a token, if the server would take it.
fn give(auth: &Auth, token: &str, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    match auth.verify(token, clock::unix_ms(), When::Refresh) {
        Ok(_) => print(out, err, format_args!("{token}\n")),
        Err(error) => {
            complain(err, format_args!("fanfare: the server would refuse what was to be made: {error}"));
            EXIT_FAULTS
        }
    }
}

fn make(matches: &ArgMatches, config: &Config, now_ms: u64) -> Result<String, String> {
    let text = |id: &str| matches.get_one::<String>(id).map(String::as_str);
    let number = |id: &str, kind: Kind, default: &str| match kind.parse(text(id).unwrap_or(default)) {
        Ok(Value::Millis(number) | Value::Integer(number)) => Ok(number),
        Ok(_) => Ok(0),
        Err(what) => Err(format!("--{id}: {what}")),
    };
    let sub = text(SUB).ok_or("say for whom: fanfare token --sub USER, or --inspect TOKEN to explain one")?;
    let ttl_ms = number(TTL, TTL_KIND, "1h")?;
    let mut claims = Map::new();
    for (name, value) in [("iss", &config.auth.issuer), ("aud", &config.auth.audience)] {
        if !value.is_empty() {
            claims.insert(name.to_owned(), value.as_str().into());
        }
    }
    let mut allowed = Map::new();
    for name in [JOIN, PUBLISH, PRESENCE] {
        if let Some(patterns) = matches.get_many::<String>(name) {
            let patterns: Vec<_> = patterns.map(String::as_str).collect();
            for pattern in &patterns {
                Kind::Pattern.parse(pattern).map_err(|what| format!("--{name}: {what}"))?;
            }
            allowed.insert(name.to_owned(), json!(patterns));
        }
    }
    for name in [PRIVATE, BROADCAST] {
        if matches.get_flag(name) {
            allowed.insert(name.to_owned(), true.into());
        }
    }
    if text(RATE).is_some() {
        allowed.insert("rate".to_owned(), json!({ "messages_per_second": number(RATE, RATE_KIND, "0")? }));
    }
    if !allowed.is_empty() {
        claims.insert("fanfare".to_owned(), allowed.into());
    }
    let (key, kid) = signing_key(&config.auth.key, text(KID), text(PRIVATE_KEY))?;
    let token = Mint::new(key, kid, ttl_ms, claims).token(sub, now_ms, &SystemRandom::new());
    token.ok_or_else(|| "the operating system has no random numbers; try again".to_owned())
}

/// The key of that name, or the first that a token can be made with.
fn signing_key<'a>(
    keys: &'a [AuthKey],
    kid: Option<&str>,
    private: Option<&str>,
) -> Result<(SigningKey, Option<&'a str>), String> {
    let is_hmac = |key: &AuthKey| Alg::find(key.alg).is_some_and(Alg::is_hmac);
    let key = match kid {
        Some(kid) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
        None => keys.iter().find(|key| is_hmac(key) == private.is_none()),
    };
    let Some((key, alg)) = key.and_then(|key| Some((key, Alg::find(key.alg)?))) else {
        return Err(match (kid, private) {
            (Some(_), _) => "no [[auth.key]] has this kid; name one that is configured".to_owned(),
            (None, Some(_)) => "no [[auth.key]] takes a private key; add the public half of it as one".to_owned(),
            (None, None) => format!("no [[auth.key]] has a secret; say --{PRIVATE_KEY} for one that has a public key"),
        });
    };
    let made = match (is_hmac(key), private) {
        (true, None) => SigningKey::secret(alg, &material(key).map_err(|error| error.to_string())?),
        (true, Some(_)) => {
            return Err(format!(
                "the key has a secret, which signs; leave --{PRIVATE_KEY} out, or name another --{KID}"
            ));
        }
        (false, None) => {
            return Err(format!(
                "the key is a public one, which signs nothing; say --{PRIVATE_KEY} FILE for its other half"
            ));
        }
        (false, Some(path)) => {
            let pem =
                read_at_most(path, KEY_FILE_BYTES_MAX).map_err(|what| format!("--{PRIVATE_KEY}: {path:?} {what}"))?;
            SigningKey::private_pem(alg, &pem, &SystemRandom::new())
        }
    };
    let made = made.map_err(|error| match private {
        Some(path) => format!("--{PRIVATE_KEY}: {path:?}: {error}"),
        None => error.to_string(),
    })?;
    Ok((made, key.kid.as_deref()))
}

/// Says what stands in a token, and whether the server would take it now.
fn inspect(config: &Config, auth: &Auth, token: &str, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let token = match token {
        "-" => {
            let mut text = String::new();
            match std::io::stdin().take(TOKEN_BYTES_MAX as u64 + 2).read_to_string(&mut text) {
                Ok(_) => text,
                Err(error) => return refuse(err, format_args!("cannot read a token from stdin: {error}")),
            }
        }
        token => token.to_owned(),
    };
    let token = token.trim();
    let now_ms = clock::unix_ms();
    let mut text = String::new();
    if let Ok((header, claims)) = texts(token) {
        text += &format!("header   {}\nclaims   {}\n", one_line(&header), one_line(&claims));
        text += &times(&claims, now_ms);
        text += &ignored(&claims);
    }
    let (verdict, code) = match auth.verify(token, now_ms, When::Handshake) {
        Ok(grant) => (format!("good     user {}\n", one_line(&grant.user)), 0),
        Err(error @ TokenError::UnknownKey) if config.auth.jwks_url.is_set() => {
            (format!("refused  {error}; the keys of auth.jwks_url are not fetched here\n"), EXIT_FAULTS)
        }
        Err(error) => (format!("refused  {error}\n"), EXIT_FAULTS),
    };
    match print(out, err, text + &verdict) {
        0 => code,
        code => code,
    }
}

/// The times in claims, for people.
fn times(claims: &str, now_ms: u64) -> String {
    let Ok(claims) = serde_json::from_str::<Json>(claims) else { return String::new() };
    let mut text = String::new();
    for (name, label) in [("iat", "made"), ("nbf", "from"), ("exp", "until")] {
        let at = claims.get(name).and_then(Json::as_f64).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let Some(at) = at.filter(|at| at.as_secs() < 253_402_300_800) else { continue };
        let now = Duration::from_millis(now_ms);
        let away = Duration::from_secs(at.abs_diff(now).as_secs());
        let stamp = humantime::format_rfc3339_seconds(UNIX_EPOCH + at);
        let away = humantime::format_duration(away);
        text += &match at > now {
            true => format!("{label:8} {stamp} (in {away})\n"),
            false => format!("{label:8} {stamp} ({away} ago)\n"),
        };
    }
    text
}

/// Names in the claim `fanfare` that mean nothing, which are mistakes mostly.
fn ignored(claims: &str) -> String {
    const KNOWN: [&str; 6] = [JOIN, PUBLISH, PRESENCE, PRIVATE, BROADCAST, RATE];
    let Ok(claims) = serde_json::from_str::<Json>(claims) else { return String::new() };
    let Some(allowed) = claims.get("fanfare").and_then(Json::as_object) else { return String::new() };
    let strange = allowed.keys().filter(|name| !KNOWN.contains(&name.as_str()));
    strange
        .map(|name| match nearest(name, KNOWN) {
            Some(near) => format!("ignored  {:?} in the claim fanfare; did you mean {near}?\n", name),
            None => format!("ignored  {:?} in the claim fanfare\n", name),
        })
        .collect()
}

/// An argument that is not known, in words. One that is no flag may be a token, and is not repeated.
pub(super) fn unknown(name: &str, argument: &str) -> Option<String> {
    if name != TOKEN {
        return None;
    }
    let Some(flag) = argument.strip_prefix("--") else {
        return Some("there is an argument too many; say --inspect TOKEN to explain a token".to_owned());
    };
    Some(match nearest(flag, command().get_arguments().filter_map(Arg::get_long)) {
        Some(near) => format!("unknown flag {argument}; did you mean --{near}?"),
        None => format!("unknown flag {argument}; fanfare {TOKEN} --help lists them"),
    })
}

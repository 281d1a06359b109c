//! Any claims in a token with a good signature, and any text as a token and as a key set.
//!
//! What is made of the claims is compared with a second reader, which goes through them one by one after the rules of
//! [docs/wire.md](../../docs/wire.md). A text that nobody has signed is never a good token.
//!
//! Input: a byte; if it is odd, the rest is a text, else claims.

#![no_main]

use fanfare::auth::{Alg, Allowance, Auth, Key, Settings, SigningKey, When, key_set, texts};
use libfuzzer_sys::{Corpus, fuzz_target};
use ring::rand::SystemRandom;
use serde_json::Value;
use serde_json::value::RawValue;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW_MS: u64 = 1_800_000_000_000;
const NAMES: [&str; 7] = ["sub", "exp", "nbf", "iat", "iss", "aud", "fanfare"];

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((first, rest)) = input.split_first() else { return Corpus::Reject };
    let Ok(text) = str::from_utf8(rest) else { return Corpus::Reject };
    let key = Key::secret(Alg::Hs256, None, SECRET).expect("a key");
    let settings = Settings {
        issuer: None,
        audience: Some("us".to_owned()),
        anonymous: false,
        leeway_ms: 0,
        expiry_required: true,
        default: Allowance::default(),
    };
    let auth = Auth::new(settings, vec![key]);
    if first % 2 == 1 {
        let _ = (auth.cost(text), texts(text));
        assert!(auth.verify(text, NOW_MS, When::Handshake).is_err(), "nobody has signed {text:?}");
        if let Ok(set) = key_set(rest) {
            assert!(!set.keys.is_empty() && set.keys.iter().all(|key| !key.alg().is_hmac()), "{text:?}");
        }
        return Corpus::Keep;
    }
    // The generator of random numbers is for other algorithms.
    let signer = SigningKey::secret(Alg::Hs256, SECRET).expect("a key");
    let token = signer.sign(None, text, &SystemRandom::new()).expect("none is needed");
    let found = auth.verify(&token, NOW_MS, When::Handshake);
    assert_eq!(texts(&token).expect("it is a token").1, text);
    match (found, user(text)) {
        (Ok(grant), Some(user)) => {
            assert_eq!(*grant.user, *user, "{text:?}");
            assert!(grant.expires_unix_ms.is_some_and(|at| at > NOW_MS), "{text:?}");
        }
        (Err(_), None) => {}
        (found, expected) => panic!("{found:?} instead of {expected:?} for {text:?}"),
    }
    Corpus::Keep
});

/// The user whom good claims name.
fn user(text: &str) -> Option<String> {
    let pairs = pairs(text)?;
    let all = |name: &str| pairs.iter().filter(|(key, _)| key == name).map(|(_, raw)| raw.get()).collect::<Vec<_>>();
    if NAMES.iter().any(|name| all(name).len() > 1) {
        return None;
    }
    let value = |name: &str| all(name).first().map(|raw| serde_json::from_str::<Value>(raw).ok());
    // There, and a time; or absent.
    let time = |name: &str| match value(name) {
        None => Some(None),
        Some(value) => value?.as_f64().filter(|seconds| (0.0..=253_402_300_799.0).contains(seconds)).map(Some),
    };
    let (exp, nbf, _) = (time("exp")??, time("nbf")?, time("iat")?);
    let now_s = NOW_MS as f64 / 1_000.0;
    let is_whole = |seconds: f64| (seconds * 1_000.0).floor() / 1_000.0;
    if is_whole(exp) <= now_s || nbf.is_some_and(|nbf| is_whole(nbf) > now_s) {
        return None;
    }
    if value("iss").is_some_and(|iss| iss.is_none_or(|iss| !iss.is_string())) {
        return None;
    }
    let is_for_us = match value("aud")?? {
        Value::String(one) => one == "us",
        Value::Array(several) => several.iter().all(Value::is_string) && several.iter().any(|one| one == "us"),
        _ => false,
    };
    let is_allowance = all("fanfare").first().is_none_or(|raw| is_allowance(raw));
    let sub = value("sub")??.as_str()?.to_owned();
    (is_for_us && is_allowance && (1..=128).contains(&sub.len())).then_some(sub)
}

fn is_allowance(text: &str) -> bool {
    const NAMES: [&str; 6] = ["join", "publish", "presence", "private", "broadcast", "rate"];
    let Some(pairs) = pairs(text) else { return false };
    if NAMES.iter().any(|name| pairs.iter().filter(|(key, _)| key == name).count() > 1) {
        return false;
    }
    pairs.iter().filter(|(name, _)| NAMES.contains(&&**name)).all(|(name, raw)| match &**name {
        "private" | "broadcast" => serde_json::from_str::<bool>(raw.get()).is_ok(),
        "rate" => pairs_of_rate(raw.get()),
        _ => serde_json::from_str::<Vec<String>>(raw.get()).is_ok_and(|patterns| {
            let stars = patterns.iter().filter(|text| text.strip_suffix('*').unwrap_or(text).contains('*'));
            stars.count() <= 64 && patterns.iter().all(|text| (1..=255).contains(&text.len()))
        }),
    })
}

fn pairs_of_rate(text: &str) -> bool {
    let Some(pairs) = pairs(text) else { return false };
    let mut own = pairs.iter().filter(|(name, _)| name == "messages_per_second");
    let first = own.next();
    own.next().is_none() && first.is_none_or(|(_, raw)| serde_json::from_str::<u64>(raw.get()).is_ok())
}

/// The members of an object, those that stand twice too.
fn pairs(text: &str) -> Option<Vec<(String, Box<RawValue>)>> {
    struct Pairs;
    impl<'de> serde::de::Visitor<'de> for Pairs {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut pairs = Vec::new();
            while let Some(pair) = map.next_entry()? {
                pairs.push(pair);
            }
            Ok(pairs)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let pairs = serde::Deserializer::deserialize_map(&mut reader, Pairs).ok()?;
    reader.end().ok()?;
    Some(pairs)
}

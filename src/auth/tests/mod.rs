//! Tokens, good and bad.

mod backend_tests;
mod vectors;

use data_encoding::BASE64URL_NOPAD;
use proptest::prelude::*;
use ring::rand::SystemRandom;

use super::*;
use vectors::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The time of the tests, in Unix milliseconds.
const NOW: u64 = 1_800_000_000_000;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Claims that are good by themselves.
const CLAIMS: &str = r#"{"sub":"alice","exp":1800000060}"#;

fn settings() -> Settings {
    Settings {
        issuer: None,
        audience: None,
        anonymous: false,
        leeway_ms: 10_000,
        expiry_required: true,
        default: Allowance::default(),
    }
}

fn secret(alg: Alg, kid: Option<&str>) -> Key {
    Key::secret(alg, kid, SECRET.as_bytes()).expect("a key")
}

fn public(alg: Alg, pem: &str) -> Key {
    Key::public_pem(alg, None, pem.as_bytes()).expect("a key")
}

/// With one key for HS256.
fn auth_with(settings: Settings) -> Auth {
    Auth::new(settings, vec![secret(Alg::Hs256, None)])
}

fn auth() -> Auth {
    auth_with(settings())
}

/// One key of each kind, without names.
fn all_keys() -> Vec<Key> {
    vec![
        secret(Alg::Hs256, None),
        secret(Alg::Hs384, None),
        secret(Alg::Hs512, None),
        public(Alg::Rs256, RSA_PUBLIC),
        public(Alg::Ps256, RSA_PUBLIC),
        public(Alg::Es256, P256_PUBLIC),
        public(Alg::EdDsa, ED25519_PUBLIC),
    ]
}

/// A token with the signature of HS256, whatever its header says.
fn token(header: &str, claims: &str) -> String {
    signed_with(SECRET.as_bytes(), header, claims.as_bytes())
}

fn signed_with(secret: &[u8], header: &str, claims: &[u8]) -> String {
    let signed = format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims));
    let signature = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

fn checked(auth: &Auth, claims: &str) -> Result<Grant, TokenError> {
    auth.verify(&token(HEADER, claims), NOW, When::Handshake)
}

fn refused(auth: &Auth, claims: &str) -> TokenError {
    checked(auth, claims).expect_err(claims)
}

#[test]
fn a_good_token_says_who_and_what() {
    let claims =
        r#"{"sub":"alice","exp":1800000060.5,"iat":1799999999.9,"fanfare":{"join":["chat.*"],"private":true}}"#;
    let grant = checked(&auth(), claims).expect("it is good");
    assert_eq!(&*grant.user, "alice");
    assert_eq!(grant.expires_unix_ms, Some(1_800_000_060_500));
    assert_eq!(grant.issued_unix_s, Some(1_799_999_999));
    assert!(grant.permissions.may_join("chat.lobby") && grant.permissions.may_private());
    assert!(!grant.permissions.may_publish("chat.lobby") && !grant.permissions.may_broadcast());
}

#[test]
fn what_another_implementation_signs_is_good_and_by_its_own_key_alone() {
    for (name, text) in TOKENS {
        let alg = Alg::find(name).expect(name);
        for key in all_keys() {
            let fits = key.alg() == alg;
            let result = Auth::new(settings(), vec![key]).verify(text, NOW, When::Handshake).map(|grant| grant.user);
            assert_eq!(result, if fits { Ok("alice".into()) } else { Err(TokenError::KeyAlg) }, "{name}");
        }
        assert!(Auth::new(settings(), all_keys()).verify(text, NOW, When::Refresh).is_ok(), "{name}");
        let cost = if alg.is_hmac() { Cost::Inline } else { Cost::Slow };
        assert_eq!(auth().cost(text), cost, "{name}");
    }
}

#[test]
fn what_is_made_here_is_good_here() {
    let random = SystemRandom::new();
    let private = |alg, pem: &str| SigningKey::private_pem(alg, pem.as_bytes(), &random).expect("a key");
    let signers = [
        SigningKey::secret(Alg::Hs256, SECRET.as_bytes()).expect("a key"),
        SigningKey::secret(Alg::Hs384, SECRET.as_bytes()).expect("a key"),
        SigningKey::secret(Alg::Hs512, SECRET.as_bytes()).expect("a key"),
        private(Alg::Rs256, RSA_PRIVATE),
        private(Alg::Ps256, RSA_PRIVATE),
        private(Alg::Es256, P256_PRIVATE),
        private(Alg::EdDsa, ED25519_PRIVATE),
    ];
    let auth = Auth::new(settings(), all_keys());
    for signer in signers {
        let text = signer.sign(None, CLAIMS, &random).expect("there is randomness");
        assert!(auth.verify(&text, NOW, When::Handshake).is_ok(), "{signer:?}");
    }
}

#[test]
fn another_bit_anywhere_is_another_token() {
    let auth = Auth::new(settings(), all_keys());
    for (name, text) in TOKENS {
        for at in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert!(auth.verify(&changed, NOW, When::Handshake).is_err(), "{name} {at}");
            assert!(auth.verify(&text[..at], NOW, When::Handshake).is_err(), "{name} {at}");
        }
        for changed in
            [format!("{text}A"), format!("{text}="), format!(" {text}"), format!("{text}\n"), format!("{text}.")]
        {
            assert!(auth.verify(&changed, NOW, When::Handshake).is_err(), "{name}");
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let auth = Auth::new(settings(), vec![public(Alg::Rs256, RSA_PUBLIC)]);
    for header in [HEADER, r#"{"alg":"RS256"}"#] {
        let text = signed_with(RSA_PUBLIC.as_bytes(), header, CLAIMS.as_bytes());
        assert!(auth.verify(&text, NOW, When::Handshake).is_err());
    }
    assert_eq!(auth.verify(&token(HEADER, CLAIMS), NOW, When::Handshake).map(drop), Err(TokenError::KeyAlg));
}

#[test]
fn no_other_alg_is_known() {
    for alg in ["none", "None", "NONE", "", "HS1", "hs256", "HS256 ", "RS512", "ES384", "dir"] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        let signed = token(&header, CLAIMS);
        let bare = format!("{}.", signed.rsplit_once('.').expect("there are points").0);
        for text in [signed, bare] {
            assert_eq!(auth().verify(&text, NOW, When::Handshake).map(drop), Err(TokenError::Alg), "{alg}");
        }
    }
    let bare = token(HEADER, CLAIMS);
    let bare = format!("{}.", bare.rsplit_once('.').expect("there are points").0);
    assert_eq!(auth().verify(&bare, NOW, When::Handshake).map(drop), Err(TokenError::Signature));
}

#[test]
fn a_kid_asks_for_one_key() {
    let other = Key::secret(Alg::Hs256, Some("b"), b"another secret of thirty-two bytes").expect("a key");
    let named = Auth::new(settings(), vec![secret(Alg::Hs256, Some("a")), other]);
    let both = Auth::new(settings(), vec![secret(Alg::Hs256, None), secret(Alg::Hs384, Some("a"))]);
    let ask = |auth: &Auth, kid: &str| {
        auth.verify(&token(&format!(r#"{{"alg":"HS256"{kid}}}"#), CLAIMS), NOW, When::Handshake).map(drop)
    };
    assert_eq!(ask(&named, r#","kid":"a""#), Ok(()));
    assert_eq!(ask(&named, r#","kid":"b""#), Err(TokenError::Signature));
    assert_eq!(ask(&named, r#","kid":"c""#), Err(TokenError::UnknownKey));
    assert_eq!(ask(&named, ""), Err(TokenError::UnknownKey));
    assert_eq!(ask(&both, ""), Ok(()));
    assert_eq!(ask(&both, r#","kid":"a""#), Err(TokenError::KeyAlg));
    assert_eq!(ask(&both, r#","kid":"""#), Err(TokenError::UnknownKey));
    for kid in [r#","kid":null"#, r#","kid":1"#, r#","kid":"a","kid":"a""#, r#","kid":["a"]"#] {
        assert_eq!(ask(&both, kid), Err(TokenError::Malformed), "{kid}");
    }
}

#[test]
fn several_keys_without_a_name_are_tried() {
    let other = Key::secret(Alg::Hs256, None, b"another secret of thirty-two bytes").expect("a key");
    let auth = Auth::new(settings(), vec![other, secret(Alg::Hs256, None)]);
    assert!(checked(&auth, CLAIMS).is_ok());
}

#[test]
fn a_header_that_asks_for_more_is_refused() {
    for (more, expected) in [
        (r#""crit":["b64"],"b64":false"#, Err(TokenError::Critical)),
        (r#""crit":[]"#, Err(TokenError::Critical)),
        (r#""crit":null"#, Err(TokenError::Critical)),
        (r#""alg":"HS256""#, Err(TokenError::Malformed)),
        (r#""jku":"https://evil.example","jwk":{"kty":"oct"},"x5u":"","cty":"JWT""#, Ok(())),
    ] {
        let header = format!(r#"{{"alg":"HS256",{more}}}"#);
        assert_eq!(auth().verify(&token(&header, CLAIMS), NOW, When::Handshake).map(drop), expected, "{more}");
    }
    for header in ["", "{}", r#"["HS256"]"#, "[]", "null", r#"{"alg":null}"#, r#"{"alg":1}"#, r#"{"alg":"HS256"} x"#] {
        assert_eq!(
            auth().verify(&token(header, CLAIMS), NOW, When::Handshake).map(drop),
            Err(TokenError::Malformed),
            "{header}"
        );
    }
}

#[test]
fn times_are_exact_at_their_edges() {
    let at = |claims: &str, now: u64, when| auth().verify(&token(HEADER, claims), now, when).map(drop);
    let (handshake, refresh) = (When::Handshake, When::Refresh);
    let exp = r#"{"sub":"a","exp":1800000000}"#;
    assert_eq!(at(exp, NOW - 1, refresh), Ok(()));
    assert_eq!(at(exp, NOW, refresh), Err(TokenError::Expired));
    assert_eq!(at(exp, NOW + 9_999, handshake), Ok(()));
    assert_eq!(at(exp, NOW + 10_000, handshake), Err(TokenError::Expired));
    let nbf = r#"{"sub":"a","exp":1800000060,"nbf":1800000000}"#;
    assert_eq!(at(nbf, NOW, refresh), Ok(()));
    assert_eq!(at(nbf, NOW - 1, refresh), Err(TokenError::NotYet));
    assert_eq!(at(nbf, NOW - 10_000, handshake), Ok(()));
    assert_eq!(at(nbf, NOW - 10_001, handshake), Err(TokenError::NotYet));
    assert_eq!(at(r#"{"sub":"a","exp":253402300799}"#, NOW, refresh), Ok(()));
    assert_eq!(at(r#"{"sub":"a","exp":0}"#, 0, handshake), Ok(()));
    assert_eq!(at(exp, u64::MAX, handshake), Err(TokenError::Expired));
}

#[test]
fn exp_is_required_unless_the_operator_says_otherwise() {
    let claims = r#"{"sub":"a"}"#;
    assert_eq!(refused(&auth(), claims), TokenError::Missing("exp"));
    let lax = auth_with(Settings { expiry_required: false, ..settings() });
    assert_eq!(checked(&lax, claims).expect("it is good").expires_unix_ms, None);
    assert_eq!(refused(&lax, r#"{"sub":"a","exp":1}"#), TokenError::Expired);
    assert_eq!(refused(&lax, r#"{"sub":"a","exp":null}"#), TokenError::Claims);
}

#[test]
fn claims_of_another_form_are_refused() {
    for more in [
        r#""exp":"1800000060""#,
        r#""exp":-1"#,
        r#""exp":1e300"#,
        r#""exp":253402300800"#,
        r#""exp":[1800000060]"#,
        r#""exp":true"#,
        r#""exp":1800000060,"exp":1800000060"#,
        r#""exp":1800000060,"sub":"bob""#,
        r#""exp":1800000060,"nbf":null"#,
        r#""exp":1800000060,"nbf":"now""#,
        r#""exp":1800000060,"iat":-5"#,
        r#""exp":1800000060,"iss":7"#,
        r#""exp":1800000060,"aud":{}"#,
        r#""exp":1800000060,"aud":[1]"#,
        r#""exp":1800000060,"fanfare":{},"fanfare":{}"#,
    ] {
        assert_eq!(refused(&auth(), &format!(r#"{{"sub":"alice",{more}}}"#)), TokenError::Claims, "{more}");
    }
    for claims in ["", "{", r#"{"sub":"a","exp":1800000060}x"#, "\u{feff}{}"] {
        assert_eq!(refused(&auth(), claims), TokenError::Malformed, "{claims}");
    }
    for claims in [
        "[]",
        r#"["alice",1800000060]"#,
        "null",
        "1",
        r#""a""#,
        r#"{"sub":null,"exp":1800000060}"#,
        r#"{"sub":1,"exp":1800000060}"#,
    ] {
        assert!(checked(&auth(), claims).is_err(), "{claims}");
    }
    let not_utf8 = signed_with(SECRET.as_bytes(), HEADER, b"{\"sub\":\"\xff\",\"exp\":1800000060}");
    assert!(auth().verify(&not_utf8, NOW, When::Handshake).is_err());
    let surrogate = r#"{"sub":"\ud800","exp":1800000060}"#;
    assert!(checked(&auth(), surrogate).is_err());
}

#[test]
fn a_user_id_has_1_to_128_bytes() {
    let of = |sub: &str| checked(&auth(), &format!(r#"{{"sub":"{sub}","exp":1800000060}}"#)).map(|grant| grant.user);
    assert_eq!(of(&"ü".repeat(64)), Ok("ü".repeat(64).into()));
    assert_eq!(of(r"a\u0041"), Ok("aA".into()));
    assert_eq!(of(""), Err(TokenError::Missing("sub")));
    assert_eq!(of(&"ü".repeat(65)), Err(TokenError::Claim("sub")));
    assert_eq!(refused(&auth(), r#"{"exp":1800000060}"#), TokenError::Missing("sub"));
}

#[test]
fn issuer_and_audience_are_asked_for_where_configured() {
    let auth = auth_with(Settings { issuer: Some("me".to_owned()), audience: Some("us".to_owned()), ..settings() });
    let of = |more: &str| checked(&auth, &format!(r#"{{"sub":"a","exp":1800000060{more}}}"#)).map(drop);
    assert_eq!(of(r#","iss":"me","aud":"us""#), Ok(()));
    assert_eq!(of(r#","iss":"me","aud":["them","us"]"#), Ok(()));
    assert_eq!(of(r#","aud":"us""#), Err(TokenError::Issuer));
    assert_eq!(of(r#","iss":"me ","aud":"us""#), Err(TokenError::Issuer));
    assert_eq!(of(r#","iss":"me""#), Err(TokenError::Audience));
    assert_eq!(of(r#","iss":"me","aud":[]"#), Err(TokenError::Audience));
    assert_eq!(of(r#","iss":"me","aud":"u""#), Err(TokenError::Audience));
}

#[test]
fn tokens_are_bounded_and_nesting_is() {
    let long = |bytes: usize| token(HEADER, &format!(r#"{{"sub":"a","exp":1800000060,"x":"{}"}}"#, "x".repeat(bytes)));
    let (short, middle, huge) = (long(5_000), long(20_000), long(60_000));
    assert!(auth().verify(&short, NOW, When::Refresh).is_ok());
    assert_eq!(auth().verify(&middle, NOW, When::Refresh).map(drop), Err(TokenError::TooLong));
    assert!(auth().verify(&middle, NOW, When::Handshake).is_ok());
    assert_eq!(auth().verify(&huge, NOW, When::Handshake).map(drop), Err(TokenError::TooLong));
    let deep = format!(r#"{{"sub":"a","exp":1800000060,"x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    // It costs what it is long, and no stack.
    let _ = checked(&auth(), &deep);
    let deep = format!(r#"{{"sub":"a","exp":1800000060,"fanfare":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert!(checked(&auth(), &deep).is_err());
}

#[test]
fn what_a_claim_does_not_say_the_default_does() {
    let pattern = |text: &str| vec![text.parse().expect("a pattern")];
    let default = Allowance {
        join: pattern("lobby"),
        publish: pattern("*"),
        private: true,
        messages_per_second: Some(3),
        ..Allowance::default()
    };
    let auth = auth_with(Settings { default: default.clone(), ..settings() });
    let of = |claim: &str| {
        checked(&auth, &format!(r#"{{"sub":"a","exp":1800000060{claim}}}"#)).map(|grant| grant.permissions)
    };
    let plain = of("").expect("it is good");
    assert_eq!(*plain, Permissions::new(&default));
    assert_eq!(of(r#","fanfare":{}"#).expect("it is good"), plain);
    let own =
        of(r#","fanfare":{"publish":[],"private":false,"broadcast":true,"rate":{"messages_per_second":20},"new":1}"#)
            .expect("it is good");
    assert!(own.may_join("lobby") && !own.may_publish("lobby") && !own.may_private() && own.may_broadcast());
    assert!(!own.may_presence("lobby"));
    assert_eq!((plain.messages_per_second(), own.messages_per_second()), (Some(3), Some(20)));
    for claim in [
        "[]",
        "null",
        "1",
        r#"{"join":"*"}"#,
        r#"{"join":null}"#,
        r#"{"join":[""]}"#,
        r#"{"join":[1]}"#,
        r#"{"join":[],"join":["*"]}"#,
        r#"{"private":1}"#,
        r#"{"private":null}"#,
        r#"{"rate":{"messages_per_second":-1}}"#,
        r#"{"rate":{"messages_per_second":1.5}}"#,
        r#"{"rate":null}"#,
        r#"{"rate":5}"#,
        r#"{"rate":[5]}"#,
        r#"{"rate":{"messages_per_second":null}}"#,
        r#"[["*"]]"#,
    ] {
        assert_eq!(of(&format!(r#","fanfare":{claim}"#)).map(drop), Err(TokenError::Claim("fanfare")), "{claim}");
    }
    let many = |pattern: &str, count: usize| {
        let patterns: Vec<String> =
            (0..count).map(|at| format!("\"{}\"", pattern.replace('N', &at.to_string()))).collect();
        of(&format!(r#","fanfare":{{"join":[{}]}}"#, patterns.join(",")))
            .map(|permissions| permissions.may_join("r7.x"))
    };
    assert_eq!(many("rN.x", 1_000), Ok(true));
    assert_eq!(many("rN.*", 1_000), Ok(true));
    assert_eq!(many("*rN.x", 64), Ok(true));
    assert_eq!(many("*rN.x", 65), Err(TokenError::Claim("fanfare")));
}

#[test]
fn equal_claims_share_what_they_allow() {
    let auth = auth();
    let of = |at: usize| {
        let claims = format!(r#"{{"sub":"a","exp":1800000060,"fanfare":{{"join":["r{at}"]}}}}"#);
        checked(&auth, &claims).expect("it is good").permissions
    };
    let first = of(0);
    assert!(Arc::ptr_eq(&first, &of(0)) && !Arc::ptr_eq(&first, &of(1)));
    assert!(Arc::ptr_eq(&auth.default_permissions(), &checked(&auth, CLAIMS).expect("it is good").permissions));
    let held: Vec<_> = (0..3_000).map(of).collect();
    assert!(held.iter().enumerate().all(|(at, permissions)| permissions.may_join(&format!("r{at}"))));
}

#[test]
fn the_tokenless_get_the_default_where_they_may() {
    assert!(auth().anonymous().is_none());
    let open = auth_with(Settings { anonymous: true, ..settings() });
    assert!(open.anonymous().is_some_and(|permissions| !permissions.may_join("a")));
}

#[test]
fn keys_that_are_none_are_refused_with_what_to_do() {
    let pem = |alg, pem: &str| Key::public_pem(alg, None, pem.as_bytes()).map(drop).expect_err("it is refused");
    let short = Key::secret(Alg::Hs256, None, &[7; 31]).map(drop);
    assert_eq!(short, Err(KeyError::ShortSecret(31)));
    assert!(matches!(Key::secret(Alg::Rs256, None, &[7; 32]).map(drop), Err(KeyError::WrongKind(Alg::Rs256, _))));
    assert_eq!(pem(Alg::Rs256, WEAK_PUBLIC), KeyError::RsaBits(1024));
    assert_eq!(pem(Alg::Es256, P384_PUBLIC), KeyError::Malformed);
    assert_eq!(pem(Alg::Es256, "no key"), KeyError::NoPem);
    assert!(matches!(pem(Alg::Rs256, RSA_PRIVATE), KeyError::OtherPem(..)));
    assert!(matches!(pem(Alg::Es256, EC_PRIVATE_OLDER), KeyError::OtherPem(..)));
    assert!(matches!(pem(Alg::Es256, CERTIFICATE), KeyError::OtherPem(..)));
    for (alg, wrong) in [
        (Alg::Rs256, P256_PUBLIC),
        (Alg::Ps256, ED25519_PUBLIC),
        (Alg::Es256, RSA_PUBLIC),
        (Alg::EdDsa, P256_PUBLIC),
        (Alg::Hs256, RSA_PUBLIC),
    ] {
        assert!(matches!(pem(alg, wrong), KeyError::WrongKind(..)), "{alg:?}");
    }
    let private = |alg, pem: &str| SigningKey::private_pem(alg, pem.as_bytes(), &SystemRandom::new()).map(drop);
    assert!(matches!(private(Alg::Es256, EC_PRIVATE_OLDER), Err(KeyError::OtherPem(..))));
    assert!(matches!(private(Alg::Es256, RSA_PRIVATE), Err(KeyError::WrongKind(..))));
    assert!(matches!(private(Alg::Rs256, RSA_PUBLIC), Err(KeyError::OtherPem(..))));
    let shown = format!("{:?}{:?}", secret(Alg::Hs256, None), public(Alg::Rs256, RSA_PUBLIC));
    assert!(!shown.contains("0123") && !shown.contains("verifier"), "{shown}");
}

#[test]
fn a_key_set_checks_tokens_by_kid() {
    let set = key_set(KEY_SET.as_bytes()).expect("it is a key set");
    assert_eq!((set.keys.len(), set.skipped), (3, 0));
    let auth = Auth::new(settings(), set.keys);
    let random = SystemRandom::new();
    for (alg, kid, pem) in
        [(Alg::Rs256, "r", RSA_PRIVATE), (Alg::Es256, "e", P256_PRIVATE), (Alg::EdDsa, "d", ED25519_PRIVATE)]
    {
        let signer = SigningKey::private_pem(alg, pem.as_bytes(), &random).expect("a key");
        let good = signer.sign(Some(kid), CLAIMS, &random).expect("there is randomness");
        assert!(auth.verify(&good, NOW, When::Handshake).is_ok(), "{alg:?}");
        let nameless = signer.sign(None, CLAIMS, &random).expect("there is randomness");
        assert_eq!(auth.verify(&nameless, NOW, When::Handshake).map(drop), Err(TokenError::UnknownKey));
    }
}

#[test]
fn key_sets_that_lie_or_are_huge_are_refused() {
    let of = |text: &str| key_set(text.as_bytes()).map(|set| (set.keys.len(), set.skipped));
    let own = |key: &str| KEY_SET.replace(r#"{"keys":["#, &format!(r#"{{"keys":[{key},"#));
    // What is not understood, or not for signatures, is left out.
    for key in [
        "1",
        "null",
        "{}",
        r#"["OKP"]"#,
        r#"{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY","alg":"HS256"}"#,
        r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#,
        r#"{"kty":"RSA","n":"!","e":"AQAB"}"#,
        r#"{"kty":"EC","crv":"P-384","x":"AA","y":"AA"}"#,
        r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","x":"AA"}"#,
        r#"{"kty":"OKP","crv":"Ed25519"}"#,
        r#"{"kty":"OKP","crv":"X25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","use":"enc","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","key_ops":["sign"],"x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"kty":"OKP","crv":"Ed25519","alg":"HS256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
        r#"{"kty":"OKP","kty":"OKP","crv":"Ed25519","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#,
    ] {
        assert_eq!(of(&own(key)), Ok((3, 1)), "{key}");
        assert_eq!(of(&format!(r#"{{"keys":[{key}]}}"#)), Err(KeySetError::Unusable(1)), "{key}");
    }
    for text in ["", "[]", "[[]]", "{}", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, r#"{"keys":["#, "<html>"] {
        assert_eq!(of(text), Err(KeySetError::Malformed), "{text}");
    }
    assert_eq!(of(r#"{"keys":[]}"#), Err(KeySetError::Unusable(0)));
    assert_eq!(of(&format!(r#"{{"keys":[{}1]}}"#, "1,".repeat(100))), Err(KeySetError::TooMany(101)));
    assert_eq!(of(&" ".repeat(300_000)), Err(KeySetError::TooLong));
    assert!(of(&format!(r#"{{"keys":[{}"#, "[".repeat(100_000))).is_err());
}

proptest! {
    /// Whatever it is, it is answered, and is good only with the signature.
    #[test]
    fn nothing_unsigned_is_good(header in "\\PC{0,40}", claims in "\\PC{0,60}", tail in "[A-Za-z0-9_.-]{0,60}") {
        let auth = Auth::new(settings(), all_keys());
        let signed = format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims.as_bytes()));
        for text in [header, tail.clone(), format!("{signed}.{tail}")] {
            prop_assert!(auth.verify(&text, NOW, When::Handshake).is_err());
            let _ = (auth.cost(&text), texts(&text), key_set(text.as_bytes()).is_ok());
        }
    }
}

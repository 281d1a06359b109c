//! Tokens, good and bad.

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;

use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The time of the tests, in Unix seconds.
const NOW_S: u64 = 1_800_000_000;

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

fn auth() -> Auth {
    Auth::new(settings(), vec![Key::secret(Alg::Hs256, None, SECRET).expect("a key")])
}

fn hs256(header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", BASE64URL_NOPAD.encode(header.as_bytes()), BASE64URL_NOPAD.encode(claims.as_bytes()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}

#[test]
fn a_good_token_says_who_and_what() {
    let claims = r#"{"sub":"alice","exp":1800000060.5,"iat":1799999999,"fanfare":{"join":["chat.*"],"private":true}}"#;
    let token = hs256(r#"{"alg":"HS256","typ":"JWT"}"#, claims);
    let grant = auth().verify(&token, NOW_S * 1_000, When::Handshake).expect("it is good");
    assert_eq!(&*grant.user, "alice");
    assert_eq!(grant.expires_unix_ms, Some(1_800_000_060_500));
    assert_eq!(grant.issued_unix_s, Some(1_799_999_999));
    assert!(grant.permissions.may_join("chat.lobby") && grant.permissions.may_private());
    assert!(!grant.permissions.may_publish("chat.lobby") && !grant.permissions.may_broadcast());
}

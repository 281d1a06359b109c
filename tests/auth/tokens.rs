//! Servers with a key, and tokens for them.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use fanfare_testing::{Client, Server, temporary_path};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use ring::{hmac, signature};
use serde_json::{Value, json};

const SECRET: &str = "a secret of the tests, of more than 32 bytes";

/// A server that asks for tokens, and what makes them.
pub struct Guarded {
    pub server: Server,
    signer: Signer,
}

enum Signer {
    Hs256,
    Es256(Box<EcdsaKeyPair>),
}

impl Guarded {
    /// With a secret.
    pub fn start(reactors: usize, settings: &[&str]) -> Guarded {
        let path = temporary_path("secret");
        fs::write(&path, SECRET).unwrap();
        let key = format!("alg=HS256,secret_file={}", path.display());
        let server = Server::with_reactors(reactors, &[&["--auth.key", &key], settings].concat());
        fs::remove_file(path).unwrap();
        Guarded { server, signer: Signer::Hs256 }
    }

    /// With a public key, whose signatures are checked beside the reactors.
    pub fn with_public_key(reactors: usize, settings: &[&str]) -> Guarded {
        let kind = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap();
        // RFC 5480 §2: the algorithm and the curve, and a bit string with the point.
        let mut der = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
            0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        der.extend_from_slice(pair.public_key().as_ref());
        let path = temporary_path("pem");
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der));
        fs::write(&path, pem).unwrap();
        let key = format!("alg=ES256,public_key_file={}", path.display());
        let server = Server::with_reactors(reactors, &[&["--auth.key", &key], settings].concat());
        fs::remove_file(path).unwrap();
        Guarded { server, signer: Signer::Es256(Box::new(pair)) }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let alg = match &self.signer {
            Signer::Hs256 => "HS256",
            Signer::Es256(_) => "ES256",
        };
        let part = |json: Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let signed = format!("{}.{}", part(json!({ "alg": alg })), part(claims.clone()));
        let signature = match &self.signer {
            Signer::Hs256 => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
                hmac::sign(&key, signed.as_bytes()).as_ref().to_vec()
            }
            Signer::Es256(pair) => {
                let made: signature::Signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
                made.as_ref().to_vec()
            }
        };
        format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
    }

    /// A token of an hour for a user who may do this.
    pub fn token(&self, user: &str, may: Value) -> String {
        self.sign(&json!({ "sub": user, "exp": now_s() + 3_600, "fanfare": may }))
    }

    /// A connection of a user who may do this.
    pub fn connect(&self, user: &str, may: Value) -> Client {
        Client::greeted(&self.server, &format!("/?token={}", self.token(user, may)))
    }
}

/// Unix time in seconds.
pub fn now_s() -> u64 {
    now_ms() / 1_000
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

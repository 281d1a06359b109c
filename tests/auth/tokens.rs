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
        let pair = new_pair();
        let path = temporary_path("pem");
        fs::write(&path, pem_of(&pair)).unwrap();
        let key = format!("alg=ES256,public_key_file={}", path.display());
        let server = Server::with_reactors(reactors, &[&["--auth.key", &key], settings].concat());
        fs::remove_file(path).unwrap();
        Guarded { server, signer: Signer::Es256(Box::new(pair)) }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        match &self.signer {
            Signer::Hs256 => sign_hs256(SECRET.as_bytes(), claims),
            Signer::Es256(pair) => signed_by(&json!({ "alg": "ES256" }), claims, |signed| es256(pair, signed)),
        }
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

/// A key pair of a key set.
pub struct NamedKey {
    kid: Option<String>,
    pair: EcdsaKeyPair,
}

impl NamedKey {
    /// A new one.
    pub fn new(kid: Option<&str>) -> NamedKey {
        NamedKey { kid: kid.map(str::to_owned), pair: new_pair() }
    }

    /// Its public key, as a key set has it.
    pub fn jwk(&self) -> Value {
        // SEC 1 §2.3.3: 4, and the two coordinates.
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let [x, y] = [x, y].map(|number| BASE64URL_NOPAD.encode(number));
        let mut jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "x": x, "y": y});
        if let Some(kid) = &self.kid {
            jwk["kid"] = json!(kid);
        }
        jwk
    }

    /// The same in PEM.
    pub fn pem(&self) -> String {
        pem_of(&self.pair)
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = match &self.kid {
            Some(kid) => json!({ "alg": "ES256", "kid": kid }),
            None => json!({ "alg": "ES256" }),
        };
        signed_by(&header, claims, |signed| es256(&self.pair, signed))
    }

    /// The same under another name.
    pub fn sign_as(&self, kid: &str, claims: &Value) -> String {
        signed_by(&json!({ "alg": "ES256", "kid": kid }), claims, |signed| es256(&self.pair, signed))
    }
}

/// A token with these claims, by a secret.
pub fn sign_hs256(secret: &[u8], claims: &Value) -> String {
    signed_by(&json!({ "alg": "HS256" }), claims, |signed| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed).as_ref().to_vec()
    })
}

fn pem_of(pair: &EcdsaKeyPair) -> String {
    // RFC 5480 §2: the algorithm and the curve, and a bit string with the point.
    let mut der = vec![
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];
    der.extend_from_slice(pair.public_key().as_ref());
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(&der))
}

fn new_pair() -> EcdsaKeyPair {
    let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
    let document = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).unwrap()
}

fn signed_by(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&sign(signed.as_bytes())))
}

fn es256(pair: &EcdsaKeyPair, signed: &[u8]) -> Vec<u8> {
    let made: signature::Signature = pair.sign(&SystemRandom::new(), signed).unwrap();
    made.as_ref().to_vec()
}

/// Unix time in seconds.
pub fn now_s() -> u64 {
    now_ms() / 1_000
}

/// Unix time in milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

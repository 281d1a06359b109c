//! Public keys out of PEM files and key sets, as numbers that a signature can be checked by.

use ring::signature::RsaPublicKeyComponents;
use rustls::pki_types::pem::{PemObject, SectionKind};
use spki::der::asn1::UintRef;
use spki::der::{Decode, Reader, SliceReader};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::key::KeyError;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A public key of a kind that tokens are signed by. Whether a point is on its curve is found when it is used: if not, it
/// is for no signature.
#[derive(Clone)]
pub(super) enum PublicKey {
    /// 2048 to 8192 bits.
    Rsa(RsaPublicKeyComponents<Box<[u8]>>),
    /// A point, not compressed: 4, and 32 bytes each of x and y.
    P256(Box<[u8; 65]>),
    /// A point.
    Ed25519(Box<[u8; 32]>),
}

impl PublicKey {
    pub(super) fn from_pem(pem: &[u8]) -> Result<PublicKey, KeyError> {
        match <(SectionKind, Vec<u8>)>::from_pem_slice(pem) {
            Ok((SectionKind::PublicKey, der)) => PublicKey::from_der(&der),
            Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _)) => {
                Err(KeyError::OtherPem(
                    "a private key, which only who signs should have",
                    "give its public half here: `openssl pkey -in FILE -pubout`",
                ))
            }
            Ok((SectionKind::Certificate, _)) => Err(KeyError::OtherPem(
                "a certificate",
                "give the public key in it: `openssl x509 -in FILE -noout -pubkey`",
            )),
            Ok(_) | Err(_) => Err(KeyError::NoPem),
        }
    }

    /// From n and e as big-endian numbers.
    pub(super) fn rsa(n: &[u8], e: &[u8]) -> Result<PublicKey, KeyError> {
        let trim = |number: &[u8]| -> Box<[u8]> {
            number.iter().position(|byte| *byte != 0).map_or(&[][..], |start| &number[start..]).into()
        };
        let (n, e) = (trim(n), trim(e));
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        let is_odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        match bits {
            2048..=8192 if is_odd(&n) && is_odd(&e) && e.len() <= 4 && *e != [1] => {
                Ok(PublicKey::Rsa(RsaPublicKeyComponents { n, e }))
            }
            2048..=8192 => Err(KeyError::Malformed),
            bits => Err(KeyError::RsaBits(bits)),
        }
    }

    pub(super) fn p256(point: &[u8]) -> Result<PublicKey, KeyError> {
        match <[u8; 65]>::try_from(point) {
            Ok(point @ [4, ..]) => Ok(PublicKey::P256(Box::new(point))),
            Ok(_) | Err(_) => Err(KeyError::Malformed),
        }
    }

    pub(super) fn ed25519(point: &[u8]) -> Result<PublicKey, KeyError> {
        point.try_into().map(|point| PublicKey::Ed25519(Box::new(point))).map_err(|_| KeyError::Malformed)
    }

    pub(super) fn noun(&self) -> &'static str {
        match self {
            PublicKey::Rsa(_) => "an RSA key",
            PublicKey::P256(_) => "an EC key on the curve P-256",
            PublicKey::Ed25519(_) => "an Ed25519 key",
        }
    }

    fn from_der(der: &[u8]) -> Result<PublicKey, KeyError> {
        let info = SubjectPublicKeyInfoRef::try_from(der).map_err(|_| KeyError::Malformed)?;
        let key = info.subject_public_key.as_bytes().ok_or(KeyError::Malformed)?;
        match (info.algorithm.oid, info.algorithm.parameters_oid().ok()) {
            (RSA, _) => {
                let (n, e) = rsa_numbers(key).map_err(|_| KeyError::Malformed)?;
                PublicKey::rsa(n, e)
            }
            (EC, Some(P256)) => PublicKey::p256(key),
            (ED25519, None) => PublicKey::ed25519(key),
            _ => Err(KeyError::Malformed),
        }
    }
}

/// n and e of an `RSAPublicKey` (RFC 8017 §A.1.1).
fn rsa_numbers(der: &[u8]) -> Result<(&[u8], &[u8]), spki::der::Error> {
    let mut reader = SliceReader::new(der)?;
    let numbers = reader.sequence(|reader| {
        let (n, e) = (UintRef::decode(reader)?, UintRef::decode(reader)?);
        Ok::<_, spki::der::Error>((n.as_bytes(), e.as_bytes()))
    })?;
    reader.finish()?;
    Ok(numbers)
}

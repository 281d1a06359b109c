//! Claims as issuers write them, and what is nearly so; tokens and key sets that nobody has signed.

use crate::Seed;

/// The first inputs of the target `tokens`.
pub fn seeds() -> Vec<Seed> {
    [
        ("plain", r#"0{"sub":"alice","exp":1800000060,"aud":"us"}"#),
        ("all", r#"0{"sub":"alice","exp":1800000060.5,"nbf":1799999999,"iat":1,"iss":"me","aud":["us"],"fanfare":{"join":["chat.*"],"publish":["a*b"],"presence":[],"private":true,"broadcast":false,"rate":{"messages_per_second":20}}}"#),
        ("expired", r#"0{"sub":"alice","exp":1800000000,"aud":"us"}"#),
        ("twice", r#"0{"sub":"alice","sub":"bob","exp":1800000060,"aud":"us"}"#),
        ("null", r#"0{"sub":"alice","exp":1800000060,"aud":"us","nbf":null}"#),
        ("array", r#"0["alice",1800000060]"#),
        ("other-allowance", r#"0{"sub":"alice","exp":1800000060,"aud":"us","fanfare":{"join":"*"}}"#),
        ("none", "1eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0."),
        ("forged", "1eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("key-set", r#"1{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","alg":"EdDSA","use":"sig","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},{"kty":"EC","crv":"P-256","x":"","y":""},{"kty":"RSA","n":"","e":"AQAB"},{"kty":"oct","k":""}]}"#),
    ]
    .map(|(name, text)| (name, text.as_bytes().to_vec()))
    .into()
}

//! Keys and tokens for the tests, made with OpenSSL's command line: another opinion on every algorithm.
//!
//! The tokens hold `{"sub":"alice","exp":1800000060}`.

pub(super) const RSA_PRIVATE: &str = include_str!("keys/rsa-private.pem");

pub(super) const P256_PRIVATE: &str = include_str!("keys/p256-private.pem");

pub(super) const ED25519_PRIVATE: &str = include_str!("keys/ed25519-private.pem");

pub(super) const RSA_PUBLIC: &str = include_str!("keys/rsa-public.pem");

pub(super) const WEAK_PUBLIC: &str = include_str!("keys/weak-public.pem");

pub(super) const P256_PUBLIC: &str = include_str!("keys/p256-public.pem");

pub(super) const P384_PUBLIC: &str = include_str!("keys/p384-public.pem");

pub(super) const ED25519_PUBLIC: &str = include_str!("keys/ed25519-public.pem");

pub(super) const EC_PRIVATE_OLDER: &str = include_str!("keys/ec-private-older.pem");

pub(super) const CERTIFICATE: &str = include_str!("keys/certificate.pem");

pub(super) const KEY_SET: &str = r#"{"keys":[{"kty":"RSA","kid":"r","use":"sig","n":"oTgNj6qqb5-oSR3FbjCi-U67jQt098FVV-xbi1gbAxXZYG07X9gCNPbyD2VY4O05blQ1tlx8w44e2FtPIJpj-lbyNbEcdLnn-BsvUUjs7-Fg3x8eUrfP3EnUByXoJYjIEbFfjiGhfcIU4UGGmq3p5JLkkVWZ42TMQjXudi7bib6DB-Lio-9EWK-6g65m_7_f5AQuleh5gfuj1XdSHmIJwzl8tbwE9qAjEqEe8VSruMdNO4ID4WcCSLeawMAGzjYUmSoZzHhljctiPsu6PlsbHtrljH_l56o2UAAxZ2RneqpFRQYL6qbu4BNCYv4EGtffukEEGQY2dt5AGHoWiBZarQ","e":"AQAB"},{"kty":"EC","kid":"e","crv":"P-256","alg":"ES256","x":"9UYKunpFcFfShgz7qr8-G9lv0NyMyV2blb-QltUhx68","y":"86ncPMaC-RwkVsClw_7q6TaTPgqidf3sc7OYwh0pU3U"},{"kty":"OKP","kid":"d","crv":"Ed25519","x":"cBIrCF_97AvsJSZ07_t7nzxEYbaF-Nab2XZPqVyJjwg"}]}"#;

pub(super) const TOKENS: [(&str, &str); 7] = [
    (
        "HS256",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0.juAgvj-3Q390tCBMN99wmzcrw8VHR-LO0VJBxRZ57WE",
    ),
    (
        "HS384",
        "eyJhbGciOiJIUzM4NCIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0.1tkSaqognA1JpUTY3LJK0W53sO8zmeXtt3tTKODqD-I39LEyeijVYDNyZNam8yJK",
    ),
    (
        "HS512",
        "eyJhbGciOiJIUzUxMiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0.XK77e7hWes62LHBSq5sSgUnFt4PBz1VmAQCfyJBZMkyCsgj8PoZm64t_RYjymMwBlll8qbkfTW_CQked2fQ-oQ",
    ),
    (
        "RS256",
        "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0.DW_JHqe_RamT7MI06cul2JfMB9Lfy_Q3ewufiUp7WFJxxbKOQ16L5M8OYruarDL75w2BxESR-x2APEis6609jbokXmvsYVbK_0Adv34_1P0Gj0dz5KZyb28RYylRyQ42nnX-n1-UoaaKFA8PmsxC0jzHapr_xP3emC45m_cW00zpWTVLR_ZeraAH3iFKmdmL4Ymdt427W9smeZTaAdVKehji0XfCdwbxJlm_BhnBtVpNawq9OHNj8fE6hD0cgANmrfLLXta_wGkxZMZaffUQyOWu13w3t1r6ZuU5LP2Yj4WWV6a4AtlmN_oxW3ALwLZj0x0D5Ck-OfDOU8MlwdMiSA",
    ),
    (
        "PS256",
        "eyJhbGciOiJQUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0.lzh5RlW52EP4GFHd8tT2Pa7r6_WFB989QGUip6n259tkC8pgWB921X1wCF1loowwi41VH8Li7BhPYyoNarAXnn8BxDo0o63cgNP5ebEXA67FRFp1YXWV4KUgpqeVf0_n_g5fDKOx9gMLjNAh4k6B11JPba-aQQ6DpS56C-ZRLhZSs_faySXlT5JXiV1bCSANQ4Dn8uoBN3KaOA88mNWVyhFYGgqE4Z1wpjQ3rjKfnhWeuBcUmBbGR647ZF3f4-wSw6MUi-W2OWAhCPOkTtm1DNosZZNpa2RyMxLw1Go9w3o0uVqn7Aror8SOM4TsjNbJ0BeJI2v2Q2DQMnMKgFhB4g",
    ),
    (
        "ES256",
        "eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0.KiCKglmahoQIcmgc0q8kaHyRQ-O1J6QsMpI5uSvvBObmRx8eoNyCt9-KqTFl5OCL5Su5L8CLpowRqRic2e2AKA",
    ),
    (
        "EdDSA",
        "eyJhbGciOiJFZERTQSIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MTgwMDAwMDA2MH0.p63w22xK3jHIPxXwpwdEZS9hDO94Z32iYbixpfItPZjYHoFgYDJ1rCAdnb_IpkPnEG69FNaMUrXfDIZz8slQDA",
    ),
];

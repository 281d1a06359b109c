//! Keys for tokens: the same from file, environment and flag, what each mistake is answered, and no secret anywhere.

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn key_flags(keys: &[&str]) -> Sources {
    Sources { list_flags: keys.iter().map(|key| (&AUTH_KEY, (*key).to_owned())).collect(), ..Sources::default() }
}

fn key_file(lines: &str) -> Sources {
    file(&format!("[[auth.key]]\n{lines}\n"))
}

fn keys(sources: &Sources) -> Vec<(&'static str, Option<String>, KeyMaterial)> {
    loaded(sources).auth.key.into_iter().map(|key| (key.alg, key.kid, key.material)).collect()
}

#[test]
fn a_key_is_the_same_from_everywhere() {
    let secret = KeyMaterial::Secret(Secret::new(SECRET));
    for text in [
        format!("[[auth.key]]\nalg = \"HS256\"\nkid = \"a\"\nsecret = \"{SECRET}\"\n[auth]\nissuer = \"me\"\n"),
        format!("auth.key = [{{ alg = \"HS256\", kid = \"a\", secret = \"{SECRET}\" }}]\n"),
        format!("[auth]\nkey = [{{ alg = \"HS256\", kid = \"a\", secret = \"{SECRET}\" }}]\n"),
    ] {
        assert_eq!(keys(&file(&text)), [("HS256", Some("a".to_owned()), secret.clone())], "{text}");
    }
    let by_env = env(&[("FANFARE_AUTH_KEY", &format!("alg=HS256, kid=a, secret={SECRET}"))]);
    assert_eq!(keys(&by_env), [("HS256", Some("a".to_owned()), secret)]);
    let file_key = KeyMaterial::PublicKeyFile("/k.pem".to_owned());
    let expected =
        [("ES256", None, file_key), ("HS512", Some("b".to_owned()), KeyMaterial::SecretFile("/s".to_owned()))];
    let text = "alg=ES256,public_key_file=/k.pem; alg=HS512,kid=b,secret_file=/s";
    assert_eq!(keys(&env(&[("FANFARE_AUTH_KEY", text)])), expected);
    assert_eq!(keys(&key_flags(&[text])), expected);
    assert_eq!(keys(&key_flags(&["alg=ES256,public_key_file=/k.pem", "alg=HS512,kid=b,secret_file=/s"])), expected);
}

#[test]
fn a_wrong_key_is_told_with_its_place() {
    for (lines, message) in [
        (
            "secret_file = \"/s\"",
            "f.toml:1:1: auth.key: the key says not what it is for; add alg = \"HS256\", or another",
        ),
        (
            "alg = \"HS256\"",
            "f.toml:1:1: auth.key: there is no key in it; add secret_file, or public_key_file for a public key",
        ),
        (
            "alg = \"HS256\"\nsecret_file = \"/s\"\npublic_key_file = \"/p\"",
            "f.toml:1:1: auth.key: the key stands in it more than once; keep one of secret, secret_file, public_key, \
             public_key_file",
        ),
        (
            "alg = \"HS256\"\npublic_key_file = \"/p\"",
            "f.toml:1:1: auth.key: HS256 takes a secret and no public key, which everybody may know; give secret_file, or \
             the key's own alg",
        ),
        (
            "alg = \"RS256\"\nsecret_file = \"/s\"",
            "f.toml:1:1: auth.key: RS256 takes a public key and no secret; give public_key_file",
        ),
        (
            "alg = \"none\"\nsecret_file = \"/s\"",
            "f.toml:2:7: auth.key.alg: \"none\" is no choice; write HS256, HS384, HS512, RS256, PS256, ES256 or EdDSA",
        ),
        (
            "alg = \"HS256\"\nsecret = \"hunter2\"",
            "f.toml:3:10: auth.key.secret: the secret has 7 bytes, few enough to be guessed; make one of at least 32 with \
             `openssl rand -base64 48`",
        ),
        (
            "alg = \"HS256\"\nsecrets = \"x\"",
            "f.toml:3:1: unknown key \"auth.key.secrets\"; did you mean auth.key.secret?",
        ),
    ] {
        assert_eq!(problems(&key_file(lines)), [message], "{lines}");
    }
    assert_eq!(
        problems(&file("[auth.key]\nalg = \"HS256\"\n")),
        ["f.toml:1:1: auth.key: a table stands where keys belong; write [[auth.key]] on a line of its own and the \
             key's keys below"]
    );
    let twice = "alg=HS256,kid=a,secret_file=/s;alg=HS384,kid=a,secret_file=/s";
    assert_eq!(
        problems(&key_flags(&[twice])),
        ["--auth.key: another key has this kid; name each key once, since a token asks for one of them"]
    );
}

#[test]
fn no_message_repeats_a_secret() {
    let secret = "hunter2hunter2hunter2hunter2hunter2";
    for text in [
        format!("[[auth.key]]\nalg = \"HS256\"\nsecret = {secret}\n"),
        format!("[[auth.key]]\nalg = \"HS256\"\nsecret = \"{secret}\n"),
        format!("[[auth.key]]\nalg = \"ES256\"\nsecret = \"{secret}\"\n"),
        format!("[[auth.key]]\nalg = \"HS256\"\nsecret = [\"{secret}\"]\n"),
    ] {
        let told = problems(&file(&text));
        assert!(!told.is_empty() && !told.concat().contains("hunter2"), "{told:?}");
    }
    for text in [
        format!("alg=HS256,secret={secret}"),
        format!("alg=HS256,secret=a,{secret}"),
        format!("alg=HS256,{secret}=a"),
        format!("alg=ES256,secret={secret}"),
        "alg=HS256,secret=hunter2".to_owned(),
    ] {
        let told = problems(&key_flags(&[&text]));
        assert!(!told.is_empty() && !told.concat().contains("hunter2"), "{told:?}");
        let told = problems(&env(&[("FANFARE_AUTH_KEY", &text)]));
        assert!(!told.concat().contains("hunter2"), "{told:?}");
    }
    let (config, effective) =
        Config::load(&key_file(&format!("alg = \"HS256\"\nsecret = \"{secret}\""))).expect("it is good");
    let shown = format!("{config:?}{effective}");
    assert!(!shown.contains("hunter2") && shown.contains("secret = \"***\" # file f.toml:3"), "{effective}");
    // And what is shown is no key for anybody who copies it.
    assert_eq!(problems(&file(&effective.to_string())).len(), 1);
}

#[test]
fn with_keys_the_world_may_connect() {
    let mut sources = key_flags(&["alg=HS256,secret_file=/s"]);
    sources.flags = flags(&[("listen", "0.0.0.0:80")]).flags;
    assert!(loaded(&sources).auth.is_on());
    let by_set = flags(&[("listen", "0.0.0.0:80"), ("auth.jwks_file", "/k")]);
    assert!(loaded(&by_set).auth.is_on());
    for url in ["auth.jwks_url", "auth.connect_url"] {
        let by_url = flags(&[("listen", "0.0.0.0:80"), (url, "https://id.example.com/")]);
        assert!(loaded(&by_url).auth.is_on());
        assert_eq!(problems(&flags(&[("listen", "0.0.0.0:80"), (url, "http://id.example.com/")])).len(), 1);
    }
    // A key that is wrong is one mistake, not two.
    let wrong = file("listen = [\"0.0.0.0:80\"]\n[[auth.key]]\nalg = \"HS256\"\n");
    assert_eq!(problems(&wrong).len(), 1);
    assert!(!Config::default().auth.is_on());
}

#[test]
fn what_would_check_nothing_is_refused() {
    for (key, value) in [
        ("auth.join_url", "https://api.example.com/join"),
        ("auth.issuer", "me"),
        ("auth.audience", "us"),
        ("auth.anonymous", "true"),
        ("auth.default.join", "*"),
        ("auth.default.publish", "*"),
        ("auth.default.presence", "*"),
        ("auth.default.private", "true"),
        ("auth.default.broadcast", "true"),
    ] {
        let told = problems(&flags(&[(key, value)]));
        assert_eq!(
            told,
            [format!(
                "--{key}: there is no key, so that no token would be checked and everybody may do everything; add an \
                 [[auth.key]] or auth.connect_url, or leave this out"
            )]
        );
    }
    assert!(problems(&flags(&[("auth.origins", "https://a.example")])).is_empty());
}

#[test]
fn authorities_without_tls_are_refused() {
    let told = |url: &str| problems(&flags(&[("auth.url_ca", "ca.pem"), ("auth.connect_url", url)]));
    assert!(told("http://127.0.0.1/")[0].starts_with("--auth.url_ca: no URL of auth begins with https://"));
    assert_eq!((told("https://h/"), told("http://h/").len()), (vec![], 1));
}

#[test]
fn header_fields_are_an_array_or_a_text() {
    let names = |sources: &Sources| -> Vec<String> {
        loaded(sources).auth.forward_headers.iter().map(ToString::to_string).collect()
    };
    assert_eq!(names(&file("[auth]\nforward_headers = [\"Cookie\", \"x-session\"]\n")), ["cookie", "x-session"]);
    assert_eq!(names(&flags(&[("auth.forward_headers", "Cookie, x-session")])), ["cookie", "x-session"]);
    assert_eq!(names(&file("[auth]\nforward_headers = []\n")), [""; 0]);
    assert_eq!(
        problems(&file("[auth]\nforward_headers = [\"host\"]\n")),
        [
            "f.toml:2:20: auth.forward_headers: host is not passed on, since it is between two neighbours, or said by this \
          server"
        ]
    );
}

#[test]
fn patterns_are_an_array_or_a_text() {
    let texts =
        |sources: &Sources| -> Vec<String> { loaded(sources).auth.origins.iter().map(ToString::to_string).collect() };
    assert_eq!(
        texts(&file("[auth]\norigins = [\"https://a.example\", \"https://*.b\"]\n")),
        ["https://a.example", "https://*.b"]
    );
    assert_eq!(texts(&file("[auth]\norigins = []\n")), [""; 0]);
    let mut repeated = Sources::default();
    let setting = Setting::find("auth.origins").expect("it is there");
    repeated.flags = vec![(setting, vec!["https://a".to_owned(), "https://b, https://c".to_owned()])];
    assert_eq!(texts(&repeated), ["https://a", "https://b", "https://c"]);
    assert_eq!(
        problems(&file("[auth]\norigins = \"https://a\"\n")),
        ["f.toml:2:11: auth.origins: a text stands where an array of patterns belongs; write it like origins = []"]
    );
    assert_eq!(
        problems(&file("[auth]\nleeway = \"31s\"\n")),
        ["f.toml:2:10: auth.leeway: \"31s\" is out of bounds; write 0s to 30s"]
    );
}

#[test]
fn what_stands_behind_a_urls_host_is_shown_to_nobody() {
    let url = "https://id.example.com/hunter2?key=hunter2";
    let settings = file(&format!("[auth]\njwks_url = \"{url}\"\nconnect_url = \"{url}\"\njoin_url = \"{url}\"\n"));
    let (config, effective) = Config::load(&settings).expect("they are good");
    let effective = effective.to_string();
    assert_eq!(effective.matches("\"https://id.example.com/***\"").count(), 3, "{effective}");
    assert!(!format!("{config:?}{effective}").contains("hunter2"), "{effective}");
    for wrong in [
        "\"http://id.example.com/hunter2\"",
        "\"hunter2\"",
        "https://h/hunter2",
        "\"https://h/hunter2",
        "[\"hunter2\"]",
    ] {
        for section in ["[auth]\njoin_url", "[redis]\nurl"] {
            let told = problems(&file(&format!("{section} = {wrong}\n")));
            assert!(!told.is_empty() && told.iter().all(|told| !told.contains("hunter2")), "{wrong}: {told:?}");
        }
    }
}

//! Keys of programs: the same from file, environment and flag, what each mistake is answered, and no secret anywhere.

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn key_flags(keys: &[&str]) -> Sources {
    Sources { list_flags: keys.iter().map(|key| (&API_KEY, (*key).to_owned())).collect(), ..Sources::default() }
}

fn keys(sources: &Sources) -> Vec<(String, SecretPlace, Vec<Verb>, Vec<String>)> {
    let rooms = |key: &ApiKey| key.rooms.iter().map(ToString::to_string).collect();
    let keys = loaded(sources).api.key;
    keys.into_iter().map(|key| (key.name.clone(), key.secret.clone(), key.verbs.clone(), rooms(&key))).collect()
}

#[test]
fn a_key_is_the_same_from_everywhere() {
    let text = format!(
        "[[api.key]]\nname = \"backend\"\nsecret = \"{SECRET}\"\nverbs = [\"publish\", \"read\"]\nrooms = [\"a.*\", \"b\"]\n"
    );
    let secret = SecretPlace::Here(Secret::new(SECRET));
    let rooms = vec!["a.*".to_owned(), "b".to_owned()];
    assert_eq!(keys(&file(&text)), [("backend".to_owned(), secret.clone(), vec![Verb::Publish, Verb::Read], rooms)]);
    let all = vec![Verb::Publish, Verb::Private, Verb::Broadcast, Verb::Read, Verb::Kick];
    let by_env = env(&[(
        "FANFARE_API_KEY",
        &format!(
            "name=backend, verbs=publish private broadcast read kick, secret={SECRET};name=b,verbs=read,secret_file=/s"
        ),
    )]);
    let expected = [
        ("backend".to_owned(), secret, all, vec!["*".to_owned()]),
        ("b".to_owned(), SecretPlace::File("/s".to_owned()), vec![Verb::Read], vec!["*".to_owned()]),
    ];
    assert_eq!(keys(&by_env), expected);
    assert_eq!(keys(&key_flags(&["name=b,verbs=read,secret_file=/s"])), expected[1..]);
    let twice = "name=b,verbs=read,secret_file=/s;name=b,verbs=read,secret_file=/t";
    assert_eq!(keys(&key_flags(&[twice])).len(), 2, "one takes the place of the other");
}

#[test]
fn a_wrong_key_is_told_without_its_secret() {
    for (key, message) in [
        ("verbs=read,secret_file=/s", "the key has no name; add name, for whoever holds it"),
        ("name=a,verbs=read", "there is no key in it; add secret_file"),
        ("name=a,secret_file=/s", "the key is good for nothing; add verbs, as verbs = [\"read\"]"),
        (
            "name=a,verbs=write,secret_file=/s",
            "verbs: \"write\" is no choice; write some of publish, private, broadcast, read and kick",
        ),
        (
            "name=a,verbs=read,secret=hunter2",
            "everybody on this machine can read a secret in a flag; give secret_file, or the secret in FANFARE_API_KEY or the \
             file",
        ),
    ] {
        assert_eq!(problems(&key_flags(&[key])), [format!("--api.key: {message}")], "{key}");
    }
    let both = format!("[[api.key]]\nname = \"a\"\nverbs = [\"read\"]\nsecret = \"{SECRET}\"\nsecret_file = \"/s\"\n");
    assert_eq!(problems(&file(&both)), ["f.toml:1:1: api.key: the key stands in it twice; keep secret or secret_file"]);
    let short = "[[api.key]]\nname = \"a\"\nverbs = [\"read\"]\nsecret = \"hunter2\"\n";
    let told = problems(&file(short));
    assert!(
        told.len() == 1 && told[0].starts_with("f.toml:4:10: api.key.secret: ") && !told[0].contains("hunter2"),
        "{told:?}"
    );
    let good = format!("[[api.key]]\nname = \"a\"\nverbs = [\"read\"]\nsecret = \"{SECRET}\"\n");
    let (config, effective) = Config::load(&file(&good)).expect("it is good");
    assert!(!format!("{config:?}{effective}").contains(SECRET), "{effective}");
    let many = vec!["name=b,verbs=read,secret_file=/s"; crate::limits::API_KEYS_MAX + 1];
    assert_eq!(problems(&key_flags(&many)), ["--api.key: 101 keys are too many; write at most 100"]);
}

#[test]
fn addresses_for_the_operator_are_listeners_of_their_own() {
    let admin = |address: &str, tls| Listener {
        address: address.parse().expect(address),
        tls,
        proxy_protocol: false,
        role: Role::Admin,
    };
    let config = loaded(&flags(&[("admin.listen", "10.0.0.1:9090,unix:/a")]));
    assert_eq!(config.listeners.len(), 3, "strangers reach counters there, and nothing else");
    assert_eq!(config.listeners[0].role, Role::Clients);
    assert_eq!(config.listeners[1..], [admin("10.0.0.1:9090", None), admin("unix:/a", None)]);
    // Section [tls] is for `listen`; an entry refines an address for the operator as any other.
    let text = "[tls]\ncertificate = \"a\"\nkey = \"b\"\n[admin]\nlisten = [\"127.0.0.1:9090\", \"127.0.0.1:9091\"]\n\
                [[listener]]\naddress = \"127.0.0.1:9091\"\n";
    let listeners = loaded(&file(text)).listeners;
    let tls = listeners[0].tls.clone();
    assert!(tls.is_some());
    assert_eq!(listeners[1..], [admin("127.0.0.1:9090", None), admin("127.0.0.1:9091", tls)]);
    let both = flags(&[("listen", "127.0.0.1:1"), ("admin.listen", "127.0.0.1:1")]);
    assert_eq!(problems(&both), ["--admin.listen: 127.0.0.1:1 is named twice; remove one"]);
    assert!(Config::default().admin.loopback && !loaded(&flags(&[("admin.loopback", "false")])).admin.loopback);
}

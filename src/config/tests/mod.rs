//! The sources together: precedence, values that have to fit each other, and the files made from the table.

mod api_tests;
mod auth_tests;
mod file_tests;
mod kind_tests;
mod listener_tests;
mod room_tests;
mod webhook_tests;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;

use super::*;

/// The example file as the table says it should be.
fn example() -> String {
    let mut text = "\
# Every setting of fanfare with its default. Uncomment what you want to change, and ask `fanfare check FILE`.
#
# The environment and flags name the same settings, and win over this file: default < file < environment < flag.
# `interval` in section [heartbeat] is FANFARE_HEARTBEAT_INTERVAL and --heartbeat.interval.
#
# Sizes are whole bytes or a text with a unit (\"64KiB\", \"1MB\"); durations are whole milliseconds or a text with a
# unit (\"500ms\", \"30s\", \"10m\", \"1h\", \"7d\").
"
    .to_owned();
    let mut section = None;
    for setting in SETTINGS {
        if setting.section() != section {
            section = setting.section();
            writeln!(text, "\n[{}]", section.unwrap_or_default()).expect("a string takes all");
        }
        text += &example_row(setting, setting.name());
    }
    let comments = [EXAMPLE_ROOM, EXAMPLE_AUTH_KEY, EXAMPLE_LISTENER, EXAMPLE_API_KEY, EXAMPLE_WEBHOOK];
    for (list, comment) in LISTS.into_iter().zip(comments) {
        writeln!(text, "\n{comment}#[[{}]]", list.name).expect("a string takes all");
        for setting in list.rows {
            text += &example_row(setting, setting.name_in_entry().expect(setting.key));
        }
    }
    text
}

const EXAMPLE_ROOM: &str = "\
# Rules for rooms, at most 1000: a [[room]] table each, with the keys below. The first rule whose pattern matches the
# whole room id counts; a room without one keeps no history and is not keyed. FANFARE_ROOM and --room give rules that come
# before these, those of flags first; a rule is match=market.*,history.size=1000,history.ttl=10m there, with semicolons
# between two.
";

const EXAMPLE_AUTH_KEY: &str = "\
# Keys that tokens are checked by, at most 100: an [[auth.key]] table each, with its alg and one of the other names below
# but kid. With one, clients need a token. FANFARE_AUTH_KEY and --auth.key give more of them; a key is
# alg=HS256,secret_file=/run/secrets/fanfare there, with semicolons between two.
";

const EXAMPLE_LISTENER: &str = "\
# How single addresses are served: a [[listener]] table each, with its address and what differs from the rest. It may be
# one of listen, or another one; without listen, none but these are served. At most 64 addresses are served together.
# FANFARE_LISTENER and --listener give more of them; one is address=0.0.0.0:443,certificate=a.pem,key=a.key there, with
# semicolons between two.
";

const EXAMPLE_API_KEY: &str = "\
# Keys that programs of the operator show as Authorization: Bearer KEY, at most 100: an [[api.key]] table each, with its
# name, its verbs and its secret. FANFARE_API_KEY and --api.key give more of them; a key is
# name=prometheus,verbs=read,secret_file=/run/secrets/fanfare-api there, with spaces between verbs and semicolons between
# two keys.
";

const EXAMPLE_WEBHOOK: &str = "\
# Receivers of events about rooms and users, at most 16: a [[webhook]] table each, with its url and its secret.
# FANFARE_WEBHOOK and --webhook give more of them; one is
# url=https://app.example.com/fanfare,secret_file=/run/secrets/fanfare-webhook there, with spaces between events and
# semicolons between two webhooks.
";

fn example_row(setting: &Setting, name: &str) -> String {
    let default = setting.kind.parse(setting.default).expect(setting.key).to_toml();
    format!("\n# {}\n# {}.\n#{name} = {default}\n", setting.help, setting.kind.domain())
}

fn file(text: &str) -> Sources {
    let file = SourceFile::new("f.toml".to_owned(), text.to_owned());
    Sources { file: Some(file), ..Sources::default() }
}

fn env(pairs: &[(&str, &str)]) -> Sources {
    let env = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
    Sources { env, ..Sources::default() }
}

fn flags(pairs: &[(&str, &str)]) -> Sources {
    let flag = |(key, value): &(&str, &str)| (Setting::find(key).expect(key), vec![(*value).to_owned()]);
    Sources { flags: pairs.iter().map(flag).collect(), ..Sources::default() }
}

fn loaded(sources: &Sources) -> Config {
    Config::load(sources).map(|(config, _)| config).unwrap_or_else(|error| panic!("{error}"))
}

fn problems(sources: &Sources) -> Vec<String> {
    match Config::load(sources) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        Err(error @ ConfigError::Unreadable { .. }) => panic!("{error}"),
    }
}

/// A value of the setting that is allowed and not the default, as flags write it.
fn other_values(setting: &Setting) -> Vec<String> {
    let texts = match setting.kind {
        Kind::Integer(bounds) => vec![bounds.min.to_string(), bounds.max.to_string()],
        Kind::Bytes(bounds) => vec![bounds.min.to_string(), bounds.max.to_string()],
        Kind::Duration(bounds) => vec![format!("{}ms", bounds.min), format!("{}ms", bounds.max)],
        Kind::Bool => vec!["true".to_owned(), "false".to_owned()],
        Kind::Text { .. } => vec!["{user} \"was\" here\n".to_owned(), String::new()],
        Kind::Choice(words) => words.iter().map(ToString::to_string).collect(),
        Kind::Address => vec!["[::1]:9".to_owned(), "unix:/run/x".to_owned()],
        Kind::Paths => vec!["a.pem, /b c/d.pem".to_owned(), "e.pem".to_owned()],
        Kind::Words(words) => vec![words.join(" ")],
        Kind::Addresses { .. } => {
            let number = setting.key.len();
            vec![format!("[::1]:1{number},unix:/run/{number}")]
        }
        Kind::Pin => vec!["none".to_owned(), "0,1".to_owned()],
        Kind::Mode => vec!["0600".to_owned()],
        Kind::Pattern => vec!["a \\ \"b\" # *".to_owned(), "ü\n".to_owned()],
        Kind::Patterns if setting.key == "echo.paths" => vec!["/a b,/ü".to_owned()],
        Kind::Patterns => vec!["a \\ \"b\" # *,ü\n!".to_owned(), "*".to_owned()],
        Kind::Networks => vec!["192.0.2.0/24,unix".to_owned(), "".to_owned()],
        Kind::Secret { .. } => vec!["0123456789abcdef0123456789abcdef".to_owned()],
        Kind::Fields => vec!["cookie".to_owned()],
        Kind::HttpUrl => vec!["https://h/".to_owned()],
        Kind::RedisUrl => vec!["rediss://h:1/".to_owned()],
    };
    let default = setting.kind.parse(setting.default);
    texts.into_iter().filter(|text| setting.kind.parse(text) != default).collect()
}

#[test]
fn the_table_is_sound() {
    let mut seen_sections = vec![None];
    for (index, setting) in SETTINGS.iter().enumerate() {
        let earlier = &SETTINGS[..index];
        assert!(earlier.iter().all(|other| other.env() != setting.env()), "{} is there twice", setting.key);
        if seen_sections.last() != Some(&setting.section()) {
            assert!(!seen_sections.contains(&setting.section()), "section of {} is torn apart", setting.key);
            seen_sections.push(setting.section());
        }
        assert!(setting.key.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'.')), "{}", setting.key);
        assert!(setting.key.matches('.').count() <= 2, "{}", setting.key);
        assert!(setting.help.ends_with('.') && !setting.help.contains('\n'), "{}", setting.key);
        assert!(setting.env() != ENV_CONFIG && LISTS.iter().all(|list| setting.env() != list.env()));
        assert!(setting.name_in_entry().is_none(), "{} stands where entries of a list do", setting.key);
    }
    let rows = || LISTS.into_iter().flat_map(|list| list.rows);
    for (index, row) in rows().enumerate() {
        assert!(rows().take(index).all(|other| other.key != row.key), "{} is there twice", row.key);
        assert!(row.name_in_entry().is_some() && row.help.ends_with('.') && !row.help.contains('\n'), "{}", row.key);
    }
}

#[test]
fn the_defaults_are_these() {
    let config = Config::default();
    let second = Duration::from_secs(1);
    let expected = Config {
        listen: vec![Listen::Tcp(([127, 0, 0, 1], 8080).into())],
        listeners: vec![Listener {
            address: Listen::Tcp(([127, 0, 0, 1], 8080).into()),
            tls: None,
            proxy_protocol: false,
            role: Role::Clients,
        }],
        reactors: 0,
        pin: Pin::Auto,
        io: Io::Auto,
        open: false,
        log: Log::Auto,
        log_level: "info",
        admin: Admin { loopback: true },
        api: Api { key: Vec::new(), body_bytes_max: 16 << 20 },
        auth: default_auth(),
        limits: Limits {
            connections_max: 50_000,
            message_bytes_max: 1 << 20,
            fragments_max: 131_072,
            rooms_max: 128,
            items_bytes_max: 64 << 10,
            user_connections_max: 0,
            user_connections_policy: UserConnectionsPolicy::Refuse,
            memory_max: 0,
            head_bytes_max: 8192,
            headers_max: 64,
            handshake_timeout: 5 * second,
        },
        address: default_address(),
        proxy: Proxy { trusted: Networks::default() },
        deflate: Deflate {
            enabled: true,
            level: 6,
            min_bytes: 256,
            client_window_bits: 12,
            contexts_max: 50_000,
            memory_max: 256 << 20,
        },
        heartbeat: Heartbeat { interval: 30 * second },
        outbox: Outbox { bytes_max: 1 << 20, age_max: 10 * second, node_bytes_max: 0 },
        rate: Rate { messages_per_second: 0, bytes_per_second: 0 },
        rooms: Rooms {
            notice_members_max: 100,
            join_text: "{user} joined".to_owned(),
            leave_text: "{user} left".to_owned(),
        },
        history: History { memory_max: 256 << 20 },
        items: Items { node_max: 1_000_000, node_bytes_max: 256 << 20 },
        inbox: Inbox { history: HistoryBounds { size: 0, ttl: 600 * second } },
        room: Vec::new(),
        redis: Redis { url: RedisUrl::default(), tls_ca: String::new(), prefix: "fanfare".to_owned() },
        webhook: Vec::new(),
        webhooks: Webhooks { queue_max: 500_000, directory: String::new() },
        health: Health { stall_max: 5 * second },
        echo: Vec::new(),
        drain: Drain { delay: Duration::ZERO, timeout: 10 * second },
        tcp: Tcp { nodelay: true, send_buffer: 0, receive_buffer: 0, backlog: 4096 },
        unix: Unix { mode: 0o660, group: String::new() },
    };
    assert_eq!(config, expected);
    assert_eq!(loaded(&Sources::default()), expected);
}

fn default_auth() -> Auth {
    let second = Duration::from_secs(1);
    Auth {
        key: Vec::new(),
        jwks_file: String::new(),
        jwks_url: HttpUrl::default(),
        jwks_refresh: 300 * second,
        connect_url: HttpUrl::default(),
        join_url: HttpUrl::default(),
        forward_headers: vec!["cookie".parse().expect("a name")],
        url_ca: String::new(),
        url_timeout: 3 * second,
        url_concurrency: 64,
        url_cache: 5 * second,
        issuer: String::new(),
        audience: String::new(),
        anonymous: false,
        origins: Vec::new(),
        leeway: 10 * second,
        expiry_required: true,
        expiring_before: 30 * second,
        default: AuthDefault::default(),
    }
}

fn default_address() -> Address {
    let exempt = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7"];
    Address {
        connections_max: 10_000,
        handshakes_per_second: 1_000,
        half_open_max: 512,
        exempt: Networks::new(exempt.map(|text| text.parse().expect(text)).to_vec()),
    }
}

#[test]
fn every_setting_reaches_the_config_from_every_source() {
    // Without a key some would check nothing, and are refused.
    let with_key =
        |sources: Sources| Sources { list_flags: vec![(&AUTH_KEY, "alg=HS256,secret_file=/s".to_owned())], ..sources };
    let default = loaded(&with_key(Sources::default()));
    // Those of section [tls] need each other, and have a test of their own.
    for setting in SETTINGS.iter().filter(|setting| setting.section() != Some("tls")) {
        for value in other_values(setting) {
            let by_flag = loaded(&with_key(flags(&[(setting.key, &value)])));
            assert_ne!(by_flag, default, "{} = {value} changes nothing", setting.key);
            assert_eq!(loaded(&with_key(env(&[(&setting.env(), &value)]))), by_flag, "{}", setting.key);
            let toml = setting.kind.parse(&value).expect(&value).to_toml();
            let section = setting.section().map_or(String::new(), |section| format!("[{section}]\n"));
            let by_file = loaded(&with_key(file(&format!("{section}{} = {toml}\n", setting.name()))));
            assert_eq!(by_file, by_flag, "{}", setting.key);
        }
    }
}

#[test]
fn every_word_is_a_variant_of_its_own() {
    for setting in SETTINGS {
        if let Kind::Choice(words) = setting.kind {
            let tls = [("tls.certificate", "a"), ("tls.key", "a")];
            let with_tls = |word: &str| {
                // It would check nothing where no client is asked for a certificate.
                let client_ca = ("tls.client_ca", if matches!(word, "optional" | "required") { "a" } else { "" });
                flags(&[tls[0], tls[1], client_ca, (setting.key, word)])
            };
            let configs: Vec<_> = words.iter().map(|word| loaded(&with_tls(word))).collect();
            for (index, config) in configs.iter().enumerate() {
                assert!(!configs[..index].contains(config), "{} = {}", setting.key, words[index]);
            }
        }
    }
}

#[test]
fn later_sources_win() {
    let mut sources = file("[heartbeat]\ninterval = \"1s\"\n");
    let interval = |sources: &Sources| {
        let (config, effective) = Config::load(sources).expect("all are good");
        (config.heartbeat.interval.as_millis(), effective.source("heartbeat.interval").describe())
    };
    assert_eq!(interval(&Sources::default()), (30_000, "default".to_owned()));
    assert_eq!(interval(&sources), (1_000, "file f.toml:2".to_owned()));
    sources.env = env(&[("FANFARE_HEARTBEAT_INTERVAL", "2s")]).env;
    assert_eq!(interval(&sources), (2_000, "env FANFARE_HEARTBEAT_INTERVAL".to_owned()));
    sources.flags = flags(&[("heartbeat.interval", "3s")]).flags;
    assert_eq!(interval(&sources), (3_000, "flag --heartbeat.interval".to_owned()));
}

#[test]
fn a_list_is_replaced_as_a_whole_and_a_repeated_flag_is_one_list() {
    let mut sources = file("listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n");
    assert_eq!(loaded(&sources).listen.len(), 2);
    let listen = Setting::find("listen").expect("the table has it");
    sources.flags = vec![(listen, vec!["127.0.0.1:3,127.0.0.1:4".to_owned(), "unix:/x".to_owned()])];
    let texts: Vec<_> = loaded(&sources).listen.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["127.0.0.1:3", "127.0.0.1:4", "unix:/x"]);
}

#[test]
fn all_problems_are_found_in_order() {
    let mut sources = file("nope = 1\n[tcp]\nbacklog = 0\n[limits]\nrooms_max = 0\nheaders_max = 0\n");
    sources.env = env(&[("FANFARE_REACTORS", "x"), ("FANFARE_LGO", "json")]).env;
    sources.flags = flags(&[("tcp.backlog", "0")]).flags;
    assert_eq!(
        problems(&sources),
        [
            "f.toml:1:1: unknown key \"nope\"; remove it (`fanfare config` shows all there are)",
            "f.toml:3:11: tcp.backlog: \"0\" is out of bounds; write 1 to 65535",
            "f.toml:5:13: limits.rooms_max: \"0\" is out of bounds; write 1 to 65536",
            "f.toml:6:15: limits.headers_max: \"0\" is out of bounds; write 1 to 256",
            "FANFARE_LGO: unknown environment variable; did you mean FANFARE_LOG?",
            "FANFARE_REACTORS: \"x\" is no whole number; write 0 to 256",
            "--tcp.backlog: \"0\" is out of bounds; write 1 to 65535",
        ]
    );
    let line = Config::load(&sources).expect_err("seven problems").to_string();
    assert_eq!(
        line,
        "f.toml:1:1: unknown key \"nope\"; remove it (`fanfare config` shows all there are) (and 6 more problems)"
    );
}

#[test]
fn the_environment_is_held_to_its_names() {
    assert_eq!(
        problems(&env(&[("FANFARE_SERVICE_HOST", "10.0.0.1"), ("HOME", "/"), (ENV_CONFIG, "x"), (ENV_TOKEN, "x")])),
        [""; 0]
    );
    assert_eq!(
        problems(&env(&[("FANFARE_NOTHING", "1")])),
        ["FANFARE_NOTHING: unknown environment variable; unset it (`fanfare serve --help` lists the settings)"]
    );
    assert_eq!(
        problems(&env(&[("FANFARE_A\nB", "1")])),
        ["FANFARE_A\\nB: unknown environment variable; unset it (`fanfare serve --help` lists the settings)"]
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(b"a\xff".to_vec());
    let sources = Sources { env: vec![("FANFARE_LOG".into(), value)], ..Sources::default() };
    assert_eq!(problems(&sources), ["FANFARE_LOG: \"a\u{fffd}\" is not UTF-8; write it in UTF-8"]);
}

#[test]
fn strangers_are_let_in_only_on_purpose() {
    let warning = |address: &str| {
        format!(
            "anyone who can reach {address} could read and send everything, because there is no authentication; \
             add a key for tokens ([[auth.key]]), say --open (or open = true) if you mean that, \
             or listen on a loopback address such as 127.0.0.1:8080"
        )
    };
    assert_eq!(
        problems(&flags(&[("listen", "127.0.0.1:1,0.0.0.0:2")])),
        [format!("--listen: {}", warning("0.0.0.0:2"))]
    );
    assert_eq!(problems(&file("\nlisten = [\"[::]:2\"]\n")), [format!("f.toml:2:10: listen: {}", warning("[::]:2"))]);
    assert_eq!(
        problems(&env(&[("FANFARE_LISTEN", "10.0.0.1:2")])),
        [format!("FANFARE_LISTEN: {}", warning("10.0.0.1:2"))]
    );
    assert_eq!(problems(&flags(&[("listen", "0.0.0.0:2"), ("open", "true")])), [""; 0]);
    assert_eq!(problems(&flags(&[("listen", "[::1]:2,unix:/x,127.9.9.9:1")])), [""; 0]);
    // A value that could not be read is one problem, not two.
    assert_eq!(problems(&flags(&[("listen", "0.0.0.0:2"), ("open", "maybe")])).len(), 1);
}

#[test]
fn values_have_to_fit_each_other() {
    assert_eq!(
        problems(&flags(&[("listen", "127.0.0.1:1,unix:/x,127.0.0.1:1")])),
        ["--listen: 127.0.0.1:1 is named twice; remove one"]
    );
    assert_eq!(
        problems(&flags(&[("listen", "127.0.0.1:1,[::ffff:127.0.0.1]:1")])),
        ["--listen: 127.0.0.1:1 is named twice; remove one"]
    );
    for (listen, problem) in [
        ("127.0.0.1:1,0.0.0.0:1", "0.0.0.0:1 includes 127.0.0.1:1; remove one"),
        ("[::]:1,0.0.0.0:1,[::1]:1", "[::]:1 includes [::1]:1; remove one"),
    ] {
        let found = problems(&flags(&[("listen", listen), ("open", "true")]));
        assert_eq!(found, [format!("--listen: {problem}")]);
    }
    let apart = flags(&[("listen", "[::]:1,0.0.0.0:1,127.0.0.1:2,0.0.0.0:0,127.0.0.1:0"), ("open", "true")]);
    assert_eq!(problems(&apart), [""; 0]);
    let mut sources = file("pin = \"0,1\"\n");
    sources.flags = flags(&[("reactors", "3")]).flags;
    assert_eq!(
        problems(&sources),
        ["f.toml:1:7: pin: names fewer cores (2) than there are reactors (3); name a core for each, or lower reactors"]
    );
    sources.flags = flags(&[("reactors", "2")]).flags;
    assert_eq!(problems(&sources), [""; 0]);
    let authorities = |url| problems(&flags(&[("redis.tls_ca", "ca.pem"), ("redis.url", url)]));
    assert!(authorities("redis://h")[0].starts_with("--redis.tls_ca: redis.url asks for no TLS"));
    assert_eq!((authorities("rediss://h"), authorities("")), (vec![], vec![]));
}

#[test]
fn reactors_are_counted() {
    for (reactors, pin, allowed, count) in [
        ("0", "auto", 4, 4),
        ("0", "none", 1, 1),
        ("0", "auto", 0, 1),
        ("0", "auto", 1000, 256),
        ("0", "5,6", 8, 2),
        ("1", "5,6", 8, 1),
        ("3", "auto", 2, 3),
    ] {
        let config = loaded(&flags(&[("reactors", reactors), ("pin", pin)]));
        assert_eq!(config.reactor_count(allowed), count, "{reactors} {pin} {allowed}");
    }
}

#[test]
fn the_effective_configuration_gives_itself_again() {
    let (_, effective) = Config::load(&Sources::default()).expect("the defaults are good");
    let text = effective.to_string();
    assert!(text.contains("\nlisten = [\"127.0.0.1:8080\"] # default\n"), "{text}");
    assert!(text.contains("\n[heartbeat]\ninterval = \"30s\" # default\n"), "{text}");
    let all: Vec<_> = SETTINGS
        .iter()
        // With redis.url there is no place for the second.
        .filter(|setting| !["reactors", "webhooks.directory"].contains(&setting.key))
        .filter_map(|setting| Some((setting.key, other_values(setting).pop()?)))
        .collect();
    let all: Vec<_> = all.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let (config, effective) = Config::load(&flags(&all)).expect("all are good");
    assert_eq!(loaded(&file(&effective.to_string())), config);
    let file_strange = SourceFile::new("a\nb = 1".to_owned(), "open = true".to_owned());
    let strange = Sources { file: Some(file_strange), ..Sources::default() };
    let (config, effective) = Config::load(&strange).expect("the path does not matter");
    assert_eq!(loaded(&file(&effective.to_string())), config);
}

#[test]
fn the_example_file_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fanfare.example.toml");
    let expected = example();
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        std::fs::write(&path, &expected).expect("the example can be written");
    }
    let found = std::fs::read_to_string(&path).expect("the example can be read");
    assert_eq!(found, expected, "the table has changed: UPDATE_EXAMPLE=1 cargo test the_example writes the file anew");
    assert_eq!(loaded(&file(&found)), Config::default());
    let is_setting = |line: &&str| line.strip_prefix('#').is_some_and(|rest| rest.starts_with(char::is_alphabetic));
    assert_eq!(
        found.lines().filter(is_setting).count(),
        SETTINGS.len() + LISTS.into_iter().map(|list| list.rows.len()).sum::<usize>()
    );
    // An example of a key would be none.
    let before_keys = found.split_once("#[[auth.key]]").map_or("", |(before, _)| before);
    let uncommented: String = before_keys
        .lines()
        .map(|line| if is_setting(&line) || line == "#[[room]]" { &line[1..] } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    let (config, effective) = Config::load(&file(&uncommented)).expect("the defaults are good");
    let rule = RoomRule {
        pattern: "*".parse().expect("a pattern"),
        history: HistoryBounds { size: 0, ttl: Duration::from_secs(600) },
        keyed: None,
    };
    assert_eq!(config, Config { room: vec![rule], ..Config::default() });
    for setting in SETTINGS {
        assert!(matches!(effective.source(setting.key), Source::File { .. }), "{} is not in the example", setting.key);
    }
}

#[test]
fn what_a_reload_takes_over_is_in_the_table_and_in_the_document() {
    let document = include_str!("../../../docs/operations.md");
    let section = document.split("\n## ").find(|section| section.starts_with("Reload\n")).expect("a section");
    for key in RELOADABLE {
        assert!(Setting::find(key).is_some() || LISTS.iter().any(|list| list.name == *key), "{key} is no setting");
        let (section_name, _) = key.rsplit_once('.').unwrap_or((key, ""));
        let names = [format!("`{key}`"), format!("`{section_name}.*`"), format!("`[[{key}]]`")];
        assert!(names.iter().any(|name| section.contains(name)), "{key} is not in the document");
    }
}

#[test]
fn of_two_configurations_what_can_be_taken_over_is_and_the_rest_is_named() {
    let load = |text: &str| Config::load(&file(text)).expect("a good file").1;
    let running = load("[limits]\nrooms_max = 1\n");
    let read = load("reactors = 3\n[limits]\nrooms_max = 2\nuser_connections_max = 5\n[[room]]\nmatch = \"a\"\n");
    let (config, effective, changes) = Config::reloaded(&running, &read);
    assert_eq!((config.reactors, config.limits.rooms_max, config.room.len()), (0, 2, 1));
    assert_eq!(config.limits.user_connections_max, 0, "nobody has counted them so far");
    assert_eq!(changes.applied, ["limits.rooms_max", "room"]);
    assert_eq!(changes.left, ["reactors", "limits.user_connections_max"]);
    let (_, again, changes) = Config::reloaded(&effective, &read);
    assert_eq!((changes.applied.len(), changes.left.len()), (0, 2), "the rest waits for a restart");
    assert_eq!(again, effective);
    // The same at another line is the same.
    let moved = load("\n\n[limits]\nrooms_max = 1\n");
    assert_eq!(Config::reloaded(&running, &moved).2, Changes::default());
}

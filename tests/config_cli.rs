//! The binary's command line: what goes where, and the exit codes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// What the binary answered: exit code, stdout, stderr.
type Answer = (Option<i32>, String, String);

fn fanfare(args: &[&str]) -> Answer {
    fanfare_with(args, &[])
}

fn fanfare_with(args: &[&str], env: &[(&str, &str)]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FANFARE_") {
            command.env_remove(name);
        }
    }
    command.args(args).envs(env.iter().copied()).stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn refused(line: &str) -> Answer {
    (Some(2), String::new(), format!("fanfare: {line}\n"))
}

/// A file of the test's own, gone at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: impl AsRef<[u8]>) -> File {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
        fs::write(&path, text).expect("the file can be written");
        File(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn version_and_help_are_answers() {
    let (code, stdout, stderr) = fanfare(&["--version"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, concat!("fanfare ", env!("CARGO_PKG_VERSION"), "\n"));
    let (code, stdout, stderr) = fanfare(&["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for command in [
        "serve",
        "config",
        "check",
        "bench",
        "doctor",
        "pub",
        "sub",
        "presence",
        "disconnect",
        "kick",
        "reload",
        "token",
    ] {
        assert!(stdout.contains(&format!("\n  {command} ")), "{stdout}");
    }
    for command in ["serve", "config"] {
        let (code, stdout, _) = fanfare(&[command, "--help"]);
        assert_eq!(code, Some(0));
        for setting in fanfare::config::SETTINGS {
            assert!(stdout.contains(&format!("--{} ", setting.key)), "{} is missing", setting.key);
            assert!(stdout.contains(setting.help), "{} is not explained", setting.key);
        }
        for list in fanfare::config::LISTS {
            assert!(stdout.contains(&format!("--{} <{}>", list.name, list.placeholder)), "{stdout}");
            for setting in list.rows {
                let name = setting.name_in_entry().expect(setting.key);
                assert!(stdout.contains(&format!("\n  {name} ")), "{name} is missing");
                assert!(stdout.contains(setting.help), "{name} is not explained");
            }
        }
    }
}

#[test]
fn config_prints_values_and_where_they_come_from() {
    let file = File::new(
        "precedence.toml",
        "reactors = 2\nlog = \"json\"\n\n[heartbeat]\ninterval = \"1s\"\n\n[drain]\ntimeout = 500\n",
    );
    let env = [
        ("FANFARE_CONFIG", file.path()),
        ("FANFARE_HEARTBEAT_INTERVAL", "90s"),
        ("FANFARE_LOG", "human"),
        ("FANFARE_SERVICE_HOST", "10.0.0.1"),
    ];
    let args = ["config", "--log", "auto", "--open", "--listen", "[::]:1", "--listen", "unix:/run/f.sock"];
    let (code, stdout, stderr) = fanfare_with(&args, &env);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for line in [
        "listen = [\"[::]:1\", \"unix:/run/f.sock\"] # flag --listen".to_owned(),
        format!("reactors = 2 # file {}:1", file.path()),
        "pin = \"auto\" # default".to_owned(),
        "open = true # flag --open".to_owned(),
        "log = \"auto\" # flag --log".to_owned(),
        "interval = \"90s\" # env FANFARE_HEARTBEAT_INTERVAL".to_owned(),
        format!("timeout = \"500ms\" # file {}:8", file.path()),
        "message_bytes_max = \"1MiB\" # default".to_owned(),
    ] {
        assert_eq!(stdout.lines().filter(|found| *found == line).count(), 1, "{line}\n{stdout}");
    }
    let values = |text: &str| -> Vec<String> {
        let without_source = |line: &str| line.split(" # ").next().unwrap_or_default().to_owned();
        text.lines().map(without_source).collect()
    };
    let printed = File::new("printed.toml", &stdout);
    let (code, again, _) = fanfare(&["config", "--config", printed.path()]);
    assert_eq!(code, Some(0));
    assert_eq!(values(&again), values(&stdout));
}

#[test]
fn config_prints_what_is_kept_and_for_which_rooms() {
    let text = "[[room]]\nmatch = \"market.*\"\nhistory.size = 1000\n\n[inbox]\nhistory.size = 1\n\n\
                [[room]]\nmatch = \"*\"\nhistory = { size = 10, ttl = \"1h\" }\n";
    let file = File::new("rooms.toml", text);
    assert_eq!(fanfare(&["check", file.path()]), (Some(0), format!("{}: ok\n", file.path()), String::new()));
    let env = [("FANFARE_ROOM", "match=news,history.ttl=2d;match=old.*"), ("FANFARE_INBOX_HISTORY_SIZE", "5")];
    let flags = ["--inbox.history.ttl", "1h", "--history.memory_max", "1GiB", "--room", "match=a", "--room", "match=b"];
    let args = [&["config", "--config", file.path()][..], &flags].concat();
    let (code, stdout, stderr) = fanfare_with(&args, &env);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    for lines in [
        "[history]\nmemory_max = \"1GiB\" # flag --history.memory_max\n",
        "[inbox.history]\nsize = 5 # env FANFARE_INBOX_HISTORY_SIZE\nttl = \"1h\" # flag --inbox.history.ttl\n",
    ] {
        assert!(stdout.contains(lines), "{stdout}");
    }
    let pattern = |line: &str| line.strip_prefix("match = ").map(str::to_owned);
    let expected = [
        "\"a\" # flag --room".to_owned(),
        "\"b\" # flag --room".to_owned(),
        "\"news\" # env FANFARE_ROOM".to_owned(),
        "\"old.*\" # env FANFARE_ROOM".to_owned(),
        format!("\"market.*\" # file {}:2", file.path()),
        format!("\"*\" # file {}:9", file.path()),
    ];
    assert_eq!(stdout.lines().filter_map(pattern).collect::<Vec<_>>(), expected);
    let printed = File::new("rooms-printed.toml", &stdout);
    let values = |text: &str| text.lines().map(|line| line.split(" # ").next().map(str::to_owned)).collect::<Vec<_>>();
    let (code, again, _) = fanfare(&["config", "--config", printed.path()]);
    assert_eq!(code, Some(0));
    assert_eq!(values(&again), values(&stdout));
}

#[test]
fn the_flag_names_the_file_before_the_environment_does() {
    let file = File::new("named.toml", "reactors = 3\n");
    let env = [("FANFARE_CONFIG", "/nowhere/f.toml")];
    let (code, stdout, _) = fanfare_with(&["config", "--config", file.path()], &env);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("\nreactors = 3 "), "{stdout}");
    assert_eq!(
        fanfare_with(&["config"], &env),
        refused(
            "cannot read \"/nowhere/f.toml\": No such file or directory (os error 2); \
             FANFARE_CONFIG must name a TOML file that can be read"
        )
    );
}

#[test]
fn check_says_ok() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/fanfare.example.toml");
    assert_eq!(fanfare(&["check", example]), (Some(0), format!("{example}: ok\n"), String::new()));
    // The file alone is checked.
    let env = [("FANFARE_REACTORS", "many")];
    assert_eq!(fanfare_with(&["check", example], &env).0, Some(0));
}

#[test]
fn check_says_everything_that_is_wrong_and_where() {
    let text = "listen = [\"0.0.0.0:80\"]\nreactors = 2\npin = \"0\"\n\n[heartbeet]\ninterval = \"1s\"\n\n[drain]\ntimeout = 1d\n\
                [tcp]\nno_delay = true\nbacklog = \"4096\"\n\n[[room]]\nmatch = \"a\"\nhistory.sise = 1\nhistory.ttl = \"1ms\"\n";
    let file = File::new("wrong.toml", text);
    let (code, stdout, stderr) = fanfare(&["check", file.path()]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    let expected = [
        "1:10: listen: anyone who can reach 0.0.0.0:80 could read and send everything, because there is no authentication; \
         add a key for tokens ([[auth.key]]), say --open (or open = true) if you mean that, \
         or listen on a loopback address such as 127.0.0.1:8080",
        "3:7: pin: names fewer cores (1) than there are reactors (2); name a core for each, or lower reactors",
        "5:2: unknown section \"heartbeet\"; did you mean heartbeat?",
        "9:11: not valid TOML at \"1d\": string values must be quoted, expected literal string",
        "11:1: unknown key \"tcp.no_delay\"; did you mean tcp.nodelay?",
        "12:11: tcp.backlog: a text stands where a whole number belongs; write it like backlog = 4096",
        "16:9: unknown key \"room.history.sise\"; did you mean room.history.size?",
        "17:15: room.history.ttl: \"1ms\" is out of bounds; write 1s to 30d",
    ]
    .map(|problem| format!("{}:{problem}", file.path()));
    assert_eq!(stderr.lines().collect::<Vec<_>>(), expected);
    // Other commands say the first one and how many there are.
    let (code, stdout, stderr) = fanfare(&["config", "--config", file.path()]);
    assert_eq!((code, stdout.as_str()), (Some(2), ""));
    assert_eq!(stderr, format!("fanfare: {} (and 7 more problems)\n", expected[0]));
}

#[test]
fn check_says_why_a_file_cannot_be_read() {
    assert_eq!(
        fanfare(&["check", "/nowhere/f.toml"]),
        refused(
            "cannot read \"/nowhere/f.toml\": No such file or directory (os error 2); \
             check must name a TOML file that can be read"
        )
    );
    let file = File::new("latin1.toml", b"reactors = 1\nlog = \"\xe4\"\n");
    let expected = format!("{}:2:8: not UTF-8 from here; save it as UTF-8\n", file.path());
    assert_eq!(fanfare(&["check", file.path()]), (Some(2), String::new(), expected));
}

#[test]
fn a_wrong_command_line_is_one_clear_line() {
    for (args, line) in [
        (&[][..], "say what to do: fanfare serve, fanfare config or fanfare check FILE (fanfare --help tells more)"),
        (&["sevre"], "unknown command \"sevre\"; did you mean serve?"),
        (
            &["frobnicate"],
            "unknown command \"frobnicate\"; there are serve, config, check, bench, doctor, pub, sub, presence, feed, disconnect, kick, reload, token, webhook",
        ),
        (
            &["a\nb"],
            "unknown command \"a\\nb\"; there are serve, config, check, bench, doctor, pub, sub, presence, feed, disconnect, kick, reload, token, webhook",
        ),
        (&["check"], "check needs a file; say fanfare check FILE"),
        (&["check", "a", "b"], "\"b\" is not expected here; fanfare --help tells what is"),
        (&["config", "-x"], "\"-x\" is not expected here; fanfare --help tells what is"),
        (
            &["--listen", "127.0.0.1:1"],
            "--listen does not belong here; it goes with a command: fanfare serve --listen or fanfare config --listen",
        ),
        (&["serve", "--lisen", "127.0.0.1:1"], "unknown flag --lisen; did you mean --listen?"),
        (&["serve", "--conifg=x"], "unknown flag --conifg; did you mean --config?"),
        (
            &["serve", "--heartbeat-interval", "1s"],
            "unknown flag --heartbeat-interval; did you mean --heartbeat.interval?",
        ),
        (&["serve", "--rooms", "match=a"], "unknown flag --rooms; did you mean --room?"),
        (&["serve", "--room.history.size", "1"], "unknown flag --room.history.size; did you mean --room?"),
        (
            &["--room", "match=a"],
            "--room does not belong here; it goes with a command: fanfare serve --room or fanfare config --room",
        ),
        (&["config", "--frobnicate"], "unknown flag --frobnicate; fanfare serve --help lists them"),
        (&["config", "--a\nb"], "unknown flag --a\\nb; fanfare serve --help lists them"),
    ] {
        assert_eq!(fanfare(args), refused(line), "{args:?}");
    }
}

#[test]
fn a_wrong_flag_value_is_one_clear_line() {
    for (args, line) in [
        (&["config", "--reactors"][..], "--reactors <N> needs a value"),
        (&["config", "--room"], "--room <RULE> needs a value"),
        (
            &["config", "--room", "match=a,history.size=-1"],
            "--room: history.size: \"-1\" is out of bounds; write 0 to 1000000 (in \"match=a,history.size=-1\")",
        ),
        (
            &["config", "--inbox.history.size", "1000001"],
            "--inbox.history.size: \"1000001\" is out of bounds; write 0 to 1000000",
        ),
        (&["config", "--reactors", "1", "--reactors", "2"], "--reactors <N> is given more than once; give it once"),
        (&["config", "--reactors", "-1"], "--reactors: \"-1\" is out of bounds; write 0 to 256"),
        (&["config", "--open", "maybe"], "--open: \"maybe\" is neither true nor false; write one of them"),
        (&["config", "--io", "--open"], "--io: \"--open\" is no choice; write auto, epoll or uring"),
        (
            &["config", "--listen="],
            "--listen: \"\" is no address; write IP:PORT, [IPv6]:PORT or unix:/path, as 127.0.0.1:8080",
        ),
        (
            &["serve", "--listen", "0.0.0.0:8080"],
            "--listen: anyone who can reach 0.0.0.0:8080 could read and send everything, because there is no authentication; \
             add a key for tokens ([[auth.key]]), say --open (or open = true) if you mean that, \
             or listen on a loopback address such as 127.0.0.1:8080",
        ),
    ] {
        assert_eq!(fanfare(args), refused(line), "{args:?}");
    }
}

#[test]
fn a_wrong_environment_is_one_clear_line() {
    for (name, value, line) in [
        ("FANFARE_REACTORS", "many", "FANFARE_REACTORS: \"many\" is no whole number; write 0 to 256"),
        ("FANFARE_INBOX_HISTORY_TTL", "31d", "FANFARE_INBOX_HISTORY_TTL: \"31d\" is out of bounds; write 1s to 30d"),
        ("FANFARE_ROOMS", "", "FANFARE_ROOMS: unknown environment variable; did you mean FANFARE_ROOM?"),
        ("FANFARE_REACTOR", "1", "FANFARE_REACTOR: unknown environment variable; did you mean FANFARE_REACTORS?"),
        (
            "FANFARE_CONFIG",
            "",
            "cannot read \"\": No such file or directory (os error 2); \
             FANFARE_CONFIG must name a TOML file that can be read",
        ),
    ] {
        assert_eq!(fanfare_with(&["serve"], &[(name, value)]), refused(line));
    }
}

#[test]
fn switches_need_no_value() {
    for (args, line) in [
        (&["config", "--open"][..], "open = true # flag --open"),
        (&["config", "--open", "--log", "json"], "open = true # flag --open"),
        (&["config", "--tcp.nodelay", "false"], "nodelay = false # flag --tcp.nodelay"),
        (&["config", "--tcp.nodelay=off"], "nodelay = false # flag --tcp.nodelay"),
    ] {
        let (code, stdout, _) = fanfare(args);
        assert_eq!(code, Some(0));
        assert!(stdout.lines().any(|found| found == line), "{args:?}\n{stdout}");
    }
}

/// A secret, and the flag that names it.
fn secret_key(name: &str) -> (File, String) {
    let file = File::new(name, "0123456789abcdef0123456789abcdef\n");
    let flag = format!("alg=HS256,secret_file={}", file.path());
    (file, flag)
}

#[test]
fn token_makes_what_token_explains() {
    let (_file, key) = secret_key("token.secret");
    let make = [
        "token",
        "--auth.key",
        &key,
        "--sub",
        "alice",
        "--join",
        "chat.*",
        "--join",
        "b",
        "--private",
        "--rate",
        "20",
        "--ttl",
        "10m",
        "--auth.issuer",
        "me",
    ];
    let (code, token, stderr) = fanfare(&make);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let (code, told, stderr) =
        fanfare(&["token", "--auth.key", &key, "--auth.issuer", "me", "--inspect", token.trim()]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{told}");
    for part in [
        "header   {\"alg\":\"HS256\",\"typ\":\"JWT\"}\n",
        "\"fanfare\":{\"join\":[\"chat.*\",\"b\"],\"private\":true,\"rate\":{\"messages_per_second\":20}}",
        "\"iss\":\"me\"",
        "\nuntil    ",
        "\ngood     user alice\n",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let (code, told, _) = fanfare(&["token", "--auth.key", &key, "--auth.audience", "us", "--inspect", token.trim()]);
    assert_eq!(code, Some(1));
    assert!(told.ends_with("refused  the token's aud does not name auth.audience\n"), "{told}");
    let (code, told, _) = fanfare(&["token", "--auth.key", &key, "--inspect", "a.b.c"]);
    assert_eq!((code, told.lines().count()), (Some(1), 1), "{told}");
}

#[test]
fn token_says_what_is_missing() {
    let (_file, key) = secret_key("token-missing.secret");
    let private = File::new("token-missing.pem", "no key");
    for (args, message) in [
        (&["--sub", "a"][..], "there is no key for tokens; add an [[auth.key]]"),
        (&["--auth.key", &key], "say for whom: fanfare token --sub USER"),
        (&["--auth.key", &key, "--sub", "a", "--kid", "x"], "no [[auth.key]] has this kid"),
        (&["--auth.key", &key, "--sub", "a", "--ttl", "soon"], "--ttl: \"soon\" is no duration"),
        (&["--auth.key", &key, "--sub", "a", "--join", ""], "--join: the pattern is empty"),
        (
            &["--auth.key", &key, "--sub", "a", "--private-key-file", private.path()],
            "no [[auth.key]] takes a private key",
        ),
        (&["--auth.key", &key, "--subs", "a"], "unknown flag --subs; did you mean --sub?"),
        (
            &["--auth.key", "alg=HS256,secret_file=/none/there", "--sub", "a"],
            "flag --auth.key: auth.key.secret_file: \"/none/there\": cannot be read",
        ),
        (
            &["--auth.key", &format!("alg=ES256,public_key_file={}", private.path()), "--sub", "a"],
            "there is no key in PEM in it",
        ),
    ] {
        let (code, stdout, stderr) = fanfare(&[&["token"], args].concat());
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(stderr.contains(message) && stderr.lines().count() == 1, "{args:?}: {stderr}");
    }
}

#[test]
fn check_reads_the_keys() {
    let key = File::new("check-key.pem", "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
    let file =
        File::new("check-key.toml", format!("[[auth.key]]\nalg = \"ES256\"\npublic_key_file = \"{}\"\n", key.path()));
    let (code, _, stderr) = fanfare(&["check", file.path()]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("it is a private key, which only who signs should have"), "{stderr}");
}

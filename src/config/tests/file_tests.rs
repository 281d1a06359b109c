//! The file: types, places, and what each mistake is answered.

use proptest::prelude::*;

use super::*;

#[test]
fn toml_values_keep_their_types() {
    let config = loaded(&file(
        "\u{feff}reactors = 0x02\npin = [3, 1]\nopen = true\nlisten = [ # two\n  \"0.0.0.0:1\",\n  'unix:/x',\n]\n\
         heartbeat.interval = 250\n[limits]\nmessage_bytes_max = 65_536\nhandshake_timeout = \"1.5 s\"\n",
    ));
    assert_eq!(config.reactors, 2);
    assert_eq!(config.pin, Pin::Cores(vec![3, 1]));
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.heartbeat.interval, Duration::from_millis(250));
    assert_eq!(config.limits.message_bytes_max, 65_536);
    assert_eq!(config.limits.handshake_timeout, Duration::from_millis(1_500));
    assert_eq!(loaded(&file("pin = 2\n")).pin, Pin::Cores(vec![2]));
}

#[test]
fn a_key_with_two_dots_is_written_as_toml_allows() {
    for text in [
        "inbox.history.size = 7\ninbox.history.ttl = \"2d\"\n",
        "[inbox]\nhistory.size = 7\nhistory.ttl = \"48h\"\n",
        "[inbox]\nhistory = { size = 7, ttl = 172_800_000 }\n",
        "[inbox.history]\nsize = 7\nttl = \"2d\"\n",
        "inbox = { history = { size = 7, ttl = \"2d\" } }\n",
    ] {
        let bounds = HistoryBounds { size: 7, ttl: Duration::from_secs(172_800) };
        assert_eq!(loaded(&file(text)).inbox.history, bounds, "{text}");
    }
}

#[test]
fn each_wrong_value_of_a_file_says_where_and_what_to_do() {
    for (text, message) in [
        ("reactors = 300\n", "f.toml:1:12: reactors: \"300\" is out of bounds; write 0 to 256"),
        (
            "reactors = 99999999999999999999999999999999999999999\n",
            "f.toml:1:12: reactors: \"99999999999999999999999999999999999999999\" is out of bounds; write 0 to 256",
        ),
        (
            "reactors = \"2\"\n",
            "f.toml:1:12: reactors: a text stands where a whole number belongs; write it like reactors = 0",
        ),
        (
            "reactors = 2.5\n",
            "f.toml:1:12: reactors: a number with a fraction stands where a whole number belongs; write it like reactors = 0",
        ),
        (
            "open = 1\n",
            "f.toml:1:8: open: a whole number stands where true or false belongs; write it like open = false",
        ),
        (
            "[heartbeat]\n  interval = \"5 parsecs\"\n",
            "f.toml:2:14: heartbeat.interval: \"5 parsecs\" is no duration; write it as 500ms, 30s, 10m or 1h (20ms to 1h)",
        ),
        (
            "heartbeat.interval = 0.5\n",
            "f.toml:1:22: heartbeat.interval: a number with a fraction stands where a duration belongs; write it like interval = \"30s\"",
        ),
    ] {
        assert_eq!(problems(&file(text)), [message], "{text}");
    }
}

#[test]
fn each_wrong_list_or_word_of_a_file_says_where_and_what_to_do() {
    for (text, message) in [
        (
            "listen = \"127.0.0.1:1\"\n",
            "f.toml:1:10: listen: a text stands where an array of addresses belongs; write it like listen = [\"127.0.0.1:8080\"]",
        ),
        ("listen = []\n", "f.toml:1:10: listen: the list is empty; name at least one address, as 127.0.0.1:8080"),
        (
            "listen = [\"unix:/x\",\n \"localhost:80\"]\n",
            "f.toml:2:2: listen: \"localhost:80\" is no address; did you mean 127.0.0.1:80?",
        ),
        (
            "listen = [8080]\n",
            "f.toml:1:11: listen: a whole number stands where an array of addresses belongs; write it like listen = [\"127.0.0.1:8080\"]",
        ),
        ("pin = [0, 0]\n", "f.toml:1:7: pin: core 0 is named twice; name each core once"),
        ("pin = []\n", "f.toml:1:7: pin: \"\" names no cores; write auto, none, or core numbers as 0,1"),
        (
            "pin = [true]\n",
            "f.toml:1:8: pin: true or false stands where a pinning belongs; write it like pin = \"auto\"",
        ),
        (
            "[unix]\nmode = 0o1660\n",
            "f.toml:2:8: unix.mode: \"1660\" is no mode; write it as 0660 (0000 to 0777, in octal)",
        ),
        (
            "[unix]\nmode = 660\n",
            "f.toml:2:8: unix.mode: a whole number stands where an octal mode belongs; write it like mode = \"0660\"",
        ),
        ("io = \"poll\"\n", "f.toml:1:6: io: \"poll\" is no choice; write auto, epoll or uring"),
        ("[[open]]\n", "f.toml:1:1: open: an array stands where true or false belongs; write it like open = false"),
        (
            "[outbox]\nnode_bytes_max = \"4KiB\"\n",
            "f.toml:2:18: outbox.node_bytes_max: \"4KiB\" is out of bounds; write 1MiB to 1024GiB, or 0",
        ),
    ] {
        assert_eq!(problems(&file(text)), [message], "{text}");
    }
}

#[test]
fn each_unknown_key_of_a_file_says_what_was_meant() {
    for (text, message) in [
        ("recators = 1\n", "f.toml:1:1: unknown key \"recators\"; did you mean reactors?"),
        ("a = 1\n", "f.toml:1:1: unknown key \"a\"; remove it (`fanfare config` shows all there are)"),
        (
            "[heartbeat]\nintervall = 1\n",
            "f.toml:2:1: unknown key \"heartbeat.intervall\"; did you mean heartbeat.interval?",
        ),
        ("interval = 1\n", "f.toml:1:1: unknown key \"interval\"; did you mean interval in section [heartbeat]?"),
        (
            "\"heartbeat.interval\" = 1\n",
            "f.toml:1:1: unknown key \"heartbeat.interval\"; did you mean interval in section [heartbeat]?",
        ),
        (
            "[heartbeat]\nlisten = []\n",
            "f.toml:2:1: unknown key \"heartbeat.listen\"; did you mean listen above the first section?",
        ),
        ("[heartbeet]\na = 1\nb = 2\n", "f.toml:1:2: unknown section \"heartbeet\"; did you mean heartbeat?"),
        ("[kafka]\n", "f.toml:1:2: unknown section \"kafka\"; remove it (`fanfare config` shows all there are)"),
        (
            "heartbeat = 1\n",
            "f.toml:1:1: heartbeat is a section; write [heartbeat] on a line of its own and its settings below",
        ),
        ("inbox = 1\n", "f.toml:1:1: inbox is a section; write [inbox] on a line of its own and its settings below"),
        (
            "[inbox]\nhistory = 1\n",
            "f.toml:2:1: inbox.history is a section; write [inbox.history] on a line of its own and its settings below",
        ),
        (
            "\"inbox.history\".size = 1\n",
            "f.toml:1:1: inbox.history is a section; write [inbox.history] on a line of its own and its settings below",
        ),
        ("[inbxo.history]\n", "f.toml:1:2: unknown section \"inbxo\"; did you mean inbox?"),
        ("[inbox.histroy]\n", "f.toml:1:8: unknown section \"inbox.histroy\"; did you mean inbox.history?"),
        (
            "[inbox.history.size]\n",
            "f.toml:1:1: inbox.history.size: a table stands where a whole number belongs; write it like size = 0",
        ),
        (
            "[inbox]\n\"history.size\" = 1\n",
            "f.toml:2:1: unknown key \"inbox.history.size\"; did you mean size in section [inbox.history], or history.size in a [[room]] table?",
        ),
        (
            "[inbox.history]\nsise = 1\n",
            "f.toml:2:1: unknown key \"inbox.history.sise\"; did you mean inbox.history.size?",
        ),
        (
            "[tcp.nodelay]\n",
            "f.toml:1:1: tcp.nodelay: a table stands where true or false belongs; write it like nodelay = true",
        ),
    ] {
        assert_eq!(problems(&file(text)), [message], "{text}");
    }
}

#[test]
fn broken_toml_is_said_once_per_line() {
    assert_eq!(
        problems(&file("reactors =\nlog = json\nnope = 1\n[heartbeat\ninterval = \"1d\"\n")),
        [
            "f.toml:1:11: not valid TOML: string values must be quoted, expected literal string",
            "f.toml:2:7: not valid TOML at \"json\": string values must be quoted, expected literal string",
            "f.toml:3:1: unknown key \"nope\"; remove it (`fanfare config` shows all there are)",
            "f.toml:4:11: not valid TOML: unclosed table, expected `]`",
        ]
    );
    assert_eq!(
        problems(&file("open = true\nopen = false\n")),
        ["f.toml:2:1: not valid TOML at \"open\": duplicate key"]
    );
}

#[test]
fn files_that_cannot_be_read_are_refused() {
    let error = SourceFile::read(Path::new("/nowhere/f.toml"), "--config").expect_err("there is none");
    assert_eq!(
        error.to_string(),
        "cannot read \"/nowhere/f.toml\": No such file or directory (os error 2); \
         --config must name a TOML file that can be read"
    );
    let endless = SourceFile::read(Path::new("/dev/zero"), "check").expect_err("it never ends");
    assert_eq!(
        endless.to_string(),
        "cannot read \"/dev/zero\": it is larger than 1MiB; check must name a TOML file that can be read"
    );
}

proptest! {
    /// Whatever a file holds: no panic, and every problem is one line.
    #[test]
    fn no_file_panics(text in "([a-z.]{1,9} ?= ?[\\PC\n]{0,20}\n|\\[[a-z.]{1,9}\\]\n|[\\PC\n]{0,30}){0,6}") {
        for problem in problems(&file(&text)) {
            prop_assert!(!problem.contains('\n'), "{}", problem);
        }
    }

    /// Every key with any scalar: no panic, and a place in the file.
    #[test]
    fn no_value_panics(index in 0..SETTINGS.len(), value in "-?[0-9]{1,50}|\"[^\"\\\\\\pC]{0,20}\"|true|\\[[0-9, ]{0,9}\\]|\\{\\}|1e400|1979-05-27") {
        let setting = &SETTINGS[index];
        for problem in problems(&file(&format!("{} = {value}\n", setting.key))) {
            prop_assert!(problem.starts_with("f.toml:"), "{}", problem);
        }
    }
}

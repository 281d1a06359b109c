//! Rules for rooms: the same from file, environment and flag, and what each mistake is answered.

use proptest::prelude::*;

use super::*;

fn rule(pattern: &str, size: u32, ttl_seconds: u64) -> RoomRule {
    let history = HistoryBounds { size, ttl: Duration::from_secs(ttl_seconds) };
    RoomRule { pattern: pattern.parse().expect(pattern), history, keyed: None }
}

fn keyed_rule(pattern: &str, keyed: KeyedBounds) -> RoomRule {
    RoomRule { keyed: Some(keyed), ..rule(pattern, 0, 600) }
}

/// What a keyed room has where its rule says no more.
fn keyed_defaults() -> KeyedBounds {
    KeyedBounds {
        max: 10_000,
        bytes_max: 16 << 20,
        ttl: Duration::ZERO,
        removed_ttl: Duration::from_secs(300),
        stale_after: Duration::ZERO,
    }
}

fn room_flags(rules: &[&str]) -> Sources {
    Sources { list_flags: rules.iter().map(|rule| (&ROOM, (*rule).to_owned())).collect(), ..Sources::default() }
}

/// The patterns of the rules in the order in which they are tried.
fn patterns(sources: &Sources) -> Vec<String> {
    loaded(sources).room.iter().map(|rule| rule.pattern.to_string()).collect()
}

#[test]
fn a_rule_of_the_file_is_written_as_toml_allows() {
    for text in [
        "[[room]]\nmatch = \"a.*\"\nhistory.size = 7\nhistory.ttl = \"1m\"\n",
        "[[room]]\nhistory = { size = 7, ttl = \"1m\" }\nmatch = 'a.*'\n",
        "[[room]]\nmatch = \"a.*\"\n[room.history]\nsize = 0x7\nttl = 60_000\n[tcp]\nnodelay = true\n",
        "room = [{ match = \"a.*\", history.size = 7, history.ttl = \"60s\" }]\n",
    ] {
        assert_eq!(loaded(&file(text)).room, [rule("a.*", 7, 60)], "{text}");
    }
    assert_eq!(loaded(&file("room = []\n")), Config::default());
}

#[test]
fn environment_and_flag_write_a_rule_on_one_line() {
    for text in ["match=a.*,history.size=7,history.ttl=1m", " history.ttl = 60000 , match = a.*,\nhistory.size=7 "] {
        assert_eq!(loaded(&room_flags(&[text])).room, [rule("a.*", 7, 60)], "{text}");
        assert_eq!(loaded(&env(&[("FANFARE_ROOM", text)])).room, [rule("a.*", 7, 60)], "{text}");
    }
    assert_eq!(loaded(&room_flags(&["match=a=b"])).room, [rule("a=b", 0, 600)]);
    let several = "match=a;match=b,history.size=1;\n match=c";
    let expected = [rule("a", 0, 600), rule("b", 1, 600), rule("c", 0, 600)];
    assert_eq!(loaded(&env(&[("FANFARE_ROOM", several)])).room, expected);
    assert_eq!(loaded(&room_flags(&[several])).room, expected);
    assert_eq!(loaded(&room_flags(&["match=a", "match=b,history.size=1", "match=c"])).room, expected);
}

#[test]
fn what_a_rule_leaves_out_has_its_default() {
    assert_eq!(
        loaded(&file("[[room]]\nmatch = \"a\"\n[[room]]\nmatch = \"b\"\nhistory.size = 3\n")).room,
        [rule("a", 0, 600), rule("b", 3, 600)]
    );
}

#[test]
fn bounds_are_allowed_and_what_is_beyond_is_not() {
    let text = "match=a,history.size=1000000,history.ttl=30d;match=b,history.size=0,history.ttl=1s";
    assert_eq!(loaded(&room_flags(&[text])).room, [rule("a", 1_000_000, 2_592_000), rule("b", 0, 1)]);
    assert_eq!(
        problems(&file("[[room]]\nmatch = \"a\"\nhistory = { size = 1000001, ttl = \"31d\" }\n")),
        [
            "f.toml:3:20: room.history.size: \"1000001\" is out of bounds; write 0 to 1000000",
            "f.toml:3:35: room.history.ttl: \"31d\" is out of bounds; write 1s to 30d",
        ]
    );
}

#[test]
fn a_keyed_room_is_said_in_the_file_and_on_one_line() {
    let bounds = KeyedBounds {
        max: 7,
        bytes_max: 64 << 10,
        ttl: Duration::from_secs(60),
        removed_ttl: Duration::from_secs(1),
        stale_after: Duration::from_millis(100),
    };
    for text in [
        "[[room]]\nmatch = \"px.*\"\nkeyed = true\nitems.max = 7\nitems.bytes_max = \"64KiB\"\nitems.ttl = \"1m\"\n\
         items.removed_ttl = \"1s\"\nitems.stale_after = \"100ms\"\n",
        "[[room]]\nmatch = \"px.*\"\nkeyed = true\n[room.items]\nmax = 7\nbytes_max = 65_536\nttl = 60_000\n\
         removed_ttl = 1_000\nstale_after = 100\n",
    ] {
        assert_eq!(loaded(&file(text)).room, [keyed_rule("px.*", bounds)], "{text}");
    }
    let line = "match=px.*,keyed=true,items.max=7,items.bytes_max=64KiB,items.ttl=1m,items.removed_ttl=1s,\
                items.stale_after=100ms";
    assert_eq!(loaded(&room_flags(&[line])).room, [keyed_rule("px.*", bounds)]);
    assert_eq!(loaded(&room_flags(&["match=a,keyed=true"])).room, [keyed_rule("a", keyed_defaults())]);
    assert_eq!(loaded(&room_flags(&["match=a,items.max=7"])).room, [rule("a", 0, 600)], "the rooms are not keyed");
    let both = RoomRule { keyed: Some(keyed_defaults()), ..rule("a", 9, 60) };
    assert_eq!(loaded(&room_flags(&["match=a,history.size=9,history.ttl=1m,keyed=true"])).room, [both]);
}

#[test]
fn bounds_of_items_are_allowed_and_what_is_beyond_is_not() {
    let most = "match=a,keyed=true,items.max=1000000,items.bytes_max=64GiB,items.ttl=30d,items.removed_ttl=30d,\
                items.stale_after=1d";
    let least = "match=a,keyed=true,items.max=1,items.bytes_max=1KiB,items.ttl=1s,items.removed_ttl=1s,\
                 items.stale_after=100ms";
    let off = "match=a,keyed=true,items.ttl=0,items.stale_after=0s";
    assert_eq!(loaded(&room_flags(&[most, least, off])).room[2], keyed_rule("a", keyed_defaults()));
    let text = "[[room]]\nmatch = \"a\"\n[room.items]\nmax = 0\nbytes_max = 1023\nttl = \"999ms\"\nremoved_ttl = 0\n\
                stale_after = \"25h\"\n";
    assert_eq!(
        problems(&file(text)),
        [
            "f.toml:4:7: room.items.max: \"0\" is out of bounds; write 1 to 1000000",
            "f.toml:5:13: room.items.bytes_max: \"1023\" is out of bounds; write 1KiB to 64GiB",
            "f.toml:6:7: room.items.ttl: \"999ms\" is out of bounds; write 1s to 30d, or 0",
            "f.toml:7:15: room.items.removed_ttl: \"0\" is out of bounds; write 1s to 30d",
            "f.toml:8:15: room.items.stale_after: \"25h\" is out of bounds; write 100ms to 1d, or 0",
        ]
    );
}

#[test]
fn a_rule_for_raw_rooms_names_them_behind_raw() {
    let config = loaded(&file(
        "[[room]]\nmatch = \"raw/book.*\"\nkeyed = true\n[[room]]\nmatch = \"px.*\"\nkeyed = true\n[[room]]\nmatch = \"*\"\n",
    ));
    let is_keyed = |room| config.room_rule(room).is_some_and(|rule| rule.keyed.is_some());
    assert!(is_keyed("raw/book.btc") && is_keyed("px.btc"));
    assert!(!is_keyed("book.btc") && !is_keyed("raw/px.btc"));
}

#[test]
fn rules_add_up_and_those_of_later_sources_come_first() {
    let mut sources = file("[[room]]\nmatch = \"file.1\"\n[[room]]\nmatch = \"file.2\"\n");
    assert_eq!(patterns(&sources), ["file.1", "file.2"]);
    sources.env = env(&[("FANFARE_ROOM", "match=env.1;match=env.2")]).env;
    assert_eq!(patterns(&sources), ["env.1", "env.2", "file.1", "file.2"]);
    sources.list_flags = room_flags(&["match=flag.1", "match=flag.2"]).list_flags;
    assert_eq!(patterns(&sources), ["flag.1", "flag.2", "env.1", "env.2", "file.1", "file.2"]);
}

#[test]
fn the_first_rule_that_matches_counts() {
    let config = loaded(&file(
        "[[room]]\nmatch = \"market.*\"\nhistory.size = 1\n[[room]]\nmatch = \"*.btc\"\nhistory.size = 2\n\
         [[room]]\nmatch = \"market.eth\"\nhistory.size = 3\n",
    ));
    let size = |room| config.room_rule(room).map(|rule| rule.history.size);
    assert_eq!(size("market.btc"), Some(1));
    assert_eq!(size("spot.btc"), Some(2));
    assert_eq!(size("market.eth"), Some(1));
    assert_eq!(size("lobby"), None);
}

#[test]
fn a_rule_that_cannot_be_used_says_where_and_what_to_do() {
    for (text, message) in [
        (
            "[[room]]\nhistory.size = 1\n",
            "f.toml:1:1: room: the rule names no rooms; add match = \"market.*\", or match = \"*\" for every room",
        ),
        (
            "room = [{ match = \"a\" }, {}]\n",
            "f.toml:1:26: room: the rule names no rooms; add match = \"market.*\", or match = \"*\" for every room",
        ),
        (
            "[[room]]\nmatch = \"\"\n",
            "f.toml:2:9: room.match: the pattern is empty; write a room id in which * stands for any run of characters",
        ),
        (
            "[[room]]\nmatch = [\"a\"]\n",
            "f.toml:2:9: room.match: an array stands where a pattern belongs; write it like match = \"*\"",
        ),
        (
            "[[room]]\nmatch = \"a\"\nhistory.size = \"1\"\n",
            "f.toml:3:16: room.history.size: a text stands where a whole number belongs; write it like history.size = 0",
        ),
        (
            "[[room]]\nmatch = \"a\"\n[room.history]\nttl = \"1w\"\n",
            "f.toml:4:7: room.history.ttl: \"1w\" is no duration; write it as 500ms, 30s, 10m or 1h (1s to 30d)",
        ),
        (
            "[room]\nmatch = \"a\"\n",
            "f.toml:1:1: room: a table stands where rules belong; write [[room]] on a line of its own and the rule's keys below",
        ),
        (
            "[room.history]\nsize = 1\n",
            "f.toml:1:2: room: a table stands where rules belong; write [[room]] on a line of its own and the rule's keys below",
        ),
        (
            "room = [\"a.*\"]\n",
            "f.toml:1:9: room: a text stands where rules belong; write [[room]] on a line of its own and the rule's keys below",
        ),
        (
            "[[room]]\nmatch = \"a\"\nhistory = 5\n",
            "f.toml:3:1: room.history is a section; write [room.history] on a line of its own and its settings below",
        ),
    ] {
        assert_eq!(problems(&file(text)), [message], "{text}");
    }
}

#[test]
fn an_unknown_key_of_a_rule_says_what_was_meant() {
    for (text, message) in [
        ("[[room]]\nmach = \"a\"\n", "f.toml:2:1: unknown key \"room.mach\"; did you mean room.match?"),
        (
            "[[room]]\nmatch = \"a\"\nhistory_size = 1\n",
            "f.toml:3:1: unknown key \"room.history_size\"; did you mean room.history.size?",
        ),
        ("[[room]]\nmatch = \"a\"\nttl = 1\n", "f.toml:3:1: unknown key \"room.ttl\"; did you mean room.history.ttl?"),
        (
            "[[room]]\nmatch = \"a\"\nhistory = { ttll = 1 }\n",
            "f.toml:3:13: unknown key \"room.history.ttll\"; did you mean room.history.ttl?",
        ),
        (
            "[[room]]\nmatch = \"a\"\n\"history.ttl\" = 1\n",
            "f.toml:3:1: unknown key \"room.history.ttl\"; did you mean room.history.ttl without quotes?",
        ),
        (
            "[[room]]\nmatch = \"a\"\nhistroy.size = 1\n",
            "f.toml:3:1: unknown section \"room.histroy\"; did you mean history in a [[room]] table?",
        ),
        (
            "[[room]]\nmatch = \"a\"\nnope = 1\n",
            "f.toml:3:1: unknown key \"room.nope\"; remove it (`fanfare config` shows all there are)",
        ),
        (
            "[[room]]\nmatch = \"a\"\nreactors = 1\n",
            "f.toml:3:1: unknown key \"room.reactors\"; did you mean reactors above the first section?",
        ),
    ] {
        assert_eq!(problems(&file(text)), [message], "{text}");
    }
}

#[test]
fn what_belongs_in_a_rule_is_not_lost_elsewhere() {
    for (text, message) in [
        ("[[rooms]]\nmatch = \"a\"\n", "f.toml:1:3: unknown list of tables \"rooms\"; did you mean [[room]]?"),
        ("[[rom]]\nmatch = \"a\"\n", "f.toml:1:3: unknown list of tables \"rom\"; did you mean [[room]]?"),
        ("[rom]\nmatch = \"a\"\n", "f.toml:1:2: unknown section \"rom\"; did you mean [[room]]?"),
        (
            "[rooms]\nmatch = \"a\"\n",
            "f.toml:2:1: unknown key \"rooms.match\"; did you mean match in a [[room]] table?",
        ),
        (
            "[rooms]\nhistory.size = 1\n",
            "f.toml:2:1: unknown section \"rooms.history\"; did you mean history in a [[room]] table?",
        ),
        (
            "[history]\nsize = 1\n",
            "f.toml:2:1: unknown key \"history.size\"; did you mean size in section [inbox.history], or history.size in a [[room]] table?",
        ),
        ("[tcp]\nmatch = \"a\"\n", "f.toml:2:1: unknown key \"tcp.match\"; did you mean match in a [[room]] table?"),
    ] {
        assert_eq!(problems(&file(text)), [message], "{text}");
    }
}

/// Where the parser has lost a line, what is not there may have stood on it.
#[test]
fn broken_toml_in_a_rule_is_said_once() {
    for (text, message) in [
        (
            "[[room]]\nmatch = market.*\n",
            "f.toml:2:9: not valid TOML at \"market.*\": string values must be quoted, expected literal string",
        ),
        ("[[room]]\nmatch \"a\"\n", "f.toml:2:7: not valid TOML: key with no value, expected `=`"),
        ("[[room]]\nmatch = \"a\"\nmatch = \"b\"\n", "f.toml:3:1: not valid TOML at \"match\": duplicate key"),
    ] {
        assert_eq!(problems(&file(text)), [message], "{text}");
    }
}

#[test]
fn each_wrong_rule_on_one_line_says_what_to_do() {
    for (text, message) in [
        ("", "the rule is empty; write it as match=market.*,history.size=1000,history.ttl=10m"),
        ("match=a;", "the rule is empty; write it as match=market.*,history.size=1000,history.ttl=10m"),
        (
            "history.size=1",
            "the rule names no rooms; add match=market.*, or match=* for every room (in \"history.size=1\")",
        ),
        (
            "market.*",
            "\"market.*\" is no KEY=VALUE; a pattern with a comma or a semicolon belongs in the file (in \"market.*\")",
        ),
        (
            "match=a,b",
            "\"b\" is no KEY=VALUE; a pattern with a comma or a semicolon belongs in the file (in \"match=a,b\")",
        ),
        (
            "match=",
            "match: the pattern is empty; write a room id in which * stands for any run of characters (in \"match=\")",
        ),
        ("match=a,match=b", "match is given twice; give it once (in \"match=a,match=b\")"),
        (
            "match=a; match=b, history.size = x",
            "history.size: \"x\" is no whole number; write 0 to 1000000 (in \"match=b, history.size = x\")",
        ),
        (
            "match=a,history.ttl=500ms",
            "history.ttl: \"500ms\" is out of bounds; write 1s to 30d (in \"match=a,history.ttl=500ms\")",
        ),
        ("mach=a", "unknown key \"mach\"; did you mean match? (in \"mach=a\")"),
        ("match=a,size=1", "unknown key \"size\"; did you mean history.size? (in \"match=a,size=1\")"),
        (
            "match=a,nope=1",
            "unknown key \"nope\"; a rule may have match, history.size, history.ttl, keyed, items.max, items.bytes_max, \
             items.ttl, items.removed_ttl, items.stale_after (in \"match=a,nope=1\")",
        ),
    ] {
        assert_eq!(problems(&room_flags(&[text])), [format!("--room: {message}")], "{text}");
        assert_eq!(problems(&env(&[("FANFARE_ROOM", text)])), [format!("FANFARE_ROOM: {message}")], "{text}");
    }
}

#[test]
fn all_problems_of_all_rules_are_found() {
    let mut sources = file("[[room]]\nmatch = 1\nhistory.size = -1\n[[room]]\n");
    sources.env = env(&[("FANFARE_ROOM", "match=a,history.size=x,y=1")]).env;
    sources.list_flags = room_flags(&["match=", "a"]).list_flags;
    let places: Vec<_> = problems(&sources).iter().map(|text| text.split(": ").next().map(str::to_owned)).collect();
    let expected = ["f.toml:2:9", "f.toml:3:16", "f.toml:4:1", "FANFARE_ROOM", "FANFARE_ROOM", "--room", "--room"];
    assert_eq!(places, expected.map(|place| Some(place.to_owned())));
}

#[cfg(unix)]
#[test]
fn rules_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStringExt;
    let sources =
        Sources { env: vec![("FANFARE_ROOM".into(), OsString::from_vec(b"a\xff".to_vec()))], ..Sources::default() };
    assert_eq!(problems(&sources), ["FANFARE_ROOM: the value is not UTF-8; write it in UTF-8"]);
}

#[test]
fn one_rule_too_many_is_refused() {
    let mut sources = file(&"[[room]]\nmatch = \"a\"\n".repeat(ROOM_RULES_MAX));
    assert_eq!(loaded(&sources).room.len(), ROOM_RULES_MAX);
    sources.list_flags = room_flags(&["match=b"]).list_flags;
    assert_eq!(problems(&sources), ["f.toml:2000:9: room: 1001 rules are too many; write at most 1000"]);
    assert_eq!(
        problems(&room_flags(&vec!["match=b"; ROOM_RULES_MAX + 2])),
        ["--room: 1002 rules are too many; write at most 1000"]
    );
}

#[test]
fn effective_rules_give_themselves_again() {
    let mut sources =
        file("[[room]]\nmatch = \"a\"\nhistory.size = 1\n\n[[room]]\nmatch = \"a # \\\"b\\\"\\n\\\\*\"\n");
    sources.env = env(&[("FANFARE_ROOM", "match=b,history.ttl=1d")]).env;
    sources.list_flags = room_flags(&["match=*"]).list_flags;
    let (config, effective) = Config::load(&sources).expect("all are good");
    let text = effective.to_string();
    // What stands in each, since no rule says anything of it.
    let of_items = "keyed = false # default\nitems.max = 10000 # default\nitems.bytes_max = \"16MiB\" # default\n\
                    items.ttl = \"0s\" # default\nitems.removed_ttl = \"5m\" # default\n\
                    items.stale_after = \"0s\" # default\n";
    let expected = r#"

[[room]]
match = "*" # flag --room
history.size = 0 # default
history.ttl = "10m" # default

[[room]]
match = "b" # env FANFARE_ROOM
history.size = 0 # default
history.ttl = "1d" # env FANFARE_ROOM

[[room]]
match = "a" # file f.toml:2
history.size = 1 # file f.toml:3
history.ttl = "10m" # default

[[room]]
match = "a # \"b\"\n\\*" # file f.toml:6
history.size = 0 # default
history.ttl = "10m" # default
"#;
    let rules = &text[text.find("\n\n[[room]]").expect("there are rules")..];
    assert_eq!(rules.matches(of_items).count(), 4);
    assert_eq!(rules.replace(of_items, ""), expected);
    assert_eq!(config.room.len(), 4);
    assert_eq!(loaded(&file(&text)), config);
}

proptest! {
    /// Whatever a rule of the file holds: printed as the effective configuration it is the same rule.
    #[test]
    fn any_rule_gives_itself_again(pattern in "[\\PC\n\t\0]{1,60}", size in 0_u32..=1_000_000, ttl_ms in 1_000_u64..=2_592_000_000) {
        let toml = Value::Text(pattern.clone()).to_toml();
        let text = format!("[[room]]\nmatch = {toml}\nhistory = {{ size = {size}, ttl = {ttl_ms} }}\n");
        let (config, effective) = Config::load(&file(&text)).expect("the rule is good");
        prop_assert_eq!(config.room[0].pattern.as_str(), pattern.as_str());
        prop_assert_eq!(config.room[0].history, HistoryBounds { size, ttl: Duration::from_millis(ttl_ms) });
        prop_assert_eq!(loaded(&file(&effective.to_string())), config);
    }

    /// Whatever a line of rules holds: no panic, and every problem is one line.
    #[test]
    fn no_line_of_rules_panics(text in "((match|history.size|history.ttl|keyed|items.max|items.ttl|\\PC{0,5})=?[\\PC\n]{0,8}[,;]?){0,6}") {
        for problem in problems(&room_flags(&[&text])) {
            prop_assert!(problem.starts_with("--room: ") && !problem.contains('\n'), "{}", problem);
        }
    }

    /// Whatever stands in a rule's table: no panic, and a place in the file.
    #[test]
    fn no_table_of_a_rule_panics(text in "((match|history|history\\.(size|ttl)|keyed|items|items\\.(max|ttl)|[a-z.]{1,5}) ?= ?([0-9]{1,9}|\"\\*\"|\\{[a-z]{0,4}( = 1)?\\}|[\\PC]{0,9})\n|\\[\\[?room(\\.history)?\\]\\]?\n){0,6}") {
        for problem in problems(&file(&format!("[[room]]\n{text}"))) {
            prop_assert!(problem.starts_with("f.toml:") && !problem.contains('\n'), "{}", problem);
        }
    }
}

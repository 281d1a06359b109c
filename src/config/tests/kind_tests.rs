//! What each kind of a setting takes, and what it answers to the rest.

use super::*;
use crate::limits::REACTORS_MAX;

fn bounds(min: u64, max: u64) -> Bounds {
    Bounds { min, max, zero: false }
}

fn refused(kind: Kind, text: &str) -> String {
    kind.parse(text).expect_err(text)
}

#[test]
fn integers() {
    let kind = Kind::Integer(bounds(1, 300));
    assert_eq!(kind.parse("1"), Ok(Value::Integer(1)));
    assert_eq!(kind.parse(" 300 "), Ok(Value::Integer(300)));
    assert_eq!(refused(kind, "0"), "\"0\" is out of bounds; write 1 to 300");
    assert_eq!(refused(kind, "301"), "\"301\" is out of bounds; write 1 to 300");
    assert_eq!(refused(kind, "-1"), "\"-1\" is out of bounds; write 1 to 300");
    assert_eq!(
        refused(kind, "99999999999999999999999"),
        "\"99999999999999999999999\" is out of bounds; write 1 to 300"
    );
    for text in ["", "many", "1.5", "-", "1_0", "0x10"] {
        assert_eq!(refused(kind, text), format!("{text:?} is no whole number; write 1 to 300"));
    }
}

#[test]
fn sizes() {
    let kind = Kind::Bytes(Bounds { min: 1024, max: 1 << 30, zero: true });
    assert_eq!(kind.parse("64 KiB"), Ok(Value::Bytes(65_536)));
    assert_eq!(kind.parse("0"), Ok(Value::Bytes(0)));
    assert_eq!(refused(kind, "1"), "\"1\" is out of bounds; write 1KiB to 1GiB, or 0");
    assert_eq!(refused(kind, "99999999999GiB"), "\"99999999999GiB\" is out of bounds; write 1KiB to 1GiB, or 0");
    assert_eq!(refused(kind, "big"), "\"big\" is no size; write it as 4096, 64KiB or 1MiB (1KiB to 1GiB, or 0)");
    assert_eq!(
        refused(kind, "1024.5B"),
        "\"1024.5B\" is too fine; write whole multiples of 1 byte, 1KiB to 1GiB, or 0"
    );
}

#[test]
fn durations() {
    let kind = Kind::Duration(bounds(20, 3_600_000));
    assert_eq!(kind.parse("30s"), Ok(Value::Millis(30_000)));
    assert_eq!(kind.parse("1.5 m"), Ok(Value::Millis(90_000)));
    assert_eq!(kind.parse("20"), Ok(Value::Millis(20)));
    assert_eq!(refused(kind, "5ms"), "\"5ms\" is out of bounds; write 20ms to 1h");
    assert_eq!(refused(kind, "2h"), "\"2h\" is out of bounds; write 20ms to 1h");
    assert_eq!(
        refused(kind, "5 parsecs"),
        "\"5 parsecs\" is no duration; write it as 500ms, 30s, 10m or 1h (20ms to 1h)"
    );
    assert_eq!(refused(kind, "20.5ms"), "\"20.5ms\" is too fine; write whole multiples of 1ms, 20ms to 1h");
}

#[test]
fn switches() {
    for text in ["true", "yes", "on", "1", " true "] {
        assert_eq!(Kind::Bool.parse(text), Ok(Value::Bool(true)));
    }
    for text in ["false", "no", "off", "0"] {
        assert_eq!(Kind::Bool.parse(text), Ok(Value::Bool(false)));
    }
    assert_eq!(refused(Kind::Bool, "maybe"), "\"maybe\" is neither true nor false; write one of them");
}

#[test]
fn texts_and_choices() {
    let text = Kind::Text { bytes_max: 4 };
    assert_eq!(text.parse(" ü "), Ok(Value::Text(" ü ".to_owned())));
    assert_eq!(text.parse(""), Ok(Value::Text(String::new())));
    assert_eq!(refused(text, "üüü"), "the text has 6 bytes; write at most 4");
    let choice = Kind::Choice(&["auto", "human", "json"]);
    assert_eq!(choice.parse(" json"), Ok(Value::Word("json")));
    assert_eq!(refused(choice, "JSON"), "\"JSON\" is no choice; write auto, human or json");
    let words = Kind::Words(&["read", "kick", "publish"]);
    assert_eq!(words.parse("kick,read"), words.parse(" kick  read"));
    assert_eq!(words.parse(" kick  read"), Ok(Value::Words(vec!["kick", "read"])));
    assert_eq!(words.parse(""), Ok(Value::Words(Vec::new())));
    assert_eq!(refused(words, "reed"), "\"reed\" is no choice; write some of read, kick and publish");
    assert_eq!(refused(words, "read read"), "read stands there twice; name it once");
}

#[test]
fn addresses() {
    const ADDRESSES: Kind = Kind::Addresses { min: 1 };
    let parsed = ADDRESSES.parse("127.0.0.1:1, unix:/x");
    let expected = ["127.0.0.1:1", "unix:/x"].map(|text| text.parse().expect(text)).to_vec();
    assert_eq!(parsed, Ok(Value::Addresses(expected)));
    assert!(refused(ADDRESSES, "127.0.0.1:1,").starts_with("\"\" is no address; "));
    let many = |count| vec!["127.0.0.1:1"; count].join(",");
    assert!(ADDRESSES.parse(&many(64)).is_ok());
    assert_eq!(refused(ADDRESSES, &many(65)), "65 addresses are too many; name at most 64");
    assert_eq!(
        ADDRESSES.addresses(Vec::new()),
        Err("the list is empty; name at least one address, as 127.0.0.1:8080".to_owned())
    );
    assert_eq!(Kind::Addresses { min: 0 }.parse(" "), Ok(Value::Addresses(Vec::new())));
}

#[test]
fn pins() {
    assert_eq!(Kind::Pin.parse("auto"), Ok(Value::Pin(Pin::Auto)));
    assert_eq!(Kind::Pin.parse("none"), Ok(Value::Pin(Pin::None)));
    assert_eq!(Kind::Pin.parse("3"), Ok(Value::Pin(Pin::Cores(vec![3]))));
    assert_eq!(Kind::Pin.parse("2, 0,1023"), Ok(Value::Pin(Pin::Cores(vec![2, 0, 1023]))));
    assert_eq!(refused(Kind::Pin, "1,1"), "core 1 is named twice; name each core once");
    assert_eq!(refused(Kind::Pin, "1024"), "there is no core 1024; write numbers from 0 to 1023");
    for text in ["", "all", "0,", "-1", "0-3"] {
        assert_eq!(
            refused(Kind::Pin, text),
            format!("{text:?} names no cores; write auto, none, or core numbers as 0,1")
        );
    }
    let many: Vec<_> = (0..=REACTORS_MAX).map(|core| core.to_string()).collect();
    assert_eq!(refused(Kind::Pin, &many.join(",")), "257 cores are too many; name at most 256");
}

#[test]
fn modes() {
    assert_eq!(Kind::Mode.parse(" 0660 "), Ok(Value::Mode(0o660)));
    assert_eq!(Kind::Mode.parse("777"), Ok(Value::Mode(0o777)));
    for text in ["", "6", "0o660", "0668", "1777", "00660", "-660", "rw-rw----"] {
        let complaint = format!("{text:?} is no mode; write it as 0660 (0000 to 0777, in octal)");
        assert_eq!(refused(Kind::Mode, text), complaint);
    }
}

#[test]
fn patterns() {
    assert_eq!(Kind::Pattern.parse(" a.* "), Ok(Value::Pattern(" a.* ".parse().expect("a pattern"))));
    assert_eq!(refused(Kind::Pattern, &"x".repeat(256)), "the pattern has 256 bytes; write at most 255");
}

#[test]
fn networks() {
    let parsed = Kind::Networks.parse(" 10.0.0.0/8, ::1,unix ").expect("three networks");
    assert_eq!(parsed.to_toml(), "[\"10.0.0.0/8\", \"::1/128\", \"unix\"]");
    assert_eq!(Kind::Networks.parse(""), Ok(Value::Networks(Networks::default())));
    assert!(refused(Kind::Networks, "10.0.0.0/8,x").starts_with("\"x\" is no network; "));
    let many = |count| vec!["::1"; count].join(",");
    assert!(Kind::Networks.parse(&many(64)).is_ok());
    assert_eq!(refused(Kind::Networks, &many(65)), "65 networks are too many; name at most 64");
}

#[test]
fn values_are_written_on_one_line() {
    for (value, toml) in [
        (Value::Integer(7), "7"),
        (Value::Bytes(1500), "1500"),
        (Value::Bytes(1 << 20), "\"1MiB\""),
        (Value::Millis(0), "\"0s\""),
        (Value::Bool(true), "true"),
        (Value::Word("auto"), "\"auto\""),
        (Value::Text("a \"b\"\\\n\u{7f}é".to_owned()), r#""a \"b\"\\\n\u007Fé""#),
        (Value::Pin(Pin::Cores(vec![0, 1])), "\"0,1\""),
        (Value::Pin(Pin::None), "\"none\""),
        (Value::Mode(0o60), "\"0060\""),
        (Value::Pattern("a.*\"\n".parse().expect("a pattern")), r#""a.*\"\n""#),
    ] {
        assert_eq!(value.to_toml(), toml);
    }
    let addresses = Kind::Addresses { min: 1 }.parse("[::1]:1,unix:/x").expect("two addresses");
    assert_eq!(addresses.to_toml(), "[\"[::1]:1\", \"unix:/x\"]");
}

use super::super::NESTING_MAX;
use super::super::scan::{Elements, Fault, Kind, Malformed, Members, RawValue, Walk, find_special};
use proptest::prelude::*;
use serde_json::value::RawValue as SerdeRaw;
use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;

/// All members of `text`, names as they were sent.
fn members(text: &str) -> Result<Vec<(&str, &str)>, Malformed> {
    let mut members = Members::new(text);
    let mut found = Vec::new();
    while let Some(member) = members.next_member()? {
        found.push((member.key.inner, member.value.raw));
    }
    Ok(found)
}

fn elements(text: &str) -> Result<Vec<RawValue<'_>>, Malformed> {
    let mut elements = Elements::new(text);
    let mut found = Vec::new();
    while let Some(element) = elements.next_element()? {
        found.push(element);
    }
    Ok(found)
}

/// The same as [`members`], read from the outside in.
fn walked(text: &str) -> Result<Vec<(&str, &str)>, Malformed> {
    let mut walk = Walk::new(text);
    let mut found = Vec::new();
    walk.enter_object()?;
    while let Some(name) = walk.next_member()? {
        found.push((name.inner, walk.value()?.raw));
    }
    walk.end().map(|()| found)
}

/// The same as [`elements`] of arrays that are elements of an array.
fn walked_rows(text: &str) -> Result<Vec<Vec<&str>>, Malformed> {
    let mut walk = Walk::new(text);
    let mut rows = Vec::new();
    walk.enter_array()?;
    while walk.next_element()? {
        walk.enter_array()?;
        let mut row = Vec::new();
        while walk.next_element()? {
            row.push(walk.value()?.raw);
        }
        rows.push(row);
    }
    walk.end().map(|()| rows)
}

fn fault(text: &str) -> (Fault, usize) {
    let malformed = members(text).expect_err(text);
    (malformed.fault, malformed.at)
}

/// `{"v":` around `levels - 1` arrays.
fn nested(levels: usize) -> String {
    let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
    format!(r#"{{"v":{open}{close}}}"#)
}

#[test]
fn spans_are_the_untouched_input() {
    let text = " \t\r\n{ \"a\" : 1e400 ,\"\\u0062\":[ 1 , {\"x\":\"}\"} ],\n\"c\":\"\\ud800\",\"\":\
                -0.0E-00,\"a\":123456789012345678901234567890,\"d\":{ },\"e\":\"é😀\u{7f}\"} \n";
    let expected = [
        ("a", "1e400"),
        ("\\u0062", "[ 1 , {\"x\":\"}\"} ]"),
        ("c", "\"\\ud800\""),
        ("", "-0.0E-00"),
        ("a", "123456789012345678901234567890"),
        ("d", "{ }"),
        ("e", "\"é😀\u{7f}\""),
    ];
    assert_eq!(members(text).unwrap(), expected);
}

#[test]
fn a_walk_enters_what_it_is_told_to_and_each_value_may_be_as_deep_as_a_messages() {
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    let text = format!("  [ [1 , {deep}] ,[],[ \"]\"]] ");
    assert_eq!(walked_rows(&text), Ok(vec![vec!["1", &deep], vec![], vec!["\"]\""]]));
    let too_deep = format!("[[[{deep}]]]");
    assert_eq!(walked_rows(&too_deep).map_err(|malformed| malformed.fault), Err(Fault::TooDeep));
    for text in ["", "[", "[[", "[[]", "[[],]", "[[]]]", "[1]", "[[1,]]", "[[1 2]]", "[[],[}", "{}", "[[1]] x"] {
        assert!(walked_rows(text).is_err(), "{text:?}");
    }
}

#[test]
fn kinds_and_escapes_are_told() {
    let text = r#"["","\n",-1,{},[],true,false,null]"#;
    let kinds: Vec<Kind> = elements(text).unwrap().iter().map(|v| v.kind).collect();
    let expected = [
        Kind::PlainString,
        Kind::EscapedString,
        Kind::Number,
        Kind::Object,
        Kind::Array,
        Kind::Literal,
        Kind::Literal,
        Kind::Literal,
    ];
    assert_eq!(kinds, expected);
    assert!(elements(text).unwrap().iter().all(|value| RawValue::of(value.raw) == *value));
    let strings: Vec<_> = elements(text).unwrap().iter().map(|v| v.as_string()).collect();
    assert_eq!(strings[0].map(|s| (s.inner, s.escaped)), Some(("", false)));
    assert_eq!(strings[1].map(|s| (s.inner, s.escaped)), Some(("\\n", true)));
    assert!(strings[2..].iter().all(Option::is_none));
}

#[test]
fn empty_containers_have_no_members() {
    assert_eq!(members("{}"), Ok(vec![]));
    assert_eq!(members(" { } "), Ok(vec![]));
    assert_eq!(elements("[ ]"), Ok(vec![]));
}

#[test]
fn the_end_is_reached_once_and_stays() {
    let mut members = Members::new("{\"a\":1}");
    assert!(members.next_member().unwrap().is_some());
    assert_eq!(members.next_member(), Ok(None));
    assert_eq!(members.next_member(), Ok(None));
    let mut broken = Members::new("{\"a\":1}x");
    assert!(broken.next_member().unwrap().is_some());
    let malformed = broken.next_member().unwrap_err();
    assert_eq!(malformed.fault, Fault::TrailingText);
    assert_eq!(broken.next_member(), Err(malformed));
}

#[test]
fn faults_are_told_with_their_place() {
    use Fault::*;
    let cases: &[(&str, Fault, usize)] = &[
        ("", UnexpectedEnd, 0),
        ("  ", UnexpectedEnd, 2),
        ("[]", ExpectedObject, 0),
        ("\u{feff}{}", ExpectedObject, 0),
        ("{", UnexpectedEnd, 1),
        ("{a:1}", ExpectedName, 1),
        ("{,}", ExpectedName, 1),
        ("{\"a\"}", ExpectedColon, 4),
        ("{\"a\":}", ExpectedValue, 5),
        ("{\"a\":1 \"b\":2}", ExpectedCommaOrBrace, 7),
        ("{\"a\":1,}", ExpectedName, 7),
        ("{\"a\":1]", ExpectedCommaOrBrace, 6),
        ("{\"a\":{\"b\":1]}", ExpectedCommaOrBrace, 11),
        ("{\"a\":[1}", ExpectedCommaOrBracket, 7),
        ("{\"a\":[1 2]}", ExpectedCommaOrBracket, 8),
        ("{\"a\":[,1]}", ExpectedValue, 6),
        ("{\"a\":[1,]}", ExpectedValue, 8),
        ("{\"a\":[}", ExpectedValue, 6),
        ("{\"a\":{]", ExpectedName, 6),
        ("{\"a\":01}", ExpectedCommaOrBrace, 6),
        ("{\"a\":+1}", ExpectedValue, 5),
        ("{\"a\":-}", ExpectedDigit, 6),
        ("{\"a\":-a}", ExpectedDigit, 6),
        ("{\"a\":.5}", ExpectedValue, 5),
        ("{\"a\":1.}", ExpectedDigit, 7),
        ("{\"a\":1.e1}", ExpectedDigit, 7),
        ("{\"a\":1e}", ExpectedDigit, 7),
        ("{\"a\":1e+}", ExpectedDigit, 8),
        ("{\"a\":1e+-1}", ExpectedDigit, 8),
        ("{\"a\":0x10}", ExpectedCommaOrBrace, 6),
        ("{\"a\":NaN}", ExpectedValue, 5),
        ("{\"a\":True}", ExpectedValue, 5),
        ("{\"a\":nul}", ExpectedValue, 5),
        ("{\"a\":truee}", ExpectedCommaOrBrace, 9),
        ("{\"a\":'b'}", ExpectedValue, 5),
        ("{\"a\":\"\t\"}", ControlCharacter, 6),
        ("{\"a\":\"\0\"}", ControlCharacter, 6),
        ("{\"a\":\"\\n\u{1f}\"}", ControlCharacter, 8),
        ("{\"a\nb\":1}", ControlCharacter, 3),
        ("{\"a\":\"\\x\"}", BadEscape, 6),
        ("{\"a\":\"\\u12g4\"}", BadEscape, 6),
        ("{\"a\":\"\\u123\"}", BadEscape, 6),
        ("{\"a\":\"\\U0041\"}", BadEscape, 6),
        ("{\"a\":\"b", UnexpectedEnd, 7),
        ("{\"a\":\"b\\", BadEscape, 7),
        ("{\"a\":\"b\\\"}", UnexpectedEnd, 10),
        ("{\"a\":1", UnexpectedEnd, 6),
        ("{\"a\":[", UnexpectedEnd, 6),
        ("{\"a\":[\"b\"", UnexpectedEnd, 9),
        ("{\"a\":1}{}", TrailingText, 7),
        ("{\"a\":1}}", TrailingText, 7),
        ("{} \u{a0}", TrailingText, 3),
        ("{\u{b}}", ExpectedName, 1),
        ("{}\0", TrailingText, 2),
        ("{\"a\":1\0}", ExpectedCommaOrBrace, 6),
        ("{\"a\":1 /* b */}", ExpectedCommaOrBrace, 7),
    ];
    for (text, expected, at) in cases {
        assert_eq!(fault(text), (*expected, *at), "{text:?}");
    }
}

#[test]
fn malformed_text_is_explained_to_people() {
    let malformed = members("{\"a\":1,}").unwrap_err();
    assert_eq!(malformed.to_string(), "expected a name in quotes, at byte 7");
}

#[test]
fn nesting_is_bounded() {
    let levels_max = NESTING_MAX as usize;
    assert!(members(&nested(levels_max)).is_ok());
    let (reason, at) = fault(&nested(levels_max + 1));
    assert_eq!((reason, at), (Fault::TooDeep, 4 + levels_max));
    // Levels count what is open at once, not what was opened.
    let wide = format!(r#"{{"v":[{}[]]}}"#, "[[]],".repeat(1000));
    assert!(members(&wide).is_ok());
    // Both kinds are remembered through all levels.
    let pairs = (levels_max - 2) / 2;
    let mixed = format!(r#"{{"v":{}{}{}}}"#, r#"[{"a":"#.repeat(pairs), "[]", "}]".repeat(pairs));
    assert!(members(&mixed).is_ok());
    let crossed = mixed.replacen("}]", "]}", 1);
    assert_eq!(fault(&crossed).0, Fault::ExpectedCommaOrBrace);
}

#[test]
fn hostile_depth_does_not_exhaust_the_stack() {
    for open in ["[", "{\"a\":"] {
        let text = format!("{{\"v\":{}", open.repeat(1_000_000));
        assert_eq!(fault(&text).0, Fault::TooDeep);
    }
}

#[test]
#[cfg_attr(miri, ignore = "30,000 texts")]
fn special_bytes_are_found_at_every_place() {
    let lengths = 0..100;
    for length in lengths {
        let plain: Vec<u8> = (0..length).map(|i| b' ' + (i % 2) as u8).collect();
        assert_eq!(find_special(&plain, 0), length);
        for place in 0..length {
            for special in [b'"', b'\\', 0, 1, 0x1f, b'\n'] {
                let mut bytes = plain.clone();
                bytes[place] = special;
                // What follows must not be taken for the first.
                bytes[place + 1..].fill(b'"');
                assert_eq!(find_special(&bytes, 0), place, "{special} at {place} of {length}");
                assert_eq!(find_special(&bytes, place), place);
            }
        }
    }
}

#[test]
fn only_special_bytes_are_found() {
    for byte in 0..=u8::MAX {
        let special = byte < 0x20 || byte == b'"' || byte == b'\\';
        for length in [1, 8, 20, 32, 90] {
            let expected = if special { 0 } else { length };
            assert_eq!(find_special(&vec![byte; length], 0), expected, "{byte:#x}");
        }
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| Number::from_f64(f).map_or(Value::Null, Value::Number)),
        any::<String>().prop_map(Value::String),
        "[ -~\n\t\"\\\\]{0,80}".prop_map(Value::String),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::btree_map(any::<String>(), inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::btree_map(any::<String>(), any_value(), 0..8).prop_map(|members| members.into_iter().collect())
}

/// What stands for interesting mistakes when put anywhere into a text.
fn any_token() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\\",
        "\"a\"",
        "\"type\"",
        "0",
        "1",
        "-",
        "+",
        ".",
        "e",
        "E",
        "00",
        "1e400",
        "true",
        "false",
        "null",
        "t",
        "n",
        " ",
        "\t",
        "\n",
        "\r",
        "\u{b}",
        "\0",
        "\u{1f}",
        "\u{7f}",
        "\\u",
        "\\u00",
        "\\ud800",
        "\\n",
        "/",
        "é",
        "😀",
        "\u{feff}",
        "{\"a\":",
        "[[",
        "]]",
        "\\\"",
        "\\\\",
        "99999999999999999999999999",
    ])
}

fn token_soup() -> impl Strategy<Value = String> {
    prop::collection::vec(any_token(), 0..24).prop_map(|tokens| tokens.concat())
}

/// A valid text with a few places cut, replaced or added to.
fn mutated_object() -> impl Strategy<Value = String> {
    let mutation = (any::<prop::sample::Index>(), 0..3usize, any_token());
    (any_object(), prop::collection::vec(mutation, 1..4)).prop_map(|(object, mutations)| {
        let mut text: Vec<char> = Value::Object(object).to_string().chars().collect();
        for (place, cut, token) in mutations {
            let start = place.index(text.len() + 1);
            let end = text.len().min(start + cut);
            // Half of the cuts leave nothing in their place.
            let token = if cut == 2 { "" } else { token };
            text.splice(start..end, token.chars());
        }
        text.into_iter().collect()
    })
}

/// Whether `serde_json` takes `text` for an object. Read as raw text, numbers
/// of any size, escapes of lone surrogates and any depth are fine with it.
fn serde_accepts(text: &str) -> bool {
    serde_json::from_str::<&SerdeRaw>(text).is_ok_and(|raw| raw.get().starts_with('{'))
}

/// Levels of nesting of a valid text.
fn depth(text: &str) -> u32 {
    let (mut depth, mut depth_max, mut in_string, mut escaped) = (0, 0, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => depth -= 1,
            _ => {}
        }
        depth_max = depth_max.max(depth);
    }
    depth_max
}

fn assert_agreement(text: &str) {
    let expected = serde_accepts(text) && depth(text) <= NESTING_MAX;
    assert_eq!(members(text).is_ok(), expected, "{text:?}");
    assert_eq!(walked(text), members(text), "{text:?}");
}

proptest! {
    #[test]
    fn spans_equal_those_of_serde(object in any_object(), pretty: bool) {
        let value = Value::Object(object);
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        let expected: BTreeMap<String, &SerdeRaw> = serde_json::from_str(&text).unwrap();
        let found = members(&text).unwrap();
        prop_assert_eq!(found.len(), expected.len());
        for (key, raw) in found {
            let key: String = serde_json::from_str(&format!("\"{key}\"")).unwrap();
            prop_assert_eq!(raw, expected[&key].get());
            // The very same bytes of the input, not equal ones.
            prop_assert_eq!(raw.as_ptr(), expected[&key].get().as_ptr());
        }
    }

    #[test]
    fn elements_equal_those_of_serde(values in prop::collection::vec(any_value(), 0..8)) {
        let text = Value::Array(values).to_string();
        let expected: Vec<&SerdeRaw> = serde_json::from_str(&text).unwrap();
        let found = elements(&text).unwrap();
        let found: Vec<&str> = found.iter().map(|element| element.raw).collect();
        let expected: Vec<&str> = expected.iter().map(|raw| raw.get()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn mutated_text_is_judged_as_by_serde(text in mutated_object()) {
        assert_agreement(&text);
    }

    #[test]
    fn token_soup_is_judged_as_by_serde(soup in token_soup()) {
        assert_agreement(&soup);
        assert_agreement(&format!("{{\"v\":{soup}}}"));
        assert_agreement(&format!("{{\"v\":[{soup}]}}"));
        assert_agreement(&format!("{{\"v\":\"{soup}\"}}"));
    }

    #[test]
    fn depth_is_judged_at_the_bound(kinds in prop::collection::vec(any::<bool>(), 120..136)) {
        let open: String = kinds.iter().map(|&o| if o { "{\"a\":" } else { "[" }).collect();
        let close: String = kinds.iter().rev().map(|&o| if o { "}" } else { "]" }).collect();
        assert_agreement(&format!("{{\"v\":{open}1{close}}}"));
    }

    #[test]
    fn garbage_never_panics(text: String) {
        let _ = members(&text);
        let _ = elements(&text);
        let _ = walked_rows(&text);
    }
}

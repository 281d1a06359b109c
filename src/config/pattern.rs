//! Which rooms a rule is for: a text in which `*` stands for any run of characters.

use std::fmt;
use std::str::FromStr;

use crate::limits::ROOM_ID_BYTES_MAX;

/// What stands for any run of characters.
const WILDCARD: char = '*';

/// Which room ids are meant: `*` stands for any run of characters, also none, everything else for itself. A room id
/// matches as a whole. 1 to [`ROOM_ID_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Whether it means this room. Takes time linear in the pattern and the room id together, whatever they are: the
    /// pieces between the wildcards are searched for once each, from left to right. The leftmost place of a piece is
    /// always as good as a later one, so that no choice is ever taken back.
    pub fn matches(&self, room: &str) -> bool {
        let mut pieces = self.0.split(WILDCARD);
        let head = pieces.next().unwrap_or_default();
        let Some(mut rest) = room.strip_prefix(head) else {
            return false;
        };
        let Some(tail) = pieces.next_back() else {
            return rest.is_empty();
        };
        for piece in pieces {
            match rest.split_once(piece) {
                Some((_, behind)) => rest = behind,
                None => return false,
            }
        }
        rest.ends_with(tail)
    }

    /// Whether one of some patterns means a room, and this one as well, where there is one.
    pub fn any_means(any_of: &[Pattern], matching: Option<&Pattern>, room: &str) -> bool {
        matching.is_none_or(|pattern| pattern.matches(room)) && any_of.iter().any(|pattern| pattern.matches(room))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.len() {
            0 => Err("the pattern is empty; write a room id in which * stands for any run of characters".to_owned()),
            1..=ROOM_ID_BYTES_MAX => Ok(Pattern(text.into())),
            more => Err(format!("the pattern has {more} bytes; write at most {ROOM_ID_BYTES_MAX}")),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().expect(text)
    }

    /// The definition, word for word: exponential, for short texts only.
    fn naive(pattern: &[char], room: &[char]) -> bool {
        match pattern.split_first() {
            None => room.is_empty(),
            Some(('*', behind)) => (0..=room.len()).any(|skipped| naive(behind, &room[skipped..])),
            Some((own, behind)) => room.first() == Some(own) && naive(behind, &room[1..]),
        }
    }

    #[test]
    fn a_room_id_matches_as_a_whole() {
        for (text, matching, others) in [
            ("market", &["market"][..], &["", "markets", "a market", "Market"][..]),
            ("market.*", &["market.", "market.btc", "market.btc.eur"], &["market", "xmarket.btc", "marketxbtc"]),
            ("*.btc", &[".btc", "market.btc"], &["btc", "market.btc.eur"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc"], &["ab", "ac", "acb", "abcd"]),
            ("*ab*", &["ab", "xab", "abx", "aab"], &["", "ba", "a"]),
            ("aba*aba", &["abaaba", "aba aba"], &["aba", "ababa"]),
            ("*", &["", "a", "*", "ü\n"], &[]),
            ("**", &["", "a"], &[]),
            ("ü*😀", &["ü😀", "üx😀"], &["ü", "😀"]),
            ("[a-z]?.\\", &["[a-z]?.\\"], &["b", "b?.", "[a-z]x."]),
        ] {
            for room in matching {
                assert!(pattern(text).matches(room), "{text} {room}");
            }
            for room in others {
                assert!(!pattern(text).matches(room), "{text} {room}");
            }
        }
    }

    #[test]
    fn a_pattern_that_makes_others_try_forever_is_answered() {
        let room = "a".repeat(255);
        assert!(!pattern(&format!("{}b", "*a".repeat(127))).matches(&room));
        assert!(pattern(&format!("{}*", "*a".repeat(127))).matches(&room));
    }

    #[test]
    fn a_pattern_has_1_to_255_bytes() {
        assert_eq!(pattern("*").as_str(), "*");
        assert_eq!(pattern(&"x".repeat(255)).to_string(), "x".repeat(255));
        let refused = |text: &str| text.parse::<Pattern>().expect_err("it is refused");
        assert_eq!(refused(&"x".repeat(256)), "the pattern has 256 bytes; write at most 255");
        assert_eq!(refused(&"ü".repeat(128)), "the pattern has 256 bytes; write at most 255");
        assert_eq!(refused(""), "the pattern is empty; write a room id in which * stands for any run of characters");
    }

    proptest! {
        /// Few letters, so that they meet often.
        #[test]
        fn it_matches_what_the_definition_says(text in "[ab*ü]{1,9}", room in "[abü]{0,12}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(pattern(&text).matches(&room), naive(&chars(&text), &chars(&room)));
        }

        /// Whatever the wildcards of a pattern are replaced with, it matches.
        #[test]
        fn it_matches_what_it_was_made_from(pieces in prop::collection::vec(("[a-c]{0,3}", "\\PC{0,9}"), 1..20)) {
            let text: String = pieces.iter().map(|(own, _)| format!("{own}*")).collect();
            let room: String = pieces.iter().map(|(own, any)| format!("{own}{any}")).collect();
            prop_assert!(pattern(&text).matches(&room));
        }
    }
}

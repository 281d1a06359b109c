//! What is wrong with a configuration, where, and what to do: always one line per problem.

use std::fmt;

use super::source::Source;

/// Longest piece of the input repeated in a message, in characters. The rest is cut.
const SHOWN_CHARS_MAX: usize = 60;

/// Why a configuration cannot be used. The operator is to blame, and every message says for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// Its path.
        path: String,
        /// What the operating system says.
        reason: String,
        /// What named it: `--config`, `FANFARE_CONFIG`, `check`.
        named_by: &'static str,
    },
    /// What the sources say is wrong: one problem or more, in the order of file, environment and flags.
    Invalid(Vec<Problem>),
}

impl fmt::Display for ConfigError {
    /// One line: the first problem, and how many there are besides.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unreadable { path, reason, named_by } => {
                write!(f, "cannot read {path:?}: {reason}; {named_by} must name a TOML file that can be read")
            }
            ConfigError::Invalid(problems) => {
                if let Some(first) = problems.first() {
                    first.fmt(f)?;
                }
                match problems.len() {
                    0 | 1 => Ok(()),
                    2 => f.write_str(" (and 1 more problem)"),
                    more => write!(f, " (and {} more problems)", more - 1),
                }
            }
        }
    }
}

impl std::error::Error for ConfigError {}

/// One thing that is wrong, and where. Displays as one line, `FILE:LINE:COL: key: what; what to do`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    source: Source,
    text: String,
}

impl Problem {
    /// A problem with the value of `key`. The place names the key already where it is a variable or a flag.
    pub(super) fn new(source: Source, key: &str, what: String) -> Problem {
        let text = match &source {
            Source::File { .. } | Source::Default => format!("{key}: {what}"),
            Source::Env(_) | Source::Flag(_) => what,
        };
        Problem { source, text }
    }

    /// A problem that has no setting.
    pub(super) fn elsewhere(source: Source, text: String) -> Problem {
        Problem { source, text }
    }

    /// Where it belongs in a list: by source, and by position in the file.
    pub(super) fn rank(&self) -> (u8, usize, usize) {
        match self.source {
            Source::Default => (0, 0, 0),
            Source::File { line, column, .. } => (1, line, column),
            Source::Env(_) => (2, 0, 0),
            Source::Flag(_) => (3, 0, 0),
        }
    }

    /// The line of the file it is on, from 1; 0 if it is not in the file.
    pub(super) fn line(&self) -> usize {
        match self.source {
            Source::File { line, .. } => line,
            Source::Default | Source::Env(_) | Source::Flag(_) => 0,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Default => f.write_str("default")?,
            Source::File { path, line, column } => write!(f, "{}:{line}:{column}", one_line(path))?,
            Source::Env(name) => f.write_str(&one_line(name))?,
            Source::Flag(key) => write!(f, "--{key}")?,
        }
        write!(f, ": {}", self.text)
    }
}

/// A piece of the input for a message: quoted, on one line, cut where it is long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A line for a message or a comment: what would end it, act on a terminal or turn the rest around is escaped.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match acts_on_its_line(letter) {
            true => line.extend(letter.escape_default()),
            false => line.push(letter),
        }
    }
    line
}

/// Valid JSON on one line, without what acts on a terminal: the same value. White space between its parts becomes a space;
/// all else stays as it was written, digits and escapes included.
pub fn one_json_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            // Not inside of a string: there it would not be valid (RFC 8259 §7).
            '\n' | '\r' | '\t' => line.push(' '),
            // All of them are in the basic plane, so that four digits are enough.
            letter if acts_on_its_line(letter) => line.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => line.push(letter),
        }
    }
    line
}

/// Whether it ends a line or commands a terminal (C0, DEL, C1, the separators of lines and paragraphs), or turns what
/// follows around (Unicode's bidirectional formatting characters, UAX #9 §2).
fn acts_on_its_line(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every character by itself: what it becomes is one line of harmless characters, and as JSON still means the same.
    #[test]
    fn every_character_stays_on_its_line() {
        for letter in '\0'..=char::MAX {
            let harmless = |line: &str| !line.chars().any(acts_on_its_line);
            assert!(harmless(&one_line(&letter.to_string())), "{letter:?}");
            let json = serde_json::to_string(&letter.to_string()).expect("a text");
            let line = one_json_line(&json);
            assert!(harmless(&line), "{letter:?}");
            assert_eq!(serde_json::from_str::<String>(&line).expect("still JSON"), letter.to_string());
        }
        assert_eq!(one_line("\u{9b}2J\u{7f}\u{2028}\u{202e}ü"), r"\u{9b}2J\u{7f}\u{2028}\u{202e}ü");
        assert_eq!(
            one_json_line("{\n\t\"a\":\r\n\"\u{9b}\u{2028}\",\"b\":1e400}"),
            r#"{  "a":  "\u009b\u2028","b":1e400}"#
        );
    }
}

//! Where values come from, and the reading of environment and flags.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::effective::Effective;
use super::entry;
use super::error::{ConfigError, Problem, one_line, shown};
use super::kind::Kind;
use super::room;
use super::suggest::nearest_env;
use super::table::{ENV_CONFIG, ENV_OPERATOR_KEY, ENV_PREFIX, ENV_TOKEN, LISTS, List, ROOM, SETTINGS, Setting};
use super::values::Values;

/// Largest configuration file, in bytes. A larger one is refused.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything a configuration is made from, as values: nothing is read behind the caller's back.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if one is named.
    pub file: Option<SourceFile>,
    /// Environment variables; those that do not start with `FANFARE_` are ignored.
    pub env: Vec<(OsString, OsString)>,
    /// Flags, each with its values in the order given. Several values of a list are one list; of anything else the
    /// last one counts.
    pub flags: Vec<(&'static Setting, Vec<String>)>,
    /// Entries of lists given by flag, each as it was written, in the order given.
    pub list_flags: Vec<(&'static List, String)>,
}

/// A configuration file that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    path: String,
    text: String,
    /// Where each line starts, in bytes.
    line_starts: Vec<usize>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The table.
    Default,
    /// The file.
    File {
        /// Its path.
        path: String,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// The environment variable of this name.
    Env(String),
    /// The flag of this key, without `--`.
    Flag(&'static str),
}

impl Source {
    /// The source in words: `default`, `file PATH:LINE`, `env FANFARE_OPEN`, `flag --open`.
    pub fn describe(&self) -> String {
        match self {
            Source::Default => "default".to_owned(),
            Source::File { path, line, .. } => format!("file {}:{line}", one_line(path)),
            Source::Env(name) => format!("env {name}"),
            Source::Flag(key) => format!("flag --{key}"),
        }
    }
}

impl SourceFile {
    /// A file's text, with its path for messages.
    pub fn new(path: String, text: String) -> SourceFile {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(end, _)| end + 1)).collect();
        SourceFile { path, text, line_starts }
    }

    /// Reads a file of at most 1 MiB of UTF-8. `named_by` is who says which file, for the message.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Unreadable`] with the operating system's reason, or because it is too large;
    /// [`ConfigError::Invalid`] with the place of the first byte that is not UTF-8.
    pub fn read(path: &Path, named_by: &'static str) -> Result<SourceFile, ConfigError> {
        let shown_path = path.display().to_string();
        let unreadable = |reason: String| ConfigError::Unreadable { path: shown_path.clone(), reason, named_by };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable("it is larger than 1MiB".to_owned()));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(SourceFile::new(shown_path, text)),
            Err(error) => {
                let valid_bytes = error.utf8_error().valid_up_to();
                let text = String::from_utf8_lossy(&error.as_bytes()[..valid_bytes]).into_owned();
                let file = SourceFile::new(shown_path, text);
                let problem =
                    Problem::elsewhere(file.at(valid_bytes), "not UTF-8 from here; save it as UTF-8".to_owned());
                Err(ConfigError::Invalid(vec![problem]))
            }
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The line, from 1, that has the byte at this offset.
    pub(super) fn line_at(&self, offset_bytes: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset_bytes)
    }

    /// Whether a line, counted from 1, opens a section.
    pub(super) fn is_header(&self, line: usize) -> bool {
        let start = line.checked_sub(1).and_then(|index| self.line_starts.get(index));
        start.is_some_and(|start| self.text[*start..].trim_start_matches([' ', '\t']).starts_with('['))
    }

    /// Whether the line with this byte says a secret, which no message may repeat.
    pub(super) fn may_tell_a_secret(&self, offset_bytes: usize) -> bool {
        let start = self.line_starts[self.line_at(offset_bytes) - 1];
        let line = self.text[start..].lines().next().unwrap_or_default();
        line.split_once('=').is_some_and(|(name, _)| ["secret", "url"].iter().any(|telling| name.contains(telling)))
    }

    /// The place of the byte at this offset; beyond the text, its end.
    pub(super) fn at(&self, offset_bytes: usize) -> Source {
        let end = self.text.floor_char_boundary(offset_bytes);
        let line = self.line_at(end);
        let before = &self.text[self.line_starts[line - 1]..end];
        let column = before.trim_start_matches('\u{feff}').chars().count() + 1;
        Source::File { path: self.path.clone(), line, column }
    }
}

/// The bytes of a file beside the configuration: a key, a token, certificates.
///
/// # Errors
///
/// What the operating system says, or that there are more than `bytes_max`; to stand behind the file's name.
pub fn read_at_most(path: impl AsRef<Path>, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(bytes_max as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}; name a file that this process may read"))?;
    match bytes.len() > bytes_max {
        true => Err(format!("has more than {bytes_max} bytes; is it the right file?")),
        false => Ok(bytes),
    }
}

/// Sets what the environment says.
pub(super) fn apply_env(env: &[(OsString, OsString)], effective: &mut Effective, problems: &mut Vec<Problem>) {
    let mut ours: Vec<(String, &OsString)> = env
        .iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, value)| {
            let is_of_a_command = [ENV_CONFIG, ENV_TOKEN, ENV_OPERATOR_KEY].contains(&name.as_str());
            name.starts_with(ENV_PREFIX) && !is_of_a_command && !is_service_link(name, value)
        })
        .collect();
    // The environment has no order of its own; messages should have one.
    ours.sort();
    for (name, value) in ours {
        let source = Source::Env(name.clone());
        if let Some(list) = LISTS.into_iter().find(|list| list.env() == name) {
            match value.to_str() {
                Some(text) => effective.add(list, entries(list, text, &source, problems)),
                None => {
                    effective.add(list, Vec::new());
                    let text = "the value is not UTF-8; write it in UTF-8".to_owned();
                    problems.push(Problem::new(source, list.name, text));
                }
            }
            continue;
        }
        let setting = SETTINGS.iter().find(|setting| setting.env() == name);
        match (setting, value.to_str()) {
            (Some(setting), Some(text)) => {
                effective.settings.take(setting, source, setting.kind.parse(text), problems);
            }
            (Some(setting), None) => effective.settings.take(setting, source, Err(not_utf8(value)), problems),
            (None, _) => problems.push(Problem::elsewhere(source, unknown_variable(&name))),
        }
    }
}

/// Sets what the flags say.
pub(super) fn apply_flags(sources: &Sources, effective: &mut Effective, problems: &mut Vec<Problem>) {
    for (setting, values) in &sources.flags {
        let parsed = match (setting.kind, values.last()) {
            (_, None) => continue,
            (Kind::Addresses { .. } | Kind::Paths | Kind::Patterns | Kind::Networks | Kind::Fields, _) => {
                setting.kind.parse(&values.join(","))
            }
            (_, Some(last)) => setting.kind.parse(last),
        };
        effective.settings.take(setting, Source::Flag(setting.key), parsed, problems);
    }
    for list in LISTS {
        let source = Source::Flag(list.name);
        let texts = sources.list_flags.iter().filter(|(of, _)| of.name == list.name);
        let given: Vec<Vec<Values>> = texts.map(|(_, text)| entries(list, text, &source, problems)).collect();
        if !given.is_empty() {
            effective.add(list, given.concat());
        }
    }
}

/// The entries on one line.
fn entries(list: &'static List, text: &str, source: &Source, problems: &mut Vec<Problem>) -> Vec<Values> {
    match list.name == ROOM.name {
        true => room::parse(text, source, problems),
        false => entry::parse(list, text, source, problems),
    }
}

fn not_utf8(value: &OsStr) -> String {
    format!("{} is not UTF-8; write it in UTF-8", shown(&value.to_string_lossy()))
}

fn unknown_variable(name: &str) -> String {
    match nearest_env(name) {
        Some(near) => format!("unknown environment variable; did you mean {near}?"),
        None => "unknown environment variable; unset it (`fanfare serve --help` lists the settings)".to_owned(),
    }
}

/// Whether a container platform set this variable: Kubernetes gives every pod the addresses of the services beside
/// it, and those of a service called `fanfare` or `fanfare-…` start like our own. `FANFARE_PORT=tcp://10.0.0.1:80` is
/// such a link, `FANFARE_PORT=80` is a person's mistake.
fn is_service_link(name: &str, value: &OsString) -> bool {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let has_port = |rest: &str| {
        let mut words = rest.split('_');
        words.next().is_some_and(is_port) && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.to_string_lossy().contains("://"))
        || name.match_indices("_PORT_").any(|(start, found)| has_port(&name[start + found.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_lines_and_characters() {
        let file = SourceFile::new("f".to_owned(), "\u{feff}ab\nüx\n".to_owned());
        for (offset, line, column) in [(0, 1, 1), (3, 1, 1), (5, 1, 3), (6, 2, 1), (8, 2, 2), (9, 2, 3), (99, 3, 1)] {
            assert_eq!(file.at(offset), Source::File { path: "f".to_owned(), line, column }, "{offset}");
        }
    }

    #[test]
    fn service_links_are_not_ours() {
        for name in [
            "FANFARE_SERVICE_HOST",
            "FANFARE_SERVICE_PORT",
            "FANFARE_SERVICE_PORT_HTTP",
            "FANFARE_PORT",
            "FANFARE_HEADLESS_PORT",
            "FANFARE_PORT_8080_TCP",
            "FANFARE_PORT_8080_TCP_ADDR",
            "FANFARE_HEADLESS_SERVICE_HOST",
            "FANFARE_HEADLESS_PORT_53_UDP_PROTO",
        ] {
            assert!(is_service_link(name, &"tcp://10.0.0.1:80".into()), "{name}");
        }
        for name in ["FANFARE_PORT", "FANFARE_PORTS", "FANFARE_PORT_X_TCP", "FANFARE_PORT_80", "FANFARE_SERVICE"] {
            assert!(!is_service_link(name, &"80".into()), "{name}");
        }
        for setting in SETTINGS {
            assert!(!is_service_link(&setting.env(), &"://".into()), "{}", setting.key);
        }
    }
}

//! What a setting's value may be, how it is read from text, and how it is written as TOML.

use std::path::PathBuf;

use toml_writer::ToTomlValue;

use super::Pin;
use super::auth::Secret;
use super::error::shown;
use super::field_name::FieldName;
use super::http_url::{self, HttpUrl};
use super::listen::Listen;
use super::pattern::Pattern;
use super::quantity::{self, QuantityError};
use super::redis_url::{self, RedisUrl};
use crate::limits::{REACTORS_MAX, ROOM_ID_BYTES_MAX};
use crate::network::{Network, Networks};

/// Addresses in one list. One more is refused.
const ADDRESSES_MAX: usize = 64;

/// Files in one list. One more is refused.
const PATHS_MAX: usize = 64;

/// Longest path of a file, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// Largest core number: the kernel's affinity masks hold 1024 cores.
const CORE_MAX: usize = 1023;

/// Bounds of a numeric value, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Smallest value.
    pub min: u64,
    /// Largest value.
    pub max: u64,
    /// Whether 0 is allowed although it is below `min`.
    pub zero: bool,
}

/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 4096;

/// Patterns in one list. One more is refused.
const PATTERNS_MAX: usize = 64;

/// Networks in one list. One more is refused.
const NETWORKS_MAX: usize = 64;

/// Names of header fields in one list. One more is refused.
const FIELDS_MAX: usize = 16;

/// All permissions there are: those of the owner, the group and all others.
const MODE_MAX: u32 = 0o777;

/// What a setting's value may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Integer(Bounds),
    /// A size: bounds in bytes.
    Bytes(Bounds),
    /// A duration: bounds in milliseconds.
    Duration(Bounds),
    /// True or false.
    Bool,
    /// Any text up to this many bytes of UTF-8.
    Text {
        /// Longest text, in bytes.
        bytes_max: usize,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of some of these words, which may be empty: a TOML array, or text with blanks or commas between them.
    Words(&'static [&'static str]),
    /// An address to listen on.
    Address,
    /// A list of addresses to listen on: a TOML array, or text with commas between them.
    Addresses {
        /// How many there are at least: one or none.
        min: usize,
    },
    /// A list of files, which may be empty: a TOML array, or text with commas between them.
    Paths,
    /// `auto`, `none`, or a list of core numbers.
    Pin,
    /// Permissions of a file, in octal.
    Mode,
    /// Which room ids are meant.
    Pattern,
    /// A list of patterns, which may be empty: a TOML array, or text with commas between them.
    Patterns,
    /// A list of networks, which may be empty: a TOML array, or text with commas between them.
    Networks,
    /// A list of names of header fields, which may be empty: a TOML array, or text with commas between them.
    Fields,
    /// A text that is shown to nobody; empty is none.
    Secret {
        /// Shortest one, in bytes.
        bytes_min: usize,
    },
    /// Where a service of the team's own is asked.
    HttpUrl,
    /// Where Redis is.
    RedisUrl,
}

/// A value that is within its kind's bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Integer`].
    Integer(u64),
    /// Of [`Kind::Bytes`].
    Bytes(u64),
    /// Of [`Kind::Duration`], in milliseconds.
    Millis(u64),
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Text`].
    Text(String),
    /// Of [`Kind::Choice`].
    Word(&'static str),
    /// Of [`Kind::Address`].
    Address(Listen),
    /// Of [`Kind::Words`], none twice.
    Words(Vec<&'static str>),
    /// Of [`Kind::Addresses`].
    Addresses(Vec<Listen>),
    /// Of [`Kind::Paths`].
    Paths(Vec<PathBuf>),
    /// Of [`Kind::Pin`].
    Pin(Pin),
    /// Of [`Kind::Mode`].
    Mode(u32),
    /// Of [`Kind::Pattern`].
    Pattern(Pattern),
    /// Of [`Kind::Patterns`].
    Patterns(Vec<Pattern>),
    /// Of [`Kind::Networks`].
    Networks(Networks),
    /// Of [`Kind::Fields`].
    Fields(Vec<FieldName>),
    /// Of [`Kind::Secret`].
    Secret(Secret),
    /// Of [`Kind::HttpUrl`].
    HttpUrl(HttpUrl),
    /// Of [`Kind::RedisUrl`].
    RedisUrl(RedisUrl),
}

/// How a quantity is read, and what messages say about it.
struct Quantity {
    parse: fn(&str) -> Result<u64, QuantityError>,
    name: &'static str,
    forms: &'static str,
    finest: &'static str,
}

const SIZE: Quantity =
    Quantity { parse: quantity::parse_bytes, name: "size", forms: "4096, 64KiB or 1MiB", finest: "1 byte" };

const TIME: Quantity =
    Quantity { parse: quantity::parse_millis, name: "duration", forms: "500ms, 30s, 10m or 1h", finest: "1ms" };

impl Kind {
    /// Reads a value as environment and flags write it. White space around it is ignored, except in a text and in a
    /// pattern.
    ///
    /// # Errors
    ///
    /// What is wrong with the text and what to write instead, without the setting's name.
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        match *self {
            Kind::Integer(bounds) => self.parse_integer(text.trim(), bounds),
            Kind::Bytes(bounds) => self.parse_quantity(text, bounds, &SIZE).map(Value::Bytes),
            Kind::Duration(bounds) => self.parse_quantity(text, bounds, &TIME).map(Value::Millis),
            Kind::Bool => match text.trim() {
                "true" | "yes" | "on" | "1" => Ok(Value::Bool(true)),
                "false" | "no" | "off" | "0" => Ok(Value::Bool(false)),
                other => Err(format!("{} is neither true nor false; write one of them", shown(other))),
            },
            Kind::Text { bytes_max } if text.len() > bytes_max => {
                Err(format!("the text has {} bytes; write at most {bytes_max}", text.len()))
            }
            Kind::Text { .. } => Ok(Value::Text(text.to_owned())),
            Kind::Choice(words) => match words.iter().find(|word| **word == text.trim()) {
                Some(word) => Ok(Value::Word(word)),
                None => Err(format!("{} is no choice; write {}", shown(text), self.domain())),
            },
            Kind::Address => text.trim().parse().map(Value::Address),
            Kind::Paths => self.paths(text.split(',').map(str::trim).filter(|text| !text.is_empty()).collect()),
            Kind::Words(_) => {
                let words = text.split(|letter: char| letter == ',' || letter.is_whitespace());
                self.words(words.filter(|word| !word.is_empty())).map(Value::Words)
            }
            Kind::Addresses { min: 0 } if text.trim().is_empty() => Ok(Value::Addresses(Vec::new())),
            Kind::Addresses { .. } => {
                let addresses = text.split(',').map(|address| address.trim().parse()).collect::<Result<_, _>>()?;
                self.addresses(addresses)
            }
            Kind::Pin => match text.trim() {
                "auto" => Ok(Value::Pin(Pin::Auto)),
                "none" => Ok(Value::Pin(Pin::None)),
                cores => self.parse_cores(cores),
            },
            Kind::Mode => self.parse_mode(text.trim()),
            Kind::Pattern => text.parse().map(Value::Pattern),
            Kind::Patterns => {
                let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
                self.patterns(texts.map(str::parse).collect::<Result<_, _>>()?)
            }
            Kind::Networks => {
                let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
                self.networks(texts.map(str::parse).collect::<Result<_, _>>()?)
            }
            Kind::Fields => {
                let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
                self.fields(texts.map(str::parse).collect::<Result<_, _>>()?)
            }
            Kind::Secret { bytes_min } => match text.len() {
                0 => Ok(Value::Secret(Secret::new(text))),
                fit if (bytes_min..=SECRET_BYTES_MAX).contains(&fit) => Ok(Value::Secret(Secret::new(text))),
                more if more > SECRET_BYTES_MAX => {
                    Err(format!("the secret has {more} bytes; write at most {SECRET_BYTES_MAX}"))
                }
                few => Err(format!(
                    "the secret has {few} bytes, few enough to be guessed; make one of at least {bytes_min} with \
                     `openssl rand -base64 48`"
                )),
            },
            Kind::HttpUrl => text.parse().map(Value::HttpUrl),
            Kind::RedisUrl => text.parse().map(Value::RedisUrl),
        }
    }

    /// Some words of a list.
    ///
    /// # Errors
    ///
    /// There is another word among them, or one stands twice.
    pub(super) fn words<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Result<Vec<&'static str>, String> {
        let Kind::Words(words) = *self else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        for text in texts {
            match words.iter().find(|word| **word == text) {
                Some(word) if found.contains(word) => return Err(format!("{word} stands there twice; name it once")),
                Some(word) => found.push(*word),
                None => return Err(format!("{} is no choice; write {}", shown(text), self.domain())),
            }
        }
        Ok(found)
    }

    /// A list of files as a value.
    ///
    /// # Errors
    ///
    /// The list is too long, or a path in it is none.
    pub(super) fn paths(&self, paths: Vec<&str>) -> Result<Value, String> {
        if paths.len() > PATHS_MAX {
            return Err(format!("{} files are too many; name at most {PATHS_MAX}", paths.len()));
        }
        match paths.iter().find(|path| path.is_empty() || path.len() > PATH_BYTES_MAX || path.contains('\0')) {
            Some(path) => Err(format!("{} is no file's path; write one of 1 to {PATH_BYTES_MAX} bytes", shown(path))),
            None => Ok(Value::Paths(paths.into_iter().map(PathBuf::from).collect())),
        }
    }

    /// A list of patterns as a value.
    ///
    /// # Errors
    ///
    /// The list is too long.
    pub(super) fn patterns(&self, patterns: Vec<Pattern>) -> Result<Value, String> {
        match patterns.len() {
            0..=PATTERNS_MAX => Ok(Value::Patterns(patterns)),
            more => Err(format!("{more} patterns are too many; name at most {PATTERNS_MAX}")),
        }
    }

    /// A list of names of header fields as a value.
    ///
    /// # Errors
    ///
    /// The list is too long.
    pub(super) fn fields(&self, names: Vec<FieldName>) -> Result<Value, String> {
        match names.len() {
            0..=FIELDS_MAX => Ok(Value::Fields(names)),
            more => Err(format!("{more} names are too many; write at most {FIELDS_MAX}")),
        }
    }

    /// A list of networks as a value.
    ///
    /// # Errors
    ///
    /// The list is too long.
    pub(super) fn networks(&self, networks: Vec<Network>) -> Result<Value, String> {
        match networks.len() {
            0..=NETWORKS_MAX => Ok(Value::Networks(Networks::new(networks))),
            more => Err(format!("{more} networks are too many; name at most {NETWORKS_MAX}")),
        }
    }

    /// A list of addresses as a value.
    ///
    /// # Errors
    ///
    /// The list is empty or too long.
    pub(super) fn addresses(&self, addresses: Vec<Listen>) -> Result<Value, String> {
        match addresses.len() {
            0 if *self != (Kind::Addresses { min: 0 }) => {
                Err("the list is empty; name at least one address, as 127.0.0.1:8080".to_owned())
            }
            0..=ADDRESSES_MAX => Ok(Value::Addresses(addresses)),
            more => Err(format!("{more} addresses are too many; name at most {ADDRESSES_MAX}")),
        }
    }

    /// The values allowed, in words: `20ms to 1h`, `auto or epoll`.
    pub fn domain(&self) -> String {
        match self {
            Kind::Integer(bounds) => bounds.domain(|number| number.to_string()),
            Kind::Bytes(bounds) => bounds.domain(quantity::format_bytes),
            Kind::Duration(bounds) => bounds.domain(quantity::format_millis),
            Kind::Bool => "true or false".to_owned(),
            Kind::Text { bytes_max } => format!("at most {bytes_max} bytes"),
            Kind::Choice(words) => listed(words, "or"),
            Kind::Words(words) => format!("some of {}", listed(words, "and")),
            Kind::Address | Kind::Addresses { .. } => "IP:PORT, [IPv6]:PORT or unix:/path".to_owned(),
            Kind::Paths => format!("files with commas between them, at most {PATHS_MAX}"),
            Kind::Pin => "auto, none, or core numbers as 0,1".to_owned(),
            Kind::Mode => "0000 to 0777, in octal".to_owned(),
            Kind::Pattern => format!("1 to {ROOM_ID_BYTES_MAX} bytes"),
            Kind::Patterns => format!("patterns with commas between them, at most {PATTERNS_MAX}"),
            Kind::Networks => {
                format!("networks as 10.0.0.0/8 or unix with commas between them, at most {NETWORKS_MAX}")
            }
            Kind::Fields => format!("names with commas between them, at most {FIELDS_MAX}"),
            Kind::Secret { bytes_min } => format!("{bytes_min} to {SECRET_BYTES_MAX} bytes"),
            Kind::HttpUrl => format!("{}, or empty", http_url::FORMS),
            Kind::RedisUrl => format!("{}, or empty", redis_url::FORMS),
        }
    }

    /// What a value of this kind is called: `a duration`.
    pub fn noun(&self) -> &'static str {
        match self {
            Kind::Integer(_) => "a whole number",
            Kind::Bytes(_) => "a size",
            Kind::Duration(_) => "a duration",
            Kind::Bool => "true or false",
            Kind::Text { .. } => "a text",
            Kind::Choice(_) => "a word",
            Kind::Address => "an address",
            Kind::Addresses { .. } => "an array of addresses",
            Kind::Words(_) => "an array of words",
            Kind::Paths => "an array of files",
            Kind::Pin => "a pinning",
            Kind::Mode => "an octal mode",
            Kind::Pattern => "a pattern",
            Kind::Patterns => "an array of patterns",
            Kind::Networks => "an array of networks",
            Kind::Fields => "an array of names",
            Kind::Secret { .. } => "a text",
            Kind::HttpUrl => "a URL",
            Kind::RedisUrl => "a URL",
        }
    }

    /// What stands for the value in help texts.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Kind::Integer(_) => "N",
            Kind::Bytes(_) => "SIZE",
            Kind::Duration(_) => "TIME",
            Kind::Bool => "BOOL",
            Kind::Text { .. } => "TEXT",
            Kind::Choice(_) => "WORD",
            Kind::Address | Kind::Addresses { .. } => "ADDR",
            Kind::Words(_) => "WORDS",
            Kind::Paths => "FILES",
            Kind::Pin => "CORES",
            Kind::Mode => "MODE",
            Kind::Pattern => "PATTERN",
            Kind::Patterns => "PATTERNS",
            Kind::Networks => "NETWORKS",
            Kind::Fields => "NAMES",
            Kind::Secret { .. } => "SECRET",
            Kind::HttpUrl => "URL",
            Kind::RedisUrl => "URL",
        }
    }

    fn parse_integer(&self, text: &str, bounds: Bounds) -> Result<Value, String> {
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("{} is no whole number; write {}", shown(text), self.domain()));
        }
        match text.parse() {
            Ok(number) if bounds.hold(number) => Ok(Value::Integer(number)),
            _ => Err(self.out_of_bounds(text)),
        }
    }

    fn parse_quantity(&self, text: &str, bounds: Bounds, quantity: &Quantity) -> Result<u64, String> {
        match (quantity.parse)(text) {
            Ok(amount) if bounds.hold(amount) => Ok(amount),
            Ok(_) | Err(QuantityError::TooLarge) => Err(self.out_of_bounds(text)),
            Err(QuantityError::TooFine) => {
                let finest = quantity.finest;
                Err(format!("{} is too fine; write whole multiples of {finest}, {}", shown(text), self.domain()))
            }
            Err(QuantityError::Number | QuantityError::Unit) => {
                let Quantity { name, forms, .. } = quantity;
                Err(format!("{} is no {name}; write it as {forms} ({})", shown(text), self.domain()))
            }
        }
    }

    fn out_of_bounds(&self, text: &str) -> String {
        format!("{} is out of bounds; write {}", shown(text), self.domain())
    }

    fn parse_mode(&self, text: &str) -> Result<Value, String> {
        let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        match u32::from_str_radix(text, 8) {
            Ok(mode) if is_octal && mode <= MODE_MAX => Ok(Value::Mode(mode)),
            _ => Err(format!("{} is no mode; write it as 0660 ({})", shown(text), self.domain())),
        }
    }

    fn parse_cores(&self, text: &str) -> Result<Value, String> {
        let mut cores = Vec::new();
        for word in text.split(',') {
            let core = match word.trim().parse::<usize>() {
                Ok(core) if core <= CORE_MAX => core,
                Ok(core) => {
                    return Err(format!("there is no core {core}; write numbers from 0 to {CORE_MAX}"));
                }
                Err(_) => {
                    return Err(format!("{} names no cores; write {}", shown(text), self.domain()));
                }
            };
            if cores.contains(&core) {
                return Err(format!("core {core} is named twice; name each core once"));
            }
            cores.push(core);
        }
        if cores.len() > REACTORS_MAX {
            return Err(format!("{} cores are too many; name at most {REACTORS_MAX}", cores.len()));
        }
        Ok(Value::Pin(Pin::Cores(cores)))
    }
}

impl Bounds {
    fn hold(&self, number: u64) -> bool {
        (self.zero && number == 0) || (self.min..=self.max).contains(&number)
    }

    fn domain(&self, format: impl Fn(u64) -> String) -> String {
        let or_zero = if self.zero && self.min > 0 { ", or 0" } else { "" };
        format!("{} to {}{or_zero}", format(self.min), format(self.max))
    }
}

impl Value {
    /// The value as TOML, on one line. Reading it gives the same value again.
    pub fn to_toml(&self) -> String {
        match self {
            Value::Integer(number) => number.to_string(),
            Value::Bytes(bytes) => {
                let text = quantity::format_bytes(*bytes);
                if text.bytes().all(|byte| byte.is_ascii_digit()) { text } else { quoted(&text) }
            }
            Value::Millis(millis) => quoted(&quantity::format_millis(*millis)),
            Value::Bool(switch) => switch.to_string(),
            Value::Text(text) => quoted(text),
            Value::Word(word) => quoted(word),
            Value::Addresses(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(|address| quoted(&address.to_string())).collect();
                format!("[{}]", addresses.join(", "))
            }
            Value::Words(words) => {
                let words: Vec<_> = words.iter().map(|word| quoted(word)).collect();
                format!("[{}]", words.join(", "))
            }
            Value::Address(address) => quoted(&address.to_string()),
            Value::Paths(paths) => {
                let paths: Vec<_> = paths.iter().map(|path| quoted(&path.to_string_lossy())).collect();
                format!("[{}]", paths.join(", "))
            }
            Value::Pin(Pin::Auto) => quoted("auto"),
            Value::Pin(Pin::None) => quoted("none"),
            Value::Pin(Pin::Cores(cores)) => {
                quoted(&cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
            }
            Value::Mode(mode) => quoted(&format!("{mode:04o}")),
            Value::Pattern(pattern) => quoted(pattern.as_str()),
            Value::Patterns(patterns) => {
                let patterns: Vec<_> = patterns.iter().map(|pattern| quoted(pattern.as_str())).collect();
                format!("[{}]", patterns.join(", "))
            }
            Value::Networks(networks) => {
                let networks: Vec<_> = networks.iter().map(|network| quoted(&network.to_string())).collect();
                format!("[{}]", networks.join(", "))
            }
            Value::Fields(names) => {
                let names: Vec<_> = names.iter().map(|name| quoted(name.as_str())).collect();
                format!("[{}]", names.join(", "))
            }
            // What is read back has to be refused, not taken for a secret that everybody knows.
            Value::Secret(secret) if secret.expose().is_empty() => quoted(""),
            Value::Secret(_) => quoted("***"),
            Value::HttpUrl(url) => quoted(&url.to_string()),
            Value::RedisUrl(url) => quoted(&url.to_string()),
        }
    }
}

fn listed(words: &[&str], conjunction: &str) -> String {
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} {conjunction} {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn quoted(text: &str) -> String {
    toml_writer::TomlStringBuilder::new(text).as_basic().to_toml_value()
}

//! The configuration file: TOML, settings in sections and rules for rooms.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::effective::Effective;
use super::error::{Problem, shown};
use super::field_name::FieldName;
use super::kind::{Kind, Value};
use super::listen::Listen;
use super::pattern::Pattern;
use super::source::SourceFile;
use super::suggest::{nearest, nearest_row};
use super::table::{LISTS, List, ROOM, SETTINGS, Setting, is_section};
use super::values::Values;
use crate::network::Network;

/// Sets what the file says, and collects everything that is wrong with it.
pub(super) fn apply(file: &SourceFile, effective: &mut Effective, problems: &mut Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(file.text());
    let mut reader = Reader { file, problems: Vec::new(), lists: BTreeMap::new(), is_whole: errors.is_empty() };
    let mut lines_broken = HashSet::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        // What the parser finds behind an error on the same line is mostly the same mistake again.
        if lines_broken.insert(file.line_at(span.start)) {
            problems.push(reader.syntax_problem(span, error.message()));
        }
    }
    reader.table(table.get_ref(), None, &mut effective.settings);
    for (name, entries) in reader.lists {
        List::find(name).into_iter().for_each(|list| effective.add(list, entries.clone()));
    }
    // Below a broken section header it is not known which section the lines belong to.
    let header_broken = lines_broken.iter().filter(|line| file.is_header(**line)).min().copied();
    let is_sure = |line| !lines_broken.contains(&line) && header_broken.is_none_or(|header| line < header);
    problems.extend(reader.problems.into_iter().filter(|problem| is_sure(problem.line())));
}

/// What is wrong with a value, and the bytes it is about.
type Fault = (Range<usize>, String);

struct Reader<'a> {
    file: &'a SourceFile,
    problems: Vec<Problem>,
    /// The entries of lists that were read, where the file gives some, right or wrong.
    lists: BTreeMap<&'static str, Vec<Values>>,
    /// The parser has lost nothing: what is not there was not written.
    is_whole: bool,
}

impl Reader<'_> {
    fn syntax_problem(&self, span: Range<usize>, message: &str) -> Problem {
        let text = match self.file.text().get(span.clone()) {
            Some(token) if !token.trim().is_empty() && !self.file.may_tell_a_secret(span.start) => {
                format!("not valid TOML at {}: {message}", shown(token))
            }
            _ => format!("not valid TOML: {message}"),
        };
        Problem::elsewhere(self.file.at(span.start), text)
    }

    fn table(&mut self, table: &DeTable<'_>, section: Option<&str>, values: &mut Values) {
        for (name, value) in table {
            let key = match section {
                Some(section) => format!("{section}.{}", name.get_ref()),
                None => name.get_ref().to_string(),
            };
            // A quoted key with a dot in it is one name to TOML, not a section and a name.
            let is_plain = !name.get_ref().contains('.');
            let setting = values.rows().iter().find(|setting| is_plain && setting.key == key);
            match (setting, value.get_ref()) {
                (Some(setting), _) => self.value(setting, value, values),
                (None, DeValue::Table(inner)) if is_plain && is_section(values.rows(), &key) => {
                    self.table(inner, Some(&key), values);
                }
                (None, found) => {
                    if let Some(list) = List::find(&key) {
                        self.list(list, value);
                        continue;
                    }
                    let text = unknown(&key, section, found, values.rows());
                    self.problems.push(Problem::elsewhere(self.file.at(name.span().start), text));
                }
            }
        }
    }

    fn value(&mut self, setting: &'static Setting, value: &Spanned<DeValue<'_>>, values: &mut Values) {
        let (span, parsed) = match read(setting, value) {
            Ok(parsed) => (value.span(), Ok(parsed)),
            Err((span, what)) => (span, Err(what)),
        };
        values.take(setting, self.file.at(span.start), parsed, &mut self.problems);
    }

    fn list(&mut self, list: &'static List, value: &Spanned<DeValue<'_>>) {
        self.lists.entry(list.name).or_default();
        match value.get_ref() {
            DeValue::Array(items) => items.iter().for_each(|item| self.entry(list, item)),
            _ => self.no_entry(list, value),
        }
    }

    fn entry(&mut self, list: &'static List, item: &Spanned<DeValue<'_>>) {
        let DeValue::Table(table) = item.get_ref() else {
            return self.no_entry(list, item);
        };
        let mut entry = Values::defaults(list.rows);
        let problems_before = self.problems.len();
        self.table(table, Some(list.name), &mut entry);
        let is_readable = self.problems.len() == problems_before;
        match (list.fault)(&entry) {
            Some(what) if is_readable && self.is_whole => {
                self.problems.push(Problem::new(self.file.at(item.span().start), list.name, what));
            }
            None if is_readable => self.lists.entry(list.name).or_default().push(entry),
            Some(_) | None => {}
        }
    }

    fn no_entry(&mut self, list: &'static List, found: &Spanned<DeValue<'_>>) {
        let List { name, entry, .. } = list;
        let text = format!(
            "{} stands where {} belong; write [[{name}]] on a line of its own and the {entry}'s keys below",
            noun(found.get_ref()),
            list.entries()
        );
        self.problems.push(Problem::new(self.file.at(found.span().start), name, text));
    }
}

/// What to say about a key that the table does not have there.
fn unknown(key: &str, section: Option<&str>, found: &DeValue<'_>, rows: &'static [Setting]) -> String {
    let shown_key = shown(key);
    if let DeValue::Array(_) = found
        && let Some(near) = nearest(key, LISTS.into_iter().map(|list| list.name))
    {
        return format!("unknown list of tables {shown_key}; did you mean [[{near}]]?");
    }
    if is_section(rows, key) {
        return format!("{key} is a section; write [{key}] on a line of its own and its settings below");
    }
    if matches!(found, DeValue::Table(_)) {
        let in_lists = LISTS.into_iter().flat_map(|list| list.rows);
        let sections = rows.iter().chain(in_lists).filter_map(Setting::section);
        let sections =
            sections.flat_map(|section| [section, section.split_once('.').map_or(section, |(upper, _)| upper)]);
        if let Some(near) = nearest(key, sections) {
            return format!("unknown section {shown_key}; did you mean {}?", section_place(near));
        }
        if section.is_none() {
            return format!("unknown section {shown_key}; remove it (`fanfare config` shows all there are)");
        }
    }
    let own = nearest_row(rows, key);
    if let Some(near) = own.filter(|near| near.section() == section || near.name_in_entry().is_some()) {
        // A key of a rule in quotes reads the same and is another one to TOML.
        let unquoted = if near.key == key { " without quotes" } else { "" };
        return format!("unknown key {shown_key}; did you mean {}{unquoted}?", near.key);
    }
    let tables = std::iter::once(SETTINGS).chain(LISTS.into_iter().map(|list| list.rows));
    let elsewhere: Vec<_> = tables.filter_map(|rows| nearest_row(rows, key)).collect();
    if elsewhere.is_empty() {
        return format!("unknown key {shown_key}; remove it (`fanfare config` shows all there are)");
    }
    let places: Vec<_> = elsewhere.into_iter().map(place).collect();
    format!("unknown key {shown_key}; did you mean {}?", places.join(", or "))
}

/// A setting as it is written in the file, and where.
fn place(setting: &Setting) -> String {
    match (setting.name_in_entry(), setting.section()) {
        (Some(name), _) => format!("{name} in a [[{}]] table", setting.list().map_or("", |list| list.name)),
        (None, Some(section)) => format!("{} in section [{section}]", setting.name()),
        (None, None) => format!("{} above the first section", setting.key),
    }
}

/// A section as it is written in the file.
fn section_place(section: &str) -> String {
    match (List::find(section), section.split_once('.')) {
        (Some(list), _) => format!("[[{}]]", list.name),
        (None, Some((upper, name))) if upper == ROOM.name => format!("{name} in a [[{upper}]] table"),
        (None, _) => section.to_owned(),
    }
}

fn read(setting: &Setting, value: &Spanned<DeValue<'_>>) -> Result<Value, Fault> {
    let kind = setting.kind;
    let here = |what| (value.span(), what);
    match (kind, value.get_ref()) {
        (Kind::Integer(_) | Kind::Bytes(_) | Kind::Duration(_) | Kind::Pin, DeValue::Integer(number)) => {
            // Beyond 128 bits the digits stand for themselves: they are out of bounds either way.
            let text = i128::from_str_radix(number.as_str(), number.radix())
                .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string());
            kind.parse(&text).map_err(here)
        }
        (
            Kind::Bytes(_)
            | Kind::Duration(_)
            | Kind::Text { .. }
            | Kind::Choice(_)
            | Kind::Pin
            | Kind::Mode
            | Kind::Address
            | Kind::Paths
            | Kind::Pattern
            | Kind::Secret { .. }
            | Kind::HttpUrl
            | Kind::RedisUrl,
            DeValue::String(text),
        ) => kind.parse(text).map_err(here),
        // 0o660, since 0660 is none of TOML's numbers, and 660 another one than it looks like.
        (Kind::Mode, DeValue::Integer(number)) if number.radix() == 8 => kind.parse(number.as_str()).map_err(here),
        (Kind::Bool, DeValue::Boolean(switch)) => Ok(Value::Bool(*switch)),
        (Kind::Addresses { .. }, DeValue::Array(items)) => {
            let addresses = items.iter().map(|item| address(setting, item)).collect::<Result<_, _>>()?;
            kind.addresses(addresses).map_err(here)
        }
        (Kind::Words(_), DeValue::Array(items)) => {
            let words = items.iter().map(|item| text(setting, item)).collect::<Result<Vec<_>, _>>()?;
            kind.words(words.into_iter()).map(Value::Words).map_err(here)
        }
        (Kind::Paths, DeValue::Array(items)) => {
            let paths = items.iter().map(|item| text(setting, item)).collect::<Result<_, _>>()?;
            kind.paths(paths).map_err(here)
        }
        (Kind::Patterns, DeValue::Array(items)) => {
            let patterns = items.iter().map(|item| pattern(setting, item)).collect::<Result<_, _>>()?;
            kind.patterns(patterns).map_err(here)
        }
        (Kind::Networks, DeValue::Array(items)) => {
            let networks = items.iter().map(|item| network(setting, item)).collect::<Result<_, _>>()?;
            kind.networks(networks).map_err(here)
        }
        (Kind::Fields, DeValue::Array(items)) => {
            let names = items.iter().map(|item| field_name(setting, item)).collect::<Result<_, _>>()?;
            kind.fields(names).map_err(here)
        }
        (Kind::Pin, DeValue::Array(items)) => {
            let cores = items.iter().map(|item| core(setting, item)).collect::<Result<Vec<_>, _>>()?;
            kind.parse(&cores.join(",")).map_err(here)
        }
        (_, other) => Err(here(mismatch(setting, other))),
    }
}

fn address(setting: &Setting, item: &Spanned<DeValue<'_>>) -> Result<Listen, Fault> {
    match item.get_ref() {
        DeValue::String(text) => text.trim().parse().map_err(|what| (item.span(), what)),
        other => Err((item.span(), mismatch(setting, other))),
    }
}

fn text<'a>(setting: &Setting, item: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Fault> {
    match item.get_ref() {
        DeValue::String(text) => Ok(text),
        other => Err((item.span(), mismatch(setting, other))),
    }
}

fn network(setting: &Setting, item: &Spanned<DeValue<'_>>) -> Result<Network, Fault> {
    match item.get_ref() {
        DeValue::String(text) => text.trim().parse().map_err(|what| (item.span(), what)),
        other => Err((item.span(), mismatch(setting, other))),
    }
}

fn pattern(setting: &Setting, item: &Spanned<DeValue<'_>>) -> Result<Pattern, Fault> {
    match item.get_ref() {
        DeValue::String(text) => text.parse().map_err(|what| (item.span(), what)),
        other => Err((item.span(), mismatch(setting, other))),
    }
}

fn field_name(setting: &Setting, item: &Spanned<DeValue<'_>>) -> Result<FieldName, Fault> {
    match item.get_ref() {
        DeValue::String(text) => text.trim().parse().map_err(|what| (item.span(), what)),
        other => Err((item.span(), mismatch(setting, other))),
    }
}

fn core<'a>(setting: &Setting, item: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Fault> {
    match item.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str()),
        other => Err((item.span(), mismatch(setting, other))),
    }
}

fn mismatch(setting: &Setting, found: &DeValue<'_>) -> String {
    let example = match setting.kind.parse(setting.default) {
        Ok(value) => value.to_toml(),
        Err(_) => setting.default.to_owned(),
    };
    let (found, expected) = (noun(found), setting.kind.noun());
    let name = setting.name_in_entry().unwrap_or(setting.name());
    format!("{found} stands where {expected} belongs; write it like {name} = {example}")
}

fn noun(found: &DeValue<'_>) -> &'static str {
    match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

//! The configuration file: TOML, one level of sections.

use std::collections::HashSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::effective::Effective;
use super::error::{Problem, shown};
use super::kind::{Kind, Value};
use super::listen::Listen;
use super::source::SourceFile;
use super::suggest::{nearest, nearest_key};
use super::table::{SETTINGS, Setting, is_section};

/// Sets what the file says, and collects everything that is wrong with it.
pub(super) fn apply(file: &SourceFile, effective: &mut Effective, problems: &mut Vec<Problem>) {
    let (table, errors) = DeTable::parse_recoverable(file.text());
    let mut reader = Reader { file, effective, problems: Vec::new() };
    let mut lines_broken = HashSet::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        // What the parser finds behind an error on the same line is mostly the same mistake again.
        if lines_broken.insert(file.line_at(span.start)) {
            problems.push(reader.syntax_problem(span, error.message()));
        }
    }
    reader.table(table.get_ref(), None);
    // Below a broken section header it is not known which section the lines belong to.
    let header_broken = lines_broken.iter().filter(|line| file.is_header(**line)).min().copied();
    let is_sure = |line| !lines_broken.contains(&line) && header_broken.is_none_or(|header| line < header);
    problems.extend(reader.problems.into_iter().filter(|problem| is_sure(problem.line())));
}

/// What is wrong with a value, and the bytes it is about.
type Fault = (Range<usize>, String);

struct Reader<'a> {
    file: &'a SourceFile,
    effective: &'a mut Effective,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn syntax_problem(&self, span: Range<usize>, message: &str) -> Problem {
        let text = match self.file.text().get(span.clone()) {
            Some(token) if !token.trim().is_empty() => {
                format!("not valid TOML at {}: {message}", shown(token))
            }
            _ => format!("not valid TOML: {message}"),
        };
        Problem::elsewhere(self.file.at(span.start), text)
    }

    fn table(&mut self, table: &DeTable<'_>, section: Option<&str>) {
        for (name, value) in table {
            let key = match section {
                Some(section) => format!("{section}.{}", name.get_ref()),
                None => name.get_ref().to_string(),
            };
            // A quoted key with a dot in it is one name to TOML, not a section and a name.
            let setting = Setting::find(&key).filter(|setting| setting.section() == section);
            match (setting, value.get_ref()) {
                (Some(setting), _) => self.value(setting, value),
                (None, DeValue::Table(inner)) if section.is_none() && is_section(&key) => self.table(inner, Some(&key)),
                (None, _) => {
                    let text = unknown(&key, section, value.get_ref());
                    self.problems.push(Problem::elsewhere(self.file.at(name.span().start), text));
                }
            }
        }
    }

    fn value(&mut self, setting: &'static Setting, value: &Spanned<DeValue<'_>>) {
        let (span, parsed) = match read(setting, value) {
            Ok(parsed) => (value.span(), Ok(parsed)),
            Err((span, what)) => (span, Err(what)),
        };
        self.effective.set(setting, self.file.at(span.start), parsed, &mut self.problems);
    }
}

fn unknown(key: &str, section: Option<&str>, value: &DeValue<'_>) -> String {
    let shown_key = shown(key);
    if section.is_none() && is_section(key) {
        return format!("{key} is a section; write [{key}] on a line of its own and its settings below");
    }
    if section.is_none() && matches!(value, DeValue::Table(_)) {
        let sections = SETTINGS.iter().filter_map(Setting::section);
        return match nearest(key, sections) {
            Some(near) => format!("unknown section {shown_key}; did you mean {near}?"),
            None => format!("unknown section {shown_key}; remove it (`fanfare config` shows all there are)"),
        };
    }
    match nearest_key(key).and_then(Setting::find) {
        Some(near) if near.section() == section => {
            format!("unknown key {shown_key}; did you mean {}?", near.key)
        }
        Some(near) => match near.section() {
            Some(other) => format!("unknown key {shown_key}; did you mean {} in section [{other}]?", near.name()),
            None => format!("unknown key {shown_key}; did you mean {} above the first section?", near.key),
        },
        None => {
            format!("unknown key {shown_key}; remove it (`fanfare config` shows all there are)")
        }
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
            Kind::Bytes(_) | Kind::Duration(_) | Kind::Text { .. } | Kind::Choice(_) | Kind::Pin,
            DeValue::String(text),
        ) => kind.parse(text).map_err(here),
        (Kind::Bool, DeValue::Boolean(switch)) => Ok(Value::Bool(*switch)),
        (Kind::Addresses, DeValue::Array(items)) => {
            let addresses = items.iter().map(|item| address(setting, item)).collect::<Result<_, _>>()?;
            kind.addresses(addresses).map_err(here)
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

fn core<'a>(setting: &Setting, item: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Fault> {
    match item.get_ref() {
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str()),
        other => Err((item.span(), mismatch(setting, other))),
    }
}

fn mismatch(setting: &Setting, found: &DeValue<'_>) -> String {
    let found = match found {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    let example = match setting.kind.parse(setting.default) {
        Ok(value) => value.to_toml(),
        Err(_) => setting.default.to_owned(),
    };
    let noun = setting.kind.noun();
    format!("{found} stands where {noun} belongs; write it like {} = {example}", setting.name())
}

//! Entries of lists as environment and flags write them: the names of a table on one line, with commas between them, and
//! semicolons between entries.

use super::error::Problem;
use super::kind::Kind;
use super::source::Source;
use super::suggest::nearest_row;
use super::table::{List, Setting};
use super::values::Values;

/// Reads entries. White space around an entry, a name or a value is ignored; a comma or a semicolon always ends what it
/// stands behind. No message repeats what was written, which may be a secret.
pub(super) fn parse(list: &'static List, text: &str, source: &Source, problems: &mut Vec<Problem>) -> Vec<Values> {
    text.split(';').filter_map(|entry| parse_one(list, entry.trim(), source, problems)).collect()
}

fn parse_one(list: &'static List, text: &str, source: &Source, problems: &mut Vec<Problem>) -> Option<Values> {
    let mut entry = Values::defaults(list.rows);
    let pairs = text.split(',');
    let mut found: Vec<String> = pairs.filter_map(|pair| set_pair(list, &mut entry, pair, source).err()).collect();
    if found.is_empty() {
        found.extend((list.fault)(&entry));
    }
    let is_good = found.is_empty();
    problems.extend(found.into_iter().map(|what| Problem::new(source.clone(), list.name, what)));
    is_good.then_some(entry)
}

/// Takes one `name=value` of an entry, or says what is wrong with it.
fn set_pair(list: &'static List, entry: &mut Values, pair: &str, source: &Source) -> Result<(), String> {
    let Some((name, value)) = pair.split_once('=') else {
        // It may be what stands behind a comma in a secret.
        return Err(format!(
            "there is a part without =; write {}, and a value with a comma or a semicolon into the file",
            list.example
        ));
    };
    let (name, value) = (name.trim(), value.trim());
    let Some(setting) = list.rows.iter().find(|row| row.name_in_entry() == Some(name)) else {
        let near = nearest_row(list.rows, &format!("{}.{name}", list.name)).and_then(Setting::name_in_entry);
        let names: Vec<_> = list.rows.iter().filter_map(Setting::name_in_entry).collect();
        let what = format!("there is a name that a {} does not have", list.entry);
        return Err(match near {
            Some(near) => format!("{what}; did you mean {near}?"),
            None => format!("{what}; it may have {}", names.join(", ")),
        });
    };
    if matches!(setting.kind, Kind::Secret { .. }) && matches!(source, Source::Flag(_)) {
        return Err(format!(
            "everybody on this machine can read a secret in a flag; give secret_file, or the secret in {} or the file",
            list.env()
        ));
    }
    if entry.is_said(setting.key) {
        return Err(format!("{name} is given twice; give it once"));
    }
    match setting.kind.parse(value) {
        Ok(value) => entry.set(setting, source.clone(), value),
        Err(what) => {
            entry.fault(setting);
            return Err(format!("{name}: {what}"));
        }
    }
    Ok(())
}

//! Did you mean …? The known name nearest to a wrong one, the same rule for file, environment, flags and commands.

use super::table::{ENV_CONFIG, ENV_PREFIX, LISTS, List, SETTINGS, Setting};

/// Longest wrong name that is compared, in bytes; comparing costs its square.
const WORD_BYTES_MAX: usize = 64;

/// The candidate that differs from `word` in a typing slip or two. Case and separators do not count.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = normal(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&word, &normal(candidate)), candidate))
        .filter(|(slips, candidate)| *slips <= (candidate.len() / 4).clamp(1, 3))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// The row nearest to `word`; also the one whose name is right and whose section is wrong or missing.
pub(super) fn nearest_row(rows: &'static [Setting], word: &str) -> Option<&'static Setting> {
    let near = nearest(word, rows.iter().map(|row| row.key));
    near.and_then(|key| rows.iter().find(|row| row.key == key)).or_else(|| {
        let name = normal(word.rsplit_once('.').map_or(word, |(_, name)| name));
        rows.iter().find(|row| normal(row.name()) == name)
    })
}

/// The flag nearest to `word`, without `--`. What is near to a key of a list's entries is meant for the list.
pub fn nearest_flag(word: &str) -> Option<&'static str> {
    let in_lists = LISTS.into_iter().flat_map(|list| list.rows);
    let names = LISTS.into_iter().map(|list| list.name);
    let keys = SETTINGS.iter().chain(in_lists.clone()).map(|setting| setting.key).chain(names);
    let list_of = |key: &str| in_lists.clone().find(|row| row.key == key).and_then(Setting::list);
    match nearest(word, keys) {
        Some(near) => Some(list_of(near).map_or(near, |list| list.name)),
        None => nearest_row(SETTINGS, word).map(|setting| setting.key),
    }
}

/// The environment variable nearest to `name`.
pub(super) fn nearest_env(name: &str) -> Option<String> {
    if nearest(name, [ENV_CONFIG]).is_some() {
        return Some(ENV_CONFIG.to_owned());
    }
    let near = nearest_flag(name.strip_prefix(ENV_PREFIX)?)?;
    Setting::find(near).map(Setting::env).or_else(|| List::find(near).map(List::env))
}

fn normal(name: &str) -> String {
    name.chars().map(|c| if matches!(c, '.' | '-') { '_' } else { c.to_ascii_lowercase() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_forgiven_and_strangers_are_not() {
        for (word, key) in [
            ("recators", Some("reactors")),
            ("lisen", Some("listen")),
            ("heartbeat.intervall", Some("heartbeat.interval")),
            ("heartbeat-interval", Some("heartbeat.interval")),
            ("Heartbeat.Interval", Some("heartbeat.interval")),
            ("limits.interval", Some("heartbeat.interval")),
            ("nodelay", Some("tcp.nodelay")),
            ("heartbeat.listen", Some("listen")),
            ("limits.connection_max", Some("limits.connections_max")),
            ("history.size", Some("inbox.history.size")),
            ("inox.history.size", Some("inbox.history.size")),
            ("room", Some("room")),
            ("rooms", Some("room")),
            ("room.history.size", Some("room")),
            ("rooms.match", Some("room")),
            ("rooms.join_texts", Some("rooms.join_text")),
            ("redis", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest_flag(word), key, "{word}");
        }
        assert_eq!(nearest_flag(&"reactors".repeat(100)), None);
    }

    #[test]
    fn variables_are_suggested_by_their_own_name() {
        for (name, near) in [
            ("FANFARE_HEARTBEAT_INTERVALL", Some("FANFARE_HEARTBEAT_INTERVAL")),
            ("FANFARE_INTERVAL", Some("FANFARE_HEARTBEAT_INTERVAL")),
            ("FANFARE_CONFIGS", Some("FANFARE_CONFIG")),
            ("FANFARE_ROOMS", Some("FANFARE_ROOM")),
            ("FANFARE_ROOM_HISTORY_SIZE", Some("FANFARE_ROOM")),
            ("FANFARE_INBOX_HISTORY_SIZES", Some("FANFARE_INBOX_HISTORY_SIZE")),
            ("FANFARE_TOKEN", None),
        ] {
            assert_eq!(nearest_env(name).as_deref(), near, "{name}");
        }
    }
}

//! Did you mean …? The known name nearest to a wrong one, the same rule for file, environment, flags and commands.

use super::table::{ENV_CONFIG, SETTINGS};

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

/// The key of the table nearest to `word`; also the one whose name is right and whose section is wrong or missing.
pub fn nearest_key(word: &str) -> Option<&'static str> {
    let name = normal(word.rsplit_once('.').map_or(word, |(_, name)| name));
    nearest(word, SETTINGS.iter().map(|setting| setting.key))
        .or_else(|| SETTINGS.iter().find(|setting| normal(setting.name()) == name).map(|setting| setting.key))
}

/// The environment variable nearest to `name`.
pub(super) fn nearest_env(name: &str) -> Option<String> {
    if nearest(name, [ENV_CONFIG]).is_some() {
        return Some(ENV_CONFIG.to_owned());
    }
    let word = name.strip_prefix(super::ENV_PREFIX)?;
    let key = nearest_key(word)?;
    SETTINGS.iter().find(|setting| setting.key == key).map(super::Setting::env)
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
            ("redis", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest_key(word), key, "{word}");
        }
        assert_eq!(nearest_key(&"reactors".repeat(100)), None);
    }

    #[test]
    fn variables_are_suggested_by_their_own_name() {
        for (name, near) in [
            ("FANFARE_HEARTBEAT_INTERVALL", Some("FANFARE_HEARTBEAT_INTERVAL")),
            ("FANFARE_INTERVAL", Some("FANFARE_HEARTBEAT_INTERVAL")),
            ("FANFARE_CONFIGS", Some("FANFARE_CONFIG")),
            ("FANFARE_TOKEN", None),
        ] {
            assert_eq!(nearest_env(name).as_deref(), near, "{name}");
        }
    }
}

//! The checks: pure functions from a machine and a configuration to findings.

mod cores;
mod descriptors;
mod memory;
mod neighbours;
mod network;

use super::{Finding, Level, Machine};
use crate::config::Config;

/// What the machine's settings mean for a node so configured, in a fixed order.
pub fn examine(machine: &Machine, config: &Config) -> Vec<Finding> {
    let node = Node {
        config,
        connections: config.limits.connections_max as u64,
        reactors: config.reactor_count(machine.cores.allowed.len()) as u64,
    };
    let mut findings = descriptors::check(&machine.descriptors, &node);
    findings.extend(network::check(&machine.network, &machine.cores, &node));
    findings.extend(memory::check(&machine.memory, &node));
    findings.extend(cores::check(&machine.cores, &node));
    findings
}

/// The node to be: what is configured, and what follows from it on this machine.
struct Node<'a> {
    config: &'a Config,
    connections: u64,
    reactors: u64,
}

fn good(check: &'static str, read: String, means: impl Into<String>) -> Finding {
    Finding { check, level: Level::Good, read, means: means.into(), bites_from: None, mend: None }
}

fn note(check: &'static str, read: String, means: impl Into<String>, mend: Option<String>) -> Finding {
    Finding { check, level: Level::Note, read, means: means.into(), bites_from: None, mend }
}

/// A setting the node cannot even start with.
fn fatal(check: &'static str, read: String, means: impl Into<String>, mend: String) -> Finding {
    Finding { check, level: Level::Bites, read, means: means.into(), bites_from: Some(1), mend: Some(mend) }
}

fn unreadable(check: &'static str, what: &str) -> Finding {
    note(check, format!("{what} cannot be read here"), "ask the operator of the machine or the container", None)
}

/// A setting that is enough for `carries` connections; with one more, `then` happens.
fn capacity(check: &'static str, read: String, carries: u64, node: &Node<'_>, then: &str, mend: String) -> Finding {
    let bites_from = (carries < u64::MAX).then(|| carries.saturating_add(1));
    if carries >= node.connections {
        let means = match bites_from {
            Some(_) => format!("enough for {} connections", grouped(carries)),
            None => "no limit".to_owned(),
        };
        return Finding { bites_from, ..good(check, read, means) };
    }
    Finding { check, level: Level::Bites, read, means: then.to_owned(), bites_from, mend: Some(mend) }
}

fn sysctl(key: &str, value: impl std::fmt::Display) -> String {
    let value = value.to_string();
    match value.contains(' ') {
        true => format!("sysctl -w {key}=\"{value}\""),
        false => format!("sysctl -w {key}={value}"),
    }
}

/// A number as people read it: `12,345`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of bytes as people read it, in the largest unit that leaves at least two digits: `23.5 GiB`.
fn bytes(number: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (number as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 100.0 && value.fract() >= 0.05);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
        assert_eq!([0, 1023, 1 << 20, 1_610_612_736].map(bytes), ["0 bytes", "1023 bytes", "1 MiB", "1.5 GiB"]);
        assert_eq!(sysctl("a.b", 7), "sysctl -w a.b=7");
        assert_eq!(sysctl("a.b", "1 2"), "sysctl -w a.b=\"1 2\"");
    }

    #[test]
    fn a_capacity_bites_from_one_more_than_it_carries() {
        let config = Config::default();
        let node = Node { config: &config, connections: 100, reactors: 1 };
        let found = |carries| {
            let finding = capacity("x", String::new(), carries, &node, "then", "mend".to_owned());
            (finding.level, finding.bites_from)
        };
        assert_eq!(found(99), (Level::Bites, Some(100)));
        assert_eq!(found(100), (Level::Good, Some(101)));
        assert_eq!(found(u64::MAX), (Level::Good, None));
    }
}

//! What the flags of `market` mean.

use std::time::Duration;

use crate::bench::BenchError;
use crate::bench::flags::Given;
use crate::bench::limits::{CONNECTIONS_MAX, INTERVAL_MS_MAX};
use crate::config::{Bounds, Kind, Value};

/// How a subscriber gets updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Mode {
    /// Every one.
    All,
    /// The newest of each item, in rounds.
    Latest,
}

/// Subscribers who want the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) struct Group {
    /// How many.
    pub(in crate::bench) count: usize,
    /// How they get updates.
    pub(in crate::bench) mode: Mode,
    /// The time between two rounds, in milliseconds; 0: whenever they can take one.
    pub(in crate::bench) interval_ms: u64,
}

/// What shapes `market`.
#[derive(Clone, Debug)]
pub struct MarketOptions {
    /// Items that are updated.
    pub(in crate::bench) instruments: usize,
    /// Updates a second, of all items together.
    pub(in crate::bench) updates_per_s: u64,
    /// Updates in one command.
    pub(in crate::bench) batch: usize,
    /// The subscribers, in the order of their connections.
    pub(in crate::bench) groups: Vec<Group>,
    /// Items that each subscriber wants; 0: all of them.
    pub(in crate::bench) items: usize,
    /// Whether all subscribers want the same ones.
    pub(in crate::bench) same_items: bool,
    /// Subscribers in mode `latest` that stop reading in the second half of each round.
    pub(in crate::bench) stalled: usize,
    /// Every so many updates of an item one removes it; 0: none does.
    pub(in crate::bench) removals: u32,
    /// How often a subscriber drops its connection.
    pub(in crate::bench) drop_every: Option<Duration>,
    /// How long it stays away.
    pub(in crate::bench) away: Duration,
    /// Whether a connection that ends comes back instead of being a fault, and what was not acked is sent again.
    pub(in crate::bench) resilient: bool,
}

impl Mode {
    /// Its name on the wire.
    pub(in crate::bench) fn name(self) -> &'static str {
        match self {
            Mode::All => "all",
            Mode::Latest => "latest",
        }
    }
}

impl Group {
    /// Its name on the command line.
    fn text(self) -> String {
        let Group { count, mode, interval_ms } = self;
        match interval_ms {
            0 => format!("{}={count}", mode.name()),
            ms => format!("{}@{ms}ms={count}", mode.name()),
        }
    }

    /// Reads `all=10`, `latest=10` or `latest@100ms=10`.
    fn parse(text: &str) -> Result<Group, String> {
        let wrong = || format!("{text:?} is no group of subscribers; write all=10, latest=10 or latest@100ms=10");
        let (kind, count) = text.split_once('=').ok_or_else(wrong)?;
        let (mode, interval) = kind.split_once('@').map_or((kind, None), |(mode, interval)| (mode, Some(interval)));
        let mode = match mode.trim() {
            "all" => Mode::All,
            "latest" => Mode::Latest,
            _ => return Err(wrong()),
        };
        let interval_ms = match interval {
            None => 0,
            Some(_) if mode == Mode::All => return Err(format!("{text:?}: mode all has no interval; leave it out")),
            Some(interval) => match INTERVAL.parse(interval).map_err(|why| format!("{text:?}: {why}"))? {
                Value::Millis(ms) => ms,
                _ => return Err(wrong()),
            },
        };
        let count = count.trim().parse().ok().filter(|count| (1..=CONNECTIONS_MAX).contains(count));
        Ok(Group { count: count.ok_or_else(wrong)? as usize, mode, interval_ms })
    }
}

const INTERVAL: Kind = Kind::Duration(Bounds { min: 1, max: INTERVAL_MS_MAX, zero: true });

impl MarketOptions {
    /// Reads the flags. Where `--subscribers` is not given, `connections` get the newest values every 100 ms.
    pub(in crate::bench) fn from_given(given: &Given<'_>, connections: usize) -> Result<MarketOptions, BenchError> {
        let millis = |name| given.integer(name).map(|ms| ms.map(Duration::from_millis));
        let groups = match given.text("subscribers") {
            None => vec![Group { count: connections, mode: Mode::Latest, interval_ms: 100 }],
            Some(text) => text
                .split(',')
                .map(Group::parse)
                .collect::<Result<_, _>>()
                .map_err(|why| BenchError::Options(format!("--subscribers: {why}")))?,
        };
        Ok(MarketOptions {
            instruments: given.count("instruments")?.unwrap_or(100),
            updates_per_s: given.integer("updates")?.unwrap_or(20_000),
            batch: given.count("batch")?.unwrap_or(1),
            groups,
            items: given.count("items")?.unwrap_or(0),
            same_items: given.is_set("same-items")?,
            stalled: given.count("stalled")?.unwrap_or(0),
            removals: given.integer("removals")?.map_or(0, |removals| removals as u32),
            drop_every: millis("drop-every")?,
            away: millis("away")?.unwrap_or(Duration::ZERO),
            resilient: given.is_set("resilient")?,
        })
    }

    /// Subscribers of all groups.
    pub(in crate::bench) fn subscribers(&self) -> usize {
        self.groups.iter().map(|group| group.count).sum()
    }

    /// The groups as the command line has them.
    pub(in crate::bench) fn groups_text(&self) -> String {
        self.groups.iter().map(|group| group.text()).collect::<Vec<_>>().join(",")
    }

    /// What is wrong with several of them together, with so many publishers and so much patience.
    pub(in crate::bench) fn wrong(&self, publishers: usize, timeout: Duration) -> Option<String> {
        let MarketOptions { instruments, batch, items, .. } = self;
        if publishers > *instruments {
            return Some(format!("--publishers {publishers} are more than --instruments {instruments}; write less"));
        }
        if items > instruments {
            return Some(format!("--items {items} are more than --instruments {instruments}; write at most as many"));
        }
        if *batch as u64 > self.updates_per_s {
            return Some(format!(
                "--batch {batch} is more than a second's --updates {}; write at most as many",
                self.updates_per_s
            ));
        }
        let latest = self.groups.iter().filter(|group| group.mode == Mode::Latest).map(|group| group.count).sum();
        if self.stalled >= self.subscribers() || self.stalled > latest {
            return Some(format!("--stalled {} leaves no subscriber to be measured; write less", self.stalled));
        }
        if self.stalled > 0 && self.drop_every.is_some() {
            return Some("--stalled and --drop-every are two measurements; write one of them".to_owned());
        }
        let longest_ms = self.groups.iter().map(|group| group.interval_ms).max().unwrap_or(0);
        if Duration::from_millis(longest_ms) >= timeout {
            return Some(format!("--timeout {timeout:?} is over before an interval of {longest_ms} ms; write more"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_as_they_are_written() {
        for (text, group) in [
            ("all=3", Group { count: 3, mode: Mode::All, interval_ms: 0 }),
            ("latest=4", Group { count: 4, mode: Mode::Latest, interval_ms: 0 }),
            ("latest@1000ms=5", Group { count: 5, mode: Mode::Latest, interval_ms: 1000 }),
        ] {
            assert_eq!(Group::parse(text), Ok(group));
            assert_eq!(group.text(), text);
        }
        for text in ["", "all", "all=0", "all=x", "some=3", "all@1s=3", "latest@x=3", "latest@-1s=3", "=3"] {
            assert!(Group::parse(text).is_err(), "{text}");
        }
    }
}

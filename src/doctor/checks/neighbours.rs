//! Other processes whose threads keep to the cores that this node's reactors run on.

use std::fmt::Write;

use super::cores::{kept_cores, list};
use super::{Node, good, note, unreadable};
use crate::doctor::{Cores, Finding, Neighbour};

/// Processes named in a report; the others are a number.
const NAMED_MAX: usize = 8;

pub(super) fn check(cores: &Cores, node: &Node<'_>) -> Finding {
    let check = "neighbours";
    let Some(neighbours) = &cores.neighbours else {
        return unreadable(check, "which processes keep to which cores");
    };
    if neighbours.is_empty() {
        let read = "no other fanfare and no pinned thread of another process on these cores".to_owned();
        return good(check, read, "as far as this user sees");
    }
    let allowed = cores.allowed.len() as u64;
    let others: u64 = neighbours.iter().map(|neighbour| neighbour.reactors).sum();
    let taken: Vec<usize> = neighbours.iter().flat_map(|neighbour| neighbour.pinned.iter().copied()).collect();
    let is_taken = |core: &&usize| taken.contains(core);
    let shared: Vec<usize> = kept_cores(cores, node).iter().filter(is_taken).copied().collect();
    let read = described(neighbours);
    if !shared.is_empty() {
        let means = format!("this node's reactors keep to core {} as well: each gets a part of it", list(&shared));
        let free: Vec<usize> = cores.allowed.iter().filter(|core| !is_taken(core)).copied().collect();
        let mend = match free.get(..node.reactors as usize) {
            Some(free) => format!("fanfare serve --reactors {} --pin {}", node.reactors, list(free)),
            None => "fanfare serve --pin none".to_owned(),
        };
        return note(check, read, means, Some(mend));
    }
    if others + node.reactors > allowed {
        let means = format!("with this node's that is {} reactors on {allowed} cores", others + node.reactors);
        let left = allowed.saturating_sub(others).max(1);
        let mend = (left < node.reactors).then(|| format!("fanfare serve --reactors {left}"));
        return note(check, read, means, mend);
    }
    good(check, read, "there are cores enough for all")
}

/// `fanfare 4711: 2 reactors, pinned to 0,1; redis-server 900: pinned to 3`.
fn described(neighbours: &[Neighbour]) -> String {
    let mut read = String::new();
    for Neighbour { name, pid, reactors, pinned } in neighbours.iter().take(NAMED_MAX) {
        let separator = if read.is_empty() { "" } else { "; " };
        let reactors = match reactors {
            0 => String::new(),
            1 => " 1 reactor,".to_owned(),
            more => format!(" {more} reactors,"),
        };
        let pinned = match pinned.is_empty() {
            true => " not pinned".to_owned(),
            false => format!(" pinned to {}", list(pinned)),
        };
        write!(read, "{separator}{name} {pid}:{reactors}{pinned}").expect("a string takes all that is written");
    }
    match neighbours.len().saturating_sub(NAMED_MAX) {
        0 => read,
        more => format!("{read}; and {more} more"),
    }
}

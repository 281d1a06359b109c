//! Descriptors: every connection is one.

use super::{Node, capacity, good, grouped, sysctl, unreadable};
use crate::config::Role;
use crate::descriptors as shares;
use crate::doctor::{Descriptors, Finding};

pub(super) fn check(descriptors: &Descriptors, node: &Node<'_>) -> Vec<Finding> {
    vec![soft(descriptors), hard(descriptors, node), nr_open(descriptors, node), file_max(descriptors, node)]
}

/// What is to be asked for: the connections, those that are only in their handshake, and the node's own.
fn wanted(node: &Node<'_>) -> u64 {
    shares::wanted(node.connections, own(node))
}

fn own(node: &Node<'_>) -> u64 {
    let listeners = &node.config.listeners;
    let extra = shares::extra_places(node.config.has_listener(Role::Admin), node.config.has_listener(Role::Api));
    shares::own(node.reactors, listeners.len() as u64, extra) + node.config.auth.url_sockets_max()
}

/// How many connections so many descriptors allow.
fn carries(descriptors: u64, node: &Node<'_>) -> u64 {
    match descriptors {
        u64::MAX => u64::MAX,
        descriptors => shares::divide(descriptors, own(node), u64::MAX).connections,
    }
}

fn shown(limit: u64) -> String {
    match limit {
        u64::MAX => "unlimited".to_owned(),
        limit => grouped(limit),
    }
}

fn soft(descriptors: &Descriptors) -> Finding {
    let check = "descriptors_soft";
    let Some(soft) = descriptors.soft else { return unreadable(check, "the soft limit of open files") };
    good(check, format!("ulimit -Sn {}", shown(soft)), "fanfare raises it to the hard limit when it starts")
}

fn hard(descriptors: &Descriptors, node: &Node<'_>) -> Finding {
    let check = "descriptors_hard";
    let Some(hard) = descriptors.hard else { return unreadable(check, "the hard limit of open files") };
    let then = "limits.connections_max is cut to that when the node starts: one connection more is answered 503";
    let wanted = wanted(node);
    let mend = format!("ulimit -Hn {wanted}   # in the shell that starts it; LimitNOFILE={wanted} in a systemd unit");
    capacity(check, format!("ulimit -Hn {}", shown(hard)), carries(hard, node), node, then, mend)
}

fn nr_open(descriptors: &Descriptors, node: &Node<'_>) -> Finding {
    let check = "descriptors_nr_open";
    let Some(nr_open) = descriptors.nr_open else { return unreadable(check, "fs.nr_open") };
    let read = format!("fs.nr_open {}", grouped(nr_open));
    let then = "no process may have more descriptors, whatever its limits say";
    let mend = sysctl("fs.nr_open", wanted(node).next_power_of_two());
    capacity(check, read, carries(nr_open, node), node, then, mend)
}

fn file_max(descriptors: &Descriptors, node: &Node<'_>) -> Finding {
    let check = "descriptors_file_max";
    let Some(file_max) = descriptors.file_max else { return unreadable(check, "fs.file-max") };
    let open = descriptors.files_open.unwrap_or(0);
    let read = format!("fs.file-max {}, {} open", shown_file_max(file_max), grouped(open));
    let carries = if is_unlimited(file_max) { u64::MAX } else { carries(file_max.saturating_sub(open), node) };
    let then = "the whole machine is out of open files, other programs too";
    capacity(check, read, carries, node, then, sysctl("fs.file-max", 2 * (wanted(node) + open)))
}

/// Newer kernels leave the number near the top of 63 bits.
fn is_unlimited(file_max: u64) -> bool {
    file_max >= 1 << 60
}

fn shown_file_max(file_max: u64) -> String {
    match is_unlimited(file_max) {
        true => "unlimited".to_owned(),
        false => grouped(file_max),
    }
}

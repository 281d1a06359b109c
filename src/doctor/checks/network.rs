//! TCP: how many can come at once, what their buffers may take, and what stands between them and a core.

use super::{Node, bytes, capacity, good, grouped, note, sysctl, unreadable};
use crate::doctor::{Cores, Finding, Network, Nic};

/// Bytes of a page, for showing what `tcp_mem` amounts to: the size on x86 and on most others.
const PAGE_BYTES: u64 = 4096;

/// Least that `tcp.send_buffer` is advised to be: a few messages, so that the core does not wake for each.
const SEND_BUFFER_BYTES_MIN: u64 = 16 * 1024;

pub(super) fn check(network: &Network, cores: &Cores, node: &Node<'_>) -> Vec<Finding> {
    let mut findings = vec![
        backlog(network, node),
        syn_backlog(network, node),
        ports(network, node),
        time_wait(network),
        tcp_memory(network, node),
        full_buffers(network, node),
    ];
    findings.extend(cut_buffers(network, node));
    findings.push(conntrack(network, node));
    findings.push(busy_poll(network));
    findings.extend(network.nics.iter().map(|nic| queues(nic, cores)));
    findings
}

/// The kernel cuts what listeners ask for to `somaxconn`. What it bites is a storm, all connections coming at once.
fn backlog(network: &Network, node: &Node<'_>) -> Finding {
    let check = "backlog";
    let Some(somaxconn) = network.somaxconn else { return unreadable(check, "net.core.somaxconn") };
    let asked = u64::from(node.config.tcp.backlog);
    let read = format!("net.core.somaxconn {}, tcp.backlog {}", grouped(somaxconn), grouped(asked));
    let waiting = node.reactors * asked.min(somaxconn);
    if somaxconn >= asked {
        let means = format!("{} connections may wait to be accepted at once", grouped(waiting));
        return good(check, read, means);
    }
    let means = format!(
        "the kernel cuts tcp.backlog: where more than {} connect at once, as after a restart, the rest retries after a \
         second or more",
        grouped(waiting)
    );
    let bites_from = waiting.saturating_add(1);
    let mend = sysctl("net.core.somaxconn", asked);
    match bites_from <= node.connections {
        true => {
            let level = crate::doctor::Level::Bites;
            Finding { check, level, read, means, bites_from: Some(bites_from), mend: Some(mend) }
        }
        false => Finding { bites_from: Some(bites_from), ..note(check, read, means, Some(mend)) },
    }
}

/// Half-open connections: with syncookies the kernel answers beyond this queue too; without, it drops the requests of
/// strangers from three quarters of it on.
fn syn_backlog(network: &Network, node: &Node<'_>) -> Finding {
    let check = "syn_backlog";
    let Some(syn_backlog) = network.syn_backlog else {
        return unreadable(check, "net.ipv4.tcp_max_syn_backlog");
    };
    let syncookies = network.syncookies.unwrap_or(0);
    let read = format!("net.ipv4.tcp_max_syn_backlog {}, net.ipv4.tcp_syncookies {syncookies}", grouped(syn_backlog));
    if syncookies > 0 {
        return good(check, read, "syncookies answer where half-open connections fill the queue");
    }
    let waiting = syn_backlog / 4 * 3;
    if waiting >= u64::from(node.config.tcp.backlog) {
        return good(check, read, "more half-open connections than tcp.backlog asks for");
    }
    let means = format!("without syncookies, strangers are dropped from {} half-open connections on", grouped(waiting));
    note(check, read, means, Some(sysctl("net.ipv4.tcp_syncookies", 1)))
}

/// A server's own connections share its one port; who connects from one address to one address needs a port for each.
fn ports(network: &Network, node: &Node<'_>) -> Finding {
    let check = "ports";
    let Some([first, last]) = network.ports else { return unreadable(check, "net.ipv4.ip_local_port_range") };
    let count = (last + 1).saturating_sub(first);
    let read = format!("net.ipv4.ip_local_port_range {first} {last}");
    if count >= node.connections {
        return good(check, read, "a proxy or load generator here has ports enough to one address");
    }
    let means = format!(
        "nothing to this server; a proxy or load generator on this machine gets {} connections to one address, and \
         more only from several addresses of its own or over a Unix socket",
        grouped(count)
    );
    note(check, read, means, (first > 1024).then(|| sysctl("net.ipv4.ip_local_port_range", "1024 65535")))
}

fn time_wait(network: &Network) -> Finding {
    let check = "tw_reuse";
    let Some(tw_reuse) = network.tw_reuse else { return unreadable(check, "net.ipv4.tcp_tw_reuse") };
    let read = format!("net.ipv4.tcp_tw_reuse {tw_reuse}");
    match tw_reuse {
        0 => {
            let means = "a proxy or load generator on this machine cannot use a port again for a minute after a close";
            note(check, read, means, Some(sysctl("net.ipv4.tcp_tw_reuse", 1)))
        }
        2 => good(check, read, "ports of closed connections are used again, for loopback"),
        _ => good(check, read, "ports of closed connections are used again"),
    }
}

/// A socket that holds unsent or unread bytes is charged a page at least, so pages are connections under way.
fn tcp_memory(network: &Network, node: &Node<'_>) -> Finding {
    let check = "tcp_mem";
    let Some([_, pressure, max]) = network.tcp_mem_pages else { return unreadable(check, "net.ipv4.tcp_mem") };
    let read = format!(
        "net.ipv4.tcp_mem: saves from {} pages, drops from {} ({})",
        grouped(pressure),
        grouped(max),
        bytes(max.saturating_mul(PAGE_BYTES))
    );
    let mend = sysctl(
        "net.ipv4.tcp_mem",
        format!("{} {} {}", node.connections * 2, node.connections * 3, node.connections * 4),
    );
    let then = "a message to everyone takes a page of each connection: TCP is out of memory and drops segments";
    if pressure < node.connections && node.connections <= max {
        let means = format!(
            "a message to everyone takes a page of each connection: from {} on, TCP shrinks all buffers",
            grouped(pressure)
        );
        return note(check, read, means, Some(mend));
    }
    capacity(check, read, max, node, then, mend)
}

/// Consumers that read nothing fill their send buffers before fanfare's own bounds begin to count.
fn full_buffers(network: &Network, node: &Node<'_>) -> Finding {
    let check = "send_buffers";
    let (Some([_, _, tuned_max]), Some([_, _, max])) = (network.wmem, network.tcp_mem_pages) else {
        return unreadable(check, "net.ipv4.tcp_wmem");
    };
    // The kernel doubles what is asked for, to have room for its own bookkeeping.
    let (each, source) = match node.config.tcp.send_buffer as u64 {
        0 => (tuned_max, "net.ipv4.tcp_wmem"),
        asked => (2 * asked.min(network.wmem_max.unwrap_or(asked)), "tcp.send_buffer"),
    };
    let all = max.saturating_mul(PAGE_BYTES);
    let full = all / each.max(1);
    let read = format!("{source}: up to {} each, net.ipv4.tcp_mem: {} for all", bytes(each), bytes(all));
    if full >= node.connections {
        return good(check, read, "all send buffers may be full at once");
    }
    let means = format!("where {} consumers stall at once, their buffers fill TCP's memory", grouped(full + 1));
    let fits = all / node.connections.max(1) / 2 / 1024 * 1024;
    let mend = match fits >= SEND_BUFFER_BYTES_MIN {
        true => format!("fanfare serve --tcp.send_buffer {fits}"),
        false => {
            let pages = node.connections * 2 * SEND_BUFFER_BYTES_MIN / PAGE_BYTES;
            let tcp_mem = sysctl("net.ipv4.tcp_mem", format!("{} {} {pages}", pages / 2, pages / 4 * 3));
            format!("{tcp_mem} && fanfare serve --tcp.send_buffer {SEND_BUFFER_BYTES_MIN}")
        }
    };
    note(check, read, means, Some(mend))
}

/// The kernel cuts the sizes that are asked for without a word.
fn cut_buffers(network: &Network, node: &Node<'_>) -> Vec<Finding> {
    let tcp = &node.config.tcp;
    let settings = [
        ("send_buffer_cut", "tcp.send_buffer", tcp.send_buffer as u64, "net.core.wmem_max", network.wmem_max),
        ("receive_buffer_cut", "tcp.receive_buffer", tcp.receive_buffer as u64, "net.core.rmem_max", network.rmem_max),
    ];
    let cut = |(check, setting, asked, key, max): (&'static str, &str, u64, &str, Option<u64>)| {
        let max = max.filter(|max| *max < asked)?;
        let read = format!("{key} {}, {setting} {}", grouped(max), grouped(asked));
        let means = format!("the kernel cuts {setting} to {}", grouped(max));
        Some(note(check, read, means, Some(sysctl(key, asked))))
    };
    settings.into_iter().filter_map(cut).collect()
}

fn conntrack(network: &Network, node: &Node<'_>) -> Finding {
    let check = "conntrack";
    let Some(max) = network.conntrack_max else {
        return good(check, "nf_conntrack is not loaded".to_owned(), "no table of connections to fill");
    };
    let count = network.conntrack_count.unwrap_or(0);
    let read = format!("net.netfilter.nf_conntrack_max {}, {} in use", grouped(max), grouped(count));
    let then = "the firewall's table of connections is full: packets of new ones are dropped";
    let mend = sysctl("net.netfilter.nf_conntrack_max", 2 * (node.connections + count));
    capacity(check, read, max.saturating_sub(count), node, then, mend)
}

fn busy_poll(network: &Network) -> Finding {
    let check = "busy_poll";
    let Some(busy_poll_us) = network.busy_poll_us else { return unreadable(check, "net.core.busy_poll") };
    let read = format!("net.core.busy_poll {busy_poll_us}");
    match busy_poll_us {
        0 => good(check, read, "off: a core that waits sleeps; 50 would shorten a packet's way at the price of CPU"),
        _ => note(check, read, "on: cores that wait spin for packets, and look busy", None),
    }
}

fn queues(nic: &Nic, cores: &Cores) -> Finding {
    let check = "nic_queues";
    let on = |on| if on { "on" } else { "off" };
    let Nic { name, rx_queues, tx_queues, rps, xps } = nic;
    let read = format!("{name}: {rx_queues} receive, {tx_queues} send queues, RPS {}, XPS {}", on(*rps), on(*xps));
    let count = cores.allowed.len();
    if *rx_queues < count && !rps {
        let means = format!("{rx_queues} of {count} cores take all packets of {name}");
        let mask = cores.allowed.iter().filter(|core| **core < 32).fold(0_u32, |mask, core| mask | 1 << core);
        let mend = format!("for q in /sys/class/net/{name}/queues/rx-*; do echo {mask:x} > $q/rps_cpus; done");
        return note(check, read, means, Some(mend));
    }
    if *tx_queues > 1 && count > 1 && !xps {
        let means = "sends of different cores may meet in one queue";
        let queue = format!("/sys/class/net/{name}/queues/tx-");
        let mend = format!("for q in {queue}*; do printf %x $((1 << (${{q##*-}} % {count}))) > $q/xps_cpus; done");
        return note(check, read, means, Some(mend));
    }
    good(check, read, "packets are spread over the cores")
}

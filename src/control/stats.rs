//! `/stats`: the node's counters as JSON, for the console and for scripts.

use std::time::Instant;

use super::Node;
use crate::ids::node_name;
use crate::metrics::{Ending, NodeVitals, ReactorMetrics, Recent, Snapshot, Vitals};
use crate::process;

/// The node's counters, with one entry a reactor. Percentiles are of a recent time, `window_ms`.
pub(super) fn json(node: &Node) -> String {
    let reactors = &node.metrics.reactors;
    let connections: u64 = reactors.iter().map(|reactor| reactor.read().connections).sum();
    let now = Recent::of_all(reactors);
    let (window, recent) = node.window.look(Instant::now(), now, node.started);
    let of_node = recent.iter().cloned().reduce(Recent::plus).map_or_else(String::new, |all| recent_json(&all));
    let each: Vec<String> = reactors.iter().zip(&recent).map(reactor_json).collect();
    let cluster = node.metrics.cluster.as_ref().map_or_else(String::new, |cluster| {
        let counts = cluster.read().named().into_iter().map(|(name, value)| format!("\"{name}\":{value}"));
        let nodes: Vec<String> = node.metrics.cluster_nodes.read().iter().map(node_json).collect();
        format!(",\"cluster\":{{{},\"nodes\":[{}]}}", counts.collect::<Vec<String>>().join(","), nodes.join(","))
    });
    format!(
        "{{\"version\":\"{}\",\"uptime_ms\":{},\"connections\":{connections},\"resident_bytes\":{},\
         \"window_ms\":{},{of_node},\"reactors\":[{}]{cluster}}}\n",
        env!("CARGO_PKG_VERSION"),
        node.started.elapsed().as_millis(),
        process::resident_bytes(),
        window.as_millis(),
        each.join(",")
    )
}

fn reactor_json((reactor, recent): (&ReactorMetrics, &Recent)) -> String {
    let counts = reactor.read();
    let tls = counts.tls;
    let numbers = [
        ("connections", counts.connections),
        ("opened", counts.opened),
        ("closed", counts.endings.total()),
        ("refused", counts.refusals.total()),
        ("messages_in", counts.messages_in),
        ("messages_out", counts.messages_out),
        ("deliveries", counts.deliveries),
        ("bytes_in", counts.bytes_in),
        ("bytes_out", counts.bytes_out),
        ("sends", counts.sends),
        ("pauses", counts.pauses),
        ("compressions", counts.compressions),
        ("compressions_discarded", counts.compressions_discarded),
        ("inflated_bytes", counts.inflated_bytes),
        ("queue_bytes", counts.queue_bytes),
        ("history_bytes", counts.history_bytes),
        ("slow_consumers", counts.endings.of(Ending::SlowConsumer)),
        ("turns", counts.turns),
        ("tls_full", tls.full),
        ("tls_resumed", tls.resumed),
        ("tls_failed", tls.failed),
        ("tls_sessions", tls.sessions),
    ];
    let numbers: Vec<String> = numbers.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{},{}}}", numbers.join(","), recent_json(recent))
}

/// A node of the cluster; percentiles in microseconds.
fn node_json(node: &NodeVitals) -> String {
    let NodeVitals { run, is_own, vitals } = node;
    let Vitals { connections, deliveries_per_s, delivery_latency_p99_us, turn_p99_us, resident_bytes } = vitals;
    format!(
        "{{\"node\":\"{}\",\"own\":{is_own},\"connections\":{connections},\
         \"deliveries_per_s\":{deliveries_per_s},\"delivery_latency_p99_us\":{},\"turn_p99_us\":{},\
         \"resident_bytes\":{resident_bytes}}}",
        node_name(*run),
        number_or_null(*delivery_latency_p99_us),
        number_or_null(*turn_p99_us)
    )
}

fn number_or_null(number: Option<u64>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

/// Percentiles in microseconds; `null` where nothing was observed.
fn recent_json(recent: &Recent) -> String {
    let us = |of: &Snapshot, share| number_or_null(of.quantile_us(share));
    let Recent { delivery_latency, turn_time } = recent;
    format!(
        "\"delivery_latency_us\":{{\"p50\":{},\"p99\":{}}},\"turn_us\":{{\"p50\":{},\"p99\":{}}}",
        us(delivery_latency, 0.5),
        us(delivery_latency, 0.99),
        us(turn_time, 0.5),
        us(turn_time, 0.99)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use super::super::{Access, ApiSettings, Doctor, Window};
    use super::*;
    use crate::auth::ApiKeys;
    use crate::current::Current;
    use crate::metrics::{Counts, NodeMetrics};
    use crate::reactor::{Pulse, post_office};

    #[test]
    fn statistics_are_json_with_one_entry_a_reactor() {
        let metrics = Arc::new(NodeMetrics::new(2));
        let mut counts = Counts { connections: 3, messages_in: 7, ..Counts::default() };
        counts.endings.count(Ending::SlowConsumer);
        counts.endings.count(Ending::Lost);
        metrics.reactors[1].publish(&counts);
        let (keys, trusted) = (Current::new(ApiKeys::new(&[0; 32])), Arc::default());
        let access = Access { listeners: Vec::new(), keys, loopback: false, trusted };
        metrics.reactors[1].delivery_latency.record(1_000_000, 5);
        let node = Node {
            pulse: Arc::new(Pulse::new(post_office(Vec::new()).0, metrics.clone())),
            stall_max: Duration::ZERO,
            reload: crossbeam_channel::bounded(1).0,
            metrics,
            started: Instant::now(),
            ready: Arc::new(AtomicBool::new(true)),
            access: Arc::new(access),
            tokens: Current::default(),
            post: post_office(Vec::new()).0,
            window: Arc::new(Window::default()),
            doctor: Arc::new(Doctor::new(String::new)),
            run: 1,
            revocations: None,
            api: ApiSettings { body_bytes_max: 1, message_bytes_max: 1, has_tokens: false, keyed: None },
        };
        let stats: serde_json::Value = serde_json::from_str(&json(&node)).unwrap();
        assert_eq!(stats["connections"], 3);
        assert_eq!(stats["reactors"].as_array().unwrap().len(), 2);
        assert_eq!(stats["reactors"][1]["messages_in"], 7);
        assert_eq!(stats["reactors"][1]["slow_consumers"], 1);
        assert_eq!(stats["reactors"][1]["closed"], 2);
        assert_eq!(stats["reactors"][0]["delivery_latency_us"]["p99"], serde_json::Value::Null);
        for of in [&stats, &stats["reactors"][1]] {
            let p50 = of["delivery_latency_us"]["p50"].as_u64().unwrap();
            assert!((1_000..1_100).contains(&p50), "{p50}");
        }
        assert!(stats["resident_bytes"].as_u64().unwrap() > 1 << 20);
    }
}

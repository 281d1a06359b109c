//! `/stats`: the node's counters as JSON, for the console and for scripts.

use super::Node;
use crate::metrics::{Counts, Ending, TlsCounts};

/// The node's counters, with one entry a reactor.
pub(super) fn json(node: &Node) -> String {
    let reactors: Vec<Counts> = node.metrics.reactors.iter().map(|reactor| reactor.read()).collect();
    let connections: u64 = reactors.iter().map(|counts| counts.connections).sum();
    let each: Vec<String> = reactors.iter().map(reactor_json).collect();
    let cluster = node.metrics.cluster.as_ref().map_or_else(String::new, |cluster| {
        let counts = cluster.read().named().into_iter().map(|(name, value)| format!("\"{name}\":{value}"));
        format!(",\"cluster\":{{{}}}", counts.collect::<Vec<String>>().join(","))
    });
    format!(
        "{{\"version\":\"{}\",\"uptime_ms\":{},\"connections\":{connections},\"reactors\":[{}]{cluster}}}\n",
        env!("CARGO_PKG_VERSION"),
        node.started.elapsed().as_millis(),
        each.join(",")
    )
}

fn reactor_json(counts: &Counts) -> String {
    let Counts {
        connections,
        opened,
        endings,
        refusals,
        messages_in,
        messages_out,
        deliveries,
        bytes_in,
        bytes_out,
        sends,
        pauses,
        compressions,
        compressions_discarded,
        inflated_bytes,
        queue_bytes,
        turns,
        tls: TlsCounts { full: tls_full, resumed: tls_resumed, failed: tls_failed, sessions: tls_sessions },
    } = counts;
    let slow_consumers = endings.of(Ending::SlowConsumer);
    let closed = endings.total();
    let refused = refusals.total();
    format!(
        "{{\"connections\":{connections},\"opened\":{opened},\"closed\":{closed},\"refused\":{refused},\"messages_in\":{messages_in},\
         \"messages_out\":{messages_out},\"deliveries\":{deliveries},\"bytes_in\":{bytes_in},\
         \"bytes_out\":{bytes_out},\"sends\":{sends},\"pauses\":{pauses},\"compressions\":{compressions},\
         \"compressions_discarded\":{compressions_discarded},\
         \"inflated_bytes\":{inflated_bytes},\"queue_bytes\":{queue_bytes},\
         \"slow_consumers\":{slow_consumers},\"turns\":{turns},\
         \"tls_full\":{tls_full},\"tls_resumed\":{tls_resumed},\"tls_failed\":{tls_failed},\
         \"tls_sessions\":{tls_sessions}}}"
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::{Duration, Instant};

    use super::super::{Access, ApiSettings, Doctor};
    use super::*;
    use crate::auth::ApiKeys;
    use crate::current::Current;
    use crate::metrics::NodeMetrics;
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
        let node = Node {
            pulse: Arc::new(Pulse::new(post_office(Vec::new()).0, metrics.clone())),
            stall_max: Duration::ZERO,
            metrics,
            started: Instant::now(),
            ready: Arc::new(AtomicBool::new(true)),
            access: Arc::new(access),
            tokens: Current::default(),
            doctor: Arc::new(Doctor::new(String::new)),
            api: ApiSettings { body_bytes_max: 1, message_bytes_max: 1, has_tokens: false },
        };
        let stats: serde_json::Value = serde_json::from_str(&json(&node)).unwrap();
        assert_eq!(stats["connections"], 3);
        assert_eq!(stats["reactors"].as_array().unwrap().len(), 2);
        assert_eq!(stats["reactors"][1]["messages_in"], 7);
        assert_eq!(stats["reactors"][1]["slow_consumers"], 1);
        assert_eq!(stats["reactors"][1]["closed"], 2);
    }
}

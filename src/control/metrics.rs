//! `/metrics`: the node's counters in Prometheus' text format, version 0.0.4.
//!
//! One family per counter with a sample per reactor, and per node only what the reactors' samples do not add up to:
//! `sum without (reactor) (…)` is the node's total.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering;

use super::Node;
use crate::metrics::{About, Answered, BackendMetrics, Counts, Ending, Fetch, LOG_LINES_DROPPED, Refusal};

/// What a scraper is told this is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All families of the node.
pub(super) fn text(node: &Node) -> String {
    let mut page = Page(String::new());
    page.family("fanfare_build_info", Type::Gauge, "Always 1; the version is in the label.");
    page.sample("fanfare_build_info", &[("version", &env!("CARGO_PKG_VERSION"))], 1);
    page.family("fanfare_uptime_seconds", Type::Gauge, "Time since the node started.");
    page.sample("fanfare_uptime_seconds", &[], node.started.elapsed().as_secs_f64());
    page.family("fanfare_ready", Type::Gauge, "1 while new connections are welcome, else 0.");
    page.sample("fanfare_ready", &[], u8::from(node.ready.load(Ordering::Relaxed)));
    page.family("fanfare_places", Type::Gauge, "Places taken of limits.connections_max: open, opening and closing.");
    page.sample("fanfare_places", &[], node.metrics.connections.load(Ordering::Relaxed));
    page.family("fanfare_sockets", Type::Gauge, "Sockets of the reactors, whatever they are doing.");
    page.sample("fanfare_sockets", &[], node.metrics.sockets.load(Ordering::Relaxed));
    let help = "Connections whose client may refer to its earlier compressed messages.";
    page.family("fanfare_deflate_contexts", Type::Gauge, help);
    page.sample("fanfare_deflate_contexts", &[], node.metrics.deflate_contexts.load(Ordering::Relaxed));
    page.family("fanfare_deflate_context_bytes", Type::Gauge, "Bytes that these earlier messages may take.");
    page.sample("fanfare_deflate_context_bytes", &[], node.metrics.deflate_bytes.load(Ordering::Relaxed));
    let help = "Log lines that found no room in the queue or could not be written.";
    page.family("fanfare_log_lines_dropped_total", Type::Counter, help);
    page.sample("fanfare_log_lines_dropped_total", &[], LOG_LINES_DROPPED.load(Ordering::Relaxed));

    let reactors: Vec<Counts> = node.metrics.reactors.iter().map(|reactor| reactor.read()).collect();
    for Family { name, kind, help, value } in FAMILIES {
        page.family(name, *kind, help);
        for (reactor, counts) in reactors.iter().enumerate() {
            page.sample(name, &[("reactor", &reactor)], value(counts));
        }
    }
    page.family(CLOSED, Type::Counter, "WebSocket connections that ended, by how they did.");
    for (reactor, counts) in reactors.iter().enumerate() {
        for ending in Ending::ALL {
            page.sample(CLOSED, &[("reactor", &reactor), ("reason", &ending.name())], counts.endings.of(ending));
        }
    }
    page.family(REFUSED, Type::Counter, "Sockets and requests refused before they became connections, by why.");
    for (reactor, counts) in reactors.iter().enumerate() {
        for refusal in Refusal::ALL {
            let labels: [(&str, &dyn Display); 2] = [("reactor", &reactor), ("reason", &refusal.name())];
            page.sample(REFUSED, &labels, counts.refusals.of(refusal));
        }
    }
    for (name, grows, help, value) in node.metrics.cluster.iter().flat_map(|cluster| cluster.read().families()) {
        let (name, kind) = match grows {
            true => (format!("fanfare_cluster_{name}_total"), Type::Counter),
            false => (format!("fanfare_cluster_{name}"), Type::Gauge),
        };
        page.family(&name, kind, help.trim());
        page.sample(&name, &[], value);
    }
    if let Some(backend) = &node.metrics.backend {
        page.backend(backend);
    }
    page.0
}

const CLOSED: &str = "fanfare_connections_closed_total";

const REFUSED: &str = "fanfare_refused_total";

/// A number that each reactor has one of.
struct Family {
    name: &'static str,
    kind: Type,
    help: &'static str,
    value: fn(&Counts) -> u64,
}

const FAMILIES: &[Family] = &[
    Family {
        name: "fanfare_connections",
        kind: Type::Gauge,
        help: "WebSocket connections open now.",
        value: |counts| counts.connections,
    },
    Family {
        name: "fanfare_connections_opened_total",
        kind: Type::Counter,
        help: "WebSocket connections opened.",
        value: |counts| counts.opened,
    },
    Family {
        name: "fanfare_messages_in_total",
        kind: Type::Counter,
        help: "Messages received from clients.",
        value: |counts| counts.messages_in,
    },
    Family {
        name: "fanfare_messages_out_total",
        kind: Type::Counter,
        help: "Messages queued for clients, each receiver counted, answers included.",
        value: |counts| counts.messages_out,
    },
    Family {
        name: "fanfare_deliveries_total",
        kind: Type::Counter,
        help: "Published messages and notices queued for clients, each receiver counted.",
        value: |counts| counts.deliveries,
    },
    Family {
        name: "fanfare_in_bytes_total",
        kind: Type::Counter,
        help: "Bytes received from sockets.",
        value: |counts| counts.bytes_in,
    },
    Family {
        name: "fanfare_out_bytes_total",
        kind: Type::Counter,
        help: "Bytes the kernel took for sockets.",
        value: |counts| counts.bytes_out,
    },
    Family {
        name: "fanfare_sends_total",
        kind: Type::Counter,
        help: "Calls to the kernel that sent something.",
        value: |counts| counts.sends,
    },
    Family {
        name: "fanfare_pauses_total",
        kind: Type::Counter,
        help: "Times that a connection's commands waited until its socket had taken its answers.",
        value: |counts| counts.pauses,
    },
    Family {
        name: "fanfare_compressions_total",
        kind: Type::Counter,
        help: "Messages compressed, each once for each window however many connections get it.",
        value: |counts| counts.compressions,
    },
    Family {
        name: "fanfare_compressions_discarded_total",
        kind: Type::Counter,
        help: "Compressed at the same moment as by another reactor, which was first.",
        value: |counts| counts.compressions_discarded,
    },
    Family {
        name: "fanfare_inflated_bytes_total",
        kind: Type::Counter,
        help: "Bytes that compressed messages from clients held.",
        value: |counts| counts.inflated_bytes,
    },
    Family {
        name: "fanfare_queue_bytes",
        kind: Type::Gauge,
        help: "Bytes that queues for slow consumers refer to now, shared ones once.",
        value: |counts| counts.queue_bytes,
    },
    Family {
        name: "fanfare_turns_total",
        kind: Type::Counter,
        help: "Turns of the reactor's loop.",
        value: |counts| counts.turns,
    },
    Family {
        name: "fanfare_tls_full_handshakes_total",
        kind: Type::Counter,
        help: "TLS handshakes with a signature.",
        value: |counts| counts.tls.full,
    },
    Family {
        name: "fanfare_tls_resumed_handshakes_total",
        kind: Type::Counter,
        help: "TLS handshakes by the ticket of an earlier session.",
        value: |counts| counts.tls.resumed,
    },
    Family {
        name: "fanfare_tls_failures_total",
        kind: Type::Counter,
        help: "TLS handshakes and sessions that broke.",
        value: |counts| counts.tls.failed,
    },
    Family {
        name: "fanfare_tls_sessions",
        kind: Type::Gauge,
        help: "TLS sessions there are now, those in their handshake among them.",
        value: |counts| counts.tls.sessions,
    },
];

#[derive(Clone, Copy)]
enum Type {
    /// Only ever grows, and its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// The page as far as it is written.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
        };
        self.line(format_args!("# HELP {name} {}\n# TYPE {name} {kind}", escaped(help, false)));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        if labels.is_empty() {
            return self.line(format_args!("{name} {value}"));
        }
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(&value.to_string(), true))).collect();
        self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
    }

    fn backend(&mut self, backend: &BackendMetrics) {
        let name = "fanfare_key_set_fetches_total";
        self.family(name, Type::Counter, "Fetches of auth.jwks_url, by how they ended.");
        for fetch in Fetch::ALL {
            self.sample(name, &[("outcome", &fetch.name())], backend.fetches(fetch));
        }
        let name = "fanfare_backend_questions_total";
        self.family(name, Type::Counter, "Questions to auth.connect_url and auth.join_url, by how they were answered.");
        for about in About::ALL {
            for answered in Answered::ALL {
                let labels: [(&str, &dyn Display); 2] = [("about", &about.name()), ("outcome", &answered.name())];
                self.sample(name, &labels, backend.answers(about, answered));
            }
        }
        let name = "fanfare_backend_questions_refused_total";
        self.family(name, Type::Counter, "Questions that were not asked because too many were under way.");
        self.sample(name, &[], backend.crowded());
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a string takes all that is written");
    }
}

/// Backslashes and line ends may not stand in help texts and label values, nor quotes in the latter.
fn escaped(text: &str, quotes: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    match quotes {
        true => text.replace('"', "\\\""),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_break_a_line_is_escaped() {
        let mut page = Page(String::new());
        page.family("a_total", Type::Counter, "say \"\\\" and\nstop");
        page.sample("a_total", &[("b", &"x\\y\"z\n"), ("c", &7)], 8);
        assert_eq!(
            page.0,
            "# HELP a_total say \"\\\\\" and\\nstop\n# TYPE a_total counter\na_total{b=\"x\\\\y\\\"z\\n\",c=\"7\"} 8\n"
        );
    }

    #[test]
    fn a_counter_is_named_as_one() {
        for Family { name, kind, .. } in FAMILIES {
            assert_eq!(name.ends_with("_total"), matches!(kind, Type::Counter), "{name}");
        }
    }
}

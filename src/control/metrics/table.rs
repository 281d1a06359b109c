//! The one table of all families: name, type, labels, help text, and where the numbers come from. `docs/metrics.md` is
//! written from it.
//!
//! One family per counter with a sample per reactor, and per node only what the reactors' samples do not add up to:
//! `sum without (reactor) (…)` is the node's total. A family of what the node has none of is not shown.

use std::sync::atomic::Ordering;

use super::super::Node;
use super::samples::Samples;
use crate::ids::PeerId;
use crate::metrics::{
    About, Answered, ApiRoute, ApiStatus, CertificateEnd, ClusterCounts, CommandRefusal, Connection, Counts, Ending,
    EventOutcome, Fetch, Histogram, LOG_LINES_DROPPED, Label, ReactorMetrics, Refusal, Request, RequestRefusal,
    TokenFault, WebhookState,
};
use crate::process;

/// What is counted or measured, under one name.
pub(super) struct Family {
    /// In the words of Prometheus: `_total` of counters, the unit in front of it.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// One sentence or less; [docs/metrics.md] shows it too.
    pub(super) help: &'static str,
    pub(super) read: Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only ever grows, and its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often what was observed, by its size.
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// Where the samples of a family come from, and their labels.
pub(super) enum Read {
    /// One number of the node, without labels; none where the node has nothing of the kind.
    One(fn(&Node, &mut Samples)),
    /// Numbers of the node, with these labels.
    By(&'static [&'static str], fn(&Node, &mut Samples)),
    /// One number of each reactor.
    Reactor(fn(&Counts) -> u64),
    /// Numbers of each reactor, with one more label.
    ReactorBy(&'static str, fn(&Counts, &mut Samples)),
    /// One histogram of each reactor.
    ReactorHistogram(fn(&ReactorMetrics) -> &Histogram),
    /// One number of the cluster's thread.
    Cluster(fn(&ClusterCounts) -> u64),
    /// One number of the webhooks' thread.
    Webhooks(fn(&WebhookState) -> u64),
}

impl Family {
    const fn counter(name: &'static str, help: &'static str, read: Read) -> Family {
        Family { name, kind: Kind::Counter, help, read }
    }

    const fn gauge(name: &'static str, help: &'static str, read: Read) -> Family {
        Family { name, kind: Kind::Gauge, help, read }
    }

    const fn histogram(name: &'static str, help: &'static str, read: Read) -> Family {
        Family { name, kind: Kind::Histogram, help, read }
    }

    /// The names of its samples' labels, in order.
    pub(super) fn labels(&self) -> Vec<&'static str> {
        match self.read {
            One(_) | Cluster(_) | Webhooks(_) => Vec::new(),
            By(labels, _) => labels.to_vec(),
            Reactor(_) | ReactorHistogram(_) => vec!["reactor"],
            ReactorBy(label, _) => vec!["reactor", label],
        }
    }
}

use Read::{By, Cluster, One, Reactor, ReactorBy, ReactorHistogram, Webhooks};

pub(super) const FAMILIES: &[Family] = &[
    // -- the node --
    Family::gauge(
        "fanfare_build_info",
        "Always 1; the version is in the label.",
        By(&["version"], |_, samples| samples.labelled(&[env!("CARGO_PKG_VERSION")], 1_u64)),
    ),
    Family::gauge(
        "fanfare_uptime_seconds",
        "Time since the node started.",
        One(|node, samples| samples.number(node.started.elapsed().as_secs_f64())),
    ),
    Family::gauge(
        "fanfare_ready",
        "1 while new connections are welcome, else 0.",
        One(|node, samples| samples.number(node.ready.load(Ordering::Relaxed))),
    ),
    Family::gauge(
        "fanfare_places",
        "Places taken of limits.connections_max: open, opening and closing.",
        One(|node, samples| samples.number(node.metrics.connections.load(Ordering::Relaxed))),
    ),
    Family::gauge(
        "fanfare_sockets",
        "Sockets of the reactors, whatever they are doing.",
        One(|node, samples| samples.number(node.metrics.sockets.load(Ordering::Relaxed))),
    ),
    Family::gauge(
        "process_resident_memory_bytes",
        "Memory that the process has in RAM.",
        One(|_, samples| samples.number(process::resident_bytes())),
    ),
    Family::counter(
        "process_cpu_seconds_total",
        "CPU time that all threads of the process have used.",
        One(|_, samples| process::cpu_seconds().into_iter().for_each(|seconds| samples.number(seconds))),
    ),
    Family::gauge(
        "process_open_fds",
        "Descriptors that are open; from Linux 6.2 on.",
        One(|_, samples| process::descriptors().into_iter().for_each(|open| samples.number(open))),
    ),
    Family::gauge(
        "process_max_fds",
        "Descriptors that may be open.",
        One(|_, samples| process::descriptors_max().into_iter().for_each(|max| samples.number(max))),
    ),
    Family::gauge(
        "fanfare_deflate_contexts",
        "Connections whose client may refer to its earlier compressed messages.",
        One(|node, samples| samples.number(node.metrics.deflate_contexts.load(Ordering::Relaxed))),
    ),
    Family::gauge(
        "fanfare_deflate_context_bytes",
        "Bytes that these earlier messages may take.",
        One(|node, samples| samples.number(node.metrics.deflate_bytes.load(Ordering::Relaxed))),
    ),
    Family::counter(
        "fanfare_log_lines_dropped_total",
        "Log lines that found no room in the queue or could not be written.",
        One(|_, samples| samples.number(LOG_LINES_DROPPED.load(Ordering::Relaxed))),
    ),
    // -- connections --
    Family::gauge("fanfare_connections", "WebSocket connections open now.", Reactor(|counts| counts.connections)),
    Family::counter(
        "fanfare_connections_opened_total",
        "WebSocket connections opened.",
        Reactor(|counts| counts.opened),
    ),
    Family::counter(
        "fanfare_connections_closed_total",
        "WebSocket connections that ended, by how they did.",
        ReactorBy(Ending::LABEL, |counts, samples| samples.tally(&counts.endings)),
    ),
    Family::counter(
        "fanfare_refused_total",
        "Sockets and requests refused before they became connections, by why.",
        ReactorBy(Refusal::LABEL, |counts, samples| samples.tally(&counts.refusals)),
    ),
    Family::counter(
        "fanfare_requests_refused_total",
        "WebSocket requests that were answered without a connection, by why.",
        ReactorBy(RequestRefusal::LABEL, |counts, samples| samples.tally(&counts.request_refusals)),
    ),
    Family::counter(
        "fanfare_tokens_refused_total",
        "Tokens that were not valid, at the handshake or in a refresh, by what is wrong with them.",
        ReactorBy(TokenFault::LABEL, |counts, samples| samples.tally(&counts.token_faults)),
    ),
    // -- messages --
    Family::counter(
        "fanfare_commands_refused_total",
        "Commands of clients that were answered with an error, by why; several rooms of one command count each.",
        ReactorBy(CommandRefusal::LABEL, |counts, samples| samples.tally(&counts.command_refusals)),
    ),
    Family::counter(
        "fanfare_messages_in_total",
        "Messages received from clients.",
        Reactor(|counts| counts.messages_in),
    ),
    Family::counter(
        "fanfare_messages_out_total",
        "Messages queued for clients, each receiver counted, answers included.",
        Reactor(|counts| counts.messages_out),
    ),
    Family::counter(
        "fanfare_deliveries_total",
        "Published messages and notices queued for clients, each receiver counted.",
        Reactor(|counts| counts.deliveries),
    ),
    Family::histogram(
        "fanfare_delivery_latency_seconds",
        "From the start of the turn that read a message to the end of the flush that sent it to its members on a reactor.",
        ReactorHistogram(|reactor| &reactor.delivery_latency),
    ),
    Family::histogram(
        "fanfare_fan_out_members",
        "Members on a reactor of each message that was delivered there.",
        ReactorHistogram(|reactor| &reactor.fan_out),
    ),
    // -- bytes --
    Family::counter("fanfare_in_bytes_total", "Bytes received from sockets.", Reactor(|counts| counts.bytes_in)),
    Family::counter(
        "fanfare_out_bytes_total",
        "Bytes the kernel took for sockets.",
        Reactor(|counts| counts.bytes_out),
    ),
    Family::counter("fanfare_sends_total", "Calls to the kernel that sent something.", Reactor(|counts| counts.sends)),
    Family::gauge(
        "fanfare_queue_bytes",
        "Bytes that queues for slow consumers refer to now, shared ones once.",
        Reactor(|counts| counts.queue_bytes),
    ),
    Family::counter(
        "fanfare_pauses_total",
        "Times that a connection's commands waited until its socket had taken its answers.",
        Reactor(|counts| counts.pauses),
    ),
    // -- compression --
    Family::counter(
        "fanfare_compressions_total",
        "Messages compressed, each once for each window however many connections get it.",
        Reactor(|counts| counts.compressions),
    ),
    Family::counter(
        "fanfare_compressions_discarded_total",
        "Compressed at the same moment as by another reactor, which was first.",
        Reactor(|counts| counts.compressions_discarded),
    ),
    Family::counter(
        "fanfare_compressed_before_bytes_total",
        "Bytes of payload that were compressed, before: those that did not become smaller included.",
        Reactor(|counts| counts.compressed_bytes_before),
    ),
    Family::counter(
        "fanfare_compressed_after_bytes_total",
        "The same after; over the bytes before it is the deflate ratio.",
        Reactor(|counts| counts.compressed_bytes_after),
    ),
    Family::counter(
        "fanfare_deflated_bytes_total",
        "Bytes of compressed messages from clients, as they came.",
        Reactor(|counts| counts.deflated_bytes_in),
    ),
    Family::counter(
        "fanfare_inflated_bytes_total",
        "Bytes that compressed messages from clients held.",
        Reactor(|counts| counts.inflated_bytes),
    ),
    // -- the loop --
    Family::gauge(
        "fanfare_mailbox_bytes",
        "Bytes of mail that wait in the mailbox of a thread now.",
        By(&["peer"], mailboxes),
    ),
    Family::gauge(
        "fanfare_history_bytes",
        "Bytes that the histories of topics at home on a reactor hold now.",
        Reactor(|counts| counts.history_bytes),
    ),
    Family::counter("fanfare_turns_total", "Turns of the reactor's loop.", Reactor(|counts| counts.turns)),
    Family::histogram(
        "fanfare_turn_seconds",
        "Time of a turn of the reactor's loop, from its first work to the end of its last flush; waiting is not counted.",
        ReactorHistogram(|reactor| &reactor.turn_time),
    ),
    // -- TLS --
    Family::counter(
        "fanfare_tls_full_handshakes_total",
        "TLS handshakes with a signature.",
        Reactor(|counts| counts.tls.full),
    ),
    Family::counter(
        "fanfare_tls_resumed_handshakes_total",
        "TLS handshakes by the ticket of an earlier session.",
        Reactor(|counts| counts.tls.resumed),
    ),
    Family::counter(
        "fanfare_tls_failures_total",
        "TLS handshakes and sessions that broke.",
        Reactor(|counts| counts.tls.failed),
    ),
    Family::gauge(
        "fanfare_tls_sessions",
        "TLS sessions there are now, those in their handshake among them.",
        Reactor(|counts| counts.tls.sessions),
    ),
    Family::gauge(
        "fanfare_tls_certificate_expiry_timestamp_seconds",
        "Unix time at which a certificate ends that listeners show, by its file.",
        By(&["file"], |node, samples| {
            for CertificateEnd { file, unix_s } in node.metrics.certificates() {
                samples.labelled(&[&file], unix_s);
            }
        }),
    ),
    // -- the cluster --
    Family::gauge(
        "fanfare_cluster_reachable",
        "1 while Redis can be reached, else 0.",
        Cluster(|counts| counts.reachable),
    ),
    Family::gauge("fanfare_cluster_peers", "Other nodes that were heard of lately.", Cluster(|counts| counts.peers)),
    Family::gauge(
        "fanfare_cluster_lag_seconds",
        "Time for which the node has waited for its own message to come back through Redis; 0 while it waits for none.",
        One(|node, samples| {
            if let Some(cluster) = &node.metrics.cluster {
                samples.number(cluster.read().lag_ms as f64 / 1e3);
            }
        }),
    ),
    Family::histogram(
        "fanfare_cluster_round_trip_seconds",
        "From handing commands to a connection to Redis until all their answers are there.",
        One(|node, samples| {
            if let Some(cluster) = &node.metrics.cluster {
                samples.histogram(&cluster.round_trip);
            }
        }),
    ),
    Family::counter(
        "fanfare_cluster_connections_lost_total",
        "Connections to Redis that were there and ended, by what for; each is made anew.",
        By(&[Connection::LABEL], |node, samples| {
            if let Some(cluster) = &node.metrics.cluster {
                samples.by(&cluster.lost);
            }
        }),
    ),
    Family::gauge("fanfare_cluster_feeds", "Topics that are followed.", Cluster(|counts| counts.feeds)),
    Family::counter(
        "fanfare_cluster_published_total",
        "Messages given to Redis for other nodes.",
        Cluster(|counts| counts.published),
    ),
    Family::counter(
        "fanfare_cluster_dropped_total",
        "Messages without history that could not be given to Redis.",
        Cluster(|counts| counts.dropped),
    ),
    Family::counter("fanfare_cluster_stored_total", "Messages stored in history.", Cluster(|counts| counts.stored)),
    Family::counter(
        "fanfare_cluster_refused_total",
        "Publishes into history that were answered `unavailable`.",
        Cluster(|counts| counts.refused),
    ),
    Family::counter(
        "fanfare_cluster_received_total",
        "Messages that came from Redis, live or read again.",
        Cluster(|counts| counts.received),
    ),
    Family::counter(
        "fanfare_cluster_repairs_total",
        "Reads of streams because something was missing, or might be.",
        Cluster(|counts| counts.repairs),
    ),
    Family::counter("fanfare_cluster_gaps_total", "Gaps that were told to members.", Cluster(|counts| counts.gaps)),
    Family::counter(
        "fanfare_cluster_unreadable_total",
        "Messages on channels that no node of this version wrote.",
        Cluster(|counts| counts.unreadable),
    ),
    // -- the HTTP API --
    Family::counter(
        "fanfare_api_requests_total",
        "Requests of the HTTP API, by what they are for and the status of the answer; statuses that have not occurred are left out.",
        By(&[ApiRoute::LABEL, ApiStatus::LABEL], |node, samples| {
            for (route, status, count) in node.metrics.api.occurred() {
                samples.labelled(&[route.name(), status.name()], count);
            }
        }),
    ),
    // -- the team's services --
    Family::counter(
        "fanfare_key_set_fetches_total",
        "Fetches of auth.jwks_url, by how they ended.",
        By(&[Fetch::LABEL], |node, samples| {
            if let Some(backend) = &node.metrics.backend {
                samples.by(&backend.fetches);
            }
        }),
    ),
    Family::counter(
        "fanfare_backend_questions_total",
        "Questions to auth.connect_url and auth.join_url, by how they were answered.",
        By(&[About::LABEL, Answered::LABEL], |node, samples| {
            if let Some(backend) = &node.metrics.backend {
                samples.grid(&backend.answers);
            }
        }),
    ),
    Family::counter(
        "fanfare_backend_questions_refused_total",
        "Questions that were not asked because too many were under way.",
        One(|node, samples| {
            if let Some(backend) = &node.metrics.backend {
                samples.number(backend.crowded());
            }
        }),
    ),
    // -- webhooks --
    Family::counter(
        "fanfare_webhook_events_total",
        "Events of webhooks: made or taken over, and for each receiver taken, tried again, given up.",
        By(&[EventOutcome::LABEL], |node, samples| {
            if let Some(webhooks) = &node.metrics.webhooks {
                samples.by(&webhooks.events);
            }
        }),
    ),
    Family::counter(
        "fanfare_webhook_requests_total",
        "Requests to the receivers of webhooks, by how they ended.",
        By(&[Request::LABEL], |node, samples| {
            if let Some(webhooks) = &node.metrics.webhooks {
                samples.by(&webhooks.requests);
            }
        }),
    ),
    Family::counter(
        "fanfare_webhook_edges_coalesced_total",
        "Edges that were undone before they were told.",
        Webhooks(|state| state.coalesced),
    ),
    Family::gauge(
        "fanfare_webhook_events_waiting",
        "Events that are not taken by all receivers.",
        Webhooks(|state| state.waiting),
    ),
    Family::gauge(
        "fanfare_webhook_edges_waiting",
        "Edges that wait to be undone, or for Redis.",
        Webhooks(|state| state.edges_waiting),
    ),
    Family::gauge(
        "fanfare_webhook_teller",
        "1 where this node sends the events, else 0.",
        Webhooks(|state| state.teller),
    ),
];

/// A reactor's name is its thread's.
fn mailboxes(node: &Node, samples: &mut Samples) {
    for (peer, bytes) in node.post.held_bytes() {
        let name = match peer {
            PeerId::Reactor(reactor) => format!("reactor-{}", reactor.0),
            PeerId::Control => "control".to_owned(),
            PeerId::Cluster => "cluster".to_owned(),
            PeerId::Webhooks => "webhooks".to_owned(),
        };
        samples.labelled(&[&name], bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_family_is_named_as_what_it_is_and_has_few_known_labels() {
        let mut names = BTreeSet::new();
        for Family { name, kind, help, .. } in FAMILIES {
            assert!(names.insert(name), "{name} is there twice");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(help.ends_with('.') && !help.contains('\n'), "{name}: {help}");
        }
        let labels: BTreeSet<&str> = FAMILIES.iter().flat_map(Family::labels).collect();
        let known = [
            "about",
            "connection",
            "fault",
            "file",
            "outcome",
            "peer",
            "reactor",
            "reason",
            "route",
            "status",
            "version",
        ];
        assert_eq!(labels, known.into(), "a label has few values, and none of them is a user's or a room's");
    }

    /// With `UPDATE_METRICS=1` it is written anew.
    #[test]
    fn the_document_has_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (text, found) = document.split_once(HEAD).expect("docs/metrics.md has the table");
        let row = |family: &Family| {
            let labels: Vec<String> = family.labels().iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |\n", family.name, family.kind.name(), labels.join(", "), family.help)
        };
        let rows: String = FAMILIES.iter().map(row).collect();
        if std::env::var_os("UPDATE_METRICS").is_some() {
            std::fs::write(path, format!("{text}{HEAD}{rows}")).unwrap();
        } else {
            assert_eq!(found, rows, "write docs/metrics.md anew: UPDATE_METRICS=1 cargo test --lib the_document_has");
        }
    }

    const HEAD: &str = "| name | type | labels | meaning |\n| --- | --- | --- | --- |\n";
}

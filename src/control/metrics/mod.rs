//! `/metrics`: all that the node counts, as Prometheus asks for it.
//!
//! ```text
//!   table (every family) ─► samples (what it is now) ─┬─► text        few buckets of each histogram
//!                                                     └─► protobuf    native histograms
//! ```
//!
//! A new metric is a row of the table; see CONTRIBUTING.md.

mod protobuf;
mod samples;
mod table;
mod text;

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};

use super::Node;

/// All families of the node, in the format that the scraper prefers.
pub(super) fn page(node: &Node, headers: &HeaderMap) -> Response {
    let shown = samples::collect(node);
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let (content_type, page) = match prefers_protobuf(accepted) {
        true => (protobuf::CONTENT_TYPE, protobuf::page(&shown)),
        false => (text::CONTENT_TYPE, text::page(&shown).into_bytes()),
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-store"), (header::VARY, "Accept")];
    (headers, page).into_response()
}

/// Whether the protobuf format is wanted more than any other (RFC 9110 §12.5.1).
fn prefers_protobuf<'a>(accepted: impl Iterator<Item = &'a str>) -> bool {
    let (mut protobuf, mut others) = (0.0, 0.0_f64);
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media = parts.next().unwrap_or_default();
        let parameters: Vec<String> = parts.map(|part| part.replace([' ', '"'], "")).collect();
        let has = |parameter: &str| parameters.iter().any(|given| given == parameter);
        let quality = parameters.iter().find_map(|given| given.strip_prefix("q="));
        let quality = quality.map_or(1.0, |quality| quality.parse::<f64>().unwrap_or(0.0));
        let is_ours = media == "application/vnd.google.protobuf"
            && has("proto=io.prometheus.client.metricfamily")
            && has("encoding=delimited");
        match is_ours {
            true => protobuf = quality,
            false => others = others.max(quality),
        }
    }
    protobuf > 0.0 && protobuf >= others
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_protobuf_most_gets_it() {
        let prometheus = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                          application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert!(prefers_protobuf([prometheus].into_iter()));
        assert!(prefers_protobuf(prometheus.split(',')), "in several fields");
        let without_weights =
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        assert!(prefers_protobuf([without_weights].into_iter()));
        for other in [
            "",
            "*/*",
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.1,text/plain",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0",
            "application/vnd.google.protobuf",
        ] {
            assert!(!prefers_protobuf([other].into_iter()), "{other}");
        }
    }
}

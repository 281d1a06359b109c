//! What browsers and libraries offer, and what they do not.

use crate::Seed;

/// The first inputs of the target `offers`.
pub fn seeds() -> Vec<Seed> {
    [
        ("browser", "permessage-deflate; client_max_window_bits"),
        ("none", ""),
        ("all", "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10; client_max_window_bits=11"),
        ("quoted", "permessage-deflate; server_max_window_bits=\"12\""),
        ("several", "permessage-deflate; server_max_window_bits=8, permessage-deflate; client_max_window_bits=9, permessage-deflate"),
        ("fields", "x-webkit-deflate-frame\npermessage-deflate"),
        ("twice", "permessage-deflate; server_no_context_takeover; server_no_context_takeover"),
        ("comma-in-quotes", "x; a=\"permessage-deflate, b\", permessage-deflate"),
    ]
    .map(|(name, text)| (name, text.as_bytes().to_vec()))
    .into()
}

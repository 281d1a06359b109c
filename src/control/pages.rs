//! The pages for people: the console, the operator's page, the ladder, and what both are made of. They need nothing from outside.

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

const CONSOLE: &str = include_str!("pages/console.html");

const OPERATOR: &str = include_str!("pages/operator.html");

const LADDER: &str = include_str!("pages/ladder.html");

/// What the pages load, by name under `assets/`.
const ASSETS: [(&str, &str, &str); 14] = [
    ("ask.js", JAVASCRIPT, include_str!("pages/ask.js")),
    ("base.css", CSS, include_str!("pages/base.css")),
    ("base.js", JAVASCRIPT, include_str!("pages/base.js")),
    ("console.css", CSS, include_str!("pages/console.css")),
    ("console.js", JAVASCRIPT, include_str!("pages/console.js")),
    ("ladder.css", CSS, include_str!("pages/ladder.css")),
    ("ladder.js", JAVASCRIPT, include_str!("pages/ladder.js")),
    ("link.js", JAVASCRIPT, include_str!("pages/link.js")),
    ("load.js", JAVASCRIPT, include_str!("pages/load.js")),
    ("operator.css", CSS, include_str!("pages/operator.css")),
    ("operator.js", JAVASCRIPT, include_str!("pages/operator.js")),
    ("pane.js", JAVASCRIPT, include_str!("pages/pane.js")),
    ("slow.js", JAVASCRIPT, include_str!("pages/slow.js")),
    ("stream.js", JAVASCRIPT, include_str!("pages/stream.js")),
];

const HTML: &str = "text/html; charset=utf-8";

const CSS: &str = "text/css; charset=utf-8";

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// Only this server's own files run or are shown, none of them inline, and no other page may frame them.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

pub(super) async fn console() -> Response {
    file(HTML, CONSOLE)
}

pub(super) async fn operator() -> Response {
    file(HTML, OPERATOR)
}

pub(super) async fn ladder() -> Response {
    file(HTML, LADDER)
}

pub(super) async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|(known, ..)| *known == name) {
        Some((_, kind, text)) => file(kind, text),
        None => (StatusCode::NOT_FOUND, "nothing here: / is the console\n").into_response(),
    }
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pages_need_nothing_from_outside_and_nothing_inline() {
        for text in ASSETS.iter().map(|(_, _, text)| *text).chain([CONSOLE, OPERATOR, LADDER]) {
            for outside in ["http://", "https://", "src=\"//", "@import"] {
                let allowed = text.matches("http://www.w3.org/").count();
                assert!(text.matches(outside).count() <= allowed, "a page mentions {outside}");
            }
            for inline in ["<style", " style=\"", " onclick", "javascript:", "innerHTML", "outerHTML", "eval("] {
                assert!(!text.contains(inline), "a page has {inline} inline");
            }
        }
    }

    #[test]
    fn every_file_that_a_page_names_is_there() {
        let known = |name: &str| ASSETS.iter().any(|(known, ..)| *known == name);
        let mut found = 0;
        for text in ASSETS.iter().map(|(_, _, text)| *text).chain([CONSOLE, OPERATOR, LADDER]) {
            for prefix in ["\"assets/", "from \"./"] {
                for rest in text.split(prefix).skip(1) {
                    let name = rest.split('"').next().unwrap_or_default();
                    assert!(known(name), "{name} is not served");
                    found += 1;
                }
            }
        }
        assert!(found >= 12, "{found} names");
    }
}

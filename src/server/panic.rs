//! What a panic of a thread comes to.

use std::backtrace::{Backtrace, BacktraceStatus};

use super::log;
use super::log::last_words;

/// A reactor that panics ends the process with a line on stderr: without it, its connections would hang and every topic
/// it is home to would be mute, while the rest looks healthy. Of other threads' panics there is a line, too.
pub fn end_process_if_a_reactor_panics() {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        let what = panic.payload_as_str().unwrap_or("?");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let trace = Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("{trace}"),
            _ => String::new(),
        };
        let line = format!("fanfare: {name} panicked at {place}: {what}\n{trace}");
        if name.starts_with("reactor-") || ["cluster", "auth", "backend", "webhooks"].contains(&name) {
            tracing::error!(thread = name, place, what, "a reactor panicked: the process ends");
            last_words(line.as_bytes());
            std::process::abort();
        }
        tracing::error!(thread = name, place, what, "a thread panicked");
        log::say(line.as_bytes());
    }));
}

//! Log lines on standard error: for people, or as JSON for machines.
//!
//! `RUST_LOG` chooses what is said, else `log_level`. Tokens and message content are never in any line. Whatever becomes
//! of standard error, no thread waits for it but the one that writes (`queue`), and the end of the process waits for
//! that no longer than [`LOG_FLUSH_MS_MAX`].

mod queue;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;

pub(super) use queue::write_all;
use queue::{Line, LogQueue, Pace};

use crate::config::Log;
use crate::limits::LOG_FLUSH_MS_MAX;
use crate::metrics::LOG_LINES_DROPPED;

/// The process has one standard error, and so one thread that writes to it.
static STDERR: OnceLock<io::Result<LogQueue>> = OnceLock::new();

fn stderr() -> &'static io::Result<LogQueue> {
    STDERR.get_or_init(|| LogQueue::start(io::stderr(), &LOG_LINES_DROPPED))
}

/// Starts the log.
///
/// # Errors
/// Where there is no thread for it.
pub(super) fn init(log: Log, level: &str) -> io::Result<()> {
    if let Err(error) = stderr() {
        return Err(io::Error::new(error.kind(), error.to_string()));
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(ToQueue)
        // They would be written past the queue.
        .log_internal_errors(false)
        .with_target(false);
    // A process that serves twice, as a test may, keeps its first log.
    let _ = match log {
        Log::Json => {
            let lines = lines.json().flatten_event(true).with_filter_reloading();
            keep(lines.reload_handle());
            lines.try_init()
        }
        Log::Auto | Log::Human => {
            let lines = lines.with_ansi(io::stderr().is_terminal()).with_filter_reloading();
            keep(lines.reload_handle());
            lines.try_init()
        }
    };
    Ok(())
}

/// Changes the level.
type SetLevel = Box<dyn Fn(&str) + Send + Sync>;

static LEVEL: OnceLock<SetLevel> = OnceLock::new();

fn keep<S: 'static>(handle: Handle<EnvFilter, S>) {
    // It fails only where the log is gone.
    let set = move |level: &str| drop(handle.reload(EnvFilter::new(level)));
    let _ = LEVEL.set(Box::new(set));
}

/// Lines of this level and worse ones are written from now on, unless `RUST_LOG` says what is.
pub(super) fn set_level(level: &str) {
    if std::env::var_os(EnvFilter::DEFAULT_ENV).is_none()
        && let Some(set) = LEVEL.get()
    {
        set(level);
    }
}

/// Gives the lines so far a moment to be written; those that are not by then are lost.
pub(super) fn flush() {
    if let Some(Ok(queue)) = STDERR.get() {
        queue.flush(Duration::from_millis(LOG_FLUSH_MS_MAX));
    }
}

/// Writes a line that is no log line, so that no filter keeps it back, behind those so far.
pub(super) fn say(line: &[u8]) {
    match stderr() {
        Ok(queue) => queue.send(Line { text: line.to_vec(), pace: Pace::Each }),
        // Without a thread this one writes; where even that fails there is no place left to say it.
        Err(_) => drop(write_all(io::stderr().as_fd(), line)),
    }
}

/// The same at the end of the process, with a moment for it to be written.
pub fn last_words(line: &[u8]) {
    say(line);
    flush();
}

/// The way of log lines into the queue.
struct ToQueue;

/// One line's way.
struct Entry(Pace);

impl<'a> MakeWriter<'a> for ToQueue {
    type Writer = Entry;

    fn make_writer(&'a self) -> Entry {
        Entry(Pace::Each)
    }

    fn make_writer_for(&'a self, line: &Metadata<'_>) -> Entry {
        // Who asks for more than that is looking for each of them.
        match *line.level() <= Level::INFO {
            true => Entry(Pace::OncePerSecond(line.callsite())),
            false => Entry(Pace::Each),
        }
    }
}

impl Write for Entry {
    /// Called once a line.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if let Ok(queue) = stderr() {
            queue.send(Line { text: text.to_vec(), pace: self.0.clone() });
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

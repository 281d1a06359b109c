//! `fanfare bench`: a load generator for any server of the user dialect, and for Centrifugo; and the judge of what it
//! receives.
//!
//! Owns the client's side of a measurement: a crowd of connections on one thread (`crowd`), the sequence numbers in
//! every message and the `ledger` that finds what is missing, doubled, reordered or misrouted, the scenarios, and
//! the report. A figure is printed only beside the faults that were found, and a fault fails the run.
//!
//! It is a client: it never touches the server's modules, shares no code with the server's frame path, and learns
//! about the server's process only what `/proc` tells anyone.
//!
//! Imports `client` (for URLs, TLS and tokens), `auth` (to make tokens), `config` (for the forms in which numbers, sizes and
//! durations are written), `niceness`, and nothing else of this crate.
//!
//! ```text
//! options ─► scenario (load, private, echo, idle, connect, resume, storm, hostile, logins, market) ─► report ─► table or JSON
//!               │ bytes in and out     │ stamps, bytes    │ a thread of its own
//!               ▼                      ▼                  ▼
//!             crowd ─► wire, deflate  ledger, body       attack ─► dribblers, bombers, greedy; or a crowd that logs in
//! ```

mod attack;
mod body;
mod bombers;
mod connect;
mod credentials;
mod crowd;
mod deflate;
mod dialect;
mod dribblers;
mod echo;
mod error;
mod flags;
mod fragments;
mod greedy;
mod halves;
mod handshake;
mod hostile;
mod idle;
mod inbox;
mod ledger;
mod limits;
mod link;
mod load;
mod logins;
mod market;
mod meter;
mod options;
mod private;
mod process;
mod progress;
mod report;
mod resume;
mod runner;
mod scenario;
mod schedule;
mod seat;
mod skim;
mod stage;
mod storm;
mod target;
mod times;
mod wire;

use std::io::{IsTerminal, Write};

pub use dialect::Dialect;
pub use error::BenchError;
pub use flags::{FLAGS, Flag};
pub use market::MarketOptions;
pub use options::Options;
pub use report::Report;
pub use scenario::{AttackKind, Payload, SCENARIO, SCENARIOS, Scenario};
pub use target::Target;

use progress::Progress;

/// Runs a scenario and prints its report to `out`: a table, or one line of JSON.
///
/// The answer says whether the server did right: no message missing, doubled, reordered or misrouted, no connection
/// ended.
///
/// # Errors
///
/// Where the measurement could not be made: no server, too few descriptors, no such core.
pub fn run(options: &Options, out: &mut dyn Write) -> Result<bool, BenchError> {
    process::prepare(options)?;
    let mut progress = Progress::new(options, std::io::stderr().is_terminal());
    let report = measure(options, &mut progress);
    progress.clear();
    let report = report?;
    let text = if options.json { report.json() } else { report.table() };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(BenchError::Output(error)),
        Ok(()) | Err(_) => Ok(report.is_clean()),
    }
}

fn measure(options: &Options, progress: &mut Progress) -> Result<Report, BenchError> {
    match options.scenario {
        Scenario::Fanout | Scenario::Rooms | Scenario::Latency => load::run(options, progress),
        Scenario::Private => private::run(options, progress),
        Scenario::Echo => echo::run(options, progress),
        Scenario::Idle => idle::run(options, progress),
        Scenario::Connect => connect::run(options, progress),
        Scenario::Resume => resume::run(options, progress),
        Scenario::Storm => storm::run(options, progress),
        Scenario::Hostile => hostile::run(options, progress),
        Scenario::Logins => logins::run(options, progress),
        Scenario::Market => market::run(options, progress),
    }
}

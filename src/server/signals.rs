//! Signals as requests to the main thread.
//!
//! | signal | what it does |
//! | --- | --- |
//! | SIGTERM, SIGINT | the first drains, SIGTERM after `drain.delay`; the next leaves at once |
//! | SIGHUP | has files read again; nothing where a drain has begun, or where the parent had it ignored (`nohup`) |
//! | SIGUSR1, SIGUSR2 | nothing but a log line |

use std::fs;

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

use super::{ServeError, io_error};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// To read files again that may have changed.
    Reload,
    /// To go away as the clients like it best.
    Drain,
    /// The same, without `drain.delay`.
    DrainNow,
    /// To end without waiting for them.
    Leave,
}

/// Starts the thread that takes the signals from now on. None is lost: a request to reload that comes while another one waits
/// is the same one.
///
/// # Errors
/// Where there is no thread, or the kernel refuses.
pub(super) fn catch() -> Result<Receiver<Request>, ServeError> {
    let mut caught = vec![SIGTERM, SIGINT, SIGUSR1, SIGUSR2];
    if !is_ignored(SIGHUP, &fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        caught.push(SIGHUP);
    }
    let mut signals = Signals::new(caught).map_err(io_error("cannot catch signals"))?;
    // Room for one reload and all others that there will ever be.
    let (sender, receiver) = bounded(3);
    let take = move || {
        let mut last = None;
        for signal in signals.forever() {
            let next = next(last, signal);
            let name = signal_name(signal).unwrap_or("a signal");
            match next {
                Some(Request::Reload) => {
                    tracing::info!(signal = name, "signal");
                    if sender.is_empty() {
                        let _ = sender.try_send(Request::Reload);
                    }
                }
                Some(request @ (Request::Drain | Request::DrainNow | Request::Leave)) => {
                    tracing::info!(signal = name, "signal");
                    // The main thread has ended by itself where it does not listen any more.
                    let _ = sender.try_send(request);
                    last = next;
                }
                None => tracing::info!(signal = name, "signal ignored: SIGTERM ends the server"),
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(take)
        .map_err(io_error("cannot start the signal thread"))?;
    Ok(receiver)
}

/// What a signal asks for behind the last request to end; `None` where it asks for nothing more.
fn next(last: Option<Request>, signal: i32) -> Option<Request> {
    match (signal, last) {
        (SIGHUP, None) => Some(Request::Reload),
        (SIGTERM, None) => Some(Request::Drain),
        (SIGINT, None) => Some(Request::DrainNow),
        (SIGTERM | SIGINT, Some(Request::Drain | Request::DrainNow)) => Some(Request::Leave),
        // Others mean nothing here, and their default would end the process without a word to its clients. Who goes away
        // reads nothing again.
        _ => None,
    }
}

/// Whether the process was started with the signal ignored, as its status says.
fn is_ignored(signal: i32, status: &str) -> bool {
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_drains_a_second_one_cuts_it_short_and_others_end_nothing() {
        let ask = |signals: &[i32]| {
            let mut last = None;
            let ends = |request: &Request| *request != Request::Reload;
            let take = |signal: &i32| {
                let request = next(last, *signal);
                last = request.filter(ends).or(last);
                request
            };
            signals.iter().filter_map(take).collect()
        };
        let cases: [(&[i32], &[Request]); 6] = [
            (&[SIGTERM], &[Request::Drain]),
            (&[SIGINT, SIGTERM, SIGTERM], &[Request::DrainNow, Request::Leave]),
            (&[SIGHUP, SIGHUP], &[Request::Reload, Request::Reload]),
            (&[SIGHUP, SIGINT, SIGINT], &[Request::Reload, Request::DrainNow, Request::Leave]),
            (&[SIGTERM, SIGHUP], &[Request::Drain]),
            (&[SIGUSR1, SIGUSR2], &[]),
        ];
        for (signals, expected) in cases {
            let requests: Vec<Request> = ask(signals);
            assert_eq!(requests, expected, "{signals:?}");
        }
    }

    #[test]
    fn an_ignored_signal_is_read_from_the_mask() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(SIGHUP, status));
        assert!(!is_ignored(SIGINT, status));
        assert!(!is_ignored(SIGHUP, ""));
    }
}

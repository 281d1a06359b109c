//! A reactor that panics ends the process: half a node would swallow connections.

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Set in the process that is to panic.
const ROLE: &str = "PANIC_IN_THREAD";

#[test]
fn a_panicking_reactor_ends_the_process_with_its_log_line() {
    let status = panic_in("reactor-3");
    assert!(status.0.contains("reactor-3 panicked at") && status.0.contains("on purpose"), "{}", status.0);
    assert_eq!(status.1, Some(rustix::process::Signal::ABORT.as_raw()));
}

#[test]
fn other_threads_may_panic_without_ending_it() {
    let status = panic_in("worker");
    assert_eq!(status.1, None, "{}", status.0);
}

/// Panics in a thread of this name, in this test when it is run again in a process of its own.
#[test]
fn panic_on_purpose() {
    let Ok(thread) = std::env::var(ROLE) else { return };
    fanfare::server::end_process_if_a_reactor_panics();
    let panicked = std::thread::Builder::new().name(thread).spawn(|| panic!("on purpose")).unwrap().join();
    assert!(panicked.is_err());
}

/// What the process wrote, and the signal that ended it.
fn panic_in(thread: &str) -> (String, Option<i32>) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "panic_on_purpose", "--nocapture"])
        .env(ROLE, thread)
        .output()
        .unwrap();
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.signal())
}

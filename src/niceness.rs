//! Threads that stand back where they share a core with others.

use rustix::process::{getpriority_process, setpriority_process};

/// The most that a thread can stand back (nice(2)).
const NICENESS_MAX: i32 = 19;

/// Has this thread stand back by so much more than it does: those that it shares a core with go first. Where the kernel
/// does not allow it, it stays as it is.
pub(crate) fn stand_back(by: i32) {
    // Without a process the calls mean the calling thread, on Linux.
    if let Ok(niceness) = getpriority_process(None) {
        let _ = setpriority_process(None, niceness.saturating_add(by).min(NICENESS_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stands_back_by_itself() {
        let own = getpriority_process(None).unwrap();
        let other = std::thread::spawn(|| {
            stand_back(2);
            let once = getpriority_process(None).unwrap();
            stand_back(1_000);
            (once, getpriority_process(None).unwrap())
        });
        assert_eq!(other.join().unwrap(), ((own + 2).min(NICENESS_MAX), NICENESS_MAX));
        assert_eq!(getpriority_process(None).unwrap(), own);
    }
}

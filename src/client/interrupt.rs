//! The signal that ends a command which runs until it comes: SIGINT, and for some SIGTERM.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::link::wait;

/// The signal: a flag, a descriptor that becomes readable, or the end of the process.
#[derive(Debug)]
pub(super) struct Interrupt {
    told: Arc<AtomicBool>,
    at_once: Arc<AtomicBool>,
    pipe: UnixStream,
}

impl Interrupt {
    /// From now on SIGINT comes here.
    pub(super) fn catch() -> io::Result<Interrupt> {
        Interrupt::catch_all(&[SIGINT])
    }

    /// From now on SIGINT and SIGTERM come here.
    pub(super) fn catch_both() -> io::Result<Interrupt> {
        Interrupt::catch_all(&[SIGINT, SIGTERM])
    }

    fn catch_all(signals: &[i32]) -> io::Result<Interrupt> {
        let (pipe, sender) = UnixStream::pair()?;
        let interrupt = Interrupt { told: Arc::default(), at_once: Arc::default(), pipe };
        for signal in signals {
            signal_hook::flag::register_conditional_shutdown(*signal, 0, Arc::clone(&interrupt.at_once))?;
            signal_hook::flag::register(*signal, Arc::clone(&interrupt.told))?;
            signal_hook::low_level::pipe::register(*signal, sender.try_clone()?)?;
        }
        Ok(interrupt)
    }

    /// Whether it has come.
    pub(super) fn is_told(&self) -> bool {
        self.told.load(Ordering::SeqCst)
    }

    /// Does what blocks, as looking up a name does. SIGINT ends the process with exit code 0 meanwhile.
    pub(super) fn while_blocked<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        self.at_once.store(true, Ordering::SeqCst);
        // Looked at behind the store: one that came before it is seen here.
        let done = (!self.is_told()).then(act);
        self.at_once.store(false, Ordering::SeqCst);
        done
    }

    /// What becomes readable with it.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Waits. The answer says whether SIGINT came.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        // A wait that fails is over.
        let _ = wait(None, &[self.descriptor()], Some(Instant::now() + pause));
        self.is_told()
    }
}

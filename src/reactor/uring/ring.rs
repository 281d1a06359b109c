//! One ring of io_uring: requests in, completions out, and nothing of what they mean.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::buffers::Buffers;
use crate::limits::{RING_BUFFERS, RING_COMPLETIONS, RING_REQUESTS};

/// The group of the ring's only buffers.
const BUFFERS: u16 = 0;

/// How often the kernel is asked again where it is short of memory for requests.
const SUBMITS_MAX: usize = 1000;

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completed {
    /// What the request was named.
    pub(super) name: u64,
    /// What it returned.
    pub(super) result: Result<u32, Errno>,
    /// The buffer that holds what was received.
    pub(super) buffer: Option<u16>,
    /// Whether the request goes on.
    pub(super) more: bool,
}

/// See the module's documentation.
pub(super) struct Ring {
    ring: IoUring,
    /// What finds no room among the requests, in order.
    backlog: VecDeque<Entry>,
    is_enabled: bool,
}

impl Ring {
    /// A ring that is used by one thread, which [`Ring::enable`] tells which, over these buffers.
    ///
    /// # Errors
    /// Where the kernel does not offer it, or not to this process.
    pub(super) fn new(buffers: &Buffers) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_r_disabled()
            .setup_cqsize(RING_COMPLETIONS)
            .dontfork()
            .build(RING_REQUESTS)?;
        if !(ring.params().is_feature_nodrop()
            && ring.params().is_feature_ext_arg()
            && ring.params().is_feature_skip_cqe_on_success())
        {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        }
        // SAFETY: the entries are valid for as long as the ring, which the driver drops before them.
        unsafe { ring.submitter().register_buf_ring_with_flags(buffers.address(), RING_BUFFERS, BUFFERS, 0)? };
        Ok(Ring { ring, backlog: VecDeque::new(), is_enabled: false })
    }

    /// From now on this thread uses the ring. Nothing happens where it does already.
    pub(super) fn enable(&mut self) -> io::Result<()> {
        if !self.is_enabled {
            self.ring.submitter().register_enable_rings()?;
            self.is_enabled = true;
        }
        Ok(())
    }

    /// Receives into buffers of the ring until it completes without `more`.
    pub(super) fn receive(&mut self, socket: RawFd, name: u64) {
        self.push(opcode::RecvMulti::new(Fd(socket), BUFFERS).build().user_data(name));
    }

    /// Sends while it is submitted, and completes only where not all was taken. The bytes have to stay until
    /// [`Ring::submit`] has returned.
    pub(super) fn send(&mut self, socket: RawFd, bytes: &[u8], name: u64) {
        let flags = SendFlags::DONTWAIT.bits() | RecvFlags::WAITALL.bits();
        let length = u32::try_from(bytes.len()).expect("what is sent at once is bounded");
        let send = opcode::Send::new(Fd(socket), bytes.as_ptr(), length).flags(flags as i32).build();
        self.push(send.flags(Flags::SKIP_SUCCESS).user_data(name));
    }

    /// Completes once when a socket is ready for `what`, or broken.
    pub(super) fn poll(&mut self, descriptor: RawFd, what: PollFlags, name: u64) {
        self.push(opcode::PollAdd::new(Fd(descriptor), u32::from(what.bits())).build().user_data(name));
    }

    /// Completes whenever a descriptor becomes ready for `what`, or its other end goes, until it completes without `more`.
    /// The result says what it is ready for.
    pub(super) fn watch(&mut self, descriptor: RawFd, what: PollFlags, name: u64) {
        let what = u32::from(what.bits());
        self.push(opcode::PollAdd::new(Fd(descriptor), what).multi(true).build().user_data(name));
    }

    /// Has the request of that name complete soon. This itself completes only where there is none, by the name `own`.
    pub(super) fn cancel(&mut self, name: u64, own: u64) {
        self.push(opcode::AsyncCancel::new(name).build().flags(Flags::SKIP_SUCCESS).user_data(own));
    }

    fn push(&mut self, entry: Entry) {
        if !self.backlog.is_empty() {
            return self.backlog.push_back(entry);
        }
        // SAFETY: the descriptors are open until what is asked of them has completed, which the driver keeps account of;
        // what a send points to stays until it is submitted, by the contract of drivers; a receive points to nothing.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
            if self.is_enabled {
                // What is wrong shows again when all is submitted.
                let _ = self.ring.submit();
                self.fill();
            }
        }
    }

    /// Requests that found room; what did not follows.
    fn fill(&mut self) {
        let mut requests = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { requests.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
        }
    }

    /// Submits all requests.
    ///
    /// # Errors
    /// Where the kernel takes none any more.
    pub(super) fn submit(&mut self) -> io::Result<()> {
        for _ in 0..SUBMITS_MAX {
            self.fill();
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
            if self.backlog.is_empty() && self.ring.submission().is_empty() {
                return Ok(());
            }
        }
        Err(io::Error::from(io::ErrorKind::WouldBlock))
    }

    /// Submits all requests, and waits for a completion, at most so long (`None`: as long as it takes).
    ///
    /// # Errors
    /// Where the kernel takes none any more.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.fill();
        if !self.backlog.is_empty() {
            self.submit()?;
        }
        let waited = match timeout {
            Some(Duration::ZERO) if self.ring.submission().is_empty() && !self.has_more() => return Ok(()),
            Some(Duration::ZERO) => self.ring.submit().map(drop),
            Some(timeout) => {
                let timeout = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&timeout)).map(drop)
            }
            None => self.ring.submit_and_wait(1).map(drop),
        };
        match waited {
            Err(error) if !is_passing(&error) => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Whether the kernel has more to do for requests that are under way, which it does in the next wait.
    pub(super) fn has_more(&mut self) -> bool {
        let requests = self.ring.submission();
        requests.taskrun() || requests.cq_overflow()
    }

    /// The next completion.
    pub(super) fn next(&mut self) -> Option<Completed> {
        let entry = self.ring.completion().next()?;
        let result = match entry.result() {
            result @ 0.. => Ok(result as u32),
            errno => Err(Errno::from_raw_os_error(-errno)),
        };
        let (buffer, more) = (cqueue::buffer_select(entry.flags()), cqueue::more(entry.flags()));
        Some(Completed { name: entry.user_data(), result, buffer, more })
    }
}

/// Whether the same may succeed when it is tried again: the time is over, a signal came, or memory or room was short.
fn is_passing(error: &io::Error) -> bool {
    let passing = [Errno::TIME, Errno::INTR, Errno::AGAIN, Errno::BUSY];
    error.raw_os_error().is_some_and(|code| passing.iter().any(|errno| errno.raw_os_error() == code))
}

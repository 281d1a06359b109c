//! Lines on their way to a stream that may be slow, full or gone: a bounded queue, and a thread of its own that writes.
//!
//! Who sends a line never waits and never fails: what finds no room in the queue, or cannot be written, is counted and
//! dropped, and told of once lines get through again.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, Sender, bounded};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tracing::callsite::Identifier;

use crate::limits::{LOG_QUEUE_BYTES_MAX, LOG_QUEUE_LINES_MAX, LOG_REPEAT_MS};

/// The way to a stream; it ends, with its thread, where this is dropped.
pub(super) struct LogQueue {
    items: Sender<Item>,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: &'static AtomicU64,
}

/// A line with its end.
pub(super) struct Line {
    pub(super) text: Vec<u8>,
    pub(super) pace: Pace,
}

/// How often a line is written that comes again and again.
#[derive(Clone)]
pub(super) enum Pace {
    /// As often as it comes.
    Each,
    /// The first of a second from this place in the code at once; of the others the last, with their number, when the
    /// second is over.
    OncePerSecond(Identifier),
}

enum Item {
    Line(Line),
    /// Answered once all that came before was written.
    Flush(Sender<()>),
}

impl LogQueue {
    /// Starts the thread that writes to `stream`. Lines that are lost are counted in `dropped`.
    ///
    /// # Errors
    /// Where there is no thread to be had.
    pub(super) fn start(stream: impl AsFd + Send + 'static, dropped: &'static AtomicU64) -> io::Result<LogQueue> {
        let (sender, items) = bounded(LOG_QUEUE_LINES_MAX);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            items,
            stream,
            waiting_bytes: Arc::clone(&waiting_bytes),
            dropped,
            told: dropped.load(Ordering::Relaxed),
            torn: false,
            repeats: Repeats::default(),
        };
        std::thread::Builder::new().name("log".into()).spawn(move || writer.run())?;
        Ok(LogQueue { items: sender, waiting_bytes, dropped })
    }

    /// Puts a line into the queue, or drops it where there is no room.
    pub(super) fn send(&self, line: Line) {
        let bytes = line.text.len();
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > LOG_QUEUE_BYTES_MAX || self.items.try_send(Item::Line(line)).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything that was sent before is written, but no longer than `most`; whether it is.
    pub(super) fn flush(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        let (done, written) = bounded(1);
        self.items.send_deadline(Item::Flush(done), deadline).is_ok() && written.recv_deadline(deadline).is_ok()
    }
}

/// Writes all of it. It waits for a slow reader, and never takes a lock that others may want.
///
/// # Errors
/// What the kernel says: the disk is full, or the reader gone, since Rust has SIGPIPE ignored.
pub(in crate::server) fn write_all(stream: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Another process may have set the pipe, which it shares, to this.
            Err(Errno::AGAIN) => match poll(&mut [PollFd::from_borrowed_fd(stream, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

struct Writer<S> {
    items: Receiver<Item>,
    stream: S,
    waiting_bytes: Arc<AtomicUsize>,
    dropped: &'static AtomicU64,
    /// Dropped lines that a line told of.
    told: u64,
    /// Whether the stream ends in the middle of a line, as a disk does that became full.
    torn: bool,
    repeats: Repeats,
}

impl<S: AsFd> Writer<S> {
    fn run(mut self) {
        loop {
            let item = match self.repeats.next_at() {
                Some(at) => self.items.recv_deadline(at),
                None => self.items.recv().map_err(|RecvError| RecvTimeoutError::Disconnected),
            };
            match item {
                Ok(Item::Line(line)) => {
                    self.waiting_bytes.fetch_sub(line.text.len(), Ordering::Relaxed);
                    if let Some(text) = self.repeats.admit(line, Instant::now()) {
                        self.write(&text);
                    }
                }
                Ok(Item::Flush(done)) => {
                    self.write_repeats(None);
                    // Who asked may have waited long enough.
                    let _ = done.try_send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.write_repeats(None),
            }
            self.write_repeats(Some(Instant::now()));
        }
    }

    fn write_repeats(&mut self, until: Option<Instant>) {
        for text in self.repeats.take(until) {
            self.write(&text);
        }
    }

    fn write(&mut self, text: &[u8]) {
        let stream = self.stream.as_fd();
        let begun = if self.torn { write_all(stream, b"\n") } else { Ok(()) };
        if begun.and_then(|()| write_all(stream, text)).is_err() {
            self.torn = true;
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.torn = false;
        let dropped = self.dropped.load(Ordering::Relaxed);
        // Not while the queue is full: this line would be lost as well.
        if dropped > self.told && self.items.len() < LOG_QUEUE_LINES_MAX / 2 {
            tracing::warn!(
                since_start = dropped,
                "log lines were dropped: they could not be written, or not as fast as they came"
            );
            self.told = dropped;
        }
    }
}

/// Lines that may come again, by their place in the code.
#[derive(Default)]
struct Repeats(HashMap<Identifier, Repeat>);

struct Repeat {
    /// The end of the second that began when a line was written.
    until: Instant,
    /// The last of those that came in it.
    last: Vec<u8>,
    times: u64,
}

impl Repeats {
    /// The line, if it is to be written now.
    fn admit(&mut self, line: Line, now: Instant) -> Option<Vec<u8>> {
        let Pace::OncePerSecond(place) = line.pace else { return Some(line.text) };
        match self.0.get_mut(&place) {
            Some(repeat) => {
                repeat.last = line.text;
                repeat.times += 1;
                None
            }
            None => {
                let until = now + Duration::from_millis(LOG_REPEAT_MS);
                self.0.insert(place, Repeat { until, last: Vec::new(), times: 0 });
                Some(line.text)
            }
        }
    }

    fn next_at(&self) -> Option<Instant> {
        self.0.values().map(|repeat| repeat.until).min()
    }

    /// What the seconds that are over at `until`, or all of them, have left to be written. A place whose second had
    /// nothing is forgotten.
    fn take(&mut self, until: Option<Instant>) -> Vec<Vec<u8>> {
        let mut texts = Vec::new();
        self.0.retain(|_, repeat| {
            if until.is_some_and(|now| repeat.until > now) {
                return true;
            }
            let times = std::mem::take(&mut repeat.times);
            if times > 0 {
                texts.push(counted(std::mem::take(&mut repeat.last), times));
                repeat.until = until.unwrap_or(repeat.until) + Duration::from_millis(LOG_REPEAT_MS);
            }
            times > 0
        });
        texts
    }
}

/// The line with the number of those it stands for: a field in JSON, a remark otherwise.
fn counted(mut text: Vec<u8>, times: u64) -> Vec<u8> {
    if times == 1 {
        return text;
    }
    if text.starts_with(b"{") && text.ends_with(b"}\n") {
        text.truncate(text.len() - 2);
        text.extend_from_slice(format!(",\"times\":{times}}}\n").as_bytes());
    } else {
        text.truncate(text.trim_ascii_end().len());
        text.extend_from_slice(format!(" ({times} times within a second)\n").as_bytes());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader, PipeReader, pipe};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// What the kernel keeps of a pipe that is not read.
    const PIPE_BYTES: usize = 64 * 1024;

    fn line(text: &str) -> Line {
        Line { text: text.into(), pace: Pace::Each }
    }

    fn queue(stream: impl AsFd + Send + 'static) -> LogQueue {
        LogQueue::start(stream, Box::leak(Box::default())).expect("a thread")
    }

    fn dropped(queue: &LogQueue) -> usize {
        queue.dropped.load(Ordering::Relaxed) as usize
    }

    /// All lines until the queue ends, which this does.
    fn lines(queue: LogQueue, reader: PipeReader) -> Vec<String> {
        drop(queue);
        BufReader::new(reader).lines().map(|line| line.expect("text")).collect()
    }

    #[test]
    fn what_a_stuck_reader_leaves_no_room_for_is_counted() {
        let (reader, writer) = pipe().unwrap();
        let queue = queue(writer);
        let text = format!("{}\n", "x".repeat(99));
        let sent = LOG_QUEUE_LINES_MAX + 2 * PIPE_BYTES / text.len();
        for _ in 0..sent {
            queue.send(line(&text));
        }
        assert!(!queue.flush(Duration::from_millis(1)), "the pipe has no reader");
        let lost = dropped(&queue);
        assert!((1..=sent - LOG_QUEUE_LINES_MAX).contains(&lost), "{lost} of {sent}");
        let came = lines(queue, reader);
        assert!(came.iter().all(|line| line.len() == 99));
        assert_eq!(came.len() + lost, sent, "each came or was counted");
    }

    #[test]
    fn waiting_lines_are_bounded_in_bytes() {
        let (reader, writer) = pipe().unwrap();
        let queue = queue(writer);
        // A little less than a whole part, so that the bound is not met exactly.
        let text = format!("{}\n", "x".repeat(PIPE_BYTES - 2));
        let sent = 4 * LOG_QUEUE_BYTES_MAX / text.len();
        for _ in 0..sent {
            queue.send(line(&text));
        }
        // One is being written, one may have gone into the pipe.
        let lost = dropped(&queue);
        assert!((sent - LOG_QUEUE_BYTES_MAX / text.len() - 2..sent).contains(&lost), "{lost} of {sent}");
        queue.send(line("small\n"));
        assert_eq!(lines(queue, reader).len() + lost, sent + 1, "what is small finds room");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_no_end() {
        let full = queue(File::options().write(true).open("/dev/full").unwrap());
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let gone = queue(writer);
        for queue in [full, gone] {
            (0..100).for_each(|_| queue.send(line("lost\n")));
            assert!(queue.flush(PATIENCE));
            assert_eq!(dropped(&queue), 100);
        }
    }

    #[test]
    fn a_pipe_that_does_not_block_is_waited_for() {
        let (reader, writer) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let queue = queue(writer);
        let text = format!("{}\n", "x".repeat(PIPE_BYTES));
        (0..4).for_each(|_| queue.send(line(&text)));
        let came = lines(queue, reader);
        assert_eq!(came.iter().map(String::len).collect::<Vec<_>>(), [PIPE_BYTES; 4]);
    }

    struct Here;

    impl tracing::Callsite for Here {
        fn set_interest(&self, _: tracing::subscriber::Interest) {}

        fn metadata(&self) -> &tracing::Metadata<'_> {
            unreachable!("nothing is logged from here")
        }
    }

    #[test]
    fn a_line_that_comes_again_is_told_once_a_second_with_its_number() {
        static HERE: Here = Here;
        let place = || Pace::OncePerSecond(Identifier(&HERE));
        let line = |text: &str| Line { text: text.into(), pace: place() };
        let second = Duration::from_millis(LOG_REPEAT_MS);
        let start = Instant::now();
        let mut repeats = Repeats::default();
        assert_eq!(repeats.admit(line("first\n"), start), Some(b"first\n".to_vec()));
        for at in 1..=70_000 {
            assert_eq!(repeats.admit(line(&format!("line {at}\n")), start), None);
        }
        let each = Line { text: b"another\n".to_vec(), pace: Pace::Each };
        assert!(repeats.admit(each, start).is_some(), "others are not kept back");
        assert_eq!(repeats.next_at(), Some(start + second));
        assert!(repeats.take(Some(start + second / 2)).is_empty());
        assert_eq!(repeats.take(Some(start + second)), [b"line 70000 (70000 times within a second)\n"]);
        assert_eq!(repeats.admit(line("again\n"), start + second), None);
        assert_eq!(repeats.take(Some(start + second * 2)), [b"again\n"], "one stands for itself");
        assert!(repeats.take(Some(start + second * 3)).is_empty());
        assert_eq!(repeats.next_at(), None, "a silent second ends it");
        assert!(repeats.admit(line("anew\n"), start + second * 4).is_some());
        assert_eq!(repeats.admit(line("at the end\n"), start + second * 4), None);
        assert_eq!(repeats.take(None), [b"at the end\n"]);
    }

    #[test]
    fn the_number_is_a_field_in_json() {
        assert_eq!(counted(b"{\"a\":1}\n".to_vec(), 7), b"{\"a\":1,\"times\":7}\n");
        assert_eq!(counted(b"{\"a\":1}\n".to_vec(), 1), b"{\"a\":1}\n");
    }
}

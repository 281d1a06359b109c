//! Where updates come from: the lines of stdin, or a stream that a thread of its own reads.

use std::collections::VecDeque;
use std::fmt::{self, Debug, Formatter};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, TrySendError, channel, sync_channel,
};
use std::time::Duration;

use super::update::{Place, Update};
use crate::client::ClientError;
use crate::client::backoff::Backoff;
use crate::client::error::Retry;
use crate::client::lines::Lines;

/// How long one read of a stream waits for entries: after so long a place to keep is kept.
const READ_WAIT: Duration = Duration::from_millis(200);

/// How long what was read waits before it is handed over again, where there was no room.
const HAND_OVER_WAIT: Duration = Duration::from_millis(5);

/// Entries that are read at once.
const READ_MAX: usize = 1_000;

/// Such reads that wait to be taken; beyond it the stream is not read.
const READS_MAX: usize = 4;

/// How long the last place to be kept is waited for at the end.
const PARTING: Duration = Duration::from_secs(5);

/// A stream of entries that has a memory of its own for how far it was read: a Redis.
pub trait Stream: Send {
    /// The id behind which to begin, where one was kept.
    ///
    /// # Errors
    ///
    /// Why it cannot be told.
    fn kept(&mut self) -> Result<Option<String>, String>;

    /// At most so many entries behind this id, in order. Waits so long for the first of them.
    ///
    /// # Errors
    ///
    /// Why there are none.
    fn read(&mut self, behind: &str, count_max: usize, wait: Duration) -> Result<Vec<StreamEntry>, String>;

    /// Keeps the id behind which to begin another time.
    ///
    /// # Errors
    ///
    /// Why it is not kept.
    fn keep(&mut self, id: &str) -> Result<(), String>;
}

/// One entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its id, which is above all before it.
    pub id: String,
    /// Names and values.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a source has next.
#[derive(Debug)]
pub(super) enum Next {
    /// An update.
    Update(Update),
    /// What is none, and why.
    Bad(Place, String),
    /// Something to be told: the stream was lost, or is there again.
    Note(String),
}

/// See the module's documentation.
pub(super) enum Source {
    Stdin { lines: Lines, taken: u64 },
    Stream(Tail),
}

/// A stream that is read.
pub(super) struct Tail {
    heard: Receiver<Heard>,
    /// Readable when there is something to hear.
    bell: UnixStream,
    keeper: Option<Sender<String>>,
    /// Whether the last place was kept, once the thread has ended.
    ended: Receiver<bool>,
    entries: VecDeque<StreamEntry>,
    versions: bool,
}

enum Heard {
    Entries(Vec<StreamEntry>),
    Note(String),
}

impl Source {
    /// The lines of stdin.
    pub(super) fn of_stdin() -> Result<Source, ClientError> {
        Ok(Source::Stdin { lines: Lines::of_stdin()?, taken: 0 })
    }

    /// A stream, from where it was read up to, or else from behind `from`; and where that is. With `versions` the ids of
    /// entries are versions where these have none.
    pub(super) fn of_stream(
        mut stream: Box<dyn Stream>,
        from: &str,
        versions: bool,
    ) -> Result<(Source, String), ClientError> {
        let kept = stream.kept().map_err(|why| ClientError::Lost(format!("the stream cannot be read: {why}")))?;
        let begin = kept.unwrap_or_else(|| from.to_owned());
        // What would fail every time fails now.
        let probe = stream.read(&begin, 1, Duration::from_millis(1));
        probe.map_err(|why| ClientError::Lost(format!("the stream cannot be read: {why}")))?;
        let failed = |error| ClientError::Io { what: "start the reader of the stream", error };
        let (bell, ringer) = UnixStream::pair().map_err(failed)?;
        bell.set_nonblocking(true).and_then(|()| ringer.set_nonblocking(true)).map_err(failed)?;
        let (sender, heard) = sync_channel(READS_MAX);
        let (keeper, to_keep) = channel();
        let (end, ended) = channel();
        let behind = begin.clone();
        let read = move || {
            let backoff = Backoff::default();
            let reader = Reader { stream, behind, sender, ringer, to_keep, unkept: None, backoff, is_lost: false };
            // Nobody listens where the process ends without it.
            let _ = end.send(reader.run());
        };
        std::thread::Builder::new().name("stream".to_owned()).spawn(read).map_err(failed)?;
        let tail = Tail { heard, bell, keeper: Some(keeper), ended, entries: VecDeque::new(), versions };
        Ok((Source::Stream(tail), begin))
    }

    /// The next update that has been read.
    pub(super) fn next(&mut self) -> Option<Next> {
        match self {
            Source::Stdin { lines, taken } => loop {
                let line = lines.next()?;
                *taken += 1;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Some(match Update::of_line(&line, *taken) {
                    Ok(update) => Next::Update(update),
                    Err(why) => Next::Bad(Place::Line(*taken), why),
                });
            },
            Source::Stream(tail) => tail.next(),
        }
    }

    /// Whether there is and will be nothing more.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Source::Stdin { lines, .. } => lines.is_over(),
            Source::Stream(_) => false,
        }
    }

    /// What becomes readable when there is more.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Source::Stdin { lines, .. } => lines.descriptor(),
            Source::Stream(tail) => Some(tail.bell.as_fd()),
        }
    }

    /// Reads, when the descriptor is readable.
    pub(super) fn read(&mut self) -> Result<(), ClientError> {
        match self {
            Source::Stdin { lines, .. } => lines.read(),
            Source::Stream(tail) => {
                // The bell has rung, however often: what there is to hear is taken by `next`.
                let _ = tail.bell.read(&mut [0; 64]);
                Ok(())
            }
        }
    }

    /// Everything up to here is done.
    pub(super) fn keep(&mut self, place: Place) {
        if let (Source::Stream(tail), Place::Entry(id)) = (self, place)
            && let Some(keeper) = &tail.keeper
        {
            // A reader that has panicked is told of at the end.
            let _ = keeper.send(id);
        }
    }

    /// Reads no more, and waits until the last place is kept.
    ///
    /// # Errors
    ///
    /// Where it is not.
    pub(super) fn end(mut self) -> Result<(), ClientError> {
        let Source::Stream(tail) = &mut self else { return Ok(()) };
        tail.keeper = None;
        match tail.ended.recv_timeout(PARTING) {
            Ok(true) => Ok(()),
            Ok(false) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(ClientError::Lost(
                "up to where the stream was read could not be kept: some of it is sent again another time".to_owned(),
            )),
        }
    }
}

impl Tail {
    fn next(&mut self) -> Option<Next> {
        loop {
            if let Some(StreamEntry { id, fields }) = self.entries.pop_front() {
                return Some(match Update::of_entry(id.clone(), &fields, self.versions) {
                    Ok(update) => Next::Update(update),
                    Err(why) => Next::Bad(Place::Entry(id), why),
                });
            }
            match self.heard.try_recv() {
                Ok(Heard::Entries(entries)) => self.entries.extend(entries),
                Ok(Heard::Note(what)) => return Some(Next::Note(what)),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
    }
}

impl Debug for Source {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Source::Stdin { lines, taken } => {
                out.debug_struct("Stdin").field("lines", lines).field("taken", taken).finish()
            }
            Source::Stream(_) => out.write_str("Stream"),
        }
    }
}

/// The thread's.
struct Reader {
    stream: Box<dyn Stream>,
    behind: String,
    sender: SyncSender<Heard>,
    ringer: UnixStream,
    to_keep: Receiver<String>,
    /// What could not be kept yet.
    unkept: Option<String>,
    backoff: Backoff,
    is_lost: bool,
}

impl Reader {
    /// Until nobody wants it any more. Whether the last place is kept.
    fn run(mut self) -> bool {
        let mut read = None;
        loop {
            let (newest, is_last) = self.newest_to_keep(read.is_some());
            self.unkept = newest.or(self.unkept.take());
            self.keep();
            if is_last {
                // There will be no other time.
                self.keep();
                return self.unkept.is_none();
            }
            read = match read.take() {
                Some(entries) => self.hand_over(entries),
                None => self.read(),
            };
        }
    }

    /// The last of the ids that are to be kept now, and whether there will be no other. Waits where there is nothing to do
    /// until what was read has been taken.
    fn newest_to_keep(&self, waits: bool) -> (Option<String>, bool) {
        let mut newest = None;
        if waits {
            match self.to_keep.recv_timeout(HAND_OVER_WAIT) {
                Ok(id) => newest = Some(id),
                Err(RecvTimeoutError::Timeout) => return (None, false),
                Err(RecvTimeoutError::Disconnected) => return (None, true),
            }
        }
        loop {
            match self.to_keep.try_recv() {
                Ok(id) => newest = Some(id),
                Err(TryRecvError::Empty) => return (newest, false),
                Err(TryRecvError::Disconnected) => return (newest, true),
            }
        }
    }

    /// What cannot be kept now is tried again.
    fn keep(&mut self) {
        if let Some(id) = &self.unkept
            && self.stream.keep(id).is_ok()
        {
            self.unkept = None;
        }
    }

    fn read(&mut self) -> Option<Vec<StreamEntry>> {
        match self.stream.read(&self.behind, READ_MAX, READ_WAIT) {
            Ok(entries) => {
                if std::mem::take(&mut self.is_lost) {
                    self.backoff = Backoff::default();
                    self.note("the stream is there again".to_owned());
                }
                let last = entries.last()?;
                self.behind.clone_from(&last.id);
                Some(entries)
            }
            Err(why) => {
                if !std::mem::replace(&mut self.is_lost, true) {
                    self.note(format!("the stream cannot be read: {why}; it is tried again"));
                }
                let pause = self.backoff.pause(Retry::Backoff, Duration::ZERO).unwrap_or_default();
                std::thread::sleep(pause);
                None
            }
        }
    }

    /// What could not be handed over.
    fn hand_over(&mut self, entries: Vec<StreamEntry>) -> Option<Vec<StreamEntry>> {
        match self.sender.try_send(Heard::Entries(entries)) {
            Ok(()) => {
                self.ring();
                None
            }
            Err(TrySendError::Full(Heard::Entries(entries))) => Some(entries),
            Err(TrySendError::Full(Heard::Note(_)) | TrySendError::Disconnected(_)) => None,
        }
    }

    fn note(&mut self, what: String) {
        // Where there is no room for it, enough waits to be looked at.
        if self.sender.try_send(Heard::Note(what)).is_ok() {
            self.ring();
        }
    }

    /// A bell that is full has rung.
    fn ring(&mut self) {
        let _ = self.ringer.write(&[0]);
    }
}

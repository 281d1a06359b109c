//! What a node alone writes down, so that the next process with the same folder delivers what this one has not, and knows
//! what receivers were told.
//!
//! A file of lines, each a JSON array, to which is only added; where it holds much that does not count any more, one with
//! what counts takes its place.
//!
//! ```text
//!   ["event",12,"3f…-12","rden",true]     an event was made: its number, id, subject, and whether that is present
//!   ["done",12]                           it was delivered to all, or given up
//!   ["told","rden"]                       receivers know that the subject is present; only in front of all events
//! ```
//!
//! What was given to the operating system outlives the process; against a loss of power nothing is done. A line that cannot
//! be read, such as a last one that is not whole, is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::event::{Event, Subject};
use crate::limits::WEBHOOK_JOURNAL_BYTES_SPARED;

/// A folder for a journal, which one process has at a time.
pub(super) struct Place {
    folder: PathBuf,
    warned: Option<String>,
}

/// See the module's documentation.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    /// Held while the process lives.
    _lock: File,
    live: Live,
    /// Bytes of the file.
    bytes: usize,
    unwritten: Vec<u8>,
    is_failing: bool,
}

/// What counts of a journal.
#[derive(Debug, Default)]
struct Live {
    told: BTreeSet<Subject>,
    events: BTreeMap<u64, Event>,
}

impl Place {
    pub(super) fn new(folder: &str) -> Place {
        Place { folder: folder.into(), warned: None }
    }

    /// Reads what is there, and writes from now on: the journal, the events that were not delivered, in order, and what was
    /// told.
    ///
    /// # Errors
    /// Another process has it, or the system says no.
    pub(super) fn open(&self) -> io::Result<(Journal, Vec<Event>, Vec<Subject>)> {
        fs::create_dir_all(&self.folder)?;
        let lock = File::options().create(true).truncate(false).write(true).open(self.folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another process has it still"),
            TryLockError::Error(error) => error,
        })?;
        let path = self.folder.join("events.jsonl");
        let live = Live::read(&path)?;
        let (events, told) = (live.events.values().cloned().collect(), live.told.iter().cloned().collect());
        let (file, bytes) = live.write(&path)?;
        Ok((Journal { file, path, _lock: lock, live, bytes, unwritten: Vec::new(), is_failing: false }, events, told))
    }

    /// Says why it cannot be opened, each reason once.
    pub(super) fn warn(&mut self, error: &io::Error) {
        let error = error.to_string();
        if self.warned.as_ref() != Some(&error) {
            tracing::warn!(folder = %self.folder.display(), error, "cannot use webhooks.directory: events wait; trying again");
            self.warned = Some(error);
        }
    }
}

impl Journal {
    /// An event was made.
    pub(super) fn made(&mut self, event: &Event) {
        self.add(&line_of(event));
        self.live.made(event.clone());
    }

    /// An event need not be kept any more.
    pub(super) fn finished(&mut self, number: u64) {
        if self.live.events.remove(&number).is_some() {
            self.add(&json!(["done", number]));
        }
    }

    /// What was said since goes to the file.
    pub(super) fn flush(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let written = self.file.write_all(&self.unwritten);
        self.bytes += self.unwritten.len();
        self.unwritten.clear();
        let written =
            written.and_then(|()| match self.bytes > WEBHOOK_JOURNAL_BYTES_SPARED.max(4 * self.live.bytes()) {
                true => self.live.write(&self.path).map(|(file, bytes)| (self.file, self.bytes) = (file, bytes)),
                false => Ok(()),
            });
        match written {
            Ok(()) => self.is_failing = false,
            Err(error) if !self.is_failing => {
                tracing::error!(file = %self.path.display(), %error, "cannot write down the events of webhooks: a crash may lose them");
                self.is_failing = true;
            }
            Err(_) => {}
        }
    }

    fn add(&mut self, line: &Value) {
        put_line(&mut self.unwritten, line);
    }
}

impl Live {
    fn read(path: &Path) -> io::Result<Live> {
        let mut live = Live::default();
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(live),
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).split(b'\n') {
            live.take(&line?);
        }
        Ok(live)
    }

    fn take(&mut self, line: &[u8]) -> Option<()> {
        let line: Vec<Value> = serde_json::from_slice(line).ok()?;
        let subject = |at: usize| Subject::decode(line.get(at)?.as_str()?);
        match line.first()?.as_str()? {
            "event" => {
                let id = line.get(2)?.as_str()?.into();
                let (number, is_present) = (line.get(1)?.as_u64()?, line.get(4)?.as_bool()?);
                self.made(Event { number, id, subject: subject(3)?, is_present });
            }
            "done" => _ = self.events.remove(&line.get(1)?.as_u64()?),
            "told" => _ = self.told.insert(subject(1)?),
            _ => {}
        }
        Some(())
    }

    fn made(&mut self, event: Event) {
        match event.is_present {
            true => _ = self.told.insert(event.subject.clone()),
            false => _ = self.told.remove(&event.subject),
        }
        self.events.insert(event.number, event);
    }

    /// About what it takes in a file.
    fn bytes(&self) -> usize {
        const LINE_BYTES: usize = 80;
        LINE_BYTES * (self.told.len() + self.events.len())
    }

    /// Takes the place of the file, as a whole or not at all. The new file, and its bytes.
    fn write(&self, path: &Path) -> io::Result<(File, usize)> {
        let mut text = Vec::new();
        self.told.iter().for_each(|subject| put_line(&mut text, &json!(["told", subject.encode()])));
        self.events.values().for_each(|event| put_line(&mut text, &line_of(event)));
        // Reading goes over the events again: what they say last of a subject is what was told.
        let next = path.with_extension("next");
        let mut file = File::create(&next)?;
        file.write_all(&text)?;
        fs::rename(&next, path)?;
        Ok((file, text.len()))
    }
}

fn line_of(event: &Event) -> Value {
    json!(["event", event.number, *event.id, event.subject.encode(), event.is_present])
}

fn put_line(out: &mut Vec<u8>, line: &Value) {
    // Writing to memory does not fail.
    let _ = writeln!(out, "{line}");
}

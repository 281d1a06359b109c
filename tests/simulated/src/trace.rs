//! What happened, as a hash by which two runs are compared, and in words where one is replayed.

use std::hash::{DefaultHasher, Hasher};

/// See the module's documentation.
pub struct Trace {
    hasher: DefaultHasher,
    in_words: bool,
    events: u64,
}

impl Trace {
    /// An empty trace, printed as it grows if `in_words`.
    pub fn new(in_words: bool) -> Trace {
        Trace { hasher: DefaultHasher::new(), in_words, events: 0 }
    }

    /// Something happened: what the hash takes in, and how it is told.
    pub fn note(&mut self, bytes: &[u8], words: impl FnOnce() -> String) {
        self.events += 1;
        self.hasher.write(bytes);
        self.hasher.write_u64(self.events);
        if self.in_words {
            eprintln!("{:>6}  {}", self.events, words());
        }
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

//! The lines of stdin.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};

use memchr::memchr;

use super::ClientError;

/// Bytes of a line. No server can be configured to take more.
const LINE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes that are read from stdin at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The lines of stdin, read when there is something: waiting for them is [`Link::next`](super::link::Link::next)'s.
#[derive(Debug)]
pub(super) struct Lines {
    input: File,
    buffer: Vec<u8>,
    /// Where the next line begins.
    from: usize,
    /// Up to where there is no end of it.
    searched: usize,
    ended: bool,
}

impl Lines {
    /// None is read yet.
    pub(super) fn of_stdin() -> Result<Lines, ClientError> {
        let input = io::stdin().as_fd().try_clone_to_owned();
        let input = input.map_err(|error| ClientError::Io { what: "read stdin", error })?;
        Ok(Lines { input: input.into(), buffer: Vec::new(), from: 0, searched: 0, ended: false })
    }

    /// Whether all have been taken.
    pub(super) fn is_over(&self) -> bool {
        self.ended && self.from == self.buffer.len()
    }

    /// What can be read, while there may be more.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        (!self.ended).then(|| self.input.as_fd())
    }

    /// The next line that is there, without its end.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let (end, next) = match memchr(b'\n', &self.buffer[self.searched..]) {
            Some(at) => (self.searched + at, self.searched + at + 1),
            None => {
                self.searched = self.buffer.len();
                if !self.ended || self.is_over() {
                    return None;
                }
                (self.buffer.len(), self.buffer.len())
            }
        };
        let line = &self.buffer[self.from..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        (self.from, self.searched) = (next, next);
        Some(line)
    }

    /// Reads some more. Waits where there is nothing.
    pub(super) fn read(&mut self) -> Result<(), ClientError> {
        self.buffer.drain(..self.from);
        self.searched -= self.from;
        self.from = 0;
        let filled = self.buffer.len();
        if filled > LINE_BYTES_MAX {
            return Err(ClientError::Options(format!(
                "a line of stdin is longer than {LINE_BYTES_MAX} bytes; no server takes such a message"
            )));
        }
        self.buffer.resize(filled + CHUNK_BYTES, 0);
        let read = self.input.read(&mut self.buffer[filled..]);
        self.buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(bytes) => self.ended = bytes == 0,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(ClientError::Io { what: "read stdin", error }),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_read() {
        let text = b"one\r\n\ntwo\nthree";
        for cut in 0..=text.len() {
            let mut lines = Lines::of_stdin().unwrap();
            let mut found = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                lines.buffer.extend_from_slice(part);
                found.extend(std::iter::from_fn(|| lines.next()));
            }
            assert!(!lines.is_over());
            lines.ended = true;
            found.extend(std::iter::from_fn(|| lines.next()));
            assert_eq!(found, [&b"one"[..], b"", b"two", b"three"], "cut at {cut}");
            assert!(lines.is_over());
        }
    }
}

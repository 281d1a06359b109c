//! Bytes between a socket that speaks TLS and one that does not.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustls::Connection;

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Passes on both ways until both sides have ended; an error ends both. The end of one side is told to the other, which may
/// go on.
pub(crate) fn pump(plain: &TcpStream, secured: &TcpStream, session: Connection) {
    let session = Mutex::new(session);
    let end_on_error = |outcome: io::Result<()>| {
        if outcome.is_err() {
            let _ = plain.shutdown(Shutdown::Both);
            let _ = secured.shutdown(Shutdown::Both);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| end_on_error(open(plain, secured, &session)));
        end_on_error(seal(plain, secured, &session));
    });
}

fn open(mut plain: &TcpStream, mut secured: &TcpStream, session: &Mutex<Connection>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let filled = secured.read(&mut piece)?;
        let mut bytes = &piece[..filled];
        let mut opened = Vec::new();
        let mut has_ended = filled == 0;
        {
            let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
            while !bytes.is_empty() {
                session.read_tls(&mut bytes)?;
                let outcome = session.process_new_packets();
                // An alert, where something is wrong.
                flush(&mut session, secured)?;
                let state = outcome.map_err(io::Error::other)?;
                has_ended |= state.peer_has_closed();
                let before = opened.len();
                opened.resize(before + state.plaintext_bytes_to_read(), 0);
                session.reader().read_exact(&mut opened[before..])?;
            }
        }
        plain.write_all(&opened)?;
        if has_ended {
            return plain.shutdown(Shutdown::Write);
        }
    }
}

fn seal(mut plain: &TcpStream, secured: &TcpStream, session: &Mutex<Connection>) -> io::Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let filled = plain.read(&mut piece)?;
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        if filled == 0 {
            session.send_close_notify();
            flush(&mut session, secured)?;
            return secured.shutdown(Shutdown::Write);
        }
        session.writer().write_all(&piece[..filled])?;
        flush(&mut session, secured)?;
    }
}

fn flush(session: &mut Connection, mut secured: &TcpStream) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(&mut secured)?;
    }
    Ok(())
}

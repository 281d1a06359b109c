//! Dribblers: connections that send a proper handshake, a byte at a time, and never reach its end. A server should end
//! them at a deadline; one that is gone does not come back.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::BenchError;
use super::handshake::Handshake;
use super::limits::{ATTACK_TICK_MS, DRIBBLE_MS};

#[derive(Debug)]
enum Dribbler {
    Waiting,
    Dribbling { stream: TcpStream, sent: usize },
    Gone,
}

/// All of them. Their tokens count from 0.
#[derive(Debug)]
pub(super) struct Dribblers {
    /// All but its end.
    request: Vec<u8>,
    dribblers: Vec<Dribbler>,
    ticks: usize,
    sent_bytes: u64,
    left: usize,
}

impl Dribblers {
    /// None is connected yet.
    ///
    /// # Errors
    ///
    /// Where no token or no TLS can be made for them.
    pub(super) fn new(count: usize, handshake: &Handshake) -> Result<Dribblers, BenchError> {
        // With TLS its own handshake comes first, and is as slow.
        let mut request = match &handshake.target().tls {
            Some(tls) => tls.client_hello()?,
            None => handshake.request("dribbler", false)?.into_bytes(),
        };
        request.truncate(request.len().saturating_sub(2));
        let dribblers = (0..count).map(|_| Dribbler::Waiting).collect();
        Ok(Dribblers { request, dribblers, ticks: 0, sent_bytes: 0, left: count })
    }

    /// Those that the server has not ended.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// What they have sent.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Everyone has one tick in a dribble's time: at its first it connects, and from then on it sends a byte.
    pub(super) fn tick(&mut self, address: SocketAddr, registry: &Registry) -> Result<(), BenchError> {
        let ticks = (DRIBBLE_MS / ATTACK_TICK_MS) as usize;
        let slot = self.ticks % ticks;
        self.ticks += 1;
        for at in (slot..self.dribblers.len()).step_by(ticks) {
            match &mut self.dribblers[at] {
                Dribbler::Waiting => {
                    let mut stream = TcpStream::connect(address)?;
                    registry.register(&mut stream, Token(at), Interest::READABLE)?;
                    self.dribblers[at] = Dribbler::Dribbling { stream, sent: 0 };
                }
                Dribbler::Dribbling { stream, sent } => {
                    let Some(byte) = self.request.get(*sent..*sent + 1) else { continue };
                    // What did not go is tried again a second later, and the end is told by a read.
                    if let Ok(1) = stream.write(byte) {
                        *sent += 1;
                        self.sent_bytes += 1;
                    }
                }
                Dribbler::Gone => {}
            }
        }
        Ok(())
    }

    /// Hears what the server has to say to one, which is mostly goodbye. Whether it is one of these at all.
    pub(super) fn ready(&mut self, at: usize) -> bool {
        let Some(dribbler) = self.dribblers.get_mut(at) else { return false };
        let Dribbler::Dribbling { stream, .. } = dribbler else { return true };
        let mut answer = [0; 1024];
        loop {
            match stream.read(&mut answer) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return true,
                Ok(0) | Err(_) => {
                    *dribbler = Dribbler::Gone;
                    self.left -= 1;
                    return true;
                }
            }
        }
    }
}

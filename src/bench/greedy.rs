//! Greedy clients: connections that keep RFC 6455 and the dialect, and ask for all they can get: many commands in one
//! write, or more than the server reads at once, all the time. One that the server ends does not come back.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::handshake::{Consent, Handshake};
use super::limits::{BUSY_PART_BYTES, BUSY_PARTS_MAX, BUSY_SEND_BYTES, RECEIVE_BYTES};
use super::scenario::AttackKind;
use super::skim::{Skim, Skimmed};
use super::stage::GREEDY_ROOM;
use super::target::Target;
use super::wire::{Opcode, masked};
use super::{BenchError, Options};
use crate::client::Transport;

/// What a client asks for, as whole frames.
#[derive(Clone, Debug)]
enum Demand {
    /// All of them, once.
    Once(Arc<[u8]>),
    /// Again and again.
    Always(Arc<[u8]>),
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spoils {
    /// Bytes that their sockets took, the handshake and the join left out.
    pub(super) sent_bytes: u64,
    /// Bytes they received, likewise.
    pub(super) received_bytes: u64,
    /// Whole messages among these.
    pub(super) replies: u64,
    /// Messages that refuse a command.
    pub(super) refused: u64,
    /// Clients that got a close frame.
    pub(super) closed: u64,
    /// The last close frame's code; 0 where there was none.
    pub(super) code: u16,
    /// Clients whose connection ended without one.
    pub(super) cut: u64,
}

#[derive(Debug)]
enum Stage {
    Down,
    Connecting,
    Upgrading {
        head: Vec<u8>,
    },
    /// The welcome and the answer to the join are awaited.
    Joining,
    /// So much of the demand is sent.
    Asking {
        sent: usize,
    },
    Asked,
    Gone,
}

#[derive(Debug)]
struct Client {
    stage: Stage,
    stream: Option<Transport<TcpStream>>,
    skim: Skim,
    /// Messages it has received.
    heard: usize,
}

/// The messages that come before any answer to the demand: the welcome, and the answer to the join.
const HEARD_FIRST: usize = 2;

/// All of them.
#[derive(Debug)]
pub(super) struct Greedy {
    clients: Vec<Client>,
    demand: Demand,
    commands: usize,
    deflate: bool,
    deaf: bool,
    mask: [u8; 4],
    /// The token of the first.
    token: usize,
    spoils: Spoils,
    buffer: Vec<u8>,
    /// Whether those that always have more to send may stop.
    may_stop: bool,
}

impl Greedy {
    /// None is connected yet.
    pub(super) fn new(options: &Options, token: usize, mask: [u8; 4]) -> Greedy {
        let down = || Client { stage: Stage::Down, stream: None, skim: Skim::default(), heard: 0 };
        Greedy {
            clients: std::iter::repeat_with(down).take(options.attackers).collect(),
            demand: demand(options.attack, options.attack_commands, mask),
            commands: options.attack_commands,
            deflate: options.attack_deflate,
            deaf: options.attack_deaf,
            mask,
            token,
            spoils: Spoils::default(),
            buffer: vec![0; RECEIVE_BYTES],
            may_stop: false,
        }
    }

    /// Whether this token is one of theirs.
    pub(super) fn holds(&self, token: usize) -> bool {
        (self.token..self.token + self.clients.len()).contains(&token)
    }

    /// What became of them so far.
    pub(super) fn spoils(&self) -> Spoils {
        self.spoils
    }

    /// Those that are connected still.
    pub(super) fn left(&self) -> usize {
        self.clients.iter().filter(|client| !matches!(client.stage, Stage::Gone)).count()
    }

    /// From now on those that always have more to send need not.
    pub(super) fn stop(&mut self) {
        self.may_stop = true;
    }

    /// Whether each has sent what it wanted and was answered, as far as it listens, or is gone.
    pub(super) fn is_over(&self) -> bool {
        let is_done = |client: &Client| match (&client.stage, &self.demand) {
            (Stage::Gone, _) => true,
            (_, Demand::Always(_)) => self.may_stop,
            (Stage::Asked, Demand::Once(_)) => self.deaf || client.heard >= HEARD_FIRST + self.commands,
            (
                Stage::Down | Stage::Connecting | Stage::Upgrading { .. } | Stage::Joining | Stage::Asking { .. },
                Demand::Once(_),
            ) => false,
        };
        self.clients.iter().all(is_done)
    }

    /// Connects those that are not, and has those go on that the server kept up with.
    pub(super) fn tick(&mut self, target: &Target, registry: &Registry) -> Result<(), BenchError> {
        for at in 0..self.clients.len() {
            match self.clients[at].stage {
                Stage::Down => {
                    let mut stream = target.dial()?;
                    if let Demand::Always(_) = self.demand {
                        set_socket_send_buffer_size(stream.socket(), BUSY_SEND_BYTES).map_err(std::io::Error::from)?;
                    }
                    let both = Interest::READABLE | Interest::WRITABLE;
                    registry.register(stream.socket_mut(), Token(self.token + at), both)?;
                    self.clients[at].stream = Some(stream);
                    self.clients[at].stage = Stage::Connecting;
                }
                Stage::Asking { .. } => self.ask(at),
                Stage::Connecting | Stage::Upgrading { .. } | Stage::Joining | Stage::Asked | Stage::Gone => {}
            }
        }
        Ok(())
    }

    /// Goes on with one whose socket is ready.
    ///
    /// # Errors
    ///
    /// Where the server does not take its handshake: then there is no attack.
    pub(super) fn ready(&mut self, token: usize, writable: bool, handshake: &Handshake) -> Result<(), BenchError> {
        let at = token - self.token;
        if writable {
            if let Some(stream) = &mut self.clients[at].stream {
                // What TLS holds. Where the socket is broken, its end is read.
                let _ = stream.flush();
            }
            match self.clients[at].stage {
                Stage::Connecting => {
                    let request = handshake.request("greedy", self.deflate)?;
                    // A socket that has just connected takes a request whole; one that has not takes nothing.
                    let stream = self.clients[at].stream.as_mut();
                    if stream.is_some_and(|stream| stream.write(request.as_bytes()).is_ok()) {
                        self.clients[at].stage = Stage::Upgrading { head: Vec::new() };
                    }
                }
                Stage::Asking { .. } => self.ask(at),
                Stage::Down | Stage::Upgrading { .. } | Stage::Joining | Stage::Asked | Stage::Gone => {}
            }
        }
        self.read(at, handshake)
    }

    fn read(&mut self, at: usize, handshake: &Handshake) -> Result<(), BenchError> {
        loop {
            let client = &mut self.clients[at];
            let asks = matches!(client.stage, Stage::Asking { .. } | Stage::Asked);
            let Some(stream) = &mut client.stream else { return Ok(()) };
            if asks && self.deaf {
                return Ok(());
            }
            let filled = match stream.read(&mut self.buffer) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(filled @ 1..) => filled,
                Ok(0) | Err(_) => {
                    self.spoils.cut += 1;
                    client.fall();
                    return Ok(());
                }
            };
            if asks {
                self.spoils.received_bytes += filled as u64;
            }
            if let Stage::Upgrading { head } = &mut client.stage {
                head.extend_from_slice(&self.buffer[..filled]);
                let refused = |why| BenchError::Server(format!("an attacker: {why}"));
                let Some(Consent { head_bytes, .. }) = handshake.consent(head, self.deflate).map_err(refused)? else {
                    continue;
                };
                let rest = head.split_off(head_bytes);
                client.stage = Stage::Joining;
                let join = format!(r#"{{"type":"join_room","roomId":"{GREEDY_ROOM}","id":1}}"#);
                // As with the request: the socket is empty.
                stream.write_all(&masked(Opcode::Text, join.as_bytes(), self.mask))?;
                self.hear(at, &rest);
            } else {
                let buffer = std::mem::take(&mut self.buffer);
                self.hear(at, &buffer[..filled]);
                self.buffer = buffer;
            }
        }
    }

    /// Takes frames that have come to one.
    fn hear(&mut self, at: usize, bytes: &[u8]) {
        let client = &mut self.clients[at];
        let (mut messages, mut refused, mut close) = (0, 0, None);
        client.skim.take(bytes, |Skimmed { opcode, start }| match opcode {
            1 | 2 => {
                messages += 1;
                refused += u64::from(start.starts_with(br#"{"type":"error""#));
            }
            8 => close = Some(start.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))),
            _ => {}
        });
        client.heard += messages;
        if let Stage::Asking { .. } | Stage::Asked = client.stage {
            self.spoils.replies += messages as u64;
        }
        self.spoils.refused += refused;
        if let Some(code) = close {
            self.spoils.closed += 1;
            self.spoils.code = code;
            client.fall();
        } else if matches!(client.stage, Stage::Joining) && client.heard >= HEARD_FIRST {
            client.stage = Stage::Asking { sent: 0 };
            self.ask(at);
        }
    }

    fn ask(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let (Stage::Asking { sent }, Some(stream)) = (&mut client.stage, &mut client.stream) else { return };
        let (Demand::Once(frames) | Demand::Always(frames)) = &self.demand;
        for _ in 0..BUSY_PARTS_MAX {
            match stream.write(&frames[*sent..]) {
                Ok(taken) => {
                    *sent += taken;
                    self.spoils.sent_bytes += taken as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Where it is broken, its end is read.
                Err(_) => return,
            }
            match self.demand {
                Demand::Once(_) if *sent == frames.len() => {
                    client.stage = Stage::Asked;
                    return;
                }
                Demand::Always(_) if *sent == frames.len() => *sent = 0,
                Demand::Once(_) | Demand::Always(_) => {}
            }
        }
    }
}

impl Client {
    fn fall(&mut self) {
        (self.stage, self.stream) = (Stage::Gone, None);
    }
}

fn demand(attack: AttackKind, commands: usize, mask: [u8; 4]) -> Demand {
    let frame = |text: &str| masked(Opcode::Text, text.as_bytes(), mask);
    let of_room = |kind: &str| frame(&format!(r#"{{"type":"{kind}","roomId":"{GREEDY_ROOM}"}}"#));
    match attack {
        AttackKind::History => Demand::Once(of_room("history").repeat(commands).into()),
        AttackKind::Presence => Demand::Once(of_room("presence").repeat(commands).into()),
        // A siege has none of these clients.
        AttackKind::Busy | AttackKind::Siege => {
            let ping = frame(r#"{"type":"ping"}"#);
            Demand::Always(ping.repeat(BUSY_PART_BYTES / ping.len()).into())
        }
    }
}

//! What greedy clients need to find: a room with a history, or one with many members.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::crowd::{Crowd, Receiver};
use super::handshake::Handshake;
use super::limits::{HISTORY_CONTENT_BYTES, HISTORY_MESSAGES, LONG_USER_BYTES, RECEIVE_BYTES};
use super::progress::Progress;
use super::scenario::AttackKind;
use super::seat::Seat;
use super::skim::Skim;
use super::target::Target;
use super::wire::{Opcode, masked};
use super::{BenchError, Options};
use crate::client::Transport;

/// The room that greedy clients ask about.
pub(super) const GREEDY_ROOM: &str = "greedy";

/// Seats of the members of a crowded room, for `options.members` of the node named here.
pub(super) fn members(options: &Options, node: char) -> impl Iterator<Item = Seat> + use<> {
    let user = move |at: usize| format!("{node}{at:0digits$}", digits = LONG_USER_BYTES - 1);
    (0..options.members).map(move |at| Seat::new(user(at), vec![GREEDY_ROOM.to_owned()]))
}

/// Members at another node. What they are sent, which is next to nothing, is not read.
pub(super) fn peer_members(
    options: &Options,
    receiver: &mut impl Receiver,
    progress: &mut Progress,
) -> Result<Option<Crowd>, BenchError> {
    let Some(target) = options.peers.first() else { return Ok(None) };
    let there = Options { target: target.clone(), ..options.clone() };
    let mut crowd = Crowd::new(&there, members(&there, 'b'))?;
    crowd.open(options.members, receiver, progress)?;
    Ok(Some(crowd))
}

/// Publishes what a history is to be made of, and waits until the server has taken it.
///
/// # Errors
///
/// Where the server does not.
pub(super) fn fill_history(options: &Options, mask: [u8; 4]) -> Result<(), BenchError> {
    if options.attack != AttackKind::History {
        return Ok(());
    }
    let Target { address, url, tls, .. } = &options.target;
    let handshake = Handshake::new(options);
    let stream = TcpStream::connect(address)
        .map_err(|error| BenchError::Server(format!("cannot connect to {url}: {error}; start the server")))?;
    stream.set_read_timeout(Some(options.timeout))?;
    let mut stream = Transport::new(stream, tls.as_ref())?;
    stream.write_all(handshake.request("author", false)?.as_bytes())?;
    let content = "h".repeat(HISTORY_CONTENT_BYTES);
    let message = format!(r#"{{"type":"room_msg","roomId":"{GREEDY_ROOM}","content":"{content}"}}"#);
    let message = masked(Opcode::Text, message.as_bytes(), mask);
    let mut buffer = vec![0; RECEIVE_BYTES];
    let (mut head, mut upgraded, mut pongs, mut skim) = (Vec::new(), false, 0, Skim::default());
    while pongs == 0 {
        let filled = match stream.read(&mut buffer) {
            Ok(0) => return Err(BenchError::Server("the server ended the connection that fills a history".to_owned())),
            Ok(filled) => filled,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let what = "a room was to be filled with history, and then nothing came".to_owned();
                return Err(BenchError::Silent { what, patience: options.timeout });
            }
            Err(error) => return Err(error.into()),
        };
        let mut frames = &buffer[..filled];
        if !upgraded {
            head.extend_from_slice(frames);
            let Some(consent) = handshake.consent(&head, false).map_err(BenchError::Server)? else { continue };
            upgraded = true;
            frames = &head[consent.head_bytes..];
            // Where tokens are asked for, members alone may publish.
            let join = format!(r#"{{"type":"join_room","roomId":"{GREEDY_ROOM}"}}"#);
            stream.write_all(&masked(Opcode::Text, join.as_bytes(), mask))?;
            for _ in 0..HISTORY_MESSAGES {
                stream.write_all(&message)?;
            }
            // Its answer comes behind all of them.
            stream.write_all(&masked(Opcode::Ping, b"", mask))?;
        }
        skim.take(frames, |frame| pongs += usize::from(frame.opcode == 0xA));
    }
    Ok(())
}

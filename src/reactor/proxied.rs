//! A driver over another: connections of some listeners begin with a header of the PROXY protocol, which is taken off.
//!
//! ```text
//!   attach ─► awaited ─┬─ a whole header ─► Completion::Proxied, then Received with what stands behind it ─► as any
//!                      ├─ anything else ──► Completion::NotProxied
//!                      └─ released, detached
//! ```
//!
//! Whoever has more to say about the bytes, such as TLS, lies above. A connection of another listener costs a comparison
//! for each read.

use std::collections::HashMap;
use std::io::{self, IoSlice};

use super::driver::{Completion, Detach, Driver, Release, Sent, Shortfall, SlotKey};
use crate::conn::{NoProxyHeader, ProxyHeader, parse_proxy};
use crate::limits::PROXY_HEADER_BYTES_MAX;

/// See the module's documentation.
pub struct Proxied<D: Driver> {
    below: D,
    /// By listener: whether its connections begin with a header.
    listeners: Vec<bool>,
    /// The client that was told of last came through such a listener: it is the one that is attached next, if any.
    is_arriving: bool,
    /// Connections whose header is not whole, with what there is of it.
    awaited: HashMap<SlotKey, Vec<u8>>,
    /// Bytes of all of these.
    held_bytes: usize,
    /// What stands behind a header, to be told of next.
    behind: Option<(SlotKey, Behind<D::Buffer>)>,
}

/// A lent buffer, from a byte on.
#[derive(Debug)]
pub struct Behind<B> {
    buffer: B,
    start: usize,
}

impl<B: AsMut<[u8]>> AsMut<[u8]> for Behind<B> {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.as_mut()[self.start..]
    }
}

impl<D: Driver> Proxied<D> {
    /// Over `below`, with whether each of its listeners wants headers, in their order.
    pub fn new(below: D, listeners: Vec<bool>) -> Proxied<D> {
        Proxied { below, listeners, is_arriving: false, awaited: HashMap::new(), held_bytes: 0, behind: None }
    }

    /// Bytes have come on a connection whose header is awaited. `None`: more is needed.
    fn header_received(
        &mut self,
        slot: SlotKey,
        mut buffer: D::Buffer,
    ) -> Option<Completion<D::Stream, Behind<D::Buffer>>> {
        let gathered = self.awaited.get_mut(&slot)?;
        let (before, held_before) = (gathered.len(), gathered.capacity());
        let received = buffer.as_mut();
        let received_bytes = received.len();
        // A header of that length is whole, or none.
        let within = received_bytes.min(PROXY_HEADER_BYTES_MAX - before);
        gathered.extend_from_slice(&received[..within]);
        self.held_bytes = self.held_bytes - held_before + gathered.capacity();
        let parsed = parse_proxy(gathered);
        if let Ok(None) = parsed {
            self.below.give_back(buffer);
            return None;
        }
        self.stop_awaiting(slot);
        match parsed {
            Ok(Some(ProxyHeader { bytes, .. })) if bytes - before < received_bytes => {
                self.behind = Some((slot, Behind { buffer, start: bytes - before }));
            }
            Ok(_) | Err(NoProxyHeader) => self.below.give_back(buffer),
        }
        Some(match parsed {
            Ok(header) => Completion::Proxied(slot, header.and_then(|header| header.source)),
            Err(NoProxyHeader) => Completion::NotProxied(slot),
        })
    }

    /// Nothing of a header is kept any more.
    fn stop_awaiting(&mut self, slot: SlotKey) {
        self.held_bytes -= self.awaited.remove(&slot).map_or(0, |gathered| gathered.capacity());
    }

    /// A connection goes.
    fn forget(&mut self, slot: SlotKey) {
        self.stop_awaiting(slot);
        if let Some((_, behind)) = self.behind.take_if(|(of, _)| *of == slot) {
            self.below.give_back(behind.buffer);
        }
    }
}

impl<D: Driver> Driver for Proxied<D> {
    type Stream = D::Stream;
    type Buffer = Behind<D::Buffer>;

    const RECHECKS: bool = D::RECHECKS;

    fn wait(&mut self, timeout_ms: Option<u64>) -> io::Result<()> {
        self.below.wait(timeout_ms)
    }

    fn next(&mut self) -> Option<Completion<D::Stream, Behind<D::Buffer>>> {
        self.is_arriving = false;
        if let Some((slot, behind)) = self.behind.take() {
            return Some(Completion::Received(slot, behind));
        }
        loop {
            return Some(match self.below.next()? {
                Completion::Received(slot, buffer) if !self.awaited.is_empty() && self.awaited.contains_key(&slot) => {
                    match self.header_received(slot, buffer) {
                        Some(completion) => completion,
                        None => continue,
                    }
                }
                Completion::Received(slot, buffer) => Completion::Received(slot, Behind { buffer, start: 0 }),
                Completion::Accepted(accepted) => {
                    let listener = usize::from(accepted.listener.0);
                    self.is_arriving = self.listeners.get(listener).is_some_and(|wants_header| *wants_header);
                    Completion::Accepted(accepted)
                }
                Completion::Proxied(slot, source) => Completion::Proxied(slot, source),
                Completion::NotProxied(slot) => Completion::NotProxied(slot),
                Completion::Writable(slot) => Completion::Writable(slot),
                Completion::Ended(slot) => Completion::Ended(slot),
                Completion::Detached(slot, stream) => Completion::Detached(slot, stream),
                Completion::Released(slot) => Completion::Released(slot),
            });
        }
    }

    fn give_back(&mut self, buffer: Behind<D::Buffer>) {
        self.below.give_back(buffer.buffer);
    }

    fn attach(&mut self, slot: SlotKey, stream: D::Stream) -> io::Result<()> {
        self.below.attach(slot, stream)?;
        if std::mem::take(&mut self.is_arriving) {
            self.awaited.insert(slot, Vec::new());
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, slot: SlotKey, bytes: &[u8]) -> Sent {
        self.below.send(slot, bytes)
    }

    #[inline]
    fn send_slices(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) -> Sent {
        self.below.send_slices(slot, slices)
    }

    fn recheck(&mut self, slot: SlotKey, slices: &[IoSlice<'_>]) {
        self.below.recheck(slot, slices);
    }

    fn submit(&mut self) {
        self.below.submit();
    }

    fn next_shortfall(&mut self) -> Option<(SlotKey, Shortfall)> {
        self.below.next_shortfall()
    }

    fn finish(&mut self, slot: SlotKey) {
        self.below.finish(slot);
    }

    fn release(&mut self, slot: SlotKey) -> Release {
        self.forget(slot);
        self.below.release(slot)
    }

    fn detach(&mut self, slot: SlotKey) -> Detach<D::Stream> {
        self.forget(slot);
        self.below.detach(slot)
    }

    fn bound_unsent(&mut self, slot: SlotKey) {
        self.below.bound_unsent(slot);
    }

    fn set_reading(&mut self, reading: bool) {
        self.below.set_reading(reading);
    }

    fn pause(&mut self, slot: SlotKey) {
        self.below.pause(slot);
    }

    fn resume(&mut self, slot: SlotKey) {
        self.below.resume(slot);
    }

    fn stop_accepting(&mut self) {
        self.below.stop_accepting();
    }

    fn held_bytes(&self) -> usize {
        self.held_bytes + self.below.held_bytes()
    }

    fn held_in(&self, slot: SlotKey) -> usize {
        self.awaited.get(&slot).map_or(0, Vec::capacity) + self.below.held_in(slot)
    }

    fn clock_ns(&self) -> u64 {
        self.below.clock_ns()
    }

    fn unix_ms(&self) -> u64 {
        self.below.unix_ms()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::reactor::sim::{Client, Link, World};

    const LINK: Link = Link { socket_bytes_max: 4096, read_bytes_max: 4096, send_bytes_max: 4096, short_writes: false };

    /// What a worker would be told of one connection.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Told {
        proxied: Vec<Option<SocketAddr>>,
        not_proxied: usize,
        received: Vec<u8>,
        ended: usize,
    }

    /// Drives one connection through a listener to the end of what its client says. A worker gives up a connection that is
    /// not proxied, or where `gives_up` says so, one that is.
    fn told(seed: u64, wants_headers: bool, says: &[u8], gives_up: bool) -> Told {
        let world = World::new(1, seed);
        let mut driver = Proxied::new(world.driver(0), vec![wants_headers, !wants_headers]);
        let client: Client = world.connect(0, LINK);
        world.send(client, says);
        let (slot, mut told, mut is_open) = (SlotKey::new(3, 7), Told::default(), false);
        for turn in 0..400 {
            if turn == 200 {
                world.close(client);
            }
            driver.wait(Some(0)).expect("the simulator waits for nothing");
            while let Some(completion) = driver.next() {
                match completion {
                    Completion::Accepted(accepted) => {
                        driver.attach(slot, accepted.stream).expect("a slot");
                        is_open = true;
                    }
                    Completion::Proxied(of, source) => {
                        assert_eq!((of, &*told.received), (slot, &b""[..]), "the header comes first");
                        told.proxied.push(source);
                        if gives_up {
                            driver.release(slot);
                            is_open = false;
                        }
                    }
                    Completion::NotProxied(of) => {
                        assert_eq!(of, slot);
                        told.not_proxied += 1;
                        driver.release(slot);
                        is_open = false;
                    }
                    Completion::Received(of, mut buffer) => {
                        assert_eq!(of, slot);
                        if is_open {
                            told.received.extend_from_slice(buffer.as_mut());
                        }
                        driver.give_back(buffer);
                    }
                    Completion::Ended(_) if is_open => {
                        told.ended += 1;
                        driver.release(slot);
                        is_open = false;
                    }
                    Completion::Ended(_) | Completion::Writable(_) | Completion::Released(_) => {}
                    Completion::Detached(..) => panic!("nothing was detached"),
                }
            }
            assert!(driver.awaited.len() <= usize::from(is_open) && driver.behind.is_none(), "nothing is left over");
            let held: usize = driver.awaited.values().map(Vec::capacity).sum();
            assert_eq!((driver.held_bytes(), driver.held_in(slot)), (held, held), "what is kept of a header is told");
        }
        assert!(told.received.is_empty() || !is_open, "the client has closed");
        told
    }

    const SAYS: &[u8] = b"GET / HTTP/1.1\r\n\r\n\x81\x80";

    #[test]
    fn a_header_is_told_of_before_any_byte_and_taken_off() {
        let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xC0\0\x02\x07\x0A\0\0\x01\x12\x34\0\x50";
        for seed in 0..40 {
            for header in [&b"PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n"[..], binary] {
                let says = [header, SAYS].concat();
                let source = Some("192.0.2.7:4660".parse().expect("an address"));
                let expected = Told { proxied: vec![source], received: SAYS.to_vec(), ended: 1, ..Told::default() };
                assert_eq!(told(seed, true, &says, false), expected, "seed {seed}");
                let expected = Told { proxied: vec![source], ..Told::default() };
                assert_eq!(told(seed, true, &says, true), expected, "given up, seed {seed}");
            }
            let says = [b"PROXY UNKNOWN\r\n", SAYS].concat();
            let expected = Told { proxied: vec![None], received: SAYS.to_vec(), ended: 1, ..Told::default() };
            assert_eq!(told(seed, true, &says, false), expected, "seed {seed}");
        }
    }

    #[test]
    fn anything_else_is_told_of_and_no_byte_of_it() {
        for seed in 0..40 {
            let expected = Told { not_proxied: 1, ..Told::default() };
            assert_eq!(told(seed, true, SAYS, false), expected, "seed {seed}");
            let expected = Told { ended: 1, ..Told::default() };
            assert_eq!(told(seed, true, b"PROXY TCP4 192.0.2.7", false), expected, "half a header, seed {seed}");
        }
    }

    #[test]
    fn what_is_kept_of_a_header_counts_until_the_connection_goes() {
        let world = World::new(1, 7);
        let mut driver = Proxied::new(world.driver(0), vec![true]);
        let client: Client = world.connect(0, LINK);
        let slot = SlotKey::new(3, 7);
        // One of version 2 that is as long as any may be, but for its last byte.
        let said = PROXY_HEADER_BYTES_MAX - 1;
        let address_bytes = ((PROXY_HEADER_BYTES_MAX - 16) as u16).to_be_bytes();
        let mut header = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11"[..], &address_bytes].concat();
        header.resize(said, 0);
        world.send(client, &header);
        for _ in 0..200 {
            driver.wait(Some(0)).expect("the simulator waits for nothing");
            while let Some(completion) = driver.next() {
                match completion {
                    Completion::Accepted(accepted) => driver.attach(slot, accepted.stream).expect("a slot"),
                    other => panic!("{other:?}"),
                }
            }
        }
        let held = driver.held_in(slot);
        assert!((said..=2 * said).contains(&held), "{held} bytes of {said}");
        assert_eq!((driver.held_bytes(), driver.held_in(SlotKey::new(3, 8))), (held, 0));
        driver.release(slot);
        assert_eq!((driver.held_bytes(), driver.held_in(slot)), (0, 0));
    }

    #[test]
    fn connections_of_other_listeners_are_as_they_are() {
        for seed in 0..40 {
            let says = [b"PROXY UNKNOWN\r\n", SAYS].concat();
            let expected = Told { received: says.clone(), ended: 1, ..Told::default() };
            assert_eq!(told(seed, false, &says, false), expected, "seed {seed}");
        }
    }
}

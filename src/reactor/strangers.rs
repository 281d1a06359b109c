//! Who comes, before it is known who it is: what its address may have of the node, which proxies are believed, and who makes
//! room where there is none.

use std::net::SocketAddr;

use super::addresses::AddressRef;
use super::connection::{Admission, Connection, Phase};
use super::driver::{Driver, Provenance, RemoteAddr, SlotKey};
use super::handover::Arrival;
use super::worker::Worker;
use crate::conn::{HttpRefusal, forwarded_for};
use crate::limits::ACCEPTS_PER_TURN;
use crate::metrics::{NodeMetrics, Refusal};

/// For the operator: the address of a proxy that is not known to be one speaks for all its clients.
const OVER_ITS_LIMIT: &str =
    "an address is over its limit: see address in the settings, and if it is a proxy's, name it in proxy.trusted";

impl<D: Driver> Worker<D> {
    /// Whether a client that has connected may have a socket: its place in the table of addresses, `None` where it has none
    /// (yet).
    ///
    /// # Errors
    /// Why not: the socket is to be closed at once, before anything is spent on it.
    pub(super) fn welcome(&mut self, provenance: Provenance) -> Result<Option<AddressRef>, Refusal> {
        let gate = &self.settings.gate;
        let is_trusted = gate.trusts(provenance.remote);
        let wants_header = gate.wants_proxy_header(provenance.listener);
        match (wants_header, is_trusted) {
            // For whom it counts the proxy has to say.
            (_, true) => Ok(None),
            (true, false) if gate.trusted.is_empty() => Ok(None),
            (true, false) => Err(self.turned_away(provenance, Refusal::UntrustedProxy)),
            (false, false) => self.count_address(provenance),
        }
    }

    /// One more socket of this address.
    pub(super) fn count_address(&mut self, provenance: Provenance) -> Result<Option<AddressRef>, Refusal> {
        let (Some(addresses), RemoteAddr::Tcp(remote)) = (&self.settings.gate.addresses, provenance.remote) else {
            return Ok(None);
        };
        addresses.arrive(remote.ip(), self.now).map_err(|refusal| self.turned_away(provenance, refusal))
    }

    /// A socket is gone, and with it what it was counted as.
    pub(super) fn leave_address(&self, address: Option<AddressRef>, admission: Admission) {
        if let (Some(addresses), Some(address)) = (&self.settings.gate.addresses, address) {
            addresses.leave(address, admission, self.now);
        }
    }

    /// A client is refused for where it comes from or how long it has taken, not for what it asks.
    fn turned_away(&mut self, provenance: Provenance, refusal: Refusal) -> Refusal {
        self.connections.counts.refusals.count(refusal);
        let Provenance { listener, remote, proxied } = provenance;
        let (reactor, listener, reason) = (self.me.0, listener.0, refusal.name());
        match refusal {
            Refusal::AddressConnections | Refusal::AddressHandshakes | Refusal::AddressHalfOpen => {
                tracing::warn!(reactor, listener, ?remote, proxied, reason, "{OVER_ITS_LIMIT}");
            }
            Refusal::UntrustedProxy | Refusal::NoProxyHeader | Refusal::Displaced | Refusal::Shed => {
                tracing::debug!(reactor, listener, ?remote, proxied, reason, "a client is turned away");
            }
        }
        refusal
    }

    /// A place for one more socket of the node. Where there is none, the oldest on this reactor that has not said its request
    /// yet makes room: a client that means it has said that long ago.
    pub(super) fn take_socket(&mut self) -> bool {
        let sockets_max = self.settings.connections_max.saturating_add(self.settings.handshakes_max);
        if NodeMetrics::take_permit(&self.node.metrics.sockets, sockets_max) {
            return true;
        }
        let Some(oldest) = self.connections.sessions.oldest_awaited() else { return false };
        if let Some(handshake) = self.connections.get_mut(oldest).and_then(Connection::handshake_mut) {
            let provenance = handshake.arrival.provenance;
            self.turned_away(provenance, Refusal::Displaced);
        }
        self.release(oldest);
        // Where its socket closes a little later, it does before the next turn: so many are accepted in one.
        let leaving = if self.connections.get(oldest).is_some() { ACCEPTS_PER_TURN } else { 0 };
        NodeMetrics::take_permit(&self.node.metrics.sockets, sockets_max.saturating_add(leaving))
    }

    /// A proxy has said from where a connection really comes.
    pub(super) fn proxied(&mut self, slot: SlotKey, source: Option<SocketAddr>) {
        let Some(handshake) = self.connections.get_mut(slot).and_then(Connection::handshake_mut) else { return };
        handshake.arrival.provenance.proxied = true;
        match source {
            Some(source) => handshake.arrival.provenance.remote = RemoteAddr::Tcp(source),
            None => handshake.arrival.is_unnamed = true,
        }
        let provenance = handshake.arrival.provenance;
        // A proxy in front of that one is told of in the request.
        if self.settings.gate.trusts(provenance.remote) {
            return;
        }
        match self.count_address(provenance) {
            Ok(address) => self.set_address(slot, address),
            Err(_) => self.release(slot),
        }
    }

    /// A connection to a listener for proxies does not begin as one of them.
    pub(super) fn not_proxied(&mut self, slot: SlotKey) {
        if let Some(handshake) = self.connections.get_mut(slot).and_then(Connection::handshake_mut) {
            let provenance = handshake.arrival.provenance;
            self.turned_away(provenance, Refusal::NoProxyHeader);
        }
        self.release(slot);
    }

    /// A request head is whole: where trusted proxies have passed it on, it is from whom they say, and counts for that
    /// address from now on ([`Arrival::of_request`]).
    ///
    /// # Errors
    /// The refusal to answer with.
    pub(super) fn trace(&mut self, slot: SlotKey, arrival: Arrival, head: &[u8]) -> Result<Provenance, HttpRefusal> {
        let gate = &self.settings.gate;
        if !gate.trusts(arrival.provenance.remote) {
            return Ok(arrival.provenance);
        }
        let mut headers = vec![httparse::EMPTY_HEADER; self.settings.head.headers_max];
        let provenance = arrival.of_request(forwarded_for(head, &mut headers), &gate.trusted);
        match self.count_address(provenance) {
            Ok(address) => {
                self.set_address(slot, address);
                Ok(provenance)
            }
            Err(_) => Err(self.too_many()),
        }
    }

    /// Whether the address of a connection may have one more, which it is from now on.
    ///
    /// # Errors
    /// The refusal to answer with.
    pub(super) fn admit_address(&mut self, slot: SlotKey) -> Result<(), HttpRefusal> {
        let address = self.connections.get(slot).and_then(|connection| connection.address);
        let (Some(addresses), Some(address)) = (&self.settings.gate.addresses, address) else { return Ok(()) };
        if addresses.admit(address) {
            return Ok(());
        }
        self.connections.counts.refusals.count(Refusal::AddressConnections);
        let reason = Refusal::AddressConnections.name();
        tracing::warn!(reactor = self.me.0, slot = slot.slot(), reason, "{OVER_ITS_LIMIT}");
        Err(self.too_many())
    }

    /// The node is over its budget: whoever is not let in yet and holds more than a usual request is
    /// refused first, the oldest before others.
    pub(super) fn shed_strangers(&mut self, budget_bytes: u64) {
        let held = |(slot, connection): (SlotKey, &Connection)| {
            let until = match connection.phase() {
                Phase::Handshake(handshake) => handshake.until,
                Phase::Authorizing(authorizing) => authorizing.until,
                Phase::Opening(_)
                | Phase::Json
                | Phase::Raw { .. }
                | Phase::Quiescing(_)
                | Phase::Closing { .. }
                | Phase::Leaving { .. }
                | Phase::Lingering { .. }
                | Phase::Terminating(_) => return None,
            };
            (connection.partial_bytes > 0 || self.driver.held_in(slot) > 0).then_some((until, slot))
        };
        let mut strangers: Vec<_> = self.connections.sessions.iter().filter_map(held).collect();
        // All have the same time for their handshake: who has the least left came first.
        strangers.sort_unstable();
        for (_, slot) in strangers {
            if self.node_queue_bytes() <= budget_bytes {
                break;
            }
            self.connections.counts.refusals.count(Refusal::Shed);
            tracing::debug!(reactor = self.me.0, slot = slot.slot(), "shed: the node's memory for messages is full");
            // What the driver holds is free only with its socket.
            match self.driver.held_in(slot) {
                0 => {
                    let refusal = self.at_capacity();
                    self.refuse(slot, refusal);
                }
                _ => self.release(slot),
            }
        }
    }

    fn set_address(&mut self, slot: SlotKey, address: Option<AddressRef>) {
        if let Some(connection) = self.connections.get_mut(slot) {
            connection.address = address;
        }
    }
}

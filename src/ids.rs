//! Identities: of the threads that get mail, of slots, of connections, and the client id by which
//! the outside names a connection.
//!
//! A client id is the encrypted `{node, reactor, slot, generation}` of its connection in the 122
//! free bits of a version-4 UUID (RFC 9562 §5.4). It cannot be guessed, and it routes itself: no
//! map from client ids to connections exists anywhere.

use std::fmt;
use std::str;

use siphasher::sip::SipHasher24;

/// What operators and webhooks are told a node is called: the run of its server, which no other run has.
pub fn node_name(run: u64) -> String {
    format!("{run:016x}")
}

/// A reactor of this node, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReactorId(pub u16);

/// A thread of this node that gets mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerId {
    /// A reactor.
    Reactor(ReactorId),
    /// The cluster's thread, where there is a cluster.
    Cluster,
    /// The control thread: it asks on behalf of HTTP requests.
    Control,
    /// The webhooks' thread, where a webhook is configured.
    Webhooks,
}

impl PeerId {
    /// The reactors of a node, in order.
    pub fn reactors(count: u16) -> impl Iterator<Item = PeerId> {
        (0..count).map(|at| PeerId::Reactor(ReactorId(at)))
    }
}

impl From<ReactorId> for PeerId {
    fn from(reactor: ReactorId) -> PeerId {
        PeerId::Reactor(reactor)
    }
}

/// An index into a reactor's connection slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A connection of this node. A slot is used again by later connections; `generation` tells them
/// apart, so every lookup compares it and late mail finds no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// The reactor that owns the connection.
    pub reactor: ReactorId,
    /// Where in that reactor's slab.
    pub slot: Slot,
    /// Which of the connections that had this slot.
    pub generation: u32,
}

/// A request of the control thread that waits for a reply. A slot is used again by later requests; `generation` tells
/// them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Where among those that wait.
    pub slot: u32,
    /// Which of the requests that had this slot.
    pub generation: u32,
}

/// Who gets the answer to a question or a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReplyTo {
    /// A connection, on its reactor.
    Conn(ConnId),
    /// A request of the control thread.
    Request(RequestId),
}

impl ReplyTo {
    /// Which peer has it.
    pub fn peer(self) -> PeerId {
        match self {
            ReplyTo::Conn(conn) => PeerId::Reactor(conn.reactor),
            ReplyTo::Request(_) => PeerId::Control,
        }
    }
}

impl From<ConnId> for ReplyTo {
    fn from(conn: ConnId) -> ReplyTo {
        ReplyTo::Conn(conn)
    }
}

/// What a client id says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Decoded {
    /// The node the connection belongs to; the caller compares it with [`ClientIdCodec::node`].
    pub node: u16,
    /// The connection on that node. It may have ended long ago.
    pub conn: ConnId,
}

/// The text of a client id: a version-4 UUID in lower case, stored inline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId([u8; TEXT_BYTES]);

impl ClientId {
    /// What has the form of a client id, whether a connection has it or not.
    #[must_use]
    pub fn parse(text: &str) -> Option<ClientId> {
        let uuid = uuid_from_text(text)?;
        bits_from_uuid(uuid).map(|_| ClientId(text_from_uuid(uuid)))
    }

    /// The 36 characters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hex digits and hyphens are ASCII")
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({})", self.as_str())
    }
}

/// Makes and reads client ids.
///
/// Each node has a key of its own, and the nodes of a cluster tell each other theirs, so that each
/// can read the others' ids. Encryption is a balanced Feistel network over two halves of 61 bits with keyed SipHash-2-4 as its round
/// function. Of the 122 bits 26 are always zero in the plain text: a guessed id passes that check
/// once in 67 million times, and must then still name a live slot with its current generation.
#[derive(Clone)]
pub struct ClientIdCodec {
    hasher: SipHasher24,
    node: u16,
}

impl ClientIdCodec {
    /// A codec for the ids of `node`. `key` must be secret and random.
    #[must_use]
    pub fn new(key: [u8; 16], node: u16) -> Self {
        Self { hasher: SipHasher24::new_with_key(&key), node }
    }

    /// The node whose connections [`ClientIdCodec::encode`] names.
    #[must_use]
    pub fn node(&self) -> u16 {
        self.node
    }

    /// The client id of a connection of this node; always the same for the same connection.
    #[must_use]
    pub fn encode(&self, conn: ConnId) -> ClientId {
        let decoded = Decoded { node: self.node, conn };
        ClientId(text_from_uuid(uuid_from_bits(self.encrypt(pack(decoded)))))
    }

    /// What `text` names: `None` where it is no version-4 UUID of 36 characters in hyphenated form
    /// (hex digits of either case) or was not made with this key. An id of another node is
    /// returned as such.
    #[must_use]
    pub fn decode(&self, text: &str) -> Option<Decoded> {
        let bits = bits_from_uuid(uuid_from_text(text)?)?;
        unpack(self.decrypt(bits))
    }

    fn encrypt(&self, bits: u128) -> u128 {
        let (mut left, mut right) = split(bits);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        join(left, right)
    }

    fn decrypt(&self, bits: u128) -> u128 {
        let (mut left, mut right) = split(bits);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(round, left), left);
        }
        join(left, right)
    }

    /// The round function: a half and the round's number fill the hashed 64 bits exactly.
    fn round(&self, round: u64, half: u64) -> u64 {
        let block = round << HALF_BITS | half;
        self.hasher.hash(&block.to_le_bytes()) & HALF_MASK
    }
}

impl fmt::Debug for ClientIdCodec {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdCodec").field("node", &self.node).finish_non_exhaustive()
    }
}

const ROUNDS: u64 = 8;
const HALF_BITS: u32 = 61;
const HALF_MASK: u64 = (1 << HALF_BITS) - 1;

const _: () = assert!(ROUNDS <= 1 << (u64::BITS - HALF_BITS));

/// Bits of the packed fields; those above, up to 122, are zero.
const PACKED_BITS: u32 = 96;

/// RFC 9562 §4: where the fixed bits of a UUID stand, and what is left below each.
const VERSION: u128 = 4 << 76;
const VERSION_MASK: u128 = 0xf << 76;
const VARIANT: u128 = 0b10 << 62;
const VARIANT_MASK: u128 = 0b11 << 62;
const RAND_B_BITS: u32 = 62;
const RAND_AB_BITS: u32 = 74;
const RAND_B_MASK: u128 = (1 << RAND_B_BITS) - 1;
const RAND_A_MASK: u128 = 0xfff;

const TEXT_BYTES: usize = 36;
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

fn pack(decoded: Decoded) -> u128 {
    let Decoded { node, conn } = decoded;
    u128::from(node) << 80
        | u128::from(conn.reactor.0) << 64
        | u128::from(conn.slot.0) << 32
        | u128::from(conn.generation)
}

fn unpack(bits: u128) -> Option<Decoded> {
    (bits >> PACKED_BITS == 0).then_some(Decoded {
        node: (bits >> 80) as u16,
        conn: ConnId {
            reactor: ReactorId((bits >> 64) as u16),
            slot: Slot((bits >> 32) as u32),
            generation: bits as u32,
        },
    })
}

fn split(bits: u128) -> (u64, u64) {
    ((bits >> HALF_BITS) as u64, bits as u64 & HALF_MASK)
}

fn join(left: u64, right: u64) -> u128 {
    u128::from(left) << HALF_BITS | u128::from(right)
}

fn uuid_from_bits(bits: u128) -> u128 {
    let rand_a = bits >> RAND_B_BITS & RAND_A_MASK;
    bits >> RAND_AB_BITS << 80 | VERSION | rand_a << 64 | VARIANT | bits & RAND_B_MASK
}

fn bits_from_uuid(uuid: u128) -> Option<u128> {
    let rand_a = uuid >> 64 & RAND_A_MASK;
    (uuid & VERSION_MASK == VERSION && uuid & VARIANT_MASK == VARIANT)
        .then_some(uuid >> 80 << RAND_AB_BITS | rand_a << RAND_B_BITS | uuid & RAND_B_MASK)
}

fn text_from_uuid(uuid: u128) -> [u8; TEXT_BYTES] {
    let mut text = [b'-'; TEXT_BYTES];
    let mut shift = u128::BITS;
    for (place, byte) in text.iter_mut().enumerate() {
        if !HYPHENS.contains(&place) {
            shift -= 4;
            *byte = b"0123456789abcdef"[(uuid >> shift & 0xf) as usize];
        }
    }
    text
}

fn uuid_from_text(text: &str) -> Option<u128> {
    let text: &[u8; TEXT_BYTES] = text.as_bytes().try_into().ok()?;
    let mut uuid = 0;
    for (place, &byte) in text.iter().enumerate() {
        if HYPHENS.contains(&place) {
            if byte != b'-' {
                return None;
            }
        } else {
            uuid = uuid << 4 | u128::from(char::from(byte).to_digit(16)?);
        }
    }
    Some(uuid)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const KEY: [u8; 16] = *b"an example key !";

    fn conn(reactor: u16, slot: u32, generation: u32) -> ConnId {
        ConnId { reactor: ReactorId(reactor), slot: Slot(slot), generation }
    }

    fn is_version_4(text: &str) -> bool {
        let bytes = text.as_bytes();
        text.len() == 36
            && bytes[14] == b'4'
            && b"89ab".contains(&bytes[19])
            && bytes.iter().enumerate().all(|(place, byte)| {
                if [8, 13, 18, 23].contains(&place) {
                    *byte == b'-'
                } else {
                    byte.is_ascii_digit() || (b'a'..=b'f').contains(byte)
                }
            })
    }

    #[test]
    fn the_text_is_stable() {
        // Ids are kept by clients and read by nodes of another build: the format may not drift.
        let codec = ClientIdCodec::new(KEY, 7);
        let id = codec.encode(conn(1, 2, 3));
        assert_eq!(id.as_str(), "2e147c03-0401-43b7-b6f9-4da14b17646f");
        assert_eq!(id.to_string(), id.as_str());
        assert_eq!(format!("{id:?}"), format!("ClientId({id})"));
    }

    #[test]
    fn the_corners_of_every_field_round_trip() {
        for node in [0, 1, u16::MAX] {
            let codec = ClientIdCodec::new(KEY, node);
            for reactor in [0, 1, u16::MAX] {
                for slot in [0, 1, u32::MAX] {
                    for generation in [0, 1, u32::MAX] {
                        let conn = conn(reactor, slot, generation);
                        let decoded = codec.decode(codec.encode(conn).as_str());
                        assert_eq!(decoded, Some(Decoded { node, conn }));
                    }
                }
            }
        }
    }

    #[test]
    fn a_foreign_node_is_returned_as_such() {
        let (here, there) = (ClientIdCodec::new(KEY, 1), ClientIdCodec::new(KEY, 2));
        let conn = conn(0, 5, 9);
        let id = there.encode(conn);
        assert_eq!(here.node(), 1);
        assert_eq!(here.decode(id.as_str()), Some(Decoded { node: 2, conn }));
    }

    #[test]
    #[cfg_attr(miri, ignore = "10,000 ids")]
    fn ids_are_distinct() {
        let codec = ClientIdCodec::new(KEY, 0);
        let mut ids = HashSet::new();
        for reactor in 0..4 {
            for slot in 0..500 {
                for generation in 0..5 {
                    assert!(ids.insert(codec.encode(conn(reactor, slot, generation))));
                }
            }
        }
        assert_eq!(ids.len(), 10_000);
    }

    #[test]
    #[cfg_attr(miri, ignore = "20,000 ids")]
    fn consecutive_slots_share_no_visible_sequence() {
        let codec = ClientIdCodec::new(KEY, 0);
        let uuid = |slot| uuid_from_text(codec.encode(conn(0, slot, 0)).as_str()).unwrap();
        let pairs = 10_000;
        let differing: u32 = (0..pairs).map(|slot| (uuid(slot) ^ uuid(slot + 1)).count_ones()).sum();
        let mean = f64::from(differing) / f64::from(pairs);
        assert!((60.5..61.5).contains(&mean), "{mean} of 122 bits differ");
    }

    #[test]
    #[cfg_attr(miri, ignore = "2,000 ids")]
    fn two_keys_give_different_ids_and_refuse_each_other() {
        let (one, other) = (ClientIdCodec::new(KEY, 0), ClientIdCodec::new(*b"another key 1234", 0));
        for slot in 0..1_000 {
            let conn = conn(0, slot, 0);
            assert_ne!(one.encode(conn), other.encode(conn));
            assert_eq!(one.decode(other.encode(conn).as_str()), None);
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        let codec = ClientIdCodec::new(KEY, 0);
        let id = codec.encode(conn(0, 0, 0));
        let good = id.as_str();
        assert!(codec.decode(good).is_some());
        let replaced = |place: usize, with: &str| {
            let mut text = good.to_owned();
            text.replace_range(place..place + 1, with);
            text
        };
        let bad = [
            String::new(),
            good[..35].to_owned(),
            format!("{good}0"),
            format!(" {}", &good[..35]),
            good.replace('-', ""),
            good.replace('-', "_"),
            replaced(0, "g"),
            replaced(0, "+"),
            replaced(8, "0"),
            replaced(14, "1"),
            replaced(14, "5"),
            replaced(19, "7"),
            replaced(19, "c"),
            format!("é{}", &good[2..]),
        ];
        for text in bad {
            assert_eq!(codec.decode(&text), None, "{text:?}");
        }
    }

    #[test]
    fn every_spare_bit_is_checked() {
        let codec = ClientIdCodec::new(KEY, 0);
        for spare in PACKED_BITS..2 * HALF_BITS {
            let bits = pack(Decoded { node: 0, conn: conn(0, 1, 2) }) | 1 << spare;
            let id = ClientId(text_from_uuid(uuid_from_bits(codec.encrypt(bits))));
            assert_eq!(codec.decode(id.as_str()), None, "bit {spare}");
        }
    }

    #[test]
    fn debug_output_has_no_key() {
        let codec = ClientIdCodec::new(KEY, 3);
        assert_eq!(format!("{codec:?}"), "ClientIdCodec { node: 3, .. }");
    }

    prop_compose! {
        fn any_conn()(reactor: u16, slot: u32, generation: u32) -> ConnId {
            conn(reactor, slot, generation)
        }
    }

    proptest! {
        #[test]
        fn round_trip(key: [u8; 16], node: u16, conn in any_conn()) {
            let codec = ClientIdCodec::new(key, node);
            let id = codec.encode(conn);
            prop_assert!(is_version_4(id.as_str()));
            let decoded = Some(Decoded { node, conn });
            prop_assert_eq!(codec.decode(id.as_str()), decoded);
            prop_assert_eq!(codec.decode(&id.as_str().to_uppercase()), decoded);
        }

        #[test]
        fn an_altered_character_never_names_the_same_connection(
            conn in any_conn(), place in 0usize..36, with in "[0-9a-f-]",
        ) {
            let codec = ClientIdCodec::new(KEY, 0);
            let id = codec.encode(conn);
            let mut text = id.as_str().to_owned();
            text.replace_range(place..=place, &with);
            prop_assume!(text != id.as_str());
            prop_assert_ne!(codec.decode(&text), Some(Decoded { node: 0, conn }));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,40}") {
            let _ = ClientIdCodec::new(KEY, 0).decode(&text);
        }

        #[test]
        fn what_decodes_encodes_to_the_same_text(bits in 0u128..1 << PACKED_BITS) {
            let decoded = unpack(bits).unwrap();
            prop_assert_eq!(pack(decoded), bits);
            let codec = ClientIdCodec::new(KEY, decoded.node);
            let id = codec.encode(decoded.conn);
            prop_assert_eq!(codec.decode(id.as_str()), Some(decoded));
        }
    }
}

//! What each address has of the node: its connections, its sockets whose request is not answered yet, and how many came in
//! this second. One table for all reactors, in shards; a socket touches it when it comes, when it becomes a connection, and
//! when it is gone, and finds its entry by an [`AddressRef`] of four bytes.
//!
//! An entry lives as long as a socket refers to it, so there are no more of those than sockets. One that nothing refers to
//! is of use until the end of its second, and waits for that in the order in which it fell idle; beyond a bound the oldest
//! of these is forgotten early. All of it is state of this process: it begins empty.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use hashbrown::HashTable;
use slab::Slab;

use super::connection::Admission;
use crate::growth::Grow;
use crate::limits::{ADDRESS_SHARDS, ADDRESSES_IDLE_MAX};
use crate::metrics::Refusal;
use crate::network::Networks;
use crate::time::Millis;

/// What one address may have of a node: an IPv4 address, or the 64 bits of IPv6 that one site has. 0 is no limit.
#[derive(Clone, Debug, Default)]
pub struct AddressLimits {
    /// WebSocket connections.
    pub connections_max: u32,
    /// Sockets that come in one second of the node's clock.
    pub handshakes_per_second: u32,
    /// Sockets whose request is not answered with a connection (yet), those included that are being refused.
    pub half_open_max: u32,
    /// Addresses to which none of this applies.
    pub exempt: Networks,
}

/// See the module's documentation.
pub struct Addresses {
    limits: RwLock<AddressLimits>,
    /// Seeded at random: clients choose among 2^64 addresses.
    hasher: RandomState,
    shards: Vec<Mutex<Shard>>,
}

/// An address's entry, which stays where it is as long as a socket has this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRef(NonZeroU32);

/// What counts as one address. An IPv4 address stands in the lower half; no site has IPv6 addresses that begin with 32
/// zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Site(u64);

#[derive(Debug)]
struct Entry {
    site: Site,
    connections: u32,
    half_open: u32,
    /// Sockets that came in `second`.
    handshakes: u32,
    /// Of the node's clock; of a quarter of a day, which is long enough.
    second: u16,
    /// Whether it stands among the idle, be it idle or not.
    is_queued: bool,
}

#[derive(Debug, Default)]
struct Shard {
    entries: Slab<Entry>,
    by_site: HashTable<u32>,
    /// Entries that fell idle, in this order.
    idle: VecDeque<u32>,
}

impl Addresses {
    /// Nobody has come yet.
    pub fn new(limits: AddressLimits) -> Addresses {
        let shards = (0..ADDRESS_SHARDS).map(|_| Mutex::default()).collect();
        Addresses { limits: RwLock::new(limits), hasher: RandomState::new(), shards }
    }

    /// Other limits hold from now on, for sockets that come and for those that become connections.
    pub fn set_limits(&self, limits: AddressLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    fn limits(&self) -> RwLockReadGuard<'_, AddressLimits> {
        self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket has come from an address. It counts until [`Addresses::leave`]; `None` where it counts for nothing.
    ///
    /// # Errors
    /// The limit that this one would go beyond. It is not counted then.
    pub(super) fn arrive(&self, address: IpAddr, now: Millis) -> Result<Option<AddressRef>, Refusal> {
        let limits = self.limits();
        let AddressLimits { connections_max, handshakes_per_second, half_open_max, exempt } = &*limits;
        if [*connections_max, *handshakes_per_second, *half_open_max] == [0; 3] || exempt.contain(address) {
            return Ok(None);
        }
        let site = Site::of(address);
        let hash = self.hasher.hash_one(site);
        let shard_index = (hash >> 32) as usize % ADDRESS_SHARDS;
        let mut shard = self.shard(shard_index);
        let second = second_of(now);
        shard.forget_idle(second, &self.hasher);
        let index = shard.find_or_insert(site, hash, second, &self.hasher);
        let entry = &mut shard.entries[index as usize];
        if entry.second != second {
            (entry.second, entry.handshakes) = (second, 0);
        }
        let is_over = |count: u32, max: u32| max > 0 && count >= max;
        let refusal = if is_over(entry.half_open, *half_open_max) {
            Some(Refusal::AddressHalfOpen)
        } else if is_over(entry.handshakes, *handshakes_per_second) {
            Some(Refusal::AddressHandshakes)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            // Had it been new or idle, it would not be over a limit, or it is in the queue.
            return Err(refusal);
        }
        entry.handshakes = entry.handshakes.saturating_add(1);
        entry.half_open += 1;
        Ok(Some(AddressRef::new(shard_index, index)))
    }

    /// The socket is to become a connection; whether its address may have one more.
    pub(super) fn admit(&self, address: AddressRef) -> bool {
        let (shard_index, index) = address.place();
        let mut shard = self.shard(shard_index);
        let entry = &mut shard.entries[index as usize];
        let max = self.limits().connections_max;
        if max > 0 && entry.connections >= max {
            return false;
        }
        entry.half_open -= 1;
        entry.connections += 1;
        true
    }

    /// The socket is gone, as which it was admitted so far.
    pub(super) fn leave(&self, address: AddressRef, admission: Admission, now: Millis) {
        let (shard_index, index) = address.place();
        let mut shard = self.shard(shard_index);
        let entry = &mut shard.entries[index as usize];
        match admission {
            Admission::Socket => entry.half_open -= 1,
            Admission::WebSocket => entry.connections -= 1,
        }
        if entry.is_idle() && !entry.is_queued {
            entry.is_queued = true;
            shard.idle.push_back(index);
            shard.forget_idle(second_of(now), &self.hasher);
        }
    }

    fn shard(&self, index: usize) -> MutexGuard<'_, Shard> {
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As an entry notes it.
fn second_of(now: Millis) -> u16 {
    (now.0 / 1_000) as u16
}

/// Without the addresses: they are people's.
impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Site {
    fn of(address: IpAddr) -> Site {
        match address.to_canonical() {
            IpAddr::V4(address) => Site(u64::from(address.to_bits())),
            IpAddr::V6(address) => Site((address.to_bits() >> 64) as u64),
        }
    }
}

impl AddressRef {
    fn new(shard: usize, entry: u32) -> AddressRef {
        let number = entry.checked_mul(ADDRESS_SHARDS as u32).and_then(|first| first.checked_add(shard as u32 + 1));
        let number = number.and_then(NonZeroU32::new);
        AddressRef(number.expect("there are fewer entries than descriptors"))
    }

    /// Its shard, and its index there.
    fn place(self) -> (usize, u32) {
        let number = self.0.get() - 1;
        (number as usize % ADDRESS_SHARDS, number / ADDRESS_SHARDS as u32)
    }
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.connections == 0 && self.half_open == 0
    }
}

impl Shard {
    fn find_or_insert(&mut self, site: Site, hash: u64, second: u16, hasher: &RandomState) -> u32 {
        let Shard { entries, by_site, .. } = self;
        if let Some(&index) = by_site.find(hash, |&index| entries[index as usize].site == site) {
            return index;
        }
        entries.make_room_for_one();
        let entry = Entry { site, connections: 0, half_open: 0, handshakes: 0, second, is_queued: false };
        let index = u32::try_from(entries.insert(entry)).expect("there are fewer entries than descriptors");
        by_site.insert_unique(hash, index, |&index| hasher.hash_one(entries[index as usize].site));
        index
    }

    /// Forgets what fell idle before this second, and what is too much.
    fn forget_idle(&mut self, second: u16, hasher: &RandomState) {
        while let Some(&index) = self.idle.front() {
            let entry = &mut self.entries[index as usize];
            let is_too_much = self.idle.len() > ADDRESSES_IDLE_MAX / ADDRESS_SHARDS;
            if entry.is_idle() && entry.second == second && !is_too_much {
                break;
            }
            self.idle.pop_front();
            entry.is_queued = false;
            if entry.is_idle() {
                let hash = hasher.hash_one(entry.site);
                let found = self.by_site.find_entry(hash, |&found| found == index);
                found.expect("an entry is found by its site").remove();
                self.entries.remove(index as usize);
            }
        }
    }
}

#[cfg(test)]
impl Addresses {
    /// Entries of all shards.
    fn entries_count(&self) -> usize {
        (0..ADDRESS_SHARDS)
            .map(|index| {
                let shard = self.shard(index);
                assert_eq!(shard.entries.len(), shard.by_site.len());
                let queued = shard.entries.iter().filter(|(_, entry)| entry.is_queued).count();
                assert_eq!(queued, shard.idle.len(), "an entry stands among the idle once");
                let lost = |entry: &Entry| entry.is_idle() && !entry.is_queued;
                assert!(!shard.entries.iter().any(|(_, entry)| lost(entry)), "an idle entry is forgotten in time");
                shard.entries.len()
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn addresses(connections_max: u32, handshakes_per_second: u32, half_open_max: u32) -> Addresses {
        let exempt = Networks::new(vec!["127.0.0.0/8".parse().expect("a network")]);
        Addresses::new(AddressLimits { connections_max, handshakes_per_second, half_open_max, exempt })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn an_entry_takes_few_bytes() {
        assert_eq!((size_of::<Entry>(), size_of::<Option<AddressRef>>()), (24, 4));
    }

    #[test]
    fn each_address_has_its_limits() {
        let addresses = addresses(2, 4, 3);
        let mut sockets = Vec::new();
        for from in ["192.0.2.1", "2001:db8::1"] {
            for _ in 0..3 {
                sockets.push(addresses.arrive(ip(from), Millis(0)).expect("within").expect("not exempt"));
            }
            assert_eq!(addresses.arrive(ip(from), Millis(1)), Err(Refusal::AddressHalfOpen));
            let admitted: Vec<bool> = sockets.drain(..).map(|socket| addresses.admit(socket)).collect();
            assert_eq!(admitted, [true, true, false]);
            assert!(addresses.arrive(ip(from), Millis(2)).is_ok());
            assert_eq!(addresses.arrive(ip(from), Millis(999)), Err(Refusal::AddressHandshakes));
            assert!(addresses.arrive(ip(from), Millis(1_000)).is_ok());
        }
        assert_eq!(addresses.entries_count(), 2);
    }

    #[test]
    fn a_site_is_one_address() {
        let addresses = addresses(0, 1, 0);
        assert!(addresses.arrive(ip("2001:db8::1"), Millis(0)).is_ok());
        assert!(addresses.arrive(ip("2001:db8::ffff:1"), Millis(0)).is_err());
        assert!(addresses.arrive(ip("2001:db8:0:1::1"), Millis(0)).is_ok());
        assert!(addresses.arrive(ip("192.0.2.1"), Millis(0)).is_ok());
        assert!(addresses.arrive(ip("::ffff:192.0.2.1"), Millis(0)).is_err());
    }

    #[test]
    fn who_is_exempt_counts_for_nothing() {
        let some = addresses(1, 1, 1);
        for _ in 0..10 {
            assert_eq!(some.arrive(ip("127.9.9.9"), Millis(0)), Ok(None));
        }
        assert_eq!(addresses(0, 0, 0).arrive(ip("192.0.2.1"), Millis(0)), Ok(None));
        assert_eq!(some.entries_count(), 0);
    }

    #[test]
    fn what_is_idle_is_forgotten_by_age_and_what_has_sockets_stays() {
        let addresses = addresses(0, 1_000, 0);
        let stays = addresses.arrive(ip("192.0.2.1"), Millis(0)).expect("within").expect("not exempt");
        for at in 0..200_000_u32 {
            let from = IpAddr::from((0x0A00_0000 + at).to_be_bytes());
            let socket = addresses.arrive(from, Millis(0)).expect("within").expect("not exempt");
            addresses.leave(socket, Admission::Socket, Millis(0));
        }
        let count = addresses.entries_count();
        assert!(count <= ADDRESSES_IDLE_MAX + 1, "{count} entries");
        assert!(count > ADDRESSES_IDLE_MAX / 2, "{count} entries");
        for at in 0..10_000_u32 {
            let from = IpAddr::from((0x0B00_0000 + at).to_be_bytes());
            assert!(addresses.arrive(from, Millis(1_000)).expect("within").is_some());
        }
        assert_eq!(addresses.entries_count(), 1 + 10_000, "none is left of the second before");
        assert!(addresses.admit(stays));
        addresses.leave(stays, Admission::WebSocket, Millis(1_000));
    }

    /// So many addresses of one shard: what happens to one of them may touch the others.
    fn neighbours(addresses: &Addresses, count: usize) -> Vec<IpAddr> {
        let shard = |from: IpAddr| (addresses.hasher.hash_one(Site::of(from)) >> 32) as usize % ADDRESS_SHARDS;
        let all = (0x0A00_0000_u32..).map(|bits| IpAddr::from(bits.to_be_bytes()));
        all.filter(|from| shard(*from) == 0).take(count).collect()
    }

    #[test]
    fn whoever_leaves_takes_no_count_of_this_second_along() {
        let addresses = addresses(0, 1, 0);
        let from = neighbours(&addresses, 2);
        let early = addresses.arrive(from[0], Millis(0)).expect("within").expect("not exempt");
        let late = addresses.arrive(from[1], Millis(1_000)).expect("within").expect("not exempt");
        addresses.leave(late, Admission::Socket, Millis(1_100));
        addresses.leave(early, Admission::Socket, Millis(1_200));
        assert_eq!(addresses.arrive(from[1], Millis(1_300)), Err(Refusal::AddressHandshakes));
    }

    const MAX: (u32, u32, u32) = (3, 3, 4);

    /// Who is there, as what, and how many came in each second.
    #[derive(Default)]
    struct Model {
        /// Their addresses, all of one shard.
        from: Vec<IpAddr>,
        there: Vec<(u8, AddressRef, Admission)>,
        came: BTreeMap<(u8, u64), u32>,
    }

    impl Model {
        fn count(&self, who: u8, admission: Admission) -> u32 {
            self.there.iter().filter(|(from, _, as_what)| (*from, *as_what) == (who, admission)).count() as u32
        }

        fn arrive(&mut self, addresses: &Addresses, who: u8, now: Millis) {
            let half_open = self.count(who, Admission::Socket);
            let handshakes = self.came.entry((who, now.0 / 1_000)).or_default();
            let found = addresses.arrive(self.from[usize::from(who)], now);
            match (half_open >= MAX.2, *handshakes >= MAX.1) {
                (true, _) => assert_eq!(found, Err(Refusal::AddressHalfOpen)),
                (false, true) => assert_eq!(found, Err(Refusal::AddressHandshakes)),
                (false, false) => {
                    *handshakes += 1;
                    let socket = found.expect("within its limits").expect("not exempt");
                    self.there.push((who, socket, Admission::Socket));
                }
            }
        }

        fn admit(&mut self, addresses: &Addresses, at: usize) {
            let (who, socket, admission) = self.there[at];
            if admission == Admission::Socket {
                let has_room = self.count(who, Admission::WebSocket) < MAX.0;
                assert_eq!(addresses.admit(socket), has_room);
                if has_room {
                    self.there[at].2 = Admission::WebSocket;
                }
            }
        }

        fn leave(&mut self, addresses: &Addresses, at: usize, now: Millis) {
            let (_, socket, admission) = self.there.swap_remove(at);
            addresses.leave(socket, admission, now);
        }
    }

    proptest! {
        #[test]
        fn counts_equal_a_naive_model(
            steps in proptest::collection::vec((0_u8..6, 0_u8..6, 0_usize..100, 0_u64..400), 0..300),
        ) {
            let addresses = addresses(MAX.0, MAX.1, MAX.2);
            let mut model = Model { from: neighbours(&addresses, 6), ..Model::default() };
            let mut now = Millis(0);
            for (who, step, which, passed_ms) in steps {
                let at = which.checked_rem(model.there.len());
                match (step, at) {
                    (0 | 1, _) => model.arrive(&addresses, who, now),
                    (2, Some(at)) => model.admit(&addresses, at),
                    (3, Some(at)) => model.leave(&addresses, at, now),
                    (4, _) => now = now.saturating_add(passed_ms),
                    (_, _) => {}
                }
                addresses.entries_count();
            }
        }
    }
}

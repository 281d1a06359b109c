//! How many distinct users there are, about, in 16 KiB however many they are: a HyperLogLog (Flajolet et al., 2007).
//!
//! It is of use where [`PRESENCE_EXACT_MAX`](crate::limits::PRESENCE_EXACT_MAX) users are passed. There the plain
//! estimator needs no correction for few users, and is right within 0.8 % (one standard deviation).

/// Bits of a hash that choose its register.
const INDEX_BITS: u32 = 14;

/// Bytes of a sketch: one for each register.
pub const SKETCH_BYTES: usize = 1 << INDEX_BITS;

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sketch(Box<[u8]>);

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch(vec![0; SKETCH_BYTES].into())
    }
}

impl Sketch {
    /// Counts a user by its hash; the same hash twice is one user.
    pub fn add(&mut self, hash: u64) {
        let register = &mut self.0[(hash >> (u64::BITS - INDEX_BITS)) as usize];
        let rank = (hash << INDEX_BITS).leading_zeros().min(u64::BITS - INDEX_BITS) + 1;
        *register = (*register).max(rank as u8);
    }

    /// Counts all that another one has counted.
    pub fn merge(&mut self, other: &Sketch) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// About how many were counted.
    pub fn estimate(&self) -> u64 {
        let registers = SKETCH_BYTES as f64;
        let sum: f64 = self.0.iter().map(|&rank| (-f64::from(rank)).exp2()).sum();
        let alpha = 0.7213 / (1.0 + 1.079 / registers);
        (alpha * registers * registers / sum).round() as u64
    }

    /// It as bytes, [`SKETCH_BYTES`] of them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What [`Sketch::as_bytes`] gave; `None` where it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Sketch> {
        (bytes.len() == SKETCH_BYTES).then(|| Sketch(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::CrowdKey;

    #[test]
    fn two_sketches_together_count_each_user_once_within_three_percent() {
        let key = CrowdKey([1, 2]);
        let hash = |at: u64| key.hash(&format!("user-{at}"));
        for users in [100_001_u64, 300_000, 1_000_000] {
            let (mut one, mut other) = (Sketch::default(), Sketch::default());
            (0..users * 2 / 3).for_each(|at| one.add(hash(at)));
            (users / 3..users).for_each(|at| other.add(hash(at)));
            one.merge(&Sketch::from_bytes(other.as_bytes()).expect("a sketch"));
            let (estimate, again) = (one.estimate(), one.clone());
            assert!(estimate.abs_diff(users) < users * 3 / 100, "{estimate} of {users}");
            (0..users / 2).for_each(|at| one.add(hash(at)));
            assert_eq!(one, again, "who was counted is not counted again");
        }
        assert_eq!(Sketch::from_bytes(&[0; 5]), None);
    }
}

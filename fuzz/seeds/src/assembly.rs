//! Seeds of `assembly`: any bytes are frames there, so these are of several lengths and nothing in particular.

use super::Seed;

pub fn seeds() -> Vec<Seed> {
    vec![("short", noise(1, 60)), ("middle", noise(2, 400)), ("long", noise(3, 2_000)), ("low", low(4, 400))]
}

/// Bytes without a pattern.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        // Xorshift (Marsaglia 2003).
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        Some(state as u8)
    };
    std::iter::from_fn(next).take(bytes).collect()
}

/// Small numbers: short payloads, many frames.
fn low(seed: u32, bytes: usize) -> Vec<u8> {
    noise(seed, bytes).into_iter().map(|byte| byte & 0x0F).collect()
}

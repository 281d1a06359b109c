//! DEFLATE (RFC 1951) by the letter: another opinion than that of the library which the server compresses with, slow, and
//! strict about the window. That library reads references beyond the window it was told as well.

/// What a compressed message holds: blocks of which none is the last, each reference at most `window_bytes` back.
/// `None` where it is anything else.
pub fn inflate(blocks: &[u8], window_bytes: usize) -> Option<Vec<u8>> {
    let mut bits = Bits { bytes: blocks, at: 0 };
    let mut out = Vec::new();
    // After a stored block, the only kind to end at a whole byte, there may be no more.
    while bits.at < 8 * blocks.len() {
        let last = bits.take(1)? == 1;
        match bits.take(2)? {
            0 => stored(&mut bits, &mut out)?,
            1 => {
                let lengths: Vec<u8> = (0..288).map(fixed_length).collect();
                coded(&mut bits, &mut out, &Code::of(&lengths), &Code::of(&[5; 30]), window_bytes)?;
            }
            2 => {
                let (literals, distances) = tables(&mut bits)?;
                coded(&mut bits, &mut out, &literals, &distances, window_bytes)?;
            }
            _ => return None,
        }
        if last {
            return None;
        }
    }
    Some(out)
}

struct Bits<'a> {
    bytes: &'a [u8],
    /// The next bit, from the lowest of the first byte.
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u8) -> Option<usize> {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value |= usize::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }
}

/// A canonical Huffman code (RFC 1951 §3.2.2).
struct Code {
    /// How many codes of each length there are.
    counts: [usize; 16],
    /// The symbols, by length of code and then by value.
    symbols: Vec<usize>,
}

impl Code {
    fn of(lengths: &[u8]) -> Code {
        let mut counts = [0; 16];
        lengths.iter().filter(|length| **length > 0).for_each(|length| counts[usize::from(*length)] += 1);
        let mut symbols: Vec<usize> = (0..lengths.len()).filter(|symbol| lengths[*symbol] > 0).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Code { counts, symbols }
    }

    fn take(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for count in &self.counts[1..] {
            code |= bits.take(1)?;
            if code < first + count {
                return self.symbols.get(index + code - first).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

fn stored(bits: &mut Bits<'_>, out: &mut Vec<u8>) -> Option<()> {
    bits.at = bits.at.next_multiple_of(8);
    let (length, complement) = (bits.take(16)?, bits.take(16)?);
    if length != !complement & 0xFFFF {
        return None;
    }
    let start = bits.at / 8;
    out.extend_from_slice(bits.bytes.get(start..start + length)?);
    bits.at += 8 * length;
    Some(())
}

/// RFC 1951 §3.2.6.
fn fixed_length(symbol: u16) -> u8 {
    match symbol {
        0..144 => 8,
        144..256 => 9,
        256..280 => 7,
        _ => 8,
    }
}

/// RFC 1951 §3.2.7: the codes of literals and lengths and of distances.
fn tables(bits: &mut Bits<'_>) -> Option<(Code, Code)> {
    const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    let (literals, distances, used) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
    let mut lengths = [0; 19];
    for place in &ORDER[..used] {
        lengths[*place] = bits.take(3)? as u8;
    }
    let code = Code::of(&lengths);
    let mut lengths: Vec<u8> = Vec::new();
    while lengths.len() < literals + distances {
        let (length, count) = match code.take(bits)? {
            16 => (*lengths.last()?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            18 => (0, 11 + bits.take(7)?),
            length => (length as u8, 1),
        };
        lengths.extend(std::iter::repeat_n(length, count));
    }
    (lengths.len() == literals + distances).then(|| (Code::of(&lengths[..literals]), Code::of(&lengths[literals..])))
}

/// RFC 1951 §3.2.5: literals, and references by length and distance, up to the end of the block.
fn coded(bits: &mut Bits<'_>, out: &mut Vec<u8>, literals: &Code, distances: &Code, window_bytes: usize) -> Option<()> {
    loop {
        let length = match literals.take(bits)? {
            literal @ 0..256 => {
                out.push(literal as u8);
                continue;
            }
            256 => return Some(()),
            285 => 258,
            symbol @ 257..285 => 3 + extended(bits, symbol - 257, 4)?,
            _ => return None,
        };
        let symbol = distances.take(bits)?;
        let distance = 1 + extended(bits, symbol, 2)?;
        if distance > window_bytes || distance > out.len() {
            return None;
        }
        for _ in 0..length {
            out.push(out[out.len() - distance]);
        }
    }
}

/// The tables of §3.2.5 in one: from `2 * per_step` on, each `per_step` symbols have one more bit behind them.
fn extended(bits: &mut Bits<'_>, symbol: usize, per_step: usize) -> Option<usize> {
    let extra = (symbol / per_step).saturating_sub(1);
    let base = match extra {
        0 => symbol,
        extra => (per_step + symbol % per_step) << extra,
    };
    Some(base + bits.take(extra as u8)?)
}

//! Bytes together with the pieces they arrive in.
//!
//! ```text
//!  number of sizes, modulo 16 │ that many sizes │ the bytes
//! ```

/// Sizes one input can give.
const SIZES_MAX: usize = 15;

/// The sizes at the front of an input, and the bytes behind them.
pub fn read(input: &[u8]) -> (&[u8], &[u8]) {
    let Some((&count, rest)) = input.split_first() else { return (&[], &[]) };
    rest.split_at(rest.len().min(usize::from(count) % (SIZES_MAX + 1)))
}

/// An input of these sizes, at most 15, and these bytes.
pub fn write(sizes: &[u8], bytes: &[u8]) -> Vec<u8> {
    assert!(sizes.len() <= SIZES_MAX, "an input gives at most {SIZES_MAX} sizes");
    [&[sizes.len() as u8], sizes, bytes].concat()
}

/// Where the pieces of so many bytes end: the sizes over and over again, a size of 0 being the rest. Without sizes
/// there is one piece.
pub fn ends(sizes: &[u8], bytes: usize) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut end = 0;
    let mut sizes = sizes.iter().cycle();
    while end < bytes {
        let size = match sizes.next() {
            None | Some(0) => bytes,
            Some(&size) => usize::from(size),
        };
        end = bytes.min(end + size);
        ends.push(end);
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for sizes in [&[][..], &[1], &[3, 0, 255]] {
            assert_eq!(read(&write(sizes, b"bytes")), (sizes, &b"bytes"[..]));
        }
        assert_eq!(read(&[]), (&[][..], &[][..]));
        assert_eq!(read(&[7, 1, 2]), (&[1, 2][..], &[][..]), "sizes end with the input");
    }

    #[test]
    fn pieces_cover_everything_once() {
        assert_eq!(ends(&[], 9), [9]);
        assert_eq!(ends(&[1, 3], 9), [1, 4, 5, 8, 9]);
        assert_eq!(ends(&[2, 0], 9), [2, 9]);
        assert!(ends(&[5], 0).is_empty());
    }
}

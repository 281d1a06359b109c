//! A frame that several reactors send, and its compressed forms, each made at most once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::{Deflater, WindowBits};

/// A whole server frame, shared by the reactors of a node.
///
/// The first reactor that needs it compressed compresses it; one that needs the same form meanwhile waits for it, which
/// takes no longer than doing it a second time.
#[derive(Clone, Debug)]
pub struct SharedFrame(Arc<Forms>);

#[derive(Debug)]
struct Forms {
    plain: Box<[u8]>,
    /// For the window nearly everybody has.
    common: Form,
    /// For the smaller ones.
    rare: OnceLock<Box<[Form; WindowBits::COUNT - 1]>>,
    /// Where its bytes are counted, once it is only kept for those who have not sent it yet.
    owed: OnceLock<Arc<OwedBytes>>,
}

/// Bytes that are kept only because somebody has not sent them yet.
#[derive(Debug, Default)]
pub struct OwedBytes(AtomicU64);

impl OwedBytes {
    /// How many there are.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// So many more.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many less.
    pub fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Forms {
    fn drop(&mut self) {
        if let Some(owed) = self.owed.get() {
            owed.remove(self.plain.len());
        }
    }
}

/// A compressed form, once it was needed.
type Form = OnceLock<Box<[u8]>>;

impl SharedFrame {
    /// The frame as it was made.
    #[inline]
    pub fn plain(&self) -> &[u8] {
        &self.0.plain
    }

    /// The frame as a connection with this window gets it; see [`Deflater::append`].
    pub fn deflated(&self, bits: WindowBits, deflater: &mut Deflater) -> &[u8] {
        let form = match bits {
            WindowBits::MAX => &self.0.common,
            bits => &self.0.rare.get_or_init(Box::default)[bits.index()],
        };
        form.get_or_init(|| {
            let mut out = Vec::new();
            deflater.append(bits, self.plain(), &mut out);
            out.into_boxed_slice()
        })
    }

    /// Whoever has kept it does not need it any more: while others do, its bytes are counted.
    pub fn give_up(self, owed: &Arc<OwedBytes>) {
        if Arc::strong_count(&self.0) > 1 && self.0.owed.set(owed.clone()).is_ok() {
            owed.add(self.plain().len());
        }
    }

    /// The frame for this window, if it was made already.
    pub fn made(&self, bits: WindowBits) -> Option<&[u8]> {
        let form = match bits {
            WindowBits::MAX => &self.0.common,
            bits => &self.0.rare.get()?[bits.index()],
        };
        form.get().map(|frame| &**frame)
    }
}

impl From<&[u8]> for SharedFrame {
    fn from(frame: &[u8]) -> SharedFrame {
        let forms =
            Forms { plain: frame.into(), common: OnceLock::new(), rare: OnceLock::new(), owed: OnceLock::new() };
        SharedFrame(Arc::new(forms))
    }
}

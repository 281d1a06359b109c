//! A frame that several reactors send, and its compressed forms, each made at most once.

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
        SharedFrame(Arc::new(Forms { plain: frame.into(), common: OnceLock::new(), rare: OnceLock::new() }))
    }
}

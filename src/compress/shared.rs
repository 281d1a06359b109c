//! A frame that several reactors send, and its compressed forms, each made at most once.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use once_cell::race::OnceBox;

use super::{Deflater, WindowBits};
use crate::limits::ALLOCATION_BYTES;

/// A whole server frame, shared by the reactors of a node.
///
/// The first reactor that needs it compressed compresses it for all. One that needs the same form at that moment does not
/// wait, which no reactor ever does: it compresses the frame as well, and the form that is complete first is kept.
#[derive(Clone, Debug)]
pub struct SharedFrame(Arc<Forms>);

#[derive(Debug)]
struct Forms {
    plain: Box<[u8]>,
    /// For the window of nearly all connections.
    common: Form,
    /// For the smaller ones.
    rare: OnceBox<[Form; WindowBits::COUNT - 1]>,
    /// Where its bytes are counted, once a history has kept it. Only its topic's home sets it: no reactor waits here.
    account: OnceLock<Arc<Account>>,
    state: State,
}

/// Bytes that are held for one reason.
#[derive(Debug, Default)]
pub struct HeldBytes(AtomicI64);

impl HeldBytes {
    /// How many there are.
    pub fn get(&self) -> u64 {
        // A reactor that takes bytes away may be ahead of the one that is about to add them.
        self.0.load(Ordering::Relaxed).max(0) as u64
    }

    /// So many more.
    pub fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as i64, Ordering::Relaxed);
    }

    /// So many less.
    pub fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes as i64, Ordering::Relaxed);
    }
}

/// Where a history counts what the forms of its frames take, beside what it counts itself.
#[derive(Debug, Default)]
pub struct Account {
    /// Compressed forms of the frames it keeps. Any reactor may make one at any time.
    pub compressed: HeldBytes,
    /// Frames that it keeps no longer, all of them: they are held only because a connection has not sent them yet.
    pub pinned: Arc<HeldBytes>,
}

/// Whether a history keeps the frame, and the bytes of its compressed forms: in one number, so that a form that is made
/// while the history gives the frame up is counted on one side and not on both.
#[derive(Debug, Default)]
struct State(AtomicUsize);

/// What a history has to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing.
    Free,
    /// It keeps the frame, and counts it.
    Kept,
    /// It has kept the frame.
    Evicted,
}

impl State {
    const STAGES: usize = 4;

    /// So many bytes of compressed forms more; the stage in which that was.
    fn made(&self, bytes: usize) -> Stage {
        State::read(self.0.fetch_add(bytes * State::STAGES, Ordering::AcqRel)).0
    }

    /// The next stage; how many bytes of compressed forms there were.
    fn step(&self) -> usize {
        State::read(self.0.fetch_add(1, Ordering::AcqRel)).1
    }

    fn get(&self) -> (Stage, usize) {
        State::read(self.0.load(Ordering::Acquire))
    }

    fn read(state: usize) -> (Stage, usize) {
        let stage = match state % State::STAGES {
            0 => Stage::Free,
            1 => Stage::Kept,
            _ => Stage::Evicted,
        };
        (stage, state / State::STAGES)
    }
}

impl Forms {
    /// What it takes without compressed forms.
    fn bytes(&self) -> usize {
        // The counts of the `Arc`, and two allocations.
        self.plain.len() + size_of::<Forms>() + 2 * size_of::<usize>() + 2 * ALLOCATION_BYTES
    }

    /// Puts into a cell what was made for it, and counts its bytes, unless another reactor was first.
    fn fill<T>(&self, cell: &OnceBox<T>, made: Box<T>, bytes: impl FnOnce(&T) -> usize) -> Filled {
        let bytes = bytes(&made);
        match cell.set(made) {
            Ok(()) => {
                self.count_made(bytes);
                Filled::Here
            }
            Err(_) => Filled::Elsewhere,
        }
    }

    /// A form was made, or the table of the rare ones.
    fn count_made(&self, bytes: usize) {
        let stage = self.state.made(bytes);
        match (stage, self.account.get()) {
            (Stage::Free, _) | (_, None) => {}
            (Stage::Kept, Some(account)) => account.compressed.add(bytes),
            (Stage::Evicted, Some(account)) => account.pinned.add(bytes),
        }
    }
}

impl Drop for Forms {
    fn drop(&mut self) {
        let (stage, made_bytes) = self.state.get();
        match (stage, self.account.get()) {
            (Stage::Free, _) | (_, None) => {}
            (Stage::Kept, Some(account)) => account.compressed.remove(made_bytes),
            (Stage::Evicted, Some(account)) => account.pinned.remove(self.bytes() + made_bytes),
        }
    }
}

/// Who filled a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filled {
    /// This reactor.
    Here,
    /// Another one, while this one made the same.
    Elsewhere,
}

/// A compressed form, once it was needed.
type Form = OnceBox<Box<[u8]>>;

/// Bytes that a form takes beside its frame.
const FORM_BYTES: usize = size_of::<Box<[u8]>>() + 2 * ALLOCATION_BYTES;

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
            bits => {
                let rare = &self.0.rare;
                if rare.get().is_none() {
                    self.0
                        .fill(rare, Box::default(), |_| size_of::<[Form; WindowBits::COUNT - 1]>() + ALLOCATION_BYTES);
                }
                &rare.get().expect("it was filled, here or elsewhere")[bits.index()]
            }
        };
        if let Some(made) = form.get() {
            return made;
        }
        let mut out = Vec::new();
        deflater.append(bits, self.plain(), &mut out);
        self.keep_form(form, out, deflater)
    }

    /// A form was made: the frame keeps it, unless another reactor has made it meanwhile.
    fn keep_form<'a>(&self, form: &'a Form, made: Vec<u8>, deflater: &mut Deflater) -> &'a [u8] {
        match self.0.fill(form, Box::new(made.into_boxed_slice()), |made| made.len() + FORM_BYTES) {
            Filled::Here => {}
            Filled::Elsewhere => deflater.discard(),
        }
        form.get().expect("it was filled, here or elsewhere")
    }

    /// What it takes without compressed forms, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.bytes()
    }

    /// A history keeps it from now on and counts [`SharedFrame::bytes`]; what is compressed is counted in `account`. Only
    /// the first history that keeps a frame counts it.
    pub fn keep(&self, account: &Arc<Account>) {
        if self.0.account.set(account.clone()).is_ok() {
            let made_bytes = self.0.state.step();
            account.compressed.add(made_bytes);
        }
    }

    /// The history that has kept it evicts it: while others hold it, all of its bytes are pinned.
    pub fn evict(self) {
        if let (Stage::Kept, Some(account)) = (self.0.state.get().0, self.0.account.get())
            && Arc::strong_count(&self.0) > 1
        {
            let made_bytes = self.0.state.step();
            account.compressed.remove(made_bytes);
            account.pinned.add(self.0.bytes() + made_bytes);
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
        SharedFrame(Arc::new(Forms {
            plain: frame.into(),
            common: OnceBox::new(),
            rare: OnceBox::new(),
            account: OnceLock::new(),
            state: State::default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{FrameBuilder, Opcode};

    fn bytes_of(account: &Account) -> (u64, u64) {
        (account.compressed.get(), account.pinned.get())
    }

    #[test]
    fn compressed_forms_are_counted_where_the_frame_is() {
        let (account, mut deflater) = (Arc::<Account>::default(), Deflater::new(6, 1));
        let frame: SharedFrame =
            FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(&[b'a'; 1_000])).into();
        let common = frame.deflated(WindowBits::MAX, &mut deflater).len() + FORM_BYTES;
        frame.keep(&account);
        assert_eq!(bytes_of(&account), (common as u64, 0), "what was there when it was kept");

        let rare = frame.deflated(WindowBits::new(9).unwrap(), &mut deflater).len() + FORM_BYTES;
        let table = size_of::<[Form; WindowBits::COUNT - 1]>() + ALLOCATION_BYTES;
        let kept = common + rare + table;
        assert_eq!(bytes_of(&account), (kept as u64, 0), "what was made while it was kept");

        let reader = frame.clone();
        frame.evict();
        assert_eq!(bytes_of(&account), (0, (reader.bytes() + kept) as u64), "a reader has not sent it yet");
        let late = reader.deflated(WindowBits::new(10).unwrap(), &mut deflater).len() + FORM_BYTES;
        assert_eq!(bytes_of(&account), (0, (reader.bytes() + kept + late) as u64));
        drop(reader);
        assert_eq!(bytes_of(&account), (0, 0));
    }

    #[test]
    fn of_two_forms_made_at_once_the_first_is_kept_and_counted() {
        let account = Arc::<Account>::default();
        let frame: SharedFrame =
            FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(&[b'a'; 1_000])).into();
        frame.keep(&account);
        let (mut first, mut second) = (Deflater::new(6, 1), Deflater::new(6, 1));
        // The second reactor has found no form, and makes its own while the first one puts its form there.
        let mut late = Vec::new();
        second.append(WindowBits::MAX, frame.plain(), &mut late);
        let kept = frame.deflated(WindowBits::MAX, &mut first).as_ptr();
        let sent = frame.keep_form(&frame.0.common, late, &mut second);
        assert_eq!(sent.as_ptr(), kept, "both send the form that was complete first");
        assert_eq!((first.runs(), first.discarded()), (1, 0));
        assert_eq!((second.runs(), second.discarded()), (1, 1));
        let bytes = sent.len() + FORM_BYTES;
        assert_eq!(bytes_of(&account), (bytes as u64, 0), "it is counted once");
    }

    #[test]
    fn what_nobody_waits_for_is_never_owed() {
        let (account, mut deflater) = (Arc::<Account>::default(), Deflater::new(6, 1));
        let frame: SharedFrame =
            FrameBuilder::default().build(Opcode::Text, |out| out.extend_from_slice(&[b'a'; 1_000])).into();
        frame.keep(&account);
        frame.deflated(WindowBits::MAX, &mut deflater);
        assert!(account.compressed.get() > 0);
        frame.evict();
        assert_eq!(bytes_of(&account), (0, 0));
    }
}

//! The bytes that all scripts have in common: a head of three, and steps.
//!
//! ```text
//!  reactors │ seed of the world's dice │ bits │ steps
//!  step: kind in the low four bits, turns of workers behind it in the high four │ what the kind needs
//! ```

/// What stands in front of the steps.
pub(crate) struct Head {
    /// Reactors of the node, 1 to 3.
    pub(crate) reactors: u8,
    /// What the world's dice begin with.
    pub(crate) seed: u8,
    /// What the run is like.
    pub(crate) bits: u8,
}

/// Steps, each with the number of turns that workers have behind it.
pub(crate) type Steps<S> = Vec<(u8, S)>;

/// The head and the steps, at most so many, that any bytes are; `step` reads what a kind needs.
pub(crate) fn read<S>(input: &[u8], steps_max: usize, step: impl Fn(u8, &mut Input<'_>) -> S) -> (Head, Steps<S>) {
    let mut input = Input(input);
    let head = Head { reactors: input.byte() % 3 + 1, seed: input.byte(), bits: input.byte() };
    let mut steps = Vec::new();
    while !input.0.is_empty() && steps.len() < steps_max {
        let kind = input.byte();
        steps.push((kind >> 4, step(kind & 0xF, &mut input)));
    }
    (head, steps)
}

/// Their bytes; `step` writes one.
pub(crate) fn write<S>(head: &Head, steps: &[(u8, S)], step: impl Fn(&S, u8, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![head.reactors - 1, head.seed, head.bits];
    for (turns, of) in steps {
        step(of, *turns, &mut out);
    }
    out
}

/// These as the lowest bits of a byte, in their order.
pub(crate) fn bits(all: impl IntoIterator<Item = bool>) -> u8 {
    all.into_iter().enumerate().map(|(bit, is_set)| u8::from(is_set) << bit).sum()
}

/// Whether a bit is set.
pub(crate) fn is_set(bits: u8, bit: u8) -> bool {
    bits >> bit & 1 == 1
}

/// What is left of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl Input<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A length, and that many bytes.
    pub(crate) fn text(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        text.to_vec()
    }
}

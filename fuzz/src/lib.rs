//! What the targets share: bytes that are allocated, and what a decoder tells.

pub mod decoding;
pub mod memory;

//! How the inputs of the fuzz targets are laid out: read by the targets, written by the seeds.

pub mod frame;
pub mod market;
pub mod pieces;
pub mod script;
mod steps;

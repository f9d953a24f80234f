//! The `isochrone` binary; everything lives in the library.

fn main() {}

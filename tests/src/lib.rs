//! What the cross-crate tests and benches share: the shipped sample, a plain model of a store, a random
//! number generator with a fixed sequence, and where the programs under test are.
//!
//! Nothing here depends on the reference implementation; what does is in `tests/interop`.

pub mod clock;
pub mod model;
pub mod npy;
pub mod place;
pub mod programs;
pub mod random;
pub mod sample;

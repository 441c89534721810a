//! Branches: copy-on-write children of a store.
//!
//! docs/branches.md describes what they promise and how; docs/format.md has the bytes.

mod create;
pub(crate) mod edit;
mod overlay;
pub(crate) mod pin;
pub(crate) mod resolve;

pub use create::{BranchOptions, BranchReport};
pub use pin::{Derivation, MAX_NAME, Pin};
pub use resolve::{Place, Resolved};

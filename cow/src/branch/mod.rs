//! Branches: copy-on-write children of a store.
//!
//! docs/branches.md describes what they promise and how; docs/format.md has the bytes.

mod create;
mod diff;
pub(crate) mod edit;
pub(crate) mod keep;
mod kin;
mod merge;
mod overlay;
pub(crate) mod pin;
pub(crate) mod resolve;

pub use create::{BranchOptions, BranchReport};
pub use diff::{Change, DiffReport, Difference, diff};
pub use keep::Branch;
pub use kin::Kin;
pub use merge::{Conflict, MergeReport};
pub use pin::{Derivation, MAX_NAME, Pin};
pub use resolve::{Place, Resolved};

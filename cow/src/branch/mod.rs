//! Branches: copy-on-write children of a store.
//!
//! docs/branches.md describes what they promise and how; docs/format.md has the bytes.

pub(crate) mod copy;
pub(crate) mod create;
mod derive;
mod diff;
pub(crate) mod edit;
pub(crate) mod keep;
mod kin;
mod lineage;
mod merge;
mod overlay;
pub(crate) mod patch;
pub(crate) mod pin;
mod refcounts;
pub(crate) mod resolve;

pub use copy::{Map, Precision};
pub use create::{BranchOptions, BranchReport};
pub use derive::{Derive, DeriveReport, Derived};
pub use diff::{Change, DiffReport, Difference, diff};
pub use keep::{Branch, drop_kept, kept_states, link_kept};
pub use kin::Kin;
pub use lineage::{Generation, LineageState, lineage, prove, verify_proof_of};
pub use merge::{Conflict, MergeReport};
pub use resolve::{Place, Resolved};
pub use rvf_format::pin::{Derivation, MAX_NAME, Pin, Source};

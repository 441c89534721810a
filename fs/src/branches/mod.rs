//! `branches/`: the copy-on-write children of a store, as directories that are copied, renamed and removed.
//!
//! - [`family`] finds the children beside the file by lineage.
//! - [`table`] gives each a number for as long as the mount lives, and remembers what is being made or taken away.
//! - [`pending`] is a directory into which something is being copied: it becomes a branch when the copy is whole.
//! - [`part`] is one name in it, [`bound`] the state of a branch that it is a copy of.
//! - [`content`] is what the regular files of a branch hold, and what a copy is compared with.
//! - [`registry`] keeps the stores of branches that were looked into.
//!
//! How a copy becomes a branch is described in `docs/branches.md`, "In the mount".

pub mod bound;
pub mod content;
pub mod family;
pub mod part;
pub mod pending;
pub mod registry;
pub mod table;

pub use content::Member;
pub use table::{Branches, Link};

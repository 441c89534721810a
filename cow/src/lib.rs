//! One open `.rvf` store: immutable views for readers, one writer, and search over both.
//!
//! - [`Store`] opens or creates a file, publishes a new [`View`] after every commit, and notices
//!   commits of other processes.
//! - [`View`] answers everything about one state of the file. It never changes, so readers hold no
//!   locks. O(1) to make in the number of vectors when the file carries a search image.
//! - A commit is: lock, refresh, append segments, sync, append manifest, sync, unlock, publish. Either all
//!   of it is in the file afterwards or nothing.
//!
//! Locks are taken in this order: commit, loading, then the leaf locks; none is held across a callback.

mod accesses;
mod binding;
mod branch;
mod coded;
mod compact;
mod coverage;
mod create;
mod embed;
mod error;
mod filters;
mod folder;
mod lazy_rows;
mod live;
mod load;
mod loading;
mod meta_cache;
mod metadata;
mod parent;
mod permissions;
pub mod query;
mod reach;
mod reindex;
mod rows;
mod scratch;
mod search;
mod shared;
mod sign;
mod source;
mod store;
mod types;
mod unchanged;
mod view;
mod write;

pub use accesses::{AccessReport, HOT_VECTORS, Hottest};
pub use binding::Bound;
pub use branch::{
    Branch, BranchOptions, BranchReport, Change, Conflict, Derivation, Derive, DeriveReport, Derived,
    DiffReport, Difference, Generation, Kin, LineageState, MAX_NAME, Map, MergeReport, Pin, Place, Precision,
    Resolved, Source, diff, drop_kept, kept_states, lineage, link_kept, prove, verify_proof_of,
};
pub use embed::{EmbedReport, Embedded, Embedding};
pub use error::{Error, Family};
pub use folder::{Folder, Stamp};
pub use reach::{Reached, Served, reach, resolve, serve};
pub use reindex::BuiltIndex;
pub use rows::RowTable;
pub use rvf_index::{NoProgress, Progress};
pub use scratch::{PENDING, Scratch, cannot_link, link_or_move, sweep};
pub use search::MAX_QUERIES;
pub use sign::{FoundSignature, Judge, SignOptions, Target};
pub use source::{Device, open_file};
pub use store::Store;
pub use types::{
    Access, Answer, BadRow, Batch, CompactReport, CreateOptions, DeleteReport, EAGER_VERIFY_BYTES, Event,
    Fields, Hit, IndexState, IngestReport, Metric, OpenOptions, Overlay, OverlayReport, RefcountReport,
    ReindexOptions, ReindexReport, SearchRequest, Status, Value,
};
pub use view::{View, domain_profile};
pub use write::now_ns;

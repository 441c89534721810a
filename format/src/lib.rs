//! The RVF file format: bytes to segments, manifests and payloads, and back.
//!
//! A `.rvf` file is a sequence of segments, each a 64-byte header, a payload and zero padding to a multiple of 64.
//! The newest complete and verified MANIFEST segment names the segments that make up the store; what it does not name
//! does not count. This crate maps files ([`map`]), walks them ([`layout`]), decides which manifest counts
//! ([`recover`]), says what the store holds ([`contents`]), decodes every payload, and appends commits ([`writer`]).
//!
//! Nothing here panics, loops or allocates beyond the size of its input, whatever the bytes. Reading never changes a
//! file; damage becomes [`Finding`]s, and the rest stays readable.
//!
//! The bytes are described in `docs/format.md`.

pub mod check;
pub mod checksum;
pub mod columns;
pub mod contents;
pub mod cow_map;
pub mod delta;
mod error;

mod finding;
pub mod header;
pub mod hot;
pub mod id_directory;
pub mod index_seg;
mod integrity;
pub mod journal;
pub mod label;
pub mod layout;
pub mod level0;
pub mod lock;
pub mod manifest;
pub mod map;
pub mod membership;
pub mod meta;
pub mod pin;
pub mod quant;
mod reader;
pub mod recover;
pub mod refcount;
pub mod root_page;
pub mod sketch;
pub mod storage;
pub mod vec_seg;
pub mod witness;
pub mod writer;

pub use checksum::ChecksumState;
pub use contents::{Contents, Rows, VecBlock};
pub use error::{Error, Family, Result, codes};
pub use finding::{Finding, Severity};
pub use header::{SegType, Segment, SegmentHeader};
pub use integrity::Integrity;
pub use layout::{Dialect, Entry, Layout};
pub use manifest::{DirEntry, FileIdentity, Manifest};
pub use map::{Advice, FileBytes};
pub use recover::{Located, Opened, Tail};
pub use storage::Storage;

//! What goes into a store and what comes out, as plain data.

use std::time::{Duration, Instant};

pub use rvf_format::meta::Value;
pub use rvf_index::{Hit, Metric};

/// The metadata of one vector: field names and values, in field order.
pub type Fields = Vec<(String, Value)>;

/// What a new store is.
#[derive(Debug, Clone, Copy)]
pub struct CreateOptions {
    /// Components a vector, 1 to 65,535.
    pub dimension: u16,
    /// How distances are measured.
    pub metric: Metric,
    /// Hardware profile byte (0 generic, 1 core, 2 hot, 3 full).
    pub profile: u8,
}

/// Whether a store may be changed through this handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every change is refused.
    ReadOnly,
    /// Changes take the write lock for the time of one commit.
    ReadWrite,
}

/// How to open a store.
#[derive(Debug, Clone, Copy)]
pub struct OpenOptions {
    /// Reading only, or also writing.
    pub access: Access,
    /// Map the file (the default) or read it into memory.
    pub mmap: bool,
    /// How long a commit waits for another writer's lock.
    pub lock_wait: Duration,
    /// Check the checksum of every vector segment before `open` returns. Otherwise segments over
    /// [`EAGER_VERIFY_BYTES`] in all are checked when [`crate::Store::verify_vectors`] is called.
    pub verify: bool,
}

/// Up to this many bytes of vectors are checksummed while opening, whatever the options say: it
/// costs about a millisecond and small files then never show a damaged row.
pub const EAGER_VERIFY_BYTES: u64 = 16 << 20;

impl Default for OpenOptions {
    fn default() -> Self {
        Self { access: Access::ReadWrite, mmap: true, lock_wait: Duration::from_secs(10), verify: true }
    }
}

/// What to do with a row of the wrong length or with NaN in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRow {
    /// Refuse the batch, naming the row.
    Refuse,
    /// Leave the row out and count it, as the existing tools do.
    Skip,
}

/// Rows to add in one atomic commit.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Components a row.
    pub dimension: usize,
    /// One id a row, or `None` to number on after the highest id in the store.
    pub ids: Option<Vec<u64>>,
    /// `[n, dimension]`, row-major.
    pub vectors: Vec<f32>,
    /// Empty, or one record a row. An empty record leaves an overwritten id's old fields in place.
    pub metadata: Vec<Fields>,
    /// What to do with rows that cannot be stored.
    pub on_bad_row: BadRow,
}

impl Batch {
    /// Rows in the batch.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.vectors.len().checked_div(self.dimension).unwrap_or(0)
    }
}

/// What an ingest did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngestReport {
    /// Rows stored.
    pub accepted: u64,
    /// Rows left out (wrong or not finite), with [`BadRow::Skip`].
    pub rejected: u64,
    /// Epoch of the commit, or the current one when nothing was stored.
    pub epoch: u32,
    /// Smallest id stored.
    pub first_id: Option<u64>,
}

/// What a delete did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeleteReport {
    /// Live vectors that are gone now.
    pub deleted: u64,
    /// Ids given that were not live.
    pub missing: u64,
    /// Epoch of the commit.
    pub epoch: u32,
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactReport {
    /// Live vectors before.
    pub vectors_before: u64,
    /// Live vectors after (the same).
    pub vectors_after: u64,
    /// Bytes before.
    pub file_size_before: u64,
    /// Bytes after.
    pub file_size_after: u64,
    /// The count the existing tools report here: deleted ids dropped.
    pub segments_compacted: u64,
    /// The count the existing tools report here: bytes of the deleted rows' vectors.
    pub bytes_reclaimed: u64,
    /// Epoch of the commit.
    pub epoch: u32,
}

/// How to build the search index.
#[derive(Debug, Clone, Copy)]
pub struct ReindexOptions {
    /// Links a node on the upper layers; twice as many on layer 0.
    pub m: usize,
    /// Width of the search that finds a new node's neighbours.
    pub ef_construction: usize,
    /// Threads; 0 means all.
    pub threads: usize,
    /// Seed of the level draw.
    pub seed: u64,
    /// Store the index in the file. Without it the index lives in memory, for read-only stores.
    pub persist: bool,
    /// Convert a graph that another tool stored, when it covers every live vector.
    pub adopt: bool,
}

impl Default for ReindexOptions {
    fn default() -> Self {
        Self { m: 16, ef_construction: 200, threads: 0, seed: 42, persist: true, adopt: false }
    }
}

/// What a reindex did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReindexReport {
    /// Vectors in the index.
    pub indexed: u64,
    /// Bytes of the search image.
    pub bytes: u64,
    /// Epoch of the commit.
    pub epoch: u32,
}

/// One or more queries.
#[derive(Debug, Clone, Copy)]
pub struct SearchRequest<'a> {
    /// `[q, dimension]`, row-major.
    pub queries: &'a [f32],
    /// Neighbours wanted.
    pub k: usize,
    /// Width of the graph walk; `None` for the default.
    pub ef: Option<usize>,
    /// Only vectors whose metadata match.
    pub filter: Option<&'a str>,
    /// Look at every vector instead of walking the graph.
    pub exact: bool,
    /// Give up after this instant.
    pub deadline: Option<Instant>,
    /// Threads to spread several queries over; 0 and 1 mean the caller's.
    pub threads: usize,
}

/// The answer to one query.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Nearest first, ties by id.
    pub hits: Vec<Hit>,
    /// Whether every matching vector was looked at.
    pub exact: bool,
    /// Which part of the index served: `"C"` the whole graph, `"A"` entry points and centroids only,
    /// `"scan"` none.
    pub layer: &'static str,
    /// Vectors whose distance was computed.
    pub visited: u64,
    /// Time spent, in microseconds.
    pub micros: f64,
    /// Whether the deadline cut the search short.
    pub truncated: bool,
}

/// How much of the store the search index covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexState {
    /// Live vectors reachable through the graph.
    pub indexed: u64,
    /// Live vectors.
    pub total: u64,
    /// `"none"`, `"small"` (too few to need one), `"C"`.
    pub layer: &'static str,
    /// Layers that were read into memory since the store was opened, `"none"` to `"A B C"`: A the centroids and their lists, B
    /// the links, C all.
    pub loaded: &'static str,
    /// Where the index is: `"none"`, `"file"`, or `"memory"` when it could not be stored or must not be.
    pub place: &'static str,
    /// `true` while an index exists in the file that no longer fits its vectors.
    pub stale: bool,
}

/// The state of a store in numbers and words: what the `status` file shows.
#[derive(Debug, Clone)]
pub struct Status {
    /// 32 hex digits, or empty where the file has none.
    pub file_id: String,
    /// 32 hex digits of the parent, or empty for a root.
    pub parent_id: String,
    /// Generations above.
    pub lineage_depth: u32,
    /// Components a vector.
    pub dimension: usize,
    /// How distances are measured.
    pub metric: Metric,
    /// Live vectors.
    pub vectors: u64,
    /// Ids in the manifest's deletion list.
    pub deleted: u64,
    /// Segments in the file.
    pub segments: u64,
    /// Segments the newest manifest lists.
    pub listed_segments: u64,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes of live rows, listed metadata and index.
    pub live_bytes: u64,
    /// Bytes that a compaction would give back, about.
    pub dead_bytes: u64,
    /// Commit counter.
    pub epoch: u32,
    /// Hardware profile byte.
    pub profile_id: u8,
    /// Domain profile, from the extension.
    pub profile: &'static str,
    /// `"wire"` or `"legacy"`.
    pub dialect: &'static str,
    /// Index coverage.
    pub index: IndexState,
    /// Whether all vector segments have been checked against their checksums.
    pub verified: bool,
    /// `"ok"`, or the number of findings at the worst severity, such as `"damaged (2)"`.
    pub health: String,
    /// Dead share of the rows, as the existing tools compute it.
    pub dead_space_ratio: f64,
}

/// Something that happened to a store.
#[derive(Debug, Clone)]
pub struct Event {
    /// `ingest`, `delete`, `metadata`, `compact`, `reindex`, `embed`, `remove`, `rename`, `sign`, `freeze`, `refresh` or `damage`, among others.
    pub kind: &'static str,
    /// Epoch after it.
    pub epoch: u32,
    /// What else there is to say, as key and value.
    pub detail: Vec<(String, String)>,
}

/// A low-rank change of the vectors of a branch, for `Store::overlay`: `scale * A B` is added.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// The vectors that the rows of A belong to; `None` for all that the branch shows, in their order.
    pub ids: Option<&'a [u64]>,
    /// Columns of A and rows of B.
    pub rank: u16,
    /// `[n, rank]`, row-major.
    pub a: &'a [f32],
    /// `[rank, dimension]`, row-major.
    pub b: &'a [f32],
    /// Multiplies the product.
    pub scale: f32,
}

/// What an overlay did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayReport {
    /// Vectors stored as their factors.
    pub low_rank: u64,
    /// Vectors stored as full rows.
    pub full: u64,
    /// Epoch of the commit.
    pub epoch: u32,
}

/// What counting a branch's references found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefcountReport {
    /// For each cluster of the parent, how many rows of it the branch shows.
    pub counts: Vec<u32>,
    /// Clusters that lie in the branch itself.
    pub local: u64,
    /// Epoch of the commit.
    pub epoch: u32,
}

//! Building the search index and storing it, in our form and in the reference's.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use rvf_format::SegType;
use rvf_format::index_seg::{self, Adjacency, IndexSeg};
use rvf_format::lock::{LockError, WriteLock};
use rvf_index::{BuildParams, Csr, Image, Progress, ReferenceGraph};

use crate::coverage;
use crate::error::Error;
use crate::filters;
use crate::source::open_regular;
use crate::store::Store;
use crate::types::{Access, Event, ReindexOptions, ReindexReport};
use crate::view::View;

/// Largest segment that the existing tools load.
const REFERENCE_SEGMENT_BYTES: usize = 256 << 20;

/// A search image that was built and lies in memory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BuiltIndex {
    bytes: Shared,
    pub(crate) image: Arc<Image>,
}

#[derive(Clone)]
struct Shared(Arc<Vec<u8>>);

impl Deref for Shared {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl BuiltIndex {
    fn new(bytes: Vec<u8>) -> Result<Self, Error> {
        let bytes = Shared(Arc::new(bytes));
        let image = Arc::new(Image::open(bytes.clone()).map_err(index_error)?);
        Ok(Self { bytes, image })
    }

    /// Vectors in it.
    #[must_use]
    pub fn indexed(&self) -> u64 {
        u64::from(self.image.nodes())
    }

    /// Bytes of the search image.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether it describes rows that `view` shows.
    fn fits(&self, view: &View) -> bool {
        coverage::fits(&self.image, view.dimension(), view.metric(), &view.blocks)
    }
}

impl View {
    /// Whether an index would pay: the store is not small, and none covers at least four fifths of its live vectors.
    /// O(1) once something was searched.
    #[must_use]
    pub fn wants_index(&self) -> bool {
        let state = self.index_state();
        state.layer != "small"
            && state.total > 0
            && state.indexed.saturating_mul(5) < state.total.saturating_mul(4)
    }
}

impl Store {
    /// Builds the search index over all live vectors and, with `persist`, stores it in one commit:
    /// the search image, then the same graph in the reference's form. Queries go on meanwhile.
    ///
    /// With `adopt`, a graph that another tool stored is converted instead of built, when it
    /// covers every live vector.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Invalid`] when the vectors it was built from were rewritten
    /// meanwhile (run it again); otherwise as [`Store::ingest`].
    pub fn reindex(&self, options: &ReindexOptions, progress: &dyn Progress) -> Result<ReindexReport, Error> {
        let Some(built) = self.build_index(options, progress)? else {
            return Ok(ReindexReport { indexed: 0, bytes: 0, epoch: self.view().epoch() });
        };
        if options.persist { self.store_index(&built) } else { self.use_index(&built) }
    }

    /// Builds the search index over all live vectors and leaves it to the caller, who hands it to
    /// [`Store::store_index`] or [`Store::use_index`]. Changes nothing. `None` when there are no vectors.
    ///
    /// # Errors
    /// [`Error::Cancelled`]; [`Error::Damaged`] when the file changed underneath.
    pub fn build_index(
        &self,
        options: &ReindexOptions,
        progress: &dyn Progress,
    ) -> Result<Option<BuiltIndex>, Error> {
        self.refresh()?;
        self.verify_vectors()?;
        let view = self.view();
        let live = view.live_ordinals();
        if live.is_empty() {
            return Ok(None);
        }
        if !progress.step(0, live.len() as u64) {
            return Err(Error::Cancelled);
        }
        let covered = coverage::digest(&view.blocks);
        let bytes = match options.adopt.then(|| adopted(&view, covered)).flatten() {
            Some(bytes) => bytes,
            None => {
                let threads = match options.threads {
                    0 => std::thread::available_parallelism().map_or(1, usize::from),
                    n => n,
                };
                let params = BuildParams {
                    m: options.m,
                    ef_construction: options.ef_construction,
                    seed: options.seed,
                    threads,
                };
                let (dim, metric, total) = (view.dimension(), view.metric(), view.rows.total());
                rvf_index::build(&view.rows, dim, live, metric, covered, total, &params, progress)
                    .map_err(index_error)?
            }
        };
        view.check_intact()?;
        BuiltIndex::new(bytes).map(Some)
    }

    /// Answers from this index as long as it fits the file, and keeps it in memory only.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the vectors it was built from were rewritten meanwhile; as [`Store::refresh`].
    pub fn use_index(&self, built: &BuiltIndex) -> Result<ReindexReport, Error> {
        if !built.fits(&self.view()) {
            return Err(rewritten());
        }
        *self.transient.lock() = Some(built.clone());
        let published = self.publish()?;
        Ok(self.report(built, &published, "memory"))
    }

    /// Stores this index in the file, in one commit that waits for other writers as every commit does.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the vectors it was built from were rewritten meanwhile; otherwise as
    /// [`Store::ingest`].
    pub fn store_index(&self, built: &BuiltIndex) -> Result<ReindexReport, Error> {
        // Before the lock is taken: it takes a while, and depends only on rows that the index covers.
        let view = self.view();
        if !built.fits(&view) {
            return Err(rewritten());
        }
        // A graph over a child's own rows only is none that the existing tools make, so they are not given one.
        let reference = match view.parent {
            None => reference_payload(&view, &built.image)?,
            Some(_) => None,
        };
        let ((), published) = self.append(|commit, _| {
            let view = Arc::clone(&commit.view);
            if !built.fits(&view) {
                return Err(rewritten());
            }
            commit.append(SegType::INDEX, &[&built.bytes])?;
            // The reference trusts its graph to hold the current vector of every id in it, so it is
            // written only while nothing has been overwritten since.
            let mut later = built.image.covered_rows()..view.rows.total();
            let unchanged = later.all(|o| built.image.find_id(view.rows.id(o)).is_none());
            if unchanged && let Some(payload) = &reference {
                commit.append(SegType::INDEX, &[payload])?;
            }
            if let Some(payload) = filters::encode(&view) {
                commit.append(SegType::META_IDX, &[&payload])?;
            }
            let old = std::mem::take(&mut commit.base.directory);
            let superseded = |offset: u64| {
                let segment = view.opened.layout.segment_at_offset(offset);
                segment.is_some_and(|s| s.kind() == SegType::INDEX || filters::is_ours(s, view.bytes()))
            };
            commit.base.directory = old.into_iter().filter(|e| !superseded(e.offset)).collect();
            let manifest = commit.manifest();
            commit.finish(&manifest)
        })?;
        *self.transient.lock() = None;
        Ok(self.report(built, &published, "file"))
    }

    /// The index that is kept in memory only, if there is one.
    #[must_use]
    pub fn kept_index(&self) -> Option<BuiltIndex> {
        self.transient.lock().clone()
    }

    /// Fails at once when a commit would have to wait for another program's lock. The answer may be out of date
    /// before it is used.
    ///
    /// # Errors
    /// [`Error::Locked`]; [`Error::ReadOnly`]; [`Error::Io`] when the file cannot be opened for writing.
    pub fn check_lock(&self) -> Result<(), Error> {
        if self.access() == Access::ReadOnly {
            return Err(Error::ReadOnly { path: self.path().to_path_buf() });
        }
        // Not while a commit of our own holds it.
        let _own = self.commit.lock();
        let (file, _) = open_regular(self.path(), true)?;
        WriteLock::acquire(self.path(), &file, Duration::ZERO).map(drop).map_err(|e| match e {
            LockError::Io { source, .. } => Error::io(self.path(), "lock", source),
            held => Error::Locked { path: self.path().to_path_buf(), holder: held.to_string() },
        })
    }

    fn report(&self, built: &BuiltIndex, published: &View, place: &str) -> ReindexReport {
        let (indexed, bytes, epoch) = (built.indexed(), built.len_bytes(), published.epoch());
        self.notify(&Event {
            kind: "reindex",
            epoch,
            detail: vec![
                ("indexed".into(), indexed.to_string()),
                ("bytes".into(), bytes.to_string()),
                ("place".into(), place.into()),
            ],
        });
        ReindexReport { indexed, bytes, epoch }
    }
}

fn rewritten() -> Error {
    Error::Invalid {
        what: "the vectors were rewritten while the index was being built; run reindex again".into(),
    }
}

fn index_error(error: rvf_index::IndexError) -> Error {
    match error {
        rvf_index::IndexError::Cancelled => Error::Cancelled,
        other => Error::Invalid { what: other.to_string() },
    }
}

/// The reference's form of the graph in an image, or `None` when it would be larger than the
/// existing tools load.
fn reference_payload(view: &View, image: &Image) -> Result<Option<Vec<u8>>, Error> {
    let graph = image.export_graph();
    let mut seg = IndexSeg {
        m: graph.m,
        m0: graph.m0,
        ef_construction: graph.ef_construction,
        max_layer: graph.layers.len().saturating_sub(1) as u32,
        entry: graph.entry,
        ids: graph.ordinals.iter().map(|o| view.id(*o)).collect(),
        adjacency: Adjacency::default(),
    };
    for node in 0..graph.ordinals.len() {
        let layers = graph.layer_counts.get(node).map_or(0, |c| usize::from(*c));
        let lists: Vec<&[u32]> = graph.layers.iter().take(layers).map(|l| neighbours(l, node)).collect();
        seg.adjacency.push(&lists).map_err(crate::write::format_error)?;
    }
    let payload = index_seg::encode(&seg).map_err(crate::write::format_error)?;
    Ok((payload.len() <= REFERENCE_SEGMENT_BYTES).then_some(payload))
}

fn neighbours(layer: &Csr, node: usize) -> &[u32] {
    match (layer.offsets.get(node), layer.offsets.get(node + 1)) {
        (Some(from), Some(to)) => layer.links.get(*from as usize..*to as usize).unwrap_or(&[]),
        _ => &[],
    }
}

/// A search image made from the graph that another tool stored, if it covers all live vectors.
fn adopted(view: &View, covered: [u8; 32]) -> Option<Vec<u8>> {
    let segment = view.contents.index_segment.as_ref()?;
    if segment.verify(view.bytes()) != rvf_format::ChecksumState::Ok {
        return None;
    }
    let seg = index_seg::decode(segment.payload_of(view.bytes())).ok()?;
    let mut ordinals = Vec::with_capacity(seg.ids.len());
    for id in &seg.ids {
        // An id that is gone would leave holes in the graph; build anew then.
        ordinals.push(view.find(*id)?);
    }
    let live = view.live_ordinals();
    if ordinals.len() != live.len() {
        return None;
    }
    let nodes = ordinals.len() as u32;
    let layer_counts: Vec<u8> =
        (0..nodes).map(|n| u8::try_from(seg.adjacency.layers(n)).unwrap_or(u8::MAX)).collect();
    let count = layer_counts.iter().copied().max().unwrap_or(0);
    let mut layers = Vec::with_capacity(usize::from(count));
    for layer in 0..usize::from(count) {
        let mut csr = Csr { offsets: vec![0], links: Vec::new() };
        for node in 0..nodes {
            csr.links.extend_from_slice(seg.adjacency.neighbours(node, layer));
            csr.offsets.push(csr.links.len() as u32);
        }
        layers.push(csr);
    }
    let graph = ReferenceGraph {
        m: seg.m,
        m0: seg.m0,
        ef_construction: seg.ef_construction,
        ordinals,
        layer_counts,
        layers,
        entry: seg.entry,
    };
    let (dim, metric, total) = (view.dimension(), view.metric(), view.rows.total());
    rvf_index::from_graph(&view.rows, dim, live, metric, covered, total, &graph).ok()
}

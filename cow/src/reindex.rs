//! Building the search index and storing it, in our form and in the reference's.

use std::sync::Arc;

use rvf_format::SegType;
use rvf_format::index_seg::{self, Adjacency, IndexSeg};
use rvf_index::{BuildParams, Csr, Image, Progress, ReferenceGraph};

use crate::coverage;
use crate::error::Error;
use crate::filters;
use crate::store::Store;
use crate::types::{Event, ReindexOptions, ReindexReport};
use crate::view::View;

/// Largest segment that the existing tools load.
const REFERENCE_SEGMENT_BYTES: usize = 256 << 20;

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
        self.refresh()?;
        self.verify_vectors()?;
        let view = self.view();
        let live = view.live_ordinals();
        if live.is_empty() {
            return Ok(ReindexReport { indexed: 0, bytes: 0, epoch: view.epoch() });
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
        let indexed = live.len() as u64;
        let len = bytes.len() as u64;
        let published = if options.persist {
            self.store_index(&view, &bytes)?
        } else {
            *self.transient.lock() = Some(Arc::new(Image::open(bytes).map_err(index_error)?));
            self.publish()?
        };
        let epoch = published.epoch();
        self.notify(&Event {
            kind: "reindex",
            epoch,
            detail: vec![("indexed".into(), indexed.to_string()), ("bytes".into(), len.to_string())],
        });
        Ok(ReindexReport { indexed, bytes: len, epoch })
    }

    fn store_index(&self, built_from: &View, bytes: &[u8]) -> Result<Arc<View>, Error> {
        let ((), published) = self.append(|commit, _| {
            let prefix = commit.view.blocks.get(..built_from.blocks.len());
            if prefix.is_none_or(|p| coverage::digest(p) != coverage::digest(&built_from.blocks)) {
                return Err(Error::Invalid {
                    what: "the vectors were rewritten while the index was being built; run reindex again"
                        .into(),
                });
            }
            commit.append(SegType::INDEX, &[bytes])?;
            // The reference trusts its graph to hold the current vector of every id in it, so it is
            // written only while nothing has been overwritten since.
            let unchanged =
                commit.view.live_state().tail().iter().all(|(id, _)| built_from.find(*id).is_none())
                    || commit.view.generation() == built_from.generation();
            if unchanged && let Some(payload) = reference_payload(built_from, bytes)? {
                commit.append(SegType::INDEX, &[&payload])?;
            }
            let view = Arc::clone(&commit.view);
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
        Ok(published)
    }

    /// Makes sure that an index covers most of the store: builds one (or converts the reference's)
    /// when there is none, or when more than a fifth of the vectors came after it. `None` when
    /// nothing had to be done. Read-only stores keep it in memory.
    ///
    /// # Errors
    /// As [`Store::reindex`].
    pub fn ensure_index(&self, progress: &dyn Progress) -> Result<Option<ReindexReport>, Error> {
        let state = self.view().index_state();
        if state.layer == "small" || state.indexed * 5 >= state.total * 4 {
            return Ok(None);
        }
        let persist =
            self.access() == crate::types::Access::ReadWrite && crate::write::writable(&self.view()).is_ok();
        let options = ReindexOptions { persist, adopt: true, ..ReindexOptions::default() };
        self.reindex(&options, progress).map(Some)
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
fn reference_payload(view: &View, image: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    let image = Image::open(image.to_vec()).map_err(index_error)?;
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

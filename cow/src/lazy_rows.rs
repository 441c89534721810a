//! Rows that a file does not hold as rows: changes of inherited ones (DELTA), and columns, rounded vectors among them.
//!
//! Their ids are there at once. Their vectors are put together some hundred at a time when one of them is first read, and kept; a later
//! view of the same file takes them over. A store that is never searched row by row never pays for more than what is read of it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use rvf_format::FileBytes;
use rvf_format::columns::Columns;
use rvf_format::contents::{Rows, VecBlock};
use rvf_format::delta::Delta;
use rvf_format::vec_seg::row_stride;

use crate::load::{BlockKey, segment_key};
use crate::view::View;

/// Rows that are put together at once: enough to pay for the look at the parent, and little to keep when only one is wanted.
const PIECE_ROWS: usize = 128;

/// The rows of one segment.
#[derive(Debug)]
pub(crate) struct LazyRows {
    source: Source,
    stride: usize,
    /// Rows, put together when one of them was first read.
    pieces: Box<[OnceLock<Arc<[u8]>>]>,
}

/// What they are put together from.
#[derive(Debug)]
enum Source {
    /// One DELTA over one state of the parent.
    Changes { parent: Arc<View>, delta: Arc<Delta> },
    /// Columns of the file itself.
    Columns { bytes: FileBytes, columns: Arc<Columns> },
}

impl LazyRows {
    /// Fails with an id that the parent does not show. O(n log n), vectors are not looked at.
    pub(crate) fn of_changes(parent: &Arc<View>, delta: &Arc<Delta>) -> Result<Self, u64> {
        let above = parent.resolved();
        if let Some(missing) = delta.ids.iter().find(|id| above.find(**id).is_none()) {
            return Err(*missing);
        }
        let (parent, delta) = (Arc::clone(parent), Arc::clone(delta));
        Ok(Self::new(row_stride(delta.dim), delta.ids.len(), Source::Changes { parent, delta }))
    }

    pub(crate) fn of_columns(bytes: FileBytes, columns: &Arc<Columns>) -> Self {
        let columns = Arc::clone(columns);
        Self::new(row_stride(columns.dim()), columns.ids().len(), Source::Columns { bytes, columns })
    }

    fn new(stride: usize, rows: usize, source: Source) -> Self {
        let pieces = (0..rows.div_ceil(PIECE_ROWS)).map(|_| OnceLock::new()).collect();
        Self { source, stride, pieces }
    }

    /// The state of the parent whose rows these change.
    pub(crate) fn parent(&self) -> Option<&Arc<View>> {
        match &self.source {
            Source::Changes { parent, .. } => Some(parent),
            Source::Columns { .. } => None,
        }
    }

    fn ids(&self) -> &[u64] {
        match &self.source {
            Source::Changes { delta, .. } => &delta.ids,
            Source::Columns { columns, .. } => columns.ids(),
        }
    }

    /// The id of a row; 0 past the end.
    pub(crate) fn id(&self, row: usize) -> u64 {
        self.ids().get(row).copied().unwrap_or(0)
    }

    /// The vector of a row; empty past the end.
    pub(crate) fn vector(&self, row: usize) -> &[u8] {
        self.records(row, 1).get(8..).unwrap_or(&[])
    }

    /// Ids and vectors of rows from this one on, side by side: as many as were put together with it, `most` at the most.
    pub(crate) fn records(&self, row: usize, most: usize) -> &[u8] {
        let Some(piece) = self.pieces.get(row / PIECE_ROWS) else { return &[] };
        let records = piece.get_or_init(|| self.put_together(row / PIECE_ROWS * PIECE_ROWS));
        let from = row % PIECE_ROWS * self.stride;
        records.get(from..records.len().min(from + most * self.stride)).unwrap_or(&[])
    }

    fn put_together(&self, first: usize) -> Arc<[u8]> {
        let until = self.ids().len().min(first + PIECE_ROWS);
        let mut records = Vec::with_capacity(self.stride * (until - first));
        match &self.source {
            Source::Changes { parent, delta } => {
                let above = parent.resolved();
                for (at, id) in delta.ids.iter().enumerate().take(until).skip(first) {
                    if let Some(place) = above.find(*id) {
                        records.extend_from_slice(&id.to_le_bytes());
                        delta.apply(at, above.vector(place), &mut records);
                    }
                }
            }
            Source::Columns { bytes, columns } => columns.put_rows(bytes, first..until, &mut records),
        }
        records.into()
    }

    /// Takes over what was put together of the same columns, unless the file was cut while that was done.
    fn with_pieces_of(&self, before: &Self) -> Option<Self> {
        let (Source::Columns { bytes, columns }, Source::Columns { bytes: old, columns: then }) =
            (&self.source, &before.source)
        else {
            return None;
        };
        if !columns.means_the_same(then) {
            return None;
        }
        let next = Self::of_columns(bytes.clone(), columns);
        for (piece, known) in next.pieces.iter().zip(&before.pieces) {
            if let Some(records) = known.get() {
                piece.get_or_init(|| Arc::clone(records));
            }
        }
        (!old.is_poisoned()).then_some(next)
    }
}

impl View {
    /// Takes what `before`, an older view of the same file, has put together of columns that both have.
    pub(crate) fn inherit_columns(&mut self, before: &View) {
        if (before.stamp.dev, before.stamp.ino) != (self.stamp.dev, self.stamp.ino) {
            return;
        }
        let columns = |block: &VecBlock| matches!(block.rows, Rows::Columns(_));
        if !self.blocks.iter().any(columns) {
            return;
        }
        let known = before.blocks.iter().enumerate().filter(|(_, block)| columns(block));
        let known: HashMap<BlockKey, usize> =
            known.map(|(at, block)| (segment_key(&block.segment), at)).collect();
        for (index, block) in self.blocks.iter().enumerate() {
            let old = known.get(&segment_key(&block.segment)).and_then(|at| before.rows.lazy(*at));
            let taken = self.rows.lazy(index).zip(old).and_then(|(own, old)| own.with_pieces_of(old));
            if let Some(rows) = taken {
                self.rows.put_lazy(index, Arc::new(rows));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BadRow, Batch, CreateOptions, Derive, Metric, NoProgress, OpenOptions, Precision, Store};

    /// How many pieces of a view's columns were put together, of how many.
    fn made(view: &View) -> (usize, usize) {
        let pieces = |rows: &Arc<LazyRows>| {
            (rows.pieces.iter().filter(|piece| piece.get().is_some()).count(), rows.pieces.len())
        };
        let all = (0..view.blocks.len()).filter_map(|index| view.rows.lazy(index)).map(pieces);
        all.fold((0, 0), |sum, next| (sum.0 + next.0, sum.1 + next.1))
    }

    #[test]
    fn rounded_vectors_are_put_together_when_they_are_read_and_kept_by_later_views() {
        let dir = tempfile::tempdir().expect("a directory");
        let options = CreateOptions { dimension: 4, metric: Metric::L2, profile: 0 };
        let store = Store::create(&dir.path().join("p.rvf"), &options).expect("a store");
        let batch = |ids: std::ops::Range<u64>| Batch {
            dimension: 4,
            vectors: ids.clone().flat_map(|id| [id as f32, 1.0, 0.5, -2.0]).collect(),
            ids: Some(ids.collect()),
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch(0..2000), &NoProgress).expect("rows");
        let path = dir.path().join("q.rvf");
        store.derive(&path, "", &Derive::Quantize(Precision::F16), &NoProgress).expect("a rounded store");
        let rounded = Store::open(&path, &OpenOptions::default()).expect("opened");
        let view = rounded.view();
        let ids: Vec<u64> = (0..view.rows.total()).map(|ordinal| view.id(ordinal)).collect();
        assert_eq!(ids, (0..2000).collect::<Vec<_>>());
        let all = 2000_usize.div_ceil(PIECE_ROWS);
        assert_eq!(made(&view), (0, all));
        let vector = |view: &View, ordinal: u32| -> Vec<f32> {
            view.vector(ordinal).as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
        };
        assert_eq!(vector(&view, 1000), [1000.0, 1.0, 0.5, -2.0]);
        assert_eq!(vector(&view, 1001), [1001.0, 1.0, 0.5, -2.0]);
        assert_eq!(made(&view), (1, all));
        // A commit does not put them together again, nor any others.
        rounded.ingest(&batch(5000..5001), &NoProgress).expect("one more");
        let next = rounded.view();
        assert_eq!(made(&next), (1, all));
        for ordinal in 0..2000 {
            assert_eq!(vector(&next, ordinal), [ordinal as f32, 1.0, 0.5, -2.0]);
        }
        assert_eq!(made(&next), (all, all));
        assert_eq!(made(&view), (1, all), "an older view reads for itself");
    }
}

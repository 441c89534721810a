//! Codes of rows that no search image has, kept in memory by the views that search them.
//!
//! A view makes them when it is searched, and hands them to the view that follows it: most of its rows are the same then.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rvf_format::contents::VecBlock;
use rvf_index::CodedRows;

use crate::load::segment_key;
use crate::view::View;

/// Codes of more bytes are not made: rows are read in full then, until an index is there.
const AT_MOST: usize = 32 << 20;
/// The same for codes of rows that an image has, too few for a walk to pay.
const BESIDE_IMAGE: usize = 8 << 20;
/// So many rows are coded by the first search, which that delays by a millisecond at most.
const AT_ONCE: usize = 4096;
/// Searches that read more rows than that in full before they are coded. Coding costs about as much as one of these, which
/// a program that asks once need not pay.
const PATIENCE: u32 = 1;

/// Codes of some rows of a view, once there are any.
#[derive(Debug, Default)]
struct Lazy {
    made: OnceLock<Arc<CodedRows>>,
    asked: AtomicU32,
}

/// What one view has.
#[derive(Debug, Default)]
pub(crate) struct Codes {
    /// Rows that the image does not cover; all when there is none.
    tail: Lazy,
    /// All rows, beside an image.
    all: Lazy,
    /// Those of the view before, and how many rows from the first are the same.
    before: Mutex<Option<(Arc<CodedRows>, u32)>>,
}

impl Lazy {
    fn get(
        &self,
        view: &View,
        count: usize,
        at_most: usize,
        rows: impl FnOnce() -> Vec<u32>,
    ) -> Option<&CodedRows> {
        if let Some(made) = self.made.get() {
            return Some(made);
        }
        if count == 0 || CodedRows::bytes_of(count, view.dimension()) > at_most {
            return None;
        }
        if count > AT_ONCE && self.asked.fetch_add(1, Ordering::Relaxed) < PATIENCE {
            return None;
        }
        Some(self.made.get_or_init(|| {
            let before = view.codes.before.lock().take();
            let before = before.as_ref().map(|(codes, same)| (&**codes, *same));
            Arc::new(CodedRows::new(view.metric, view.dimension(), &view.rows, rows(), before))
        }))
    }
}

impl View {
    /// Codes of the live rows that the image does not cover, of all live rows when there is none. `None` while they are
    /// not worth it, or too many.
    pub(crate) fn coded_tail(&self) -> Option<&CodedRows> {
        let live = self.live_state();
        self.codes.tail.get(self, live.tail().len(), AT_MOST, || {
            let mut rows: Vec<u32> = live.tail().iter().map(|(_, ordinal)| *ordinal).collect();
            rows.sort_unstable();
            rows
        })
    }

    /// Codes of all live rows, on the same terms.
    pub(crate) fn coded_rows(&self) -> Option<&CodedRows> {
        let live = self.live_state();
        if live.image().is_none() {
            return self.coded_tail();
        }
        let count = usize::try_from(live.count()).unwrap_or(usize::MAX);
        self.codes.all.get(self, count, BESIDE_IMAGE, || live.ordinals().to_vec())
    }

    /// Takes what `before`, an older view of the same file, has of this.
    pub(crate) fn inherit_codes(&self, before: &View) {
        let same_file = (before.stamp.dev, before.stamp.ino) == (self.stamp.dev, self.stamp.ino);
        if !same_file || before.dimension() != self.dimension() || before.metric != self.metric {
            return;
        }
        let pairs = before.blocks.iter().zip(&self.blocks).enumerate();
        let blocks =
            pairs.take_while(|(at, (a, b))| is_same(a, b) && same_changes(before, self, *at)).count();
        let same = blocks.checked_sub(1).and_then(|last| self.rows.block_ordinals(last)).map_or(0, |r| r.end);
        let codes = before.codes.tail.made.get().map(|made| (Arc::clone(made), same));
        // A view that nobody searched passes on what it was given.
        let codes = codes.or_else(|| {
            before.codes.before.lock().as_ref().map(|(codes, rows)| (Arc::clone(codes), same.min(*rows)))
        });
        *self.codes.before.lock() = codes.filter(|(_, same)| *same > 0);
    }
}

/// Whether two views have the same bytes in a block.
fn is_same(a: &VecBlock, b: &VecBlock) -> bool {
    segment_key(&a.segment) == segment_key(&b.segment) && a.count == b.count
}

/// Whether they have the same rows there: those put together from an ancestor's are the same only where they were taken over.
fn same_changes(before: &View, view: &View, block: usize) -> bool {
    match (before.rows.changed(block), view.rows.changed(block)) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        (None, None) => true,
        _ => false,
    }
}

//! Which rows count: the newest row of each id that is not deleted and not in a damaged segment.
//!
//! Rows that a search image covers are described by the image's own id table, so that opening a
//! store costs nothing in the number of covered rows. Rows after them (the *tail*) are indexed here.

use std::sync::{Arc, OnceLock};

use rvf_format::id_directory::IdDirectory;
use rvf_index::{Bitmap, Image};

use crate::rows::RowTable;

/// Liveness of every row ordinal of one view.
#[derive(Debug)]
pub(crate) struct Live {
    image: Option<Arc<Image>>,
    /// Rows below this ordinal are described by the image.
    covered: u32,
    /// `(id, newest ordinal)` of the tail, ascending by id; dead ids are not in it.
    tail: Vec<(u64, u32)>,
    directory: IdDirectory,
    /// Covered rows that died after the image was made.
    denied: Bitmap,
    denied_count: u64,
    ordinals: OnceLock<Vec<u32>>,
}

impl Live {
    /// Works out liveness. `deleted` is ascending; `damaged` holds the rows of segments that fail
    /// their checksum. Cost: O(t log t + d log n) for t tail rows and d deleted ids.
    pub(crate) fn new(
        rows: &RowTable,
        image: Option<Arc<Image>>,
        deleted: &[u64],
        damaged: &[std::ops::Range<u32>],
    ) -> Self {
        let total = rows.total();
        let covered = image.as_ref().map_or(0, |i| i.covered_rows().min(total));
        let mut denied = Bitmap::new(covered);
        let is_damaged = |ordinal: u32| damaged.iter().any(|r| r.contains(&ordinal));

        let mut tail: Vec<(u64, u32)> =
            (covered..total).filter(|o| !is_damaged(*o)).map(|o| (rows.id(o), o)).collect();
        tail.sort_unstable();
        // The last of equal ids has the highest ordinal: the newest row.
        tail.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = later.1;
            }
            same
        });

        let mut denied_count = 0;
        if let Some(image) = &image {
            let mut deny = |ordinal: u32| {
                if ordinal < covered && !denied.get(ordinal) {
                    denied.set(ordinal);
                    denied_count += 1;
                }
            };
            for (id, _) in &tail {
                if let Some(ordinal) = image.find_id(*id) {
                    deny(ordinal);
                }
            }
            for id in deleted {
                if let Some(ordinal) = image.find_id(*id) {
                    deny(ordinal);
                }
            }
            if !damaged.is_empty() {
                // The ids in damaged rows say nothing, so the image is asked for its rows.
                let nodes = (0..image.nodes()).filter_map(|node| image.ordinal_of_node(node));
                nodes.filter(|ordinal| is_damaged(*ordinal)).for_each(&mut deny);
            }
        }
        tail.retain(|(id, _)| deleted.binary_search(id).is_err());
        let directory = IdDirectory::new(tail.iter().map(|(id, _)| *id));
        Self { image, covered, tail, directory, denied, denied_count, ordinals: OnceLock::new() }
    }

    /// Live vectors.
    pub(crate) fn count(&self) -> u64 {
        self.indexed() + self.tail.len() as u64
    }

    /// Live vectors reachable through the image.
    pub(crate) fn indexed(&self) -> u64 {
        self.image.as_ref().map_or(0, |i| u64::from(i.nodes()).saturating_sub(self.denied_count))
    }

    /// The live tail rows, by ascending id.
    pub(crate) fn tail(&self) -> &[(u64, u32)] {
        &self.tail
    }

    /// Covered rows that died since the image was made, or `None` when there are none.
    pub(crate) fn denied(&self) -> Option<&Bitmap> {
        (self.denied_count > 0).then_some(&self.denied)
    }

    /// How many rows those are.
    pub(crate) fn denied_count(&self) -> u64 {
        self.denied_count
    }

    /// The image, when there is one.
    pub(crate) fn image(&self) -> Option<&Arc<Image>> {
        self.image.as_ref()
    }

    /// The live row of an id. O(log n), less where ids are spread evenly.
    pub(crate) fn find(&self, id: u64, rows: &RowTable) -> Option<u32> {
        let near = self.tail.get(self.directory.places(id)).unwrap_or(&[]);
        let found = match near {
            [] => None,
            [only] => (only.0 == id).then_some(only.1),
            many => {
                many.binary_search_by_key(&id, |(id, _)| *id).ok().and_then(|at| many.get(at)).map(|f| f.1)
            }
        };
        if found.is_some() {
            return found;
        }
        self.image.as_ref()?.find_row(id, |ordinal| self.counts(ordinal) && rows.id(ordinal) == id)
    }

    /// Whether a covered row of the image has not died since.
    #[inline]
    fn counts(&self, ordinal: u32) -> bool {
        ordinal < self.covered && !(self.denied_count > 0 && self.denied.get(ordinal))
    }

    /// The live covered row of an id among those that `shows` lets through, where finding it takes no search. A newer row of
    /// the same id would deny it, so nothing else needs to be asked.
    #[inline]
    pub(crate) fn find_at_once(&self, id: u64, rows: &RowTable, shows: impl Fn(u32) -> bool) -> Option<u32> {
        let is = |ordinal| shows(ordinal) && self.counts(ordinal) && rows.id(ordinal) == id;
        self.image.as_ref()?.find_row_at_once(id, is)
    }

    /// Whether the list of live ordinals is there.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordinals.get().is_some()
    }

    /// Live ordinals in file order. O(n) on first use, then kept.
    pub(crate) fn ordinals(&self) -> &[u32] {
        self.ordinals.get_or_init(|| {
            let mut all = Vec::with_capacity(usize::try_from(self.count()).unwrap_or(0));
            if let Some(image) = &self.image {
                all.extend(
                    (0..image.nodes())
                        .filter_map(|node| image.ordinal_of_node(node))
                        .filter(|o| *o < self.covered && !self.denied.get(*o)),
                );
                all.sort_unstable();
                all.dedup();
            }
            let covered = all.len();
            all.extend(self.tail.iter().map(|(_, o)| *o));
            if let Some(tail) = all.get_mut(covered..) {
                tail.sort_unstable();
            }
            all
        })
    }
}

//! How often vectors are found by queries, and which are found most often.
//!
//! Every answer counts its hits in a table in memory: four plain additions a hit, no lock, no allocation after the
//! first. Where two threads add to one counter at once, one of them may be lost: these are statistics. Nothing is written by queries or by reading. [`Store::save_accesses`] adds the table to the SKETCH segment of the
//! file and writes the vectors with the highest counts as a HOT segment, in one commit; [`View::hottest`] reads them.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rvf_format::hot::{Hot, HotEntry};
use rvf_format::sketch::{self, Sketch};
use rvf_format::{ChecksumState, SegType, Segment};

use crate::error::Error;
use crate::store::Store;
use crate::types::{Answer, Event};
use crate::view::View;
use crate::write::WITNESS_CHANGE;

/// Vectors in a HOT segment, at most.
pub const HOT_VECTORS: usize = 256;

/// Counters of a row. With four rows a vector that was found once a thousand hits is told from one that never was.
const WIDTH: u32 = 1 << 14;

/// Rows.
const DEPTH: u32 = 4;

const COUNTERS: usize = (WIDTH * DEPTH) as usize;

/// The places of an id in the table.
fn places(id: u64) -> impl Iterator<Item = usize> {
    (0..DEPTH as usize).map(move |row| row * WIDTH as usize + sketch::column(id, row, WIDTH))
}

/// Counts since they were last saved.
#[derive(Debug, Default)]
pub(crate) struct Accesses {
    /// Made by the first answer: a store that nobody queries costs nothing.
    counters: OnceLock<Box<[AtomicU32]>>,
    total: AtomicU64,
}

impl Accesses {
    fn table(&self) -> &[AtomicU32] {
        self.counters.get_or_init(|| (0..COUNTERS).map(|_| AtomicU32::new(0)).collect())
    }

    /// Counts the hits of answers. O(hits).
    pub(crate) fn count(&self, answers: &[Answer]) {
        self.count_ids(answers.iter().flat_map(|answer| &answer.hits).map(|hit| hit.id));
    }

    fn count_ids(&self, ids: impl Iterator<Item = u64>) {
        let table = self.table();
        let mut counted = 0;
        for id in ids {
            for place in places(id) {
                if let Some(counter) = table.get(place) {
                    // An atomic addition would cost several times as much, on the way of every query.
                    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
                }
            }
            counted += 1;
        }
        self.total.fetch_add(counted, Ordering::Relaxed);
    }

    /// Takes what was counted out of the table. What is counted meanwhile is in this or in the next.
    fn take(&self) -> Option<Counted> {
        let total = self.total.swap(0, Ordering::Relaxed);
        if total == 0 {
            return None;
        }
        let counters = self.table().iter().map(|counter| counter.swap(0, Ordering::Relaxed)).collect();
        Some(Counted { counters, total })
    }

    /// Puts back what could not be saved.
    fn give_back(&self, counted: &Counted) {
        for (counter, count) in self.table().iter().zip(&counted.counters) {
            counter.fetch_add(*count, Ordering::Relaxed);
        }
        self.total.fetch_add(counted.total, Ordering::Relaxed);
    }
}

/// What was counted.
#[derive(Debug)]
struct Counted {
    counters: Vec<u32>,
    total: u64,
}

impl Counted {
    /// Adds it to what a file has. Counters are bytes: all are halved, half ones rounded up, until the largest fits.
    fn onto(&self, before: Option<&Sketch>, ids: impl Iterator<Item = u64>) -> Sketch {
        let mut sums: Vec<u64> = self.counters.iter().map(|count| u64::from(*count)).collect();
        let mut add = |place: usize, count: u8| {
            if let Some(sum) = sums.get_mut(place) {
                *sum += u64::from(count);
            }
        };
        match before {
            Some(old) if (old.width, old.depth) == (WIDTH, DEPTH) => {
                old.counters.iter().enumerate().for_each(|(place, count)| add(place, *count));
            }
            // Of a table of another shape, what it says of the vectors there are.
            Some(old) => {
                for (id, count) in ids.map(|id| (id, old.estimate(id))).filter(|(_, count)| *count > 0) {
                    places(id).for_each(|place| add(place, count));
                }
            }
            None => {}
        }
        let largest = sums.iter().copied().max().unwrap_or(0);
        let halvings = (0..64).find(|shift| largest.div_ceil(1 << shift) <= 255).unwrap_or(63);
        Sketch {
            width: WIDTH,
            depth: DEPTH,
            total_accesses: before.map_or(0, |old| old.total_accesses).saturating_add(self.total),
            counters: sums
                .iter()
                .map(|sum| u8::try_from(sum.div_ceil(1 << halvings)).unwrap_or(255))
                .collect(),
        }
    }
}

/// What saving the counts led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessReport {
    /// Hits that were counted since the last time.
    pub counted: u64,
    /// Hits that the file knows of now.
    pub total: u64,
    /// Vectors in the HOT segment.
    pub hot: usize,
    /// Epoch of the commit.
    pub epoch: u32,
}

/// Vectors to keep near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hottest {
    /// Ids that the store shows, each once, the hottest first.
    pub ids: Vec<u64>,
    /// How many of them were found by queries; the others only come first in the file.
    pub counted: usize,
}

impl View {
    /// The newest listed segment of a type whose bytes are not known to be wrong.
    fn newest(&self, kind: SegType) -> Option<&Segment> {
        let manifest = &self.opened.manifest.as_ref()?.manifest;
        let listed = manifest.entries_of(kind).next_back()?;
        let segment = self.opened.layout.segment_at_offset(listed.offset)?;
        (segment.verify(self.bytes()) != ChecksumState::Bad).then_some(segment)
    }

    /// The access counts that the file has; of a branch without any, those of the nearest ancestor that has some.
    #[must_use]
    pub fn sketch(&self) -> Option<Sketch> {
        let own = self.newest(SegType::SKETCH).map(|segment| segment.payload_of(self.bytes()));
        let own = own.and_then(|payload| Sketch::parse(payload).ok());
        own.or_else(|| self.parent_view().and_then(|parent| parent.sketch()))
    }

    /// The hot set that the file has, hottest first; of a branch without one, that of the nearest ancestor that has one.
    fn hot_ids(&self) -> Option<Vec<u64>> {
        let own = self.newest(SegType::HOT).map(|segment| segment.payload_of(self.bytes()));
        let own = own.and_then(|payload| Hot::parse(payload).ok());
        let own = own.map(|hot| hot.entries.iter().map(|entry| entry.id).collect());
        own.or_else(|| self.parent_view().and_then(|parent| parent.hot_ids()))
    }

    /// The `most` hottest vectors that the store shows: those of the HOT segment first, then by the counts of the SKETCH
    /// segment, then in file order. O(n) unless the HOT segment has enough.
    #[must_use]
    pub fn hottest(&self, most: usize) -> Hottest {
        let shown = self.resolved();
        let mut seen = HashSet::new();
        let mut ids = Vec::new();
        for id in self.hot_ids().unwrap_or_default() {
            if ids.len() < most && shown.find(id).is_some() && seen.insert(id) {
                ids.push(id);
            }
        }
        if let Some(sketch) = self.sketch().filter(|_| ids.len() < most) {
            let more = self.ranked(&sketch, most).into_iter().filter(|id| seen.insert(*id));
            ids.extend(more.take(most - ids.len()));
        }
        let counted = ids.len();
        let rest = (0..shown.count()).filter_map(|at| shown.at(at)).map(|place| shown.id(place));
        ids.extend(rest.filter(|id| seen.insert(*id)).take(most - counted));
        Hottest { ids, counted }
    }

    /// The ids with the highest counts, equal ones by id; those that were never counted are left out.
    fn ranked(&self, sketch: &Sketch, most: usize) -> Vec<u64> {
        let shown = self.resolved();
        let ids = (0..shown.count()).filter_map(|at| shown.at(at)).map(|place| shown.id(place));
        let mut all: Vec<(u8, u64)> =
            ids.map(|id| (sketch.estimate(id), id)).filter(|(count, _)| *count > 0).collect();
        let order = |a: &(u8, u64), b: &(u8, u64)| b.0.cmp(&a.0).then(a.1.cmp(&b.1));
        if let Some(last) = most.checked_sub(1).filter(|last| *last < all.len()) {
            all.select_nth_unstable_by(last, order);
            all.truncate(most);
        }
        all.sort_unstable_by(order);
        all.truncate(most);
        all.into_iter().map(|(_, id)| id).collect()
    }
}

impl Store {
    /// Counts these vectors as found once more, as the hits of a query are.
    pub fn count_accesses(&self, ids: &[u64]) {
        self.accesses.count_ids(ids.iter().copied());
    }

    /// Adds what was counted since the last time to the file's SKETCH segment, and writes the `hot` vectors that were found most
    /// often as its HOT segment, in one commit that replaces both. `None`, and no commit, when nothing was counted.
    ///
    /// # Errors
    /// As [`Store::ingest`]. What was counted is kept then.
    pub fn save_accesses(&self, hot: usize) -> Result<Option<AccessReport>, Error> {
        let Some(counted) = self.accesses.take() else { return Ok(None) };
        let written = self.append(|commit, _| {
            let view = std::sync::Arc::clone(&commit.view);
            let shown = view.resolved();
            let ids = (0..shown.count()).filter_map(|at| shown.at(at)).map(|place| shown.id(place));
            let sketch = counted.onto(view.sketch().as_ref(), ids);
            let entries: Vec<HotEntry> = view
                .ranked(&sketch, hot)
                .into_iter()
                .filter_map(|id| {
                    let data = shown.vector(shown.find(id)?).to_vec();
                    Some(HotEntry { id, data, neighbours: Vec::new() })
                })
                .collect();
            view.check_intact()?;
            let set = Hot {
                dim: u16::try_from(view.dimension()).unwrap_or(u16::MAX),
                dtype: 0,
                neighbour_m: 0,
                entries,
            };
            let new = [
                commit.append(SegType::SKETCH, &[&sketch.encode()])?.offset,
                commit.append(SegType::HOT, &[&set.encode()])?.offset,
            ];
            let epoch = commit.epoch();
            let action = format!("access:counted={},hot={},epoch={epoch}", counted.total, set.entries.len());
            commit.witness(&action, WITNESS_CHANGE)?;
            let mut manifest = commit.manifest();
            manifest.directory.retain(|entry| {
                !matches!(entry.kind(), SegType::SKETCH | SegType::HOT) || new.contains(&entry.offset)
            });
            commit.finish(&manifest)?;
            Ok((sketch.total_accesses, set.entries.len()))
        });
        let ((total, hot), view) = written.inspect_err(|_| self.accesses.give_back(&counted))?;
        let epoch = view.epoch();
        let detail = vec![("counted".into(), counted.total.to_string()), ("hot".into(), hot.to_string())];
        self.notify(&Event { kind: "accesses", epoch, detail });
        Ok(Some(AccessReport { counted: counted.total, total, hot, epoch }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_once_and_can_be_given_back() {
        let accesses = Accesses::default();
        assert!(accesses.take().is_none());
        accesses.count_ids([5, 5, 9].into_iter());
        let counted = accesses.take().expect("three");
        assert_eq!(counted.total, 3);
        assert!(accesses.take().is_none());
        accesses.give_back(&counted);
        accesses.count_ids(std::iter::once(5));
        let sketch = accesses.take().expect("four").onto(None, std::iter::empty());
        assert_eq!((sketch.total_accesses, sketch.estimate(5), sketch.estimate(9)), (4, 3, 1));
    }

    #[test]
    fn sums_are_halved_to_fit_and_nothing_counted_becomes_nothing() {
        let counted = |ids: &[u64]| {
            let accesses = Accesses::default();
            accesses.count_ids(ids.iter().copied());
            accesses.take().expect("some")
        };
        let mut ids = vec![1; 1000];
        ids.push(2);
        let sketch = counted(&ids).onto(None, std::iter::empty());
        assert_eq!((sketch.estimate(1), sketch.estimate(2), sketch.total_accesses), (250, 1, 1001));
        let more = counted(&[1; 10]).onto(Some(&sketch), std::iter::empty());
        assert_eq!((more.estimate(1), more.estimate(2), more.total_accesses), (130, 1, 1011));
        // A table of another shape keeps what it says of the ids there are.
        let mut old = Sketch { width: 7, depth: 1, total_accesses: 40, counters: vec![0; 7] };
        old.counters[sketch::column(30, 0, 7)] = 40;
        let kept = counted(&[31]).onto(Some(&old), [30].into_iter());
        assert_eq!((kept.estimate(30), kept.total_accesses), (40, 41));
    }
}

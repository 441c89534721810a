//! The distances of the format, bit for bit, and the exact scan.
//!
//! The format defines a distance as an f32 computation: components in order, multiply and add rounded separately, one
//! accumulator per sum. [`distance`] is that definition; [`distances`] gives the same bits with several rows side by
//! side; [`scan`] looks at all rows with fast, unordered sums first, keeps those whose error margin lets them be among
//! the `k` nearest, and decides between these by the defined distance. Its answer is that of the naive scan.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::rows::sort_key;
use crate::simd::{GROUP, Ordered, OrderedSums, kernels, prefetch_many};
use crate::{Bitmap, Candidate, Metric, Rows};

/// Distance from a query to a row, as the format defines it. O(dim), bound by the latency of one chain of additions.
///
/// `row` holds at least `4 * q.len()` bytes, little-endian f32 at any alignment; a shorter row is infinitely far away.
/// L2 is squared; inner product is negated; cosine is `1 - dot / sqrt(nq * nv)`, or 1 when that root is below 2^-23.
pub fn distance(metric: Metric, q: &[f32], row: &[u8]) -> f32 {
    if row.len() / 4 < q.len() {
        return f32::INFINITY;
    }
    let values = row.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    let (mut first, mut nq, mut nv) = (0.0f32, 0.0f32, 0.0f32);
    match metric {
        Metric::L2 => {
            for (a, b) in q.iter().zip(values) {
                let d = a - b;
                first += d * d;
            }
        }
        Metric::InnerProduct => {
            for (a, b) in q.iter().zip(values) {
                first += a * b;
            }
        }
        Metric::Cosine => {
            for (a, b) in q.iter().zip(values) {
                first += a * b;
                nq += a * a;
                nv += b * b;
            }
        }
    }
    finish(metric, nq, OrderedSums { first, squares: nv })
}

/// Ends a distance from its sums.
#[inline]
fn finish(metric: Metric, nq: f32, sums: OrderedSums) -> f32 {
    match metric {
        Metric::L2 => sums.first,
        Metric::InnerProduct => -sums.first,
        Metric::Cosine => {
            let den = (nq * sums.squares).sqrt();
            if den < f32::EPSILON { 1.0 } else { 1.0 - sums.first / den }
        }
    }
}

fn kind(metric: Metric) -> Ordered {
    match metric {
        Metric::L2 => Ordered::Difference,
        Metric::InnerProduct => Ordered::Dot,
        Metric::Cosine => Ordered::DotAndSquares,
    }
}

/// Distances from a query to several rows, the same bits as [`distance`]. `out` is filled up to the shorter of both.
///
/// Eight rows at a time, one per lane of a register, so that the chains of additions run side by side: about 6 times
/// as fast as one row after the other.
pub fn distances(metric: Metric, q: &[f32], rows: &[&[u8]], out: &mut [f32]) {
    let nq = if metric == Metric::Cosine { q.iter().fold(0.0f32, |sum, a| sum + a * a) } else { 0.0 };
    let ordered = kernels().ordered;
    for (rows, out) in rows.chunks(GROUP).zip(out.chunks_mut(GROUP)) {
        let whole = |row: &&[u8]| row.len() / 4 >= q.len();
        // A row too short, and the free places of a last group, are stood in for by a row that is whole.
        let Some(stand_in) = rows.iter().copied().find(|r| whole(r)) else {
            out.fill(f32::INFINITY);
            continue;
        };
        let group: [&[u8]; GROUP] =
            std::array::from_fn(|i| rows.get(i).copied().filter(|r| whole(r)).unwrap_or(stand_in));
        let mut sums = [OrderedSums::default(); GROUP];
        ordered(kind(metric), q, &group, &mut sums);
        for ((row, to), sums) in rows.iter().zip(out).zip(sums) {
            *to = if whole(row) { finish(metric, nq, sums) } else { f32::INFINITY };
        }
    }
}

/// The rows a scan looks at. Ordinals at or above the number of rows are passed over.
#[derive(Debug, Clone, Copy)]
pub enum Selection<'a> {
    /// Every row.
    All,
    /// The members of a set.
    Bitmap(&'a Bitmap),
    /// Listed ordinals, each once.
    Ordinals(&'a [u32]),
}

/// The `k` nearest of the selected rows by (distance, id), nearest first, replacing what `out` held.
///
/// Exactly the answer of the naive scan. Non-finite distances are ordered too: infinities after all finite ones, NaN
/// last. O(selected rows x dim).
pub fn scan(
    metric: Metric,
    q: &[f32],
    rows: &dyn Rows,
    select: Selection<'_>,
    k: usize,
    out: &mut Vec<Candidate>,
) {
    scan_threads(metric, q, rows, select, k, 1, out);
}

/// [`scan`] with up to `threads` threads; the answer does not depend on how many. Worth it above some ten thousand rows.
pub fn scan_threads(
    metric: Metric,
    q: &[f32],
    rows: &dyn Rows,
    select: Selection<'_>,
    k: usize,
    threads: usize,
    out: &mut Vec<Candidate>,
) {
    out.clear();
    // Units that can be split: rows, 64-row words, or list places.
    let units = match select {
        Selection::All => rows.len() as usize,
        Selection::Bitmap(set) => set.words().len(),
        Selection::Ordinals(list) => list.len(),
    };
    let threads = threads.clamp(1, units.max(1));
    let part = |t: usize| units * t / threads..units * (t + 1) / threads;
    if threads == 1 {
        *out = scan_part(metric, q, rows, select, 0..units, k);
        return;
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..threads)
            .map(|t| {
                let run = move || {
                    scan_part(metric, q, rows, select, units * t / threads..units * (t + 1) / threads, k)
                };
                (t, std::thread::Builder::new().name("rvf-scan".into()).spawn_scoped(scope, run))
            })
            .collect();
        out.extend(scan_part(metric, q, rows, select, part(0), k));
        for (t, worker) in workers {
            // A thread that could not start, or failed, is stood in for here.
            match worker.ok().and_then(|w| w.join().ok()) {
                Some(found) => out.extend(found),
                None => out.extend(scan_part(metric, q, rows, select, part(t), k)),
            }
        }
    });
    sort(rows, out);
    out.truncate(k);
}

/// Orders answers by (distance, id).
pub(crate) fn sort(rows: &dyn Rows, candidates: &mut [Candidate]) {
    candidates.sort_unstable_by(|a, b| order(rows, a, b));
}

fn order(rows: &dyn Rows, a: &Candidate, b: &Candidate) -> Ordering {
    sort_key(a.distance).cmp(&sort_key(b.distance)).then_with(|| rows.id(a.ordinal).cmp(&rows.id(b.ordinal)))
}

/// Calls `each` with batches of ordinals of a part of the selection.
fn batches(select: Selection<'_>, part: std::ops::Range<usize>, rows: u32, mut each: impl FnMut(&[u32])) {
    let mut batch = [0u32; 64];
    let mut filled = 0;
    let mut push = |ordinal: u32| {
        if ordinal < rows {
            batch[filled] = ordinal;
            filled += 1;
            if filled == batch.len() {
                each(&batch);
                filled = 0;
            }
        }
    };
    match select {
        Selection::All => part.for_each(|o| push(o as u32)),
        Selection::Ordinals(list) => list.get(part).unwrap_or(&[]).iter().for_each(|o| push(*o)),
        Selection::Bitmap(set) => {
            for w in part {
                let mut word = set.words().get(w).copied().unwrap_or(0);
                while word != 0 {
                    push(w as u32 * 64 + word.trailing_zeros());
                    word &= word - 1;
                }
            }
        }
    }
    let rest = filled;
    each(batch.get(..rest).unwrap_or(&[]));
}

/// Rows that may be among the nearest: a lower bound of each one's distance.
struct Shortlist {
    k: usize,
    /// The `k` smallest upper bounds seen, largest on top, as sort keys.
    upper: BinaryHeap<u32>,
    kept: Vec<(f32, u32)>,
    compact_at: usize,
}

impl Shortlist {
    fn offer(&mut self, ordinal: u32, low: f32, high: f32) {
        let full = self.upper.len() >= self.k;
        let bound = self.upper.peek().copied().unwrap_or(u32::MAX);
        if full && sort_key(low) > bound {
            return;
        }
        let high = sort_key(high);
        if !full {
            self.upper.push(high);
        } else if high < bound {
            self.upper.pop();
            self.upper.push(high);
        }
        self.kept.push((low, ordinal));
        if self.kept.len() >= self.compact_at {
            self.compact();
            self.compact_at = (self.kept.len() * 2).max(self.compact_at);
        }
    }

    fn compact(&mut self) {
        if self.upper.len() >= self.k {
            let bound = self.upper.peek().copied().unwrap_or(u32::MAX);
            self.kept.retain(|(low, _)| sort_key(*low) <= bound);
        }
    }
}

fn scan_part(
    metric: Metric,
    q: &[f32],
    rows: &dyn Rows,
    select: Selection<'_>,
    part: std::ops::Range<usize>,
    k: usize,
) -> Vec<Candidate> {
    if k == 0 {
        return Vec::new();
    }
    let margin = Margin::new(metric, q);
    let k = k.min(rows.len() as usize);
    let mut list = Shortlist {
        k,
        upper: BinaryHeap::new(),
        kept: Vec::new(),
        compact_at: k.saturating_mul(2).saturating_add(1024),
    };
    batches(select, part, rows.len(), |batch| {
        for (i, ordinal) in batch.iter().enumerate() {
            if let Some(next) = batch.get(i + 2) {
                let row = rows.vector(*next);
                prefetch_many(row, 0, row.len().min(2048));
            }
            let (low, high) = margin.bounds(q, rows.vector(*ordinal));
            list.offer(*ordinal, low, high);
        }
    });
    list.compact();
    let mut found = Vec::with_capacity(list.kept.len());
    let mut values = [0.0f32; GROUP];
    for chunk in list.kept.chunks(GROUP) {
        let group: [&[u8]; GROUP] =
            std::array::from_fn(|i| chunk.get(i).map_or(&[][..], |(_, o)| rows.vector(*o)));
        distances(metric, q, group.get(..chunk.len()).unwrap_or(&[]), &mut values);
        found.extend(
            chunk
                .iter()
                .zip(values)
                .map(|((_, ordinal), distance)| Candidate { ordinal: *ordinal, distance }),
        );
    }
    if found.len() > k {
        found.select_nth_unstable_by(k - 1, |a, b| order(rows, a, b));
        found.truncate(k);
    }
    sort(rows, &mut found);
    found
}

/// Bounds of the defined distance from a fast one.
///
/// A sum of `n` products in f32, in any order, is off by at most about `n * 2^-24` times the sum of their magnitudes,
/// which the norms bound. The fast sum and the defined one may be off in opposite directions, hence twice that; a tenth
/// is added for the terms of second order.
struct Margin {
    metric: Metric,
    relative: f32,
    nq: f32,
}

impl Margin {
    fn new(metric: Metric, q: &[f32]) -> Self {
        let unit = 2.0f32.powi(-24);
        Self { metric, relative: 2.2 * (q.len() as f32 + 8.0) * unit, nq: q.iter().map(|a| a * a).sum() }
    }

    /// Lower and upper bound; everything when the fast sums say nothing.
    fn bounds(&self, q: &[f32], row: &[u8]) -> (f32, f32) {
        if row.len() / 4 < q.len() {
            return (f32::INFINITY, f32::INFINITY);
        }
        let kernels = kernels();
        let (first, squares) = (kernels.fast)(kind(self.metric), q, row);
        let (fast, off) = match self.metric {
            Metric::L2 => (first, first * self.relative),
            Metric::InnerProduct => (-first, (self.nq * squares).sqrt() * self.relative),
            Metric::Cosine => {
                let den = (self.nq * squares).sqrt();
                // Next to the format's threshold, or where squares underflow, either branch may be the defined one.
                if !(den > 2.0 * f32::EPSILON && squares > 1e-30 && self.nq > 1e-30) {
                    return (f32::NEG_INFINITY, f32::NAN);
                }
                (1.0 - first / den, 4.0 * self.relative)
            }
        };
        // Products below the normal range lose relative precision; this covers 65,535 of them.
        let off = off + 1e-38;
        if fast.is_finite() && off.is_finite() && squares.is_finite() {
            (fast - off, fast + off)
        } else {
            (f32::NEG_INFINITY, f32::NAN)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OwnedRows;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn defined_values() {
        let row = bytes(&[1.0, -2.0, 0.5]);
        let q = [2.0, 0.0, 1.0];
        assert_eq!(distance(Metric::L2, &q, &row), 5.25);
        assert_eq!(distance(Metric::InnerProduct, &q, &row), -2.5);
        assert_eq!(distance(Metric::Cosine, &q, &row), 1.0 - 2.5 / (5.0f32 * 5.25).sqrt());
        assert_eq!(distance(Metric::InnerProduct, &[0.0, 0.0, 0.0], &row).to_bits(), (-0.0f32).to_bits());
        assert_eq!(distance(Metric::Cosine, &[0.0; 3], &row), 1.0);
        assert_eq!(distance(Metric::Cosine, &[1e-7, 0.0, 0.0], &bytes(&[0.5, 0.0, 0.0])), 1.0);
        assert_eq!(distance(Metric::L2, &q, &row[..11]), f32::INFINITY);
    }

    #[test]
    fn ties_go_to_the_smaller_id_and_non_finite_come_last() {
        let mut rows = OwnedRows::new(1);
        for (id, v) in [(9, 1.0), (3, -1.0), (5, 1.0), (1, f32::NAN), (2, f32::INFINITY), (4, 0.5)] {
            rows.push(id, &[v]);
        }
        let mut out = Vec::new();
        scan(Metric::L2, &[0.0], &rows, Selection::All, 3, &mut out);
        let ids: Vec<u64> = out.iter().map(|c| rows.id(c.ordinal)).collect();
        assert_eq!(ids, [4, 3, 5]);
        scan(Metric::L2, &[0.0], &rows, Selection::All, 100, &mut out);
        let ids: Vec<u64> = out.iter().map(|c| rows.id(c.ordinal)).collect();
        assert_eq!(ids, [4, 3, 5, 9, 2, 1]);
        scan(Metric::L2, &[0.0], &rows, Selection::Ordinals(&[5, 77, 0]), 2, &mut out);
        assert_eq!(out.iter().map(|c| c.ordinal).collect::<Vec<_>>(), [5, 0]);
        scan(Metric::L2, &[0.0], &rows, Selection::All, 0, &mut out);
        assert!(out.is_empty());
    }
}

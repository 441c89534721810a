//! Searching an image.

use super::{Image, View};
use crate::codes::{QueryCode, u32_at};
use crate::exact::{self, Selection};
use crate::plan::{Plan, plan};
use crate::scratch::Scratch;
use crate::simd::{GROUP, prefetch_many};
use crate::walk::{Stop, descend, numbers, walk};
use crate::{Bitmap, Candidate, IndexError, Metric, Rows};

/// Hidden rows are looked past while they are no more than one in this many.
const FEW: u64 = 3;

/// What a search did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// Nodes whose code was compared.
    pub visited: u32,
    /// Rows whose exact distance was computed.
    pub reranked: u32,
    /// All matching rows were looked at, instead of or after a walk.
    pub scanned: bool,
}

/// Rows of an image that must not be answered.
#[derive(Debug, Clone, Copy)]
pub struct Hidden<'a> {
    /// Their ordinals.
    pub rows: &'a Bitmap,
    /// How many there are.
    pub count: u64,
}

/// What a search knows of other images of the same rows' store.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Elsewhere {
    /// Rows farther than this are of no interest: enough nearer ones were found there. Infinite: all are.
    pub bound: f32,
    /// Share of all rows, 0 to 1, that lie in this image.
    pub share: f32,
}

/// Part of the least number of expansions that is made for a share of the rows. Chosen on branches of the Debian package
/// embeddings (8 and 31 percent of the rows) and of 1,000,000 synthetic rows (1 percent): where the answers are not expected,
/// half the walk finds as many of them as all of it.
fn least_of(least: usize, share: f32) -> usize {
    let part = (0.3 + 1.3 * share.max(0.0).sqrt()).min(1.0);
    ((least as f32 * part).ceil() as usize).clamp(1, least.max(1))
}

/// How many nodes a walk keeps at least, so that those the codes' rounding put behind the `k`-th can still be tried.
pub(crate) fn kept_at_least(k: usize) -> usize {
    k.saturating_add((k / 2).max(10))
}

impl Image {
    /// The `k` nearest rows by (distance, id) that a walk with this `ef` finds, replacing what `out` held.
    ///
    /// `rows` is the table the image was built over. Row ordinals in `deny`, and those not in `allow` when it is given,
    /// are never answered; the walk goes through them all the same. With few matching rows, or when the walk finds
    /// fewer than `min(k, matching)`, all matching rows of the image are looked at instead (see [`plan`]). `ef` is
    /// raised to `k`. Distances are those of [`exact::distance`]. Rows not covered by the image are the caller's to add.
    ///
    /// About O(ef x M x dim) bytes of codes read; memory O(ef) and one byte per node, in `scratch`.
    ///
    /// # Errors
    /// [`IndexError::Dimension`] and [`IndexError::NotFinite`] (caller).
    #[expect(clippy::too_many_arguments, reason = "the query's parts are independent")]
    pub fn search(
        &self,
        q: &[f32],
        k: usize,
        ef: usize,
        rows: &dyn Rows,
        allow: Option<&Bitmap>,
        deny: Option<&Bitmap>,
        scratch: &mut Scratch,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        out.clear();
        self.check(q)?;
        let nodes = self.nodes();
        let k = k.min(nodes as usize);
        if k == 0 {
            return Ok(SearchStats::default());
        }
        let pass = Pass { allow, deny };
        let matching = pass.count(nodes, self.covered_rows());
        let view = self.view();
        scratch.query.set(self.metric, q, view.centre);
        if self.is_degenerate(&scratch.query) {
            return Ok(self.scan_rows(q, k, rows, pass, out));
        }
        let mut stats = SearchStats::default();
        match plan(matching, u64::from(nodes), k, ef) {
            Plan::Scan => {
                self.scan_codes(view, q, k, rows, pass, scratch, out, &mut stats);
                return Ok(stats);
            }
            Plan::Walk { ef } => {
                let ef = ef.max(kept_at_least(k)).min(nodes as usize);
                let entry = self.enter(view, scratch, &mut stats);
                if pass.is_open() {
                    let stop = self.stop(k, ef, &scratch.query);
                    stats.visited += walk(view.links, nodes, view.codes, &[entry], stop, scratch);
                    std::mem::swap(&mut scratch.pool, &mut scratch.results);
                } else if !self.walk_filtered(view, entry, k, ef, matching, pass, scratch, &mut stats) {
                    self.scan_codes(view, q, k, rows, pass, scratch, out, &mut stats);
                    return Ok(stats);
                }
            }
        }
        stats.reranked += self.rerank(view, q, k, rows, pass, f32::INFINITY, scratch, out);
        if out.len() < k && (out.len() as u64) < matching {
            self.scan_codes(view, q, k, rows, pass, scratch, out, &mut stats);
        }
        Ok(stats)
    }

    /// As [`Image::search`] for a search that has found something elsewhere, or must not answer some few rows.
    ///
    /// Within a bound the walk ends where nothing nearer can be expected, and there may be fewer than `k` answers. Where few rows are hidden, asking of every row on the way
    /// whether it may be answered costs more than finding some more and dropping those.
    ///
    /// # Errors
    /// As [`Image::search`].
    #[expect(clippy::too_many_arguments, reason = "the query's parts are independent")]
    pub fn search_near(
        &self,
        q: &[f32],
        k: usize,
        ef: usize,
        rows: &dyn Rows,
        hidden: Option<Hidden<'_>>,
        elsewhere: Elsewhere,
        scratch: &mut Scratch,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        out.clear();
        self.check(q)?;
        let deny = hidden.map(|hidden| hidden.rows);
        let count = hidden.map_or(0, |hidden| hidden.count);
        let (nodes, view) = (u64::from(self.nodes()), self.view());
        let k = k.min(self.nodes() as usize);
        let matching = nodes.saturating_sub(count);
        let few = count.saturating_mul(FEW) <= nodes;
        let Plan::Walk { ef } = plan(matching, nodes, k, ef) else {
            return self.search(q, k, ef, rows, None, deny, scratch, out);
        };
        scratch.query.set(self.metric, q, view.centre);
        if !few || k == 0 || self.is_degenerate(&scratch.query) {
            return self.search(q, k, ef, rows, None, deny, scratch, out);
        }
        let mut stats = SearchStats::default();
        let wide = ef.max(kept_at_least(k)).min(self.nodes() as usize);
        let entry = self.enter(view, scratch, &mut stats);
        // As many more as are hidden among them in the mean, and what that varies by.
        let mean = k as f64 * count as f64 / matching.max(1) as f64;
        let more = (mean + mean.sqrt()).ceil() as usize;
        let mut stop = self.stop(k + more, wide, &scratch.query);
        let bound = elsewhere.bound;
        if bound.is_finite() {
            stop.outer = stop.bound(bound - scratch.query.offset);
            // On the sphere of an inner product distances say little about how far the walk has come.
            if self.metric != Metric::InnerProduct {
                stop.least = least_of(stop.least, elsewhere.share);
            }
        }
        stats.visited += walk(view.links, view.nodes, view.codes, &[entry], stop, scratch);
        std::mem::swap(&mut scratch.pool, &mut scratch.results);
        let pass = Pass { allow: None, deny };
        if let Some(deny) = deny {
            // Where many of the nearest are hidden, they are what ended the walk.
            let nearest =
                scratch.results.nodes().take(stop.k).filter_map(|n| u32_at(view.ordinals, n as usize));
            if nearest.filter(|ordinal| deny.get(*ordinal)).count() > more + k / 8 {
                return self.search(q, k, ef, rows, None, Some(deny), scratch, out);
            }
        }
        stats.reranked += self.rerank(view, q, k, rows, pass, bound, scratch, out);
        let short = out.len() < k && (out.len() as u64) < matching;
        if short && (bound.is_infinite() || scratch.results.is_full()) {
            return self.search(q, k, ef, rows, None, deny, scratch, out);
        }
        Ok(stats)
    }

    /// Whether the format's rule for tiny denominators may decide, which codes do not know: with a query or rows next to
    /// zero.
    fn is_degenerate(&self, query: &QueryCode) -> bool {
        self.metric == Metric::Cosine
            && (query.norm * self.min_norm() < 2.0 * f64::from(f32::EPSILON) || query.norm == 0.0)
    }

    /// Answers from layer A and the rows alone, before the rest of the image is in memory: the lists of the centroids
    /// nearest to the query are scanned exactly. Reads some thousand rows; recall is about that of an inverted file.
    ///
    /// # Errors
    /// As [`Image::search`].
    #[expect(clippy::too_many_arguments, reason = "the query's parts are independent")]
    pub fn search_layer_a(
        &self,
        q: &[f32],
        k: usize,
        rows: &dyn Rows,
        allow: Option<&Bitmap>,
        deny: Option<&Bitmap>,
        scratch: &mut Scratch,
        out: &mut Vec<Candidate>,
    ) -> Result<SearchStats, IndexError> {
        out.clear();
        self.check(q)?;
        let centroids = self.centroids();
        let mut stats = SearchStats::default();
        if k == 0 || centroids == 0 {
            return Ok(stats);
        }
        let pass = Pass { allow, deny };
        let view = self.centroid_view();
        scratch.query.set(self.metric, q, self.view().centre);
        scratch.batch(64);
        let Scratch { query, pool, dots, estimates, todo, ordinals, .. } = scratch;
        pool.start(centroids);
        for from in (0..centroids as u32).step_by(64) {
            todo.clear();
            todo.extend(from..(from + 64).min(centroids as u32));
            view.estimates(query, todo, dots, estimates);
            for (c, e) in todo.iter().zip(estimates.iter()) {
                pool.insert(crate::scratch::Pool::key(*e, *c));
            }
        }
        stats.visited += centroids as u32;
        let enough = (self.nodes() as usize / 16).clamp(256, 4096).max(k.saturating_mul(4));
        ordinals.clear();
        for centroid in pool.nodes() {
            if ordinals.len() >= enough {
                break;
            }
            ordinals.extend(numbers(self.list(centroid)).filter(|o| pass.allows(*o)));
        }
        // Damaged lists may name a row twice.
        ordinals.sort_unstable();
        ordinals.dedup();
        stats.reranked += ordinals.len() as u32;
        exact::scan(self.metric, q, rows, Selection::Ordinals(ordinals), k, out);
        Ok(stats)
    }

    fn check(&self, q: &[f32]) -> Result<(), IndexError> {
        if q.len() != self.dim() {
            return Err(IndexError::Dimension { expected: self.dim(), found: q.len() });
        }
        match q.iter().position(|v| !v.is_finite()) {
            Some(position) => Err(IndexError::NotFinite { position }),
            None => Ok(()),
        }
    }

    /// Descends through the upper layers to a node of layer 0 near the query.
    pub(super) fn enter(&self, view: View<'_>, scratch: &mut Scratch, stats: &mut SearchStats) -> u32 {
        scratch.batch(self.header.degree_upper.get() as usize);
        let mut entry = self.header.entry.get();
        for level in (1..=self.max_level()).rev() {
            let (layer, count) = self.upper(view.upper, level);
            if entry >= count {
                continue;
            }
            let Scratch { query, todo, dots, estimates, .. } = scratch;
            let (node, seen) = descend(layer, count, view.codes, query, entry, todo, dots, estimates);
            entry = node;
            stats.visited += seen;
        }
        entry
    }

    /// When a walk for this query ends.
    pub(super) fn stop(&self, k: usize, ef: usize, query: &QueryCode) -> Stop {
        Stop::of(self.metric, k, ef, query, self.header.radius.get())
    }

    /// Looks at every matching row of the image by code, then at the best exactly.
    #[expect(clippy::too_many_arguments, reason = "parts of one search")]
    fn scan_codes(
        &self,
        view: View<'_>,
        q: &[f32],
        k: usize,
        rows: &dyn Rows,
        pass: Pass<'_>,
        scratch: &mut Scratch,
        out: &mut Vec<Candidate>,
        stats: &mut SearchStats,
    ) {
        const BATCH: usize = 64;
        scratch.batch(BATCH);
        let Scratch { query, visited, results: pool, todo, dots, estimates, .. } = scratch;
        visited.start(view.nodes as usize);
        pool.start(kept_at_least(k).saturating_mul(2).max(192));
        let mut flush = |todo: &mut Vec<u32>| {
            view.codes.estimates(query, todo, dots, estimates);
            stats.visited += todo.len() as u32;
            for (node, e) in todo.iter().zip(estimates.iter()) {
                let key = crate::scratch::Pool::key(*e, *node);
                if key < pool.bound() {
                    pool.insert(key);
                }
            }
            todo.clear();
        };
        todo.clear();
        let mut each = |ordinal: u32| {
            if let Some(node) = u32_at(view.node_of_ordinal, ordinal as usize)
                && node < view.nodes
                && visited.insert(node)
            {
                todo.push(node);
                if todo.len() == BATCH {
                    flush(todo);
                }
            }
        };
        let rows_covered = self.covered_rows();
        match pass.allow {
            Some(allow) => allow.iter().filter(|o| !pass.denies(*o)).for_each(&mut each),
            None => (0..rows_covered).filter(|o| !pass.denies(*o)).for_each(&mut each),
        }
        flush(todo);
        stats.scanned = true;
        stats.reranked += self.rerank(view, q, k, rows, pass, f32::INFINITY, scratch, out);
    }

    /// Gives the nodes in `scratch.results`, best first, their exact distances, and the `k` best of them to `out`. Ends
    /// when the estimates left are worse than the `k`-th exact distance, or than `bound`, by more than rounding explains.
    /// Returns how many were computed.
    #[expect(clippy::too_many_arguments, reason = "parts of one search")]
    fn rerank(
        &self,
        view: View<'_>,
        q: &[f32],
        k: usize,
        rows: &dyn Rows,
        pass: Pass<'_>,
        bound: f32,
        scratch: &mut Scratch,
        out: &mut Vec<Candidate>,
    ) -> u32 {
        let Scratch { query, results, ordinals, .. } = scratch;
        out.clear();
        ordinals.clear();
        let count = rows.len();
        let slack = 1.5 * self.stop(k, k, query).slack;
        let mut estimates = results.estimates();
        let at_most = |distance: f32| {
            let estimate = distance - query.offset + slack;
            if estimate.is_nan() { f32::INFINITY } else { estimate }
        };
        let (mut computed, mut wanted, mut worst) = (0, k.next_multiple_of(GROUP), at_most(bound));
        loop {
            ordinals.clear();
            let mut done = true;
            for (estimate, node) in estimates.by_ref() {
                if estimate > worst {
                    break;
                }
                // Numbers from damaged bytes may name no row, or one that may not be answered.
                let Some(ordinal) = u32_at(view.ordinals, node as usize) else { continue };
                if ordinal < count && pass.allows(ordinal) {
                    // Rows lie anywhere in the file: ask for all of them before the first is needed.
                    let row = rows.vector(ordinal);
                    prefetch_many(row, 0, row.len().min(2048));
                    ordinals.push(ordinal);
                }
                if ordinals.len() == wanted {
                    done = false;
                    break;
                }
            }
            computed += ordinals.len() as u32;
            let mut values = [0.0f32; GROUP];
            for chunk in ordinals.chunks(GROUP) {
                let group: [&[u8]; GROUP] =
                    std::array::from_fn(|i| chunk.get(i).map_or(&[][..], |o| rows.vector(*o)));
                exact::distances(self.metric, q, group.get(..chunk.len()).unwrap_or(&[]), &mut values);
                out.extend(
                    chunk
                        .iter()
                        .zip(values)
                        .map(|(ordinal, distance)| Candidate { ordinal: *ordinal, distance }),
                );
            }
            exact::sort(rows, out);
            // Damaged bytes may name a row twice.
            out.dedup_by_key(|c| c.ordinal);
            out.truncate(k);
            if done {
                return computed;
            }
            if let Some(kth) = k.checked_sub(1).and_then(|i| out.get(i)) {
                worst = at_most(kth.distance.min(bound));
            }
            wanted = GROUP;
        }
    }

    /// The exact scan of the matching rows the image covers.
    fn scan_rows(
        &self,
        q: &[f32],
        k: usize,
        rows: &dyn Rows,
        pass: Pass<'_>,
        out: &mut Vec<Candidate>,
    ) -> SearchStats {
        let mut set = Bitmap::new(self.covered_rows());
        for node in 0..self.nodes() {
            if let Some(ordinal) = self.ordinal_of_node(node).filter(|o| pass.allows(*o)) {
                set.set(ordinal);
            }
        }
        exact::scan(self.metric, q, rows, Selection::Bitmap(&set), k, out);
        SearchStats { visited: 0, reranked: set.count() as u32, scanned: true }
    }
}

/// Which rows may be answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) allow: Option<&'a Bitmap>,
    pub(super) deny: Option<&'a Bitmap>,
}

impl Pass<'_> {
    pub(super) fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_none()
    }

    #[inline]
    pub(super) fn denies(&self, ordinal: u32) -> bool {
        self.deny.is_some_and(|d| d.get(ordinal))
    }

    #[inline]
    pub(super) fn allows(&self, ordinal: u32) -> bool {
        self.allow.is_none_or(|a| a.get(ordinal)) && !self.denies(ordinal)
    }

    /// Number of nodes that may be answered, at most; from whole words. Exact when every allowed row has a node.
    fn count(&self, nodes: u32, covered: u32) -> u64 {
        let nodes = u64::from(nodes);
        let words = (covered as usize).div_ceil(64);
        match (self.allow, self.deny) {
            (None, None) => nodes,
            (Some(allow), deny) => {
                let denied = deny.map_or(&[][..], |d| d.words());
                let inside = |i: usize, w: u64| {
                    if i + 1 == words && covered % 64 != 0 { w & ((1 << (covered % 64)) - 1) } else { w }
                };
                allow
                    .words()
                    .iter()
                    .take(words)
                    .enumerate()
                    .map(|(i, w)| u64::from(inside(i, w & !denied.get(i).copied().unwrap_or(0)).count_ones()))
                    .sum::<u64>()
                    .min(nodes)
            }
            // Denied rows need not have nodes, so this is only what remains for sure.
            (None, Some(deny)) => {
                nodes.saturating_sub(deny.words().iter().take(words).map(|w| u64::from(w.count_ones())).sum())
            }
        }
    }
}

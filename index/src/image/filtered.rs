//! The walk when only some rows may be answered.
//!
//! The walk goes through every node, so that rows that match stay connected through those that do not; only matching
//! ones enter the results. It ends when the nearest node left is farther than the worst result of a full list. That list
//! is shorter than `ef` where few match: to find the `k` nearest of a share `s`, the walk passes about `k / s` nodes
//! anyway, which is as thorough as a large `ef`.

use super::search::{Pass, SearchStats, kept_at_least};
use super::{Image, View};
use crate::codes::u32_at;
use crate::scratch::{Pool, Scratch, node_of};
use crate::walk::gather;

/// Results kept at `matching` of `nodes`.
fn results_wanted(k: usize, ef: usize, matching: u64, nodes: u32) -> usize {
    let share = (matching as f64 / f64::from(nodes.max(1))).clamp(0.0, 1.0);
    let least = kept_at_least(k) + k / 2;
    least + (ef.saturating_sub(least) as f64 * share) as usize
}

impl Image {
    /// Fills `scratch.results` with the best matching nodes. False when the walk cost more than looking at all
    /// matching rows would: then the caller does that.
    #[expect(clippy::too_many_arguments, reason = "parts of one search")]
    pub(super) fn walk_filtered(
        &self,
        view: View<'_>,
        entry: u32,
        k: usize,
        ef: usize,
        matching: u64,
        pass: Pass<'_>,
        scratch: &mut Scratch,
        stats: &mut SearchStats,
    ) -> bool {
        let wanted = results_wanted(k, ef, matching, view.nodes);
        // A bounded frontier: nodes beyond it are too far to matter before the results are full.
        let frontier = (wanted as u64).saturating_mul(4 * u64::from(view.nodes)) / matching.max(1);
        scratch.batch(view.links.degree.max(1));
        let Scratch { query, visited, pool, results, todo, dots, estimates, .. } = scratch;
        visited.start(view.nodes as usize);
        pool.start((frontier as usize).clamp(ef, 65_536));
        results.start(wanted);
        todo.clear();
        todo.push(entry);
        visited.insert(entry);
        let mut seen = 0u64;
        loop {
            view.codes.estimates(query, todo, dots, estimates);
            seen += todo.len() as u64;
            for (node, estimate) in todo.iter().zip(estimates.iter()) {
                let key = Pool::key(*estimate, *node);
                if key < pool.bound() && key < results.bound() {
                    pool.insert(key);
                    if u32_at(view.ordinals, *node as usize).is_some_and(|o| pass.allows(o)) {
                        results.insert(key);
                    }
                }
            }
            if seen > matching.max(2048) {
                stats.visited += seen as u32;
                return false;
            }
            match pool.expand() {
                Some(entry) if entry < results.bound() => {
                    gather(view.links, node_of(entry), view.nodes, visited, todo);
                }
                _ => break,
            }
        }
        stats.visited += seen as u32;
        true
    }
}

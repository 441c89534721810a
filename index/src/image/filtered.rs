//! The walk when only some rows may be answered.
//!
//! The walk goes through every node, so that rows that match stay connected through those that do not; only matching
//! ones enter the results. It ends as any walk does (see `Stop`), with distances measured from the `k`-th matching row:
//! that one lies farther out the fewer match, and the walk with it. How many results are kept shrinks with the share
//! that matches: to find the `k` nearest of a share `s`, a walk passes about `k / s` nodes anyway.

use super::search::{Pass, SearchStats, kept_at_least};
use super::{Image, View};
use crate::codes::u32_at;
use crate::scratch::{Pool, Scratch, node_of};
use crate::walk::{Stop, gather};

/// Results that must be there before distance alone may end the walk, and those kept at most.
fn results_wanted(k: usize, stop: &Stop, matching: u64, nodes: u32) -> (usize, usize) {
    let share = (matching as f64 / f64::from(nodes.max(1))).clamp(0.0, 1.0);
    let least = kept_at_least(k) + k / 2;
    let scaled = |all: usize| least.max((all as f64 * share) as usize);
    (scaled(stop.least), scaled(stop.most))
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
        let stop = self.stop(k, ef, &scratch.query);
        let (least, wanted) = results_wanted(k, &stop, matching, view.nodes);
        // A bounded frontier: unless matching rows keep far from the query, nodes beyond it are too far to matter.
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
        // The nearest node that found no place in the frontier.
        let mut lost = u64::MAX;
        loop {
            view.codes.estimates(query, todo, dots, estimates);
            seen += todo.len() as u64;
            for (node, estimate) in todo.iter().zip(estimates.iter()) {
                let key = Pool::key(*estimate, *node);
                if key < results.bound() {
                    lost = lost.min(pool.insert_or_lose(key));
                    if u32_at(view.ordinals, *node as usize).is_some_and(|o| pass.allows(o)) {
                        results.insert(key);
                    }
                }
            }
            if seen > matching.max(2048) {
                stats.visited += seen as u32;
                return false;
            }
            let bound = match results.kth(stop.k) {
                Some(kth) if results.len() >= least => Pool::key(stop.bound(kth), 0).min(results.bound()),
                _ => results.bound(),
            };
            match pool.expand() {
                Some(entry) if entry < bound => {
                    todo.clear();
                    gather(view.links, node_of(entry), view.nodes, visited, todo);
                }
                // Matching rows may lie behind a crowd of others that filled the frontier.
                _ => {
                    stats.visited += seen as u32;
                    return lost >= bound;
                }
            }
        }
    }
}

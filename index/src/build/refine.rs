//! Layer 0 after the first graph: candidates from searches, the HNSW selection rule, reverse links, and repair.
//!
//! Every pass reads the old links and writes new ones, so its result does not depend on the number of threads.

use rayon::prelude::*;

use super::points::Points;
use crate::IndexError;
use crate::scratch::{Pool, Scratch, node_of};
use crate::walk::{LinkView, NO_LINK, Stop, walk};

/// Owned link rows.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    pub(crate) bytes: Vec<u8>,
    pub(crate) degree: usize,
}

impl Links {
    pub(crate) fn new(count: u32, degree: usize) -> Self {
        Self { bytes: vec![0xFF; count as usize * degree * 4], degree }
    }

    pub(crate) fn from_lists(lists: &[Vec<u32>], degree: usize) -> Self {
        let mut links = Self::new(lists.len() as u32, degree);
        for (i, list) in lists.iter().enumerate() {
            links.set(i as u32, list);
        }
        links
    }

    pub(crate) fn view(&self) -> LinkView<'_> {
        LinkView { bytes: &self.bytes, degree: self.degree }
    }

    /// Replaces a node's links; those beyond `degree` are dropped.
    pub(crate) fn set(&mut self, node: u32, list: &[u32]) {
        let width = self.degree * 4;
        let start = node as usize * width;
        if let Some(row) = self.bytes.get_mut(start..start + width) {
            for (i, to) in row.chunks_exact_mut(4).enumerate() {
                to.copy_from_slice(&list.get(i).copied().unwrap_or(NO_LINK).to_le_bytes());
            }
        }
    }
}

/// How links are chosen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    /// Most links of a node.
    pub(crate) degree: usize,
    /// A candidate is dropped when `alpha` times its distance to a chosen one is below its distance to the node.
    pub(crate) alpha: f32,
    /// Fills up to this many links with the nearest dropped candidates.
    pub(crate) fill: usize,
}

/// Most links from a point to copies of itself.
const COPIES: usize = 4;

/// Working memory of one thread.
#[derive(Debug, Default)]
pub(crate) struct Chooser {
    pub(crate) scratch: Scratch,
    candidates: Vec<u64>,
    distances: Vec<(f32, u32)>,
    chosen: Vec<u32>,
    dropped: Vec<u32>,
}

impl Chooser {
    /// Chooses links for `point` from `candidates` (any order, duplicates and the point itself allowed).
    pub(crate) fn choose(
        &mut self,
        points: &Points,
        point: u32,
        candidates: &[u32],
        how: Selection,
    ) -> &[u32] {
        let view = points.view();
        let Self { scratch, candidates: keys, distances, chosen, dropped } = self;
        scratch.batch(candidates.len().max(how.degree));
        let Scratch { query, visited, dots, estimates, todo, .. } = scratch;
        visited.start(points.count as usize);
        visited.insert(point);
        todo.clear();
        todo.extend(candidates.iter().copied().filter(|c| visited.insert(*c)));
        let fixed = points.query(point, query);
        view.estimates(query, todo, dots, estimates);
        keys.clear();
        keys.extend(todo.iter().zip(estimates.iter()).map(|(c, e)| Pool::key((fixed + e).max(0.0), *c)));
        keys.sort_unstable();
        distances.clear();
        distances.extend(keys.iter().map(|k| (key_distance(*k), node_of(*k))));
        chosen.clear();
        dropped.clear();
        let mut copies = 0;
        for (distance, candidate) in distances.iter() {
            if chosen.len() >= how.degree {
                break;
            }
            // Copies of the point lead nowhere new, and the rule below never drops them.
            if *distance == 0.0 {
                copies += 1;
                if copies > COPIES {
                    continue;
                }
            }
            let mut keep = true;
            let fixed = points.query(*candidate, query);
            for few in chosen.chunks(4) {
                view.estimates(query, few, dots, estimates);
                if estimates.iter().take(few.len()).any(|e| how.alpha * (fixed + e).max(0.0) < *distance) {
                    keep = false;
                    break;
                }
            }
            if keep {
                chosen.push(*candidate);
            } else if dropped.len() < how.fill {
                dropped.push(*candidate);
            }
        }
        let missing = how.fill.min(how.degree).saturating_sub(chosen.len());
        chosen.extend(dropped.iter().take(missing));
        chosen
    }
}

/// The distance in a pool key of a distance that is not negative.
fn key_distance(key: u64) -> f32 {
    f32::from_bits((key >> 32) as u32 & !(1 << 31))
}

/// For every node the nodes that link to it, ascending.
pub(crate) fn reversed(lists: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut back = vec![Vec::new(); lists.len()];
    for (from, list) in lists.iter().enumerate() {
        for to in list {
            if let Some(b) = back.get_mut(*to as usize) {
                b.push(from as u32);
            }
        }
    }
    back
}

/// One pass: each node chooses among what a search for it finds, its links and its back links; then again among
/// what chose it. `tick` as in `build_base`.
pub(crate) fn pass(
    points: &Points,
    lists: &[Vec<u32>],
    found: impl Fn(u32, &mut Scratch, &mut Vec<u32>) + Sync,
    how: Selection,
    tick: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Vec<u32>>, IndexError> {
    let back = reversed(lists);
    let forward: Vec<Vec<u32>> = (0..points.count)
        .into_par_iter()
        .map_init(
            || (Chooser::default(), Vec::new()),
            |(chooser, candidates), point| {
                if !tick() {
                    return Err(IndexError::Cancelled);
                }
                candidates.clear();
                found(point, &mut chooser.scratch, candidates);
                candidates.extend(lists.get(point as usize).into_iter().flatten());
                candidates.extend(back.get(point as usize).into_iter().flatten());
                Ok(chooser.choose(points, point, candidates, how).to_vec())
            },
        )
        .collect::<Result<_, _>>()?;
    drop(back);
    Ok(with_reverse(points, &forward, how))
}

/// Adds the reverse of every link, choosing again where a node gets too many.
pub(crate) fn with_reverse(points: &Points, forward: &[Vec<u32>], how: Selection) -> Vec<Vec<u32>> {
    let back = reversed(forward);
    forward
        .par_iter()
        .zip(back)
        .enumerate()
        .map_init(
            || (Chooser::default(), Vec::new()),
            |(chooser, all), (point, (own, back))| {
                all.clear();
                all.extend_from_slice(own);
                for b in back {
                    if !all.contains(&b) {
                        all.push(b);
                    }
                }
                if all.len() <= how.degree {
                    return all.clone();
                }
                chooser.choose(points, point as u32, all, how).to_vec()
            },
        )
        .collect()
}

/// Makes every node reachable from `entry`, in at most as many rounds as there are unreachable nodes.
///
/// A node out of reach is linked from the nearest reachable node a search finds. Where that node is full, a link is
/// replaced that the breadth-first tree does not use, so nothing else gets out of reach.
pub(crate) fn repair(points: &Points, links: &mut Links, entry: u32, ef: usize) -> u32 {
    let count = points.count;
    let mut parent = vec![NO_LINK; count as usize];
    let mut queue = Vec::new();
    reach(links, &mut parent, &mut queue, entry, entry);
    let mut repaired = 0;
    let mut scratch = Scratch::new();
    for lost in 0..count {
        if parent.get(lost as usize).is_none_or(|p| *p != NO_LINK) {
            continue;
        }
        points.query(lost, &mut scratch.query);
        walk(links.view(), count, points.view(), &[entry], Stop::plain(ef), &mut scratch);
        let near: Vec<u32> = scratch.pool.nodes().collect();
        let hosts = near.into_iter().chain(0..count);
        for host in hosts {
            if host == lost || parent.get(host as usize).is_none_or(|p| *p == NO_LINK) {
                continue;
            }
            if attach(links, &parent, host, lost) {
                repaired += 1;
                reach(links, &mut parent, &mut queue, lost, host);
                break;
            }
        }
    }
    repaired
}

/// Adds the link `host -> lost`, in a free place or in that of the last link that is not a tree edge.
fn attach(links: &mut Links, parent: &[u32], host: u32, lost: u32) -> bool {
    let mut list: Vec<u32> = links.view().row(host).collect();
    if list.contains(&lost) {
        return false;
    }
    if list.len() >= links.degree {
        match list.iter().rposition(|to| parent.get(*to as usize).is_none_or(|p| *p != host)) {
            Some(at) => list.remove(at),
            None => return false,
        };
    }
    list.push(lost);
    links.set(host, &list);
    true
}

/// Breadth-first from `start`, recording each newly reached node's parent.
fn reach(links: &Links, parent: &mut [u32], queue: &mut Vec<u32>, start: u32, from: u32) {
    queue.clear();
    if let Some(p) = parent.get_mut(start as usize) {
        *p = from;
        queue.push(start);
    }
    let mut at = 0;
    while let Some(node) = queue.get(at).copied() {
        at += 1;
        for to in links.view().row(node) {
            if let Some(p) = parent.get_mut(to as usize)
                && *p == NO_LINK
            {
                *p = node;
                queue.push(to);
            }
        }
    }
}

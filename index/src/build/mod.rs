//! From rows to a search image.
//!
//! 1. Rows are coded ([`points`]); the codes are what distances are computed from and what the image stores.
//! 2. hnsw_rs builds graphs ([`base`]): the points, shuffled by the seed, are dealt to parts, each built serially and all
//!    side by side; and one over a sixteenth of the points, which becomes the upper layers.
//! 3. The parts become one graph, and the graph gets better ([`refine`]): every point is searched for, and chooses its
//!    links again among what it finds, what it has and what links to it.
//! 4. Nodes are numbered: upper layers first, then breadth first, so that neighbours lie close together. Nodes out of
//!    reach are linked, and every node must find itself.
//! 5. Layer A is clustered ([`coarse`]) and everything is written down.
//!
//! The number of parts depends on the number of points alone, each part is serial and each pass reads old links and
//! writes new ones, so the same rows, parameters and seed give the same bytes on any number of threads.

mod base;
mod coarse;
mod finish;
mod points;
mod refine;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rayon::prelude::*;

use crate::scratch::Scratch;
use crate::walk::{Stop, walk};
use crate::{IndexError, Metric, ReferenceGraph, Rows};
use base::{Base, build_base};
use finish::{Origin, finish};
use points::Points;
use refine::{Links, Selection, pass, with_reverse};

/// Parameters of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildParams {
    /// Links per node on upper layers; twice as many on layer 0. 2..=64, default 16.
    pub m: usize,
    /// Effort: how many candidates a point's links are chosen from, about. 8..=4096, default 200.
    pub ef_construction: usize,
    /// Seed of the order in which points are inserted and of everything else random.
    pub seed: u64,
    /// Threads used, 1..=1024; 0 counts as 1. The result does not depend on it.
    pub threads: usize,
}

impl Default for BuildParams {
    fn default() -> Self {
        Self { m: 16, ef_construction: 200, seed: 0, threads: 1 }
    }
}

impl BuildParams {
    fn check(&self) -> Result<(), IndexError> {
        let one = |name, value: usize, ok: bool, allowed| {
            if ok { Ok(()) } else { Err(IndexError::Parameter { name, value: value as u64, allowed }) }
        };
        one("m", self.m, (2..=64).contains(&self.m), "2 to 64")?;
        one(
            "ef_construction",
            self.ef_construction,
            (8..=4096).contains(&self.ef_construction),
            "8 to 4096",
        )?;
        one("threads", self.threads, self.threads <= 1024, "at most 1024")
    }
}

/// Told about the advance of a long job, from any of its threads.
pub trait Progress: Sync {
    /// Called now and then with work done and work in all, in units of their own; `false` cancels the job.
    fn step(&self, done: u64, total: u64) -> bool;
}

/// Ignores progress and never cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn step(&self, _done: u64, _total: u64) -> bool {
        true
    }
}

/// Steps between two reports.
const REPORT_EVERY: u64 = 256;

/// Counts steps of all threads and passes them on, one report at a time.
struct Ticker<'a> {
    progress: &'a dyn Progress,
    done: AtomicU64,
    total: u64,
    cancelled: AtomicBool,
    report: Mutex<()>,
}

impl<'a> Ticker<'a> {
    fn new(progress: &'a dyn Progress, total: u64) -> Self {
        Self {
            progress,
            done: AtomicU64::new(0),
            total,
            cancelled: AtomicBool::new(false),
            report: Mutex::new(()),
        }
    }

    /// One step; false when the job is to stop.
    fn tick(&self) -> bool {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if done % REPORT_EVERY == 0 || done == self.total {
            let _one = self.report.lock();
            if !self.progress.step(done.min(self.total), self.total) {
                self.cancelled.store(true, Ordering::Relaxed);
            }
        }
        !self.cancelled.load(Ordering::Relaxed)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, the same everywhere.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number in `0..limit`; 0 when `limit` is 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next()) * limit as u128) >> 64) as usize
    }
}

/// Where a graph comes from and what it is for.
struct Job<'a> {
    rows: &'a dyn Rows,
    dim: usize,
    live: &'a [u32],
    metric: Metric,
    coverage: [u8; 32],
    covered_rows: u32,
    params: BuildParams,
}

impl Job<'_> {
    fn check(&self) -> Result<(), IndexError> {
        self.params.check()?;
        if self.dim == 0 || self.dim > 65_535 {
            return Err(IndexError::Parameter { name: "dim", value: self.dim as u64, allowed: "1 to 65535" });
        }
        if self.live.len() >= 1 << 31 {
            return Err(IndexError::Parameter {
                name: "live",
                value: self.live.len() as u64,
                allowed: "below 2^31 rows",
            });
        }
        // Ordinals must be covered rows, each once: ascending order (file order) shows it at a glance.
        if let Some(w) = self.live.windows(2).find(|w| w[0] >= w[1]) {
            return Err(IndexError::Graph(format!(
                "live ordinals are not ascending at {} and {}",
                w[0], w[1]
            )));
        }
        match self.live.last() {
            Some(last) if *last >= self.covered_rows || *last >= self.rows.len() => {
                Err(IndexError::Row { ordinal: *last, dim: self.dim })
            }
            _ => Ok(()),
        }
    }
}

/// Builds a search image over the live rows: the payload, ready to be opened by [`Image`](crate::Image).
///
/// `live` holds row ordinals in ascending (file) order; `covered_rows` is the number of rows of the table, which is what
/// the image covers, live or not; `coverage` is any digest by which the caller recognises those rows later.
/// The same input gives the same bytes, whatever `threads` is. About O(n log n) distances; memory about
/// n x (2 x dim + 1,000) bytes while it runs.
///
/// # Errors
/// [`IndexError::Parameter`] (caller), [`IndexError::Row`] and [`IndexError::Graph`] (corruption: ordinals that are not
/// in the table or out of order), [`IndexError::Cancelled`], [`IndexError::Worker`] (environment).
#[expect(clippy::too_many_arguments, reason = "each is a separate fact of the store")]
pub fn build(
    rows: &dyn Rows,
    dim: usize,
    live: &[u32],
    metric: Metric,
    coverage: [u8; 32],
    covered_rows: u32,
    params: &BuildParams,
    progress: &dyn Progress,
) -> Result<Vec<u8>, IndexError> {
    let job = Job { rows, dim, live, metric, coverage, covered_rows, params: *params };
    job.check()?;
    pool(params.threads)?.install(|| build_in_pool(&job, progress))
}

/// Makes a search image from a reference index's graph, without building one: codes, layer A, repair of what is out of
/// reach. Much faster than [`build`]; its recall is that of the graph given.
///
/// `graph` must be over exactly the rows `live` names, in any order.
///
/// # Errors
/// [`IndexError::Graph`] (corruption) when the graph contradicts itself or the rows; else as [`build`].
pub fn from_graph(
    rows: &dyn Rows,
    dim: usize,
    live: &[u32],
    metric: Metric,
    coverage: [u8; 32],
    covered_rows: u32,
    graph: &ReferenceGraph,
) -> Result<Vec<u8>, IndexError> {
    let params = BuildParams {
        m: usize::from(graph.m).clamp(2, 64),
        ef_construction: (graph.ef_construction as usize).clamp(8, 4096),
        seed: 0,
        threads: 1,
    };
    let job = Job { rows, dim, live, metric, coverage, covered_rows, params };
    job.check()?;
    pool(1)?.install(|| {
        let points = Points::read(rows, dim, live, metric)?;
        let origin = imported(&points, live, graph, params.m)?;
        let ticker = Ticker::new(&NoProgress, 0);
        finish(&job, points, origin, &ticker)
    })
}

fn pool(threads: usize) -> Result<rayon::ThreadPool, IndexError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|i| format!("rvf-build-{i}"))
        .build()
        .map_err(|e| IndexError::Worker(e.to_string()))
}

/// How the effort of a build is spent, for a given `ef_construction`.
#[derive(Debug, Clone, Copy)]
struct Effort {
    parts: usize,
    base_ef: usize,
    merge_ef: usize,
    refine_ef: usize,
}

impl Effort {
    fn of(count: usize, ef_construction: usize) -> Self {
        Self {
            parts: if count < 8192 { 1 } else { 2 },
            base_ef: (ef_construction / 5).max(16),
            merge_ef: (ef_construction / 5).max(16),
            refine_ef: ef_construction.max(16),
        }
    }
}

fn build_in_pool(job: &Job<'_>, progress: &dyn Progress) -> Result<Vec<u8>, IndexError> {
    let points = Points::read(job.rows, job.dim, job.live, job.metric)?;
    let count = points.count as usize;
    let effort = Effort::of(count, job.params.ef_construction);
    let upper = job.params.m;
    let per_point = if effort.parts > 1 { 4 } else { 3 };
    let ticker = Ticker::new(progress, (count * per_point + count / upper) as u64);
    let tick = || ticker.tick();

    let mut random = Random::new(job.params.seed);
    let mut order: Vec<u32> = (0..points.count).collect();
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i + 1));
    }
    // Part 0 is the graph of the upper layers, the others share all points.
    let members: Vec<Vec<u32>> = std::iter::once(order.iter().copied().take(count / upper).collect())
        .chain((0..effort.parts).map(|p| order.iter().copied().skip(p).step_by(effort.parts).collect()))
        .collect();
    let mut bases: Vec<Base> = members
        .par_iter()
        .enumerate()
        .with_max_len(1)
        .map(|(i, members)| {
            let ef = if i == 0 { effort.base_ef.max(64) } else { effort.base_ef };
            build_base(&points, members, job.params.m, ef, &tick)
        })
        .collect::<Result<_, _>>()?;
    let top = bases.remove(0);

    let degree = 2 * job.params.m;
    let how = Selection { degree, alpha: 1.0, fill: job.params.m / 2 };
    let mut lists = vec![Vec::new(); count];
    for (point, links) in bases.iter_mut().filter_map(|b| b.layers.first_mut()).flatten() {
        if let Some(list) = lists.get_mut(*point as usize) {
            *list = std::mem::take(links);
        }
    }
    let entries: Vec<u32> = bases.iter().filter_map(|b| b.entry).collect();
    drop(bases);
    let part_of = |order: &[u32]| {
        let mut part = vec![0usize; count];
        for (i, point) in order.iter().enumerate() {
            if let Some(p) = part.get_mut(*point as usize) {
                *p = i % effort.parts;
            }
        }
        part
    };
    let search = |links: &Links,
                  point: u32,
                  entries: &[u32],
                  ef: usize,
                  scratch: &mut Scratch,
                  found: &mut Vec<u32>| {
        points.query(point, &mut scratch.query);
        walk(links.view(), points.count, points.view(), entries, Stop::plain(ef), scratch);
        found.extend(scratch.pool.nodes());
    };
    if effort.parts > 1 {
        let part = part_of(&order);
        let links = Links::from_lists(&lists, degree);
        lists = pass(
            &points,
            &lists,
            |point, scratch, found| {
                for (p, entry) in entries.iter().enumerate() {
                    if part.get(point as usize) != Some(&p) {
                        search(&links, point, &[*entry], effort.merge_ef, scratch, found);
                    }
                }
            },
            how,
            &tick,
        )?;
    }
    let links = Links::from_lists(&lists, degree);
    // From afar, as a query comes: what the walk meets on its way becomes candidates for long links.
    lists = pass(
        &points,
        &lists,
        |point, scratch, found| search(&links, point, &entries, effort.refine_ef, scratch, found),
        how,
        &tick,
    )?;
    drop(links);
    let origin = Origin {
        lists,
        upper: upper_layers(&points, &top, job.params.m),
        entry: top.entry.or(entries.first().copied()).unwrap_or(0),
        degree,
        verify: true,
    };
    finish(job, points, origin, &ticker)
}

/// The layers of a graph over a sample as the layers above layer 0, with at most `m` links per node.
fn upper_layers(points: &Points, top: &Base, m: usize) -> Vec<Vec<(u32, Vec<u32>)>> {
    let how = Selection { degree: m, alpha: 1.0, fill: m / 2 };
    let mut chooser = refine::Chooser::default();
    top.layers
        .iter()
        .map(|layer| {
            let mut members: Vec<u32> = layer.iter().map(|(p, _)| *p).collect();
            members.sort_unstable();
            layer
                .iter()
                .map(|(point, links)| {
                    // hnsw_rs may link to a point that is not in the layer.
                    let inside: Vec<u32> =
                        links.iter().copied().filter(|l| members.binary_search(l).is_ok()).collect();
                    let kept = if inside.len() > m {
                        chooser.choose(points, *point, &inside, how).to_vec()
                    } else {
                        inside
                    };
                    (*point, kept)
                })
                .collect()
        })
        .collect()
}

/// A reference graph in terms of points (positions in `live`).
fn imported(points: &Points, live: &[u32], graph: &ReferenceGraph, m: usize) -> Result<Origin, IndexError> {
    let nodes = graph.ordinals.len();
    if nodes != live.len() {
        return Err(IndexError::Graph(format!("{nodes} nodes for {} live rows", live.len())));
    }
    let mut point_of = Vec::with_capacity(nodes);
    let mut taken = vec![false; nodes];
    for ordinal in &graph.ordinals {
        let point = live
            .binary_search(ordinal)
            .map_err(|_| IndexError::Graph(format!("row {ordinal} is not live")))?;
        match taken.get_mut(point) {
            Some(t) if !*t => *t = true,
            _ => return Err(IndexError::Graph(format!("row {ordinal} is there twice"))),
        }
        point_of.push(point as u32);
    }
    if graph
        .layers
        .iter()
        .any(|l| l.offsets.len() != nodes + 1 || l.links.iter().any(|t| *t as usize >= nodes))
    {
        return Err(IndexError::Graph("a layer's offsets or links are out of range".into()));
    }
    let degree = usize::from(graph.m0).clamp(2 * m, 128).next_multiple_of(16);
    let row = |layer: &crate::Csr, node: usize| -> Vec<u32> {
        layer
            .row(node)
            .iter()
            .filter(|t| **t as usize != node)
            .filter_map(|t| point_of.get(*t as usize).copied())
            .collect()
    };
    let how = Selection { degree, alpha: 1.0, fill: degree };
    let mut lists = vec![Vec::new(); nodes];
    let mut chooser = refine::Chooser::default();
    if let Some(layer) = graph.layers.first() {
        for (node, point) in point_of.iter().enumerate() {
            let links = row(layer, node);
            let kept = if links.len() > degree {
                chooser.choose(points, *point, &links, how).to_vec()
            } else {
                links
            };
            if let Some(list) = lists.get_mut(*point as usize) {
                *list = kept;
            }
        }
    }
    // A graph with links one way only would leave nodes that nothing leads to.
    let lists = with_reverse(points, &lists, how);
    let mut upper: Vec<Vec<(u32, Vec<u32>)>> = Vec::new();
    for (level, layer) in graph.layers.iter().enumerate().skip(1) {
        let inside = |node: usize| graph.layer_counts.get(node).is_some_and(|c| usize::from(*c) > level);
        let members: Vec<(u32, Vec<u32>)> = (0..nodes)
            .filter(|n| inside(*n))
            .filter_map(|n| {
                let mut links: Vec<u32> = layer
                    .row(n)
                    .iter()
                    .filter(|t| **t as usize != n && inside(**t as usize))
                    .filter_map(|t| point_of.get(*t as usize).copied())
                    .collect();
                let point = *point_of.get(n)?;
                if links.len() > m {
                    links = chooser.choose(points, point, &links, Selection { degree: m, ..how }).to_vec();
                }
                Some((point, links))
            })
            .collect();
        if members.is_empty() || upper.len() >= crate::image::layout::MAX_UPPER {
            break;
        }
        upper.push(members);
    }
    let entry = graph.entry.and_then(|e| point_of.get(e as usize).copied()).unwrap_or(0);
    Ok(Origin { lists, upper, entry, degree, verify: true })
}

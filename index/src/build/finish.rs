//! From a graph over points to the bytes of an image: numbering, repair, self-search, layer A, sections.

use rayon::prelude::*;
use zerocopy::IntoBytes;

use super::coarse::coarse;
use super::points::Points;
use super::refine::{Links, repair};
use super::{Job, Ticker};
use crate::codes::{Line, QueryCode, clamp, components};
use crate::image::layout::{ALIGN, Header, MAGIC, MAX_UPPER, VERSION, assemble};
use crate::scratch::Scratch;
use crate::walk::{LinkView, NO_LINK, Stop, descend, walk};
use crate::{IndexError, default_ef};

/// A graph over points.
#[derive(Debug, Default)]
pub(crate) struct Origin {
    /// Layer 0.
    pub(crate) lists: Vec<Vec<u32>>,
    /// Layers 1.. : members and their links.
    pub(crate) upper: Vec<Vec<(u32, Vec<u32>)>>,
    pub(crate) entry: u32,
    pub(crate) degree: usize,
    /// Make every node find itself.
    pub(crate) verify: bool,
}

/// `ef` of the repair's searches.
const REPAIR_EF: usize = 128;
/// Rounds of linking what does not find itself.
const SELF_ROUNDS: usize = 3;

pub(crate) fn finish(
    job: &Job<'_>,
    points: Points,
    origin: Origin,
    ticker: &Ticker<'_>,
) -> Result<Vec<u8>, IndexError> {
    let count = points.count;
    let Origin { lists, mut upper, entry, degree, verify } = origin;
    upper.truncate(MAX_UPPER);
    // Layers must be nested: a node of a layer is in all below.
    let order = numbering(&lists, &upper, entry);
    let mut node_of_point = vec![0u32; count as usize];
    for (node, point) in order.iter().enumerate() {
        if let Some(n) = node_of_point.get_mut(*point as usize) {
            *n = node as u32;
        }
    }
    let renumber = |list: &[u32]| -> Vec<u32> {
        list.iter().filter_map(|p| node_of_point.get(*p as usize).copied()).collect()
    };
    let points = points.reordered(&order);
    let mut links = Links::new(count, degree);
    for (node, point) in order.iter().enumerate() {
        links.set(node as u32, &lists.get(*point as usize).map(|l| renumber(l)).unwrap_or_default());
    }
    drop(lists);
    let upper_links: Vec<Links> = upper
        .iter()
        .map(|layer| {
            let mut table = Links::new(layer.len() as u32, job.params.m);
            for (point, list) in layer {
                if let Some(node) = node_of_point.get(*point as usize) {
                    table.set(*node, &renumber(list));
                }
            }
            table
        })
        .collect();
    let entry = node_of_point.get(entry as usize).copied().unwrap_or(0);
    if count > 0 {
        repair(&points, &mut links, entry, REPAIR_EF);
    }
    if verify && count > 1 {
        self_search(job, &points, &order, &mut links, &upper_links, entry, ticker)?;
    }

    let ordinals: Vec<u32> = order.iter().filter_map(|p| job.live.get(*p as usize).copied()).collect();
    let mut node_of_ordinal = vec![NO_LINK; job.covered_rows as usize];
    for (node, ordinal) in ordinals.iter().enumerate() {
        if let Some(n) = node_of_ordinal.get_mut(*ordinal as usize) {
            *n = node as u32;
        }
    }
    let mut ids: Vec<(u64, u32)> =
        ordinals.iter().enumerate().map(|(n, o)| (job.rows.id(*o), n as u32)).collect();
    ids.sort_unstable();
    let a = coarse(job.rows, &points.centre, job.live, job.metric, job.params.seed);
    let mut upper_bytes = Vec::new();
    for table in &upper_links {
        upper_bytes.extend_from_slice(&table.bytes);
        upper_bytes.resize(upper_bytes.len().next_multiple_of(ALIGN), 0xFF);
    }
    let (min_norm, radius) = (points.min_norm(), points.radius());
    let header = Header {
        magic: MAGIC,
        version: VERSION.into(),
        metric: job.metric.code(),
        reserved_a: [0; 3],
        dim: (job.dim as u32).into(),
        stride: (points.stride as u32).into(),
        nodes: count.into(),
        covered_rows: job.covered_rows.into(),
        degree: (degree as u32).into(),
        degree_upper: (job.params.m as u32).into(),
        m: (job.params.m as u32).into(),
        ef_construction: (job.params.ef_construction as u32).into(),
        entry: entry.into(),
        centroids: a.count.into(),
        len: 0.into(),
        checksum: [0; 16],
        coverage: job.coverage,
        min_norm: (min_norm.min(1e38) as f32).into(),
        radius: (radius.min(1e38) as f32).into(),
        upper_counts: std::array::from_fn(|i| (upper.get(i).map_or(0, |l| l.len() as u32)).into()),
        reserved_b: [0; 4],
        sections: Default::default(),
        reserved_c: [0; 104],
    };
    let le = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let id_bytes: Vec<u8> = ids.iter().flat_map(|(id, _)| id.to_le_bytes()).collect();
    let id_nodes: Vec<u8> = ids.iter().flat_map(|(_, node)| node.to_le_bytes()).collect();
    let centre: Vec<u8> = points.centre.iter().flat_map(|c| c.to_le_bytes()).collect();
    Ok(assemble(
        header,
        [
            &centre,
            a.codes.as_bytes(),
            &a.factors,
            &a.offsets,
            &a.rows,
            &upper_bytes,
            &links.bytes,
            points.lines.as_bytes(),
            &points.scale,
            &points.bias,
            &le(&ordinals),
            &le(&node_of_ordinal),
            &id_bytes,
            &id_nodes,
        ],
    ))
}

/// Points in node order: by level, the highest first, and breadth first from the entry within a level.
fn numbering(lists: &[Vec<u32>], upper: &[Vec<(u32, Vec<u32>)>], entry: u32) -> Vec<u32> {
    let mut level = vec![0u8; lists.len()];
    for (l, layer) in upper.iter().enumerate() {
        for (point, _) in layer {
            if let Some(to) = level.get_mut(*point as usize) {
                *to = l as u8 + 1;
            }
        }
    }
    let mut seen = vec![false; lists.len()];
    let mut order: Vec<u32> = Vec::with_capacity(lists.len());
    for start in std::iter::once(entry).chain(0..lists.len() as u32) {
        match seen.get_mut(start as usize) {
            Some(s) if !*s => *s = true,
            _ => continue,
        }
        let mut at = order.len();
        order.push(start);
        while let Some(point) = order.get(at).copied() {
            at += 1;
            for to in lists.get(point as usize).into_iter().flatten() {
                if let Some(s) = seen.get_mut(*to as usize)
                    && !*s
                {
                    *s = true;
                    order.push(*to);
                }
            }
        }
    }
    order.sort_by_key(|p| std::cmp::Reverse(level.get(*p as usize).copied().unwrap_or(0)));
    order
}

/// Searches for every node's row as a query would, with the same codes, entry and end; those that do not come out get
/// a link from the nearest that did.
fn self_search(
    job: &Job<'_>,
    points: &Points,
    order: &[u32],
    links: &mut Links,
    upper: &[Links],
    entry: u32,
    ticker: &Ticker<'_>,
) -> Result<(), IndexError> {
    let centre: Vec<u8> = points.centre.iter().flat_map(|c| c.to_le_bytes()).collect();
    let radius = clamp(points.radius());
    let mut ask: Vec<u32> = (0..points.count).collect();
    for round in 0..SELF_ROUNDS {
        let view = links.view();
        let lost: Vec<(u32, Vec<u32>)> = ask
            .par_iter()
            .map_init(
                || (Scratch::new(), Vec::new()),
                |(scratch, q), node| {
                    if round == 0 && !ticker.tick() {
                        return Err(IndexError::Cancelled);
                    }
                    let ordinal = order.get(*node as usize).and_then(|p| job.live.get(*p as usize));
                    q.clear();
                    q.extend(ordinal.into_iter().flat_map(|o| components(job.rows.vector(*o), job.dim)));
                    if q.len() != job.dim || q.iter().any(|v| !v.is_finite()) {
                        return Ok(None);
                    }
                    scratch.query.set(job.metric, q, &centre);
                    let stop = Stop::of(job.metric, 1, default_ef(1), &scratch.query, radius);
                    let start = enter(points, upper, entry, scratch);
                    walk(view, points.count, points.search_view(), &[start], stop, scratch);
                    // Rows nearer than the row itself (inner product, copies) may fill the answer: then it is not lost.
                    let own = own_estimate(points, *node, &scratch.query) + stop.slack;
                    let found = scratch.pool.nodes().any(|n| n == *node)
                        || scratch.pool.kth(stop.k).is_some_and(|kth| kth <= own);
                    Ok((!found).then(|| (*node, scratch.pool.nodes().take(REPAIR_EF).collect())))
                },
            )
            .collect::<Result<Vec<Option<_>>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        if lost.is_empty() {
            break;
        }
        for (node, near) in &lost {
            for host in near.iter().take(4) {
                let mut list: Vec<u32> = links.view().row(*host).collect();
                if list.contains(node) || host == node {
                    continue;
                }
                // The last place goes first: lists are ordered by worth.
                if list.len() >= links.degree {
                    list.pop();
                }
                list.push(*node);
                links.set(*host, &list);
            }
        }
        // A replaced link may have been the only way to some node.
        repair(points, links, entry, REPAIR_EF);
        ask = lost.into_iter().map(|(node, _)| node).collect();
    }
    Ok(())
}

fn own_estimate(points: &Points, node: u32, query: &QueryCode) -> f32 {
    let (mut dots, mut estimates) = ([0; 1], [0.0; 1]);
    points.search_view().estimates(query, &[node], &mut dots, &mut estimates);
    estimates[0]
}

/// The descent of a search, over tables not yet written down.
fn enter(points: &Points, upper: &[Links], entry: u32, scratch: &mut Scratch) -> u32 {
    let mut at = entry;
    for table in upper.iter().rev() {
        scratch.batch(table.degree);
        let count = (table.bytes.len() / (table.degree * 4)) as u32;
        let Scratch { query, todo, dots, estimates, .. } = scratch;
        let layer = LinkView { bytes: &table.bytes, degree: table.degree };
        at = descend(layer, count, points.search_view(), query, at, todo, dots, estimates).0;
    }
    at
}

impl Points {
    /// The points renumbered: point `i` becomes what was `order[i]`.
    fn reordered(self, order: &[u32]) -> Self {
        let lines: Vec<Line> = order.iter().flat_map(|p| self.code_lines(*p).iter().copied()).collect();
        let pick = |bytes: &[u8]| -> Vec<u8> {
            if bytes.is_empty() {
                return Vec::new();
            }
            order.iter().flat_map(|p| crate::codes::f32_at(bytes, *p).to_le_bytes()).collect()
        };
        let (scale, bias, pair_bias) = (pick(&self.scale), pick(&self.bias), pick(&self.pair_bias));
        let numbers = order.iter().filter_map(|p| self.numbers.get(*p as usize).copied()).collect();
        let factors = order.iter().map(|p| self.factors(*p)).collect();
        let corrections = order.iter().filter_map(|p| self.corrections.get(*p as usize).copied()).collect();
        Self { lines, scale, bias, pair_bias, numbers, factors, corrections, ..self }
    }
}

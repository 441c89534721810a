//! Layer A: coarse centroids and the rows nearest to each.

use rayon::prelude::*;

use super::Random;
use crate::Metric;
use crate::Rows;
use crate::codes::{CodeView, Line, QueryCode, clamp, code_row, components, stride_of};
use crate::scratch::Pool;
use crate::simd::{CodeTable, kernels};

/// Layer A's four sections.
#[derive(Default)]
pub(crate) struct Coarse {
    pub(crate) count: u32,
    pub(crate) codes: Vec<Line>,
    pub(crate) factors: Vec<u8>,
    pub(crate) offsets: Vec<u8>,
    pub(crate) rows: Vec<u8>,
}

/// Rows that take part in the training per centroid.
const SAMPLE_PER_CENTROID: usize = 32;
/// Rounds of Lloyd's algorithm; more gain little for lists this coarse.
const ROUNDS: usize = 4;

struct Centroids {
    dim: usize,
    lines: Vec<Line>,
    scale: Vec<u8>,
    bias: Vec<u8>,
}

impl Centroids {
    fn new(metric: Metric, centre: &[f32], vectors: &[Vec<f32>]) -> Self {
        let dim = centre.len();
        let stride = stride_of(dim);
        let mut lines = vec![Line([0; 64]); vectors.len() * stride / 64];
        let (mut scale, mut bias) = (Vec::new(), Vec::new());
        for (to, v) in lines.chunks_mut(stride / 64).zip(vectors) {
            let row: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
            let numbers = code_row(metric, &row, centre, zerocopy::IntoBytes::as_mut_bytes(to));
            scale.extend(clamp(numbers.step).to_le_bytes());
            if metric == Metric::L2 {
                bias.extend(clamp(numbers.coded2).to_le_bytes());
            }
        }
        Self { dim, lines, scale, bias }
    }

    fn view(&self) -> CodeView<'_> {
        CodeView {
            table: CodeTable {
                bytes: zerocopy::IntoBytes::as_bytes(self.lines.as_slice()),
                stride: stride_of(self.dim),
            },
            scale: &self.scale,
            bias: &self.bias,
            kernels: kernels(),
        }
    }
}

/// Nearest centroid of each row, as pool keys.
fn assign(
    metric: Metric,
    centre: &[f32],
    rows: &dyn Rows,
    live: &[u32],
    centroids: &Centroids,
    all: &[u32],
) -> Vec<u64> {
    let bytes: Vec<u8> = centre.iter().flat_map(|c| c.to_le_bytes()).collect();
    live.par_iter()
        .map_init(
            || (QueryCode::default(), vec![0i32; all.len()], vec![0.0f32; all.len()], Vec::new()),
            |(query, dots, estimates, q), ordinal| {
                q.clear();
                q.extend(values(rows.vector(*ordinal), centre.len()));
                query.set(metric, q, &bytes);
                centroids.view().estimates(query, all, dots, estimates);
                all.iter().zip(estimates.iter()).map(|(c, e)| Pool::key(*e, *c)).min().unwrap_or(0)
            },
        )
        .collect()
}

/// A row's components, with those that are not finite as zero.
fn values(row: &[u8], dim: usize) -> impl Iterator<Item = f32> + '_ {
    components(row, dim).map(|v| if v.is_finite() { v } else { 0.0 })
}

/// Clusters the live rows into about sqrt(rows) lists. O(rows x sqrt(rows) x dim) bytes of codes compared.
///
/// Centroids are coded around `centre` like everything else.
pub(crate) fn coarse(rows: &dyn Rows, centre: &[f32], live: &[u32], metric: Metric, seed: u64) -> Coarse {
    let dim = centre.len();
    if live.is_empty() {
        return Coarse { offsets: vec![0; 4], ..Coarse::default() };
    }
    // Direction is what matters to an inner product: its lists are those of the cosine.
    let by = if metric == Metric::InnerProduct { Metric::Cosine } else { metric };
    let count = ((live.len() as f64).sqrt() as usize).clamp(1, 4096).min(live.len());
    let mut random = Random::new(seed ^ 0x00C0_A53E);
    let mut sample: Vec<u32> = live.to_vec();
    let wanted = (count * SAMPLE_PER_CENTROID).min(sample.len());
    for i in 0..wanted {
        let j = i + random.below(sample.len() - i);
        sample.swap(i, j);
    }
    sample.truncate(wanted);
    let mut centres: Vec<Vec<f32>> =
        sample.iter().take(count).map(|o| values(rows.vector(*o), dim).collect()).collect();
    let all: Vec<u32> = (0..count as u32).collect();
    for _ in 0..ROUNDS {
        let near = assign(by, centre, rows, &sample, &Centroids::new(by, centre, &centres), &all);
        let mut sums = vec![vec![0.0f64; dim]; count];
        let mut sizes = vec![0u32; count];
        for (ordinal, key) in sample.iter().zip(near) {
            let c = crate::scratch::node_of(key) as usize;
            let (Some(sum), Some(size)) = (sums.get_mut(c), sizes.get_mut(c)) else { continue };
            *size += 1;
            let row: Vec<f32> = values(rows.vector(*ordinal), dim).collect();
            let norm = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
            let weight = if by == Metric::Cosine && norm > 0.0 { 1.0 / norm } else { 1.0 };
            for (s, v) in sum.iter_mut().zip(row) {
                *s += f64::from(v) * weight;
            }
        }
        for ((centre, sum), size) in centres.iter_mut().zip(sums).zip(sizes) {
            // A centroid nobody chose stays where it is.
            if size > 0 {
                *centre = sum.iter().map(|s| clamp(*s / f64::from(size))).collect();
            }
        }
    }
    let centroids = Centroids::new(by, centre, &centres);
    let near = assign(by, centre, rows, live, &centroids, &all);
    let mut order: Vec<(u32, u64, u32)> =
        live.iter().zip(near).map(|(ordinal, key)| (crate::scratch::node_of(key), key, *ordinal)).collect();
    order.sort_unstable();
    let mut offsets = Vec::with_capacity((count + 1) * 4);
    for c in 0..=count as u32 {
        offsets.extend((order.partition_point(|(of, _, _)| *of < c) as u32).to_le_bytes());
    }
    let lists = order.iter().flat_map(|(_, _, ordinal)| ordinal.to_le_bytes()).collect();
    let mut factors = centroids.scale;
    factors.extend(centroids.bias);
    Coarse { count: count as u32, codes: centroids.lines, factors, offsets, rows: lists }
}

//! The rows of a build as codes, with the factors that turn dots of codes into distances between rows.
//!
//! Building needs a distance that is never negative and behaves like one between points. L2 (squared) and cosine do.
//! An inner product does not, so rows get one more coordinate, `sqrt(M^2 - norm^2)`, that puts them all on a sphere of
//! radius `M`, where the distance `M^2 - dot - x(u) x(v)` orders them as their products with any query would
//! (Bachrach et al. 2014, "Speeding up the Xbox recommender system using a Euclidean transformation"). `M` is the
//! 99.9th percentile of the norms, so that one huge row cannot flatten all others; longer rows get 0.

use rayon::prelude::*;
use zerocopy::IntoBytes;

use crate::codes::{
    CodeView, Line, QueryCode, RowNumbers, TINY_NORM, clamp, code_row, components, correction, stride_of,
    weight,
};
use crate::simd::{CodeTable, Kernels, kernels};
use crate::{IndexError, Metric, Rows};

/// Codes and factors of the points `0..count`, in the order of the live ordinals.
pub(crate) struct Points {
    pub(super) metric: Metric,
    pub(crate) count: u32,
    pub(crate) stride: usize,
    pub(crate) lines: Vec<Line>,
    /// What codes are relative to.
    pub(crate) centre: Vec<f32>,
    /// Factor of a point in estimates (see `codes`), little-endian.
    pub(crate) scale: Vec<u8>,
    /// What searches add: the squared norm of what is coded for L2, else empty.
    pub(crate) bias: Vec<u8>,
    /// What distances between points add: the squared norm of what is coded for L2, half of it for cosine, the sphere
    /// coordinate for inner product.
    pub(crate) pair_bias: Vec<u8>,
    pub(super) numbers: Vec<RowNumbers>,
    pub(super) factors: Vec<Factors>,
    pub(super) corrections: Vec<i32>,
    /// Squared radius of the sphere (inner product).
    pub(super) radius2: f64,
    pub(super) kernels: &'static Kernels,
}

impl Points {
    /// Reads and codes the live rows. O(rows x dim).
    pub(crate) fn read(
        rows: &dyn Rows,
        dim: usize,
        live: &[u32],
        metric: Metric,
    ) -> Result<Self, IndexError> {
        let stride = stride_of(dim);
        let per_row = stride / 64;
        if let Some(ordinal) = live.iter().find(|o| **o >= rows.len() || rows.vector(**o).len() < dim * 4) {
            return Err(IndexError::Row { ordinal: *ordinal, dim });
        }
        let centre = centre(rows, dim, live, metric);
        let mut lines = vec![Line([0; 64]); live.len() * per_row];
        let numbers: Vec<RowNumbers> = lines
            .par_chunks_mut(per_row)
            .zip(live)
            .map(|(to, ordinal)| code_row(metric, rows.vector(*ordinal), &centre, to.as_mut_bytes()))
            .collect();
        let scale = numbers.iter().flat_map(|n| clamp(n.step).to_le_bytes()).collect();
        let squares = |share: f64| {
            numbers.iter().flat_map(|n| clamp(n.coded2 * share).to_le_bytes()).collect::<Vec<u8>>()
        };
        let (mut radius2, mut bias) = (0.0, Vec::new());
        let pair_bias;
        match metric {
            Metric::L2 => {
                bias = squares(1.0);
                pair_bias = bias.clone();
            }
            Metric::InnerProduct => {
                let mut norms: Vec<f64> = numbers.iter().map(|n| n.norm2).collect();
                norms.sort_unstable_by(f64::total_cmp);
                radius2 = norms
                    .get((norms.len() * 999 / 1000).min(norms.len().saturating_sub(1)))
                    .copied()
                    .unwrap_or(0.0);
                pair_bias = numbers
                    .iter()
                    .flat_map(|n| clamp((radius2 - n.norm2).max(0.0).sqrt()).to_le_bytes())
                    .collect();
            }
            // Half the squared distance of unit vectors is one less their cosine, wherever the centre is.
            Metric::Cosine => pair_bias = squares(0.5),
        }
        Ok(Self {
            metric,
            count: live.len() as u32,
            stride,
            centre,
            scale,
            bias,
            pair_bias,
            factors: numbers.iter().map(|n| factors(metric, *n, radius2)).collect(),
            corrections: lines.par_chunks(per_row).map(|code| correction(code.as_bytes())).collect(),
            lines,
            numbers,
            radius2,
            kernels: kernels(),
        })
    }

    /// Bytes of a point's code.
    pub(crate) fn code(&self, point: u32) -> &[u8] {
        self.lines
            .as_bytes()
            .get(point as usize * self.stride..(point as usize + 1) * self.stride)
            .unwrap_or(&[])
    }

    /// Lines of a point's code.
    pub(crate) fn code_lines(&self, point: u32) -> &[Line] {
        let per_row = self.stride / 64;
        self.lines.get(point as usize * per_row..(point as usize + 1) * per_row).unwrap_or(&[])
    }

    /// For estimates of distances between points.
    pub(crate) fn view(&self) -> CodeView<'_> {
        CodeView {
            table: CodeTable { bytes: self.lines.as_bytes(), stride: self.stride },
            scale: &self.scale,
            bias: &self.pair_bias,
            kernels: self.kernels,
        }
    }

    /// Factors of a point as the one that others are compared with.
    pub(crate) fn factors(&self, point: u32) -> Factors {
        self.factors.get(point as usize).copied().unwrap_or_default()
    }

    /// For estimates of distances from queries.
    pub(crate) fn search_view(&self) -> CodeView<'_> {
        CodeView { bias: &self.bias, ..self.view() }
    }

    /// Makes a point the query of estimates between points.
    pub(crate) fn query(&self, point: u32, query: &mut QueryCode) -> f32 {
        let f = self.factors(point);
        let correction = self.corrections.get(point as usize).copied().unwrap_or(0);
        query.set_row(self.code(point), correction, f.alpha, f.beta);
        f.fixed
    }

    /// Smallest norm of the points, those below [`TINY_NORM`] not counted; infinite when there are none.
    pub(crate) fn min_norm(&self) -> f64 {
        self.numbers.iter().map(|n| n.norm2.sqrt()).filter(|n| *n >= TINY_NORM).fold(f64::INFINITY, f64::min)
    }

    /// Radius of the sphere for inner product, else the median norm of what was coded.
    pub(crate) fn radius(&self) -> f64 {
        if self.metric == Metric::InnerProduct {
            return self.radius2.sqrt();
        }
        let mut norms: Vec<f64> = self.numbers.iter().map(|n| n.coded2.sqrt()).collect();
        let middle = norms.len() / 2;
        if norms.is_empty() { 0.0 } else { *norms.select_nth_unstable_by(middle, f64::total_cmp).1 }
    }

    pub(crate) fn kernels(&self) -> &'static Kernels {
        self.kernels
    }
}

/// Distance from a point to another: `fixed + beta * bias[other] - alpha * scale[other] * dot`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Factors {
    pub(crate) fixed: f32,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
}

fn factors(metric: Metric, n: RowNumbers, radius2: f64) -> Factors {
    match metric {
        Metric::L2 => Factors { fixed: clamp(n.coded2), alpha: clamp(2.0 * n.step), beta: 1.0 },
        Metric::InnerProduct => Factors {
            fixed: clamp(radius2),
            alpha: clamp(n.step),
            beta: -clamp((radius2 - n.norm2).max(0.0).sqrt()),
        },
        Metric::Cosine => Factors { fixed: clamp(0.5 * n.coded2), alpha: clamp(n.step), beta: 1.0 },
    }
}

/// Rows that the centre is taken from, at most.
const CENTRE_SAMPLE: usize = 1024;

/// The median of each component over a sample of the rows: unlike the mean it does not follow a few huge rows. Inner
/// products are coded around the origin, because the distances of the build need the dots themselves.
fn centre(rows: &dyn Rows, dim: usize, live: &[u32], metric: Metric) -> Vec<f32> {
    let mut centre = vec![0.0f32; dim];
    if metric == Metric::InnerProduct {
        return centre;
    }
    let step = live.len().div_ceil(CENTRE_SAMPLE).max(1);
    let sample: Vec<(&[u8], f64)> = live
        .iter()
        .step_by(step)
        .map(|o| rows.vector(*o))
        .filter_map(|row| weight(metric, row, dim).filter(|(w, _)| *w > 0.0).map(|(w, _)| (row, w)))
        .collect();
    let mut columns = vec![Vec::with_capacity(sample.len()); dim];
    for (row, weight) in &sample {
        for (column, v) in columns.iter_mut().zip(components(row, dim)) {
            column.push((f64::from(v) * weight) as f32);
        }
    }
    for (c, column) in centre.iter_mut().zip(&mut columns) {
        if !column.is_empty() {
            let middle = column.len() / 2;
            *c = *column.select_nth_unstable_by(middle, f32::total_cmp).1;
        }
    }
    centre
}

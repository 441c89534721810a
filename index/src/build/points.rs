//! The rows of a build as codes, with the factors that turn dots of codes into distances between rows.
//!
//! Building needs a distance that is never negative and behaves like one between points. L2 (squared) and cosine do.
//! An inner product does not, so rows get one more coordinate, `sqrt(M^2 - norm^2)`, that puts them all on a sphere of
//! radius `M`, where the distance `M^2 - dot - x(u) x(v)` orders them as their products with any query would
//! (Bachrach et al. 2014, "Speeding up the Xbox recommender system using a Euclidean transformation"). `M` is the
//! 99.9th percentile of the norms, so that one huge row cannot flatten all others; longer rows get 0.

use rayon::prelude::*;
use zerocopy::IntoBytes;

use crate::codes::{CodeView, Line, QueryCode, RowNumbers, TINY_NORM, clamp, code_row, scale_of, stride_of};
use crate::simd::{CodeTable, Kernels, kernels};
use crate::{IndexError, Metric, Rows};

/// Codes and factors of the points `0..count`, in the order of the live ordinals.
pub(crate) struct Points {
    pub(crate) metric: Metric,
    pub(crate) count: u32,
    pub(crate) stride: usize,
    pub(crate) lines: Vec<Line>,
    /// Factor of a point in estimates (see `codes`), little-endian.
    pub(crate) scale: Vec<u8>,
    /// What searches add: the squared norm for L2, else empty.
    pub(crate) bias: Vec<u8>,
    /// What distances between points add: the squared norm for L2, the sphere coordinate for inner product, else empty.
    pub(crate) pair_bias: Vec<u8>,
    pub(super) numbers: Vec<RowNumbers>,
    /// Squared radius of the sphere (inner product).
    pub(super) radius2: f64,
    pub(super) kernels: &'static Kernels,
}

impl Points {
    /// Reads and codes the live rows. O(rows x dim).
    pub(crate) fn read(rows: &dyn Rows, dim: usize, live: &[u32], metric: Metric) -> Result<Self, IndexError> {
        let stride = stride_of(dim);
        let per_row = stride / 64;
        if let Some(ordinal) = live.iter().find(|o| **o >= rows.len() || rows.vector(**o).len() < dim * 4) {
            return Err(IndexError::Row { ordinal: *ordinal, dim });
        }
        let mut lines = vec![Line([0; 64]); live.len() * per_row];
        let numbers: Vec<RowNumbers> = lines
            .par_chunks_mut(per_row)
            .zip(live)
            .map(|(to, ordinal)| code_row(rows.vector(*ordinal), dim, to.as_mut_bytes()))
            .collect();
        let scale = numbers.iter().flat_map(|n| scale_of(metric, *n).to_le_bytes()).collect();
        let squares = || numbers.iter().flat_map(|n| clamp(n.norm2).to_le_bytes()).collect::<Vec<u8>>();
        let (mut radius2, mut bias, mut pair_bias) = (0.0, Vec::new(), Vec::new());
        match metric {
            Metric::L2 => {
                bias = squares();
                pair_bias = bias.clone();
            }
            Metric::InnerProduct => {
                let mut norms: Vec<f64> = numbers.iter().map(|n| n.norm2).collect();
                norms.sort_unstable_by(f64::total_cmp);
                radius2 = norms.get((norms.len() * 999 / 1000).min(norms.len().saturating_sub(1))).copied().unwrap_or(0.0);
                pair_bias = numbers.iter().flat_map(|n| clamp((radius2 - n.norm2).max(0.0).sqrt()).to_le_bytes()).collect();
            }
            Metric::Cosine => {}
        }
        Ok(Self {
            metric,
            count: live.len() as u32,
            stride,
            lines,
            scale,
            bias,
            pair_bias,
            numbers,
            radius2,
            kernels: kernels(),
        })
    }

    /// Bytes of a point's code.
    pub(crate) fn code(&self, point: u32) -> &[u8] {
        self.lines.as_bytes().get(point as usize * self.stride..(point as usize + 1) * self.stride).unwrap_or(&[])
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

    /// Factors of a point as the one that others are compared with: distance = fixed + estimate.
    pub(crate) fn factors(&self, point: u32) -> Factors {
        let n = self.numbers.get(point as usize).copied().unwrap_or_default();
        match self.metric {
            Metric::L2 => Factors { fixed: clamp(n.norm2), alpha: clamp(2.0 * n.step), beta: 1.0 },
            Metric::InnerProduct => Factors {
                fixed: clamp(self.radius2),
                alpha: clamp(n.step),
                beta: -clamp((self.radius2 - n.norm2).max(0.0).sqrt()),
            },
            Metric::Cosine => {
                let norm = n.norm2.sqrt();
                let alpha = if norm < TINY_NORM { 0.0 } else { clamp(n.step / norm) };
                Factors { fixed: 1.0, alpha, beta: 0.0 }
            }
        }
    }

    /// Makes a point the query of estimates between points.
    pub(crate) fn query(&self, point: u32, query: &mut QueryCode) -> f32 {
        let f = self.factors(point);
        query.set_row(self.code(point), f.alpha, f.beta);
        f.fixed
    }

    /// Smallest and largest norm of the points, those below [`TINY_NORM`] not counted.
    pub(crate) fn norm_range(&self) -> (f64, f64) {
        self.numbers.iter().map(|n| n.norm2.sqrt()).filter(|n| *n >= TINY_NORM).fold(
            (f64::INFINITY, 0.0),
            |(low, high): (f64, f64), n| (low.min(n), high.max(n)),
        )
    }

    pub(crate) fn kernels(&self) -> &'static Kernels {
        self.kernels
    }
}

/// See [`Points::factors`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) fixed: f32,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
}

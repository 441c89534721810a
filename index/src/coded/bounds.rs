//! What codes say of a distance: a query ready for it, and the bounds with everything that f32 rounds on the way.

use super::{Factors, Space, down, is_judged, up};
use crate::Metric;
use crate::codes::stride_of;
use crate::simd::{CodeRun, Ordered, QueryNumbers, kernels};
use zerocopy::IntoBytes;

/// Relative error of one f32 operation.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// A query, coded around the centre of some rows. Its code lies in the working memory.
#[derive(Debug)]
pub(super) struct Probe {
    metric: Metric,
    /// What the bias of 128 in the rows adds to every dot.
    correction: i32,
    /// `t`, for L2 and cosine twice that.
    alpha: f32,
    /// `|t m|^2`.
    size2: f64,
    /// `|t m|`.
    size: f64,
    /// At least `|f|`.
    rest: f64,
    /// At least `|x|`.
    length: f64,
    /// For inner product the part of every distance that the centre makes.
    shared: f64,
    /// Norm of the centre.
    centre: f64,
    /// Relative error of the format's sums.
    relative: f64,
}

/// Lengths of what was coded, with what f32 may have rounded.
pub(super) struct Lengths {
    /// Squared, of the code; exact but for its last bits.
    pub(super) size2: f64,
    /// At least that of what the code leaves.
    pub(super) rest: f64,
    /// At least that of the whole.
    pub(super) length: f64,
}

impl Lengths {
    pub(super) fn of(metric: Metric, dim: usize, numbers: &QueryNumbers) -> Self {
        // A sum in f32 is off by a unit for each of its terms at most, and so is a norm and the weight made of it; the
        // product with that, the centre taken off and the rest are each off by one more.
        let terms = dim as f64 + 8.0;
        let sums = 1.0 + terms * UNIT;
        let length = f64::from(numbers.length2).sqrt() * sums + 1e-19;
        let weight = if metric == Metric::Cosine { terms } else { 0.0 };
        Self {
            size2: f64::from(numbers.step) * f64::from(numbers.step) * f64::from(numbers.integers),
            rest: f64::from(numbers.rest2).sqrt() * sums + (8.0 * length + weight) * UNIT + 1e-19,
            length,
        }
    }
}

impl Probe {
    /// Codes a query; nothing when codes cannot judge it. `from_centre` is the centre's norm, `min_norm` the smallest of
    /// the rows.
    pub(super) fn new(
        metric: Metric,
        q: &[f32],
        centre: &[f32],
        from_centre: f64,
        min_norm: f64,
        space: &mut Space,
    ) -> Option<Self> {
        if q.len() != centre.len() {
            return None;
        }
        let kernels = kernels();
        let (shared, norm2) = (kernels.fast)(Ordered::DotAndSquares, centre, q.as_bytes());
        let (shared, norm2) = (f64::from(shared), f64::from(norm2));
        let norm = norm2.sqrt();
        // The format's rule for tiny denominators is none that codes know.
        let tiny = metric == Metric::Cosine && norm * min_norm <= 4.0 * f64::from(f32::EPSILON);
        if tiny || !is_judged(metric, norm2) {
            return None;
        }
        let Space { values, codes, spare: zeros } = space;
        values.resize(q.len(), 0.0);
        codes.clear();
        codes.resize(stride_of(q.len()), 0);
        zeros.resize(q.len(), 0.0);
        let (weight, from) = match metric {
            Metric::L2 => (1.0, centre),
            Metric::InnerProduct => (1.0, zeros.as_slice()),
            Metric::Cosine => ((1.0 / norm) as f32, centre),
        };
        let code = codes.get_mut(..q.len()).unwrap_or(&mut []);
        let numbers = (kernels.code_query)(q, weight, from, values, code);
        let lengths = Lengths::of(metric, q.len(), &numbers);
        Some(Self {
            metric,
            correction: 128 * numbers.total,
            alpha: if metric == Metric::InnerProduct { numbers.step } else { 2.0 * numbers.step },
            size2: lengths.size2,
            size: lengths.size2.sqrt(),
            rest: lengths.rest,
            length: lengths.length,
            shared: if metric == Metric::InnerProduct { -shared } else { 0.0 },
            centre: from_centre,
            // As the exact scan has it.
            relative: 2.2 * (q.len() as f64 + 8.0) * UNIT,
        })
    }

    /// Estimates of a block of rows, and the least of them.
    #[inline]
    pub(super) fn estimates(&self, codes: &[i8], run: CodeRun<'_>, out: &mut [f32]) -> f32 {
        (kernels().estimates)(codes, self.alpha, self.correction, run, out)
    }

    /// How far from the query, in the measure of [`Probe::limit`], a row may be whose distance is within `bound`.
    pub(super) fn reach(&self, bound: f32) -> f64 {
        if bound.is_nan() {
            return f64::INFINITY;
        }
        let bound = f64::from(bound);
        match self.metric {
            Metric::L2 => (bound * (1.0 + self.relative) + 1e-37).max(0.0).sqrt(),
            Metric::Cosine => (2.0 * (bound + 4.0 * self.relative)).max(0.0).sqrt(),
            Metric::InnerProduct => bound - self.shared,
        }
    }

    /// No row of this size and rest at most is within reach when its estimate is larger.
    #[inline]
    pub(super) fn limit(&self, reach: f64, (size, rest): (f32, f32)) -> f32 {
        let (size, rest) = (f64::from(size), f64::from(rest));
        up(match self.metric {
            Metric::InnerProduct => reach + self.off(size, rest),
            Metric::L2 | Metric::Cosine => {
                let reach = reach + self.rest + rest;
                reach * reach - self.size2 + self.rounded(size)
            }
        })
    }

    /// At most the distance of a row with this estimate.
    pub(super) fn lower(&self, estimate: f32, row: &Factors) -> f32 {
        let (estimate, size, rest) = (f64::from(estimate), f64::from(row.size), f64::from(row.rest));
        if self.metric == Metric::InnerProduct {
            return down(self.shared + estimate - self.off(size, rest));
        }
        let apart = (estimate + self.size2 - self.rounded(size)).max(0.0).sqrt();
        let apart = (apart - self.rest - rest).max(0.0);
        down(match self.metric {
            Metric::Cosine => apart * apart / 2.0 - 4.0 * self.relative,
            _ => apart * apart * (1.0 - self.relative),
        })
    }

    /// What f32 may make of a squared distance between codes.
    fn rounded(&self, size: f64) -> f64 {
        16.0 * UNIT * (size + self.size) * (size + self.size) + 1e-36
    }

    /// What an inner product may be off its estimate.
    fn off(&self, size: f64, rest: f64) -> f64 {
        let exactly = size * self.rest + rest * self.length;
        let rounded = 16.0 * UNIT * size * self.size;
        exactly + rounded + self.relative * self.length * (size + rest + self.centre) + 1e-36
    }
}

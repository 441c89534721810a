//! One-byte codes: what a row or a query becomes for the walk, and how dots of codes turn into distance estimates.
//!
//! A row `v` is `s * c` with `s = max|v| / 127` and `c` in -127..=127, stored with a bias of 128 as an unsigned byte; a
//! query is coded the same way without the bias. The integer dot is exact, so an estimate is the same on every machine:
//!
//! `estimate = beta * bias[v] - alpha * scale[v] * dot`
//!
//! | metric | scale\[v\] | bias\[v\] | alpha | beta | estimate |
//! | --- | --- | --- | --- | --- | --- |
//! | L2 | s | squared norm | 2 s(q) | 1 | squared distance less the query's squared norm |
//! | inner product | s | none | s(q) | 0 | negated dot |
//! | cosine | s / norm | none | s(q) / norm(q) | 0 | negated cosine |
//!
//! Scales are per vector, so rows of any magnitude keep 7 bits and a sign.

use crate::Metric;
use crate::simd::{CodeTable, Kernels};

/// Norms below this make every cosine distance to a unit query 1.0 (the format's rule for tiny denominators).
pub(crate) const TINY_NORM: f64 = 1.2e-7;

/// Bytes of a code row: `dim` rounded up to whole cache lines.
pub(crate) fn stride_of(dim: usize) -> usize {
    dim.div_ceil(64).max(1) * 64
}

/// One cache line; tables of codes are made of these so that rows are aligned.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
#[derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)]
pub(crate) struct Line(pub(crate) [u8; 64]);

/// What coding a row tells besides the code.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowNumbers {
    /// Largest magnitude over 127; zero for a row of zeros or with a component that is not finite.
    pub(crate) step: f64,
    /// Squared norm; zero when not finite.
    pub(crate) norm2: f64,
}

/// Codes a row of little-endian f32 into `to` (one unsigned byte per component, bias 128).
pub(crate) fn code_row(row: &[u8], dim: usize, to: &mut [u8]) -> RowNumbers {
    to.fill(128);
    let components = || row.chunks_exact(4).take(dim).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]));
    let (mut max, mut norm2, mut finite) = (0.0f32, 0.0f64, true);
    for v in components() {
        finite &= v.is_finite();
        max = max.max(v.abs());
        norm2 += f64::from(v) * f64::from(v);
    }
    if max == 0.0 || !finite {
        return RowNumbers::default();
    }
    let step = f64::from(max) / 127.0;
    let inverse = 1.0 / step;
    for (v, t) in components().zip(to.iter_mut()) {
        *t = ((f64::from(v) * inverse).round_ties_even().clamp(-127.0, 127.0) as i32 + 128) as u8;
    }
    RowNumbers { step, norm2 }
}

/// The scale of a row in estimates for `metric`.
pub(crate) fn scale_of(metric: Metric, numbers: RowNumbers) -> f32 {
    match metric {
        Metric::L2 | Metric::InnerProduct => clamp(numbers.step),
        Metric::Cosine => {
            let norm = numbers.norm2.sqrt();
            if norm < TINY_NORM { 0.0 } else { clamp(numbers.step / norm) }
        }
    }
}

/// To f32, kept finite so that no estimate becomes NaN.
pub(crate) fn clamp(x: f64) -> f32 {
    x.clamp(-1e37, 1e37) as f32
}

/// A query ready for estimates. Reused between queries.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryCode {
    pub(crate) codes: Vec<i8>,
    /// What the bias of 128 in the rows adds to every dot.
    pub(crate) correction: i32,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
    /// Norm of the query.
    pub(crate) norm: f64,
}

impl QueryCode {
    /// Codes a query of finite components.
    pub(crate) fn set(&mut self, metric: Metric, q: &[f32]) {
        self.codes.clear();
        self.codes.resize(stride_of(q.len()), 0);
        let max = q.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let norm2: f64 = q.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        self.norm = norm2.sqrt();
        let step = f64::from(max) / 127.0;
        let inverse = if max > 0.0 { 127.0 / f64::from(max) } else { 0.0 };
        let mut sum = 0i32;
        if max > 1e-30 && max < 1e30 {
            let inverse = inverse as f32;
            for (v, t) in q.iter().zip(&mut self.codes) {
                // Adding 1.5 * 2^23 leaves the rounded integer in the low bits: no call into the math library.
                let c = ((v * inverse + 12_582_912.0) - 12_582_912.0).clamp(-127.0, 127.0) as i32;
                *t = c as i8;
                sum += c;
            }
        } else {
            for (v, t) in q.iter().zip(&mut self.codes) {
                let c = (f64::from(*v) * inverse).round_ties_even().clamp(-127.0, 127.0) as i32;
                *t = c as i8;
                sum += c;
            }
        }
        self.correction = 128 * sum;
        (self.alpha, self.beta) = match metric {
            Metric::L2 => (clamp(2.0 * step), 1.0),
            Metric::InnerProduct => (clamp(step), 0.0),
            Metric::Cosine => (if self.norm > 0.0 { clamp(step / self.norm) } else { 0.0 }, 0.0),
        };
    }

    /// Uses a stored row's code as the query.
    pub(crate) fn set_row(&mut self, row: &[u8], alpha: f32, beta: f32) {
        self.codes.clear();
        self.codes.extend(row.iter().map(|c| (c ^ 0x80) as i8));
        self.correction = 128 * self.codes.iter().map(|c| i32::from(*c)).sum::<i32>();
        self.alpha = alpha;
        self.beta = beta;
    }
}

/// Codes and factors of all nodes, in place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeView<'a> {
    pub(crate) table: CodeTable<'a>,
    /// One little-endian f32 per node.
    pub(crate) scale: &'a [u8],
    /// One little-endian f32 per node, or empty.
    pub(crate) bias: &'a [u8],
    pub(crate) kernels: &'a Kernels,
}

#[inline]
pub(crate) fn f32_at(bytes: &[u8], index: u32) -> f32 {
    let at = index as usize * 4;
    bytes.get(at..at + 4).map_or(0.0, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[inline]
pub(crate) fn u32_at(bytes: &[u8], index: usize) -> Option<u32> {
    let at = index.checked_mul(4)?;
    bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

impl CodeView<'_> {
    /// Estimates for a batch of nodes. `dots` and `out` are working space of at least `nodes.len()`.
    #[inline]
    pub(crate) fn estimates(&self, query: &QueryCode, nodes: &[u32], dots: &mut [i32], out: &mut [f32]) {
        (self.kernels.dots)(&query.codes, self.table, nodes, dots);
        if self.bias.is_empty() || query.beta == 0.0 {
            let alpha = -query.alpha;
            for ((node, dot), to) in nodes.iter().zip(dots.iter()).zip(out) {
                let dot = dot.wrapping_sub(query.correction) as f32;
                *to = alpha * f32_at(self.scale, *node) * dot;
            }
        } else {
            for ((node, dot), to) in nodes.iter().zip(dots.iter()).zip(out) {
                let dot = dot.wrapping_sub(query.correction) as f32;
                *to = query.beta * f32_at(self.bias, *node) - query.alpha * f32_at(self.scale, *node) * dot;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::kernels;

    fn row(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn estimates_follow_each_metric_at_any_magnitude() {
        let dim = 100;
        let a: Vec<f32> = (0..dim).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let b: Vec<f32> = (0..dim).map(|i| ((i * 53 % 89) as f32 - 40.0) / 44.0).collect();
        for magnitude in [1e-12f32, 1.0, 1e12] {
            let b: Vec<f32> = b.iter().map(|v| v * magnitude).collect();
            let dot: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            let n2 = |v: &[f32]| v.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
            let mut table = vec![Line([0; 64]); 2];
            let numbers = code_row(&row(&b), dim, zerocopy::IntoBytes::as_mut_bytes(table.as_mut_slice()));
            for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
                let mut query = QueryCode::default();
                query.set(metric, &a);
                let bias = if metric == Metric::L2 { (numbers.norm2 as f32).to_le_bytes().to_vec() } else { vec![] };
                let view = CodeView {
                    table: CodeTable { bytes: zerocopy::IntoBytes::as_bytes(table.as_slice()), stride: stride_of(dim) },
                    scale: &scale_of(metric, numbers).to_le_bytes(),
                    bias: &bias,
                    kernels: kernels(),
                };
                let (mut dots, mut out) = ([0; 1], [0.0; 1]);
                view.estimates(&query, &[0], &mut dots, &mut out);
                let (want, size) = match metric {
                    Metric::L2 => (n2(&b) - 2.0 * dot, n2(&b) + dot.abs()),
                    Metric::InnerProduct => (-dot, (n2(&a) * n2(&b)).sqrt()),
                    Metric::Cosine => (-dot / (n2(&a) * n2(&b)).sqrt(), 1.0),
                };
                assert!((f64::from(out[0]) - want).abs() <= 0.005 * size, "{metric} {magnitude}: {} {want}", out[0]);
            }
        }
    }

    #[test]
    fn odd_rows_have_neutral_codes() {
        for values in [[0.0f32, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            let mut to = [0u8; 64];
            let numbers = code_row(&row(&values), 2, &mut to);
            assert_eq!((numbers.step, numbers.norm2), (0.0, 0.0));
            assert!(to.iter().all(|c| *c == 128));
        }
        let mut to = [0u8; 64];
        let numbers = code_row(&row(&[f32::MAX, -f32::MAX, 1e-45]), 3, &mut to);
        assert_eq!(to[..3], [255, 1, 128]);
        assert!(scale_of(Metric::L2, numbers).is_finite());
        code_row(&row(&[1e-45, -1e-45]), 2, &mut to);
        assert_eq!(to[..2], [255, 1]);
    }
}

//! One-byte codes: what a row or a query becomes for the walk, and how dots of codes turn into distance estimates.
//!
//! Rows are coded relative to a centre (the median of each component over a sample), because many data sets lie far
//! from the origin compared with their spread, and a byte must not be spent on what all rows share. A row is coded as
//! `w = v - centre` (L2), `v / norm - centre` (cosine) or `v` (inner product): `w = s * c` with `s = max|w| / 127` and `c`
//! in -127..=127, stored with a bias of 128 as an unsigned byte. The query is coded the same way without the bias: less
//! the centre for L2, as it is otherwise, where the centre's part of the dot is the same for every row. The integer dot
//! is exact, so an estimate is the same on every machine:
//!
//! `estimate = beta * bias[v] - alpha * scale[v] * dot`
//!
//! | metric | bias\[v\] | alpha | beta | estimate | distance less estimate |
//! | --- | --- | --- | --- | --- | --- |
//! | L2 | squared norm of w | 2 s(q) | 1 | `|w|^2 - 2 w q'` | squared norm of q' |
//! | inner product | none | s(q) | 0 | `-v q` | 0 |
//! | cosine | none | s(q) / norm(q) | 0 | `-w q / norm(q)` | `1 - centre q / norm(q)` |
//!
//! Scales are per vector, so rows of any magnitude keep 7 bits and a sign. With very few components (below about 8) and
//! many rows that is coarser than the rows lie apart; then more rows need their exact distance (see `rerank`).

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
    /// Largest magnitude of what was coded, over 127; zero when there is nothing to code.
    pub(crate) step: f64,
    /// Squared norm of the row; zero when not finite.
    pub(crate) norm2: f64,
    /// Squared norm of what was coded.
    pub(crate) coded2: f64,
}

/// The components of a row of little-endian f32.
pub(crate) fn components(row: &[u8], dim: usize) -> impl Iterator<Item = f32> + Clone + '_ {
    row.chunks_exact(4).take(dim).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
}

/// What a row's components are multiplied with before the centre is taken off; nothing for a row that is not finite.
pub(crate) fn weight(metric: Metric, row: &[u8], dim: usize) -> Option<(f64, f64)> {
    let (mut norm2, mut finite) = (0.0f64, true);
    for v in components(row, dim) {
        finite &= v.is_finite();
        norm2 += f64::from(v) * f64::from(v);
    }
    let weight = match metric {
        Metric::Cosine if norm2.sqrt() < TINY_NORM => 0.0,
        Metric::Cosine => 1.0 / norm2.sqrt(),
        _ => 1.0,
    };
    finite.then_some((weight, norm2))
}

/// Codes a row of little-endian f32 into `to` (one unsigned byte per component, bias 128). A row that is not finite gets
/// a code of zeros.
pub(crate) fn code_row(metric: Metric, row: &[u8], centre: &[f32], to: &mut [u8]) -> RowNumbers {
    to.fill(128);
    let dim = centre.len();
    let Some((weight, norm2)) = weight(metric, row, dim) else { return RowNumbers::default() };
    let coded = || components(row, dim).zip(centre).map(|(v, c)| f64::from(v) * weight - f64::from(*c));
    let (mut max, mut coded2) = (0.0f64, 0.0f64);
    for w in coded() {
        max = max.max(w.abs());
        coded2 += w * w;
    }
    if max == 0.0 {
        return RowNumbers { norm2, ..RowNumbers::default() };
    }
    let step = max / 127.0;
    let inverse = 1.0 / step;
    for (w, t) in coded().zip(to.iter_mut()) {
        // Adding 1.5 * 2^52 leaves the rounded integer in the low bits: no call into the math library.
        let c = (w * inverse + 6_755_399_441_055_744.0) - 6_755_399_441_055_744.0;
        *t = (c.clamp(-127.0, 127.0) as i32 + 128) as u8;
    }
    RowNumbers { step, norm2, coded2 }
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
    /// Distance less estimate.
    pub(crate) offset: f32,
    coded: Vec<f32>,
}

impl QueryCode {
    /// Codes a query of finite components for rows coded around `centre` (little-endian f32).
    pub(crate) fn set(&mut self, metric: Metric, q: &[f32], centre: &[u8]) {
        let norm2: f64 = q.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        self.norm = norm2.sqrt();
        self.coded.clear();
        let mut shared = 0.0f64;
        match metric {
            Metric::L2 => self.coded.extend(q.iter().zip(components(centre, q.len())).map(|(v, c)| v - c)),
            Metric::InnerProduct => self.coded.extend_from_slice(q),
            Metric::Cosine => {
                self.coded.extend_from_slice(q);
                shared = q
                    .iter()
                    .zip(components(centre, q.len()))
                    .map(|(v, c)| f64::from(*v) * f64::from(c))
                    .sum();
            }
        }
        self.coded.resize(q.len(), 0.0);
        self.codes.clear();
        self.codes.resize(stride_of(q.len()), 0);
        let max = self.coded.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let step = f64::from(max) / 127.0;
        let mut sum = 0i32;
        if max > 1e-30 && max < 1e30 {
            let inverse = (1.0 / step) as f32;
            for (v, t) in self.coded.iter().zip(&mut self.codes) {
                // Adding 1.5 * 2^23 leaves the rounded integer in the low bits.
                let c = ((v * inverse + 12_582_912.0) - 12_582_912.0).clamp(-127.0, 127.0) as i32;
                *t = c as i8;
                sum += c;
            }
        } else if max > 0.0 {
            for (v, t) in self.coded.iter().zip(&mut self.codes) {
                let c = (f64::from(*v) / step).round_ties_even().clamp(-127.0, 127.0) as i32;
                *t = c as i8;
                sum += c;
            }
        }
        self.correction = 128 * sum;
        let coded2 = || self.coded.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>();
        (self.alpha, self.beta, self.offset) = match metric {
            Metric::L2 => (clamp(2.0 * step), 1.0, clamp(coded2())),
            Metric::InnerProduct => (clamp(step), 0.0, 0.0),
            Metric::Cosine if self.norm > 0.0 => {
                (clamp(step / self.norm), 0.0, 1.0 - clamp(shared / self.norm))
            }
            Metric::Cosine => (0.0, 0.0, 1.0),
        };
    }

    /// Uses a stored row's code as the query; `correction` is that row's [`correction`].
    pub(crate) fn set_row(&mut self, row: &[u8], correction: i32, alpha: f32, beta: f32) {
        self.codes.resize(row.len(), 0);
        for (to, c) in self.codes.iter_mut().zip(row) {
            *to = (c ^ 0x80) as i8;
        }
        self.correction = correction;
        self.alpha = alpha;
        self.beta = beta;
    }
}

/// What the bias of 128 in other rows adds to dots with this row's code.
pub(crate) fn correction(row: &[u8]) -> i32 {
    128 * row.iter().map(|c| i32::from(*c) - 128).sum::<i32>()
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
    fn estimates_follow_each_metric_at_any_magnitude_and_place() {
        let dim = 100;
        let a: Vec<f32> = (0..dim).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
        let b: Vec<f32> = (0..dim).map(|i| ((i * 53 % 89) as f32 - 40.0) / 44.0).collect();
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        for (magnitude, place) in [(1e-12f32, 0.0f32), (1.0, 0.0), (1e12, 0.0), (1.0, 500.0), (1.0, -0.3)] {
            let a: Vec<f32> = a.iter().map(|v| v + place).collect();
            let b: Vec<f32> = b.iter().map(|v| v * magnitude + place).collect();
            for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
                let centre = match metric {
                    Metric::L2 => vec![place; dim],
                    Metric::InnerProduct => vec![0.0; dim],
                    Metric::Cosine => vec![place.signum() * 0.05; dim],
                };
                let mut table = vec![Line([0; 64]); 2];
                let numbers = code_row(
                    metric,
                    &row(&b),
                    &centre,
                    zerocopy::IntoBytes::as_mut_bytes(table.as_mut_slice()),
                );
                let mut query = QueryCode::default();
                query.set(metric, &a, &row(&centre));
                let bias = if metric == Metric::L2 {
                    (numbers.coded2 as f32).to_le_bytes().to_vec()
                } else {
                    vec![]
                };
                let view = CodeView {
                    table: CodeTable {
                        bytes: zerocopy::IntoBytes::as_bytes(table.as_slice()),
                        stride: stride_of(dim),
                    },
                    scale: &clamp(numbers.step).to_le_bytes(),
                    bias: &bias,
                    kernels: kernels(),
                };
                let (mut dots, mut out) = ([0; 1], [0.0; 1]);
                view.estimates(&query, &[0], &mut dots, &mut out);
                let got = f64::from(out[0]) + f64::from(query.offset);
                let (aa, bb, ab) = (dot(&a, &a), dot(&b, &b), dot(&a, &b));
                let (want, size) = match metric {
                    Metric::L2 => {
                        let d: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x - y).collect();
                        (dot(&d, &d), dot(&d, &d))
                    }
                    Metric::InnerProduct => (-ab, (aa * bb).sqrt()),
                    // A row next to zero: 1, by the format's rule.
                    Metric::Cosine if magnitude < 1e-9 => (1.0, 1.0),
                    Metric::Cosine => (1.0 - ab / (aa * bb).sqrt(), 1.0),
                };
                assert!((got - want).abs() <= 0.02 * size, "{metric} {magnitude} {place}: {got} {want}");
            }
        }
    }

    #[test]
    fn odd_rows_have_neutral_codes() {
        for values in [[f32::NAN, 1.0], [f32::INFINITY, 1.0], [0.0f32, 0.0]] {
            let mut to = [0u8; 64];
            let numbers = code_row(Metric::L2, &row(&values), &[0.0; 2], &mut to);
            assert_eq!((numbers.step, numbers.norm2, numbers.coded2), (0.0, 0.0, 0.0));
            assert!(to.iter().all(|c| *c == 128));
        }
        let mut to = [0u8; 64];
        let numbers = code_row(Metric::L2, &row(&[f32::MAX, -f32::MAX, 1e-45]), &[0.0; 3], &mut to);
        assert_eq!(to[..3], [255, 1, 128]);
        assert!(clamp(numbers.coded2).is_finite());
        code_row(Metric::InnerProduct, &row(&[1e-45, -1e-45]), &[0.0; 2], &mut to);
        assert_eq!(to[..2], [255, 1]);
        // A row of no length has no direction: for cosine it is coded as the centre's opposite.
        code_row(Metric::Cosine, &row(&[1e-9, 0.0]), &[0.5, -0.5], &mut to);
        assert_eq!(to[..2], [1, 255]);
    }
}

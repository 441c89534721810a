//! Kernels, chosen once at run time from what the processor offers.
//!
//! Two kinds of arithmetic live here, kept apart on purpose:
//! - *integer* dots of one-byte codes, exact on every path, so that a graph walk takes the same steps on every machine;
//! - *ordered* f32 sums, several rows side by side in the lanes of a register: each lane adds its own row's components
//!   in order with separate multiply and add, which is the format's definition of a distance bit for bit.
//!
//! Why own kernels and not `simsimd`: its int8 dot is signed by signed for one pair of vectors. The walk wants one
//! query against a batch of scattered rows, unsigned by signed (one instruction on VNNI), four rows per step so that
//! horizontal sums and query loads are shared, and prefetches between them. The ordered f32 sums exist in no library.
//!
//! All functions here are safe to call: they check lengths and skip node numbers out of range.

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::sync::OnceLock;

/// Codes of many nodes in one byte string: row `i` is `bytes[i * stride..][..stride]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeTable<'a> {
    pub(crate) bytes: &'a [u8],
    /// Multiple of 64.
    pub(crate) stride: usize,
}

/// Sums of one group of rows, kept in the order of the format.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OrderedSums {
    /// Sum of products with the query (inner product, cosine) or of squared differences (L2).
    pub(crate) first: f32,
    /// Sum of squares of the row (cosine only).
    pub(crate) squares: f32,
}

/// What an ordered kernel adds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// Products.
    Dot,
    /// Products and the row's squares.
    DotAndSquares,
    /// Squared differences.
    Difference,
}

/// Rows whose codes lie one after another, and what turns their dots into estimates.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CodeRun<'a> {
    /// `steps.len() * stride` bytes.
    pub(crate) codes: &'a [u8],
    /// Multiple of 64.
    pub(crate) stride: usize,
    pub(crate) steps: &'a [f32],
    /// As many as steps.
    pub(crate) biases: &'a [f32],
}

/// Numbers of a query that was coded.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct QueryNumbers {
    /// Largest magnitude of what was coded, over 127; zero when that is next to nothing.
    pub(crate) step: f32,
    /// Sum of squares of what was coded.
    pub(crate) length2: f32,
    /// Sum of squares of what the code leaves of it.
    pub(crate) rest2: f32,
    /// Sum of the code.
    pub(crate) total: i32,
    /// Sum of squares of the code.
    pub(crate) integers: i32,
}

/// Most rows an ordered kernel takes at once.
pub(crate) const GROUP: usize = 8;

/// A set of kernels.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    /// `out[i] = sum over j of query[j] * code[nodes[i]][j]` with unsigned codes; nodes out of range give 0.
    /// `query` has `stride` components.
    pub(crate) dots: fn(query: &[i8], table: CodeTable<'_>, nodes: &[u32], out: &mut [i32]),
    /// Dot of two code rows of equal length, both taken as signed after removing the bias of 128.
    pub(crate) dot_pair: fn(a: &[u8], b: &[u8]) -> i32,
    /// Ordered sums of `GROUP` rows, each of at least `4 * q.len()` bytes.
    pub(crate) ordered: fn(kind: Ordered, q: &[f32], rows: &[&[u8]; GROUP], out: &mut [OrderedSums; GROUP]),
    /// `out[i] = biases[i] - steps[i] * (alpha * (dot of row i - correction))`, and the least of them that is a number. The
    /// dot is as in `dots`, and `query` has `stride` components.
    pub(crate) estimates:
        fn(query: &[i8], alpha: f32, correction: i32, run: CodeRun<'_>, out: &mut [f32]) -> f32,
    /// Codes `q * weight - centre`, all three of one length, into as many of `codes`; `rest` gets what the code leaves.
    pub(crate) code_query:
        fn(q: &[f32], weight: f32, centre: &[f32], rest: &mut [f32], codes: &mut [i8]) -> QueryNumbers,
    /// Unordered f32 sums of a row: (dot, squares of row) or (squared differences, 0); fast, not the format's bits.
    pub(crate) fast: fn(kind: Ordered, q: &[f32], row: &[u8]) -> (f32, f32),
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").field("name", &self.name).finish()
    }
}

/// Every set this processor can run, best first; the portable one is always last.
pub(crate) fn available() -> Vec<Kernels> {
    let mut sets = Vec::new();
    #[cfg(target_arch = "x86_64")]
    x86::push_available(&mut sets);
    #[cfg(target_arch = "aarch64")]
    neon::push_available(&mut sets);
    sets.push(portable::KERNELS);
    sets
}

/// The best set, detected once.
pub(crate) fn kernels() -> &'static Kernels {
    static CHOSEN: OnceLock<Kernels> = OnceLock::new();
    CHOSEN.get_or_init(|| available().first().copied().unwrap_or(portable::KERNELS))
}

/// Name of the kernels in use: "avx512vnni", "avx2", "neon" or "portable".
pub fn isa_name() -> &'static str {
    kernels().name
}

/// Asks for a few cache lines about to be read. Does nothing when the part is not inside `bytes`.
#[inline]
pub(crate) fn prefetch_bytes(bytes: &[u8], start: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(bytes, start, len);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, start, len);
}

/// Asks for many cache lines to be read in a while. Does nothing when the part is not inside `bytes`.
#[inline]
pub(crate) fn prefetch_many(bytes: &[u8], start: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch_many(bytes, start, len);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, start, len);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(n: usize, seed: u64) -> Vec<u8> {
        let mut x = seed | 1;
        (0..n)
            .map(|_| {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                (x >> 32) as u8
            })
            .collect()
    }

    #[test]
    fn integer_kernels_agree_on_every_path() {
        for stride in [64usize, 128, 192, 384, 1024] {
            let table = bytes(stride * 37, stride as u64);
            let query: Vec<i8> = bytes(stride, 9).iter().map(|b| (*b as i8).max(-127)).collect();
            let nodes: Vec<u32> = (0..37).rev().chain([37, u32::MAX, 3]).collect();
            let want: Vec<i32> = nodes
                .iter()
                .map(|n| {
                    table.get(*n as usize * stride..(*n as usize + 1) * stride).map_or(0, |row| {
                        row.iter().zip(&query).map(|(c, q)| i32::from(*c) * i32::from(*q)).sum()
                    })
                })
                .collect();
            let pair: i32 = table[..stride]
                .iter()
                .zip(&table[stride..2 * stride])
                .map(|(a, b)| (i32::from(*a) - 128) * (i32::from(*b) - 128))
                .sum();
            for k in available() {
                for take in [0, 1, 2, 3, 4, 5, 8, nodes.len()] {
                    let mut out = vec![7; take];
                    (k.dots)(&query, CodeTable { bytes: &table, stride }, &nodes[..take], &mut out);
                    assert_eq!(out, want[..take], "{} stride {stride}", k.name);
                }
                assert_eq!((k.dot_pair)(&table[..stride], &table[stride..2 * stride]), pair, "{}", k.name);
            }
        }
    }

    #[test]
    fn estimates_are_the_same_bits_on_every_path() {
        for stride in [64usize, 192, 384] {
            let table = bytes(stride * 71, stride as u64);
            let query: Vec<i8> = bytes(stride, 9).iter().map(|b| (*b as i8).max(-127)).collect();
            for count in [0, 1, 3, 4, 63, 64, 71] {
                let steps: Vec<f32> = (0..count).map(|i| 0.003 + i as f32 * 1e-4).collect();
                let mut biases: Vec<f32> = (0..count).map(|i| i as f32 * 0.7 - 3.0).collect();
                if let Some(bias) = biases.get_mut(2) {
                    *bias = f32::NAN;
                }
                let run = CodeRun { codes: &table[..count * stride], stride, steps: &steps, biases: &biases };
                let mut want = vec![0.0; count];
                let least = (portable::KERNELS.estimates)(&query, 0.25, 1234, run, &mut want);
                for i in 0..count {
                    let row = table[i * stride..(i + 1) * stride].iter().zip(&query);
                    let dot: i32 = row.map(|(c, q)| i32::from(*c) * i32::from(*q)).sum();
                    let right = biases[i] - steps[i] * (0.25 * (dot - 1234) as f32);
                    assert_eq!(want[i].to_bits(), right.to_bits());
                }
                let right = want.iter().copied().fold(f32::INFINITY, f32::min);
                assert_eq!(least.to_bits(), right.to_bits());
                for k in available() {
                    let mut out = vec![7.0; count];
                    let least = (k.estimates)(&query, 0.25, 1234, run, &mut out);
                    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&out), bits(&want), "{} stride {stride}, {count} rows", k.name);
                    assert_eq!(least, right, "{} stride {stride}, {count} rows", k.name);
                }
            }
        }
    }

    #[test]
    fn a_query_and_its_code_differ_by_the_rest() {
        for dim in [1usize, 7, 8, 40, 385] {
            let values: Vec<f32> = bytes(dim * 2, 3).iter().map(|b| f32::from(*b) - 100.0).collect();
            let (q, centre) = values.split_at(dim);
            for k in available() {
                let (mut rest, mut codes) = (vec![0.0; dim], vec![0i8; dim]);
                let numbers = (k.code_query)(q, 0.5, centre, &mut rest, &mut codes);
                assert_eq!(numbers.total, codes.iter().map(|c| i32::from(*c)).sum::<i32>(), "{}", k.name);
                let squares = codes.iter().map(|c| i32::from(*c) * i32::from(*c)).sum::<i32>();
                assert_eq!(numbers.integers, squares, "{}", k.name);
                assert!(codes.iter().any(|c| c.abs() == 127), "{} dim {dim}", k.name);
                let (mut length2, mut rest2) = (0.0, 0.0);
                for (((q, c), rest), code) in q.iter().zip(centre).zip(&rest).zip(&codes) {
                    let x = q * 0.5 - c;
                    assert!((x - numbers.step * f32::from(*code) - rest).abs() < 1e-4, "{}", k.name);
                    assert!(rest.abs() <= numbers.step * 0.501, "{} dim {dim}", k.name);
                    length2 += x * x;
                    rest2 += rest * rest;
                }
                assert!((numbers.length2 - length2).abs() <= 1e-4 * length2, "{} dim {dim}", k.name);
                assert!((numbers.rest2 - rest2).abs() <= 1e-4 * rest2 + 1e-9, "{} dim {dim}", k.name);
                let zero = (k.code_query)(centre, 1.0, centre, &mut rest, &mut codes);
                assert_eq!((zero.step, zero.total, zero.integers), (0.0, 0, 0));
                assert!(codes.iter().all(|c| *c == 0));
            }
        }
    }

    #[test]
    fn ordered_sums_are_the_same_bits_on_every_path() {
        for dim in [0usize, 1, 7, 8, 9, 31, 384, 385] {
            let values: Vec<f32> = bytes(4 * dim * (GROUP + 1), 5)
                .chunks_exact(4)
                .map(|c| (i32::from_le_bytes([c[0], c[1], c[2], c[3]]) as f32) * 1e-9)
                .collect();
            let q = &values[..dim];
            let raw: Vec<u8> =
                [0u8, 0].into_iter().chain(values.iter().flat_map(|v| v.to_le_bytes())).collect();
            let rows: [&[u8]; GROUP] =
                std::array::from_fn(|r| &raw[2 + 4 * dim * (r + 1)..2 + 4 * dim * (r + 2)]);
            for kind in [Ordered::Dot, Ordered::DotAndSquares, Ordered::Difference] {
                for k in available() {
                    let mut out = [OrderedSums::default(); GROUP];
                    (k.ordered)(kind, q, &rows, &mut out);
                    for (r, sums) in out.iter().enumerate() {
                        let v = &values[dim * (r + 1)..dim * (r + 2)];
                        let (mut first, mut squares) = (0.0f32, 0.0f32);
                        for (a, b) in q.iter().zip(v) {
                            match kind {
                                Ordered::Difference => {
                                    let d = a - b;
                                    first += d * d;
                                }
                                _ => first += a * b,
                            }
                            squares += b * b;
                        }
                        assert_eq!(sums.first.to_bits(), first.to_bits(), "{} {kind:?} dim {dim}", k.name);
                        if kind == Ordered::DotAndSquares {
                            assert_eq!(sums.squares.to_bits(), squares.to_bits(), "{}", k.name);
                        }
                        let (fast, _) = (k.fast)(kind, q, rows[r]);
                        assert!((fast - first).abs() <= 1e-3 * (1.0 + first.abs()), "{} {kind:?}", k.name);
                    }
                }
            }
        }
    }
}

//! Rows kept as codes in memory, for an exact scan that reads a quarter of the bytes.
//!
//! An image has the codes of the rows it was built over. Rows that came later, and the few that a branch has of its own, get
//! theirs here when they are searched. Beside each code stands how far it is from its row, so that a code bounds the
//! row's distance from a query: [`CodedRows::scan`] computes the distance of every row that may be among the nearest,
//! and gives exactly the answer of [`exact::scan`](crate::exact::scan).
//!
//! A row is coded as in [`crate::codes`]: `g = s * c + e` with `g = v - centre` (`v / norm - centre` for cosine), and a query
//! as `x = t * m + f` with `x = q - centre` (`q / norm - centre` for cosine, `q` for inner product). The integer dot of `c`
//! and `m` is exact, and of the rest the lengths are known:
//!
//! - squared L2 is `|g - x|^2`, cosine distance half of that, and `|g - x| >= |s c - t m| - |e| - |f|`;
//! - the inner product is `(centre + g) q`, and `|g q - s t (c m)| <= |s c| |f| + |e| |q|`.
//!
//! Both are widened by what f32 may round, here and in the format's own sums ([`bounds`]). Rows and queries of which that
//! says nothing (not finite, huge, next to zero) are looked at in full always.

mod bounds;

use zerocopy::IntoBytes;

use crate::codes::{Line, components, stride_of};
use crate::exact::{self, Selection};
use crate::scratch::Scratch;
use crate::simd::{CodeRun, GROUP, Ordered, kernels, prefetch_many};
use crate::{Bitmap, Candidate, Metric, Rows, sort_key};
use bounds::{Lengths, Probe};

/// Rows whose dots are taken together, and whose bounds are judged together first.
const BLOCK: usize = 64;
/// Rows that wait for their distance before any is computed.
const PENDING: usize = 16;
/// Rows that a centre is the mean of, at most.
const CENTRE_SAMPLE: usize = 256;
/// Rows taken over from older codes keep their centre until there are this many times as many.
const OUTGROWN: usize = 4;
/// Squared norms that leave f32 room for every sum.
const LARGEST: f64 = 1e30;
/// The same for cosine, where f32 must hold the product of two.
const COSINE_RANGE: std::ops::RangeInclusive<f64> = 1e-18..=1e18;

/// Which rows a scan may answer.
#[derive(Debug, Clone, Copy)]
pub struct Within<'a> {
    /// When given, only rows inside.
    pub allow: Option<&'a Bitmap>,
    /// When given, no rows inside.
    pub deny: Option<&'a Bitmap>,
    /// No rows farther away; those cost next to nothing. Infinite for no limit.
    pub bound: f32,
}

impl Within<'_> {
    /// All rows.
    pub const ALL: Self = Within { allow: None, deny: None, bound: f32::INFINITY };

    #[inline]
    fn allows(&self, ordinal: u32) -> bool {
        self.allow.is_none_or(|set| set.get(ordinal)) && self.deny.is_none_or(|set| !set.get(ordinal))
    }
}

/// Working memory of coding.
#[derive(Debug, Default)]
struct Space {
    values: Vec<f32>,
    /// The query's code stays here.
    codes: Vec<i8>,
    /// Zeros for a query; what the code leaves of a row.
    spare: Vec<f32>,
}

/// Working memory of a scan.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    space: Space,
    /// Estimates and places of rows whose distance is wanted.
    rows: Vec<(f32, u32)>,
    /// The same, lower bound first.
    order: Vec<u64>,
}

impl Pending {
    /// Bytes held at present.
    pub(crate) fn memory_bytes(&self) -> usize {
        4 * (self.space.values.capacity() + self.space.spare.capacity())
            + self.space.codes.capacity()
            + 8 * (self.rows.capacity() + self.order.capacity())
    }
}

/// What is known of a row beside its code.
#[derive(Debug, Clone, Copy)]
struct Factors {
    /// `s`.
    step: f32,
    /// `|s c|^2`, for inner product 0; NaN for a row that codes do not judge, which then is within no bound.
    bias: f32,
    /// At least `|s c|`.
    size: f32,
    /// At least `|e|`.
    rest: f32,
    /// Of the row, about.
    norm: f32,
}

/// Codes of some rows of a table: [`CodedRows::bytes`] of memory.
pub struct CodedRows {
    metric: Metric,
    centre: Vec<f32>,
    from_centre: f64,
    /// Ascending.
    ordinals: Vec<u32>,
    codes: Vec<Line>,
    factors: Vec<Factors>,
    steps: Vec<f32>,
    biases: Vec<f32>,
    /// Largest size and rest of each block.
    largest: Vec<(f32, f32)>,
    /// Places of the rows that codes do not judge.
    wild: Vec<u32>,
    /// Smallest norm of the others.
    min_norm: f64,
}

impl std::fmt::Debug for CodedRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodedRows")
            .field("metric", &self.metric)
            .field("rows", &self.ordinals.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// What a distance within a bound is at most, as a sort key. An infinite bound is none: a NaN is within it.
fn key_of(bound: f32) -> u32 {
    if bound == f32::INFINITY { u32::MAX } else { sort_key(bound) }
}

/// At least `x`, as f32.
fn up(x: f64) -> f32 {
    (x + x.abs() * 1e-6 + 1e-37) as f32
}

/// At most `x`, as f32.
fn down(x: f64) -> f32 {
    (x - x.abs() * 1e-6 - 1e-37) as f32
}

/// Whether codes judge a row or query of this squared norm.
fn is_judged(metric: Metric, norm2: f64) -> bool {
    match metric {
        Metric::Cosine => COSINE_RANGE.contains(&norm2),
        Metric::L2 | Metric::InnerProduct => norm2 <= LARGEST,
    }
}

/// Codes a row around a centre.
fn code_row(metric: Metric, row: &[u8], centre: &[f32], space: &mut Space, to: &mut [u8]) -> Factors {
    to.fill(128);
    let Space { values, codes, spare: rest } = space;
    values.clear();
    values.extend(components(row, centre.len()));
    rest.resize(centre.len(), 0.0);
    codes.resize(centre.len(), 0);
    let mut factors = Factors { step: 0.0, bias: f32::NAN, size: 0.0, rest: 0.0, norm: 0.0 };
    if values.len() < centre.len() {
        return factors;
    }
    let (_, norm2) = (kernels().fast)(Ordered::DotAndSquares, values, values.as_bytes());
    let norm2 = f64::from(norm2);
    if !is_judged(metric, norm2) {
        return factors;
    }
    factors.norm = norm2.sqrt() as f32;
    let weight = if metric == Metric::Cosine { (1.0 / norm2.sqrt()) as f32 } else { 1.0 };
    let numbers = (kernels().code_query)(values, weight, centre, rest, codes);
    let lengths = Lengths::of(metric, centre.len(), &numbers);
    for (to, code) in to.iter_mut().zip(codes) {
        *to = *code as u8 ^ 0x80;
    }
    factors.step = numbers.step;
    factors.bias = if metric == Metric::InnerProduct { 0.0 } else { lengths.size2 as f32 };
    factors.size = up(lengths.size2.sqrt());
    factors.rest = up(lengths.rest);
    factors
}

/// The mean of some rows, or of their directions.
fn centre_of(metric: Metric, dim: usize, rows: &dyn Rows, ordinals: &[u32]) -> Vec<f32> {
    let mut sums = vec![0.0f64; dim];
    let mut count = 0u32;
    for ordinal in ordinals.iter().step_by(ordinals.len().div_ceil(CENTRE_SAMPLE).max(1)) {
        let row = rows.vector(*ordinal);
        let values = || components(row, dim).map(f64::from);
        let norm2: f64 = values().map(|v| v * v).sum();
        if !is_judged(metric, norm2) {
            continue;
        }
        let weight = if metric == Metric::Cosine { 1.0 / norm2.sqrt() } else { 1.0 };
        count += 1;
        sums.iter_mut().zip(values()).for_each(|(sum, v)| *sum += v * weight);
    }
    sums.into_iter().map(|sum| (sum / f64::from(count.max(1))) as f32).collect()
}

impl CodedRows {
    /// Bytes that codes of this many rows take.
    pub fn bytes_of(rows: usize, dim: usize) -> usize {
        rows.saturating_mul(stride_of(dim) + size_of::<Factors>() + 12)
    }

    /// Codes rows of `dim` components: those of `ordinals`, which ascend. O(rows x dim), less for the rows below ordinal
    /// `same` that `before` has codes of: they are the same rows, and theirs are taken over.
    pub fn new(
        metric: Metric,
        dim: usize,
        rows: &dyn Rows,
        ordinals: Vec<u32>,
        before: Option<(&CodedRows, u32)>,
    ) -> Self {
        let before = before.filter(|(before, _)| {
            before.metric == metric
                && before.centre.len() == dim
                && ordinals.len() <= before.ordinals.len().saturating_mul(OUTGROWN)
        });
        let centre = match before {
            Some((before, _)) => before.centre.clone(),
            None => centre_of(metric, dim, rows, &ordinals),
        };
        let lines = stride_of(dim) / 64;
        let mut codes = vec![Line([0; 64]); ordinals.len() * lines];
        let mut factors = Vec::with_capacity(ordinals.len());
        let mut space = Space::default();
        let mut older = before.map_or(&[][..], |(before, same)| {
            let end = before.ordinals.partition_point(|ordinal| *ordinal < same);
            before.ordinals.get(..end).unwrap_or(&[])
        });
        let mut passed = 0;
        for (ordinal, to) in ordinals.iter().zip(codes.chunks_mut(lines)) {
            let skip = older.iter().take_while(|older| *older < ordinal).count();
            older = older.get(skip..).unwrap_or(&[]);
            passed += skip;
            let known = before.filter(|_| older.first() == Some(ordinal)).and_then(|(before, _)| {
                let codes = before.codes.get(passed * lines..(passed + 1) * lines)?;
                before.factors.get(passed).map(|factors| (codes, factors))
            });
            factors.push(match known {
                Some((codes, factors)) => {
                    to.copy_from_slice(codes);
                    *factors
                }
                None => code_row(metric, rows.vector(*ordinal), &centre, &mut space, to.as_mut_bytes()),
            });
        }
        let judged = || factors.iter().filter(|f: &&Factors| !f.bias.is_nan());
        let largest = |block: &[Factors]| {
            block.iter().fold((0.0f32, 0.0f32), |(size, rest), f| (size.max(f.size), rest.max(f.rest)))
        };
        Self {
            metric,
            min_norm: judged().map(|f| f64::from(f.norm)).fold(f64::INFINITY, f64::min),
            wild: (0..).zip(&factors).filter(|(_, f)| f.bias.is_nan()).map(|(at, _)| at).collect(),
            steps: factors.iter().map(|f| f.step).collect(),
            biases: factors.iter().map(|f| f.bias).collect(),
            largest: factors.chunks(BLOCK).map(largest).collect(),
            from_centre: centre.iter().map(|c| f64::from(*c) * f64::from(*c)).sum::<f64>().sqrt(),
            centre,
            ordinals,
            codes,
            factors,
        }
    }

    /// The rows.
    pub fn ordinals(&self) -> &[u32] {
        &self.ordinals
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        Self::bytes_of(self.ordinals.len(), self.centre.len())
    }

    /// The `k` nearest of these rows by (distance, id), nearest first, replacing what `out` held: of those that may be
    /// answered exactly what [`exact::scan`](crate::exact::scan) gives. `rows` is the table the codes are of.
    ///
    /// O(rows x dim) bytes of codes, and a distance for each row that the codes cannot tell from the nearest.
    pub fn scan(
        &self,
        q: &[f32],
        rows: &dyn Rows,
        within: Within<'_>,
        k: usize,
        scratch: &mut Scratch,
        out: &mut Vec<Candidate>,
    ) {
        out.clear();
        let k = k.min(self.ordinals.len());
        if k == 0 {
            return;
        }
        let Scratch { pending, .. } = scratch;
        let probe =
            Probe::new(self.metric, q, &self.centre, self.from_centre, self.min_norm, &mut pending.space);
        let Some(probe) = probe else {
            let allowed: Vec<u32> = self.ordinals.iter().copied().filter(|o| within.allows(*o)).collect();
            exact::scan(self.metric, q, rows, Selection::Ordinals(&allowed), k, out);
            out.retain(|c| sort_key(c.distance) <= key_of(within.bound));
            return;
        };
        let stride = stride_of(self.centre.len());
        let enough = PENDING.max(k / 4);
        let mut bound = within.bound;
        let mut reach = probe.reach(bound);
        let mut estimates = [0.0f32; BLOCK];
        pending.rows.clear();
        for at in &self.wild {
            if self.ordinals.get(*at as usize).is_some_and(|ordinal| within.allows(*ordinal)) {
                pending.rows.push((f32::NEG_INFINITY, *at));
            }
        }
        let mut codes = self.codes.as_bytes().chunks(BLOCK * stride);
        let mut biases = self.biases.chunks(BLOCK);
        let mut largest = self.largest.iter();
        let mut from = 0u32;
        for steps in self.steps.chunks(BLOCK) {
            let (Some(codes), Some(biases), Some(largest)) = (codes.next(), biases.next(), largest.next())
            else {
                break;
            };
            let run = CodeRun { codes, stride, steps, biases };
            let least = probe.estimates(&pending.space.codes, run, &mut estimates);
            let limit = probe.limit(reach, *largest);
            if least <= limit {
                let found = estimates.get(..steps.len()).unwrap_or(&[]);
                self.collect(from, found, limit, rows, within, pending);
                if pending.rows.len() >= enough {
                    self.settle(&probe, q, rows, k, &mut bound, pending, out);
                    reach = probe.reach(bound);
                }
            }
            from += BLOCK as u32;
        }
        self.settle(&probe, q, rows, k, &mut bound, pending, out);
        exact::sort(rows, out);
        out.truncate(k);
    }

    /// Adds the rows of a block whose estimates are within a limit to those waiting.
    fn collect(
        &self,
        from: u32,
        estimates: &[f32],
        limit: f32,
        rows: &dyn Rows,
        within: Within<'_>,
        pending: &mut Pending,
    ) {
        for (estimate, at) in estimates.iter().zip(from..) {
            let Some(ordinal) = self.ordinals.get(at as usize).filter(|_| *estimate <= limit) else {
                continue;
            };
            if within.allows(*ordinal) {
                // Rows lie anywhere in the file: ask for them before they are needed.
                let row = rows.vector(*ordinal);
                prefetch_many(row, 0, row.len().min(2048));
                pending.rows.push((*estimate, at));
            }
        }
    }

    /// Computes the distance of every waiting row that may be within the bound, and lowers the bound to the `k`-th.
    fn settle(
        &self,
        probe: &Probe,
        q: &[f32],
        rows: &dyn Rows,
        k: usize,
        bound: &mut f32,
        pending: &mut Pending,
        out: &mut Vec<Candidate>,
    ) {
        let Pending { rows: waiting, order, .. } = pending;
        order.clear();
        for (estimate, at) in waiting.drain(..) {
            let lower = match self.factors.get(at as usize) {
                Some(factors) if estimate > f32::NEG_INFINITY => probe.lower(estimate, factors),
                _ => f32::NEG_INFINITY,
            };
            order.push(u64::from(sort_key(lower)) << 32 | u64::from(at));
        }
        if order.len() > GROUP {
            order.sort_unstable();
        }
        let mut values = [0.0f32; GROUP];
        for group in order.chunks(GROUP) {
            let limit = key_of(*bound);
            let within = |key: &u64| (key >> 32) as u32 <= limit;
            let mut places = [0u32; GROUP];
            let mut count = 0;
            for key in group.iter().filter(|key| within(key)) {
                if let (Some(place), Some(ordinal)) =
                    (places.get_mut(count), self.ordinals.get(*key as u32 as usize))
                {
                    *place = *ordinal;
                    count += 1;
                }
            }
            let places = places.get(..count).unwrap_or(&[]);
            if places.is_empty() {
                break;
            }
            let vectors: [&[u8]; GROUP] =
                std::array::from_fn(|i| places.get(i).map_or(&[][..], |ordinal| rows.vector(*ordinal)));
            exact::distances(self.metric, q, vectors.get(..count).unwrap_or(&[]), &mut values);
            let found = places.iter().zip(values).map(|(o, distance)| Candidate { ordinal: *o, distance });
            out.extend(found.filter(|c| sort_key(c.distance) <= limit));
            // For a large `k` once a round, or sorting would cost more than the distances saved.
            if out.len() >= k && k <= BLOCK {
                self.tighten(rows, k, bound, out);
            }
        }
        if out.len() >= k {
            self.tighten(rows, k, bound, out);
        }
    }

    fn tighten(&self, rows: &dyn Rows, k: usize, bound: &mut f32, out: &mut Vec<Candidate>) {
        exact::sort(rows, out);
        out.truncate(k);
        if let Some(last) = out.last() {
            *bound = last.distance;
        }
    }
}

//! The hot vectors of a store as integers, and the scan over them that the XDP program does.
//!
//! There is no floating point in the kernel, so vectors and queries are rounded to steps: 24 bits a component, which is as
//! fine as an f32 that is as large as the largest component. From there on everything is exact: for each hot vector
//! `raw = bias - 2^(shift + 1) * dot`, where bias is the squared norm for squared L2 and 0 for the other metrics. Nearer
//! vectors have smaller values, equal ones go by id. Vectors for the cosine are normalised before they are rounded.

use crate::wire::{self, MAX_PAYLOAD, QUERY_HEAD};

/// Largest dimension that the program handles.
pub const MAX_DIMENSION: usize = 1024;

/// Most results of one answer.
pub const MAX_K: usize = 16;

/// Most components that a query is compared with: dimension times vectors. The program runs to its end before the
/// processor takes the next packet, so this bounds for how long: see docs/benchmarks.md.
pub const MAX_WORK: usize = 256 * 384;

/// Most vectors, whatever their dimension.
pub const MAX_VECTORS: usize = 4096;

/// Largest magnitude of a code.
const MAX_CODE: i32 = (1 << 23) - 1;

/// Largest shift of a query.
const MAX_SHIFT: u8 = 5;

/// Bytes of a value of the program's map `hot`.
pub const HOT_VALUE: usize = 16 + 4 * MAX_DIMENSION;

/// How distances are measured, by the format's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Metric {
    /// Squared L2.
    L2 = 0,
    /// Negated inner product.
    InnerProduct = 1,
    /// 1 - cosine.
    Cosine = 2,
}

impl Metric {
    /// From the format's number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::L2, Self::InnerProduct, Self::Cosine].into_iter().find(|metric| *metric as u8 == code)
    }
}

/// Why there is no hot set, or no query for one. All variants are the caller's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HotError {
    /// Nothing to search.
    Empty,
    /// The dimension is past the program's.
    Dimension {
        /// Of the store.
        dimension: usize,
    },
    /// More than a packet may keep the processor.
    Work {
        /// Vectors that were asked for.
        vectors: usize,
        /// Components of each.
        dimension: usize,
    },
    /// A vector has another length.
    Length {
        /// Components it has.
        found: usize,
        /// Components it should have.
        wanted: usize,
    },
    /// A component is not finite.
    NotFinite,
    /// The query is too far from all hot vectors for their steps.
    TooFar {
        /// Largest magnitude of a component of it.
        found: f64,
        /// Largest that can be sent.
        most: f64,
    },
}

impl std::error::Error for HotError {}

impl std::fmt::Display for HotError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => write!(f, "there are no vectors to answer from"),
            Self::Dimension { dimension } => {
                write!(f, "dimension {dimension}; the program takes 1 to {MAX_DIMENSION}")
            }
            Self::Work { vectors, dimension } => write!(
                f,
                "{vectors} hot vectors of {dimension} components would keep a processor for too long with every query; \
                 at most {} are taken",
                most_vectors(*dimension)
            ),
            Self::Length { found, wanted } => {
                write!(f, "a vector of {found} components where {wanted} are wanted")
            }
            Self::NotFinite => write!(f, "a component is not a finite number"),
            Self::TooFar { found, most } => write!(
                f,
                "a component of magnitude {found}, more than {most}, which is the most that is compared with these vectors"
            ),
        }
    }
}

/// How many hot vectors of a dimension are taken at most.
#[must_use]
pub fn most_vectors(dimension: usize) -> usize {
    (MAX_WORK / dimension.max(1)).clamp(1, MAX_VECTORS)
}

/// One hot vector as the program has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HotVector {
    /// Its id.
    pub id: u64,
    /// Its squared norm in steps for squared L2; else 0.
    pub bias: i64,
    /// Its components in steps.
    pub codes: Vec<i32>,
}

impl HotVector {
    /// The value of the map `hot`.
    #[must_use]
    pub fn map_value(&self) -> [u8; HOT_VALUE] {
        let mut out = [0; HOT_VALUE];
        let (head, codes) = out.split_at_mut(16);
        let (id, bias) = head.split_at_mut(8);
        id.copy_from_slice(&self.id.to_le_bytes());
        bias.copy_from_slice(&self.bias.to_le_bytes());
        for (place, code) in codes.chunks_exact_mut(4).zip(&self.codes) {
            // Never negative, so that the program loads it as it is.
            place.copy_from_slice(&((code + (1 << 23)) as u32).to_le_bytes());
        }
        out
    }
}

/// What a client has to know of a hot set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// How distances are measured.
    pub metric: Metric,
    /// Components a vector.
    pub dimension: usize,
    /// What one step of a code is.
    pub step: f64,
}

/// The hot vectors of a store, ascending by id.
#[derive(Clone, Debug, PartialEq)]
pub struct HotSet {
    /// What clients have to know.
    pub scale: Scale,
    /// The vectors.
    pub vectors: Vec<HotVector>,
}

impl HotSet {
    /// Rounds vectors, given as their ids and components. O(components).
    ///
    /// # Errors
    /// [`HotError`].
    pub fn new(metric: Metric, dimension: usize, rows: &[(u64, Vec<f32>)]) -> Result<Self, HotError> {
        if rows.is_empty() {
            return Err(HotError::Empty);
        }
        if dimension == 0 || dimension > MAX_DIMENSION {
            return Err(HotError::Dimension { dimension });
        }
        if rows.len() > most_vectors(dimension) {
            return Err(HotError::Work { vectors: rows.len(), dimension });
        }
        let mut real = Vec::with_capacity(rows.len());
        for (id, row) in rows {
            real.push((*id, prepared(metric, dimension, row)?));
        }
        real.sort_by_key(|(id, _)| *id);
        let largest = real.iter().flat_map(|(_, row)| row).fold(0.0, |most: f64, v| most.max(v.abs()));
        let step = if largest > 0.0 { largest / f64::from(MAX_CODE) } else { 1.0 };
        let vectors = real
            .into_iter()
            .map(|(id, row)| {
                let codes: Vec<i32> = row.iter().map(|v| code(*v, step)).collect();
                let bias = match metric {
                    Metric::L2 => codes.iter().map(|code| i64::from(*code).pow(2)).sum(),
                    Metric::InnerProduct | Metric::Cosine => 0,
                };
                HotVector { id, bias, codes }
            })
            .collect();
        Ok(Self { scale: Scale { metric, dimension, step }, vectors })
    }

    /// What the program answers: the `k` nearest as ids and raw values, nearest first, of equal ones the smaller id first.
    #[must_use]
    pub fn scan(&self, query: &Query, k: usize) -> Vec<(u64, i64)> {
        let mut all: Vec<(u64, i64)> = self
            .vectors
            .iter()
            .map(|v| {
                let dot: i64 =
                    v.codes.iter().zip(&query.codes).map(|(a, b)| i64::from(*a) * i64::from(*b)).sum();
                (v.id, v.bias - (dot << (query.shift + 1)))
            })
            .collect();
        all.sort_unstable_by_key(|(id, raw)| (*raw, *id));
        all.truncate(k);
        all
    }
}

fn code(value: f64, step: f64) -> i32 {
    (value / step).round().clamp(-f64::from(MAX_CODE), f64::from(MAX_CODE)) as i32
}

/// A row as f64, normalised for the cosine.
fn prepared(metric: Metric, dimension: usize, row: &[f32]) -> Result<Vec<f64>, HotError> {
    if row.len() != dimension {
        return Err(HotError::Length { found: row.len(), wanted: dimension });
    }
    if row.iter().any(|v| !v.is_finite()) {
        return Err(HotError::NotFinite);
    }
    let mut real: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
    if metric == Metric::Cosine {
        let norm = real.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm > 0.0 {
            real.iter_mut().for_each(|v| *v /= norm);
        }
    }
    Ok(real)
}

/// A query in steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// Its components: multiples of what its width can say.
    pub codes: Vec<i32>,
    /// Bytes a component in the packet: 3, or fewer where a packet has no room.
    pub width: u8,
    /// Its steps are `2^shift` of the hot vectors' (squared L2); else 0.
    pub shift: u8,
    /// What one of its steps is.
    pub step: f64,
}

impl Query {
    /// Rounds a query for a hot set. O(dimension).
    ///
    /// # Errors
    /// [`HotError`].
    pub fn new(scale: &Scale, query: &[f32]) -> Result<Self, HotError> {
        let real = prepared(scale.metric, scale.dimension, query)?;
        let largest = real.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        let width = (1..=3).rev().find(|width| QUERY_HEAD + width * scale.dimension <= MAX_PAYLOAD);
        let Some(width) = width else { return Err(HotError::Dimension { dimension: scale.dimension }) };
        // In 24-bit steps: what the smallest difference of this width is, and the largest magnitude.
        let unit = f64::from(1_u32 << (24 - 8 * width));
        let most = f64::from((1_u32 << (8 * width - 1)) - 1);
        let (shift, step) = match scale.metric {
            Metric::L2 => {
                let reach = |shift: u8| scale.step * f64::from(1_u32 << shift) * unit * most;
                // Rounding a component just past the largest code costs half a step, no more.
                let fits = |shift: &u8| largest <= reach(*shift) * (1.0 + 0.5 / most);
                let shift = (0..=MAX_SHIFT)
                    .find(fits)
                    .ok_or(HotError::TooFar { found: largest, most: reach(MAX_SHIFT) })?;
                (shift, scale.step * f64::from(1_u32 << shift))
            }
            Metric::InnerProduct | Metric::Cosine if largest > 0.0 => (0, largest / (most * unit)),
            Metric::InnerProduct | Metric::Cosine => (0, 1.0),
        };
        let codes =
            real.iter().map(|v| ((v / (step * unit)).round().clamp(-most, most) * unit) as i32).collect();
        Ok(Self { codes, width: width as u8, shift, step })
    }

    /// The distance that a raw value stands for.
    #[must_use]
    pub fn distance(&self, scale: &Scale, raw: i64) -> f64 {
        match scale.metric {
            Metric::L2 => {
                let own: i128 =
                    self.codes.iter().map(|code| i128::from(i64::from(*code) << self.shift).pow(2)).sum();
                (i128::from(raw) + own) as f64 * scale.step * scale.step
            }
            Metric::InnerProduct => raw as f64 / 2.0 * scale.step * self.step,
            Metric::Cosine => 1.0 + raw as f64 / 2.0 * scale.step * self.step,
        }
    }

    /// The packet's payload.
    #[must_use]
    pub fn payload(&self, k: usize, token: u32) -> Vec<u8> {
        let mut out = wire::Header {
            op: wire::Op::Nearest,
            width: self.width,
            shift: self.shift,
            dimension: self.codes.len() as u16,
            k: k as u16,
            token,
        }
        .encode();
        for code in &self.codes {
            let bytes = code.to_le_bytes();
            out.extend_from_slice(bytes.get(3 - usize::from(self.width)..3).unwrap_or(&[]));
        }
        // An answer is never longer than its query.
        out.resize(out.len().max(wire::ANSWER_HEAD + wire::RESULT * k), 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of pseudo-random components between -1 and 1.
    fn row(seed: u64, dimension: usize, size: f32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..dimension)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * size
            })
            .collect()
    }

    fn exact(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
        let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let dot: f64 = pairs().map(|(a, b)| a * b).sum();
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        match metric {
            Metric::L2 => pairs().map(|(a, b)| (a - b).powi(2)).sum(),
            Metric::InnerProduct => -dot,
            Metric::Cosine => 1.0 - dot / (norm(a) * norm(b)),
        }
    }

    #[test]
    fn order_and_distances_are_those_of_real_numbers() {
        for metric in [Metric::L2, Metric::InnerProduct, Metric::Cosine] {
            // 384 components are sent with 24 bits, 700 with 16, 1000 with 8.
            for (dimension, tolerance) in [(1, 1e-6), (3, 1e-6), (384, 1e-6), (700, 2e-3), (1000, 0.3)] {
                let rows: Vec<_> = (0..60).map(|i| (i * 7 + 3, row(i + 1, dimension, 2.5))).collect();
                let set = HotSet::new(metric, dimension, &rows).expect("a hot set");
                for (seed, size) in [(1000, 1.0), (1001, 2.5), (1002, 30.0)] {
                    let query = row(seed, dimension, size);
                    let sent = Query::new(&set.scale, &query).expect("near enough");
                    let got = set.scan(&sent, 60);
                    assert_eq!(got.len(), 60);
                    let mut want: Vec<(u64, f64)> =
                        rows.iter().map(|(id, row)| (*id, exact(metric, row, &query))).collect();
                    want.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
                    let spread = want[59].1 - want[0].1;
                    for ((id, raw), (wanted, distance)) in got.iter().zip(&want) {
                        let error = (sent.distance(&set.scale, *raw) - distance).abs();
                        assert!(
                            error <= tolerance * spread.max(1e-3),
                            "{metric:?} {dimension} {size}: {error}"
                        );
                        if sent.width == 3 && dimension > 1 {
                            assert_eq!(id, wanted, "{metric:?} {dimension} {size}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn equal_vectors_are_ordered_by_id() {
        let rows: Vec<_> = [9, 2, 5].map(|id| (id, vec![1.0, 0.0])).to_vec();
        let set = HotSet::new(Metric::Cosine, 2, &rows).expect("a hot set");
        let query = Query::new(&set.scale, &[0.3, 0.4]).expect("a query");
        let ids: Vec<u64> = set.scan(&query, 3).iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [2, 5, 9]);
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        let one = |row: Vec<f32>| vec![(1, row)];
        assert_eq!(HotSet::new(Metric::L2, 2, &[]), Err(HotError::Empty));
        assert_eq!(
            HotSet::new(Metric::L2, 2, &one(vec![1.0])),
            Err(HotError::Length { found: 1, wanted: 2 })
        );
        assert_eq!(HotSet::new(Metric::L2, 1, &one(vec![f32::NAN])), Err(HotError::NotFinite));
        assert_eq!(
            HotSet::new(Metric::L2, 1025, &one(vec![0.0; 1025])),
            Err(HotError::Dimension { dimension: 1025 })
        );
        let many: Vec<_> = (0..257).map(|id| (id, vec![1.0; 384])).collect();
        assert!(matches!(HotSet::new(Metric::L2, 384, &many), Err(HotError::Work { vectors: 257, .. })));
        let set = HotSet::new(Metric::L2, 2, &one(vec![1.0, -1.0])).expect("a hot set");
        assert!(matches!(Query::new(&set.scale, &[33.0, 0.0]), Err(HotError::TooFar { .. })));
        assert!(Query::new(&set.scale, &[31.0, 0.0]).is_ok());
        assert!(matches!(Query::new(&set.scale, &[1.0]), Err(HotError::Length { .. })));
        // Nothing but zeros is a vector like any other.
        let zeros = HotSet::new(Metric::Cosine, 2, &one(vec![0.0, 0.0])).expect("a hot set");
        let query = Query::new(&zeros.scale, &[0.0, 0.0]).expect("a query");
        assert_eq!(query.distance(&zeros.scale, zeros.scan(&query, 1)[0].1), 1.0);
    }

    #[test]
    fn the_largest_values_do_not_overflow() {
        let rows: Vec<_> = (0..96).map(|id| (id, vec![f32::MAX; 1024])).collect();
        let set = HotSet::new(Metric::L2, 1024, &rows).expect("a hot set");
        let query = Query::new(&set.scale, &vec![f32::MIN; 1024]).expect("a query");
        let found = set.scan(&query, 1)[0].1;
        // bias + 2 * norm^2, with the 8 bits that a query of this dimension has.
        assert!(found > 3 * ((1_i64 << 46) - (1 << 40)) * 1000, "{found}");
        let last = Query { shift: MAX_SHIFT, ..query };
        assert!(set.scan(&last, 1)[0].1 > found);
    }
}

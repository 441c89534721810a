//! Data for the tests: the real sample, seeded mixtures, and the naive scan as oracle.
#![allow(dead_code, reason = "each test program uses its part")]

use std::path::PathBuf;

use rvf_index::{BuildParams, Candidate, Image, Metric, NoProgress, OwnedRows, Rows, build, exact};

pub(crate) const METRICS: [Metric; 3] = [Metric::L2, Metric::InnerProduct, Metric::Cosine];

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Normal, by Irwin and Hall.
    pub(crate) fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    pub(crate) fn vector(&mut self, dim: usize) -> Vec<f32> {
        (0..dim).map(|_| self.normal()).collect()
    }
}

/// Rows around `clusters` centres, with lengths that vary by a factor of three, ids shuffled; and queries of the kind.
pub(crate) fn mixture(
    n: usize,
    dim: usize,
    clusters: usize,
    queries: usize,
    seed: u64,
) -> (OwnedRows, Vec<Vec<f32>>) {
    let mut random = Random(seed);
    let centres: Vec<Vec<f32>> = (0..clusters).map(|_| random.vector(dim)).collect();
    let draw = |random: &mut Random| -> Vec<f32> {
        let centre = &centres[random.below(clusters)];
        let length = 0.5 + random.unit();
        centre.iter().map(|c| (c + 0.7 * random.normal()) * length).collect()
    };
    let mut rows = OwnedRows::new(dim);
    for i in 0..n {
        let v = draw(&mut random);
        rows.push((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 3, &v);
    }
    let queries = (0..queries).map(|_| draw(&mut random)).collect();
    (rows, queries)
}

/// Rows of every kind: copies, near copies, zeros, huge, tiny, not finite.
pub(crate) fn odd_rows(n: usize, dim: usize, seed: u64) -> OwnedRows {
    let mut random = Random(seed);
    let base: Vec<Vec<f32>> = (0..7).map(|_| random.vector(dim)).collect();
    let mut rows = OwnedRows::new(dim);
    for i in 0..n {
        let mut v = base[random.below(7)].clone();
        match random.below(12) {
            0 => v.fill(0.0),
            1 => v.iter_mut().for_each(|x| *x *= 1e-25),
            2 => v.iter_mut().for_each(|x| *x *= 1e19),
            3 => v[random.below(dim)] = f32::NAN,
            4 => v[random.below(dim)] = f32::INFINITY,
            5 | 6 => {}
            7 => {
                let at = random.below(dim);
                v[at] = f32::from_bits(v[at].to_bits() ^ 1);
            }
            8 => v.iter_mut().for_each(|x| *x *= 3e-8),
            _ => v = random.vector(dim),
        }
        rows.push(((i * 31) % n) as u64, &v);
    }
    rows
}

pub(crate) fn live(rows: &dyn Rows) -> Vec<u32> {
    (0..rows.len()).collect()
}

pub(crate) fn image_bytes(rows: &dyn Rows, dim: usize, metric: Metric) -> Vec<u8> {
    build(rows, dim, &live(rows), metric, [7; 32], rows.len(), &BuildParams::default(), &NoProgress)
        .expect("the rows are whole")
}

pub(crate) fn image(rows: &dyn Rows, dim: usize, metric: Metric) -> Image {
    Image::open(image_bytes(rows, dim, metric)).expect("just built")
}

/// The naive scan of the rows `keep` accepts.
pub(crate) fn naive(
    metric: Metric,
    q: &[f32],
    rows: &dyn Rows,
    k: usize,
    keep: impl Fn(u32) -> bool,
) -> Vec<Candidate> {
    let mut all: Vec<Candidate> = (0..rows.len())
        .filter(|o| keep(*o))
        .map(|ordinal| Candidate { ordinal, distance: exact::distance(metric, q, rows.vector(ordinal)) })
        .collect();
    all.sort_by_key(|c| (rvf_index::sort_key(c.distance), rows.id(c.ordinal)));
    all.truncate(k);
    all
}

/// Share of the right answers found, a row as far as the last right one counting as right.
pub(crate) fn recall(found: &[Candidate], right: &[Candidate]) -> f64 {
    let Some(last) = right.last() else { return 1.0 };
    found.iter().filter(|c| c.distance <= last.distance).count().min(right.len()) as f64 / right.len() as f64
}

pub(crate) fn sample(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/debian-packages").join(name)
}

fn npy(name: &str) -> (usize, Vec<u8>) {
    let all = std::fs::read(sample(name)).expect("the sample is there");
    let start = 10 + usize::from(u16::from_le_bytes([all[8], all[9]]));
    let header = String::from_utf8_lossy(&all[10..start]).into_owned();
    let shape =
        header.split("'shape': (").nth(1).and_then(|s| s.split(')').next()).expect("a shape").to_owned();
    let width = shape.split(',').filter_map(|d| d.trim().parse().ok()).nth(1).unwrap_or(1);
    (width, all[start..].to_vec())
}

fn half(bits: u16) -> f32 {
    let (sign, exponent, fraction) =
        (u32::from(bits >> 15) << 31, u32::from(bits >> 10 & 31), u32::from(bits & 1023));
    match exponent {
        0 => f32::from_bits(sign | (fraction as f32 * 2.0f32.powi(-24)).to_bits()),
        31 => f32::from_bits(sign | 0xFF << 23 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

pub(crate) fn ids(name: &str) -> Vec<Vec<u64>> {
    let (width, data) = npy(name);
    let all: Vec<u64> = data
        .chunks_exact(8)
        .map(|c| u64::from_le_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
        .collect();
    all.chunks(width).map(<[u64]>::to_vec).collect()
}

/// The 5,000 real rows.
pub(crate) fn real_rows() -> OwnedRows {
    let (dim, data) = npy("base.f16.npy");
    let ids = ids("ids.u64.npy");
    let mut rows = OwnedRows::new(dim);
    for (row, id) in data.chunks_exact(2 * dim).zip(ids) {
        let values: Vec<f32> = row.chunks_exact(2).map(|c| half(u16::from_le_bytes([c[0], c[1]]))).collect();
        rows.push(id[0], &values);
    }
    rows
}

pub(crate) fn real_queries() -> Vec<Vec<f32>> {
    let (dim, data) = npy("queries.f32.npy");
    data.chunks_exact(4 * dim)
        .map(|q| q.chunks_exact(4).map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
        .collect()
}

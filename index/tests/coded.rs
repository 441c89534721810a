//! The scan of codes gives exactly what the naive scan gives, whatever the rows are like.

mod support;

use rvf_index::{Bitmap, Candidate, CodedRows, Metric, OwnedRows, Rows, Scratch, Within, sort_key};
use support::*;

fn same(found: &[Candidate], right: &[Candidate], what: &str) {
    let plain = |all: &[Candidate]| all.iter().map(|c| (c.ordinal, c.distance.to_bits())).collect::<Vec<_>>();
    assert_eq!(plain(found), plain(right), "{what}");
}

/// Every kind of question to these rows, each compared with the naive scan.
fn compare(rows: &OwnedRows, queries: &[Vec<f32>], metric: Metric, dim: usize, what: &str) {
    let n = rows.len();
    let some: Vec<u32> = (0..n).filter(|o| o % 7 != 3).collect();
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    let allow = Bitmap::from_ordinals(n, (0..n).filter(|o| o % 3 != 0));
    let deny = Bitmap::from_ordinals(n, (0..n).filter(|o| o % 5 < 2));
    for ordinals in [live(rows), some] {
        let codes = CodedRows::new(metric, dim, rows, ordinals.clone(), None);
        assert_eq!(codes.ordinals(), ordinals);
        for (number, q) in queries.iter().enumerate() {
            for k in [1, 10, 300, 100_000] {
                for (allow, deny) in
                    [(None, None), (Some(&allow), None), (Some(&allow), Some(&deny)), (None, Some(&deny))]
                {
                    let keep = |o: u32| {
                        ordinals.binary_search(&o).is_ok()
                            && allow.is_none_or(|set| set.get(o))
                            && deny.is_none_or(|set| !set.get(o))
                    };
                    let right = naive(metric, q, rows, k, keep);
                    let text = format!("{what}, {metric}, query {number}, k {k}");
                    codes.scan(q, rows, Within { allow, deny, ..Within::ALL }, k, &mut scratch, &mut out);
                    same(&out, &right, &text);
                    // As if others had been found at these distances before.
                    for at in [0, 3, 9, 40] {
                        let Some(bound) = right.get(at).map(|c| c.distance).filter(|d| d.is_finite()) else {
                            continue;
                        };
                        codes.scan(q, rows, Within { allow, deny, bound }, k, &mut scratch, &mut out);
                        let near: Vec<Candidate> = right
                            .iter()
                            .copied()
                            .filter(|c| sort_key(c.distance) <= sort_key(bound))
                            .collect();
                        same(&out, &near, &format!("{text}, within {bound}"));
                    }
                    let none = Within { allow, deny, bound: f32::NEG_INFINITY };
                    codes.scan(q, rows, none, k, &mut scratch, &mut out);
                    assert!(out.iter().all(|c| c.distance == f32::NEG_INFINITY), "{text}, within nothing");
                }
            }
        }
    }
}

#[test]
fn clustered_rows() {
    for (n, dim) in [(1, 5), (64, 1), (65, 33), (700, 48), (900, 384)] {
        let (rows, queries) = mixture(n, dim, 12, 6, n as u64);
        for metric in METRICS {
            compare(&rows, &queries, metric, dim, &format!("{n} x {dim}"));
        }
    }
}

#[test]
fn rows_of_every_kind() {
    for (n, dim, seed) in [(500, 1, 1), (500, 3, 2), (700, 48, 3), (300, 385, 4)] {
        let rows = odd_rows(n, dim, seed);
        let mut random = Random(seed);
        for scale in [1.0f32, 0.0, 1e-30, 1e-20, 1e-7, 1e18] {
            let queries: Vec<Vec<f32>> =
                (0..2).map(|_| random.vector(dim).iter().map(|x| x * scale).collect()).collect();
            for metric in METRICS {
                compare(&rows, &queries, metric, dim, &format!("odd {n} x {dim}, scale {scale}"));
            }
        }
    }
}

#[test]
fn copies_and_near_copies_far_from_the_origin() {
    let dim = 64;
    let mut random = Random(8);
    for (place, spread) in
        [(0.0f32, 0.0f32), (0.0, 1e-6), (300.0, 1e-3), (-1e6, 1.0), (1e12, 1e4), (0.0, 1e-25)]
    {
        let mut rows = OwnedRows::new(dim);
        let base: Vec<f32> = random.vector(dim).iter().map(|x| place + x).collect();
        for id in 0..400u64 {
            let v: Vec<f32> = base.iter().map(|x| x + spread * random.normal()).collect();
            rows.push(id ^ 77, if id % 4 == 0 { &base } else { &v });
        }
        let mut other = base.clone();
        other.iter_mut().for_each(|x| *x += spread * random.normal());
        for metric in METRICS {
            compare(&rows, &[base.clone(), other.clone()], metric, dim, &format!("at {place} +- {spread}"));
        }
    }
}

#[test]
fn codes_taken_over_answer_the_same() {
    let dim = 40;
    let (rows, queries) = mixture(900, dim, 6, 5, 3);
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    for metric in METRICS {
        let first = CodedRows::new(metric, dim, &rows, (0..300).filter(|o| o % 2 == 0).collect(), None);
        // Grown, with some gone; grown past what keeps the centre; and with rows that are not the same any more.
        for (ordinals, same_rows) in [
            ((50..500).filter(|o| o % 3 != 1).collect::<Vec<u32>>(), 300),
            (live(&rows), 300),
            ((0..400).collect(), 120),
            (vec![], 300),
        ] {
            let then = CodedRows::new(metric, dim, &rows, ordinals.clone(), Some((&first, same_rows)));
            let again = CodedRows::new(metric, dim, &rows, ordinals.clone(), Some((&then, 900)));
            for codes in [&then, &again] {
                for q in &queries {
                    codes.scan(q, &rows, Within::ALL, 10, &mut scratch, &mut out);
                    let right = naive(metric, q, &rows, 10, |o| ordinals.binary_search(&o).is_ok());
                    same(&out, &right, &format!("{metric}, {} rows", ordinals.len()));
                }
            }
        }
    }
    // Taken over only where they are the same: here they are not, and the codes must be new.
    let (changed, _) = mixture(900, dim, 6, 1, 4);
    let first = CodedRows::new(Metric::L2, dim, &rows, live(&rows), None);
    let then = CodedRows::new(Metric::L2, dim, &changed, live(&changed), Some((&first, 0)));
    then.scan(&queries[0], &changed, Within::ALL, 10, &mut scratch, &mut out);
    same(&out, &naive(Metric::L2, &queries[0], &changed, 10, |_| true), "changed rows");
}

#[test]
fn most_rows_are_judged_by_their_codes() {
    let (rows, dim) = (&real_rows(), 384);
    let mut scratch = Scratch::new();
    let mut out = Vec::new();
    let codes = CodedRows::new(Metric::Cosine, dim, rows, live(rows), None);
    let counted = Counted { rows, reads: std::sync::atomic::AtomicU64::new(0) };
    let queries: Vec<Vec<f32>> = real_queries().into_iter().take(50).collect();
    for q in &queries {
        codes.scan(q, &counted, Within::ALL, 10, &mut scratch, &mut out);
        assert_eq!(out.len(), 10);
    }
    let reads = counted.reads.into_inner() / queries.len() as u64;
    assert!(reads < u64::from(rows.len()) / 8, "{reads} of {} rows were read a query", rows.len());
}

/// Counts how often a vector is asked for.
struct Counted<'a> {
    rows: &'a OwnedRows,
    reads: std::sync::atomic::AtomicU64,
}

impl Rows for Counted<'_> {
    fn len(&self) -> u32 {
        self.rows.len()
    }
    fn vector(&self, ordinal: u32) -> &[u8] {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.rows.vector(ordinal)
    }
    fn id(&self, ordinal: u32) -> u64 {
        self.rows.id(ordinal)
    }
}

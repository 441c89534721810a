//! The fast scan gives exactly what the naive one gives.

mod support;

use rvf_index::exact::{self, Selection};
use rvf_index::{Bitmap, OwnedRows, Rows};
use support::*;

#[test]
fn equals_the_naive_scan() {
    let mut out = Vec::new();
    for (n, dim, seed) in [(700, 1, 1), (900, 3, 2), (1300, 48, 3), (400, 385, 4), (5, 70, 5)] {
        let rows = odd_rows(n, dim, seed);
        let mut random = Random(seed);
        let set = Bitmap::from_ordinals(n as u32, (0..n as u32).filter(|o| o % 3 != 0));
        let list: Vec<u32> = (0..n as u32).rev().filter(|o| o % 5 < 2).collect();
        for scale in [1.0f32, 0.0, 1e-30, 1e-7, 1e18] {
            let q: Vec<f32> = random.vector(dim).iter().map(|x| x * scale).collect();
            for metric in METRICS {
                for k in [1, 10, 100, 10_000] {
                    let same = |found: &[rvf_index::Candidate], keep: &dyn Fn(u32) -> bool| {
                        let right = naive(metric, &q, &rows, k, keep);
                        assert_eq!(found.len(), right.len());
                        for (f, r) in found.iter().zip(&right) {
                            assert_eq!(
                                (f.ordinal, f.distance.to_bits()),
                                (r.ordinal, r.distance.to_bits()),
                                "{metric} {n} x {dim}, k {k}, scale {scale}"
                            );
                        }
                    };
                    for threads in [1, 3] {
                        exact::scan_threads(metric, &q, &rows, Selection::All, k, threads, &mut out);
                        same(&out, &|_| true);
                        exact::scan_threads(metric, &q, &rows, Selection::Bitmap(&set), k, threads, &mut out);
                        same(&out, &|o| o % 3 != 0);
                        exact::scan_threads(
                            metric,
                            &q,
                            &rows,
                            Selection::Ordinals(&list),
                            k,
                            threads,
                            &mut out,
                        );
                        same(&out, &|o| o % 5 < 2);
                    }
                }
            }
        }
    }
}

#[test]
fn several_rows_at_once_give_the_same_bits_at_any_alignment() {
    let mut random = Random(6);
    for dim in [1usize, 5, 8, 16, 100, 384, 1027] {
        let mut raw = vec![0u8; 3];
        for v in random.vector(dim * 21) {
            raw.extend(v.to_le_bytes());
        }
        for shift in 0..4 {
            let bytes: Vec<u8> = std::iter::repeat_n(0u8, shift).chain(raw[3..].iter().copied()).collect();
            let rows: Vec<&[u8]> = bytes[shift..].chunks_exact(4 * dim).collect();
            let q = random.vector(dim);
            for metric in METRICS {
                for take in [0, 1, 7, 8, 9, 21] {
                    let mut out = vec![0.0; take];
                    exact::distances(metric, &q, &rows[..take], &mut out);
                    for (row, d) in rows.iter().zip(&out) {
                        assert_eq!(d.to_bits(), exact::distance(metric, &q, row).to_bits(), "{metric} {dim}");
                    }
                }
            }
        }
    }
    let short = [0u8; 10];
    let mut out = [0.0; 2];
    exact::distances(rvf_index::Metric::L2, &[1.0, 2.0], &[&[0; 8], &short[..7]], &mut out);
    assert_eq!(out, [5.0, f32::INFINITY]);
}

#[test]
fn an_empty_table_has_no_answers() {
    let rows = OwnedRows::new(4);
    assert!(rows.is_empty());
    let mut out = vec![rvf_index::Candidate { ordinal: 1, distance: 0.0 }];
    exact::scan(rvf_index::Metric::L2, &[0.0; 4], &rows, Selection::All, 5, &mut out);
    assert!(out.is_empty());
}

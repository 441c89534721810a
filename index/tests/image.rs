//! Images as such: sizes, limits, repeatability, conversion, damage.

mod support;

use std::sync::atomic::{AtomicU64, Ordering};

use rvf_index::{
    Bitmap, BuildParams, Family, Image, IndexError, Metric, NoProgress, OwnedRows, Progress, Rows, Scratch,
    build, default_ef, exact, from_graph,
};
use support::*;

fn built(rows: &dyn Rows, dim: usize, live: &[u32], params: &BuildParams) -> Result<Vec<u8>, IndexError> {
    build(rows, dim, live, Metric::L2, [1; 32], rows.len(), params, &NoProgress)
}

#[test]
fn any_number_of_rows_and_any_k() {
    for n in [0u32, 1, 2, 3, 17, 64, 300] {
        let (rows, queries) = mixture(n as usize, 5, 3, 3, u64::from(n) + 1);
        for metric in METRICS {
            let image = image(&rows, 5, metric);
            image.verify().expect("just built");
            assert_eq!(image.nodes(), n);
            for k in [0, 1, 10, 64, 1000, usize::MAX] {
                for ef in [0, 1, 50, usize::MAX] {
                    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
                    for q in &queries {
                        image
                            .search(q, k, ef, &rows, None, None, &mut scratch, &mut out)
                            .expect("a good query");
                        assert_eq!(out, naive(metric, q, &rows, k, |_| true), "{metric} n {n} k {k} ef {ef}");
                    }
                }
            }
            let graph = image.export_graph();
            assert_eq!(graph.ordinals.len(), n as usize);
            assert_eq!(graph.entry.is_some(), n > 0);
        }
    }
}

#[test]
fn k_above_ef_is_answered_in_full() {
    let (rows, queries) = mixture(3000, 12, 10, 5, 9);
    let image = image(&rows, 12, Metric::L2);
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    for k in [1, 50, 333, 2999, 3000, 5000] {
        for q in &queries {
            let stats =
                image.search(q, k, 10, &rows, None, None, &mut scratch, &mut out).expect("a good query");
            assert_eq!(out.len(), k.min(3000));
            assert!(stats.reranked as usize >= k.min(3000));
            let right = naive(Metric::L2, q, &rows, k, |_| true);
            assert!(recall(&out, &right) >= 0.9, "k {k}");
        }
    }
}

#[test]
fn odd_numbers_in_rows_and_queries() {
    let dim = 6;
    let mut rows = OwnedRows::new(dim);
    let mut random = Random(2);
    for i in 0..1500u64 {
        let v = match i % 10 {
            0 => vec![0.0; dim],
            1 => random.vector(dim).iter().map(|x| x * 1e-42).collect(),
            2 => random.vector(dim).iter().map(|x| x * 1e18).collect(),
            3 if i % 100 == 3 => vec![f32::NAN; dim],
            4 if i % 100 == 4 => vec![f32::INFINITY; dim],
            5 => random.vector(dim).iter().map(|x| x * 1e36).collect(),
            _ => random.vector(dim),
        };
        rows.push(i, &v);
    }
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    for metric in METRICS {
        let image = image(&rows, dim, metric);
        for scale in [1.0f32, 0.0, 1e-42, 1e-20, 1e18, 3e37] {
            let q: Vec<f32> = random.vector(dim).iter().map(|x| x * scale).collect();
            image.search(&q, 10, 64, &rows, None, None, &mut scratch, &mut out).expect("finite query");
            assert_eq!(out.len(), 10, "{metric} {scale}");
            for c in &out {
                let defined = exact::distance(metric, &q, rows.vector(c.ordinal));
                assert_eq!(c.distance.to_bits(), defined.to_bits());
            }
        }
        // A zero query is as far from every row for cosine: ids decide, exactly.
        if metric == Metric::Cosine {
            image.search(&[0.0; 6], 10, 64, &rows, None, None, &mut scratch, &mut out).expect("finite query");
            assert_eq!(out, naive(metric, &[0.0; 6], &rows, 10, |_| true));
        }
        let error = image.search(
            &[0.0, f32::NAN, 0.0, 0.0, 0.0, 0.0],
            1,
            1,
            &rows,
            None,
            None,
            &mut scratch,
            &mut out,
        );
        assert_eq!(error, Err(IndexError::NotFinite { position: 1 }));
        let error = image.search(&[0.0; 5], 1, 1, &rows, None, None, &mut scratch, &mut out);
        assert_eq!(error, Err(IndexError::Dimension { expected: 6, found: 5 }));
    }
}

#[test]
fn same_bytes_from_the_same_seed_on_any_number_of_threads() {
    let (rows, _) = mixture(9000, 8, 30, 0, 21);
    let params = BuildParams { ef_construction: 40, seed: 5, ..BuildParams::default() };
    let one = built(&rows, 8, &live(&rows), &params).expect("whole rows");
    let two = built(&rows, 8, &live(&rows), &BuildParams { threads: 2, ..params }).expect("whole rows");
    assert!(one == two, "threads change the result");
    let other = built(&rows, 8, &live(&rows), &BuildParams { seed: 6, ..params }).expect("whole rows");
    assert!(one != other, "the seed changes nothing");
}

#[test]
fn only_live_rows_are_nodes() {
    let (rows, queries) = mixture(2000, 7, 9, 5, 31);
    let alive: Vec<u32> = (0..rows.len()).filter(|o| o % 3 != 1).collect();
    let bytes = built(&rows, 7, &alive, &BuildParams::default()).expect("whole rows");
    let image = Image::open(bytes).expect("just built");
    assert_eq!(
        (image.nodes() as usize, image.covered_rows(), image.coverage()),
        (alive.len(), 2000, [1; 32])
    );
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    for q in &queries {
        image.search(q, 2000, 64, &rows, None, None, &mut scratch, &mut out).expect("a good query");
        assert_eq!(out, naive(Metric::L2, q, &rows, 2000, |o| o % 3 != 1));
        // A filter may name rows that have no node.
        let allow = Bitmap::full(rows.len());
        image.search(q, 10, 64, &rows, Some(&allow), None, &mut scratch, &mut out).expect("a good query");
        assert!(out.iter().all(|c| c.ordinal % 3 != 1) && out.len() == 10);
    }
    assert_eq!(image.find_id(rows.id(1)), None);
    assert_eq!(image.node_of_ordinal(1), None);
    assert_eq!(image.node_of_ordinal(2).and_then(|n| image.ordinal_of_node(n)), Some(2));
}

struct StopAt(u64, AtomicU64);

impl Progress for StopAt {
    fn step(&self, done: u64, total: u64) -> bool {
        assert!(done <= total);
        self.1.store(done, Ordering::Relaxed);
        done < self.0
    }
}

#[test]
fn cancels_and_refuses() {
    let (rows, _) = mixture(2000, 4, 3, 0, 1);
    let all = live(&rows);
    let stop = StopAt(1000, AtomicU64::new(0));
    let params = BuildParams::default();
    let result = build(&rows, 4, &all, Metric::L2, [0; 32], 2000, &params, &stop);
    assert_eq!(result, Err(IndexError::Cancelled));
    assert!(stop.1.load(Ordering::Relaxed) >= 1000);
    let seen = StopAt(u64::MAX, AtomicU64::new(0));
    build(&rows, 4, &all, Metric::L2, [0; 32], 2000, &params, &seen).expect("whole rows");
    assert!(seen.1.load(Ordering::Relaxed) > 2000);

    for bad in [
        BuildParams { m: 1, ..params },
        BuildParams { m: 65, ..params },
        BuildParams { ef_construction: 0, ..params },
        BuildParams { threads: 5000, ..params },
    ] {
        assert_eq!(built(&rows, 4, &all, &bad).map_err(|e| e.family()), Err(Family::Caller));
    }
    assert_eq!(built(&rows, 4, &[5, 3], &params).map_err(|e| e.family()), Err(Family::Corruption));
    assert_eq!(built(&rows, 4, &[5, 2000], &params), Err(IndexError::Row { ordinal: 2000, dim: 4 }));
    assert_eq!(built(&rows, 9, &[5], &params), Err(IndexError::Row { ordinal: 5, dim: 9 }));
    assert_eq!(built(&rows, 0, &[5], &params).map_err(|e| e.family()), Err(Family::Caller));
}

#[test]
fn a_reference_graph_becomes_an_image_and_back() {
    let dim = 16;
    let (rows, queries) = mixture(2500, dim, 20, 40, 6);
    let image = image(&rows, dim, Metric::Cosine);
    let graph = image.export_graph();
    assert_eq!((graph.m, graph.m0, graph.ef_construction), (16, 32, 200));
    let order: Vec<u64> = graph.ordinals.iter().map(|o| rows.id(*o)).collect();
    assert!(order.is_sorted());
    for (level, layer) in graph.layers.iter().enumerate() {
        assert_eq!(layer.offsets.len(), 2501);
        for node in 0..2500 {
            let row = layer.row(node);
            assert!(row.is_sorted() && row.len() <= if level == 0 { 32 } else { 16 });
            assert!(row.is_empty() || usize::from(graph.layer_counts[node]) > level);
            assert!(row.iter().all(|to| usize::from(graph.layer_counts[*to as usize]) > level));
        }
    }
    let entry = graph.entry.expect("there are nodes") as usize;
    assert_eq!(usize::from(graph.layer_counts[entry]), graph.layers.len());

    let bytes = from_graph(&rows, dim, &live(&rows), Metric::Cosine, [3; 32], rows.len(), &graph)
        .expect("our own graph");
    let back = Image::open(bytes).expect("just made");
    back.verify().expect("just made");
    assert_eq!(back.max_level(), image.max_level());
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    let mut found = 0.0;
    for q in &queries {
        back.search(q, 10, default_ef(10), &rows, None, None, &mut scratch, &mut out).expect("a good query");
        found += recall(&out, &naive(Metric::Cosine, q, &rows, 10, |_| true)) / queries.len() as f64;
    }
    assert!(found >= 0.95, "{found}");

    // Graphs that contradict themselves are refused; poor ones are repaired.
    let convert = |g: &rvf_index::ReferenceGraph| {
        from_graph(&rows, dim, &live(&rows), Metric::Cosine, [3; 32], rows.len(), g).map_err(|e| e.family())
    };
    let mut twice = graph.clone();
    twice.ordinals[1] = twice.ordinals[0];
    assert_eq!(convert(&twice), Err(Family::Corruption));
    let mut outside = graph.clone();
    outside.layers[0].links[5] = 2500;
    assert_eq!(convert(&outside), Err(Family::Corruption));
    let mut short = graph.clone();
    short.ordinals.pop();
    assert_eq!(convert(&short), Err(Family::Corruption));
    let mut empty = graph;
    for layer in &mut empty.layers {
        layer.offsets.fill(0);
        layer.links.clear();
    }
    let image = Image::open(convert(&empty).expect("no links are still a graph")).expect("just made");
    for ordinal in (0..2500).step_by(97) {
        let v: Vec<f32> = rows
            .vector(ordinal)
            .chunks_exact(4)
            .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
            .collect();
        image.search(&v, 1, 64, &rows, None, None, &mut scratch, &mut out).expect("a good query");
        assert_eq!(out.len(), 1);
    }
}

#[test]
fn damaged_bytes_cost_recall_at_most() {
    let dim = 10;
    let (rows, queries) = mixture(1500, dim, 10, 4, 12);
    let bytes = image_bytes(&rows, dim, Metric::L2);
    let mut random = Random(77);
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    let (mut opened, mut noticed) = (0, 0);
    for round in 0..600 {
        let mut damaged = bytes.clone();
        match round % 4 {
            // In the header, in the small sections, anywhere, and whole blocks.
            0 => damaged[random.below(512)] ^= 1 << random.below(8),
            1 => {
                let at = random.below(bytes.len());
                damaged[at] ^= 1 << random.below(8);
            }
            2 => {
                let (at, value) = (random.below(bytes.len()), random.next() as u8);
                let end = (at + 1 + random.below(20_000)).min(bytes.len());
                damaged[at.max(512).min(end)..end].fill(value);
            }
            _ => damaged.truncate(random.below(bytes.len() + 1)),
        }
        let changed = damaged != bytes;
        let Ok(image) = Image::open(damaged) else { continue };
        opened += 1;
        if changed && image.verify().is_err() {
            noticed += 1;
        }
        assert!(!changed || image.verify().is_err(), "damage not noticed in round {round}");
        let allow = Bitmap::from_ordinals(rows.len(), (0..rows.len()).step_by(2));
        for q in &queries {
            for filter in [None, Some(&allow)] {
                if image.dim() != dim {
                    continue;
                }
                image.search(q, 10, 64, &rows, filter, None, &mut scratch, &mut out).expect("a good query");
                for c in &out {
                    assert!(filter.is_none_or(|f| f.get(c.ordinal)));
                    let defined = exact::distance(image.metric(), q, rows.vector(c.ordinal));
                    assert_eq!(c.distance.to_bits(), defined.to_bits());
                }
                image
                    .search_layer_a(q, 10, &rows, filter, None, &mut scratch, &mut out)
                    .expect("a good query");
            }
        }
        image.export_graph();
        // More often than it takes until a table is made.
        for id in (0..3 * rows.len()).map(|i| rows.id(i % rows.len()).wrapping_add(u64::from(i % 5 / 4))) {
            let found = image.find_row(id, |ordinal| rows.id(ordinal) == id);
            assert!(found.is_none_or(|ordinal| ordinal < rows.len() && rows.id(ordinal) == id));
        }
    }
    assert!(opened > 200 && noticed > 200, "{opened} opened, {noticed} noticed");
}

#[test]
fn refuses_what_is_no_image() {
    for bytes in [vec![], vec![0; 100], vec![0; 4096], b"RVFIMG\r\n".to_vec()] {
        let error = Image::open(bytes).map(|_| ()).expect_err("no image");
        assert_eq!(error.family(), Family::Corruption);
    }
    let (rows, _) = mixture(10, 3, 1, 0, 1);
    let mut bytes = image_bytes(&rows, 3, Metric::L2);
    bytes[8] = 9;
    let error = Image::open(bytes).map(|_| ()).expect_err("another version");
    assert_eq!(error.to_string(), "search image at byte 8: version 9, this build reads 1");
}

#[test]
fn an_image_inside_other_bytes_at_any_start() {
    let (rows, queries) = mixture(1200, 9, 4, 3, 2);
    let bytes = image_bytes(&rows, 9, Metric::Cosine);
    let (mut scratch, mut out, mut first) = (Scratch::new(), Vec::new(), Vec::new());
    for start in [0usize, 1, 63, 64] {
        let mut all = vec![0xAA; start];
        all.extend_from_slice(&bytes);
        all.extend_from_slice(&[0xBB; 100]);
        let image = Image::open_range(all, start..start + bytes.len()).expect("whole");
        let mut answers = Vec::new();
        for q in &queries {
            image.search(q, 10, 64, &rows, None, None, &mut scratch, &mut out).expect("a good query");
            answers.push(out.clone());
        }
        if first.is_empty() {
            first = answers;
        } else {
            assert_eq!(first, answers);
        }
    }
    assert!(Image::open_range(bytes, 10..100_000_000).is_err());
}

//! What searches find, against the exact scan: real rows, mixtures, every metric, filters, deletions.

mod support;

use rvf_index::filter::{ColumnsBuilder, Value, parse};
use rvf_index::{Bitmap, Image, Metric, Rows, Scratch, default_ef, exact};
use support::*;

/// Mean recall@k; also checks that answers are sorted, allowed, and carry the format's distances to the bit.
fn measure(
    image: &Image,
    rows: &dyn Rows,
    queries: &[Vec<f32>],
    k: usize,
    ef: usize,
    allow: Option<&Bitmap>,
    deny: Option<&Bitmap>,
) -> f64 {
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    let keep = |o: u32| allow.is_none_or(|a| a.get(o)) && !deny.is_some_and(|d| d.get(o));
    let mut sum = 0.0;
    for q in queries {
        image.search(q, k, ef, rows, allow, deny, &mut scratch, &mut out).expect("a good query");
        let right = naive(image.metric(), q, rows, k, keep);
        assert_eq!(out.len(), right.len(), "never fewer than match");
        for c in &out {
            assert!(keep(c.ordinal));
            let defined = exact::distance(image.metric(), q, rows.vector(c.ordinal));
            assert_eq!(c.distance.to_bits(), defined.to_bits());
        }
        assert!(out.windows(2).all(|w| w[0].hit(rows).order(&w[1].hit(rows)).is_lt()));
        sum += recall(&out, &right);
    }
    sum / queries.len() as f64
}

#[test]
fn real_rows_cosine_with_filters_deletions_and_self_search() {
    let (rows, queries) = (real_rows(), real_queries());
    let dim = queries[0].len();
    let image = image(&rows, dim, Metric::Cosine);
    image.verify().expect("just built");
    assert_eq!((image.nodes(), image.dim(), image.covered_rows()), (5000, 384, 5000));

    // The recorded truth first: the exact scan agrees with it, so it can stand for it below.
    let truth = ids("gt_cosine.u64.npy");
    let mut agree = 0;
    for (q, truth) in queries.iter().zip(&truth) {
        let right = naive(Metric::Cosine, q, &rows, 10, |_| true);
        agree += right.iter().filter(|c| truth[..10].contains(&rows.id(c.ordinal))).count();
    }
    assert!(agree >= 998, "{agree} of 1000");

    let default = measure(&image, &rows, &queries, 10, default_ef(10), None, None);
    assert!(default >= 0.97, "default ef: {default}");
    let large = measure(&image, &rows, &queries, 10, 160, None, None);
    assert!(large >= 0.99, "ef 160: {large}");
    let one = measure(&image, &rows, &queries, 1, default_ef(1), None, None);
    assert!(one >= 0.97, "k 1: {one}");
    let hundred = measure(&image, &rows, &queries, 100, default_ef(100), None, None);
    assert!(hundred >= 0.95, "k 100: {hundred}");

    // Every stored row finds itself at the default effort.
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    for ordinal in 0..rows.len() {
        let v: Vec<f32> = rows
            .vector(ordinal)
            .chunks_exact(4)
            .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]))
            .collect();
        image.search(&v, 1, default_ef(1), &rows, None, None, &mut scratch, &mut out).expect("a stored row");
        assert_eq!(out.first().map(|c| c.ordinal), Some(ordinal));
        assert_eq!(image.find_id(rows.id(ordinal)), Some(ordinal));
    }
    assert_eq!(image.find_id(12345), None);

    // First by searches, then by a table; what is not wanted is not found.
    for round in 0..3 {
        for (ordinal, id) in (0..rows.len()).map(|ordinal| (ordinal, rows.id(ordinal))) {
            assert_eq!(image.find_row(id, |row| rows.id(row) == id), Some(ordinal));
            let at_once = image.find_row_at_once(id, |row| rows.id(row) == id);
            assert!(at_once == Some(ordinal) || (round == 0 && at_once.is_none()));
            assert_eq!(image.find_row(id, |row| row != ordinal && rows.id(row) == id), None);
        }
        assert_eq!(image.find_row(12345, |row| rows.id(row) == 12345), None);
        assert_eq!(image.find_row_at_once(12345, |row| rows.id(row) == 12345), None);
    }

    // Thirty percent deleted.
    let deny = Bitmap::from_ordinals(rows.len(), (0..rows.len()).filter(|o| o % 10 < 3));
    let deleted = measure(&image, &rows, &queries, 10, default_ef(10), None, Some(&deny));
    assert!(deleted >= 0.95, "after deletions: {deleted}");

    // The filters of the sample, evaluated by the filter engine.
    let mut reader = csv::Reader::from_path(sample("meta.csv")).expect("the sample is there");
    let mut columns = ColumnsBuilder::new(rows.len());
    for (id, name) in [(2, "section"), (3, "priority"), (4, "installed_size"), (5, "maintainer_domain")] {
        columns.field(id, name);
    }
    for (row, record) in reader.records().enumerate() {
        let record = record.expect("valid CSV");
        for field in [2usize, 3, 4, 5] {
            let text = &record[field];
            let value = if field == 4 {
                Value::U64(text.parse().expect("a number"))
            } else {
                Value::String(text.into())
            };
            columns.set(row as u32, field as u16, value).expect("row exists");
        }
    }
    let columns = columns.build();
    let text = std::fs::read_to_string(sample("filters.json")).expect("the sample is there");
    let filters: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for filter in filters["filters"].as_array().expect("filters") {
        let expr = parse(filter["where"].as_str().expect("text")).expect("a good filter");
        let allow = columns.eval(&expr).expect("known fields");
        assert_eq!(allow.count(), filter["matches"].as_u64().expect("a count"));
        let found = measure(&image, &rows, &queries, 10, default_ef(10), Some(&allow), None);
        assert!(found >= 0.95, "{}: {found}", filter["name"]);
        let both = measure(&image, &rows, &queries, 10, default_ef(10), Some(&allow), Some(&deny));
        assert!(both >= 0.95, "{} after deletions: {both}", filter["name"]);
    }

    // Layer A alone.
    let mut found = 0.0;
    for q in &queries {
        image.search_layer_a(q, 10, &rows, None, None, &mut scratch, &mut out).expect("a good query");
        found += recall(&out, &naive(Metric::Cosine, q, &rows, 10, |_| true)) / queries.len() as f64;
    }
    assert!(found >= 0.6, "layer A: {found}");
}

#[test]
fn mixtures_of_any_metric_and_dimension() {
    // Few and odd dimensions, one cluster and many; lengths vary, so the metrics really differ.
    for (n, dim, clusters) in [(3000, 2, 5), (3000, 17, 40), (3000, 130, 1), (2500, 65, 300)] {
        let (rows, queries) = mixture(n, dim, clusters, 60, dim as u64);
        for metric in METRICS {
            let image = image(&rows, dim, metric);
            let found = measure(&image, &rows, &queries, 10, default_ef(10), None, None);
            // One round cluster of rows of different lengths has hubs that every graph suffers from: hnswlib reaches
            // 0.83 there with the same ef.
            let enough = if clusters == 1 { 0.92 } else { 0.95 };
            assert!(found >= enough, "{metric} {n} x {dim}: {found}");
            let large = measure(&image, &rows, &queries, 10, 200, None, None);
            assert!(large >= 0.99, "{metric} {n} x {dim}, ef 200: {large}");
            let deny = Bitmap::from_ordinals(rows.len(), (0..rows.len()).filter(|o| o % 10 < 3));
            let deleted = measure(&image, &rows, &queries, 10, default_ef(10), None, Some(&deny));
            assert!(
                deleted >= enough - 0.1 * f64::from(u8::from(clusters == 1)),
                "{metric} {n} x {dim} after deletions: {deleted}"
            );
        }
    }
}

#[test]
fn filters_at_every_selectivity_random_and_far_from_the_query() {
    let dim = 24;
    let (rows, queries) = mixture(6000, dim, 60, 40, 3);
    let image = image(&rows, dim, Metric::L2);
    let mut random = Random(8);
    for share in [0.9, 0.5, 0.25, 0.1, 0.03, 0.01, 0.001] {
        let allow = Bitmap::from_ordinals(rows.len(), (0..rows.len()).filter(|_| random.unit() < share));
        let found = measure(&image, &rows, &queries, 10, default_ef(10), Some(&allow), None);
        assert!(found >= 0.95, "random {share}: {found}");
    }
    // Half of the rows, none of them among the nearest to the query: the walk must not stop where it lands.
    for q in queries.iter().take(10) {
        let near = naive(Metric::L2, q, &rows, 3000, |_| true);
        let mut allow = Bitmap::full(rows.len());
        near.iter().for_each(|c| allow.clear(c.ordinal));
        let found = measure(&image, &rows, std::slice::from_ref(q), 10, default_ef(10), Some(&allow), None);
        assert!(found >= 0.9, "far half: {found}");
    }
}

#[test]
fn duplicates_and_ties_go_by_id() {
    let dim = 8;
    let mut random = Random(4);
    let distinct: Vec<Vec<f32>> = (0..200).map(|_| random.vector(dim)).collect();
    let mut rows = rvf_index::OwnedRows::new(dim);
    for i in 0..3000u64 {
        rows.push(i.wrapping_mul(7919) % 3001, &distinct[random.below(200)]);
    }
    for metric in METRICS {
        let image = image(&rows, dim, metric);
        let found = measure(&image, &rows, &distinct, 10, default_ef(10), None, None);
        // Fifteen copies of each: the best by inner product lie in one heap, found or not found as a whole.
        let enough = if metric == Metric::InnerProduct { 0.9 } else { 0.99 };
        assert!(found >= enough, "{metric}: {found}");
    }
    // All rows the same: whatever is found has the right distance, and enough is found.
    let mut same = rvf_index::OwnedRows::new(dim);
    for i in 0..2000 {
        same.push(i, &distinct[0]);
    }
    for metric in METRICS {
        let image = image(&same, dim, metric);
        assert_eq!(measure(&image, &same, &distinct[..5], 10, default_ef(10), None, None), 1.0);
    }
}

#[test]
fn inner_product_with_one_huge_row_and_many_tiny_ones() {
    let dim = 32;
    let (source, queries) = mixture(2500, dim, 20, 40, 11);
    let mut rows = rvf_index::OwnedRows::new(dim);
    for o in 0..source.len() {
        let factor = if o == 77 {
            1e6
        } else if o % 5 == 0 {
            1e-4
        } else {
            1.0
        };
        let v: Vec<f32> = source
            .vector(o)
            .chunks_exact(4)
            .map(|c| f32::from_le_bytes([c[0], c[1], c[2], c[3]]) * factor)
            .collect();
        rows.push(source.id(o), &v);
    }
    for metric in METRICS {
        let image = image(&rows, dim, metric);
        let found = measure(&image, &rows, &queries, 10, default_ef(10), None, None);
        assert!(found >= 0.95, "{metric}: {found}");
    }
}

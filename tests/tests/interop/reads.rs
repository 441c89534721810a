//! What the reference writes, we read identically.

use rvf_cow::{Metric, SearchRequest};
use rvf_runtime::{FilterExpr, MetadataValue, QueryOptions, filter::FilterValue};
use rvf_tests::model::{Fate, Model, Row};
use rvf_tests::place::Place;
use rvf_tests::random::Random;

use crate::oracle::{METRICS, both_agree, every_type, numbered, open_to_read, queries, rows};
use crate::reference;

/// Vectors, ids, metadata of every type, deletions, answers and status after each kind of operation.
#[test]
fn every_operation_of_the_reference_reads_the_same() {
    for (metric, dimension) in METRICS.into_iter().zip([1u16, 7, 40]) {
        let place = Place::in_memory().expect("a place");
        let path = place.join("theirs.rvf");
        let mut random = Random::new(u64::from(dimension));
        let asked = queries(&mut random, 3, dimension.into());
        let mut model = Model::new(dimension.into(), metric);
        let mut store = reference::create(&path, dimension, metric);
        both_agree(&model, &path, &asked);

        let mut first = rows(&mut random, 10, 30, dimension.into());
        for row in first.iter_mut().step_by(2) {
            row.record = Some(numbered(&every_type(row.id)));
        }
        reference::ingest(&mut store, &first);
        model.ingest(&first, Fate::Merge);
        both_agree(&model, &path, &asked);

        // Overwrites, with and without records, and ids at the ends of their range.
        let mut second = rows(&mut random, 35, 10, dimension.into());
        second.extend(rows(&mut random, u64::MAX - 2, 2, dimension.into()));
        second.extend(rows(&mut random, 0, 1, dimension.into()));
        for row in second.iter_mut().skip(3) {
            row.record = Some(numbered(&every_type(row.id)));
        }
        reference::ingest(&mut store, &second);
        model.ingest(&second, Fate::Merge);
        both_agree(&model, &path, &asked);

        let gone = [11, 12, 36, 12, 999_999, u64::MAX - 2];
        let deleted = store.delete(&gone).expect("the reference deletes").deleted;
        assert_eq!(model.delete(&gone), deleted);
        both_agree(&model, &path, &asked);

        store.set_file_metadata("owner".into(), MetadataValue::String("us".into())).expect("file metadata");
        store.close().expect("close");
        both_agree(&model, &path, &asked);

        // A deleted id comes back without its old record, in a second session.
        let mut store = reference::open(&path);
        let again = rows(&mut random, 12, 1, dimension.into());
        reference::ingest(&mut store, &again);
        model.ingest(&again, Fate::Merge);
        both_agree(&model, &path, &asked);

        store.compact().expect("the reference compacts");
        model.compact();
        store.close().expect("close");
        both_agree(&model, &path, &asked);
        let file = open_to_read(&path).view().metadata_state().file.clone();
        assert_eq!(file.get("owner"), Some(&rvf_cow::Value::String("us".into())));
    }
}

/// More than 32 metadata generations, so that snapshots and deltas alternate.
#[test]
fn a_long_metadata_chain_of_the_reference_reads_the_same() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("chain.rvf");
    let mut random = Random::new(5);
    let mut model = Model::new(4, Metric::L2);
    let mut store = reference::create(&path, 4, Metric::L2);
    for turn in 0..80u64 {
        let mut batch = rows(&mut random, turn % 11, 2, 4);
        batch[0].record = Some(numbered(&every_type(turn)));
        reference::ingest(&mut store, &batch);
        model.ingest(&batch, Fate::Merge);
        if turn.is_multiple_of(7) {
            store.delete(&[turn % 11]).expect("the reference deletes");
            model.delete(&[turn % 11]);
        }
        if turn.is_multiple_of(20) {
            both_agree(&model, &path, &[]);
        }
    }
    store.close().expect("close");
    both_agree(&model, &path, &queries(&mut random, 2, 4));
}

/// The reference's filters, given as its JSON, select the same rows here, with the same distances.
#[test]
fn filters_select_the_same_rows() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("filters.rvf");
    let mut random = Random::new(17);
    let mut batch = rows(&mut random, 0, 60, 6);
    for row in &mut batch {
        row.record = (!row.id.is_multiple_of(7)).then(|| numbered(&every_type(row.id)));
    }
    let mut store = reference::create(&path, 6, Metric::Cosine);
    reference::ingest(&mut store, &batch);
    store.delete(&[5, 6]).expect("the reference deletes");
    // numbered(): flag 3, maybe 8, raw 13, real 18, signed 23, text 28, unsigned 33.
    let eq = |field, value| FilterExpr::Eq(field, value);
    let cases = [
        (r#"{"eq":{"field":3,"value":true}}"#, eq(3, FilterValue::Bool(true))),
        (r#"{"ne":{"field":3,"value":true}}"#, FilterExpr::Ne(3, FilterValue::Bool(true))),
        (r#"{"eq":{"field":28,"value":"plain"}}"#, eq(28, FilterValue::String("plain".into()))),
        (r#"{"eq":{"field":8,"value":"here"}}"#, eq(8, FilterValue::String("here".into()))),
        (r#"{"ne":{"field":8,"value":"here"}}"#, FilterExpr::Ne(8, FilterValue::String("here".into()))),
        (r#"{"ne":{"field":13,"value":1}}"#, FilterExpr::Ne(13, FilterValue::U64(1))),
        (r#"{"gt":{"field":33,"value":9007199254740992}}"#, FilterExpr::Gt(33, FilterValue::U64(1 << 53))),
        (r#"{"gt":{"field":33,"value":{"i64":0}}}"#, FilterExpr::Gt(33, FilterValue::I64(0))),
        (r#"{"lt":{"field":23,"value":-5}}"#, FilterExpr::Lt(23, FilterValue::I64(-5))),
        (r#"{"le":{"field":18,"value":0.0}}"#, FilterExpr::Le(18, FilterValue::F64(0.0))),
        (r#"{"ge":{"field":18,"value":{"f64":1.5}}}"#, FilterExpr::Ge(18, FilterValue::F64(1.5))),
        (r#"{"eq":{"field":99,"value":1}}"#, eq(99, FilterValue::U64(1))),
        (
            r#"{"and":[{"eq":{"field":3,"value":true}},{"not":{"eq":{"field":28,"value":"plain"}}}]}"#,
            FilterExpr::And(vec![
                eq(3, FilterValue::Bool(true)),
                FilterExpr::Not(Box::new(eq(28, FilterValue::String("plain".into())))),
            ]),
        ),
        (
            r#"{"or":[{"lt":{"field":33,"value":1}},{"eq":{"field":23,"value":{"i64":-1}}}]}"#,
            FilterExpr::Or(vec![FilterExpr::Lt(33, FilterValue::U64(1)), eq(23, FilterValue::I64(-1))]),
        ),
        (r#"{"and":[]}"#, FilterExpr::And(vec![])),
        (r#"{"or":[]}"#, FilterExpr::Or(vec![])),
    ];
    let ours = open_to_read(&path);
    let query = random.vector(6);
    let mut selected = Vec::new();
    for (text, theirs) in cases {
        let options = QueryOptions { filter: Some(theirs), ..QueryOptions::default() };
        let want: Vec<(u64, u32)> = store
            .query(&query, 100, &options)
            .expect("the reference answers")
            .iter()
            .map(|r| (r.id, r.distance.to_bits()))
            .collect();
        let request = SearchRequest {
            queries: &query,
            k: 100,
            ef: None,
            filter: Some(text),
            exact: false,
            deadline: None,
            threads: 1,
        };
        let answers = ours.view().search(&request).expect("we answer");
        let got: Vec<(u64, u32)> = answers[0].hits.iter().map(|h| (h.id, h.distance.to_bits())).collect();
        assert_eq!(got, want, "{text}");
        selected.push(got.len());
    }
    // 58 rows live; the cases must not all be the trivial ones.
    assert_eq!(selected[14], 58);
    assert_eq!(selected[15], 0);
    assert!(selected.iter().filter(|n| **n > 0 && **n < 58).count() >= 10, "{selected:?}");
}

/// A file the reference indexed is answered well by us without building anything, from its graph or by scan.
#[test]
fn a_graph_of_the_reference_serves_our_answers() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("indexed.rvf");
    let mut random = Random::new(23);
    let batch = rows(&mut random, 0, 3000, 12);
    let mut store = reference::create(&path, 12, Metric::L2);
    reference::ingest(&mut store, &batch);
    store.query(&random.vector(12), 5, &QueryOptions::default()).expect("a query that builds the graph");
    assert!(store.index_ready());
    store.close().expect("close");

    let mut model = Model::new(12, Metric::L2);
    model.ingest(&batch, Fate::Merge);
    both_agree(&model, &path, &queries(&mut random, 5, 12));

    let ours = crate::oracle::open(&path);
    assert!(ours.view().contents().index_segment.is_some());
    let options = rvf_cow::ReindexOptions { adopt: true, ..rvf_cow::ReindexOptions::default() };
    let report = ours.reindex(&options, &rvf_cow::NoProgress).expect("we adopt the graph");
    assert_eq!(report.indexed, 3000);
    let mut found = 0;
    for query in queries(&mut random, 50, 12) {
        let request = SearchRequest {
            queries: &query,
            k: 10,
            // Small enough that looking at every row would be dearer.
            ef: Some(40),
            filter: None,
            exact: false,
            deadline: None,
            threads: 1,
        };
        let answer = &ours.view().search(&request).expect("we answer")[0];
        assert_eq!(answer.layer, "C");
        let want = model.nearest(&query, 10);
        found += answer.hits.iter().filter(|h| want.iter().any(|w| w.0 == h.id)).count();
    }
    assert!(found >= 475, "{found} of 500 nearest found through the adopted graph");
    both_agree(&model, &path, &[]);
}

/// Zero rows and zero queries give the same values. (Not always the same sign of zero: the reference adds up inner
/// products with the standard library's `sum`, which starts at -0.0 since Rust 1.83.)
#[test]
fn zero_vectors_answer_alike() {
    for metric in METRICS {
        let place = Place::in_memory().expect("a place");
        let path = place.join("zeros.rvf");
        let values = [[0.0, 0.0], [1.0, -1.0], [-0.0, 0.0], [2.0, 2.0], [-1.0, -3.0]];
        let batch: Vec<Row> = values
            .iter()
            .zip(0..)
            .map(|(vector, id)| Row { id, vector: vector.to_vec(), record: None })
            .collect();
        let mut store = reference::create(&path, 2, metric);
        reference::ingest(&mut store, &batch);
        let ours = open_to_read(&path).view();
        for query in [[0.0, 0.0], [-0.0, 0.0], [-1.0, -1.0], [1.0, 1.0]] {
            let request = SearchRequest {
                queries: &query,
                k: 10,
                ef: None,
                filter: None,
                exact: true,
                deadline: None,
                threads: 1,
            };
            let mut got: Vec<(u64, f32)> = ours.search(&request).expect("we answer")[0]
                .hits
                .iter()
                .map(|h| (h.id, h.distance))
                .collect();
            let mut want: Vec<(u64, f32)> = reference::exact(&store, &query, 10)
                .into_iter()
                .map(|(id, bits)| (id, f32::from_bits(bits)))
                .collect();
            got.sort_by_key(|g| g.0);
            want.sort_by_key(|w| w.0);
            assert_eq!(got, want, "{metric:?} {query:?}");
        }
    }
}

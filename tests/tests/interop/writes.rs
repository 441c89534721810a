//! What we write, the reference opens strictly, reads identically, answers bit for bit and continues.

use rvf_cow::{BadRow, Batch, Metric, NoProgress, ReindexOptions, SignOptions, Target, Value};
use rvf_crypto::{Algorithm, SecretKey};
use rvf_tests::model::{Fate, Model, Record};
use rvf_tests::place::Place;
use rvf_tests::random::Random;

use crate::oracle::{
    METRICS, batch_of, both_agree, create, every_type, fields_of, ingest, open, queries, rows,
};
use crate::reference;

/// Each kind of commit of ours, checked by the reference after every one of them.
#[test]
fn every_operation_of_ours_reads_the_same() {
    for (metric, dimension) in METRICS.into_iter().zip([40u16, 1, 7]) {
        let place = Place::in_memory().expect("a place");
        let path = place.join("ours.rvf");
        let mut random = Random::new(u64::from(dimension));
        let asked = queries(&mut random, 3, dimension.into());
        let mut model = Model::new(dimension.into(), metric);
        let store = create(&path, dimension, metric);
        assert_eq!(std::fs::metadata(&path).expect("the file").len(), 192);
        both_agree(&model, &path, &asked);

        let mut first = rows(&mut random, 10, 30, dimension.into());
        for row in first.iter_mut().step_by(2) {
            row.record = Some(every_type(row.id));
        }
        let report = ingest(&store, &first);
        assert_eq!((report.accepted, report.rejected, report.epoch, report.first_id), (30, 0, 1, Some(10)));
        model.ingest(&first, Fate::Replace);
        both_agree(&model, &path, &asked);

        let mut second = rows(&mut random, 35, 10, dimension.into());
        second.extend(rows(&mut random, u64::MAX - 2, 2, dimension.into()));
        second.extend(rows(&mut random, 0, 1, dimension.into()));
        for row in second.iter_mut().skip(3) {
            row.record = Some(every_type(row.id + 1));
        }
        ingest(&store, &second);
        model.ingest(&second, Fate::Replace);
        both_agree(&model, &path, &asked);

        let gone = [11, 12, 36, 12, 999_999, u64::MAX - 2];
        let report = store.delete(&gone).expect("we delete");
        assert_eq!((report.deleted, report.missing), (4, 1));
        assert_eq!(model.delete(&gone), 4);
        both_agree(&model, &path, &asked);

        // A deleted id comes back without its old record.
        let again = rows(&mut random, 12, 1, dimension.into());
        ingest(&store, &again);
        model.ingest(&again, Fate::Replace);
        both_agree(&model, &path, &asked);

        // A smaller record, a larger one, and none.
        let small = Record::from([("flag".to_owned(), Value::Bool(true))]);
        for (id, record) in [(14, small), (15, every_type(4)), (16, Record::new())] {
            store.put_metadata(id, &fields_of(Some(&record))).expect("we change metadata");
            model.put(id, record);
            both_agree(&model, &path, &asked);
        }
        assert!(store.put_metadata(999_999, &Vec::new()).is_err());

        let key = SecretKey::from_seed(Algorithm::MlDsa65, &[1; 32]);
        assert_eq!(store.sign(&key, &Target::File, &SignOptions::default()).expect("we sign").len(), 1);
        both_agree(&model, &path, &asked);

        let options = ReindexOptions { threads: 1, m: 4, ef_construction: 20, ..ReindexOptions::default() };
        assert_eq!(store.reindex(&options, &NoProgress).expect("we index").indexed, model.rows.len() as u64);
        both_agree(&model, &path, &asked);

        let size = std::fs::metadata(&path).expect("the file").len();
        let report = store.compact(&NoProgress).expect("we compact");
        model.compact();
        assert_eq!(report.file_size_before, size);
        assert_eq!(report.file_size_after, std::fs::metadata(&path).expect("the file").len());
        assert!(report.file_size_after < size);
        assert_eq!((report.segments_compacted, report.bytes_reclaimed), (3, 12 * u64::from(dimension)));
        both_agree(&model, &path, &asked);
    }
}

/// The reference goes on where we stopped, we where it stopped, and it again.
#[test]
fn the_reference_continues_what_we_wrote() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("ours.rvf");
    let mut random = Random::new(3);
    let mut model = Model::new(5, Metric::Cosine);
    let ours = create(&path, 5, Metric::Cosine);
    let mut batch = rows(&mut random, 0, 20, 5);
    for row in &mut batch {
        row.record = Some(every_type(row.id));
    }
    ingest(&ours, &batch);
    model.ingest(&batch, Fate::Replace);

    for turn in 0..40u64 {
        let mut theirs = reference::open(&path);
        let mut batch = rows(&mut random, turn, 3, 5);
        batch[1].record = Some(every_type(turn + 1));
        reference::ingest(&mut theirs, &batch);
        model.ingest(&batch, Fate::Merge);
        theirs.delete(&[turn % 13]).expect("the reference deletes");
        model.delete(&[turn % 13]);
        if turn == 20 {
            theirs.compact().expect("the reference compacts");
            model.compact();
        }
        theirs.close().expect("close");

        // `ours` has been open all the time.
        let mut batch = rows(&mut random, turn + 100, 2, 5);
        batch[0].record = Some(every_type(turn));
        ingest(&ours, &batch);
        model.ingest(&batch, Fate::Replace);
        if turn == 10 {
            ours.compact(&NoProgress).expect("we compact");
            model.compact();
        }
        if turn % 8 == 4 {
            both_agree(&model, &path, &[]);
        }
    }
    both_agree(&model, &path, &queries(&mut random, 3, 5));
    model.agrees_with(&ours.view(), &[]).expect("the store that stayed open agrees");
}

/// Rows of the wrong values are refused whole, or left out and counted as the reference counts them.
#[test]
fn bad_rows_end_as_with_the_reference() {
    let place = Place::in_memory().expect("a place");
    let (mine, theirs) = (place.join("mine.rvf"), place.join("theirs.rvf"));
    let rows: [[f32; 3]; 4] =
        [[1.0, 2.0, 3.0], [f32::NAN, 0.0, 0.0], [4.0, 5.0, 6.0], [0.0, f32::INFINITY, 1.0]];
    let batch = Batch {
        dimension: 3,
        ids: Some(vec![7, 8, 9, 10]),
        vectors: rows.iter().flatten().copied().collect(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    let store = create(&mine, 3, Metric::L2);
    let error = store.ingest(&batch, &NoProgress).expect_err("NaN is refused");
    assert!(matches!(error, rvf_cow::Error::NotFinite { row: 1, component: 0 }), "{error}");
    assert_eq!(std::fs::metadata(&mine).expect("the file").len(), 192);
    let skipping = Batch { on_bad_row: BadRow::Skip, ..batch };
    let report = store.ingest(&skipping, &NoProgress).expect("we leave bad rows out");

    let mut reference = reference::create(&theirs, 3, Metric::L2);
    let vectors: Vec<&[f32]> = rows.iter().map(|r| r.as_slice()).collect();
    let want = reference.ingest_batch(&vectors, &[7, 8, 9, 10], None).expect("the reference ingests");
    assert_eq!((report.accepted, report.rejected, report.epoch), (want.accepted, want.rejected, want.epoch));
    reference.close().expect("close");
    // Same bytes but for identity, witness times and segment hashes that follow from them.
    assert_eq!(
        std::fs::metadata(&mine).expect("a file").len(),
        std::fs::metadata(&theirs).expect("a file").len()
    );
}

/// The first commits of a store have the same segments in the same places as the reference's.
#[test]
fn the_same_operations_give_the_same_layout() {
    let place = Place::in_memory().expect("a place");
    let (mine, theirs) = (place.join("mine.rvf"), place.join("theirs.rvf"));
    let mut random = Random::new(8);
    let mut batch = rows(&mut random, 0, 9, 6);
    let store = create(&mine, 6, Metric::InnerProduct);
    let mut reference = reference::create(&theirs, 6, Metric::InnerProduct);
    let layout = |path: &std::path::Path| {
        let bytes = std::fs::read(path).expect("a file");
        let opened = rvf_format::recover::open(&bytes);
        opened
            .layout
            .segments()
            .map(|s| (s.offset, s.header.seg_type, s.header.payload_len(), s.header.checksum_algo))
            .collect::<Vec<_>>()
    };
    assert_eq!(layout(&mine), layout(&theirs));
    ingest(&store, &batch);
    reference::ingest(&mut reference, &batch);
    // A directory of ours does not list superseded manifests, which makes it 25 bytes shorter a commit.
    let types = |layout: Vec<(u64, u8, u64, u8)>| layout.iter().map(|s| (s.1, s.3)).collect::<Vec<_>>();
    assert_eq!(types(layout(&mine)), types(layout(&theirs)));
    for row in &mut batch {
        row.record = Some(Record::from([("field.3".to_owned(), Value::U64(row.id))]));
    }
    ingest(&store, &batch);
    reference::ingest(&mut reference, &batch);
    assert_eq!(types(layout(&mine)), types(layout(&theirs)));
    store.delete(&[1, 2]).expect("we delete");
    reference.delete(&[1, 2]).expect("the reference deletes");
    assert_eq!(types(layout(&mine)), types(layout(&theirs)));
}

/// While the reference has a store open for writing we wait and then say who holds it; and the reverse.
#[test]
fn locks_are_respected_both_ways() {
    use std::time::Duration;
    let place = Place::in_memory().expect("a place");
    let path = place.join("locked.rvf");
    let mut random = Random::new(4);
    create(&path, 3, Metric::L2);
    let ours = rvf_cow::Store::open(
        &path,
        &rvf_cow::OpenOptions { lock_wait: Duration::ZERO, ..rvf_cow::OpenOptions::default() },
    )
    .expect("we open");
    let theirs = reference::open(&path);
    let batch = rows(&mut random, 0, 2, 3);
    let error = ours.ingest(&batch_of(3, &batch), &NoProgress).expect_err("the reference holds the lock");
    assert_eq!(error.reference_code(), Some(0x0300), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    theirs.close().expect("close");
    ingest(&ours, &batch);

    /// Tries to open with the reference in the middle of our commit.
    #[derive(Debug)]
    struct Try<'a>(&'a std::path::Path);
    impl rvf_cow::Progress for Try<'_> {
        fn step(&self, _: u64, _: u64) -> bool {
            let refused =
                rvf_runtime::RvfStore::open(self.0).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(refused.contains("0x0300"), "the reference opens a locked store: {refused:?}");
            true
        }
    }
    let more = rows(&mut random, 2, 2, 3);
    ours.ingest(&batch_of(3, &more), &Try(&path)).expect("we ingest");
    assert_eq!(place.names().expect("names"), ["locked.rvf"], "no lock file stays behind");
    reference::open(&path).close().expect("the reference opens it afterwards");
    assert_eq!(open(&path).view().live(), 4);
}

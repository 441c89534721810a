//! Every prefix of a file, and prefixes followed by zeros or noise, as a crash of the whole machine can leave them.

use std::path::Path;

use rvf_cow::{CreateOptions, Metric, NoProgress, OpenOptions, ReindexOptions, Store, Value};
use rvf_tests::model::{Fate, Model, Record, Row};
use rvf_tests::place::Place;
use rvf_tests::random::{Random, vector_of};

/// A file, and after which length it shows which contents.
fn history(path: &Path) -> (Vec<u8>, Vec<(usize, Model)>) {
    let store = Store::create(path, &CreateOptions { dimension: 4, metric: Metric::Cosine, profile: 0 })
        .expect("we create a store");
    let mut model = Model::new(4, Metric::Cosine);
    let mut commits = vec![(192, model.clone())];
    for turn in 0..6u64 {
        let rows: Vec<Row> = (turn * 3..turn * 3 + 5)
            .map(|id| Row {
                id,
                vector: vector_of(id + turn, 4),
                record: Some(Record::from([("turn".to_owned(), Value::U64(turn))])),
            })
            .collect();
        let batch = rvf_cow::Batch {
            dimension: 4,
            ids: Some(rows.iter().map(|r| r.id).collect()),
            vectors: rows.iter().flat_map(|r| r.vector.clone()).collect(),
            metadata: rows.iter().map(|_| vec![("turn".to_owned(), Value::U64(turn))]).collect(),
            on_bad_row: rvf_cow::BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("we ingest");
        model.ingest(&rows, Fate::Replace);
        commits.push((store.view().file_len() as usize, model.clone()));
        store.delete(&[turn]).expect("we delete");
        model.delete(&[turn]);
        commits.push((store.view().file_len() as usize, model.clone()));
    }
    let options = ReindexOptions { threads: 1, m: 4, ef_construction: 8, ..ReindexOptions::default() };
    store.reindex(&options, &NoProgress).expect("we index");
    commits.push((store.view().file_len() as usize, model));
    (std::fs::read(path).expect("the file"), commits)
}

/// What is shown of a damaged end: exactly the contents of the newest commit that is whole.
fn shows_the_last_whole_commit(path: &Path, kept: usize, commits: &[(usize, Model)]) {
    // The padding after the last manifest carries nothing.
    let want = commits.iter().rev().find(|(len, _)| len.saturating_sub(63) <= kept);
    let opened = Store::open(path, &OpenOptions::default());
    let (Some((_, model)), Ok(store)) = (want, opened) else {
        assert!(kept < 192, "a prefix of {kept} bytes does not open");
        return;
    };
    let view = store.view();
    let exact = commits.iter().any(|(len, _)| *len == kept);
    let ids: Vec<u64> = model.rows.keys().copied().collect();
    let mut shown: Vec<u64> = view.live_ordinals().iter().map(|o| view.id(*o)).collect();
    shown.sort_unstable();
    // Inside the padding of a commit both it and the one before may be taken; the manifest decides.
    if shown != ids {
        let older = commits.iter().rev().find(|(len, _)| *len <= kept).expect("an older commit");
        assert!(older.1.rows.keys().copied().eq(shown.iter().copied()), "{kept} bytes: {shown:?}");
        return;
    }
    if exact {
        model.agrees_with(&view, &[vec![1.0, 0.0, -1.0, 0.5]]).expect("the contents of the commit");
    }
    for (id, row) in &model.rows {
        let bytes: Vec<u8> = row.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(view.vector(view.find(*id).expect("the id")), bytes);
        let fields = view.fields(*id).map(|f| f.into_iter().collect::<Record>());
        assert_eq!(fields.as_ref(), model.records.get(id), "{kept} bytes, id {id}");
    }
}

#[test]
fn every_prefix_shows_the_last_whole_commit() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("whole.rvf");
    let (bytes, commits) = history(&path);
    let cut = place.join("cut.rvf");
    for kept in (0..=bytes.len()).filter(|n| n % 7 == 0 || n % 64 == 0 || commits.iter().any(|c| c.0 == *n)) {
        std::fs::write(&cut, &bytes[..kept]).expect("a file");
        shows_the_last_whole_commit(&cut, kept, &commits);
    }
}

/// Filesystems may keep the length and lose the bytes; devices may leave old ones.
#[test]
fn zeros_and_noise_at_the_end_change_nothing() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("whole.rvf");
    let (bytes, commits) = history(&path);
    let damaged = place.join("damaged.rvf");
    let mut random = Random::new(6);
    for kept in (0..=bytes.len()).step_by(64) {
        for noise in [false, true] {
            let mut content = bytes.clone();
            for byte in &mut content[kept..] {
                *byte = if noise { random.bits() as u8 } else { 0 };
            }
            std::fs::write(&damaged, &content).expect("a file");
            // Bytes that were zero before are not lost.
            let kept = content.iter().zip(&bytes).position(|(a, b)| a != b).unwrap_or(bytes.len());
            shows_the_last_whole_commit(&damaged, kept, &commits);
        }
    }
}

/// After any of these ends the next commit works, shows, and reclaims the torn bytes.
#[test]
fn a_commit_after_a_torn_end_is_whole() {
    let place = Place::in_memory().expect("a place");
    let path = place.join("whole.rvf");
    let (bytes, _) = history(&path);
    let torn = place.join("torn.rvf");
    let mut random = Random::new(9);
    for _ in 0..60 {
        let kept = 192 + random.below((bytes.len() - 192) as u64) as usize;
        std::fs::write(&torn, &bytes[..kept]).expect("a file");
        let store = Store::open(&torn, &OpenOptions::default()).expect("it opens");
        let before = store.view();
        let batch = rvf_cow::Batch {
            dimension: 4,
            ids: Some(vec![5000]),
            vectors: vector_of(5000, 4),
            metadata: Vec::new(),
            on_bad_row: rvf_cow::BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("a commit");
        assert_eq!(store.view().live(), before.live() + 1);
        let again = Store::open(&torn, &OpenOptions::default()).expect("it opens");
        let view = again.view();
        assert_eq!(view.live(), before.live() + 1);
        assert!(view.find(5000).is_some());
        assert_eq!(view.status().health, "ok", "{:?}", view.findings());
        for ordinal in before.live_ordinals() {
            let id = before.id(*ordinal);
            assert_eq!(view.vector(view.find(id).expect("the id is kept")), before.vector(*ordinal));
        }
    }
}

//! Signatures in a store, as a library judges them.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rvf_cow::{
    Access, BadRow, Batch, CreateOptions, Judge, Metric, NoProgress, OpenOptions, SignOptions, Store, Target,
};
use rvf_crypto::{Algorithm, SecretKey, TrustStore, Verdict};

fn store(path: &Path) -> std::sync::Arc<Store> {
    let options = CreateOptions { dimension: 4, metric: Metric::L2, profile: 0 };
    let store = Store::create(path, &options).unwrap();
    let batch = Batch {
        dimension: 4,
        ids: Some((0..1000).collect()),
        vectors: (0..4000u16).map(f32::from).collect(),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).unwrap();
    store
}

/// A file may repeat a good signature as often as it likes; it is checked, and its bytes are hashed, once.
#[test]
fn repeated_signatures_cost_one() {
    const COPIES: usize = 300;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let key = SecretKey::from_seed(Algorithm::Ed25519, &[5; 32]);
    let trusted = dir.path().join("trust");
    fs::create_dir(&trusted).unwrap();
    fs::write(trusted.join("maker.pub"), key.public().to_pem().unwrap()).unwrap();
    let owner = fs::metadata(dir.path()).unwrap().uid();
    let trust = TrustStore::load(&[trusted], owner);

    let signed = store(&path);
    signed.sign(&key, &Target::File, &SignOptions::default()).unwrap();
    let segment = {
        let view = signed.view();
        let vectors = view.contents().blocks[0].segment.offset;
        signed.sign(&key, &Target::Segments(vec![vectors]), &SignOptions::default()).unwrap();
        let view = signed.view();
        view.signatures().iter().map(|found| found.offset as usize).collect::<Vec<_>>()
    };
    drop(signed);
    let bytes = fs::read(&path).unwrap();
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    for at in &segment {
        let len = u64::from_le_bytes(bytes[at + 16..at + 24].try_into().unwrap()) as usize;
        let whole = &bytes[*at..(at + 64 + len).next_multiple_of(64).min(bytes.len())];
        for _ in 0..COPIES {
            file.write_all(whole).unwrap();
        }
    }
    drop(file);

    let options = OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() };
    let view = Store::open(&path, &options).unwrap().view();
    let found = view.signatures();
    assert_eq!(found.len(), 2 + 2 * COPIES);
    let judged = |budget: u64| {
        let mut judge = Judge::new(&view, &trust, 1, budget);
        found.iter().map(|f| judge.judge(f.record.as_ref().unwrap()).0).collect::<Vec<_>>()
    };
    // Two checks, and the whole file once over.
    let enough = 2 * (16 << 10) + 2 * bytes.len() as u64;
    let valid = Some(Verdict::Valid { by: "maker".into() });
    assert!(judged(enough).iter().all(|verdict| *verdict == valid), "{:?}", &judged(enough)[..3]);
    assert!(judged(100).iter().all(Option::is_none), "what is not looked at is not called anything");
}

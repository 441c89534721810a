//! Embedded programs of a store: their names, replacing, renaming and removing, through compaction.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::path::Path;
use std::sync::Arc;

use rvf_cow::{CreateOptions, Embedding, Error, Metric, NoProgress, OpenOptions, Store};
use rvf_format::{SegType, Segment};

fn store(path: &Path) -> Arc<Store> {
    Store::create(path, &CreateOptions { dimension: 4, metric: Metric::L2, profile: 0 }).unwrap()
}

fn embed(store: &Store, kind: SegType, bytes: &[u8], name: Option<&str>) -> u64 {
    let digest = rvf_format::checksum::sha3_256(bytes);
    store.embed(&Embedding { kind, payload: &[bytes], digest, name }).unwrap().offset
}

/// The segment that begins there.
fn segment(store: &Store, offset: u64) -> Segment {
    store.view().opened().layout.segment_at_offset(offset).unwrap().clone()
}

/// Names and payloads, in file order.
fn shown(store: &Store) -> Vec<(Option<String>, Vec<u8>)> {
    let view = store.view();
    let bytes: &[u8] = view.bytes();
    let one = |program: rvf_cow::Embedded<'_>| {
        assert!(program.listed);
        (program.name, program.segment.payload_of(bytes).to_vec())
    };
    view.programs().into_iter().map(one).collect()
}

fn named(name: &str, bytes: &[u8]) -> (Option<String>, Vec<u8>) {
    (Some(name.into()), bytes.to_vec())
}

#[test]
fn names_are_kept_through_reopening_and_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let first = store(&path);
    embed(&first, SegType::KERNEL, b"one", Some("linux"));
    embed(&first, SegType::KERNEL, b"two", None);
    embed(&first, SegType::WASM, b"one", Some("linux"));
    let all = vec![named("linux", b"one"), (None, b"two".to_vec()), named("linux", b"one")];
    assert_eq!(shown(&first), all);
    drop(first);
    let again = Store::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(shown(&again), all);
    again.compact(&NoProgress).unwrap();
    assert_eq!(shown(&again), all);
    drop(again);
    let third = Store::open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(shown(&third), all);
}

#[test]
fn a_program_of_the_same_kind_and_name_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let store = store(&path);
    let old = vec![7; 50_000];
    embed(&store, SegType::KERNEL, &old, Some("linux"));
    embed(&store, SegType::EBPF, b"other", Some("linux"));
    embed(&store, SegType::KERNEL, b"new", Some("linux"));
    // The same bytes once more under the same name are the same program.
    embed(&store, SegType::KERNEL, b"new", Some("linux"));
    let left = vec![named("linux", b"other"), named("linux", b"new")];
    assert_eq!(shown(&store), left);
    let before = store.view().file_len();
    assert!(before > 50_000, "nothing is cut out of a file that only grows");
    store.compact(&NoProgress).unwrap();
    assert!(store.view().file_len() < 5_000, "{} bytes", store.view().file_len());
    assert_eq!(shown(&store), left);
}

#[test]
fn programs_are_renamed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let store = store(&path);
    let a = embed(&store, SegType::KERNEL, b"the same", Some("a"));
    let b = embed(&store, SegType::KERNEL, b"the same", Some("b"));
    let [a, b] = [a, b].map(|offset| segment(&store, offset));
    store.name_program(&a, "c").unwrap();
    assert_eq!(shown(&store), [named("c", b"the same"), named("b", b"the same")]);
    // To a name that is taken: what has it goes.
    store.name_program(&a, "b").unwrap();
    assert_eq!(shown(&store), [named("b", b"the same")]);
    let epoch = store.view().epoch();
    assert!(matches!(store.remove_program(&b), Err(Error::Invalid { .. })), "it is gone");
    assert!(matches!(store.name_program(&a, "x/y"), Err(Error::Invalid { .. })));
    // Where another one lies now.
    let mut other = a.clone();
    other.header.content_hash[0] ^= 1;
    assert!(matches!(store.name_program(&other, "x"), Err(Error::Invalid { .. })));
    assert!(matches!(store.remove_program(&other), Err(Error::Invalid { .. })));
    assert_eq!(store.view().epoch(), epoch);
    store.remove_program(&a).unwrap();
    assert_eq!(shown(&store), []);
    // Not listed again by anything that follows, and dropped in the end.
    store.compact(&NoProgress).unwrap();
    assert_eq!(shown(&store), []);
    let view = store.view();
    let kinds: Vec<SegType> = view.opened().layout.segments().map(|segment| segment.kind()).collect();
    assert!(!kinds.contains(&SegType::KERNEL) && !kinds.contains(&SegType::META_IDX), "{kinds:?}");
    embed(&store, SegType::KERNEL, b"the same", Some("a"));
    assert_eq!(shown(&store), [named("a", b"the same")]);
}

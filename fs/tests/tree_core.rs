//! The tree without a kernel: a model of what it holds, compared after every operation, and calls that make no sense.

mod mounted;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc;

use proptest::prelude::*;
use rvf_fs::errno::{Error, to_errno};
use rvf_fs::inode::ROOT_INO;
use rvf_fs::node::StoreId;
use rvf_fs::source::Source;
use rvf_fs::store_dir::{Settings, StoreDir};
use rvf_fs::tree::{Caching, Caller, Change, Kernel, Open, Tree};

use mounted::{DIM, make_store};

fn tree(dir: &tempfile::TempDir, rows: u64) -> Arc<Tree> {
    tree_with(dir, rows, Settings::default())
}

fn tree_with(dir: &tempfile::TempDir, rows: u64, settings: Settings) -> Arc<Tree> {
    let path = dir.path().join("store.rvf");
    let store = make_store(&path, rows);
    let settings = Arc::new(settings);
    let dir = StoreDir::of_store(StoreId(0), store, dir.path().join("mnt"), settings.clone());
    Tree::new(Source::File(dir), settings)
}

const READ: Open = Open { read: true, write: false, truncate: false, exclusive: false };
const WRITE: Open = Open { read: false, write: true, truncate: true, exclusive: false };
const CALLER: Caller = Caller { thread: 0, user: 0 };

/// Walks a path as the kernel does.
fn walk(tree: &Tree, path: &str) -> Result<u64, Error> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .try_fold(ROOT_INO, |ino, name| Ok(tree.lookup(ino, name)?.ino))
}

/// Waits for an answer that may come from a worker.
fn answer<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(Result<T, Error>) + Send>)) -> Result<T, Error> {
    let (sender, receiver) = mpsc::channel();
    ask(Box::new(move |result| sender.send(result).expect("somebody waits")));
    receiver.recv().expect("an answer")
}

fn read(tree: &Arc<Tree>, path: &str) -> Result<Vec<u8>, Error> {
    let ino = walk(tree, path)?;
    let size = tree.getattr(ino)?.size;
    let fh = tree.open(ino, READ, CALLER)?.fh;
    let bytes = answer(|done| tree.read(fh, 0, 1 << 20, move |result| done(result.map(<[u8]>::to_vec))))?;
    tree.release(fh, || {});
    assert_eq!(bytes.len() as u64, size, "{path}: the size is exact");
    Ok(bytes)
}

fn write(tree: &Arc<Tree>, dir: &str, name: &str, data: &[u8]) -> Result<(), Error> {
    let parent = walk(tree, dir)?;
    let fh = match tree.lookup(parent, name) {
        Ok(attr) => tree.open(attr.ino, WRITE, CALLER)?.fh,
        Err(Error::NotFound) => tree.create(parent, name, WRITE, CALLER)?.1.fh,
        Err(error) => return Err(error),
    };
    let written = answer(|done| tree.write(fh, 0, data, CALLER, done));
    let closed = answer(|done| tree.flush(fh, CALLER, done));
    let (sender, receiver) = mpsc::channel();
    tree.release(fh, move || sender.send(()).expect("somebody waits"));
    receiver.recv().expect("released");
    written?;
    closed
}

fn unlink(tree: &Arc<Tree>, dir: &str, name: &str) -> Result<(), Error> {
    let parent = walk(tree, dir)?;
    answer(|done| tree.unlink(parent, name, done))
}

fn list(tree: &Tree, path: &str) -> Vec<String> {
    let fh = tree.opendir(walk(tree, path).expect(path), CALLER).expect("a listing");
    let mut names = Vec::new();
    tree.readdir(fh, 2, |entry| {
        names.push(entry.name.clone());
        true
    })
    .expect("entries");
    tree.releasedir(fh);
    names.sort();
    names
}

#[derive(Debug, Clone)]
enum Op {
    PutVector(u64, [i8; DIM]),
    BadVector(u64),
    RemoveVector(u64),
    PutRecord(u64, u32),
    RemoveRecord(u64),
    Ingest(Vec<(u64, i8)>),
    BadIngest(u64),
    Staged(u64, i8),
    Compact,
    Query(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0_u64..12;
    prop_oneof![
        4 => (id.clone(), any::<[i8; DIM]>()).prop_map(|(id, vector)| Op::PutVector(id, vector)),
        1 => id.clone().prop_map(Op::BadVector),
        3 => id.clone().prop_map(Op::RemoveVector),
        3 => (id.clone(), any::<u32>()).prop_map(|(id, year)| Op::PutRecord(id, year)),
        2 => id.clone().prop_map(Op::RemoveRecord),
        3 => prop::collection::vec((id.clone(), any::<i8>()), 1..4).prop_map(Op::Ingest),
        1 => id.clone().prop_map(Op::BadIngest),
        2 => (id.clone(), any::<i8>()).prop_map(|(id, first)| Op::Staged(id, first)),
        1 => Just(Op::Compact),
        2 => id.prop_map(Op::Query),
    ]
}

type Model = BTreeMap<u64, ([f32; DIM], Option<u32>)>;

fn line(vector: [f32; DIM]) -> String {
    vector.map(|number| number.to_string()).join(",") + "\n"
}

/// Does one operation to both.
fn apply(tree: &Arc<Tree>, model: &mut Model, op: &Op) {
    match op {
        Op::PutVector(id, vector) => {
            let vector = vector.map(f32::from);
            write(tree, "vectors", &id.to_string(), line(vector).as_bytes()).expect("a vector");
            model.entry(*id).or_insert((vector, None)).0 = vector;
        }
        Op::BadVector(id) => {
            let error = write(tree, "vectors", &id.to_string(), b"1,2\n").expect_err("too short");
            assert_eq!(to_errno(&error), libc::EINVAL);
        }
        Op::RemoveVector(id) => {
            let result = unlink(tree, "vectors", &id.to_string());
            assert_eq!(result.is_ok(), model.remove(id).is_some(), "{result:?}");
        }
        Op::PutRecord(id, year) => {
            let result =
                write(tree, "metadata", &format!("{id}.json"), format!("{{\"year\": {year}}}\n").as_bytes());
            assert_eq!(result.is_ok(), model.contains_key(id), "{result:?}");
            if let Some((_, record)) = model.get_mut(id) {
                *record = Some(*year);
            }
        }
        Op::RemoveRecord(id) => {
            let result = unlink(tree, "metadata", &format!("{id}.json"));
            let had = model.get_mut(id).and_then(|(_, record)| record.take()).is_some();
            assert_eq!(result.is_ok(), had, "{result:?}");
        }
        Op::Ingest(rows) => {
            let unique: BTreeMap<u64, i8> = rows.iter().copied().collect();
            let text: String = rows
                .iter()
                .map(|(id, first)| format!("{{\"id\": {id}, \"vector\": [{first}, 0, 0, 1]}}\n"))
                .collect();
            let result = write(tree, "ingest", "rows.jsonl", text.as_bytes());
            // One id twice in a batch is refused whole.
            assert_eq!(result.is_ok(), unique.len() == rows.len(), "{result:?}");
            if result.is_ok() {
                for (id, first) in unique {
                    let vector = [f32::from(first), 0.0, 0.0, 1.0];
                    model.entry(id).or_insert((vector, None)).0 = vector;
                }
            }
        }
        Op::BadIngest(id) => {
            let text =
                format!("{{\"id\": {id}, \"vector\": [1, 2, 3, 4]}}\n{{\"id\": 99, \"vector\": [1]}}\n");
            assert!(write(tree, "ingest", "bad.jsonl", text.as_bytes()).is_err());
        }
        Op::Staged(id, first) => {
            let vector = [f32::from(*first), 2.0, 2.0, 2.0];
            write(tree, "vectors", ".staged", line(vector).as_bytes()).expect("staged");
            let parent = walk(tree, "vectors").expect("there");
            answer(|done| tree.rename(parent, ".staged", parent, &id.to_string(), false, done))
                .expect("renamed");
            model.entry(*id).or_insert((vector, None)).0 = vector;
        }
        Op::Compact => write(tree, "", "ctl", b"compact\n").expect("compacted"),
        Op::Query(id) => {
            let result = write(tree, "query", "in", format!("{{\"id\": {id}, \"k\": 1}}\n").as_bytes());
            assert_eq!(result.is_ok(), model.contains_key(id));
            if let Some((vector, _)) = model.get(id) {
                let out = String::from_utf8(read(tree, "query/out").expect("results")).expect("text");
                // Another id may hold the same vector; ties go to the smaller id.
                let nearest = model.iter().find(|(_, (other, _))| other == vector).map(|(id, _)| *id);
                assert_eq!(out, format!("{}\t0.0\n", nearest.expect("itself")));
            }
        }
    }
}

/// Compares everything that can be seen.
fn compare(tree: &Arc<Tree>, model: &Model) {
    let mut names: Vec<String> = model.keys().map(ToString::to_string).collect();
    names.sort();
    assert_eq!(list(tree, "vectors"), names);
    let mut records: Vec<String> = model
        .iter()
        .filter(|(_, (_, record))| record.is_some())
        .map(|(id, _)| format!("{id}.json"))
        .collect();
    records.sort();
    assert_eq!(list(tree, "metadata"), records);
    for (id, (vector, record)) in model {
        let text = String::from_utf8(read(tree, &format!("vectors/{id}")).expect("a vector")).expect("text");
        let numbers: Vec<f32> =
            text.trim().split(',').map(|number| number.parse().expect("a number")).collect();
        assert_eq!(numbers, vector);
        if let Some(year) = record {
            let text = read(tree, &format!("metadata/{id}.json")).expect("a record");
            assert_eq!(String::from_utf8_lossy(&text), format!("{{\"year\": {year}}}\n"));
        }
    }
    let jsonl = read(tree, "metadata.jsonl").expect("metadata");
    assert_eq!(jsonl.iter().filter(|byte| **byte == b'\n').count(), records.len());
    assert_eq!(read(tree, "vectors.npy").expect("vectors").len(), 128 + 4 * DIM * model.len());
    let status = String::from_utf8(read(tree, "status").expect("status")).expect("text");
    assert!(status.contains(&format!("vectors: {}\n", model.len())), "{status}");
    assert_eq!(list(tree, "ingest").iter().filter(|name| name.contains("bad")).count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_holds_what_the_model_holds(ops in prop::collection::vec(op(), 1..25)) {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = tree(&dir, 0);
        let mut model = Model::new();
        for op in &ops {
            apply(&tree, &mut model, op);
            compare(&tree, &model);
        }
        // And so does the file itself.
        let reopened = mounted::open_store(&dir.path().join("store.rvf")).view();
        prop_assert_eq!(reopened.live(), model.len() as u64);
        prop_assert_eq!(tree.handles.len(), 0);
    }

    #[test]
    fn calls_that_make_no_sense_are_refused(
        calls in prop::collection::vec((0_u8..16, any::<u64>(), any::<u64>(), "[a-z0-9.~/]{0,12}", prop::collection::vec(any::<u8>(), 0..40)), 1..60)
    ) {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = tree(&dir, 3);
        let known: Vec<u64> = ["", "vectors", "query", "ingest", "segments", "query/in", "ctl", "vectors/10", "status", "vectors.npy"]
            .iter().filter_map(|path| walk(&tree, path).ok()).collect();
        for (call, a, b, name, data) in calls {
            let ino = if a % 3 == 0 { a } else { known[(a % known.len() as u64) as usize] };
            let fh = b % 8;
            let how = Open { read: a & 4 != 0, write: b & 4 != 0, truncate: a & 8 != 0, exclusive: b & 8 != 0 };
            match call {
                0 => { let _ = tree.lookup(ino, &name); }
                1 => { let _ = tree.getattr(ino); }
                2 => { let _ = tree.open(ino, how, CALLER); }
                3 => { let _ = tree.create(ino, &name, how, CALLER); }
                4 => { let _ = tree.opendir(ino, CALLER); }
                5 => { let _ = tree.readdir(fh, b, |_| a & 1 == 0); }
                6 => { let _ = answer(|done| tree.read(fh, b, 4096, move |result| done(result.map(<[u8]>::to_vec)))); }
                7 => { let _ = answer(|done| tree.write(fh, if a & 1 == 0 { 0 } else { b }, &data, CALLER, done)); }
                8 => { let _ = answer(|done| tree.flush(fh, CALLER, done)); }
                9 => tree.release(fh, || {}),
                10 => { let _ = answer(|done| tree.unlink(ino, &name, done)); }
                11 => { let _ = answer(|done| tree.rename(ino, &name, ino, "x", a & 1 == 0, done)); }
                12 => { let _ = tree.setattr(ino, Some(fh), Change { size: Some(b % 5000), mode: Some(a as u16), ..Change::default() }, CALLER); }
                13 => { let _ = tree.getxattr(ino, &name); let _ = tree.listxattr(ino); }
                14 => { let _ = answer(|done| tree.ioctl(fh, a as u32, &data, move |result| done(result.map(<[u8]>::to_vec)))); }
                _ => tree.forget(ino, b % 2),
            }
        }
    }
}

/// A kernel in which further requests always wait.
struct Busy;

impl Kernel for Busy {
    fn has_waiting(&self) -> bool {
        true
    }
    fn attributes(&self, _ino: u64) {}
    fn name(&self, _parent: u64, _name: &str) {}
}

#[test]
fn a_query_moves_to_another_thread_only_where_there_is_another_processor() {
    for threads in [1, 2] {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = tree_with(&dir, 20, Settings { threads, ..Settings::default() });
        tree.connect(Box::new(Busy));
        let both = Open { read: true, write: true, ..Open::default() };
        let fh = tree.open(walk(&tree, "query/in").expect("in"), both, CALLER).expect("opened").fh;
        let (sender, receiver) = mpsc::channel();
        tree.write(fh, 0, b"2,1,0,0\n", CALLER, move |result| {
            let here = std::thread::current().id();
            sender.send((result.map_err(|error| to_errno(&error)), here)).expect("somebody waits");
        });
        let (written, answered_by) = receiver.recv().expect("an answer");
        assert_eq!(written, Ok(8));
        assert_eq!(answered_by == std::thread::current().id(), threads == 1, "{threads} threads");
        let text = answer(|done| tree.read(fh, 0, 4096, move |result| done(result.map(<[u8]>::to_vec))));
        assert!(text.expect("results").starts_with(b"20\t0.0\n"));
        tree.release(fh, || {});
    }
}

/// The kernel asks for `security.capability` before it truncates, until a write through its page cache tells it once
/// for all; the write counts only when it came through such a descriptor.
#[test]
fn a_question_about_privileges_has_the_next_request_written_through_the_page_cache() {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = tree(&dir, 20);
    let ino = walk(&tree, "query/in").expect("in");
    let ask = |how: Open| {
        let opened = tree.open(ino, how, CALLER).expect("opened");
        answer(|done| tree.write(opened.fh, 0, b"2,1,0,0\n", CALLER, done)).expect("asked");
        answer(|done| tree.flush(opened.fh, CALLER, done)).expect("closed");
        tree.release(opened.fh, || {});
        assert!(read(&tree, "query/out").expect("results").starts_with(b"20\t0.0\n"));
        matches!(opened.caching, Caching::Through)
    };
    assert!(!ask(WRITE), "nothing was asked yet");
    assert!(tree.getxattr(ino, "security.capability").is_err());
    let both = Open { read: true, ..WRITE };
    assert!(matches!(tree.open(ino, both, CALLER).expect("opened").caching, Caching::Direct));
    assert!(!ask(Open { truncate: false, ..WRITE }), "it is asked for by truncating only");
    assert!(ask(WRITE));
    assert!(!ask(WRITE), "it was remembered with the write");
}

#[test]
fn an_origin_that_is_of_no_branch_makes_none_when_the_kernel_copies_the_rest() {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = tree(&dir, 20);
    let exp = tree.mkdir(walk(&tree, "branches").expect("there"), "exp", CALLER).expect("a name").ino;
    let mut text = read(&tree, "branches/main/origin").expect("it is read");
    let digit = text.iter_mut().rfind(|byte| byte.is_ascii_digit()).expect("a digit");
    *digit = if *digit == b'0' { b'1' } else { b'0' };
    let origin = tree.create(exp, "origin", WRITE, CALLER).expect("a name of a branch").1.fh;
    answer(|done| tree.write(origin, 0, &text, CALLER, done)).expect("nobody knows yet");
    let from =
        tree.open(walk(&tree, "branches/main/ids.npy").expect("there"), READ, CALLER).expect("open").fh;
    let to = tree.create(exp, "ids.npy", WRITE, CALLER).expect("a name of a branch").1.fh;
    let copied = tree.copy_file_range(from, 0, to, 0, 1 << 20);
    assert!(matches!(&copied, Err(Error::NotPermitted { what }) if what.starts_with("origin")), "{copied:?}");
}

//! Branches whose records lie: what they say of their parent, of hidden ids, of counts and of changes is edited field by field, with
//! every checksum made right again, and everything that can be done with a branch is done. And parents at places where no parent
//! should be.
//!
//! `RVF_MUTATION_CASES=n` tries more, `RVF_MUTATION_SEED=n` others.

mod branches;

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use branches::*;
use rvf_cow::{
    BranchOptions, Derive, Error, NoProgress, OpenOptions, Overlay, Precision, ReindexOptions, Store, diff,
    lineage, prove,
};
use rvf_format::checksum::fold32;
use rvf_format::cow_map::CowMap;
use rvf_format::manifest::{FileIdentity, Manifest};
use rvf_format::pin::Pin;
use rvf_format::storage::MemStorage;
use rvf_format::writer::{Writer, dir_entry};
use rvf_format::{SegType, check, layout, recover};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

/// Ends the process when a single case takes longer than a minute: that is a hang.
struct Watchdog {
    beats: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Watchdog {
    fn new() -> Self {
        let (beats, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (Arc::clone(&beats), Arc::clone(&over));
        std::thread::spawn(move || {
            let (mut last, mut still) = (0, 0);
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(500));
                let now = seen.load(Ordering::Relaxed);
                still = if now == last { still + 1 } else { 0 };
                last = now;
                if still > 120 {
                    eprintln!("case {now} hangs");
                    std::process::abort();
                }
            }
        });
        Self { beats, over }
    }

    fn beat(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

type Files = BTreeMap<String, Vec<u8>>;

fn read_all(dir: &Path) -> Files {
    let mut out = Files::new();
    for entry in std::fs::read_dir(dir).expect("ls") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if path.is_file() && path.extension().is_some_and(|e| e == "rvf") {
            out.insert(name, std::fs::read(&path).expect("read"));
        }
    }
    out
}

const WIDE: usize = 64;

fn wide(ids: &[u64], seed: u64) -> rvf_cow::Batch {
    rvf_cow::Batch {
        dimension: WIDE,
        ids: Some(ids.to_vec()),
        vectors: ids.iter().flat_map(|id| noise(seed ^ id.wrapping_mul(31), WIDE)).collect(),
        metadata: ids.iter().map(|id| vec![("year".to_owned(), rvf_cow::Value::U64(*id))]).collect(),
        on_bad_row: rvf_cow::BadRow::Refuse,
    }
}

/// A parent, a branch with a bitmap and counts, one with a list and changes of both kinds, one of that one, and a rounded copy.
fn ours(dir: &Path) -> Files {
    let at = |name: &str| dir.join(name);
    let options = rvf_cow::CreateOptions { dimension: WIDE as u16, metric: rvf_cow::Metric::L2, profile: 0 };
    let p = Store::create(&at("p.rvf"), &options).expect("create");
    p.ingest(&wide(&(0..40).collect::<Vec<_>>(), 1), &NoProgress).expect("ingest");
    let bitmap = branch(&p, &at("bitmap.rvf"));
    bitmap.ingest(&wide(&[1, 50], 2), &NoProgress).expect("ingest");
    bitmap.delete(&[3, 4, 39]).expect("delete");
    bitmap.rebuild_refcounts().expect("count");
    let list = branch(&p, &at("list.rvf"));
    let ids: Vec<u64> = (10..30).collect();
    let (a, b) = (noise(3, ids.len()), noise(4, WIDE));
    let overlay = Overlay { ids: Some(&ids), rank: 1, scale: 0.5, a: &a, b: &b };
    assert!(list.overlay(&overlay).expect("overlay").low_rank > 0);
    let mut patch = wide(&(0..8).collect::<Vec<_>>(), 1);
    patch.metadata = Vec::new();
    patch.vectors.iter_mut().step_by(WIDE).for_each(|x| *x += 1.0);
    list.ingest(&patch, &NoProgress).expect("ingest");
    list.delete(&[9, 31]).expect("delete");
    assert!(list.view().has_deltas());
    let nested = branch(&list, &at("nested.rvf"));
    nested.delete(&[2, 11]).expect("delete");
    let named = BranchOptions {
        name: "a name".into(),
        parameters: vec![("key".into(), "value".into()), ("other".into(), String::new())],
        ..BranchOptions::default()
    };
    bitmap.branch(&at("named.rvf"), &named).expect("branch");
    p.derive(&at("rounded.rvf"), "r", &Derive::Quantize(Precision::Int8), &NoProgress).expect("derive");
    read_all(dir)
}

fn theirs(case: &str) -> Files {
    read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/golden/branch/set-1").join(case))
}

/// The file with another payload in one segment, everything else as it was and all checksums right.
fn with_payload(bytes: &[u8], offset: u64, payload: &[u8]) -> Vec<u8> {
    rewritten(bytes, &|segment, old| if segment == offset { payload.to_vec() } else { old.to_vec() }, None)
}

fn rewritten(
    bytes: &[u8],
    payload: &dyn Fn(u64, &[u8]) -> Vec<u8>,
    identity: Option<FileIdentity>,
) -> Vec<u8> {
    let opened = recover::open(bytes);
    let old = opened.manifest.as_ref().expect("a manifest").manifest.clone();
    let storage = MemStorage::new(Vec::new());
    let mut writer = Writer::create(&storage).expect("a writer");
    let mut moved = HashMap::new();
    for segment in opened.layout.segments().filter(|segment| segment.kind() != SegType::MANIFEST) {
        let payload = payload(segment.offset, segment.payload_of(bytes));
        let written = writer.append(segment.kind(), &[&payload]).expect("append");
        moved.insert(segment.offset, dir_entry(&written));
    }
    let directory = old.directory.iter().filter_map(|entry| moved.get(&entry.offset).copied()).collect();
    let identity = identity.or(old.identity);
    writer.commit(&Manifest { directory, identity, hashes: None, ..old }).expect("commit");
    storage.live()
}

/// Offset, type and payload of the segments that say what a branch is.
fn records(bytes: &[u8]) -> Vec<(u64, SegType, Vec<u8>)> {
    let layout = layout::walk(bytes);
    let of_interest = [
        SegType::COW_MAP,
        SegType::MEMBERSHIP,
        SegType::REFCOUNT,
        SegType::DELTA,
        SegType::META_IDX,
        SegType::QUANT,
    ];
    let segments = layout.segments().filter(|segment| of_interest.contains(&segment.kind()));
    segments.map(|s| (s.offset, s.kind(), s.payload_of(bytes).to_vec())).collect()
}

const NASTY: [u64; 9] = [0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, u64::MAX];

fn mutate(kind: SegType, payload: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(2) {
        let near = if random.below(3) > 0 { payload.len().min(128) } else { payload.len() };
        let at = random.below(near);
        match random.below(8) {
            0 | 1 => {
                if let Some(byte) = payload.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2..=5 => {
                let value = NASTY[random.below(NASTY.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                // Fields are mostly aligned.
                let at = if random.below(2) == 0 { at / width * width } else { at };
                for (byte, new) in payload.iter_mut().skip(at).zip(value).take(width) {
                    *byte = new;
                }
            }
            6 => payload.truncate(at),
            _ => {
                let more: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
                payload.extend(more);
            }
        }
    }
    let (body, hash, size) = match kind {
        SegType::MEMBERSHIP => (96, 0x28, 0x20..0x24),
        SegType::DELTA => (64, 0x18, 0x10..0x18),
        _ => return,
    };
    if payload.len() < body {
        return;
    }
    if random.below(2) == 0 {
        let len = ((payload.len() - body) as u64).to_le_bytes();
        payload[size.clone()].copy_from_slice(&len[..size.len()]);
    }
    let sum = fold32(&payload[body..]);
    payload[hash..hash + 32].copy_from_slice(&sum);
}

/// Whatever comes out, it is an answer or a sentence.
fn said<T>(what: &str, result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.to_string().len() > 5, "{what}: {error:?}");
            None
        }
    }
}

/// Everything that is done with a branch by reading.
fn read_everything(path: &Path) -> Option<Arc<Store>> {
    let opened = Store::open(path, &OpenOptions { lock_wait: Duration::ZERO, ..OpenOptions::default() });
    if let Err(error) = &opened {
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
    let store = opened.ok()?;
    let view = store.view();
    let status = view.status();
    assert!(!status.health.is_empty());
    let complete = said("complete", view.complete()).is_some();
    let resolved = view.resolved();
    let places = resolved.places();
    assert_eq!(places.len() as u64, resolved.len(), "the count agrees with what is shown");
    let dim = view.dimension();
    for place in places {
        assert_eq!(resolved.vector(*place).len(), 4 * dim);
        let id = resolved.id(*place);
        assert_eq!(resolved.find(id), Some(*place), "id {id}");
        let _ = view.fields(id);
    }
    let _ = view.metadata_ids();
    said("filter", view.matching_ids("year > 3"));
    let query = noise(5, dim);
    for exact in [true, false] {
        let answer = view.search(&request(&query, 5, exact));
        // A scale that lies can make values of rounded rows too large to measure.
        let measured = !matches!(&answer, Err(error) if error.to_string().contains("not a finite number"));
        let answer = said("search", answer);
        if complete && measured {
            let hits = answer.map_or(0, |answers| answers[0].hits.len());
            assert_eq!(hits, places.len().min(5), "a complete branch answers in full");
        } else {
            assert!(answer.is_none(), "half an answer");
        }
    }
    let _ = view.reference_opens();
    said("branches", view.branches());
    if let Some(parent) = view.parent_view() {
        said("diff", diff(parent, &view, &mut |_| true));
    }
    said("lineage", lineage(path));
    said("proof", prove(path));
    check::check(view.bytes());
    Some(store)
}

/// Everything that changes one.
fn change_everything(path: &Path, store: &Store) {
    let dim = store.view().dimension();
    let batch = rvf_cow::Batch {
        dimension: dim,
        ids: Some(vec![1, 2, 77]),
        vectors: noise(8, 3 * dim),
        ..wide(&[], 0)
    };
    let batch = rvf_cow::Batch { metadata: Vec::new(), ..batch };
    said("ingest", store.ingest(&batch, &NoProgress));
    said("delete", store.delete(&[5, 6, 77]));
    said("metadata", store.put_metadata(7, &field("a", "b")));
    said("counts", store.rebuild_refcounts());
    let made = path.with_file_name("made.rvf");
    if said("branch", store.branch(&made, &BranchOptions::default())).is_some() {
        read_everything(&made).expect("what was made opens");
    }
    let rounded = path.with_file_name("rounded-again.rvf");
    said("derive", store.derive(&rounded, "x", &Derive::Quantize(Precision::F16), &NoProgress));
    let parent = store.view().parent_view().map(|parent| parent.path().to_path_buf());
    if let Some(parent) = parent {
        let parent = open(&parent);
        said("merge", store.merge_into(&parent));
        said("reparent", store.reparent(parent.path()));
    }
    let index = ReindexOptions { threads: 1, m: 4, ef_construction: 8, ..ReindexOptions::default() };
    said("index", store.reindex(&index, &NoProgress));
    said("compact", store.compact(&NoProgress));
    said("freeze", store.freeze());
    read_everything(path);
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("the peak");
    line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("kB") << 10
}

#[test]
fn records_that_lie_are_answered_with_a_sentence() {
    let number = |name: &str, or: u64| {
        std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok()).unwrap_or(or)
    };
    let cases = number("RVF_MUTATION_CASES", 700);
    let mut random = Random(number("RVF_MUTATION_SEED", 1));
    let source = tempfile::tempdir().expect("dir");
    let families = [
        ours(source.path()),
        theirs("cow-basic"),
        theirs("cow-edited"),
        theirs("cow-frozen"),
        theirs("cow-compacted"),
        theirs("cli-filter-freeze"),
    ];
    let targets: Vec<(usize, String, u64, SegType, Vec<u8>)> = families
        .iter()
        .enumerate()
        .flat_map(|(family, files)| {
            files.iter().flat_map(move |(name, bytes)| {
                let records = records(bytes).into_iter();
                records.map(move |(at, kind, payload)| (family, name.clone(), at, kind, payload))
            })
        })
        .collect();
    for kind in [SegType::COW_MAP, SegType::MEMBERSHIP, SegType::REFCOUNT, SegType::DELTA, SegType::META_IDX]
    {
        assert!(targets.iter().any(|target| target.3 == kind), "no {kind:?}");
    }
    let (mine, watchdog) = (targets.iter().filter(|target| target.0 == 0).count(), Watchdog::new());
    let (mut opened, mut whole) = (0, 0);
    for case in 0..cases {
        watchdog.beat();
        // Ours in two of three cases: the existing tools' records are simpler.
        let pick = if case % 3 < 2 { random.below(mine) } else { random.below(targets.len()) };
        let (family, name, at, kind, payload) = &targets[pick];
        let mut payload = payload.clone();
        mutate(*kind, &mut payload, &mut random);
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("dir");
        let files = &families[*family];
        for (other, bytes) in files {
            std::fs::write(dir.path().join(other), bytes).expect("write");
        }
        let path = dir.path().join(name);
        std::fs::write(&path, with_payload(&files[name], *at, &payload)).expect("write");
        println!("case {case}: {name} {kind:?} at {at}");
        let Some(store) = read_everything(&path) else { continue };
        opened += 1;
        whole += u64::from(store.view().complete().is_ok());
        change_everything(&path, &store);
        for other in files.keys().filter(|other| *other != name) {
            read_everything(&dir.path().join(other));
        }
    }
    assert!(opened > cases / 2 && whole > cases / 10, "{opened} opened, {whole} of them whole");
    let peak = peak_memory();
    assert!(peak < 1 << 30, "{peak} bytes of memory were needed");
}

fn led_to(bytes: &[u8], parent: &str) -> Vec<u8> {
    let (offset, _, payload) =
        records(bytes).into_iter().rfind(|record| record.1 == SegType::COW_MAP).expect("a COW_MAP");
    let map = CowMap { parent_path: parent.to_owned(), ..CowMap::parse(&payload).expect("it parses") };
    with_payload(bytes, offset, &map.encode().expect("it fits"))
}

/// Which paths are followed: any to a regular file that holds the state. Everything else ends at once, with its name.
#[test]
fn parents_where_no_parent_should_be() {
    let dir = tempfile::tempdir().expect("dir");
    let at = |name: &str| dir.path().join(name);
    let parent = create(&at("p.rvf"), 0..20);
    let child = branch(&parent, &at("c.rvf"));
    put(&child, &[100], 3);
    let old = theirs("cow-basic");
    std::fs::create_dir(at("sub")).expect("mkdir");
    symlink("p.rvf", at("link.rvf")).expect("a link");
    symlink("loop.rvf", at("loop.rvf")).expect("a link");
    symlink("nowhere", at("dangling.rvf")).expect("a link");
    assert!(Command::new("mkfifo").arg(at("fifo.rvf")).status().expect("mkfifo").success());
    let _socket = UnixListener::bind(at("socket.rvf")).expect("a socket");
    std::fs::write(at("empty.rvf"), "").expect("a file");
    std::fs::write(at("text.rvf"), "no store at all").expect("a file");
    // Looking through all of it would take hours.
    let huge = std::fs::File::create(at("huge.rvf")).expect("a file");
    huge.set_len(8 << 40).expect("a sparse file");
    let name = dir.path().file_name().expect("a name").to_string_lossy().into_owned();
    let good = ["p.rvf".to_owned(), "./sub/../p.rvf".to_owned(), "link.rvf".to_owned()];
    let good = good.into_iter().chain([at("p.rvf").display().to_string(), format!("../{name}/p.rvf")]);
    let bad = [
        "",
        ".",
        "sub",
        "sub/p.rvf",
        "p.rvf/",
        "p.rvf/x",
        "fifo.rvf",
        "socket.rvf",
        "loop.rvf",
        "dangling.rvf",
        "empty.rvf",
        "text.rvf",
        "huge.rvf",
        "hostile.rvf",
        "c.rvf",
        "/",
        "/dev/zero",
        "/dev/full",
        "/dev/tty",
        "/dev/stdin",
        "/dev/ptmx",
        "/proc/self/mem",
        "/proc/self/maps",
        "/proc/kcore",
        "/proc/kmsg",
        "/proc/self/fd/0",
        "/sys/kernel/notes",
        "/../../../../../dev/zero",
        "../../../../../../../../dev/zero",
        "a\0b",
        "\u{fffd}\n\t",
    ];
    let long = "x/".repeat(5000);
    let watchdog = Watchdog::new();
    let hostile = at("hostile.rvf");
    for path in good {
        watchdog.beat();
        std::fs::write(&hostile, led_to(&std::fs::read(child.path()).expect("read"), &path)).expect("write");
        let store = read_everything(&hostile).expect("it opens");
        store.view().complete().unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(ids(&store).len(), 21, "{path}");
    }
    for path in bad.into_iter().chain([long.as_str()]) {
        for bytes in [&std::fs::read(child.path()).expect("read"), &old["child.rvf"]] {
            watchdog.beat();
            std::fs::write(&hostile, led_to(bytes, path)).expect("write");
            let store = read_everything(&hostile).unwrap_or_else(|| panic!("{path:?}: it does not open"));
            let error = store.view().complete().expect_err(path).to_string();
            let named = dir.path().join(path).display().to_string();
            assert!(error.contains(&named), "{path:?}: {error}");
            assert_eq!(
                store.view().resolved().len(),
                store.view().live(),
                "{path:?}: its own rows are shown"
            );
            said(path, store.reparent(&dir.path().join(path)));
            said(path, store.compact(&NoProgress));
        }
        if dir.path().join(path).is_file() {
            child.reparent(&dir.path().join(path)).expect_err(path);
        }
    }
    drop(huge);
}

/// A branch that stands on `bytes`, which will lie at `parent`.
fn standing_on(template: &[u8], parent: &str, bytes: &[u8], number: u64) -> Vec<u8> {
    let opened = recover::open(bytes);
    let above = opened.manifest.as_ref().expect("a manifest").manifest.identity.expect("an identity");
    let mut headers = Vec::new();
    for segment in opened.layout.segments() {
        headers.extend_from_slice(&bytes[segment.offset as usize..][..64]);
    }
    let tail = &bytes[bytes.len().saturating_sub(64 << 10)..];
    let digest = rvf_crypto::lineage::state_digest(&above.file_id, bytes.len() as u64, &headers, tail);
    let mut file_id = [7; 16];
    file_id[..8].copy_from_slice(&number.to_le_bytes());
    let identity = FileIdentity {
        file_id,
        parent_id: above.file_id,
        parent_hash: fold32(tail),
        lineage_depth: above.lineage_depth + 1,
    };
    let change = |_: u64, old: &[u8]| {
        if let Ok(mut pin) = Pin::parse(old) {
            pin.parent.prefix = bytes.len() as u64;
            pin.parent.file_id = above.file_id;
            pin.parent.digest = digest;
            return pin.encode();
        }
        match CowMap::parse(old) {
            Ok(map) => CowMap {
                base_file_id: above.file_id,
                base_file_hash: identity.parent_hash,
                parent_path: parent.to_owned(),
                ..map
            }
            .encode()
            .expect("it fits"),
            Err(_) => old.to_vec(),
        }
    };
    rewritten(template, &change, Some(identity))
}

#[test]
fn cycles_end() {
    let dir = tempfile::tempdir().expect("dir");
    let at = |name: &str| dir.path().join(name);
    let parent = create(&at("p.rvf"), 0..20);
    let template = std::fs::read(branch(&parent, &at("c.rvf")).path()).expect("read");
    let watchdog = Watchdog::new();
    for length in 1..=4u64 {
        watchdog.beat();
        // The first says that it stands on the last, which is made after it.
        let mut before = led_to(&template, &format!("{length}-{length}.rvf"));
        std::fs::write(at(&format!("{length}-1.rvf")), &before).expect("write");
        for number in 2..=length {
            let parent = format!("{length}-{}.rvf", number - 1);
            before = standing_on(&template, &parent, &before, number);
            std::fs::write(at(&format!("{length}-{number}.rvf")), &before).expect("write");
        }
        for number in 1..=length {
            let store = read_everything(&at(&format!("{length}-{number}.rvf"))).expect("it opens");
            let error = store.view().complete().expect_err("a cycle").to_string();
            let known = ["is its own ancestor", "no longer starts with", "is shorter than"];
            assert!(known.iter().any(|known| error.contains(known)), "{error}");
            if number == length {
                assert!(error.contains("is its own ancestor"), "{error}");
            }
            change_everything(store.path(), &store);
            let _ = std::fs::remove_file(at("made.rvf"));
        }
    }
}

#[test]
fn a_chain_without_end_ends() {
    const DEPTH: u64 = 10_000;
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("dir");
    let at = |number: u64| -> PathBuf { dir.path().join(format!("{number}.rvf")) };
    let parent = create(&at(0), 0..20);
    let template = std::fs::read(branch(&parent, &dir.path().join("c.rvf")).path()).expect("read");
    let mut before = std::fs::read(at(0)).expect("read");
    let watchdog = Watchdog::new();
    for number in 1..=DEPTH {
        before = standing_on(&template, &format!("{}.rvf", number - 1), &before, number);
        std::fs::write(at(number), &before).expect("write");
        watchdog.beat();
    }
    // What the limit allows is shown, so the chain is a real one.
    assert_eq!(ids(&read_everything(&at(63)).expect("it opens")).len(), 20);
    watchdog.beat();
    let full = open(&at(63)).branch(&dir.path().join("64th.rvf"), &BranchOptions::default());
    assert!(matches!(full, Err(Error::TooLarge { .. })), "{full:?}");
    for number in [64, 65, DEPTH] {
        watchdog.beat();
        let store = read_everything(&at(number)).expect("it opens");
        let error = store.view().complete().expect_err("too deep").to_string();
        assert!(error.contains("64"), "{error}");
        assert_eq!(lineage(&at(number)).expect("a lineage").len(), 65);
    }
}

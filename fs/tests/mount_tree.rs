//! What the mounted tree shows, one test a promise.

mod mounted;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;

use mounted::{DIM, MetadataExt, Mounted, errno, make_store, open_store, wait_until};

#[test]
fn a_store_directory_has_what_it_promises() {
    need_fuse!();
    let m = Mounted::new(20);
    assert_eq!(
        m.list(""),
        [
            "README",
            "branches",
            "ctl",
            "ebpf",
            "error",
            "events",
            "file.rvf",
            "ids.npy",
            "ingest",
            "kernel",
            "lineage",
            "metadata",
            "metadata.jsonl",
            "models",
            "query",
            "segments",
            "signatures",
            "status",
            "status.json",
            "vectors",
            "vectors.npy",
            "wasm",
            "witness"
        ]
    );
    assert_eq!(m.bytes("file.rvf"), fs::read(&m.source).expect("the store"));
    assert_eq!(m.status("vectors"), "20");
    assert_eq!(m.status("dimension"), "4");
    assert_eq!(m.status("metric"), "l2");
    assert_eq!(m.status("health"), "ok");
    let status: serde_json::Value = serde_json::from_str(&m.read("status.json")).expect("JSON");
    assert_eq!(status["vectors"].to_string(), "20");
    assert_eq!(m.read("error"), "");
}

#[test]
fn every_size_is_exact_and_every_file_reads_to_its_end() {
    need_fuse!();
    let m = Mounted::new(20);
    m.sh_ok("cp -r branches/main branches/exp");
    let mut files = 0;
    let events = m.read("events");
    let mut queue = vec![m.at.clone()];
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(&dir).expect("a listing") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("attributes");
            if meta.is_dir() {
                queue.push(path);
                continue;
            }
            files += 1;
            if meta.is_symlink() {
                let target = fs::read_link(&path).expect("a target");
                assert_eq!(target.as_os_str().len() as u64, meta.len(), "{}", path.display());
                assert!(path.exists(), "{} leads nowhere", path.display());
                continue;
            }
            let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(bytes.len() as u64, meta.len(), "{}", path.display());
            assert!(meta.blocks() * 512 >= meta.len(), "{} must not look sparse", path.display());
        }
    }
    assert!(files > 50, "{files}");
    assert_eq!(m.read("events"), events, "walking changes nothing");
}

#[test]
fn arrays_hold_the_live_vectors_in_file_order() {
    need_fuse!();
    let m = Mounted::new(20);
    let npy = m.bytes("vectors.npy");
    let array = rvf_fs::data::npy::Npy::parse(&npy).expect("NumPy");
    assert_eq!(array.shape(), [20, DIM]);
    let (_, values) = array.to_f32(DIM).expect("floats");
    assert_eq!(values[..8], [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    let ids = m.bytes("ids.npy");
    let ids = rvf_fs::data::npy::Npy::parse(&ids).expect("NumPy").to_u64().expect("ids");
    assert_eq!(ids, (0..20).map(|i| i * 10).collect::<Vec<u64>>());
    // At odd offsets and lengths too.
    let file = fs::File::open(m.path("vectors.npy")).expect("opens");
    for (offset, len) in [(0_usize, 1), (127, 5), (129, 33), (140, 300), (npy.len() - 3, 100), (npy.len(), 1)]
    {
        let mut buffer = vec![0; len];
        let got = file.read_at(&mut buffer, offset as u64).expect("reads");
        assert_eq!(buffer[..got], npy[offset..(offset + len).min(npy.len())], "{offset} {len}");
    }
}

#[test]
fn vectors_are_text_that_reads_back_exactly() {
    need_fuse!();
    let m = Mounted::new(3);
    assert_eq!(m.list("vectors"), ["0", "10", "20"]);
    assert_eq!(m.read("vectors/20"), "+2.00000000e+00,+1.00000000e+00,+0.00000000e+00,+0.00000000e+00\n");
    assert_eq!(errno(fs::read(m.path("vectors/5"))), libc::ENOENT);
    assert_eq!(errno(fs::read(m.path("vectors/010"))), libc::ENOENT);
}

#[test]
fn metadata_is_shown_by_id_and_in_one_file() {
    need_fuse!();
    let m = Mounted::new(4);
    assert_eq!(m.list("metadata"), ["0.json", "20.json"]);
    assert_eq!(
        m.read("metadata/20.json"),
        "{\"good\": false, \"name\": \"n2\", \"score\": 1.0, \"year\": 2002}\n"
    );
    assert_eq!(
        m.read("metadata.jsonl"),
        "{\"id\": 0, \"good\": true, \"name\": \"n0\", \"score\": 0.0, \"year\": 2000}\n\
         {\"id\": 20, \"good\": false, \"name\": \"n2\", \"score\": 1.0, \"year\": 2002}\n"
    );
}

#[test]
fn segments_give_the_file_back_byte_for_byte() {
    need_fuse!();
    let m = Mounted::new(5);
    m.write("vectors/77", "1,2,3,4\n").expect("a write");
    let whole = fs::read(&m.source).expect("the store");
    assert_eq!(m.sh("cat segments/*/raw").stdout, whole);
    for name in m.list("segments") {
        let header = m.read(&format!("segments/{name}/header"));
        assert!(header.contains("checksum: ok\n"), "{name}\n{header}");
        let value = |key: &str| -> usize {
            let line = header.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
            line.expect(key).parse().expect("a number")
        };
        let payload = m.bytes(&format!("segments/{name}/payload"));
        let start = value("payload_offset");
        assert_eq!(payload, whole[start..start + value("payload_length")], "{name}");
        let info: serde_json::Value =
            serde_json::from_str(&m.read(&format!("segments/{name}/info.json"))).expect("JSON");
        assert_eq!(info["error"], serde_json::Value::Null, "{info}");
        assert!(name.ends_with(info["type"].as_str().expect("a type")), "{name}");
    }
    assert_eq!(m.list("segments")[1], "000002-vec");
    let info = m.read("segments/000002-vec/info.json");
    let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
    assert_eq!(
        (info["count"].to_string(), info["min_id"].to_string(), info["max_id"].to_string()),
        ("5".into(), "0".into(), "40".into())
    );
}

#[test]
fn bytes_that_are_no_segment_are_shown_as_gaps() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("torn.rvf");
    drop(make_store(&source, 3));
    let mut bytes = fs::read(&source).expect("the store");
    bytes.extend_from_slice(b"garbage that belongs to nobody");
    fs::write(&source, &bytes).expect("written");
    let m = Mounted::mount(dir, source, &[]);
    assert_eq!(m.sh("cat segments/*/raw").stdout, bytes);
    let gap = m.list("segments").pop().expect("a gap");
    assert!(gap.ends_with("-gap"), "{gap}");
    assert_eq!(m.list(&format!("segments/{gap}")), ["info.json", "raw"]);
    assert_eq!(m.read(&format!("segments/{gap}/raw")), "garbage that belongs to nobody");
    assert_ne!(m.status("health"), "ok");
    assert_eq!(m.status("vectors"), "3", "the rest stays usable");
}

#[test]
fn the_witness_chain_is_shown_and_verified() {
    need_fuse!();
    let m = Mounted::new(5);
    m.write("vectors/77", "1,2,3,4\n").expect("a write");
    let log = m.read("witness/log.jsonl");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["prev_hash"], "0".repeat(64));
    assert_eq!(m.read("witness/head").len(), 65);
    assert_eq!(m.read("witness/verify"), "ok: 2 entries in 2 segments\n");
}

#[test]
fn an_open_file_is_a_snapshot_and_a_changed_one_has_a_new_time() {
    need_fuse!();
    let m = Mounted::new(5);
    for name in ["vectors.npy", "ids.npy", "metadata.jsonl", "status", "vectors/10"] {
        let before = m.bytes(name);
        let time = fs::metadata(m.path(name)).expect("attributes").modified().expect("a time");
        let mut open = fs::File::open(m.path(name)).expect("opens");
        m.write("ingest/more.jsonl", "{\"id\": 10, \"vector\": [9,9,9,9], \"metadata\": {\"name\": \"later\"}}\n{\"id\": 1001, \"vector\": [1,1,1,1]}\n")
            .expect("an ingest");
        let mut old = Vec::new();
        open.read_to_end(&mut old).expect("reads");
        assert_eq!(old, before, "{name}: an open file does not change");
        if name != "ids.npy" && name != "vectors.npy" {
            assert_ne!(m.bytes(name), before, "{name} has changed");
        }
        let meta = fs::metadata(m.path(name)).expect("attributes");
        assert!(meta.modified().expect("a time") > time, "{name}: a new time");
        assert_eq!(meta.len(), m.bytes(name).len() as u64, "{name}: the new size");
        // Back to where it was, for the next file.
        m.sh_ok("echo delete 10 1001 > ctl; echo '1,1,0,0' > vectors/10");
    }
}

#[test]
fn large_arrays_keep_their_snapshot_too() {
    need_fuse!();
    let m = Mounted::new(5000);
    let before = m.bytes("vectors.npy");
    let open = fs::File::open(m.path("vectors.npy")).expect("opens");
    let mut half = vec![0; before.len() / 2];
    open.read_exact_at(&mut half, 0).expect("reads");
    m.write("vectors/0", "7,7,7,7\n").expect("a write");
    m.sh_ok("rm vectors/10 vectors/20");
    m.sh_ok("echo compact > ctl");
    let mut rest = vec![0; before.len() - half.len()];
    open.read_exact_at(&mut rest, half.len() as u64).expect("reads");
    half.extend(rest);
    assert_eq!(half, before);
    assert_eq!(m.bytes("vectors.npy").len(), before.len() - 2 * 4 * DIM);
}

#[test]
fn attributes_in_xattrs() {
    need_fuse!();
    let m = Mounted::new(5);
    if !mounted::has("getfattr") {
        return;
    }
    let text = m.sh_ok("getfattr -d segments/000002-vec/payload");
    assert!(text.contains("user.rvf.type=\"vec\"\n") && text.contains("user.rvf.offset=\"192\"\n"), "{text}");
    assert!(m.sh_ok("getfattr -d file.rvf").contains("user.rvf.epoch=\"1\"\n"));
    assert_eq!(m.sh_ok("getfattr -d status"), "");
}

#[test]
fn lineage_names_the_file_itself() {
    need_fuse!();
    let m = Mounted::new(5);
    let id = m.status("file_id");
    assert_eq!(m.read("lineage"), format!("0\t{id}\tstore.rvf\troot\tverified\n"));
}

#[test]
fn views_cannot_be_written_and_say_why() {
    need_fuse!();
    let m = Mounted::new(5);
    for name in ["status", "vectors.npy", "file.rvf", "segments/000002-vec/raw", "README", "query/out"] {
        assert_eq!(errno(m.write(name, "x")), libc::EPERM, "{name}");
    }
    assert_eq!(
        m.read("error"),
        "this file is a view and cannot be written; drop data into ingest/, or write vectors/ID\n"
    );
    assert_eq!(errno(m.write("new", "x")), libc::EPERM);
    assert_eq!(errno(fs::create_dir(m.path("dir"))), libc::EPERM);
    assert_eq!(errno(fs::remove_file(m.path("status"))), libc::EPERM);
    assert_eq!(errno(fs::remove_dir(m.path("vectors"))), libc::EPERM);
    assert_eq!(errno(fs::rename(m.path("status"), m.path("other"))), libc::EPERM);
    assert_eq!(errno(fs::hard_link(m.path("status"), m.path("other"))), libc::EPERM);
    assert_eq!(errno(std::os::unix::fs::symlink("status", m.path("other"))), libc::EPERM);
}

#[test]
fn a_read_only_mount_refuses_every_change_but_answers_queries() {
    need_fuse!();
    for option in ["--read-only", "-oro"] {
        let m = Mounted::with(5, &[option]);
        let before = fs::read(&m.source).expect("the store");
        assert_eq!(errno(m.write("vectors/0", "1,2,3,4\n")), libc::EROFS);
        assert_eq!(errno(m.write("vectors/5", "1,2,3,4\n")), libc::EROFS);
        assert_eq!(errno(m.write("metadata/0.json", "{}\n")), libc::EROFS);
        assert_eq!(errno(m.write("ingest/a.csv", "id,v0\n")), libc::EROFS);
        assert_eq!(errno(m.write("ctl", "compact\n")), libc::EROFS);
        assert_eq!(errno(fs::remove_file(m.path("vectors/0"))), libc::EROFS);
        assert_eq!(errno(fs::write(m.path("status"), "x")), libc::EROFS);
        assert_eq!(errno(fs::create_dir(m.path("x"))), libc::EROFS);
        m.write("query/in", "2,1,0,0\n").expect("a query");
        assert!(m.read("query/out").starts_with("20\t0.0\n"));
        fs::create_dir(m.path("query/mine")).expect("a session");
        assert_eq!(fs::metadata(m.path("vectors/0")).expect("attributes").mode() & 0o777, 0o444);
        assert_eq!(m.status("read_only"), "yes");
        assert_eq!(fs::read(&m.source).expect("the store"), before);
    }
}

#[test]
fn changes_of_other_programs_show_up() {
    need_fuse!();
    let m = Mounted::new(5);
    let store = open_store(&m.source);
    store.delete(&[0]).expect("a delete");
    wait_until("the delete shows", || m.status("vectors") == "4");
    assert_eq!(errno(fs::read(m.path("vectors/0"))), libc::ENOENT);
    assert!(m.read("events").contains("\"event\": \"refresh\""));
    store.compact(&rvf_cow::NoProgress).expect("a compaction");
    wait_until("the compaction shows", || m.bytes("file.rvf") == fs::read(&m.source).expect("the store"));
    assert_eq!(m.sh("cat segments/*/raw").stdout, fs::read(&m.source).expect("the store"));
}

#[test]
fn a_file_that_is_cut_under_the_mount_gives_errors_and_no_crash() {
    need_fuse!();
    let m = Mounted::new(5000);
    let open = fs::File::open(m.path("vectors.npy")).expect("opens");
    let file = fs::File::options().write(true).open(&m.source).expect("the store");
    file.set_len(100).expect("cut");
    let mut buffer = vec![0; 4096];
    // Zeros, old bytes from a cache, or an error: anything but a dead daemon.
    let _ = open.read_at(&mut buffer, 60_000);
    wait_until("still serving", || !m.read("status").is_empty());
    let _ = m.write("query/in", "1,1,1,1\n");
    assert!(!m.list("").is_empty());
}

#[test]
fn a_directory_of_stores() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("stores");
    fs::create_dir(&source).expect("a directory");
    drop(make_store(&source.join("one.rvf"), 3));
    drop(make_store(&source.join("two.rvf"), 4));
    fs::write(source.join("bad.rvf"), b"these are no vectors").expect("a file");
    fs::write(source.join("note.txt"), b"not a store").expect("a file");
    let m = Mounted::mount(dir, source.clone(), &[]);
    assert_eq!(m.list(""), ["bad", "one", "two"]);
    assert_eq!(m.status_of("one", "vectors"), "3");
    assert_eq!(m.status_of("two", "vectors"), "4");
    assert_eq!(m.list("bad"), ["error"]);
    assert!(m.read("bad/error").contains("not a usable RVF file"), "{}", m.read("bad/error"));
    assert_eq!(errno(m.write("three", "x")), libc::EPERM);
    drop(make_store(&source.join("three.rvf"), 5));
    wait_until("a new store shows", || m.list("").contains(&"three".to_owned()));
    assert_eq!(m.status_of("three", "vectors"), "5");
    fs::remove_file(source.join("one.rvf")).expect("removed");
    wait_until("a removed store goes", || !m.list("").contains(&"one".to_owned()));
    wait_until("its files go", || fs::read(m.path("one/status")).is_err());
    m.write("two/query/in", "3,1,0,0\n").expect("a query");
    assert!(m.read("two/query/out").starts_with("30\t0.0\n"));
    open_store(&source.join("two.rvf")).delete(&[30]).expect("a delete");
    wait_until("another program's change shows", || m.status_of("two", "vectors") == "3");
    fs::remove_file(source.join("bad.rvf")).expect("removed");
    drop(make_store(&source.join("bad.rvf"), 2));
    wait_until("a mended store opens", || m.path("bad/status").exists());
}

trait StatusOf {
    fn status_of(&self, store: &str, key: &str) -> String;
}

impl StatusOf for Mounted {
    fn status_of(&self, store: &str, key: &str) -> String {
        let status = self.read(&format!("{store}/status"));
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("no {key} in {status}")).to_owned()
    }
}

/// `ls -l` asks every file for a security label unless the first answer tells it not to.
#[test]
fn listing_with_attributes_asks_for_labels_once() {
    need_fuse!();
    let m = Mounted::new(200);
    if !mounted::has("strace") {
        return;
    }
    let trace = m.sh_ok(
        "strace -f -e trace=getxattr,lgetxattr -o ../trace ls -l vectors > /dev/null; grep -c xattr ../trace",
    );
    assert!(trace.trim().parse::<u32>().expect("a number") < 10, "{trace}");
}

#[test]
fn every_example_of_the_readme_works_when_pasted() {
    need_fuse!();
    for (rows, options) in [(20, &[][..]), (0, &[]), (20, &["--read-only"])] {
        let m = Mounted::with(rows, options);
        let readme = m.read("README");
        let commands: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        assert!(commands.len() >= 7, "{readme}");
        for command in commands {
            if command.contains("numpy") && !m.sh("python3 -c 'import numpy'").status.success() {
                eprintln!("SKIPPED a part: no numpy");
                continue;
            }
            m.sh_ok(command);
        }
    }
}

/// A copy-on-write child shows what it inherits in every form, and its own changes over it.
#[test]
fn a_child_shows_what_it_inherits() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let parent = dir.path().join("parent.rvf");
    let store = make_store(&parent, 6);
    let child = dir.path().join("parent.exp.rvf");
    store.branch(&child, &rvf_cow::BranchOptions::default()).expect("a branch");
    let before = fs::read(&parent).expect("the parent");
    let m = Mounted::mount(dir, child, &[]);
    assert_eq!(m.list("vectors"), ["0", "10", "20", "30", "40", "50"]);
    m.write("vectors/20", "9,9,9,9\n").expect("replaced");
    m.write("vectors/7", "7,1,0,0\n").expect("added");
    fs::remove_file(m.path("vectors/30")).expect("deleted");
    m.write("metadata/0.json", "{\"name\": \"changed\"}\n").expect("changed");
    assert_eq!(m.list("vectors"), ["0", "10", "20", "40", "50", "7"]);
    assert_eq!((m.status("vectors"), m.status("inherited")), ("6".into(), "3".into()));
    let ids = rvf_fs::data::npy::Npy::parse(&m.bytes("ids.npy")).expect("NumPy").to_u64().expect("ids");
    let vectors = m.bytes("vectors.npy");
    let rows = &vectors[vectors.len() - ids.len() * 16..];
    for (id, row) in ids.iter().zip(rows.chunks_exact(16)) {
        let text = m.read(&format!("vectors/{id}"));
        let numbers: Vec<f32> = text.trim().split(',').map(|n| n.parse().expect("a number")).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(row, bytes, "{id}");
    }
    let mut sorted = ids;
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 7, 10, 20, 40, 50]);
    assert!(m.read("metadata/0.json").contains("changed"));
    assert!(m.read("metadata.jsonl").contains("changed"));
    m.write("query/in", "{\"id\": 50, \"k\": 2}").expect("by an inherited id");
    assert_eq!(m.read("query/out"), "50\t0.0\n40\t1.0\n");
    assert_eq!(fs::read(m.source.with_file_name("parent.rvf")).expect("the parent"), before);
}

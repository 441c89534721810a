//! Dropping data in: forms, names, atomicity, refusals, and what `vectors/` and `metadata/` take.

mod mounted;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use mounted::{DIM, MetadataExt, Mounted, errno, has, npy, open_store, wait_until};

#[test]
fn every_form_is_taken() {
    need_fuse!();
    let m = Mounted::new(3);
    m.write("ingest/a.npy", npy(&[[5.0; DIM], [6.0; DIM]])).expect("npy");
    assert_eq!(
        m.read("ingest/a.npy"),
        "name: a.npy\nbytes: 160\naccepted: 2\nrejected: 0\nepoch: 2\nids: 21-22\n"
    );
    m.write("ingest/b.jsonl", "{\"id\": 100, \"vector\": [1,2,3,4], \"metadata\": {\"name\": \"x\"}}\n")
        .expect("jsonl");
    m.write("ingest/c.json", "[{\"id\": 101, \"vector\": [1,2,3,4]}]").expect("json");
    m.write("ingest/d.csv", "id,v0,v1,v2,v3,name\n102,1,2,3,4,y\n").expect("csv");
    let mut fvecs = 4_i32.to_le_bytes().to_vec();
    fvecs.extend([1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|number| number.to_le_bytes()));
    m.write("ingest/e.fvecs", fvecs).expect("fvecs");
    assert_eq!(m.list("vectors"), ["0", "10", "100", "101", "102", "103", "20", "21", "22"]);
    assert_eq!(m.read("metadata/102.json"), "{\"name\": \"y\"}\n");
    assert_eq!(m.list("ingest"), ["a.npy", "b.jsonl", "c.json", "d.csv", "e.fvecs", "error"]);
    m.sh_ok("rm ingest/*.*");
    assert_eq!(m.list("ingest"), ["error"]);
    assert_eq!(m.list("vectors").len(), 9, "removing a receipt removes no vector");
}

#[test]
fn ids_come_from_a_file_dropped_before() {
    need_fuse!();
    let m = Mounted::new(0);
    let mut ids = rvf_fs::data::npy::write_header(rvf_fs::data::npy::Dtype::U64, &[2]);
    ids.extend([7_u64, u64::MAX].iter().flat_map(|id| id.to_le_bytes()));
    m.write("ingest/a.ids.npy", &ids).expect("ids");
    assert_eq!(m.bytes("ingest/a.ids.npy"), ids, "they wait");
    m.write("ingest/a.npy", npy(&[[5.0; DIM], [6.0; DIM]])).expect("npy");
    assert_eq!(m.list("vectors"), ["18446744073709551615", "7"]);
    assert!(m.read("ingest/a.ids.npy").starts_with("used by: a.npy\n"));
    // A number of ids that does not fit.
    m.write("ingest/b.ids.npy", &ids).expect("ids");
    assert_eq!(errno(m.write("ingest/b.npy", npy(&[[5.0; DIM]]))), libc::EINVAL);
    assert_eq!(m.status("vectors"), "2");
}

#[test]
fn a_bad_file_is_refused_whole_and_says_where() {
    need_fuse!();
    let m = Mounted::new(3);
    let before = fs::read(&m.source).expect("the store");
    let table: [(&str, Vec<u8>, &str); 8] = [
        (
            "a.jsonl",
            b"{\"id\": 1, \"vector\": [1,2,3,4]}\n{\"id\": 2, \"vector\": [1,2,3]}\n".to_vec(),
            "line 2",
        ),
        ("a.csv", b"id,v0,v1,v2,v3\n1,1,2,3,4\n2,1,2,x,4\n".to_vec(), "line 3"),
        ("a.json", b"[{\"id\": 1, \"vector\": [1,2,3,1e99]}]".to_vec(), "component 3"),
        ("a.npy", rvf_fs::data::npy::write_header(rvf_fs::data::npy::Dtype::F32, &[1 << 40, DIM]), "a.npy: "),
        ("b.npy", b"no array".to_vec(), "not a NumPy file"),
        ("c.npy", npy(&[[1.0, 2.0, f32::NAN, 0.0]]), "component 2"),
        (
            "d.jsonl",
            b"{\"id\": 1, \"vector\": [1,2,3,4]}\n{\"id\": 1, \"vector\": [1,2,3,4]}\n".to_vec(),
            "id 1",
        ),
        ("e.fvecs", vec![4, 0, 0, 0, 1], "e.fvecs: "),
    ];
    for (name, data, place) in table {
        assert_eq!(errno(m.write(&format!("ingest/{name}"), data)), libc::EINVAL, "{name}");
        let error = m.read("ingest/error");
        assert!(error.contains(place) && error.starts_with(name), "{name}: {error}");
        assert_eq!(m.read("error"), error);
        assert_eq!(m.list("ingest"), ["error"], "{name} is not left behind");
    }
    assert_eq!(fs::read(&m.source).expect("the store"), before, "nothing was changed");
    let output = m.sh("echo '{\"id\": 1, \"vector\": [1,2,3]}' > ingest/x.jsonl");
    assert!(!output.status.success(), "a shell sees it at once");
    for name in ["x.txt", "x", "x.parquet"] {
        assert_eq!(errno(m.write(&format!("ingest/{name}"), "x")), libc::EINVAL, "{name}");
    }
    assert!(m.read("error").contains("use .npy, .json, .jsonl, .csv or .fvecs"));
    assert_eq!(errno(m.write("ingest/empty.csv", "")), libc::EINVAL);
}

#[test]
fn temporary_names_wait_for_their_real_one() {
    need_fuse!();
    let m = Mounted::new(3);
    for temporary in [".a.npy.Xy12", "a.npy.part", "a.npy~", "tmp.123"] {
        m.write(&format!("ingest/{temporary}"), npy(&[[5.0; DIM]])).expect("staged");
        let vectors = m.status("vectors");
        assert_eq!(m.bytes(&format!("ingest/{temporary}")), npy(&[[5.0; DIM]]), "it reads back");
        fs::rename(m.path(&format!("ingest/{temporary}")), m.path("ingest/a.npy")).expect("committed");
        assert_eq!(
            m.status("vectors"),
            (vectors.parse::<u64>().expect("a number") + 1).to_string(),
            "{temporary}"
        );
        assert!(m.read("ingest/a.npy").starts_with("name: a.npy\n"));
    }
    m.write("ingest/.bad", "no array").expect("staged");
    assert_eq!(errno(fs::rename(m.path("ingest/.bad"), m.path("ingest/b.npy"))), libc::EINVAL);
    assert_eq!(m.read("ingest/.bad"), "no array", "it keeps its name");
    fs::remove_file(m.path("ingest/.bad")).expect("removed");
    assert_eq!(errno(fs::rename(m.path("ingest/a.npy"), m.path("vectors/5"))), libc::EXDEV);
    fs::rename(m.path("ingest/a.npy"), m.path("ingest/done.npy")).expect("a receipt may be renamed");
}

#[test]
fn writes_in_any_order_and_size() {
    need_fuse!();
    let m = Mounted::new(0);
    let rows: Vec<[f32; DIM]> = (0..200_000).map(|i| [i as f32, 0.5, -1.0, 2.0]).collect();
    let data = npy(&rows);
    assert!(data.len() > 3 << 20);
    let mut file = fs::File::create(m.path("ingest/.pieces")).expect("created");
    for start in (0..data.len()).step_by(777_777).rev() {
        file.seek(SeekFrom::Start(start as u64)).expect("a place");
        file.write_all(&data[start..(start + 777_777).min(data.len())]).expect("a piece");
    }
    mounted::close(file).expect("closed");
    assert_eq!(fs::metadata(m.path("ingest/.pieces")).expect("attributes").len(), data.len() as u64);
    fs::rename(m.path("ingest/.pieces"), m.path("ingest/pieces.npy")).expect("committed");
    assert_eq!(m.status("vectors"), "200000");
    assert_eq!(m.bytes("vectors.npy").len(), 128 + 200_000 * 16);
    assert_eq!(m.read("vectors/199999"), "+1.99999000e+05,+5.00000000e-01,-1.00000000e+00,+2.00000000e+00\n");
}

#[test]
fn a_group_of_commands_is_one_file() {
    need_fuse!();
    let m = Mounted::new(0);
    fs::write(m.source.with_file_name("one"), "{\"id\": 1, \"vector\": [1,2,3,4]}\n").expect("a file");
    fs::write(m.source.with_file_name("two"), "{\"id\": 2, \"vector\": [1,2,3,4]}\n").expect("a file");
    m.sh_ok("{ cat ../one; cat ../two; } > ingest/both.jsonl; cat status > /dev/null");
    assert_eq!(m.list("vectors"), ["1", "2"]);
    assert_eq!(m.read("events").matches("\"ingest\"").count(), 1, "one commit: {}", m.read("events"));
    m.sh_ok("exec 3> ingest/fd.jsonl; cat ../one >&3; echo '{\"id\": 3, \"vector\": [1,2,3,4]}' >&3; cat ../two >&3; exec 3>&-");
    assert_eq!(m.list("vectors"), ["1", "2", "3"]);
    assert_eq!(m.read("events").matches("\"ingest\"").count(), 2, "one commit: {}", m.read("events"));
    m.sh_ok("rm vectors/3");
    m.sh_ok("(cat ../one ../two) > ingest/sub.jsonl");
    m.sh_ok("cat ../one | tee ingest/tee.jsonl > /dev/null");
    assert_eq!(m.read("events").matches("\"ingest\"").count(), 4);
}

/// The kernel closes the files of a killed process, and what it had written so far may well parse.
#[test]
fn a_killed_writer_adds_nothing() {
    need_fuse!();
    let m = Mounted::new(3);
    for signal in ["KILL", "TERM", "INT", "HUP"] {
        let script = format!(
            "exec 3> ingest/x.csv; echo id,v0,v1,v2,v3 >&3; echo 1,1,2,3,4 >&3; echo -n 2,1,2,3,4 >&3; kill -{signal} $$; sleep 5"
        );
        let output = m.sh(&script);
        assert!(!output.status.success(), "{signal}");
        wait_until("it is refused", || m.read("error").contains("was ended by signal"));
        assert_eq!(m.list("ingest"), ["error"], "{signal}");
        fs::remove_file(m.path("error")).expect("forgotten");
    }
    // One of a group, killed: the rest of the group does not make it whole.
    m.sh("{ echo 'id,v0,v1,v2,v3'; sh -c 'echo 1,1,2,3,4; kill -KILL $$'; echo 2,1,2,3,4; } > ingest/group.csv");
    wait_until("it is refused", || m.read("ingest/error").contains("group.csv"));
    m.sh("echo 1,2,3,4 > ingest/.x; bash -c 'exec 3> vectors/7; echo -n 1,2,3,4 >&3; kill -KILL $$'");
    wait_until("it is refused", || m.read("error").starts_with("7: "));
    assert_eq!(m.status("vectors"), "3");
    assert_eq!(m.read("events"), "");
    // One that inherited the descriptor and never wrote may be killed.
    m.sh("{ sleep 100 & echo 'id,v0,v1,v2,v3'; echo 1,1,2,3,4; kill -KILL $!; wait; } > ingest/fine.csv 2> /dev/null");
    wait_until("it is taken", || m.status("vectors") == "4");
}

/// A program started meanwhile closes its copy of the descriptor from within `execve`, where the kernel holds a lock that
/// readers of the process's `/proc/PID/stat` wait for: nobody may look there while the close waits for an answer.
#[test]
fn a_writer_may_start_programs_in_between() {
    need_fuse!();
    let m = Mounted::new(0);
    let mut file = fs::File::create(m.path("ingest/a.csv")).expect("created");
    file.write_all(b"id,v0,v1,v2,v3\n1,1,2,3,4\n").expect("written");
    for _ in 0..20 {
        mounted::run_ok("true", ["x"]);
    }
    file.write_all(b"2,1,2,3,4\n").expect("written");
    m.sh("true");
    mounted::close(file).expect("closed");
    assert_eq!(m.status("vectors"), "2");
}

#[test]
fn stream_editors_edit_in_place() {
    need_fuse!();
    let m = Mounted::new(3);
    for sed in ["sed", "busybox sed"] {
        if sed != "sed" && !has("busybox") {
            continue;
        }
        let output =
            m.sh(&format!("{sed} -i s/n2/changed/ metadata/20.json && {sed} -i s/+2/+7/ vectors/20"));
        assert!(output.status.success(), "{sed}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(m.read("metadata/20.json").contains("changed"), "{sed}");
        assert!(m.read("vectors/20").starts_with("+7"), "{sed}");
        assert_eq!(m.list("vectors").len(), 3, "nothing is left");
        m.sh("echo 2,1,0,0 > vectors/20; echo '{\"name\": \"n2\"}' > metadata/20.json");
    }
}

/// What a failed write left is not what its writer meant, even where it parses.
#[test]
fn a_write_that_failed_is_not_taken_at_close() {
    need_fuse!();
    let m = Mounted::new(2);
    for (name, text) in
        [("ingest/a.csv", "id,v0,v1,v2,v3\n1,1,2,3,4\n2,1,2,3,4\n"), ("vectors/10", "5,5,5,5\n")]
    {
        let file =
            fs::File::options().write(true).create(true).truncate(true).open(m.path(name)).expect("opens");
        file.write_all_at(&text.as_bytes()[..text.len() - 1], 0).expect("the beginning");
        assert_eq!(errno(file.write_all_at(b"x", 1 << 40)), libc::EFBIG, "{name}");
        assert_eq!(errno(mounted::close(file)), libc::EINVAL, "{name}");
        assert_eq!(m.status("vectors"), "2");
        assert!(m.read("vectors/10").trim_start().starts_with("+1"), "{}", m.read("vectors/10"));
    }
    assert!(m.read("error").contains("a write to it failed"), "{}", m.read("error"));
    m.write("vectors/10", "5,5,5,5\n").expect("a new beginning");
    assert!(m.read("vectors/10").trim_start().starts_with("+5"));
    // By way of a temporary name too.
    let file = fs::File::create(m.path("ingest/.b.csv.tmp")).expect("created");
    file.write_all_at(b"id,v0,v1,v2,v3\n1,1,2,3,4", 0).expect("the beginning");
    assert_eq!(errno(file.write_all_at(b"x", 1 << 40)), libc::EFBIG);
    let _ = mounted::close(file);
    assert_eq!(errno(fs::rename(m.path("ingest/.b.csv.tmp"), m.path("ingest/b.csv"))), libc::EINVAL);
    assert_eq!(m.status("vectors"), "2");
}

/// A program that writes to two stores closes each file for good, though it has one of the same name open elsewhere.
#[test]
fn the_same_file_open_in_another_mount_holds_nothing_up() {
    need_fuse!();
    let (one, two) = (Mounted::new(0), Mounted::new(0));
    let create = |m: &Mounted| fs::File::create(m.path("ingest/a.csv")).expect("created");
    let (mut first, mut second) = (create(&one), create(&two));
    first.write_all(b"id,v0,v1,v2,v3\n1,1,2,3,4\n").expect("written");
    second.write_all(b"id,v0,v1,v2,v3\n1,1,2,3,4\n").expect("written");
    mounted::close(first).expect("closed");
    assert!(one.read("ingest/a.csv").starts_with("name: a.csv\n"));
    mounted::close(second).expect("closed");
    assert!(two.read("ingest/a.csv").starts_with("name: a.csv\n"));
}

/// The kernel holds an epoll descriptor's lock while it asks a mounted file whether it is ready.
#[test]
fn closing_a_file_while_another_thread_polls_does_not_hang() {
    need_fuse!();
    let m = Mounted::new(0);
    let script = r#"
import os, select, threading
poller = select.epoll()
events = open('events')
poller.register(events, select.EPOLLIN)
done = False
def wait():
    while not done:
        poller.poll(0.01)
        poller.modify(events, select.EPOLLIN)
thread = threading.Thread(target=wait)
thread.start()
for i in range(60):
    with open(f'vectors/{i}', 'w') as f:
        f.write('1,2,3,4')
done = True
thread.join()
"#;
    assert!(m.sh(&format!("timeout -s KILL 60 python3 -c \"{script}\"")).status.success());
    assert_eq!(m.status("vectors"), "60");
}

#[test]
fn fsync_commits() {
    need_fuse!();
    let m = Mounted::new(0);
    let mut file = fs::File::create(m.path("ingest/a.jsonl")).expect("created");
    file.write_all(b"{\"id\": 1, \"vector\": [1,2,3,4]}\n").expect("written");
    file.sync_all().expect("durable");
    assert_eq!(open_store(&m.source).view().live(), 1);
    assert_eq!(errno(file.write_all(b"more")), libc::EPERM, "it is a receipt by now");
    mounted::close(file).expect("closed");
    assert_eq!(m.read("events").matches("\"ingest\"").count(), 1);
}

#[test]
fn vectors_are_written_replaced_and_removed_by_id() {
    need_fuse!();
    let m = Mounted::new(3);
    m.write("vectors/7", "1 2 3 4\n").expect("created");
    assert_eq!(m.read("vectors/7"), "+1.00000000e+00,+2.00000000e+00,+3.00000000e+00,+4.00000000e+00\n");
    m.write("vectors/7", "[4, 3, 2, 1]").expect("replaced");
    assert_eq!(m.read("vectors/7"), "+4.00000000e+00,+3.00000000e+00,+2.00000000e+00,+1.00000000e+00\n");
    assert_eq!(fs::metadata(m.path("vectors/7")).expect("attributes").len(), 64);
    m.sh_ok("cp vectors/7 vectors/8; cmp vectors/7 vectors/8");
    fs::remove_file(m.path("vectors/7")).expect("removed");
    assert_eq!(errno(fs::read(m.path("vectors/7"))), libc::ENOENT);
    assert_eq!(errno(fs::remove_file(m.path("vectors/7"))), libc::ENOENT);
    assert_eq!(m.list("vectors"), ["0", "10", "20", "8"]);
    for (name, data) in
        [("7", "1,2,3"), ("7", "1,2,3,4\n5,6,7,8\n"), ("7", "a b c d"), ("7", ""), ("0", "1,2,nan,4")]
    {
        assert_eq!(errno(m.write(&format!("vectors/{name}"), data)), libc::EINVAL, "{data}");
    }
    assert_eq!(
        m.read("vectors/0"),
        "+0.00000000e+00,+1.00000000e+00,+0.00000000e+00,+0.00000000e+00\n",
        "unchanged"
    );
    assert_eq!(m.list("vectors"), ["0", "10", "20", "8"]);
    for name in ["007", "x", "-1", "18446744073709551616"] {
        assert_eq!(errno(m.write(&format!("vectors/{name}"), "1,2,3,4")), libc::EINVAL, "{name}");
    }
    assert_eq!(errno(fs::rename(m.path("vectors/8"), m.path("vectors/9"))), libc::EPERM);
    m.write("vectors/.8.tmp", "8,8,8,8\n").expect("staged");
    fs::rename(m.path("vectors/.8.tmp"), m.path("vectors/8")).expect("replaced by renaming");
    assert!(m.read("vectors/8").starts_with("+8.0"));
    let reopened = open_store(&m.source).view();
    assert_eq!(reopened.live(), 4);
}

#[test]
fn metadata_is_replaced_by_writing() {
    need_fuse!();
    let m = Mounted::new(3);
    m.write("metadata/10.json", "{\"name\": \"ten\", \"year\": 3}\n").expect("written");
    assert_eq!(m.read("metadata/10.json"), "{\"name\": \"ten\", \"year\": 3}\n");
    m.write("metadata/10.json", "{\"name\": \"zehn\"}").expect("replaced");
    assert_eq!(m.read("metadata/10.json"), "{\"name\": \"zehn\"}\n");
    fs::remove_file(m.path("metadata/10.json")).expect("removed");
    assert!(!m.list("metadata").contains(&"10.json".to_owned()));
    assert_eq!(m.list("vectors").len(), 3, "the vector stays");
    for data in ["[1]", "{\"a\": {\"b\": 1}}", "{\"a\": 1", "no"] {
        assert_eq!(errno(m.write("metadata/10.json", data)), libc::EINVAL, "{data}");
    }
    assert_eq!(errno(m.write("metadata/11.json", "{\"a\": 1}")), libc::EINVAL, "no such vector");
    assert!(m.read("error").contains("there is no vector 11"));
    m.sh_ok("cp metadata/0.json ../record && cp ../record metadata/20.json && cmp metadata/0.json metadata/20.json");
}

#[test]
fn copying_tools_work() {
    need_fuse!();
    let m = Mounted::new(30);
    let outside = m.source.with_file_name("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("data.npy"), npy(&[[5.0; DIM], [6.0; DIM]])).expect("a file");
    let mut rows = 30;
    let mut check = |what: &str, added: u64| {
        rows += added;
        assert_eq!(m.status("vectors"), rows.to_string(), "{what}");
    };
    m.sh_ok("cp ../outside/data.npy ingest/");
    check("cp", 2);
    m.sh_ok("cp -p ../outside/data.npy ingest/data2.npy");
    check("cp -p", 2);
    m.sh_ok("cat ../outside/data.npy > ingest/cat.npy");
    check("cat", 2);
    m.sh_ok("dd if=../outside/data.npy of=ingest/dd.npy bs=7 conv=fsync status=none");
    check("dd", 2);
    if has("rsync") {
        m.sh_ok("rsync -a ../outside/data.npy ingest/rsync.npy");
        check("rsync -a", 2);
        m.sh_ok("rsync -a --inplace ../outside/data.npy ingest/inplace.npy");
        check("rsync --inplace", 2);
    }
    if has("busybox") {
        m.sh_ok("busybox cp ../outside/data.npy ingest/busybox.npy");
        check("busybox cp", 2);
    }
    m.sh_ok("tar -C ../outside -cf - data.npy | tar -C ingest -xf - --no-same-owner");
    check("tar", 2);
    m.sh_ok("mv ../outside/data.npy ingest/moved.npy");
    check("mv", 2);
    m.sh_ok("rm -r ingest/* 2>/dev/null; true");
    // And out of the mount.
    m.sh_ok("mkdir ../copy && cp -r . ../copy/cp && diff -r --exclude=events --exclude=error . ../copy/cp");
    m.sh_ok("tar -cf ../copy/all.tar . && tar -df ../copy/all.tar");
    if has("rsync") {
        m.sh_ok("rsync -a ./ ../copy/rsync/ && diff -r vectors ../copy/rsync/vectors && diff -r segments ../copy/rsync/segments");
    }
    if has("busybox") {
        m.sh_ok("busybox cp -r segments ../copy/bb && diff -r segments ../copy/bb");
        m.sh_ok("busybox find . > /dev/null && busybox ls -lR . > /dev/null && busybox du . > /dev/null");
    }
    assert_eq!(m.sh_ok("find vectors -type f | wc -l").trim(), rows.to_string());
    assert!(m.sh_ok("grep -rl n28 . | sort").contains("./metadata/280.json\n"));
    m.sh_ok("ls -lR . > /dev/null; du -a . > /dev/null; find . -type f -exec wc -c {} + > /dev/null");
    m.sh_ok("tail -c 20 status > /dev/null; head -3 status > /dev/null; md5sum file.rvf > /dev/null");
}

#[test]
fn numpy_and_python_work() {
    need_fuse!();
    let numpy = std::process::Command::new("python3").args(["-c", "import numpy"]).output();
    if !numpy.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: python3 with numpy is not installed");
        return;
    }
    let m = Mounted::new(30);
    let text = m.sh_ok(
        "python3 -B - <<'END'\n\
         import json, numpy as np\n\
         v = np.load('vectors.npy', mmap_mode='r'); i = np.load('ids.npy', mmap_mode='r')\n\
         assert v.shape == (30, 4) and v.dtype == np.float32 and i.dtype == np.uint64\n\
         assert (v[:, 0] == np.arange(30)).all() and (i == np.arange(30) * 10).all()\n\
         assert np.array_equal(np.memmap('file.rvf', mode='r'), np.fromfile('file.rvf', dtype='u1'))\n\
         np.save('ingest/new.npy', np.ones((5, 4), 'f2'))\n\
         assert np.load('vectors.npy').shape == (35, 4) and v.shape == (30, 4) and v[29, 0] == 29\n\
         with open('query/in', 'r+b', buffering=0) as f:\n\
         \x20   f.write(v[7].tobytes()); f.seek(0); print(f.read().split()[0].decode())\n\
         np.save('query/in.npy', v[:3]) if False else np.save(open('query/in', 'wb'), v[:3])\n\
         assert np.load('query/out.ids.npy')[:, 0].tolist() == [0, 10, 20]\n\
         assert json.load(open('status.json'))['vectors'] == 35\n\
         rows = [json.loads(line) for line in open('metadata.jsonl')]\n\
         assert len(rows) == 15 and rows[1]['name'] == 'n2'\n\
         END",
    );
    assert_eq!(text, "70\n");
}

#[test]
fn modes_let_owners_write_where_writing_works() {
    need_fuse!();
    let m = Mounted::new(3);
    let mode = |name: &str| fs::metadata(m.path(name)).expect("attributes").mode() & 0o7777;
    assert_eq!(
        (mode("status"), mode("vectors/0"), mode("query/in"), mode("query/k")),
        (0o444, 0o644, 0o666, 0o644)
    );
    assert_eq!((mode("ingest"), mode("segments")), (0o755, 0o555));
}

#[test]
fn control_verbs() {
    need_fuse!();
    let m = Mounted::new(2000);
    assert!(m.read("ctl").starts_with("compact "));
    m.sh_ok("echo delete 0 10 > ctl");
    assert_eq!(m.status("vectors"), "1998");
    let before = fs::metadata(&m.source).expect("attributes").len();
    m.sh_ok("echo compact > ctl");
    assert!(fs::metadata(&m.source).expect("attributes").len() < before);
    m.sh_ok("echo 'reindex m=8' > ctl");
    assert_eq!(m.status("index"), "1998/1998");
    m.write("query/in", "500,1,0,0\n").expect("a request");
    assert!(m.read("query/out").starts_with("5000\t0.0\n"));
    m.sh_ok("printf 'verify\\ncheckpoint\\nrefresh' > ctl");
    assert!(m.read("events").contains("\"event\": \"verify\""));
    let output = m.sh("echo frobnicate > ctl");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Invalid argument"));
    assert!(m.read("error").contains("'frobnicate' is no verb"));
    assert_eq!(errno(m.write("ctl", "delete 0\n")), libc::EINVAL, "nothing to delete");
}

#[test]
fn a_store_locked_by_another_writer_is_busy() {
    need_fuse!();
    let m = Mounted::new(3);
    // A lock of a live process on this host, as the reference's tools leave it while they write.
    let mut lock = vec![0_u8; 104];
    lock[..4].copy_from_slice(&0x5256_4C46_u32.to_le_bytes());
    lock[4..8].copy_from_slice(&std::process::id().to_le_bytes());
    let host = fs::read_to_string("/etc/hostname").unwrap_or_default();
    let host = std::env::var("HOSTNAME").unwrap_or(host.trim().to_owned());
    lock[8..8 + host.len().min(62)].copy_from_slice(&host.as_bytes()[..host.len().min(62)]);
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos()
            as u64;
    lock[0x48..0x50].copy_from_slice(&now.to_le_bytes());
    lock[0x60..0x64].copy_from_slice(&1_u32.to_le_bytes());
    let path = m.source.with_file_name("store.rvf.lock");
    fs::write(&path, lock).expect("a lock");
    assert_eq!(errno(m.write("vectors/7", "1,2,3,4\n")), libc::EBUSY);
    assert!(m.read("error").contains("locked by another writer"));
    assert_eq!(m.read("query/error"), "");
    fs::remove_file(path).expect("unlocked");
    m.write("vectors/7", "1,2,3,4\n").expect("now it works");
}

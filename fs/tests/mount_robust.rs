//! What must not stop a mount: paths that lead back into it, links, limits on open files, missed notifications, and
//! locks that others keep.

mod mounted;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mounted::{DIM, Mounted, errno, make_store, npy, open_store, run_ok, umount, wait_until, write_file};

/// A directory with one store of three vectors, `a.rvf`, mounted beside it.
fn mounted_directory(prepare: impl FnOnce(&Path)) -> Mounted {
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("stores");
    fs::create_dir(&source).expect("a directory");
    drop(make_store(&source.join("a.rvf"), 3));
    prepare(&source);
    Mounted::mount(dir, source, &[])
}

#[test]
fn links_into_the_mount_itself_are_refused_and_do_not_hang_it() {
    need_fuse!();
    let m = mounted_directory(|_| {});
    symlink(m.path("a/file.rvf"), m.source.join("absolute.rvf")).expect("a link");
    symlink("../mnt/a/file.rvf", m.source.join("relative.rvf")).expect("a link");
    symlink("relative.rvf", m.source.join("twice.rvf")).expect("a link");
    symlink("../mnt", m.source.join("whole.rvf")).expect("a link");
    symlink("nowhere.rvf", m.source.join("dangling.rvf")).expect("a link");
    wait_until("the links are noticed", || {
        m.list("").iter().filter(|name| name.as_str() != "README" && name.as_str() != "error").count() == 5
    });
    assert!(!m.list("").iter().any(|name| name == "dangling"), "{:?}", m.list(""));
    for name in ["absolute", "relative", "twice", "whole"] {
        assert_eq!(m.list(name), ["error"], "{name}");
        let text = m.read(&format!("{name}/error"));
        assert!(text.contains("leads into the mount at"), "{text}");
        assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
        assert_eq!(errno(fs::read(m.path(&format!("{name}/status")))), libc::ENOENT);
    }
    m.sh_ok("ls -lR >/dev/null && cat a/lineage a/status >/dev/null && df . >/dev/null");
}

#[test]
fn a_parent_inside_the_mount_is_missing_and_does_not_hang_it() {
    need_fuse!();
    let m = mounted_directory(|source| {
        let parent = open_store(&source.join("a.rvf"));
        parent.branch(&source.join("child.rvf"), &Default::default()).expect("a branch");
    });
    assert!(!m.read("child/status").contains("cannot be opened"), "{}", m.read("child/status"));
    // The place is valid for everybody but the one who serves it.
    open_store(&m.source.join("child.rvf")).reparent(&m.path("a/file.rvf")).expect("the same bytes");
    wait_until("the new place is noticed", || m.read("child/status").contains("leads into the mount at"));
    assert!(m.read("a/status").contains("vectors: 3\n"));
    m.sh_ok("ls -lR >/dev/null; cat child/lineage >/dev/null");
}

#[test]
fn a_mountpoint_named_like_a_store_is_not_taken_for_one() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("mnt.rvf");
    fs::create_dir(&at).expect("a mountpoint");
    drop(make_store(&dir.path().join("a.rvf"), 3));
    let output = mounted::rvf_mount().arg(dir.path()).arg(&at).output().expect("rvf-mount runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = run_ok("timeout", ["-k", "1", "30", "ls", at.to_str().expect("UTF-8")]);
    assert_eq!(
        listed.lines().filter(|name| *name == "a" || name.starts_with("mnt")).collect::<Vec<_>>(),
        ["a"]
    );
    run_ok(
        "timeout",
        ["-k".as_ref(), "1".as_ref(), "30".as_ref(), "cat".as_ref(), at.join("a/lineage").as_os_str()],
    );
    umount(&at);
}

/// A directory with a link to a store that lies elsewhere.
fn mounted_link() -> Mounted {
    mounted_directory(|source| {
        let place = source.with_file_name("elsewhere");
        fs::create_dir(&place).expect("a directory");
        drop(make_store(&place.join("real.rvf"), 6));
        symlink("../elsewhere/real.rvf", source.join("link.rvf")).expect("a link");
    })
}

#[test]
fn a_linked_store_is_changed_where_it_lies() {
    need_fuse!();
    let m = mounted_link();
    let real = m.source.with_file_name("elsewhere").join("real.rvf");
    let before = fs::metadata(&real).expect("there").ino();
    m.sh_ok("rm link/vectors/10 && echo compact > link/ctl");
    assert!(fs::symlink_metadata(m.source.join("link.rvf")).expect("there").is_symlink());
    assert_ne!(fs::metadata(&real).expect("there").ino(), before, "compacted into a new file");
    assert_eq!(open_store(&real).view().live(), 5);
    assert!(m.read("link/status").contains("vectors: 5\n"));
    // No notification comes from there.
    open_store(&real).delete(&[20]).expect("a delete");
    wait_until("the change elsewhere is noticed", || m.read("link/status").contains("vectors: 4\n"));
}

#[test]
fn activity_beside_a_store_does_not_hide_what_notifications_miss() {
    need_fuse!();
    let m = mounted_link();
    assert!(m.read("link/status").contains("vectors: 6\n"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::write(m.source.join("busy.txt"), b"x").expect("written");
                std::thread::yield_now();
            }
        });
        open_store(&m.source.with_file_name("elsewhere").join("real.rvf")).delete(&[0]).expect("a delete");
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let mut seen = false;
        while !seen && std::time::Instant::now() < end {
            seen = m.read("link/status").contains("vectors: 5\n");
        }
        done.store(true, Ordering::Relaxed);
        assert!(seen, "the change was not noticed within twenty seconds");
    });
}

#[test]
fn more_stores_than_a_process_may_open_files_by_default() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let (source, at) = (dir.path().join("stores"), dir.path().join("mnt"));
    fs::create_dir(&source).and_then(|()| fs::create_dir(&at)).expect("directories");
    drop(make_store(&source.join("s0.rvf"), 1));
    for n in 1..80 {
        fs::copy(source.join("s0.rvf"), source.join(format!("s{n}.rvf"))).expect("a copy");
    }
    let script = "ulimit -S -n 64 && exec \"$0\" \"$1\" \"$2\"";
    run_ok(
        "bash",
        ["-c".as_ref(), script.as_ref(), Path::new(env!("CARGO_BIN_EXE_rvf-mount")), source.as_path(), &at],
    );
    let open = (0..80).filter(|n| fs::read(at.join(format!("s{n}/status"))).is_ok()).count();
    umount(&at);
    assert_eq!(open, 80);
}

#[test]
fn reads_and_queries_do_not_wait_for_commits_that_wait_for_a_lock() {
    need_fuse!();
    const WRITERS: usize = 80;
    let m = Mounted::new(2000);
    let file = fs::File::options().read(true).write(true).open(&m.source).expect("opens");
    let lock = rvf_format::lock::WriteLock::acquire(&m.source, &file, std::time::Duration::from_secs(10));
    let lock = lock.expect("the lock");
    let ended = AtomicUsize::new(0);
    let started = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (m, ended, started) = (&m, &ended, &started);
                scope.spawn(move || {
                    let mut file =
                        fs::File::create(m.path(&format!("vectors/{}", 1_000_000 + n))).expect("opens");
                    std::io::Write::write_all(&mut file, b"1,2,3,4\n").expect("written");
                    started.fetch_add(1, Ordering::SeqCst);
                    let result = mounted::close(file);
                    ended.fetch_add(1, Ordering::SeqCst);
                    result
                })
            })
            .collect();
        wait_until("all are about to close", || started.load(Ordering::SeqCst) == WRITERS);
        // These run on workers: a batch, a first look at metadata, a filter.
        m.write("query/in", npy(&vec![[7.0, 1.0, 0.0, 0.0]; 50])).expect("a batch");
        assert!(m.read("query/out").starts_with("70\t0.0\n"));
        m.write("query/in", "{\"vector\": [4,1,0,0], \"k\": 1, \"filter\": \"year = 2004\"}")
            .expect("a filter");
        assert!(m.read("query/out").starts_with("40\t0.0\n"));
        assert_eq!(m.read("metadata.jsonl").lines().count(), 1000);
        assert_eq!(m.bytes("vectors.npy").len(), 128 + 2000 * DIM * 4);
        assert_eq!(ended.load(Ordering::SeqCst), 0, "the lock is still held");
        drop(lock);
        for writer in writers {
            writer.join().expect("no panic").expect("written once the lock is free");
        }
    });
    assert_eq!(m.status("vectors"), (2000 + WRITERS).to_string());
    let blocked = write_file(&m.path("vectors/x"), b"1");
    assert_eq!(errno(blocked), libc::EINVAL);
}

#[test]
fn commits_that_wait_for_the_same_lock_give_up_together() {
    need_fuse!();
    let m = Mounted::new(3);
    let file = fs::File::options().read(true).write(true).open(&m.source).expect("opens");
    let lock = rvf_format::lock::WriteLock::acquire(&m.source, &file, std::time::Duration::from_secs(10));
    let lock = lock.expect("the lock");
    let script = "for n in 1 2 3 4 5 6; do (echo 1,2,3,4 > vectors/900$n) & done; wait";
    // One after another they would take a minute.
    let output = Command::new("timeout")
        .args(["-k", "1", "40", "bash", "-c", script])
        .current_dir(&m.at)
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(m.status("vectors"), "3");
    assert!(m.read("vectors/error").contains("locked by another writer"), "{}", m.read("vectors/error"));
    drop(lock);
    m.write("vectors/9001", "1,2,3,4\n").expect("free again");
}

#[test]
fn a_mounted_directory_says_what_it_refuses() {
    need_fuse!();
    let m = mounted_directory(|_| {});
    assert_eq!(m.list(""), ["a"], "a listing is the stores");
    assert_eq!(m.read("error"), "");
    assert_eq!(errno(write_file(&m.path("b.rvf"), b"x")), libc::EPERM);
    assert!(
        m.read("error")
            .starts_with("b.rvf: this is a directory of stores; a store is created with rvf create")
    );
    assert_eq!(errno(fs::create_dir(m.path("b"))), libc::EPERM);
    assert!(m.read("error").starts_with("b: this is a directory of stores"), "{}", m.read("error"));
    assert_eq!(m.sh_ok("wc -c < error").trim(), m.bytes("error").len().to_string());
    let readme = m.read("README");
    assert!(readme.contains("cat a/status") && readme.lines().count() < 25, "{readme}");
    for line in readme.lines().filter_map(|line| line.strip_prefix("    ")) {
        m.sh_ok(line);
    }
    assert_eq!(errno(write_file(&m.path("README"), b"x")), libc::EPERM);
    assert_eq!(errno(fs::remove_file(m.path("README"))), libc::EPERM);
    assert_eq!(errno(fs::create_dir(m.path("README"))), libc::EEXIST);
    // A store of that name comes first.
    drop(make_store(&m.source.join("error.rvf"), 1));
    wait_until("the store is noticed", || m.path("error/status").exists());
}

#[test]
fn a_store_that_becomes_a_link_into_its_own_mount_stays_what_it_was() {
    need_fuse!();
    let m = Mounted::new(3);
    fs::rename(&m.source, m.source.with_file_name("moved.rvf")).expect("moved away");
    symlink(m.path("file.rvf"), &m.source).expect("a link");
    m.sh_ok(
        "df . >/dev/null; ls -l . vectors >/dev/null; cat status lineage >/dev/null; echo 1,1,0,0 > query/in",
    );
    assert!(m.read("query/out").starts_with("10\t0.0\n"));
    assert_eq!(errno(m.write("vectors/7", "1,2,3,4\n")), libc::EPERM);
    assert!(m.read("vectors/error").contains("leads into the mount at"), "{}", m.read("vectors/error"));
}

/// A copy that waits for the lock kept its directory locked, and whoever looked into that kept everybody waiting.
#[test]
fn a_copy_that_waits_for_a_lock_keeps_nobody_else_waiting() {
    need_fuse!();
    let m = Mounted::new(5);
    m.sh_ok("mkdir branches/spare");
    let file = fs::File::open(&m.source).expect("the store");
    let lock = rvf_format::lock::WriteLock::acquire(&m.source, &file, std::time::Duration::from_secs(10));
    let lock = lock.expect("the lock");
    let mut copy = Command::new("cp")
        .args(["-r", "branches/main", "branches/exp"])
        .current_dir(&m.at)
        .spawn()
        .expect("cp");
    let pid = copy.id();
    let waits = move || {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        call.starts_with(&format!("{} ", libc::SYS_copy_file_range))
    };
    wait_until("the copy is being bound", waits);
    // What is there of it, and making and removing names in it.
    assert_eq!(m.list("branches"), ["exp", "main", "spare"]);
    // Whoever closes a file of the copy learns what became of it, and waits for that.
    let mut maker = Command::new("sh")
        .args(["-c", ": > branches/exp/.ids.npy.AbC123"])
        .current_dir(&m.at)
        .spawn()
        .expect("sh");
    wait_until("a name is made", || m.list("branches/exp").contains(&".ids.npy.AbC123".to_owned()));
    m.sh_ok("ls -l branches branches/exp && stat branches/exp && rm branches/exp/.ids.npy.AbC123");
    m.sh_ok("cd branches && ln -s ../../query exp/.query.AbC123 && rm exp/.query.AbC123 && mkdir other && rmdir other");
    m.sh_ok("cat status");
    assert!(copy.try_wait().expect("a child").is_none(), "the copy waits for the lock still");
    assert!(waits());
    drop(lock);
    assert!(copy.wait().expect("cp").success() && maker.wait().expect("sh").success());
    assert_eq!(m.list("branches/exp/vectors"), m.list("vectors"));
}

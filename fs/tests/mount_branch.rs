//! `branches/`: copying a directory makes a copy-on-write branch, whatever tool copies it.

mod mounted;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rvf_cow::{BadRow, Batch, NoProgress};

use mounted::{DIM, Mounted, errno, has, make_store, npy, open_store, run_ok, umount, wait_until};

/// A branch's file holds no vectors: under this, whatever it was made from.
const SMALL: u64 = 2048;

/// Each with the program it needs; `$1` is what is copied, `$2` the copy.
const TOOLS: [(&str, &str, &str); 9] = [
    ("cp", "cp", "cp -r $1 $2"),
    ("cpa", "cp", "cp -a $1 $2"),
    ("cpnr", "cp", "cp -r --reflink=never $1 $2"),
    ("cpsp", "cp", "cp -r --sparse=always $1 $2"),
    ("rsync", "rsync", "rsync -a $1/ $2/"),
    ("rsyncin", "rsync", "rsync -a --inplace $1/ $2/"),
    ("tar", "tar", "mkdir $2 && tar -C $1 -cf - . | tar -C $2 -xf -"),
    ("busybox", "busybox", "busybox cp -r $1 $2"),
    ("python", "python3", "python3 -c \"import shutil; shutil.copytree('$1', '$2', symlinks=True)\""),
];

fn child(m: &Mounted, name: &str) -> PathBuf {
    m.source.with_file_name(format!("store.{name}.rvf"))
}

fn names(m: &Mounted) -> Vec<String> {
    m.list("branches")
}

#[test]
fn every_copying_tool_makes_a_branch() {
    need_fuse!();
    let m = Mounted::new(7);
    // What is copied is a branch that shows something else than the store does.
    m.sh_ok("cp -r branches/main branches/from && echo 9,9,9,9 > branches/from/vectors/5 && rm branches/from/vectors/10");
    for (name, program, script) in TOOLS {
        if !has(program) {
            continue;
        }
        for (source, copy) in [("main", format!("{name}-m")), ("from", format!("{name}-f"))] {
            let script = script
                .replace("$1", &format!("branches/{source}"))
                .replace("$2", &format!("branches/{copy}"));
            m.sh_ok(&script);
            let len = fs::metadata(child(&m, &copy)).unwrap_or_else(|e| panic!("{script}: {e}")).len();
            assert!(len <= SMALL, "{script}: {len} bytes");
            for file in ["vectors.npy", "ids.npy", "metadata.jsonl"] {
                let same = m.bytes(&format!("branches/{source}/{file}"))
                    == m.bytes(&format!("branches/{copy}/{file}"));
                assert!(same, "{script}: {file}");
            }
            assert_eq!(
                m.list(&format!("branches/{copy}/vectors")).iter().filter(|n| *n != "error").count(),
                7
            );
            assert_eq!(m.path(&format!("branches/{copy}/vectors/5")).exists(), source == "from");
            let parent = fs::read_link(m.path(&format!("branches/{copy}/parent"))).expect("a link");
            assert_eq!(parent, PathBuf::from(format!("../{source}")));
            // Neither changes the other.
            m.sh_ok(&format!("echo 1,2,3,4 > branches/{copy}/vectors/77"));
            assert!(!m.path(&format!("branches/{source}/vectors/77")).exists());
            assert_eq!(
                m.read(&format!("branches/{copy}/diff.jsonl")),
                "{\"id\": 77, \"change\": \"added\"}\n"
            );
        }
    }
    m.sh_ok("rm vectors/20");
    for name in names(&m).iter().filter(|name| *name != "main") {
        assert!(m.path(&format!("branches/{name}/vectors/20")).exists(), "{name}");
    }
    let hidden = fs::read_dir(m.source.parent().expect("a directory")).expect("listed");
    let left: Vec<_> =
        hidden.flatten().map(|e| e.file_name()).filter(|n| n.as_encoded_bytes().starts_with(b".")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_branch_is_searched_and_shows_its_own_rows() {
    need_fuse!();
    let m = Mounted::new(50);
    m.sh_ok("cp -r branches/main branches/exp && echo 3.1,1,0,0 > branches/exp/vectors/31 && rm branches/exp/vectors/30");
    m.sh_ok("echo 2 > branches/exp/query/k; echo 3.1,1,0,0 > branches/exp/query/in");
    assert_eq!(
        m.read("branches/exp/query/out").lines().map(|l| l.split('\t').next()).collect::<Vec<_>>(),
        [Some("31"), Some("40")]
    );
    m.sh_ok("echo 2 > query/k; echo 3.1,1,0,0 > query/in");
    assert_eq!(
        m.read("query/out").lines().map(|l| l.split('\t').next()).collect::<Vec<_>>(),
        [Some("30"), Some("40")]
    );
    assert_eq!(m.sh_ok("cat branches/exp/status | grep -c '^inherited: 49$'"), "1\n");
    assert_eq!(
        m.read("branches/exp/diff.jsonl"),
        "{\"id\": 30, \"change\": \"removed\"}\n{\"id\": 31, \"change\": \"added\"}\n"
    );
    assert_eq!(m.sh("diff -rq branches/main branches/exp").status.code(), Some(1));
    m.sh_ok("find branches >/dev/null && du -s branches >/dev/null && ls -lR branches >/dev/null && grep -rs nothing branches; true");
}

#[test]
fn what_differs_from_a_branch_is_no_copy_of_it() {
    need_fuse!();
    let m = Mounted::new(5);
    let say = |part: &str| {
        let error = m.read("error");
        assert!(error.contains(part), "{error}");
    };
    // After the origin every byte is compared as it comes.
    m.sh_ok("mkdir branches/x && cp branches/main/origin branches/x/origin");
    let mut wrong = m.bytes("vectors.npy");
    *wrong.last_mut().expect("bytes") ^= 1;
    assert_eq!(errno(fs::write(m.path("branches/x/vectors.npy"), &wrong)), libc::EPERM);
    say("vectors.npy: differs from the branch that is copied");
    // The last file cannot make it a branch, and says so too.
    assert_eq!(
        m.sh("cp branches/main/ids.npy branches/main/metadata.jsonl branches/x/").status.code(),
        Some(1)
    );
    assert!(!child(&m, "x").exists());
    m.sh_ok("rm -r branches/x");
    // Before it, when it is known.
    m.sh_ok("mkdir branches/y");
    fs::write(m.path("branches/y/vectors.npy"), &wrong).expect("nothing to compare with yet");
    m.sh_ok("cat branches/main/ids.npy > branches/y/ids.npy; cat branches/main/metadata.jsonl > branches/y/metadata.jsonl");
    assert_eq!(m.sh("cp --reflink=never branches/main/origin branches/y/").status.code(), Some(1));
    say("differs");
    assert!(!child(&m, "y").exists());
    m.sh_ok("rm -r branches/y");
    // What is no part of a branch.
    m.sh_ok("mkdir branches/z");
    assert_eq!(errno(fs::write(m.path("branches/z/notes.txt"), "x")), libc::EPERM);
    say("notes.txt: a branch consists of origin");
    assert_eq!(errno(fs::create_dir(m.path("branches/z/sub"))), libc::EPERM);
    assert_eq!(errno(std::os::unix::fs::symlink("/etc/passwd", m.path("branches/z/query"))), libc::EPERM);
    assert_eq!(
        m.sh("printf 'rvf origin 1\nfile_id: 00\n' | cp /dev/stdin branches/z/origin").status.code(),
        Some(1)
    );
    say("this is not the origin of a branch");
    assert_eq!(errno(fs::write(m.path("branches/file"), "x")), libc::EPERM);
    m.sh_ok("rm branches/z/origin; rmdir branches/z");
    assert_eq!(names(&m), ["main"]);
    // A copy that is too old.
    let out = tempfile::tempdir().expect("a directory");
    let old = out.path().join("old");
    m.sh_ok(&format!("cp -r branches/main {} && rm vectors/0", old.display()));
    let output = m.sh(&format!("cp -r {} branches/old", old.display()));
    assert_eq!(output.status.code(), Some(1));
    say("main has changed since this copy of it was taken");
    m.sh_ok("rm -r branches/old");
    assert_eq!(names(&m), ["main"]);
}

/// A piece that ended inside the header of a .npy file was an overflow, and EIO.
#[test]
fn a_copy_may_come_in_pieces_of_any_size() {
    need_fuse!();
    let m = Mounted::new(5);
    for size in [1, 16, 127, 130] {
        let name = format!("by{size}");
        m.sh_ok(&format!("mkdir branches/{name} && cp branches/main/origin branches/{name}/"));
        for file in ["vectors.npy", "ids.npy", "metadata.jsonl"] {
            m.sh_ok(&format!("dd if=branches/main/{file} of=branches/{name}/{file} bs={size} status=none"));
        }
        assert!(child(&m, &name).exists(), "{name}");
    }
    // What differs within the header is told there.
    m.sh_ok("mkdir branches/x && cp branches/main/origin branches/x/");
    assert_eq!(errno(fs::write(m.path("branches/x/ids.npy"), "\u{1}NUMPY")), libc::EPERM);
}

#[test]
fn a_copy_taken_out_of_the_mount_can_be_put_back() {
    need_fuse!();
    let m = Mounted::new(9);
    let out = tempfile::tempdir().expect("a directory");
    let out = out.path().join("exp");
    m.sh_ok("cp -r branches/main branches/exp && echo 1,1,1,1 > branches/exp/vectors/3");
    m.sh_ok(&format!("cp -r branches/exp {0} && cp -r {0} branches/back", out.display()));
    assert!(m.path("branches/back/vectors/3").exists());
    assert_eq!(fs::read_link(m.path("branches/back/parent")).expect("a link"), PathBuf::from("../exp"));
    assert!(fs::metadata(child(&m, "back")).expect("a file").len() <= SMALL);
}

#[test]
fn a_copy_is_read_as_soon_as_it_is_a_branch() {
    need_fuse!();
    let m = Mounted::new(4);
    m.sh_ok("mkdir branches/x && cp branches/main/origin branches/x/");
    assert_eq!(errno(fs::read(m.path("branches/x/origin"))), libc::EPERM);
    assert!(m.read("error").contains("can be read when the branch exists"), "{}", m.read("error"));
    // Without the links, for which is waited for a while.
    m.sh_ok("cd branches && cp main/ids.npy main/vectors.npy main/metadata.jsonl x/ && cmp main/vectors.npy x/vectors.npy");
    m.sh_ok("cp -r branches/x branches/y && cmp branches/x/metadata.jsonl branches/y/metadata.jsonl");
    assert!(child(&m, "x").exists() && child(&m, "y").exists());
}

#[test]
fn existing_names_are_not_written_over() {
    need_fuse!();
    let m = Mounted::new(3);
    m.sh_ok("cp -r branches/main branches/exp");
    let output = m.sh("cp -r branches/main branches/exp");
    assert_eq!(output.status.code(), Some(1));
    assert!(m.read("error").contains("branches/exp exists"), "{}", m.read("error"));
    assert_eq!(errno(fs::create_dir(m.path("branches/exp"))), libc::EEXIST);
    assert_eq!(errno(fs::create_dir(m.path("branches/main"))), libc::EEXIST);
    assert_eq!(errno(fs::create_dir(m.path("branches/.x"))), libc::EINVAL);
    assert_eq!(errno(fs::write(m.path("branches/exp/origin"), "x")), libc::EPERM);
    assert_eq!(m.sh("mv branches/exp/ids.npy branches/main/").status.code(), Some(1));
    assert_eq!(m.sh("mv branches/exp/ids.npy branches/exp/other").status.code(), Some(1));
    // It unlinks what it means to replace, and is refused then: nothing is missing afterwards.
    let before = m.list("branches/exp");
    assert_eq!(m.sh("cp -rT branches/main branches/exp").status.code(), Some(1));
    assert_eq!(m.list("branches/exp"), before);
    m.write("branches/exp/query/in", "3,1,0,0\n").expect("a query");
    // A file of another kind under the name the branch would have.
    fs::write(child(&m, "taken"), "not a store").expect("written");
    wait_until("it is listed", || m.list("branches").contains(&"taken".to_owned()));
    assert_eq!(m.sh("cp -r branches/main branches/taken").status.code(), Some(1));
    assert_eq!(fs::read(child(&m, "taken")).expect("there"), b"not a store");
    assert_eq!(m.list(".stores/taken"), ["error"]);
    assert!(m.read("branches/taken/error").contains("store.taken.rvf"), "{}", m.read("branches/taken/error"));
}

#[test]
fn branches_are_renamed_and_removed() {
    need_fuse!();
    let m = Mounted::new(4);
    m.sh_ok("cp -r branches/main branches/a && echo 5,5,5,5 > branches/a/vectors/5 && cp -r branches/a branches/b");
    let status = m.sh("rmdir branches/a").status;
    assert_eq!(status.code(), Some(1));
    assert_eq!(errno(fs::remove_dir(m.path("branches/a"))), libc::ENOTEMPTY);
    assert!(m.read("error").contains("branches/a has branches of its own: b"), "{}", m.read("error"));
    m.sh_ok("mv branches/a branches/c");
    assert_eq!(names(&m), ["b", "c", "main"]);
    assert!(child(&m, "c").exists() && !child(&m, "a").exists());
    assert_eq!(fs::read_link(m.path("branches/b/parent")).expect("a link"), PathBuf::from("../c"));
    assert_eq!(m.read("branches/b/vectors/5"), m.read("branches/c/vectors/5"));
    assert!(open_store(&child(&m, "b")).view().complete().is_ok());
    assert_eq!(errno(fs::rename(m.path("branches/b"), m.path("branches/c"))), libc::ENOTEMPTY);
    assert_eq!(errno(fs::rename(m.path("branches/main"), m.path("branches/d"))), libc::EPERM);
    assert_eq!(errno(fs::rename(m.path("branches/b"), m.path("query/b"))), libc::EXDEV);
    assert_eq!(errno(fs::remove_dir(m.path("branches/main"))), libc::EPERM);
    assert_ne!(m.sh("rm -r branches/main").status.code(), Some(0));
    assert_eq!(m.status("vectors"), "4");
    // rm hides first; without the last step nothing is lost.
    m.sh_ok("rm branches/b/ids.npy branches/b/query");
    assert_eq!(errno(fs::metadata(m.path("branches/b/ids.npy"))), libc::ENOENT);
    assert!(child(&m, "b").exists());
    m.sh_ok("rm -r branches/b branches/c");
    assert_eq!(names(&m), ["main"]);
    assert!(!child(&m, "b").exists() && !child(&m, "c").exists());
    // A directory that nothing was copied into.
    m.sh_ok("mkdir branches/p && mv branches/p branches/q && rmdir branches/q");
    assert_eq!(names(&m), ["main"]);
}

#[test]
fn a_frozen_branch_stays_as_it_is() {
    need_fuse!();
    let mut m = Mounted::new(6);
    m.sh_ok("cp -r branches/main branches/snap && chmod a-w branches/snap");
    let mode =
        |m: &Mounted, name: &str| fs::metadata(m.path(name)).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&m, "branches/snap"), 0o555);
    for refused in [
        fs::write(m.path("branches/snap/vectors/1"), "1,1,1,1\n"),
        fs::write(m.path("branches/snap/metadata/10.json"), "{\"a\": 1}\n"),
        fs::write(m.path("branches/snap/ingest/x.npy"), npy(&[[1.0, 2.0, 3.0, 4.0]])),
        fs::remove_file(m.path("branches/snap/vectors/10")),
        fs::write(m.path("branches/snap/ctl"), "delete 10\n"),
    ] {
        assert_eq!(errno(refused), libc::EROFS);
    }
    assert_eq!(m.sh("chmod u+w branches/snap").status.code(), Some(1));
    assert!(m.read("error").contains("branches/snap is frozen for good"), "{}", m.read("error"));
    m.sh_ok("mv branches/snap branches/snap2");
    m.signal("-TERM");
    m.wait();
    m.remount(&[]);
    assert_eq!(mode(&m, "branches/snap2"), 0o555);
    // A copy goes on from there, although copying tools take the mode over.
    m.sh_ok("cp -a branches/snap2 branches/on && cp -r branches/snap2 branches/on2");
    for name in ["on", "on2"] {
        assert_eq!(mode(&m, &format!("branches/{name}")), 0o755, "{name}");
        m.sh_ok(&format!("echo 1,1,1,1 > branches/{name}/vectors/1"));
    }
    m.sh_ok("chmod a-w branches/on");
    assert_eq!(mode(&m, "branches/on"), 0o555);
    // The store itself.
    m.sh_ok("echo freeze > ctl");
    assert_eq!(errno(fs::write(m.path("vectors/1"), "1,1,1,1\n")), libc::EROFS);
    assert_eq!(mode(&m, "branches/main"), 0o555);
    m.sh_ok("cp -r branches/main branches/after && echo 1,1,1,1 > branches/after/vectors/1");
}

#[test]
fn copying_that_is_cut_off_leaves_nothing() {
    need_fuse!();
    let mut m = Mounted::new(2000);
    m.sh_ok("mkdir branches/half && cp branches/main/origin branches/main/ids.npy branches/half/");
    let vectors = m.bytes("vectors.npy");
    let mut file = fs::File::create(m.path("branches/half/vectors.npy")).expect("created");
    file.write_all(&vectors[..10_000]).expect("a part of it");
    drop(file);
    assert_eq!(m.list("branches/half"), ["ids.npy", "origin", "vectors.npy"]);
    assert!(!child(&m, "half").exists());
    m.sh_ok("rm -r branches/half");
    // Now the daemon is killed in the middle of it.
    m.sh_ok("mkdir branches/half && cp branches/main/origin branches/half/");
    m.signal("-KILL");
    m.wait();
    umount(&m.at);
    m.remount(&[]);
    assert_eq!(names(&m), ["main"]);
    let files: Vec<String> = fs::read_dir(m.source.parent().expect("a directory"))
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("half"))
        .collect();
    assert!(files.is_empty(), "{files:?}");
    // And again from the start.
    m.sh_ok("cp -r branches/main branches/half");
    assert!(child(&m, "half").exists());
}

#[test]
fn many_are_copied_at_once() {
    need_fuse!();
    let m = Mounted::new(300);
    m.sh_ok("for i in 1 2 3 4 5 6 7 8; do cp -r branches/main branches/c$i & done; for i in 1 2 3 4; do cp -r --reflink=never branches/main branches/n$i & done; wait");
    assert_eq!(names(&m).len(), 13);
    for name in names(&m) {
        assert_eq!(m.bytes(&format!("branches/{name}/vectors.npy")), m.bytes("vectors.npy"), "{name}");
    }
    // Two into one: one of them makes it.
    let results: Vec<bool> = std::thread::scope(|scope| {
        let copies: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| m.sh("cp -r branches/main branches/same").status.success()))
            .collect();
        copies.into_iter().map(|copy| copy.join().expect("a thread")).collect()
    });
    // Tools that find a half-made directory may get in each other's way; what they made is whole or not there.
    assert!(child(&m, "same").exists() || !results.contains(&true), "{results:?}");
    if child(&m, "same").exists() {
        assert_eq!(m.bytes("branches/same/vectors.npy"), m.bytes("vectors.npy"));
    }
}

#[test]
fn the_parent_goes_on_during_a_copy() {
    need_fuse!();
    let m = Mounted::new(20);
    m.sh_ok("mkdir branches/old && cp branches/main/origin branches/old/");
    // The copy is bound to the state it began with.
    m.sh_ok("echo 8,8,8,8 > vectors/8");
    m.sh_ok("for f in vectors.npy ids.npy metadata.jsonl; do cp branches/main/$f branches/old/; done");
    // The links were not copied, so they are there when nobody copies any more.
    wait_until("the copying is over", || m.path("branches/old/vectors").exists());
    assert!(!m.path("branches/old/vectors/8").exists());
    assert_eq!(m.list("branches/old/vectors").iter().filter(|n| *n != "error").count(), 20);
    assert!(m.path("vectors/8").exists());
}

#[test]
fn verbs_make_fold_and_freeze_branches() {
    need_fuse!();
    let m = Mounted::new(10);
    m.sh_ok("echo 'branch exp' > ctl && echo 'branch sub exp' > ctl");
    assert_eq!(names(&m), ["exp", "main", "sub"]);
    assert_eq!(errno(fs::write(m.path("ctl"), "branch exp\n")), libc::EEXIST);
    assert_eq!(errno(fs::write(m.path("ctl"), "branch y nowhere\n")), libc::EINVAL);
    m.sh_ok("echo 7,7,7,7 > branches/exp/vectors/7 && rm branches/exp/vectors/90 && echo merge > branches/exp/ctl");
    wait_until("the store shows what was folded in", || {
        m.path("vectors/7").exists() && !m.path("vectors/90").exists()
    });
    assert!(m.read("branches/exp/status").contains("vectors: 10\n"));
    // Both sides changed one vector: nothing is guessed.
    m.sh_ok("echo 1,0,0,0 > vectors/10; echo 2,0,0,0 > branches/exp/vectors/10; echo 3,0,0,0 > branches/exp/vectors/11");
    assert_eq!(errno(fs::write(m.path("branches/exp/ctl"), "merge\n")), libc::EEXIST);
    assert!(
        m.read("branches/exp/error").contains(": 10 (parent: vector, branch: vector)\n"),
        "{}",
        m.read("branches/exp/error")
    );
    assert!(!m.path("vectors/11").exists());
    assert_eq!(errno(fs::write(m.path("ctl"), "merge\n")), libc::EINVAL);
}

#[test]
fn a_read_only_mount_shows_branches_and_makes_none() {
    need_fuse!();
    let mut m = Mounted::new(3);
    m.sh_ok("cp -r branches/main branches/exp");
    m.signal("-TERM");
    m.wait();
    m.remount(&["--read-only"]);
    assert_eq!(names(&m), ["exp", "main"]);
    assert_eq!(m.bytes("branches/exp/vectors.npy"), m.bytes("vectors.npy"));
    for refused in [
        fs::create_dir(m.path("branches/x")),
        fs::remove_dir(m.path("branches/exp")),
        fs::rename(m.path("branches/exp"), m.path("branches/y")),
        fs::remove_file(m.path("branches/exp/origin")),
        fs::set_permissions(m.path("branches/exp"), fs::Permissions::from_mode(0o555)),
    ] {
        assert_eq!(errno(refused), libc::EROFS);
    }
}

#[test]
fn a_directory_of_stores_has_branches_too() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("stores");
    fs::create_dir(&source).expect("a directory");
    drop(make_store(&source.join("a.rvf"), 3));
    drop(make_store(&source.join("b.rvf"), 4));
    let m = Mounted::mount(dir, source, &[]);
    m.sh_ok("cp -r a/branches/main a/branches/exp && echo 1,1,1,1 > a/branches/exp/vectors/1");
    assert_eq!(m.list("a/branches"), ["exp", "main"]);
    assert_eq!(m.list("b/branches"), ["main"]);
    wait_until("the child is a store of its own too", || m.path("a.exp/vectors/1").exists());
    assert_eq!(m.read("a.exp/vectors/1"), m.read("a/branches/exp/vectors/1"));
    assert_eq!(m.list("a.exp/branches"), ["main"]);
    // A branch of one store is none of another.
    assert_eq!(m.sh("cp -r a/branches/exp b/branches/exp").status.code(), Some(1));
    m.sh_ok("rm -r b/branches/exp");
    assert_eq!(m.list("b/branches"), ["main"]);
}

#[test]
fn a_thousand_branches_are_listed() {
    need_fuse!();
    let m = Mounted::new(5);
    let store = open_store(&m.source);
    for i in 0..1000 {
        store.branch(&child(&m, &format!("n{i:04}")), &Default::default()).expect("a branch");
    }
    assert_eq!(names(&m).len(), 1001);
    assert_eq!(m.sh_ok("ls -l branches | grep -c ^d"), "1001\n");
    assert_eq!(m.bytes("branches/n0999/ids.npy"), m.bytes("ids.npy"));
    fs::remove_file(child(&m, "n0500")).expect("removed");
    wait_until("it is gone", || names(&m).len() == 1000);
    assert_eq!(errno(fs::metadata(m.path("branches/n0500/origin"))), libc::ENOENT);
}

#[test]
fn a_full_disk_makes_no_half_branch() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("small");
    fs::create_dir(&source).expect("a directory");
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(&source).status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!(
            "SKIPPED: a tmpfs of limited size cannot be mounted here (not root); the full disk is not tried"
        );
        return;
    }
    drop(make_store(&source.join("store.rvf"), 3));
    let m = Mounted::mount(dir, source.join("store.rvf"), &[]);
    let filler = fs::write(source.join("filler"), vec![1; 1 << 20]);
    assert_eq!(errno(filler), libc::ENOSPC);
    let output = m.sh("cp -r branches/main branches/exp");
    let left: Vec<String> = fs::read_dir(&source)
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != "filler" && name != "store.rvf" && name != "store.rvf.lock")
        .collect();
    let result = (output.status.code(), left, m.read("error"));
    // First, or the directory that is removed with the mount is still busy.
    run_ok("umount", [Path::new("-l"), &source]);
    drop(m);
    assert_eq!(result.0, Some(1), "{result:?}");
    assert!(result.1.is_empty(), "{result:?}");
    assert!(result.2.contains("no space left"), "{result:?}");
}

#[test]
fn times_and_modes_are_taken_over() {
    need_fuse!();
    let m = Mounted::new(3);
    m.sh_ok("cp -a branches/main branches/exp");
    let time = |name: &str| fs::metadata(m.path(name)).expect("there").mtime();
    for file in ["vectors.npy", "ids.npy", "origin", "metadata.jsonl"] {
        assert_eq!(time(&format!("branches/exp/{file}")), time(&format!("branches/main/{file}")), "{file}");
    }
    m.sh_ok("touch -d @1000000000 branches/exp/ids.npy");
    assert_eq!(time("branches/exp/ids.npy"), 1_000_000_000);
    m.sh_ok("echo 1,1,1,1 > branches/exp/vectors/1");
    assert!(time("branches/exp/ids.npy") > 1_000_000_000, "a change is newer");
}

/// A branch keeps its parent's vectors as secret as the parent does, also while it is being copied.
#[test]
fn a_private_store_has_private_branches() {
    need_fuse!();
    let m = Mounted::new(3);
    fs::set_permissions(&m.source, fs::Permissions::from_mode(0o600)).expect("chmod");
    m.sh_ok(
        "cp -r branches/main branches/exp && cp -r branches/exp branches/again && echo branch third > ctl",
    );
    for name in ["exp", "again", "third"] {
        assert_eq!(fs::metadata(child(&m, name)).expect("there").mode() & 0o7777, 0o600, "{name}");
    }
}

/// A copy that is not whole yet was told from others by its name alone, so one that was renamed became what was copied
/// into the next directory of its old name.
#[test]
fn a_renamed_copy_stays_what_it_was_bound_to() {
    need_fuse!();
    let m = Mounted::new(5);
    m.sh_ok("cp -r branches/main branches/other && echo 9,9,9,9 > branches/other/vectors/99");
    m.sh_ok("mkdir branches/x && cp branches/main/origin branches/x/ && mv branches/x branches/y");
    m.sh_ok("mkdir branches/x && cp branches/other/origin branches/x/");
    m.sh_ok("cd branches/main && cp ids.npy vectors.npy metadata.jsonl ../y/");
    m.sh_ok("cd branches/other && cp ids.npy vectors.npy metadata.jsonl ../x/");
    for (copy, source) in [("y", "main"), ("x", "other")] {
        assert!(open_store(&child(&m, copy)).view().complete().is_ok(), "{copy}");
        let same =
            m.bytes(&format!(".stores/{copy}/ids.npy")) == m.bytes(&format!("branches/{source}/ids.npy"));
        assert!(same, "{copy} is {source}");
    }
}

/// A branch could be removed or renamed while it was being copied: the copy ended without an error and without a parent.
#[test]
fn what_is_being_copied_stays_where_it_is() {
    need_fuse!();
    let m = Mounted::new(5);
    m.sh_ok("cp -r branches/main branches/a && echo 9,9,9,9 > branches/a/vectors/99");
    m.sh_ok("mkdir branches/b && cp branches/a/origin branches/b/");
    assert_eq!(errno(fs::remove_dir(m.path("branches/a"))), libc::EBUSY);
    assert!(m.read("error").contains("branches/a is being copied into b"), "{}", m.read("error"));
    assert_eq!(errno(fs::rename(m.path("branches/a"), m.path("branches/c"))), libc::EBUSY);
    m.sh_ok("rm -r branches/b && mv branches/a branches/c && rmdir branches/c");
    assert_eq!(names(&m), ["main"]);
    // The last file of a copy says that the parent has gone.
    m.sh_ok("cp -r branches/main branches/a && mkdir branches/b");
    m.sh_ok("cd branches/a && cp origin ids.npy vectors.npy ../b/");
    let out = tempfile::tempdir().expect("a directory");
    let last = out.path().join("metadata.jsonl");
    m.sh_ok(&format!("cp branches/a/metadata.jsonl {}", last.display()));
    // Another program takes the parent away nevertheless.
    fs::remove_file(child(&m, "a")).expect("removed");
    assert_eq!(m.sh(&format!("cp {} branches/b/", last.display())).status.code(), Some(1));
    assert!(m.read("error").contains("moved or removed meanwhile"), "{}", m.read("error"));
    assert!(!child(&m, "b").exists());
}

/// Tools that leave out zeros (`cp --sparse=always`, `rsync -S`) were refused: a copy had to be written without gaps.
#[test]
fn holes_are_zeros() {
    need_fuse!();
    let m = Mounted::new(0);
    let store = open_store(&m.source);
    let zeros = Batch {
        dimension: DIM,
        ids: Some((0..300_000).collect()),
        vectors: (0..300_000 * DIM).map(|i| if i == 0 || i == 150_000 * DIM { 1.0 } else { 0.0 }).collect(),
        metadata: vec![Vec::new(); 300_000],
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&zeros, &NoProgress).expect("rows");
    wait_until("they are shown", || m.status("vectors") == "300000");
    for (name, program, script) in [
        ("cps", "cp", "cp -r --reflink=never --sparse=always branches/main branches/cps"),
        ("rss", "rsync", "rsync -aS branches/main/ branches/rss/"),
    ] {
        if has(program) {
            m.sh_ok(script);
            assert!(fs::metadata(child(&m, name)).expect(script).len() <= SMALL, "{script}");
        }
    }
    // A hole where the branch holds something else.
    m.sh_ok(
        "mkdir branches/x && cp branches/main/origin branches/x/ && cp branches/main/ids.npy branches/x/",
    );
    let file = fs::File::create(m.path("branches/x/vectors.npy")).expect("created");
    let result = std::os::unix::fs::FileExt::write_all_at(&file, &[0; 16], 1 << 20);
    assert_eq!(errno(result), libc::EPERM);
    let result = std::os::unix::fs::FileExt::write_all_at(&file, &[0; 16], 1 << 60);
    assert_eq!(errno(result), libc::EPERM);
}

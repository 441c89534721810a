//! Branches that are copied onto again, and that other programs take away or rename.

mod mounted;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mounted::{Mounted, errno, has, wait_until};

fn child(m: &Mounted, name: &str) -> PathBuf {
    m.source.with_file_name(format!("store.{name}.rvf"))
}

fn kept(path: &Path) -> (Vec<u8>, i64) {
    (fs::read(path).expect("a file"), fs::metadata(path).expect("a file").mtime_nsec())
}

/// A second run ended with status 23: the links of two branches lead to different places, and could not be replaced.
#[test]
fn a_second_rsync_of_the_same_changes_nothing_and_of_another_is_refused() {
    need_fuse!();
    if !has("rsync") {
        return;
    }
    let mut m = Mounted::new(6);
    let again = "rsync -a branches/main/ branches/exp/";
    m.sh_ok(again);
    let before = kept(&child(&m, "exp"));
    for script in [again, "rsync -rlt branches/main/ branches/exp/"] {
        m.sh_ok(script);
        assert_eq!(kept(&child(&m, "exp")), before, "{script}");
    }
    let link = |name: &str| fs::read_link(m.path(name)).expect("a link");
    assert_eq!(link("branches/exp/query"), Path::new("../../.stores/exp/query"));
    assert!(!m.list("branches/exp").iter().any(|name| name.starts_with('.')));
    // Of a branch of a branch too, whose parent is another one.
    m.sh_ok("rsync -a branches/exp/ branches/sub/ && rsync -a branches/exp/ branches/sub/");
    assert_eq!(link("branches/sub/parent"), Path::new("../exp"));
    // What the mount remembered of times is gone with it; the times of what is shown are not.
    m.signal("-TERM");
    m.wait();
    m.remount(&[]);
    m.sh_ok(again);
    m.sh_ok("rsync -a branches/exp/ branches/sub/");
    assert_eq!(kept(&child(&m, "exp")), before);
    // The branch went on.
    m.sh_ok("echo 1,1,1,1 > branches/exp/vectors/1");
    let before = kept(&child(&m, "exp"));
    let output = m.sh(again);
    assert_eq!(output.status.code(), Some(23));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("Operation not permitted (1)"), "{text}");
    assert!(m.read("error").contains("branches/exp is a branch already"), "{}", m.read("error"));
    assert_eq!(kept(&child(&m, "exp")), before);
    assert!(m.path("branches/exp/vectors/1").exists());
    // So did the store, of which another branch was made.
    m.sh_ok("rsync -a branches/main/ branches/old/ && echo 2,2,2,2 > vectors/2");
    assert_eq!(m.sh("rsync -a branches/main/ branches/old/").status.code(), Some(23));
    assert!(!m.path("branches/old/vectors/2").exists());
    // A link that no branch has is none of this.
    for (name, target) in
        [(".query.AbC123", "/etc/passwd"), (".query.AbC123", "../../ingest"), ("more", "../../query")]
    {
        let made = std::os::unix::fs::symlink(target, m.path(&format!("branches/old/{name}")));
        assert_eq!(errno(made), libc::EPERM, "{name} -> {target}");
    }
    std::os::unix::fs::symlink("../../query", m.path("branches/old/.query.AbC123")).expect("as rsync does");
    assert_eq!(
        errno(fs::rename(m.path("branches/old/.query.AbC123"), m.path("branches/old/ingest"))),
        libc::EPERM
    );
    fs::remove_file(m.path("branches/old/.query.AbC123")).expect("given up");
    assert_eq!(errno(fs::symlink_metadata(m.path("branches/old/.query.AbC123"))), libc::ENOENT);
}

/// The kernel keeps names of branches for a moment; what another program did meanwhile must not be taken for what was there.
#[test]
fn names_that_other_programs_change_lead_to_what_is_there() {
    need_fuse!();
    let m = Mounted::new(5);
    m.sh_ok("cp -r branches/main branches/a && echo 1,1,1,1 > branches/a/vectors/1 && cp -r branches/main branches/b");
    let look = |name: &str| fs::read(m.path(&format!("branches/{name}/vectors.npy")));
    let (a, b) = (look("a").expect("a"), look("b").expect("b"));
    assert_ne!(a, b);
    // Each name now means the other file.
    let aside = m.source.with_file_name("aside");
    fs::rename(child(&m, "a"), &aside).expect("renamed");
    fs::rename(child(&m, "b"), child(&m, "a")).expect("renamed");
    fs::rename(&aside, child(&m, "b")).expect("renamed");
    wait_until("a is what b was", || look("a").is_ok_and(|now| now == b));
    wait_until("b is what a was", || look("b").is_ok_and(|now| now == a));
    fs::remove_file(child(&m, "a")).expect("removed");
    wait_until("it is gone", || fs::metadata(m.path("branches/a")).is_err());
    assert_eq!(errno(fs::read(m.path("branches/a/origin"))), libc::ENOENT);
    assert_eq!(errno(fs::read_link(m.path("branches/a/query"))), libc::ENOENT);
    assert_eq!(m.list("branches"), ["b", "main"]);
    // Through the mount it is so at once.
    m.sh_ok("mv branches/b branches/c && readlink branches/c/query | grep -qx ../../.stores/c/query && cat branches/c/vectors/1");
    m.sh_ok("test $(stat -c %s branches/c/query) = $(readlink branches/c/query | tr -d '\\n' | wc -c)");
    assert_eq!(errno(fs::metadata(m.path("branches/b"))), libc::ENOENT);
    m.sh_ok("rm -r branches/c && test ! -e branches/c && cp -r branches/main branches/c && test ! -e branches/c/vectors/1");
}

#[test]
fn branches_are_compared_in_finite_time() {
    need_fuse!();
    let m = Mounted::new(40);
    m.sh_ok("cp -r branches/main branches/a && cp -r branches/a branches/b");
    m.sh_ok("echo 9,9,9,9 > branches/b/vectors/20 && rm branches/b/vectors/30");
    let output = m.sh("diff -r branches/a branches/b");
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("diff -r branches/a/vectors/20 branches/b/vectors/20\n"), "{text}");
    assert!(text.contains("Only in branches/a/vectors: 30\n"), "{text}");
    assert!(!text.contains("vectors/10 "), "{text}");
    let output = m.sh("diff -rq --no-dereference branches/a branches/b");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("branches/a/vectors.npy and branches/b/vectors.npy differ"), "{text}");
    assert!(!text.contains("vectors/20"), "{text}");
}

/// They stayed open until the mount ended, each with its descriptor and what was known of it.
#[test]
fn stores_of_branches_that_other_programs_remove_are_closed() {
    need_fuse!();
    let m = Mounted::new(5);
    m.sh_ok("for b in a b c; do cp -r branches/main branches/$b; cat branches/$b/status; done");
    // One of them seen from another, too.
    m.sh_ok("cp -r branches/a branches/d && cat .stores/a/branches/store.d/status branches/d/status");
    let open = || {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", m.pid())).expect("descriptors").flatten();
        let files = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        let names = files.map(|file| file.to_string_lossy().into_owned());
        names.filter(|name| name.contains("/store.") && !name.ends_with("/store.rvf")).count()
    };
    assert!(open() >= 5, "{}", open());
    for name in ["a", "b", "c", "d"] {
        fs::remove_file(child(&m, name)).expect("removed");
    }
    wait_until("they are closed", || open() == 0);
    assert_eq!(m.list("branches"), ["main"]);
    m.sh_ok("cp -r branches/main branches/e && cat branches/e/status");
}

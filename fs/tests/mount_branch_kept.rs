//! Branches in a mount whose parents were compacted: they stand on states that are kept in hidden files.

mod mounted;

use std::fs;

use mounted::Mounted;

/// Names of the states that compactions kept beside the store.
fn kept(m: &Mounted) -> Vec<String> {
    let beside = fs::read_dir(m.source.parent().expect("a directory")).expect("listed");
    let names = beside.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".pinned")).collect();
    names.sort();
    names
}

/// The merge went into the kept state, and was lost when that was dropped.
#[test]
fn a_merge_goes_into_the_store_that_was_compacted() {
    need_fuse!();
    let mut m = Mounted::new(5);
    m.sh_ok("cp -r branches/main branches/exp && echo 1,2,3,4 > branches/exp/vectors/88");
    m.sh_ok("rm vectors/10 && echo compact > ctl");
    assert_eq!(kept(&m).len(), 1);
    // A mount that begins now finds the branch on the kept state.
    assert!(m.unmount().success());
    m.remount(&[]);
    m.sh_ok("echo merge > branches/exp/ctl && rm -r branches/exp && echo compact > ctl");
    assert_eq!(kept(&m), Vec::<String>::new());
    m.sh_ok("cat vectors/88");
    assert!(!m.path("vectors/10").exists());
}

/// The merge wrote the parent's file behind the back of its store in the mount, which learnt of it from the watch.
#[test]
fn what_was_merged_is_shown_at_once() {
    need_fuse!();
    let m = Mounted::new(5);
    m.sh_ok("cp -r branches/main branches/a && cp -r branches/a branches/b");
    for id in 880..886 {
        m.sh_ok(&format!("echo 1,2,3,4 > branches/b/vectors/{id} && echo merge > branches/b/ctl && cat branches/a/vectors/{id}"));
        m.sh_ok(&format!(
            "echo merge > branches/a/ctl && cat vectors/{id} && grep -qx 'vectors: {}' status",
            id - 874
        ));
    }
}

/// They stayed for good when a branch was removed, and kept in turn a copy of the store that they stand on.
#[test]
fn what_was_kept_of_a_branch_goes_with_it() {
    need_fuse!();
    let m = Mounted::new(5);
    m.sh_ok("cp -r branches/main branches/b && echo 1,1,1,1 > branches/b/vectors/1 && cp -r branches/b branches/c");
    m.sh_ok(
        "rm branches/b/vectors/1 && echo compact > branches/b/ctl && rm vectors/10 && echo compact > ctl",
    );
    assert_eq!(kept(&m).len(), 2);
    m.sh_ok("cat branches/c/vectors/1 branches/c/vectors/10 && rm -r branches/c");
    assert_eq!(kept(&m).len(), 2);
    m.sh_ok("rm -r branches/b");
    let left = kept(&m);
    assert!(left.len() == 1 && !left[0].starts_with(".store.b."), "{left:?}");
    m.sh_ok("echo compact > ctl");
    assert_eq!(kept(&m), Vec::<String>::new());
}

/// A branch that had been compacted could not be renamed while others stood on what that had kept.
#[test]
fn a_branch_is_renamed_with_what_was_kept_of_it() {
    need_fuse!();
    let mut m = Mounted::new(5);
    m.sh_ok("cp -r branches/main branches/b && echo 1,1,1,1 > branches/b/vectors/1 && cp -r branches/b branches/c");
    m.sh_ok("rm branches/b/vectors/1 && echo compact > branches/b/ctl && cp -r branches/c branches/d");
    let stems = |m: &Mounted| {
        let names = kept(m).into_iter();
        names.map(|name| name.rsplitn(3, '.').last().unwrap_or("").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(stems(&m), [".store.b"]);
    m.sh_ok("mv branches/b branches/bb");
    assert_eq!(stems(&m), [".store.bb"]);
    let shown = |m: &Mounted| {
        assert_eq!(m.list("branches"), ["bb", "c", "d", "main"]);
        m.sh_ok("cat branches/c/vectors/1 branches/d/vectors/1");
        m.sh_ok("test ! -e branches/bb/vectors/1 && test $(readlink branches/c/parent) = ../bb");
    };
    shown(&m);
    assert!(m.unmount().success());
    m.remount(&[]);
    shown(&m);
    // A merge finds it too.
    m.sh_ok(
        "echo 2,2,2,2 > branches/c/vectors/2 && echo merge > branches/c/ctl && cat branches/bb/vectors/2",
    );
    // What no branch needs any more does not stay under a name that is gone.
    m.sh_ok("rm -r branches/d && rm -r branches/c && mv branches/bb branches/b");
    assert_eq!(kept(&m), Vec::<String>::new());
}

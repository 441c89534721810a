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

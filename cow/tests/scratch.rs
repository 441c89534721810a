//! Hidden files of makers that live, and of those that are dead.

mod branches;

use std::fs::File;

use branches::*;
use rvf_cow::{BranchOptions, Scratch, sweep};

fn hidden(dir: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("ls");
    let names = entries.map(|e| e.expect("entry").file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| name.starts_with('.')).collect();
    names.sort();
    names
}

/// Process numbers say nothing: a maker in another namespace has a number that is free here, and a dead one may have had the
/// number of a process that lives. The lock tells.
#[test]
fn the_lock_tells_who_lives() {
    let dir = tempfile::tempdir().expect("dir");
    let far = ".pending-4194300-0-far.rvf".to_owned();
    let near = format!(".pending-{}-0-near.rvf", std::process::id());
    let lives = File::create(dir.path().join(&far)).expect("a file");
    lives.lock().expect("the lock");
    File::create(dir.path().join(&near)).expect("a file");
    let own = Scratch::new(&dir.path().join("own.rvf")).expect("a hidden file");
    let own_name = own.path().file_name().expect("a name").to_string_lossy().into_owned();
    // What is no file is left alone.
    std::fs::create_dir(dir.path().join(".pending-1-0-directory.rvf")).expect("a directory");
    sweep(dir.path());
    let mut expected = vec![".pending-1-0-directory.rvf".to_owned(), far, own_name];
    expected.sort();
    assert_eq!(hidden(dir.path()), expected);
    drop((lives, own));
    sweep(dir.path());
    assert_eq!(hidden(dir.path()), [".pending-1-0-directory.rvf"]);
}

/// Whoever makes a branch where another is being made, or where one was left half made, is not disturbed.
#[test]
fn makers_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..10);
    let mut first = Scratch::new(&dir.path().join("c.rvf")).expect("a hidden file");
    parent.branch_into(&first, &BranchOptions::default()).expect("branch");
    assert_eq!(parent.view().branches().expect("list"), [], "what is being made is no branch yet");
    let second = branch(&parent, &dir.path().join("c.rvf"));
    first.publish(&dir.path().join("c.rvf")).expect_err("the name is taken");
    drop(first);
    assert_eq!(hidden(dir.path()), Vec::<String>::new());
    assert_eq!(ids(&second), (0..10).collect::<Vec<_>>());
    // The first commit of a store removes what was left beside it.
    std::fs::write(dir.path().join(".pending-7-0-x.rvf"), "half").expect("a file");
    put(&open(second.path()), &[3], 2);
    assert_eq!(hidden(dir.path()), Vec::<String>::new());
}

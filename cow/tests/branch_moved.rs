//! A file that has been moved, and its branches led to the new place: branches of those branches follow, though they stand on a
//! state which still names the old one.

mod branches;

use std::fs;

use branches::*;
use rvf_cow::NoProgress;

#[test]
fn branches_of_branches_follow_a_file_that_was_moved() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    let root = create(&at("p.rvf"), 0..500);
    let child = branch(&root, &at("p.b.rvf"));
    put(&child, &[1000, 1001], 5);
    let grandchild = branch(&child, &at("p.c.rvf"));
    put(&grandchild, &[2000], 6);
    let query = noise(9, DIM);
    let (all, nearest_ten) = (ids(&grandchild), nearest(&grandchild, &query, 10, true));
    assert_eq!(all.len(), 503);
    drop((root, grandchild));

    fs::create_dir(at("elsewhere")).expect("a directory");
    fs::rename(at("p.rvf"), at("elsewhere/q.rvf")).expect("moved");
    let lost = open(&at("p.c.rvf"));
    assert!(lost.view().complete().is_err(), "nobody knows where it is");
    child.reparent(&at("elsewhere/q.rvf")).expect("led there");
    let found = open(&at("p.c.rvf"));
    assert_eq!(ids(&found), all);
    assert_eq!(nearest(&found, &query, 10, true), nearest_ten);
    // One that was open finds it too.
    lost.refresh().expect("looks again");
    assert_eq!(ids(&lost), all);
    drop((lost, found));

    // Also when the state that it stands on is kept in a file of its own by now.
    child.delete(&[1001]).expect("deleted");
    child.compact(&NoProgress).expect("compacted");
    let found = open(&at("p.c.rvf"));
    assert_eq!(ids(&found), all);

    // Another file in that place is not taken for it.
    fs::rename(at("elsewhere/q.rvf"), at("elsewhere/r.rvf")).expect("moved");
    drop(create(&at("elsewhere/q.rvf"), 0..500));
    drop(found);
    let lost = open(&at("p.c.rvf"));
    assert!(lost.view().complete().is_err());
    assert_eq!(ids(&lost), [2000], "its own are shown");
}

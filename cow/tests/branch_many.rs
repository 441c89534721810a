//! More children beside a store than any bound that was ever set: all of them are seen by whatever must see all.

mod branches;

use std::path::{Path, PathBuf};

use branches::*;
use rvf_cow::{LineageState, NoProgress, Store, lineage};

const MANY: usize = 1100;

/// Children of several states of the parent, few of them open at a time.
fn children(parent: &Store, dir: &Path) -> Vec<PathBuf> {
    (0..MANY)
        .map(|n| {
            if n.is_multiple_of(MANY / 4) {
                put(parent, &[1000 + n as u64], 2);
            }
            let path = dir.join(format!("p.c{n:04}.rvf"));
            branch(parent, &path);
            path
        })
        .collect()
}

#[test]
fn a_thousand_children_are_all_listed_kept_and_led_to_their_parent() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..10);
    let all = children(&parent, dir.path());
    let listed = |store: &Store| -> Vec<PathBuf> {
        store.view().branches().expect("list").into_iter().map(|branch| branch.path).collect()
    };
    assert_eq!(listed(&parent), all);
    let before: Vec<Vec<u64>> = all.iter().map(|path| ids(&open(path))).collect();
    assert!(before.iter().all(|ids| ids.len() >= 11) && before.first() != before.last());

    // The parent goes by names that no child knows, wherever they come in the directory's own order.
    for n in 0..12 {
        let (from, to) = (parent.path(), dir.path().join(format!("{n}-elsewhere.rvf")));
        std::fs::rename(from, &to).expect("rename");
        for path in [&all[0], &all[MANY - 1]] {
            let chain = lineage(path).expect("lineage");
            assert_eq!(chain[0].path.as_deref(), Some(to.as_path()));
            assert!(chain.iter().all(|g| g.state == LineageState::Verified), "{chain:?}");
        }
        std::fs::rename(&to, from).expect("rename back");
    }

    // A compaction keeps what each of them stands on.
    parent.delete(&[0, 1, 2]).expect("delete");
    parent.compact(&NoProgress).expect("compact");
    assert_eq!(listed(&parent), all);
    for (path, before) in all.iter().zip(&before) {
        let child = open(path);
        assert!(matches!(child.view().parent_state(), Some(Ok(_))), "{}", path.display());
        assert_eq!(ids(&child), *before, "{}", path.display());
    }
    // The next one too, and it drops what the last child of a state leaves behind.
    for path in all.iter().take(MANY / 4) {
        std::fs::remove_file(path).expect("remove");
    }
    put(&parent, &[5000], 3);
    parent.compact(&NoProgress).expect("compact");
    for (path, before) in all.iter().zip(&before).skip(MANY / 4) {
        assert_eq!(ids(&open(path)), *before, "{}", path.display());
    }
    let kept = std::fs::read_dir(dir.path())
        .expect("list")
        .filter(|entry| entry.as_ref().expect("entry").path().extension().is_some_and(|e| e == "pinned"));
    assert_eq!(kept.count(), 3);
}

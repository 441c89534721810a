//! How branches differ, and folding one into its parent.

mod branches;

use branches::*;
use rvf_cow::{Batch, Change, Conflict, DiffReport, Difference, Error, NoProgress, Store, Value, diff};

fn differences(a: &Store, b: &Store) -> (Vec<Difference>, DiffReport) {
    let mut all = Vec::new();
    let report = diff(&a.view(), &b.view(), &mut |difference| {
        all.push(difference);
        true
    })
    .expect("diff");
    (all, report)
}

fn changed(id: u64, vector: bool, fields: &[&str]) -> Difference {
    let fields = fields.iter().map(|f| (*f).to_owned()).collect();
    Difference { id, kind: Change::Changed { vector, fields } }
}

fn added(id: u64) -> Difference {
    Difference { id, kind: Change::Added }
}

fn removed(id: u64) -> Difference {
    Difference { id, kind: Change::Removed }
}

#[test]
fn only_what_was_edited_is_looked_at() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..2000);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    assert_eq!(differences(&parent, &child), (vec![], DiffReport::default()));
    put(&child, &[5, 3000], 9);
    child.delete(&[7]).expect("delete");
    child.put_metadata(8, &field("colour", "red")).expect("put");
    // The same vector once more is an edit, but no difference.
    put(&child, &[11], 1);
    let expected = vec![changed(5, true, &[]), removed(7), changed(8, false, &["colour"]), added(3000)];
    let (found, report) = differences(&parent, &child);
    assert_eq!(found, expected);
    assert_eq!(report, DiffReport { added: 1, removed: 1, changed: 2, compared: 5 });
    let back: Vec<Difference> = differences(&child, &parent).0;
    assert_eq!(back, [changed(5, true, &[]), added(7), changed(8, false, &["colour"]), removed(3000)]);

    // The parent goes on; siblings and cousins are compared through what they share.
    put(&parent, &[5], 10);
    parent.delete(&[1999]).expect("delete");
    let (found, report) = differences(&parent, &child);
    assert_eq!(
        found,
        [changed(5, true, &[]), removed(7), changed(8, false, &["colour"]), added(1999), added(3000)]
    );
    assert_eq!(report.compared, 6);
    let sibling = branch(&parent, &dir.path().join("s.rvf"));
    let cousin = branch(&child, &dir.path().join("cc.rvf"));
    cousin.delete(&[9]).expect("delete");
    let (found, report) = differences(&sibling, &cousin);
    assert_eq!(found.len(), 6, "{found:?}");
    assert_eq!(report.compared, 7);

    // A compaction parts the lineages; the answer is the same.
    let before = differences(&parent, &child).0;
    parent.compact(&NoProgress).expect("compact");
    let child = open(child.path());
    let (after, report) = differences(&parent, &child);
    assert_eq!(after, before);
    assert_eq!(report.compared, 2001);

    let mut first = None;
    let stopped = diff(&parent.view(), &child.view(), &mut |difference| {
        first = Some(difference);
        false
    });
    assert_eq!((first, stopped.expect("diff").changed), (Some(changed(5, true, &[])), 1));
}

#[test]
fn a_merge_brings_the_edits_over_at_once() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..0);
    let ids: Vec<u64> = (0..50).collect();
    let metadata = ids.iter().map(|_| field("colour", "red")).collect();
    parent.ingest(&Batch { metadata, ..batch(&ids, 1) }, &NoProgress).expect("ingest");
    let child = branch(&parent, &dir.path().join("c.rvf"));
    assert_eq!(child.merge_into(&parent).expect("merge").epoch, 1, "nothing to do, nothing written");

    put(&child, &[1, 100], 5);
    child
        .ingest(&Batch { metadata: vec![field("colour", "blue")], ..batch(&[101], 5) }, &NoProgress)
        .expect("ingest");
    child.delete(&[2, 3]).expect("delete");
    child.put_metadata(4, &vec![("size".to_owned(), Value::I64(7))]).expect("put");
    child.put_metadata(5, &Vec::new()).expect("put");
    // The parent meanwhile changes other ids, and deletes one that the child deleted as well.
    put(&parent, &[30, 200], 6);
    parent.delete(&[3, 31]).expect("delete");
    let epoch = parent.view().epoch();

    let report = child.merge_into(&parent).expect("merge");
    assert_eq!((report.added, report.removed, report.changed, report.already), (2, 1, 3, 1));
    assert_eq!((report.conflicts, report.epoch), (vec![], epoch + 1));
    for store in [&parent, &open(parent.path())] {
        let view = store.view();
        let expected: Vec<u64> =
            (0..50).filter(|id| ![2, 3, 31].contains(id)).chain([100, 101, 200]).collect();
        assert_eq!(ids_of(store), expected);
        assert_eq!(view.live(), expected.len() as u64);
        assert_eq!(view.fields(1), Some(field("colour", "red")));
        assert_eq!(view.fields(2), None);
        assert_eq!(view.fields(4), Some(vec![("size".to_owned(), Value::I64(7))]));
        assert_eq!(view.fields(5), None);
        assert_eq!(view.fields(101), Some(field("colour", "blue")));
        assert_eq!(view.status().health, "ok");
    }
    let left: Vec<u64> = differences(&parent, &child).0.iter().map(|d| d.id).collect();
    assert_eq!(left, [30, 31, 200], "only what the parent did for itself");
    let again = child.merge_into(&parent).expect("merge");
    assert_eq!((again.already, again.added + again.removed + again.changed, again.epoch), (7, 0, epoch + 1));
}

fn ids_of(store: &Store) -> Vec<u64> {
    ids(store)
}

#[test]
fn conflicts_are_reported_and_nothing_is_written() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..20);
    let child = branch(&parent, &dir.path().join("c.rvf"));
    put(&child, &[1, 2, 50, 51], 5);
    child.delete(&[3, 4]).expect("delete");
    put(&parent, &[1, 3, 50], 6);
    put(&parent, &[51], 5);
    parent.delete(&[2]).expect("delete");
    let before = std::fs::read(parent.path()).expect("read");
    let report = child.merge_into(&parent).expect("report");
    let vector = || Change::Changed { vector: true, fields: vec![] };
    let expected = [
        Conflict { id: 1, parent: vector(), branch: vector() },
        Conflict { id: 2, parent: Change::Removed, branch: vector() },
        Conflict { id: 3, parent: vector(), branch: Change::Removed },
        Conflict { id: 50, parent: Change::Added, branch: Change::Added },
    ];
    assert_eq!(report.conflicts, expected);
    assert_eq!(report.already, 1, "both stored the same 51");
    assert_eq!(std::fs::read(parent.path()).expect("read"), before);

    let other = create(&dir.path().join("o.rvf"), 0..20);
    assert!(matches!(child.merge_into(&other), Err(Error::Invalid { .. })));
    assert!(matches!(parent.merge_into(&child), Err(Error::Invalid { .. })));
    parent.freeze().expect("freeze");
    let fresh = branch(&parent, &dir.path().join("f.rvf"));
    put(&fresh, &[77], 1);
    assert!(matches!(fresh.merge_into(&parent), Err(Error::Frozen { .. })));
}

/// Once a parent was compacted, its branches stand on a hidden file. A merge into that was lost with it.
#[test]
fn a_merge_goes_into_the_parent_and_not_into_a_kept_state() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, 0..20);
    drop(branch(&parent, &dir.path().join("c.rvf")));
    parent.delete(&[3]).expect("delete");
    parent.compact(&NoProgress).expect("compact");
    let child = open(&dir.path().join("c.rvf"));
    put(&child, &[100], 5);
    let kept = child.view().parent_view().expect("a parent").path().to_path_buf();
    assert_ne!(kept, path);
    assert_eq!(child.view().parent_file(), Some(path.clone()));
    assert_eq!(parent.view().parent_file(), None);
    let before = std::fs::read(&kept).expect("read");
    assert!(matches!(child.merge_into(&open(&kept)), Err(Error::Invalid { .. })));
    assert_eq!(std::fs::read(&kept).expect("read"), before);

    let target = child.view().parent_file().expect("a parent");
    assert_eq!(child.merge_into(&open(&target)).expect("merge").added, 1);
    drop(child);
    std::fs::remove_file(dir.path().join("c.rvf")).expect("rm");
    let parent = open(&path);
    parent.compact(&NoProgress).expect("compact");
    assert!(!kept.exists());
    assert_eq!(ids(&parent), (0..20).filter(|id| *id != 3).chain([100]).collect::<Vec<_>>());
}

#[test]
fn a_branch_of_a_branch_folds_into_the_branch() {
    let dir = tempfile::tempdir().expect("dir");
    let root = create(&dir.path().join("r.rvf"), 0..20);
    let child = branch(&root, &dir.path().join("c.rvf"));
    put(&child, &[30], 2);
    let grandchild = branch(&child, &dir.path().join("g.rvf"));
    put(&grandchild, &[1, 30, 31], 3);
    grandchild.delete(&[2]).expect("delete");
    grandchild.put_metadata(5, &field("colour", "red")).expect("put");
    let report = grandchild.merge_into(&child).expect("merge");
    assert_eq!((report.added, report.removed, report.changed), (1, 1, 3));
    for store in [&child, &open(child.path())] {
        assert_eq!(ids(store), (0..20).filter(|id| *id != 2).chain([30, 31]).collect::<Vec<_>>());
        assert_eq!(store.view().fields(5), Some(field("colour", "red")));
        assert_eq!(differences(store, &grandchild).0, []);
    }
    assert_eq!(ids(&root), (0..20).collect::<Vec<_>>());
}

//! What is made of a store may be opened by those who may open the store, and by nobody else.

mod branches;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use branches::*;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rvf_cow::{BranchOptions, Derive, Map, NoProgress, Precision, ReindexOptions, Scratch, Store};

const ACCESS_LIST: &str = "system.posix_acl_access";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("chmod");
}

/// What this process forbids for every new file.
fn umask(dir: &Path) -> u32 {
    let path = dir.join("probe");
    File::create(&path).expect("a file");
    !mode(&path) & 0o666
}

/// Makes a child of every kind, and looks at each.
fn children(parent: &Store, dir: &Path, check: impl Fn(&Path)) {
    let index = ReindexOptions { m: 6, ef_construction: 40, threads: 1, ..ReindexOptions::default() };
    let map = Map { normalize: true, ..Map::default() };
    let other = create(&dir.join("other.rvf"), 500..510);
    set_mode(other.path(), 0o666);
    let kinds = [
        Derive::Clone,
        Derive::Snapshot,
        Derive::Filter("colour = 'red'"),
        Derive::Merge(&other),
        Derive::Quantize(Precision::F16),
        Derive::Quantize(Precision::Int8),
        Derive::Reindex(&index),
        Derive::Transform(&map),
    ];
    for (at, how) in kinds.iter().enumerate() {
        let path = dir.join(format!("child-{at}.rvf"));
        parent.derive(&path, "child", how, &NoProgress).expect("derive");
        check(&path);
        fs::remove_file(&path).expect("rm");
    }
    let path = dir.join("branch.rvf");
    parent.branch(&path, &BranchOptions::default()).expect("branch");
    check(&path);
    fs::remove_file(&path).expect("rm");
    let scratch = Scratch::new(&path).expect("a hidden file");
    assert_eq!(mode(scratch.path()), 0o600, "before anything is known of it");
    parent.branch_into(&scratch, &BranchOptions::default()).expect("branch");
    check(scratch.path());
    fs::remove_file(other.path()).expect("rm");
}

#[test]
fn children_have_the_mode_of_their_parent() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, 0..20);
    parent.put_metadata(3, &field("colour", "red")).expect("put");
    let allowed = !umask(dir.path());
    // A child is there to be written to, and is nothing to be executed.
    for (set, wanted) in [(0o600, 0o600), (0o640, 0o640), (0o644, 0o644), (0o444, 0o644), (0o775, 0o664)] {
        set_mode(&path, set);
        children(&parent, dir.path(), |child| {
            assert_eq!(mode(child), wanted & allowed | 0o600, "{set:o}: {}", child.display());
        });
    }
}

/// A copy of a branch holds what its ancestors hold, and a merge what the other store does.
#[test]
fn the_strictest_of_all_files_counts() {
    let dir = tempfile::tempdir().expect("dir");
    let parent = create(&dir.path().join("p.rvf"), 0..20);
    parent.put_metadata(3, &field("colour", "red")).expect("put");
    let child = branch(&parent, &dir.path().join("c.rvf"));
    set_mode(parent.path(), 0o600);
    set_mode(child.path(), 0o644);
    children(&child, dir.path(), |made| assert_eq!(mode(made), 0o600, "{}", made.display()));

    let (public, secret) =
        (create(&dir.path().join("public.rvf"), 0..5), create(&dir.path().join("s.rvf"), 9..12));
    set_mode(public.path(), 0o644);
    set_mode(secret.path(), 0o600);
    let merged = dir.path().join("merged.rvf");
    public.derive(&merged, "merged", &Derive::Merge(&secret), &NoProgress).expect("derive");
    assert_eq!((mode(&merged), ids(&open(&merged)).len()), (0o600, 8));
}

#[test]
fn owner_and_group_are_those_of_the_parent_or_the_group_gets_nothing() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, 0..20);
    parent.put_metadata(3, &field("colour", "red")).expect("put");
    if chown(&path, Some(1234), Some(2345)).is_err() {
        eprintln!("SKIPPED: only root gives files away");
        return;
    }
    let group = 0o640 & !umask(dir.path()) | 0o600;
    set_mode(&path, 0o640);
    let owners = |path: &Path| {
        let meta = fs::metadata(path).expect("stat");
        (meta.uid(), meta.gid(), meta.mode() & 0o7777)
    };
    let own = owners(&dir.path().join("probe"));
    children(&parent, dir.path(), |child| {
        // What is merged with another's store is neither's.
        let merged = child.ends_with("child-3.rvf");
        let wanted = if merged { (own.0, own.1, 0o600) } else { (1234, 2345, group) };
        assert_eq!(owners(child), wanted, "{}", child.display());
    });
    parent.compact(&NoProgress).expect("compact");
    assert_eq!(owners(&path), (1234, 2345, 0o640), "it is the same store");
}

/// An access control list makes of the group's bits an upper bound: without the list they would let the group in.
#[test]
fn a_list_is_carried_over_with_the_bits_that_bound_it() {
    let dir = tempfile::tempdir().expect("dir");
    let path = dir.path().join("p.rvf");
    let parent = create(&path, 0..20);
    parent.put_metadata(3, &field("colour", "red")).expect("put");
    // Version 2: owner rw, user 1234 r, group nothing, bound r, others nothing.
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, bits, id) in [(1, 6, !0), (2, 4, 1234), (4, 0, !0), (16, 4, !0), (32, 0, !0_u32)] {
        list.extend_from_slice(&u16::to_le_bytes(tag));
        list.extend_from_slice(&u16::to_le_bytes(bits));
        list.extend_from_slice(&id.to_le_bytes());
    }
    set_mode(&path, 0o600);
    if setxattr(&path, ACCESS_LIST, &list, XattrFlags::empty()).is_err() {
        eprintln!("SKIPPED: no access control lists in {}", dir.path().display());
        return;
    }
    assert_eq!(mode(&path), 0o640);
    let list_of = |path: &Path| {
        let mut bytes = [0; 256];
        getxattr(path, ACCESS_LIST, &mut bytes[..]).ok().map(|len| bytes[..len].to_vec())
    };
    children(&parent, dir.path(), |child| {
        // The other store of a merge has none.
        let wanted = if child.ends_with("child-3.rvf") { (0o600, None) } else { (0o640, Some(list.clone())) };
        assert_eq!((mode(child), list_of(child)), wanted, "{}", child.display());
    });
    parent.compact(&NoProgress).expect("compact");
    assert_eq!((mode(&path), list_of(&path)), (0o640, Some(list)));
}

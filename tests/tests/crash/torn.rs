//! Everything that is done with branches, cut off at every possible moment by a crash of the machine that loses, tears and
//! reorders what was not synced; on a disk that is full from any moment on; and on one where any single change fails.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};

use rvf_cow::Error;

use crate::family::{ACTS, Act, All, all, names, placed};
use crate::recorder::{Change, Disk, Fault, Files};

/// How many ways of losing things are tried at each moment.
const SEEDS: u64 = 24;

/// What the stores show before and after the act, and the names there are then.
fn around(act: &Act) -> (All, All, Vec<String>) {
    let place = placed(&act.files());
    let old = all(place.path());
    act.succeeds(place.path());
    let new = all(place.path());
    assert!(new["c.rvf"].as_ref().is_ok_and(|shown| shown.complete), "{}: {:?}", act.name, new["c.rvf"]);
    assert_eq!(old != new, act.visible, "{}", act.name);
    (old, new, names(place.path()))
}

/// A disk on which the act was done, with all changes that this took.
fn recorded(act: &Act) -> Disk {
    let disk = Disk::new(&act.files());
    disk.record();
    act.succeeds(disk.path());
    disk
}

/// Each store shows what it showed before or what it shall show, and there are no others.
fn old_or_new(found: &All, old: &All, new: &All, what: &str) {
    let names: HashSet<&String> = found.keys().chain(old.keys()).chain(new.keys()).collect();
    for name in names {
        let now = found.get(name);
        assert!(
            now == old.get(name) || now == new.get(name),
            "{what}: {name} is neither old nor new but\n{now:?}\nold {:?}\nnew {:?}",
            old.get(name),
            new.get(name)
        );
    }
}

fn fingerprint(files: &Files) -> u64 {
    let mut hasher = DefaultHasher::new();
    files.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn a_crash_at_any_moment_leaves_the_old_or_the_new() {
    if !Disk::possible() {
        return;
    }
    let (mut states, mut moments) = (0, 0);
    for act in ACTS {
        let (old, new, clean) = around(act);
        let images = recorded(act).moments();
        assert!(images.len() > 4, "{}: only {} moments", act.name, images.len());
        let mut seen = HashSet::new();
        for (moment, image) in images.iter().enumerate() {
            moments += 1;
            for seed in 0..SEEDS {
                let files = image.crashed(seed);
                let last = moment + 1 == images.len();
                // What was reported must be there however often the state was seen before.
                if !seen.insert(fingerprint(&files)) && !last {
                    continue;
                }
                states += 1;
                let what =
                    format!("{} after {moment} of {} changes, seed {seed}", act.name, images.len() - 1);
                let place = placed(&files);
                let found = all(place.path());
                old_or_new(&found, &old, &new, &what);
                if last {
                    assert_eq!(found, new, "{what}: it was reported as done");
                }
                // It goes on from there, and cleans up.
                if seed < 4 || seed % 5 == 0 {
                    act.is_done(place.path(), &what);
                    assert_eq!(all(place.path()), new, "{what}, done again");
                    rvf_cow::sweep(place.path());
                    assert_eq!(names(place.path()), clean, "{what}, done again");
                }
            }
        }
    }
    println!("{moments} moments, {states} states");
    assert!(states > 20 * ACTS.len());
}

#[test]
fn a_disk_that_is_full_from_any_moment_on_changes_nothing() {
    if !Disk::possible() {
        return;
    }
    let mut refused = 0;
    for act in ACTS {
        let (old, new, _) = around(act);
        let count = recorded(act).changes();
        for after in 0..count {
            let what = format!("{}: full after {after} of {count} changes", act.name);
            let disk = Disk::new(&act.files());
            let before = disk.names();
            disk.fail(Some(Fault::Full(after)));
            let result = (act.run)(disk.path());
            match result {
                Ok(()) => assert_eq!(all(disk.path()), new, "{what}, and it was reported as done"),
                Err(Error::NoSpace { .. }) => {
                    refused += 1;
                    assert_eq!(all(disk.path()), old, "{what}");
                    assert_eq!(disk.names(), before, "{what}: something stays behind");
                }
                Err(other) => panic!("{what}: {other}"),
            }
            disk.fail(None);
            act.is_done(disk.path(), &what);
            assert_eq!(all(disk.path()), new, "{what}, then there was space");
        }
    }
    assert!(refused > 3 * ACTS.len(), "{refused} were refused");
}

/// Links are made by most of what makes files. Where there are none, renames are; where those replace what is there, nothing is.
#[test]
fn without_hard_links_it_works_or_says_why() {
    if !Disk::possible() {
        return;
    }
    for act in ACTS {
        let (old, new, clean) = around(act);
        let makes = clean.contains(&"n.rvf".to_owned());
        let keeps = clean.iter().any(|name| name.ends_with(".pinned"));
        for exclusive_renames in [true, false] {
            let disk = Disk::new(&act.files());
            let before = disk.names();
            disk.without_links(exclusive_renames);
            let result = (act.run)(disk.path());
            if keeps || (makes && !exclusive_renames) {
                let error = result.expect_err(act.name);
                assert!(matches!(error, Error::Policy { .. }), "{}: {error}", act.name);
                let what = if keeps { "c.rvf" } else { "hard links" };
                assert!(error.to_string().contains(what), "{}: {error}", act.name);
                assert_eq!(all(disk.path()), old, "{}", act.name);
                assert_eq!(disk.names(), before, "{}", act.name);
                continue;
            }
            result.unwrap_or_else(|error| panic!("{}: {error}", act.name));
            assert_eq!(all(disk.path()), new, "{}", act.name);
            assert_eq!(disk.names(), clean, "{}", act.name);
            let again = (act.run)(disk.path());
            assert!(!makes || matches!(again, Err(Error::Exists { .. })), "{}: {again:?}", act.name);
            assert_eq!(all(disk.path()), new, "{}: done twice", act.name);
        }
    }
}

/// A hidden name that cannot be removed is no reason to report what was made as not made; it goes with the next sweep.
#[test]
fn a_hidden_name_that_stays_is_no_failure() {
    if !Disk::possible() {
        return;
    }
    let mut found = 0;
    for act in ACTS {
        let (_, new, clean) = around(act);
        let hidden = |change: &Change| matches!(change, Change::Unlink(name) if name.as_encoded_bytes().starts_with(b".pending-"));
        let Some(at) = recorded(act).log().iter().position(hidden) else { continue };
        found += 1;
        let disk = Disk::new(&act.files());
        disk.fail(Some(Fault::Once(at as u64)));
        act.succeeds(disk.path());
        assert_eq!(
            disk.names().len(),
            clean.len() + 1,
            "{}: the change that failed is another one",
            act.name
        );
        assert_eq!(all(disk.path()), new, "{}", act.name);
        rvf_cow::sweep(disk.path());
        assert_eq!(disk.names(), clean, "{}", act.name);
    }
    assert!(found > 5, "{found} have a hidden name");
}

#[test]
fn any_single_failure_leaves_the_old_or_the_new() {
    if !Disk::possible() {
        return;
    }
    for act in ACTS {
        let (old, new, _) = around(act);
        let count = recorded(act).changes();
        for at in 0..count {
            let what = format!("{}: change {at} of {count} failed", act.name);
            let disk = Disk::new(&act.files());
            disk.fail(Some(Fault::Once(at)));
            let result = (act.run)(disk.path());
            let found = all(disk.path());
            match &result {
                Ok(()) => assert_eq!(found, new, "{what}, and it was reported as done"),
                Err(_) => old_or_new(&found, &old, &new, &what),
            }
            disk.fail(None);
            act.is_done(disk.path(), &what);
            assert_eq!(all(disk.path()), new, "{what}, then it was done again");
        }
    }
}

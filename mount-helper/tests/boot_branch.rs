//! Booting the kernel of a branch: the files of its chain are the machine's drives. With a real kernel (see `boot.rs`), in the
//! emulator.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;
mod vm;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Place, ingest, open};
use rvf_cow::{BranchOptions, Store};
use vm::{Here, Machine, ask, embed, engine, here, steady};

/// Rows of every file of the chain are among the answers.
const QUERY: &[u8] = br#"{"vectors":[[3.3,0.2,1.5],[501,0,1],[601,0,1]],"k":5,"fields":["year"]}"#;
/// What is said of a machine that went on.
const WENT_ON: &str = "it goes on from the state";

fn branch(of: &Path, to: &Path) -> Arc<Store> {
    open(of).branch(to, &BranchOptions::default()).unwrap();
    open(to)
}

/// A branch with a kernel in it, of a branch of the place's store.
fn chain(here: &Here, place: &Place) -> (PathBuf, PathBuf) {
    let (parent, child) = (place.path("p.rvf"), place.path("c.rvf"));
    let p = branch(&place.store(), &parent);
    ingest(&p, &[500, 501, 502]);
    p.delete(&[120]).unwrap();
    let c = branch(&parent, &child);
    ingest(&c, &[502, 600]);
    c.delete(&[2, 500]).unwrap();
    embed(&c, &here.image, "");
    // What the ancestors got later is not shown.
    ingest(&place.open(), &[601]);
    ingest(&p, &[501]);
    (parent, child)
}

fn answer(machine: &mut Machine) -> serde_json::Value {
    let address = machine.address();
    steady(&ask(&address, "POST", "/query", QUERY))
}

fn run(here: &Here, place: &Place, store: &Path) -> (serde_json::Value, bool) {
    let mut machine = here.launch_store(place, store, &["-v"], &[]);
    let answer = answer(&mut machine);
    machine.signal("-INT");
    let (status, text) = machine.end();
    assert_eq!(status, Some(0), "{text}");
    (answer, text.contains(WENT_ON))
}

#[test]
fn a_branch_in_a_machine_answers_through_its_ancestors() {
    let Some(here) = here() else { return };
    let place = here.plain_place();
    let (parent, child) = chain(&here, &place);
    let view = open(&child).view();
    let expected = steady(&engine(&view, QUERY));
    let mut machine = here.launch_store(&place, &child, &[], &["--no-cache"]);
    let address = machine.address();
    assert_eq!(steady(&ask(&address, "POST", "/query", QUERY)), expected);
    for body in [&br#"{"id":150,"k":4,"exact":true}"#[..], br#"{"id":501,"filter":"year < 1950"}"#] {
        assert_eq!(steady(&ask(&address, "POST", "/query", body)), steady(&engine(&view, body)));
    }
    let status: serde_json::Value = serde_json::from_str(&ask(&address, "GET", "/status", b"")).unwrap();
    assert_eq!(status["vectors"], view.resolved().len());
    assert_eq!(status["inherited"], view.resolved().inherited());
    assert_eq!((&status["health"], &status["file_size"]), (&"ok".into(), &view.file_len().into()));
    drop(machine);

    // Of its state, kept or not, the files of all of them are a part.
    assert_eq!(run(&here, &place, &child), (expected.clone(), false));
    assert_eq!(run(&here, &place, &child), (expected.clone(), true));
    for ancestor in [place.store(), parent] {
        ingest(&open(&ancestor), &[9_000]);
        assert_eq!(run(&here, &place, &child), (expected.clone(), false), "{}", ancestor.display());
        assert_eq!(run(&here, &place, &child), (expected.clone(), true), "{}", ancestor.display());
    }
}

#[test]
fn a_branch_without_its_parent_is_not_booted() {
    let Some(here) = here() else { return };
    let place = here.plain_place();
    let (parent, child) = chain(&here, &place);
    let refused = |word: &str| {
        let (status, said) = here.launch_store(&place, &child, &[], &[]).end();
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("needs its parent") || said.contains("need its parent"), "{said}");
        assert!(said.contains(word), "{said}");
    };
    let away = place.path("away.rvf");
    fs::rename(place.store(), &away).unwrap();
    refused("a.rvf");
    fs::copy(&parent, place.store()).unwrap();
    refused("another file");
    fs::rename(&away, place.store()).unwrap();
    fs::rename(&parent, &away).unwrap();
    refused("p.rvf");
}

#[test]
fn a_chain_may_be_as_long_as_a_machine_has_places_for_drives() {
    let Some(here) = here() else { return };
    let place = here.plain_place();
    let at = |n: usize| match n {
        1 => place.store(),
        n => place.path(&format!("{n}.rvf")),
    };
    for n in 2..=24 {
        let store = branch(&at(n - 1), &at(n));
        ingest(&store, &[500 + n as u64]);
        if matches!(n, 8 | 23 | 24) {
            // Those that come after it stand on the state without the kernel.
            let with_kernel = branch(&at(n - 1), &place.path(&format!("{n}-kernel.rvf")));
            embed(&with_kernel, &here.image, "");
        }
    }
    let with_kernel = |n: usize| place.path(&format!("{n}-kernel.rvf"));
    for (n, more, others) in [(8, &["--devices", "cmdline"][..], "of 7 others"), (24, &[], "of 23 others")] {
        let (status, said) = here.launch_store(&place, &with_kernel(n), &[], more).end();
        assert_eq!(status, Some(126), "{said}");
        assert!(said.contains(others) && said.contains("rvf derive -t clone"), "{said}");
    }
    let expected = steady(&engine(&open(&with_kernel(23)).view(), QUERY));
    let mut machine = here.launch_store(&place, &with_kernel(23), &[], &["--no-cache"]);
    assert_eq!(answer(&mut machine), expected);
}

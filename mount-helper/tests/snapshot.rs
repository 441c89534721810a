//! A kernel that booted goes on from where its boot ended, the next time: with a real kernel (see `boot.rs`), in the emulator.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;
mod vm;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use common::{Place, ingest};
use rvf_format::checksum::sha256;
use vm::{Here, LONG, Machine, ask, engine, here, steady, wait_for_end_of};

const QUERY: &[u8] = br#"{"vectors":[[3.3,0.2,1.5],[0,0,0]],"k":3,"fields":["year"]}"#;
/// What is said of a machine that went on.
const WENT_ON: &str = "it goes on from the state";
/// What is said of a state that was not used.
const UNUSED: &str = "the state of an earlier boot is not used";

fn cache(place: &Place) -> PathBuf {
    place.path("cache/rvf/vm")
}

/// Files that have their names, and those that have not.
fn files(place: &Place) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let Ok(list) = fs::read_dir(cache(place)) else { return (Vec::new(), Vec::new()) };
    let all = list.map(|entry| entry.unwrap().path());
    all.partition(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'))
}

/// The only state.
fn state(place: &Place) -> PathBuf {
    let (named, pending) = files(place);
    assert_eq!((named.len(), pending.len()), (1, 0), "{named:?} {pending:?}");
    named[0].clone()
}

struct Said {
    answer: serde_json::Value,
    text: String,
}

impl Said {
    fn went_on(&self) -> bool {
        self.text.contains(WENT_ON)
    }
}

fn launch(here: &Here, place: &Place, more: &[&str]) -> Machine {
    here.launch(place, &["-v"], &[&["--memory", "128"], more].concat())
}

fn finish(mut machine: Machine) -> Said {
    let address = machine.address();
    let answer = steady(&ask(&address, "POST", "/query", QUERY));
    machine.signal("-INT");
    let (status, text) = machine.end();
    assert_eq!(status, Some(0), "{text}");
    Said { answer, text }
}

fn run(here: &Here, place: &Place, more: &[&str]) -> Said {
    finish(launch(here, place, more))
}

#[test]
fn a_machine_goes_on_where_its_boot_ended_and_answers_the_same() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "console=ttyS0");
    let expected = || steady(&engine(&place.open().view(), QUERY));
    let first = run(&here, &place, &["--no-cache"]);
    assert_eq!((&first.answer, first.went_on()), (&expected(), false));
    assert!(!cache(&place).exists(), "nothing is kept");

    let first = run(&here, &place, &[]);
    assert_eq!((&first.answer, first.went_on()), (&expected(), false), "{}", first.text);
    assert!(first.text.contains("its state is kept"), "{}", first.text);
    let path = state(&place);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(cache(&place)).unwrap().permissions().mode() & 0o7777, 0o700);
    let second = run(&here, &place, &[]);
    assert!(second.went_on() && second.text.contains("check 7 of 7"), "{}", second.text);
    assert_eq!(second.answer, first.answer);
    // Two at once, of the same state; and what is killed leaves nothing.
    let mut two = [launch(&here, &place, &[]), launch(&here, &place, &[])];
    for machine in &mut two {
        let address = machine.address();
        assert_eq!(steady(&ask(&address, "POST", "/query", QUERY)), first.answer);
    }
    for machine in two {
        let emulator = machine.emulator();
        machine.signal("-KILL");
        wait_for_end_of(emulator);
    }
    // What differs in anything is another machine.
    for more in [&["--memory", "192"][..], &["--vcpus", "2"]] {
        let other = run(&here, &place, more);
        assert!(!other.went_on() && other.answer == first.answer, "{more:?} {}", other.text);
    }
    assert_eq!(files(&place).0.len(), 3);
    assert!(run(&here, &place, &["--vcpus", "2"]).went_on());
    // And so is one with another state of the store.
    ingest(&place.open(), &[7_000]);
    let other = run(&here, &place, &[]);
    assert!(!other.went_on(), "{}", other.text);
    assert_eq!(other.answer, expected());
    let again = run(&here, &place, &[]);
    assert!(again.went_on() && again.answer == expected(), "{}", again.text);
}

#[test]
fn a_state_that_is_not_what_was_kept_is_not_used() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "");
    let first = run(&here, &place, &[]);
    let path = state(&place);
    let whole = fs::read(&path).unwrap();
    let (head, content) = whole.split_at(40);
    let kept_as = |content: &[u8]| [&head[..8], &sha256(content), content].concat();
    let flipped = {
        let mut bytes = whole.clone();
        bytes[whole.len() / 2] ^= 1;
        bytes
    };
    // The others have the right digest. The last one is well made, and it is QEMU that does not take it.
    let devices = [&4_u64.to_le_bytes()[..], b"none"].concat();
    let bad = [
        ("damaged", flipped),
        ("damaged", whole[..whole.len() - 1].to_vec()),
        ("damaged", Vec::new()),
        ("ends too early", kept_as(&content[..content.len() / 2])),
        ("too long", kept_as(b"no state of a machine at all")),
        ("outside of the memory", kept_as(&[&devices, &[0xFF; 32][..]].concat())),
        ("", kept_as(&devices)),
    ];
    for (n, (word, bytes)) in bad.iter().enumerate() {
        fs::write(&path, bytes).unwrap();
        let said = run(&here, &place, &[]);
        assert!(said.text.contains(UNUSED) && said.text.contains(word), "{n}: {}", said.text);
        assert_eq!((&said.answer, said.went_on()), (&first.answer, false), "{n}");
        assert_eq!(state(&place), path, "{n}: one that is good took its place");
    }
    assert!(run(&here, &place, &[]).went_on());

    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let said = run(&here, &place, &[]);
    assert!(said.text.contains(UNUSED) && said.text.contains("others may use it"), "{}", said.text);
    assert!(!said.went_on());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(state(&place), Some(12_345), None).unwrap();
        let said = run(&here, &place, &[]);
        assert!(said.text.contains(UNUSED) && said.text.contains("somebody else"), "{}", said.text);
        assert!(!said.went_on());
    }
    let kept = fs::read(state(&place)).unwrap();
    fs::set_permissions(cache(&place), fs::Permissions::from_mode(0o755)).unwrap();
    let said = run(&here, &place, &[]);
    assert!(said.text.contains("is not kept: ") && said.text.contains("others may use it"), "{}", said.text);
    assert_eq!((said.went_on(), said.answer), (false, first.answer));
    assert_eq!(fs::read(state(&place)).unwrap(), kept, "a place of others is left alone");
}

#[test]
fn whoever_is_killed_or_comes_second_leaves_a_whole_state_or_none() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "");
    // Two at once that both find none.
    let two = [launch(&here, &place, &[]), launch(&here, &place, &[])].map(finish);
    for said in &two {
        assert_eq!((&said.answer, said.went_on()), (&two[0].answer, false), "{}", said.text);
    }
    let path = state(&place);
    assert!(run(&here, &place, &[]).went_on());
    fs::remove_file(path).unwrap();
    // Killed while the state is being written.
    let machine = launch(&here, &place, &[]);
    let emulator = machine.emulator();
    let until = Instant::now() + LONG;
    while files(&place).1.is_empty() && files(&place).0.is_empty() {
        assert!(Instant::now() < until, "nothing is kept");
    }
    machine.signal("-KILL");
    wait_for_end_of(emulator);
    drop(machine);
    let (named, pending) = files(&place);
    assert!(named.is_empty() && pending.len() == 1, "it was killed before the end: {named:?} {pending:?}");
    let said = run(&here, &place, &[]);
    assert_eq!((&said.answer, said.went_on()), (&two[0].answer, false), "{}", said.text);
    // What was left of it goes in time.
    let left = files(&place).1.remove(0);
    let file = File::options().write(true).open(&left).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(100_000)).unwrap();
    fs::remove_file(files(&place).0.remove(0)).unwrap();
    assert!(!run(&here, &place, &[]).went_on());
    assert!(!left.exists());
    assert!(run(&here, &place, &[]).went_on());
}

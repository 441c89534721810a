//! Mapped files that are cut under the mapping: zeros and a flag, not a dead process.

use rvf_format::FileBytes;
use rvf_format::map::Advice;
use std::io::Write;

const PAGE: usize = 4096;

fn file(len: usize) -> std::fs::File {
    let mut file = tempfile::tempfile().expect("temporary file");
    file.write_all(&vec![7; len]).expect("contents");
    file
}

#[test]
fn a_cut_file_reads_as_zeros_and_is_flagged() {
    let file = file(64 * PAGE);
    let bytes = FileBytes::map(&file, 64 * PAGE as u64).expect("mapping");
    let other = FileBytes::map(&file, 2 * PAGE as u64).expect("mapping");
    assert!(bytes.is_mapped() && !bytes.is_poisoned());
    assert_eq!(bytes[63 * PAGE], 7);
    file.set_len(2 * PAGE as u64).expect("cut");
    assert_eq!(bytes[PAGE], 7, "what is left is still there");
    assert!(!bytes.is_poisoned());
    assert_eq!(bytes[40 * PAGE + 5], 0);
    assert!(bytes.is_poisoned());
    assert!(bytes.clone().is_poisoned(), "clones share the flag");
    assert!(bytes[2 * PAGE..].iter().all(|byte| *byte == 0));
    assert!(!other.is_poisoned(), "another mapping of the same file lost nothing");
    assert!(other.iter().all(|byte| *byte == 7));
    drop(bytes);
    // The slot is free again, and a new mapping starts clean.
    let again = FileBytes::map(&file, PAGE as u64).expect("mapping");
    assert!(!again.is_poisoned());
}

#[test]
fn many_threads_survive_the_same_cut() {
    let file = file(256 * PAGE);
    let bytes = FileBytes::map(&file, 256 * PAGE as u64).expect("mapping");
    file.set_len(0).expect("cut");
    std::thread::scope(|scope| {
        for start in 0..8 {
            let bytes = bytes.clone();
            scope.spawn(move || {
                let sum: u64 = (0..256).map(|i| u64::from(bytes[(i + start * 32) % 256 * PAGE])).sum();
                assert_eq!(sum, 0);
            });
        }
    });
    assert!(bytes.is_poisoned());
}

#[test]
fn lengths_are_checked_and_hints_never_fail() {
    let file = file(100);
    assert_eq!(FileBytes::map(&file, 101).expect_err("too long").kind(), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(FileBytes::read(&file, 101).expect_err("too long").kind(), std::io::ErrorKind::UnexpectedEof);
    assert!(FileBytes::map(&file, 0).expect("empty").is_empty());
    let bytes = FileBytes::map(&file, 100).expect("mapping");
    for advice in [Advice::WillNeed, Advice::Random, Advice::Sequential] {
        bytes.advise(0..u64::MAX, advice);
        bytes.advise(50..60, advice);
        bytes.advise(u64::MAX..u64::MAX, advice);
    }
    assert_eq!(&bytes[..], &FileBytes::read(&file, 100).expect("read")[..]);
    assert!(bytes.same(&bytes.clone()) && !bytes.same(&FileBytes::from_vec(vec![7; 100])));
}

#[test]
fn more_mappings_than_slots_fall_back_to_memory() {
    let file = file(10);
    let all: Vec<FileBytes> = (0..4100).map(|_| FileBytes::map(&file, 10).expect("bytes")).collect();
    assert!(all.iter().any(|bytes| !bytes.is_mapped()));
    assert!(all.iter().all(|bytes| bytes[..] == [7; 10]));
}

/// A fault outside of every registered mapping still ends the process: the handler does not hide other bugs.
#[test]
#[expect(unsafe_code, reason = "only an unguarded mapping can fault outside of the guarded ones")]
fn faults_elsewhere_are_passed_on() {
    const CHILD: &str = "RVF_TEST_FAULT_ELSEWHERE";
    if std::env::var_os(CHILD).is_some() {
        let file = file(2 * PAGE);
        // Registered, so that the handler is installed; the other mapping is not.
        let _guarded = FileBytes::map(&file, 10).expect("mapping");
        // SAFETY: nobody else changes this temporary file; the read below is meant to fault.
        let bare = unsafe { memmap2::Mmap::map(&file) }.expect("mapping");
        file.set_len(0).expect("cut");
        std::process::exit(i32::from(std::hint::black_box(bare[PAGE])));
    }
    let this = std::env::current_exe().expect("test program");
    let status = std::process::Command::new(this)
        .args(["--exact", "faults_elsewhere_are_passed_on"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .expect("child");
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status:?}");
}

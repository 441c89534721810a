//! The life of a mount: what `rvf-mount` refuses, how it starts, how it ends, and what a killed daemon leaves.

mod mounted;

use std::fs;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use mounted::{Mounted, errno, make_store, npy, open_store, run_ok, rvf_mount, umount, wait_until};

/// Runs `rvf-mount` in the background mode and gives what it says.
fn mount(source: &Path, at: &Path, options: &[&str]) -> Output {
    rvf_mount().args(options).arg(source).arg(at).output().expect("rvf-mount runs")
}

fn is_mounted(at: &Path) -> bool {
    let at = at.canonicalize().unwrap_or_else(|_| at.to_path_buf());
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    mounts.lines().any(|line| line.split(' ').nth(1) == at.to_str())
}

fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
    assert!(text.starts_with("rvf-mount: "), "{text}");
    text
}

#[test]
fn what_cannot_be_mounted_is_refused_in_one_line() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("mnt");
    fs::create_dir(&at).expect("a mountpoint");
    let good = dir.path().join("good.rvf");
    drop(make_store(&good, 1));
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path
    };
    let fifo = dir.path().join("fifo.rvf");
    run_ok("mkfifo", [&fifo]);
    let noise: Vec<u8> = (0..5000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let cases = [
        (dir.path().join("missing.rvf"), at.clone(), "no such file or directory"),
        (fifo, at.clone(), "is a FIFO"),
        (file("empty.rvf", b""), at.clone(), "not a usable RVF file"),
        (file("noise.rvf", &noise), at.clone(), "not a usable RVF file"),
        ("/dev/null".into(), at.clone(), "is a device"),
        (good.clone(), dir.path().join("nowhere"), "no such directory; make it first"),
        (good.clone(), good.clone(), "not a directory"),
        (good.clone(), dir.path().to_path_buf(), "lies inside the mountpoint"),
    ];
    for (source, at, want) in cases {
        for option in [None, Some("--foreground")] {
            let output = mount(&source, &at, option.as_slice());
            let line = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(line.contains(want), "{}: {line}", source.display());
            assert_eq!(output.status.code(), Some(1), "{}", source.display());
            assert!(!is_mounted(&at));
            assert!(option.is_some() || one_line(&output) == line);
        }
    }
    let output = mount(&good, &at, &["-o", "frob"]);
    assert!(one_line(&output).contains("-o frob: unknown option"));
    assert!(one_line(&mount(&good, &at, &["-o", "remount,ro"])).contains("a mount cannot be changed"));
    assert_eq!(mount(&good, &at, &["--frob"]).status.code(), Some(2));
    assert!(!is_mounted(&at));
}

#[test]
fn the_command_returns_when_the_mount_is_ready_and_umount_ends_it() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("a,b.rvf");
    drop(make_store(&source, 3));
    let at = dir.path().join("mnt");
    fs::create_dir(&at).expect("a mountpoint");
    for _ in 0..5 {
        let output = mount(&source, &at, &["-o", "rw,nofail,noatime,dev,suid,x-test"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(fs::read_to_string(at.join("status")).expect("at once").contains("vectors: 3\n"));
        umount(&at);
        assert!(!is_mounted(&at));
        wait_until("the daemon let the file go", || open_store(&source).delete(&[77]).is_ok());
    }
    let mounts = || fs::read_to_string("/proc/self/mounts").expect("mounts");
    assert!(mount(&source, &at, &[]).status.success());
    assert!(mounts().contains(" fuse.rvf "), "{}", mounts());
    umount(&at);
    assert!(mount(&source, &at, &["--no-subtype", "-o", "fsname=mine"]).status.success());
    assert!(mounts().contains(&format!("mine {} fuse ", at.display())), "{}", mounts());
    umount(&at);
    // `$(...)` waits until the daemon has let go of standard output.
    let text = run_ok(
        "bash",
        [
            "-c".as_ref(),
            "echo \"got $(\"$0\" \"$1\" \"$2\")\"; umount \"$2\"".as_ref(),
            Path::new(env!("CARGO_BIN_EXE_rvf-mount")),
            &source,
            &at,
        ],
    );
    assert_eq!(text, "got \n");
}

#[test]
fn a_store_is_not_mounted_over_another() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let (source, at) = (dir.path().join("a.rvf"), dir.path().join("my mnt"));
    drop(make_store(&source, 3));
    fs::create_dir(&at).expect("a mountpoint");
    assert!(mount(&source, &at, &[]).status.success());
    for again in [at.clone(), at.join("vectors/..")] {
        let output = mount(&source, &again, &["--read-only"]);
        assert!(one_line(&output).contains("a store is mounted there already; unmount it first"));
    }
    umount(&at);
    assert!(!is_mounted(&at), "there was one mount");
}

/// Only where it was asked for, and then when the mount is made: the entries themselves say nothing before they are run.
#[test]
fn entries_that_cannot_be_executed_are_warned_of() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let (source, at, tools) = (dir.path().join("a.rvf"), dir.path().join("mnt"), dir.path().join("my tools"));
    drop(make_store(&source, 3));
    fs::create_dir(&at).expect("a mountpoint");
    fs::create_dir(&tools).expect("a directory");
    let program = tools.join("rvf-mount");
    fs::copy(env!("CARGO_BIN_EXE_rvf-mount"), &program).expect("the program");
    fs::write(tools.join("rvf-exec"), "").expect("a file");
    for (options, warned) in [("exec", true), ("ro", false)] {
        let output =
            Command::new(&program).args(["-o", options]).args([&source, &at]).output().expect("it runs");
        assert!(output.status.success());
        umount(&at);
        if warned {
            let line = one_line(&output);
            assert!(
                line.contains("warning") && line.contains("blank") && line.contains("my tools"),
                "{line}"
            );
        } else {
            assert!(output.stderr.is_empty());
        }
    }
}

#[test]
fn an_error_file_keeps_the_last_refusal_and_its_time() {
    need_fuse!();
    let m = Mounted::new(3);
    let time = |name: &str| fs::metadata(m.path(name)).expect("stat").modified().expect("a time");
    let before = std::time::SystemTime::now();
    assert!(m.write("vectors/x", "1,2,3,4\n").is_err());
    let after = std::time::SystemTime::now();
    let refused = time("vectors/error");
    assert!(before <= refused && refused <= after, "{before:?} {refused:?} {after:?}");
    let why = m.read("vectors/error");
    m.write("vectors/7", "1,2,3,4\n").expect("a good one");
    assert_eq!((m.read("vectors/error"), time("vectors/error"), time("error")), (why, refused, refused));
    fs::remove_file(m.path("vectors/error")).expect("removed");
    assert_eq!(m.read("vectors/error"), "");
}

#[test]
fn signals_end_a_mount_cleanly_even_when_it_is_busy() {
    need_fuse!();
    for signal in ["-TERM", "-INT", "-HUP"] {
        let mut m = Mounted::new(3);
        m.signal(signal);
        assert_eq!(m.wait().code(), Some(0), "{signal}");
        assert!(!is_mounted(&m.at), "{signal}");
    }
    let mut m = Mounted::new(3);
    let mut open = fs::File::open(m.path("status")).expect("opens");
    m.signal("-TERM");
    assert_eq!(m.wait().code(), Some(0));
    assert!(!is_mounted(&m.at));
    let mut text = String::new();
    assert!(open.read_to_string(&mut text).is_err(), "the descriptor is dead");
}

#[test]
fn an_open_file_keeps_a_mount_busy_and_lazy_unmounting_waits_for_it() {
    need_fuse!();
    let mut m = Mounted::new(3);
    let mut open = fs::File::open(m.path("status")).expect("opens");
    assert!(
        !Command::new("umount").arg(&m.at).stderr(Stdio::null()).status().expect("umount runs").success()
    );
    run_ok("umount", [Path::new("-l"), &m.at]);
    let mut text = String::new();
    open.read_to_string(&mut text).expect("still served");
    assert!(text.contains("vectors: 3"));
    drop(open);
    assert_eq!(m.wait().code(), Some(0));
}

#[test]
fn a_mountpoint_left_by_a_killed_daemon_is_replaced() {
    need_fuse!();
    let mut m = Mounted::new(3);
    m.write("vectors/7", "1,2,3,4\n").expect("a write");
    m.signal("-KILL");
    assert_eq!(m.wait().code(), None);
    assert_eq!(errno(fs::read(m.path("status"))), libc::ENOTCONN);
    m.remount(&[]);
    assert_eq!(m.status("vectors"), "4", "what close() confirmed is there");
    assert_eq!(m.unmount().code(), Some(0));
}

#[test]
fn killing_the_daemon_while_data_comes_in_loses_nothing_and_leaves_no_half() {
    need_fuse!();
    let mut m = Mounted::new(0);
    let mut confirmed = 0_u64;
    for round in 0..30_u64 {
        let batch = vec![[round as f32; mounted::DIM]; 50];
        let data = npy(&batch);
        let delay = std::time::Duration::from_micros(300 * round);
        let pid = m.pid();
        let ok = std::thread::scope(|scope| {
            let killer = scope.spawn(move || {
                // Another moment each round; where exactly it strikes does not matter.
                std::thread::sleep(delay);
                run_ok("kill", ["-KILL", &pid.to_string()]);
            });
            let result = m.write(&format!("ingest/r{round}.npy"), &data);
            killer.join().expect("no panic");
            result.is_ok()
        });
        m.wait();
        if ok {
            confirmed += 1;
        }
        m.remount(&[]);
        let vectors: u64 = m.status("vectors").parse().expect("a number");
        assert_eq!(vectors % 50, 0, "a batch is whole or not there");
        assert!(vectors >= confirmed * 50, "round {round}: {confirmed} confirmed, {vectors} vectors");
        confirmed = vectors / 50;
        // A commit that was cut short is said, and is no damage.
        let status = m.read("status");
        let cut = m.status("health") == "warnings (1)" && status.contains("an interrupted write ends here");
        assert!(m.status("health") == "ok" || cut, "{status}");
    }
}

#[test]
fn a_damaged_store_mounts_and_says_so() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("damaged.rvf");
    drop(make_store(&source, 5));
    open_store(&source).delete(&[0]).expect("a delete");
    let mut bytes = fs::read(&source).expect("the store");
    // One bit of the second vector segment's place: the first VEC payload, which starts after manifest and header.
    bytes[192 + 64 + 20] ^= 1;
    fs::write(&source, &bytes).expect("written");
    let m = Mounted::mount(dir, source, &[]);
    assert_ne!(m.status("health"), "ok");
    assert!(m.read("segments/000002-vec/header").contains("checksum: BAD\n"));
    assert_eq!(m.sh("cat segments/*/raw").stdout, bytes);
    assert_eq!(errno(m.write("ctl", "verify\n")), libc::EBADMSG);
    assert!(m.read("error").contains("000002-vec"));
}

/// What is left of a truncated file is not shown as if it were whole.
#[test]
fn a_store_that_is_truncated_or_removed_says_so() {
    need_fuse!();
    let m = Mounted::new(500);
    assert_eq!(m.status("health"), "ok");
    fs::File::options().write(true).open(&m.source).expect("opens").set_len(0).expect("truncated");
    assert!(m.status("health").starts_with("truncated by another program: 0 of "), "{}", m.status("health"));
    let listed = fs::read_dir(m.path("vectors")).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    assert_eq!(errno(listed), libc::EUCLEAN);
    fs::remove_file(&m.source).expect("removed");
    assert!(m.status("health").contains("by another program"), "{}", m.status("health"));
}

#[test]
fn killing_a_reader_always_works() {
    need_fuse!();
    let m = Mounted::new(2000);
    for name in ["events", "query/out", "query/in", "ctl", "vectors.npy", "error"] {
        let mut child = Command::new("tail")
            .arg("-f")
            .arg(m.path(name))
            .stdout(Stdio::null())
            .spawn()
            .expect("tail runs");
        child.kill().expect("killed");
        wait_until("the reader is gone", || child.try_wait().expect("a child").is_some());
    }
}

#[test]
fn tail_follows_events() {
    need_fuse!();
    let m = Mounted::new(3);
    let mut child = Command::new("tail")
        .args(["-n", "+1", "-s", "0.05", "-f"])
        .arg(m.path("events"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("tail runs");
    m.write("vectors/7", "1,2,3,4\n").expect("a write");
    m.sh_ok("rm vectors/7");
    let mut text = Vec::new();
    let mut out = child.stdout.take().expect("a pipe");
    while text.iter().filter(|byte| **byte == b'\n').count() < 2 {
        let mut buffer = [0; 4096];
        let len = out.read(&mut buffer).expect("reads");
        assert!(len > 0);
        text.extend_from_slice(&buffer[..len]);
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
    let text = String::from_utf8(text).expect("UTF-8");
    assert!(text.contains("\"event\": \"ingest\"") && text.contains("\"event\": \"delete\""), "{text}");
}

#[test]
fn logs_go_where_they_are_sent() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("a.rvf");
    drop(make_store(&source, 3));
    let (at, log) = (dir.path().join("mnt"), dir.path().join("log"));
    fs::create_dir(&at).expect("a mountpoint");
    let output = rvf_mount()
        .args(["--log-format", "json", "--log-file"])
        .args([&log, &source, &at])
        .output()
        .expect("it runs");
    assert!(output.status.success());
    assert!(mounted::write_file(&at.join("vectors/x"), b"1").is_err());
    umount(&at);
    wait_until("the end is logged", || fs::read_to_string(&log).is_ok_and(|text| text.contains("unmounted")));
    let text = fs::read_to_string(&log).expect("a log");
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect("a JSON line");
    }
    assert!(text.contains("refused: x: a name in vectors/ is a vector id"), "{text}");
}

#[test]
fn files_are_read_alike_with_and_without_passthrough_and_mapping() {
    need_fuse!();
    for options in [&["--no-passthrough"][..], &["--no-mmap"], &["--threads", "1"], &["--threads", "4"]] {
        let m = Mounted::with(3000, options);
        let whole = fs::read(&m.source).expect("the store");
        assert_eq!(m.bytes("file.rvf"), whole, "{options:?}");
        assert_eq!(m.sh("cat segments/*/raw").stdout, whole, "{options:?}");
        let one = fs::File::open(m.path("file.rvf")).expect("opens");
        let two = fs::File::open(m.path("file.rvf")).expect("opens");
        let mut piece = [0; 100];
        one.read_exact_at(&mut piece, 1000).expect("reads");
        drop(one);
        two.read_exact_at(&mut piece, 1000).expect("reads");
        assert_eq!(piece[..], whole[1000..1100]);
        m.write("query/in", "7,1,0,0\n").expect("a request");
        assert!(m.read("query/out").starts_with("70\t0.0\n"));
    }
}

#[test]
fn a_full_disk_is_no_space_and_changes_nothing() {
    need_fuse!();
    let dir = tempfile::tempdir().expect("a directory");
    let small = dir.path().join("small");
    fs::create_dir(&small).expect("a directory");
    let tmpfs = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
        .arg(&small)
        .stderr(Stdio::null())
        .status();
    if !tmpfs.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os("RVF_REQUIRE_FUSE").is_none(), "cannot mount a tmpfs");
        eprintln!("SKIPPED: a small filesystem cannot be mounted here");
        return;
    }
    let source = small.join("store.rvf");
    drop(make_store(&source, 3));
    {
        let m = Mounted::mount(dir, source.clone(), &[]);
        let big = npy(&vec![[1.0; mounted::DIM]; 20_000]);
        assert_eq!(errno(m.write("ingest/big.npy", &big)), libc::ENOSPC);
        assert!(m.read("error").contains("no space left"), "{}", m.read("error"));
        assert_eq!(m.status("vectors"), "3");
        assert_eq!(m.list("ingest"), ["error"]);
        m.write("vectors/7", "1,2,3,4\n").expect("a small one still fits");
        assert_eq!(m.status("vectors"), "4");
        assert_eq!(open_store(&source).view().live(), 4);
        drop(Command::new("umount").arg("-l").arg(&small).status());
    }
}

#[test]
fn mount_t_rvf_works_with_the_helper() {
    need_fuse!();
    let helper = Path::new(env!("CARGO_BIN_EXE_rvf-mount")).with_file_name("mount-rvf");
    if !helper.exists() {
        eprintln!("SKIPPED: {} is not built (cargo build -p rvf-mount-helper)", helper.display());
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("a.rvf");
    drop(make_store(&source, 3));
    let at = dir.path().join("mnt");
    fs::create_dir(&at).expect("a mountpoint");
    run_ok(
        helper.to_str().expect("UTF-8"),
        [source.as_os_str(), at.as_os_str(), "-o".as_ref(), "ro,nofail".as_ref()],
    );
    assert_eq!(errno(mounted::write_file(&at.join("vectors/7"), b"1,2,3,4")), libc::EROFS);
    umount(&at);
}

//! What a confined process can still do, tried in processes of one thread: so this test has no harness.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use rvf_mount_helper::child::{self, End};
use rvf_mount_helper::confine::{Argument, Calls, Confinement, Limits, NOBODY, Network};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn end(confinement: &Confinement, work: impl FnOnce() -> u8) -> End {
    child::run(confinement, LONG, |_| (), work).unwrap()
}

/// Runs `work` confined; it says whether all is as it should be.
fn holds(confinement: &Confinement, work: impl FnOnce() -> bool) -> bool {
    end(confinement, || u8::from(!work())) == End::Exited(0)
}

fn denied<T>(result: std::io::Result<T>) -> bool {
    result.is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}

fn everybody() -> Confinement {
    Confinement {
        user: rustix::process::geteuid().is_root().then_some((NOBODY, NOBODY)),
        ..Confinement::default()
    }
}

fn files_are_out_of_reach(dir: &Path) -> bool {
    let file = dir.join("file");
    fs::write(&file, "text").unwrap();
    let nothing = everybody();
    let none = holds(&nothing, || {
        denied(fs::read("/etc/passwd"))
            && denied(fs::read(dir.join("file")))
            && denied(fs::write(dir.join("new"), ""))
            && denied(fs::read_dir("/"))
            && std::process::Command::new("/bin/true").status().is_err()
    });
    let reading = Confinement { read: vec![dir.to_path_buf()], ..everybody() };
    let read = holds(&reading, || {
        fs::read(dir.join("file")).unwrap() == b"text"
            && denied(fs::write(dir.join("file"), ""))
            && denied(fs::remove_file(dir.join("file")))
            && denied(fs::read("/etc/passwd"))
    });
    let one = Confinement { read: vec![file.clone()], ..everybody() };
    let only = holds(&one, || fs::read(&file).is_ok() && denied(fs::read_dir(dir)));
    let writing = Confinement { write: vec![dir.to_path_buf()], ..everybody() };
    let written = holds(&writing, || {
        fs::write(dir.join("new"), "x").is_ok() && fs::remove_file(dir.join("new")).is_ok()
    });
    none && read && only && written && file.exists()
}

fn nobody_is_reached_by_tcp(_: &Path) -> bool {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let none = holds(&everybody(), || denied(TcpStream::connect(address)) && denied(TcpListener::bind(free)));
    let listening = Confinement { network: Network::Listen(vec![free.port()]), ..everybody() };
    let listen = holds(&listening, || {
        TcpListener::bind(free).is_ok()
            && denied(TcpListener::bind(other))
            && denied(TcpStream::connect(address))
    });
    let any = Confinement { network: Network::Any, ..everybody() };
    none && listen && holds(&any, || TcpStream::connect(address).is_ok())
}

fn status(key: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim().to_owned()
}

fn rights_are_gone(_: &Path) -> bool {
    let proc = PathBuf::from("/proc");
    let confinement = Confinement { read: vec![proc], ..everybody() };
    holds(&confinement, || {
        let none =
            ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"].iter().all(|set| status(set) == "0000000000000000");
        let bounding = !root_was() || status("CapBnd:") == "0000000000000000";
        let user = !root_was() || (status("Uid:").starts_with("65534") && status("Groups:").is_empty());
        none && bounding && user && status("NoNewPrivs:") == "1" && status("Seccomp:") == "2"
    })
}

/// Root before it became nobody: only then there was something to lose.
fn root_was() -> bool {
    status("Uid:").starts_with("65534")
}

fn calls_that_are_not_listed_end_it(_: &Path) -> bool {
    let few = vec![
        libc::SYS_exit_group,
        libc::SYS_write,
        libc::SYS_close,
        libc::SYS_munmap,
        libc::SYS_brk,
        libc::SYS_mmap,
    ];
    let only = Confinement { calls: Calls::Only(few.clone()), ..everybody() };
    let killed = end(&only, || u8::from(fs::read("/etc/passwd").is_ok())) == End::Killed(libc::SIGSYS);
    let quiet = end(&only, || 7) == End::Exited(7);
    let but = Confinement { calls: Calls::AllBut(vec![libc::SYS_getcwd]), ..everybody() };
    // One call, with one of its arguments: asking whether the end of a pipe is there to be written to.
    let asking = vec![(libc::SYS_fcntl, Argument { index: 1, value: libc::F_GETFL as u32 })];
    let one = Confinement { calls: Calls::OnlyAnd(few, asking), ..everybody() };
    let asked = end(&one, || u8::from(rustix::fs::fcntl_getfl(std::io::stdout()).is_err())) == End::Exited(0);
    let other = end(&one, || u8::from(rustix::io::fcntl_getfd(std::io::stdout()).is_err()));
    let killed = killed && other == End::Killed(libc::SIGSYS);
    killed && quiet && asked && holds(&but, || denied(std::env::current_dir()))
}

fn limits_hold(dir: &Path) -> bool {
    let some = |limits| Confinement { limits, write: vec![dir.to_path_buf()], ..everybody() };
    let data = some(Limits { data: Some(64 << 20), ..Limits::default() });
    let memory = holds(&data, || Vec::<u8>::new().try_reserve_exact(256 << 20).is_err());
    let cpu = some(Limits { cpu_seconds: Some(1), ..Limits::default() });
    let time = end(&cpu, || {
        loop {
            std::hint::spin_loop();
        }
    });
    let files = some(Limits { files: Some(3), ..Limits::default() });
    let opened = holds(&files, || fs::File::create(dir.join("more")).is_err());
    memory && matches!(time, End::Killed(libc::SIGKILL | libc::SIGXCPU)) && opened
}

fn time_is_up(_: &Path) -> bool {
    let start = Instant::now();
    let done = child::run(
        &everybody(),
        Duration::from_millis(200),
        |_| (),
        || loop {
            std::hint::spin_loop();
        },
    );
    done.unwrap() == End::TimedOut && start.elapsed() < LONG
}

fn a_panic_is_an_end(_: &Path) -> bool {
    end(&everybody(), || panic!("on purpose")) == End::Exited(101)
}

fn what_cannot_be_done_is_no_confinement(dir: &Path) -> bool {
    let missing = Confinement { read: vec![dir.join("nothing")], ..everybody() };
    let first = end(&missing, || 0) == End::Exited(127);
    let no_user = Confinement { user: Some((0, 0)), ..Confinement::default() };
    let second = end(&no_user, || 0) == End::Exited(127);
    // A thread that would stay outside.
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv().is_err());
    let third =
        child::run(&everybody(), LONG, |_| (), || 0).is_err() && Confinement::default().apply().is_err();
    drop(sender);
    first && second && third && thread.join().unwrap()
}

/// The parent is killed while the child runs; the child must not outlive it.
fn a_child_dies_with_its_parent(dir: &Path) -> bool {
    let note = dir.join("pid");
    let writable =
        Confinement { write: vec![dir.to_path_buf()], read: vec!["/proc".into()], ..Confinement::default() };
    // A middle process, which is killed by its time being up while its own child still runs.
    let open = Confinement {
        calls: Calls::Any,
        write: vec![dir.to_path_buf(), "/proc".into()],
        ..Confinement::default()
    };
    let done = child::run(
        &open,
        Duration::from_millis(700),
        |_| (),
        || {
            let inner = child::run(
                &writable,
                LONG,
                |_| (),
                || {
                    fs::write(&note, fs::read_link("/proc/self").unwrap().to_str().unwrap()).unwrap();
                    loop {
                        std::hint::spin_loop();
                    }
                },
            );
            u8::from(inner.is_err())
        },
    );
    let pid = fs::read_to_string(&note).unwrap_or_default();
    let gone = || fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "));
    let since = Instant::now();
    while !gone() && since.elapsed() < LONG {
        std::thread::sleep(Duration::from_millis(10));
    }
    done.unwrap() == End::TimedOut && !pid.is_empty() && gone()
}

type Test = (&'static str, fn(&Path) -> bool);

fn main() {
    let tests: [Test; 10] = [
        ("files_are_out_of_reach", files_are_out_of_reach),
        ("nobody_is_reached_by_tcp", nobody_is_reached_by_tcp),
        ("rights_are_gone", rights_are_gone),
        ("calls_that_are_not_listed_end_it", calls_that_are_not_listed_end_it),
        ("limits_hold", limits_hold),
        ("time_is_up", time_is_up),
        ("a_panic_is_an_end", a_panic_is_an_end),
        ("what_cannot_be_done_is_no_confinement", what_cannot_be_done_is_no_confinement),
        ("a_child_dies_with_its_parent", a_child_dies_with_its_parent),
        ("descriptors_stay_open", descriptors_stay_open),
    ];
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let (mut passed, mut failed, mut left_out) = (0, 0, 0);
    println!("\nrunning {} tests", tests.len());
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            left_out += 1;
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        // Nobody, too, must get there.
        fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let good = test(dir.path());
        println!("test {name} ... {}", if good { "ok" } else { "FAILED" });
        if good { passed += 1 } else { failed += 1 }
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {left_out} filtered out\n"
    );
    std::process::exit(i32::from(failed > 0));
}

/// What was open before stays usable: that is how a child gets its input.
fn descriptors_stay_open(dir: &Path) -> bool {
    let path = dir.join("open");
    fs::write(&path, "before").unwrap();
    let file = fs::File::open(&path).unwrap();
    holds(&everybody(), || {
        let mut text = [0; 6];
        let read = std::os::unix::fs::FileExt::read_at(&file, &mut text, 0).unwrap();
        read == 6 && &text == b"before" && denied(fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())))
    })
}

//! `ctl`: when a line that was written to it is run.

mod mounted;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use mounted::{Mounted, close, errno, wait_until};

/// A program that was started between two pieces of a line closed its copy of the descriptor, and the first piece was run.
#[test]
fn a_line_is_run_when_it_is_whole() {
    need_fuse!();
    let m = Mounted::new(20);
    let gone = |id: u32| !m.path(&format!("vectors/{id}")).exists();
    // `delete 1` is a verb too, and so is `delete 10`.
    for script in [
        "{ printf 'delete 1'; /bin/true; printf '00\\n'; } > ctl",
        "( printf 'delete 1'; /bin/true; printf '10\\n' ) > ctl",
        "exec 3> ctl; ( printf 'delete 1' >&3; /bin/true; printf '20' >&3; /bin/true ); ( /bin/true ); exec 3>&-",
    ] {
        m.sh_ok(script);
    }
    assert!(gone(100) && gone(110) && gone(120) && !gone(10));
    assert_eq!(m.status("vectors"), "17");
    assert_eq!(m.read("error"), "");
    // Without its end, it is run by the close that leaves nobody to write more, which also tells what is wrong with it.
    let file = fs::File::options().write(true).open(m.path("ctl")).expect("open");
    let copy = file.try_clone().expect("a copy");
    (&file).write_all(b"delete 13").expect("written");
    close(copy).expect("not the last");
    assert!(!gone(130));
    (&file).write_all(b"0").expect("written");
    close(file).expect("the last");
    assert!(gone(130));
    assert_eq!(errno(m.write("ctl", "delete 1")), libc::EINVAL);
    // Where the process has another descriptor of the file, nobody can tell which close is the last, but the kernel.
    let other = fs::File::options().write(true).open(m.path("ctl")).expect("open");
    m.write("ctl", "delete 140").expect("written");
    wait_until("it is run", || gone(140));
    drop(other);
}

/// Whoever opened the file may close it before those it was opened for have written all of a line.
#[test]
fn a_line_is_not_run_while_its_writer_is_at_it() {
    need_fuse!();
    let m = Mounted::new(20);
    let script = "p=$(mktemp -d); mkfifo $p/a $p/b; exec 3> $1
        ( printf \"$2\" >&3; echo > $p/a; read -r x < $p/b; printf \"$3\" >&3 ) &
        read -r x < $p/a; exec 3>&-; echo > $p/b; wait $!; rm -r $p";
    let shared = |file: &str, first: &str, second: &str| {
        let output = Command::new("bash")
            .args(["-c", script, "bash", file, first, second])
            .current_dir(&m.at)
            .output()
            .expect("bash");
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    };
    shared("ctl", "delete 1", "50\n");
    assert!(!m.path("vectors/150").exists());
    // Nor is half a file taken.
    shared("ingest/a.csv", "id,v0,v1,v2,v3\n1,0,0,0,1\n2,0,0", ",0,1\n");
    wait_until("it is taken", || m.status("vectors") == "21");
    assert_eq!(m.read("error"), "");
}

/// What a killed writer had meant to write is not known.
#[test]
fn half_a_line_of_a_killed_writer_is_not_run() {
    need_fuse!();
    let m = Mounted::new(20);
    let mut writer = Command::new("bash")
        .args(["-c", "exec > ctl; printf 'delete 10'; echo ready >&2; read"])
        .current_dir(&m.at)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut writer.stderr.take().expect("its stderr"), &mut ready).expect("it wrote");
    writer.kill().expect("killed");
    writer.wait().expect("ended");
    wait_until("it is said", || m.read("error").contains("ended by signal 9"));
    assert!(m.path("vectors/10").exists());
    assert_eq!(m.status("vectors"), "20");
}

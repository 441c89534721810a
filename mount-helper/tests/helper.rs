//! `mount.rvf` as mount(8) runs it, with a script in the place of `rvf-mount`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

/// A program that is being written cannot be run, also when it is another thread's child that has it open for a moment
/// longer; so one test at a time.
static TURN: Mutex<()> = Mutex::new(());

struct Place(PathBuf);

impl Place {
    /// A directory with a copy of the helper in it.
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("mount-rvf-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        std::fs::copy(env!("CARGO_BIN_EXE_mount-rvf"), dir.join("mount.rvf")).expect("a copy");
        Self(dir)
    }

    fn script(&self, text: &str) {
        let path = self.0.join("rvf-mount");
        std::fs::write(&path, text).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(self.0.join("mount.rvf"))
            .args(arguments)
            .env("PATH", "/nowhere")
            .output()
            .expect("it runs")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn options_and_exit_status_pass_through() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::new("pass");
    place.script("#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 5\n");
    let output = place.run(&["/a b.rvf", "/mnt", "-n", "-o", "ro,allow_other"]);
    assert_eq!(text(&output.stdout), "-o\nro,allow_other\n--\n/a b.rvf\n/mnt\n");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn fake_mounts_run_nothing() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::new("fake");
    place.script("#!/bin/sh\necho ran\n");
    let output = place.run(&["-fv", "/a.rvf", "/mnt"]);
    assert_eq!(text(&output.stdout), "");
    assert!(text(&output.stderr).ends_with("rvf-mount -- /a.rvf /mnt\n"), "{}", text(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_missing_program_and_wrong_usage_are_told() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let place = Place::new("missing");
    if ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/sbin", "/bin", "/usr/local/sbin"]
        .iter()
        .all(|dir| !Path::new(dir).join("rvf-mount").exists())
    {
        let output = place.run(&["/a.rvf", "/mnt"]);
        assert_eq!(output.status.code(), Some(32));
        assert!(
            text(&output.stderr).starts_with("mount.rvf: cannot find rvf-mount in "),
            "{}",
            text(&output.stderr)
        );
    }
    let output = place.run(&["/a.rvf"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        text(&output.stderr),
        "mount.rvf: usage: mount.rvf SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]\n"
    );
}

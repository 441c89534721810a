//! The programs under test: our `rvf`, and the reference's.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The environment variable that names the reference's program.
pub const REFERENCE_VARIABLE: &str = "RVF_REFERENCE_CLI";

/// When this is set to 1, a missing reference program is a failure and not a skip.
pub const REQUIRE_VARIABLE: &str = "RVF_REQUIRE_REFERENCE";

/// The build directory that the running program belongs to, such as `target/debug`.
///
/// # Panics
/// When the running program is not in one.
#[must_use]
pub fn build_dir() -> PathBuf {
    let own = std::env::current_exe().expect("the running program has a path");
    let dir = own.parent().expect("a program is in a directory");
    // Tests and benches are in `deps`, programs beside it.
    if dir.ends_with("deps") { dir.parent().unwrap_or(dir).to_path_buf() } else { dir.to_path_buf() }
}

/// The environment variable that names our own program, to try one that is built already.
pub const OURS_VARIABLE: &str = "RVF_PROGRAM";

/// Our `rvf` program: the one that [`OURS_VARIABLE`] names, otherwise built first so that it is never an old one.
///
/// # Panics
/// When it does not build.
pub fn ours() -> &'static Path {
    static OURS: OnceLock<PathBuf> = OnceLock::new();
    OURS.get_or_init(|| {
        if let Some(named) = std::env::var_os(OURS_VARIABLE) {
            return named.into();
        }
        let dir = build_dir();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "-p", "rvf-fs", "--bin", "rvf"]);
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        cargo.arg("--target-dir").arg(dir.parent().unwrap_or(&dir));
        cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        let status = cargo.status().expect("cargo runs");
        assert!(status.success(), "rvf does not build");
        dir.join("rvf")
    })
}

/// The reference's `rvf` program, or `None` after saying so loudly.
///
/// # Panics
/// When it is missing and [`REQUIRE_VARIABLE`] is 1.
pub fn reference() -> Option<&'static Path> {
    static REFERENCE: OnceLock<Option<PathBuf>> = OnceLock::new();
    REFERENCE
        .get_or_init(|| {
            let named = std::env::var_os(REFERENCE_VARIABLE).map(PathBuf::from);
            let installed = build_dir().parent().map(|target| target.join("reference/bin/rvf"));
            let found = named.or(installed).filter(|p| p.is_file());
            if found.is_none() {
                let how = "cargo install rvf-cli --version 0.3.0 --locked --root target/reference";
                let required = std::env::var(REQUIRE_VARIABLE).is_ok_and(|v| v == "1");
                assert!(!required, "the reference program is required and missing; install it: {how}");
                eprintln!(
                    "\n*** SKIPPED: no reference program; nothing was compared with it. Install it: {how}\n"
                );
            }
            found
        })
        .as_deref()
}

/// What a run of a program gave.
#[derive(Debug, Clone)]
pub struct Run {
    /// Exit status; -1 for a signal.
    pub status: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Run {
    /// Standard output as JSON.
    ///
    /// # Panics
    /// When it is something else.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {self:?}"))
    }
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started.
pub fn run<S: AsRef<std::ffi::OsStr>>(program: &Path, args: &[S]) -> Run {
    let output = Command::new(program)
        .args(args)
        .env("NO_COLOR", "1")
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let Output { status, stdout, stderr } = output;
    Run {
        status: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

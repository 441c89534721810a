//! What the tests of the `rvf` command share: a directory of its own for each test, and the command in it.

#![allow(dead_code, reason = "each test file uses a part of this")]

use rvf_fs::data::npy::{Dtype, write_header};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A temporary directory in which commands run.
pub(crate) struct Dir(tempfile::TempDir);

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Copies a golden file in.
    pub(crate) fn golden(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        std::fs::copy(golden(name), &to).unwrap();
        to
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn rvf(&self, args: &[&str]) -> Done {
        self.rvf_with(args, b"")
    }

    /// Runs with these bytes on stdin.
    pub(crate) fn rvf_with(&self, args: &[&str], input: &[u8]) -> Done {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        // A command that does not read its stdin closes it; that is no matter here.
        let feed = std::thread::spawn(move || stdin.write_all(&input).is_ok());
        let done = child.wait_with_output().unwrap();
        feed.join().unwrap();
        Done {
            status: done.status.code().unwrap_or(-1),
            out: String::from_utf8(done.stdout).unwrap(),
            err: String::from_utf8(done.stderr).unwrap(),
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rvf"));
        command.args(args).current_dir(self.0.path());
        command
    }

    /// Runs, expects status 0, and gives stdout.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let done = self.rvf(args);
        assert_eq!((done.status, done.err.as_str()), (0, ""), "{args:?}\n{}", done.out);
        done.out
    }

    /// Runs with `--json`, expects status 0, and gives the object.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// Runs, expects this status and nothing on stdout, and gives the one line on stderr.
    pub(crate) fn fails(&self, args: &[&str], status: i32) -> String {
        let done = self.rvf(args);
        assert_eq!((done.status, done.out.as_str()), (status, ""), "{args:?}\n{}", done.err);
        assert!(done.err.starts_with("error: ") && done.err.ends_with('\n'), "{args:?}: {}", done.err);
        done.err.trim_end().to_owned()
    }
}

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The sample that the repository ships.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/debian-packages").join(name)
}

/// A NumPy file of float32.
pub(crate) fn npy_f32(shape: &[usize], values: &[f32]) -> Vec<u8> {
    let mut out = write_header(Dtype::F32, shape);
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

/// A NumPy file of ids.
pub(crate) fn npy_u64(values: &[u64]) -> Vec<u8> {
    let mut out = write_header(Dtype::U64, &[values.len()]);
    out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    out
}

/// A store of three rows with metadata.
pub(crate) fn three(dir: &Dir) {
    dir.ok(&["create", "a.rvf", "-d", "2"]);
    dir.write(
        "rows.jsonl",
        concat!(
            "{\"id\": 1, \"vector\": [1,0], \"metadata\": {\"name\": \"one\", \"year\": 2001, \"ok\": true}}\n",
            "{\"id\": 2, \"vector\": [0,1], \"metadata\": {\"name\": \"two\", \"year\": 2002}}\n",
            "{\"id\": 18446744073709551615, \"vector\": [0.25,-0.5], \"metadata\": {\"name\": \"max\", \"w\": 0.5}}\n",
        ),
    );
    dir.ok(&["ingest", "a.rvf", "-i", "rows.jsonl"]);
}

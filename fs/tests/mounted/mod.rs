//! A store, a mountpoint, and the daemon between them, taken away again whatever happens.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of this")]

pub mod serving;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rvf_cow::{BadRow, Batch, CreateOptions, Fields, Metric, NoProgress, OpenOptions, Store, Value};

pub const DIM: usize = 4;

/// Whether a mount is possible here. Says loudly why not; with RVF_REQUIRE_FUSE=1 that is a failure.
pub fn can_mount() -> bool {
    match fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => true,
        Err(error) => {
            assert!(
                std::env::var_os("RVF_REQUIRE_FUSE").is_none(),
                "/dev/fuse: {error}, and RVF_REQUIRE_FUSE is set"
            );
            eprintln!("SKIPPED: /dev/fuse: {error}; this test mounts a filesystem");
            false
        }
    }
}

/// Leaves the test where nothing can be mounted.
#[macro_export]
macro_rules! need_fuse {
    () => {
        if !mounted::can_mount() {
            return;
        }
    };
}

/// Waits until something holds; panics after ten seconds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::yield_now();
    }
}

/// A new store of `n` vectors: row i is `[i, 1, 0, 0]`, its id is `10 * i`, and every second has metadata.
pub fn make_store(path: &Path, n: u64) -> Arc<Store> {
    let store = Store::create(path, &CreateOptions { dimension: DIM as u16, metric: Metric::L2, profile: 0 })
        .expect("a new store");
    if n > 0 {
        let batch = Batch {
            dimension: DIM,
            ids: Some((0..n).map(|i| 10 * i).collect()),
            vectors: (0..n).flat_map(|i| [i as f32, 1.0, 0.0, 0.0]).collect(),
            metadata: (0..n).map(record).collect(),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("rows");
    }
    store
}

fn record(i: u64) -> Fields {
    if !i.is_multiple_of(2) {
        return Fields::new();
    }
    vec![
        ("name".into(), Value::String(format!("n{i}"))),
        ("year".into(), Value::U64(2000 + i)),
        ("score".into(), Value::F64(i as f64 / 2.0)),
        ("good".into(), Value::Bool(i.is_multiple_of(4))),
    ]
}

/// Opens the store as another program would.
pub fn open_store(path: &Path) -> Arc<Store> {
    Store::open(path, &OpenOptions::default()).expect("a store")
}

pub fn rvf_mount() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rvf-mount"));
    command.stdin(Stdio::null());
    command
}

/// A mounted store.
pub struct Mounted {
    _dir: tempfile::TempDir,
    pub source: PathBuf,
    pub at: PathBuf,
    daemon: Option<Child>,
    /// Ends the watch over the daemon when it is dropped.
    watch: Option<std::sync::mpsc::Sender<()>>,
}

/// Longer than any test here takes on a slow machine.
const HUNG_AFTER: Duration = Duration::from_secs(300);

/// Kills a daemon that does not answer any more, so that a hang is a failure and not an endless run.
fn watch_over(daemon: &Child) -> std::sync::mpsc::Sender<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let pid = daemon.id().to_string();
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if receiver.recv_timeout(HUNG_AFTER) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{test}: still mounted after {HUNG_AFTER:?}; killing the daemon {pid}");
            let _ = Command::new("kill").args(["-KILL", &pid]).status();
        }
    });
    sender
}

impl Mounted {
    /// A store of `n` vectors, mounted.
    pub fn new(n: u64) -> Self {
        Self::with(n, &[])
    }

    /// The same with options for `rvf-mount`.
    pub fn with(n: u64, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let source = dir.path().join("store.rvf");
        drop(make_store(&source, n));
        Self::mount(dir, source, options)
    }

    /// Any source in a temporary directory, mounted in the background and followed by its process.
    pub fn mount(dir: tempfile::TempDir, source: PathBuf, options: &[&str]) -> Self {
        let at = dir.path().join("mnt");
        fs::create_dir_all(&at).expect("a mountpoint");
        let mut this = Self { _dir: dir, source, at, daemon: None, watch: None };
        this.remount(options);
        this
    }

    /// Mounts again, after the daemon has ended.
    pub fn remount(&mut self, options: &[&str]) {
        let daemon = rvf_mount()
            .arg("--foreground")
            .args(options)
            .arg(&self.source)
            .arg(&self.at)
            .stderr(Stdio::piped())
            .env("RVF_LOG", "warn")
            .spawn()
            .expect("rvf-mount starts");
        self.watch = Some(watch_over(&daemon));
        self.daemon = Some(daemon);
        let own = fs::metadata(self.at.parent().expect("a parent")).expect("there").dev();
        wait_until("the mount is there", || {
            let ended = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().expect("a child"));
            if let Some(status) = ended {
                let mut text = String::new();
                if let Some(mut stderr) = self.daemon.as_mut().and_then(|daemon| daemon.stderr.take()) {
                    let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
                }
                panic!("rvf-mount ended with {status}: {text}");
            }
            // Opening asks the daemon; attributes of a dead mount may still be remembered.
            fs::read_dir(&self.at).is_ok() && fs::metadata(&self.at).is_ok_and(|meta| meta.dev() != own)
        });
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    pub fn write(&self, name: &str, data: impl AsRef<[u8]>) -> std::io::Result<()> {
        write_file(&self.path(name), data.as_ref())
    }

    /// Names in a directory, sorted.
    pub fn list(&self, name: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(name))
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// A value of `status`.
    pub fn status(&self, key: &str) -> String {
        let status = self.read("status");
        let value = status.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
        value.unwrap_or_else(|| panic!("no {key} in {status}")).to_owned()
    }

    /// Runs a shell script in the mounted directory.
    pub fn sh(&self, script: &str) -> Output {
        Command::new("bash")
            .arg("-c")
            .arg(script)
            .current_dir(&self.at)
            .stdin(Stdio::null())
            .output()
            .expect("bash runs")
    }

    /// The same, which must succeed with nothing on standard error; gives standard output.
    pub fn sh_ok(&self, script: &str) -> String {
        let output = self.sh(script);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success() && err.is_empty(),
            "{script}\nstatus {}\nout {out}\nerr {err}",
            output.status
        );
        out.into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("a daemon").id()
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: &str) {
        let status =
            Command::new("kill").arg(signal).arg(self.pid().to_string()).status().expect("kill runs");
        assert!(status.success());
    }

    /// Waits for the daemon's end; its exit status.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        let daemon = self.daemon.as_mut().expect("a daemon");
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = daemon.try_wait().expect("a child") {
                self.daemon = None;
                return status;
            }
            assert!(Instant::now() < end, "the daemon does not end");
            std::thread::yield_now();
        }
    }

    pub fn unmount(&mut self) -> std::process::ExitStatus {
        umount(&self.at);
        self.wait()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
        if let Some(mut daemon) = self.daemon.take() {
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end {
                if matches!(daemon.try_wait(), Ok(Some(_))) {
                    return;
                }
                std::thread::yield_now();
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// Writes a file as programs do: open with truncation, write, and look at what close says.
pub fn write_file(path: &Path, data: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = fs::File::options().write(true).create(true).truncate(true).open(path)?;
    file.write_all(data)?;
    close(file)
}

/// Closes a file and gives what close() returned, which dropping would hide.
pub fn close(file: fs::File) -> std::io::Result<()> {
    use std::os::fd::IntoRawFd;
    // `dup2` of anything onto the descriptor would lose the error as well, so close(2) itself.
    #[expect(unsafe_code, reason = "std has no close that tells its result")]
    // SAFETY: the descriptor was just taken out of `file`, so it is open and nobody else owns it.
    let result = unsafe { libc::close(file.into_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Unmounts. A child that another test is just starting may hold a copy of a descriptor for a moment longer.
pub fn umount(at: &Path) {
    wait_until("umount succeeds", || {
        Command::new("umount").arg(at).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    });
}

pub fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("a refusal").raw_os_error().expect("an errno")
}

pub fn run_ok<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(program: &str, arguments: I) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether a program is installed. Says so when not; with RVF_REQUIRE_TOOLS=1 that is a failure.
pub fn has(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()));
    if !found {
        assert!(
            std::env::var_os("RVF_REQUIRE_TOOLS").is_none(),
            "{program} is missing, and RVF_REQUIRE_TOOLS is set"
        );
        eprintln!("SKIPPED a part: {program} is not installed");
    }
    found
}

/// A NumPy file of float32.
pub fn npy(rows: &[[f32; DIM]]) -> Vec<u8> {
    let mut out = rvf_fs::data::npy::write_header(rvf_fs::data::npy::Dtype::F32, &[rows.len(), DIM]);
    out.extend(rows.iter().flatten().flat_map(|number| number.to_le_bytes()));
    out
}

pub use std::os::unix::fs::MetadataExt;

/// Whether Python has NumPy; as [`has`].
pub fn has_numpy() -> bool {
    let imported = Command::new("python3").args(["-c", "import numpy"]).output();
    let found = imported.is_ok_and(|output| output.status.success());
    if !found {
        assert!(
            std::env::var_os("RVF_REQUIRE_TOOLS").is_none(),
            "python3 has no numpy, and RVF_REQUIRE_TOOLS is set"
        );
        eprintln!("SKIPPED a part: python3 with numpy is not installed");
    }
    found
}

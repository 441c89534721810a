//! Stores that carry eBPF programs, and programs that run.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use rvf_bpf::wire::Answer;
use rvf_bpf::{ProgramOptions, ProgramPayload};
use rvf_cow::{
    Access, BadRow, Batch, CreateOptions, Embedding, Metric, OpenOptions, SignOptions, Store, Target,
};
use rvf_crypto::{Algorithm, SecretKey};
use rvf_format::SegType;
use rvf_index::NoProgress;

use crate::net::Net;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_rvf-exec");

/// A directory with a store and a key that is trusted.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    key: SecretKey,
}

impl Place {
    pub(crate) fn new(metric: Metric, dimension: usize, ids: Vec<u64>, vectors: Vec<f32>) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
            key: SecretKey::from_seed(Algorithm::Ed25519, &[5; 32]),
        };
        let trust = place.path("config/rvf/trust");
        fs::create_dir_all(&trust).unwrap();
        fs::write(trust.join("maker.pub"), place.key.public().to_pem().unwrap()).unwrap();
        let options = CreateOptions { dimension: dimension as u16, metric, profile: 0 };
        let store = Store::create(&place.store(), &options).unwrap();
        let batch =
            Batch { dimension, ids: Some(ids), vectors, metadata: Vec::new(), on_bad_row: BadRow::Refuse };
        store.ingest(&batch, &NoProgress).unwrap();
        place
    }

    /// Vectors 0 to 99 of two components.
    pub(crate) fn small() -> Self {
        Self::new(Metric::L2, 2, (0..100).collect(), (0..100_u16).flat_map(|i| [f32::from(i), 1.0]).collect())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("a.rvf")
    }

    pub(crate) fn open(&self) -> Arc<Store> {
        Store::open(&self.store(), &OpenOptions { access: Access::ReadWrite, ..OpenOptions::default() })
            .unwrap()
    }

    pub(crate) fn embed(&self, object: &[u8]) -> u64 {
        let payload = ProgramPayload::new(object, &ProgramOptions::default()).unwrap();
        let embedding =
            Embedding { kind: SegType::EBPF, payload: &payload.pieces(), digest: payload.digest, name: None };
        self.open().embed(&embedding).unwrap().offset
    }

    pub(crate) fn embed_signed(&self, object: &[u8]) {
        let offset = self.embed(object);
        self.open().sign(&self.key, &Target::Segments(vec![offset]), &SignOptions::default()).unwrap();
    }

    /// `rvf-exec` on the newest program of the store, in a namespace.
    pub(crate) fn command(&self, net: &Net, space: &str, args: &[&str]) -> Command {
        let mut command = net.command(space, Path::new(PROGRAM));
        self.arguments(&mut command, &[], args);
        command
    }

    pub(crate) fn arguments(&self, command: &mut Command, options: &[&str], args: &[&str]) {
        command.args(options).arg(self.store()).args(["--kind", "ebpf", "--"]).args(args);
        command.env("XDG_CONFIG_HOME", self.path("config"));
    }

    pub(crate) fn start(&self, net: &Net, space: &str, args: &[&str]) -> Running {
        Running::start(self.command(net, space, args))
    }

    /// Runs it where it is to fail: its status, and what it says.
    pub(crate) fn fails(&self, net: &Net, options: &[&str], args: &[&str]) -> (i32, String) {
        let mut command = net.command("server", Path::new(PROGRAM));
        self.arguments(&mut command, options, args);
        let done = command.output().unwrap();
        assert!(done.stdout.is_empty(), "{}", String::from_utf8_lossy(&done.stdout));
        (done.status.code().unwrap(), String::from_utf8_lossy(&done.stderr).into_owned())
    }
}

/// A program that is attached.
pub(crate) struct Running {
    pub(crate) child: Child,
    out: BufReader<ChildStdout>,
    pub(crate) said: String,
}

impl Drop for Running {
    /// A test that fails leaves nothing running.
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        out.read_line(&mut said).unwrap();
        if !said.starts_with("attached ") {
            let done = child.wait_with_output().unwrap();
            panic!("{said}{}", String::from_utf8_lossy(&done.stderr));
        }
        Self { child, out, said }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Ends it as a user would, and gives its last line: the counters.
    pub(crate) fn end(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let mut last = String::new();
        for line in (&mut self.out).lines() {
            last = line.unwrap();
        }
        assert!(self.child.wait().unwrap().success());
        last
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn ask(socket: &UdpSocket, to: &str, payload: &[u8]) -> Answer {
    let mut answer = [0; 2048];
    socket.send_to(payload, to).unwrap();
    let (len, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!(from.to_string(), to);
    assert!(len <= payload.len(), "an answer is never longer than its query");
    Answer::decode(&answer[..len]).unwrap()
}

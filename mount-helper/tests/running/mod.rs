//! Stores that carry eBPF programs, and programs that run.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use rvf_bpf::wire::Answer;
use rvf_bpf::{ProgramOptions, ProgramPayload};
use rvf_cow::{BadRow, Batch, CreateOptions, Metric};
use rvf_index::NoProgress;
use rvf_kernel::ExecKind;

use crate::common::{self, text};
use crate::net::Net;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_rvf-exec");

/// A place whose programs are for eBPF.
pub(crate) struct Place(common::Place);

impl Deref for Place {
    type Target = common::Place;

    fn deref(&self) -> &common::Place {
        &self.0
    }
}

impl Place {
    pub(crate) fn new(metric: Metric, dimension: usize, ids: Vec<u64>, vectors: Vec<f32>) -> Self {
        let options = CreateOptions { dimension: dimension as u16, metric, profile: 0 };
        let place = common::Place::empty(&options);
        let batch =
            Batch { dimension, ids: Some(ids), vectors, metadata: Vec::new(), on_bad_row: BadRow::Refuse };
        place.open().ingest(&batch, &NoProgress).unwrap();
        Self(place)
    }

    /// Vectors 0 to 99 of two components.
    pub(crate) fn small() -> Self {
        Self::new(Metric::L2, 2, (0..100).collect(), (0..100_u16).flat_map(|i| [f32::from(i), 1.0]).collect())
    }

    pub(crate) fn embed(&self, object: &[u8]) {
        self.0.embed(ExecKind::Ebpf, &payload(object));
    }

    pub(crate) fn embed_signed(&self, object: &[u8]) {
        self.0.embed_signed(ExecKind::Ebpf, &payload(object));
    }

    /// `rvf-exec` on the newest program of the store, in a namespace.
    pub(crate) fn command(&self, net: &Net, space: &str, args: &[&str]) -> Command {
        let mut command = net.command(space, Path::new(PROGRAM));
        self.arguments(&mut command, &[], args);
        command
    }

    pub(crate) fn arguments(&self, command: &mut Command, options: &[&str], args: &[&str]) {
        command.args(options).arg(self.store()).args(["--kind", "ebpf", "--"]).args(args);
        self.configure(command);
    }

    pub(crate) fn start(&self, net: &Net, space: &str, args: &[&str]) -> Running {
        Running::start(self.command(net, space, args))
    }

    /// Runs it where it is to fail: its status, and what it says.
    pub(crate) fn fails(&self, net: &Net, options: &[&str], args: &[&str]) -> (i32, String) {
        let mut command = net.command("server", Path::new(PROGRAM));
        self.arguments(&mut command, options, args);
        let done = command.output().unwrap();
        assert!(done.stdout.is_empty(), "{}", text(&done.stdout));
        (done.status.code().unwrap(), text(&done.stderr))
    }
}

fn payload(object: &[u8]) -> Vec<u8> {
    ProgramPayload::new(object, &ProgramOptions::default()).unwrap().pieces().concat()
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
            panic!("{said}{}", text(&done.stderr));
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

/// Whether nothing has come to a socket that was not taken.
pub(crate) fn is_quiet(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).unwrap();
    let nothing = socket.recv(&mut [0; 16]).is_err();
    socket.set_nonblocking(false).unwrap();
    nothing
}

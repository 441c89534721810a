//! Network namespaces joined by veth pairs, for programs that need an interface to themselves.
#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod raw;

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Whether BPF programs and namespaces can be used here. What is missing is said, and is a failure where it is required.
pub(crate) fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    let has =
        |program: &str| Command::new(program).arg("-V").output().is_ok_and(|done| done.status.success());
    let missing = match (root, has("ip")) {
        (false, _) => "root",
        (_, false) => "ip (apt-get install iproute2)",
        (true, true) => return true,
    };
    assert!(
        std::env::var_os("RVF_REQUIRE_TOOLS").is_none(),
        "{missing} is missing, and RVF_REQUIRE_TOOLS is set"
    );
    eprintln!("SKIPPED: needs {missing}");
    false
}

/// Two namespaces, `server` and `client`, joined by interfaces `s0` and `c0`; a third, `other`, joined to the server by `s1` and
/// `o0`. They go with the value, and with them everything in them.
pub(crate) struct Net {
    prefix: String,
}

impl Net {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let prefix = format!("rvf{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let net = Self { prefix };
        for space in ["server", "client", "other"] {
            ip(&["netns", "add", &net.space(space)]);
            ip(&["-n", &net.space(space), "link", "set", "lo", "up"]);
        }
        net.join("server", "s0", "client", "c0", "1");
        net.join("server", "s1", "other", "o0", "2");
        net
    }

    /// 10.81.SUBNET.1 and fd81:SUBNET::1 on the left, .2 and ::2 on the right.
    fn join(&self, left: &str, left_name: &str, right: &str, right_name: &str, subnet: &str) {
        let (left, right) = (self.space(left), self.space(right));
        let pair = ["link", "add", left_name, "type", "veth", "peer", "name", right_name, "netns", &right];
        ip(&[&["-n", &left][..], &pair].concat());
        for (space, name, host) in [(&left, left_name, "1"), (&right, right_name, "2")] {
            ip(&["-n", space, "addr", "add", &format!("10.81.{subnet}.{host}/24"), "dev", name]);
            let v6 = format!("fd81:{subnet}::{host}/64");
            ip(&["-n", space, "addr", "add", &v6, "dev", name, "nodad"]);
            ip(&["-n", space, "link", "set", name, "up"]);
        }
    }

    pub(crate) fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }

    /// A command in a namespace.
    pub(crate) fn command(&self, space: &str, program: &std::path::Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(space)]).arg(program);
        command
    }

    /// What `ip` says of the interfaces of a namespace.
    pub(crate) fn ip(&self, space: &str, args: &[&str]) -> String {
        ip(&[&["-n", &self.space(space)][..], args].concat())
    }

    /// A socket of a namespace.
    pub(crate) fn udp(&self, space: &str, address: &str) -> UdpSocket {
        let address: SocketAddr = address.parse().expect("an address");
        self.inside(space, move || {
            let socket = UdpSocket::bind(address).expect("bind");
            socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            socket
        })
    }

    /// Does something in a namespace. A namespace is a thread's: this one ends, what it made stays where it was made.
    fn inside<T: Send + 'static>(&self, space: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
        let space = std::fs::File::open(format!("/run/netns/{}", self.space(space))).expect("a namespace");
        let thread = std::thread::spawn(move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("setns");
            work()
        });
        thread.join().expect("done")
    }

    /// Which of these are attached to an interface: `xdp`, `tcx`.
    pub(crate) fn attached(&self, space: &str, interface: &str) -> Vec<&'static str> {
        let show = self.ip(space, &["-d", "link", "show", "dev", interface]);
        let mut found = Vec::new();
        if show.contains("xdp") {
            found.push("xdp");
        }
        let name = interface.to_owned();
        let tcx = self.inside(space, move || {
            let on = |side| {
                SchedClassifier::query_tcx(&name, side).is_ok_and(|(_, programs)| !programs.is_empty())
            };
            on(TcAttachType::Ingress) || on(TcAttachType::Egress)
        });
        if tcx {
            found.push("tcx");
        }
        found
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for space in ["server", "client", "other"] {
            let _gone = Command::new("ip").args(["netns", "del", &self.space(space)]).output();
        }
    }
}

fn ip(args: &[&str]) -> String {
    let Output { status, stdout, stderr } = Command::new("ip").args(args).output().expect("ip");
    assert!(status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// Waits until something holds; panics after ten seconds.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! eBPF programs as a user runs them: loaded from a store, attached in a network namespace, asked by a real client over veth.
#![cfg(feature = "ebpf")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;
mod net;
mod running;

use std::fs;
use std::io::Read as _;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use common::text;
use net::{Net, can_run, wait_until};
use running::{PROGRAM, Place, Running, ask, is_quiet};
use rvf_bpf::Builtin;
use rvf_bpf::hot::Query;
use rvf_bpf::wire::{self, Status};
use rvf_cow::{Metric, SearchRequest};
use rvf_mount_helper::ebpf::hot_set;

/// The sample of real text embeddings: ids, vectors and queries.
struct Sample {
    dimension: usize,
    vectors: Vec<f32>,
    queries: Vec<f32>,
}

fn sample() -> Sample {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/debian-packages");
    let body = |name: &str| {
        let bytes = fs::read(dir.join(name)).unwrap();
        let head = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
        bytes[10 + head..].to_vec()
    };
    let half = |b: &[u8]| half::f16::from_le_bytes([b[0], b[1]]).to_f32();
    let vectors = body("base.f16.npy").chunks_exact(2).map(half).collect();
    let single = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    let queries = body("queries.f32.npy").chunks_exact(4).map(single).collect();
    Sample { dimension: 384, vectors, queries }
}

/// What the driver of one end of a veth pair sends out is taken at the other only where a program is attached there too.
fn open_peer(place: &Place, net: &Net) -> Running {
    place.start(net, "client", &["--iface", "c0", "--port", "1", "--native"])
}

#[test]
fn hot_vectors_are_found_in_xdp_exactly_as_by_the_scan() {
    if !can_run() {
        return;
    }
    let sample = sample();
    let rows = sample.vectors.len() / sample.dimension;
    for metric in [Metric::Cosine, Metric::L2, Metric::InnerProduct] {
        let place = Place::new(metric, sample.dimension, (0..rows as u64).collect(), sample.vectors.clone());
        // The first half of the queries makes vectors hot, the second asks for them.
        let (earlier, later) = sample.queries.split_at(sample.queries.len() / 2);
        let request = |queries, k, exact| SearchRequest {
            queries,
            k,
            ef: None,
            filter: None,
            exact,
            deadline: None,
            threads: 1,
        };
        let store = place.open();
        store.view().search(&request(earlier, 10, false)).unwrap();
        store.save_accesses(256).unwrap().unwrap();
        drop(store);
        place.embed(Builtin::Distance.object());
        let store = place.open();
        let choice = hot_set(&store.view(), 256).unwrap();
        assert_eq!((choice.set.vectors.len(), choice.counted), (256, 256));
        // The hot set as a store of its own: its exact scan is the format's own arithmetic in f32.
        let ids: Vec<u64> = choice.set.vectors.iter().map(|v| v.id).collect();
        let row = |id: &u64| sample.vectors[*id as usize * 384..][..384].to_vec();
        let scanned = Place::new(metric, 384, ids.clone(), ids.iter().flat_map(row).collect());
        let truth = scanned.open().view().search(&request(later, 10, true)).unwrap();

        let net = Net::new();
        // In the driver once; else as it is without being asked, which needs nothing of the other end.
        let native = metric == Metric::L2;
        let args: &[&str] = if native { &["--iface", "s0", "--native"] } else { &["--iface", "s0"] };
        let running = place.start(&net, "server", args);
        assert!(running.said.contains(if native { "(xdp)" } else { "(xdp, generic)" }), "{}", running.said);
        assert!(
            running.said.contains("256 of 5000 vectors, 256 of them chosen by access counts"),
            "{}",
            running.said
        );
        let peer = native.then(|| open_peer(&place, &net));
        for (address, to) in [("10.81.1.2:0", "10.81.1.1:7474"), ("[fd81:1::2]:0", "[fd81:1::1]:7474")] {
            let socket = net.udp("client", address);
            let about = ask(&socket, to, &wire::describe(7));
            assert_eq!((about.status, about.token, about.hot_vectors), (Status::Ok, 7, 256));
            assert_eq!(about.file_id, Some(store.view().file_id()));
            assert_eq!((about.scale, about.epoch), (choice.set.scale, store.view().epoch()));
            for (query, truth) in later.chunks_exact(384).zip(&truth) {
                let sent = Query::new(&about.scale, query).unwrap();
                let answer = ask(&socket, to, &sent.payload(10, 99));
                assert_eq!((answer.status, answer.token), (Status::Ok, 99));
                assert_eq!(answer.results, choice.set.scan(&sent, 10), "the program and its scan in Rust");
                let found: Vec<u64> = answer.results.iter().map(|(id, _)| *id).collect();
                let wanted: Vec<u64> = truth.hits.iter().map(|hit| hit.id).collect();
                assert_eq!(found, wanted, "{metric:?}: the exact scan of the hot set in f32");
                for ((_, raw), hit) in answer.results.iter().zip(&truth.hits) {
                    let distance = sent.distance(&about.scale, *raw);
                    assert!((distance - f64::from(hit.distance)).abs() < 1e-5, "{distance} {}", hit.distance);
                }
            }
        }
        let asked = 2 * later.len() / 384;
        assert_eq!(running.end(), format!("answered {asked}  described 2  refused 0  dropped 0"));
        if let Some(peer) = peer {
            peer.end();
        }
        assert_eq!(net.attached("server", "s0"), Vec::<&str>::new());
    }
}

#[test]
fn what_is_no_good_query_is_told_or_passed_on() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    place.embed(Builtin::Distance.object());
    let net = Net::new();
    let running = place.start(&net, "server", &["--iface", "s0", "--hot", "50", "--native"]);
    assert!(running.said.contains("50 of 100 vectors, 0 of them"), "{}", running.said);
    let peer = open_peer(&place, &net);
    let client = net.udp("client", "10.81.1.2:0");
    let to = "10.81.1.1:7474";
    let scale = ask(&client, to, &wire::describe(1)).scale;
    let good = Query::new(&scale, &[20.2, 1.0]).unwrap().payload(3, 5);
    let ids: Vec<u64> = ask(&client, to, &good).results.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [20, 21, 19]);
    let patched = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let mut long_enough_for_no_answer = good.clone();
    long_enough_for_no_answer.truncate(32 + 3 * 16 - 1);
    for (payload, status) in [
        (patched(4, 9), Status::Version),
        (patched(5, 7), Status::Op),
        (patched(8, 3), Status::Dimension),
        (patched(10, 0), Status::K),
        (patched(10, 17), Status::K),
        (patched(6, 0), Status::Width),
        (patched(6, 4), Status::Width),
        (patched(7, 6), Status::Shift),
        (patched(10, 4), Status::Short),
        (long_enough_for_no_answer, Status::Short),
    ] {
        let answer = ask(&client, to, &payload);
        assert_eq!((answer.status, answer.results.len(), answer.token), (status, 0, 5));
    }
    // More results than there are vectors are not made up.
    let all = Query::new(&scale, &[0.0, 1.0]).unwrap().payload(16, 0);
    assert_eq!(ask(&client, to, &all).results.len(), 16);

    // Other packets to the port reach who listens there, and the others their ports.
    let (port, elsewhere) = (net.udp("server", "10.81.1.1:7474"), net.udp("server", "10.81.1.1:7475"));
    let mut buffer = [0; 256];
    client.send_to(b"hello there", to).unwrap();
    assert_eq!(port.recv(&mut buffer).unwrap(), 11);
    client.send_to(&good, "10.81.1.1:7475").unwrap();
    assert_eq!(elsewhere.recv(&mut buffer).unwrap(), good.len());
    // Too short for any answer: dropped, and nobody hears of it. The query after it is answered.
    client.send_to(b"RVFQ\x01\x00\x03\x00\x02\x00\x03\x00\x05\x00\x00\x00", to).unwrap();
    assert_eq!(ask(&client, to, &good).results.len(), 3);
    assert!(is_quiet(&port), "queries do not reach sockets");
    assert_eq!(running.end(), "answered 3  described 1  refused 10  dropped 1");
    peer.end();
    // In the network stack it needs nothing of the driver, nor of the other end.
    let running = place.start(&net, "server", &["--iface", "s0", "--hot", "50", "--generic"]);
    let ids: Vec<u64> = ask(&client, to, &good).results.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [20, 21, 19]);
    running.end();
}

#[test]
fn the_filter_drops_passes_and_redirects_live_traffic() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    place.embed(Builtin::Ports.object());
    let net = Net::new();
    // Behind the second interface something listens to everything that comes to two ports.
    let mut behind = place.start(&net, "other", &["--iface", "o0", "--allow", "7474,9003"]);
    place.embed(Builtin::Filter.object());
    let rules = ["--rule", "9001=drop", "--rule", "9002=pass", "--rule", "9003=s1"];
    let running = place.start(&net, "server", &[&["--iface", "s0"][..], &rules].concat());
    assert!(running.said.contains("(tc), 3 rules, 100 members"), "{}", running.said);
    assert_eq!(net.attached("server", "s0"), ["tcx"]);
    let client = net.udp("client", "10.81.1.2:0");
    let from = client.local_addr().unwrap().port();
    let sockets: Vec<(u16, UdpSocket)> = [7474, 9001, 9002, 9003, 9004]
        .map(|port| (port, net.udp("server", &format!("10.81.1.1:{port}"))))
        .into_iter()
        .collect();
    let send = |port: u16, payload: &[u8]| {
        client.send_to(payload, format!("10.81.1.1:{port}")).unwrap();
    };
    let socket = |port: u16| &sockets.iter().find(|(at, _)| *at == port).unwrap().1;
    let got = |port: u16| {
        let mut buffer = [0; 256];
        let len = socket(port).recv(&mut buffer).unwrap();
        buffer[..len].to_vec()
    };
    for port in [9001, 9002, 9003, 9004] {
        send(port, format!("to {port}").as_bytes());
    }
    assert_eq!(got(9002), b"to 9002");
    assert_eq!(got(9004), b"to 9004");
    assert_eq!(behind.line(), format!("udp {from} > 9003  49 bytes"));
    // Look-ups: 5 and 99 are held, 100 and a huge one are not; what is no look-up passes.
    for id in [100, 5, u64::MAX, 99] {
        send(7474, &wire::lookup(id, 0));
    }
    send(7474, b"no look-up");
    assert_eq!(got(7474), wire::lookup(5, 0));
    assert_eq!(got(7474), wire::lookup(99, 0));
    assert_eq!(got(7474), b"no look-up");
    // A look-up that ends before its id.
    send(7474, &wire::lookup(5, 0)[..20]);
    send(9004, b"after it");
    assert_eq!(got(9004), b"after it");
    for port in [9001, 9003, 7474] {
        assert!(is_quiet(socket(port)), "nothing more came to {port}");
    }
    let counters = running.end();
    let count = |name: &str| {
        let mut words = counters.split_whitespace();
        words.find(|word| *word == name).and_then(|_| words.next()).unwrap().parse::<u64>().unwrap()
    };
    assert_eq!((count("port_dropped"), count("port_redirected"), count("members")), (1, 1, 2), "{counters}");
    assert_eq!(
        (count("others_dropped"), count("others_redirected"), count("malformed")),
        (2, 0, 1),
        "{counters}"
    );
    assert!(count("passed") >= 4, "{counters}");
    assert_eq!(net.attached("server", "s0"), Vec::<&str>::new());
    send(9001, b"open again");
    assert_eq!(got(9001), b"open again");

    // Look-ups of what is not held can go elsewhere; on the way out it works the same.
    let running = place.start(&net, "server", &["--iface", "s0", "--elsewhere", "s1"]);
    send(7474, &wire::lookup(1000, 0));
    assert_eq!(behind.line(), format!("udp {from} > 7474  66 bytes"));
    assert!(running.end().contains("others_redirected 1"));
    behind.end();
    let running =
        place.start(&net, "server", &["--iface", "s0", "--egress", "--port", "0", "--rule", "8001=drop"]);
    assert!(running.said.contains("(tc-egress), 1 rules, 0 members"), "{}", running.said);
    let sockets = [8001, 8002].map(|port| net.udp("client", &format!("10.81.1.2:{port}")));
    let server = net.udp("server", "10.81.1.1:0");
    for port in [8001, 8002] {
        server.send_to(b"out", format!("10.81.1.2:{port}")).unwrap();
    }
    assert_eq!(sockets[1].recv(&mut [0; 16]).unwrap(), 3);
    assert!(is_quiet(&sockets[0]));
    assert!(running.end().contains("port_dropped 1"));
}

#[test]
fn the_socket_filter_lets_allowed_ports_through() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    place.embed(Builtin::Ports.object());
    let net = Net::new();
    let mut running = place.start(&net, "server", &["--iface", "s0", "--allow", "53,9000"]);
    assert!(running.said.contains("(socket-filter), letting 2 ports through"), "{}", running.said);
    let (v4, v6) = (net.udp("client", "10.81.1.2:0"), net.udp("client", "[fd81:1::2]:0"));
    for port in [54, 9000, 8999, 53] {
        v4.send_to(b"ab", format!("10.81.1.1:{port}")).unwrap();
    }
    v6.send_to(b"abc", "[fd81:1::1]:52").unwrap();
    v6.send_to(b"abc", "[fd81:1::1]:53").unwrap();
    let (four, six) = (v4.local_addr().unwrap().port(), v6.local_addr().unwrap().port());
    assert_eq!(running.line(), format!("udp {four} > 9000  44 bytes"));
    assert_eq!(running.line(), format!("udp {four} > 53  44 bytes"));
    assert_eq!(running.line(), format!("udp {six} > 53  65 bytes"));
    let counters = running.end();
    assert!(counters.starts_with("let_through 3  "), "{counters}");
    let (status, said) = place.fails(&net, &[], &["--iface", "s0"]);
    assert!(status == 2 && said.contains("--allow 53,7474"), "{status} {said}");
}

/// While it waits it has no rights: not those of root, and hardly a system call.
#[test]
fn while_it_waits_it_may_do_next_to_nothing() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    let net = Net::new();
    for (builtin, args) in
        [(Builtin::Distance, &[][..]), (Builtin::Filter, &[]), (Builtin::Ports, &["--allow", "53"])]
    {
        place.embed(builtin.object());
        let running = place.start(&net, "server", &[&["--iface", "s0"][..], args].concat());
        let status = fs::read_to_string(format!("/proc/{}/status", running.child.id())).unwrap();
        let of = |key: &str| {
            status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim).unwrap_or_default()
        };
        assert_eq!((of("Name:"), of("Threads:")), ("rvf-exec", "1"), "{status}");
        assert_eq!((of("NoNewPrivs:"), of("Seccomp:")), ("1", "2"), "{status}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(of(set), "0000000000000000", "{set}\n{status}");
        }
        // The store is root's, and root is what it was started by.
        assert_eq!(of("Uid:").split_whitespace().collect::<Vec<_>>(), ["65534"; 4], "{status}");
        assert!(running.end().contains("  "), "its counters can be read all the same");
    }
}

/// Killed at any stage, from the start to being attached, nothing is left on the interface.
#[test]
fn nothing_stays_attached_when_it_is_killed() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    let net = Net::new();
    for (builtin, hook) in [(Builtin::Distance, "xdp"), (Builtin::Filter, "tcx")] {
        place.embed(builtin.object());
        let started = Instant::now();
        let running = place.start(&net, "server", &["--iface", "s0"]);
        let whole = started.elapsed();
        assert_eq!(net.attached("server", "s0"), [hook]);
        running.kill();
        wait_until("the kernel detaches", || net.attached("server", "s0").is_empty());
        const STAGES: u32 = 24;
        for stage in 0..STAGES {
            let mut command = place.command(&net, "server", &["--iface", "s0"]);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(whole * stage / (STAGES - 4));
            child.kill().unwrap();
            child.wait().unwrap();
            wait_until("the kernel detaches", || net.attached("server", "s0").is_empty());
        }
        // And the interface can be used again at once.
        place.start(&net, "server", &["--iface", "s0"]).end();
    }
}

#[test]
fn what_is_in_the_way_is_said_and_nothing_is_attached() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    place.embed(Builtin::Distance.object());
    let net = Net::new();
    let refused = |args: &[&str], status: i32, word: &str| {
        let (got, said) = place.fails(&net, &[], args);
        assert!(got == status && said.contains(word), "{args:?}: {got} {said}");
    };
    refused(&[], 2, "--iface");
    refused(&["--iface", "nothing0"], 1, "no network interface 'nothing0'");
    refused(&["--iface", "s0", "--port", "0"], 2, "need a port");
    refused(&["--iface", "s0", "--hot", "0"], 2, "at least one");
    refused(&["--iface", "s0", "--hoot", "1"], 2, "--hoot");
    let running = place.start(&net, "server", &["--iface", "s0"]);
    refused(&["--iface", "s0"], 1, "another XDP program is attached to s0");
    assert_eq!(net.attached("server", "s0"), ["xdp"], "the first stays");
    // The interface goes away under it, and under what reads from it.
    place.embed(Builtin::Ports.object());
    let reading = place.start(&net, "server", &["--iface", "s0", "--allow", "53"]);
    net.ip("server", &["link", "del", "s0"]);
    for mut running in [running, reading] {
        wait_until("it ends", || running.child.try_wait().unwrap().is_some());
        assert_eq!(running.child.wait().unwrap().code(), Some(1));
        let mut said = String::new();
        running.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("'s0' is gone"), "{said}");
    }
    place.embed(Builtin::Distance.object());

    // Without the capabilities, as root or as another user.
    let lacking = |prefix: &[&str]| {
        let mut command = net.command("server", Path::new("setpriv"));
        command.args(prefix).arg(PROGRAM);
        place.arguments(&mut command, &[], &["--iface", "s1"]);
        let done = command.output().unwrap();
        let said = text(&done.stderr);
        assert!(done.status.code() == Some(127) && said.contains("CAP_BPF"), "{said}");
        assert!(said.contains("Run it as root"), "{said}");
    };
    lacking(&["--bounding-set=-bpf,-perfmon", "--inh-caps=-bpf,-perfmon"]);
    fs::set_permissions(place.path(""), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // A program that another user may read and execute.
    lacking(&["--reuid=65534", "--regid=65534", "--clear-groups"]);
    assert_eq!(net.attached("server", "s1"), Vec::<&str>::new());
}

/// Compiles a program as its author would, with nothing of ours.
fn compile(place: &Place, source: &str) -> Option<Vec<u8>> {
    let (from, to) = (place.path("third.c"), place.path("third.o"));
    fs::write(&from, source).unwrap();
    let include = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
    let done = Command::new("clang")
        .args(["--target=bpf", "-O2", "-g", &include, "-c"])
        .args([&from, Path::new("-o"), &to])
        .output();
    let Ok(done) = done else {
        assert!(
            std::env::var_os("RVF_REQUIRE_TOOLS").is_none(),
            "clang is missing, and RVF_REQUIRE_TOOLS is set"
        );
        eprintln!("SKIPPED: clang is missing (apt-get install clang libbpf-dev)");
        return None;
    };
    assert!(done.status.success(), "{}", text(&done.stderr));
    Some(fs::read(to).unwrap())
}

/// As libbpf's users write them: a section `tc/ingress`, a map by BTF, a relocation by the running kernel's types.
const THIRD_PARTY: &str = r#"
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>

struct sk_buff { unsigned int len; } __attribute__((preserve_access_index));
struct sk_buff___no { int no_such_field_anywhere; } __attribute__((preserve_access_index));

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16);
    __type(key, __u16);
    __type(value, __u64);
} seen SEC(".maps");

SEC("tc/ingress")
int third(struct __sk_buff *skb)
{
    struct udphdr udp;
    __u16 port;
    __u64 one = 1;
    if (bpf_skb_load_bytes(skb, ETH_HLEN + sizeof(struct iphdr), &udp, sizeof(udp)))
        return 0;
    port = bpf_ntohs(udp.dest);
    bpf_map_update_elem(&seen, &port, &one, BPF_ANY);
    // Only with both relocations done is port 5001 dropped and port 5002 not.
    if (port == 5001 && bpf_core_field_exists(struct sk_buff, len))
        return 2;
    if (port == 5002 && bpf_core_field_exists(struct sk_buff___no, no_such_field_anywhere))
        return 2;
    return 0;
}
char _license[] SEC("license") = "GPL";
"#;

#[test]
fn programs_of_others_run_when_a_trusted_key_signed_them() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    let Some(object) = compile(&place, THIRD_PARTY) else { return };
    let net = Net::new();
    place.embed(&object);
    for options in [&[][..], &["--allow-unsigned"]] {
        let (status, said) = place.fails(&net, options, &["--iface", "s0"]);
        assert!(status == 126 && said.contains("rvf sign STORE --key KEY --segment ebpf"), "{status} {said}");
    }
    // It is the third check that says so, and a mere --check too.
    let (_, said) = place.fails(&net, &["--allow-unsigned"], &["--iface", "s0"]);
    assert!(said.contains("check 3 of 7"), "{said}");
    // As good as ours but for one byte is not ours.
    let mut changed = Builtin::Distance.object().to_vec();
    let at = changed.windows(4).position(|four| four == b"ABCD").unwrap_or(changed.len() - 70);
    changed[at] ^= 1;
    place.embed(&changed);
    assert_eq!(place.fails(&net, &["--allow-unsigned"], &["--iface", "s0"]).0, 126);

    place.embed_signed(&object);
    let (status, said) = place.fails(&net, &[], &["--iface", "s0", "--rule", "9=drop"]);
    assert!(status == 2 && said.contains("no use for --rule"), "{status} {said}");
    let running = place.start(&net, "server", &["--iface", "s0"]);
    assert!(running.said.contains("to s0 (tc); ^C"), "{}", running.said);
    let sockets = [5001, 5002].map(|port| net.udp("server", &format!("10.81.1.1:{port}")));
    let client = net.udp("client", "10.81.1.2:0");
    for port in [5001, 5002] {
        client.send_to(b"x", format!("10.81.1.1:{port}")).unwrap();
    }
    assert_eq!(sockets[1].recv(&mut [0; 16]).unwrap(), 1);
    assert!(is_quiet(&sockets[0]));
    running.end();
    client.send_to(b"xy", "10.81.1.1:5001").unwrap();
    assert_eq!(sockets[0].recv(&mut [0; 16]).unwrap(), 2, "detached");
}

#[test]
fn the_verifier_has_the_last_word_and_its_log_is_shown() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    let net = Net::new();
    // It reads a packet without asking where the packet ends.
    let Some(object) = compile(
        &place,
        r#"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int careless(struct xdp_md *ctx)
{
    return *(char *)(long)ctx->data ? XDP_PASS : XDP_DROP;
}
char _license[] SEC("license") = "GPL";
"#,
    ) else {
        return;
    };
    place.embed_signed(&object);
    let (status, said) = place.fails(&net, &[], &["--iface", "s0"]);
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("verifier: ") && said.contains("invalid access to packet"), "{said}");
    assert!(said.contains("the kernel's verifier rejected careless"), "{said}");
    assert_eq!(net.attached("server", "s0"), Vec::<&str>::new());

    // A map that would outlive the program.
    let Some(object) = compile(
        &place,
        r#"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
    __uint(pinning, LIBBPF_PIN_BY_NAME);
} rvf_kept SEC(".maps");
SEC("xdp") int keeper(struct xdp_md *ctx)
{
    __u32 zero = 0;
    return bpf_map_lookup_elem(&rvf_kept, &zero) ? XDP_PASS : XDP_DROP;
}
char _license[] SEC("license") = "GPL";
"#,
    ) else {
        return;
    };
    place.embed_signed(&object);
    let (status, said) = place.fails(&net, &[], &["--iface", "s0"]);
    assert!(status == 126 && said.contains("'rvf_kept' pinned"), "{status} {said}");
    assert!(!Path::new("/sys/fs/bpf/rvf_kept").exists());

    // Maps of a gibibyte, in one piece and in several.
    let Some(object) = compile(
        &place,
        r#"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1 << 14);
    __type(key, __u32);
    __type(value, char[1 << 16]);
} huge SEC(".maps");
struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 1 << 26);
} ring SEC(".maps");
SEC("xdp") int eater(struct xdp_md *ctx)
{
    __u32 zero = 0;
    return bpf_map_lookup_elem(&huge, &zero) && bpf_ringbuf_query(&ring, 0) == 1 ? XDP_DROP : XDP_PASS;
}
char _license[] SEC("license") = "GPL";
"#,
    ) else {
        return;
    };
    place.embed_signed(&object);
    for (args, limit) in [(&["--iface", "s0"][..], 64), (&["--iface", "s0", "--map-memory", "1087"], 1087)] {
        let (status, said) = place.fails(&net, &[], args);
        assert_eq!(status, 124, "{said}");
        assert!(said.contains("1088 MiB") && said.contains("'huge' alone 1024 MiB"), "{said}");
        assert!(
            said.contains(&format!("{limit} MiB is the limit")) && said.contains("--map-memory"),
            "{said}"
        );
    }
    place.start(&net, "server", &["--iface", "s0", "--map-memory", "1088"]).end();

    // Kinds that see more than one interface are not run, whoever signed them.
    let Some(object) = compile(
        &place,
        r#"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("kprobe/vfs_read") int spy(void *ctx) { return 0; }
char _license[] SEC("license") = "GPL";
"#,
    ) else {
        return;
    };
    place.embed_signed(&object);
    let (status, said) = place.fails(&net, &[], &["--iface", "s0"]);
    assert!(status == 126 && said.contains("programs of type kprobe are not run"), "{status} {said}");
}

#[test]
fn the_arguments_are_explained() {
    // Also those of a program that is not there, or may not run.
    let place = Place::small();
    let store = place.store();
    let store = store.to_str().unwrap();
    for kind in ["wasm", "ebpf", "kernel"] {
        for word in ["--help", "-h"] {
            let asked = Command::new(PROGRAM).args([store, "--kind", kind, "--", word]).output().unwrap();
            let plain = Command::new(PROGRAM).args(["--help-of", kind]).output().unwrap();
            assert!(
                asked.status.success() && asked.stdout == plain.stdout && !plain.stdout.is_empty(),
                "{kind}"
            );
        }
    }
    let done = Command::new(PROGRAM).args(["--help-of", "ebpf"]).output().unwrap();
    let said = text(&done.stdout);
    for word in ["--iface", "--hot", "--rule", "--allow", "--elsewhere", "--map-memory"] {
        assert!(said.contains(word), "{said}");
    }
}

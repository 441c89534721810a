//! The XDP program's time: alone, by the kernel's own clock, and over a veth pair, by a client.
//!
//!     cargo bench -p rvf-mount-helper --bench ebpf
//!
//! Root only. The first table runs the program over a packet with `bpf_prog_test_run`; the second starts `rvf-exec` in one network
//! namespace and asks from another. The client and the program share one processor, which is what `taskset -c 1` makes of it.
#![allow(clippy::unwrap_used, reason = "a bench that fails says where")]

#[path = "../tests/net/mod.rs"]
mod net;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use net::Net;
use rvf_bpf::hot::{HotSet, Metric, Query};
use rvf_bpf::wire::Answer;
use rvf_bpf::{Builtin, ProgramOptions, ProgramPayload, maps};
use rvf_cow::{BadRow, Batch, CreateOptions, Embedding, Store};
use rvf_format::SegType;
use rvf_index::NoProgress;
use rvf_mount_helper::ebpf::Loaded;

const SIZES: [(usize, usize); 7] =
    [(32, 16), (32, 256), (128, 16), (128, 256), (384, 16), (384, 256), (1024, 96)];
const RUNS: usize = 2000;
const K: usize = 10;
/// Of both ends of a packet.
const MAC: [u8; 6] = [2; 6];

/// Components between -1 and 1 that look random.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// A query as it arrives: Ethernet, IPv4, UDP.
fn frame(payload: &[u8]) -> Vec<u8> {
    let total = |head: usize| (head + payload.len()) as u16;
    let mut out = [MAC, MAC].concat();
    out.extend_from_slice(&[0x08, 0x00, 0x45, 0]);
    out.extend_from_slice(&total(28).to_be_bytes());
    out.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1, 0x9C, 0x40]);
    out.extend_from_slice(&rvf_bpf::wire::PORT.to_be_bytes());
    out.extend_from_slice(&total(8).to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(payload);
    out
}

fn quantile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * share) as usize]
}

fn alone(dimension: usize, vectors: usize) {
    let rows: Vec<(u64, Vec<f32>)> = (0..vectors as u64).map(|id| (id, noise(id + 1, dimension))).collect();
    let set = HotSet::new(Metric::Cosine, dimension, &rows).unwrap();
    let config = maps::distance_config(&set, 1, rvf_bpf::wire::PORT, [0; 16], Some(MAC));
    let loaded = Loaded::distance(Builtin::Distance.object(), &set, &config).unwrap();
    let mut times = Vec::with_capacity(RUNS);
    let mut scan = Vec::with_capacity(RUNS);
    for run in 0..RUNS {
        let query = Query::new(&set.scale, &noise(run as u64 + 1_000_000, dimension)).unwrap();
        let done = loaded.test_run(&frame(&query.payload(K, 0))).unwrap();
        assert_eq!(done.verdict, 3);
        times.push(done.took.as_nanos() as f64);
        let started = Instant::now();
        let wanted = set.scan(&query, K);
        scan.push(started.elapsed().as_nanos() as f64);
        assert_eq!(Answer::decode(&done.packet[42..]).unwrap().results, wanted);
    }
    let work = (dimension * vectors) as f64;
    let median = quantile(&mut times, 0.5);
    println!(
        "| {dimension} | {vectors} | {:.2} | {:.2} | {:.2} | {:.3} | {:.2} |",
        median / 1e3,
        quantile(&mut times, 0.1) / 1e3,
        quantile(&mut times, 0.9) / 1e3,
        median / work,
        quantile(&mut scan, 0.5) / 1e3
    );
}

struct Served {
    child: std::process::Child,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn serve(net: &Net, space: &str, store: &Path, args: &[&str]) -> Served {
    let mut command = net.command(space, Path::new(env!("CARGO_BIN_EXE_rvf-exec")));
    command.arg(store).args(["--kind", "ebpf", "--"]).args(args);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("attached"), "{line}");
    Served { child }
}

/// Round trips in microseconds: the program's answers, and those of a socket on the other side that sends back what it gets.
fn over_veth(dimension: usize, vectors: usize, native: bool) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let options = CreateOptions { dimension: dimension as u16, metric: rvf_cow::Metric::Cosine, profile: 0 };
    let store = Store::create(&path, &options).unwrap();
    let batch = Batch {
        dimension,
        ids: Some((0..vectors as u64).collect()),
        vectors: noise(7, dimension * vectors),
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).unwrap();
    let payload = ProgramPayload::new(Builtin::Distance.object(), &ProgramOptions::default()).unwrap();
    let embedding =
        Embedding { kind: SegType::EBPF, payload: &payload.pieces(), digest: payload.digest, name: None };
    store.embed(&embedding).unwrap();
    drop(store);
    let net = Net::new();
    let _server = if native {
        serve(&net, "server", &path, &["--iface", "s0", "--native"])
    } else {
        serve(&net, "server", &path, &["--iface", "s0"])
    };
    let _peer = native.then(|| serve(&net, "client", &path, &["--iface", "c0", "--port", "1", "--native"]));
    let client = net.udp("client", "10.81.1.2:0");
    let echo = net.udp("server", "10.81.1.1:9");
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((len, from)) = echo.recv_from(&mut buffer) {
            let _gone = echo.send_to(&buffer[..len], from);
        }
    });
    client.send_to(&rvf_bpf::wire::describe(0), "10.81.1.1:7474").unwrap();
    let mut buffer = [0; 2048];
    let len = client.recv(&mut buffer).unwrap();
    let scale = Answer::decode(&buffer[..len]).unwrap().scale;
    let mut ask = |to: &str, payload: &[u8]| {
        let started = Instant::now();
        client.send_to(payload, to).unwrap();
        client.recv(&mut buffer).unwrap();
        started.elapsed().as_nanos() as f64 / 1e3
    };
    let (mut answers, mut echoes) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let query = Query::new(&scale, &noise(run as u64 + 1_000_000, dimension)).unwrap().payload(K, 0);
        answers.push(ask("10.81.1.1:7474", &query));
        echoes.push(ask("10.81.1.1:9", &query));
    }
    println!(
        "| {dimension} | {vectors} | {} | {:.1} | {:.1} | {:.1} |",
        if native { "both drivers" } else { "network stack" },
        quantile(&mut answers, 0.5),
        quantile(&mut answers, 0.99),
        quantile(&mut echoes, 0.5)
    );
}

fn main() {
    if !net::can_run() {
        return;
    }
    println!(
        "| dimension | hot vectors | us, median | 10 % | 90 % | ns a component | the same in Rust, us |"
    );
    println!("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (dimension, vectors) in SIZES {
        alone(dimension, vectors);
    }
    println!(
        "\n| dimension | hot vectors | XDP in | round trip us, median | 99 % | echo by a socket, median |"
    );
    println!("| ---: | ---: | --- | ---: | ---: | ---: |");
    for (dimension, vectors) in [(32, 16), (384, 16), (384, 256)] {
        over_veth(dimension, vectors, false);
        over_veth(dimension, vectors, true);
    }
    counting();
}

/// What counting the hits of an answer adds to a query.
fn counting() {
    let dir = tempfile::tempdir().unwrap();
    let options = CreateOptions { dimension: 2, metric: rvf_cow::Metric::L2, profile: 0 };
    let store = Store::create(&dir.path().join("a.rvf"), &options).unwrap();
    let mut times = Vec::with_capacity(RUNS);
    for run in 0..RUNS as u64 {
        let ids: Vec<u64> = (0..K as u64).map(|hit| (run * 131 + hit * 7919) % 60_000).collect();
        let started = Instant::now();
        store.count_accesses(&ids);
        times.push(started.elapsed().as_nanos() as f64);
    }
    println!("\nCounting the {K} hits of an answer: {:.0} ns, median", quantile(&mut times, 0.5));
}

//! eBPF programs and frames that no honest sender makes, over veth.
#![cfg(feature = "ebpf")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;
mod net;
mod running;

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use net::raw::{self, Macs, Wire};
use net::{Net, can_run};
use running::{Place, ask};
use rvf_bpf::hot::Query;
use rvf_bpf::wire::{self, Answer, Status};
use rvf_bpf::{Builtin, maps};
use rvf_cow::Metric;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 81, 1, 1);
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 81, 1, 2);
const SERVER_6: Ipv6Addr = Ipv6Addr::new(0xFD81, 1, 0, 0, 0, 0, 0, 1);
const CLIENT_6: Ipv6Addr = Ipv6Addr::new(0xFD81, 1, 0, 0, 0, 0, 0, 2);
const ALL_NODES_6: Ipv6Addr = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);

/// The number that a counter had at the end.
fn count(counters: &str, name: &str) -> u64 {
    let mut words = counters.split_whitespace();
    words.find(|word| *word == name).and_then(|_| words.next()).unwrap().parse().unwrap()
}

/// Asks in a frame, and takes the frame of the answer.
fn answer(wire: &Wire, frame: &[u8]) -> Vec<u8> {
    wire.send(frame);
    let answer = wire.wait_for(b"RVFA");
    assert!(answer.len() <= frame.len(), "an answer is never longer than its query");
    assert_eq!((&answer[..6], &answer[6..12]), (&frame[6..12], &frame[..6]), "it goes back");
    answer
}

/// Whoever asks gets the answer, and nobody else a frame because of it: what is not for this interface alone goes on to the network stack
/// as it came, and is not answered in the name of everybody or of another machine.
#[test]
fn only_what_was_sent_to_the_interface_is_answered() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    place.embed(Builtin::Distance.object());
    let net = Net::new();
    let (ours, theirs) = (net.mac("server", "s0"), net.mac("client", "c0"));
    let honest = Macs(ours, theirs);
    let (stranger, everybody) = ([2, 0, 0, 0, 0, 0x77], [0xFF; 6]);
    let many = [1, 0, 0x5E, 0, 0, 1];
    // The network stack would drop some of what it gets; the packet socket sees all that the program passes on.
    let (wire, behind) = (net.wire("client", "c0"), net.wire("server", "s0"));
    // Somebody has to take the answers, or the client's network stack sends them back as errors.
    let _takers = ["10.81.1.2:40000", "[fd81:1::2]:40000"].map(|address| net.udp("client", address));
    let running = place.start(&net, "server", &["--iface", "s0"]);

    let describe = |token: u32| raw::udp(40_000, wire::PORT, &wire::describe(token));
    let v4 = |macs, from, to, token| raw::v4(macs, from, to, None, &describe(token));
    let v6 = |macs, from, to, token| raw::v6(macs, from, to, None, &[], &describe(token));
    let short_v4 = raw::v4(honest, CLIENT, SERVER, Some(28), &describe(107));
    let short_v6 = raw::v6(honest, CLIENT_6, SERVER_6, Some(8), &[], &describe(113));
    let frames = [
        v4(Macs(everybody, theirs), CLIENT, Ipv4Addr::new(10, 81, 1, 255), 100),
        v4(Macs(everybody, theirs), CLIENT, Ipv4Addr::BROADCAST, 101),
        v4(Macs(many, theirs), CLIENT, Ipv4Addr::new(224, 0, 0, 1), 102),
        v4(Macs(stranger, theirs), CLIENT, Ipv4Addr::new(8, 8, 8, 8), 103),
        v4(Macs(ours, everybody), CLIENT, SERVER, 104),
        v4(Macs(ours, many), CLIENT, SERVER, 105),
        v4(honest, Ipv4Addr::BROADCAST, SERVER, 106),
        // There are 8 bytes of UDP in it, says IP: an answer would be longer than that.
        short_v4,
        v4(honest, CLIENT, Ipv4Addr::new(224, 0, 0, 1), 108),
        v4(honest, CLIENT, Ipv4Addr::BROADCAST, 109),
        v6(Macs([0x33, 0x33, 0, 0, 0, 1], theirs), CLIENT_6, ALL_NODES_6, 110),
        v6(honest, CLIENT_6, ALL_NODES_6, 111),
        v6(honest, ALL_NODES_6, SERVER_6, 112),
        short_v6,
        v6(Macs(stranger, theirs), CLIENT_6, SERVER_6, 114),
    ];
    for (frame, token) in frames.iter().zip(100_u32..) {
        wire.send(frame);
        let passed = behind.wait_for(&wire::describe(token));
        assert!(passed == *frame, "{token} passes as it came");
    }
    // Of an honest sender everything is answered, and these are the first answers that come.
    for (frame, token, head) in
        [(v4(honest, CLIENT, SERVER, 200), 200, 42), (v6(honest, CLIENT_6, SERVER_6, 201), 201, 62)]
    {
        let bytes = answer(&wire, &frame);
        let found = Answer::decode(&bytes[head..]).unwrap();
        assert_eq!((found.status, found.token), (Status::Ok, token));
    }
    assert_eq!(running.end(), "answered 0  described 2  refused 0  dropped 0");
}

/// Both programs have the same port by default, and may be on one interface: the first in line leaves look-ups to the second.
#[test]
fn look_ups_reach_the_filter_behind_the_distance_program() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    let net = Net::new();
    place.embed(Builtin::Distance.object());
    let distance = place.start(&net, "server", &["--iface", "s0"]);
    place.embed(Builtin::Filter.object());
    let filter = place.start(&net, "server", &["--iface", "s0"]);
    assert_eq!(net.attached("server", "s0"), ["xdp", "tcx"]);
    let (client, socket) = (net.udp("client", "10.81.1.2:0"), net.udp("server", "10.81.1.1:7474"));
    let to = "10.81.1.1:7474";
    let scale = ask(&client, to, &wire::describe(1)).scale;
    for id in [5, 1000, 99] {
        client.send_to(&wire::lookup(id, 0), to).unwrap();
    }
    let mut buffer = [0; 256];
    for id in [5, 99] {
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], wire::lookup(id, 0));
    }
    let query = Query::new(&scale, &[20.2, 1.0]).unwrap().payload(3, 5);
    let ids: Vec<u64> = ask(&client, to, &query).results.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [20, 21, 19]);
    let counters = filter.end();
    assert_eq!((count(&counters, "members"), count(&counters, "others_dropped")), (2, 1), "{counters}");
    assert_eq!(distance.end(), "answered 1  described 1  refused 0  dropped 0");
}

/// The loopback's Ethernet address is all zeros, and so is every receiver there.
#[test]
fn the_loopback_answers_too() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    place.embed(Builtin::Distance.object());
    let net = Net::new();
    let running = place.start(&net, "server", &["--iface", "lo"]);
    for (address, to) in [("127.0.0.1:0", "127.0.0.1:7474"), ("[::1]:0", "[::1]:7474")] {
        let socket = net.udp("server", address);
        assert_eq!(ask(&socket, to, &wire::describe(3)).token, 3);
    }
    assert_eq!(running.end(), "answered 0  described 2  refused 0  dropped 0");
}

/// A header of `len` bytes with one option, for experiments, which who does not know it passes over.
fn options(number: u8, len: u8) -> (u8, Vec<u8>) {
    let mut bytes = vec![len / 8 - 1, 0x1E, len - 4];
    bytes.resize(usize::from(len) - 1, 0);
    (number, bytes)
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The header of a fragment at an offset in bytes.
fn fragment(offset: u16, more: bool) -> (u8, Vec<u8>) {
    let field = (offset | u16::from(more)).to_be_bytes();
    (FRAGMENT, vec![0, field[0], field[1], 0, 0, 0, 9])
}

/// No rule is passed by with headers in front of the port, nor with a packet in pieces.
#[test]
fn rules_of_the_filter_hold_behind_the_headers_of_ipv6() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    place.embed(Builtin::Filter.object());
    let net = Net::new();
    let honest = Macs(net.mac("server", "s0"), net.mac("client", "c0"));
    let running = place.start(&net, "server", &["--iface", "s0", "--port", "0", "--rule", "9001=drop"]);
    let wire = net.wire("client", "c0");
    let socket = |port: u16| net.udp("server", &format!("[::]:{port}"));
    let (dropped, open) = (socket(9001), socket(9002));
    let send = |port: u16, between: &[(u8, Vec<u8>)], text: &[u8]| {
        wire.send(&raw::v6(honest, CLIENT_6, SERVER_6, None, between, &raw::udp(40_000, port, text)));
    };
    let got = |socket: &UdpSocket| {
        let mut buffer = vec![0; 4096];
        let len = socket.recv(&mut buffer).unwrap();
        buffer.truncate(len);
        buffer
    };
    // Without segments left, the network stack passes it over.
    let routing = (ROUTING, vec![0, 4, 0, 0, 0, 0, 0]);
    let chains: [&[(u8, Vec<u8>)]; 7] = [
        &[],
        &[options(DESTINATION, 8)],
        &[options(HOP_BY_HOP, 16)],
        &[options(HOP_BY_HOP, 8), options(DESTINATION, 24), options(DESTINATION, 8)],
        &[fragment(0, false)],
        &[options(HOP_BY_HOP, 8), options(DESTINATION, 8), fragment(0, false), options(DESTINATION, 8)],
        &std::array::from_fn::<_, 16, _>(|_| options(DESTINATION, 8)),
    ];
    for (at, between) in chains.iter().enumerate() {
        send(9001, between, b"in");
        let text = format!("chain {at}");
        send(9002, between, text.as_bytes());
        assert_eq!(got(&open), text.as_bytes());
    }
    // The stack takes routing headers of kinds that are switched on only; the rule looks past all of them.
    send(9001, &[routing], b"in");
    // Of a port that is out of sight nobody can say that it is allowed.
    let too_many: Vec<_> = (0..17).map(|_| options(DESTINATION, 8)).collect();
    send(9002, &too_many, b"in");
    let cut = raw::v6(honest, CLIENT_6, SERVER_6, None, &[options(DESTINATION, 8)], &raw::udp(1, 9001, b""));
    wire.send(&cut[..cut.len() - 6]);

    // In pieces by the sender's own network stack, of both families; the other port shows that they arrive where nothing forbids it.
    let large = vec![7; 2500];
    for (from, server) in [("10.81.1.2:0", "10.81.1.1"), ("[fd81:1::2]:0", "[fd81:1::1]")] {
        let client = net.udp("client", from);
        client.send_to(&large, format!("{server}:9001")).unwrap();
        client.send_to(&large, format!("{server}:9002")).unwrap();
        assert_eq!(got(&open), large);
    }
    dropped.set_nonblocking(true).unwrap();
    assert!(dropped.recv(&mut [0; 16]).is_err(), "nothing came");
    let counters = running.end();
    assert_eq!(count(&counters, "port_dropped"), chains.len() as u64 + 3, "{counters}");
    assert_eq!(count(&counters, "malformed"), 2, "{counters}");
    // Detached, the same comes through.
    dropped.set_nonblocking(false).unwrap();
    send(9001, &[options(DESTINATION, 8)], b"open again");
    assert_eq!(got(&dropped), b"open again");
}

#[test]
fn the_socket_filter_finds_ports_behind_the_headers_of_ipv6() {
    if !can_run() {
        return;
    }
    let place = Place::small();
    place.embed(Builtin::Ports.object());
    let net = Net::new();
    let honest = Macs(net.mac("server", "s0"), net.mac("client", "c0"));
    let mut running = place.start(&net, "server", &["--iface", "s0", "--allow", "53"]);
    let wire = net.wire("client", "c0");
    let send = |port: u16, between: &[(u8, Vec<u8>)]| {
        wire.send(&raw::v6(honest, CLIENT_6, SERVER_6, None, between, &raw::udp(40_000, port, b"ab")));
    };
    let too_many: Vec<_> = (0..17).map(|_| options(DESTINATION, 8)).collect();
    for port in [54, 53] {
        send(port, &[options(HOP_BY_HOP, 8), options(DESTINATION, 24)]);
        send(port, &[fragment(0, true)]);
        // A later piece has no port, and of this there is none in sight: neither is let through.
        send(port, &[fragment(8, true)]);
        send(port, &too_many);
    }
    // The last one, which no header is in the way of.
    send(53, &[]);
    let lines: Vec<String> = std::iter::from_fn(|| Some(running.line()))
        .map_while(|line| (line != "udp 40000 > 53  64 bytes").then_some(line))
        .collect();
    assert_eq!(lines, ["udp 40000 > 53  96 bytes", "udp 40000 > 53  72 bytes"]);
    let counters = running.end();
    assert_eq!((count(&counters, "let_through"), count(&counters, "other_port")), (3, 2), "{counters}");
}

/// A large id makes a large bitmap, of which nearly all is zeros.
#[test]
fn members_far_apart_are_told_from_others() {
    if !can_run() {
        return;
    }
    let last = u64::from(maps::MAX_MEMBER_WORDS) * 64 - 1;
    let ids = vec![5, 1 << 20, last];
    let place = Place::new(Metric::L2, 2, ids.clone(), vec![1.0; 6]);
    place.embed(Builtin::Filter.object());
    let net = Net::new();
    let running = place.start(&net, "server", &["--iface", "s0"]);
    let (client, socket) = (net.udp("client", "10.81.1.2:0"), net.udp("server", "10.81.1.1:7474"));
    for id in [4, 5, 6, 1 << 20, last - 1, last, last + 1] {
        client.send_to(&wire::lookup(id, 0), "10.81.1.1:7474").unwrap();
    }
    let mut buffer = [0; 256];
    for id in ids {
        let len = socket.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], wire::lookup(id, 0));
    }
    let counters = running.end();
    assert_eq!((count(&counters, "members"), count(&counters, "others_dropped")), (3, 4), "{counters}");
}

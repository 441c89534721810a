//! The query server as its clients see it, also the hostile ones. Every test has a server of its own on a real socket.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use rvf_cow::query::{answer, npy};
use rvf_cow::{BadRow, Batch, CreateOptions, Metric, NoProgress, SearchRequest, Store, Value};
use rvf_kernel::server::{Options, Page, Server, Stopper};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing here takes this long unless it hangs.
const LONG: Duration = Duration::from_secs(30);

struct Place {
    _dir: tempfile::TempDir,
    path: PathBuf,
    /// For writing, as another program would.
    store: Arc<Store>,
    address: SocketAddr,
    stopper: Stopper,
    running: Option<JoinHandle<std::io::Result<()>>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stopper.stop();
        let ended = self.running.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap().unwrap();
        }
    }
}

fn rows(first: u64, n: usize) -> Batch {
    let vectors = (0..n).flat_map(|i| [first as f32 + i as f32, 0.5, -1.0]).collect();
    let metadata = (0..n).map(|i| vec![("name".to_owned(), Value::String(format!("row \"{i}\"")))]).collect();
    Batch {
        dimension: 3,
        ids: Some((0..n as u64).map(|i| first + i).collect()),
        vectors,
        metadata,
        on_bad_row: BadRow::Refuse,
    }
}

fn place_with(options: Options) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    let store =
        Store::create(&path, &CreateOptions { dimension: 3, metric: Metric::L2, profile: 0 }).unwrap();
    store.ingest(&rows(1, 50), &NoProgress).unwrap();
    let served = Store::open(
        &path,
        &rvf_cow::OpenOptions { access: rvf_cow::Access::ReadOnly, ..rvf_cow::OpenOptions::default() },
    )
    .unwrap();
    let server = Server::bind("127.0.0.1:0", served, options).unwrap();
    let (address, stopper) = (server.address().unwrap(), server.stopper().unwrap());
    let running = Some(std::thread::spawn(move || server.run()));
    Place { _dir: dir, path, store, address, stopper, running }
}

fn place() -> Place {
    place_with(Options::default())
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().filter_map(|line| line.split_once(": ")).find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A client that remembers what it has read too much.
struct Client {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl Client {
    fn new(place: &Place) -> Self {
        let stream = TcpStream::connect(place.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        Self { stream, rest: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// `None` when the connection ended before an answer began.
    fn receive(&mut self, with_body: bool) -> Option<Answer> {
        let mut more = |rest: &mut Vec<u8>| {
            let mut piece = [0; 65536];
            let n = self.stream.read(&mut piece).unwrap_or(0);
            rest.extend_from_slice(&piece[..n]);
            n > 0
        };
        let end = loop {
            match self.rest.windows(4).position(|w| w == b"\r\n\r\n") {
                Some(at) => break at + 4,
                None if more(&mut self.rest) => {}
                None if self.rest.is_empty() => return None,
                None => panic!("cut off: {}", String::from_utf8_lossy(&self.rest)),
            }
        };
        let head = String::from_utf8(self.rest.drain(..end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let len = answer.header("Content-Length").map_or(0, |n| n.parse::<usize>().unwrap());
        if with_body {
            while self.rest.len() < len {
                assert!(more(&mut self.rest), "the body is cut off");
            }
            answer.body = self.rest.drain(..len).collect();
        }
        Some(answer)
    }

    fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).receive(true).unwrap()
    }

    /// Reads until the server closes.
    fn is_closed(&mut self) -> bool {
        let mut left = Vec::new();
        self.stream.read_to_end(&mut left).is_ok() && left.is_empty()
    }
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{more}\r\n")
}

fn post(body: impl AsRef<[u8]>, more: &str) -> Vec<u8> {
    let body = body.as_ref();
    let head =
        format!("POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n{more}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What changes from run to run.
fn without_times(json: &str) -> String {
    let mut out = String::new();
    for (n, part) in json.split("\"microseconds\": ").enumerate() {
        out.push_str(if n == 0 { part } else { part.trim_start_matches(|c: char| c != ',') });
    }
    out
}

#[test]
fn every_form_of_a_request_has_the_engines_answer() {
    let place = place();
    let view = place.store.view();
    let queries = [7.2_f32, 0.5, -1.0];
    let request = SearchRequest {
        queries: &queries,
        k: 3,
        ef: None,
        filter: None,
        exact: false,
        deadline: None,
        threads: 1,
    };
    let answers = view.search(&request).unwrap();
    let mut want = Vec::new();
    answer::json(&answers, |_| None, &mut want);
    let want = without_times(&String::from_utf8(want).unwrap());
    assert!(want.contains("\"id\": 7"), "{want}");
    let raw: Vec<u8> = queries.iter().flat_map(|v| v.to_le_bytes()).collect();
    let array = [npy::write_header(npy::Dtype::F32, &[1, 3]), raw.clone()].concat();
    let mut client = Client::new(&place);
    let object = br#"{"vector":[7.2,0.5,-1],"k":3}"#;
    let answer = client.ask(post(object, ""));
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    assert_eq!(without_times(&answer.text()), want);
    // The other forms have no k of their own.
    let ten = without_times(&client.ask(post("7.2,0.5,-1\n", "")).text());
    for body in [&raw[..], &array, b"[7.2,0.5,-1]", b"{\"vector\":[7.2,0.5,-1]}"] {
        assert_eq!(without_times(&client.ask(post(body, "")).text()), ten);
    }
    let text = client.ask(post(object, "Accept: text/plain\r\n")).text();
    let first = format!("7\t{}\n", answers[0].hits[0].distance);
    assert!(text.starts_with(&first) && text.lines().count() == 3, "{text}");
    let by_id = r#"{"id":9,"k":2,"filter":"name = 'row \"8\"'","fields":["name"]}"#;
    let found: serde_json::Value = serde_json::from_slice(&client.ask(post(by_id, "")).body).unwrap();
    assert_eq!(found["queries"][0]["hits"][0]["id"], 9);
    assert_eq!(found["queries"][0]["hits"][0]["fields"]["name"], "row \"8\"");
    assert_eq!(found["queries"][0]["hits"].as_array().unwrap().len(), 1);
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let place = place();
    let mut client = Client::new(&place);
    for (body, status, word) in [
        (&b"1,2"[..], 400, "dimension"),
        (b"", 400, "empty"),
        (b"{\"vector\":[1,2,3],\"frobnicate\":1}", 400, "frobnicate"),
        (b"{\"vector\":[1,2,1e999]}", 400, "finite"),
        (b"{\"id\":999}", 404, "999"),
        (b"{\"id\":1,\"filter\":\"year >\"}", 400, "filter"),
        (b"{\"vector\":[1,2,3", 400, ""),
        (b"{\"filter\":\"\xff\xfe\",\"id\":1}", 400, ""),
        (b"\xff\xfe\xfd", 400, "bytes"),
    ] {
        let answer = client.ask(post(body, ""));
        assert_eq!(answer.status, status, "{}", answer.text());
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(said["error"].as_str().unwrap().contains(word), "{said}");
    }
    // The same connection still works: none of these was a mistake of the protocol.
    assert_eq!(client.ask(get("/health", "")).text(), "{\"status\": \"ok\"}\n");
    assert_eq!(client.ask(get("/nothing", "")).status, 404);
    assert_eq!(client.ask(get("/query", "")).header("Allow"), Some("POST"));
    let put = client.ask("PUT /file HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!((put.status, put.header("Allow")), (405, Some("GET, HEAD")));
}

#[test]
fn status_and_commits_of_others_are_seen() {
    let place = place();
    let mut client = Client::new(&place);
    let vectors = |client: &mut Client| {
        let answer = client.ask(get("/status", ""));
        let status: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&status["dimension"], &status["read_only"]), (&3.into(), &true.into()));
        status["vectors"].as_u64().unwrap()
    };
    assert_eq!(vectors(&mut client), 50);
    place.store.ingest(&rows(1000, 1), &NoProgress).unwrap();
    assert_eq!(vectors(&mut client), 51);
    let found = client.ask(post(r#"{"id":1000,"k":1}"#, "")).text();
    assert!(found.contains("\"id\": 1000, \"distance\": 0"), "{found}");
    std::fs::remove_file(&place.path).unwrap();
    let health = client.ask(get("/health", ""));
    assert_eq!(health.status, 503);
    assert!(health.text().contains("removed"), "{}", health.text());
}

#[test]
fn the_file_comes_whole_in_parts_and_as_of_one_commit() {
    let place = place();
    let file = std::fs::read(&place.path).unwrap();
    let mut client = Client::new(&place);
    let whole = client.ask(get("/file", ""));
    assert!(whole.status == 200 && whole.body == file);
    let etag = whole.header("ETag").unwrap().to_owned();
    let len = file.len();
    let part = client.ask(get("/file", "Range: bytes=5-9\r\n"));
    assert_eq!((part.status, &part.body[..]), (206, &file[5..10]));
    assert_eq!(part.header("Content-Range"), Some(&*format!("bytes 5-9/{len}")));
    let last = client.ask(get("/file", "Range: bytes=-7\r\n"));
    assert_eq!((last.status, &last.body[..]), (206, &file[len - 7..]));
    let outside = client.ask(get("/file", &format!("Range: bytes={len}-\r\n")));
    assert_eq!((outside.status, outside.header("Content-Range")), (416, Some(&*format!("bytes */{len}"))));
    let same = client.send(get("/file", &format!("If-None-Match: {etag}\r\n"))).receive(false).unwrap();
    assert_eq!(same.status, 304);
    let head = client.send("HEAD /file HTTP/1.1\r\nHost: localhost\r\n\r\n").receive(false).unwrap();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some(&*len.to_string())));
    // Nothing was sent after these heads: the next answer is in step.
    assert_eq!(client.ask(get("/health", "")).status, 200);

    place.store.ingest(&rows(1000, 1), &NoProgress).unwrap();
    let changed = client.ask(get("/file", &format!("Range: bytes=0-9\r\nIf-Match: {etag}\r\n")));
    assert_eq!(changed.status, 412);
    let new = client.ask(get("/file", &format!("Range: bytes=0-9\r\nIf-Range: {etag}\r\n")));
    assert!(new.status == 200 && new.body == std::fs::read(&place.path).unwrap());
    assert_ne!(new.header("ETag"), Some(&*etag));
}

#[test]
fn requests_may_be_pipelined_and_bodies_awaited() {
    let place = place();
    let mut client = Client::new(&place);
    let many = [get("/health", "").into_bytes(), post("1,2,3", ""), get("/status", "").into_bytes()].concat();
    client.send(&many).send(&many);
    for _ in 0..2 {
        assert!(client.receive(true).unwrap().text().contains("ok"));
        assert!(client.receive(true).unwrap().text().contains("hits"));
        assert!(client.receive(true).unwrap().text().contains("dimension"));
    }
    // A byte at a time.
    for byte in post("1,2,3", "") {
        client.send([byte]);
    }
    assert_eq!(client.receive(true).unwrap().status, 200);
    client
        .send("POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.receive(true).unwrap().status, 100);
    assert_eq!(client.ask("1,2,3").status, 200);
    let last = client.ask(get("/health", "Connection: close\r\n"));
    assert_eq!(last.header("Connection"), Some("close"));
    assert!(client.is_closed());
    let mut old = Client::new(&place);
    assert_eq!(old.ask("GET /health HTTP/1.0\r\n\r\n").status, 200);
    assert!(old.is_closed());
}

#[test]
fn what_is_no_http_ends_the_connection() {
    let place = place();
    for (bytes, status) in [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
        (b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_vec(), 421),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n".to_vec(), 403),
        (post("1,2,3", "Transfer-Encoding: chunked\r\n"), 411),
        (post("1,2,3", "Content-Length: 6\r\n"), 400),
        (get("/x", &format!("X: {}\r\n", "y".repeat(40_000))).into_bytes(), 431),
        (get("/x", &"X: y\r\n".repeat(1000)).into_bytes(), 431),
    ] {
        let mut client = Client::new(&place);
        let answer = client.ask(&bytes);
        assert_eq!((answer.status, answer.header("Connection")), (status, Some("close")));
        assert!(client.is_closed());
    }
}

#[test]
fn large_bodies_are_bounded_one_by_one_and_together() {
    let options = Options { max_body: 1 << 20, body_budget: 3 << 19, ..Options::default() };
    let place = place_with(options);
    let head =
        |len: usize| format!("POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len}\r\n\r\n");
    // Refused before it is sent, and also readable by a client that goes on sending.
    let mut client = Client::new(&place);
    assert_eq!(client.ask(head(2 << 20)).status, 413);
    let mut stubborn = Client::new(&place);
    stubborn.send(head(2 << 20)).send(vec![b'1'; 128 << 10]);
    assert_eq!(stubborn.receive(true).unwrap().status, 413);
    // The first one's body is held; there is room for half of another. Which of the two the server looks at first is for the
    // machine to say: then it is the other way round, and tried again.
    let until = Instant::now() + LONG;
    let mut first;
    loop {
        first = Client::new(&place);
        first.send(head(1 << 20)).send("1,2,");
        let mut second = Client::new(&place);
        let answer = second.send(head(1 << 20)).send(vec![b' '; 1 << 20]).receive(true);
        match answer.map(|answer| answer.status) {
            Some(503) => break,
            other => assert!(Instant::now() < until, "{other:?}"),
        }
    }
    assert_eq!(Client::new(&place).ask(post("1,2,3", "")).status, 200);
    let rest = [b"3".to_vec(), vec![b' '; (1 << 20) - 5]].concat();
    assert_eq!(first.ask(rest).status, 200);
    let big = format!("{{\"vectors\":[{}[1,2,3]],\"k\":50}}", "[1,2,3],".repeat(50_000));
    assert_eq!(Client::new(&place).ask(post(big, "")).status, 413);
}

/// A client may ask for less time than the server gives, never for more.
#[test]
fn the_deadline_is_the_servers() {
    let place = place_with(Options { query_time: Duration::ZERO, ..Options::default() });
    let mut client = Client::new(&place);
    for body in
        [r#"{"id":1}"#, r#"{"id":1,"timeout_ms":60000}"#, r#"{"id":1,"timeout_ms":18446744073709551615}"#]
    {
        let answer = client.ask(post(body, ""));
        assert_eq!(answer.status, 504, "{body}: {}", answer.text());
    }
    let place = place_with(Options::default());
    let mut client = Client::new(&place);
    assert_eq!(client.ask(post(r#"{"id":1,"timeout_ms":0}"#, "")).status, 504);
    assert_eq!(client.ask(post(r#"{"id":1,"timeout_ms":60000}"#, "")).status, 200);
}

/// Every one of so many vectors asks for all rows, each with its fields.
fn everything(queries: usize) -> Vec<u8> {
    let vectors = vec!["[1,2,3]"; queries].join(",");
    post(format!("{{\"vectors\":[{vectors}],\"k\":50,\"fields\":true}}"), "")
}

#[test]
fn large_answers_are_bounded_one_by_one() {
    let place = place_with(Options { max_answer: 32 << 10, ..Options::default() });
    let mut client = Client::new(&place);
    let small = client.ask(everything(5));
    assert_eq!(small.status, 200);
    assert!((12 << 10..32 << 10).contains(&small.body.len()), "{} bytes", small.body.len());
    let large = client.ask(everything(20));
    assert_eq!(large.status, 413);
    assert!(large.text().contains("more than 32768 bytes"), "{}", large.text());
    // The same in text, which has no fields.
    let text = |queries: usize| {
        let body = format!("{{\"vectors\":[{}],\"k\":50}}", vec!["[1,2,3]"; queries].join(","));
        post(body, "Accept: text/plain\r\n")
    };
    assert_eq!(client.ask(text(20)).status, 200);
    assert_eq!(client.ask(text(200)).status, 413);
}

#[test]
fn large_answers_are_bounded_together_until_they_are_sent() {
    let place = place_with(Options { answer_budget: 40 << 20, ..Options::default() });
    // More than the buffers of two sockets hold.
    let request = everything(7000);
    let mut first = Client::new(&place);
    first.send(&request);
    // It is being sent, and is not taken.
    assert_eq!(first.stream.peek(&mut [0]).unwrap(), 1);
    let mut second = Client::new(&place);
    let refused = second.ask(&request);
    assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("1")));
    assert_eq!(second.ask(everything(1)).status, 200, "for a small one there is room");
    let whole = first.receive(true).unwrap();
    assert_eq!(whole.status, 200);
    assert!((20 << 20..40 << 20).contains(&whole.body.len()), "{} bytes", whole.body.len());
    // The server gives it back a moment after the last byte was sent.
    let until = Instant::now() + LONG;
    while second.ask(&request).status != 200 {
        assert!(Instant::now() < until, "nothing was given back");
    }
}

#[test]
fn slow_clients_are_cut_off() {
    let short = Duration::from_millis(300);
    let options = Options { head_time: short, idle_time: short, stall_time: short, ..Options::default() };
    let place = place_with(options);
    let mut idle = Client::new(&place);
    let mut dripping = Client::new(&place);
    let mut stalled = Client::new(&place);
    stalled.send("POST /query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n1,");
    assert!(idle.is_closed());
    let mut sent = 0;
    while sent < 10_000 && dripping.stream.write_all(b"G").is_ok() {
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(sent < 10_000, "the server waits for ever for the end of a head");
    assert_eq!(stalled.receive(true).unwrap().status, 408);
    assert!(stalled.is_closed());
    assert_eq!(Client::new(&place).ask(get("/health", "")).status, 200);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let options = Options { stall_time: Duration::from_millis(300), ..Options::default() };
    let place = place_with(options);
    // More than the buffers of two sockets hold.
    for first in [10_000, 20_000, 30_000] {
        place.store.ingest(&rows(first, 5000), &NoProgress).unwrap();
    }
    let mut client = Client::new(&place);
    let wanted = 200;
    for _ in 0..wanted {
        if client.stream.write_all(get("/file", "").as_bytes()).is_err() {
            break;
        }
    }
    // Without reading: the server gives up, and its thread ends.
    let until = Instant::now() + LONG;
    while client.stream.write_all(b"x").is_ok() {
        assert!(Instant::now() < until, "the server still waits");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn connections_are_bounded_and_given_back() {
    let place = place_with(Options { max_connections: 3, ..Options::default() });
    let mut open: Vec<Client> = (0..3).map(|_| Client::new(&place)).collect();
    for client in &mut open {
        assert_eq!(client.ask(get("/health", "")).status, 200);
    }
    let mut fourth = Client::new(&place);
    assert_eq!(fourth.receive(true).unwrap().status, 503);
    open.pop().unwrap().stream.shutdown(Shutdown::Both).unwrap();
    let until = Instant::now() + LONG;
    while Client::new(&place).send(get("/health", "")).receive(true).is_none_or(|a| a.status != 200) {
        assert!(Instant::now() < until, "the place is not given back");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn stopping_ends_connections_that_wait() {
    let place = place();
    let mut waiting = Client::new(&place);
    assert_eq!(waiting.ask(get("/health", "")).status, 200);
    let started = Instant::now();
    drop(place);
    assert!(waiting.is_closed());
    assert!(started.elapsed() < LONG);
}

#[test]
fn pages_are_served_with_their_policy() {
    let page = Page { path: "/", content_type: "text/html", policy: "default-src 'self'", body: b"<p>hello" };
    let place = place_with(Options { pages: vec![page], ..Options::default() });
    let answer = Client::new(&place).ask(get("/?x=1", ""));
    assert_eq!(answer.text(), "<p>hello");
    assert_eq!(answer.header("Content-Security-Policy"), Some("default-src 'self'"));
    let other = Client::new(&place).ask(get("/status", ""));
    assert!(other.header("Content-Security-Policy").unwrap().starts_with("default-src 'none'"));
}

#[test]
fn many_clients_at_once_get_their_own_answers() {
    let place = place();
    std::thread::scope(|scope| {
        for first in 0..8_u64 {
            let place = &place;
            scope.spawn(move || {
                let mut client = Client::new(place);
                for n in 0..50 {
                    let id = 1 + (first * 50 + n) % 50;
                    let text =
                        client.ask(post(format!("{{\"id\":{id},\"k\":1}}"), "Accept: text/plain\r\n")).text();
                    assert!(text.starts_with(&format!("{id}\t0")), "{text}");
                }
            });
        }
    });
}

//! One connection: requests in, answers out, everything within bounds of size and time.

use super::api::Api;
use super::budget::Taken;
use super::head::{self, Head, MAX_HEAD};
use super::reply::{Refusal, Reply};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A body moves at this rate at least, taken over all of it.
const SLOWEST_BYTES_PER_SECOND: u64 = 16 << 10;
/// Bytes handed to the socket at once: small enough that a slow reader is noticed.
const PIECE: usize = 256 << 10;
/// What is still taken from a client that was refused, so that it can read why.
const LAST_WORDS: usize = 256 << 10;
const LAST_TIME: Duration = Duration::from_secs(2);

/// Why a connection ends before an answer was given.
enum End {
    /// The client is gone, or was too slow, or the server stops.
    Silent,
    /// It is told why.
    Refused(Refusal),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Silent
    }
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Serves a connection until it ends.
pub(super) fn serve(stream: &TcpStream, api: &Api, stopping: &AtomicBool) {
    // Answers are written whole: waiting for more to send with them would only delay their ends.
    let _slower = stream.set_nodelay(true);
    let mut connection = Connection { stream, api, buffer: Vec::new() };
    while !stopping.load(Ordering::Acquire) {
        match connection.one() {
            Ok(true) => {}
            Ok(false) | Err(End::Silent) => break,
            Err(End::Refused(refusal)) => {
                let reply = Reply::refusal(&refusal);
                if connection.send(&reply, false, false).is_ok() {
                    connection.part();
                }
                break;
            }
        }
    }
}

struct Connection<'a> {
    stream: &'a TcpStream,
    api: &'a Api,
    /// Bytes that were received and not used: the begin of the next request.
    buffer: Vec<u8>,
}

impl Connection<'_> {
    /// Takes and answers one request. Whether the connection goes on.
    fn one(&mut self) -> Result<bool, End> {
        let head = self.head()?;
        let body = self.body(&head)?;
        let reply = self.api.answer(&head, &body.0).unwrap_or_else(|refusal| Reply::refusal(&refusal));
        drop(body);
        self.send(&reply, head.keep, head.method == head::Method::Head)?;
        Ok(head.keep)
    }

    fn head(&mut self) -> Result<Head, End> {
        let options = &self.api.options;
        let waits = if self.buffer.is_empty() { options.idle_time } else { options.head_time };
        let mut deadline = Instant::now() + waits;
        let mut parsed_at = usize::MAX;
        loop {
            if parsed_at != self.buffer.len() && !self.buffer.is_empty() {
                parsed_at = self.buffer.len();
                if let Some((head, len)) = head::parse(&self.buffer, &options.hosts)? {
                    self.buffer.drain(..len);
                    return Ok(head);
                }
            }
            let fresh = self.buffer.is_empty();
            match self.receive(MAX_HEAD, deadline) {
                Ok(0) => return Err(End::Silent),
                Ok(_) if fresh => deadline = Instant::now() + options.head_time,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::TimedOut && !fresh => {
                    return Err(Refusal::new(408, "the request did not arrive in time").into());
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn body(&mut self, head: &Head) -> Result<(Vec<u8>, Option<Taken>), End> {
        let api = self.api;
        let options = &api.options;
        if head.length == 0 {
            return Ok((Vec::new(), None));
        }
        if head.length > options.max_body {
            return Err(Refusal::new(
                413,
                format!("a body of {} bytes; at most {} are taken", head.length, options.max_body),
            )
            .into());
        }
        let Some(taken) = api.bodies.take(head.length) else {
            return Err(Refusal::new(503, "too many large requests at the same time; try again").into());
        };
        let len = head.length as usize;
        if head.expects && self.buffer.is_empty() {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n", Instant::now() + options.stall_time)?;
        }
        let slowest = Duration::from_secs(head.length / SLOWEST_BYTES_PER_SECOND) + options.stall_time;
        let end = Instant::now() + slowest;
        while self.buffer.len() < len {
            let deadline = end.min(Instant::now() + options.stall_time);
            match self.receive(len, deadline) {
                Ok(0) => return Err(End::Silent),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::TimedOut => {
                    return Err(Refusal::new(408, "the body did not arrive in time").into());
                }
                Err(e) => return Err(e.into()),
            }
        }
        let rest = self.buffer.split_off(len);
        Ok((std::mem::replace(&mut self.buffer, rest), Some(taken)))
    }

    /// Receives until the buffer may hold `limit` bytes, once, before a deadline.
    fn receive(&mut self, limit: usize, deadline: Instant) -> io::Result<usize> {
        let have = self.buffer.len();
        // What is pipelined behind a small request comes along; a large body grows with what really arrives.
        let room = limit.saturating_sub(have).clamp(1, 64 << 10);
        self.buffer.resize(have + room, 0);
        let result = loop {
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                break Err(ErrorKind::TimedOut.into());
            };
            if let Err(e) = self.stream.set_read_timeout(Some(left)) {
                break Err(e);
            }
            let Some(space) = self.buffer.get_mut(have..) else { break Ok(0) };
            match self.stream.read(space) {
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                other => break other,
            }
        };
        self.buffer.truncate(have + *result.as_ref().unwrap_or(&0));
        result
    }

    fn write(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            let left = left.ok_or(ErrorKind::TimedOut)?;
            self.stream.set_write_timeout(Some(left))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn send(&mut self, reply: &Reply, keep: bool, head_only: bool) -> io::Result<()> {
        let stall = self.api.options.stall_time;
        let head = reply.head(keep);
        let body = if head_only || reply.status == 304 { &[] } else { reply.body.bytes() };
        // One packet where it is small.
        let first = body.len().min(PIECE);
        let (start, rest) = body.split_at(first);
        let whole = [head.as_slice(), start].concat();
        // Only a copy cannot change any more. Nothing was promised yet.
        if reply.body.is_lost() {
            let refusal = Refusal::new(500, "the file was cut short while it was read");
            return self.send(&Reply::refusal(&refusal), keep, head_only);
        }
        let end = Instant::now() + stall + Duration::from_secs(body.len() as u64 / SLOWEST_BYTES_PER_SECOND);
        self.write(&whole, end.min(Instant::now() + stall))?;
        for piece in rest.chunks(PIECE) {
            self.write(piece, end.min(Instant::now() + stall))?;
            // What was promised cannot be taken back: the connection breaks off, and the length tells.
            if reply.body.is_lost() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }

    /// Takes leave of a client that may still be sending: closing at once would reset the connection, and the answer
    /// with it.
    fn part(&mut self) {
        if self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + LAST_TIME;
        let mut taken = 0;
        while taken < LAST_WORDS {
            self.buffer.clear();
            match self.receive(64 << 10, deadline) {
                Ok(0) | Err(_) => break,
                Ok(len) => taken += len,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Options, file};
    use super::*;
    use rvf_cow::{BadRow, Batch, CreateOptions, Metric, NoProgress, Store};
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let far = TcpStream::connect(listener.local_addr().expect("an address")).expect("connect");
        (listener.accept().expect("accept").0, far)
    }

    /// Between the look at the file, which made the answer, and the copy that is sent, another program may cut it.
    #[test]
    fn zeros_in_the_place_of_a_cut_file_are_not_sent() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("a.rvf");
        let options = CreateOptions { dimension: 3, metric: Metric::L2, profile: 0 };
        let store = Store::create(&path, &options).expect("create");
        let batch = Batch {
            dimension: 3,
            ids: None,
            vectors: vec![1.0; 9000],
            metadata: Vec::new(),
            on_bad_row: BadRow::Refuse,
        };
        store.ingest(&batch, &NoProgress).expect("ingest");
        let request = b"GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let (head, _) = head::parse(request, &[]).ok().flatten().expect("a request");
        let reply = file::reply(&store.view(), &head).expect("the file is whole");
        let api = Api::new(store, Options::default());
        std::fs::File::options().write(true).open(&path).expect("open").set_len(0).expect("cut");

        let (near, mut far) = pair();
        let mut connection = Connection { stream: &near, api: &api, buffer: Vec::new() };
        connection.send(&reply, false, false).expect("an answer");
        drop(near);
        let mut answer = String::new();
        far.read_to_string(&mut answer).expect("text");
        assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
        assert!(answer.contains("cut short") && !answer.contains('\0'), "{answer}");
    }
}

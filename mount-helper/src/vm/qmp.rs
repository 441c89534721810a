//! QEMU's control channel, as far as it is needed: one command, one answer.

use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Longest answer.
const MAX_ANSWER: usize = 1 << 20;

/// The channel.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    buffer: Vec<u8>,
    greeted: bool,
}

impl Qmp {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, buffer: Vec::new(), greeted: false }
    }

    /// Has a command done, and gives its result.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> io::Result<Value> {
        self.command(command, arguments, None)
    }

    /// The same, for a command that takes a descriptor. QEMU gets a copy of it.
    pub(super) fn execute_with(
        &mut self,
        command: &str,
        arguments: &Value,
        fd: BorrowedFd<'_>,
    ) -> io::Result<Value> {
        self.command(command, arguments, Some(fd))
    }

    fn command(&mut self, command: &str, arguments: &Value, fd: Option<BorrowedFd<'_>>) -> io::Result<Value> {
        if !self.greeted {
            let until = Instant::now() + ANSWER_TIME;
            while self.message(until)?.get("QMP").is_none() {}
            self.greeted = true;
            self.command("qmp_capabilities", &json!({}), None)?;
        }
        self.send(command, arguments, fd)?;
        let until = Instant::now() + ANSWER_TIME;
        loop {
            let message = self.message(until)?;
            if let Some(result) = message.get("return") {
                return Ok(result.clone());
            }
            if let Some(error) = message.get("error") {
                let text = error.get("desc").and_then(Value::as_str).unwrap_or("refused");
                return Err(io::Error::other(format!("{command}: {text}")));
            }
        }
    }

    fn send(&mut self, command: &str, arguments: &Value, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.set_write_timeout(Some(ANSWER_TIME))?;
        let mut rest = line.as_bytes();
        let mut fds: &[BorrowedFd<'_>] = fd.as_slice();
        while !rest.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(io::Error::other("no room for a descriptor"));
            }
            match sendmsg(&self.stream, &[IoSlice::new(rest)], &mut control, SendFlags::NOSIGNAL) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    rest = rest.get(sent..).unwrap_or_default();
                    // It went with the first byte.
                    fds = &[];
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn message(&mut self, until: Instant) -> io::Result<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|e| io::Error::new(ErrorKind::InvalidData, e));
            }
            if self.buffer.len() > MAX_ANSWER {
                return Err(io::Error::new(ErrorKind::InvalidData, "an answer without an end"));
            }
            let left = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            self.stream.set_read_timeout(Some(left.ok_or(ErrorKind::TimedOut)?))?;
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.buffer.extend_from_slice(piece.get(..len).unwrap_or_default()),
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::fd::AsFd as _;

    use rustix::net::RecvFlags;

    /// A peer that answers each line with the next of these.
    fn peer(
        greeting: &'static str,
        answers: Vec<&'static str>,
    ) -> (Qmp, std::thread::JoinHandle<Vec<String>>) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let talk = std::thread::spawn(move || {
            theirs.write_all(greeting.as_bytes()).expect("sent");
            let mut seen = Vec::new();
            let mut lines = BufReader::new(theirs.try_clone().expect("a copy")).lines();
            for answer in answers {
                seen.push(lines.next().expect("a line").expect("text"));
                theirs.write_all(answer.as_bytes()).expect("sent");
            }
            seen
        });
        (Qmp::new(ours), talk)
    }

    #[test]
    fn answers_are_told_from_events() {
        let (mut qmp, talk) = peer(
            "{\"QMP\": {\"version\": {}}}\r\n",
            vec![
                "{\"return\": {}}\r\n",
                "{\"event\": \"RTC_CHANGE\"}\r\n{\"return\": \"text\"}\r\n",
                "{\"error\": {\"desc\": \"no\"}}\r\n",
                "gibberish\r\n",
            ],
        );
        assert_eq!(qmp.execute("one", &json!({"a": 1})).expect("an answer"), "text");
        assert!(qmp.execute("two", &json!({})).expect_err("refused").to_string().contains("two: no"));
        assert_eq!(qmp.execute("three", &json!({})).expect_err("bad").kind(), ErrorKind::InvalidData);
        let seen = talk.join().expect("no panic");
        assert!(seen[0].contains("qmp_capabilities") && seen[1].contains("\"a\":1"), "{seen:?}");
    }

    #[test]
    fn a_descriptor_goes_with_its_command() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let talk = std::thread::spawn(move || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
            (&theirs).write_all(b"{\"QMP\": {}}\r\n{\"return\": {}}\r\n").expect("sent");
            let mut got = Vec::new();
            let mut lines = 0;
            while lines < 2 {
                let mut piece = [0; 4096];
                let mut into = [io::IoSliceMut::new(&mut piece)];
                let flags = RecvFlags::CMSG_CLOEXEC;
                let len =
                    rustix::net::recvmsg(&theirs, &mut into, &mut control, flags).expect("a piece").bytes;
                lines += piece[..len].iter().filter(|b| **b == b'\n').count();
                for message in control.drain() {
                    let rustix::net::RecvAncillaryMessage::ScmRights(fds) = message else { continue };
                    got.extend(fds);
                }
            }
            (&theirs).write_all(b"{\"return\": {}}\r\n").expect("sent");
            got
        });
        let mut qmp = Qmp::new(ours);
        let (read, write) = std::io::pipe().expect("a pipe");
        qmp.execute_with("getfd", &json!({"fdname": "x"}), write.as_fd()).expect("an answer");
        drop(write);
        let mut got = talk.join().expect("no panic");
        assert_eq!(got.len(), 1);
        let mut copy = std::fs::File::from(got.remove(0));
        copy.write_all(b"through").expect("written");
        drop(copy);
        let mut text = String::new();
        { read }.read_to_string(&mut text).expect("read");
        assert_eq!(text, "through");
    }

    #[test]
    fn a_peer_that_goes_away_is_an_error() {
        let (mut qmp, talk) = peer("{\"QM", vec![]);
        talk.join().expect("no panic");
        assert_eq!(qmp.execute("one", &json!({})).expect_err("gone").kind(), ErrorKind::UnexpectedEof);
    }
}

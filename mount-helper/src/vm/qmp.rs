//! QEMU's control channel, as far as it is needed: one command, one answer.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

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
        if !self.greeted {
            let until = Instant::now() + ANSWER_TIME;
            while self.message(until)?.get("QMP").is_none() {}
            self.greeted = true;
            self.execute("qmp_capabilities", &json!({}))?;
        }
        self.send(command, arguments)?;
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

    /// Has a command done whose answer does not matter.
    pub(super) fn send(&mut self, command: &str, arguments: &Value) -> io::Result<()> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.set_write_timeout(Some(ANSWER_TIME))?;
        self.stream.write_all(line.as_bytes())
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
    use std::io::{BufRead, BufReader};

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
    fn a_peer_that_goes_away_is_an_error() {
        let (mut qmp, talk) = peer("{\"QM", vec![]);
        talk.join().expect("no panic");
        assert_eq!(qmp.execute("one", &json!({})).expect_err("gone").kind(), ErrorKind::UnexpectedEof);
    }
}

//! `rvf serve` at work.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A server that ends with the test.
pub struct Serving {
    child: Child,
    pub address: String,
}

impl Serving {
    pub fn new(store: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rvf"))
            .args(["serve", "--bind", "127.0.0.1:0"])
            .arg(store)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it serves");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("it serves")).read_line(&mut line).expect("it serves");
        let address =
            line.trim().strip_prefix("rvf: listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, address }
    }

    /// Of its page.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it serves");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("it serves");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).expect("it serves");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it serves");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.split_once("\r\n\r\n").expect("it serves").1.to_owned()
    }

    pub fn end(mut self, signal: &str) -> Option<i32> {
        assert!(
            Command::new("kill")
                .args([signal, &self.child.id().to_string()])
                .status()
                .expect("it serves")
                .success()
        );
        self.child.wait().expect("it serves").code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _gone = self.child.wait();
    }
}

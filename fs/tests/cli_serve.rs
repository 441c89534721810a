//! `rvf serve`: the program, its signals, and that it answers as a mount does.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod mounted;

use mounted::Mounted;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn new(store: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_rvf"))
            .args(["serve", "--bind", "127.0.0.1:0"])
            .arg(store)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address =
            line.trim().strip_prefix("rvf: listening on ").unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self { child, address }
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    fn end(mut self, signal: &str) -> Option<i32> {
        assert!(
            Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success()
        );
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// The answer without what depends on the moment.
fn steady(json: &str) -> serde_json::Value {
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap();
    for query in value["queries"].as_array_mut().unwrap() {
        assert!(query.as_object_mut().unwrap().remove("microseconds").is_some());
    }
    value
}

#[test]
fn it_answers_as_the_mount_does() {
    need_fuse!();
    let mount = Mounted::with(300, &[]);
    let serving = Serving::new(&mount.source);
    for request in [
        r#"{"vector":[7.4,1,0,0],"k":5}"#,
        r#"{"vectors":[[7.4,1,0,0],[0,0,0,0]],"k":3,"exact":true}"#,
        r#"{"id":120,"filter":"year > 2010 AND good = true","fields":["name","year"]}"#,
        r#"{"id":120,"filter":"year > 2010","fields":true,"k":2}"#,
        "7,1,0,0\n8,1,0,0\n",
    ] {
        fs::write(mount.at.join("query/in"), request).unwrap();
        let mounted = fs::read_to_string(mount.at.join("query/out.json")).unwrap();
        let served = serving.ask("POST", "/query", request.as_bytes());
        assert_eq!(steady(&served), steady(&mounted), "{request}");
        assert!(served.contains("\"hits\": [{"), "{served}");
    }
    let status: serde_json::Value = serde_json::from_str(&serving.ask("GET", "/status", b"")).unwrap();
    let mounted = fs::read_to_string(mount.at.join("status.json")).unwrap();
    let mounted: serde_json::Value = serde_json::from_str(&mounted).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&status), keys(&mounted));
    assert_eq!((&status["vectors"], &status["file_id"]), (&mounted["vectors"], &mounted["file_id"]));
}

#[test]
fn signals_end_it_well_and_a_taken_address_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.rvf");
    drop(mounted::make_store(&path, 10));
    for signal in ["-TERM", "-INT"] {
        let serving = Serving::new(&path);
        assert!(serving.ask("GET", "/health", b"").contains("ok"));
        assert_eq!(serving.end(signal), Some(0));
    }
    let serving = Serving::new(&path);
    let second = Command::new(env!("CARGO_BIN_EXE_rvf"))
        .args(["serve", "--bind", &serving.address])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.starts_with("error: cannot listen on ") && said.contains("in use"), "{said}");
}

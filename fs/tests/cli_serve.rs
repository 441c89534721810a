//! `rvf serve`: the program, its signals, and that it answers as a mount does.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod mounted;

use mounted::Mounted;
use mounted::serving::Serving;
use std::fs;
use std::process::Command;

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

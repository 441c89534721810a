//! `rvf keygen`, `rvf sign`, `rvf verify` as a user runs them.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "common/cli.rs"]
mod cli;

use cli::Dir;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// A store of three vectors, a key pair `key`, and a directory `trust` with its public half.
fn signed_place(algorithm: &str) -> Dir {
    let dir = Dir::new();
    dir.ok(&["create", "a.rvf", "--dimension", "3"]);
    ingest(&dir, 1..4);
    let made = dir.json(&["keygen", "key", "--algorithm", algorithm]);
    assert_eq!(made["algorithm"], algorithm);
    fs::create_dir(dir.path("trust")).unwrap();
    fs::copy(dir.path("key.pub"), dir.path("trust/maker.pub")).unwrap();
    dir
}

fn ingest(dir: &Dir, ids: std::ops::Range<u64>) {
    let rows: String = ids.map(|id| format!("{{\"id\":{id},\"vector\":[{id},0,1]}}\n")).collect();
    dir.write("rows.jsonl", rows);
    dir.ok(&["ingest", "a.rvf", "-i", "rows.jsonl"]);
}

fn verify(dir: &Dir, file: &str) -> (i32, Vec<(String, String)>) {
    let done = dir.rvf(&["verify", file, "--trust", "trust", "--json"]);
    let report: Value = serde_json::from_str(&done.out).unwrap();
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or("").to_owned();
    let rows = report["signatures"].as_array().unwrap();
    (done.status, rows.iter().map(|row| (word(row, "verdict"), word(row, "reason"))).collect())
}

fn verdicts(dir: &Dir, file: &str) -> (i32, Vec<String>) {
    let (status, rows) = verify(dir, file);
    (status, rows.into_iter().map(|(verdict, _)| verdict).collect())
}

#[test]
fn a_signed_file_stays_signed_until_its_bytes_change() {
    for algorithm in ["ed25519", "ml-dsa-65"] {
        let dir = signed_place(algorithm);
        assert_eq!(verdicts(&dir, "a.rvf"), (1, vec![]), "nothing is signed");
        let signed = dir.json(&["sign", "a.rvf", "-k", "key", "--comment", "release 1"]);
        assert_eq!(signed["signatures"][0]["comment"], "release 1");
        assert_eq!(verdicts(&dir, "a.rvf"), (0, vec!["valid".into()]));
        let text = dir.ok(&["verify", "a.rvf", "--trust", "trust"]);
        assert!(text.starts_with(&format!("valid (maker): {algorithm} key ")), "{text}");
        assert!(text.contains("1 later commit(s)"), "the commit of the signature itself: {text}");

        // Later commits are not covered, and break nothing.
        ingest(&dir, 10..12);
        assert_eq!(verdicts(&dir, "a.rvf").1, ["valid"]);
        dir.ok(&["check", "a.rvf"]);
        dir.ok(&["verify-witness", "a.rvf"]);

        // One bit of what was signed.
        let length = signed["signatures"][0]["length"].as_u64().unwrap() as usize;
        let mut bytes = dir.read("a.rvf");
        bytes[length / 2] ^= 4;
        dir.write("b.rvf", &bytes);
        assert_eq!(verdicts(&dir, "b.rvf"), (3, vec!["INVALID".into()]));

        // A compaction rewrites the file, so the statement about its bytes ends with it.
        dir.ok(&["delete", "a.rvf", "--ids", "1"]);
        dir.ok(&["compact", "a.rvf"]);
        assert_eq!(verdicts(&dir, "a.rvf"), (1, vec![]));
    }
}

#[test]
fn a_signed_segment_stays_signed_through_compaction() {
    let dir = signed_place("ed25519");
    // Witnesses are among the segments that a compaction copies as they are.
    dir.ok(&["sign", "a.rvf", "-k", "key", "-s", "witness"]);
    dir.ok(&["sign", "a.rvf", "-k", "key", "-s", "witness", "--bound"]);
    let (status, before) = verdicts(&dir, "a.rvf");
    assert_eq!((status, before.iter().all(|v| v == "valid")), (0, true), "{before:?}");
    dir.ok(&["delete", "a.rvf", "--ids", "2"]);
    dir.ok(&["compact", "a.rvf"]);
    assert_eq!(verdicts(&dir, "a.rvf"), (0, before), "payloads that were copied are still signed");
}

#[test]
fn only_trusted_keys_that_are_in_force_count() {
    let dir = signed_place("ed25519");
    dir.ok(&["keygen", "stranger"]);
    dir.ok(&["sign", "a.rvf", "-k", "stranger"]);
    assert_eq!(verdicts(&dir, "a.rvf"), (1, vec!["untrusted".into()]));
    dir.ok(&["sign", "a.rvf", "-k", "key", "--valid-days", "1"]);
    assert_eq!(verdicts(&dir, "a.rvf"), (0, vec!["untrusted".into(), "valid".into()]));
    // Trust is taken back by removing the file.
    fs::remove_file(dir.path("trust/maker.pub")).unwrap();
    assert_eq!(verdicts(&dir, "a.rvf").0, 1);
    // The user's own directory counts when none is given.
    fs::create_dir_all(dir.path("config/rvf/trust")).unwrap();
    fs::copy(dir.path("key.pub"), dir.path("config/rvf/trust/me.pub")).unwrap();
    let mut command = dir.command(&["verify", "a.rvf"]);
    let done = command.env("XDG_CONFIG_HOME", dir.path("config")).output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success() && text.contains("valid (me)"), "{text}");
    // A key that anybody could have put there is not used, and that is said.
    fs::set_permissions(dir.path("config/rvf/trust/me.pub"), fs::Permissions::from_mode(0o666)).unwrap();
    let done = dir.command(&["verify", "a.rvf"]).env("XDG_CONFIG_HOME", dir.path("config")).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8(done.stderr).unwrap().contains("chmod go-w"));
}

#[test]
fn wrong_calls_are_refused_and_leave_nothing() {
    let dir = signed_place("ed25519");
    let before = dir.read("a.rvf");
    assert!(dir.fails(&["keygen", "key"], 1).contains("exists"));
    assert!(dir.fails(&["keygen", "nowhere/key"], 1).contains("nowhere/key.pub"));
    dir.write("new.pub", "taken");
    assert!(dir.fails(&["keygen", "new"], 1).contains("new.pub"));
    assert!(!dir.path("new").exists());
    assert!(dir.fails(&["sign", "a.rvf", "-k", "key.pub"], 1).contains("a public key, by its name"));
    fs::copy(dir.path("key"), dir.path("open")).unwrap();
    fs::set_permissions(dir.path("open"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(dir.fails(&["sign", "a.rvf", "-k", "open"], 1).contains("others may read"));
    dir.write("text", "no key");
    fs::set_permissions(dir.path("text"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(dir.fails(&["sign", "a.rvf", "-k", "text"], 1).contains("not a secret key"));
    assert!(dir.fails(&["sign", "a.rvf", "-k", "trust"], 1).contains("not a secret key file"));
    assert!(
        dir.fails(&["sign", "a.rvf", "-k", "key", "-s", "kernel"], 1).contains("no segment of this file")
    );
    assert!(dir.fails(&["sign", "a.rvf", "-k", "key", "-s", "999"], 1).contains("no segment of this file"));
    let long = "x".repeat(256);
    assert!(dir.fails(&["sign", "a.rvf", "-k", "key", "--comment", &long], 1).contains("256 bytes"));
    assert!(dir.fails(&["verify", "a.rvf", "--trust", "nowhere"], 1).contains("nowhere"));
    assert_eq!(dir.read("a.rvf"), before);
    let mode = fs::metadata(dir.path("key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Damaged bytes are not signed.
    let mut bytes = before;
    bytes[100] ^= 1;
    dir.write("a.rvf", &bytes);
    assert!(dir.fails(&["sign", "a.rvf", "-k", "key"], 1).contains("fails its checksum"));
    assert_eq!(dir.read("a.rvf"), bytes);
}

#[test]
fn keys_of_openssl_are_used_as_they_are() {
    let dir = signed_place("ed25519");
    let openssl = |args: &[&str]| {
        Command::new("openssl")
            .args(args)
            .current_dir(dir.path(""))
            .output()
            .ok()
            .filter(|o| o.status.success())
    };
    if openssl(&["genpkey", "-algorithm", "ed25519", "-out", "theirs.pem"]).is_none() {
        assert!(std::env::var_os("RVF_REQUIRE_TOOLS").is_none(), "openssl is missing");
        eprintln!("SKIPPED: openssl is missing, so its keys were not tried");
        return;
    }
    fs::set_permissions(dir.path("theirs.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    openssl(&["pkey", "-in", "theirs.pem", "-pubout", "-out", "trust/theirs.pub"]).unwrap();
    dir.ok(&["sign", "a.rvf", "-k", "theirs.pem"]);
    assert_eq!(verdicts(&dir, "a.rvf"), (0, vec!["valid".into()]));
    // And ours by openssl.
    let ours = openssl(&["pkey", "-in", "key", "-pubout"]).expect("openssl reads our secret key");
    assert_eq!(ours.stdout, dir.read("key.pub"));
}

/// A signature is about bytes of one file. What a branch inherits, what came later, and what does not count any more is not
/// covered, and it says so.
#[test]
fn a_signed_branch_says_what_is_not_covered() {
    let dir = signed_place("ed25519");
    dir.ok(&["branch", "a.rvf", "c.rvf"]);
    dir.write("rows.jsonl", "{\"id\":7,\"vector\":[7,7,7]}\n");
    dir.ok(&["ingest", "c.rvf", "-i", "rows.jsonl"]);
    dir.ok(&["sign", "c.rvf", "-k", "key"]);
    dir.ok(&["sign", "c.rvf", "-k", "key", "--segment", "cowmap"]);
    let text = |file: &str| dir.ok(&["verify", file, "--trust", "trust"]);
    assert_eq!(verdicts(&dir, "c.rvf"), (0, vec!["valid".into(), "valid".into()]));
    assert!(text("c.rvf").contains("not what it inherits from its parent"), "{}", text("c.rvf"));
    assert!(!text("c.rvf").contains("does not count any more"), "{}", text("c.rvf"));
    let commits = |file: &str| {
        let text = text(file);
        let (before, _) = text.split_once(" later commit(s)").unwrap();
        before.rsplit(' ').next().unwrap().parse::<u32>().unwrap()
    };
    let at_first = commits("c.rvf");

    // Led to another place, it has another record of its parent.
    fs::copy(dir.path("a.rvf"), dir.path("moved.rvf")).unwrap();
    dir.ok(&["reparent", "c.rvf", "moved.rvf"]);
    assert_eq!(verdicts(&dir, "c.rvf").1, ["valid", "valid"]);
    assert_eq!(commits("c.rvf"), at_first + 1);
    assert!(text("c.rvf").contains("which does not count any more"), "{}", text("c.rvf"));

    // The parent's signature covers nothing that is merged later.
    dir.ok(&["sign", "moved.rvf", "-k", "key"]);
    let before = commits("moved.rvf");
    dir.ok(&["merge", "c.rvf"]);
    assert_eq!(verdicts(&dir, "moved.rvf"), (0, vec!["valid".into()]));
    assert_eq!(commits("moved.rvf"), before + 1);
    assert!(!text("moved.rvf").contains("inherits"), "{}", text("moved.rvf"));

    // A parent that was exchanged is none of the signature's business, and the branch does not answer from it.
    dir.write("moved.rvf", dir.read("a.rvf").iter().map(|b| b ^ 1).collect::<Vec<u8>>());
    assert_eq!(verdicts(&dir, "c.rvf").1, ["valid", "valid"]);
    assert_ne!(dir.rvf(&["query", "c.rvf", "--vector", "1,0,1"]).status, 0);
    fs::copy(dir.path("a.rvf"), dir.path("moved.rvf")).unwrap();

    // What was signed is not in a rewritten file, neither the first bytes nor the record.
    dir.ok(&["compact", "c.rvf"]);
    assert_eq!(verdicts(&dir, "c.rvf"), (1, vec![]));
}

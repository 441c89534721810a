//! The daemon is killed again and again while branches are copied, edited, merged, compacted under and frozen: what a
//! command reported as done is there afterwards, and no branch is anything but whole.

mod mounted;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mounted::{DIM, Mounted, open_store, umount};

const ROUNDS: u64 = 60;
const ROWS: u64 = 40;
/// Branches of so many rounds back are removed, so that the family stays small.
const KEPT: u64 = 4;

/// What a round does; each step that ended well is written to `$LOG`. `cp` reports what `close` says, `echo >` would not.
const STEPS: &str = r#"
done_() { echo "$*" >> "$LOG"; }
cp -r branches/main branches/b$I && done_ cp $I
cp "$TMP/vector" branches/b$I/vectors/$((1000 + I)) && done_ put $I
cp "$TMP/compact" ctl && done_ compact $I
cp "$TMP/merge" branches/b$I/ctl && done_ merge $I
cp -r branches/b$I branches/c$I && done_ grandchild $I
chmod a-w branches/b$I && done_ freeze $I
"#;

/// Differs from run to run, and is shown when a round fails.
fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
    now.as_nanos() as u64 | 1
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn vector(m: &rvf_cow::View, id: u64) -> Option<Vec<f32>> {
    let rows = m.resolved();
    let bytes = rows.vector(rows.find(id)?).to_vec();
    Some(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Every row that was there from the beginning is there and is what it was.
fn holds_the_first_rows(view: &rvf_cow::View, what: &str) {
    view.complete().unwrap_or_else(|e| panic!("{what}: {e}"));
    for row in 0..ROWS {
        assert_eq!(vector(view, 10 * row), Some(vec![row as f32, 1.0, 0.0, 0.0]), "{what}: row {row}");
    }
}

#[test]
fn a_killed_daemon_leaves_whole_branches_and_all_that_was_reported() {
    need_fuse!();
    let mut m = Mounted::new(ROWS);
    let tmp = m.source.with_file_name("tmp");
    fs::create_dir(&tmp).expect("a directory");
    for (name, text) in [("vector", "7,7,7,7\n"), ("compact", "compact\n"), ("merge", "merge\n")] {
        fs::write(tmp.join(name), text).expect("a file");
    }
    let log = tmp.join("log");
    fs::write(&log, "").expect("the log");
    let mut state = seed();
    println!("seed {state}");
    let mut whole = Duration::from_millis(300);
    let (mut finished, mut interrupted) = (0, 0);
    for round in 0..ROUNDS {
        let began = Instant::now();
        let mut script = Command::new("bash")
            .args(["-c", STEPS])
            .current_dir(&m.at)
            .env("LOG", &log)
            .env("TMP", &tmp)
            .env("I", round.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("bash starts");
        let wait = whole.mul_f64((next(&mut state) % 1000) as f64 / 800.0);
        while began.elapsed() < wait && script.try_wait().expect("a child").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if script.try_wait().expect("a child").is_some() {
            whole = began.elapsed();
            finished += 1;
        } else {
            interrupted += 1;
        }
        m.signal("-KILL");
        m.wait();
        let _ = script.wait();
        umount(&m.at);

        let text = fs::read_to_string(&log).expect("the log");
        let done: BTreeSet<&str> = text.lines().collect();
        let said = |step: &str, round: u64| done.contains(format!("{step} {round}").as_str());
        let file = |letter: char, round: u64| m.source.with_file_name(format!("store.{letter}{round}.rvf"));
        let main = open_store(&m.source);
        holds_the_first_rows(&main.view(), "main");
        for merged in (0..=round).filter(|r| said("merge", *r)) {
            assert_eq!(vector(&main.view(), 1000 + merged), Some(vec![7.0; DIM]), "merged in round {merged}");
        }
        for made in round.saturating_sub(KEPT - 1)..=round {
            for (letter, step) in [('b', "cp"), ('c', "grandchild")] {
                let path = file(letter, made);
                let what = format!("{letter}{made} after round {round}");
                assert!(path.exists() || !said(step, made), "{what} was made and is not there");
                if !path.exists() {
                    continue;
                }
                let branch = open_store(&path);
                holds_the_first_rows(&branch.view(), &what);
                if said("put", made) {
                    assert_eq!(vector(&branch.view(), 1000 + made), Some(vec![7.0; DIM]), "{what}");
                }
                let frozen = branch.view().frozen().is_some();
                assert!(frozen || letter == 'c' || !said("freeze", made), "{what} was frozen and is not");
            }
        }
        drop(main);
        m.remount(&[]);
        // What a killed daemon left under hidden names goes when branches are listed.
        m.list("branches");
        if let Some(old) = round.checked_sub(KEPT) {
            m.sh(&format!("rm -rf branches/c{old} && rm -rf branches/b{old}"));
            for letter in ['b', 'c'] {
                let path = m.source.with_file_name(format!("store.{letter}{old}.rvf"));
                assert!(!path.exists(), "{} was removed", path.display());
            }
        }
    }
    assert!(
        finished > 0 && interrupted > ROUNDS / 4,
        "{finished} rounds ended, {interrupted} were interrupted"
    );
    m.list("branches");
    // And those of compactions with the next commit.
    m.sh_ok("cp \"../tmp/vector\" vectors/5");
    let left: Vec<String> = fs::read_dir(m.source.parent().expect("a directory"))
        .expect("a listing")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with(".pending") || name.contains(".tmp"))
        .collect();
    assert_eq!(left, Vec::<String>::new(), "hidden files of killed daemons");
}

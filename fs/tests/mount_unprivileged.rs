//! A mount by a user who is not root, through the setuid helper `fusermount3`: mounted, used, and unmounted again.
//!
//! Root prepares a place for it: a mount namespace of its own with a `/dev/fuse` that everybody may open, as it is on a
//! desktop, and a process namespace that takes everything along when it ends. Needs root, unshare, setpriv and
//! fusermount3; what is missing is said loudly.

mod mounted;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use mounted::{has, make_store, open_store};

/// The user `nobody`, by number: it need not be in any file.
const USER: u32 = 65_534;

/// Makes the place; ends with 77 when that is not possible here.
const PREPARE: &str = r#"
set -u
cannot() { echo "$1" >&2; exit 77; }
mount -t tmpfs -o mode=755 none "$D/dev" || cannot "a tmpfs cannot be mounted in a namespace"
mknod -m 666 "$D/dev/fuse" c 10 229 || cannot "a device node cannot be made"
mount --bind "$D/dev/fuse" /dev/fuse || cannot "/dev/fuse cannot be covered"
mount --bind "$D/fuse.conf" /etc/fuse.conf || cannot "/etc/fuse.conf cannot be covered"
as_user() { setpriv --reuid="$U" --regid="$U" --clear-groups -- "$@"; }
as_user sh -c ': < /dev/fuse' || cannot "/dev/fuse cannot be opened by user $U"
mounted() { grep -q " $D/mnt fuse" /proc/self/mounts; }
set -e
cd "$D"
"#;

/// Runs a script in the place; gives what it printed, or nothing where the place cannot be made.
fn as_user(dir: &Path, script: &str) -> Option<String> {
    let output = Command::new("timeout")
        .args(["-k", "1", "100", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["--propagation", "private", "bash", "-c"])
        .arg(format!("{PREPARE}{script}"))
        .env("D", dir)
        .env("U", USER.to_string())
        .stdin(Stdio::null())
        .output()
        .expect("timeout runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(77) || err.contains("unshare failed") {
        eprintln!("SKIPPED: {err}");
        return None;
    }
    assert!(output.status.success(), "{}\nout {out}\nerr {err}", output.status);
    Some(out.into_owned())
}

/// A directory that the user can enter, with the program and a store of the user's own; nothing where this cannot be
/// tried.
fn place() -> Option<tempfile::TempDir> {
    if !mounted::can_mount() {
        return None;
    }
    if rvf_fs::sys::ids().0 != 0 {
        eprintln!("SKIPPED: only root can make a /dev/fuse that another user may open");
        return None;
    }
    if !["unshare", "setpriv", "fusermount3", "mknod", "timeout"].iter().all(|program| has(program)) {
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path();
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    mode(path, 0o755);
    for name in ["dev", "mnt", "home"] {
        fs::create_dir(path.join(name)).expect("a directory");
    }
    fs::write(path.join("fuse.conf"), "# nothing is allowed\n").expect("a file");
    let program = path.join("rvf-mount");
    fs::copy(env!("CARGO_BIN_EXE_rvf-mount"), &program).expect("the program");
    mode(&program, 0o755);
    drop(make_store(&path.join("home/s.rvf"), 5));
    for name in ["mnt", "home", "home/s.rvf"] {
        std::os::unix::fs::chown(path.join(name), Some(USER), Some(USER)).expect("an owner");
    }
    Some(dir)
}

#[test]
fn a_user_mounts_queries_ingests_and_unmounts() {
    let Some(dir) = place() else { return };
    let Some(out) = as_user(
        dir.path(),
        r#"
as_user env RVF_LOG=debug "$D/rvf-mount" --log-file "$D/home/log" "$D/home/s.rvf" "$D/mnt"
mounted && echo mounted
as_user bash -e <<'END'
cd "$D/mnt"
stat -c 'owner %u %g' . README
echo '{"id": 77, "vector": [7, 7, 7, 7]}' > ingest/a.jsonl
grep accepted ingest/a.jsonl
printf '7,7,7,7\n' > query/in
echo "nearest $(head -1 query/out)"
cmp file.rvf ../home/s.rvf && echo 'file.rvf same'
cmp file.rvf ../home/s.rvf && echo 'file.rvf same again'
rm vectors/10
sed -n 's/^vectors: /vectors /p' status
END
ls "$D/mnt" 2>/dev/null || echo 'closed to root'
for who in as_user env; do
  $who "$D/rvf-mount" "$D/home/s.rvf" "$D/mnt" 2>&1 | grep -o 'a store is mounted there already'
done
as_user fusermount3 -u "$D/mnt"
mounted || echo unmounted
"#,
    ) else {
        return;
    };
    let want = format!(
        "mounted\nowner {USER} {USER}\nowner {USER} {USER}\naccepted: 1\nnearest 77\t0.0\nfile.rvf same\n\
         file.rvf same again\nvectors 5\nclosed to root\na store is mounted there already\n\
         a store is mounted there already\nunmounted\n"
    );
    assert_eq!(out, want);
    // Passthrough is root's; without it the daemon reads, and only whoever asks for details hears of it.
    let log = fs::read_to_string(dir.path().join("home/log")).expect("a log");
    for line in log.lines() {
        assert!(!line.contains(" WARN ") && !line.contains(" ERROR "), "{line}");
    }
    assert!(log.contains("unmounted"), "{log}");
    let view = open_store(&dir.path().join("home/s.rvf")).view();
    assert_eq!(view.live(), 5);
    assert!(view.find(77).is_some() && view.find(10).is_none());
}

#[test]
fn a_signal_ends_it_without_root() {
    let Some(dir) = place() else { return };
    let Some(out) = as_user(
        dir.path(),
        r#"
setpriv --reuid="$U" --regid="$U" --clear-groups -- "$D/rvf-mount" -f "$D/home/s.rvf" "$D/mnt" 2> "$D/log" &
daemon=$!
for ((i = 0; i < 2000; i++)); do mounted && break; read -rt 0.01 < <(:) || true; done
mounted && echo mounted
kill -TERM $daemon
wait $daemon && echo 'ended well'
mounted || echo unmounted
# What a killed daemon leaves is taken away by the next mount, also without root.
setpriv --reuid="$U" --regid="$U" --clear-groups -- "$D/rvf-mount" -f "$D/home/s.rvf" "$D/mnt" 2> "$D/log" &
daemon=$!
for ((i = 0; i < 2000; i++)); do mounted && break; read -rt 0.01 < <(:) || true; done
kill -KILL $daemon
wait $daemon 2>/dev/null || true
mounted && echo 'left behind'
as_user "$D/rvf-mount" "$D/home/s.rvf" "$D/mnt"
as_user ls "$D/mnt/README"
as_user fusermount3 -u "$D/mnt"
mounted || echo unmounted
"#,
    ) else {
        return;
    };
    let readme = dir.path().join("mnt/README");
    let want = format!("mounted\nended well\nunmounted\nleft behind\n{}\nunmounted\n", readme.display());
    assert_eq!(out, want);
}

#[test]
fn others_are_let_in_only_where_the_administrator_allows_it() {
    let Some(dir) = place() else { return };
    let Some(out) = as_user(
        dir.path(),
        r#"
for word in allow_other allow_root; do
    if as_user "$D/rvf-mount" -o "$word" "$D/home/s.rvf" "$D/mnt" 2> "$D/err"; then echo "$word taken"; fi
    echo "lines $(wc -l < "$D/err")"
    grep -o "^rvf-mount: $D/mnt: not allowed to mount" "$D/err" | sed "s|$D||"
    grep -c user_allow_other "$D/err"
    mounted || echo 'nothing mounted'
done
echo user_allow_other > "$D/fuse.conf"
as_user "$D/rvf-mount" -o allow_other "$D/home/s.rvf" "$D/mnt"
ls "$D/mnt/README" | sed "s|$D||"
# Modes are looked at now: another user reads, and changes nothing.
setpriv --reuid=1 --regid=1 --clear-groups -- sh -c 'wc -c < "$D/mnt/vectors/0" > /dev/null && echo read'
setpriv --reuid=1 --regid=1 --clear-groups -- sh -c ': > "$D/mnt/ingest/.x"' 2>/dev/null || echo 'cannot write'
as_user fusermount3 -u "$D/mnt"
"#,
    ) else {
        return;
    };
    let refused = "lines 1\nrvf-mount: /mnt: not allowed to mount\n1\nnothing mounted\n";
    assert_eq!(out, format!("{refused}{refused}/mnt/README\nread\ncannot write\n"));
}

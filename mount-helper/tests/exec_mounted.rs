//! Programs run by their names in a mounted store: `./wasm/query 2,0,1`, in a mount of root's and in one of a user's.

#![cfg(feature = "wasm")]
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Place, text, wasm};
use rvf_kernel::{ExecKind, QUERY_MODULE};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The user `nobody`, by number: it need not be in any file.
const USER: u32 = 65_534;

fn required() -> bool {
    std::env::var("RVF_REQUIRE_FUSE").is_ok_and(|value| value == "1")
}

/// `rvf-mount`, built first so that it is never an old one.
fn program() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_rvf-exec"));
    let dir = own.parent().unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // As the run of all tests builds it, which has mostly been done already; by itself it would be built with fewer features, anew.
    cargo.args(["test", "--quiet", "--no-run", "--workspace", "--test", "mount_life"]);
    if dir.ends_with("release") {
        cargo.arg("--release");
    }
    cargo.arg("--target-dir").arg(dir.parent().unwrap());
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    assert!(cargo.status().unwrap().success(), "rvf-mount does not build");
    dir.join("rvf-mount")
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A place with both programs side by side, where the mount looks for the helper, and a signed module named `query`.
fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() || fs::metadata("/dev/fuse").is_err() {
        assert!(!required(), "RVF_REQUIRE_FUSE is 1, and this needs root and /dev/fuse");
        eprintln!("SKIPPED: root and /dev/fuse are needed");
        return None;
    }
    let place = Place::new();
    mode(&place.path(""), 0o755);
    for name in ["mnt", "home", "dev"] {
        fs::create_dir(place.path(name)).unwrap();
    }
    fs::copy(program(), place.path("rvf-mount")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_rvf-exec"), place.path("rvf-exec")).unwrap();
    for name in ["rvf-mount", "rvf-exec"] {
        mode(&place.path(name), 0o755);
    }
    let store = place.path("home/s.rvf");
    fs::rename(place.store(), &store).unwrap();
    place.embed_signed_in(&store, ExecKind::Wasm, &wasm(QUERY_MODULE), Some("query"));
    fs::write(place.path("home/key"), &**place.key.to_pem().unwrap()).unwrap();
    mode(&place.path("home/key"), 0o600);
    let stranger = wat::parse_str(r#"(module (func (export "f")))"#).unwrap();
    fs::write(place.path("stranger.wasm"), stranger).unwrap();
    Some(place)
}

/// What both mounts are asked, in a shell.
const ASK: &str = r#"
cd "$D/mnt"
head -1 wasm/query
echo 2,0,1 > query/in
./wasm/query 2,0,1 > "$D/home/answer"
cmp "$D/home/answer" query/out && echo same
echo '{"vector": [3, 0, 1], "k": 1}' | ./wasm/query
rm vectors/3
echo "after: $(./wasm/query 3,0,1 -k 1)"
echo 5,5,5 > vectors/9
sh -c './wasm/query 5,5,5 -k 1'
"$D/rvf-exec" --check wasm/query | cut -c1-30
cp "$D/stranger.wasm" wasm/ && ! ./wasm/stranger 1,2,3 2> "$D/home/refused" && cut -d: -f1-2 "$D/home/refused"
echo "sign $D/home/key segment=wasm" > ctl
"$D/rvf-exec" --check wasm/stranger | grep -c ' ok'
./wasm/stranger --invoke f | wc -l
"#;

fn expected(place: &Place) -> String {
    format!(
        "#!{}\nsame\n3\t0.0\nafter: 2\t1.0\n9\t0.0\n1 structure and limits ok\n2 content hash         ok\n\
         3 signature            ok\n4 binding              ok\n5 host                 ok\n6 policy               ok\n\
         7 handover             ok\nrvf-exec: check 3 of 7 (signature) failed\n7\n1\n",
        place.path("rvf-exec").display()
    )
}

/// What the shells trim at the ends of lines counts for nothing.
fn trimmed(out: &str) -> String {
    out.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Runs a script in a mount namespace of its own, and what else `unshare` is told to make.
fn apart(place: &Place, more: &[&str], script: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args(["-k", "1", "100", "unshare", "--mount", "--propagation", "private"]).args(more);
    command.args(["bash", "-c", script]);
    place.configure(&mut command);
    command.env("D", place.path("").to_str().unwrap().trim_end_matches('/')).env("ASK", ASK);
    command.env("XDG_CACHE_HOME", place.path("home/cache")).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn in_a_mount_of_roots() {
    let Some(place) = place() else { return };
    let script = format!(
        r#"
set -e
"$D/rvf-mount" -o exec "$D/home/s.rvf" "$D/mnt"
trap 'cd /; umount "$D/mnt"' EXIT
{ASK}"#
    );
    let done = apart(&place, &[], &script);
    assert_eq!(trimmed(&text(&done.stdout)), expected(&place), "{}", text(&done.stderr));
}

#[test]
fn in_a_mount_of_a_users() {
    let Some(place) = place() else { return };
    for name in ["mnt", "home", "home/s.rvf", "home/key"] {
        chown(place.path(name), Some(USER), Some(USER)).unwrap();
    }
    fs::write(place.path("fuse.conf"), "# nothing is allowed\n").unwrap();
    // As in the mount tests: a /dev/fuse that everybody may open, in a mount namespace of its own.
    let script = format!(
        r#"
cannot() {{ echo "$1" >&2; exit 77; }}
mount -t tmpfs -o mode=755 none "$D/dev" || cannot "a tmpfs cannot be mounted in a namespace"
mknod -m 666 "$D/dev/fuse" c 10 229 || cannot "a device node cannot be made"
mount --bind "$D/dev/fuse" /dev/fuse || cannot "/dev/fuse cannot be covered"
mount --bind "$D/fuse.conf" /etc/fuse.conf || cannot "/etc/fuse.conf cannot be covered"
exec setpriv --reuid={USER} --regid={USER} --clear-groups -- bash -c '
set -e
"$D/rvf-mount" -o exec "$D/home/s.rvf" "$D/mnt"
trap "cd /; fusermount3 -u \"$D/mnt\"" EXIT
'"$ASK"
"#
    );
    let done = apart(&place, &["--pid", "--fork", "--kill-child", "--mount-proc"], &script);
    let error = text(&done.stderr);
    if done.status.code() == Some(77) || error.contains("unshare failed") {
        assert!(!required(), "RVF_REQUIRE_FUSE is 1: {error}");
        eprintln!("SKIPPED: {error}");
        return;
    }
    assert_eq!(trimmed(&text(&done.stdout)), expected(&place), "{error}");
}

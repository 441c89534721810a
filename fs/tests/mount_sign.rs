//! `signatures/` and the verb `sign` of a mounted store.

mod mounted;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use mounted::{Mounted, has, make_store};
use rvf_crypto::{Algorithm, SecretKey};

/// A user who is neither root nor whoever runs this, by number.
const USER: u32 = 65_534;

#[test]
fn signatures_are_made_and_shown() {
    need_fuse!();
    let m = Mounted::new(6);
    assert_eq!(m.list("signatures"), Vec::<String>::new());
    let key = SecretKey::generate(Algorithm::Ed25519).expect("a key");
    let path = m.source.with_file_name("key");
    fs::write(&path, &**key.to_pem().expect("pem")).expect("the key's file");
    let sign = format!("sign {}\n", path.display());
    // Others may read it: refused, and nothing is written.
    m.sh_ok(&format!("chmod 644 {}", path.display()));
    let before = fs::metadata(&m.source).expect("the store").len();
    assert!(fs::write(m.path("ctl"), &sign).is_err());
    let error = fs::read_to_string(m.path("error")).expect("error");
    assert!(error.contains("others may read"), "{error}");
    assert_eq!(fs::metadata(&m.source).expect("the store").len(), before);

    m.sh_ok(&format!("chmod 600 {}", path.display()));
    fs::write(m.path("ctl"), &sign).expect("sign");
    let names = m.list("signatures");
    assert!(names.len() == 1 && names[0].ends_with("-ed25519"), "{names:?}");
    let file = m.path("signatures").join(&names[0]);
    let text = fs::read_to_string(&file).expect("the record");
    assert_eq!(fs::metadata(&file).expect("stat").len(), text.len() as u64);
    for line in [
        "algorithm: ed25519".to_owned(),
        format!("key_id: {}", key.public().id()),
        format!("covers: bytes 0 to {before} of the file"),
        "verdict: untrusted".to_owned(),
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    let events = fs::read_to_string(m.path("events")).expect("events");
    assert!(events.contains("\"sign\""), "{events}");
    // A frozen store takes no signature: nothing in it changes any more.
    fs::write(m.path("ctl"), "freeze\n").expect("freeze");
    let refused = fs::write(m.path("ctl"), &sign).expect_err("frozen");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    assert_eq!(m.list("signatures"), names);
}

/// The daemon opened whatever key it could read itself: root's mount signed for everybody with root's keys, and the refusals told
/// everybody which files there are.
#[test]
fn a_user_signs_with_a_key_of_that_user_only() {
    need_fuse!();
    if rvf_fs::sys::ids().0 != 0 || !has("setpriv") {
        eprintln!("SKIPPED: only root can act as two users");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().to_path_buf();
    fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).expect("a mode");
    let source = at.join("store.rvf");
    drop(make_store(&source, 4));
    let make_key = |name: &str, owner: u32, mode: u32| {
        let key = SecretKey::generate(Algorithm::Ed25519).expect("a key");
        let path = at.join(name);
        fs::write(&path, &**key.to_pem().expect("pem")).expect("the key's file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        chown(&path, Some(owner), Some(owner)).expect("an owner");
        path
    };
    let (roots, own, open) =
        (make_key("roots", 0, 0o600), make_key("own", USER, 0o600), make_key("open", USER, 0o644));
    fs::create_dir(at.join("closed")).expect("a directory");
    fs::set_permissions(at.join("closed"), fs::Permissions::from_mode(0o700)).expect("a mode");
    let inside = make_key("closed/inside", 0, 0o600);
    let m = Mounted::mount(dir, source, &["-o", &format!("allow_other,uid={USER},gid={USER}")]);
    let sign = |key: &Path| {
        let user = format!("setpriv --reuid={USER} --regid={USER} --clear-groups --");
        let output = m.sh(&format!("{user} sh -c 'echo sign {} > ctl'", key.display()));
        (output.status.success(), m.read("error"))
    };
    let (missing, directory) = (at.join("missing"), at.join("closed"));
    let behind = at.join("closed/missing");
    for key in [&roots, &inside, &missing, &behind, &directory, Path::new("/dev/null"), &open] {
        let (signed, said) = sign(key);
        assert!(!signed, "{}", key.display());
        assert_eq!(
            said,
            "ctl: sign: the key must be a file that belongs to you and that nobody else may read (mode 600), as rvf keygen makes it\n",
            "{}",
            key.display()
        );
        assert_eq!(m.list("signatures"), Vec::<String>::new());
    }
    assert!(sign(&own).0, "{}", m.read("error"));
    assert_eq!(m.list("signatures").len(), 1);
    // Root signs with any.
    m.write("ctl", format!("sign {}\n", roots.display())).expect("signed");
    assert_eq!(m.list("signatures").len(), 2);
}

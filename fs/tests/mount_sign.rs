//! `signatures/` and the verb `sign` of a mounted store.

mod mounted;

use std::fs;

use mounted::Mounted;
use rvf_crypto::{Algorithm, SecretKey};

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

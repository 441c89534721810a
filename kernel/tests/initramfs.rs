//! The initramfs of a machine, with the real guest program in it.

use rvf_kernel::vm::{ModuleFile, initramfs};

/// The file that an archive has under this name.
fn content<'a>(archive: &'a [u8], name: &str) -> &'a [u8] {
    let mut at = 0;
    loop {
        let number = |field: usize| {
            let digits = &archive[at + 6 + 8 * field..at + 14 + 8 * field];
            usize::from_str_radix(std::str::from_utf8(digits).expect("digits"), 16).expect("a number")
        };
        let (size, name_len) = (number(6), number(11));
        let found = &archive[at + 110..at + 110 + name_len - 1];
        let start = (at + 110 + name_len).next_multiple_of(4);
        assert_ne!(found, b"TRAILER!!!", "{name} is not there");
        if found == name.as_bytes() {
            return &archive[start..start + size];
        }
        at = (start + size).next_multiple_of(4);
    }
}

#[test]
fn symbols_are_left_out_and_the_program_still_runs() {
    let guest = std::fs::read(env!("CARGO_BIN_EXE_rvf-guest")).expect("the guest program");
    let modules = [ModuleFile { name: "x".into(), bytes: vec![1, 2, 3] }];
    let archive = match initramfs(&guest, &modules) {
        Ok(archive) => archive,
        Err(error) => {
            assert!(std::env::var_os("RVF_REQUIRE_TOOLS").is_none(), "{error}");
            eprintln!("SKIPPED: {error}");
            return;
        }
    };
    assert_eq!(archive, initramfs(&guest, &modules).expect("again"), "the same every time");
    assert_eq!(content(&archive, "modules/00-x.ko"), [1, 2, 3]);
    let small = content(&archive, "init");
    assert!(small.len() < guest.len());
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("guest");
    std::fs::write(&path, small).expect("written");
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("set");
    let done = std::process::Command::new(&path).output().expect("it runs");
    assert_eq!(done.status.code(), Some(2), "it is no first process here");
    assert!(String::from_utf8_lossy(&done.stderr).contains("virtual machine"));
}

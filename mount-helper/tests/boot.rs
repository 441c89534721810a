//! Booting real kernels: a distribution's, with its own modules, from an .rvf file, in the emulator.
//!
//! `RVF_TEST_KERNEL_DIR` is the directory of an unpacked kernel package (`dpkg -x`), with `boot/vmlinuz-*` and
//! `lib/modules/` in it. With `RVF_REQUIRE_KERNEL` set, what is missing is a failure.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;
mod vm;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use vm::{ask, engine, here, steady, wait_for_end_of};

/// A program for the first process that ends at once: `exit(0)`, as a whole ELF file.
fn exits_at_once() -> Vec<u8> {
    let code = [0x31, 0xFF, 0xB8, 60, 0, 0, 0, 0x0F, 0x05];
    let (head, base) = (64 + 56_u64, 0x40_0000_u64);
    let size = head + code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend(2_u16.to_le_bytes());
    elf.extend(62_u16.to_le_bytes());
    elf.extend(1_u32.to_le_bytes());
    for number in [base + head, 64, 0] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 64, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    elf.extend(1_u32.to_le_bytes());
    elf.extend(5_u32.to_le_bytes());
    for number in [0, base, base, size, size, 0x1000] {
        elf.extend(number.to_le_bytes());
    }
    elf.extend(code);
    elf
}

#[test]
fn a_real_kernel_boots_answers_as_the_engine_does_and_ends_by_a_signal() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "console=ttyS0");
    let view = place.open().view();
    let mut machine = here.start(&place, &[]);
    let address = machine.address();
    for body in [
        &br#"{"vector":[3.3,0.2,1.5],"k":5}"#[..],
        br#"{"vectors":[[3.3,0.2,1.5],[0,0,0]],"k":3,"exact":true}"#,
        br#"{"id":120,"filter":"year > 2000 AND NOT year = 2100","fields":["year"]}"#,
        b"1,2,3\n4,5,6\n",
    ] {
        let answer = ask(&address, "POST", "/query", body);
        assert_eq!(steady(&answer), steady(&engine(&view, body)));
        assert!(answer.contains("\"hits\": [{"), "{answer}");
    }
    assert!(ask(&address, "GET", "/health", b"").contains("ok"));
    let status: serde_json::Value = serde_json::from_str(&ask(&address, "GET", "/status", b"")).unwrap();
    assert_eq!((&status["vectors"], &status["health"]), (&303.into(), &"ok".into()));
    assert_eq!(status["file_size"], fs::metadata(place.store()).unwrap().len());
    let emulator = machine.emulator();
    machine.signal("-INT");
    let (status, said) = machine.end();
    assert_eq!(status, Some(0), "{said}");
    wait_for_end_of(emulator);
    assert!(TcpStream::connect(&address).is_err(), "somebody still listens");
}

#[test]
fn nothing_is_left_of_a_helper_that_is_killed() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "");
    // While it boots, and when it serves.
    for serving in [false, true] {
        let mut machine = here.start(&place, &[]);
        let emulator = machine.emulator();
        if serving {
            machine.address();
        }
        machine.signal("-KILL");
        wait_for_end_of(emulator);
    }
}

#[test]
fn a_guest_that_panics_or_never_answers_comes_to_a_bounded_end() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "");
    let guest = place.path("guest");
    fs::write(&guest, exits_at_once()).unwrap();
    let (status, said) = here.start(&place, &["--guest", guest.to_str().unwrap()]).end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("Kernel panic"), "{said}");
    let machine = here.start(&place, &["--boot-timeout", "1"]);
    let emulator = machine.emulator();
    let (status, said) = machine.end();
    assert_eq!(status, Some(124), "{said}");
    assert!(said.contains("--boot-timeout"), "{said}");
    wait_for_end_of(emulator);
    // Something that only looks like a kernel.
    let place = here.place(&common::bz_image(), "");
    let modules = place.path("modules");
    fs::create_dir_all(modules.join("kernel")).unwrap();
    fs::write(modules.join("modules.builtin"), "kernel/virtio_blk.ko\nkernel/virtio_net.ko\n").unwrap();
    let more = ["--boot-timeout", "3", "--modules", modules.to_str().unwrap()];
    let (status, said) = here.start(&place, &more).end();
    assert!(matches!(status, Some(1 | 124)), "{status:?} {said}");
}

#[test]
fn the_emulator_can_read_programs_and_no_other_files() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "");
    // In the place of QEMU, something that says what it can do. Whoever it is, files of /etc and /tmp are free to it but for
    // Landlock.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qemu-system-x86_64");
    let made = dir.path().join("made");
    let script = format!(
        "#!/bin/sh\n\
         (: < /usr/bin/env) && echo programs >&2\n\
         (: < /etc/passwd) && echo settings >&2\n\
         (: < /proc/version) && echo processes >&2\n\
         (: > {}) && echo writing >&2\n\
         exit 3\n",
        made.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let said = |landlocked: bool| {
        let output = match landlocked {
            false => Command::new(&path).output().unwrap(),
            true => {
                let modules = here.modules.to_str().unwrap();
                let store = place.store();
                let words = ["--allow-unsigned", store.to_str().unwrap(), "--kind", "kernel", "--"];
                let more = ["--port", "0", "--accel", "tcg", "--no-cache", "--modules", modules];
                let path = format!("{}:/usr/bin:/bin", dir.path().display());
                place.command(&[&words[..], &more].concat()).env("PATH", path).output().unwrap()
            }
        };
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let can = |text: &str| ["programs", "settings", "processes", "writing"].map(|word| text.contains(word));
    assert_eq!(can(&said(false)), [true; 4]);
    fs::remove_file(&made).unwrap();
    let text = said(true);
    assert_eq!(can(&text), [true, false, false, false], "{text}");
    assert!(!made.exists() && text.contains("exit status: 3"), "{text}");
}

#[test]
fn what_cannot_be_booted_is_refused_before_anything_starts() {
    let Some(here) = here() else { return };
    let place = here.place(&here.image, "console=ttyS0 init=/bin/sh");
    let (status, said) = here.start(&place, &[]).end();
    assert_eq!(status, Some(126), "{said}");
    assert!(said.contains("init=/bin/sh"), "{said}");
    let place = here.place(&here.image, "");
    let dynamic = env!("CARGO_BIN_EXE_rvf-exec");
    for (more, want, word) in [
        (&["--guest", dynamic][..], 127, "statically"),
        (&["--guest", "/dev/null"], 127, "guest program"),
        (&["--modules", "/nowhere"], 127, "/nowhere"),
        (&["--modules", "/tmp"], 127, "/tmp"),
        (&["--memory", "1"], 2, "64"),
    ] {
        let (status, said) = here.start(&place, more).end();
        assert_eq!(status, Some(want), "{said}");
        assert!(said.contains(word), "{said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, said) = here.start(&place, &["--port", &port]).end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("in use"), "{said}");
    assert!(here.guest.exists());
}

//! `rvf embed-kernel`, `rvf embed-ebpf`, `rvf embed-wasm` as a user runs them.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

#[path = "common/cli.rs"]
mod cli;

use cli::Dir;
use std::fs;

fn place() -> Dir {
    let dir = Dir::new();
    dir.ok(&["create", "a.rvf", "--dimension", "3"]);
    dir
}

/// The fields of a bzImage header that tell what it is, and some code.
fn bz_image() -> Vec<u8> {
    let mut image = vec![0x90; 0x1000];
    image[0x1F1] = 1;
    image[0x1F4..0x1F8].copy_from_slice(&192_u32.to_le_bytes());
    image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020F_u16.to_le_bytes());
    image[0x236] = 1;
    image
}

#[test]
fn programs_are_embedded_and_said_to_be() {
    let dir = place();
    fs::write(dir.path("bzImage"), bz_image()).unwrap();
    fs::write(dir.path("code"), [0x95, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    fs::write(dir.path("m.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let kernel =
        dir.json(&["embed-kernel", "a.rvf", "--image-path", "bzImage", "--cmdline", "console=ttyS0 quiet"]);
    assert_eq!(kernel["status"], "embedded");
    assert_eq!((&kernel["arch"], &kernel["kernel_type"]), (&"x86_64".into(), &"microlinux".into()));
    assert_eq!((&kernel["image_size"], &kernel["epoch"]), (&4096.into(), &1.into()));
    let ebpf = dir.json(&["embed-ebpf", "a.rvf", "--program", "code", "--program-type", "tc_classifier"]);
    assert_eq!((&ebpf["program_type"], &ebpf["bytecode_size"]), (&"tc".into(), &8.into()));
    let wasm = dir.json(&["embed-wasm", "a.rvf", "--module", "m.wasm", "--role", "extension"]);
    assert_eq!((&wasm["role"], &wasm["target"]), (&"extension".into(), &"wasm32".into()));
    assert!(dir.ok(&["embed-wasm", "a.rvf", "--module", "m.wasm"]).contains("embedded successfully"));
    dir.ok(&["check", "a.rvf"]);
    dir.ok(&["verify-witness", "a.rvf"]);
}

#[test]
fn what_is_refused_changes_nothing_and_says_why() {
    let dir = place();
    fs::write(dir.path("bzImage"), bz_image()).unwrap();
    fs::write(dir.path("text"), "no program at all").unwrap();
    fs::write(dir.path("empty"), "").unwrap();
    let before = fs::read(dir.path("a.rvf")).unwrap();
    for (args, word) in [
        (&["embed-kernel", "a.rvf", "--image-path", "text"][..], "arch"),
        (&["embed-kernel", "a.rvf", "--image-path", "empty"], "empty"),
        (&["embed-kernel", "a.rvf", "--image-path", "none"], "none"),
        (
            &["embed-kernel", "a.rvf", "--image-path", "."],
            "unpacked kernel package, and this one has no boot/vmlinuz-*",
        ),
        (&["embed-kernel", "a.rvf", "--image-path", "bzImage", "--arch", "arm64"], "x86_64"),
        (&["embed-kernel", "a.rvf", "--image-path", "bzImage", "--cmdline", "a\nb"], "position 1"),
        (&["embed-ebpf", "a.rvf", "--program", "text"], "neither"),
        (&["embed-ebpf", "a.rvf", "--program", "bzImage"], "program type"),
        (&["embed-wasm", "a.rvf", "--module", "bzImage"], "no WASM module"),
    ] {
        let done = dir.rvf(args);
        assert_eq!(done.status, 1, "{args:?}");
        assert!(done.err.contains(word), "{args:?}: {}", done.err);
    }
    assert_eq!(dir.rvf(&["embed-kernel", "a.rvf", "--image-path", "bzImage", "--arch", "vax"]).status, 2);
    assert_eq!(fs::read(dir.path("a.rvf")).unwrap(), before);
}

#[test]
fn a_kernel_can_be_bound_to_its_file_and_a_policy() {
    let dir = place();
    fs::write(dir.path("bzImage"), bz_image()).unwrap();
    fs::write(dir.path("policy.json"), "{}").unwrap();
    let binding = |args: &[&str]| {
        let embed = ["embed-kernel", "a.rvf", "--image-path", "bzImage"];
        let offset = dir.json(&[&embed, args].concat())["offset"].as_u64().unwrap();
        let bytes = fs::read(dir.path("a.rvf")).unwrap();
        let segment = rvf_format::Segment::at(&bytes, offset).unwrap();
        rvf_kernel::Kernel::parse(segment.payload_of(&bytes)).unwrap().binding
    };
    assert_eq!(binding(&[]), None);
    let to_file = binding(&["--bind"]).unwrap();
    assert_eq!((to_file.version, to_file.policy_hash), (1, [0; 32]));
    assert_eq!(binding(&["--bind", "identity"]), Some(to_file.clone()), "a commit does not change it");
    let to_contents = binding(&["--bind", "contents"]).unwrap();
    assert!(![[0; 32], to_file.manifest_root_hash].contains(&to_contents.manifest_root_hash));
    // It holds in the file that is there now, with the kernel and its name in it, and through what changes no contents.
    let now = |bound| {
        let store = rvf_cow::Store::open(&dir.path("a.rvf"), &rvf_cow::OpenOptions::default()).unwrap();
        store.view().binding_hash(bound).unwrap()
    };
    assert_eq!(now(rvf_cow::Bound::Identity), to_file.manifest_root_hash);
    assert_eq!(now(rvf_cow::Bound::Contents), to_contents.manifest_root_hash);
    dir.ok(&["embed-wasm", "a.rvf", "--name", "another"]);
    {
        let store = rvf_cow::Store::open(&dir.path("a.rvf"), &rvf_cow::OpenOptions::default()).unwrap();
        store.count_accesses(&[1, 1]);
        store.save_accesses(8).unwrap().unwrap();
    }
    assert_eq!(now(rvf_cow::Bound::Contents), to_contents.manifest_root_hash);
    let to_policy = binding(&["--bind-policy", "policy.json"]).unwrap();
    assert_eq!(to_policy.manifest_root_hash, [0; 32]);
    assert_eq!(to_policy.policy_hash, rvf_crypto::sha3_256(b"{}"));
    let both = binding(&["--bind", "--bind-policy", "policy.json"]).unwrap();
    assert_eq!(
        (both.manifest_root_hash, both.policy_hash),
        (to_file.manifest_root_hash, to_policy.policy_hash)
    );
    let missing = ["embed-kernel", "a.rvf", "--image-path", "bzImage", "--bind-policy", "none"];
    assert!(dir.fails(&missing, 1).contains("none"));
}

/// The programs that come along need no compiler, and are those of the crate, byte for byte.
#[test]
fn programs_that_come_along_are_embedded_by_name() {
    let dir = place();
    for builtin in rvf_bpf::Builtin::ALL {
        let said = dir.json(&["embed-ebpf", "a.rvf", "--builtin", builtin.name()]);
        assert_eq!(
            (&said["name"], &said["program_type"]),
            (&builtin.name().into(), &builtin.program_type().name().into())
        );
        assert_eq!(said["bytecode_size"], builtin.object().len());
        let digest: String = builtin.digest().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(said["sha3_256"], digest);
    }
    dir.ok(&["check", "a.rvf"]);
    for (args, word) in [
        (&["embed-ebpf", "a.rvf", "--builtin", "nothing"][..], "distance, filter or ports"),
        (&["embed-ebpf", "a.rvf"], "--program"),
        (&["embed-ebpf", "a.rvf"], "--builtin"),
        (&["embed-kernel", "a.rvf"], "--image-path"),
        (&["embed-kernel", "a.rvf"], "--installed"),
        (&["embed-kernel", "a.rvf", "--image-path", "x", "--installed"], "cannot be used with"),
        (&["embed-ebpf", "a.rvf", "--builtin", "ports", "--program", "x"], "cannot be used with"),
    ] {
        assert!(dir.fails(args, 2).contains(word), "{args:?}");
    }
}

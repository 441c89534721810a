//! The seven checks of `rvf-exec`, each made to fail by what it is there for.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{KINDS, Place, checked, ingest, kernel, module, other_image, own_image, refused, sound, wasm};
use rvf_cow::{Bound, BranchOptions, SignOptions};
use rvf_crypto::{Algorithm, SecretKey, sha3_256};
use rvf_format::SegType;
use rvf_index::NoProgress;
use rvf_kernel::{Binding, ExecEntry, ExecKind, KernelOptions};
use rvf_mount_helper::{Pick, Wanted};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn a_signed_program_passes_all_seven() {
    for algorithm in [Algorithm::Ed25519, Algorithm::MlDsa65] {
        let place = Place::new();
        let key = SecretKey::from_seed(algorithm, &[9; 32]);
        place.trust("other", &key);
        for kind in KINDS {
            let payload = sound(kind);
            let offset = place.embed(kind, &payload);
            place.sign(offset, &key, &SignOptions::default());
            let (passed, result) = checked(&place.wanted(kind));
            let verified = result.unwrap();
            assert_eq!(passed.iter().map(|p| p.step.number()).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(verified.payload.bytes(), payload);
            assert_eq!(verified.digest, sha3_256(&payload));
            assert_eq!(verified.signer.as_deref(), Some("other"));
            let file = verified.program_file().unwrap();
            assert_eq!(file.read_back().unwrap(), verified.program());
            assert!(payload.windows(verified.program().len()).any(|w| w == verified.program()));
        }
        assert_eq!(place.verify(ExecKind::Wasm).unwrap().program(), module());
        assert_eq!(place.verify(ExecKind::Kernel).unwrap().program(), own_image());
    }
}

#[test]
fn every_byte_of_a_program_counts() {
    let place = Place::new();
    for kind in [ExecKind::Wasm, ExecKind::Ebpf] {
        let payload = sound(kind);
        let offset = place.embed_signed(kind, &payload);
        for at in 0..payload.len() {
            let mut bad = payload.clone();
            bad[at] ^= 1 << (at % 8);
            place.swap(offset, &bad, false);
            let (step, reason) = place.refused(kind);
            assert!(step <= 2, "{kind} byte {at}: {step} {reason}");
            place.swap(offset, &bad, true);
            let (step, reason) = place.refused(kind);
            assert!(step <= 3, "{kind} byte {at} with the right checksum: {step} {reason}");
        }
        place.swap(offset, &payload, true);
        place.verify(kind).unwrap();
    }
    // The header of the segment, too, says what it must.
    let offset = place.segment(place.embed_signed(ExecKind::Wasm, &sound(ExecKind::Wasm))).offset;
    let header = fs::read(place.store()).unwrap()[offset as usize..][..64].to_vec();
    for (at, byte) in [(5, 0x0F), (0x10, 0x01), (0x20, 0x02), (0x21, 0x01), (0x28, header[0x28] ^ 1)] {
        place.poke(offset + at, &[byte]);
        let step = place.refused(ExecKind::Wasm).0;
        assert!(step <= 2, "header byte {at:#x}: {step}");
        place.poke(offset, &header);
    }
    place.poke(offset + 0x28, &[0; 16]);
    assert_eq!(place.refused(ExecKind::Wasm).0, 2, "no checksum at all");
}

#[test]
fn another_program_in_the_place_of_a_signed_one_is_refused() {
    let place = Place::new();
    let good = sound(ExecKind::Kernel);
    let offset = place.embed_signed(ExecKind::Kernel, &good);
    let mut image = own_image();
    *image.last_mut().unwrap() = 0xCC;
    let options = KernelOptions { cmdline: "console=ttyS0 quiet".into(), ..KernelOptions::default() };
    let evil = kernel(&image, &options);
    place.swap(offset, &evil, false);
    assert_eq!(place.refused(ExecKind::Kernel).0, 2);
    place.swap(offset, &evil, true);
    place.refuses(ExecKind::Kernel, 3, "rvf sign");
    // Appended properly, as somebody with write access would.
    place.swap(offset, &good, true);
    place.verify(ExecKind::Kernel).unwrap();
    place.embed(ExecKind::Kernel, &evil);
    assert_eq!(place.refused(ExecKind::Kernel).0, 3);
}

#[test]
fn only_trusted_keys_and_signatures_in_force_count() {
    let place = Place::new();
    let payload = sound(ExecKind::Wasm);
    let offset = place.embed(ExecKind::Wasm, &payload);
    let allowed = || Wanted { allow_unsigned: true, ..place.wanted(ExecKind::Wasm) };
    place.refuses(ExecKind::Wasm, 3, "no signature");
    let verified = checked(&allowed()).1.unwrap();
    assert_eq!(verified.signer, None);

    let stranger = SecretKey::from_seed(Algorithm::Ed25519, &[77; 32]);
    place.sign(offset, &stranger, &SignOptions::default());
    place.refuses(ExecKind::Wasm, 3, "no trusted key");
    checked(&allowed()).1.unwrap();

    place.sign(offset, &place.key, &SignOptions { until_ns: 1, ..SignOptions::default() });
    place.refuses(ExecKind::Wasm, 3, "expired");
    assert_eq!(refused(&allowed()).0, 3, "what a trusted key took back is not allowed by the way");

    // A good one beside them is enough.
    place.sign(offset, &place.key, &SignOptions::default());
    place.verify(ExecKind::Wasm).unwrap();

    // Keys that others could have put there are none.
    let trust = place.path("config/rvf/trust");
    fs::set_permissions(&trust, fs::Permissions::from_mode(0o777)).unwrap();
    place.refuses(ExecKind::Wasm, 3, "chmod go-w");
    fs::set_permissions(&trust, fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(trust.join("maker.pub")).unwrap();
    assert_eq!(place.refused(ExecKind::Wasm).0, 3, "trust was taken back");
}

#[test]
fn a_signature_for_one_file_does_not_count_in_another() {
    let place = Place::new();
    let payload = sound(ExecKind::Wasm);
    let offset = place.embed(ExecKind::Wasm, &payload);
    place.sign(offset, &place.key, &SignOptions { bound: true, ..SignOptions::default() });
    place.verify(ExecKind::Wasm).unwrap();
    let record = {
        let store = place.open();
        store.view().signatures().pop().unwrap().record.unwrap().encode()
    };
    let other = Place::new();
    other.embed(ExecKind::Wasm, &payload);
    let store = other.open();
    drop(store);
    append_crypto(&other, &record);
    other.refuses(ExecKind::Wasm, 3, "another file");
}

/// Puts a signature record over one that was made properly and has the same length.
fn append_crypto(place: &Place, record: &[u8]) {
    let offset = common::segments(&place.store(), SegType::WASM)[0];
    place.sign(offset, &place.key, &SignOptions { bound: true, ..SignOptions::default() });
    let crypto = *common::segments(&place.store(), SegType::CRYPTO).last().unwrap();
    place.swap(crypto, record, true);
}

fn bound_kernel(manifest: [u8; 32], policy: [u8; 32], version: u16) -> Vec<u8> {
    let binding = Binding {
        manifest_root_hash: manifest,
        policy_hash: policy,
        version,
        min_runtime_version: 0,
        allowed_segment_mask: 0,
    };
    kernel(&own_image(), &KernelOptions { binding: Some(binding), ..KernelOptions::default() })
}

#[test]
fn a_bound_kernel_boots_only_where_it_was_bound_to() {
    let place = Place::new();
    let hash = |bound| place.open().view().binding_hash(bound).unwrap();
    let (identity, contents) = (hash(Bound::Identity), hash(Bound::Contents));
    assert_ne!(identity, contents);

    let to_file = bound_kernel(identity, [0; 32], 1);
    place.embed_signed(ExecKind::Kernel, &to_file);
    let (passed, result) = checked(&place.wanted(ExecKind::Kernel));
    result.unwrap();
    assert_eq!(passed[3].note, "bound to this file");

    // Signing, embedding and indexing change no contents; an ingest, a deletion and metadata do.
    place.embed_signed(ExecKind::Kernel, &bound_kernel(contents, [0; 32], 1));
    let (passed, result) = checked(&place.wanted(ExecKind::Kernel));
    result.unwrap();
    assert_eq!(passed[3].note, "bound to the contents of this file");
    assert_eq!(hash(Bound::Contents), contents);
    ingest(&place.open(), &[4]);
    place.refuses(ExecKind::Kernel, 4, "--bind");
    let after = hash(Bound::Contents);
    place.open().delete(&[2]).unwrap();
    assert_ne!(hash(Bound::Contents), after);
    place.open().compact(&NoProgress).unwrap();
    assert_eq!(hash(Bound::Identity), identity, "the file stays what it is");

    // The same kernel in another file, whose signature is as good there.
    let other = Place::new();
    other.embed_signed(ExecKind::Kernel, &to_file);
    assert_eq!(other.refused(ExecKind::Kernel).0, 4);
    // And in a branch of the file, which is another file.
    place.embed_signed(ExecKind::Kernel, &to_file);
    let child = place.path("a.exp.rvf");
    place.open().branch(&child, &BranchOptions::default()).unwrap();
    place.embed_signed_in(&child, ExecKind::Kernel, &to_file, None);
    assert_eq!(refused(&place.wanted_in(&child, ExecKind::Kernel)).0, 4);

    // A later version of bindings, and one that binds nothing.
    place.embed_signed(ExecKind::Kernel, &bound_kernel(identity, [0; 32], 2));
    assert_eq!(place.refused(ExecKind::Kernel).0, 4);
    place.embed_signed(ExecKind::Kernel, &bound_kernel([0; 32], [0; 32], 1));
    place.verify(ExecKind::Kernel).unwrap();
}

#[test]
fn a_kernel_is_bound_to_a_policy_by_its_text() {
    let place = Place::new();
    let policy = r#"{"kinds": ["kernel"]}"#;
    place.embed_signed(ExecKind::Kernel, &bound_kernel([0; 32], sha3_256(policy.as_bytes()), 1));
    assert_eq!(place.refused(ExecKind::Kernel).0, 4, "no policy is in force");
    place.policy(policy);
    place.verify(ExecKind::Kernel).unwrap();
    place.policy(r#"{"kinds": ["kernel"] }"#);
    assert_eq!(place.refused(ExecKind::Kernel).0, 4);
}

#[test]
fn the_host_must_be_able_to_run_it() {
    let place = Place::new();
    place.embed_signed(ExecKind::Kernel, &kernel(&other_image(), &KernelOptions::default()));
    place.refuses(ExecKind::Kernel, 5, std::env::consts::ARCH);
    // A header that says another machine than the image is no mistake of the host.
    let mut lying = kernel(&other_image(), &KernelOptions::default());
    lying[6] = if cfg!(target_arch = "x86_64") { 0 } else { 3 };
    place.embed_signed(ExecKind::Kernel, &lying);
    assert_eq!(place.refused(ExecKind::Kernel).0, 1);
    // The existing tools' numbers are one too high, and their flags mean something else.
    let mut theirs = sound(ExecKind::Kernel);
    theirs[6] += 1;
    theirs[8] |= 1;
    place.embed_signed(ExecKind::Kernel, &theirs);
    place.verify(ExecKind::Kernel).unwrap();
    let tee = kernel(&own_image(), &KernelOptions { flags: 1, ..KernelOptions::default() });
    place.embed_signed(ExecKind::Kernel, &tee);
    assert_eq!(place.refused(ExecKind::Kernel).0, 5);
    // A module for a system interface, and one that needs threads.
    for (at, byte) in [(7, 1), (7, 3), (8, 0x10)] {
        let mut payload = sound(ExecKind::Wasm);
        payload[at] = byte;
        place.embed_signed(ExecKind::Wasm, &payload);
        assert_eq!(place.refused(ExecKind::Wasm).0, 5, "byte {at} = {byte}");
    }
}

#[test]
fn headers_that_do_not_hold_together_are_refused_first() {
    let place = Place::new();
    let cmdline = |text: &[u8]| {
        let options = KernelOptions { cmdline: "x".repeat(text.len()), ..KernelOptions::default() };
        let mut payload = kernel(&own_image(), &options);
        let end = payload.len();
        payload[end - text.len()..].copy_from_slice(text);
        payload
    };
    for text in [&b"quiet\ninit=/bin/sh"[..], b"a\0b", b"a\x1b[2J", b"\xc3\xa4", b"a\x7f"] {
        place.embed_signed(ExecKind::Kernel, &cmdline(text));
        place.refuses(ExecKind::Kernel, 1, "position");
    }
    place.embed_signed(ExecKind::Kernel, &cmdline(b"console=ttyS0 quiet"));
    place.verify(ExecKind::Kernel).unwrap();
    // Whoever signed it, a file does not say what is run in the machine.
    for word in ["root=/dev/vda", "init=/bin/sh"] {
        place.embed_signed(ExecKind::Kernel, &cmdline(format!("quiet {word}").as_bytes()));
        place.refuses(ExecKind::Kernel, 5, word);
    }

    let mut long = sound(ExecKind::Kernel);
    long[0x78..0x7C].copy_from_slice(&0xFFFF_FFFF_u32.to_le_bytes());
    place.embed_signed(ExecKind::Kernel, &long);
    assert_eq!(place.refused(ExecKind::Kernel).0, 1, "a command line past the end");
    let mut compressed = sound(ExecKind::Kernel);
    compressed[0x28] = 2;
    place.embed_signed(ExecKind::Kernel, &compressed);
    assert_eq!(place.refused(ExecKind::Kernel).0, 1);
    for kind in KINDS {
        let cut = sound(kind);
        place.embed_signed(kind, &cut[..cut.len() - 1]);
        assert_eq!(place.refused(kind).0, 1, "{kind} cut");
        place.embed_signed(kind, b"");
        assert_eq!(place.refused(kind).0, 1, "{kind} empty");
    }
}

#[test]
fn what_is_over_its_limit_is_not_looked_at() {
    let place = Place::new();
    let mut payload = sound(ExecKind::Wasm);
    payload.resize((8 << 20) + 65, 0);
    place.embed_signed(ExecKind::Wasm, &payload);
    place.refuses(ExecKind::Wasm, 1, "are the most");
    let mut payload = sound(ExecKind::Ebpf);
    payload.resize((16 << 20) + 65, 0);
    place.embed_signed(ExecKind::Ebpf, &payload);
    assert_eq!(place.refused(ExecKind::Ebpf).0, 1);
    let mut payload = sound(ExecKind::Kernel);
    payload.resize((128 << 20) + 257, 0);
    place.embed(ExecKind::Kernel, &payload);
    place.refuses(ExecKind::Kernel, 1, "134217984 are the most");
}

#[test]
fn policies_forbid_and_fail_closed() {
    let place = Place::new();
    let payload = sound(ExecKind::Wasm);
    place.embed_signed(ExecKind::Wasm, &payload);
    let digest: String = sha3_256(&payload).iter().map(|b| format!("{b:02x}")).collect();
    let program: String = sha3_256(&module()).iter().map(|b| format!("{b:02x}")).collect();
    for text in [
        "{}".to_owned(),
        r#"{"kinds": ["wasm"], "max_bytes": 4096, "allow_unsigned": false}"#.into(),
        format!(r#"{{"digests": ["sha3-256:{digest}"]}}"#),
        format!(r#"{{"digests": ["sha3-256:{program}"]}}"#),
    ] {
        place.policy(&text);
        place.verify(ExecKind::Wasm).unwrap_or_else(|e| panic!("{text}: {e}"));
    }
    for text in [
        r#"{"kinds": ["kernel", "ebpf"]}"#.to_owned(),
        r#"{"max_bytes": 10}"#.into(),
        format!(r#"{{"digests": ["sha3-256:{}"]}}"#, "00".repeat(32)),
        r#"{"require_attestation": true}"#.into(),
        r#"{"kinds": ["wasm"], "kind": ["wasm"]}"#.into(),
        "not a policy".into(),
        String::new(),
    ] {
        place.policy(&text);
        let (step, reason) = place.refused(ExecKind::Wasm);
        assert_eq!(step, 6, "{text}: {reason}");
        assert!(reason.contains("policy.json"), "{reason}");
    }
    place.policy("{}");
    let path = place.path("config/rvf/policy.json");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(place.refused(ExecKind::Wasm).0, 6, "others could have written it");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(place.path("config/rvf"), fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(place.refused(ExecKind::Wasm).0, 6, "others could have put it there");
    fs::set_permissions(place.path("config/rvf"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(place.refused(ExecKind::Wasm).0, 6, "a directory in its place");

    fs::remove_dir(&path).unwrap();
    fs::remove_file(place.path("config/rvf/trust/maker.pub")).unwrap();
    let allowed = Wanted { allow_unsigned: true, ..place.wanted(ExecKind::Wasm) };
    checked(&allowed).1.unwrap();
    place.policy(r#"{"allow_unsigned": false}"#);
    assert_eq!(refused(&allowed).0, 6);
}

#[test]
fn an_entry_must_be_true_of_the_file() {
    let place = Place::new();
    let payload = sound(ExecKind::Wasm);
    let offset = place.embed_signed(ExecKind::Wasm, &payload);
    let entry = place.entry(ExecKind::Wasm, offset, &payload);
    let wanted = |change: &dyn Fn(&mut ExecEntry)| {
        let mut entry = entry.clone();
        change(&mut entry);
        Wanted { pick: Pick::Entry(entry.clone()), kind: entry.kind, ..place.wanted(ExecKind::Wasm) }
    };
    let verified = checked(&wanted(&|_| ())).1.unwrap();
    assert_eq!(verified.name, "query");
    assert_eq!(refused(&wanted(&|e| e.segment += 1)).0, 1);
    assert_eq!(refused(&wanted(&|e| e.segment = 1 << 40)).0, 1);
    assert_eq!(refused(&wanted(&|e| e.offset += 64)).0, 1);
    assert_eq!(refused(&wanted(&|e| e.kind = ExecKind::Kernel)).0, 1);
    assert_eq!(refused(&wanted(&|e| e.digest[0] ^= 1)).0, 2);
    // A compaction moves the segment; the entry that was read before it must not name another.
    place.embed(ExecKind::Kernel, &sound(ExecKind::Kernel));
    place.open().delete(&[1]).unwrap();
    place.open().compact(&NoProgress).unwrap();
    assert!(refused(&wanted(&|_| ())).0 <= 2);
    // By name and number.
    let name = |text: &str| Wanted { pick: Pick::Name(text.into()), ..place.wanted(ExecKind::Wasm) };
    let found = checked(&name("microkernel")).1.unwrap();
    assert_eq!(checked(&name(&found.name)).1.unwrap().segment.offset, found.segment.offset);
    assert_eq!(checked(&name(&format!("{}.wasm", found.name))).1.unwrap().name, found.name);
    assert_eq!(refused(&name("extension")).0, 1);
    // A name that was given, of the newest that has it.
    for _ in 0..2 {
        let offset = common::embed(&place.open(), ExecKind::Wasm, &payload, Some("mine"));
        for text in ["mine", "mine.wasm"] {
            let found = checked(&name(text)).1.unwrap();
            assert_eq!((found.segment.offset, found.name.as_str()), (offset, "mine"));
        }
    }
    assert_eq!(refused(&Wanted { pick: Pick::Segment(1), ..place.wanted(ExecKind::Wasm) }).0, 1);
}

#[test]
fn what_was_never_committed_is_not_run() {
    let place = Place::new();
    let offset = place.embed_signed(ExecKind::Wasm, &sound(ExecKind::Wasm));
    let segment = place.segment(offset);
    let bytes = fs::read(place.store()).unwrap();
    let raw = &bytes[offset as usize..(segment.payload.end.next_multiple_of(64)) as usize];
    let fresh = Place::new();
    let end = fs::metadata(fresh.store()).unwrap().len();
    fresh.poke(end, raw);
    let number = {
        let store = fresh.open();
        store.view().opened().layout.entries.len() as u64
    };
    let wanted = Wanted { pick: Pick::Segment(number), ..fresh.wanted(ExecKind::Wasm) };
    let (step, reason) = refused(&wanted);
    assert_eq!(step, 1);
    assert!(reason.contains("committed"), "{reason}");
}

#[test]
fn what_becomes_of_the_file_does_not_become_of_the_program() {
    let place = Place::new();
    let good = sound(ExecKind::Wasm);
    let offset = place.embed_signed(ExecKind::Wasm, &good);
    let mut evil = good.clone();
    let end = evil.len();
    evil[end - 2] = 0x00;
    let verified = place.verify(ExecKind::Wasm).unwrap();
    place.swap(offset, &evil, true);
    assert_eq!(verified.payload.bytes(), good);
    assert_eq!(verified.program_file().unwrap().read_back().unwrap(), module());
    fs::File::options().write(true).open(place.store()).unwrap().set_len(64).unwrap();
    assert_eq!(verified.payload.bytes(), good);
}

#[test]
fn a_file_that_changes_while_it_is_checked_gives_the_signed_program_or_none() {
    let place = Place::new();
    let good = sound(ExecKind::Kernel);
    let offset = place.embed_signed(ExecKind::Kernel, &good);
    let mut image = own_image();
    image[0x300..].fill(0xCC);
    let options = KernelOptions { cmdline: "console=ttyS0 quiet".into(), ..KernelOptions::default() };
    let evil = kernel(&image, &options);
    let stop = AtomicBool::new(false);
    let (mut ran, mut refused_at) = (0, [0; 8]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                place.swap(offset, &evil, true);
                place.swap(offset, &good, true);
            }
        });
        for _ in 0..400 {
            match place.verify(ExecKind::Kernel) {
                Ok(verified) => {
                    assert_eq!(verified.payload.bytes(), good, "what runs is what was signed");
                    ran += 1;
                }
                Err(refusal) => refused_at[usize::from(refusal.step.number())] += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Both must have happened, or nothing was tried.
    assert!(ran > 0 && refused_at[2] + refused_at[3] > 0, "ran {ran}, refused {refused_at:?}");
    place.verify(ExecKind::Kernel).unwrap();
}

#[test]
fn the_program_says_which_check_failed() {
    let place = Place::new();
    let payload = wasm(&module());
    let offset = place.embed(ExecKind::Wasm, &payload);
    let done = place.exec(&["a.rvf", "--kind", "wasm"]);
    assert_eq!(done.status.code(), Some(126));
    let error = common::text(&done.stderr);
    assert!(error.starts_with("rvf-exec: check 3 of 7 (signature) failed: "), "{error}");
    let check = place.exec(&["--check", "a.rvf", "--kind", "wasm"]);
    assert_eq!(check.status.code(), Some(126));
    let lines = common::text(&check.stdout);
    let words: Vec<_> =
        lines.lines().map(|l| l.chars().take(35).collect::<String>().trim_end().to_owned()).collect();
    assert_eq!(
        words,
        [
            "1 structure and limits ok",
            "2 content hash         ok",
            "3 signature            FAILED",
            "4 binding              not reached",
            "5 host                 not reached",
            "6 policy               not reached",
            "7 handover             not reached",
        ],
        "{lines}"
    );
    place.sign(offset, &place.key, &SignOptions::default());
    let check = place.exec(&["--check", "a.rvf", "--kind", "wasm"]);
    assert_eq!(check.status.code(), Some(0), "{}", common::text(&check.stderr));
    assert_eq!(common::text(&check.stdout).matches(" ok ").count(), 7);
    // Through an entry, as the kernel runs it.
    let entry = place.entry(ExecKind::Wasm, offset, &payload);
    assert!(common::text(&check.stdout).contains(&format!("in segment {} ", entry.segment)));
    let text = entry.render().unwrap_or_default();
    fs::write(place.path("query"), &text).unwrap();
    let check = place.exec(&["--check", "query"]);
    assert_eq!(check.status.code(), Some(0), "{text}{}", common::text(&check.stderr));
    for (arguments, status) in [
        (&["--kind", "wasm"][..], 2),
        (&["a.rvf"], 2),
        (&["nothing.rvf", "--kind", "wasm"], 2),
        (&["config", "--kind", "wasm"], 2),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        assert_eq!(place.exec(arguments).status.code(), Some(status), "{arguments:?}");
    }
}

//! Images of the golden files, against what the reference embedded.

use rvf_format::checksum::shake256_256;
use rvf_format::{SegType, layout};
use rvf_kernel::{
    Arch, Dashboard, ImageError, Integrity, Kernel, KernelOptions, KernelPayload, Layout, Wasm,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folders() -> [PathBuf; 2] {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../format/tests/golden/branch");
    [golden.join("set-1/compute"), golden.join("set-2/compute")]
}

fn payloads(path: &Path, kind: SegType) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(path).expect("golden file");
    let layout = layout::walk(&bytes);
    layout
        .segments()
        .filter(|segment| segment.kind() == kind)
        .map(|segment| segment.payload_of(&bytes).to_vec())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn case(dir: &Path, file: &str) -> Value {
    let text = std::fs::read_to_string(dir.join("expected.json")).expect("expected.json");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    let cases = json["cases"].as_array().expect("cases");
    cases.iter().find(|case| case["file"] == file).unwrap_or_else(|| panic!("{file}")).clone()
}

#[test]
fn kernels_are_told_apart_by_length_and_measured() {
    use Integrity::{Fold32, Mismatch, Sha3, Shake256};
    for dir in folders() {
        let image = std::fs::read(dir.join("image.bin")).expect("image");
        for (file, layout, cmdline, integrity) in [
            ("kernel.rvf", Layout::Plain, true, Fold32),
            ("kernel-nocmd.rvf", Layout::Plain, false, Fold32),
            ("kernel-bound.rvf", Layout::Bound, true, Fold32),
            ("kernel-sha3.rvf", Layout::Plain, false, Sha3),
            ("kernel-shake.rvf", Layout::Bound, true, Shake256),
        ] {
            let payload = payloads(&dir.join(file), SegType::KERNEL).pop().expect("kernel");
            let kernel = Kernel::parse(&payload).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert_eq!(kernel.layout, layout, "{file}");
            assert!(kernel.image == image, "{file}: image");
            assert_eq!(kernel.integrity(), integrity, "{file}");
            assert_eq!(kernel.cmdline.is_empty(), !cmdline, "{file}");
        }
        let payload = payloads(&dir.join("kernel-swapped.rvf"), SegType::KERNEL).pop().expect("kernel");
        let swapped = Kernel::parse(&payload).expect("whole");
        assert_eq!(swapped.integrity(), Mismatch);
        // The oldest kernel is what the reference extracts.
        let both = payloads(&dir.join("kernel-two.rvf"), SegType::KERNEL);
        assert_eq!(both.len(), 2);
        let report = &case(&dir, "kernel-two.rvf")["open"]["kernel"];
        let oldest = Kernel::parse(&both[0]).expect("whole");
        assert_eq!(report["rest_shake256"], hex(&shake256_256(oldest.rest)));
    }
}

#[test]
fn headers_and_bindings_say_what_was_embedded() {
    for dir in folders() {
        let wanted = case(&dir, "kernel.rvf");
        let payload = payloads(&dir.join("kernel.rvf"), SegType::KERNEL).pop().expect("kernel");
        let kernel = Kernel::parse(&payload).expect("kernel");
        let call = &wanted["call"];
        assert_eq!(call["arch"], kernel.header.arch);
        assert_eq!(call["type"], kernel.header.kind);
        assert_eq!(call["flags"], kernel.header.flags);
        assert_eq!(call["port"], kernel.header.api_port);
        assert_eq!(call["cmdline"], String::from_utf8_lossy(kernel.cmdline).as_ref());
        let names = (kernel.header.arch_name(), kernel.header.kind_name());
        assert!([("x86_64", "hermit"), ("universal", "custom")].contains(&names), "{names:?}");
        assert_eq!(kernel.binding, None, "the reference takes image bytes for one");

        let wanted = case(&dir, "kernel-bound.rvf");
        let payload = payloads(&dir.join("kernel-bound.rvf"), SegType::KERNEL).pop().expect("kernel");
        let kernel = Kernel::parse(&payload).expect("kernel");
        let binding = kernel.binding.expect("binding");
        let stored = wanted["binding"].as_str().expect("hex").to_owned();
        assert_eq!(stored[..64], hex(&binding.manifest_root_hash));
        assert_eq!(stored[64..128], hex(&binding.policy_hash));
        assert_eq!(stored[128..132], hex(&binding.version.to_le_bytes()));
        assert_eq!(stored[132..136], hex(&binding.min_runtime_version.to_le_bytes()));
        assert_eq!(stored[144..160], hex(&binding.allowed_segment_mask.to_le_bytes()));

        // The CLI's numbers are one too high: x86_64 reads as aarch64.
        let payload = payloads(&dir.join("cli.rvf"), SegType::KERNEL).pop().expect("kernel");
        let header = Kernel::parse(&payload).expect("kernel").header;
        let names = (header.arch_name(), header.arch_name_by_cli());
        assert!([("aarch64", Some("x86_64")), ("riscv64", Some("aarch64"))].contains(&names), "{names:?}");
        assert_eq!(
            (header.flag_names(), header.transport_name(), header.api_port),
            (vec!["tee"], "http", 8080)
        );
    }
}

#[test]
fn modules_and_dashboards() {
    for dir in folders() {
        let all = case(&dir, "wasm.rvf")["open"]["wasm_all"].clone();
        let stored = payloads(&dir.join("wasm.rvf"), SegType::WASM);
        let mut modules: Vec<Wasm<'_>> =
            stored.iter().map(|payload| Wasm::parse(payload).expect("module")).collect();
        modules.sort_by_key(|module| module.priority);
        let all = all.as_array().expect("modules");
        assert_eq!(modules.len(), all.len());
        for (module, wanted) in modules.iter().zip(all) {
            assert_eq!(wanted["role"], module.role);
            assert_eq!(wanted["priority"], module.priority);
            assert_eq!(wanted["rest_shake256"], hex(&shake256_256(module.bytecode)));
            assert_eq!(module.integrity(), Integrity::Fold32);
        }
        assert!(modules.iter().any(Wasm::is_self_bootstrapping));

        let payload = payloads(&dir.join("dashboard.rvf"), SegType::DASHBOARD).pop().expect("dashboard");
        let dashboard = Dashboard::parse(&payload).expect("dashboard");
        assert_eq!(case(&dir, "dashboard.rvf")["open"]["dashboard"]["rest_len"], dashboard.bundle.len());
        assert_eq!(dashboard.integrity(), Integrity::Fold32);
        assert!(["threejs", "custom"].contains(&dashboard.framework_name()));
    }
}

#[test]
fn damaged_headers_are_refused() {
    let dir = &folders()[0];
    let payload = payloads(&dir.join("kernel.rvf"), SegType::KERNEL).pop().expect("kernel");
    assert_eq!(Kernel::parse(&payload[..127]), Err(ImageError::Short { what: "KERNEL", len: 127 }));
    let cut = Kernel::parse(&payload[..payload.len() - 1]).expect_err("a byte is missing");
    assert_eq!(cut.to_string(), "KERNEL: 719 bytes declared, 718 present");
    let mut wrong = payload.clone();
    wrong[4] = 2;
    assert_eq!(Kernel::parse(&wrong), Err(ImageError::Version { what: "KERNEL", found: 2 }));
    wrong[0] = 0;
    assert!(matches!(Kernel::parse(&wrong), Err(ImageError::Magic { .. })));
    // Sizes that overflow when added are no reason to panic.
    let mut huge = payload;
    huge[0x18..0x20].fill(0xFF);
    assert!(matches!(Kernel::parse(&huge), Err(ImageError::Size { declared: u64::MAX, .. })));
}

/// Seeded flips and cuts of every image: an answer, never a panic.
#[test]
fn mutated_images_never_panic() {
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    for dir in folders() {
        for (file, kind) in [
            ("kernel.rvf", SegType::KERNEL),
            ("kernel-bound.rvf", SegType::KERNEL),
            ("wasm.rvf", SegType::WASM),
            ("dashboard.rvf", SegType::DASHBOARD),
        ] {
            let payload = payloads(&dir.join(file), kind).pop().expect("payload");
            for _ in 0..2000 {
                let mut bytes = payload.clone();
                for _ in 0..=random(4) {
                    let at = random(bytes.len().min(160));
                    bytes[at] = random(256) as u8;
                }
                bytes.truncate(bytes.len() - random(bytes.len()) * random(2));
                if let Ok(kernel) = Kernel::parse(&bytes) {
                    kernel.integrity();
                    kernel.header.flag_names();
                }
                if let Ok(module) = Wasm::parse(&bytes) {
                    module.integrity();
                    module.feature_names();
                }
                if let Ok(dashboard) = Dashboard::parse(&bytes) {
                    dashboard.integrity();
                }
            }
        }
    }
}

/// What the existing writer puts down, ours does too, but for the digest and the offset of a plain kernel's command line.
#[test]
fn what_the_reference_embeds_is_encoded_alike() {
    for dir in folders() {
        for file in ["kernel.rvf", "kernel-nocmd.rvf", "kernel-bound.rvf"] {
            let theirs = payloads(&dir.join(file), SegType::KERNEL).pop().expect("kernel");
            let kernel = Kernel::parse(&theirs).expect("whole");
            let header = &kernel.header;
            // Some are for "universal", which we do not write.
            let arch = Arch::from_name(header.arch_name());
            let options = KernelOptions {
                arch: arch.or(Some(Arch::X86_64)),
                kind: Some(header.kind),
                flags: header.flags,
                api_port: header.api_port,
                cmdline: String::from_utf8(kernel.cmdline.to_vec()).expect("text"),
                binding: kernel.binding.clone(),
                ..KernelOptions::default()
            };
            let ours = KernelPayload::new(kernel.image, &options).expect("a kernel").pieces().concat();
            let mut allowed: Vec<usize> = (0x30..0x50).collect();
            if kernel.layout == Layout::Plain {
                allowed.extend(0x70..0x78);
            }
            if arch.is_none() {
                allowed.push(0x06);
            }
            assert_eq!(ours.len(), theirs.len(), "{file}");
            for at in 0..ours.len() {
                assert!(ours[at] == theirs[at] || allowed.contains(&at), "{file}: byte {at:#x}");
            }
        }
    }
}

//! The committed query microkernel is what its source says.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use rvf_kernel::{QUERY_MODULE, Wasm, WasmOptions, WasmPayload};
use std::path::Path;
use std::process::Command;

fn required() -> bool {
    std::env::var("RVF_REQUIRE_TOOLS").is_ok_and(|value| value == "1")
}

fn clang_version() -> Option<String> {
    let done = Command::new("clang").arg("--version").output().ok()?;
    let linker = Command::new("wasm-ld").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let rest = text.split("clang version ").nth(1)?;
    linker.status.success().then(|| rest.split('.').next().unwrap_or("").to_owned())
}

fn described(module: &[u8]) -> (Vec<&'static str>, u16, u8) {
    let payload = WasmPayload::new(module, &WasmOptions::default()).unwrap().pieces().concat();
    let wasm = Wasm::parse(&payload).unwrap();
    (wasm.feature_names(), wasm.export_count, wasm.target)
}

#[test]
fn it_is_small_and_needs_nothing() {
    assert!(QUERY_MODULE.len() < 4096, "{} bytes", QUERY_MODULE.len());
    let (features, exports, target) = described(QUERY_MODULE);
    assert_eq!((features, exports, target), (vec!["simd"], 9, 0), "memory and eight functions");
}

#[test]
fn it_is_built_from_its_source() {
    let Some(version) = clang_version() else {
        assert!(!required(), "clang or wasm-ld is missing: apt-get install clang lld");
        eprintln!("SKIPPED: clang or wasm-ld is missing (apt-get install clang lld)");
        return;
    };
    let out = std::env::temp_dir().join(format!("rvf-query-{}.wasm", std::process::id()));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm/build.sh");
    let status = Command::new("sh").arg(script).arg(&out).status().unwrap();
    assert!(status.success(), "it does not compile");
    let built = std::fs::read(&out).unwrap();
    std::fs::remove_file(&out).unwrap();
    if version == "14" {
        assert!(
            built == QUERY_MODULE,
            "wasm/query.wasm is not what wasm/build.sh makes: run it and commit both"
        );
    } else {
        // Another compiler makes other instructions of the same source.
        eprintln!("clang {version}: only the module's description is compared, byte for byte with 14");
        assert_eq!(described(&built), described(QUERY_MODULE));
    }
}

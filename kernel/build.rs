//! Links `rvf-guest` statically: it is the only program in its virtual machine, where no library is.
//!
//! The usual way, a target of its own with `crt-static`, would need a second build of everything. The standard library
//! does not mind which C library it finds; so the linker is given scripts that stand for the shared libraries and lead to
//! the static ones. Where the C compiler has no static library, the program is linked as all others are, and says at
//! launch that it cannot be used.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, io};

const BIN: &str = "rvf-guest";
/// What std asks for, in the static C library's parts.
const LIBRARIES: [&str; 6] = ["c", "m", "dl", "pthread", "rt", "util"];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CC");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let target = env::var("TARGET").unwrap_or_default();
    let host = env::var("HOST").unwrap_or_default();
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        return Ok(());
    }
    if !target.ends_with("-linux-gnu") || target != host || !links_statically(Path::new(&out))? {
        println!(
            "cargo::warning=no static C library for {target} (Fedora: glibc-static): rvf-guest will be of no use, so \
             kernels cannot be booted; everything else works"
        );
        return Ok(());
    }
    fs::write(format!("{out}/libgcc_s.so"), "GROUP(-lgcc_eh -lgcc)\n")?;
    for library in LIBRARIES {
        fs::write(format!("{out}/lib{library}.so"), format!("GROUP(lib{library}.a)\n"))?;
    }
    for argument in [&format!("-L{out}"), "-no-pie", "-static"] {
        println!("cargo::rustc-link-arg-bin={BIN}={argument}");
    }
    Ok(())
}

/// Whether a static program that needs what ours needs can be linked here.
fn links_statically(out: &Path) -> io::Result<bool> {
    let source = out.join("probe.c");
    fs::write(&source, "#include <math.h>\nint main(int n, char **v) { return (int)pow(n, v[0][0]); }\n")?;
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut command = Command::new(compiler);
    command.arg("-static").arg("-o").arg(out.join("probe")).arg(&source);
    command.args(["-lm", "-ldl", "-lpthread", "-lrt", "-lutil", "-lgcc_eh"]);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()))
}

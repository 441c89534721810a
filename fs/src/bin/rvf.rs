//! `rvf`: create, fill, search and inspect `.rvf` files without a mount.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(rvf_fs::cli::run(std::env::args_os()))
}

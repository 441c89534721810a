//! `rvf-mount SOURCE MOUNTPOINT`: shows a vector store, or a directory of them, as files.

use std::process::ExitCode;

use clap::Parser;
use rvf_fs::options::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match rvf_fs::mount::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let line = failure.to_string().replace(['\n', '\r'], " ");
            eprintln!("rvf-mount: {}", line.trim_end());
            ExitCode::FAILURE
        }
    }
}

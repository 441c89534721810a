//! `mount.rvf SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS]`: the helper that `mount -t rvf` runs.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rvf_mount_helper::{HELP, arguments, candidates, parse};

/// What mount(8) understands as wrong usage.
const USAGE: u8 = 1;
/// What mount(8) understands as a failed mount.
const FAILED: u8 = 32;

fn main() -> ExitCode {
    let request = match parse(std::env::args_os().skip(1)) {
        Ok(request) => request,
        Err(text) => return fail(USAGE, &text),
    };
    if request.help {
        print!("{HELP}");
        return ExitCode::SUCCESS;
    }
    let own = std::env::current_exe().ok();
    let path = std::env::var_os("PATH");
    let places = candidates(own.as_deref(), path.as_deref());
    let Some(program) = places.iter().find(|place| place.is_file()) else {
        let searched: Vec<String> =
            places.iter().filter_map(|place| place.parent()).map(|dir| dir.display().to_string()).collect();
        return fail(
            FAILED,
            &format!("cannot find rvf-mount in {}; install it beside mount.rvf", searched.join(", ")),
        );
    };
    let arguments = arguments(&request);
    if request.verbose {
        let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        eprintln!("mount.rvf: {} {}", program.display(), words.join(" "));
    }
    if request.fake {
        return ExitCode::SUCCESS;
    }
    // Returns only when it could not become that program.
    let error = Command::new(program).args(&arguments).exec();
    fail(FAILED, &format!("{}: {error}", program.display()))
}

fn fail(status: u8, text: &str) -> ExitCode {
    eprintln!("mount.rvf: {text}");
    ExitCode::from(status)
}

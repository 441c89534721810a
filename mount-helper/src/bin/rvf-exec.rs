//! `rvf-exec`: runs what a file carries, after checking it.

use std::io::{self, Write as _};
use std::process::ExitCode;

use rvf_mount_helper::command::{self, Command, Exec};
use rvf_mount_helper::run::{self, REFUSED_STATUS, Run, USAGE_STATUS};
use rvf_mount_helper::{Passed, Step, verify};

fn main() -> ExitCode {
    let exec = match command::parse(std::env::args_os().skip(1)) {
        Err(text) => return fail(USAGE_STATUS, &text),
        Ok(Command::Help) => return print(command::HELP),
        Ok(Command::HelpOf(kind)) => return print(&format!("{}\n", run::help(kind).trim_end())),
        Ok(Command::Version) => return print(concat!("rvf-exec ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Exec(exec)) => *exec,
    };
    if exec.check { check(&exec) } else { execute(exec) }
}

fn execute(exec: Exec) -> ExitCode {
    // What the arguments are is told of any program, also of one that may not run.
    if exec.arguments.first().is_some_and(|word| word == "--help" || word == "-h") {
        return print(&format!("{}\n", run::help(exec.wanted.kind).trim_end()));
    }
    let mut say = |passed: Passed| {
        if exec.verbose {
            note(&format!("check {} of 7 ({}): {}", passed.step.number(), passed.step.title(), passed.note));
        }
    };
    let verified = match verify::verify(&exec.wanted, &mut say) {
        Ok(verified) => verified,
        Err(refusal) => return fail(REFUSED_STATUS, &refusal.to_string()),
    };
    let run = Run { verified, arguments: exec.arguments, verbose: exec.verbose };
    match run::run(run) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => fail(failure.status, &failure.message),
    }
}

/// Prints what each step found.
fn check(exec: &Exec) -> ExitCode {
    let mut lines = String::new();
    let mut line = |step: Step, word: &str, note: &str| {
        let text = format!("{} {:<20} {word:<11} {note}", step.number(), step.title());
        lines.push_str(printable(text.trim_end()).as_str());
        lines.push('\n');
    };
    let result = verify::verify(&exec.wanted, &mut |passed| line(passed.step, "ok", &passed.note));
    let mut status = ExitCode::SUCCESS;
    if let Err(refusal) = result {
        status = ExitCode::from(REFUSED_STATUS);
        for step in Step::ALL.into_iter().filter(|step| *step >= refusal.step) {
            match step == refusal.step {
                true => line(step, "FAILED", &refusal.reason),
                false => line(step, "not reached", ""),
            }
        }
    }
    match io::stdout().write_all(lines.as_bytes()) {
        Ok(()) => status,
        Err(e) => fail(1, &format!("cannot write the output: {e}")),
    }
}

/// Names and reasons may come from files: a terminal must not take orders from them.
fn printable(text: &str) -> String {
    let safe = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().take(4000).map(safe).collect()
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn note(text: &str) {
    let _gone = writeln!(io::stderr(), "rvf-exec: {}", printable(text));
}

fn fail(status: u8, text: &str) -> ExitCode {
    note(text);
    ExitCode::from(status)
}

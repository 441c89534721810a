//! The command line of `rvf-exec`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rvf_kernel::entry::MAX_ENTRY_BYTES;
use rvf_kernel::{ExecEntry, ExecKind};

use crate::verify::{Pick, Wanted};

/// How it is used.
pub const USAGE: &str =
    "usage: rvf-exec [OPTIONS] ENTRY [ARGS], or rvf-exec [OPTIONS] STORE --kind KIND [-- ARGS]";

/// What `--help` says.
pub const HELP: &str = "\
usage: rvf-exec [OPTIONS] ENTRY [ARGS]
       rvf-exec [OPTIONS] STORE --kind KIND [--name NAME | --segment NUMBER] [-- ARGS]

Runs a program that an .rvf file carries, after seven checks, with as few rights as it needs. ENTRY is an executable
entry of a mounted store (kernel/NAME, ebpf/NAME, wasm/NAME), which also runs by its own name: ./wasm/NAME ARGS.
ARGS are the program's; those of a kind are listed by: rvf-exec --help-of kernel|ebpf|wasm

  --kind KIND        kernel, ebpf or wasm
  --name NAME        the program of this name, as in the mounted store
  --segment NUMBER   the program in this segment, as in segments/
                     (neither: the first of the kind that the store lists, the newest)
  --check            only check, and print what each of the seven steps found
  --allow-unsigned   run it this once although no trusted key signed it
  -v, --verbose      say on stderr what was checked and what the program is confined to
  -h, --help         this text
  -V, --version      the version

Exit status: 0 done, 2 wrong usage, 124 a limit of the run was reached, 126 a check failed, 127 something that is needed
is missing here; others are the program's own.
";

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Print the help.
    Help,
    /// Print the arguments of a kind of programs.
    HelpOf(ExecKind),
    /// Print the version.
    Version,
    /// Check a program, and run it unless only that was asked.
    Exec(Box<Exec>),
}

/// A program to be checked and run.
#[derive(Clone, Debug)]
pub struct Exec {
    /// Which.
    pub wanted: Wanted,
    /// Check only.
    pub check: bool,
    /// Say what is done.
    pub verbose: bool,
    /// The program's arguments.
    pub arguments: Vec<OsString>,
}

/// Reads the arguments, without the program's name. The file among them is looked at, to tell an entry from a store: what
/// follows an entry belongs to the program, whatever it looks like.
///
/// # Errors
/// What is wrong, and how it should be.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter();
    let mut options = Options::default();
    let file = loop {
        let Some(argument) = arguments.next() else { return Err(USAGE.to_owned()) };
        match options.take(&argument, &mut arguments)? {
            Taken::Command(command) => return Ok(command),
            Taken::Option => {}
            Taken::End => match arguments.next() {
                Some(file) => break PathBuf::from(file),
                None => return Err(USAGE.to_owned()),
            },
            Taken::No => break PathBuf::from(argument),
        }
    };
    let said = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
    if let Some(text) = entry_text(&file).map_err(|e| said(&e))? {
        let entry = ExecEntry::parse(&text).map_err(|e| said(&e))?;
        if options.kind.is_some() || options.name.is_some() || options.segment.is_some() {
            return Err(
                "an entry says itself which program it is; leave out --kind, --name and --segment".into()
            );
        }
        return Ok(options.exec(Wanted::of_entry(entry), arguments.collect()));
    }
    let mut rest: Vec<OsString> = Vec::new();
    while let Some(argument) = arguments.next() {
        match options.take(&argument, &mut arguments)? {
            Taken::Command(command) => return Ok(command),
            Taken::Option => {}
            Taken::End => {
                rest.extend(arguments);
                break;
            }
            Taken::No => {
                return Err(format!("the program's arguments come after --: {}", argument.display()));
            }
        }
    }
    let kind = options.kind.ok_or("--kind is needed with a store: kernel, ebpf or wasm")?;
    let pick = match (options.name.take(), options.segment) {
        (Some(_), Some(_)) => return Err("give --name or --segment, not both".into()),
        (Some(name), None) => Pick::Name(name),
        (None, Some(number)) => Pick::Segment(number),
        (None, None) => Pick::First,
    };
    Ok(options.exec(Wanted::new(file, kind, pick), rest))
}

#[derive(Default)]
struct Options {
    kind: Option<ExecKind>,
    name: Option<String>,
    segment: Option<u64>,
    check: bool,
    allow_unsigned: bool,
    verbose: bool,
}

enum Taken {
    Option,
    Command(Command),
    End,
    No,
}

impl Options {
    fn take(&mut self, argument: &OsStr, more: &mut impl Iterator<Item = OsString>) -> Result<Taken, String> {
        let text = argument.to_str().unwrap_or("");
        if text == "--" {
            return Ok(Taken::End);
        }
        if !text.starts_with('-') || text == "-" {
            return Ok(Taken::No);
        }
        let (name, inline) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v.to_owned())));
        let mut value = || {
            let next = || more.next().and_then(|value| value.into_string().ok());
            inline.clone().or_else(next).ok_or_else(|| format!("{name} needs a value; {USAGE}"))
        };
        match name {
            "--kind" => self.kind = Some(kind(&value()?)?),
            "--name" => self.name = Some(value()?),
            "--segment" => {
                let number = value()?;
                let wrong = || format!("--segment {number} is no number of a segment, which count from 1");
                self.segment = Some(number.parse().ok().filter(|n| *n > 0).ok_or_else(wrong)?);
            }
            "--help-of" => return Ok(Taken::Command(Command::HelpOf(kind(&value()?)?))),
            _ if inline.is_some() => return Err(format!("{name} takes no value; {USAGE}")),
            "--check" => self.check = true,
            "--allow-unsigned" => self.allow_unsigned = true,
            "-v" | "--verbose" => self.verbose = true,
            "-h" | "--help" => return Ok(Taken::Command(Command::Help)),
            "-V" | "--version" => return Ok(Taken::Command(Command::Version)),
            _ => return Err(format!("unknown option {name}; {USAGE}")),
        }
        Ok(Taken::Option)
    }

    fn exec(&self, mut wanted: Wanted, arguments: Vec<OsString>) -> Command {
        wanted.allow_unsigned = self.allow_unsigned;
        Command::Exec(Box::new(Exec { wanted, check: self.check, verbose: self.verbose, arguments }))
    }
}

fn kind(name: &str) -> Result<ExecKind, String> {
    name.parse().map_err(|mend: String| format!("no kind of program is called '{name}'; {mend}"))
}

/// The text of an executable entry; `None` for a file that does not begin as a script does. Never blocks.
fn entry_text(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let kind = std::fs::metadata(path)?.file_type();
    if kind.is_fifo() || kind.is_socket() || kind.is_char_device() || kind.is_block_device() || kind.is_dir()
    {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MAX_ENTRY_BYTES as u64 + 1).read_to_end(&mut text)?;
    Ok(text.starts_with(b"#!").then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<Command, String> {
        parse(words.iter().map(OsString::from))
    }

    fn exec(words_: &[&str]) -> Exec {
        match words(words_).expect("good") {
            Command::Exec(exec) => *exec,
            other => panic!("{other:?}"),
        }
    }

    fn place() -> (tempfile::TempDir, String, String) {
        let dir = tempfile::tempdir().expect("a directory");
        let entry = dir.path().join("query");
        let digest = "5f".repeat(32);
        let text = format!(
            "#!/usr/bin/rvf-exec\nstore: /data/a.rvf\nkind: wasm\nname: query\nsegment: 7\noffset: 64\ndigest: sha3-256:{digest}\n"
        );
        std::fs::write(&entry, text).expect("written");
        let store = dir.path().join("a.rvf");
        std::fs::write(&store, b"SFVR").expect("written");
        let path = |p: PathBuf| p.to_str().expect("text").to_owned();
        (dir, path(entry), path(store))
    }

    #[test]
    fn what_follows_an_entry_is_the_programs() {
        let (_dir, entry, _) = place();
        let got = exec(&[&entry, "--check", "-v", "--", "--allow-unsigned"]);
        assert!(!got.check && !got.verbose && !got.wanted.allow_unsigned);
        assert_eq!(got.arguments, ["--check", "-v", "--", "--allow-unsigned"].map(OsString::from));
        assert_eq!((got.wanted.kind, got.wanted.store.to_str()), (ExecKind::Wasm, Some("/data/a.rvf")));
        assert!(matches!(got.wanted.pick, Pick::Entry(entry) if entry.segment == 7));
        let got = exec(&["--check", "--allow-unsigned", &entry, "x"]);
        assert!(got.check && got.wanted.allow_unsigned);
        assert_eq!(got.arguments, ["x"].map(OsString::from));
        assert!(words(&["--kind", "wasm", &entry]).expect_err("said twice").contains("itself"));
    }

    #[test]
    fn a_store_needs_to_be_told_what() {
        let (_dir, _, store) = place();
        let got = exec(&[&store, "--kind=ebpf", "--segment", "3", "-v", "--", "--iface", "lo"]);
        assert!(got.verbose && got.wanted.pick == Pick::Segment(3));
        assert_eq!(got.arguments, ["--iface", "lo"].map(OsString::from));
        assert_eq!(exec(&["--kind", "kernel", &store]).wanted.pick, Pick::First);
        let named = exec(&["--name", "microlinux", &store, "--kind", "kernel"]).wanted.pick;
        assert_eq!(named, Pick::Name("microlinux".into()));
        for (bad, word) in [
            (&[&*store][..], "--kind"),
            (&[&store, "--kind", "java"], "kernel, ebpf or wasm"),
            (&[&store, "--kind", "wasm", "0.1,0.2"], "after --"),
            (&[&store, "--kind", "wasm", "--name", "a", "--segment", "1"], "not both"),
            (&[&store, "--kind", "wasm", "--segment", "0"], "from 1"),
            (&[&store, "--kind"], "needs a value"),
            (&[&store, "--check=yes"], "takes no value"),
            (&["--iface", &store], "unknown option"),
            (&["/nowhere/at/all"], "No such file"),
            (&["/dev/null"], "not a regular file"),
            (&["/tmp"], "not a regular file"),
            (&[], "usage"),
        ] {
            let error = words(bad).expect_err(word);
            assert!(error.contains(word), "{bad:?}: {error}");
        }
    }
}

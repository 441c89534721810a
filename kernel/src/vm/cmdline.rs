//! The command line of a machine's kernel: what the file asks for, as far as it may, and then ours.

use super::GuestArguments;
use crate::MAX_CMDLINE;

/// Words of a file's command line that are taken: what a kernel may need to run at all or to run fast, and nothing that
/// says what is run, from where, or who is told. A word ends in `=` where it takes a value.
const ALLOWED: [&str; 33] = [
    "quiet",
    "debug",
    "loglevel=",
    "ignore_loglevel",
    "earlyprintk=",
    "console=ttyS0",
    "console=ttyAMA0",
    "noapictimer",
    "no_timer_check",
    "nolapic",
    "noapic",
    "lpj=",
    "tsc=",
    "notsc",
    "clocksource=",
    "mitigations=",
    "nokaslr",
    "kaslr",
    "noxsave",
    "nosmp",
    "maxcpus=",
    "nr_cpus=",
    "mem=",
    "pci=off",
    "acpi=off",
    "nomodule",
    "i8042.noaux",
    "i8042.nokbd",
    "i8042.nomux",
    "i8042.nopnp",
    "random.trust_cpu=",
    "reboot=",
    "panic=",
];

/// Why a file's command line is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CmdlineError {
    /// A byte that has no place in it.
    #[error("byte {byte:#04x} at position {at} of the file's command line; only printable ASCII is taken")]
    Byte {
        /// Position, from 0.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// A word that is not allowed.
    #[error(
        "the file's command line has '{word}', which is none of the words that a file may give its kernel; embed it \
         without"
    )]
    Word {
        /// The word, cut where it is long.
        word: String,
    },
    /// Too long with ours.
    #[error("the command line has {len} bytes with what is needed here; {MAX_CMDLINE} are the most")]
    Long {
        /// Bytes.
        len: usize,
    },
}

/// Whether a file's command line may be given to its kernel.
///
/// # Errors
/// [`CmdlineError`].
pub fn check_words(file: &[u8]) -> Result<(), CmdlineError> {
    if let Some((at, byte)) = file.iter().enumerate().find(|(_, byte)| !(0x20..0x7F).contains(*byte)) {
        return Err(CmdlineError::Byte { at, byte: *byte });
    }
    let mut words = file.split(|b| *b == b' ').filter(|word| !word.is_empty()).map(String::from_utf8_lossy);
    match words.find(|word| !is_allowed(word)) {
        Some(word) => Err(CmdlineError::Word { word: word.chars().take(80).collect() }),
        None => Ok(()),
    }
}

/// The whole command line: the file's words, then `extra`, then the guest's. The kernel lets the last of repeated
/// words count, so what is ours holds.
///
/// # Errors
/// [`CmdlineError`].
pub fn command_line(file: &[u8], extra: &str, guest: &GuestArguments) -> Result<String, CmdlineError> {
    check_words(file)?;
    let mut line = String::new();
    for word in file.split(|b| *b == b' ').filter(|word| !word.is_empty()) {
        line.push_str(&String::from_utf8_lossy(word));
        line.push(' ');
    }
    line.push_str(extra);
    line.push(' ');
    line.push_str(&guest.words());
    if line.len() > MAX_CMDLINE {
        return Err(CmdlineError::Long { len: line.len() });
    }
    Ok(line)
}

fn is_allowed(word: &str) -> bool {
    let value =
        |v: &str| v.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b',' | b'-' | b'_'));
    ALLOWED.iter().any(|allowed| match allowed.strip_suffix('=') {
        Some(_) => word.strip_prefix(allowed).is_some_and(value),
        // The speed of a serial line: ttyS0,115200n8.
        None if allowed.starts_with("console=") => {
            word == *allowed
                || word.strip_prefix(allowed).and_then(|rest| rest.strip_prefix(',')).is_some_and(value)
        }
        None => word == *allowed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest() -> GuestArguments {
        GuestArguments { lens: vec![640], port: 8080 }
    }

    #[test]
    fn ours_comes_last() {
        let line = command_line(b"console=ttyS0,115200 quiet  panic=5", "panic=-1", &guest());
        assert_eq!(
            line.as_deref(),
            Ok("console=ttyS0,115200 quiet panic=5 panic=-1 rvf.len=640 rvf.port=8080")
        );
        assert_eq!(command_line(b"", "x", &guest()).as_deref(), Ok("x rvf.len=640 rvf.port=8080"));
    }

    #[test]
    fn nothing_else_is_taken() {
        for word in [
            "init=/bin/sh",
            "rdinit=/x",
            "root=/dev/vda",
            "initrd=x",
            "rvf.len=1",
            "console=tty1",
            "console=ttyS0;x",
            "quiet;",
            "--",
            "lpj=1\"2",
            "module_blacklist=virtio_blk",
        ] {
            assert!(
                matches!(command_line(word.as_bytes(), "", &guest()), Err(CmdlineError::Word { .. })),
                "{word}"
            );
        }
        for (line, at) in [("a\nb", 1), ("quiet\0", 5), ("\x1b[2J", 0), ("\u{e4}", 0)] {
            let error = command_line(line.as_bytes(), "", &guest()).expect_err(line);
            assert!(matches!(error, CmdlineError::Byte { at: found, .. } if found == at), "{error}");
        }
        let long = format!("lpj={}", "1".repeat(MAX_CMDLINE));
        assert!(matches!(command_line(long.as_bytes(), "", &guest()), Err(CmdlineError::Long { .. })));
    }
}

//! Executable entries: the small text files through which a mounted store offers its programs.
//!
//! ```text
//! #!/usr/local/bin/rvf-exec
//! store: /data/packages.rvf
//! kind: wasm
//! name: query
//! segment: 7
//! offset: 4096
//! digest: sha3-256:5f3c...
//! ```
//!
//! The kernel runs the program of the first line with the entry's path and the caller's arguments. An entry only says
//! where a program lies and which one is meant: whoever reads it checks all of it against the store, and trusts none of it.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use rvf_format::SegType;

/// Largest entry, bytes.
pub const MAX_ENTRY_BYTES: usize = 64 << 10;
/// Longest path of a store, bytes: the kernel's own limit, less the final zero.
pub const MAX_STORE_PATH: usize = 4095;
/// Longest path of the helper: older kernels read 127 bytes of a first line.
pub const MAX_HELPER_PATH: usize = 124;
/// Longest name of a program, bytes: as for any file.
pub const MAX_PROGRAM_NAME: usize = 255;

/// The name of a program that was given none: the number of its segment, and what it is for where its header says so.
#[must_use]
pub fn default_name(number: u64, word: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let word: String = word.chars().map(plain).collect();
    match word.trim_matches('-') {
        "" => format!("{number:06}"),
        word => format!("{number:06}-{word}"),
    }
}

/// Kinds of programs that a file can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExecKind {
    /// A kernel image, booted in a virtual machine.
    Kernel,
    /// An eBPF program, loaded into the running kernel.
    Ebpf,
    /// A WASM module.
    Wasm,
}

impl ExecKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Kernel, Self::Ebpf, Self::Wasm];

    /// Its name in entries and policies, and that of its directory in a mounted store.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Ebpf => "ebpf",
            Self::Wasm => "wasm",
        }
    }

    /// From that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The type of segment that holds it.
    pub const fn segment_type(self) -> SegType {
        match self {
            Self::Kernel => SegType::KERNEL,
            Self::Ebpf => SegType::EBPF,
            Self::Wasm => SegType::WASM,
        }
    }
}

impl std::fmt::Display for ExecKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ExecKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::from_name(name).ok_or_else(|| "use kernel, ebpf or wasm".to_owned())
    }
}

/// Why a text is no entry, or why an entry cannot be written. All variants are mistakes of the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// Over the limit.
    #[error("more than {MAX_ENTRY_BYTES} bytes are too many for an executable entry")]
    TooLarge,
    /// No text.
    #[error("an executable entry is UTF-8 text; byte {at} is not")]
    NotText {
        /// Offset.
        at: usize,
    },
    /// A script of something else, or no script.
    #[error("an executable entry begins with a line #!/absolute/path/of/rvf-exec")]
    NoHelper,
    /// Not `key: value`.
    #[error("line {line} is not 'key: value'")]
    Line {
        /// From 1.
        line: usize,
    },
    /// Nothing that an entry says.
    #[error("line {line}: no entry has a key '{key}'")]
    Key {
        /// From 1.
        line: usize,
        /// The key, printable.
        key: String,
    },
    /// Said twice.
    #[error("line {line}: '{key}' is given a second time")]
    Twice {
        /// From 1.
        line: usize,
        /// The key.
        key: &'static str,
    },
    /// Not said.
    #[error("'{0}' is missing")]
    Missing(&'static str),
    /// A value that its key cannot have.
    #[error("'{key}' {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong, and what it should be.
        problem: String,
    },
}

/// What an executable entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecEntry {
    /// The program of the first line: an absolute path without blanks.
    pub helper: PathBuf,
    /// The store: an absolute path.
    pub store: PathBuf,
    /// What kind of program it is.
    pub kind: ExecKind,
    /// Its name: that of the entry's file.
    pub name: String,
    /// Place of its segment in the file, counted from 1 as in `segments/`.
    pub segment: u64,
    /// Offset of the segment's header in the file.
    pub offset: u64,
    /// SHA3-256 of the segment's payload.
    pub digest: [u8; 32],
}

const KEYS: [&str; 6] = ["store", "kind", "name", "segment", "offset", "digest"];
const DIGEST: &str = "sha3-256:";

fn wrong(key: &'static str, problem: impl Into<String>) -> EntryError {
    EntryError::Value { key, problem: problem.into() }
}

/// A path as it can stand on a line of its own.
fn path<'p>(key: &'static str, path: &'p Path, max: usize) -> Result<&'p str, EntryError> {
    let text = path.to_str().ok_or_else(|| wrong(key, "is not UTF-8; give the file another name"))?;
    if !text.starts_with('/') {
        return Err(wrong(key, "is not an absolute path"));
    }
    if text.len() > max {
        return Err(wrong(key, format!("has {} bytes; {max} are the most", text.len())));
    }
    if text.chars().any(char::is_control) {
        return Err(wrong(key, "holds control characters; give the file another name"));
    }
    Ok(text)
}

/// Whether a program may be called this: a file's name that a terminal shows as it is.
fn check_name(name: &str) -> Result<(), EntryError> {
    let odd = |c: char| c == '/' || c.is_control();
    match name {
        "" | "." | ".." => Err(wrong("name", "is no name of a file")),
        _ if name.len() > MAX_PROGRAM_NAME => Err(wrong("name", "is longer than 255 bytes")),
        _ if name.chars().any(odd) => Err(wrong("name", "holds a slash or control characters")),
        _ => Ok(()),
    }
}

impl ExecEntry {
    /// The entry's text.
    ///
    /// # Errors
    /// [`EntryError::Value`] for paths and names that a line cannot hold.
    pub fn render(&self) -> Result<String, EntryError> {
        let helper = path("helper", &self.helper, MAX_HELPER_PATH)?;
        if helper.contains(char::is_whitespace) {
            return Err(wrong("helper", "holds a blank, at which the kernel would cut it"));
        }
        let store = path("store", &self.store, MAX_STORE_PATH)?;
        // A value's ends are not kept by a reader that trims, and ours is one.
        if store.trim() != store {
            return Err(wrong("store", "ends with a blank; give the file another name"));
        }
        check_name(&self.name)?;
        if self.name.trim() != self.name {
            return Err(wrong("name", "begins or ends with a blank"));
        }
        if self.segment == 0 {
            return Err(wrong("segment", "counts from 1"));
        }
        let Self { kind, name, segment, offset, .. } = self;
        let digest: String = self.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!(
            "#!{helper}\nstore: {store}\nkind: {kind}\nname: {name}\nsegment: {segment}\noffset: {offset}\n\
             digest: {DIGEST}{digest}\n"
        ))
    }

    /// Reads an entry's text. Empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// [`EntryError`], which names line and key.
    pub fn parse(text: &[u8]) -> Result<Self, EntryError> {
        if text.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLarge);
        }
        let text =
            std::str::from_utf8(text).map_err(|error| EntryError::NotText { at: error.valid_up_to() })?;
        let mut lines = text.lines().zip(1..);
        let helper = lines.next().and_then(|(first, _)| first.strip_prefix("#!"));
        let helper = helper.filter(|h| h.starts_with('/')).ok_or(EntryError::NoHelper)?;
        path("helper", Path::new(helper), MAX_HELPER_PATH)?;
        let mut values: [Option<&str>; KEYS.len()] = [None; KEYS.len()];
        for (content, line) in lines {
            if content.trim().is_empty() || content.starts_with('#') {
                continue;
            }
            let (key, value) = content.split_once(':').ok_or(EntryError::Line { line })?;
            let known = KEYS.into_iter().zip(&mut values).find(|(known, _)| *known == key);
            let Some((key, slot)) = known else {
                return Err(EntryError::Key { line, key: key.escape_default().take(64).collect() });
            };
            if slot.replace(value.trim()).is_some() {
                return Err(EntryError::Twice { line, key });
            }
        }
        let [store, kind, name, segment, offset, digest] = values;
        let store = Path::new(store.ok_or(EntryError::Missing("store"))?);
        path("store", store, MAX_STORE_PATH)?;
        let kind = kind.ok_or(EntryError::Missing("kind"))?;
        let kind = ExecKind::from_str(kind).map_err(|mend| wrong("kind", format!("is unknown; {mend}")))?;
        let name = name.ok_or(EntryError::Missing("name"))?;
        check_name(name)?;
        let segment = number("segment", segment)?;
        if segment == 0 {
            return Err(wrong("segment", "counts from 1"));
        }
        Ok(Self {
            helper: PathBuf::from(helper),
            store: store.to_path_buf(),
            kind,
            name: name.to_owned(),
            segment,
            offset: number("offset", offset)?,
            digest: parse_digest(digest.ok_or(EntryError::Missing("digest"))?)
                .ok_or_else(|| wrong("digest", "is not 'sha3-256:' and 64 hexadecimal digits"))?,
        })
    }
}

/// Digits only: no sign, no blanks, no second spelling.
fn number(key: &'static str, value: Option<&str>) -> Result<u64, EntryError> {
    let value = value.ok_or(EntryError::Missing(key))?;
    let plain = value.bytes().all(|b| b.is_ascii_digit()) && (value == "0" || !value.starts_with('0'));
    let parsed = value.parse().ok().filter(|_| plain);
    parsed.ok_or_else(|| wrong(key, "is not a number in decimal digits"))
}

/// Reads `sha3-256:` and 64 hexadecimal digits.
pub fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let hex = text.strip_prefix(DIGEST)?.as_bytes();
    if hex.len() != 64 {
        return None;
    }
    let mut digest = [0; 32];
    for (to, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *to = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> ExecEntry {
        ExecEntry {
            helper: "/usr/local/bin/rvf-exec".into(),
            store: "/data/a b: c.rvf".into(),
            kind: ExecKind::Wasm,
            name: "000007-microkernel".into(),
            segment: 7,
            offset: 4096,
            digest: std::array::from_fn(|i| i as u8 * 7),
        }
    }

    fn changed(from: &str, to: &str) -> Result<ExecEntry, EntryError> {
        let text = entry().render().expect("fit");
        assert!(text.contains(from));
        ExecEntry::parse(text.replacen(from, to, 1).as_bytes())
    }

    #[test]
    fn a_program_without_a_name_is_called_by_its_place_and_purpose() {
        for (word, name) in [
            ("microkernel", "000007-microkernel"),
            ("TC classifier", "000007-tc-classifier"),
            ("-control/plane.", "000007-control-plane"),
            ("..", "000007"),
            ("", "000007"),
        ] {
            assert_eq!(default_name(7, word), name);
            assert_eq!(check_name(name), Ok(()));
        }
        assert_eq!(default_name(1_234_567, "xdp"), "1234567-xdp", "names stay different");
    }

    #[test]
    fn what_is_written_reads_back() {
        for kind in ExecKind::ALL {
            let entry = ExecEntry { kind, ..entry() };
            let text = entry.render().expect("fit");
            assert_eq!(ExecEntry::parse(text.as_bytes()), Ok(entry.clone()));
            let commented = text.replace("store:", "\n# by hand\nstore:");
            assert_eq!(ExecEntry::parse(commented.as_bytes()), Ok(entry));
            assert_eq!(kind.name().parse(), Ok(kind));
        }
    }

    #[test]
    fn what_a_line_cannot_hold_is_not_written() {
        let bad = |change: fn(&mut ExecEntry)| {
            let mut entry = entry();
            change(&mut entry);
            entry.render().expect_err("unfit").to_string()
        };
        assert!(bad(|e| e.store = "data.rvf".into()).contains("absolute"));
        assert!(bad(|e| e.store = "/a\nkind: kernel".into()).contains("control"));
        assert!(bad(|e| e.store = "/a ".into()).contains("blank"));
        assert!(bad(|e| e.store = format!("/{}", "x".repeat(MAX_STORE_PATH)).into()).contains("4096 bytes"));
        assert!(bad(|e| e.helper = "/opt/my tools/rvf-exec".into()).contains("blank"));
        assert!(bad(|e| e.helper = "rvf-exec".into()).contains("absolute"));
        assert!(bad(|e| e.name = "../x".into()).contains("slash"));
        assert!(bad(|e| e.name = "..".into()).contains("name"));
        assert!(bad(|e| e.name = "a\u{1b}[2J".into()).contains("control"));
        assert!(bad(|e| e.segment = 0).contains("from 1"));
    }

    #[test]
    fn every_mistake_is_named() {
        let fails = |from: &str, to: &str| changed(from, to).expect_err(to).to_string();
        assert!(fails("#!/", "#/").contains("#!/absolute"));
        assert!(fails("store: /data", "store: data").contains("absolute"));
        assert!(fails("kind: wasm", "kind: java").contains("kernel, ebpf or wasm"));
        assert!(fails("kind: wasm\n", "").contains("'kind' is missing"));
        assert!(fails("kind: wasm\n", "kind: wasm\nkind: ebpf\n").contains("line 4"));
        assert!(fails("kind: wasm\n", "kind: wasm\nargv: --bad\n").contains("argv"));
        assert!(fails("kind: wasm\n", "kind wasm\n").contains("line 3"));
        assert!(fails("segment: 7", "segment: 0").contains("from 1"));
        assert!(fails("segment: 7", "segment: +7").contains("decimal"));
        assert!(fails("offset: 4096", "offset: 18446744073709551616").contains("decimal"));
        assert!(fails("sha3-256:", "md5:").contains("sha3-256"));
        assert!(fails("name: 0", "name: a/0").contains("slash"));
        assert_eq!(ExecEntry::parse(b"#!/x\n\xff"), Err(EntryError::NotText { at: 5 }));
        assert_eq!(ExecEntry::parse(&vec![b'#'; MAX_ENTRY_BYTES + 1]), Err(EntryError::TooLarge));
        assert_eq!(ExecEntry::parse(b""), Err(EntryError::NoHelper));
        let text = entry().render().expect("fit");
        for end in 0..text.len() - 1 {
            assert!(ExecEntry::parse(&text.as_bytes()[..end]).is_err(), "cut to {end}");
        }
    }
}

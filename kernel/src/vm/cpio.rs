//! An initramfs archive in the "newc" form that Linux unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
//! The same entries always give the same bytes.

use std::fmt::Write as _;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

/// An archive under construction.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory. Parents come first.
    pub fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entry(path, REGULAR | mode, (0, 0), content);
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.entry(path, CHARACTER | mode, (major, minor), &[]);
    }

    /// The archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let ino = if mode == 0 { 0 } else { self.entries + 1 };
        self.entries += 1;
        // An archive is held in memory and made of parts that are bounded far below 4 GiB.
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name = path.len() as u32 + 1;
        let mut header = String::from("070701");
        for field in [ino, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0] {
            let _ = write!(header, "{field:08X}");
        }
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut archive = Archive::new();
        archive.directory("dev");
        archive.device("dev/console", 0o600, 5, 1);
        archive.file("init", 0o755, b"hello");
        archive.file("empty", 0o644, b"");
        archive.finish()
    }

    #[test]
    fn the_bytes_are_those_of_the_format() {
        let bytes = sample();
        assert_eq!(bytes, sample(), "the same every time");
        assert!(bytes.len().is_multiple_of(4));
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.starts_with("0707010000000100" /* ino 1, then the mode */), "{text}");
        assert!(text.contains("dev/console\0"));
        assert!(text.contains("init\0") && text.contains("hello\0\0\0"));
        assert!(text.trim_end_matches('\0').ends_with("TRAILER!!!"));
    }

    #[test]
    fn cpio_reads_it() {
        // busybox has it too.
        for program in [&["cpio", "-tv"][..], &["busybox", "cpio", "-tv"]] {
            let child = Command::new(program[0])
                .args(&program[1..])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn();
            let Ok(mut child) = child else { continue };
            child.stdin.take().expect("a pipe").write_all(&sample()).expect("taken");
            let done = child.wait_with_output().expect("an end");
            let list = String::from_utf8_lossy(&done.stdout).into_owned();
            assert!(done.status.success(), "{list}");
            for (mode, name) in [
                ("drwxr-xr-x", "dev"),
                ("crw-------", "dev/console"),
                ("-rwxr-xr-x", "init"),
                ("-rw-r--r--", "empty"),
            ] {
                assert!(list.lines().any(|l| l.starts_with(mode) && l.ends_with(name)), "{name}: {list}");
            }
            return;
        }
        assert!(std::env::var_os("RVF_REQUIRE_TOOLS").is_none(), "neither cpio nor busybox is here");
        eprintln!("SKIPPED: neither cpio nor busybox is here");
    }
}

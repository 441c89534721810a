//! What a guest writes on its console: looked through for the lines that mean something, and its end kept.

use std::collections::VecDeque;

use rvf_kernel::vm::{AWAKE_MARKER, FAILED_MARKER, GUEST_VERSION, READY_MARKER};

/// Bytes of the end that are kept.
const KEPT: usize = 16 << 10;
/// Longest line that is looked at.
const MAX_LINE: usize = 4 << 10;

/// A line that means something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The guest answers, and whether it is the one that belongs to this program.
    Ready { ours: bool },
    /// It goes on after it stood still, and heard what was said with this token.
    Awake(u32),
    /// It cannot, and why.
    Failed(String),
}

/// A console.
#[derive(Debug, Default)]
pub(super) struct Console {
    kept: VecDeque<u8>,
    line: Vec<u8>,
    heard: bool,
    panic: Option<String>,
}

impl Console {
    /// Takes bytes in; gives the words among them.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Vec<Word> {
        self.heard |= !bytes.is_empty();
        let mut words = Vec::new();
        for byte in bytes {
            if *byte == b'\n' {
                words.extend(word(&self.line));
                self.look_for_panic();
                self.line.clear();
            } else if self.line.len() < MAX_LINE {
                self.line.push(*byte);
            }
        }
        self.kept.extend(bytes);
        let over = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..over);
        words
    }

    fn look_for_panic(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        if let Some(at) = text.find("Kernel panic").filter(|_| self.panic.is_none()) {
            let shown = text.chars().skip(at).take(200).map(|c| if c.is_control() { ' ' } else { c });
            self.panic = Some(shown.collect::<String>().trim().to_owned());
        }
    }

    pub(super) fn has_panicked(&self) -> bool {
        self.panic.is_some()
    }

    /// The kernel's line about its panic.
    pub(super) fn panic(&self) -> Option<&str> {
        self.panic.as_deref()
    }

    pub(super) fn is_silent(&self) -> bool {
        !self.heard
    }

    /// The last lines that say something, on one line, made safe to show.
    pub(super) fn tail(&self, lines: usize) -> String {
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<String> = text
            .lines()
            .map(|line| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>())
            .map(|line| line.trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join(" | ")
    }
}

fn word(line: &[u8]) -> Option<Word> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    if let Some(port) = text.strip_prefix(READY_MARKER) {
        let (port, version) = port.split_once(' ').unwrap_or((port, ""));
        return port.parse::<u16>().is_ok().then_some(Word::Ready { ours: version == GUEST_VERSION });
    }
    if let Some(token) = text.strip_prefix(AWAKE_MARKER) {
        return u32::from_str_radix(token, 16).ok().map(Word::Awake);
    }
    let reason = text.strip_prefix(FAILED_MARKER)?;
    Some(Word::Failed(reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_however_they_are_cut() {
        let text = format!(
            "[    0.1] boot\r\n\n{READY_MARKER}8080 {GUEST_VERSION}\r\nx\n{READY_MARKER}8080\n{AWAKE_MARKER}00ff\n{FAILED_MARKER}no drive\x1b[2J\n"
        );
        for size in [1, 2, 7, 1000] {
            let mut console = Console::default();
            assert!(console.is_silent());
            let words: Vec<Word> =
                text.as_bytes().chunks(size).flat_map(|piece| console.take(piece)).collect();
            let ready = [true, false].map(|ours| Word::Ready { ours });
            assert_eq!(words[..2], ready);
            assert_eq!(words[2..], [Word::Awake(255), Word::Failed("no drive [2J".into())]);
            assert!(!console.is_silent());
        }
    }

    #[test]
    fn what_only_looks_alike_means_nothing() {
        let mut console = Console::default();
        for line in [
            format!("x {READY_MARKER}8080\n"),
            format!("{READY_MARKER}soon\n"),
            format!("{AWAKE_MARKER}yes\n"),
        ] {
            assert_eq!(console.take(line.as_bytes()), []);
        }
    }

    #[test]
    fn a_panic_is_remembered() {
        let mut console = Console::default();
        console.take(b"[    1.2] Kernel panic - not syncing: no init\x1b found\r\n[    1.3] CPU: 0\n");
        assert_eq!(console.panic(), Some("Kernel panic - not syncing: no init  found"));
        assert!(console.has_panicked());
    }

    #[test]
    fn a_flood_is_forgotten_but_for_its_end() {
        let mut console = Console::default();
        for n in 0..100_000 {
            console.take(format!("line {n} ").as_bytes());
        }
        assert!(console.kept.len() <= KEPT && console.line.len() <= MAX_LINE);
        console.take(b"\nlast but one\n\x07last\n\n");
        assert_eq!(console.tail(2), "last but one | last");
    }
}

//! Executable entries: `kernel/NAME`, `ebpf/NAME`, `wasm/NAME`. Small texts whose first line names the program that verifies
//! and runs what they stand for; this process never does.

use std::path::{Path, PathBuf};

use rvf_kernel::{ExecEntry, ExecKind};

use crate::errno::Error;
use crate::node::{ProgramKind, SegmentKey};
use crate::programs::Shown;
use crate::snapshot::{Part, Snap};
use crate::store_dir::StoreDir;

/// Where the helper is installed unless it lies beside this program.
const INSTALLED: &str = "/usr/local/bin/rvf-exec";

/// The helper: beside this program, as in a build directory, or else where it is installed.
#[must_use]
pub fn helper() -> PathBuf {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("rvf-exec")));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(INSTALLED))
}

/// Why no entry of a mount of this source could be executed, if so.
#[must_use]
pub fn hindrance(helper: &Path, source: &Path) -> Option<String> {
    if !helper.is_file() {
        return Some(format!(
            "rvf-exec, which runs them, is neither beside rvf-mount nor at {}",
            helper.display()
        ));
    }
    let sample = ExecEntry {
        helper: helper.to_path_buf(),
        store: absolute(source),
        kind: ExecKind::Wasm,
        name: "sample".into(),
        segment: 1,
        offset: 0,
        digest: [0; 32],
    };
    sample.render().err().map(|error| format!("{error} ({})", helper.display()))
}

/// The text of an entry. Hashes the program's payload, once.
///
/// # Errors
/// [`Error::Stale`] when the program is gone.
pub fn text(dir: &StoreDir, snap: &Snap, key: SegmentKey) -> Result<String, Error> {
    let (shown, part) = find(snap, key)?;
    let digest = dir.content(snap, part).ok_or(Error::Stale)?.digest;
    Ok(render(dir, shown, part, digest))
}

/// Its length, without hashing: all digests are as long.
///
/// # Errors
/// [`Error::Stale`] when the program is gone.
pub fn len(dir: &StoreDir, snap: &Snap, key: SegmentKey) -> Result<u64, Error> {
    let (shown, part) = find(snap, key)?;
    Ok(render(dir, shown, part, [0; 32]).len() as u64)
}

fn find(snap: &Snap, key: SegmentKey) -> Result<(&Shown, &Part), Error> {
    let shown = snap.programs().at(key).ok_or(Error::Stale)?;
    Ok((shown, snap.part(key).ok_or(Error::Stale)?))
}

fn render(dir: &StoreDir, shown: &Shown, part: &Part, digest: [u8; 32]) -> String {
    let entry = ExecEntry {
        helper: dir.settings.helper.clone(),
        store: absolute(dir.store.path()),
        kind: match shown.kind {
            ProgramKind::Kernel => ExecKind::Kernel,
            ProgramKind::Ebpf => ExecKind::Ebpf,
            ProgramKind::Wasm => ExecKind::Wasm,
        },
        name: shown.name.clone(),
        segment: u64::from(part.key.entry) + 1,
        offset: part.raw.start,
        digest,
    };
    // A path with a line end in it, say: then it cannot be run from here, and the file says why.
    entry.render().unwrap_or_else(|error| format!("#!/bin/false\n# {error}\n"))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_entries_from_being_executed_is_known_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = Path::new("/data/a.rvf");
        let helper = dir.path().join("rvf-exec");
        let why = hindrance(&helper, source).expect("it is not there");
        assert!(why.contains("beside rvf-mount") && why.contains(&helper.display().to_string()), "{why}");
        std::fs::write(&helper, "").expect("a file");
        assert_eq!(hindrance(&helper, source), None);
        let blank = dir.path().join("my tools");
        std::fs::create_dir(&blank).expect("a directory");
        std::fs::write(blank.join("rvf-exec"), "").expect("a file");
        let why = hindrance(&blank.join("rvf-exec"), source).expect("a blank");
        assert!(why.contains("blank"), "{why}");
    }
}

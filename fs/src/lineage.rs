//! `lineage`: where a store descends from, root first.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rvf_format::{FileBytes, FileIdentity, checksum, recover};

use crate::json;
use crate::snapshot::Snap;

/// Files looked at in the store's directory when a parent is searched.
const MAX_CANDIDATES: usize = 512;
/// Generations followed at most.
const MAX_DEPTH: usize = 64;

struct Ancestor {
    path: PathBuf,
    identity: FileIdentity,
    bytes: FileBytes,
}

/// The text: depth, file id, name, derivation, and `verified`, `missing` or `MISMATCH`, separated by tabs.
///
/// Parents are searched beside the file, by file id. `verified` means that the parent, or the prefix of it that existed
/// then, has the hash that the child remembers.
#[must_use]
pub fn text(path: &Path, snap: &Snap) -> String {
    let own = snap.view.opened().manifest.as_ref().and_then(|located| located.manifest.identity);
    let Some(own) = own else {
        return format!("0\t-\t{}\troot\tverified\n", name_of(path));
    };
    let mut lines = Vec::new();
    let mut child = own;
    let mut child_path = path.to_path_buf();
    let mut state = "verified";
    for _ in 0..MAX_DEPTH {
        let derivation = if child.is_root() { "root" } else { "derived" };
        lines.push(line(child.lineage_depth, &child.file_id, &name_of(&child_path), derivation, state));
        if child.is_root() {
            break;
        }
        match find_parent(&child_path, &child) {
            Some(parent) => {
                state =
                    if matches_parent(&parent.bytes, &child.parent_hash) { "verified" } else { "MISMATCH" };
                child = parent.identity;
                child_path = parent.path;
            }
            None => {
                lines.push(line(
                    child.lineage_depth.saturating_sub(1),
                    &child.parent_id,
                    "-",
                    "-",
                    "missing",
                ));
                break;
            }
        }
    }
    lines.reverse();
    lines.concat()
}

fn line(depth: u32, id: &[u8; 16], name: &str, derivation: &str, state: &str) -> String {
    let mut hex = String::new();
    json::hex(&mut hex, id);
    let mut out = String::new();
    let _ = writeln!(out, "{depth}\t{hex}\t{name}\t{derivation}\t{state}");
    out
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn find_parent(child: &Path, identity: &FileIdentity) -> Option<Ancestor> {
    let dir = child.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(dir).ok()?;
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .map(|entry| entry.path())
        .filter(|path| path != child && crate::source::has_store_extension(path))
        .take(MAX_CANDIDATES)
        .collect();
    paths.sort();
    paths.into_iter().find_map(|path| {
        let ancestor = open(path)?;
        (ancestor.identity.file_id == identity.parent_id && ancestor.identity.file_id != identity.file_id)
            .then_some(ancestor)
    })
}

fn open(path: PathBuf) -> Option<Ancestor> {
    let (file, meta) = rvf_cow::open_file(&path).ok()?;
    let bytes = FileBytes::map(&file, meta.len()).ok()?;
    let identity = recover::open(&bytes).manifest?.manifest.identity?;
    Some(Ancestor { path, identity, bytes })
}

/// The parent as it is, or as it was at one of its earlier segment ends, has this hash.
fn matches_parent(bytes: &[u8], hash: &[u8; 32]) -> bool {
    if checksum::parent_hash(bytes) == *hash {
        return true;
    }
    // A parent may have grown since: a child was made when some manifest was the last thing in the file.
    let layout = rvf_format::layout::walk(bytes);
    layout
        .segments()
        .rev()
        .filter(|segment| segment.kind() == rvf_format::SegType::MANIFEST)
        .take(1000)
        .filter_map(|segment| bytes.get(..usize::try_from(segment.raw.end).ok()?))
        .any(|prefix| checksum::parent_hash(prefix) == *hash)
}

//! Where a file descends from: the chain of its parents, and a proof of it for who has none of them.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rvf_crypto::lineage::{Evidence, Proof, Step};
use rvf_format::header::MAGIC_BYTES;
use rvf_format::pin::{Pin, TAIL, find};
use rvf_format::recover::{self, Opened};
use rvf_format::{FileBytes, FileIdentity, SegType, contents};

use crate::branch::{Kin, pin};
use crate::error::Error;
use crate::parent::{MAX_DEPTH, directory_of, kept_name, state_with};
use crate::source::open_regular;

/// Extensions that stores have, and the one of a state that a compaction kept.
const EXTENSIONS: [&str; 6] = ["rvf", "rvdna", "rvtext", "rvgraph", "rvvis", "pinned"];

/// What became of a file of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineageState {
    /// It is the file itself, or holds the very state that its child was made from.
    Verified,
    /// It was not found.
    Missing,
    /// A file with its id was found, but not that state of it.
    Mismatch,
}

impl LineageState {
    /// `verified`, `missing` or `MISMATCH`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Missing => "missing",
            Self::Mismatch => "MISMATCH",
        }
    }
}

/// One file of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Generations above it.
    pub depth: u32,
    /// Its file id; zero when it has none.
    pub file_id: [u8; 16],
    /// Its place; `None` when it was not found.
    pub path: Option<PathBuf>,
    /// How it was made from its parent, where that is recorded.
    pub record: Option<Pin>,
    /// Whether it has no parent.
    pub root: bool,
    /// What became of it.
    pub state: LineageState,
}

impl Generation {
    /// `root`, the derivation that is recorded, or `derived`; `-` for a file that was not found.
    #[must_use]
    pub fn derivation(&self) -> String {
        match (&self.record, self.root, self.state) {
            (_, _, LineageState::Missing) => "-".into(),
            (_, true, _) => "root".into(),
            (Some(pin), ..) => pin.derivation.to_string(),
            (None, ..) => "derived".into(),
        }
    }
}

/// A file of the chain, in the state that counts.
struct Link {
    path: PathBuf,
    bytes: FileBytes,
    /// Bytes of it that belong to that state.
    len: usize,
    opened: Opened,
    identity: FileIdentity,
    pin: Option<Pin>,
    matches: bool,
}

impl Link {
    fn open(path: &Path) -> Result<Option<Self>, Error> {
        let (file, meta) = open_regular(path, false)?;
        let bytes = FileBytes::map(&file, meta.len()).map_err(|e| Error::io(path, "map", e))?;
        let len = bytes.len();
        Ok(Self::of(path.to_path_buf(), bytes, len, true))
    }

    fn of(path: PathBuf, bytes: FileBytes, len: usize, matches: bool) -> Option<Self> {
        let opened = recover::open(bytes.get(..len)?);
        let identity = opened.manifest.as_ref()?.manifest.identity?;
        let pin = pin::read(bytes.get(..len)?, &opened).ok().flatten();
        Some(Self { path, bytes, len, opened, identity, pin, matches })
    }

    fn state(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }

    fn intact(&self) -> Result<(), Error> {
        if self.bytes.is_poisoned() {
            return Err(Error::Damaged {
                path: self.path.clone(),
                what: "cut short while it was read".into(),
            });
        }
        Ok(())
    }

    /// The parent: where the file says, under the name of a kept state, or beside it by file id. A file that holds the
    /// state is taken before one that only has the id.
    fn parent(&self, beside: &mut Beside) -> Result<Option<Self>, Error> {
        let mut paths = Vec::new();
        if let Some(cow) = contents_cow(self.state(), &self.opened) {
            let place = directory_of(&self.path).join(cow);
            if let Some(pin) = &self.pin {
                paths.push(kept_name(&place, &pin.key()));
            }
            paths.insert(0, place);
        }
        let mut second = None;
        for path in paths {
            let Some(found) = self.parent_at(path)? else { continue };
            if found.matches {
                return Ok(Some(found));
            }
            second = second.or(Some(found));
        }
        for path in beside.of(directory_of(&self.path), &self.identity.parent_id) {
            if *path == self.path {
                continue;
            }
            let Some(found) = self.parent_at(path.clone())? else { continue };
            if found.matches {
                return Ok(Some(found));
            }
            second = second.or(Some(found));
        }
        Ok(second)
    }

    fn parent_at(&self, path: PathBuf) -> Result<Option<Self>, Error> {
        let Ok((file, meta)) = open_regular(&path, false) else { return Ok(None) };
        let Ok(bytes) = FileBytes::map(&file, meta.len()) else { return Ok(None) };
        if !bytes.starts_with(&MAGIC_BYTES) {
            return Ok(None);
        }
        let opened = recover::open(&bytes);
        let Some(identity) = opened.manifest.as_ref().and_then(|m| m.manifest.identity) else {
            return Ok(None);
        };
        if identity.file_id != self.identity.parent_id || identity.file_id == self.identity.file_id {
            return Ok(None);
        }
        let state = match &self.pin {
            Some(pin) => {
                let len = usize::try_from(pin.parent.prefix).ok();
                len.filter(|len| {
                    let prefix = bytes.get(..*len);
                    prefix.is_some_and(|p| pin::digest(p, &pin.parent.file_id) == pin.parent.digest)
                })
            }
            None => state_with(&bytes, &self.identity.parent_hash)
                .map_err(|what| Error::Unsupported { path: path.clone(), what: what.to_string() })?,
        };
        let (len, matches) = (state.unwrap_or(bytes.len()), state.is_some());
        Ok(Self::of(path, bytes, len, matches))
    }
}

/// The stores of the directories that were looked through, by their ids: each directory is read once for a whole chain, and
/// only when a file is not where its child says.
#[derive(Default)]
struct Beside {
    known: HashMap<PathBuf, HashMap<[u8; 16], Vec<PathBuf>>>,
}

impl Beside {
    /// The files in a directory that say they are the one with this id, by path. The first call for a directory is O(segments of
    /// all stores in it).
    fn of(&mut self, directory: &Path, id: &[u8; 16]) -> &[PathBuf] {
        let known = self.known.entry(directory.to_path_buf()).or_insert_with(|| Self::read(directory));
        known.get(id).map_or(&[], Vec::as_slice)
    }

    fn read(directory: &Path) -> HashMap<[u8; 16], Vec<PathBuf>> {
        let mut by_id: HashMap<[u8; 16], Vec<PathBuf>> = HashMap::new();
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            let known = path
                .extension()
                .is_some_and(|e| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known)));
            if !known || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            if let Some(id) = Self::id_of(&path) {
                by_id.entry(id).or_default().push(path);
            }
        }
        by_id.values_mut().for_each(|paths| paths.sort_unstable());
        by_id
    }

    /// What does not begin like an RVF file is not looked through: it may be large.
    fn id_of(path: &Path) -> Option<[u8; 16]> {
        let (file, meta) = open_regular(path, false).ok()?;
        let mut begin = [0; MAGIC_BYTES.len()];
        file.read_exact_at(&mut begin, 0).ok().filter(|()| begin == MAGIC_BYTES)?;
        Some(Kin::read(path, &file, meta.len()).ok()??.file_id)
    }
}

/// Where a copy-on-write child says that its parent is.
fn contents_cow(bytes: &[u8], opened: &Opened) -> Option<String> {
    let listed = |kind| opened.manifest.as_ref()?.manifest.entries_of(kind).next_back();
    listed(SegType::COW_MAP)?;
    contents::branch_state(bytes, opened).map(|cow| cow.map.parent_path)
}

/// The chain from a file up, the file first. Ends at a root, where a parent is not found, and before a file that came before.
fn chain(path: &Path) -> Result<(Vec<Link>, bool), Error> {
    let Some(first) = Link::open(path)? else { return Ok((Vec::new(), true)) };
    let mut links = vec![first];
    let mut beside = Beside::default();
    loop {
        let Some(last) = links.last().filter(|last| !last.identity.is_root()) else {
            return Ok((links, true));
        };
        if links.len() >= MAX_DEPTH {
            return Ok((links, false));
        }
        match last.parent(&mut beside)? {
            Some(parent) if links.iter().all(|link| link.identity.file_id != parent.identity.file_id) => {
                links.push(parent);
            }
            _ => return Ok((links, false)),
        }
    }
}

/// The chain of a file, root first. Parents are looked for where a branch says, under the hidden name of a kept state, and
/// beside the file by their id.
///
/// # Errors
/// The file itself cannot be read; [`Error::Unsupported`] for a child of the existing tools whose parent has too many states
/// for all to be tried.
pub fn lineage(path: &Path) -> Result<Vec<Generation>, Error> {
    let (links, whole) = chain(path)?;
    let mut out: Vec<Generation> = links
        .iter()
        .map(|link| Generation {
            depth: link.identity.lineage_depth,
            file_id: link.identity.file_id,
            path: Some(link.path.clone()),
            record: link.pin.clone(),
            root: link.identity.is_root(),
            state: if link.matches { LineageState::Verified } else { LineageState::Mismatch },
        })
        .collect();
    match links.last() {
        None => out.push(Generation {
            depth: 0,
            file_id: [0; 16],
            path: Some(path.to_path_buf()),
            record: None,
            root: true,
            state: LineageState::Verified,
        }),
        Some(last) if !whole => out.push(Generation {
            depth: last.identity.lineage_depth.saturating_sub(1),
            file_id: last.identity.parent_id,
            path: None,
            record: None,
            root: false,
            state: LineageState::Missing,
        }),
        Some(_) => {}
    }
    links.iter().try_for_each(Link::intact)?;
    out.reverse();
    Ok(out)
}

/// A proof of a file's lineage that can be verified without the older files. They must all be there to make it, in the states
/// that the children were made from. O(segments) and up to 64 KiB a file.
///
/// # Errors
/// [`Error::Unsupported`] naming the file that is missing, is not in that state, or was derived by a tool that
/// records nothing that could be proven; [`Error::NotRvf`] for a file without an identity.
pub fn prove(path: &Path) -> Result<Proof, Error> {
    let (links, whole) = chain(path)?;
    let unsupported = |link: &Link, what: String| Error::Unsupported { path: link.path.clone(), what };
    let Some(oldest) = links.last() else {
        return Err(Error::NotRvf {
            path: path.to_path_buf(),
            reason: "it does not say who it is".into(),
            code: 0x0106,
        });
    };
    if !whole {
        return Err(unsupported(
            oldest,
            "a child whose parent was not found; a proof needs every file up to the root".into(),
        ));
    }
    let mut steps: Vec<Step> = Vec::with_capacity(links.len());
    for (at, link) in links.iter().enumerate() {
        if !link.identity.is_root() && link.pin.is_none() {
            let what =
                "a child of a tool that records a fold of 32 bytes of its parent, which proves nothing";
            return Err(unsupported(link, what.into()));
        }
        if !link.matches {
            return Err(unsupported(
                link,
                "a parent that does not hold the state its child was made from".into(),
            ));
        }
        let state = link.state();
        let record = pin::record(state, &link.opened).to_vec();
        steps.push(Step {
            identity: link.identity,
            record,
            evidence: (at > 0).then(|| evidence(state, &link.opened)),
        });
        link.intact()?;
    }
    steps.reverse();
    Ok(Proof { steps })
}

fn evidence(state: &[u8], opened: &Opened) -> Evidence {
    let from = state.len().saturating_sub(TAIL);
    let newest = opened.layout.segments().rev().find(|segment| segment.kind() == SegType::MANIFEST);
    let outside = newest.filter(|segment| segment.offset < from as u64);
    Evidence {
        headers: pin::headers(state),
        tail: state.get(from..).unwrap_or(&[]).to_vec(),
        manifest: outside.map_or(Vec::new(), |segment| segment.payload_of(state).to_vec()),
    }
}

/// Whether a proof is of this file: its last step is the file's identity and record.
///
/// # Errors
/// The file cannot be read.
pub fn verify_proof_of(proof: &Proof, path: &Path) -> Result<bool, Error> {
    let Some(link) = Link::open(path)? else { return Ok(false) };
    let sound = find(&link.bytes, &link.opened).is_none_or(|s| s.verify(&link.bytes).usable());
    let same = sound && proof.is_of(&link.identity, pin::record(&link.bytes, &link.opened));
    link.intact()?;
    Ok(same)
}

//! Making a branch: a small file that names its parent and the state of it that is meant.

use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rvf_format::SegType;
use rvf_format::checksum::parent_hash;
use rvf_format::cow_map::{Cluster, CowMap};
use rvf_format::lock::{LockError, WriteLock};
use rvf_format::manifest::{FileIdentity, Manifest};
use rvf_format::membership::{Membership, Mode};
use rvf_format::storage::MemStorage;
use rvf_format::writer::{Writer, dir_entry};

use crate::branch::pin::{self, Derivation, MAX_NAME, Pin, Source};
use crate::create::random_id;
use crate::error::Error;
use crate::parent::{MAX_DEPTH, directory_of};
use crate::scratch::Scratch;
use crate::source::open_regular;
use crate::store::Store;
use crate::view::View;
use crate::write::{WITNESS_CHANGE, format_error, manifest_of, now_ns};

/// Bytes of one cluster in the map of a fresh branch: so large that a few describe any parent.
const CLUSTER_BYTES: u32 = 1 << 31;

/// What a new branch is.
#[derive(Debug, Clone, Default)]
pub struct BranchOptions {
    /// Its name, up to 255 bytes; recorded, and nothing depends on it.
    pub name: String,
    /// What it is to its parent; recorded.
    pub derivation: Derivation,
    /// How it was made, as names and values; recorded.
    pub parameters: Vec<(String, String)>,
    /// What else went into it; recorded.
    pub others: Vec<Source>,
}

/// A branch that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchReport {
    /// Its file.
    pub path: PathBuf,
    /// Its file id.
    pub file_id: [u8; 16],
    /// Bytes of the file.
    pub bytes: u64,
    /// The parent's epoch.
    pub parent_epoch: u32,
    /// Bytes of the parent that the branch stands on.
    pub prefix: u64,
    /// Generations above it.
    pub depth: u32,
    /// Whether the existing tools can open it now, or why not.
    pub reference: Result<(), String>,
}

impl Store {
    /// Makes a branch: a file at `path` that shows what this store shows now, whatever happens to either later. O(segments)
    /// and under 2 KB, whatever the number of vectors. The parent is not written to.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Invalid`] for a name or path that cannot be recorded; [`Error::TooLarge`] when the chain of
    /// parents would become too long; [`Error::Unsupported`] when an ancestor is missing; [`Error::Locked`] while another
    /// process rewrites the parent; [`Error::NoSpace`], [`Error::Io`].
    pub fn branch(&self, path: &Path, options: &BranchOptions) -> Result<BranchReport, Error> {
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { path: path.to_path_buf() });
        }
        let made = self.branch_by(path, options, |view, bytes| {
            let mut scratch = Scratch::new(path)?;
            scratch.made_of(view.files())?;
            fill(&scratch, path, bytes)?;
            scratch.publish(path)
        })?;
        Ok(made.0)
    }

    /// As [`Store::branch`], into a hidden file that is published later: its contents are durable. Also gives the state that the
    /// branch shows.
    ///
    /// # Errors
    /// As [`Store::branch`].
    pub fn branch_into(
        &self,
        scratch: &Scratch,
        options: &BranchOptions,
    ) -> Result<(BranchReport, Arc<View>), Error> {
        self.branch_with(scratch, options, None)
    }

    /// As [`Store::branch_into`], for a branch that gets vectors of another store too.
    pub(crate) fn branch_with(
        &self,
        scratch: &Scratch,
        options: &BranchOptions,
        other: Option<&View>,
    ) -> Result<(BranchReport, Arc<View>), Error> {
        let path = scratch.path();
        self.branch_by(path, options, |view, bytes| {
            scratch.made_of(view.files().into_iter().chain(other.into_iter().flat_map(View::files)))?;
            fill(scratch, path, bytes)
        })
    }

    fn branch_by(
        &self,
        path: &Path,
        options: &BranchOptions,
        put: impl FnOnce(&View, &[u8]) -> Result<(), Error>,
    ) -> Result<(BranchReport, Arc<View>), Error> {
        if options.name.len() > MAX_NAME {
            return Err(Error::Invalid {
                what: format!(
                    "a branch name has at most {MAX_NAME} bytes, this one has {}",
                    options.name.len()
                ),
            });
        }
        // Nobody may replace the parent between the look at it and the moment the child can be seen beside it.
        let _lock = self.hold()?;
        self.refresh()?;
        let view = self.view();
        view.check_intact()?;
        let (bytes, mut report) = compose(&view, path, options)?;
        put(&view, &bytes)?;
        report.bytes = bytes.len() as u64;
        Ok((report, view))
    }

    /// The write lock of the file, where this process may take it. Without it a file is only read.
    pub(crate) fn hold(&self) -> Result<Option<WriteLock>, Error> {
        let (file, _) = open_regular(self.path(), false)?;
        match WriteLock::acquire(self.path(), &file, self.options().lock_wait) {
            Ok(lock) => Ok(Some(lock)),
            Err(LockError::Io { source, .. }) => {
                tracing::debug!(path = %self.path().display(), error = %source, "branched without the write lock");
                Ok(None)
            }
            Err(held) => Err(Error::Locked { path: self.path().to_path_buf(), holder: held.to_string() }),
        }
    }
}

fn fill(scratch: &Scratch, path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut file = scratch.file()?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| Error::io(path, "write", e))
}

/// The bytes of a branch of `view` that will lie at `path`.
fn compose(view: &View, path: &Path, options: &BranchOptions) -> Result<(Vec<u8>, BranchReport), Error> {
    let base = manifest_of(view)?;
    view.complete()?;
    let above = view.layers().map_or(0, <[_]>::len);
    if above + 1 >= MAX_DEPTH {
        return Err(Error::TooLarge {
            what: format!(
                "{}: a chain of more than {MAX_DEPTH} files is not followed; merge or export it first",
                view.path.display()
            ),
        });
    }
    let (identity, record) = descent(view, options, false)?;
    let (parent_id, parent_hash) = (identity.parent_id, identity.parent_hash);
    let prefix_len = record.parent.prefix;
    let bytes_per_vector = 4 * u32::from(base.dimension);
    let per_cluster = (CLUSTER_BYTES / bytes_per_vector.max(1)).max(1);
    let clusters = u64::from(view.rows.total()).div_ceil(u64::from(per_cluster));
    let map = CowMap {
        map_format: 0,
        compression_policy: 0,
        cluster_size: CLUSTER_BYTES,
        vectors_per_cluster: per_cluster,
        base_file_id: parent_id,
        base_file_hash: parent_hash,
        bytes_per_vector,
        frozen: false,
        snapshot_epoch: 0,
        parent_path: relative(directory_of(path), &view.path)?,
        clusters: vec![Cluster::Parent; usize::try_from(clusters).unwrap_or(1)],
    };
    // The existing tools look at one level only, so below a child they would show too little: they must refuse.
    let membership = if view.is_child() {
        Membership::hiding([])
    } else {
        Membership::empty(Mode::Exclude, 0).map_err(format_error)?
    };
    view.check_intact()?;

    let storage = MemStorage::new(Vec::new());
    let mut writer = Writer::create(&storage).map_err(format_error)?;
    let mut directory = Vec::new();
    let parts = [
        (SegType::COW_MAP, map.encode().map_err(format_error)?),
        (SegType::MEMBERSHIP, membership.encode().map_err(format_error)?),
        (SegType::META_IDX, record.encode()),
        (SegType::WITNESS, first_witness(&record).to_vec()),
    ];
    for (kind, payload) in &parts {
        directory.push(dir_entry(&writer.append(*kind, &[payload]).map_err(format_error)?));
    }
    let report = BranchReport {
        path: path.to_path_buf(),
        file_id: identity.file_id,
        bytes: 0,
        parent_epoch: base.epoch,
        prefix: prefix_len,
        depth: identity.lineage_depth,
        reference: if view.is_child() {
            Err("its parent is a branch itself, and the existing tools look at one level only".into())
        } else if prefix_len != view.stamp.len {
            Err("its parent ends with bytes that no commit covers".into())
        } else {
            view.reference_opens().map_err(|why| format!("its parent: {why}"))
        },
    };
    let manifest = Manifest {
        epoch: 0,
        total_vectors: 0,
        directory,
        deleted: Vec::new(),
        identity: Some(identity),
        hashes: None,
        ..base
    };
    writer.commit(&manifest).map_err(format_error)?;
    Ok((storage.live(), report))
}

/// Who a child of `view` is, and its record.
pub(crate) fn descent(
    view: &View,
    options: &BranchOptions,
    standalone: bool,
) -> Result<(FileIdentity, Pin), Error> {
    let base = manifest_of(view)?;
    let prefix = prefix_bytes(view);
    let parent = pin::source_of(view, prefix)?;
    let identity = FileIdentity {
        file_id: random_id()?,
        parent_id: parent.file_id,
        parent_hash: parent_hash(prefix),
        lineage_depth: base.identity.map_or(0, |i| i.lineage_depth).saturating_add(1),
    };
    let record = Pin {
        version: 2,
        derivation: options.derivation,
        standalone,
        parent,
        created_ns: now_ns(),
        name: options.name.clone(),
        parameters: options.parameters.clone(),
        others: options.others.clone(),
    };
    Ok((identity, record))
}

/// The witness that every child begins with. Its text can be made again from the record.
pub(crate) fn first_witness(record: &Pin) -> [u8; 73] {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let action = format!(
        "derive:type={},parent={},digest={}",
        record.derivation,
        hex(&record.parent.file_id),
        hex(&record.parent.digest)
    );
    rvf_crypto::entry(&[0; 32], &action, record.created_ns, WITNESS_CHANGE)
}

/// The bytes of the state that a child of `view` stands on.
pub(crate) fn prefix_bytes(view: &View) -> &[u8] {
    usize::try_from(prefix_of(view)).ok().and_then(|len| view.bytes().get(..len)).unwrap_or(&[])
}

/// How much of the file a branch stands on: up to the manifest, and the witnesses after it, which the existing tools leave
/// there. Anything else after it is not committed and the next commit may cut it off.
fn prefix_of(view: &View) -> u64 {
    let Some(located) = &view.opened.manifest else { return 0 };
    let mut end = located.segment.raw.end;
    for segment in view.opened.layout.segments() {
        if segment.offset == end && segment.kind() == SegType::WITNESS {
            end = segment.raw.end;
        }
    }
    end.min(view.stamp.len)
}

/// The path of `file` as seen from the directory `from`, both taken without symbolic links.
pub(crate) fn relative(from: &Path, file: &Path) -> Result<String, Error> {
    let full = |path: &Path| std::fs::canonicalize(path).map_err(|e| Error::io(path, "resolve", e));
    let (from, file) = (full(from)?, full(file)?);
    let mut here = from.components().peekable();
    let mut there = file.components().peekable();
    while here.peek().is_some() && here.peek() == there.peek() {
        here.next();
        there.next();
    }
    let mut path: PathBuf = here.map(|_| Component::ParentDir).collect();
    path.extend(there);
    path.to_str().map(str::to_owned).ok_or_else(|| Error::Invalid {
        what: format!("{}: the path is not UTF-8, which a branch cannot record", file.display()),
    })
}

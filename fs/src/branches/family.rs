//! The branches of a store, found beside it by lineage.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rvf_cow::{Folder, Kin};

use crate::source::{Stamp, has_store_extension, stamp};

/// A branch that lies beside the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Who it is; `None` for a file that is named like a branch and cannot be read.
    pub kin: Option<Kin>,
}

/// All branches that lie beside a store.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// By path.
    pub list: Vec<Found>,
    names: HashMap<String, usize>,
}

impl Members {
    fn new(list: Vec<Found>) -> Self {
        let names = list.iter().enumerate().map(|(at, found)| (found.name.clone(), at)).collect();
        Self { list, names }
    }

    /// The one of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Found> {
        self.list.get(*self.names.get(name)?)
    }

    /// The one in that file.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&Found> {
        let at = self.list.binary_search_by(|found| found.path.as_path().cmp(path)).ok()?;
        self.list.get(at)
    }
}

/// The directory may have been changed again within the same tick of its clock: what was read of it in that tick counts
/// no longer than [`HASTE`].
const SAME_TICK: Duration = Duration::from_millis(50);
/// A copying tool asks a hundred times while the directory changes under it by its own doing. Reading it anew each time
/// would take longer than the copy.
const HASTE: Duration = Duration::from_millis(5);
/// A listing is read anew after this long, whatever the directory's time says (network filesystems), and the directory is
/// looked for by its name again.
const STALE: Duration = Duration::from_secs(2);

/// Finds the descendants of one file, and remembers what it read of them.
#[derive(Debug)]
pub struct Family {
    base: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    folder: Option<(Arc<Folder>, Instant)>,
    files: HashMap<PathBuf, (Stamp, Option<Kin>)>,
    listed: Option<Listed>,
}

#[derive(Debug)]
struct Listed {
    of: [u8; 16],
    directory: Stamp,
    at: Instant,
    settled: bool,
    found: Arc<Members>,
}

impl Listed {
    fn holds(&self, own: [u8; 16], directory: &Stamp) -> bool {
        let most = if self.settled { STALE } else { HASTE };
        self.of == own && self.directory == *directory && self.at.elapsed() < most
    }
}

impl Known {
    fn folder(&mut self, directory: &Path) -> io::Result<Arc<Folder>> {
        if let Some((folder, at)) = &self.folder
            && at.elapsed() < STALE
        {
            return Ok(folder.clone());
        }
        let folder = Folder::open(directory).map(Arc::new).map_err(|error| match error {
            rvf_cow::Error::Io { source, .. } => source,
            other => io::Error::new(io::ErrorKind::NotFound, other.to_string()),
        })?;
        self.folder = Some((folder.clone(), Instant::now()));
        Ok(folder)
    }
}

impl Family {
    /// The family of the store in `base`.
    #[must_use]
    pub fn new(base: &Path) -> Self {
        Self { base: base.to_path_buf(), known: Mutex::default() }
    }

    /// The store's own file.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.base.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// The file of a branch of that name.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        let stem = self.base.file_stem().unwrap_or_default().to_string_lossy();
        let extension = self.base.extension().map_or("rvf".into(), |e| e.to_string_lossy());
        self.directory().join(format!("{stem}.{name}.{extension}"))
    }

    /// Forgets the listing: something was just made or removed.
    pub fn changed(&self) {
        self.known.lock().listed = None;
    }

    /// When the directory was last changed.
    #[must_use]
    pub fn time(&self) -> Option<SystemTime> {
        let folder = self.known.lock().folder(self.directory()).ok()?;
        Some(crate::source::time(&folder.stamp().ok()?))
    }

    /// Whether [`Family::members`] would answer without reading anything.
    #[must_use]
    pub fn is_fresh(&self, own: [u8; 16]) -> bool {
        // Whoever holds the lock may be reading a thousand files.
        let Some(known) = self.known.try_lock() else { return false };
        let (Some((folder, at)), Some(listed)) = (&known.folder, &known.listed) else { return false };
        at.elapsed() < STALE && folder.stamp().is_ok_and(|directory| listed.holds(own, &directory))
    }

    /// The descendants of the file whose id is `own`, by path. O(1) while the directory stays as it is, else O(files in
    /// it), of which only those that changed are read.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn members(&self, own: [u8; 16]) -> io::Result<Arc<Members>> {
        let mut known = self.known.lock();
        let folder = known.folder(self.directory())?;
        let directory = folder.stamp()?;
        if let Some(listed) = known.listed.as_ref().filter(|listed| listed.holds(own, &directory)) {
            return Ok(listed.found.clone());
        }
        let found = Arc::new(Members::new(self.look(&mut known, &folder, own)?));
        let settled = crate::source::age(&directory).is_none_or(|age| age > SAME_TICK);
        known.listed = Some(Listed { of: own, directory, at: Instant::now(), settled, found: found.clone() });
        Ok(found)
    }

    /// A found file as it is now, and who it is: it may have been frozen since the directory was listed.
    #[must_use]
    pub fn seen(&self, path: &Path) -> Option<(Stamp, Option<Kin>)> {
        let mut known = self.known.lock();
        let folder = known.folder(self.directory()).ok()?;
        let at = stamp_in(&folder, path)?;
        Some((at, kin_of(&mut known.files, &folder, path, at)))
    }

    fn look(&self, known: &mut Known, folder: &Folder, own: [u8; 16]) -> io::Result<Vec<Found>> {
        let mut paths: Vec<PathBuf> = folder
            .files()?
            .into_iter()
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
            .filter(|name| has_store_extension(Path::new(name)))
            .filter(|name| Some(name.as_os_str()) != self.base.file_name())
            .map(|name| self.directory().join(name))
            .collect();
        paths.sort_unstable();
        let mut files = HashMap::with_capacity(paths.len());
        let mut children: BTreeMap<[u8; 16], Vec<(PathBuf, Kin)>> = BTreeMap::new();
        let mut broken = Vec::new();
        let prefix = format!("{}.", self.base.file_stem().unwrap_or_default().to_string_lossy());
        for path in paths {
            let Some(at) = stamp_in(folder, &path) else { continue };
            let kin = kin_of(&mut known.files, folder, &path, at);
            files.insert(path.clone(), (at, kin));
            match kin {
                Some(kin) => children.entry(kin.parent_id).or_default().push((path, kin)),
                None => {
                    let named =
                        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
                    if named {
                        broken.push(path);
                    }
                }
            }
        }
        known.files = files;
        let mut found: Vec<(PathBuf, Option<Kin>)> = broken.into_iter().map(|path| (path, None)).collect();
        let mut seen = HashSet::from([own, [0; 16]]);
        let mut next = vec![own];
        // No store is the child of one without an id.
        while let Some(parent) = next.pop().filter(|_| own != [0; 16]) {
            for (path, kin) in children.remove(&parent).unwrap_or_default() {
                // Copies of one file are branches each, but descended into once.
                if seen.insert(kin.file_id) {
                    next.push(kin.file_id);
                }
                if kin.file_id != own {
                    found.push((path, Some(kin)));
                }
            }
        }
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Ok(named(found, &prefix))
    }
}

/// A file as it is now. What the directory itself does not tell is looked for by its path.
fn stamp_in(folder: &Folder, path: &Path) -> Option<Stamp> {
    folder.stamp_of(path.file_name()?).or_else(|| stamp(path))
}

fn kin_of(
    files: &mut HashMap<PathBuf, (Stamp, Option<Kin>)>,
    folder: &Folder,
    path: &Path,
    at: Stamp,
) -> Option<Kin> {
    if let Some((then, kin)) = files.get(path)
        && *then == at
    {
        return *kin;
    }
    let read = match path.file_name().map(|name| folder.kin_of(name)) {
        Some(Err(rvf_cow::Error::NotRegular { .. })) | None => Kin::of(path),
        Some(read) => read,
    };
    let kin = read
        .inspect_err(|error| tracing::debug!(path = %path.display(), %error, "cannot tell what this is"))
        .ok()
        .flatten();
    files.insert(path.to_path_buf(), (at, kin));
    kin
}

/// Names: what follows the store's stem, else the whole stem; where that is taken, the file name.
fn named(found: Vec<(PathBuf, Option<Kin>)>, prefix: &str) -> Vec<Found> {
    let mut taken = HashSet::from(["main".to_owned()]);
    let mut list = Vec::with_capacity(found.len());
    // Those that are called as branches are keep their names, whatever others are called.
    for proper in [true, false] {
        for (path, kin) in &found {
            let (Some(stem), Some(full)) =
                (path.file_stem().and_then(|s| s.to_str()), path.file_name().and_then(|s| s.to_str()))
            else {
                continue;
            };
            let short = stem.strip_prefix(prefix).filter(|short| !short.is_empty());
            if short.is_some() != proper {
                continue;
            }
            let name = short.unwrap_or(stem);
            // No entry of a directory is called so.
            let name = if matches!(name, "." | "..") { full } else { name };
            let name = if taken.insert(name.to_owned()) {
                name
            } else if taken.insert(full.to_owned()) {
                full
            } else {
                continue;
            };
            list.push(Found { name: name.to_owned(), path: path.clone(), kin: *kin });
        }
    }
    list.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_named_by_their_files() {
        let files = [
            "/d/f.exp.rvf",
            "/d/f.exp.rvdna",
            "/d/exp.rvf",
            "/d/f.main.rvf",
            "/d/f..rvf",
            "/d/f...rvf",
            "/d/f....rvf",
            "/d/other.rvf",
        ];
        let list = named(files.iter().map(|f| (PathBuf::from(f), None)).collect(), "f.");
        let names: Vec<(&str, &str)> =
            list.iter().map(|f| (f.name.as_str(), f.path.to_str().expect("UTF-8"))).collect();
        assert_eq!(
            names,
            [
                ("exp.rvf", "/d/exp.rvf"),
                ("f....rvf", "/d/f....rvf"),
                ("f...rvf", "/d/f...rvf"),
                ("f.", "/d/f..rvf"),
                ("f.exp.rvdna", "/d/f.exp.rvdna"),
                ("exp", "/d/f.exp.rvf"),
                ("f.main.rvf", "/d/f.main.rvf"),
                ("other", "/d/other.rvf"),
            ]
        );
    }

    #[test]
    fn a_branch_lies_beside_its_store() {
        let family = Family::new(Path::new("/d/a.b.rvdna"));
        assert_eq!(family.path_of("exp"), Path::new("/d/a.b.exp.rvdna"));
        assert_eq!(family.directory(), Path::new("/d"));
        assert_eq!(Family::new(Path::new("x.rvf")).path_of("y"), Path::new("./x.y.rvf"));
    }
}

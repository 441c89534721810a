//! Where tests put their files.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A directory that is removed with everything in it when dropped.
#[derive(Debug)]
pub struct Place(PathBuf);

impl Place {
    /// A new directory in memory where the system has such a place (most tests sync thousands of times, and
    /// none of them is about the disk), otherwise among the temporary files.
    ///
    /// # Errors
    /// The operating system's.
    pub fn in_memory() -> io::Result<Self> {
        let shm = Path::new("/dev/shm");
        if shm.is_dir()
            && let Ok(place) = Self::under(shm)
        {
            return Ok(place);
        }
        Self::on_disk()
    }

    /// A new directory among the temporary files.
    ///
    /// # Errors
    /// The operating system's.
    pub fn on_disk() -> io::Result<Self> {
        Self::under(&std::env::temp_dir())
    }

    fn under(parent: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!("rvf-tests-{}-{number}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A name in the directory.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The names in the directory, sorted.
    ///
    /// # Errors
    /// The operating system's.
    pub fn names(&self) -> io::Result<Vec<String>> {
        names(&self.0)
    }
}

/// The names in a directory, sorted.
///
/// # Errors
/// The operating system's.
pub fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: not removed: {e}", self.0.display());
        }
    }
}

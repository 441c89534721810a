//! Files that are kept for a later run of the same user: `$XDG_CACHE_HOME/rvf/KIND`, else `~/.cache/rvf/KIND`.
//!
//! A file is named by a [`Key`], a hash over everything that its content depends on, and holds a magic number, SHA-256 of
//! what follows, and the content. To use such a file is to trust it: compiled code is run, a machine's memory is run. So one is
//! used only from a directory and file that belong to this user and that nobody else may write or read. The digest is for what
//! was cut off or damaged; who can write here as this user can do as he likes anyhow.

use std::fmt;
use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::Sha256;
use sha3::{Digest as _, Sha3_256};

const DIGEST: usize = 32;
const HEAD: usize = 8 + DIGEST;
/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;
/// A file that has been written for so long was given up by its writer.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A kind of kept files.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Name of its directory.
    pub name: &'static str,
    /// First bytes of its files; another number for another form of content.
    pub magic: &'static [u8; 8],
    /// Most bytes of a file.
    pub most: u64,
    /// Most bytes of all of them; the oldest go when there are more.
    pub most_of_all: u64,
}

/// Names a file by all that its content depends on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Key {
    /// A key for a purpose, to which all that matters is added.
    pub fn of(purpose: &str) -> KeyOf {
        KeyOf(Sha3_256::new()).with("purpose", purpose.as_bytes())
    }

    /// Its bytes, to be a part of another.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn name(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A [`Key`] in the making.
#[derive(Clone, Debug)]
pub struct KeyOf(Sha3_256);

impl KeyOf {
    /// Adds something that matters. Lengths are hashed too, so that no two lists of parts come to the same.
    #[must_use]
    pub fn with(mut self, what: &str, bytes: &[u8]) -> Self {
        for part in [what.as_bytes(), bytes] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
        self
    }

    /// The key.
    #[must_use]
    pub fn finish(self) -> Key {
        Key(self.0.finalize().into())
    }
}

/// A directory of kept files.
#[derive(Clone, Debug)]
pub struct Cache {
    kind: Kind,
    directory: PathBuf,
}

/// Refuses what is not this user's alone.
fn private(meta: &Metadata) -> io::Result<()> {
    if meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to somebody else"));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(io::Error::other("others may use it"));
    }
    Ok(())
}

impl Cache {
    /// The directory of a kind for this process; `None` when no home is known.
    pub fn place(kind: &Kind) -> Option<PathBuf> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        // A home that is not there, as many a system's user has it, is not made.
        let home = || absolute("HOME").filter(|home| home.is_dir());
        let cache = absolute("XDG_CACHE_HOME").or_else(|| home().map(|home| home.join(".cache")));
        cache.map(|cache| cache.join("rvf").join(kind.name))
    }

    /// Opens a directory, making it (mode 700) and those above it where they are missing.
    ///
    /// # Errors
    /// When it cannot be made, or others may use it.
    pub fn open(kind: &Kind, directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let meta = fs::symlink_metadata(directory)?;
        if !meta.is_dir() {
            return Err(io::Error::other("not a directory"));
        }
        private(&meta)?;
        Ok(Self { kind: *kind, directory: directory.to_path_buf() })
    }

    /// The file of this key, if there is one; its content is not looked at yet.
    ///
    /// # Errors
    /// Why the one that is there is not used.
    pub fn find(&self, key: &Key) -> io::Result<Option<Kept>> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let path = self.directory.join(key.name());
        let file = match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        private(&meta)?;
        if meta.nlink() != 1 {
            return Err(io::Error::other("it has another name"));
        }
        if meta.len() > self.kind.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut head = [0; HEAD];
        file.read_exact_at(&mut head, 0).map_err(|_| damaged())?;
        let (magic, digest) = head.split_at(self.kind.magic.len());
        if magic != self.kind.magic {
            return Err(damaged());
        }
        let mut kept = Kept { file, len: meta.len() - HEAD as u64, digest: [0; DIGEST] };
        kept.digest.copy_from_slice(digest);
        Ok(Some(kept))
    }

    /// Begins a file of this key. It gets its name when it is [finished](Pending::finish), and none before.
    ///
    /// # Errors
    /// What making a file reports.
    pub fn begin(&self, key: &Key) -> io::Result<Pending<'_>> {
        let name = key.name();
        // Two processes that make the same file each write one of their own; and a number of a process comes again.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = self.directory.join(format!(".{name}.{}.{now}", std::process::id()));
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        let mut begin = || file.write_all(&[0; HEAD]);
        if let Err(e) = begin() {
            let _gone = fs::remove_file(&path);
            return Err(e);
        }
        Ok(Pending { cache: self, file, path, name, len: HEAD as u64, digest: Sha256::new(), named: false })
    }

    /// Keeps some bytes: whole under their name, or not at all.
    ///
    /// # Errors
    /// What writing reports.
    pub fn put(&self, key: &Key, bytes: &[u8]) -> io::Result<()> {
        let mut pending = self.begin(key)?;
        pending.write_all(bytes)?;
        pending.finish().map(drop)
    }

    /// Removes the files that were not used for the longest time until all are within their bound, but never `newest`; and what
    /// was begun long ago and never finished.
    fn make_room(&self, newest: &str) -> io::Result<()> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            // What another process removed meanwhile is gone.
            let Ok(meta) = entry.metadata() else { continue };
            let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let (begun, stem) = name.strip_prefix('.').map_or((false, name.as_str()), |rest| (true, rest));
            let is_ours = stem.len() >= 64 && stem.bytes().take(64).all(|b| b.is_ascii_hexdigit());
            if !meta.is_file() || !is_ours {
                continue;
            }
            if begun {
                if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                    let _gone = fs::remove_file(entry.path());
                }
                continue;
            }
            all.push((used, meta.len(), name));
        }
        let mut sum: u64 = all.iter().map(|(_, len, _)| len).sum();
        all.sort();
        for (_, len, name) in all.into_iter().filter(|(_, _, name)| name != newest) {
            if sum <= self.kind.most_of_all {
                break;
            }
            let _gone = fs::remove_file(self.directory.join(name));
            sum -= len;
        }
        Ok(())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is damaged")
}

/// A file that was kept earlier, in a place that is only this user's.
#[derive(Debug)]
pub struct Kept {
    file: File,
    len: u64,
    digest: [u8; DIGEST],
}

impl Kept {
    /// The content.
    ///
    /// # Errors
    /// When it is not what was kept.
    pub fn read(self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len).map_err(|_| damaged())?);
        let mut content = self.content();
        content.read_to_end(&mut bytes)?;
        content.finish()?;
        Ok(bytes)
    }

    /// The content piece by piece. It is known to be what was kept when [`Content::finish`] says so, and not before.
    pub fn content(self) -> Content {
        Content { kept: self, at: 0, piece: Vec::new(), taken: 0, hash: Sha256::new() }
    }
}

/// The content of a kept file, being read.
#[derive(Debug)]
pub struct Content {
    kept: Kept,
    /// Bytes of the content that were read from the file.
    at: u64,
    piece: Vec<u8>,
    /// Bytes of the piece that were consumed.
    taken: usize,
    hash: Sha256,
}

impl BufRead for Content {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.piece.len() {
            let left = self.kept.len - self.at;
            self.piece.resize(usize::try_from(left).unwrap_or(PIECE).min(PIECE), 0);
            self.taken = 0;
            self.kept.file.read_exact_at(&mut self.piece, HEAD as u64 + self.at).map_err(|_| damaged())?;
            self.hash.update(&self.piece);
            self.at += self.piece.len() as u64;
        }
        Ok(self.piece.get(self.taken..).unwrap_or_default())
    }

    fn consume(&mut self, len: usize) {
        self.taken = self.piece.len().min(self.taken + len);
    }
}

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut piece = self.fill_buf()?;
        let len = piece.read(into)?;
        self.consume(len);
        Ok(len)
    }
}

impl Content {
    /// Compares what was read, and what is left, with what was kept.
    ///
    /// # Errors
    /// When it is not the same.
    pub fn finish(mut self) -> io::Result<()> {
        loop {
            let len = self.fill_buf()?.len();
            if len == 0 {
                break;
            }
            self.consume(len);
        }
        if <[u8; DIGEST]>::from(self.hash.finalize()) != self.kept.digest {
            return Err(damaged());
        }
        // Being used makes it the newest again. That it is not is no reason not to use it.
        let _unmarked = self.kept.file.set_modified(SystemTime::now());
        Ok(())
    }
}

/// A file that is being written, and gone if it is not finished.
#[derive(Debug)]
pub struct Pending<'a> {
    cache: &'a Cache,
    file: File,
    path: PathBuf,
    name: String,
    len: u64,
    digest: Sha256,
    named: bool,
}

impl Write for Pending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.len + bytes.len() as u64 > self.cache.kind.most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let len = self.file.write(bytes)?;
        self.digest.update(bytes.get(..len).unwrap_or_default());
        self.len += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Pending<'_> {
    /// Gives it its name, in the place of an older one. Gives the bytes of its content.
    ///
    /// It is not synced: after a power cut the digest tells what is not there.
    ///
    /// # Errors
    /// What writing and renaming report.
    pub fn finish(mut self) -> io::Result<u64> {
        let digest = std::mem::take(&mut self.digest).finalize();
        self.file.write_all_at(self.cache.kind.magic, 0)?;
        self.file.write_all_at(&digest, self.cache.kind.magic.len() as u64)?;
        fs::rename(&self.path, self.cache.directory.join(&self.name))?;
        self.named = true;
        self.cache.make_room(&self.name)?;
        Ok(self.len - HEAD as u64)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.named {
            let _gone = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const KIND: Kind = Kind { name: "test", magic: b"RVFTEST1", most: 4 << 20, most_of_all: 5 << 20 };

    fn key(text: &str) -> Key {
        Key::of("test").with("text", text.as_bytes()).finish()
    }

    fn names(place: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(place).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn no_two_lists_of_parts_have_the_same_key() {
        let all = [
            Key::of("a").finish(),
            Key::of("b").finish(),
            Key::of("a").with("x", b"").finish(),
            Key::of("a").with("x", b"yz").finish(),
            Key::of("a").with("xy", b"z").finish(),
            Key::of("a").with("x", b"y").with("z", b"").finish(),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(!all[..n].contains(one), "{n}");
        }
        assert_eq!(Key::of("a").with("x", b"yz").finish(), all[3]);
    }

    #[test]
    fn what_was_kept_comes_back_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b");
        let cache = Cache::open(&KIND, &place).unwrap();
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o700);
        let key = key("one");
        assert!(cache.find(&key).unwrap().is_none());
        // More than a piece, and no whole number of them.
        let content: Vec<u8> = (0..PIECE + 1000).map(|n| (n % 251) as u8).collect();
        cache.put(&key, &content).unwrap();
        let kept = || cache.find(&key).and_then(|kept| kept.expect("a file").read());
        assert_eq!(kept().unwrap(), content);
        let mut pieces = cache.find(&key).unwrap().unwrap().content();
        let mut head = [0; 100];
        pieces.read_exact(&mut head).unwrap();
        assert_eq!(head, content[..100]);
        assert_eq!(pieces.fill_buf().unwrap(), &content[100..PIECE]);
        pieces.finish().unwrap();
        assert!(cache.find(&Key::of("another").finish()).unwrap().is_none());

        let path = place.join(key.name());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let whole = fs::read(&path).unwrap();
        for at in [0, 7, 8, 39, HEAD, HEAD + PIECE, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(kept().is_err(), "byte {at}");
            assert!(at < 8 || cache.find(&key).unwrap().unwrap().content().finish().is_err(), "byte {at}");
        }
        for len in [0, 7, HEAD - 1, HEAD, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(kept().is_err(), "cut to {len}");
        }
        fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
        assert!(kept().is_err(), "longer");
        fs::write(&path, &whole).unwrap();
        assert!(kept().is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(kept().unwrap_err().to_string().contains("others may use it"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(kept().unwrap_err().to_string().contains("another name"));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("other"), &path).unwrap();
        assert!(kept().is_err(), "a link");
        // Any of them is replaced by the next that is kept.
        cache.put(&key, &content).unwrap();
        assert_eq!(kept().unwrap(), content);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            assert!(kept().unwrap_err().to_string().contains("somebody else"));
        }
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Cache::open(&KIND, &place).is_err());
    }

    #[test]
    fn what_was_not_finished_has_no_name_and_does_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&KIND, &dir.path().join("c")).unwrap();
        let mut pending = cache.begin(&key("one")).unwrap();
        pending.write_all(b"half").unwrap();
        assert!(cache.find(&key("one")).unwrap().is_none());
        let other = cache.begin(&key("one")).unwrap();
        assert_eq!(names(&cache.directory).len(), 2, "each into a file of its own");
        drop((pending, other));
        assert_eq!(names(&cache.directory), [""; 0]);
        let mut pending = cache.begin(&key("one")).unwrap();
        let large = vec![0; KIND.most as usize];
        assert_eq!(pending.write_all(&large).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        drop(pending);
        assert_eq!(names(&cache.directory), [""; 0]);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(&KIND, &dir.path().join("c")).unwrap();
        let aged = |name: &str, seconds: u64| {
            let file = File::options().write(true).open(cache.directory.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        // Killed while writing, long ago and just now; and what is none of ours.
        let pending = [format!(".{}.77.1", key("x").name()), format!(".{}.78.1", key("x").name())];
        for name in [&pending[0], &pending[1], &"note".to_owned()] {
            fs::write(cache.directory.join(name), b"half").unwrap();
        }
        aged(&pending[0], 100_000);
        aged("note", 100_000);
        for (n, name) in ["a", "b", "c"].into_iter().enumerate() {
            cache.put(&key(name), &vec![1; (3 << 20) / 2]).unwrap();
            aged(&key(name).name(), 1000 - n as u64);
        }
        // Used again, so that the next is the oldest.
        cache.find(&key("a")).unwrap().unwrap().read().unwrap();
        cache.put(&key("d"), &vec![1; (3 << 20) / 2]).unwrap();
        let mut want =
            vec![pending[1].clone(), "note".to_owned(), key("a").name(), key("c").name(), key("d").name()];
        want.sort();
        assert_eq!(names(&cache.directory), want);
    }
}

//! The few operations a store needs from a disk, so that tests can put a failing one in its place.

use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A file as the writer sees it.
pub trait Storage: Send + Sync + std::fmt::Debug {
    /// Reads at an offset; fewer bytes than asked for only at the end.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `data` at an offset, extending the file where needed.
    ///
    /// # Errors
    /// The operating system's; how much was written is then unknown.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns when everything written so far is on stable storage.
    ///
    /// # Errors
    /// The operating system's; what is on stable storage is then unknown.
    fn sync(&self) -> io::Result<()>;
    /// Length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file is empty.
    ///
    /// # Errors
    /// As [`Storage::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts (or extends with zeros) to a length.
    ///
    /// # Errors
    /// The operating system's.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

/// A real file.
#[derive(Debug)]
pub struct FileStorage(File);

impl FileStorage {
    /// Wraps a file opened for writing.
    pub fn new(file: File) -> Self {
        Self(file)
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }
}

impl Storage for FileStorage {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match FileExt::read_at(&self.0, &mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        // fdatasync also makes the new length durable, which is all that an append needs.
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// One change that was not synced yet.
#[derive(Clone, Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Truncate(u64),
}

impl Change {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, data } => {
                let Ok(start) = usize::try_from(*offset) else { return };
                let end = start + data.len();
                if image.len() < end {
                    image.resize(end, 0);
                }
                image[start..end].copy_from_slice(data);
            }
            Self::Truncate(len) => image.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
        }
    }
}

#[derive(Debug, Default)]
struct Image {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
    operations: u64,
    fail_after: Option<u64>,
}

/// A disk in memory for tests. It remembers what is on stable storage apart from what was only written, and can lose,
/// tear and reorder the difference, or fail after a number of operations.
#[derive(Debug, Default)]
pub struct MemStorage {
    image: Mutex<Image>,
}

impl MemStorage {
    /// A disk that holds `bytes`, all of them durable.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { image: Mutex::new(Image { live: bytes.clone(), durable: bytes, ..Image::default() }) }
    }

    /// What a reader sees now.
    pub fn live(&self) -> Vec<u8> {
        self.image.lock().live.clone()
    }

    /// What is on stable storage for certain.
    pub fn durable(&self) -> Vec<u8> {
        self.image.lock().durable.clone()
    }

    /// Changes since the last sync.
    pub fn unsynced(&self) -> usize {
        self.image.lock().unsynced.len()
    }

    /// Writes, truncations and syncs so far.
    pub fn operations(&self) -> u64 {
        self.image.lock().operations
    }

    /// Makes every write, truncation and sync fail once `count` of them have succeeded from now on. A write that fails
    /// leaves half of its bytes.
    pub fn fail_after(&self, count: u64) {
        let mut image = self.image.lock();
        image.fail_after = Some(image.operations + count);
    }

    /// What may be found after a crash: the durable bytes and an arbitrary part of the unsynced changes, each of them
    /// whole, cut short or lost, in arbitrary order, as `seed` decides. Seed 0 loses all of them, 1 keeps all.
    pub fn crashed(&self, seed: u64) -> Vec<u8> {
        let image = self.image.lock();
        let mut out = image.durable.clone();
        let mut changes = image.unsynced.clone();
        match seed {
            0 => changes.clear(),
            1 => {}
            _ => {
                let mut random = SplitMix(seed);
                for i in (1..changes.len()).rev() {
                    changes.swap(i, random.below(i as u64 + 1) as usize);
                }
                changes.retain_mut(|change| match (random.below(4), change) {
                    (0, _) => false,
                    (1, Change::Write { data, .. }) => {
                        // Disks tear at sector borders, but nothing is promised; tear anywhere.
                        let keep = random.below(data.len() as u64 + 1) as usize;
                        data.truncate(keep);
                        true
                    }
                    _ => true,
                });
            }
        }
        for change in &changes {
            change.apply(&mut out);
        }
        out
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut image = self.image.lock();
        if let Err(error) = image.step() {
            if let Change::Write { offset, mut data } = change {
                data.truncate(data.len() / 2);
                let half = Change::Write { offset, data };
                half.apply(&mut image.live);
                image.unsynced.push(half);
            }
            return Err(error);
        }
        change.apply(&mut image.live);
        image.unsynced.push(change);
        Ok(())
    }
}

impl Image {
    fn step(&mut self) -> io::Result<()> {
        if self.fail_after.is_some_and(|limit| self.operations >= limit) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the test disk is full"));
        }
        self.operations += 1;
        Ok(())
    }
}

impl Storage for MemStorage {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let image = self.image.lock();
        let rest = usize::try_from(offset).ok().and_then(|at| image.live.get(at..)).unwrap_or(&[]);
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write { offset, data: data.to_vec() })
    }

    fn sync(&self) -> io::Result<()> {
        let mut image = self.image.lock();
        image.step()?;
        image.durable = image.live.clone();
        image.unsynced.clear();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.image.lock().live.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.change(Change::Truncate(len))
    }
}

/// A small random number generator, so that a crash is repeatable from its seed.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound.max(1)
    }
}

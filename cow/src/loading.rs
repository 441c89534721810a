//! Bringing the search image into memory when a store is first queried.
//!
//! A walk touches hundreds of places all over the image. With nothing of it in the page cache each is a read the query
//! waits for; read from start to end by a thread of its own, the whole image is there in a fraction of that time, and the
//! query finds ever more of it. Nothing else starts this, so reading files of a mount never does. The image begins with what
//! every walk needs: layer A (centroids and their lists), then B (upper layers and links), then the codes and the rest.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use rvf_format::{Advice, FileBytes};

/// Images longer than this are read as queries touch them: they might push everything else out of memory.
const LOAD_AT_MOST: usize = 1 << 30;
/// Bytes asked for at a time.
const STEP: usize = 4 << 20;

/// An image: device and inode of its file, and where in it.
type Key = (u64, u64, usize);

/// The images that are being or were loaded for a store and its ancestors, once each, and how many bytes of them are in
/// memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaded(Arc<Mutex<Vec<(Key, Arc<AtomicUsize>)>>>);

/// What one view knows of it.
#[derive(Debug)]
pub(crate) struct Loading {
    asked: AtomicBool,
    loaded: Loaded,
    file: (u64, u64),
}

impl Loading {
    pub(crate) fn new(loaded: &Loaded, file: (u64, u64)) -> Self {
        Self { asked: AtomicBool::new(false), loaded: loaded.clone(), file }
    }

    /// Starts loading a part of the view's file in the background, unless that was done before. True when it did.
    pub(crate) fn start(&self, bytes: &FileBytes, range: Range<usize>) -> bool {
        if self.asked.load(Ordering::Relaxed) || self.asked.swap(true, Ordering::Relaxed) {
            return false;
        }
        let key = self.key(&range);
        let mut images = self.loaded.0.lock();
        if images.iter().any(|(known, _)| *known == key) || !bytes.is_mapped() || range.len() > LOAD_AT_MOST {
            return false;
        }
        let done = Arc::new(AtomicUsize::new(0));
        images.push((key, done.clone()));
        drop(images);
        let bytes = bytes.clone();
        let work = move || load(&bytes, &range, &done);
        let thread = std::thread::Builder::new().name("rvf-load".into()).spawn(work);
        if let Err(e) = &thread {
            // The image is read as queries touch it.
            tracing::debug!(error = %e, "no thread to load the search image");
        }
        thread.is_ok()
    }

    fn key(&self, range: &Range<usize>) -> Key {
        (self.file.0, self.file.1, range.start)
    }

    /// How many bytes of the image there were brought into memory.
    pub(crate) fn done(&self, range: &Range<usize>) -> usize {
        let key = self.key(range);
        let images = self.loaded.0.lock();
        images.iter().find(|(known, _)| *known == key).map_or(0, |(_, done)| done.load(Ordering::Relaxed))
    }
}

fn load(bytes: &FileBytes, range: &Range<usize>, done: &AtomicUsize) {
    for from in range.clone().step_by(STEP) {
        if bytes.is_poisoned() {
            return;
        }
        let to = (from + STEP).min(range.end);
        bytes.advise(from as u64..to as u64, Advice::Load);
        done.store(to - range.start, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Kilobytes of a mapping that are mapped in this process.
    fn resident(bytes: &FileBytes) -> usize {
        let start = format!("{:x}-", bytes.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let lines = maps.lines().skip_while(|l| !l.starts_with(&start));
        let line = lines.into_iter().find(|l| l.starts_with("Rss:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn a_range_is_in_memory_afterwards() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 12 << 20]).unwrap();
        let bytes = FileBytes::map(&file, 12 << 20).unwrap();
        let range = 1 << 20..10 << 20;
        let done = AtomicUsize::new(0);
        load(&bytes, &range, &done);
        assert_eq!(done.into_inner(), range.len());
        let kilobytes = resident(&bytes);
        assert!((9 << 10..=12 << 10).contains(&kilobytes), "{kilobytes}");
    }

    #[test]
    fn each_file_is_loaded_once_for_all_views() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        let bytes = FileBytes::map(&file, 8192).unwrap();
        let loaded = Loaded::default();
        let (first, second) = (Loading::new(&loaded, (1, 2)), Loading::new(&loaded, (1, 2)));
        assert!(first.start(&bytes, 0..8192));
        assert!(!first.start(&bytes, 0..8192));
        assert!(!second.start(&bytes, 0..8192));
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while second.done(&(0..8192)) < 8192 {
            assert!(std::time::Instant::now() < end, "not loaded");
            std::thread::yield_now();
        }
        assert_eq!(second.done(&(4096..8192)), 0, "another image of the file");
        assert!(Loading::new(&loaded, (1, 3)).start(&bytes, 0..8192));
        assert!(!Loading::new(&loaded, (1, 4)).start(&FileBytes::from_vec(vec![7; 9]), 0..9));
        assert!(!Loading::new(&loaded, (1, 5)).start(&bytes, 0..LOAD_AT_MOST + 1));
    }

    #[test]
    fn a_file_cut_under_the_mapping_ends_it() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 12 << 20]).unwrap();
        let bytes = FileBytes::map(&file, 12 << 20).unwrap();
        file.set_len(4096).unwrap();
        load(&bytes, &(0..12 << 20), &AtomicUsize::new(0));
        assert_eq!(bytes.first(), Some(&7));
    }
}

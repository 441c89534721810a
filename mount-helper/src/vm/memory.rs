//! The memory of a guest as a file that this process has too, so that it is saved and filled without QEMU: a state is then
//! as large as the guest's pages that are not zero, and is read while QEMU starts.

use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Write};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{SealFlags, SeekFrom};

use crate::sealed::memory_file;

/// Bytes of a page, the unit in which memory is zero or not.
const PAGE: usize = 4096;
const ZEROS: [u8; PAGE] = [0; PAGE];
/// Bytes that are looked at, at a time.
const PIECE: usize = 1 << 20;
/// Bytes of the head of a run: where it begins, and how long it is.
const HEAD: usize = 16;

/// A guest's memory.
#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    len: u64,
}

impl Memory {
    /// Memory of zeros. What nobody wrote to takes no room.
    ///
    /// # Errors
    /// What the system reports.
    pub(super) fn new(len: u64) -> io::Result<Self> {
        let file = memory_file("rvf-memory")?;
        file.set_len(len)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { file, len })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Writes the pages that are not zero, in runs: where it begins and how long it is (two u64, little-endian), and its bytes.
    /// The guest stands still meanwhile. O(memory in use).
    ///
    /// # Errors
    /// What reading and writing report.
    pub(super) fn save(&self, to: &mut impl Write) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let mut at = 0;
        while let Some(from) = self.data_from(at)? {
            // Whole pieces, so that pages are pages of the guest's.
            let from = from - from % PIECE as u64;
            let len = PIECE.min(usize::try_from(self.len - from).unwrap_or(PIECE));
            let piece = piece.get_mut(..len).unwrap_or_default();
            self.file.read_exact_at(piece, from)?;
            let mut begin = 0;
            while let Some(rest) = piece.get(begin..)
                && let Some(first) = rest.chunks(PAGE).position(|page| !is_zero(page))
            {
                begin += first * PAGE;
                let run = piece.get(begin..).unwrap_or_default();
                let pages = run.chunks(PAGE).take_while(|page| !is_zero(page));
                let run = run.get(..pages.map(<[u8]>::len).sum()).unwrap_or_default();
                to.write_all(&(from + begin as u64).to_le_bytes())?;
                to.write_all(&(run.len() as u64).to_le_bytes())?;
                to.write_all(run)?;
                begin += run.len();
            }
            at = from + len as u64;
        }
        Ok(())
    }

    /// Where something was written to, from here on; `None` where nothing was up to the end.
    fn data_from(&self, at: u64) -> io::Result<Option<u64>> {
        if at >= self.len {
            return Ok(None);
        }
        match rustix::fs::seek(&self.file, SeekFrom::Data(at)) {
            Ok(from) => Ok(Some(from)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Fills memory that is new with the runs that were saved, up to the end of what is read.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidData`] for a run that is not within the memory; what reading and writing report.
    pub(super) fn fill(&self, from: &mut impl BufRead) -> io::Result<()> {
        while !from.fill_buf()?.is_empty() {
            let mut head = [0; HEAD];
            from.read_exact(&mut head)?;
            let [mut at, mut left] = [0, 8].map(|n| {
                head.get(n..)
                    .and_then(|rest| rest.first_chunk())
                    .map_or(0, |bytes| u64::from_le_bytes(*bytes))
            });
            if at.checked_add(left).is_none_or(|end| end > self.len) {
                return Err(io::Error::new(ErrorKind::InvalidData, "a run outside of the memory"));
            }
            while left > 0 {
                let bytes = from.fill_buf()?;
                let len = bytes.len().min(usize::try_from(left).unwrap_or(PIECE));
                if len == 0 {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                self.file.write_all_at(bytes.get(..len).unwrap_or_default(), at)?;
                from.consume(len);
                at += len as u64;
                left -= len as u64;
            }
        }
        Ok(())
    }
}

fn is_zero(page: &[u8]) -> bool {
    ZEROS.get(..page.len()) == Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 5 << 20;

    fn saved(memory: &Memory) -> Vec<u8> {
        let mut bytes = Vec::new();
        memory.save(&mut bytes).unwrap();
        bytes
    }

    fn all(memory: &Memory) -> Vec<u8> {
        let mut bytes = vec![0; LEN as usize];
        memory.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn what_is_saved_fills_another() {
        let memory = Memory::new(LEN).unwrap();
        assert_eq!(saved(&memory), [0; 0]);
        // The first and the last byte, some pages across the end of a piece, and a page that is written to and zero.
        memory.file.write_all_at(&[1], 0).unwrap();
        memory.file.write_all_at(&[2], LEN - 1).unwrap();
        memory.file.write_all_at(&vec![3; 3 * PAGE], PIECE as u64 - 5000).unwrap();
        memory.file.write_all_at(&[0], 3 << 20).unwrap();
        let bytes = saved(&memory);
        // Page 0, two pages before the end of the piece and two after it, the last page.
        assert_eq!(bytes.len(), 4 * HEAD + 6 * PAGE);
        let other = Memory::new(LEN).unwrap();
        other.fill(&mut &bytes[..]).unwrap();
        assert!(all(&other) == all(&memory));
        // By small pieces too.
        let other = Memory::new(LEN).unwrap();
        other.fill(&mut io::BufReader::with_capacity(7, &bytes[..])).unwrap();
        assert!(all(&other) == all(&memory));
    }

    #[test]
    fn what_was_not_saved_is_refused_and_the_memory_stays_as_long_as_it_is() {
        let memory = Memory::new(LEN).unwrap();
        let run = |at: u64, len: u64, bytes: usize| {
            let mut run = [at.to_le_bytes(), len.to_le_bytes()].concat();
            run.resize(HEAD + bytes, 9);
            run
        };
        memory.fill(&mut &run(LEN - 4, 4, 4)[..]).unwrap();
        for (bad, kind) in [
            (run(LEN - 4, 5, 5), ErrorKind::InvalidData),
            (run(u64::MAX, 2, 2), ErrorKind::InvalidData),
            (run(0, u64::MAX, 8), ErrorKind::InvalidData),
            (run(0, 8, 7), ErrorKind::UnexpectedEof),
            (run(0, 8, 8)[..9].to_vec(), ErrorKind::UnexpectedEof),
        ] {
            assert_eq!(memory.fill(&mut &bad[..]).unwrap_err().kind(), kind, "{:?}", &bad[..9]);
        }
        assert!(memory.file.set_len(LEN + 1).is_err() && memory.file.set_len(LEN - 1).is_err());
    }
}

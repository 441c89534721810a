//! The append writer and the commit sequence: data segments, sync, manifest, sync.

use crate::checksum::ALGO_XXH3;
use crate::error::{Error, Result};
use crate::header::{ALIGNMENT, HEADER_LEN, SegType, Segment, SegmentHeader, padding_after};
use crate::manifest::{DirEntry, Manifest};
use crate::recover::Opened;
use crate::storage::Storage;
use zerocopy::IntoBytes;

/// Bytes collected before they are written.
const BUFFER: usize = 1 << 20;

/// Appends segments to a store and commits them.
///
/// After any failed write or sync the writer refuses everything: what is on disk is not known then.
#[derive(Debug)]
pub struct Writer<'a> {
    storage: &'a dyn Storage,
    /// End of what was appended, buffered bytes included.
    end: u64,
    /// Where `buffer` belongs.
    flushed: u64,
    buffer: Vec<u8>,
    next_id: u64,
    ordinal: u32,
    reclaimed: u64,
    poisoned: Option<String>,
}

impl<'a> Writer<'a> {
    /// Prepares to append to the store that `opened` describes. A torn tail is cut off (nothing else is ever
    /// removed); [`Writer::reclaimed`] says how much that was.
    ///
    /// # Errors
    /// [`Error::SignedStore`] when a valid signed root page names the manifest that counts; [`Error::Io`].
    pub fn new(storage: &'a dyn Storage, opened: &Opened) -> Result<Self> {
        let len = storage.len().map_err(|source| Error::io("reading the length of the store", source))?;
        let end = opened.layout.len.min(len);
        let next_id = opened
            .layout
            .segments()
            .map(|segment| segment.header.id())
            .max()
            .map_or(1, |id| id.saturating_add(1));
        Ok(Self {
            storage,
            end,
            flushed: end,
            buffer: Vec::new(),
            next_id,
            ordinal: opened.layout.segments().count() as u32,
            reclaimed: 0,
            poisoned: None,
        })
    }

    /// As [`Writer::new`], but drops the root page of a signed store: the signature is gone for good.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn unsigning(storage: &'a dyn Storage, opened: &Opened) -> Result<Self> {
        Self::new(storage, opened)
    }

    /// Bytes of torn tail that were cut off.
    pub fn reclaimed(&self) -> u64 {
        self.reclaimed
    }

    /// End of the store, with everything appended so far.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// The id that the next segment gets.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Appends a segment whose payload is the given pieces in order. Nothing is durable, and nothing counts, before
    /// [`Writer::commit`]. Large pieces are written without being copied.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Poisoned`].
    pub fn append(&mut self, kind: SegType, payload: &[&[u8]]) -> Result<Segment> {
        self.check()?;
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        let mut len = 0u64;
        for piece in payload {
            hasher.update(piece);
            len += piece.len() as u64;
        }
        let header = SegmentHeader::new(kind, self.next_id, len, hasher.digest128().to_le_bytes());
        debug_assert_eq!(header.checksum_algo, ALGO_XXH3);
        let segment = self.put_segment(header, payload)?;
        self.next_id = self.next_id.saturating_add(1);
        Ok(segment)
    }

    /// Appends a segment of another file as it is: the same header, hash and payload, whether they agree or not, so
    /// that damage stays visible as damage.
    ///
    /// # Errors
    /// [`Error::Caller`] when `payload` has another length than the header says; [`Error::Io`], [`Error::Poisoned`].
    pub fn append_copy(&mut self, header: &SegmentHeader, payload: &[u8]) -> Result<Segment> {
        self.check()?;
        if header.payload_len() != payload.len() as u64 {
            return Err(Error::caller(
                crate::codes::TRUNCATED_SEGMENT,
                format!("the header says {} bytes of payload, given are {}", header.payload_len(), payload.len()),
            ));
        }
        self.next_id = self.next_id.max(header.id().saturating_add(1));
        self.put_segment(*header, &[payload])
    }

    fn put_segment(&mut self, header: SegmentHeader, payload: &[&[u8]]) -> Result<Segment> {
        let start_pad = padding_after(self.end);
        self.put(&[0; ALIGNMENT as usize][..start_pad as usize])?;
        let offset = self.end;
        self.put(header.as_bytes())?;
        for piece in payload {
            self.put(piece)?;
        }
        let payload_end = self.end;
        let start = offset + HEADER_LEN;
        self.put(&[0; ALIGNMENT as usize][..padding_after(payload_end - start) as usize])?;
        let ordinal = self.ordinal;
        self.ordinal = self.ordinal.saturating_add(1);
        Ok(Segment { ordinal, offset, header, payload: start..payload_end, raw: offset..self.end })
    }

    /// Makes everything appended durable, then appends `manifest` and makes it durable: data, sync, manifest, sync.
    /// The directory is the caller's; see [`dir_entry`].
    ///
    /// # Errors
    /// [`Error::Io`]: whether the commit took place is then unknown; open the store again.
    pub fn commit(&mut self, manifest: &Manifest) -> Result<Segment> {
        let payload = manifest.encode()?;
        self.sync()?;
        let segment = self.append(SegType::MANIFEST, &[&payload])?;
        self.sync()?;
        Ok(segment)
    }

    /// Writes what is buffered and makes everything durable.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Poisoned`].
    pub fn sync(&mut self) -> Result<()> {
        self.check()?;
        self.flush()?;
        let done = self.storage.sync();
        self.guard("syncing the store", done)
    }

    fn check(&self) -> Result<()> {
        match &self.poisoned {
            Some(cause) => Err(Error::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    fn guard<T>(&mut self, context: &str, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|source| {
            self.poisoned = Some(format!("{context}: {source}"));
            Error::io(context, source)
        })
    }

    fn put(&mut self, data: &[u8]) -> Result<()> {
        if self.buffer.len() + data.len() > BUFFER {
            self.flush()?;
        }
        if data.len() >= BUFFER {
            let done = self.storage.write_at(self.end, data);
            self.guard("appending to the store", done)?;
            self.end += data.len() as u64;
            self.flushed = self.end;
        } else {
            self.buffer.extend_from_slice(data);
            self.end += data.len() as u64;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            let done = self.storage.write_at(self.flushed, &self.buffer);
            self.guard("appending to the store", done)?;
            self.flushed += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// The directory line of a segment.
pub fn dir_entry(segment: &Segment) -> DirEntry {
    DirEntry {
        segment_id: segment.header.id(),
        offset: segment.offset,
        payload_length: segment.header.payload_len(),
        seg_type: segment.header.seg_type,
    }
}

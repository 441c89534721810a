//! The append writer and the commit sequence: data segments, sync, manifest, sync.

use crate::error::{Error, Result, codes};
use crate::header::{
    ALIGNMENT, HEADER_LEN, MAGIC_BYTES, MAX_PAYLOAD, SegType, Segment, SegmentHeader, VERSION, padding_after,
};
use crate::layout::ROOT_PAGE_LEN;
use crate::manifest::{DirEntry, Manifest};
use crate::recover::Opened;
use crate::root_page::RootPage;
use crate::storage::Storage;
use zerocopy::IntoBytes;

/// Bytes collected before they are written.
const BUFFER: usize = 1 << 20;
/// Types whose payloads the reference reads when it opens a store, refusing it when one is above 256 MiB. A larger INDEX
/// it passes over, as it does every index that it cannot read.
const LOADED: [SegType; 5] =
    [SegType::VEC, SegType::META, SegType::MANIFEST, SegType::COW_MAP, SegType::MEMBERSHIP];

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
    /// removed); [`Writer::reclaimed`] says how much that was. A tail that starts with a segment header of an unknown
    /// version is kept: it is not ours to judge.
    ///
    /// # Errors
    /// [`Error::SignedStore`] when a valid signed root page names the manifest that counts; [`Error::Caller`] when the
    /// file is not as long as when it was opened; [`Error::Io`].
    pub fn new(storage: &'a dyn Storage, opened: &Opened) -> Result<Self> {
        if signed_page(storage, opened)?.is_some() {
            return Err(Error::SignedStore);
        }
        Self::start(storage, opened, opened.tail.torn_at)
    }

    /// As [`Writer::new`], but cuts off the root page of a signed store: the signature is gone for good.
    ///
    /// # Errors
    /// [`Error::Caller`], [`Error::Io`] as there.
    pub fn unsigning(storage: &'a dyn Storage, opened: &Opened) -> Result<Self> {
        let page = signed_page(storage, opened)?;
        Self::start(storage, opened, opened.tail.torn_at.or(page))
    }

    /// A writer for an empty file.
    ///
    /// # Errors
    /// [`Error::Caller`] when the file is not empty; [`Error::Io`].
    pub fn create(storage: &'a dyn Storage) -> Result<Self> {
        Self::start(storage, &crate::recover::open(&[]), None)
    }

    fn start(storage: &'a dyn Storage, opened: &Opened, cut: Option<u64>) -> Result<Self> {
        let len = storage.len().map_err(|source| Error::io("reading the length of the store", source))?;
        if len != opened.layout.len {
            let text = format!(
                "the store has {len} bytes, but had {} when it was opened; open it again",
                opened.layout.len
            );
            return Err(Error::caller(codes::LOCK_STALE, text));
        }
        let cut = match cut.filter(|at| *at < len) {
            Some(at) if foreign_version(storage, at)? => None,
            other => other,
        };
        if let Some(at) = cut {
            storage.truncate(at).map_err(|source| Error::io("cutting off the torn tail", source))?;
        }
        let end = cut.unwrap_or(len);
        let ids = opened.layout.segments().map(|segment| segment.header.id());
        let listed = opened
            .manifest
            .iter()
            .flat_map(|located| &located.manifest.directory)
            .map(|entry| entry.segment_id);
        let next_id = ids.chain(listed).filter(|id| *id != u64::MAX).max().map_or(1, |id| id + 1);
        Ok(Self {
            storage,
            end,
            flushed: end,
            buffer: Vec::new(),
            next_id,
            ordinal: u32::try_from(opened.layout.segments().count()).unwrap_or(u32::MAX),
            reclaimed: len - end,
            poisoned: None,
        })
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
    /// [`Error::Caller`] (0x0304) when the payload is larger than 256 MiB; [`Error::Io`], [`Error::Poisoned`].
    pub fn append(&mut self, kind: SegType, payload: &[&[u8]]) -> Result<Segment> {
        self.check()?;
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        let mut len = 0u64;
        for piece in payload {
            hasher.update(piece);
            len += piece.len() as u64;
        }
        check_size(kind, len)?;
        let header = SegmentHeader::new(kind, self.next_id, len, hasher.digest128().to_le_bytes());
        let segment = self.put_segment(header, payload)?;
        self.next_id = self.next_id.saturating_add(1);
        Ok(segment)
    }

    /// Appends a segment whose `len` bytes of payload `fill` produces piece by piece: it is called with an empty buffer to
    /// fill until it leaves it empty. Memory is one piece, whatever the segment's size; the header, which holds the
    /// hash, is written last.
    ///
    /// # Errors
    /// [`Error::Caller`] (0x0304) when the payload is larger than 256 MiB or `fill` produces another length;
    /// [`Error::Io`], [`Error::Poisoned`].
    pub fn append_streamed(
        &mut self,
        kind: SegType,
        len: u64,
        fill: &mut dyn FnMut(&mut Vec<u8>),
    ) -> Result<Segment> {
        self.check()?;
        check_size(kind, len)?;
        let start_pad = padding_after(self.end);
        self.put(&[0; ALIGNMENT as usize][..start_pad as usize])?;
        self.flush()?;
        let offset = self.end;
        let start = offset + HEADER_LEN;
        self.end = start;
        let mut hasher = xxhash_rust::xxh3::Xxh3Default::new();
        let mut piece = Vec::new();
        loop {
            piece.clear();
            fill(&mut piece);
            if piece.is_empty() {
                break;
            }
            hasher.update(&piece);
            let done = self.storage.write_at(self.end, &piece);
            self.guard("appending to the store", done)?;
            self.end += piece.len() as u64;
        }
        self.flushed = self.end;
        if self.end - start != len {
            self.poisoned = Some("a segment was left unfinished".into());
            let text = format!("a payload of {len} bytes was announced, {} came", self.end - start);
            return Err(Error::caller(codes::TRUNCATED_SEGMENT, text));
        }
        let header = SegmentHeader::new(kind, self.next_id, len, hasher.digest128().to_le_bytes());
        let done = self.storage.write_at(offset, header.as_bytes());
        self.guard("appending to the store", done)?;
        self.put(&[0; ALIGNMENT as usize][..padding_after(len) as usize])?;
        self.next_id = self.next_id.saturating_add(1);
        let ordinal = self.ordinal;
        self.ordinal = self.ordinal.saturating_add(1);
        Ok(Segment { ordinal, offset, header, payload: start..start + len, raw: offset..self.end })
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
                format!(
                    "the header says {} bytes of payload, given are {}",
                    header.payload_len(),
                    payload.len()
                ),
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
        if manifest.hashes.is_some() {
            let text =
                "a manifest with a hash trailer belongs to a signed store, which this writer cannot write";
            return Err(Error::caller(codes::INVALID_MANIFEST, text));
        }
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

fn check_size(kind: SegType, len: u64) -> Result<()> {
    if len > MAX_PAYLOAD && LOADED.contains(&kind) {
        let text = format!(
            "{} segment of {len} bytes: above 256 MiB the reference cannot open the store",
            kind.name()
        );
        return Err(Error::caller(codes::SEGMENT_TOO_LARGE, text));
    }
    Ok(())
}

/// Where the root page starts whose signature writing would invalidate. A page with a wrong CRC, or about another
/// manifest, is none; it stays where it is.
fn signed_page(storage: &dyn Storage, opened: &Opened) -> Result<Option<u64>> {
    let (Some(range), Some(manifest)) = (&opened.layout.root_page, &opened.manifest) else { return Ok(None) };
    let mut page = vec![0; ROOT_PAGE_LEN as usize];
    read(storage, &mut page, range.start)?;
    Ok(RootPage::parse(&page).is_ok_and(|page| page.names(manifest)).then_some(range.start))
}

/// Whether a segment header of another version starts there.
fn foreign_version(storage: &dyn Storage, offset: u64) -> Result<bool> {
    let mut head = [0; 5];
    read(storage, &mut head, offset)?;
    Ok(head.starts_with(&MAGIC_BYTES) && head[4] != VERSION)
}

fn read(storage: &dyn Storage, buf: &mut [u8], offset: u64) -> Result<usize> {
    storage.read_at(buf, offset).map_err(|source| Error::io("reading the end of the store", source))
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

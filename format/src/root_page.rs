//! The signed root page: the last 4096 bytes of a signed store. Read only; signatures are checked elsewhere.

use crate::checksum::{crc32c, shake256_128};
use crate::error::{Result, codes};
use crate::header::HEADER_LEN;
use crate::layout::{ROOT_PAGE_LEN, ROOT_PAGE_MAGIC};
use crate::manifest::FileIdentity;
use crate::reader::Reader;
use crate::recover::Located;

/// A root page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPage {
    /// 1.
    pub version: u16,
    /// File offset of the MANIFEST header.
    pub manifest_offset: u64,
    /// 64 + its payload length.
    pub manifest_length: u64,
    /// Live rows.
    pub live_vectors: u64,
    /// Components of a vector.
    pub dimension: u16,
    /// Hardware profile.
    pub profile_id: u8,
    /// Commit counter.
    pub epoch: u32,
    /// 1 Ed25519, 0 unsigned.
    pub sig_algo: u16,
    /// Signature, as long as the page says (at most 3684 bytes).
    pub signature: Vec<u8>,
    /// Who the file is.
    pub identity: FileIdentity,
    /// SHAKE-256-128 of the manifest payload.
    pub manifest_hash: [u8; 16],
    /// SHAKE-256-128 of the public key.
    pub key_fingerprint: [u8; 16],
    /// Segment id of the manifest, 0 when it is not pinned.
    pub manifest_id: u64,
    /// Whether the page matches its CRC-32C.
    pub crc_ok: bool,
}

impl RootPage {
    /// Reads the 4096 bytes of a page.
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when it is not 4096 bytes, has another magic, or its signature passes the area.
    pub fn parse(page: &[u8]) -> Result<Self> {
        let mut r = Reader::new(page, "root page", codes::INVALID_SIGNATURE);
        if page.len() != ROOT_PAGE_LEN as usize || r.array::<4>()? != ROOT_PAGE_MAGIC {
            return r.fail("not a page of 4096 bytes with the right magic");
        }
        let version = r.u16()?;
        r.u16()?;
        let manifest_offset = r.u64()?;
        let manifest_length = r.u64()?;
        let live_vectors = r.u64()?;
        let dimension = r.u16()?;
        r.u8()?;
        let profile_id = r.u8()?;
        let epoch = r.u32()?;
        r.take(0x98 - 0x28)?;
        let sig_algo = r.u16()?;
        let sig_len = usize::from(r.u16()?);
        if sig_len > 0xF00 - 0x9C {
            return r.fail(format!("signature of {sig_len} bytes"));
        }
        let signature = r.take(sig_len)?.to_vec();
        let mut r = Reader::new(&page[0xF00..], "root page", codes::INVALID_SIGNATURE);
        let identity = FileIdentity::read(&mut r)?;
        r.take(0xFD0 - 0xF44)?;
        let manifest_hash = r.array()?;
        let key_fingerprint = r.array()?;
        let manifest_id = r.u64()?;
        r.u32()?;
        let crc_ok = r.u32()? == crc32c(&page[..0xFFC]);
        Ok(Self {
            version,
            manifest_offset,
            manifest_length,
            live_vectors,
            dimension,
            profile_id,
            epoch,
            sig_algo,
            signature,
            identity,
            manifest_hash,
            key_fingerprint,
            manifest_id,
            crc_ok,
        })
    }

    /// Whether the page is whole and is about this manifest, so that writing would invalidate a signature.
    pub fn names(&self, manifest: &Located) -> bool {
        self.crc_ok
            && self.sig_algo != 0
            && self.manifest_offset == manifest.segment.offset
            && self.manifest_length == manifest.segment.header.payload_len().saturating_add(HEADER_LEN)
    }

    /// Whether the manifest payload is the one that was signed.
    pub fn matches_payload(&self, payload: &[u8]) -> bool {
        shake256_128(payload) == self.manifest_hash
    }
}

//! Payload hashes: which exist, and what a header's hash says about a payload.

use crate::header::SegmentHeader;
use sha3::digest::{ExtendableOutput, Update, XofReader};

/// Legacy: CRC-32 in four rotations, or XXH3-128.
pub const ALGO_LEGACY: u8 = 0;
/// XXH3-128, little-endian; what unsigned stores use.
pub const ALGO_XXH3: u8 = 1;
/// SHAKE-256, first 16 bytes; what signed stores use.
pub const ALGO_SHAKE: u8 = 2;

/// What the hash in a header says about the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChecksumState {
    /// The payload is what was written.
    Ok,
    /// The payload is not what was written.
    Bad,
    /// The header stores no hash (16 zero bytes); the reference never checks such a payload.
    Unset,
    /// The header names an algorithm that nobody can check without more knowledge (3, or 4 and up), and the payload
    /// matches none of the known ones.
    Unsupported,
}

impl ChecksumState {
    /// Whether contents may be shown as data: verified, or never hashed in the first place.
    pub fn usable(self) -> bool {
        matches!(self, Self::Ok | Self::Unset)
    }

    /// `ok`, `BAD`, `none` or `unsupported`, as the `header` files of a mounted segment say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Bad => "BAD",
            Self::Unset => "none",
            Self::Unsupported => "unsupported",
        }
    }
}

/// XXH3-128, seed 0, low 64-bit word first (the byte reverse of xxHash's canonical form).
pub fn xxh3_128(data: &[u8]) -> [u8; 16] {
    xxhash_rust::xxh3::xxh3_128(data).to_le_bytes()
}

/// CRC-32/IEEE of the data and its rotations by 8, 16 and 24 bits, each little-endian.
pub fn crc_rotated(data: &[u8]) -> [u8; 16] {
    let c = crc32fast::hash(data);
    let mut out = [0; 16];
    for (chunk, bits) in out.chunks_exact_mut(4).zip([0, 8, 16, 24]) {
        chunk.copy_from_slice(&c.rotate_left(bits).to_le_bytes());
    }
    out
}

fn shake<const N: usize>(data: &[u8]) -> [u8; N] {
    let mut hasher = sha3::Shake256::default();
    hasher.update(data);
    let mut out = [0; N];
    hasher.finalize_xof().read(&mut out);
    out
}

/// SHAKE-256, first 16 output bytes.
pub fn shake256_128(data: &[u8]) -> [u8; 16] {
    shake(data)
}

/// SHAKE-256, first 32 output bytes.
pub fn shake256_256(data: &[u8]) -> [u8; 32] {
    shake(data)
}

/// SHA3-256.
pub fn sha3_256(data: &[u8]) -> [u8; 32] {
    use sha3::Digest;
    sha3::Sha3_256::digest(data).into()
}

/// SHA-256.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(data).into()
}

/// CRC-32C (Castagnoli).
pub fn crc32c(data: &[u8]) -> u32 {
    ::crc32c::crc32c(data)
}

/// CRC-32/IEEE.
pub fn crc32(data: &[u8]) -> u32 {
    crc32fast::hash(data)
}

/// The additive 32-byte fold that the reference uses for parent hashes and image hashes. **Not** collision
/// resistant: anyone can construct a second input, and short inputs are readable in it.
pub fn fold32(data: &[u8]) -> [u8; 32] {
    let mut out = [0u8; 32];
    for (i, byte) in data.iter().enumerate() {
        let k = i % 32;
        out[k] = out[k].wrapping_add(*byte);
        let j = (i + 13) % 32;
        out[j] = out[j].wrapping_add(out[k].rotate_left(3));
    }
    out
}

/// [`fold32`] of the last 64 KiB of a file: what a child stores as its parent's hash.
pub fn parent_hash(file: &[u8]) -> [u8; 32] {
    fold32(&file[file.len().saturating_sub(65536)..])
}

/// Compares a payload with the hash in its header. O(payload).
///
/// An unknown algorithm number with a payload that matches a known one counts as [`ChecksumState::Ok`]: 128 bits do
/// not match by accident, so the damage is in the algorithm byte, not in the data.
pub fn verify(header: &SegmentHeader, payload: &[u8]) -> ChecksumState {
    let hash = &header.content_hash;
    if *hash == [0; 16] {
        return ChecksumState::Unset;
    }
    let ok = match header.checksum_algo {
        ALGO_LEGACY => crc_rotated(payload) == *hash || xxh3_128(payload) == *hash,
        ALGO_XXH3 => xxh3_128(payload) == *hash,
        ALGO_SHAKE => shake256_128(payload) == *hash,
        _ => {
            let known = [xxh3_128(payload), shake256_128(payload), crc_rotated(payload)];
            return if known.contains(hash) { ChecksumState::Ok } else { ChecksumState::Unsupported };
        }
    };
    if ok { ChecksumState::Ok } else { ChecksumState::Bad }
}

//! MEMBERSHIP payloads: which of the parent's ids a branch shows.

use crate::checksum::fold32;
use crate::error::{Error, Result, codes};
use crate::reader::Reader;

const MAGIC: u32 = 0x5256_4D42;
const HEADER_LEN: usize = 96;

/// How the bitmap is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A parent id is visible iff its bit is set.
    Include,
    /// A parent id is visible iff its bit is clear or lies past the bitmap.
    Exclude,
}

/// A MEMBERSHIP payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// 0 bitmap; ignored by every reader.
    pub filter_type: u8,
    /// Meaning of the bits.
    pub mode: Mode,
    /// Highest id + 1.
    pub capacity: u64,
    /// Set bits.
    pub members: u64,
    /// 0 from a branch, 1 from the CLI's filter.
    pub generation: u32,
    /// Bit n%8 of byte n/8 is id n.
    pub bitmap: Vec<u8>,
}

impl Membership {
    /// Reads a payload. A bitmap shorter than the capacity is extended with zero bits, as far as that is what the
    /// CLI's `filter` writes (whole bytes instead of whole words).
    ///
    /// # Errors
    /// [`Error::Corrupt`] (0x0705) when a field, the bit count or the bitmap's fold32 does not hold.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "MEMBERSHIP payload", codes::MEMBERSHIP_INVALID);
        if r.u32()? != MAGIC {
            return r.fail("wrong magic");
        }
        r.u16()?;
        let filter_type = r.u8()?;
        let mode = match r.u8()? {
            0 => Mode::Include,
            1 => Mode::Exclude,
            other => return r.fail(format!("filter mode {other}")),
        };
        let capacity = r.u64()?;
        let members = r.u64()?;
        let offset = r.u64()?;
        if offset != HEADER_LEN as u64 {
            return r.fail(format!("bitmap at {offset}, not {HEADER_LEN}"));
        }
        let size = r.u32()? as usize;
        let generation = r.u32()?;
        let hash: [u8; 32] = r.array()?;
        r.take(24)?;
        if r.left() != size {
            return r.fail(format!("bitmap of {size} bytes declared, {} present", r.left()));
        }
        let bitmap = r.take(size)?;
        if (size as u64) < capacity.div_ceil(8) {
            return r.fail(format!("bitmap of {size} bytes for {capacity} ids"));
        }
        if fold32(bitmap) != hash {
            return r.fail("bitmap does not match its hash");
        }
        let set: u64 = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
        if set != members {
            return r.fail(format!("{set} bits set, {members} declared"));
        }
        Ok(Self { filter_type, mode, capacity, members, generation, bitmap: bitmap.to_vec() })
    }

    /// An include bitmap of `ids`; the capacity is the highest + 1.
    ///
    /// # Errors
    /// [`Error::Caller`] (0x0705) when the bitmap would be larger than 64 MiB.
    pub fn including(ids: impl IntoIterator<Item = u64>, capacity: u64) -> Result<Self> {
        let mut out = Self::empty(Mode::Include, capacity)?;
        for id in ids {
            out.set(id, true);
        }
        Ok(out)
    }

    /// A bitmap without members.
    ///
    /// # Errors
    /// [`Error::Caller`] (0x0705) when the bitmap would be larger than 64 MiB.
    pub fn empty(mode: Mode, capacity: u64) -> Result<Self> {
        let bytes =
            capacity.div_ceil(64).checked_mul(8).filter(|bytes| *bytes <= 64 << 20).ok_or_else(|| {
                Error::caller(
                    codes::MEMBERSHIP_INVALID,
                    format!("ids up to {capacity} need a bitmap above 64 MiB"),
                )
            })?;
        Ok(Self {
            filter_type: 0,
            mode,
            capacity,
            members: 0,
            generation: 0,
            bitmap: vec![0; bytes as usize],
        })
    }

    /// Whether the bit of an id is set.
    pub fn bit(&self, id: u64) -> bool {
        let byte = usize::try_from(id / 8).ok().and_then(|at| self.bitmap.get(at));
        id < self.capacity && byte.is_some_and(|byte| byte >> (id % 8) & 1 == 1)
    }

    /// Whether a parent's id is visible.
    pub fn shows(&self, id: u64) -> bool {
        match self.mode {
            Mode::Include => self.bit(id),
            Mode::Exclude => !self.bit(id),
        }
    }

    /// Sets or clears a bit below the capacity; others are left alone.
    pub fn set(&mut self, id: u64, on: bool) {
        if id >= self.capacity || self.bit(id) == on {
            return;
        }
        let Some(byte) = usize::try_from(id / 8).ok().and_then(|at| self.bitmap.get_mut(at)) else { return };
        *byte ^= 1 << (id % 8);
        if on {
            self.members += 1;
        } else {
            self.members -= 1;
        }
    }

    /// The payload bytes; the bitmap is padded to whole 64-bit words.
    ///
    /// # Errors
    /// [`Error::Caller`] when the bitmap does not fit its field.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bitmap = self.bitmap.clone();
        bitmap.resize(bitmap.len().next_multiple_of(8), 0);
        let size = u32::try_from(bitmap.len())
            .map_err(|_| Error::caller(codes::MEMBERSHIP_INVALID, "membership bitmap above 4 GiB"))?;
        let mut out = Vec::with_capacity(HEADER_LEN + bitmap.len());
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&[1, 0, self.filter_type, (self.mode == Mode::Exclude).into()]);
        out.extend_from_slice(&self.capacity.to_le_bytes());
        out.extend_from_slice(&self.members.to_le_bytes());
        out.extend_from_slice(&(HEADER_LEN as u64).to_le_bytes());
        out.extend_from_slice(&size.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&fold32(&bitmap));
        out.extend_from_slice(&[0; 24]);
        out.extend_from_slice(&bitmap);
        Ok(out)
    }
}

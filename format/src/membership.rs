//! MEMBERSHIP payloads: which of the parent's ids a branch shows.

use crate::checksum::fold32;
use crate::error::{Error, Result, codes};
use crate::id_directory::IdList;
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
    /// A parent id is visible iff it is not in a list. Ours: the reference refuses it (0x0705), as it must where it
    /// would answer differently or its bitmap would be too large.
    Sparse,
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
    /// Bit n%8 of byte n/8 is id n. Empty for a list.
    pub bitmap: Vec<u8>,
    /// The hidden ids of a list, ascending. Empty for a bitmap.
    pub list: IdList,
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
            2 => Mode::Sparse,
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
        if mode == Mode::Sparse {
            if fold32(bitmap) != hash {
                return r.fail("list does not match its hash");
            }
            let Some(list) = decode_list(bitmap, members) else {
                return r.fail(format!("list is not {members} ascending ids"));
            };
            let list = IdList::new(list);
            return Ok(Self { filter_type, mode, capacity, members, generation, bitmap: Vec::new(), list });
        }
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
        Ok(Self {
            filter_type,
            mode,
            capacity,
            members,
            generation,
            bitmap: bitmap.to_vec(),
            list: IdList::default(),
        })
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
            list: IdList::default(),
        })
    }

    /// A list of hidden ids, in any order.
    pub fn hiding(ids: impl IntoIterator<Item = u64>) -> Self {
        let mut list: Vec<u64> = ids.into_iter().collect();
        list.sort_unstable();
        list.dedup();
        Self {
            filter_type: 2,
            mode: Mode::Sparse,
            capacity: 0,
            members: list.len() as u64,
            generation: 0,
            bitmap: Vec::new(),
            list: IdList::new(list),
        }
    }

    /// The ids that an excluding filter hides, ascending; `None` for an including one, which hides all but some.
    /// O(bitmap).
    pub fn hidden(&self) -> Option<Vec<u64>> {
        match self.mode {
            Mode::Include => None,
            Mode::Sparse => Some(self.list.to_vec()),
            Mode::Exclude => {
                let bytes = self.bitmap.iter().enumerate().filter(|(_, byte)| **byte != 0);
                let bits = bytes.flat_map(|(at, byte)| {
                    (0..8u64).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at as u64 * 8 + bit)
                });
                Some(bits.filter(|id| *id < self.capacity).collect())
            }
        }
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
            Mode::Sparse => !self.list.contains(id),
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
        let mut bitmap =
            if self.mode == Mode::Sparse { encode_list(&self.list) } else { self.bitmap.clone() };
        if self.mode != Mode::Sparse {
            bitmap.resize(bitmap.len().next_multiple_of(8), 0);
        }
        let size = u32::try_from(bitmap.len())
            .map_err(|_| Error::caller(codes::MEMBERSHIP_INVALID, "membership bitmap above 4 GiB"))?;
        let mut out = Vec::with_capacity(HEADER_LEN + bitmap.len());
        out.extend_from_slice(&MAGIC.to_le_bytes());
        let mode = match self.mode {
            Mode::Include => 0,
            Mode::Exclude => 1,
            Mode::Sparse => 2,
        };
        out.extend_from_slice(&[1, 0, self.filter_type, mode]);
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

/// The first id, then the difference of each to the one before, as LEB128 varints.
fn encode_list(ids: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(ids.len() * 2);
    let mut before = 0;
    for id in ids {
        let mut rest = id.wrapping_sub(before);
        before = *id;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out
}

/// `None` unless the bytes are exactly `count` strictly ascending ids. An id takes at least a byte, so the bytes bound
/// the memory whatever the count says.
fn decode_list(bytes: &[u8], count: u64) -> Option<Vec<u64>> {
    if count > bytes.len() as u64 {
        return None;
    }
    let mut ids: Vec<u64> = Vec::with_capacity(usize::try_from(count).ok()?);
    let mut rest = bytes.iter();
    for at in 0..count {
        let mut step = 0u64;
        for shift in (0..).step_by(7) {
            let byte = *rest.next()?;
            let part = u64::from(byte & 0x7F);
            if shift > 63 || part << shift >> shift != part {
                return None;
            }
            step |= part << shift;
            if byte < 0x80 {
                break;
            }
        }
        let id = match ids.last() {
            Some(_) if step == 0 => return None,
            Some(last) => last.checked_add(step)?,
            None => step,
        };
        debug_assert_eq!(ids.len() as u64, at);
        ids.push(id);
    }
    rest.next().is_none().then_some(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_any_ids_come_back() {
        for ids in [vec![], vec![0], vec![u64::MAX], vec![0, 1, 127, 128, 1 << 53, u64::MAX - 1, u64::MAX]] {
            let filter = Membership::hiding(ids.iter().rev().copied());
            let payload = filter.encode().unwrap_or_default();
            let back = Membership::parse(&payload).ok();
            assert_eq!(back.as_ref(), Some(&filter), "{ids:?}");
            assert_eq!(back.and_then(|b| b.hidden()), Some(ids.clone()));
            assert!(filter.shows(5) && ids.iter().all(|id| !filter.shows(*id)));
        }
    }

    #[test]
    fn hostile_lists_are_refused() {
        assert_eq!(decode_list(&[1, 0], 2), None, "an id twice");
        assert_eq!(decode_list(&[1], u64::MAX), None, "more ids than bytes");
        assert_eq!(decode_list(&[1, 2, 3], 2), None, "bytes left");
        assert_eq!(decode_list(&[0x80; 11], 1), None, "no end");
        assert_eq!(
            decode_list(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], 1),
            None,
            "66 bits"
        );
        let all = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        assert_eq!(decode_list(&all, 1), Some(vec![u64::MAX]));
        let more: Vec<u8> = all.iter().copied().chain([1]).collect();
        assert_eq!(decode_list(&more, 2), None, "past the largest id");
    }

    #[test]
    fn a_bitmap_names_what_it_hides() {
        let mut filter = Membership::empty(Mode::Exclude, 70).unwrap_or_else(|_| Membership::hiding([]));
        for id in [0, 9, 69] {
            filter.set(id, true);
        }
        assert_eq!(filter.hidden(), Some(vec![0, 9, 69]));
        assert_eq!(Membership::empty(Mode::Include, 4).ok().and_then(|f| f.hidden()), None);
    }
}

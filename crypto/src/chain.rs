//! Building and checking a chain of witness entries.

use rvf_format::checksum::shake256_256;
use rvf_format::witness::{ENTRY_LEN, Entry};

/// The 73 bytes of a witness entry that follows the one whose [`next_head`] is `prev`.
///
/// `timestamp_ns` counts nanoseconds since 1970; `kind` is a type byte, see [`crate::actions`].
pub fn entry(prev: &[u8; 32], action: &str, timestamp_ns: u64, kind: u8) -> [u8; ENTRY_LEN] {
    Entry { prev_hash: *prev, action_hash: shake256_256(action.as_bytes()), timestamp_ns, kind }.to_bytes()
}

/// The `prev_hash` of the entry that follows: SHAKE-256 of the last entry's bytes.
///
/// `last` may be a whole chain payload; its last 73 bytes count.
pub fn next_head(last: &[u8]) -> [u8; 32] {
    shake256_256(&last[last.len().saturating_sub(ENTRY_LEN)..])
}

/// Why a chain does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The payload is not a whole number of entries.
    #[error("{len} bytes are not a whole number of 73-byte witness entries")]
    Length {
        /// Bytes given.
        len: usize,
    },
    /// An entry does not follow the one before it.
    #[error("witness entry {index} does not follow the one before it")]
    Broken {
        /// Place of the entry, from 0.
        index: usize,
    },
}

/// A chain being built or checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WitnessChain {
    head: [u8; 32],
    entries: u64,
}

impl WitnessChain {
    /// A chain without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `prev_hash` of the next entry; zero for an empty chain.
    pub fn head(&self) -> [u8; 32] {
        self.head
    }

    /// Entries appended or verified so far.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Appends an entry and returns its bytes.
    pub fn append(&mut self, action: &str, timestamp_ns: u64, kind: u8) -> [u8; ENTRY_LEN] {
        let bytes = entry(&self.head, action, timestamp_ns, kind);
        self.head = next_head(&bytes);
        self.entries += 1;
        bytes
    }

    /// Checks that the entries of a payload follow this chain, and moves the head behind them.
    ///
    /// # Errors
    /// [`ChainError`]; the chain then stands before the entry that does not follow.
    pub fn verify(&mut self, payload: &[u8]) -> Result<(), ChainError> {
        if !payload.len().is_multiple_of(ENTRY_LEN) {
            return Err(ChainError::Length { len: payload.len() });
        }
        for (index, bytes) in payload.chunks_exact(ENTRY_LEN).enumerate() {
            if bytes[..32] != self.head {
                return Err(ChainError::Broken { index });
            }
            self.head = next_head(bytes);
            self.entries += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions;

    #[test]
    fn appended_entries_verify_and_a_flip_breaks_the_next() {
        let mut chain = WitnessChain::new();
        let mut payload = Vec::new();
        payload.extend_from_slice(&chain.append(&actions::ingest(3, 1), 10, actions::KIND_COMPUTATION));
        payload.extend_from_slice(&chain.append(&actions::delete(1, 2), 11, actions::KIND_DELETE));
        payload.extend_from_slice(&chain.append(&actions::compact(1, 16, 3), 12, actions::KIND_COMPUTATION));
        let mut check = WitnessChain::new();
        assert_eq!(check.verify(&payload), Ok(()));
        assert_eq!(check, chain);
        assert_eq!(next_head(&payload), chain.head());

        payload[70] ^= 1;
        assert_eq!(WitnessChain::new().verify(&payload), Err(ChainError::Broken { index: 1 }));
        assert_eq!(WitnessChain::new().verify(&payload[..72]), Err(ChainError::Length { len: 72 }));
    }

    #[test]
    fn the_action_hash_is_shake_256() {
        let bytes = entry(&[7; 32], &actions::delete(4, 9), 1, 1);
        assert_eq!(bytes[32..64], shake256_256(b"delete:count=4,epoch=9"));
        assert_eq!(bytes[64..72], 1u64.to_le_bytes());
        assert_eq!(bytes[72], 1);
    }
}

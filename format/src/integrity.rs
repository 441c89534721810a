//! Which of the reference's hash functions a stored hash of an embedded image was made with.

use crate::checksum::{fold32, sha3_256, shake256_256};

/// What a stored 32-byte hash says about bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// SHAKE-256 matches.
    Shake256,
    /// SHA3-256 matches.
    Sha3,
    /// The additive fold of the runtime matches: the bytes were not damaged by accident, but anybody can forge it.
    Fold32,
    /// Nothing is stored.
    Unset,
    /// None matches.
    Mismatch,
}

impl Integrity {
    /// Compares `hash` with the three hashes of each candidate, strongest first. O(bytes).
    pub fn of(hash: &[u8; 32], candidates: &[&[u8]]) -> Self {
        if *hash == [0; 32] {
            return Self::Unset;
        }
        let any = |function: fn(&[u8]) -> [u8; 32]| candidates.iter().any(|bytes| function(bytes) == *hash);
        if any(shake256_256) {
            Self::Shake256
        } else if any(sha3_256) {
            Self::Sha3
        } else if any(fold32) {
            Self::Fold32
        } else {
            Self::Mismatch
        }
    }

    /// One word: `shake256`, `sha3-256`, `fold32`, `unset` or `MISMATCH`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Shake256 => "shake256",
            Self::Sha3 => "sha3-256",
            Self::Fold32 => "fold32",
            Self::Unset => "unset",
            Self::Mismatch => "MISMATCH",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_told_by_its_hash() {
        let (image, other) = (&b"an image"[..], &b"another"[..]);
        for (hash, want) in [
            (shake256_256(image), Integrity::Shake256),
            (sha3_256(image), Integrity::Sha3),
            (fold32(image), Integrity::Fold32),
            ([0; 32], Integrity::Unset),
            ([7; 32], Integrity::Mismatch),
        ] {
            assert_eq!(Integrity::of(&hash, &[other, image]), want);
            if want != Integrity::Unset {
                assert_eq!(Integrity::of(&hash, &[other]), Integrity::Mismatch);
            }
        }
    }
}

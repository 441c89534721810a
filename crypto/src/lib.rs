//! Digests, the witness chain, proofs of lineage, keys, signatures and the trust store of RVF files.
//!
//! A witness entry is 73 bytes: the SHAKE-256 of the entry before it, the SHAKE-256 of a text that says what was
//! done, a time, and a type byte. The chain shows that entries were not changed, removed from the middle, or
//! reordered; it is no signature: whoever can rewrite the whole file can rewrite the chain.
//!
//! A signature is what the chain is not: see [`signature`] for what is signed and [`trust`] for whose word counts.
//!
//! ```
//! let first = rvf_crypto::entry(&[0; 32], "ingest:count=3,epoch=1", 1_700_000_000_000_000_000, 1);
//! let head = rvf_crypto::next_head(&first);
//! let second = rvf_crypto::entry(&head, "delete:count=1,epoch=2", 1_700_000_000_000_000_001, 0);
//! assert_eq!(second[..32], head);
//! ```

pub mod actions;
mod chain;
mod file;
mod key;
pub mod lineage;
pub mod signature;
pub mod trust;

pub use chain::{ChainError, WitnessChain, entry, next_head};
pub use key::{Algorithm, KeyError, KeyId, PublicKey, SecretKey};
pub use rvf_format::checksum::{fold32, sha3_256, sha256, shake256_128, shake256_256};
pub use signature::{Content, Prefixes, Scope, Signature, SignatureError, Statement};
pub use trust::{TrustStore, TrustedKey, Verdict};

//! WITNESS payloads: the hash chain of what was done to a store.

/// Bytes of a chain entry.
pub const ENTRY_LEN: usize = 73;

/// One entry of the witness chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// SHAKE-256 of the previous entry's bytes; zero for the first.
    pub prev_hash: [u8; 32],
    /// SHAKE-256 of the action text, which is not stored.
    pub action_hash: [u8; 32],
    /// Nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// Type byte.
    pub kind: u8,
}

impl Entry {
    /// The 73 bytes.
    pub fn to_bytes(&self) -> [u8; ENTRY_LEN] {
        let mut out = [0; ENTRY_LEN];
        out[..32].copy_from_slice(&self.prev_hash);
        out[32..64].copy_from_slice(&self.action_hash);
        out[64..72].copy_from_slice(&self.timestamp_ns.to_le_bytes());
        out[72] = self.kind;
        out
    }

    /// Reads 73 bytes.
    pub fn from_bytes(bytes: &[u8; ENTRY_LEN]) -> Self {
        let mut entry = Self { prev_hash: [0; 32], action_hash: [0; 32], timestamp_ns: 0, kind: bytes[72] };
        entry.prev_hash.copy_from_slice(&bytes[..32]);
        entry.action_hash.copy_from_slice(&bytes[32..64]);
        let mut time = [0; 8];
        time.copy_from_slice(&bytes[64..72]);
        entry.timestamp_ns = u64::from_le_bytes(time);
        entry
    }

    /// What the runtime means by the type byte.
    pub fn kind_name(&self) -> &'static str {
        kind_name(self.kind)
    }
}

/// What the runtime means by a witness type byte; the reference's crates disagree about most of them.
pub fn kind_name(kind: u8) -> &'static str {
    match kind {
        0x00 => "data provenance",
        0x01 => "computation",
        0x05 => "platform attestation",
        0x06 => "key binding",
        0x07 => "computation proof",
        0x08 => "data provenance proof",
        0x09 => "derivation",
        0x0A => "merge",
        0x0B => "snapshot",
        0x0C => "transform",
        0x0D => "verify",
        0x0E => "cluster copy",
        0x0F => "cluster delta",
        _ => "unknown",
    }
}

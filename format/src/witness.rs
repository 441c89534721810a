//! WITNESS payloads: the hash chain of what was done to a store.

use crate::checksum::{ChecksumState, shake256_256};
use crate::error::codes;
use crate::header::SegType;
use crate::layout::Layout;
use crate::reader::Reader;

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

/// What a WITNESS payload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A whole number of chain entries that follow each other.
    Chain(Vec<Entry>),
    /// Attestation records with a chain of their own.
    Attestation(Vec<Attestation>),
    /// The record of a runtime before 0.5; nobody can verify it.
    Legacy {
        /// Type byte.
        kind: u8,
        /// Nanoseconds since 1970.
        timestamp_ns: u64,
        /// What was done, as text or other bytes.
        action: Vec<u8>,
        /// Hash of the record before.
        prev_hash: [u8; 32],
    },
    /// None of these.
    Unrecognized,
}

/// A verified-by-hash attestation record. No quote is ever checked by anybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Type byte of its chain entry.
    pub witness_type: u8,
    /// 0 SGX, 1 SEV-SNP, 2 TDX, 3 ARM CCA, 0xFE software.
    pub platform: u8,
    /// 5 to 8, see [`kind_name`].
    pub attestation_type: u8,
    /// Measurement of the code.
    pub measurement: [u8; 32],
    /// Who signed it.
    pub signer_id: [u8; 32],
    /// Time of its chain entry, nanoseconds since 1970.
    pub timestamp_ns: u64,
    /// Time in the record itself, nanoseconds since 1970.
    pub recorded_ns: u64,
    /// Nonce.
    pub nonce: [u8; 16],
    /// Security version number.
    pub svn: u16,
    /// Signature algorithm.
    pub sig_algo: u16,
    /// 1 debug, 2 report data, 4 several platforms.
    pub flags: u8,
    /// Report data.
    pub report_data: Vec<u8>,
    /// Quote.
    pub quote: Vec<u8>,
}

/// What a payload is: a chain that holds together, else an attestation payload, else a legacy record.
pub fn decode(payload: &[u8]) -> Payload {
    if let Some(entries) = chain(payload, None) {
        return Payload::Chain(entries);
    }
    if let Some(records) = attestation(payload) {
        return Payload::Attestation(records);
    }
    legacy(payload).unwrap_or(Payload::Unrecognized)
}

/// The payload of chain entries.
pub fn encode_chain(entries: &[Entry]) -> Vec<u8> {
    entries.iter().flat_map(|entry| entry.to_bytes()).collect()
}

/// The chain head that a payload leaves behind: SHAKE-256 of its last 73 bytes for a chain, zero for a legacy or
/// unreadable one, `None` for an attestation payload, which does not move the head.
pub fn head_after(payload: &[u8]) -> Option<[u8; 32]> {
    match payload.len().checked_sub(ENTRY_LEN) {
        Some(start) if payload.len().is_multiple_of(ENTRY_LEN) && attestation(payload).is_none() => {
            Some(shake256_256(&payload[start..]))
        }
        _ => attestation(payload).is_none().then_some([0; 32]),
    }
}

/// The entries, if each follows the one before and the first follows `anchor` (when given).
fn chain(payload: &[u8], anchor: Option<&[u8; 32]>) -> Option<Vec<Entry>> {
    if !payload.len().is_multiple_of(ENTRY_LEN) {
        return None;
    }
    let mut expected = anchor.copied();
    let mut out = Vec::with_capacity(payload.len() / ENTRY_LEN);
    for bytes in payload.chunks_exact(ENTRY_LEN) {
        let entry = Entry::from_bytes(bytes.try_into().ok()?);
        if expected.is_some_and(|expected| expected != entry.prev_hash) {
            return None;
        }
        expected = Some(shake256_256(bytes));
        out.push(entry);
    }
    Some(out)
}

fn legacy(payload: &[u8]) -> Option<Payload> {
    let mut r = Reader::new(payload, "WITNESS payload", codes::INVALID_CHECKSUM);
    let kind = r.u8().ok()?;
    let timestamp_ns = r.u64().ok()?;
    let len = r.u32().ok()? as usize;
    let action = r.take(len).ok()?.to_vec();
    let prev_hash = r.array().ok()?;
    (r.left() == 0).then_some(Payload::Legacy { kind, timestamp_ns, action, prev_hash })
}

/// The records, when every offset, hash and link holds and there is at least one. Lengths are added with care: the
/// reference panics on a record that declares 2^64-1 bytes of report data.
fn attestation(payload: &[u8]) -> Option<Vec<Attestation>> {
    let mut r = Reader::new(payload, "attestation payload", codes::ATTESTATION_INVALID);
    let count = r.u32().ok()? as usize;
    if count == 0 || count > r.left() / (8 + ENTRY_LEN) {
        return None;
    }
    let mut offsets = Vec::with_capacity(count + 1);
    for _ in 0..count {
        offsets.push(usize::try_from(r.u64().ok()?).ok()?);
    }
    let entries = chain(r.take(count * ENTRY_LEN).ok()?, Some(&[0; 32]))?;
    let records = r.take(r.left()).ok()?;
    if offsets.first() != Some(&0) {
        return None;
    }
    offsets.push(records.len());
    let mut out = Vec::with_capacity(count);
    for (entry, bounds) in entries.iter().zip(offsets.windows(2)) {
        let record = records.get(bounds[0]..bounds[1])?;
        if shake256_256(record) != entry.action_hash {
            return None;
        }
        let parsed = record_of(record, entry)?;
        if parsed.attestation_type != entry.kind {
            return None;
        }
        out.push(parsed);
    }
    Some(out)
}

fn record_of(record: &[u8], entry: &Entry) -> Option<Attestation> {
    let mut r = Reader::new(record, "attestation record", codes::ATTESTATION_INVALID);
    let platform = r.u8().ok()?;
    let attestation_type = r.u8().ok()?;
    let quote_len = usize::from(r.u16().ok()?);
    r.u32().ok()?;
    let measurement = r.array().ok()?;
    let signer_id = r.array().ok()?;
    let recorded_ns = r.u64().ok()?;
    let nonce = r.array().ok()?;
    let svn = r.u16().ok()?;
    let sig_algo = r.u16().ok()?;
    let flags = r.u8().ok()?;
    r.take(3).ok()?;
    let report_len = usize::try_from(r.u64().ok()?).ok()?;
    let report_data = r.take(report_len).ok()?.to_vec();
    let quote = r.take(quote_len).ok()?.to_vec();
    Some(Attestation {
        witness_type: entry.kind,
        platform,
        attestation_type,
        measurement,
        signer_id,
        timestamp_ns: entry.timestamp_ns,
        recorded_ns,
        nonce,
        svn,
        sig_algo,
        flags,
        report_data,
        quote,
    })
}

/// Verdict over all witness segments of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Every segment verifies.
    Valid,
    /// At least one does not.
    Invalid,
    /// There are records of an old runtime that nobody can verify, and nothing else is wrong.
    LegacyUnverifiable,
    /// There is no witness segment.
    NoWitnesses,
}

impl Status {
    /// The word that `verify-witness --json` prints.
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::LegacyUnverifiable => "legacy_unverifiable",
            Self::NoWitnesses => "no_witnesses",
        }
    }
}

/// What was found in one witness segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// Place among the witness segments, from 0.
    pub index: usize,
    /// File offset of the header.
    pub offset: u64,
    /// `chain`, `attestation`, `legacy` or `unrecognized`.
    pub kind: &'static str,
    /// Chain entries (1 for a legacy record).
    pub entries: usize,
    /// Whether it is a chain and holds.
    pub chain_valid: bool,
    /// Why it does not hold.
    pub error: Option<String>,
}

/// What `verify-witness` reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The verdict.
    pub status: Status,
    /// Every witness segment in file order.
    pub segments: Vec<SegmentReport>,
    /// Chain entries and legacy records.
    pub total_entries: usize,
    /// Segments whose chain holds.
    pub valid_chains: usize,
    /// Records of an old runtime.
    pub legacy_segments: usize,
    /// Attestation payloads.
    pub attestation_segments: usize,
    /// One line for each failure.
    pub chain_breaks: Vec<String>,
    /// Time of the first chain entry, 0 without one.
    pub first_timestamp_ns: u64,
    /// Time of the last chain entry, 0 without one.
    pub last_timestamp_ns: u64,
    /// Head of the chain after the last segment that moved it.
    pub head: [u8; 32],
}

/// Checks all witness segments of a file in file order as one chain, as the reference's `verify-witness` does. After
/// a failure the next segment's own `prev_hash` is taken, so that one break is one report. O(witness payloads).
pub fn verify(bytes: &[u8], layout: &Layout) -> Report {
    let mut report = Report {
        status: Status::NoWitnesses,
        segments: Vec::new(),
        total_entries: 0,
        valid_chains: 0,
        legacy_segments: 0,
        attestation_segments: 0,
        chain_breaks: Vec::new(),
        first_timestamp_ns: 0,
        last_timestamp_ns: 0,
        head: [0; 32],
    };
    let mut anchor = Some([0; 32]);
    let mut timed = false;
    for segment in layout.segments().filter(|segment| segment.kind() == SegType::WITNESS) {
        let payload = segment.payload_of(bytes);
        let hash_ok = segment.header.checksum_algo == crate::checksum::ALGO_LEGACY
            || matches!(segment.verify(bytes), ChecksumState::Ok | ChecksumState::Unset);
        let mut one = SegmentReport {
            index: report.segments.len(),
            offset: segment.offset,
            kind: "unrecognized",
            entries: 0,
            chain_valid: false,
            error: None,
        };
        if let Some(entries) = chain(payload, anchor.as_ref()) {
            one.kind = "chain";
            one.entries = entries.len();
            one.chain_valid = hash_ok;
            if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
                if !timed {
                    report.first_timestamp_ns = first.timestamp_ns;
                    timed = true;
                }
                report.last_timestamp_ns = last.timestamp_ns;
                anchor = Some(shake256_256(&last.to_bytes()));
            }
        } else if attestation(payload).is_some() {
            one.kind = "attestation";
            report.attestation_segments += 1;
        } else if legacy(payload).is_some() {
            one.kind = "legacy";
            one.entries = 1;
            report.legacy_segments += 1;
            anchor = Some([0; 32]);
        } else {
            one.error = Some(
                "RVF error code 0x0102 (InvalidChecksum): hash chain broken (entry altered, removed, or out of order)"
                    .into(),
            );
        }
        if !hash_ok {
            one.error = Some("segment content hash mismatch (payload altered or damaged)".into());
        }
        if let Some(error) = &one.error {
            anchor = None;
            report.chain_breaks.push(format!("Segment #{} at offset 0x{:X}: {error}", one.index, one.offset));
        }
        report.head = anchor.unwrap_or(report.head);
        report.total_entries += one.entries;
        report.valid_chains += usize::from(one.chain_valid);
        report.segments.push(one);
    }
    report.status = match &report {
        r if r.segments.is_empty() => Status::NoWitnesses,
        r if !r.chain_breaks.is_empty() => Status::Invalid,
        r if r.legacy_segments > 0 && r.valid_chains == 0 => Status::LegacyUnverifiable,
        _ => Status::Valid,
    };
    report
}

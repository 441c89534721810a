//! `witness/`: the chain of what was done to a store, and whether it holds.

use std::fmt::Write as _;

use rvf_format::{SegType, witness};

use crate::json;
use crate::snapshot::Snap;

/// `log.jsonl`: one entry of the chain a line, in file order.
#[must_use]
pub fn log(snap: &Snap) -> String {
    let mut out = String::new();
    let bytes: &[u8] = snap.view.bytes();
    for part in snap.of_types(&[SegType::WITNESS]) {
        let Some(segment) = part.segment() else { continue };
        let at = segment.offset;
        match witness::decode(segment.payload_of(bytes)) {
            witness::Payload::Chain(entries) => {
                for entry in entries {
                    let _ = write!(
                        out,
                        "{{\"segment\": {}, \"offset\": {at}, \"kind\": \"chain\", \"type\": ",
                        part.key.entry + 1
                    );
                    json::string(&mut out, entry.kind_name());
                    let _ = write!(
                        out,
                        ", \"type_code\": {}, \"timestamp_ns\": {}",
                        entry.kind, entry.timestamp_ns
                    );
                    hash(&mut out, "action_hash", &entry.action_hash);
                    hash(&mut out, "prev_hash", &entry.prev_hash);
                    out.push_str("}\n");
                }
            }
            witness::Payload::Attestation(records) => {
                for record in records {
                    let _ = write!(
                        out,
                        "{{\"segment\": {}, \"offset\": {at}, \"kind\": \"attestation\", \"type\": ",
                        part.key.entry + 1
                    );
                    json::string(&mut out, witness::kind_name(record.witness_type));
                    let _ = write!(
                        out,
                        ", \"type_code\": {}, \"timestamp_ns\": {}, \"platform\": {}",
                        record.witness_type, record.timestamp_ns, record.platform
                    );
                    hash(&mut out, "measurement", &record.measurement);
                    hash(&mut out, "signer_id", &record.signer_id);
                    out.push_str("}\n");
                }
            }
            witness::Payload::Legacy { kind, timestamp_ns, action, prev_hash } => {
                let _ = write!(
                    out,
                    "{{\"segment\": {}, \"offset\": {at}, \"kind\": \"legacy\", \"type_code\": {kind}",
                    part.key.entry + 1
                );
                let _ = write!(out, ", \"timestamp_ns\": {timestamp_ns}, \"action\": ");
                json::string(&mut out, &String::from_utf8_lossy(&action));
                hash(&mut out, "prev_hash", &prev_hash);
                out.push_str("}\n");
            }
            witness::Payload::Unrecognized => {
                let _ = writeln!(
                    out,
                    "{{\"segment\": {}, \"offset\": {at}, \"kind\": \"unrecognized\"}}",
                    part.key.entry + 1
                );
            }
        }
    }
    out
}

fn hash(out: &mut String, key: &str, bytes: &[u8]) {
    let _ = write!(out, ", \"{key}\": \"");
    json::hex(out, bytes);
    out.push('"');
}

/// `head`: the hash the next entry has to name.
#[must_use]
pub fn head(snap: &Snap) -> String {
    let mut out = String::new();
    json::hex(&mut out, &snap.view.contents().witness_head);
    out.push('\n');
    out
}

/// `verify`: `ok` with the count, or the first entry that fails and why.
#[must_use]
pub fn verdict(snap: &Snap) -> String {
    let report = witness::verify(snap.view.bytes(), &snap.view.opened().layout);
    match report.status {
        witness::Status::Valid => {
            format!("ok: {} entries in {} segments\n", report.total_entries, report.segments.len())
        }
        witness::Status::NoWitnesses => "ok: no witness entries\n".into(),
        witness::Status::LegacyUnverifiable => {
            format!(
                "unverifiable: {} records of an old runtime have no chain to check\n",
                report.legacy_segments
            )
        }
        witness::Status::Invalid => {
            let failed = report.segments.iter().find(|segment| segment.error.is_some());
            match failed {
                Some(segment) => format!(
                    "INVALID: witness segment {} at offset {}: {}\n",
                    segment.index,
                    segment.offset,
                    segment.error.as_deref().unwrap_or("does not hold")
                ),
                None => format!(
                    "INVALID: {}\n",
                    report.chain_breaks.first().map_or("the chain does not hold", String::as_str)
                ),
            }
        }
    }
}

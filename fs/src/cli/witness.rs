//! `rvf verify-witness`.

use super::failure::{DAMAGED, Failure, LEGACY};
use super::open;
use super::output::Out;
use rvf_format::witness::{self, Payload, Report, Status};
use rvf_format::{Layout, SegType, layout};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The chain is neither keyed nor signed: it shows accidental damage and edits, not the removal of the newest entries or
of the whole chain.
Exit status: 0 valid, 2 only records of rvf-runtime <= 0.4.0 that nobody can verify, 3 invalid.")]
pub(super) struct Args {
    /// Path to the RVF store
    file: PathBuf,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    /// Exit 0 instead of 2 when the only problem is legacy records
    #[arg(long)]
    allow_legacy: bool,
    /// Exit 1 when the file has no witness segments at all
    #[arg(long)]
    require_witness: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let bytes = open::store_bytes(&args.file)?;
    let layout = layout::walk(&bytes);
    let report = witness::verify(&bytes, &layout);
    open::intact(&args.file, &bytes)?;
    if report.status == Status::NoWitnesses {
        if args.json {
            out.json(&json!({ "status": "no_witnesses", "witness_segments": 0, "total_entries": 0 }))?;
        } else {
            out.line("No witness segments found in file.")?;
            out.line(
                "  WARNING: nothing was verified. A stripped audit trail looks the same; use --require-witness to fail \
                 on this.",
            )?;
        }
        return match args.require_witness {
            true => Err(Failure::new("no witness segments found (--require-witness)")),
            false => Ok(()),
        };
    }
    if args.json {
        json_report(&report, out)?;
    } else {
        text_report(&bytes, &layout, &report, out)?;
    }
    match report.status {
        Status::Invalid => Err(Failure {
            status: DAMAGED,
            message: Some(format!(
                "witness verification failed: {} problem(s) (see output)",
                report.chain_breaks.len()
            )),
        }),
        Status::LegacyUnverifiable if !args.allow_legacy => Err(Failure { status: LEGACY, message: None }),
        _ => Ok(()),
    }
}

fn json_report(report: &Report, out: &mut Out) -> Result<(), Failure> {
    let segments: Vec<Value> = report
        .segments
        .iter()
        .map(|s| {
            json!({
                "segment_index": s.index,
                "segment_offset": format!("0x{:X}", s.offset),
                "kind": s.kind,
                "entry_count": s.entries,
                "chain_valid": s.chain_valid,
                "error": s.error,
            })
        })
        .collect();
    out.json(&json!({
        "status": report.status.word(),
        "witness_segments": report.segments.len(),
        "valid_chains": report.valid_chains,
        "legacy_segments": report.legacy_segments,
        "attestation_segments": report.attestation_segments,
        "total_entries": report.total_entries,
        "first_timestamp_ns": report.first_timestamp_ns,
        "last_timestamp_ns": report.last_timestamp_ns,
        "chain_breaks": report.chain_breaks,
        "segments": segments,
    }))
}

/// The names the reference prints for entry types.
fn type_name(kind: u8) -> &'static str {
    match kind {
        0x01 => "PROVENANCE",
        0x02 => "COMPUTATION",
        0x03 => "PLATFORM_ATTESTATION",
        0x04 => "KEY_BINDING",
        0x05 => "DATA_PROVENANCE",
        _ => "UNKNOWN",
    }
}

fn timestamp(ns: u64) -> String {
    if ns == 0 {
        return "0 (genesis)".to_owned();
    }
    format!("{}.{:09}s (unix epoch)", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn text_report(bytes: &[u8], layout: &Layout, report: &Report, out: &mut Out) -> Result<(), Failure> {
    let mut types: BTreeMap<u8, u64> = BTreeMap::new();
    for segment in layout.segments().filter(|s| s.kind() == SegType::WITNESS) {
        if let Payload::Chain(entries) = witness::decode(segment.payload_of(bytes)) {
            for entry in entries {
                *types.entry(entry.kind).or_default() += 1;
            }
        }
    }
    out.line("Witness chain verification (cryptographic):")?;
    out.line("")?;
    out.pair("Witness segments:", report.segments.len())?;
    out.pair("Valid chain segments:", format_args!("{}/{}", report.valid_chains, report.segments.len()))?;
    if report.legacy_segments > 0 {
        out.pair("Legacy (not verifiable):", report.legacy_segments)?;
    }
    if report.attestation_segments > 0 {
        out.pair("Attestation (see verify-attestation):", report.attestation_segments)?;
    }
    out.pair("Total entries:", report.total_entries)?;
    if !types.is_empty() {
        out.line("")?;
        out.pair("First timestamp:", timestamp(report.first_timestamp_ns))?;
        out.pair("Last timestamp:", timestamp(report.last_timestamp_ns))?;
        out.line("")?;
        out.line("  Entry types:")?;
        for (kind, count) in &types {
            out.line(format_args!("    0x{kind:02X} ({:20}): {count}", type_name(*kind)))?;
        }
    }
    out.line("")?;
    match report.status {
        Status::LegacyUnverifiable => out.line(format_args!(
            "  LEGACY: {} witness record(s) were written by rvf-runtime <= 0.4.0 and carry no verifiable hash chain. They \
             are NOT verified. Re-run with --allow-legacy to accept this.",
            report.legacy_segments
        )),
        Status::Invalid => {
            out.line(format_args!("  FAILED: {} problem(s) found in the witness chain:", report.chain_breaks.len()))?;
            report.chain_breaks.iter().try_for_each(|line| out.line(format_args!("    - {line}")))
        }
        Status::Valid | Status::NoWitnesses => out.line("  All witness hash chains verified successfully."),
    }
}

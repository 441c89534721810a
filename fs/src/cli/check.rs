//! `rvf check`: says everything that can be found out about a file, on any bytes.

use super::failure::{DAMAGED, Failure};
use super::open;
use super::output::{Out, hex};
use crate::data::error::printable;
use rvf_format::ChecksumState;
use rvf_format::check::{CheckReport, IndexLine, check};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Works on any bytes and changes nothing. Findings are notes (deviations without consequences), warnings (something other
tools, or a later operation, will stumble over) and damage (something is lost or not usable).
Exit status: 0 sound, 1 the file cannot be read, 3 damaged.")]
pub(super) struct Args {
    /// Path to the file
    file: PathBuf,
    /// Also list every segment
    #[arg(short, long)]
    segments: bool,
    /// Output as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    let bytes = open::store_bytes(&args.file)?;
    let report = check(&bytes);
    open::intact(&args.file, &bytes)?;
    if args.json {
        out.json(&as_json(args, &report))?;
    } else {
        as_text(args, &report, out)?;
    }
    if report.is_sound() { Ok(()) } else { Err(Failure { status: DAMAGED, message: None }) }
}

fn word(state: ChecksumState) -> &'static str {
    match state {
        ChecksumState::Ok => "ok",
        ChecksumState::Bad => "BAD",
        ChecksumState::Unset => "none",
        ChecksumState::Unsupported => "unsupported",
    }
}

fn verdict(report: &CheckReport) -> &'static str {
    match (report.is_sound(), report.findings.is_empty()) {
        (true, true) => "sound",
        (true, false) => "sound, with remarks",
        (false, _) if report.manifest.is_none() => "DAMAGED: nothing is committed",
        (false, _) => "DAMAGED",
    }
}

/// The dialect; bytes without a segment have none.
fn dialect(report: &CheckReport) -> &'static str {
    if report.segment_count == 0 { "unknown" } else { report.dialect.word() }
}

fn index_text(index: IndexLine) -> String {
    match index {
        IndexLine::None => "none".to_owned(),
        IndexLine::Usable { ids } => format!("usable, {ids} vectors"),
        IndexLine::Unusable => "UNUSABLE, will be built again".to_owned(),
    }
}

fn as_text(args: &Args, report: &CheckReport, out: &mut Out) -> Result<(), Failure> {
    out.line(format_args!("RVF file: {}", args.file.display()))?;
    out.pair("Verdict:", verdict(report))?;
    out.pair("Size:", format_args!("{} bytes", report.size))?;
    out.pair("Dialect:", dialect(report))?;
    let types: Vec<String> =
        report.by_type.iter().map(|(kind, n)| format!("{n} {}", kind.dir_name())).collect();
    let types = if types.is_empty() { String::new() } else { format!(" ({})", types.join(", ")) };
    out.pair("Segments:", format_args!("{}{types}", report.segment_count))?;
    let h = &report.hashes;
    out.pair(
        "Checksums:",
        format_args!("{} ok, {} bad, {} none, {} unsupported", h.ok, h.bad, h.unset, h.unsupported),
    )?;
    if report.gap_bytes > 0 {
        out.pair("Outside segments:", format_args!("{} bytes", report.gap_bytes))?;
    }
    match &report.manifest {
        Some(m) => {
            out.pair(
                "Manifest:",
                format_args!("offset {}, epoch {}, {} segments", m.offset, m.epoch, m.segments),
            )?;
            out.pair("Dimension:", m.dimension)?;
            out.pair("Metric:", m.metric)?;
            out.pair("Rows:", format_args!("{}, {} deleted", m.total_vectors, m.deleted))?;
            if let Some(identity) = &m.identity {
                out.pair("File ID:", hex(&identity.file_id))?;
            }
        }
        None => out.pair("Manifest:", "NONE")?,
    }
    if let Some(signed) = report.signed {
        out.pair("Root page:", if signed { "whole" } else { "BROKEN" })?;
    }
    if let Some(parent) = &report.parent {
        out.pair("Child of:", printable(parent, 200))?;
    }
    let tail = &report.tail;
    if tail.bytes_after_manifest > 0 {
        let torn = tail.torn_at.map_or_else(String::new, |at| format!(", torn at {at}"));
        out.pair(
            "After manifest:",
            format_args!(
                "{} bytes, {} uncommitted segment(s){torn}",
                tail.bytes_after_manifest, tail.uncommitted_segments
            ),
        )?;
    }
    let (generation, generations, records) = report.metadata;
    if generation > 0 || generations > 0 {
        out.pair(
            "Metadata:",
            format_args!(
                "generation {generation}, {generations} generation(s) and {records} record(s) dropped"
            ),
        )?;
    }
    out.pair("Index:", index_text(report.index))?;
    out.pair(
        "Witness:",
        format_args!("{}, {} entries", report.witness.status.word(), report.witness.total_entries),
    )?;
    let r = &report.recoverable;
    out.pair(
        "Recoverable:",
        format_args!(
            "{} vectors, {} metadata records, {} file entries",
            r.vectors, r.metadata_records, r.file_metadata
        ),
    )?;
    if r.damaged_rows > 0 {
        out.pair("Lost:", format_args!("at most {} rows in damaged segments", r.damaged_rows))?;
    }
    if args.segments {
        out.line("")?;
        out.line("Segments in file order:")?;
        for s in &report.segments {
            let committed = if s.committed { "" } else { " (not committed)" };
            out.line(format_args!(
                "  {:06} {:<10} offset={:<10} id={:<6} payload={:<10} checksum={}{committed}",
                u64::from(s.ordinal) + 1,
                s.kind.dir_name(),
                s.offset,
                s.id,
                s.payload_length,
                word(s.checksum)
            ))?;
        }
    }
    if !report.findings.is_empty() {
        out.line("")?;
        out.line(format_args!("Findings ({}):", report.findings.len() + report.more_findings))?;
        for f in &report.findings {
            let mend = f.mend.as_ref().map_or_else(String::new, |m| format!("; {m}"));
            let text = printable(&format!("{}{mend}", f.text), 2000);
            out.line(format_args!("  {:<8} offset={:<10} {}: {text}", f.severity.word(), f.offset, f.code))?;
        }
        if report.more_findings > 0 {
            out.line(format_args!("  {} more not shown", report.more_findings))?;
        }
    }
    Ok(())
}

fn as_json(args: &Args, report: &CheckReport) -> Value {
    let manifest = report.manifest.as_ref().map(|m| {
        json!({
            "offset": m.offset,
            "epoch": m.epoch,
            "dimension": m.dimension,
            "metric": m.metric,
            "profile_id": m.profile_id,
            "total_vectors": m.total_vectors,
            "deleted": m.deleted,
            "segments": m.segments,
            "file_id": m.identity.map(|i| hex(&i.file_id)),
            "parent_id": m.identity.map(|i| hex(&i.parent_id)),
        })
    });
    let findings: Vec<Value> = report
        .findings
        .iter()
        .map(|f| json!({ "severity": f.severity.word(), "code": f.code, "offset": f.offset, "text": f.text, "mend": f.mend }))
        .collect();
    let by_type: Map<String, Value> =
        report.by_type.iter().map(|(kind, n)| (kind.dir_name().to_string(), json!(n))).collect();
    let (h, r) = (&report.hashes, &report.recoverable);
    let (generation, generations, records) = report.metadata;
    let mut object = json!({
        "path": args.file.to_string_lossy(),
        "verdict": verdict(report),
        "sound": report.is_sound(),
        "size": report.size,
        "dialect": dialect(report),
        "segment_count": report.segment_count,
        "segments_by_type": by_type,
        "checksums": { "ok": h.ok, "bad": h.bad, "none": h.unset, "unsupported": h.unsupported },
        "gap_bytes": report.gap_bytes,
        "signed_root_page": report.signed,
        "manifest": manifest,
        "tail": {
            "bytes_after_manifest": report.tail.bytes_after_manifest,
            "uncommitted_segments": report.tail.uncommitted_segments,
            "torn_at": report.tail.torn_at,
            "reference_torn": report.reference_torn,
        },
        "metadata": { "generation": generation, "dropped_generations": generations, "dropped_records": records },
        "witness": { "status": report.witness.status.word(), "total_entries": report.witness.total_entries },
        "index": index_text(report.index),
        "parent": report.parent,
        "recoverable": {
            "vectors": r.vectors,
            "metadata_records": r.metadata_records,
            "file_metadata": r.file_metadata,
            "damaged_rows": r.damaged_rows,
        },
        "findings": findings,
        "more_findings": report.more_findings,
    });
    if let (true, Value::Object(object)) = (args.segments, &mut object) {
        let list: Vec<Value> = report
            .segments
            .iter()
            .map(|s| {
                json!({
                    "ordinal": u64::from(s.ordinal) + 1,
                    "type": s.kind.dir_name(),
                    "offset": s.offset,
                    "id": s.id,
                    "payload_length": s.payload_length,
                    "checksum": word(s.checksum),
                    "committed": s.committed,
                })
            })
            .collect();
        object.insert("segments".into(), Value::Array(list));
    }
    object
}

//! `rvf status` and `rvf inspect`.

use super::failure::Failure;
use super::open;
use super::output::{Out, hex, note};
use rvf_cow::View;
use rvf_format::{DirEntry, FileIdentity, SegType};
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Also dimension, metric, deleted vectors, index coverage and health
    #[arg(long)]
    all: bool,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    /// Open the last committed snapshot even if the file ends inside a segment
    #[arg(long)]
    recover: bool,
}

pub(super) fn status(args: &StatusArgs, out: &mut Out) -> Result<(), Failure> {
    let store = open::reading(&args.path, args.recover)?;
    let view = store.view();
    let status = view.status();
    let ratio = status.dead_space_ratio;
    if let Err(missing) = view.complete() {
        note(&format!("warning: only its own rows are counted: {missing}"));
    }
    if args.json {
        let mut object = json!({
            "total_vectors": status.vectors,
            "total_segments": status.listed_segments,
            "file_size": status.file_size,
            "epoch": status.epoch,
            "profile_id": status.profile_id,
            "dead_space_ratio": ratio,
            "read_only": true,
        });
        if let (true, Value::Object(object)) = (args.all, &mut object) {
            object.insert("dimension".into(), json!(status.dimension));
            object.insert("metric".into(), json!(status.metric.name()));
            object.insert("inherited_vectors".into(), json!(view.inherited_count()));
            object.insert("deleted_vectors".into(), json!(status.deleted));
            object.insert("dead_bytes".into(), json!(status.dead_bytes));
            object.insert("indexed_vectors".into(), json!(status.index.indexed));
            object.insert("index_layer".into(), json!(status.index.layer));
            object.insert("dialect".into(), json!(status.dialect));
            object.insert("derivation".into(), json!(crate::status::derivation(&view)));
            object.insert("existing_tools".into(), json!(view.reference_opens().err()));
            object.insert("health".into(), json!(status.health));
        }
        return out.json(&object);
    }
    out.line(format_args!("RVF Store: {}", args.path.display()))?;
    out.pair("Vectors:", status.vectors)?;
    if view.is_child() {
        out.pair("Inherited:", view.inherited_count())?;
    }
    out.pair("Segments:", status.listed_segments)?;
    out.pair("File size:", format_args!("{} bytes", status.file_size))?;
    out.pair("Epoch:", status.epoch)?;
    out.pair("Profile:", status.profile_id)?;
    out.pair("Dead space:", format_args!("{:.1}%", ratio * 100.0))?;
    if args.all {
        out.pair("Dimension:", status.dimension)?;
        out.pair("Metric:", status.metric.name())?;
        out.pair("Deleted:", status.deleted)?;
        out.pair("Dead bytes:", status.dead_bytes)?;
        out.pair("Indexed:", format_args!("{} of {}", status.index.indexed, status.index.total))?;
        out.pair("Index layer:", status.index.layer)?;
        out.pair("Dialect:", status.dialect)?;
        out.pair("Derivation:", crate::status::derivation(&view))?;
        if let Err(why) = view.reference_opens() {
            out.pair("Existing tools:", format_args!("cannot open it: {why}"))?;
        }
        out.pair("Health:", &status.health)?;
    }
    Ok(())
}

#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    /// Open the last committed snapshot even if the file ends inside a segment
    #[arg(long)]
    recover: bool,
}

/// What the manifest lists; without one, every segment of the file.
fn directory(view: &View) -> Vec<DirEntry> {
    match &view.opened().manifest {
        Some(located) => located.manifest.directory.clone(),
        None => view
            .opened()
            .layout
            .segments()
            .map(|s| DirEntry {
                segment_id: s.header.segment_id.get(),
                offset: s.offset,
                payload_length: s.payload.end - s.payload.start,
                seg_type: s.header.seg_type,
            })
            .collect(),
    }
}

pub(super) fn inspect(args: &InspectArgs, out: &mut Out) -> Result<(), Failure> {
    let store = open::reading(&args.path, args.recover)?;
    let view = store.view();
    let segments = directory(&view);
    let identity: FileIdentity =
        view.opened().manifest.as_ref().and_then(|m| m.manifest.identity).unwrap_or_default();
    if args.json {
        let list: Vec<Value> = segments
            .iter()
            .map(|s| {
                json!({
                    "seg_id": s.segment_id,
                    "offset": s.offset,
                    "payload_length": s.payload_length,
                    "seg_type": s.seg_type,
                    "seg_type_name": SegType(s.seg_type).name(),
                })
            })
            .collect();
        let mut object = json!({
            "path": args.path.to_string_lossy(),
            "dimension": view.dimension(),
            "epoch": view.epoch(),
            "total_vectors": view.live(),
            "total_segments": segments.len(),
            "file_size": view.file_len(),
            "segments": list,
            "lineage": {
                "file_id": hex(&identity.file_id),
                "parent_id": hex(&identity.parent_id),
                "parent_hash": hex(&identity.parent_hash),
                "lineage_depth": identity.lineage_depth,
                "is_root": identity.is_root(),
            },
        });
        if let (Some(pin), Some(Value::Object(lineage))) = (view.derived(), object.get_mut("lineage")) {
            let mut derivation = serde_json::Map::new();
            crate::info::pin(&mut derivation, pin);
            lineage.insert("derivation".into(), derivation.into());
        }
        return out.json(&object);
    }
    out.line(format_args!("RVF Store: {}", args.path.display()))?;
    out.pair("Dimension:", view.dimension())?;
    out.pair("Epoch:", view.epoch())?;
    out.pair("Vectors:", view.live())?;
    out.pair("File size:", format_args!("{} bytes", view.file_len()))?;
    out.line("")?;
    out.line(format_args!("Segments ({}):", segments.len()))?;
    for s in &segments {
        out.line(format_args!(
            "  seg_id={:<4} type={:<10} offset={:<10} payload={} bytes",
            s.segment_id,
            SegType(s.seg_type).name(),
            s.offset,
            s.payload_length
        ))?;
    }
    out.line("")?;
    out.line("Lineage:")?;
    out.pair("File ID:", hex(&identity.file_id))?;
    out.pair("Parent ID:", hex(&identity.parent_id))?;
    out.pair("Lineage depth:", identity.lineage_depth)?;
    out.pair("Is root:", identity.is_root())?;
    match view.derived() {
        Some(_) => out.pair("Derivation:", crate::status::derivation(&view)),
        None => Ok(()),
    }
}

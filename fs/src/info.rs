//! `info.json` of a segment: what its payload says, decoded for its type.

use rvf_format::layout::{self, GapKind};
use rvf_format::{SegType, Segment, index_seg, journal, manifest, meta, vec_seg, witness};
use serde_json::{Map, Value, json};

use crate::snapshot::{Part, PartKind, Snap};
use crate::store_dir::StoreDir;

/// Ids, records or lines shown of a longer list.
const SHOWN: usize = 1000;

/// The text, indented, ending in a newline, with what the signatures of a program are worth. What cannot be decoded says why in
/// `"error"`.
#[must_use]
pub fn render(dir: &StoreDir, snap: &Snap, part: &Part, verdict: Option<&str>) -> Vec<u8> {
    let mut object = Map::new();
    object.insert("offset".into(), part.raw.start.into());
    object.insert("length".into(), (part.raw.end - part.raw.start).into());
    match &part.kind {
        PartKind::Gap => {
            object.insert("type".into(), "gap".into());
            gap(&mut object, snap, part);
        }
        PartKind::RootPage => {
            object.insert("type".into(), "rootpage".into());
            match rvf_format::root_page::RootPage::parse(snap.slice(&part.raw)) {
                Ok(page) => {
                    object.insert("version".into(), page.version.into());
                    object.insert("manifest_offset".into(), page.manifest_offset.into());
                    object.insert("manifest_length".into(), page.manifest_length.into());
                    object.insert("live_vectors".into(), page.live_vectors.into());
                    object.insert("epoch".into(), page.epoch.into());
                    object.insert("sig_algo".into(), page.sig_algo.into());
                    object.insert("signature_length".into(), page.signature.len().into());
                    object.insert("key_fingerprint".into(), hex(&page.key_fingerprint));
                    object.insert("crc_ok".into(), page.crc_ok.into());
                }
                Err(error) => {
                    object.insert("error".into(), error.to_string().into());
                }
            }
        }
        PartKind::Segment(segment) => {
            object.insert("type".into(), segment.kind().dir_name().into());
            object.insert("segment_id".into(), segment.header.id().into());
            object.insert("payload_length".into(), segment.header.payload_len().into());
            object.insert("checksum".into(), dir.checksum(snap, part).word().into());
            if crate::programs::is_program(part) {
                let shown = snap.programs().at(part.key);
                object.insert("name".into(), shown.map(|shown| shown.name.clone()).into());
                let digest = dir.content(snap, part).map(|content| hex(&content.digest));
                object.insert("payload_sha3_256".into(), digest.into());
                object.insert("signature".into(), verdict.into());
            }
            let payload = segment.payload_of(snap.view.bytes());
            if let Err(error) = decode(&mut object, snap, segment, payload) {
                object.insert("error".into(), error.into());
            }
        }
    }
    let mut out = serde_json::to_vec_pretty(&Value::Object(object)).unwrap_or_default();
    out.push(b'\n');
    out
}

fn gap(object: &mut Map<String, Value>, snap: &Snap, part: &Part) {
    match layout::gap_kind(snap.view.bytes(), &part.raw) {
        GapKind::Zeros => {
            object.insert("holds".into(), "zeros".into());
        }
        GapKind::Torn { declared } => {
            object.insert("holds".into(), "an interrupted write".into());
            object.insert("declared_payload_length".into(), declared.into());
        }
        GapKind::Garbage => {
            object.insert("holds".into(), "bytes that are no segment".into());
        }
    }
}

fn decode(
    object: &mut Map<String, Value>,
    snap: &Snap,
    segment: &Segment,
    payload: &[u8],
) -> Result<(), String> {
    match segment.kind() {
        SegType::VEC => vectors(object, snap, segment, payload),
        SegType::INDEX => index(object, payload),
        SegType::JOURNAL => deletions(object, payload),
        SegType::MANIFEST => manifest_info(object, payload),
        SegType::META => metadata(object, payload),
        SegType::WITNESS => {
            witnesses(object, payload);
            Ok(())
        }
        SegType::COW_MAP => {
            let map = rvf_format::cow_map::CowMap::parse(payload).map_err(|error| error.to_string())?;
            object.insert("parent_path".into(), map.parent_path.clone().into());
            object.insert("base_file_id".into(), hex(&map.base_file_id));
            object.insert("base_file_hash".into(), hex(&map.base_file_hash));
            object.insert("cluster_size".into(), map.cluster_size.into());
            object.insert("vectors_per_cluster".into(), map.vectors_per_cluster.into());
            object.insert("bytes_per_vector".into(), map.bytes_per_vector.into());
            object.insert("clusters".into(), map.clusters.len().into());
            object.insert("frozen".into(), map.frozen.into());
            object.insert("snapshot_epoch".into(), map.snapshot_epoch.into());
            Ok(())
        }
        SegType::MEMBERSHIP => {
            let membership =
                rvf_format::membership::Membership::parse(payload).map_err(|error| error.to_string())?;
            object.insert("mode".into(), format!("{:?}", membership.mode).to_lowercase().into());
            object.insert("capacity".into(), membership.capacity.into());
            object.insert("members".into(), membership.members.into());
            object.insert("generation".into(), membership.generation.into());
            Ok(())
        }
        SegType::META_IDX if rvf_format::pin::is_pin(segment, snap.view.bytes()) => {
            let record = rvf_format::pin::Pin::parse(payload).map_err(|error| error.to_string())?;
            object.insert("holds".into(), "what the file was derived from".into());
            pin(object, &record);
            Ok(())
        }
        _ => crate::programs::info(object, segment, payload),
    }
}

/// What a file says of its derivation.
pub(crate) fn pin(object: &mut Map<String, Value>, pin: &rvf_cow::Pin) {
    let source = |source: &rvf_cow::Source| {
        json!({
            "file_id": hex(&source.file_id),
            "epoch": source.epoch,
            "length": source.prefix,
            "digest": hex(&source.digest),
        })
    };
    object.insert("derivation".into(), pin.derivation.to_string().into());
    object.insert("record_version".into(), pin.version.into());
    object.insert("needs_parent".into(), (!pin.standalone).into());
    object.insert("name".into(), pin.name.clone().into());
    object.insert("created_ns".into(), pin.created_ns.into());
    object.insert("made_from".into(), source(&pin.parent));
    let parameters: Map<String, Value> =
        pin.parameters.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    object.insert("parameters".into(), parameters.into());
    object.insert("merged_with".into(), pin.others.iter().map(source).collect());
}

fn vectors(
    object: &mut Map<String, Value>,
    snap: &Snap,
    segment: &Segment,
    payload: &[u8],
) -> Result<(), String> {
    let contents = snap.view.contents();
    let Some(block) = contents.blocks.iter().find(|block| block.segment.offset == segment.offset) else {
        let (dim, count) = vec_seg::declared(payload).ok_or("shorter than a header")?;
        object.insert("dimension".into(), dim.into());
        object.insert("count".into(), count.into());
        object.insert("in_use".into(), false.into());
        return Ok(());
    };
    let columnar = matches!(block.rows, rvf_format::Rows::Columns(_) | rvf_format::Rows::Unread);
    let dtype = match vec_seg::decode_columnar(payload) {
        Ok(blocks) if columnar => blocks.first().map_or("f32", |block| vec_seg::dtype_name(block.dtype)),
        _ => "f32",
    };
    let ids = block.ids(snap.view.bytes());
    let (min, max) = ids.fold((None, None), |(min, max): (Option<u64>, Option<u64>), id| {
        (Some(min.map_or(id, |min| min.min(id))), Some(max.map_or(id, |max| max.max(id))))
    });
    object.insert("dimension".into(), block.dim.into());
    object.insert("count".into(), block.count.into());
    object.insert("dtype".into(), dtype.into());
    object.insert("layout".into(), if columnar { "columnar" } else { "rows" }.into());
    object.insert("min_id".into(), min.into());
    object.insert("max_id".into(), max.into());
    object.insert("in_use".into(), true.into());
    Ok(())
}

fn index(object: &mut Map<String, Value>, payload: &[u8]) -> Result<(), String> {
    let index = index_seg::decode(payload).map_err(|error| error.to_string())?;
    object.insert("m".into(), index.m.into());
    object.insert("m0".into(), index.m0.into());
    object.insert("ef_construction".into(), index.ef_construction.into());
    object.insert("layers".into(), index.max_layer.saturating_add(1).into());
    object.insert("nodes".into(), index.ids.len().into());
    object.insert(
        "entry_id".into(),
        index.entry.and_then(|entry| index.ids.get(entry as usize)).copied().into(),
    );
    object.insert("links".into(), index.adjacency.links.len().into());
    Ok(())
}

fn deletions(object: &mut Map<String, Value>, payload: &[u8]) -> Result<(), String> {
    let journal = journal::Journal::parse(payload).map_err(|error| error.to_string())?;
    object.insert("epoch".into(), journal.epoch.into());
    object.insert("entries".into(), journal.entries.len().into());
    object.insert("deleted".into(), journal.deleted().take(SHOWN).collect::<Vec<_>>().into());
    Ok(())
}

fn manifest_info(object: &mut Map<String, Value>, payload: &[u8]) -> Result<(), String> {
    if crate::programs::level0_info(object, payload).is_some() {
        return Ok(());
    }
    let manifest = manifest::Manifest::parse(payload).map_err(|error| error.to_string())?;
    object.insert("epoch".into(), manifest.epoch.into());
    object.insert("dimension".into(), manifest.dimension.into());
    object.insert("total_vectors".into(), manifest.total_vectors.into());
    object.insert("profile_id".into(), manifest.profile_id.into());
    object.insert("metric_code".into(), manifest.metric.into());
    let entries: Vec<Value> = manifest
        .directory
        .iter()
        .take(SHOWN * 10)
        .map(|entry| {
            json!({
                "segment_id": entry.segment_id, "offset": entry.offset,
                "payload_length": entry.payload_length, "type": SegType(entry.seg_type).dir_name(),
            })
        })
        .collect();
    object.insert("listed".into(), manifest.directory.len().into());
    object.insert("directory".into(), entries.into());
    object.insert("deleted_count".into(), manifest.deleted.len().into());
    object.insert("deleted".into(), manifest.deleted.iter().copied().take(SHOWN).collect::<Vec<_>>().into());
    if let Some(identity) = manifest.identity {
        object.insert("file_id".into(), hex(&identity.file_id));
        object.insert("parent_id".into(), hex(&identity.parent_id));
        object.insert("parent_hash".into(), hex(&identity.parent_hash));
        object.insert("lineage_depth".into(), identity.lineage_depth.into());
    }
    Ok(())
}

fn metadata(object: &mut Map<String, Value>, payload: &[u8]) -> Result<(), String> {
    let generation = meta::decode(payload).map_err(|error| error.to_string())?;
    object.insert("full".into(), generation.full.into());
    object.insert("generation".into(), generation.number.into());
    object.insert("base_generation".into(), generation.base.into());
    object.insert("records".into(), generation.records.len().into());
    object.insert("file_entries".into(), generation.file.len().into());
    let schema: Vec<Value> = generation
        .schema
        .iter()
        .take(SHOWN)
        .map(|field| json!({"id": field.id, "type": field.kind, "nullable": field.nullable, "name": field.name}))
        .collect();
    object.insert("schema".into(), schema.into());
    Ok(())
}

fn witnesses(object: &mut Map<String, Value>, payload: &[u8]) {
    match witness::decode(payload) {
        witness::Payload::Chain(entries) => {
            object.insert("kind".into(), "chain".into());
            object.insert("count".into(), entries.len().into());
            let list: Vec<Value> = entries
                .iter()
                .take(SHOWN)
                .map(|entry| {
                    json!({
                        "type": entry.kind_name(), "type_code": entry.kind, "timestamp_ns": entry.timestamp_ns,
                        "action_hash": hex(&entry.action_hash), "prev_hash": hex(&entry.prev_hash),
                    })
                })
                .collect();
            object.insert("entries".into(), list.into());
        }
        witness::Payload::Attestation(records) => {
            object.insert("kind".into(), "attestation".into());
            object.insert("count".into(), records.len().into());
        }
        witness::Payload::Legacy { action, .. } => {
            object.insert("kind".into(), "legacy".into());
            object.insert("action".into(), String::from_utf8_lossy(&action).into_owned().into());
        }
        witness::Payload::Unrecognized => {
            object.insert("kind".into(), "unrecognized".into());
        }
    }
}

/// Lower-case hexadecimal as a JSON string.
#[must_use]
pub fn hex(bytes: &[u8]) -> Value {
    let mut out = String::new();
    crate::json::hex(&mut out, bytes);
    out.into()
}

//! Codecs: the display-only ones against the golden descriptions, and payloads that encode to the same bytes again.

mod common;

use common::{Store, golden, hex, json};
use rvf_format::index_seg::{self, Adjacency, Coding};
use rvf_format::quant::{Quant, Quantiser};
use rvf_format::{
    Manifest, SegType, hot::Hot, journal::Journal, level0, meta, sketch::Sketch, vec_seg, witness,
};
use rvf_format::{cow_map::CowMap, membership::Membership};
use serde_json::{Value, json as j};

fn wire_segment(store: &Store, ordinal: usize) -> (&[u8], Value) {
    let expected = json(&golden("core/wire_segments.rvf.json"));
    let segment = store.opened.layout.segments().nth(ordinal).expect("segment");
    let offset = segment.offset;
    let codec = expected["codecs"]
        .as_array()
        .expect("codecs")
        .iter()
        .find(|codec| codec["offset"] == j!(offset))
        .expect("description")["codec"]
        .clone();
    (segment.payload_of(&store.bytes), codec)
}

fn wire() -> Store {
    Store::read(&golden("core/wire_segments.rvf"))
}

fn lists(adjacency: &Adjacency) -> Value {
    let nodes: Vec<Vec<&[u32]>> = (0..adjacency.nodes())
        .map(|node| (0..adjacency.layers(node)).map(|layer| adjacency.neighbours(node, layer)).collect())
        .collect();
    j!(nodes)
}

#[test]
fn columnar_vectors() {
    let store = wire();
    let (payload, wanted) = wire_segment(&store, 0);
    let blocks = vec_seg::decode_columnar(payload).expect("columnar");
    let ours: Vec<Value> = blocks
        .iter()
        .map(|b| j!({"data_hex": hex(&b.data), "dim": b.dim, "dtype": b.dtype, "ids": b.ids, "tier": b.tier}))
        .collect();
    assert_eq!(j!(ours).to_string(), wanted["blocks"].to_string());
    assert!(blocks.iter().all(|block| block.crc_ok));
    // Three rows of four int8 each, stored by component: row 0 is 0x00, 0x33, 0x66, 0x99.
    let rows = blocks[1].to_rows().expect("numbers");
    assert_eq!(rows[..8], 5u64.to_le_bytes());
    let first: Vec<f32> =
        rows[8..24].chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().expect("4"))).collect();
    assert_eq!(first, [0.0, 51.0, 102.0, -103.0]);
}

#[test]
fn index_frames_of_both_codings() {
    let store = wire();
    let (payload, wanted) = wire_segment(&store, 1);
    let frame = index_seg::decode_frame(payload, Coding::Deltas).expect("rvf-wire");
    assert_eq!(lists(&frame.adjacency).to_string(), wanted["adjacency"].to_string());
    assert_eq!((frame.m, frame.ef_construction, frame.layer_level), (16, 200, 1));
    assert_eq!(j!(frame.restart_offsets).to_string(), wanted["restart_offsets"].to_string());

    let (payload, wanted) = wire_segment(&store, 2);
    let frame = index_seg::decode_frame(payload, Coding::Restarts).expect("rvf-index");
    assert_eq!(lists(&frame.adjacency).to_string(), wanted["adjacency"].to_string());
    let misread = index_seg::decode_frame(payload, Coding::Deltas).expect("no error, which is the trap");
    assert_eq!(lists(&misread.adjacency)[0], wanted["rvf_wire_reader_node0"]);
    assert!(index_seg::decode(payload).is_err(), "there is no trailer");
}

#[test]
fn hot_quant_and_sketch() {
    let store = wire();
    let (payload, wanted) = wire_segment(&store, 3);
    let hot = Hot::parse(payload).expect("hot");
    let entries: Vec<Value> = hot
        .entries
        .iter()
        .map(|e| j!({"data_hex": hex(&e.data), "id": e.id, "neighbors": e.neighbours}))
        .collect();
    assert_eq!(j!(entries).to_string(), wanted["entries"].to_string());
    assert_eq!((hot.dim, hot.dtype, hot.neighbour_m), (3, 1, 4));
    assert_eq!(hot.encode(), payload, "byte for byte as the reference's codec writes it");

    let floats = |list: &Value| -> Vec<f32> {
        match list {
            Value::Array(list) => list.iter().map(|x| x.as_f64().expect("number") as f32).collect(),
            _ => panic!("not a list"),
        }
    };
    let (payload, wanted) = wire_segment(&store, 4);
    let Quantiser::Scalar { min, max } = Quant::parse(payload).expect("scalar").quantiser else {
        panic!("scalar")
    };
    assert_eq!((min, max), (floats(&wanted["min"]), floats(&wanted["max"])));

    let (payload, wanted) = wire_segment(&store, 5);
    let Quantiser::Product { m, k, sub_dim, codebooks } = Quant::parse(payload).expect("product").quantiser
    else {
        panic!("product")
    };
    assert_eq!((m, k, sub_dim), (3, 4, 2));
    let flat: Vec<f32> = wanted["codebooks"]
        .as_array()
        .expect("books")
        .iter()
        .flat_map(|book| book.as_array().expect("book").iter().flat_map(floats).collect::<Vec<_>>())
        .collect();
    assert_eq!(codebooks, flat);

    let (payload, wanted) = wire_segment(&store, 6);
    let quant = Quant::parse(payload).expect("rabitq");
    let Quantiser::RabitQ { rounds, seed, padded_dim, centroid } = quant.quantiser else { panic!("rabitq") };
    assert_eq!((rounds, seed, padded_dim, quant.dim), (3, 1234, 8, 6));
    assert_eq!(centroid, floats(&wanted["centroid"]));

    let (payload, _) = wire_segment(&store, 7);
    assert_eq!(Quant::parse(payload).expect("binary").quantiser, Quantiser::Binary);

    let (payload, wanted) = wire_segment(&store, 8);
    let sketch = Sketch::parse(payload).expect("sketch");
    assert_eq!(j!(sketch.total_accesses), wanted["total_accesses"]);
    let rows: Vec<String> = sketch.counters.chunks(sketch.width as usize).map(hex).collect();
    assert_eq!(j!(rows).to_string(), wanted["rows_hex"].to_string());
    assert_eq!(j!(sketch.estimate(0)), wanted["estimate_of_0"]);
    assert_eq!(sketch.encode(), payload, "byte for byte as the reference's codec writes it");
}

#[test]
fn level_zero_pages_are_shown() {
    let store = Store::read(&golden("core/level0_tlv.rvf"));
    let wanted = json(&golden("core/level0_tlv.rvf.json"))["codecs"].clone();
    let segment = store.opened.layout.segments().next().expect("segment");
    let payload = segment.payload_of(&store.bytes);
    assert!(level0::looks_like(payload));
    let (page, records) = level0::decode(payload).expect("page");
    assert!(page.crc_ok);
    assert_eq!(j!(page.epoch), wanted["epoch"]);
    assert_eq!(j!(page.l1_length), wanted["l1_length"]);
    let entry = page.hotset[0];
    assert_eq!(j!([entry.segment_offset, entry.block_offset, entry.count]), wanted["entrypoint"]);
    let cache = page.hotset[4];
    assert_eq!(j!([cache.segment_offset, cache.block_offset, cache.count]), wanted["hot_cache"]);
    let [
        level0::Record::SegmentDir(lines),
        level0::Record::OverlayChain { epoch, prev_manifest_offset, prev_manifest_id, .. },
    ] = &records[..]
    else {
        panic!("{records:?}")
    };
    let chain = &wanted["overlay_chain"];
    assert_eq!(
        j!([epoch, prev_manifest_offset, prev_manifest_id]),
        j!([chain["epoch"], chain["prev_manifest_offset"], chain["prev_manifest_id"]])
    );
    let ours: Vec<Value> = lines
        .iter()
        .map(|l| {
            j!({
                "block_count": l.block_count, "content_hash": hex(&l.content_hash), "file_offset": l.file_offset,
                "flags": l.flags, "payload_length": l.payload_length, "seg_type": l.seg_type,
                "segment_id": l.segment_id, "tier": l.tier,
            })
        })
        .collect();
    assert_eq!(j!(ours).to_string(), wanted["entries"].to_string());
}

/// VEC, META, MANIFEST, INDEX, WITNESS, JOURNAL, COW_MAP and MEMBERSHIP payloads of undamaged files.
#[test]
fn payloads_encode_to_the_same_bytes_again() {
    let mut counts = std::collections::BTreeMap::new();
    let files = common::data_files(&golden("core")).into_iter().chain(common::data_files(&golden("branch")));
    for path in files {
        let name = path.file_name().expect("name").to_str().expect("UTF-8");
        let plain = matches!(
            path.extension().and_then(|ext| ext.to_str()),
            Some("rvf" | "rvdna" | "rvtext" | "rvgraph" | "rvvis")
        );
        if !plain || name.starts_with("dmg_") || ["level0_tlv.rvf", "wire_segments.rvf"].contains(&name) {
            continue;
        }
        let store = Store::read(&path);
        for segment in store.opened.layout.segments() {
            let payload = segment.payload_of(&store.bytes);
            if !segment.verify(&store.bytes).usable() {
                continue;
            }
            let again = match segment.kind() {
                SegType::MANIFEST => Manifest::parse(payload).expect("manifest").encode().expect("manifest"),
                SegType::VEC if vec_seg::looks_columnar(payload) => continue,
                SegType::VEC => {
                    let (dim, count) = vec_seg::declared(payload).expect("rows");
                    let rows = payload[6..].chunks_exact(vec_seg::row_stride(dim));
                    let ids: Vec<u64> =
                        rows.clone().map(|row| u64::from_le_bytes(row[..8].try_into().expect("8"))).collect();
                    let vectors: Vec<f32> = rows
                        .flat_map(|row| row[8..].chunks_exact(4))
                        .map(|c| f32::from_le_bytes(c.try_into().expect("4")))
                        .collect();
                    assert_eq!(ids.len(), count as usize);
                    vec_seg::encode(dim, &ids, &vectors).expect("rows")
                }
                SegType::META => {
                    meta::encode_generation(&meta::decode(payload).expect("meta")).expect("meta")
                }
                SegType::INDEX => {
                    index_seg::encode(&index_seg::decode(payload).expect("index")).expect("index")
                }
                SegType::JOURNAL => Journal::parse(payload).expect("journal").encode().expect("journal"),
                SegType::WITNESS => match witness::decode(payload) {
                    witness::Payload::Chain(entries) => witness::encode_chain(&entries),
                    _ => continue,
                },
                SegType::COW_MAP => match CowMap::parse(payload) {
                    Ok(map) => map.encode().expect("map"),
                    Err(_) => continue,
                },
                // The CLI's filter writes whole bytes where everybody else writes whole words.
                SegType::MEMBERSHIP if segment.header.content_hash == [0; 16] => continue,
                SegType::MEMBERSHIP => match Membership::parse(payload) {
                    Ok(filter) => filter.encode().expect("filter"),
                    Err(_) => continue,
                },
                _ => continue,
            };
            assert!(
                again == payload,
                "{} at {}: {} differs",
                path.display(),
                segment.offset,
                segment.kind().name()
            );
            *counts.entry(segment.kind().name()).or_insert(0) += 1;
        }
    }
    for (kind, least) in [
        ("Manifest", 150),
        ("Vec", 60),
        ("Meta", 40),
        ("Index", 1),
        ("Journal", 10),
        ("Witness", 100),
        ("CowMap", 30),
    ] {
        assert!(counts.get(kind).is_some_and(|count| *count >= least), "{kind}: {counts:?}");
    }
}

/// Snapshots and deltas made from states, byte for byte those of the reference.
#[test]
fn metadata_states_encode_as_the_reference_encodes_them() {
    for name in ["meta_types.rvf", "compacted_meta.rvf", "crafted_wire.rvf", "deleted.rvf"] {
        let store = Store::read(&golden("core").join(name));
        let mut state = meta::MetaState::default();
        for segment in &store.contents.meta_entries {
            let payload = segment.payload_of(&store.bytes);
            let old = state.clone();
            state.apply(meta::decode(payload).expect("generation"));
            let again = if old.generation == 0 {
                meta::encode_snapshot(&state, state.generation)
            } else {
                meta::encode_delta(&old, &state)
            };
            assert!(again.expect("encodes") == payload, "{name}: generation {}", state.generation);
        }
    }
    // The chain that crosses the re-snapshot interval: a snapshot comes after 32 deltas.
    let store = Store::read(&golden("core/meta_chain.rvf"));
    let mut state = meta::MetaState::default();
    for segment in &store.contents.meta_entries {
        let generation = meta::decode(segment.payload_of(&store.bytes)).expect("generation");
        assert_eq!(generation.full, state.wants_snapshot(), "generation {}", generation.number);
        let old = state.clone();
        state.apply(generation);
        let again = if old.wants_snapshot() {
            meta::encode_snapshot(&state, state.generation)
        } else {
            meta::encode_delta(&old, &state)
        };
        assert!(
            again.expect("encodes") == segment.payload_of(&store.bytes),
            "generation {}",
            state.generation
        );
    }
    assert_eq!(state.generation, 36);
}

#[test]
fn metadata_that_cannot_be_stored_is_refused_by_name() {
    use meta::Value as V;
    let mut state = meta::MetaState::default();
    state.records.entry(1).or_default().insert(7, V::U64(1));
    state.records.entry(2).or_default().insert(7, V::String("x".into()));
    let error = meta::encode_snapshot(&state, 1).expect_err("two types");
    assert_eq!(error.family(), rvf_format::Family::Caller);
    assert_eq!(
        error.to_string(),
        "field 7 of vector 2 is string, but other values of the field are u64; a field has one type"
    );
    let error = meta::encode_delta(&meta::MetaState::default(), &state).expect_err("two types");
    assert!(error.to_string().starts_with("field 7 of vector 2"), "{error}");

    let mut state = meta::MetaState::default();
    state.file.insert("k".into(), V::F64(f64::NAN));
    assert!(meta::encode_snapshot(&state, 1).expect_err("NaN").to_string().contains("finite"));
    state.file.insert("k".into(), V::String("x".repeat((16 << 20) + 1)));
    assert!(meta::encode_snapshot(&state, 1).expect_err("size").to_string().contains("16 MiB"));
}

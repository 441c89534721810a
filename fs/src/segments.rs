//! The `header` file of a segment.

use std::fmt::Write as _;

use rvf_format::header::flags;

use crate::json;
use crate::snapshot::{Part, PartKind, Snap};
use crate::store_dir::StoreDir;

/// Header fields, offset, flags and the checksum's verdict, a `key: value` a line. O(payload) the first time.
#[must_use]
pub fn header_text(dir: &StoreDir, snap: &Snap, part: &Part) -> String {
    let mut out = String::with_capacity(512);
    let raw_len = part.raw.end - part.raw.start;
    let segment = match &part.kind {
        PartKind::Segment(segment) => segment,
        PartKind::Gap => {
            let _ = writeln!(out, "type: gap\noffset: {}\nlength: {raw_len}", part.raw.start);
            return out;
        }
        PartKind::RootPage => {
            let _ = writeln!(out, "type: root page\noffset: {}\nlength: {raw_len}", part.raw.start);
            return out;
        }
    };
    let header = &segment.header;
    let names = flags::names(header.flags.get());
    let mut hash = String::new();
    json::hex(&mut hash, &header.content_hash);
    let listed = snap.view.opened().manifest.as_ref().is_some_and(|located| {
        located.segment.offset == segment.offset
            || located.manifest.directory.iter().any(|entry| entry.offset == segment.offset)
    });
    let lines: [(&str, String); 19] = [
        ("type", segment.kind().dir_name()),
        ("type_code", format!("{:#04x}", header.seg_type)),
        ("type_name", segment.kind().name().to_owned()),
        ("offset", segment.offset.to_string()),
        ("segment_id", header.id().to_string()),
        ("version", header.version.to_string()),
        ("flags", format!("{:#06x}", header.flags.get())),
        ("flag_names", if names.is_empty() { "none".into() } else { names.join(" ") }),
        ("payload_offset", segment.payload.start.to_string()),
        ("payload_length", header.payload_len().to_string()),
        ("raw_length", raw_len.to_string()),
        ("alignment_pad", header.alignment_pad.get().to_string()),
        ("timestamp_ns", header.timestamp_ns.get().to_string()),
        ("checksum_algo", format!("{} ({})", header.checksum_algo, algorithm(header.checksum_algo))),
        ("content_hash", hash),
        ("checksum", dir.checksum(snap, part).word().to_owned()),
        ("compression", header.compression.to_string()),
        ("uncompressed_len", header.uncompressed_len.get().to_string()),
        ("listed", if listed { "yes".into() } else { "no".into() }),
    ];
    for (key, value) in lines {
        let _ = writeln!(out, "{key}: {value}");
    }
    out
}

/// What the checksum algorithm number means.
fn algorithm(number: u8) -> &'static str {
    match number {
        0 => "legacy CRC-32 rotation or XXH3-128",
        1 => "XXH3-128",
        2 => "SHAKE-256-128",
        3 => "HMAC-SHAKE-256",
        _ => "unknown",
    }
}

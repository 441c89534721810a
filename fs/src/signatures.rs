//! `signatures/`: a file for each signature record, with what it covers and what it is worth to who runs the mount.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rvf_cow::{FoundSignature, Judge, View, now_ns};
use rvf_crypto::{Scope, Signature, TrustStore, Verdict, signature};
use rvf_format::SegType;

use crate::data::error::printable;
use crate::json;
use crate::snapshot::{Part, Snap};
use crate::store_dir::StoreDir;

/// What was signed is hashed on a read up to this size, for all signatures of a file together; beyond it only `rvf verify`
/// does, so that a walk over the tree stays quick, whatever somebody put into the file.
const HASHED_BYTES: u64 = 64 << 20;

/// A verdict is kept for as long: a stat and the read after it agree, and a key that was taken away counts no more soon after.
pub(crate) const FRESH: Duration = Duration::from_secs(2);

/// The texts of one state of a store, by the offset of the record.
#[derive(Debug, Default)]
pub(crate) struct Texts(Mutex<Option<(Instant, Arc<Vec<(u64, Arc<[u8]>)>>)>>);

/// The parts of the file that are signature records.
pub fn parts(snap: &Snap) -> impl Iterator<Item = &Part> {
    let bytes: &[u8] = snap.view.bytes();
    let all = snap.of_types(&[SegType::CRYPTO]);
    all.filter(|part| part.segment().is_some_and(|s| s.payload_of(bytes).starts_with(signature::MAGIC)))
}

/// The name of a record in `signatures/`: place in the file, and algorithm.
#[must_use]
pub fn name(snap: &Snap, part: &Part) -> String {
    let payload = part.segment().map_or(&[][..], |segment| segment.payload_of(snap.view.bytes()));
    let algorithm = Signature::decode(payload).map_or("damaged", |record| record.algorithm.name());
    format!("{:06}-{algorithm}", u64::from(part.key.entry) + 1)
}

/// The text of one record.
#[must_use]
pub fn text(snap: &Snap, part: &Part) -> Arc<[u8]> {
    let offset = part.raw.start;
    let texts = {
        let mut kept = snap.signatures.0.lock();
        match kept.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            Some((_, texts)) => texts.clone(),
            None => {
                let texts = Arc::new(all(&snap.view));
                *kept = Some((Instant::now(), texts.clone()));
                texts
            }
        }
    };
    // They are in file order.
    let found = texts.binary_search_by_key(&offset, |(at, _)| *at).ok().and_then(|at| texts.get(at));
    found.map_or_else(|| Arc::from([]), |(_, text)| text.clone())
}

/// Signatures of one program that are looked at.
const LOOKED_AT: usize = 64;

/// What the signatures over a program are worth to who runs the mount: `valid (NAME)`, `untrusted`, `INVALID (why)`, or
/// `unsigned`. Hashes the program once, and only when some signature may speak of it.
#[must_use]
pub fn of_program(dir: &StoreDir, snap: &Snap, part: &Part) -> String {
    let Some(segment) = part.segment() else { return "unsigned".into() };
    let kind = segment.header.seg_type;
    let length = segment.payload.end - segment.payload.start;
    let mut records: Vec<Signature> = Vec::new();
    for record in snap.view.signatures().into_iter().filter_map(|found| found.record.ok()) {
        let statement = &record.statement;
        let may = statement.scope.kind() == Some(kind) && statement.content.length == length;
        if may && records.len() < LOOKED_AT && !records.contains(&record) {
            records.push(record);
        }
    }
    let content = if records.is_empty() { None } else { dir.content(snap, part) };
    let Some(content) = content else { return "unsigned".into() };
    let trust = TrustStore::load(&TrustStore::directories(), crate::sys::ids().0);
    match trust.judge_segment(&records, kind, &content, snap.view.file_id(), now_ns()) {
        Some(Verdict::Valid { by }) => format!("valid ({})", printable(&by, 255)),
        Some(Verdict::Invalid { reason }) => format!("INVALID ({reason})"),
        Some(verdict) => verdict.word().into(),
        None => "unsigned".into(),
    }
}

fn all(view: &View) -> Vec<(u64, Arc<[u8]>)> {
    let trust = TrustStore::load(&TrustStore::directories(), crate::sys::ids().0);
    let now = now_ns();
    let mut judge = Judge::new(view, &trust, now, HASHED_BYTES);
    let render =
        |found: FoundSignature| (found.offset, render(&found, &trust, &mut judge).into_bytes().into());
    view.signatures().into_iter().map(render).collect()
}

fn render(found: &FoundSignature, trust: &TrustStore, judge: &mut Judge<'_>) -> String {
    let mut out = String::new();
    let record = match &found.record {
        Ok(record) => record,
        Err(error) => {
            let _ = writeln!(out, "verdict: INVALID\nreason: {error}");
            return out;
        }
    };
    let statement = &record.statement;
    let known = trust.find(record.key).map(|trusted| trusted.name.as_str());
    let (verdict, covered) = judge.judge(record);
    let _ = writeln!(out, "algorithm: {}", record.algorithm);
    let _ = writeln!(out, "key_id: {}", record.key);
    if let Some(known) = known {
        let _ = writeln!(out, "key_name: {}", printable(known, 255));
    }
    match statement.scope {
        Scope::Prefix { .. } => {
            let _ = writeln!(out, "covers: bytes 0 to {} of the file", statement.content.length);
        }
        Scope::Segment { kind } | Scope::SegmentOf { kind, .. } => {
            let kind = SegType(kind).dir_name();
            let at = covered.map_or(statement.offset, |range| range.start);
            let _ = writeln!(out, "covers: {} bytes of {kind}, at offset {at}", statement.content.length);
        }
    }
    let scope = if statement.scope.file_id().is_some() { "this file only" } else { "any file" };
    let _ = writeln!(out, "counts_in: {scope}");
    out.push_str("sha3_256: ");
    json::hex(&mut out, &statement.content.digest);
    let _ = write!(out, "\nsigned_ns: {}\nvalid_until_ns: {}\n", statement.signed_ns, statement.until_ns);
    if !statement.comment.is_empty() {
        let _ = writeln!(out, "comment: {}", printable(&statement.comment, 1000));
    }
    match verdict {
        Some(Verdict::Invalid { reason }) => {
            let _ = writeln!(out, "verdict: INVALID\nreason: {reason}");
        }
        Some(verdict) => {
            let _ = writeln!(out, "verdict: {}", verdict.word());
        }
        None => {
            let _ = writeln!(
                out,
                "verdict: unchecked\nreason: more was signed in this file than a read looks at; rvf verify looks at all of it"
            );
        }
    }
    out
}

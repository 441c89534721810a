//! `rvf keygen`, `rvf sign`, `rvf verify`: keys, signatures, and what they are worth.

use super::failure::{DAMAGED, Failure};
use super::open::{self, Waiting};
use super::output::{Out, hex, note};
use crate::sys;
use clap::ValueEnum;
use rvf_cow::{Judge, SignOptions, Target, View, now_ns};
use rvf_crypto::{Algorithm, Scope, SecretKey, Signature, TrustStore, Verdict};
use rvf_format::{SegType, Segment};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// RFC 8032; small and fast
    Ed25519,
    /// FIPS 204, post-quantum; signatures of 3,309 bytes
    #[value(name = "ml-dsa-65")]
    MlDsa65,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Writes KEY (secret, mode 600, not encrypted) and KEY.pub (public). Whoever should trust the key puts KEY.pub into
~/.config/rvf/trust/, or for every user of a machine into /etc/rvf/trust/. Both are PEM (PKCS#8, SubjectPublicKeyInfo).")]
pub(super) struct KeygenArgs {
    /// Path of the secret key to make; neither it nor KEY.pub may exist
    key: PathBuf,
    /// How it signs
    #[arg(short, long, value_enum, default_value = "ed25519")]
    algorithm: Kind,
    /// Output as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn keygen(args: &KeygenArgs, out: &mut Out) -> Result<(), Failure> {
    let algorithm = match args.algorithm {
        Kind::Ed25519 => Algorithm::Ed25519,
        Kind::MlDsa65 => Algorithm::MlDsa65,
    };
    let key = SecretKey::generate(algorithm).map_err(|e| Failure::new(e.to_string()))?;
    let pem = |e: rvf_crypto::KeyError| Failure::new(e.to_string());
    let public_path = args.key.with_added_extension("pub");
    write_new(&public_path, 0o644, key.public().to_pem().map_err(pem)?.as_bytes())?;
    if let Err(failure) = write_new(&args.key, 0o600, key.to_pem().map_err(pem)?.as_bytes()) {
        // A public key without its secret half would be trusted for nothing.
        let _ = fs::remove_file(&public_path);
        return Err(failure);
    }
    let id = key.public().id();
    if args.json {
        return out.json(&json!({
            "algorithm": algorithm.name(),
            "key_id": id.to_string(),
            "secret_key": args.key.to_string_lossy(),
            "public_key": public_path.to_string_lossy(),
        }));
    }
    out.line("Key pair made:")?;
    out.pair("Algorithm:", algorithm)?;
    out.pair("Key id:", id)?;
    out.pair("Secret key:", args.key.display())?;
    out.pair("Public key:", public_path.display())
}

/// Writes a file that must not exist; it is whole and on disk, or not there.
fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Failure> {
    let fail = |e: std::io::Error| Failure::file(path, &e);
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path).map_err(fail)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| {
        let _ = fs::remove_file(path);
        fail(e)
    })
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --segment the file is signed as it is now, up to its manifest; later commits are not covered, and compaction ends
such a signature. With --segment the payloads of those segments are signed; such a signature stays true through commits and
compactions, and without --bound also in other files with the same payload.")]
pub(super) struct SignArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Secret key, as made by rvf keygen
    #[arg(short, long, value_name = "FILE")]
    key: PathBuf,
    /// Sign this segment: its number in segments/, or a type such as kernel for all listed ones of it
    #[arg(short, long, value_name = "NUMBER|TYPE")]
    segment: Vec<String>,
    /// Let the signatures of segments count in this file only
    #[arg(long, requires = "segment")]
    bound: bool,
    /// Days after which the signature is not to be relied on
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    valid_days: Option<u32>,
    /// Text to sign along, up to 255 bytes
    #[arg(long, default_value = "")]
    comment: String,
    /// Output as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn sign(args: &SignArgs, out: &mut Out) -> Result<(), Failure> {
    if args.comment.len() > rvf_crypto::signature::MAX_COMMENT {
        return Err(Failure::new(format!("--comment has {} bytes, 255 are the most", args.comment.len())));
    }
    let key = SecretKey::load(&args.key).map_err(|e| Failure::new(e.to_string()))?;
    let store = open::appending(&args.path, &args.waiting)?;
    let target = match args.segment.is_empty() {
        true => Target::File,
        false => Target::Segments(segments(&store.view(), &args.segment)?),
    };
    let until_ns = args.valid_days.map_or(0, |days| {
        let span = Duration::from_secs(u64::from(days) * 86_400).as_nanos() as u64;
        now_ns().saturating_add(span)
    });
    let options = SignOptions { bound: args.bound, until_ns, comment: args.comment.clone() };
    let records = store.sign(&key, &target, &options)?;
    if args.json {
        let records: Vec<Value> = records.iter().map(|r| Value::Object(fields(r))).collect();
        return out.json(&json!({ "signatures": records, "epoch": store.view().epoch() }));
    }
    out.line(format!("Signed with {} key {}:", key.algorithm(), key.public().id()))?;
    for record in &records {
        let statement = &record.statement;
        out.pair("Covers:", covers(&store.view(), record, Some(statement.offset..statement.offset)))?;
    }
    out.pair("Epoch:", store.view().epoch())
}

/// The segments that the words name, by the offsets of their headers.
fn segments(view: &View, words: &[String]) -> Result<Vec<u64>, Failure> {
    let mut offsets = Vec::new();
    for word in words {
        let named = view.segments_named(word);
        if named.is_empty() {
            return Err(Failure::new(format!(
                "'{word}' is no segment of this file: give a number as in segments/ (rvf inspect lists them), or a type \
                 that it has, such as kernel"
            )));
        }
        offsets.extend(named);
    }
    offsets.sort_unstable();
    offsets.dedup();
    Ok(offsets)
}

/// Whether later commits have put something else in the place of a segment. Manifests, journals and witnesses are read without being
/// listed.
fn superseded(view: &View, segment: &Segment) -> bool {
    let unlisted = [SegType::MANIFEST, SegType::JOURNAL, SegType::WITNESS, SegType::CRYPTO];
    let Some(located) = &view.opened().manifest else { return false };
    !unlisted.contains(&segment.kind())
        && !located.manifest.directory.iter().any(|entry| entry.offset == segment.offset)
}

/// What a signature is about, in words.
fn covers(view: &View, record: &Signature, found: Option<Range<u64>>) -> String {
    let statement = &record.statement;
    match statement.scope {
        Scope::Prefix { .. } => {
            let later = view.opened().layout.segments().filter(|s| s.kind() == SegType::MANIFEST);
            let later = later.filter(|s| s.offset >= statement.content.length).count();
            // The commit that holds the signature is one of them.
            let inherited = if view.is_child() { "; not what it inherits from its parent" } else { "" };
            format!("the file's first {} bytes; {later} later commit(s){inherited}", statement.content.length)
        }
        Scope::Segment { kind } | Scope::SegmentOf { kind, .. } => {
            let name = SegType(kind).dir_name();
            let at = found.map(|range| range.start).and_then(|at| {
                view.opened().layout.segments().find(|s| s.offset == at || s.payload.start == at)
            });
            match at {
                Some(segment) if superseded(view, segment) => {
                    format!("the {name} segment at offset {}, which does not count any more", segment.offset)
                }
                Some(segment) => format!("the {name} segment at offset {}", segment.offset),
                None => format!("a {name} segment of {} bytes", statement.content.length),
            }
        }
    }
}

/// A signature's fields, for JSON.
fn fields(record: &Signature) -> serde_json::Map<String, Value> {
    let statement = &record.statement;
    let mut map = serde_json::Map::new();
    let mut set = |key: &str, value: Value| map.insert(key.to_owned(), value);
    set("algorithm", record.algorithm.name().into());
    set("key_id", record.key.to_string().into());
    set("scope", statement.scope.name().into());
    if let Some(kind) = statement.scope.kind() {
        set("segment_type", SegType(kind).dir_name().into());
        set("segment_offset", statement.offset.into());
    }
    set("length", statement.content.length.into());
    set("sha3_256", hex(&statement.content.digest).into());
    set("signed_ns", statement.signed_ns.into());
    set("valid_until_ns", statement.until_ns.into());
    set("comment", statement.comment.clone().into());
    map
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
valid: by a trusted key, about exactly these bytes, in force. untrusted: the key is in no trust directory, so nothing is
known. INVALID: forged, altered, expired, or about bytes that the file does not hold.
Exit status: 0 at least one valid and none INVALID, 1 no valid one, 3 an INVALID one.")]
pub(super) struct VerifyArgs {
    /// Path to the RVF store
    path: PathBuf,
    /// Directory of trusted public keys, in place of ~/.config/rvf/trust and /etc/rvf/trust
    #[arg(long, value_name = "DIR")]
    trust: Vec<PathBuf>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &VerifyArgs, out: &mut Out) -> Result<(), Failure> {
    let store = open::glancing(&args.path, true)?;
    let view = store.view();
    let trust = trust_store(&args.trust)?;
    let now = now_ns();
    let mut rows = Vec::new();
    let mut verdicts = Vec::new();
    let mut judge = Judge::new(&view, &trust, now, u64::MAX);
    for found in view.signatures() {
        let (verdict, text, mut map) = match &found.record {
            Ok(record) => {
                let (verdict, range) = judge.judge(record);
                let verdict = verdict.unwrap_or(Verdict::Invalid { reason: "too much was signed" });
                let text =
                    format!("{} key {}: {}", record.algorithm, record.key, covers(&view, record, range));
                (verdict, text, fields(record))
            }
            Err(e) => {
                (Verdict::Invalid { reason: "the record is damaged" }, e.to_string(), serde_json::Map::new())
            }
        };
        let detail = match &verdict {
            Verdict::Valid { by } => format!("valid ({by})"),
            Verdict::Invalid { reason } => format!("INVALID ({reason})"),
            other => other.word().to_owned(),
        };
        map.insert("offset".into(), found.offset.into());
        map.insert("verdict".into(), verdict.word().into());
        match &verdict {
            Verdict::Valid { by } => map.insert("trusted_as".into(), by.clone().into()),
            Verdict::Invalid { reason } => map.insert("reason".into(), (*reason).into()),
            _ => None,
        };
        rows.push((detail, text, Value::Object(map)));
        verdicts.push(verdict);
    }
    view.check_intact()?;
    let invalid = verdicts.iter().filter(|v| matches!(v, Verdict::Invalid { .. })).count();
    let valid = verdicts.iter().filter(|v| v.is_valid()).count();
    if args.json {
        let list: Vec<Value> = rows.into_iter().map(|(_, _, row)| row).collect();
        out.json(&json!({ "valid": valid, "invalid": invalid, "signatures": list }))?;
    } else {
        for (detail, text, _) in &rows {
            out.line(format!("{detail}: {text}"))?;
        }
        if rows.is_empty() {
            out.line("no signatures")?;
        }
    }
    match (invalid, valid) {
        (0, 0) => Err(Failure::new("no valid signature by a trusted key")),
        (0, _) => Ok(()),
        (n, _) => Err(Failure { status: DAMAGED, message: Some(format!("{n} signature(s) do not hold")) }),
    }
}

/// The keys this process trusts: those in the directories given, else in the user's and the system's. What cannot be used
/// is said on stderr.
fn trust_store(given: &[PathBuf]) -> Result<TrustStore, Failure> {
    for directory in given {
        fs::read_dir(directory).map_err(|e| Failure::file(directory, &e))?;
    }
    let directories = if given.is_empty() { TrustStore::directories() } else { given.to_vec() };
    let trust = TrustStore::load(&directories, sys::ids().0);
    for unused in trust.unused() {
        note(&format!("warning: {}: not used: {}", unused.path.display(), unused.reason));
    }
    Ok(trust)
}

//! `rvf lineage`: where a store descends from, and proofs of it.

use super::failure::{DAMAGED, Failure};
use super::open;
use super::output::{Out, hex};
use rvf_crypto::lineage::{Binding, Evidence, Proof, Step};
use rvf_format::FileIdentity;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What `format` and `version` of a proof are.
const FORMAT: &str = "rvf-lineage-proof";
const VERSION: u64 = 1;

/// Largest proof that is read.
const MAX_BYTES: usize = 1 << 30;

/// Most values in a proof: a step has nine.
const MAX_PARTS: usize = 16 * rvf_crypto::lineage::MAX_STEPS;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without an option: root first, one file a line: depth, file id, name, derivation, and verified, missing or MISMATCH, which means
that the file with this id does not hold the state its child was made from.

A proof can be verified by somebody who has none of the parents. It shows that every record holds the digest of the state of its
parent, whose headers and last 64 KiB, which may include vectors and metadata, are in the proof. It does not show who made
the files: nothing in it is signed. Exit status: 0 holds, 1 cannot be read, 3 does not hold.")]
pub(super) struct Args {
    /// Path to the RVF store
    #[arg(required_unless_present = "verify")]
    path: Option<PathBuf>,
    /// Print a proof that can be verified without the parents
    #[arg(long, conflicts_with = "verify")]
    prove: bool,
    /// Verify a proof, and with FILE that it is the proof of that file
    #[arg(long, value_name = "PROOF")]
    verify: Option<PathBuf>,
    /// Output as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut Out) -> Result<(), Failure> {
    match (&args.verify, &args.path) {
        (Some(proof), path) => verify(proof, path.as_deref(), args.json, out),
        (None, Some(path)) if args.prove => out.json(&to_json(&rvf_cow::prove(path)?)),
        (None, Some(path)) => show(path, args.json, out),
        (None, None) => Err(Failure::new("a store or --verify PROOF is wanted")),
    }
}

fn show(path: &Path, as_json: bool, out: &mut Out) -> Result<(), Failure> {
    // Says what is wrong with a file that is no store.
    drop(open::glancing(path, true)?);
    let generations = rvf_cow::lineage(path)?;
    if !as_json {
        for generation in &generations {
            out.line(crate::lineage::line(generation))?;
        }
        return Ok(());
    }
    let list: Vec<Value> = generations
        .iter()
        .map(|generation| {
            let mut object = json!({
                "depth": generation.depth,
                "file_id": hex(&generation.file_id),
                "path": generation.path.as_ref().map(|path| path.to_string_lossy()),
                "derivation": generation.derivation(),
                "state": generation.state.word(),
            });
            if let (Some(pin), Value::Object(object)) = (&generation.record, &mut object) {
                crate::info::pin(object, pin);
            }
            object
        })
        .collect();
    out.json(&json!({ "lineage": list }))
}

fn verify(proof: &Path, file: Option<&Path>, as_json: bool, out: &mut Out) -> Result<(), Failure> {
    let (bytes, _) = open::input_file(proof)?;
    let unreadable = |what: String| Failure::new(format!("{}: {what}", proof.display()));
    // Parsed, a number of two bytes takes many; a proof is few and long texts.
    if bytes.len() > MAX_BYTES || bytes.iter().filter(|b| b",[{".contains(b)).nth(MAX_PARTS).is_some() {
        return Err(unreadable("no proof: larger, or of more parts, than a proof can be".into()));
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| unreadable(format!("no proof: {e}")))?;
    open::intact(proof, &bytes)?;
    let proof = from_json(&value).map_err(unreadable)?;
    let refused = |what: String| Failure { status: DAMAGED, ..Failure::new(what) };
    let proven = proof.verify().map_err(|e| refused(format!("the proof does not hold: {e}")))?;
    if let Some(file) = file
        && !rvf_cow::verify_proof_of(&proof, file)?
    {
        return Err(refused(format!("the proof holds, but is not of {}", file.display())));
    }
    if as_json {
        let steps: Vec<Value> = proven
            .iter()
            .map(|step| {
                json!({
                    "depth": step.depth,
                    "file_id": hex(&step.file_id),
                    "derivation": step.derivation.map(|d| d.to_string()),
                    "parent_epoch": step.parent.as_ref().map(|parent| parent.epoch),
                    "parent_digest": step.parent.as_ref().map(|parent| hex(&parent.digest)),
                    "bound_by": binding(step.binding),
                })
            })
            .collect();
        return out.json(&json!({
            "status": "verified",
            "file": file.map(Path::to_string_lossy),
            "digest": hex(&proof.digest()),
            "signatures": 0,
            "steps": steps,
        }));
    }
    out.line("Lineage proof holds:")?;
    for step in &proven {
        let derivation = step.derivation.map_or("root".to_owned(), |d| d.to_string());
        out.line(format_args!(
            "{}\t{}\t{derivation}\t{}",
            step.depth,
            hex(&step.file_id),
            binding(step.binding)
        ))?;
    }
    out.pair("File:", file.map_or("not compared".into(), |file| file.display().to_string()))?;
    out.pair("Signed by:", "nobody")
}

fn binding(binding: Binding) -> &'static str {
    match binding {
        Binding::Shake => "shake256",
        Binding::Header => "xxh3",
    }
}

fn to_json(proof: &Proof) -> Value {
    let steps: Vec<Value> = proof
        .steps
        .iter()
        .map(|step| {
            let i = &step.identity;
            let mut object = Map::new();
            let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
            put("file_id", hex(&i.file_id).into());
            put("parent_id", hex(&i.parent_id).into());
            put("parent_hash", hex(&i.parent_hash).into());
            put("lineage_depth", i.lineage_depth.into());
            put("record", hex(&step.record).into());
            if let Some(evidence) = &step.evidence {
                put("headers", hex(&evidence.headers).into());
                put("tail", hex(&evidence.tail).into());
                put("manifest", hex(&evidence.manifest).into());
            }
            Value::Object(object)
        })
        .collect();
    json!({
        "format": FORMAT,
        "version": VERSION,
        "digest": hex(&proof.digest()),
        "steps": steps,
        "signatures": [],
    })
}

fn from_json(value: &Value) -> Result<Proof, String> {
    if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(format!("no proof: \"format\" is not \"{FORMAT}\""));
    }
    if value.get("version").and_then(Value::as_u64) != Some(VERSION) {
        return Err("a proof of another version, written by a newer program".into());
    }
    if value.get("signatures").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        return Err("signed, and this version cannot check signatures".into());
    }
    let steps = value.get("steps").and_then(Value::as_array).ok_or("no proof: \"steps\" is missing")?;
    let steps = steps.iter().enumerate().map(|(at, step)| {
        let bytes = |key: &str| -> Result<Vec<u8>, String> {
            let text = step.get(key).and_then(Value::as_str);
            text.and_then(unhex).ok_or(format!("step {at}: \"{key}\" is missing or is not in hex digits"))
        };
        let wrong = |key: &str| format!("step {at}: \"{key}\" has another length");
        let depth = step.get("lineage_depth").and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        let identity = FileIdentity {
            file_id: bytes("file_id")?.try_into().map_err(|_| wrong("file_id"))?,
            parent_id: bytes("parent_id")?.try_into().map_err(|_| wrong("parent_id"))?,
            parent_hash: bytes("parent_hash")?.try_into().map_err(|_| wrong("parent_hash"))?,
            lineage_depth: depth.ok_or(format!("step {at}: \"lineage_depth\" is missing or no number"))?,
        };
        let evidence = match step.get("headers") {
            None => None,
            Some(_) => Some(Evidence {
                headers: bytes("headers")?,
                tail: bytes("tail")?,
                manifest: bytes("manifest")?,
            }),
        };
        Ok(Step { identity, record: bytes("record")?, evidence })
    });
    Ok(Proof { steps: steps.collect::<Result<_, String>>()? })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.bytes().map(|b| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).filter_map(|pair| Some(pair.first()? << 4 | pair.last()?)).collect())
}

//! Proofs of descent: that a file was derived from another, that one from a third, and so on up to a root, for somebody
//! who has none of the older files.
//!
//! A child records a digest of its parent's state: SHAKE-256 over the parent's file id, the length of that state, the
//! headers of all its segments and its last 64 KiB. A proof holds those headers and bytes of every parent. Who verifies it
//! computes each digest anew, and finds in the hashed bytes the identity of that parent: its own parent's id, and its
//! depth. A child also records the hash of its parent's own record, so the records hang together in a chain.
//!
//! A proof shows that the newest record can only have come about with knowledge of those states of those files. It does
//! not show who made them: anybody can make a file with a record of any parent that he has seen. Signatures are for that;
//! they would be over [`Proof::digest`].

use rvf_format::checksum::{self, ChecksumState, shake256_256};
use rvf_format::header::{HEADER_LEN, SegType, SegmentHeader};
use rvf_format::manifest::{FileIdentity, Manifest};
use rvf_format::pin::{Derivation, Pin, Source, TAIL};

/// Generations in one proof.
pub const MAX_STEPS: usize = 64;

/// Segments that may be a parent's record, of those that a proof names.
const MAX_RECORDS: usize = 4;

/// The digest of a parent's state that its child records: `headers` are those of all segments, `tail` the last 64 KiB, or
/// all when there is less.
#[must_use]
pub fn state_digest(file_id: &[u8; 16], prefix: u64, headers: &[u8], tail: &[u8]) -> [u8; 32] {
    let mut text = Vec::with_capacity(64 + headers.len() + tail.len());
    text.extend_from_slice(b"rvf-mount pin v1");
    text.extend_from_slice(file_id);
    text.extend_from_slice(&prefix.to_le_bytes());
    text.extend_from_slice(headers);
    text.extend_from_slice(tail);
    shake256_256(&text)
}

/// The hash of a parent's own record that its child records: zero for a parent that has none.
#[must_use]
pub fn record_digest(record: &[u8]) -> [u8; 32] {
    if record.is_empty() { [0; 32] } else { shake256_256(record) }
}

/// What a digest of a parent's state was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The headers of all segments, 64 bytes each, in file order.
    pub headers: Vec<u8>,
    /// The last 64 KiB.
    pub tail: Vec<u8>,
    /// The payload of the manifest, where it does not lie in the tail; else empty.
    pub manifest: Vec<u8>,
}

/// One file of a chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Step {
    /// Who the file is.
    pub identity: FileIdentity,
    /// The payload of its record (pin); empty for a root.
    pub record: Vec<u8>,
    /// Of a parent, the state that the next step was made from; `None` for the last step.
    pub evidence: Option<Evidence>,
}

/// A chain of files, root first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proof {
    /// The files.
    pub steps: Vec<Step>,
}

/// How firmly a step is bound to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// By SHAKE-256.
    Shake,
    /// Partly by the content hash in a segment header (XXH3), which proves it against accidents only: the record of version
    /// 1 has no hash of the parent's record, and a manifest may lie before the part that is hashed.
    Header,
}

/// A step that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The file's id.
    pub file_id: [u8; 16],
    /// Generations above it.
    pub depth: u32,
    /// What it is to its parent; `None` for the root.
    pub derivation: Option<Derivation>,
    /// The state of the parent that it was made from.
    pub parent: Option<Source>,
    /// What else it says went into it. Nothing more is proven of these.
    pub others: Vec<Source>,
    /// How firmly it is bound to its parent; the root to nothing.
    pub binding: Binding,
}

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LineageError {
    /// No steps, or too many.
    #[error("{steps} files; a proof has 1 to {MAX_STEPS}")]
    Length {
        /// Steps given.
        steps: usize,
    },
    /// The first file is not a root.
    #[error("the first file has a parent itself, which the proof does not hold")]
    NotRooted,
    /// A file occurs twice.
    #[error("step {step} is a file that came before: a file cannot descend from itself")]
    Cycle {
        /// Place of the step, from 0.
        step: usize,
    },
    /// A step does not hold.
    #[error("step {step}: {what}")]
    Step {
        /// Place of the step, from 0.
        step: usize,
        /// What is wrong with it.
        what: String,
    },
}

impl Proof {
    /// Checks every step. Needs nothing but the proof; it tells nothing about a file that calls itself the last step, which
    /// [`Proof::is_of`] compares. O(proof).
    ///
    /// # Errors
    /// [`LineageError`] for the first step that does not hold.
    pub fn verify(&self) -> Result<Vec<Proven>, LineageError> {
        let steps = &self.steps;
        if steps.is_empty() || steps.len() > MAX_STEPS {
            return Err(LineageError::Length { steps: steps.len() });
        }
        let mut out: Vec<Proven> = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            let file_id = step.identity.file_id;
            if out.iter().any(|before| before.file_id == file_id) {
                return Err(LineageError::Cycle { step: at });
            }
            let fail = |what: String| LineageError::Step { step: at, what };
            if step.evidence.is_some() != (at + 1 < steps.len()) {
                return Err(fail(
                    "every file but the last comes with the state that the next was made from".into(),
                ));
            }
            let above = at.checked_sub(1).and_then(|before| steps.get(before));
            let proven = match above {
                None if !step.identity.is_root() => return Err(LineageError::NotRooted),
                None if !step.record.is_empty() => {
                    return Err(fail("a root has no record of a parent".into()));
                }
                None => Proven {
                    file_id,
                    depth: 0,
                    derivation: None,
                    parent: None,
                    others: Vec::new(),
                    binding: Binding::Shake,
                },
                Some(parent) => {
                    let (pin, binding) = bind(parent, step).map_err(fail)?;
                    Proven {
                        file_id,
                        depth: step.identity.lineage_depth,
                        derivation: Some(pin.derivation),
                        parent: Some(pin.parent),
                        others: pin.others,
                        binding,
                    }
                }
            };
            out.push(proven);
        }
        Ok(out)
    }

    /// Whether the last step is the file with this identity and record.
    #[must_use]
    pub fn is_of(&self, identity: &FileIdentity, record: &[u8]) -> bool {
        self.steps.last().is_some_and(|last| last.identity == *identity && last.record == record)
    }

    /// SHAKE-256 over everything in the proof: what a signature would be over.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut text = b"rvf-mount lineage v1".to_vec();
        let mut put = |bytes: &[u8]| {
            text.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            text.extend_from_slice(bytes);
        };
        for step in &self.steps {
            let i = &step.identity;
            put(&[&i.file_id[..], &i.parent_id, &i.parent_hash, &i.lineage_depth.to_le_bytes()].concat());
            put(&step.record);
            let evidence = step.evidence.as_ref();
            for part in
                [evidence.map(|e| &e.headers), evidence.map(|e| &e.tail), evidence.map(|e| &e.manifest)]
            {
                put(part.map_or(&[], Vec::as_slice));
            }
        }
        shake256_256(&text)
    }
}

/// Checks that `child` was made from the state of `parent` that is given as evidence.
fn bind(parent: &Step, child: &Step) -> Result<(Pin, Binding), String> {
    let pin = Pin::parse(&child.record).map_err(|error| format!("its record cannot be read: {error}"))?;
    let Some(evidence) = &parent.evidence else { return Err("the state of its parent is not given".into()) };
    let Source { file_id, prefix, digest, record, .. } = &pin.parent;
    if *file_id != parent.identity.file_id || child.identity.parent_id != *file_id {
        return Err("its parent is another file than the one before it".into());
    }
    if parent.identity.lineage_depth.checked_add(1) != Some(child.identity.lineage_depth) {
        return Err("its depth is not that of its parent and one".into());
    }
    let tail = u64::try_from(TAIL).unwrap_or(u64::MAX).min(*prefix);
    if evidence.tail.len() as u64 != tail || !(evidence.headers.len() as u64).is_multiple_of(HEADER_LEN) {
        return Err("the state of its parent is not whole".into());
    }
    if state_digest(file_id, *prefix, &evidence.headers, &evidence.tail) != *digest {
        return Err("the state of its parent does not have the digest that it records".into());
    }
    let (identity, manifest_binding) = identity_in(evidence)?;
    if identity != parent.identity {
        return Err("its parent is not who the proof says it is".into());
    }
    let record_binding = if pin.version > 1 {
        if record_digest(&parent.record) != *record {
            return Err("its parent's record does not have the hash that it records".into());
        }
        Binding::Shake
    } else if parent.record.is_empty() {
        manifest_binding
    } else {
        // A file has one record. A proof that names more segments of that length does not get each of them hashed.
        let listed = headers(evidence)
            .rev()
            .filter(|header| {
                header.kind() == SegType::META_IDX && header.payload_len() == parent.record.len() as u64
            })
            .take(MAX_RECORDS)
            .any(|header| checksum::verify(&header, &parent.record) == ChecksumState::Ok);
        if !listed {
            return Err("its parent's record is in none of its parent's segments".into());
        }
        Binding::Header
    };
    let weakest = if manifest_binding == Binding::Header { manifest_binding } else { record_binding };
    Ok((pin, weakest))
}

fn headers(evidence: &Evidence) -> impl DoubleEndedIterator<Item = SegmentHeader> + '_ {
    evidence.headers.chunks_exact(64).filter_map(|bytes| SegmentHeader::parse(bytes, 0))
}

/// Who a state says it is: in its last manifest, whose header is among the headers.
fn identity_in(evidence: &Evidence) -> Result<(FileIdentity, Binding), String> {
    let nowhere = || "the manifest of its parent is not in the proof".to_owned();
    let bytes = evidence
        .headers
        .chunks_exact(64)
        .rev()
        .find(|bytes| SegmentHeader::parse(bytes, 0).is_some_and(|h| h.kind() == SegType::MANIFEST))
        .ok_or_else(nowhere)?;
    let header = SegmentHeader::parse(bytes, 0).ok_or_else(nowhere)?;
    let len = usize::try_from(header.payload_len()).map_err(|_| nowhere())?;
    let in_tail = rfind(&evidence.tail, bytes)
        .and_then(|at| evidence.tail.get(at.checked_add(64)?..at.checked_add(64)?.checked_add(len)?));
    let (payload, binding) = match in_tail {
        Some(payload) => (payload, Binding::Shake),
        None => (evidence.manifest.as_slice(), Binding::Header),
    };
    if payload.len() != len || checksum::verify(&header, payload) != ChecksumState::Ok {
        return Err(nowhere());
    }
    let manifest = Manifest::parse(payload).map_err(|error| format!("its parent's manifest: {error}"))?;
    let identity = manifest.identity.ok_or("its parent's manifest does not say who it is")?;
    Ok((identity, binding))
}

fn rfind(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).rposition(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvf_format::storage::MemStorage;
    use rvf_format::writer::{Writer, dir_entry};

    /// A file with `rows` bytes of vectors, and the step of it.
    fn file(id: u8, parent: Option<(&Step, u16)>, rows: usize, entries: usize) -> Step {
        let record = parent.map_or(Vec::new(), |(parent, version)| {
            let evidence = parent.evidence.as_ref().unwrap();
            let prefix = evidence.manifest.len() as u64;
            let tail = &evidence.tail;
            Pin {
                version,
                derivation: Derivation::Clone,
                standalone: false,
                parent: Source {
                    epoch: 1,
                    prefix,
                    file_id: parent.identity.file_id,
                    digest: state_digest(&parent.identity.file_id, prefix, &evidence.headers, tail),
                    record: record_digest(&parent.record),
                },
                created_ns: 5,
                name: String::new(),
                parameters: Vec::new(),
                others: Vec::new(),
            }
            .encode()
        });
        let identity = FileIdentity {
            file_id: [id; 16],
            parent_id: parent.map_or([0; 16], |(p, _)| p.identity.file_id),
            parent_hash: [0; 32],
            lineage_depth: parent.map_or(0, |(p, _)| p.identity.lineage_depth + 1),
        };
        let storage = MemStorage::new(Vec::new());
        let mut writer = Writer::create(&storage).unwrap();
        let vectors = writer.append(SegType::VEC, &[&vec![id; rows]]).unwrap();
        let mut directory = vec![dir_entry(&vectors); entries];
        if !record.is_empty() {
            directory.push(dir_entry(&writer.append(SegType::META_IDX, &[&record]).unwrap()));
        }
        let manifest = Manifest { dimension: 1, identity: Some(identity), directory, ..Manifest::default() };
        writer.commit(&manifest).unwrap();
        let bytes = storage.live();
        let layout = rvf_format::layout::walk(&bytes);
        let headers = layout.segments().flat_map(|s| bytes[s.offset as usize..][..64].to_vec()).collect();
        let tail = bytes[bytes.len().saturating_sub(TAIL)..].to_vec();
        // The length of the file is kept here until `sealed`.
        Step { identity, record, evidence: Some(Evidence { headers, tail, manifest: vec![0; bytes.len()] }) }
    }

    fn sealed(mut steps: Vec<Step>) -> Proof {
        for step in &mut steps {
            step.evidence.as_mut().unwrap().manifest.clear();
        }
        steps.last_mut().unwrap().evidence = None;
        Proof { steps }
    }

    fn chain(version: u16) -> Proof {
        let root = file(1, None, 100, 1);
        let middle = file(2, Some((&root, version)), 200_000, 1);
        let last = file(3, Some((&middle, version)), 10, 1);
        sealed(vec![root, middle, last])
    }

    #[test]
    fn a_chain_is_proven_without_its_files() {
        for (version, binding) in [(2, Binding::Shake), (1, Binding::Header)] {
            let proof = chain(version);
            let proven = proof.verify().unwrap();
            assert_eq!(proven.iter().map(|p| p.depth).collect::<Vec<_>>(), [0, 1, 2]);
            assert_eq!(proven[2].parent.as_ref().unwrap().file_id, [2; 16]);
            assert_eq!((proven[1].binding, proven[2].binding), (Binding::Shake, binding));
            let last = proof.steps.last().unwrap();
            assert!(proof.is_of(&last.identity, &last.record));
            assert!(!proof.is_of(&proof.steps[1].identity, &last.record));
        }
        let alone = sealed(vec![file(1, None, 5, 1)]);
        assert_eq!(alone.verify().unwrap().len(), 1);
    }

    #[test]
    fn every_altered_byte_breaks_it() {
        let proof = chain(2);
        for step in 0..3 {
            let parts = [
                proof.steps[step].record.len(),
                proof.steps[step].evidence.as_ref().map_or(0, |e| e.headers.len()),
                proof.steps[step].evidence.as_ref().map_or(0, |e| e.tail.len()),
            ];
            for (part, len) in parts.into_iter().enumerate() {
                // The time and the name in the newest record are for the file itself to confirm.
                let last_record = part == 0 && step == 2;
                for at in (0..len).step_by(if part == 2 { 997 } else { 1 }) {
                    let mut altered = proof.clone();
                    let step = &mut altered.steps[step];
                    let evidence = step.evidence.as_mut();
                    let bytes = match part {
                        0 => &mut step.record,
                        1 => &mut evidence.unwrap().headers,
                        _ => &mut evidence.unwrap().tail,
                    };
                    bytes[at] ^= 0x40;
                    let own = proof.steps.last().unwrap();
                    assert_ne!(altered.digest(), proof.digest());
                    let holds = altered.verify().is_ok() && altered.is_of(&own.identity, &own.record);
                    assert!(!holds, "part {part}, byte {at}");
                    assert!(last_record || altered.verify().is_err(), "part {part}, byte {at}");
                }
            }
        }
    }

    #[test]
    fn chains_that_cannot_be_are_refused() {
        let proof = chain(2);
        let with = |change: &dyn Fn(&mut Vec<Step>)| {
            let mut steps = proof.steps.clone();
            change(&mut steps);
            Proof { steps }.verify().unwrap_err()
        };
        assert_eq!(with(&|steps| steps.clear()), LineageError::Length { steps: 0 });
        assert_eq!(with(&|steps| steps.resize(65, Step::default())), LineageError::Length { steps: 65 });
        assert_eq!(with(&|steps| drop(steps.remove(0))), LineageError::NotRooted);
        assert!(matches!(with(&|steps| drop(steps.remove(1))), LineageError::Step { step: 1, .. }));
        assert!(matches!(with(&|steps| drop(steps.pop())), LineageError::Step { step: 1, .. }));
        assert!(matches!(with(&|steps| steps.swap(0, 1)), LineageError::NotRooted));
        assert!(matches!(with(&|steps| steps.swap(1, 2)), LineageError::Step { step: 1, .. }));
        let again = with(&|steps| {
            let middle = steps[1].clone();
            steps.insert(2, middle);
        });
        assert_eq!(again, LineageError::Cycle { step: 2 });
        let depth = with(&|steps| steps[2].identity.lineage_depth = 7);
        assert!(depth.to_string().contains("depth"), "{depth}");
    }

    #[test]
    fn a_manifest_before_the_tail_counts_when_it_is_given() {
        let root = file(1, None, 100, 4000);
        let child = file(2, Some((&root, 2)), 1, 1);
        let mut proof = sealed(vec![root, child]);
        assert!(proof.verify().is_err());
        let identity = proof.steps[0].identity;
        let storage = MemStorage::new(Vec::new());
        let vectors = Writer::create(&storage).unwrap().append(SegType::VEC, &[&[1; 100]]).unwrap();
        let directory = vec![dir_entry(&vectors); 4000];
        let manifest = Manifest { dimension: 1, identity: Some(identity), directory, ..Manifest::default() };
        proof.steps[0].evidence.as_mut().unwrap().manifest = manifest.encode().unwrap();
        assert_eq!(proof.verify().unwrap()[1].binding, Binding::Header);
    }
}

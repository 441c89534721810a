//! Signatures in a store: making them, finding them, and what they are worth.
//!
//! A signature is a CRYPTO segment (see [`rvf_crypto::signature`]). One over a segment's payload stays true when the file is
//! compacted or the segment copied into another file; one over the file covers the bytes up to the manifest it was made
//! for, and says nothing of later commits.

use std::ops::Range;

use rvf_crypto::{
    Content, Scope, SecretKey, Signature, SignatureError, Statement, TrustStore, Verdict, signature,
};
use rvf_format::{ChecksumState, SegType, Segment};

use crate::error::Error;
use crate::store::Store;
use crate::types::Event;
use crate::view::View;
use crate::write::{WITNESS_CHANGE, now_ns};

/// What to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The file as it is now, up to its manifest.
    File,
    /// The payloads of these segments, by the offsets of their headers.
    Segments(Vec<u64>),
}

/// How to sign.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignOptions {
    /// A segment's signature counts in this file only, not wherever the same payload lies.
    pub bound: bool,
    /// Nanoseconds since 1970 after which it is not to be relied on; 0 for no end.
    pub until_ns: u64,
    /// Free text.
    pub comment: String,
}

/// A signature record of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSignature {
    /// Where its segment's header lies.
    pub offset: u64,
    /// The record, or why it cannot be read.
    pub record: Result<Signature, SignatureError>,
}

impl View {
    /// The file's id; zeros where it has none.
    #[must_use]
    pub fn file_id(&self) -> [u8; 16] {
        let manifest = self.opened.manifest.as_ref();
        manifest.and_then(|m| m.manifest.identity.as_ref()).map_or([0; 16], |identity| identity.file_id)
    }

    /// The signature records of the file, in file order. O(segments).
    #[must_use]
    pub fn signatures(&self) -> Vec<FoundSignature> {
        let mut found = Vec::new();
        for segment in self.opened.layout.segments().filter(|s| s.kind() == SegType::CRYPTO) {
            match Signature::decode(segment.payload_of(self.bytes())) {
                // Another kind of record.
                Err(SignatureError::Magic) => {}
                record => found.push(FoundSignature { offset: segment.offset, record }),
            }
        }
        found
    }

    /// The bytes of the file that a signature may be about, most likely first: its segment where it was signed, then others
    /// of that type and length.
    fn candidates(&self, statement: &Statement) -> Vec<Range<u64>> {
        let length = statement.content.length;
        let Some(kind) = statement.scope.kind() else {
            let whole = Some(0..length).filter(|range| range.end <= self.bytes().len() as u64);
            return whole.into_iter().collect();
        };
        let mut segments: Vec<&Segment> = self
            .opened
            .layout
            .segments()
            .filter(|s| s.header.seg_type == kind && s.payload.end - s.payload.start == length)
            .collect();
        segments.sort_by_key(|s| s.offset != statement.offset);
        segments.into_iter().map(|s| s.payload.clone()).collect()
    }

    /// What a signature of this file is worth to who trusts these keys at this time (ns since 1970), and the bytes of the
    /// file that it covers. Bytes are hashed only for the statement of a trusted key: O(what was signed).
    #[must_use]
    pub fn judge(
        &self,
        signature: &Signature,
        trust: &TrustStore,
        now_ns: u64,
    ) -> (Verdict, Option<Range<u64>>) {
        let statement = &signature.statement;
        // With the content it speaks of taken for granted, what is left is the statement itself.
        let verdict = trust.judge(signature, &statement.content, self.file_id(), now_ns);
        let candidates = self.candidates(statement);
        if !verdict.is_valid() {
            return (verdict, candidates.into_iter().next());
        }
        let bytes: &[u8] = self.bytes();
        let covered = candidates.into_iter().find(|range| {
            let range = range.start as usize..range.end as usize;
            bytes.get(range).is_some_and(|bytes| Content::of(bytes) == statement.content)
        });
        match covered {
            Some(range) => (verdict, Some(range)),
            None => {
                let reason = match statement.scope {
                    Scope::Prefix { .. } => "the file's bytes are not those that were signed",
                    _ => "no segment of the file holds the bytes that were signed",
                };
                (Verdict::Invalid { reason }, None)
            }
        }
    }

    /// What the file's signatures say of one of its segments; `None` when none speaks of it. Hashes the payload when one
    /// may.
    #[must_use]
    pub fn judge_segment(&self, segment: &Segment, trust: &TrustStore, now_ns: u64) -> Option<Verdict> {
        let payload = segment.payload_of(self.bytes());
        let kind = segment.header.seg_type;
        let records: Vec<Signature> = self
            .signatures()
            .into_iter()
            .filter_map(|found| found.record.ok())
            .filter(|record| {
                let statement = &record.statement;
                statement.scope.kind() == Some(kind) && statement.content.length == payload.len() as u64
            })
            .collect();
        if records.is_empty() {
            return None;
        }
        trust.judge_segment(&records, kind, &Content::of(payload), self.file_id(), now_ns)
    }
}

/// Whether a signature record says something that a rewritten file does not hold any more.
pub(crate) fn ends_with_compaction(payload: &[u8], kept: impl Fn(SegType) -> bool) -> bool {
    payload.starts_with(signature::MAGIC)
        && Signature::decode(payload)
            .is_ok_and(|record| !record.statement.scope.kind().is_some_and(|kind| kept(SegType(kind))))
}

impl Store {
    /// Signs in one commit, and returns the records. Bytes that fail their checksum are not signed.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an offset where no segment begins, and for damaged bytes; otherwise as [`Store::ingest`].
    pub fn sign(
        &self,
        key: &SecretKey,
        target: &Target,
        options: &SignOptions,
    ) -> Result<Vec<Signature>, Error> {
        let (records, view) = self.append_unresolved(|commit, _| {
            let view = std::sync::Arc::clone(&commit.view);
            let statements = statements(&view, target, options)?;
            let records: Vec<Signature> = statements.iter().map(|statement| statement.sign(key)).collect();
            for record in &records {
                commit.append(SegType::CRYPTO, &[&record.encode()])?;
            }
            let epoch = commit.epoch();
            commit.witness(&format!("sign:count={},epoch={epoch}", records.len()), WITNESS_CHANGE)?;
            let manifest = commit.manifest();
            commit.finish(&manifest)?;
            Ok(records)
        })?;
        let detail =
            vec![("count".into(), records.len().to_string()), ("key".into(), key.public().id().to_string())];
        self.notify(&Event { kind: "sign", epoch: view.epoch(), detail });
        Ok(records)
    }
}

fn statements(view: &View, target: &Target, options: &SignOptions) -> Result<Vec<Statement>, Error> {
    let bytes: &[u8] = view.bytes();
    let file_id = view.file_id();
    let now = now_ns();
    let damaged = |segment: &Segment| Error::Invalid {
        what: format!(
            "the segment at offset {} fails its checksum; damaged bytes are not signed",
            segment.offset
        ),
    };
    let mut statements = Vec::new();
    match target {
        Target::File => {
            let Some(located) = &view.opened.manifest else {
                return Err(Error::Invalid {
                    what: "no manifest counts, so what is committed is not known".into(),
                });
            };
            let end = located.segment.raw.end;
            for segment in view.opened.layout.segments().take_while(|s| s.offset < end) {
                if segment.verify(bytes) == ChecksumState::Bad {
                    return Err(damaged(segment));
                }
            }
            let signed = bytes.get(..end as usize).unwrap_or(bytes);
            statements.push(Statement::of(Scope::Prefix { file_id }, Content::of(signed), now));
        }
        Target::Segments(offsets) => {
            for offset in offsets {
                let segment = view.opened.layout.segment_at_offset(*offset).ok_or_else(|| {
                    Error::Invalid { what: format!("no segment begins at offset {offset}") }
                })?;
                if segment.verify(bytes) == ChecksumState::Bad {
                    return Err(damaged(segment));
                }
                let kind = segment.header.seg_type;
                let scope =
                    if options.bound { Scope::SegmentOf { kind, file_id } } else { Scope::Segment { kind } };
                let content = Content::of(segment.payload_of(bytes));
                statements.push(Statement { offset: *offset, ..Statement::of(scope, content, now) });
            }
        }
    }
    // Bytes that another program cut away while they were hashed read as zeros.
    view.check_whole()?;
    for statement in &mut statements {
        statement.until_ns = options.until_ns;
        statement.comment = options.comment.clone();
    }
    Ok(statements)
}

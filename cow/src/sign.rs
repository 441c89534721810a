//! Signatures in a store: making them, finding them, and what they are worth.
//!
//! A signature is a CRYPTO segment (see [`rvf_crypto::signature`]). One over a segment's payload stays true when the file is
//! compacted or the segment copied into another file; one over the file covers the bytes up to the manifest it was made
//! for, and says nothing of later commits.

use std::collections::HashMap;
use std::ops::Range;

use rvf_crypto::{
    Content, Prefixes, Scope, SecretKey, Signature, SignatureError, Statement, TrustStore, Verdict, signature,
};
use rvf_format::{ChecksumState, Entry, SegType, Segment};

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

    /// The segments that a word names, by the offsets of their headers, for [`Target::Segments`]: the one of a number, as in
    /// `segments/` of a mount, or all listed ones of a type, such as `kernel`. None when there is no such segment. O(segments).
    #[must_use]
    pub fn segments_named(&self, word: &str) -> Vec<u64> {
        let opened = self.opened();
        if let Ok(number) = word.parse::<usize>() {
            return match number.checked_sub(1).and_then(|at| opened.layout.entries.get(at)) {
                Some(Entry::Segment(segment)) => vec![segment.offset],
                Some(Entry::Gap(_)) | None => Vec::new(),
            };
        }
        let listed = opened.manifest.as_ref().map_or(&[][..], |m| &m.manifest.directory);
        let of_type =
            |s: &&Segment| s.kind().dir_name() == word && listed.iter().any(|entry| entry.offset == s.offset);
        opened.layout.segments().filter(of_type).map(|s| s.offset).collect()
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

/// Bytes that could be hashed in the time that it takes to check a signature.
const CHECK_COST: u64 = 16 << 10;

/// Judges the signatures of one file, one after another. The same bytes are hashed once, and the same record checked once,
/// however often a file repeats them.
#[derive(Debug)]
pub struct Judge<'a> {
    view: &'a View,
    trust: &'a TrustStore,
    now_ns: u64,
    /// Bytes that may still be hashed.
    budget: u64,
    /// Payloads by type and length, in file order, with the offsets of their headers.
    payloads: HashMap<(u8, u64), Vec<(u64, Range<u64>)>>,
    /// Of a type and length that a signature was looked for in, the payloads by digest.
    hashed: HashMap<(u8, u64), HashMap<[u8; 32], Range<u64>>>,
    prefixes: Prefixes,
    checked: HashMap<Signature, Verdict>,
}

impl<'a> Judge<'a> {
    /// For the signatures of this file, by who trusts these keys at this time (ns since 1970), and for no more work than
    /// hashing `budget` bytes. O(segments).
    #[must_use]
    pub fn new(view: &'a View, trust: &'a TrustStore, now_ns: u64, budget: u64) -> Self {
        let mut payloads: HashMap<_, Vec<_>> = HashMap::new();
        for segment in view.opened.layout.segments() {
            let length = segment.payload.end.saturating_sub(segment.payload.start);
            let of_kind = payloads.entry((segment.header.seg_type, length)).or_default();
            of_kind.push((segment.offset, segment.payload.clone()));
        }
        Self {
            view,
            trust,
            now_ns,
            budget,
            payloads,
            hashed: HashMap::new(),
            prefixes: Prefixes::default(),
            checked: HashMap::new(),
        }
    }

    /// What a signature is worth, and the bytes of the file that it covers. Bytes are hashed only for the statement of a
    /// trusted key. No verdict when the budget does not suffice.
    pub fn judge(&mut self, signature: &Signature) -> (Option<Verdict>, Option<Range<u64>>) {
        let statement = &signature.statement;
        let likely = self.likely(statement);
        let Some(verdict) = self.statement(signature) else { return (None, likely) };
        if !verdict.is_valid() {
            return (Some(verdict), likely);
        }
        match self.covered(statement) {
            None => (None, likely),
            Some(Some(range)) => (Some(verdict), Some(range)),
            Some(None) => {
                let reason = match statement.scope {
                    Scope::Prefix { .. } => "the file's bytes are not those that were signed",
                    _ => "no segment of the file holds the bytes that were signed",
                };
                (Some(Verdict::Invalid { reason }), None)
            }
        }
    }

    fn spend(&mut self, bytes: u64) -> Option<()> {
        self.budget = self.budget.checked_sub(bytes)?;
        Some(())
    }

    /// What the statement is worth when the content that it speaks of is taken for granted.
    fn statement(&mut self, signature: &Signature) -> Option<Verdict> {
        if self.trust.find(signature.key).is_none() {
            return Some(Verdict::Untrusted);
        }
        if let Some(known) = self.checked.get(signature) {
            return Some(known.clone());
        }
        self.spend(CHECK_COST)?;
        let content = &signature.statement.content;
        let verdict = self.trust.judge(signature, content, self.view.file_id(), self.now_ns);
        self.checked.insert(signature.clone(), verdict.clone());
        Some(verdict)
    }

    /// Where the bytes most likely are: a segment of that type and length, that one which was there when it was signed first.
    fn likely(&self, statement: &Statement) -> Option<Range<u64>> {
        let length = statement.content.length;
        let Some(kind) = statement.scope.kind() else {
            return (length <= self.view.bytes().len() as u64).then_some(0..length);
        };
        let of_kind = self.payloads.get(&(kind, length))?;
        let at = of_kind.binary_search_by_key(&statement.offset, |(offset, _)| *offset).unwrap_or(0);
        Some(of_kind.get(at)?.1.clone())
    }

    /// The bytes that hold what was signed, if any do; `None` when the budget does not suffice to tell.
    fn covered(&mut self, statement: &Statement) -> Option<Option<Range<u64>>> {
        let bytes: &[u8] = self.view.bytes();
        let length = statement.content.length;
        let Some(kind) = statement.scope.kind() else {
            let Some(end) = usize::try_from(length).ok().filter(|end| *end <= bytes.len()) else {
                return Some(None);
            };
            self.spend(self.prefixes.cost(end) as u64)?;
            let same = self.prefixes.content(bytes, end) == Some(statement.content);
            return Some(same.then_some(0..length));
        };
        let key = (kind, length);
        if !self.hashed.contains_key(&key) {
            let of_kind = self.payloads.get(&key).map_or(&[][..], Vec::as_slice);
            self.budget = self.budget.checked_sub(length.saturating_mul(of_kind.len() as u64))?;
            let mut by_digest = HashMap::new();
            for (_, range) in of_kind.iter().rev() {
                let payload = bytes.get(range.start as usize..range.end as usize).unwrap_or(&[]);
                by_digest.insert(Content::of(payload).digest, range.clone());
            }
            self.hashed.insert(key, by_digest);
        }
        Some(self.hashed.get(&key).and_then(|known| known.get(&statement.content.digest)).cloned())
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

//! The seven checks between a program in a file and its execution. Each fails closed; none counts after one failed. Hashes of
//! what is large are computed beforehand, at the same time.
//!
//! 1. *structure and limits*: the store opens, the segment that is meant is listed, whole and of its kind, and everything in its
//!    header holds together. The payload is then copied into a sealed memory file, once; the file is not read for it again, and
//!    everything that follows looks at the sealed bytes.
//! 2. *content hash*: the segment's checksum, the header's hash of the program, and the digest in the entry.
//! 3. *signature*: a signature over exactly these bytes by a trusted key, or the very bytes of a program that came with `rvf-exec`.
//!    `--allow-unsigned` passes over one that is missing or of an unknown key, never over one that is wrong.
//! 4. *binding*: a bound kernel belongs to this file and this policy.
//! 5. *host*: this machine can run it.
//! 6. *policy*: the policies of user and machine allow it.
//! 7. *handover*: the sealed bytes are still sealed and the same.

use std::fs::File;
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rvf_cow::{Access, Bound, OpenOptions, Store, View};
use rvf_crypto::{Content, Signature, TrustStore, Verdict, sha3_256};
use rvf_format::{ChecksumState, Entry, Integrity, Segment, checksum};
use rvf_kernel::entry::default_name;
use rvf_kernel::{Arch, ExecEntry, ExecKind};

use crate::facts::{Facts, FactsOf, KernelFacts, max_payload};
use crate::policy::{Policies, Question};
use crate::refusal::{Family, Passed, Refusal, Step};
use crate::sealed::Sealed;

/// Which program of a store is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The first that the store lists of the kind: the newest, where this project's programs embedded it.
    First,
    /// The one in this segment, counted from 1 as in `segments/`.
    Segment(u64),
    /// The one of this name, with or without an ending. One that was given none is called `000007-microkernel`, or only
    /// `microkernel` for the first of these.
    Name(String),
    /// The one that an entry names; place, offset and digest must all be right.
    Entry(ExecEntry),
}

/// What is to be verified, and by whose rules.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The store.
    pub store: PathBuf,
    /// Kind of program.
    pub kind: ExecKind,
    /// Which one.
    pub pick: Pick,
    /// Whether a program without a trusted signature may pass.
    pub allow_unsigned: bool,
    /// Directories of trusted keys.
    pub trust: Vec<PathBuf>,
    /// Policy files.
    pub policies: Vec<PathBuf>,
    /// The user besides root whose keys and policies count.
    pub owner: u32,
    /// Nanoseconds since 1970, for signatures that end.
    pub now_ns: u64,
}

impl Wanted {
    /// By the rules of the user who runs this process, now.
    pub fn new(store: PathBuf, kind: ExecKind, pick: Pick) -> Self {
        Self {
            store,
            kind,
            pick,
            allow_unsigned: false,
            trust: TrustStore::directories(),
            policies: Policies::paths(),
            owner: rustix::process::geteuid().as_raw(),
            now_ns: rvf_cow::now_ns(),
        }
    }

    /// What an entry names.
    pub fn of_entry(entry: ExecEntry) -> Self {
        Self::new(entry.store.clone(), entry.kind, Pick::Entry(entry))
    }
}

/// A program that passed all checks. Its bytes are those in [`Verified::payload`], whatever becomes of the file.
#[derive(Debug)]
pub struct Verified {
    /// Kind of program.
    pub kind: ExecKind,
    /// The store's path.
    pub path: PathBuf,
    /// The store, opened for reading only.
    pub file: Arc<File>,
    /// The store as it was when it was opened.
    pub view: Arc<View>,
    /// The program's segment.
    pub segment: Segment,
    /// Its name.
    pub name: String,
    /// The segment's payload, sealed.
    pub payload: Sealed,
    /// The payload taken apart.
    pub facts: Facts,
    /// SHA3-256 of the payload.
    pub digest: [u8; 32],
    /// Name of the trusted key that signed it, or `rvf-exec itself`; `None` when it ran by `--allow-unsigned`.
    pub signer: Option<String>,
}

impl Verified {
    /// The program: image, object or module.
    pub fn program(&self) -> &[u8] {
        self.payload.bytes().get(self.facts.program.clone()).unwrap_or(&[])
    }

    /// A sealed memory file that holds the program alone, for who takes a descriptor. O(program).
    ///
    /// # Errors
    /// A [`Refusal`] of the last step when the system gives none.
    pub fn program_file(&self) -> Result<Sealed, Refusal> {
        let fail = |e: std::io::Error| environment(Step::Handover, format!("no memory file: {e}"));
        Sealed::copy("rvf-program", self.program()).map_err(fail)
    }
}

fn environment(step: Step, reason: impl Into<String>) -> Refusal {
    Refusal::new(step, Family::Environment, reason)
}

fn corrupt(step: Step, reason: impl Into<String>) -> Refusal {
    Refusal::new(step, Family::Corruption, reason)
}

fn denied(step: Step, reason: impl Into<String>) -> Refusal {
    Refusal::new(step, Family::Policy, reason)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Takes all seven steps. `passed` is told of each that holds, in order, before the next begins.
///
/// # Errors
/// The [`Refusal`] of the first step that does not hold.
pub fn verify(wanted: &Wanted, passed: &mut dyn FnMut(Passed)) -> Result<Verified, Refusal> {
    let policies = Policies::load(&wanted.policies, wanted.owner);
    let mut pass = |step, note: String| passed(Passed { step, note });

    // 1
    let (view, number, segment, payload) = take(wanted)?;
    let facts = Facts::of(wanted.kind, payload.bytes()).map_err(|e| corrupt(Step::Structure, e))?;
    let program = payload.bytes().get(facts.program.clone()).unwrap_or(&[]);
    let name = match &wanted.pick {
        Pick::Entry(entry) => entry.name.clone(),
        _ => label(&view, &segment).unwrap_or_else(|| default_name(number, facts.word())),
    };
    let (kind, length) = (wanted.kind, payload.bytes().len());
    let offset = segment.offset;
    pass(
        Step::Structure,
        format!("{kind} program {name}, {length} bytes in segment {number} at offset {offset}"),
    );

    // 2, and the slow part of 4: a kernel has some megabytes, and what it is bound to may have more.
    let apart = kind == ExecKind::Kernel;
    let of_payload = || sha3_256(payload.bytes());
    let of_program = || Facts::integrity(kind, payload.bytes());
    let of_binding = || match &facts.of {
        FactsOf::Kernel(kernel) => bound(kernel, &view, &policies),
        _ => Ok("none: only kernels have one".into()),
    };
    let (binding, (digest, integrity)) = both(apart, of_binding, || both(apart, of_payload, of_program));
    let integrity = integrity.map_err(|e| corrupt(Step::Content, e))?;
    let note = content(wanted, &segment, &payload, integrity, &digest)?;
    pass(Step::Content, note);

    // 3
    let trust = TrustStore::load(&wanted.trust, wanted.owner);
    let about = Content { length: length as u64, digest };
    let own = matches!(&facts.of, FactsOf::Ebpf(ebpf) if ebpf.builtin.is_some());
    let (signer, note) = signature(wanted, &view, &trust, &segment, &about, own)?;
    pass(Step::Signature, note);

    // 4
    pass(Step::Binding, binding?);

    // 5
    pass(Step::Host, host(&facts)?);

    // 6
    let asked = Question {
        kind,
        bytes: length as u64,
        payload: digest,
        program: policies.name_digests().then(|| sha3_256(program)),
        signed: signer.is_some(),
    };
    policies.judge(&asked).map_err(|reason| denied(Step::Policy, reason))?;
    let note = match policies.found.as_slice() {
        [] => "no policy file".into(),
        found => {
            let paths: Vec<_> = found.iter().map(|policy| policy.path.display().to_string()).collect();
            format!("allowed by {}", paths.join(" and "))
        }
    };
    pass(Step::Policy, note);

    // 7
    let note = handover(&payload)?;
    pass(Step::Handover, note);
    Ok(Verified {
        kind,
        path: wanted.store.clone(),
        file: Arc::clone(view.file()),
        view,
        segment,
        name,
        payload,
        facts,
        digest,
        signer,
    })
}

/// Does two things, at the same time where that is asked for: what forks later must have one thread, and one that has just
/// ended may still be seen.
fn both<A: Send, B>(apart: bool, a: impl Fn() -> A + Sync, b: impl FnOnce() -> B) -> (A, B) {
    thread::scope(|scope| {
        let other = apart.then(|| thread::Builder::new().spawn_scoped(scope, &a).ok()).flatten();
        let b = b();
        let a = match other {
            Some(other) => other.join().unwrap_or_else(|panic| resume_unwind(panic)),
            None => a(),
        };
        (a, b)
    })
}

/// The name that a program was given.
fn label(view: &View, segment: &Segment) -> Option<String> {
    let programs = view.programs();
    programs.into_iter().find(|program| program.segment.offset == segment.offset)?.name
}

/// Opens the store, finds the segment, and copies its payload into a sealed memory file.
fn take(wanted: &Wanted) -> Result<(Arc<View>, u64, Segment, Sealed), Refusal> {
    let options = OpenOptions { access: Access::ReadOnly, ..OpenOptions::default() };
    let store = Store::open(&wanted.store, &options)
        .map_err(|e| Refusal::new(Step::Structure, e.family(), e.to_string()))?;
    let view = store.view();
    let caller = |reason: String| Refusal::new(Step::Structure, Family::Caller, reason);
    let kind = wanted.kind;
    let entries = &view.opened().layout.entries;
    let at_number = |number: u64| {
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        match at.and_then(|at| entries.get(at)) {
            Some(Entry::Segment(segment)) => Some((number, segment)),
            _ => None,
        }
    };
    // What is listed and not there is no reason to run something older instead.
    let mut listed: Vec<(u64, &Segment)> = Vec::new();
    let directory = view.opened().manifest.iter().flat_map(|located| &located.manifest.directory);
    for entry in directory.filter(|entry| entry.kind() == kind.segment_type()) {
        let found = |e: &Entry| matches!(e, Entry::Segment(s) if s.offset == entry.offset);
        let at = entries.iter().position(found).and_then(|at| at_number(at as u64 + 1));
        let Some(found) = at.filter(|(_, segment)| segment.kind() == kind.segment_type()) else {
            let reason = format!("a {kind} segment is listed at offset {}, and none is there", entry.offset);
            return Err(corrupt(Step::Structure, reason));
        };
        listed.push(found);
    }
    let word = |segment: &Segment| {
        Facts::of(kind, segment.payload_of(view.bytes())).map(|facts| facts.word()).unwrap_or("")
    };
    let programs = view.programs();
    let called = |name: &str| {
        let of_kind = programs.iter().filter(|program| program.segment.kind() == kind.segment_type());
        let mut newest_first = of_kind.rev();
        let found = newest_first.find(|program| program.name.as_deref() == Some(name))?;
        let at =
            entries.iter().position(|e| matches!(e, Entry::Segment(s) if s.offset == found.segment.offset));
        at.and_then(|at| at_number(at as u64 + 1))
    };
    let found = match &wanted.pick {
        Pick::First => listed.first().copied(),
        Pick::Segment(number) => at_number(*number),
        Pick::Entry(entry) => at_number(entry.segment),
        Pick::Name(name) => {
            let stem = name.rsplit_once('.').map_or(name.as_str(), |(stem, _)| stem);
            let place = name.split_once('-').map_or(name.as_str(), |(head, _)| head).parse::<u64>().ok();
            let of_role = || listed.iter().copied().find(|(_, segment)| word(segment) == stem);
            called(name).or_else(|| called(stem)).or_else(|| match place {
                Some(number) => at_number(number),
                None => of_role(),
            })
        }
    };
    let Some((number, segment)) = found else {
        let reason = match &wanted.pick {
            Pick::First => format!("the store carries no {kind} program"),
            Pick::Name(name) => {
                format!("the store carries no {kind} program named {}", name.escape_default())
            }
            Pick::Segment(number) => format!("the file has no segment {number}"),
            Pick::Entry(entry) => format!(
                "the file has no segment {} any more: it was rewritten, so look at the mount again",
                entry.segment
            ),
        };
        return Err(caller(reason));
    };
    if segment.kind() != kind.segment_type() {
        let holds = segment.kind().dir_name();
        let rewritten = match &wanted.pick {
            Pick::Entry(_) => ": the file was rewritten, so look at the mount again",
            _ => "",
        };
        return Err(caller(format!("segment {number} is of type {holds}, not {kind}{rewritten}")));
    }
    if let Pick::Entry(entry) = &wanted.pick
        && entry.offset != segment.offset
    {
        return Err(corrupt(
            Step::Structure,
            format!(
                "segment {number} begins at offset {}, the entry says {}: the file was rewritten, so look at the mount again",
                segment.offset, entry.offset
            ),
        ));
    }
    if !listed.iter().any(|(_, other)| other.offset == segment.offset) {
        return Err(corrupt(
            Step::Structure,
            format!("segment {number} is not listed: it was never committed, or taken out"),
        ));
    }
    let (most, length) = (max_payload(kind), segment.header.payload_len());
    if length > most {
        let reason = format!("segment {number} has {length} bytes; {most} are the most for {kind} programs");
        return Err(denied(Step::Structure, reason));
    }
    if segment.header.compression != 0 {
        let reason = format!("segment {number} is compressed, in a way that nobody has defined");
        return Err(corrupt(Step::Structure, reason));
    }
    let bytes = segment.payload_of(view.bytes());
    let payload = Sealed::copy("rvf-payload", bytes)
        .map_err(|e| environment(Step::Structure, format!("no sealed memory file: {e}")))?;
    if payload.bytes().len() as u64 != length {
        return Err(corrupt(Step::Structure, format!("segment {number} passes the end of the file")));
    }
    // What another program cut away meanwhile reads as zeros.
    view.check_whole().map_err(|e| Refusal::new(Step::Structure, e.family(), e.to_string()))?;
    let segment = segment.clone();
    Ok((view, number, segment, payload))
}

fn content(
    wanted: &Wanted,
    segment: &Segment,
    payload: &Sealed,
    integrity: Integrity,
    digest: &[u8; 32],
) -> Result<String, Refusal> {
    let fail = |reason: &str| Err(corrupt(Step::Content, reason));
    match checksum::verify(&segment.header, payload.bytes()) {
        ChecksumState::Ok => {}
        ChecksumState::Bad => return fail("the payload is not what its segment's checksum says"),
        ChecksumState::Unset => return fail("the segment has no checksum; embed the program again"),
        ChecksumState::Unsupported => {
            return fail("the segment's checksum is of a kind that nobody can check");
        }
    }
    if integrity == Integrity::Mismatch {
        return fail("the program is not what the hash in its header says");
    }
    if let Pick::Entry(entry) = &wanted.pick
        && entry.digest != *digest
    {
        return fail("the payload is not the one that the entry names; look at the mount again");
    }
    Ok(format!("sha3-256:{}; the header's hash of the program: {}", hex(digest), integrity.word()))
}

/// The trusted key that signed the payload, if one did and none is needed. A program of our `own` is as good as signed: it is
/// known by its bytes.
fn signature(
    wanted: &Wanted,
    view: &View,
    trust: &TrustStore,
    segment: &Segment,
    about: &Content,
    own: bool,
) -> Result<(Option<String>, String), Refusal> {
    let records: Vec<Signature> =
        view.signatures().into_iter().filter_map(|found| found.record.ok()).collect();
    let kind = segment.header.seg_type;
    let verdict = trust.judge_segment(&records, kind, about, view.file_id(), wanted.now_ns);
    let step = Step::Signature;
    let unused = trust.unused().first().map_or_else(String::new, |unused| {
        format!(" ({} is not used: {})", unused.path.display(), unused.reason)
    });
    let word = wanted.kind;
    let absent = match verdict {
        Some(Verdict::Valid { by }) => {
            let note = format!("valid, by trusted key '{by}'");
            return Ok((Some(by), note));
        }
        Some(Verdict::Invalid { reason }) => {
            return Err(corrupt(
                step,
                format!("a signature by a trusted key does not hold: {reason}{unused}"),
            ));
        }
        Some(_) => format!(
            "it is signed, but by no trusted key; put the maker's public key into {}{unused}",
            wanted.trust.first().map_or_else(String::new, |dir| dir.display().to_string())
        ),
        None => format!(
            "no signature speaks of these bytes; sign with: rvf sign STORE --key KEY --segment {word}{unused}"
        ),
    };
    if own {
        return Ok((
            Some("rvf-exec itself".into()),
            "none is needed: the program came with rvf-exec, byte for byte".into(),
        ));
    }
    if wanted.allow_unsigned && word == ExecKind::Ebpf {
        let reason = "--allow-unsigned is not enough for what is loaded into the running kernel, and the program is none of those \
             that come with rvf-exec";
        return Err(denied(step, format!("{reason}; {absent}")));
    }
    if wanted.allow_unsigned {
        return Ok((None, format!("passed over by --allow-unsigned: {absent}")));
    }
    Err(denied(step, absent))
}

fn bound(kernel: &KernelFacts, view: &View, policies: &Policies) -> Result<String, Refusal> {
    let step = Step::Binding;
    let Some(binding) = &kernel.binding else { return Ok("none".into()) };
    if binding.version != 1 {
        return Err(corrupt(
            step,
            format!("a binding of version {}; only version 1 is known", binding.version),
        ));
    }
    let mut notes = Vec::new();
    if binding.manifest_root_hash != [0; 32] {
        let matches = |bound| view.binding_hash(bound).map(|hash| hash == binding.manifest_root_hash);
        let fail = |e: rvf_cow::Error| Refusal::new(step, e.family(), e.to_string());
        if matches(Bound::Identity).map_err(fail)? {
            notes.push("to this file");
        } else if !view.is_child() && matches(Bound::Contents).map_err(fail)? {
            notes.push("to the contents of this file");
        } else {
            return Err(denied(
                step,
                "the kernel is bound to another file, or to contents that this one no longer has; embed it again with --bind",
            ));
        }
    }
    if binding.policy_hash != [0; 32] {
        if !policies.found.iter().any(|policy| policy.digest == binding.policy_hash) {
            return Err(denied(step, "the kernel is bound to a policy that is not in force here"));
        }
        notes.push("to a policy in force");
    }
    Ok(format!("bound {}", notes.join(" and ")))
}

/// The machine that this program was built for.
fn own_arch() -> Option<Arch> {
    Arch::from_name(std::env::consts::ARCH)
}

const FLAG_TEE: u32 = 1;
const FLAG_KVM: u32 = 1 << 1;

fn host(facts: &Facts) -> Result<String, Refusal> {
    let step = Step::Host;
    match &facts.of {
        FactsOf::Kernel(kernel) => {
            let own = std::env::consts::ARCH;
            let arch = kernel.arch.ok_or_else(|| {
                denied(
                    step,
                    format!("nothing says which machine the kernel is for (number {})", kernel.header.arch),
                )
            })?;
            if Some(arch) != own_arch() {
                return Err(denied(
                    step,
                    format!("the kernel is for {}, this machine is {own}", arch.name()),
                ));
            }
            if kernel.header.flags & FLAG_TEE != 0 && kernel.header.arch == arch.code() {
                return Err(denied(
                    step,
                    "the kernel asks for a trusted execution environment, which is not offered",
                ));
            }
            if kernel.header.flags & FLAG_KVM != 0
                && let Err(e) = File::options().read(true).write(true).open("/dev/kvm")
            {
                return Err(environment(step, format!("the kernel asks for KVM: /dev/kvm: {e}")));
            }
            // What a file may not say to a kernel, whoever signed it.
            rvf_kernel::vm::check_words(kernel.cmdline.as_bytes())
                .map_err(|e| denied(step, e.to_string()))?;
            Ok(format!("a kernel for {}", arch.name()))
        }
        FactsOf::Ebpf(ebpf) => {
            if cfg!(target_endian = "big") {
                return Err(denied(step, "the program is for little-endian machines"));
            }
            Ok(format!(
                "a program of type {}",
                ebpf.program_type.map_or("unknown", rvf_bpf::ProgramType::name)
            ))
        }
        FactsOf::Wasm(wasm) => {
            // wasm32 and bare tile: no system interface is needed.
            if !matches!(wasm.target, 0 | 4) {
                let reason =
                    format!("the module is for {}, whose system interface is not offered", wasm.target_name);
                return Err(denied(step, reason));
            }
            const OFFERED: [&str; 4] = ["simd", "bulk", "multi_value", "reftypes"];
            if let Some(odd) = wasm.features.iter().find(|feature| !OFFERED.contains(feature)) {
                return Err(denied(step, format!("the module needs '{odd}', which is not offered")));
            }
            Ok(format!("a module for {}", wasm.target_name))
        }
    }
}

fn handover(payload: &Sealed) -> Result<String, Refusal> {
    let fail = |e: std::io::Error| environment(Step::Handover, e.to_string());
    payload.recheck().map_err(fail)?;
    let read = payload.read_back().map_err(fail)?;
    // Sealed before it was hashed, so what it has now is what was hashed; the descriptor must give the same.
    if read != payload.bytes() {
        return Err(corrupt(Step::Handover, "the memory file is not what was checked"));
    }
    Ok(format!("{} sealed bytes, the same as were checked", read.len()))
}

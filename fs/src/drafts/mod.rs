//! Files that become commits: what is dropped into `ingest/`, and what is written to `vectors/ID` and
//! `metadata/ID.json`.
//!
//! What is written lies in a draft (memory, then an unlinked temporary file) until it is committed: at close, at
//! fsync, or when a temporary name is renamed to a real one. A draft with a temporary name is never committed by itself.
//!
//! The kernel sends a FLUSH for every descriptor that is closed, also for copies, also in child processes. A shell that
//! runs `{ cat a; cat b; } > ingest/x.jsonl` would commit half of the file if every FLUSH counted, so one counts only when
//! neither its process nor the one that opened the file has a further descriptor for it; the last close of all commits
//! what is left. A writer that was killed commits nothing: its files are closed for it, but they are not whole.

mod commit;
mod draft;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rvf_format::label;

use crate::data::rows::Format;
use crate::errno::Error;
use crate::node::{Place, ProgramKind};

pub use commit::Moment;
pub use draft::{Draft, DraftAttr, MAX_INGEST_BYTES, MAX_RECORD_BYTES};

/// Most drafts and receipts of one store.
const MAX_DRAFTS: usize = 100_000;

/// What a name in one of the directories means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameKind {
    /// Rows to ingest.
    Rows(Format),
    /// Ids for the file `NAME.npy` that comes later.
    Ids,
    /// One vector.
    Vector(u64),
    /// One metadata record.
    Record(u64),
    /// A program to embed.
    Program(ProgramKind),
    /// How the program `NAME` that comes later is to be embedded.
    Options,
    /// Waits to be renamed.
    Temporary,
}

/// What `name` in `place` means.
///
/// # Errors
/// [`Error::Invalid`] with the names that would do; it does not repeat this one.
pub fn name_kind(place: Place, name: &str) -> Result<NameKind, Error> {
    let temporary = is_temporary(name);
    match place {
        Place::Ingest if temporary => Ok(NameKind::Temporary),
        Place::Ingest if name.to_ascii_lowercase().ends_with(".ids.npy") => Ok(NameKind::Ids),
        Place::Ingest => Format::from_name(name).map(NameKind::Rows).ok_or_else(|| {
            Error::invalid(format!(
                "what is in it cannot be told from its name; use {}, or a temporary name (.NAME, NAME.tmp, NAME.part, NAME~) and rename it",
                Format::EXTENSIONS
            ))
        }),
        Place::Vectors => match parse_id(name) {
            Some(id) => Ok(NameKind::Vector(id)),
            None if temporary || is_stream_editors(name, "") => Ok(NameKind::Temporary),
            None => Err(Error::invalid(format!(
                "a name in vectors/ is a vector id, a whole number from 0 to {} without leading zeros",
                u64::MAX
            ))),
        },
        Place::Metadata => match name.strip_suffix(".json").and_then(parse_id) {
            Some(id) => Ok(NameKind::Record(id)),
            None if temporary || is_stream_editors(name, ".json") => Ok(NameKind::Temporary),
            None => Err(Error::invalid("a name in metadata/ is ID.json, such as 7.json")),
        },
        Place::Programs(_) if temporary => Ok(NameKind::Temporary),
        Place::Programs(_) if name.ends_with(".json") => Ok(NameKind::Options),
        Place::Programs(kind) => match label::check_name(program_stem(kind, name)) {
            Ok(()) => Ok(NameKind::Program(kind)),
            Err(why) => Err(Error::invalid(of_another_kind(kind, name).unwrap_or_else(|| why.to_owned()))),
        },
        Place::Top => Err(Error::denied(
            "nothing can be created here; drop data into ingest/, or write vectors/ID and metadata/ID.json",
        )),
    }
}

/// Where a program belongs whose name says so.
fn of_another_kind(here: ProgramKind, name: &str) -> Option<String> {
    let (_, suffix) = name.rsplit_once('.')?;
    let (kind, directory, _) =
        ProgramKind::ALL.into_iter().find(|(kind, _, end)| *kind != here && *end == suffix)?;
    Some(format!("a name that ends in .{suffix} is that of {}, which goes to {directory}/", kind.image()))
}

/// What a program is called whose file is called so: the suffix that images have here is no part of it.
#[must_use]
pub fn program_stem(kind: ProgramKind, name: &str) -> &str {
    let stem = name.strip_suffix(kind.suffix()).and_then(|stem| stem.strip_suffix('.'));
    stem.filter(|stem| !stem.is_empty()).unwrap_or(name)
}

/// The names under which `sed -i` writes what it renames then: `sedXXXXXX`, and busybox's `NAMEXXXXXX`.
fn is_stream_editors(name: &str, extension: &str) -> bool {
    let Some((stem, random)) = name.len().checked_sub(6).and_then(|at| name.split_at_checked(at)) else {
        return false;
    };
    random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && random.bytes().any(|byte| byte.is_ascii_alphabetic())
        && (stem == "sed" || stem.strip_suffix(extension).is_some_and(|id| parse_id(id).is_some()))
}

/// The id that a name is, in the one form that is accepted.
#[must_use]
pub fn parse_id(name: &str) -> Option<u64> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    let plain = name == "0" || !name.starts_with('0');
    (digits && plain && !name.is_empty()).then(|| name.parse().ok()).flatten()
}

/// Names that editors, rsync and download tools use until a file is whole.
fn is_temporary(name: &str) -> bool {
    const SUFFIXES: [&str; 8] =
        ["~", ".tmp", ".temp", ".part", ".partial", ".filepart", ".swp", ".crdownload"];
    let lower = name.to_ascii_lowercase();
    // vim writes a file of this name to see whether a directory can be written.
    name.starts_with('.')
        || lower.starts_with("tmp.")
        || name == "4913"
        || SUFFIXES.iter().any(|end| lower.ends_with(end))
}

/// The drafts and receipts of one store.
#[derive(Debug, Default)]
pub struct Drafts {
    table: Mutex<Table>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Table {
    by_name: BTreeMap<(Place, String), Arc<Draft>>,
    by_id: BTreeMap<u64, Arc<Draft>>,
}

impl Drafts {
    /// The draft of that name.
    #[must_use]
    pub fn named(&self, place: Place, name: &str) -> Option<Arc<Draft>> {
        self.table.lock().by_name.get(&(place, name.to_owned())).cloned()
    }

    /// The draft of that number, also after its name is gone, while anybody has it open.
    #[must_use]
    pub fn numbered(&self, id: u64) -> Option<Arc<Draft>> {
        self.table.lock().by_id.get(&id).cloned()
    }

    /// Names in a directory.
    #[must_use]
    pub fn list(&self, place: Place) -> Vec<(String, u64)> {
        let table = self.table.lock();
        let here = table.by_name.range((place, String::new())..).take_while(|((at, _), _)| *at == place);
        here.map(|((_, name), draft)| (name.clone(), draft.id)).collect()
    }

    /// The draft of that name, made if there is none; `true` when it was.
    ///
    /// # Errors
    /// [`Error::TooLarge`] when there are too many.
    pub fn get_or_make(&self, place: Place, name: &str) -> Result<(Arc<Draft>, bool), Error> {
        let mut table = self.table.lock();
        if let Some(draft) = table.by_name.get(&(place, name.to_owned())) {
            return Ok((draft.clone(), false));
        }
        if table.by_id.len() >= MAX_DRAFTS {
            return Err(Error::TooLarge {
                what: format!("{MAX_DRAFTS} files and receipts are here already; remove some (rm ingest/*)"),
            });
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let draft = Arc::new(Draft::new(id, place, name));
        table.by_name.insert((place, name.to_owned()), draft.clone());
        table.by_id.insert(id, draft.clone());
        Ok((draft, true))
    }

    /// Takes a name away. What is open stays readable until it is closed, and is never committed.
    pub fn remove(&self, draft: &Draft) {
        let mut table = self.table.lock();
        let mut state = draft.state.lock();
        state.removed = true;
        let key = (draft.place, state.name.clone());
        if table.by_name.get(&key).is_some_and(|other| other.id == draft.id) {
            table.by_name.remove(&key);
        }
        if state.handles == 0 {
            table.by_id.remove(&draft.id);
        }
    }

    /// Takes the name of a refused draft away at once; its handles may go on with it.
    pub fn hide(&self, draft: &Draft) {
        let mut table = self.table.lock();
        let key = (draft.place, draft.state.lock().name.clone());
        if table.by_name.get(&key).is_some_and(|other| other.id == draft.id) {
            table.by_name.remove(&key);
        }
    }

    /// Gives a draft that was hidden its name again, unless another has it by now.
    fn show(&self, draft: &Arc<Draft>) {
        let mut table = self.table.lock();
        let key = (draft.place, draft.state.lock().name.clone());
        table.by_name.entry(key).or_insert_with(|| draft.clone());
    }

    /// Gives a draft another name, replacing what had it.
    pub fn rename(&self, draft: &Arc<Draft>, name: &str) {
        let mut table = self.table.lock();
        let old = std::mem::replace(&mut draft.state.lock().name, name.to_owned());
        let key = (draft.place, old);
        if table.by_name.get(&key).is_some_and(|other| other.id == draft.id) {
            table.by_name.remove(&key);
        }
        if let Some(replaced) = table.by_name.insert((draft.place, name.to_owned()), draft.clone())
            && replaced.id != draft.id
        {
            let mut state = replaced.state.lock();
            state.removed = true;
            if state.handles == 0 {
                table.by_id.remove(&replaced.id);
            }
        }
    }

    /// A handle was closed for good.
    pub fn closed(&self, draft: &Arc<Draft>) {
        let mut table = self.table.lock();
        let mut state = draft.state.lock();
        state.handles = state.handles.saturating_sub(1);
        if state.handles > 0 {
            return;
        }
        // Vectors and records live in the store once they are committed, and nowhere when they were refused. In
        // ingest/ a receipt stays, and so does what waits for its real name or for the file it belongs to.
        let waits = match name_kind(draft.place, &state.name) {
            Ok(NameKind::Temporary) => true,
            Ok(NameKind::Ids | NameKind::Options) => !state.refused,
            Ok(NameKind::Rows(_)) => state.receipt.is_some(),
            Ok(NameKind::Vector(_) | NameKind::Record(_) | NameKind::Program(_)) | Err(_) => false,
        };
        let key = (draft.place, state.name.clone());
        let named = table.by_name.get(&key).is_some_and(|other| other.id == draft.id);
        // One that lost its name, because it was refused, removed or its writer was killed, can never be reached again.
        if !waits || !named || state.removed {
            drop(state);
            if named {
                table.by_name.remove(&key);
            }
            table.by_id.remove(&draft.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_say() {
        let table = [
            (Place::Ingest, "a.npy", Some(NameKind::Rows(Format::Npy))),
            (Place::Ingest, "a.JSONL", Some(NameKind::Rows(Format::Jsonl))),
            (Place::Ingest, "a.ids.npy", Some(NameKind::Ids)),
            (Place::Ingest, ".a.npy.Xy12zZ", Some(NameKind::Temporary)),
            (Place::Ingest, "a.npy~", Some(NameKind::Temporary)),
            (Place::Ingest, "a.npy.part", Some(NameKind::Temporary)),
            (Place::Ingest, "tmp.Ab3", Some(NameKind::Temporary)),
            (Place::Ingest, "a.txt", None),
            (Place::Ingest, "a", None),
            (Place::Vectors, "0", Some(NameKind::Vector(0))),
            (Place::Vectors, "18446744073709551615", Some(NameKind::Vector(u64::MAX))),
            (Place::Vectors, "18446744073709551616", None),
            (Place::Vectors, "007", None),
            (Place::Vectors, "-1", None),
            (Place::Vectors, ".7.swp", Some(NameKind::Temporary)),
            (Place::Vectors, "sedAb12xY", Some(NameKind::Temporary)),
            (Place::Vectors, "7Ab12xY", Some(NameKind::Temporary)),
            (Place::Vectors, "seventy", None),
            (Place::Metadata, "7.jsonAb12xY", Some(NameKind::Temporary)),
            (Place::Metadata, "7.jsonAb12x", None),
            (Place::Metadata, "7.json", Some(NameKind::Record(7))),
            (Place::Metadata, "7", None),
            (Place::Metadata, "7.json~", Some(NameKind::Temporary)),
            (Place::Top, "x", None),
            (Place::Programs(ProgramKind::Kernel), "bzImage", Some(NameKind::Program(ProgramKind::Kernel))),
            (Place::Programs(ProgramKind::Kernel), "linux.bin", Some(NameKind::Program(ProgramKind::Kernel))),
            (Place::Programs(ProgramKind::Ebpf), "x.o", Some(NameKind::Program(ProgramKind::Ebpf))),
            (Place::Programs(ProgramKind::Ebpf), "x.json", Some(NameKind::Options)),
            (Place::Programs(ProgramKind::Ebpf), "x.o.part", Some(NameKind::Temporary)),
            (Place::Programs(ProgramKind::Wasm), ".wasm", Some(NameKind::Temporary)),
            (Place::Programs(ProgramKind::Wasm), "x.o", None),
            (Place::Programs(ProgramKind::Wasm), "error", None),
            (Place::Programs(ProgramKind::Ebpf), "x.o.o", None),
        ];
        for (place, name, kind) in table {
            assert_eq!(name_kind(place, name).ok(), kind, "{place:?} {name}");
        }
    }

    #[test]
    fn names_say_where_a_program_belongs() {
        let why = |kind, name| name_kind(Place::Programs(kind), name).expect_err(name).to_string();
        assert!(why(ProgramKind::Ebpf, "ok.wasm").ends_with("a WASM module, which goes to wasm/"));
        assert!(why(ProgramKind::Wasm, "prog.o").ends_with("an eBPF object, which goes to ebpf/"));
        assert!(why(ProgramKind::Ebpf, "vmlinuz.bin").ends_with("a kernel image, which goes to kernel/"));
        assert!(why(ProgramKind::Ebpf, "-x").starts_with("a name of a program begins"));
        // One suffix is taken off.
        assert!(why(ProgramKind::Ebpf, "x.o.o").starts_with("a name of a program is not"));
    }

    #[test]
    fn a_draft_takes_writes_in_any_order_and_spills_to_a_file() {
        let drafts = Drafts::default();
        let (draft, made) = drafts.get_or_make(Place::Ingest, ".x").expect("a draft");
        assert!(made);
        let dir = std::env::temp_dir();
        draft.opened(true, false);
        draft.write(5, b"world", &dir).expect("a write");
        draft.write(0, b"hello", &dir).expect("a write");
        let mut out = Vec::new();
        draft.read(0, 100, &mut out).expect("a read");
        assert_eq!(out, b"helloworld");
        let big = vec![7_u8; 3 << 20];
        draft.write(1 << 20, &big, &dir).expect("a write");
        assert_eq!(draft.attr().len, 4 << 20);
        out.clear();
        draft.read(0, 12, &mut out).expect("a read");
        assert_eq!(out, b"helloworld\0\0");
        out.clear();
        draft.read((4 << 20) - 2, 100, &mut out).expect("a read");
        assert_eq!(out, [7, 7]);
        draft.truncate(3).expect("a cut");
        out.clear();
        draft.read(0, 100, &mut out).expect("a read");
        assert_eq!(out, b"hel");
        assert!(matches!(draft.write(MAX_INGEST_BYTES, b"x", &dir), Err(Error::TooLarge { .. })));
        assert!(matches!(draft.truncate(u64::MAX), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn renaming_and_removing_keep_the_table_small() {
        let drafts = Drafts::default();
        let (a, _) = drafts.get_or_make(Place::Ingest, ".a").expect("a draft");
        let (b, _) = drafts.get_or_make(Place::Ingest, ".b").expect("a draft");
        drafts.rename(&a, ".b");
        assert_eq!(drafts.list(Place::Ingest), vec![(".b".to_owned(), a.id)]);
        assert!(drafts.numbered(b.id).is_none(), "replaced and not open: gone");
        a.opened(true, false);
        drafts.remove(&a);
        assert!(drafts.list(Place::Ingest).is_empty());
        assert!(drafts.numbered(a.id).is_some(), "open: still there by number");
        drafts.closed(&a);
        assert!(drafts.numbered(a.id).is_none());
    }
}

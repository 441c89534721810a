//! `ctl`: write one verb a line; reading lists the verbs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rvf_cow::{Access, BranchOptions, OpenOptions, ReindexOptions, SignOptions, Store, Target};
use rvf_crypto::SecretKey;

use crate::branches::table::What;
use crate::errno::Error;
use crate::store_dir::{self, StoreDir};
use crate::sys;
use crate::tree::Tree;

/// What reading `ctl` gives.
pub const HELP: &str = "\
compact              rewrite the file without deleted vectors and superseded metadata
reindex [KEY=VALUE]  build the search index: m=16 ef_construction=200 threads=0 seed=42
delete ID...         delete vectors by id, in one commit
branch NAME [FROM]   make branches/NAME, a copy-on-write branch of this store, or of branches/FROM
freeze               refuse every later change of this store, for good
merge                fold this branch into its parent; refused whole when both changed the same vectors
sign KEYFILE         sign the file as it is now with your key of `rvf keygen`, by its absolute path
sign KEYFILE segment=TYPE|NUMBER...  sign these segments instead: all of a type, such as wasm, or one as in segments/
verify               check every checksum and the witness chain; fails when something is damaged
refresh              look at the file again (other programs' changes are noticed by themselves)
checkpoint           save which vectors queries found most often (HOT and SKETCH segments), and sync the file
# a trailing & answers at once and leaves the work to the background; status and events show it
";

/// Longest line.
pub const MAX_LINE: usize = 64 * 1024;

/// One verb with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Rewrite the file without what is dead.
    Compact,
    /// Build the search index.
    Reindex {
        /// Links a node on the upper layers.
        m: usize,
        /// Width of the building search.
        ef_construction: usize,
        /// Threads; 0 means all.
        threads: usize,
        /// Seed of the level draw.
        seed: u64,
    },
    /// Delete vectors.
    Delete(Vec<u64>),
    /// Make a branch.
    Branch {
        /// Its name.
        name: String,
        /// The branch it is made from, if not the store itself.
        from: Option<String>,
    },
    /// Refuse every later change.
    Freeze,
    /// Fold a branch into its parent.
    Merge,
    /// Sign.
    Sign {
        /// The secret key's file.
        key: PathBuf,
        /// Segments, by type or number; none for the file as it is now.
        segments: Vec<String>,
    },
    /// Check checksums and witness chain.
    Verify,
    /// Look at the file again.
    Refresh,
    /// Save access counts, and sync.
    Checkpoint,
}

/// A line of `ctl`, and whether it is to run in the background. Empty lines and comments are nothing.
///
/// # Errors
/// [`Error::Invalid`] with the verbs there are, or the argument that is wrong.
pub fn parse(line: &str) -> Result<Option<(Verb, bool)>, Error> {
    let line = line.trim();
    let (line, background) = match line.strip_suffix('&') {
        Some(rest) => (rest.trim_end(), true),
        None => (line, false),
    };
    let mut words = line.split_ascii_whitespace();
    let Some(verb) = words.next().filter(|word| !word.starts_with('#')) else { return Ok(None) };
    let parsed = match verb {
        "compact" => Verb::Compact,
        "reindex" => {
            let d = ReindexOptions::default();
            let (mut m, mut ef_construction, mut threads, mut seed) =
                (d.m, d.ef_construction, d.threads, d.seed);
            for word in words.by_ref() {
                let (key, value) = word.split_once('=').ok_or_else(|| bad_option(word))?;
                let number: u64 = value.parse().map_err(|_| bad_option(word))?;
                let size = usize::try_from(number).map_err(|_| bad_option(word))?;
                match key {
                    "m" if (2..=256).contains(&size) => m = size,
                    "ef_construction" if (1..=100_000).contains(&size) => ef_construction = size,
                    "threads" if size <= 1024 => threads = size,
                    "seed" => seed = number,
                    _ => return Err(bad_option(word)),
                }
            }
            Verb::Reindex { m, ef_construction, threads, seed }
        }
        "delete" => {
            let ids =
                words.by_ref().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()).map(|word| {
                    word.parse()
                        .map_err(|_| Error::invalid(format!("delete: '{}' is not an id", printable(word))))
                });
            let ids = ids.collect::<Result<Vec<u64>, Error>>()?;
            if ids.is_empty() {
                return Err(Error::invalid("delete: give one or more ids"));
            }
            Verb::Delete(ids)
        }
        "branch" => {
            let name = words.next().ok_or_else(|| Error::invalid("branch: give a name"))?.to_owned();
            Verb::Branch { name, from: words.next().map(str::to_owned) }
        }
        "freeze" => Verb::Freeze,
        "merge" => Verb::Merge,
        "sign" => {
            let key = words.next().map(PathBuf::from).filter(|path| path.is_absolute());
            // The daemon has another working directory than whoever writes here.
            let key = key.ok_or_else(|| Error::invalid("sign: give the absolute path of a secret key"))?;
            let segments = words.by_ref().map(|word| {
                let named = word.strip_prefix("segment=").filter(|named| !named.is_empty());
                named.map(str::to_owned).ok_or_else(|| {
                    Error::invalid(format!(
                        "sign: '{}' is not segment=TYPE or segment=NUMBER",
                        printable(word)
                    ))
                })
            });
            Verb::Sign { key, segments: segments.collect::<Result<_, Error>>()? }
        }
        "verify" => Verb::Verify,
        "refresh" => Verb::Refresh,
        "checkpoint" => Verb::Checkpoint,
        _ => {
            return Err(Error::invalid(format!(
                "'{}' is no verb; there are compact, reindex, delete, branch, freeze, merge, sign, verify, refresh and checkpoint",
                printable(verb)
            )));
        }
    };
    match words.next() {
        Some(word) => Err(Error::invalid(format!("{verb}: unexpected '{}'", printable(word)))),
        None => Ok(Some((parsed, background))),
    }
}

fn bad_option(word: &str) -> Error {
    Error::invalid(format!(
        "reindex: '{}' is not m=2..256, ef_construction=1..100000, threads=0..1024 or seed=N",
        printable(word)
    ))
}

fn printable(word: &str) -> String {
    word.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The key in a file, for a user. The daemon may be able to read more than the user: root and whoever runs it may name any file,
/// everybody else their own only, and they are told nothing about others, not even whether they are there.
fn key_of(user: u32, path: &Path) -> Result<SecretKey, Error> {
    let trusted = user == 0 || user == sys::ids().0;
    // What is looked at is what is read, whatever the name means by then.
    let opened = rvf_cow::open_file(path).map_err(|error| error.to_string());
    let key = opened.and_then(|(file, meta)| {
        if !trusted && meta.uid() != user {
            return Err("another user's file".to_owned());
        }
        SecretKey::read(file, path).map_err(|error| error.to_string())
    });
    key.map_err(|why| match trusted {
        true => Error::invalid(format!("sign: {why}")),
        false => Error::denied(
            "sign: the key must be a file that belongs to you and that nobody else may read (mode 600), as rvf keygen makes it",
        ),
    })
}

/// What these words mean of a store.
fn signed(dir: &StoreDir, segments: &[String]) -> Result<Target, Error> {
    if segments.is_empty() {
        return Ok(Target::File);
    }
    let view = dir.store.view();
    let mut offsets = Vec::new();
    for word in segments {
        let named = view.segments_named(word);
        if named.is_empty() {
            return Err(Error::invalid(format!(
                "sign: segment={}: no such segment; give a number as in segments/, or a type that the file has",
                printable(word)
            )));
        }
        offsets.extend(named);
    }
    offsets.sort_unstable();
    offsets.dedup();
    Ok(Target::Segments(offsets))
}

/// Runs a verb that `user` wrote to the `ctl` of a store of `tree`. Takes as long as it takes: runs on a worker.
///
/// # Errors
/// What the store refuses; [`Error::Checksum`] when `verify` finds damage; [`Error::NotPermitted`] for a key that is not the
/// user's.
pub fn run(tree: &Tree, dir: &Arc<StoreDir>, user: u32, verb: &Verb) -> Result<(), Error> {
    match verb {
        Verb::Compact => {
            dir.writable()?;
            let job = dir.job("compact");
            dir.store.compact(&job)?;
        }
        Verb::Reindex { m, ef_construction, threads, seed } => {
            let job = dir.job("reindex");
            let options = ReindexOptions {
                m: *m,
                ef_construction: *ef_construction,
                threads: *threads,
                seed: *seed,
                persist: !dir.settings.read_only,
                ..ReindexOptions::default()
            };
            dir.store.reindex(&options, &job)?;
        }
        Verb::Delete(ids) => {
            dir.writable()?;
            let report = dir.store.delete(ids)?;
            if report.deleted == 0 {
                return Err(Error::invalid("delete: no vector has one of these ids"));
            }
        }
        Verb::Branch { name, from } => {
            dir.mount_writable()?;
            branch(dir, name, from.as_deref())?;
        }
        Verb::Freeze => {
            dir.mount_writable()?;
            dir.store.freeze()?;
        }
        Verb::Merge => {
            dir.mount_writable()?;
            merge(tree, dir)?;
        }
        Verb::Sign { key, segments } => {
            dir.writable()?;
            let key = key_of(user, key)?;
            let target = signed(dir, segments)?;
            dir.store.sign(&key, &target, &SignOptions::default())?;
        }
        Verb::Verify => {
            let _job = dir.job("verify");
            return verify(dir);
        }
        Verb::Refresh => {
            dir.store.refresh()?;
        }
        Verb::Checkpoint => {
            if !dir.settings.read_only {
                dir.store.save_accesses(rvf_cow::HOT_VECTORS)?;
            }
            let file = dir.snap().view.file().clone();
            file.sync_all().map_err(|error| Error::io("syncing the file", error))?;
        }
    }
    Ok(())
}

fn branch(dir: &Arc<StoreDir>, name: &str, from: Option<&str>) -> Result<(), Error> {
    let own = dir.file_id();
    dir.branches.check_name(name)?;
    let path = dir.branches.family.path_of(name);
    if dir.branches.named(own, name).is_ok() {
        return Err(Error::Exists { what: format!("branches/{name} exists") });
    }
    let options = BranchOptions { name: name.to_owned(), ..BranchOptions::default() };
    let source = match from {
        None | Some("main") => dir.store.clone(),
        Some(from) => {
            let row = dir.branches.named(own, from).map_err(|_| no_branch(from))?;
            let What::File(found) = row.what else { return Err(no_branch(from)) };
            open_beside(dir, &found.path, Access::ReadOnly)?
        }
    };
    source.branch(&path, &options)?;
    dir.branches.family.changed();
    let file = path.display().to_string();
    dir.events.push("branch", dir.snap().view.epoch(), &[("file", &file)]);
    Ok(())
}

fn no_branch(name: &str) -> Error {
    Error::invalid(format!("branch: there is no branch '{}' to begin from", printable(name)))
}

fn open_beside(dir: &StoreDir, path: &Path, access: Access) -> Result<Arc<Store>, Error> {
    let options = OpenOptions { access, mmap: dir.settings.mmap, verify: false, ..OpenOptions::default() };
    Ok(Store::open(path, &options)?)
}

fn merge(tree: &Tree, dir: &Arc<StoreDir>) -> Result<(), Error> {
    let parent = dir.snap().view.parent_file().ok_or_else(|| {
        Error::invalid("merge: this store is no branch, so there is nothing to fold it into")
    })?;
    let parent = open_beside(dir, &parent, Access::ReadWrite)?;
    let report = dir.store.merge_into(&parent)?;
    if !report.conflicts.is_empty() {
        let ids: Vec<String> = report.conflicts.iter().take(20).map(conflicting).collect();
        let more = report.conflicts.len().saturating_sub(ids.len());
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        return Err(Error::Exists {
            what: format!(
                "merge: nothing was merged, because {} changed too what this branch changed: {}{more}",
                parent.path().display(),
                ids.join(", ")
            ),
        });
    }
    // What was merged is there when the writer looks, not only when the watch has come round to it.
    let merged = store_dir::file_id(&parent.view());
    for shown in tree.open_stores().into_iter().filter(|shown| shown.file_id() == merged) {
        if let Err(error) = shown.store.refresh() {
            tracing::warn!(path = %shown.store.path().display(), %error, "merged, but cannot be read back yet");
        }
    }
    let counts = [report.added, report.changed, report.removed].map(|count| count.to_string());
    let [added, changed, removed] = &counts;
    dir.events.push("merge", report.epoch, &[("added", added), ("changed", changed), ("removed", removed)]);
    Ok(())
}

/// An id, with the fields that both sides changed.
fn conflicting(conflict: &rvf_cow::Conflict) -> String {
    let parts = |change: &rvf_cow::Change| match change {
        rvf_cow::Change::Added => "added".to_owned(),
        rvf_cow::Change::Removed => "removed".to_owned(),
        rvf_cow::Change::Changed { vector, fields } => {
            let parts: Vec<&str> =
                vector.then_some("vector").into_iter().chain(fields.iter().map(String::as_str)).collect();
            parts.join("+")
        }
    };
    format!("{} (parent: {}, branch: {})", conflict.id, parts(&conflict.parent), parts(&conflict.branch))
}

fn verify(dir: &Arc<StoreDir>) -> Result<(), Error> {
    dir.store.verify_vectors()?;
    dir.look_again();
    let snap = dir.snap();
    let mut bad = Vec::new();
    for part in snap.list() {
        let Some(segment) = part.segment() else { continue };
        // Not from the cache: the file may have rotted since.
        if segment.verify(snap.view.bytes()) == rvf_format::ChecksumState::Bad {
            bad.push(part.name());
        }
    }
    let witness = crate::witness::verdict(&snap);
    let holds = !witness.starts_with("INVALID");
    let epoch = snap.view.epoch();
    let checked = snap.list().len().to_string();
    let damaged = if bad.is_empty() { "none".to_owned() } else { bad.join(" ") };
    dir.events.push(
        "verify",
        epoch,
        &[("segments", &checked), ("damaged", &damaged), ("witness", witness.trim_end())],
    );
    if !bad.is_empty() {
        return Err(Error::Checksum { what: format!("the checksum does not fit in {}", bad.join(", ")) });
    }
    if !holds {
        return Err(Error::Checksum { what: format!("witness chain: {}", witness.trim_end()) });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_understood() {
        let reindex = |m, ef_construction, threads, seed| Verb::Reindex { m, ef_construction, threads, seed };
        let table = [
            ("compact", Some((Verb::Compact, false))),
            ("  compact  & ", Some((Verb::Compact, true))),
            ("reindex", Some((reindex(16, 200, 0, 42), false))),
            ("reindex m=8 seed=7 &", Some((reindex(8, 200, 0, 7), true))),
            ("delete 1 2,3", Some((Verb::Delete(vec![1, 2, 3]), false))),
            ("verify", Some((Verb::Verify, false))),
            ("branch a", Some((Verb::Branch { name: "a".into(), from: None }, false))),
            ("branch a b &", Some((Verb::Branch { name: "a".into(), from: Some("b".into()) }, true))),
            ("freeze", Some((Verb::Freeze, false))),
            ("merge", Some((Verb::Merge, false))),
            ("sign /k", Some((Verb::Sign { key: "/k".into(), segments: Vec::new() }, false))),
            (
                "sign /k segment=wasm segment=7 &",
                Some((Verb::Sign { key: "/k".into(), segments: vec!["wasm".into(), "7".into()] }, true)),
            ),
            ("", None),
            ("# note", None),
        ];
        for (line, want) in table {
            assert_eq!(parse(line).expect(line), want, "{line}");
        }
    }

    #[test]
    fn nonsense_names_itself() {
        for line in [
            "frobnicate",
            "compact now",
            "reindex m=0",
            "reindex 5",
            "delete",
            "branch",
            "branch a b c",
            "freeze now",
            "delete x",
            "verify\u{7} x",
            "sign",
            "sign k",
            "sign /k l",
            "sign /k segment=",
            "sign segment=wasm",
        ] {
            let error = parse(line).expect_err(line);
            assert!(matches!(error, Error::Invalid { .. }), "{line}");
        }
        let words = parse("x").expect_err("no verb").to_string();
        assert_eq!(
            words,
            "'x' is no verb; there are compact, reindex, delete, branch, freeze, merge, sign, verify, refresh and checkpoint"
        );
    }

    #[test]
    fn every_listed_verb_parses() {
        for line in HELP.lines().filter(|line| !line.starts_with('#')) {
            let verb = line.split_whitespace().next().expect("a verb");
            let line = match verb {
                "delete" | "branch" => format!("{verb} 1"),
                "sign" => format!("{verb} /key"),
                _ => verb.to_owned(),
            };
            assert!(parse(&line).expect("a verb").is_some(), "{line}");
        }
    }
}

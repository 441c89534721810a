//! Opening stores and input files for commands, and saying what is wrong with them.

use super::failure::Failure;
use super::output::note;
use rvf_cow::{Access, OpenOptions, Store, View};
use rvf_format::{FileBytes, Severity, codes};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Findings printed before the rest is only counted.
const SHOWN_FINDINGS: usize = 8;

/// For commands that write: how long to wait for another writer.
#[derive(Debug, clap::Args)]
pub(super) struct Waiting {
    /// Seconds to wait for another writer to finish
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    lock_wait: u64,
}

/// Opens a store for a command that only reads. A file that ends inside a segment, or in which no manifest counts,
/// is refused unless `recover` is set: it would show an older or empty state as if it were the newest.
///
/// # Errors
/// Whatever keeps the file from being read.
pub(super) fn reading(path: &Path, recover: bool) -> Result<Arc<Store>, Failure> {
    let store = glancing(path, recover)?;
    store.verify_vectors()?;
    warn(path, &store.view());
    Ok(store)
}

/// The same without looking at vectors and metadata: O(segments), for commands that need none of them.
///
/// # Errors
/// As [`reading`].
pub(super) fn glancing(path: &Path, recover: bool) -> Result<Arc<Store>, Failure> {
    let options = OpenOptions { access: Access::ReadOnly, verify: false, ..OpenOptions::default() };
    let store = Store::open(path, &options)?;
    let view = store.view();
    if !recover {
        if view.opened().tail.torn_at.is_some() {
            let text = format!(
                "{} ends inside a segment (truncated, partially downloaded, or an interrupted write); re-run with \
                 --recover to open the last committed snapshot",
                path.display()
            );
            return Err(Failure::coded(codes::TRUNCATED_SEGMENT, &text));
        }
        if view.opened().manifest.is_none() {
            let text = format!(
                "{}: no manifest counts, so what was committed is not known; re-run with --recover to see the {} \
                 vector(s) that can be read, or see `rvf check`",
                path.display(),
                view.live()
            );
            return Err(Failure::coded(codes::MANIFEST_NOT_FOUND, &text));
        }
    }
    Ok(store)
}

/// Opens a store for a command that changes it.
///
/// # Errors
/// Whatever keeps the file from being opened; a lock is only met when the command commits.
pub(super) fn writing(path: &Path, waiting: &Waiting) -> Result<Arc<Store>, Failure> {
    let store = appending(path, waiting)?;
    store.verify_vectors()?;
    warn(path, &store.view());
    Ok(store)
}

/// The same without looking at vectors and metadata, for commands that add a record and need none of them.
///
/// # Errors
/// As [`writing`].
pub(super) fn appending(path: &Path, waiting: &Waiting) -> Result<Arc<Store>, Failure> {
    let options = OpenOptions {
        access: Access::ReadWrite,
        lock_wait: Duration::from_secs(waiting.lock_wait),
        verify: false,
        ..OpenOptions::default()
    };
    Ok(Store::open(path, &options)?)
}

/// Says on stderr what is not in order, in the reference's words where it has them.
fn warn(path: &Path, view: &View) {
    let name = path.display();
    let tail = &view.opened().tail;
    if let Some(at) = tail.torn_at {
        note(&format!(
            "warning: {name}: the file ends inside a segment (offset {at}); serving the last committed snapshot and \
             ignoring {} trailing byte(s). This is the expected state after an interrupted write, but a truncated or \
             partially downloaded file looks the same.",
            tail.bytes_after_manifest
        ));
    }
    if view.has_metadata() {
        let state = view.metadata_state();
        if state.dropped_generations > 0 || state.dropped_records > 0 {
            note(&format!(
                "warning: {name}: metadata is damaged -- recovered generation {}, dropped {} generation(s) and {} \
                 record(s)",
                state.generation, state.dropped_generations, state.dropped_records
            ));
        }
    }
    let damage: Vec<_> = view.findings().iter().filter(|f| f.severity == Severity::Damage).collect();
    for finding in damage.iter().take(SHOWN_FINDINGS) {
        let mend = finding.mend.as_ref().map_or_else(String::new, |m| format!("; {m}"));
        note(&format!("warning: {name}: offset {}: {}{mend}", finding.offset, finding.text));
    }
    if damage.len() > SHOWN_FINDINGS {
        note(&format!("warning: {name}: {} more; see `rvf check`", damage.len() - SHOWN_FINDINGS));
    }
}

/// Reads an input file: mapped when it is a regular file, else read to its end (a pipe, `-` for stdin).
///
/// # Errors
/// The operating system's, with the path; a directory.
pub(super) fn input(path: &Path) -> Result<FileBytes, Failure> {
    Ok(input_file(path)?.0)
}

/// As [`input`], with the open file when it is a regular one: its name may come to mean another file at any time.
///
/// # Errors
/// As [`input`].
pub(super) fn input_file(path: &Path) -> Result<(FileBytes, Option<File>), Failure> {
    let whole = |mut from: Box<dyn Read>| {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|e| Failure::file(path, &e))?;
        Ok((FileBytes::from_vec(bytes), None))
    };
    if path.as_os_str() == "-" {
        return whole(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path).map_err(|e| Failure::file(path, &e))?;
    let meta = file.metadata().map_err(|e| Failure::file(path, &e))?;
    if meta.is_dir() {
        return Err(Failure::new(format!("{}: is a directory, not a file", path.display())));
    }
    if !meta.is_file() || meta.len() == 0 {
        return whole(Box::new(file));
    }
    let bytes = FileBytes::map(&file, meta.len()).map_err(|e| Failure::file(path, &e))?;
    Ok((bytes, Some(file)))
}

/// The bytes of a file that may or may not be a store. Only regular files: a FIFO would never end.
///
/// # Errors
/// The operating system's, with the path; anything that is not a regular file.
pub(super) fn store_bytes(path: &Path) -> Result<FileBytes, Failure> {
    let open = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open(path);
    let file = open.map_err(|e| Failure::file(path, &e))?;
    let meta = file.metadata().map_err(|e| Failure::file(path, &e))?;
    if !meta.is_file() {
        return Err(Failure::new(format!("{}: not a regular file", path.display())));
    }
    if meta.len() == 0 {
        return Ok(FileBytes::from_vec(Vec::new()));
    }
    FileBytes::map(&file, meta.len()).map_err(|e| Failure::file(path, &e))
}

/// Fails when a mapped input was cut short while it was read.
///
/// # Errors
/// It was.
pub(super) fn intact(path: &Path, bytes: &FileBytes) -> Result<(), Failure> {
    if bytes.is_poisoned() {
        return Err(Failure::new(format!(
            "{}: the file was cut short while it was being read",
            path.display()
        )));
    }
    Ok(())
}

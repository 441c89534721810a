//! The offline command `rvf`.
//!
//! Commands, flags, text and `--json` keys are the reference's where it has them; flags it lacks are added, none is
//! taken away. Data goes to stdout, everything else to stderr; a reader that closes the pipe early is no error.
//!
//! | exit | when |
//! | --- | --- |
//! | 0 | done |
//! | 1 | failed: one line `error: ...` on stderr, nothing was changed; `diff`: the stores differ |
//! | 2 | wrong usage; also `verify-witness` of records that nobody can verify, and `diff` that cannot compare |
//! | 3 | `verify-witness` or `check` found damage; `lineage --verify`: the proof does not hold; `verify`: a signature does not |
//! | 4 | another writer holds the lock |

mod branch;
mod check;
mod compact;
mod create;
mod delete;
mod derive;
mod diff;
mod embed;
mod export;
mod failure;
mod hot;
mod ingest;
mod launch;
mod lineage;
mod open;
mod output;
mod overlay;
mod progress;
mod query;
mod report;
mod serve;
mod sign;
mod witness;

use clap::{Parser, Subcommand};
use std::ffi::OsString;

pub use failure::Failure;

const EXIT_CODES: &str = "Exit status: 0 done, 1 failed, 2 wrong usage, 3 damage found by check or verify-witness, \
                          4 another writer holds the lock.";

#[derive(Debug, Parser)]
#[command(
    name = "rvf",
    version,
    about = "Create, fill, search and inspect .rvf vector stores",
    after_help = EXIT_CODES,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a new empty RVF store
    Create(create::Args),
    /// Add vectors from a .json, .jsonl, .csv, .npy or .fvecs file
    Ingest(ingest::Args),
    /// Find the nearest neighbours of one or more vectors
    Query(query::Args),
    /// Delete vectors by id or filter
    Delete(delete::Args),
    /// Show a store's status
    Status(report::StatusArgs),
    /// Show a store's segments and lineage
    Inspect(report::InspectArgs),
    /// Rewrite the file without what is dead in it
    Compact(compact::CompactArgs),
    /// Build the search index and store it in the file
    Reindex(compact::ReindexArgs),
    /// Make a copy-on-write child: a small file that shows what its parent holds now, to be changed on its own
    Branch(branch::BranchArgs),
    /// Make a child store: a clone, a part, a snapshot, a merge, or one that is rounded, reindexed or transformed
    Derive(derive::Args),
    /// Show where a store descends from; make or verify a proof of it
    Lineage(lineage::Args),
    /// Compare what two stores show, vector by vector
    Diff(diff::DiffArgs),
    /// Fold a branch into its parent
    Merge(diff::MergeArgs),
    /// Make a store read-only for good
    Freeze(branch::FreezeArgs),
    /// Record where a child's parent is now
    Reparent(branch::ReparentArgs),
    /// Make a key pair for signing
    Keygen(sign::KeygenArgs),
    /// Sign a store, or segments of it
    Sign(sign::SignArgs),
    /// Say what the signatures of a store are worth
    Verify(sign::VerifyArgs),
    /// Add low-rank changes to the vectors of a branch, stored as their factors
    Overlay(overlay::OverlayArgs),
    /// Count anew what a branch uses of its parent
    RebuildRefcounts(overlay::RefcountArgs),
    /// Embed a kernel image
    EmbedKernel(embed::KernelArgs),
    /// Embed an eBPF program
    EmbedEbpf(embed::EbpfArgs),
    /// Embed a WASM module
    EmbedWasm(embed::WasmArgs),
    /// Show which vectors queries find most often; count accesses
    Hot(hot::Args),
    /// Examine any file: dialect, every deviation, what is recoverable
    Check(check::Args),
    /// Write vectors, ids and metadata to ordinary files
    Export(export::Args),
    /// Answer queries over HTTP, read-only
    Serve(serve::Args),
    /// Boot the kernel that a store carries, to answer queries over HTTP
    Launch(launch::Args),
    /// Verify the chain of witness entries
    VerifyWitness(witness::Args),
}

/// Runs one command and returns the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help and version are answers; a closed pipe does not make them failures.
            let status = u8::try_from(e.exit_code()).unwrap_or(2);
            return if e.print().is_ok() || !e.use_stderr() { status } else { 2 };
        }
    };
    let mut out = output::Out::new();
    let result = match &cli.command {
        Command::Create(args) => create::run(args, &mut out),
        Command::Ingest(args) => ingest::run(args, &mut out),
        Command::Query(args) => query::run(args, &mut out),
        Command::Delete(args) => delete::run(args, &mut out),
        Command::Status(args) => report::status(args, &mut out),
        Command::Inspect(args) => report::inspect(args, &mut out),
        Command::Compact(args) => compact::compact(args, &mut out),
        Command::Reindex(args) => compact::reindex(args, &mut out),
        Command::Branch(args) => branch::branch(args, &mut out),
        Command::Derive(args) => derive::run(args, &mut out),
        Command::Lineage(args) => lineage::run(args, &mut out),
        Command::Diff(args) => diff::diff(args, &mut out),
        Command::Merge(args) => diff::merge(args, &mut out),
        Command::Freeze(args) => branch::freeze(args, &mut out),
        Command::Reparent(args) => branch::reparent(args, &mut out),
        Command::Keygen(args) => sign::keygen(args, &mut out),
        Command::Sign(args) => sign::sign(args, &mut out),
        Command::Verify(args) => sign::verify(args, &mut out),
        Command::Overlay(args) => overlay::overlay(args, &mut out),
        Command::RebuildRefcounts(args) => overlay::rebuild_refcounts(args, &mut out),
        Command::EmbedKernel(args) => embed::kernel(args, &mut out),
        Command::EmbedEbpf(args) => embed::ebpf(args, &mut out),
        Command::EmbedWasm(args) => embed::wasm(args, &mut out),
        Command::Hot(args) => hot::run(args, &mut out),
        Command::Check(args) => check::run(args, &mut out),
        Command::Export(args) => export::run(args, &mut out),
        Command::Serve(args) => serve::run(args, &mut out),
        Command::Launch(args) => launch::run(args),
        Command::VerifyWitness(args) => witness::run(args, &mut out),
    };
    // What was printed before a failure belongs before its message.
    let flushed = out.flush();
    let failure = match (result, flushed) {
        (Ok(()), Ok(())) => return 0,
        (Err(failure), _) | (Ok(()), Err(failure)) => failure,
    };
    if let Some(message) = &failure.message {
        output::note(&format!("error: {message}"));
    }
    failure.status
}

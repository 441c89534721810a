//! Running WASM modules, in a confined child process and there in a sandbox.
//!
//! The parent looks for the compiled module in the [`cache`]; the child takes that, or compiles, and hands what it compiled back
//! before it calls anything. The child has no files, no network, no capabilities, and a short list of system calls; the
//! module has no imports, and limits of memory, fuel, stack and time. When its time is up the child is killed; when the
//! parent dies, so does the child.

pub mod cache;
pub mod guest;
pub mod query;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::time::Duration;

use rvf_cow::View;
use rvf_cow::query::{DEFAULT_K, answer, render, request};
use rvf_crypto::sha3_256;
use wasmtime::{Engine, Module};

use crate::cache::Cache;
use crate::child::{self, End};
use crate::confine::{self, Calls, Confinement};
use crate::run::{Failure, LIMIT_STATUS, Run};
use crate::sealed::memory_file;
use cache::{Compiled, KIND};
use guest::{Guest, GuestError, Limits};

/// The arguments of WASM programs.
pub const HELP: &str = "\
arguments of wasm programs:
  QUERY                   find the nearest vectors: numbers separated by commas, or another form that query/in takes; without
                          QUERY it is read from stdin. For modules that export the query functions (rvf_abi)
  -k N                    how many (10)
  --invoke NAME [VALUES]  call the exported function NAME with these numbers, and print what it returns; all that follows NAME
                          are values, so options come before
  --fuel N                steps that it may take, about one an instruction (100000000000)
  --time-limit SECONDS    seconds that it may take (30)
  --memory MIB            memory that it may use (64)
  --no-cache              compile anew, and keep nothing";

const SEE: &str = "see rvf-exec --help-of wasm";
/// Bytes of memory that the engine itself may need, whatever the module gets.
const OWN_MEMORY: u64 = 512 << 20;

/// What a module is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Task {
    Query { text: Option<String>, k: Option<usize> },
    Invoke { name: String, values: Vec<String> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Arguments {
    task: Task,
    limits: Limits,
    time: Duration,
    cached: bool,
}

fn parse(arguments: &[OsString]) -> Result<Arguments, Failure> {
    let mut words = arguments.iter().map(|word| {
        let text = word.to_str().map(str::to_owned);
        text.ok_or_else(|| Failure::usage(format!("{} is not UTF-8", word.display())))
    });
    let mut limits = Limits::default();
    let (mut time, mut cached, mut text, mut k, mut invoke) = (30, true, None, None, None);
    while let Some(word) = words.next() {
        let word = word?;
        let mut number = |least: u64, most: u64| -> Result<u64, Failure> {
            let value =
                words.next().ok_or_else(|| Failure::usage(format!("{word} needs a value; {SEE}")))??;
            let parsed = value.parse().ok().filter(|n| (least..=most).contains(n));
            parsed.ok_or_else(|| {
                Failure::usage(format!("{word} {value}: a number from {least} to {most} is needed"))
            })
        };
        match word.as_str() {
            "-k" => k = Some(number(1, 1 << 20)? as usize),
            "--fuel" => limits.fuel = Some(number(1, u64::MAX)?),
            "--time-limit" => time = number(1, 86_400)?,
            "--memory" => limits.memory = number(1, 4096)? << 20,
            "--no-cache" => cached = false,
            "--invoke" => {
                let name =
                    words.next().ok_or_else(|| Failure::usage(format!("--invoke needs a name; {SEE}")))??;
                invoke = Some((name, words.by_ref().collect::<Result<Vec<String>, _>>()?));
            }
            // A number may be negative.
            option
                if option.starts_with('-')
                    && !option[1..].starts_with(|c: char| c.is_ascii_digit() || c == '.') =>
            {
                return Err(Failure::usage(format!("unknown argument {}; {SEE}", option.escape_default())));
            }
            _ if text.is_some() => {
                return Err(Failure::usage("one QUERY at a time; several come from stdin, a line each"));
            }
            _ => text = Some(word),
        }
    }
    let task = match invoke {
        Some(_) if text.is_some() || k.is_some() => {
            return Err(Failure::usage("--invoke takes all that follows it; a QUERY does not go with it"));
        }
        Some((name, values)) => Task::Invoke { name, values },
        None => Task::Query { text, k },
    };
    Ok(Arguments { task, limits, time: Duration::from_secs(time), cached })
}

/// Queries, read while files can still be read.
struct Queries {
    vectors: Vec<f32>,
    k: usize,
}

fn queries(view: &View, text: Option<&str>, k: Option<usize>) -> Result<Queries, Failure> {
    let bytes = match text {
        Some(text) => text.as_bytes().to_vec(),
        None => {
            let mut bytes = Vec::new();
            let most = request::MAX_REQUEST as u64 + 1;
            let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
            read.map_err(|e| Failure::failed(format!("stdin: {e}")))?;
            bytes
        }
    };
    let mut asked = request::parse(&bytes, view.dimension()).map_err(|e| Failure::usage(e.to_string()))?;
    if asked.filter.as_deref().is_some_and(|f| !f.is_empty()) || asked.fields.is_some() {
        return Err(Failure::usage("a module knows no metadata: leave out filter and fields"));
    }
    answer::look_up(view, &mut asked).map_err(|e| Failure::usage(e.to_string()))?;
    Ok(Queries { vectors: asked.vectors, k: k.or(asked.k).unwrap_or(DEFAULT_K) })
}

/// Runs a module.
///
/// # Errors
/// [`Failure`], with the status to end with.
pub fn run(run: Run) -> Result<u8, Failure> {
    let arguments = parse(&run.arguments)?;
    let verified = &run.verified;
    let view = &*verified.view;
    let queries = match &arguments.task {
        Task::Query { text, k } => {
            view.complete().map_err(|e| Failure::failed(e.to_string()))?;
            Some(queries(view, text.as_deref(), *k)?)
        }
        Task::Invoke { .. } => None,
    };
    let missing = |what: &'static str| move |e: io::Error| Failure::missing(format!("{what}: {e}"));
    let engine = guest::engine(&arguments.limits).map_err(failure)?;
    let key = cache::key(&engine, &sha3_256(verified.program()));
    // A cache that cannot be used costs time and nothing else.
    let place = Cache::place(&KIND).filter(|_| arguments.cached);
    let cache = place.and_then(|place| Cache::open(&KIND, &place).ok());
    let known = cache.as_ref().and_then(|cache| Compiled::kept(cache, &key));
    // Where the child puts what it compiled.
    let fresh = memory_file("rvf-compiled").map_err(missing("no memory file"))?;
    let owner = verified.file.metadata().map_err(missing("the store"))?;
    let confinement = Confinement {
        user: confine::lesser_user((owner.uid(), owner.gid())),
        limits: confine::Limits {
            data: Some(OWN_MEMORY + arguments.limits.memory + 32 * view.resolved().len()),
            cpu_seconds: Some(arguments.time.as_secs() + 1),
            files: Some(64),
            ..confine::Limits::default()
        },
        calls: Calls::Only(CALLS.to_vec()),
        ..Confinement::default()
    };
    let say = |text: &str| {
        if run.verbose {
            eprintln!("rvf-exec: confined: {text}");
        }
    };
    let work = || {
        let mut out = Vec::new();
        let done = in_child(&engine, &run, &arguments, known.as_ref(), &fresh, queries.as_ref(), &mut out);
        finish(done, &out)
    };
    let end = child::run(&confinement, arguments.time, say, work).map_err(missing("no child process"))?;
    if let (End::Exited(_), None, Some(cache)) = (end, &known, &cache)
        && let Some(code) = handed_back(&fresh)
    {
        // The next run will compile again.
        let _unkept = cache.put(&key, &code);
    }
    match end {
        End::Exited(status) => Ok(status),
        End::TimedOut => Err(Failure::limit(format!(
            "the module was stopped after {} s; --time-limit gives it more",
            arguments.time.as_secs()
        ))),
        End::Killed(signal) if signal == libc::SIGXCPU || signal == libc::SIGKILL => Err(Failure::limit(
            "the module was stopped: it used up its processor time or the machine's memory",
        )),
        End::Killed(signal) if signal == libc::SIGSYS => {
            Err(Failure::failed("the module's process was stopped at a system call that it may not make"))
        }
        End::Killed(signal) => {
            Err(Failure::failed(format!("the module's process was ended by signal {signal}")))
        }
    }
}

fn handed_back(file: &File) -> Option<Vec<u8>> {
    let len = file.metadata().ok()?.len();
    if len == 0 || len > KIND.most {
        return None;
    }
    let mut code = vec![0; usize::try_from(len).ok()?];
    file.read_exact_at(&mut code, 0).ok()?;
    Some(code)
}

fn in_child(
    engine: &Engine,
    run: &Run,
    arguments: &Arguments,
    known: Option<&Compiled>,
    fresh: &File,
    queries: Option<&Queries>,
    out: &mut Vec<u8>,
) -> Result<(), GuestError> {
    let module = module(engine, run.verified.program(), known, fresh)?;
    let mut guest = Guest::new(engine, &module, &arguments.limits)?;
    match (&arguments.task, queries) {
        (Task::Invoke { name, values }, _) => {
            let results = guest.invoke(name, values)?;
            out.extend_from_slice(results.join(" ").as_bytes());
            out.push(b'\n');
        }
        (Task::Query { .. }, Some(queries)) => {
            if !guest.exports(query::MARK) {
                return Err(GuestError::Missing(
                    "query functions; call one of its own with --invoke NAME".into(),
                ));
            }
            let view = &*run.verified.view;
            let mut module = query::Microkernel::new(&mut guest)?;
            let found = module.answer(view, &queries.vectors, queries.k)?;
            // What another program cut away meanwhile reads as zeros.
            view.check_chain().map_err(|e| GuestError::Engine(e.to_string()))?;
            render::text(&found, out);
        }
        (Task::Query { .. }, None) => {}
    }
    if run.verbose
        && let Some(fuel) = guest.used()
    {
        eprintln!("rvf-exec: fuel used: {fuel}");
    }
    Ok(())
}

/// The module, loaded if it was compiled before.
fn module(
    engine: &Engine,
    program: &[u8],
    known: Option<&Compiled>,
    fresh: &File,
) -> Result<Module, GuestError> {
    if let Some(module) = known.and_then(|known| known.load(engine).ok()) {
        return Ok(module);
    }
    let module = guest::compile(engine, program)?;
    // Before anything of the module runs.
    if let Ok(code) = module.serialize() {
        let _unkept = fresh.write_all_at(&code, 0);
    }
    Ok(module)
}

/// Prints, in the child, what was found or what went wrong; the status to end with.
fn finish(done: Result<(), GuestError>, out: &[u8]) -> u8 {
    match done {
        Ok(()) => match io::stdout().write_all(out).and_then(|()| io::stdout().flush()) {
            // A reader that went away is no error.
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                eprintln!("rvf-exec: cannot write the output: {e}");
                1
            }
            _ => 0,
        },
        Err(error) => {
            let failure = failure(error);
            eprintln!("rvf-exec: {}", failure.message);
            failure.status
        }
    }
}

fn failure(error: GuestError) -> Failure {
    let message = error.to_string();
    match error {
        GuestError::Limit(_) => Failure { status: LIMIT_STATUS, message },
        GuestError::Import(_) | GuestError::Missing(_) | GuestError::Module(_) | GuestError::Engine(_) => {
            Failure::missing(message)
        }
        _ => Failure::failed(message),
    }
}

/// What the child may call: memory, its own output, its own end. No file can be opened, no process reached.
const CALLS: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fstat,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_pwrite64,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

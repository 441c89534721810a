//! From an object to a program in the kernel.

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, PerCpuArray};
use aya::programs::{ProgramError, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use rvf_bpf::{Form, ProgramType};

use crate::facts::EbpfFacts;
use crate::run::Failure;

/// Lines of the verifier's log that are shown: its end says what was wrong.
const LOG_LINES: usize = 25;

/// What is set before a program is loaded.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The bytes of its constant `config`.
    pub config: Option<Vec<u8>>,
    /// Sizes of maps.
    pub entries: Vec<(&'static str, u32)>,
}

/// A program in the kernel, not attached to anything.
#[derive(Debug)]
pub struct Loaded {
    pub(super) ebpf: Ebpf,
    pub(super) program: String,
}

/// The kind of a program that is not ours, as it is attached.
///
/// # Errors
/// [`Failure`] for one that is not run here.
pub(super) fn kind_of(facts: &EbpfFacts, egress: bool) -> Result<ProgramType, Failure> {
    if facts.form != Form::Elf {
        return Err(Failure::refused(
            "bare instructions have no maps and no names; embed the ELF object instead",
        ));
    }
    match facts.program_type {
        Some(ProgramType::TcIngress) if egress => Ok(ProgramType::TcEgress),
        Some(
            kind @ (ProgramType::Xdp | ProgramType::TcIngress | ProgramType::TcEgress | ProgramType::Socket),
        ) => Ok(kind),
        other => Err(Failure::refused(format!(
            "programs of type {} are not run: only xdp, tc and socket filters, which see the traffic of one interface",
            other.map_or("unknown", ProgramType::name)
        ))),
    }
}

impl Loaded {
    /// Loads an object.
    ///
    /// # Errors
    /// [`Failure`]; when the verifier rejects the program, the end of its log is written to stderr first.
    pub fn new(
        object: &[u8],
        name: Option<&str>,
        kind: ProgramType,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let object: Cow<'_, [u8]> =
            rvf_bpf::for_loader(object).map_err(|e| Failure::refused(e.to_string()))?;
        let mut loader = EbpfLoader::new();
        // A map that is to stay in the filesystem after the end would: there is no such directory.
        loader.default_map_pin_directory(Path::new("/proc/self/none"));
        loader.verifier_log_level(VerifierLogLevel::DEBUG | VerifierLogLevel::STATS);
        if let Some(config) = &settings.config {
            loader.override_global("config", config.as_slice(), true);
        }
        for (map, entries) in &settings.entries {
            loader.map_max_entries(map, *entries);
        }
        let mut ebpf = loader.load(&object).map_err(refused)?;
        let program = choose(&ebpf, name, kind)?;
        let loaded = match (kind, ebpf.program_mut(&program)) {
            (ProgramType::Xdp, Some(aya::programs::Program::Xdp(xdp))) => xdp.load(),
            (ProgramType::Socket, Some(aya::programs::Program::SocketFilter(filter))) => filter.load(),
            (_, Some(aya::programs::Program::SchedClassifier(classifier))) => classifier.load(),
            _ => Err(ProgramError::UnexpectedProgramType),
        };
        loaded.map_err(|e| rejected(&program, e))?;
        Ok(Self { ebpf, program })
    }

    fn map(&mut self, name: &str) -> Result<&mut Map, Failure> {
        self.ebpf.map_mut(name).ok_or_else(|| Failure::failed(format!("the program has no map '{name}'")))
    }

    /// Puts values into an array, where all others are zeros: of a map that was just made.
    pub(super) fn fill<V: aya::Pod>(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = (u32, V)>,
    ) -> Result<(), Failure> {
        let failed = |e: aya::maps::MapError| Failure::failed(format!("filling the map '{name}': {e}"));
        let mut map: Array<_, V> = Array::try_from(self.map(name)?).map_err(failed)?;
        for (at, value) in values {
            map.set(at, value, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// Puts keys and values into a hash.
    pub(super) fn insert<K: aya::Pod, V: aya::Pod>(
        &mut self,
        name: &str,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), Failure> {
        let failed = |e: aya::maps::MapError| Failure::failed(format!("filling the map '{name}': {e}"));
        let mut map: HashMap<_, K, V> = HashMap::try_from(self.map(name)?).map_err(failed)?;
        for (key, value) in pairs {
            map.insert(key, value, 0).map_err(failed)?;
        }
        Ok(())
    }

    /// The counters of a program of ours, summed over the processors.
    ///
    /// # Errors
    /// [`Failure`] when the kernel does not let them be read.
    pub fn counters(&self, names: &[&'static str]) -> Result<Counters, Failure> {
        let failed = |e: &dyn fmt::Display| Failure::failed(format!("reading the counters: {e}"));
        let map = self.ebpf.map("counters").ok_or_else(|| failed(&"the program has none"))?;
        let map: PerCpuArray<_, u64> = PerCpuArray::try_from(map).map_err(|e| failed(&e))?;
        let mut counters = Vec::with_capacity(names.len());
        for (at, name) in (0..).zip(names) {
            let values = map.get(&at, 0).map_err(|e| failed(&e))?;
            counters.push((*name, values.iter().sum()));
        }
        Ok(Counters(counters))
    }

    /// Runs an XDP program once over a packet, without an interface.
    ///
    /// # Errors
    /// [`Failure`] when it is of another kind, or the kernel refuses.
    pub fn test_run(&self, packet: &[u8]) -> Result<TestRun, Failure> {
        let Some(aya::programs::Program::Xdp(xdp)) = self.ebpf.program(&self.program) else {
            return Err(Failure::failed("only XDP programs are run without an interface"));
        };
        let mut out = vec![0; 4096];
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            repeat: 1,
            ..TestRunOptions::default()
        };
        let result =
            xdp.test_run(options).map_err(|e| Failure::failed(format!("running the program: {e}")))?;
        out.truncate(result.data_size_out as usize);
        Ok(TestRun { verdict: result.return_value, packet: out, took: result.duration })
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// `XDP_PASS` is 2, `XDP_TX` 3, `XDP_DROP` 1.
    pub verdict: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// By the kernel's clock.
    pub took: Duration,
}

/// What a program counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters(pub Vec<(&'static str, u64)>);

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            write!(f, "{}{name} {value}", if at == 0 { "" } else { "  " })?;
        }
        Ok(())
    }
}

/// The one program of the kind, or the one that is named.
fn choose(ebpf: &Ebpf, name: Option<&str>, kind: ProgramType) -> Result<String, Failure> {
    use aya::programs::Program;
    let fits = |program: &Program| {
        matches!(
            (program, kind),
            (Program::Xdp(_), ProgramType::Xdp)
                | (Program::SocketFilter(_), ProgramType::Socket)
                | (Program::SchedClassifier(_), ProgramType::TcIngress | ProgramType::TcEgress)
        )
    };
    let mut names: Vec<&str> =
        ebpf.programs().filter(|(_, program)| fits(program)).map(|(name, _)| name).collect();
    names.sort_unstable();
    match (name, names.as_slice()) {
        (Some(name), names) if names.contains(&name) => Ok(name.to_owned()),
        (Some(name), names) => Err(Failure::usage(format!(
            "the object has no program '{name}' of type {}; it has: {}",
            kind.name(),
            names.join(", ")
        ))),
        (None, [only]) => Ok((*only).to_owned()),
        (None, []) => Err(Failure::refused(format!("the object has no program of type {}", kind.name()))),
        (None, several) => Err(Failure::usage(format!(
            "the object has several programs of type {}; choose one with --program: {}",
            kind.name(),
            several.join(", ")
        ))),
    }
}

/// Why an object was not taken, with every cause that is known.
fn refused(error: EbpfError) -> Failure {
    match error {
        EbpfError::ProgramError(error) => rejected("the program", error),
        error => Failure::failed(format!("the object cannot be loaded: {}", chain(&error))),
    }
}

/// Why the kernel did not take a program. The end of the verifier's log goes to stderr.
fn rejected(name: &str, error: ProgramError) -> Failure {
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return Failure::failed(format!("{name} cannot be loaded: {}", chain(&error)));
    };
    let log = verifier_log.to_string();
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return Failure::failed(format!("the kernel does not load {name}: {io_error}"));
    }
    let mut err = std::io::stderr().lock();
    for line in lines.iter().skip(lines.len().saturating_sub(LOG_LINES)) {
        // The log quotes names from the object.
        let line: String =
            line.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        let _gone = writeln!(err, "verifier: {line}");
    }
    let shown = lines.len().min(LOG_LINES);
    Failure::failed(format!(
        "the kernel's verifier rejected {name}: {io_error}; the last {shown} of {} lines of its log are above",
        lines.len()
    ))
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

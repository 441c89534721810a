//! Runs eBPF programs: loads, attaches, fills the maps from the store, serves until it is told to end, detaches.
//!
//! In this order, so that what is attached is never more than what was asked for, and nothing of it outlives the process:
//!
//! 1. what the program gets from the store is worked out, with no rights used;
//! 2. all rights but those that loading needs are given up, for good: root becomes another user, files and system calls are
//!    restricted, capabilities go;
//! 3. the maps of a program that is not ours are added up, and the program is loaded and its maps are filled; the kernel's verifier has the last word;
//! 4. it is attached by a link, or to a socket of this process. Both end with their descriptor, so the kernel detaches the
//!    program however this process ends. Where a kernel cannot do that, nothing is attached;
//! 5. the remaining capabilities are given up, and all files and system calls but those that the rest needs;
//! 6. it waits for SIGINT, SIGTERM or SIGHUP, or until the interface is gone, and prints the counters.
//!
//! Programs of ours ([`rvf_bpf::Builtin`]) are known by their bytes and get their maps filled. Others are loaded as they are, if a trusted
//! key signed them: a loaded program sees traffic and is only as good as the verifier, so `--allow-unsigned` is not enough.

mod attach;
mod fill;
mod load;
mod memory;
mod rights;
mod sys;

use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use clap::Parser as _;
use rvf_bpf::{Builtin, ProgramType, wire};

use crate::facts::FactsOf;
use crate::run::{Failure, Run};

pub use fill::{HotChoice, hot_set};
pub use load::{Counters, Loaded, TestRun};

/// Arguments of an eBPF program.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "rvf-exec STORE --kind ebpf --", no_binary_name = true, disable_version_flag = true)]
#[command(
    about = "Loads an eBPF program, attaches it to a network interface, and detaches it at the end (^C)"
)]
pub struct Args {
    /// Network interface to attach to
    #[arg(long, value_name = "IF")]
    pub iface: String,
    /// distance: UDP port of the queries; filter: UDP port of look-ups by id, 0 for none
    #[arg(long, default_value_t = wire::PORT)]
    pub port: u16,
    /// distance: how many of the hottest vectors answer [default: 256, or as many of the dimension as are taken]
    #[arg(long, value_name = "N")]
    pub hot: Option<usize>,
    /// XDP: in the kernel's network stack, for drivers that cannot run programs themselves; so it is on veth without being asked
    #[arg(long)]
    pub generic: bool,
    /// XDP: in the driver; on veth, answers arrive only where the other end has an XDP program too
    #[arg(long, conflicts_with = "generic")]
    pub native: bool,
    /// Traffic control: on what goes out instead of what comes in
    #[arg(long)]
    pub egress: bool,
    /// filter: what to do with packets to a port: PORT=drop, PORT=pass or PORT=IF to send them out of another interface
    #[arg(long, value_name = "PORT=ACTION")]
    pub rule: Vec<String>,
    /// filter: send look-ups of vectors that the store does not have out of this interface instead of dropping them
    #[arg(long, value_name = "IF")]
    pub elsewhere: Option<String>,
    /// ports: the ports to let through, separated by commas
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    pub allow: Vec<u16>,
    /// Programs of others: MiB of memory that their maps may take
    #[arg(long, default_value_t = 64, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub map_memory: u64,
    /// Which program of an object with several
    #[arg(long, value_name = "NAME")]
    pub program: Option<String>,
}

impl Args {
    /// An option that was given and that this program would not heed: a rule that is not in force must not look as if it were.
    fn stray(&self, builtin: Option<Builtin>) -> Option<&'static str> {
        let (distance, filter, ports) = match builtin {
            Some(builtin) => {
                (builtin == Builtin::Distance, builtin == Builtin::Filter, builtin == Builtin::Ports)
            }
            // What a program of others is for is not known.
            None => (false, false, false),
        };
        let other = builtin.is_none();
        let given = [
            (self.hot.is_some(), distance, "--hot"),
            (self.generic, distance || other, "--generic"),
            (self.native, distance || other, "--native"),
            (self.egress, filter || other, "--egress"),
            (!self.rule.is_empty(), filter, "--rule"),
            (self.elsewhere.is_some(), filter, "--elsewhere"),
            (!self.allow.is_empty(), ports, "--allow"),
        ];
        given.into_iter().find(|(given, heeded, _)| *given && !heeded).map(|(_, _, name)| name)
    }
}

/// The arguments, explained.
#[must_use]
pub fn help() -> String {
    use clap::CommandFactory as _;
    Args::command().render_help().to_string()
}

/// Runs a program to its end.
///
/// # Errors
/// [`Failure`], which says what is missing or was refused. Nothing is attached then.
pub fn run(run: &Run) -> Result<u8, Failure> {
    let (object, view) = (run.verified.program(), &run.verified.view);
    let FactsOf::Ebpf(facts) = &run.verified.facts.of else {
        return Err(Failure::failed("this is no eBPF program"));
    };
    let args = match Args::try_parse_from(&run.arguments) {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            print!("{error}");
            return Ok(0);
        }
        Err(error) => {
            let text = error.to_string();
            let said: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
            let said = said.join(" ");
            let said = said.trim_start_matches("error: ");
            return Err(Failure::usage(format!("{said}; --help lists the arguments")));
        }
    };
    let builtin = facts.builtin;
    if let Some(option) = args.stray(builtin) {
        let name = builtin.map_or(run.verified.name.as_str(), |builtin| builtin.name());
        return Err(Failure::usage(format!(
            "{name} has no use for {option}; --help lists what is for which program"
        )));
    }
    let kind = match builtin {
        Some(builtin) if builtin.program_type() == ProgramType::TcIngress && args.egress => {
            ProgramType::TcEgress
        }
        Some(builtin) => builtin.program_type(),
        None => load::kind_of(facts, args.egress)?,
    };
    // From here on these wait until they are asked for, so that no signal ends the process half way through.
    let signals =
        sys::Signals::block().map_err(|e| Failure::failed(format!("cannot wait for signals: {e}")))?;
    let interfaces =
        sys::Interfaces::open().map_err(|e| Failure::failed(format!("cannot ask for interfaces: {e}")))?;
    let interface = interfaces
        .number(&args.iface)
        .ok_or_else(|| Failure::failed(format!("there is no network interface '{}'", args.iface)))?;
    let plan = match builtin {
        Some(builtin) => fill::plan(builtin, view, &args, &interfaces)?,
        None => fill::Plan::none(),
    };
    let owner = run.verified.file.metadata().map_err(|e| Failure::missing(format!("the store: {e}")))?;
    let tell = |what: &str, applied: &dyn std::fmt::Display| {
        if run.verbose {
            let _gone = writeln!(io::stderr(), "rvf-exec: {what}: {applied}");
        }
    };
    tell("confined for loading", &rights::keep_for_loading(kind, (owner.uid(), owner.gid()))?);
    if builtin.is_none() {
        memory::check(object, args.map_memory << 20)?;
    }
    let mut loaded = plan.load(object, args.program.as_deref(), kind)?;
    // What the driver of a veth sends out is taken at the other end only where a program is attached there too.
    let generic = args.generic || (!args.native && interfaces.driver(&args.iface).as_deref() == Some("veth"));
    let attached = attach::attach(&mut loaded, kind, &args.iface, interface, generic)?;
    // What the counters need to be read later.
    aya::util::nr_cpus()
        .map_err(|(path, e)| Failure::missing(format!("the number of processors: {path}: {e}")))?;
    tell("attached; confined", &rights::give_up()?);

    let name = builtin.map_or(run.verified.name.as_str(), |builtin| builtin.name());
    let mode = if generic && kind == ProgramType::Xdp { ", generic" } else { "" };
    say(&format!("attached {name} to {} ({}{mode}){}; ^C detaches", args.iface, kind.name(), plan.note()))?;
    let ended = serve(&signals, attached.socket(), &interfaces, &args.iface, interface);
    drop(attached);
    if let Some(counters) = plan.counters(&loaded) {
        say(&counters?.to_string())?;
    }
    ended
}

/// Waits for a signal. What a packet socket gets is told, a line a packet.
fn serve(
    signals: &sys::Signals,
    mut socket: Option<&std::fs::File>,
    interfaces: &sys::Interfaces,
    name: &str,
    interface: u32,
) -> Result<u8, Failure> {
    let failed = |e: io::Error| Failure::failed(format!("waiting for the end: {e}"));
    let mut packet = vec![0; 1 << 16];
    loop {
        let woken = signals.wait(socket.map(|socket| socket.as_fd()), 1000).map_err(failed)?;
        if woken.signal {
            return Ok(0);
        }
        // No packet comes from one that is gone: who waits for them in vain asks.
        if !woken.other && interfaces.number(name) != Some(interface) {
            return Err(Failure::failed(format!("the network interface '{name}' is gone")));
        }
        if let Some(from) = socket.as_mut().filter(|_| woken.other) {
            match from.read(&mut packet) {
                Ok(len) => {
                    let line = sys::describe(packet.get(..len).unwrap_or(&[]));
                    say(&line)?;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // The interface went down; it may come up again, and is looked after above.
                Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    written.map_err(|e| Failure::failed(format!("cannot write the output: {e}")))
}

//! Booting an embedded kernel: a microVM around it whose only process serves the store, and whose only way to the world is
//! one forwarded port of this machine.
//!
//! 1. The parts are made ready: sealed image, initramfs (our guest program and the kernel's own modules), descriptors of the
//!    store's files.
//! 2. QEMU is started with nothing but these descriptors, and dies with this process whatever ends it. In the emulator it goes on
//!    from the state that an earlier boot of the very same parts left, if there is one, and leaves one if there is none.
//! 3. The guest says on its console that it answers, or why not. Only then is the port forwarded, and `listening on` printed.
//! 4. A signal, or the guest's own end, ends the machine.
//!
//! KVM is used where it works, which a probe finds out: a `/dev/kvm` that is there may still interpret every instruction.

mod arguments;
mod console;
mod inputs;
mod kvm;
mod launch;
mod machine;
mod memory;
mod parts;
mod qmp;
mod snapshot;
mod sys;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use rvf_kernel::vm::{Accelerator, GUEST_ADDRESS, GUEST_PORT, GuestArguments, Plan};

use crate::cache::Cache;
use crate::facts::{FactsOf, KernelFacts};
use crate::run::{Failure, Run};
use crate::verify::Verified;
use arguments::{Accel, Arguments};
use console::Word;
use launch::{Launch, Launched};
use machine::{Event, Machine};
use parts::Parts;
use snapshot::Place;

pub use arguments::HELP;

/// MiB of memory of a machine when nobody says how much: for a store whose files are small together, and for others. What is
/// kept and read again of a machine grows with its memory, used or not.
const MEMORY_MB: [u32; 2] = [128, 256];
/// Bytes of the largest small store.
const SMALL_STORE: u64 = 16 << 20;
/// How long a machine that was told to end may take.
const LAST_TIME: Duration = Duration::from_secs(3);

/// Boots a verified kernel, and serves until the machine ends. The status is 0 when it was ended by a signal or by itself.
///
/// # Errors
/// [`Failure`].
pub fn run(run: &Run) -> Result<u8, Failure> {
    let started = Instant::now();
    let arguments = Arguments::parse(&run.arguments).map_err(Failure::usage)?;
    let FactsOf::Kernel(kernel) = &run.verified.facts.of else {
        return Err(Failure::failed("this is no kernel"));
    };
    run.verified.view.complete().map_err(|e| Failure::failed(e.to_string()))?;
    let wanted = (arguments.port != 0).then_some(arguments.port);
    // Found out now rather than when the machine is up.
    drop(port(wanted)?);
    let say = |text: &str| {
        let _gone = writeln!(io::stderr(), "rvf-exec: {text}");
    };
    let say_more = |text: &str| {
        if run.verbose {
            say(text);
        }
    };
    // It is found out while the parts are made.
    let probe = (arguments.accel == Accel::Auto).then(kvm::Probe::start);
    let parts = Parts::collect(&run.verified, &arguments)?;
    say_more(&parts.said());
    let mut choice = match (arguments.accel, probe) {
        (Accel::Kvm, _) => (Accelerator::Kvm, None),
        (Accel::Auto, Some(probe)) => match probe.found() {
            Ok(found) => {
                say_more(&format!("KVM works: {found}"));
                (Accelerator::Kvm, None)
            }
            Err(reason) => (Accelerator::Tcg, Some(reason)),
        },
        (Accel::Auto | Accel::Tcg, _) => (Accelerator::Tcg, None),
    };
    let mut cached = arguments.cached;
    loop {
        let (accelerator, reason) = &choice;
        if let Some(reason) = reason {
            say(&format!("no KVM ({reason}); the machine is emulated, some ten times as slowly"));
        }
        let plan = plan(kernel, &parts, &arguments, *accelerator);
        let emulator = inputs::emulator(plan.program()).ok_or_else(|| {
            Failure::missing(format!("{} is not installed (Debian: qemu-system-x86)", plan.program()))
        })?;
        // Under KVM a boot takes little, and what a state depends on is more.
        let place = match cached && *accelerator == Accelerator::Tcg {
            true => place(&plan, &parts, &run.verified, &emulator).unwrap_or_else(|reason| {
                say(&format!("the machine's state is not kept: {reason}"));
                None
            }),
            false => None,
        };
        let launch = Launch {
            emulator: &emulator,
            plan: &plan,
            parts: &parts,
            arguments: &arguments,
            place: place.as_ref(),
            verbose: run.verbose,
        };
        let mut machine = match restored(&launch, &say)? {
            Some(Launched::Answers(machine)) => {
                say_more("it goes on from the state that an earlier boot left");
                machine
            }
            Some(Launched::Ended) => return Ok(0),
            Some(Launched::Not(_)) | None => match launch.boot(&run.verified.view)? {
                Launched::Answers(machine) => machine,
                Launched::Ended => return Ok(0),
                Launched::Not(reason) => match *accelerator {
                    Accelerator::Kvm if arguments.accel == Accel::Auto => {
                        choice = (Accelerator::Tcg, Some(reason));
                        continue;
                    }
                    Accelerator::Kvm => {
                        return Err(Failure::failed(format!("KVM cannot run the machine: {reason}")));
                    }
                    Accelerator::Tcg => {
                        say(&format!(
                            "the machine did not go on after its state was kept ({reason}); booting again"
                        ));
                        cached = false;
                        choice = (Accelerator::Tcg, None);
                        continue;
                    }
                },
            },
        };
        let port = forward(&mut machine, &arguments)?;
        let mut out = io::stdout();
        writeln!(out, "listening on {}:{port}", Ipv4Addr::LOCALHOST)
            .and_then(|()| out.flush())
            .map_err(|e| Failure::failed(format!("cannot write the output: {e}")))?;
        say_more(&format!("the guest answered {} ms after the checks", started.elapsed().as_millis()));
        return attend(&mut machine);
    }
}

fn plan(kernel: &KernelFacts, parts: &Parts, arguments: &Arguments, accelerator: Accelerator) -> Plan {
    let [small, large] = MEMORY_MB;
    let lens: Vec<u64> = parts.drives.iter().map(|drive| drive.len).collect();
    let usual = if lens.iter().sum::<u64>() <= SMALL_STORE { small } else { large };
    Plan {
        arch: kernel.arch.unwrap_or(rvf_kernel::Arch::X86_64),
        accelerator,
        firmware: arguments.firmware.unwrap_or(parts.firmware),
        memory_mb: arguments.memory_mb.unwrap_or_else(|| kernel.header.min_memory_mb.max(usual)),
        vcpus: arguments.vcpus.unwrap_or_else(|| kernel.header.vcpu_count.max(1)),
        file_cmdline: kernel.cmdline.as_bytes().to_vec(),
        guest: GuestArguments { lens, port: GUEST_PORT },
    }
}

/// The place for the machine's state; `None` where there is none for it, and nothing is wrong.
fn place(plan: &Plan, parts: &Parts, verified: &Verified, emulator: &Path) -> Result<Option<Place>, String> {
    let Some(directory) = Cache::place(&snapshot::KIND) else { return Ok(None) };
    let at = |e: io::Error| format!("{}: {e}", directory.display());
    let cache = Cache::open(&snapshot::KIND, &directory).map_err(at)?;
    let inputs = inputs::of(plan, parts, verified, emulator).map_err(|e| e.to_string())?;
    Ok(inputs.map(|inputs| Place { cache, inputs }))
}

/// The machine as an earlier boot left it; `None` where there is no such state, and what is wrong with one is said.
fn restored(launch: &Launch<'_>, say: &dyn Fn(&str)) -> Result<Option<Launched>, Failure> {
    let Some(place) = launch.place else { return Ok(None) };
    let unused =
        |reason: &str| say(&format!("the state of an earlier boot is not used: {reason}; booting anew"));
    match place.find() {
        Ok(None) => Ok(None),
        Ok(Some(kept)) => {
            let launched = launch.restore(kept)?;
            if let Launched::Not(reason) = &launched {
                unused(reason);
            }
            Ok(Some(launched))
        }
        Err(e) => {
            unused(&e.to_string());
            Ok(None)
        }
    }
}

/// Stays until the machine ends.
fn attend(machine: &mut Machine) -> Result<u8, Failure> {
    loop {
        let far = Instant::now() + Duration::from_secs(3600);
        match machine.wait(far).map_err(|e| Failure::failed(format!("cannot watch the machine: {e}")))? {
            Event::Signal => {
                machine.end(LAST_TIME);
                return Ok(0);
            }
            Event::Exited(_) if machine.ended_well() => return Ok(0),
            Event::Exited(how) => {
                let text = machine.last_words(&how);
                return Err(Failure::failed(format!("the machine ended: {text}")));
            }
            Event::Word(Word::Failed(reason)) => {
                return Err(Failure::failed(format!("the guest stopped serving: {reason}")));
            }
            Event::Word(Word::Ready { .. } | Word::Awake(_)) | Event::Deadline => {}
        }
    }
}
/// A port of this machine that is free now.
fn port(wanted: Option<u16>) -> Result<TcpListener, Failure> {
    let wanted = wanted.unwrap_or(0);
    TcpListener::bind((Ipv4Addr::LOCALHOST, wanted))
        .map_err(|e| Failure::failed(format!("cannot listen on {}:{wanted}: {e}", Ipv4Addr::LOCALHOST)))
}

/// Has QEMU forward the port.
fn forward(machine: &mut Machine, arguments: &Arguments) -> Result<u16, Failure> {
    let mut refused = String::new();
    // A free port may be taken by somebody else between being found and being used.
    for _ in 0..if arguments.port == 0 { 8 } else { 1 } {
        let number = match arguments.port {
            0 => {
                let listener = port(None)?;
                listener
                    .local_addr()
                    .map_err(|e| Failure::failed(format!("cannot find a free port: {e}")))?
                    .port()
            }
            given => given,
        };
        let rule =
            format!("hostfwd_add net tcp:{}:{number}-{GUEST_ADDRESS}:{GUEST_PORT}", Ipv4Addr::LOCALHOST);
        refused = machine
            .monitor(&rule)
            .map_err(|e| Failure::failed(format!("the machine's control channel: {e}")))?;
        if refused.trim().is_empty() {
            return Ok(number);
        }
    }
    Err(Failure::failed(format!("the port is not forwarded: {}", refused.trim())))
}

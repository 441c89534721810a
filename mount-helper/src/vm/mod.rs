//! Booting an embedded kernel: a microVM around it whose only process serves the store, and whose only way to the world is
//! one forwarded port of this machine.
//!
//! 1. The parts are made ready: sealed image, initramfs (our guest program and the kernel's own modules), the store's descriptor.
//! 2. QEMU is started with nothing but these descriptors, and dies with this process whatever ends it.
//! 3. The guest says on its console that it answers, or why not. Only then is the port forwarded, and `listening on` printed.
//! 4. A signal, or the guest's own end, ends the machine.
//!
//! KVM is used where it works, which a probe finds out: a `/dev/kvm` that is there may still interpret every instruction.

mod arguments;
mod console;
mod kvm;
mod machine;
mod parts;
mod qmp;
mod sys;

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use rvf_kernel::vm::{Accelerator, GUEST_ADDRESS, GUEST_PORT, GuestArguments, Plan};

use crate::facts::{FactsOf, KernelFacts};
use crate::run::{Failure, Run};
use arguments::{Accel, Arguments};
use console::Word;
use machine::{Event, Machine};
use parts::Parts;

pub use arguments::HELP;

/// MiB of memory of a machine when nobody says how much.
const MEMORY_MB: u32 = 256;
/// Without a byte on the console, a machine under KVM is taken for one that KVM cannot run.
const KVM_SILENCE: Duration = Duration::from_secs(2);
/// How long a machine that was told to end may take.
const LAST_TIME: Duration = Duration::from_secs(3);

/// Boots a verified kernel, and serves until the machine ends. The status is 0 when it was ended by a signal or by itself.
///
/// # Errors
/// [`Failure`].
pub fn run(run: &Run) -> Result<u8, Failure> {
    let arguments = Arguments::parse(&run.arguments).map_err(Failure::usage)?;
    let FactsOf::Kernel(kernel) = &run.verified.facts.of else {
        return Err(Failure::failed("this is no kernel"));
    };
    if run.verified.view.is_child() {
        return Err(Failure::failed(
            "the store shows vectors of its parent, which is not in the machine; make a whole one first: rvf derive -t clone",
        ));
    }
    let wanted = (arguments.port != 0).then_some(arguments.port);
    // Found out now rather than when the machine is up.
    drop(port(wanted)?);
    let parts = Parts::collect(&run.verified, &arguments)?;
    let say = |text: &str| {
        if run.verbose {
            let _gone = writeln!(io::stderr(), "rvf-exec: {text}");
        }
    };
    say(&parts.said());
    let mut choice = match arguments.accel {
        Accel::Tcg => (Accelerator::Tcg, None),
        Accel::Kvm => (Accelerator::Kvm, None),
        Accel::Auto => match kvm::probe() {
            Ok(found) => {
                say(&format!("KVM works: {found}"));
                (Accelerator::Kvm, None)
            }
            Err(reason) => (Accelerator::Tcg, Some(reason)),
        },
    };
    loop {
        let (accelerator, reason) = &choice;
        if let Some(reason) = reason {
            let _gone = writeln!(
                io::stderr(),
                "rvf-exec: no KVM ({reason}); the machine is emulated, some ten times as slowly"
            );
        }
        let plan = plan(kernel, &parts, &arguments, *accelerator);
        match serve(&plan, &parts, &arguments, run.verbose)? {
            Outcome::Ended => return Ok(0),
            Outcome::NotByKvm(reason) if arguments.accel == Accel::Auto => {
                choice = (Accelerator::Tcg, Some(reason));
            }
            Outcome::NotByKvm(reason) => {
                return Err(Failure::failed(format!("KVM cannot run the machine: {reason}")));
            }
        }
    }
}

fn plan(kernel: &KernelFacts, parts: &Parts, arguments: &Arguments, accelerator: Accelerator) -> Plan {
    Plan {
        arch: kernel.arch.unwrap_or(rvf_kernel::Arch::X86_64),
        accelerator,
        firmware: arguments.firmware.unwrap_or(parts.firmware),
        memory_mb: arguments.memory_mb.unwrap_or_else(|| kernel.header.min_memory_mb.max(MEMORY_MB)),
        vcpus: arguments.vcpus.unwrap_or_else(|| kernel.header.vcpu_count.max(1)),
        file_cmdline: kernel.cmdline.as_bytes().to_vec(),
        guest: GuestArguments { len: parts.store_len, port: GUEST_PORT },
    }
}

enum Outcome {
    Ended,
    NotByKvm(String),
}

/// Starts one machine and stays until it ends.
fn serve(plan: &Plan, parts: &Parts, arguments: &Arguments, verbose: bool) -> Result<Outcome, Failure> {
    let started = Instant::now();
    let deadline = started + arguments.boot_time;
    let by_kvm = plan.accelerator == Accelerator::Kvm;
    let mut machine = Machine::start(plan, parts, verbose)?;
    let silence = started + KVM_SILENCE;
    loop {
        let until = if by_kvm && machine.is_silent() { silence.min(deadline) } else { deadline };
        match machine.wait(until).map_err(|e| Failure::failed(format!("cannot watch the machine: {e}")))? {
            Event::Word(Word::Ready) => break,
            Event::Word(Word::Failed(reason)) => {
                return Err(Failure::failed(format!("the guest cannot serve: {reason}")));
            }
            Event::Signal => return Ok(Outcome::Ended),
            Event::Exited(how) if by_kvm => return Ok(Outcome::NotByKvm(machine.last_words(&how))),
            Event::Exited(how) => {
                let text = machine.last_words(&how);
                return Err(Failure::failed(format!("the machine ended before the guest answered: {text}")));
            }
            Event::Deadline if by_kvm && machine.is_silent() => {
                return Ok(Outcome::NotByKvm(format!(
                    "nothing on the console in {} s",
                    KVM_SILENCE.as_secs()
                )));
            }
            Event::Deadline if Instant::now() < deadline => {}
            Event::Deadline => {
                let text = machine.last_words("it still runs");
                let seconds = arguments.boot_time.as_secs();
                return Err(Failure::limit(format!(
                    "the guest did not answer within {seconds} s (--boot-timeout): {text}"
                )));
            }
        }
    }
    let port = forward(&mut machine, arguments)?;
    let mut out = io::stdout();
    writeln!(out, "listening on {}:{port}", Ipv4Addr::LOCALHOST)
        .and_then(|()| out.flush())
        .map_err(|e| Failure::failed(format!("cannot write the output: {e}")))?;
    if verbose {
        let _gone = writeln!(
            io::stderr(),
            "rvf-exec: the guest answered {} ms after its start",
            started.elapsed().as_millis()
        );
    }
    loop {
        let far = Instant::now() + Duration::from_secs(3600);
        match machine.wait(far).map_err(|e| Failure::failed(format!("cannot watch the machine: {e}")))? {
            Event::Signal => {
                machine.end(LAST_TIME);
                return Ok(Outcome::Ended);
            }
            Event::Exited(how) if machine.ended_well() => {
                drop(how);
                return Ok(Outcome::Ended);
            }
            Event::Exited(how) => {
                let text = machine.last_words(&how);
                return Err(Failure::failed(format!("the machine ended: {text}")));
            }
            Event::Word(Word::Failed(reason)) => {
                return Err(Failure::failed(format!("the guest stopped serving: {reason}")));
            }
            Event::Word(Word::Ready) | Event::Deadline => {}
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

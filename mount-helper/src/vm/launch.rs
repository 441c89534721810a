//! From nothing to a guest that answers: by a boot, or from the state that an earlier boot left.

use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rvf_cow::View;
use rvf_kernel::vm::{Accelerator, GUEST_VERSION, Plan, Wake};

use super::arguments::Arguments;
use super::console::Word;
use super::machine::{Event, Machine};
use super::parts::Parts;
use super::snapshot::{self, Place};
use crate::cache::Kept;
use crate::run::Failure;

/// Without a byte on the console, a machine under KVM is taken for one that KVM cannot run.
const KVM_SILENCE: Duration = Duration::from_secs(2);
/// How long a machine that goes on may take to say so. One that was not kept boots in less.
const WAKE_TIME: Duration = Duration::from_secs(10);

/// A machine that is to be made.
#[derive(Debug)]
pub(super) struct Launch<'a> {
    pub(super) emulator: &'a Path,
    pub(super) plan: &'a Plan,
    pub(super) parts: &'a Parts,
    pub(super) arguments: &'a Arguments,
    /// Where its state is kept.
    pub(super) place: Option<&'a Place>,
    pub(super) verbose: bool,
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Launched {
    /// The guest answers.
    Answers(Box<Machine>),
    /// A signal ended it.
    Ended,
    /// It is not to be had in this way, and why; another may do.
    Not(String),
}

impl Launch<'_> {
    /// Goes on from a state that was kept. Whatever is wrong with it is no failure.
    pub(super) fn restore(&self, kept: Kept) -> Result<Launched, Failure> {
        // QEMU starts while the state is read and compared with its digest.
        let mut machine = Machine::start(self, true)?;
        let until = Instant::now() + self.arguments.boot_time.min(WAKE_TIME);
        match snapshot::give(&mut machine, kept, until) {
            Ok(()) => self.wake(machine, until),
            Err(e) => Ok(Launched::Not(reason(&mut machine, &e))),
        }
    }

    /// Boots the kernel, and keeps its state where there is a place for it.
    pub(super) fn boot(&self, view: &View) -> Result<Launched, Failure> {
        let started = Instant::now();
        let deadline = started + self.arguments.boot_time;
        let by_kvm = self.plan.accelerator == Accelerator::Kvm;
        let mut machine = Machine::start(self, false)?;
        let silence = started + KVM_SILENCE;
        let ours = loop {
            let until = if by_kvm && machine.is_silent() { silence.min(deadline) } else { deadline };
            match watch(&mut machine, until)? {
                Event::Word(Word::Ready { ours }) => break ours,
                Event::Word(Word::Failed(reason)) => {
                    let more = self.parts.suspicion();
                    return Err(Failure::failed(format!("the guest cannot serve: {reason}{more}")));
                }
                Event::Word(Word::Awake(_)) => {}
                Event::Signal => return Ok(Launched::Ended),
                Event::Exited(how) if by_kvm => return Ok(Launched::Not(machine.last_words(&how))),
                Event::Exited(how) => {
                    let text = machine.last_words(&how);
                    return Err(Failure::failed(format!(
                        "the machine ended before the guest answered: {text}"
                    )));
                }
                Event::Deadline if by_kvm && machine.is_silent() => {
                    let seconds = KVM_SILENCE.as_secs();
                    return Ok(Launched::Not(format!("nothing on the console in {seconds} s")));
                }
                Event::Deadline if Instant::now() < deadline => {}
                Event::Deadline => {
                    let text = machine.last_words("it still runs");
                    let seconds = self.arguments.boot_time.as_secs();
                    return Err(Failure::limit(format!(
                        "the guest did not answer within {seconds} s (--boot-timeout): {text}{}",
                        self.parts.suspicion()
                    )));
                }
            }
        };
        let Some(place) = self.place else { return Ok(Launched::Answers(Box::new(machine))) };
        if !ours {
            let _gone = writeln!(
                io::stderr(),
                "rvf-exec: the machine's state is not kept: the guest program is not of version {GUEST_VERSION}"
            );
            return Ok(Launched::Answers(Box::new(machine)));
        }
        let said = match place.take(&mut machine, view) {
            Ok(Ok(len)) => format!("its state is kept for the next time: {len} bytes"),
            Ok(Err(reason)) => format!("its state is not kept: {reason}"),
            Err(e) => return Ok(Launched::Not(reason(&mut machine, &e))),
        };
        if self.verbose {
            let _gone = writeln!(io::stderr(), "rvf-exec: {said}");
        }
        self.wake(machine, Instant::now() + WAKE_TIME)
    }

    /// Tells a guest that stood still what the time is, and gives it a seed: its copies have the same random state. That it
    /// says so is the sign that it answers.
    fn wake(&self, mut machine: Machine, until: Instant) -> Result<Launched, Failure> {
        let wake = news().map_err(|e| Failure::failed(format!("no random numbers: {e}")))?;
        if let Err(e) = machine.tell(&wake.line()) {
            return Ok(Launched::Not(reason(&mut machine, &e)));
        }
        loop {
            match watch(&mut machine, until)? {
                Event::Word(Word::Awake(token)) if token == wake.token => {
                    return Ok(Launched::Answers(Box::new(machine)));
                }
                Event::Word(Word::Failed(reason)) => {
                    return Ok(Launched::Not(format!("the guest cannot go on: {reason}")));
                }
                Event::Word(_) => {}
                Event::Signal => return Ok(Launched::Ended),
                Event::Exited(how) => return Ok(Launched::Not(machine.last_words(&how))),
                Event::Deadline => return Ok(Launched::Not("the guest does not answer".into())),
            }
        }
    }
}

fn watch(machine: &mut Machine, until: Instant) -> Result<Event, Failure> {
    machine.wait(until).map_err(|e| Failure::failed(format!("cannot watch the machine: {e}")))
}

/// Why a machine was lost: what QEMU said at its end says more than that its channel is closed.
fn reason(machine: &mut Machine, error: &io::Error) -> String {
    if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
        let until = Instant::now() + Duration::from_secs(1);
        while let Ok(event) = machine.wait(until) {
            match event {
                Event::Exited(how) => return machine.last_words(&how),
                Event::Deadline => break,
                _ => {}
            }
        }
    }
    error.to_string()
}

/// What is new since the machine stood still.
fn news() -> io::Result<Wake> {
    let mut token = [0; 4];
    let mut seed = [0; rvf_kernel::vm::SEED];
    getrandom::fill(&mut token)?;
    getrandom::fill(&mut seed)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    Ok(Wake { token: u32::from_le_bytes(token), millis, seed })
}

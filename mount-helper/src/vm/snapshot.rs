//! States of machines that booted, kept so that a kernel boots once.
//!
//! A state is taken when the guest says that it answers, before anybody can ask it anything: no connection is open, and
//! nothing of a client is in its memory. QEMU writes the state of its devices into a pipe and reads it from a descriptor, so it
//! neither opens a file nor can write one; the guest's memory, which is nearly all of it, is in this process's hands.
//!
//! The content of a kept file: the length of the devices' state (u64, little-endian), that state, and the runs of
//! [`Memory::save`].

use std::io::{self, ErrorKind, Read, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rvf_cow::View;
use serde_json::{Value, json};

use super::inputs::{self, Inputs};
use super::machine::Machine;
use super::memory::Memory;
use crate::cache::{Cache, Content, Kept, Kind};
use crate::sealed::Sealed;

/// Where states are kept. One has about as many bytes as its guest uses.
pub(super) const KIND: Kind = Kind { name: "vm", magic: b"RVFMACH2", most: 512 << 20, most_of_all: 1 << 30 };
/// Most bytes of the devices' state. It has some ten thousand.
const MAX_DEVICES: u64 = 16 << 20;
/// How long taking a state may take.
const TAKE_TIME: Duration = Duration::from_secs(10);
/// Bytes a second that QEMU may write: more than it can.
const FASTEST: u64 = 16 << 30;

/// The place for the state of one machine.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) cache: Cache,
    pub(super) inputs: Inputs,
}

impl Place {
    /// The state that is kept, if there is one.
    pub(super) fn find(&self) -> io::Result<Option<Kept>> {
        self.cache.find(&self.inputs.key)
    }

    /// Takes the machine's state and keeps it; gives its bytes, or why it was not kept. The machine goes on either way.
    ///
    /// # Errors
    /// When it does not go on.
    pub(super) fn take(&self, machine: &mut Machine, view: &View) -> io::Result<Result<u64, String>> {
        machine.qmp().execute("stop", &json!({}))?;
        let taken = self.copy(machine, view).map_err(|e| e.to_string());
        machine.qmp().execute("cont", &json!({}))?;
        Ok(taken)
    }

    fn copy(&self, machine: &mut Machine, view: &View) -> io::Result<u64> {
        let until = Instant::now() + TAKE_TIME;
        let mut pending = self.cache.begin(&self.inputs.key)?;
        let devices = devices(machine, until)?;
        pending.write_all(&(devices.len() as u64).to_le_bytes())?;
        pending.write_all(&devices)?;
        machine.memory()?.save(&mut pending)?;
        // What the guest read is what the key says, and not something newer.
        if inputs::store(view)? != Some(self.inputs.store) {
            return Err(io::Error::other("the store changed meanwhile"));
        }
        pending.finish()
    }
}

/// Has QEMU leave the guest's memory out of the states that it gives and takes.
fn without_memory(machine: &mut Machine) -> io::Result<()> {
    let capabilities = json!([{ "capability": "x-ignore-shared", "state": true }]);
    machine.qmp().execute("migrate-set-capabilities", &json!({ "capabilities": capabilities })).map(drop)
}

/// The state of a machine's devices, processors included.
fn devices(machine: &mut Machine, until: Instant) -> io::Result<Vec<u8>> {
    without_memory(machine)?;
    let (read, write) = io::pipe()?;
    machine.qmp().execute("migrate-set-parameters", &json!({ "max-bandwidth": FASTEST }))?;
    machine.qmp().execute_with("getfd", &json!({ "fdname": "state" }), write.as_fd())?;
    drop(write);
    machine.qmp().execute("migrate", &json!({ "uri": "fd:state" }))?;
    // From here on QEMU has begun, and is waited for.
    let read = read_all(read, until);
    match end(machine, until + TAKE_TIME)?.as_str() {
        "completed" => read,
        how => {
            Err(read.err().unwrap_or_else(|| io::Error::other(format!("QEMU gave no whole state: {how}"))))
        }
    }
}

/// What comes through a pipe. Where that is not all, the other end is told so by the pipe's end.
fn read_all(mut pipe: io::PipeReader, until: Instant) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = vec![0; 64 << 10];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Err(ErrorKind::TimedOut.into()),
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        }
        match pipe.read(&mut piece) {
            Ok(0) => return Ok(all),
            Ok(len) if (all.len() + len) as u64 > MAX_DEVICES => return Err(ErrorKind::FileTooLarge.into()),
            Ok(len) => all.extend_from_slice(piece.get(..len).unwrap_or_default()),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Waits until QEMU is done with a state, well or not, and gives its word for that.
fn end(machine: &mut Machine, until: Instant) -> io::Result<String> {
    loop {
        let said = machine.qmp().execute("query-migrate", &json!({}))?;
        // It has no word before it began.
        match said.get("status").and_then(Value::as_str) {
            Some(word @ ("completed" | "failed" | "cancelled")) => return Ok(word.to_owned()),
            _ if Instant::now() > until => return Err(ErrorKind::TimedOut.into()),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Has a machine that waits for a state take this one, and go on from it.
pub(super) fn give(machine: &mut Machine, kept: Kept, until: Instant) -> io::Result<()> {
    let devices = fill(machine.memory()?, kept).map_err(|e| match e.kind() {
        // Not QEMU's end, which the same word is for.
        ErrorKind::UnexpectedEof => io::Error::new(ErrorKind::InvalidData, "it ends too early"),
        _ => e,
    })?;
    let devices = Sealed::copy("rvf-devices", &devices)?;
    without_memory(machine)?;
    machine.qmp().execute_with("getfd", &json!({ "fdname": "state" }), devices.rewound()?)?;
    machine.qmp().execute("migrate-incoming", &json!({ "uri": "fd:state" }))?;
    match end(machine, until)?.as_str() {
        "completed" => machine.qmp().execute("cont", &json!({})).map(drop),
        how => Err(io::Error::other(format!("QEMU does not take it: {how}"))),
    }
}

/// Fills the memory of a machine, and gives the state of its devices. QEMU is told of neither before both are known to be what
/// was kept.
fn fill(memory: &Memory, kept: Kept) -> io::Result<Vec<u8>> {
    let mut content = kept.content();
    let devices = read(memory, &mut content);
    // That it is damaged says more than what came of it.
    content.finish()?;
    devices
}

fn read(memory: &Memory, content: &mut Content) -> io::Result<Vec<u8>> {
    let mut len = [0; 8];
    content.read_exact(&mut len)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_DEVICES {
        return Err(io::Error::new(ErrorKind::InvalidData, "the state of its devices is too long"));
    }
    let mut devices = Vec::new();
    content.by_ref().take(len).read_to_end(&mut devices)?;
    memory.fill(content)?;
    Ok(devices)
}

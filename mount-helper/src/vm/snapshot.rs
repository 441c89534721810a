//! States of machines that booted, kept so that a kernel boots once.
//!
//! A state is taken when the guest says that it answers, before anybody can ask it anything: no connection is open, and
//! nothing of a client is in its memory. QEMU writes it into a pipe and reads it from a descriptor for reading, so it neither
//! opens a file nor can write one.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rvf_cow::View;
use serde_json::{Value, json};

use super::inputs::{self, Inputs};
use super::machine::Machine;
use crate::cache::{Cache, Kept, Kind};

/// Where states are kept. One has about as many bytes as its guest uses.
pub(super) const KIND: Kind = Kind { name: "vm", magic: b"RVFMACH1", most: 512 << 20, most_of_all: 1 << 30 };
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
        machine.execute("stop", &json!({}))?;
        let taken = self.copy(machine, view).map_err(|e| e.to_string());
        machine.execute("cont", &json!({}))?;
        Ok(taken)
    }

    fn copy(&self, machine: &mut Machine, view: &View) -> io::Result<u64> {
        let until = Instant::now() + TAKE_TIME;
        let mut pending = self.cache.begin(&self.inputs.key)?;
        let (mut read, write) = io::pipe()?;
        // Fewer turns for large states; the usual 64 KiB do as well.
        let _usual = rustix::pipe::fcntl_setpipe_size(&write, 1 << 20);
        machine.execute("migrate-set-parameters", &json!({ "max-bandwidth": FASTEST }))?;
        machine.execute_with("getfd", &json!({ "fdname": "state" }), write.as_fd())?;
        drop(write);
        machine.execute("migrate", &json!({ "uri": "fd:state" }))?;
        // From here on QEMU has begun, and is waited for.
        let mut copy = || -> io::Result<u64> {
            let mut piece = vec![0; 256 << 10];
            let mut sum = 0;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
                match poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&timeout)) {
                    Ok(0) => return Err(ErrorKind::TimedOut.into()),
                    Ok(_) => {}
                    Err(rustix::io::Errno::INTR) => continue,
                    Err(e) => return Err(e.into()),
                }
                match read.read(&mut piece) {
                    Ok(0) => return Ok(sum),
                    Ok(len) => {
                        pending.write_all(piece.get(..len).unwrap_or_default())?;
                        sum += len as u64;
                    }
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        };
        let copied = copy();
        // Where not all was taken, QEMU is told so by this.
        drop(read);
        let how = end(machine, until + TAKE_TIME)?;
        let len = copied?;
        if how != "completed" {
            return Err(io::Error::other(format!("QEMU gave no whole state: {how}")));
        }
        // What the guest read is what the key says, and not something newer.
        if inputs::store(view)? != Some(self.inputs.store) {
            return Err(io::Error::other("the store changed meanwhile"));
        }
        pending.finish()?;
        Ok(len)
    }
}

/// Waits until QEMU is done with a state, well or not, and gives its word for that.
fn end(machine: &mut Machine, until: Instant) -> io::Result<String> {
    loop {
        let said = machine.execute("query-migrate", &json!({}))?;
        // It has no word before it began.
        match said.get("status").and_then(Value::as_str) {
            Some(word @ ("completed" | "failed" | "cancelled")) => return Ok(word.to_owned()),
            _ if Instant::now() > until => return Err(ErrorKind::TimedOut.into()),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Has a machine that waits for a state take this one, and go on from it.
pub(super) fn give(machine: &mut Machine, state: &File, until: Instant) -> io::Result<()> {
    machine.execute_with("getfd", &json!({ "fdname": "state" }), state.as_fd())?;
    machine.execute("migrate-incoming", &json!({ "uri": "fd:state" }))?;
    match end(machine, until)?.as_str() {
        "completed" => machine.execute("cont", &json!({})).map(drop),
        how => Err(io::Error::other(format!("QEMU does not take it: {how}"))),
    }
}

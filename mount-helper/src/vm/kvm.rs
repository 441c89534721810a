//! Whether KVM works here. That `/dev/kvm` is there does not say so: a kernel that is a guest itself may offer it and
//! interpret every instruction, hundreds of times as slowly, until it meets one that it does not know.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use kvm_ioctls::{Kvm, VcpuExit};
use memmap2::MmapMut;

use super::sys;

/// Rounds of the probe's loop, two instructions each.
const ROUNDS: u16 = 2000;
/// A processor takes far below a nanosecond for an instruction; an interpreter takes hundreds.
const SLOWEST_NS: u128 = 50;
/// What entering and leaving the guest may take, in all.
const ENTRY_TIME: Duration = Duration::from_micros(500);
/// A probe that takes this long does not work.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// Where the guest's page lies.
const AT: u64 = 0x1000;

/// A probe under way: a loop of some instructions in a guest.
#[derive(Debug)]
pub(super) struct Probe(mpsc::Receiver<Result<String, String>>);

impl Probe {
    pub(super) fn start() -> Self {
        let (say, hear) = mpsc::channel();
        let unstarted = say.clone();
        // On a thread of its own: a guest that never comes back keeps only that.
        let started = thread::Builder::new().name("kvm-probe".into()).spawn(move || {
            let _nobody = say.send(run());
        });
        if let Err(e) = started {
            let _heard = unstarted.send(Err(format!("cannot probe: {e}")));
        }
        Self(hear)
    }

    /// What was found, or why KVM is not to be used.
    pub(super) fn found(self) -> Result<String, String> {
        self.0.recv_timeout(PROBE_TIME).unwrap_or_else(|_| Err("the probe never came back".into()))
    }
}

fn run() -> Result<String, String> {
    let at = |step: &'static str| move |e: kvm_ioctls::Error| format!("{step}: {e}");
    let kvm = Kvm::new().map_err(at("/dev/kvm"))?;
    let vm = kvm.create_vm().map_err(at("a machine"))?;
    let mut page = MmapMut::map_anon(4096).map_err(|e| format!("memory: {e}"))?;
    // mov cx, ROUNDS; loop: dec cx; jnz loop; mov al, 42; out 0x10, al; hlt
    let [low, high] = ROUNDS.to_le_bytes();
    let code = [0xB9, low, high, 0x49, 0x75, 0xFD, 0xB0, 0x2A, 0xE6, 0x10, 0xF4];
    page.get_mut(..code.len()).ok_or("memory")?.copy_from_slice(&code);
    sys::give_page(&vm, &page, AT).map_err(at("memory"))?;
    let mut cpu = vm.create_vcpu(0).map_err(at("a processor"))?;
    let mut special = cpu.get_sregs().map_err(at("registers"))?;
    special.cs.base = 0;
    special.cs.selector = 0;
    cpu.set_sregs(&special).map_err(at("registers"))?;
    let mut registers = cpu.get_regs().map_err(at("registers"))?;
    registers.rip = AT;
    registers.rflags = 2;
    cpu.set_regs(&registers).map_err(at("registers"))?;
    let started = Instant::now();
    let said = match cpu.run().map_err(at("running"))? {
        VcpuExit::IoOut(0x10, [42]) => Ok(()),
        other => Err(format!("the guest ended with {other:?}")),
    };
    let took = started.elapsed();
    said?;
    // The machine goes before its page.
    drop((cpu, vm));
    drop(page);
    let each = took.saturating_sub(ENTRY_TIME).as_nanos() / u128::from(2 * ROUNDS);
    if each > SLOWEST_NS {
        return Err(format!("it takes {each} ns for an instruction: this machine interprets them"));
    }
    Ok(format!("{} us for {} instructions", took.as_micros(), 2 * u32::from(ROUNDS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a machine offers differs; that the probe ends does not.
    #[test]
    fn the_probe_says_something_in_time() {
        let started = Instant::now();
        let (Ok(text) | Err(text)) = Probe::start().found();
        assert!(!text.is_empty());
        assert!(started.elapsed() < PROBE_TIME + Duration::from_secs(20));
    }
}

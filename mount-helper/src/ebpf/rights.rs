//! Capabilities: what loading needs, and then none.

use caps::{CapSet, Capability, CapsHashSet};
use rvf_bpf::ProgramType;

use crate::run::Failure;

fn needed(kind: ProgramType) -> Vec<Capability> {
    // PERFMON: without it the verifier forbids the pointer arithmetic that programs for kernels with mitigations need.
    let mut all = vec![Capability::CAP_BPF, Capability::CAP_PERFMON];
    all.push(match kind {
        ProgramType::Socket => Capability::CAP_NET_RAW,
        _ => Capability::CAP_NET_ADMIN,
    });
    all
}

/// Gives up every capability but those that loading and attaching a program of this kind needs.
///
/// # Errors
/// [`Failure`] that names the ones that are not there to begin with.
pub(super) fn keep_for_loading(kind: ProgramType) -> Result<(), Failure> {
    let wanted = needed(kind);
    let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let absent: Vec<String> =
        wanted.iter().filter(|cap| !held.contains(cap)).map(ToString::to_string).collect();
    if !absent.is_empty() {
        let all: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        return Err(Failure::missing(format!(
            "loading an eBPF program needs {}; this process lacks {}. Run it as root: sudo rvf-exec ...",
            all.join(", "),
            absent.join(", ")
        )));
    }
    // The bounding set can only be made smaller by who may: whoever may not has little to lose.
    let may = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false);
    if may {
        for cap in caps::all() {
            let _unknown_to_this_kernel = caps::drop(None, CapSet::Bounding, cap);
        }
    }
    set(&wanted.into_iter().collect())?;
    super::sys::no_new_privileges().map_err(|e| Failure::failed(format!("cannot give up privileges: {e}")))
}

/// Gives up the rest.
///
/// # Errors
/// [`Failure`] when the kernel does not do it, and the program must not go on.
pub(super) fn give_up() -> Result<(), Failure> {
    set(&CapsHashSet::new())
}

fn set(kept: &CapsHashSet) -> Result<(), Failure> {
    let failed = |e: caps::errors::CapsError| Failure::failed(format!("cannot give up capabilities: {e}"));
    // Ambient ones must not outlast inheritable ones.
    let _old_kernel = caps::clear(None, CapSet::Ambient);
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    // Effective ones must be permitted: first fewer of them, and then only those.
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let both: CapsHashSet = kept.intersection(&held).copied().collect();
    caps::set(None, CapSet::Effective, &both).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &both).map_err(failed)
}

//! What this process may do: while it loads a program, and then next to nothing.

use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use rvf_bpf::ProgramType;

use super::sys;
use crate::confine::{Applied, Argument, Calls, ConfineError, Confinement, Network, lesser_user};
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

/// What the loader reads of the system: types of the running kernel, processors, its version, and itself.
const READ: &[&str] =
    &["/proc/self", "/proc/version_signature", "/sys/devices/system/cpu", "/sys/kernel/btf"];

/// Gives up everything but what loading and attaching a program of this kind needs. `owner` is that of the store.
///
/// # Errors
/// [`Failure`] that names the capabilities that are not there to begin with, or what the kernel does not do.
pub(super) fn keep_for_loading(kind: ProgramType, owner: (u32, u32)) -> Result<Applied, Failure> {
    let wanted = needed(kind);
    let held = caps::read(None, CapSet::Permitted).unwrap_or_default();
    let absent: Vec<String> =
        wanted.iter().filter(|cap| !held.contains(cap)).map(ToString::to_string).collect();
    if !absent.is_empty() {
        let all: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        return Err(Failure::missing(format!(
            "loading an eBPF program needs {}; this process lacks {}. Run it as root, by the store: sudo rvf-exec STORE --kind ebpf --name NAME -- ARGS (root cannot \
             enter the mount of another user)",
            all.join(", "),
            absent.join(", ")
        )));
    }
    // Of the bounding set nothing is needed, and nothing can be taken out of it later. Whoever may not do it has little to lose.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for cap in caps::all() {
            let _unknown_to_this_kernel = caps::drop(None, CapSet::Bounding, cap);
        }
    }
    // Who may not become somebody else stays who it is.
    let may = [Capability::CAP_SETUID, Capability::CAP_SETGID].iter().all(|cap| held.contains(cap));
    let confinement = Confinement {
        read: READ.iter().map(PathBuf::from).filter(|path| Path::exists(path)).collect(),
        network: Network::Any,
        keep: wanted,
        user: lesser_user(owner).filter(|_| may),
        calls: Calls::AllOfNeverBut(vec![libc::SYS_bpf, libc::SYS_perf_event_open]),
        ..Confinement::default()
    };
    confinement.apply().map_err(|e| failed(&e))
}

/// Gives up the rest: what is left waits for the end, tells of packets that the process's own socket gets, and reads maps.
///
/// # Errors
/// [`Failure`] when the kernel does not do it, and the program must not go on.
pub(super) fn give_up() -> Result<Applied, Failure> {
    let exact = |call, index, value| (call, Argument { index, value });
    let with = vec![
        exact(libc::SYS_bpf, 0, BPF_MAP_LOOKUP_ELEM),
        exact(libc::SYS_ioctl, 1, sys::ASK_NUMBER),
        // A build with assertions asks whether what it closes is open.
        exact(libc::SYS_fcntl, 1, libc::F_GETFD as u32),
    ];
    let confinement = Confinement { calls: Calls::OnlyAnd(WAITING.to_vec(), with), ..Confinement::default() };
    confinement.apply().map_err(|e| failed(&e))
}

fn failed(error: &ConfineError) -> Failure {
    Failure::missing(format!("{error}; nothing is attached"))
}

/// The command of bpf(2) that reads an entry of a map.
const BPF_MAP_LOOKUP_ELEM: u32 = 1;

/// Waiting, reading what is open, writing to it, closing it, memory, the end.
const WAITING: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

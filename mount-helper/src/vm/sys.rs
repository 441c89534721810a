//! The system calls of the runner that no library has safely: signals as a descriptor, what is done between fork and
//! exec, and the probe's guest.
#![expect(unsafe_code, reason = "signalfd, pre_exec, and the memory of the KVM probe")]

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::process::{Resource, Rlimit, Signal};

/// `nobody` of every Linux system.
const NOBODY: u32 = 65_534;
/// Bytes that QEMU may write into a file: it has none to write.
const FILE_SIZE: u64 = 0;

/// A descriptor that is readable when TERM, INT or HUP came, which from now on do nothing else.
pub(super) fn ending_signals() -> io::Result<OwnedFd> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: `set` is writable; sigemptyset initialises it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: `set` was initialised above and the signal numbers are valid.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: initialised by sigemptyset; the old mask is not wanted.
    if unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    match unsafe { libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new and nobody else's.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
    }
}

/// What becomes of a child before it is QEMU.
#[derive(Debug)]
pub(super) struct Child {
    /// Descriptors that it inherits.
    pub(super) keep: Vec<RawFd>,
    /// It is to open /dev/kvm.
    pub(super) kvm: bool,
    /// Bytes of memory that it may write to.
    pub(super) data: u64,
    /// A Landlock ruleset.
    pub(super) landlock: OwnedFd,
}

/// Has the child give up what it does not need, and end when this process ends.
pub(super) fn prepare(command: &mut Command, child: Child) {
    let parent = rustix::process::getpid();
    let root = rustix::process::geteuid().is_root();
    // The group that may use KVM, where the device belongs to one.
    let group =
        child.kvm.then(|| std::fs::metadata("/dev/kvm").ok()).flatten().map_or(NOBODY, |meta| meta.gid());
    let set_up = move || -> io::Result<()> {
        for fd in &child.keep {
            // SAFETY: plain numbers; a descriptor that is not open is an error.
            if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } == -1 {
                return Err(io::Error::last_os_error());
            }
        }
        let limits = [(Resource::Core, 0), (Resource::Fsize, FILE_SIZE), (Resource::Data, child.data)];
        for (resource, limit) in limits {
            let most = rustix::process::getrlimit(resource).maximum.map_or(limit, |most| most.min(limit));
            rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
        }
        if root {
            for step in [
                // SAFETY: an empty list; the group and user numbers are plain numbers.
                unsafe { libc::setgroups(0, std::ptr::null()) },
                // SAFETY: as above.
                unsafe { libc::setresgid(group, group, group) },
                // SAFETY: as above.
                unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) },
            ] {
                if step != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
        }
        rustix::thread::set_no_new_privs(true)?;
        // SAFETY: plain numbers; a descriptor of something else is an error.
        if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, child.landlock.as_raw_fd(), 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // After the user: a change of user forgets it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        match rustix::process::getppid() == Some(parent) {
            true => Ok(()),
            false => Err(io::ErrorKind::BrokenPipe.into()),
        }
    };
    // SAFETY: between fork and exec only system calls are made, on memory that was made before; the closure allocates
    // nothing and takes no lock.
    unsafe { command.pre_exec(set_up) };
}

/// Gives a probe's guest its only page.
///
/// `page` must stay where it is, and mapped, for as long as the machine of `vm` exists.
pub(super) fn give_page(
    vm: &kvm_ioctls::VmFd,
    page: &memmap2::MmapMut,
    at: u64,
) -> Result<(), kvm_ioctls::Error> {
    let region = kvm_bindings::kvm_userspace_memory_region {
        slot: 0,
        guest_phys_addr: at,
        memory_size: page.len() as u64,
        userspace_addr: page.as_ptr() as u64,
        flags: 0,
    };
    // SAFETY: the region is the page's, whose owner keeps it until the machine is gone; the guest writes nothing but it.
    unsafe { vm.set_user_memory_region(region) }
}

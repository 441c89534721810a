//! Taking rights away from this process before it lets a program from a file do anything.
//!
//! [`Confinement::apply`] is all or nothing as far as going on is concerned: when one measure cannot be taken the caller gets
//! an error and must end. Measures bind the calling thread and everything that it starts, so it is called while the
//! process has one thread. In this order, because each needs what the next takes away:
//!
//! 1. resource limits; 2. no new privileges by executing; 3. the bounding set of capabilities; 4. another user, when root;
//! 5. all capabilities but those to be kept; 6. Landlock: files, TCP, signals; 7. dying with the parent; 8. system calls.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope,
};
use rustix::process::{Gid, Pid, Resource, Rlimit, Signal, Uid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::sys;

/// The kernel's Landlock features that are asked for; what an older one lacks is left out, but for files.
const WANTED_ABI: ABI = ABI::V7;

/// `nobody` of every Linux system.
pub const NOBODY: u32 = 65_534;

/// What a confined process may still do. The default is as little as possible: no files, no network, no capabilities.
#[derive(Clone, Debug)]
pub struct Confinement {
    /// Files, or directories with all below them, that may be read.
    pub read: Vec<PathBuf>,
    /// The same, also written and, in directories, created and removed.
    pub write: Vec<PathBuf>,
    /// The same, read and executed.
    pub execute: Vec<PathBuf>,
    /// TCP.
    pub network: Network,
    /// Capabilities that are kept; all of them must be there.
    pub keep: Vec<Capability>,
    /// The user and group to become, when this process is root.
    pub user: Option<(u32, u32)>,
    /// Limits.
    pub limits: Limits,
    /// System calls.
    pub calls: Calls,
    /// The process whose end is to be this one's end: the parent, as it was before the fork.
    pub parent: Option<Pid>,
}

/// What of TCP is left. Kernels before 6.7 cannot restrict it; there it is for [`Calls`] to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    None,
    /// Listening on these ports.
    Listen(Vec<u16>),
    /// Listening on any port.
    Serve,
    /// Everything.
    Any,
}

/// Resource limits; `None` leaves one as it is. Core dumps are always off.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Bytes of memory that can be written to.
    pub data: Option<u64>,
    /// Seconds of processor time.
    pub cpu_seconds: Option<u64>,
    /// Open files, those of now included.
    pub files: Option<u64>,
    /// Bytes of the largest file that may be written.
    pub file_size: Option<u64>,
    /// Processes of the user.
    pub processes: Option<u64>,
}

/// Which system calls may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Every one.
    Any,
    /// All but these and [`NEVER`], which fail with EPERM: for programs that are executed, whose needs are not ours to list.
    AllBut(Vec<i64>),
    /// All but [`NEVER`], of which these are allowed: for what loads programs into the kernel.
    AllOfNeverBut(Vec<i64>),
    /// These; every other one ends the process with SIGSYS.
    Only(Vec<i64>),
    /// These, and those that have this argument; every other one ends the process with SIGSYS.
    OnlyAnd(Vec<i64>, Vec<(i64, Argument)>),
}

/// An argument of a system call, by its place from 0. Its lower 32 bits are compared, which is all of an `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Which.
    pub index: u8,
    /// What it has to be.
    pub value: u32,
}

/// Calls that no guest's host needs: they change the system, look into other processes, or open ways around a sandbox.
pub const NEVER: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

impl Default for Confinement {
    fn default() -> Self {
        Self {
            read: Vec::new(),
            write: Vec::new(),
            execute: Vec::new(),
            network: Network::None,
            keep: Vec::new(),
            user: None,
            limits: Limits::default(),
            calls: Calls::AllBut(Vec::new()),
            parent: None,
        }
    }
}

/// Which measure could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot be confined: {measure}: {reason}")]
pub struct ConfineError {
    /// Which.
    pub measure: &'static str,
    /// Why.
    pub reason: String,
}

fn cannot(measure: &'static str) -> impl Fn(&dyn std::fmt::Display) -> ConfineError {
    move |reason| ConfineError { measure, reason: reason.to_string() }
}

/// What was done, for `--verbose`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// User and group afterwards.
    pub user: (u32, u32),
    /// Names of the capabilities left.
    pub capabilities: Vec<String>,
    /// Whether everything that was asked of Landlock is enforced, or only what this kernel has.
    pub landlock: &'static str,
    /// What became of system calls.
    pub calls: String,
}

impl std::fmt::Display for Applied {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { user: (uid, gid), capabilities, landlock, calls } = self;
        let capabilities = if capabilities.is_empty() { "none".into() } else { capabilities.join(" ") };
        write!(
            f,
            "user {uid}:{gid}, capabilities: {capabilities}, no new privileges, landlock: {landlock}, system calls: {calls}"
        )
    }
}

/// The user to become when root runs something for a file that belongs to `owner`: its owner, or nobody.
pub fn lesser_user(owner: (u32, u32)) -> Option<(u32, u32)> {
    rustix::process::geteuid().is_root().then_some(if owner.0 == 0 { (NOBODY, NOBODY) } else { owner })
}

impl Confinement {
    /// Confines the calling process, which has one thread.
    ///
    /// # Errors
    /// [`ConfineError`] for the first measure that cannot be taken; those before it stay taken.
    pub fn apply(&self) -> Result<Applied, ConfineError> {
        let fail = cannot("threads");
        if sys::threads().map_err(|e| fail(&e))? != 1 {
            return Err(fail(&"the process has more than one"));
        }
        // All that can go wrong with files goes wrong while they can still be opened.
        let ruleset = self.ruleset()?;
        let filter = self.filter()?;
        self.limit()?;
        rustix::thread::set_no_new_privs(true).map_err(|e| cannot("no new privileges")(&e))?;
        self.change_user()?;
        self.drop_capabilities()?;
        let status = ruleset.restrict_self().map_err(|e| cannot("landlock")(&e))?;
        let landlock = match status.ruleset {
            landlock::RulesetStatus::FullyEnforced => "full",
            landlock::RulesetStatus::PartiallyEnforced => "what this kernel has",
            landlock::RulesetStatus::NotEnforced => return Err(cannot("landlock")(&"the kernel has none")),
        };
        self.die_with_parent()?;
        let applied = Applied {
            user: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
            capabilities: self.keep.iter().map(ToString::to_string).collect(),
            landlock,
            calls: match &self.calls {
                Calls::Any => "all".into(),
                Calls::AllBut(more) => format!("all but {}", NEVER.len() + more.len()),
                Calls::AllOfNeverBut(some) => format!("all but {}", NEVER.len() - some.len()),
                Calls::Only(list) => format!("{} only", list.len()),
                Calls::OnlyAnd(list, more) => {
                    format!("{} only, and {} with one argument", list.len(), more.len())
                }
            },
        };

        if let Some(filter) = &filter {
            seccompiler::apply_filter(filter).map_err(|e| cannot("system calls")(&e))?;
        }
        Ok(applied)
    }

    /// What Landlock is to restrict, as a descriptor for a process that takes it upon itself before it executes a program.
    ///
    /// # Errors
    /// [`ConfineError`] when a path cannot be opened, or the kernel has no Landlock.
    pub fn landlock(&self) -> Result<OwnedFd, ConfineError> {
        let created = self.ruleset()?;
        Option::<OwnedFd>::from(created).ok_or_else(|| cannot("landlock")(&"the kernel has none"))
    }

    fn limit(&self) -> Result<(), ConfineError> {
        let Limits { data, cpu_seconds, files, file_size, processes } = self.limits;
        let all = [
            (Resource::Core, Some(0)),
            (Resource::Data, data),
            (Resource::Cpu, cpu_seconds),
            (Resource::Nofile, files),
            (Resource::Fsize, file_size),
            (Resource::Nproc, processes),
        ];
        for (resource, limit) in all {
            let Some(limit) = limit else { continue };
            // A hard limit that is lower already stays.
            let most = rustix::process::getrlimit(resource).maximum.map_or(limit, |most| most.min(limit));
            let both = Rlimit { current: Some(most), maximum: Some(most) };
            rustix::process::setrlimit(resource, both).map_err(|e| cannot("resource limits")(&e))?;
        }
        Ok(())
    }

    fn change_user(&self) -> Result<(), ConfineError> {
        let fail = cannot("user");
        if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(|e| fail(&e))? {
            let fail = cannot("bounding set");
            let supported = caps::read(None, CapSet::Bounding).map_err(|e| fail(&e))?;
            for capability in supported.into_iter().filter(|cap| !self.keep.contains(cap)) {
                caps::drop(None, CapSet::Bounding, capability).map_err(|e| fail(&e))?;
            }
        }
        let Some((uid, gid)) = self.user else { return Ok(()) };
        if uid == 0 {
            return Err(fail(&"root is no lesser user"));
        }
        if !self.keep.is_empty() {
            rustix::thread::set_keep_capabilities(true).map_err(|e| fail(&e))?;
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_groups(&[]).map_err(|e| fail(&e))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(|e| fail(&e))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(|e| fail(&e))?;
        let now = (rustix::process::getuid(), rustix::process::geteuid(), rustix::process::getegid());
        if now != (uid, uid, gid) {
            return Err(fail(&"it is still the old one"));
        }
        Ok(())
    }

    fn drop_capabilities(&self) -> Result<(), ConfineError> {
        let fail = cannot("capabilities");
        let keep: CapsHashSet = self.keep.iter().copied().collect();
        let have = caps::read(None, CapSet::Permitted).map_err(|e| fail(&e))?;
        if let Some(missing) = keep.difference(&have).next() {
            return Err(fail(&format!("{missing} is needed")));
        }
        let nothing = CapsHashSet::new();
        caps::clear(None, CapSet::Ambient).map_err(|e| fail(&e))?;
        caps::set(None, CapSet::Effective, &keep).map_err(|e| fail(&e))?;
        caps::set(None, CapSet::Permitted, &keep).map_err(|e| fail(&e))?;
        caps::set(None, CapSet::Inheritable, &nothing).map_err(|e| fail(&e))?;
        for set in [CapSet::Effective, CapSet::Permitted] {
            if caps::read(None, set).map_err(|e| fail(&e))? != keep {
                return Err(fail(&"more are left than should be"));
            }
        }
        Ok(())
    }

    fn ruleset(&self) -> Result<landlock::RulesetCreated, ConfineError> {
        let fail = |e: RulesetError| cannot("landlock")(&e);
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V1))
            .map_err(fail)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(WANTED_ABI))
            .map_err(fail)?
            .scope(Scope::from_all(WANTED_ABI))
            .map_err(fail)?;
        let restricted = match self.network {
            Network::Any => BitFlags::empty(),
            Network::Serve => AccessNet::ConnectTcp.into(),
            Network::None | Network::Listen(_) => AccessNet::from_all(WANTED_ABI),
        };
        if !restricted.is_empty() {
            ruleset = ruleset.handle_access(restricted).map_err(fail)?;
        }
        let mut created = ruleset.create().map_err(fail)?;
        let reading = AccessFs::from_read(WANTED_ABI);
        let lists = [
            (&self.read, reading & !AccessFs::Execute),
            (&self.write, AccessFs::from_all(WANTED_ABI) & !AccessFs::Execute),
            (&self.execute, reading),
        ];
        for (paths, access) in lists {
            for path in paths {
                let place = |reason: &dyn std::fmt::Display| {
                    cannot("landlock")(&format!("{}: {reason}", path.display()))
                };
                let directory = std::fs::metadata(path).map_err(|e| place(&e))?.is_dir();
                let access: BitFlags<AccessFs> =
                    if directory { access } else { access & AccessFs::from_file(WANTED_ABI) };
                let fd = PathFd::new(path).map_err(|e| place(&e))?;
                created = created.add_rule(PathBeneath::new(fd, access)).map_err(|e| place(&e))?;
            }
        }
        if let Network::Listen(ports) = &self.network {
            for port in ports {
                created = created.add_rule(NetPort::new(*port, AccessNet::BindTcp)).map_err(fail)?;
            }
        }
        Ok(created)
    }

    fn die_with_parent(&self) -> Result<(), ConfineError> {
        let Some(parent) = self.parent else { return Ok(()) };
        let fail = cannot("dying with the parent");
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|e| fail(&e))?;
        // It may have died before it was asked for.
        if rustix::process::getppid() != Some(parent) {
            return Err(fail(&"it is gone"));
        }
        Ok(())
    }

    fn filter(&self) -> Result<Option<BpfProgram>, ConfineError> {
        let denied = SeccompAction::Errno(libc::EPERM as u32);
        let (listed, others, list): (_, _, Vec<i64>) = match &self.calls {
            Calls::Any => return Ok(None),
            Calls::AllBut(more) => {
                (denied, SeccompAction::Allow, NEVER.iter().chain(more).copied().collect())
            }
            Calls::AllOfNeverBut(some) => {
                let never = NEVER.iter().copied().filter(|call| !some.contains(call));
                (denied, SeccompAction::Allow, never.collect())
            }
            Calls::Only(list) | Calls::OnlyAnd(list, _) => {
                (SeccompAction::Allow, SeccompAction::KillProcess, list.clone())
            }
        };
        let fail = cannot("system calls");
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            list.into_iter().map(|call| (call, Vec::new())).collect();
        if let Calls::OnlyAnd(_, more) = &self.calls {
            for (call, Argument { index, value }) in more {
                let condition = SeccompCondition::new(
                    *index,
                    SeccompCmpArgLen::Dword,
                    SeccompCmpOp::Eq,
                    u64::from(*value),
                );
                let rule = condition.and_then(|condition| SeccompRule::new(vec![condition]));
                rules.entry(*call).or_default().push(rule.map_err(|e| fail(&e))?);
            }
        }
        let arch = std::env::consts::ARCH.try_into().map_err(|e: seccompiler::BackendError| fail(&e))?;
        let filter = SeccompFilter::new(rules, others, listed, arch).map_err(|e| fail(&e))?;
        filter.try_into().map(Some).map_err(|e: seccompiler::BackendError| fail(&e))
    }
}

impl From<ConfineError> for io::Error {
    fn from(error: ConfineError) -> Self {
        Self::other(error.to_string())
    }
}

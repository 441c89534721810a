//! The life of a mount: checks, daemon, signals, and the end.
//!
//! The command returns when the mount is ready or has failed, and its exit status says which: the parent waits on a
//! pipe for the child's word.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};

use crate::adapter::{Adapter, Mounted};
use crate::executable;
use crate::node::StoreId;
use crate::options::{Arguments, Words, words};
use crate::pool::Pool;
use crate::source::{Directory, Source, SourceKind, kind_of};
use crate::store_dir::{Settings, StoreDir};
use crate::sys::{self, Side};
use crate::tree::Tree;
use crate::watch;

/// How long commits may take to finish when a mount ends.
const LAST_WORK: Duration = Duration::from_secs(120);

/// A failure before the mount was ready, as one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Does what the command line says. Returns when the mount is ready (in the background), or has ended (in the
/// foreground).
///
/// # Errors
/// One line that says what is wrong; nothing is mounted then.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let words = words(&arguments.options).map_err(Failure)?;
    let plan = Plan::new(arguments, words)?;
    if let Some(why) = plan.hindrance() {
        // A daemon in the background has no standard error, and whoever mounts should see it without a log.
        let _ = writeln!(std::io::stderr(), "rvf-mount: warning: programs cannot be executed here: {why}");
    }
    if arguments.foreground {
        start_log(arguments, true)?;
        return plan.serve(|| Ok(()));
    }
    let (mut reader, writer) = std::io::pipe().map_err(|error| Failure::new(format!("pipe: {error}")))?;
    // Nothing has started a thread so far.
    match sys::fork().map_err(|error| Failure::new(format!("fork: {error}")))? {
        Side::Parent(_) => {
            drop(writer);
            let mut word = String::new();
            reader
                .read_to_string(&mut word)
                .map_err(|error| Failure::new(format!("waiting for the daemon: {error}")))?;
            match word.strip_prefix("ready") {
                Some(_) => Ok(()),
                None if word.is_empty() => {
                    Err(Failure::new("the daemon ended before the mount was ready; try --foreground"))
                }
                None => Err(Failure(word)),
            }
        }
        Side::Child => {
            drop(reader);
            let mut parent = Some(writer);
            let result = start_log(arguments, false).and_then(|()| {
                plan.serve(|| {
                    sys::leave_terminal().map_err(|error| Failure::new(format!("/dev/null: {error}")))?;
                    tell(&mut parent, "ready");
                    Ok(())
                })
            });
            match result {
                Ok(()) => std::process::exit(0),
                Err(failure) => {
                    tracing::error!(%failure, "the mount ended");
                    tell(&mut parent, &failure.to_string());
                    std::process::exit(1)
                }
            }
        }
    }
}

/// Says something to the waiting parent, once.
fn tell(parent: &mut Option<std::io::PipeWriter>, word: &str) {
    if let Some(mut pipe) = parent.take() {
        // A parent that was killed does not hear it; that changes nothing here.
        let _ = pipe.write_all(word.as_bytes());
    }
}

struct Plan {
    source: PathBuf,
    kind: SourceKind,
    mountpoint: PathBuf,
    settings: Arc<Settings>,
    config: Config,
    passthrough: bool,
}

impl Plan {
    fn new(arguments: &Arguments, words: Words) -> Result<Self, Failure> {
        let kind = kind_of(&arguments.source).map_err(Failure)?;
        let absolute = |path: &Path| {
            path.canonicalize().map_err(|error| Failure::new(format!("{}: {error}", path.display())))
        };
        let source = absolute(&arguments.source)?;
        heal(&arguments.mountpoint)?;
        let mountpoint = absolute(&arguments.mountpoint)?;
        // Stacked mounts are of no use: the lower one stays, and keeps its daemon, until both are taken away.
        if has_mount(&mountpoint) {
            return Err(Failure::new(format!(
                "{}: a store is mounted there already; unmount it first (umount {0})",
                mountpoint.display()
            )));
        }
        if !mountpoint.is_dir() {
            return Err(Failure::new(format!(
                "{}: not a directory; the mountpoint must be one",
                mountpoint.display()
            )));
        }
        // The daemon would have to read its own mount, and wait for itself.
        if source.starts_with(&mountpoint) {
            return Err(Failure::new(format!(
                "{} lies inside the mountpoint {}, which would hide it; mount somewhere else",
                source.display(),
                mountpoint.display()
            )));
        }
        let defaults = Settings::default();
        let settings = Arc::new(Settings {
            read_only: arguments.read_only || words.read_only == Some(true),
            mountpoint: mountpoint.clone(),
            uid: words.uid.unwrap_or(defaults.uid),
            gid: words.gid.unwrap_or(defaults.gid),
            mmap: !arguments.no_mmap,
            auto_index: !arguments.no_auto_index && words.auto_index != Some(false),
            exec: words.exec == Some(true),
            ..defaults
        });
        let config = config(arguments, &words, &source);
        Ok(Self { source, kind, mountpoint, settings, config, passthrough: !arguments.no_passthrough })
    }

    /// Why programs cannot be executed although that was asked for.
    fn hindrance(&self) -> Option<String> {
        self.settings.exec.then(|| executable::hindrance(&self.settings.helper, &self.source)).flatten()
    }

    fn source(&self) -> Result<Source, Failure> {
        match self.kind {
            SourceKind::File => {
                StoreDir::open(StoreId(0), &self.source, self.mountpoint.clone(), self.settings.clone())
                    .map(Source::File)
                    .map_err(|error| Failure::new(error.to_string()))
            }
            SourceKind::Directory => Directory::open(&self.source, self.settings.clone())
                .map(|directory| Source::Directory(Box::new(directory)))
                .map_err(|error| Failure::new(format!("{}: {error}", self.source.display()))),
        }
    }

    /// Mounts, says `ready`, and serves until the mount ends.
    fn serve(self, ready: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        sys::block_ending_signals();
        // Every store of a directory keeps its file open.
        sys::raise_open_files();
        let tree = Tree::new(self.source()?, self.settings.clone());
        let mounted: Arc<OnceLock<OwnedFd>> = Arc::default();
        let ended = {
            let (tree, mounted, mountpoint) = (tree.clone(), mounted.clone(), self.mountpoint.clone());
            Box::new(move || {
                finish(&tree.settings, &[&tree.commits, &tree.pool]);
                // Somebody unmounted. Going on would end in fuser, which takes a cut-off connection for a mounted one
                // (0.18) and unmounts the mountpoint once more, and with it whatever is mounted there by now.
                if mounted.get().is_some_and(|connection| sys::is_cut_off(connection.as_fd())) {
                    tracing::info!(mountpoint = %mountpoint.display(), "unmounted");
                    std::process::exit(0);
                }
            })
        };
        let adapter = Adapter::new(tree.clone(), self.passthrough, ended);
        let mut session =
            Session::new(adapter, &self.mountpoint, &self.config).map_err(|error| self.explain(&error))?;
        let connection = || {
            session.as_fd().try_clone_to_owned().map_err(|error| Failure::new(format!("/dev/fuse: {error}")))
        };
        // Set once, and by nobody else.
        let _ = mounted.set(connection()?);
        let _served = rvf_cow::serve(&self.mountpoint)
            .inspect_err(|error| tracing::warn!(%error, "links into the mount itself cannot be told"));
        tree.connect(Box::new(Mounted { notifier: session.notifier(), connection: connection()? }));
        let _watch =
            watch::start(&tree).map_err(|error| Failure::new(format!("starting a thread: {error}")))?;
        let mut unmounter = session.unmount_callable();
        let mountpoint = self.mountpoint.clone();
        let (settings, commits, pool) = (tree.settings.clone(), tree.commits.clone(), tree.pool.clone());
        std::thread::Builder::new()
            .name("rvf-signals".into())
            .spawn(move || {
                let signal = sys::wait_for_end();
                tracing::info!(signal, "unmounting");
                if let Err(error) = unmounter.unmount() {
                    // Somebody has a file open in it. The mount goes away now; their descriptors fail from then on.
                    tracing::warn!(%error, "the mountpoint is busy; detaching it");
                    detach(&mountpoint);
                    finish(&settings, &[&commits, &pool]);
                    std::process::exit(0);
                }
            })
            .map_err(|error| Failure::new(format!("starting a thread: {error}")))?;
        tracing::info!(source = %self.source.display(), mountpoint = %self.mountpoint.display(), "mounted");
        ready()?;
        let result = session.run();
        finish(&tree.settings, &[&tree.commits, &tree.pool]);
        tracing::info!(mountpoint = %self.mountpoint.display(), "unmounted");
        result.map_err(|error| Failure::new(format!("serving {}: {error}", self.mountpoint.display())))
    }

    fn explain(&self, error: &std::io::Error) -> Failure {
        let at = self.mountpoint.display();
        match error.kind() {
            std::io::ErrorKind::PermissionDenied => Failure::new(format!(
                "{at}: not allowed to mount ({error}); /dev/fuse must be readable, and --allow-other needs user_allow_other in /etc/fuse.conf unless you are root"
            )),
            std::io::ErrorKind::NotFound => Failure::new(format!(
                "{at}: cannot mount ({error}); is the fuse module loaded (modprobe fuse) and fusermount3 installed?"
            )),
            _ => Failure::new(format!("{at}: cannot mount: {error}")),
        }
    }
}

/// Lets commits finish, and drops an index that is being built.
fn finish(settings: &Settings, pools: &[&Pool]) {
    settings.indexer.end(LAST_WORK);
    for pool in pools {
        pool.drain(LAST_WORK);
    }
}

fn config(arguments: &Arguments, words: &Words, source: &Path) -> Config {
    let mut config = Config::default();
    let all = words.allow_other || arguments.allow_other;
    config.acl = match (all, words.allow_root) {
        (true, _) => SessionACL::All,
        (false, true) => SessionACL::RootAndOwner,
        (false, false) => SessionACL::Owner,
    };
    let options = &mut config.mount_options;
    // A comma would end the option.
    let name = words.fsname.clone().unwrap_or_else(|| source.display().to_string());
    options.push(MountOption::FSName(name.replace(',', "_")));
    if !arguments.no_subtype {
        // Not MountOption::Subtype, which is dropped when root mounts.
        options.push(MountOption::CUSTOM(format!("subtype={}", words.subtype.as_deref().unwrap_or("rvf"))));
    }
    // With other users let in, the kernel checks modes; alone, the owner of the mount may do everything.
    if words.default_permissions || config.acl != SessionACL::Owner {
        options.push(MountOption::DefaultPermissions);
    }
    if words.auto_unmount && config.acl != SessionACL::Owner {
        options.push(MountOption::AutoUnmount);
    }
    let mut switch = |value: Option<bool>, on: MountOption, off: MountOption| match value {
        Some(true) => options.push(on),
        Some(false) => options.push(off),
        None => {}
    };
    // What a file carries runs only where that was asked for.
    switch(words.exec.or(Some(false)), MountOption::Exec, MountOption::NoExec);
    switch(words.dev.filter(|dev| !dev), MountOption::Dev, MountOption::NoDev);
    switch(words.suid.filter(|suid| !suid), MountOption::Suid, MountOption::NoSuid);
    switch(words.atime.or(Some(false)), MountOption::Atime, MountOption::NoAtime);
    config.n_threads = Some(usize::from(arguments.threads));
    config.clone_fd = arguments.threads > 1;
    config
}

/// Takes away what a killed daemon left: a mountpoint where everything fails with ENOTCONN.
fn heal(mountpoint: &Path) -> Result<(), Failure> {
    // Not by stat, which the kernel may answer from what it remembers of the dead mount.
    let error = match sys::filesystem(mountpoint) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    if error.raw_os_error() != Some(libc::ENOTCONN) {
        return Err(Failure::new(match error.kind() {
            std::io::ErrorKind::NotFound => {
                format!("{}: no such directory; make it first (mkdir)", mountpoint.display())
            }
            _ => format!("{}: {error}", mountpoint.display()),
        }));
    }
    detach(mountpoint);
    match sys::filesystem(mountpoint) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::new(format!(
            "{}: left behind by a daemon that was killed, and cannot be taken away ({error}); run umount -l on it",
            mountpoint.display()
        ))),
    }
}

/// Whether what is mounted there is a store. Asks the list of mounts only, which answers whatever state a mount is in.
fn has_mount(mountpoint: &Path) -> bool {
    // Without the list nothing is known, and mounting works as ever.
    let list = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    top_type(&list, mountpoint).is_some_and(|kind| kind == b"fuse.rvf")
}

/// The type of what is mounted at a path, uppermost, by the lines of `mountinfo` (see proc(5)).
fn top_type<'a>(list: &'a [u8], mountpoint: &Path) -> Option<&'a [u8]> {
    let at = escaped(mountpoint.as_os_str().as_bytes());
    list.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let mut fields = line.split(|byte| *byte == b' ').skip(4);
            // The options, any number of optional fields, and a dash come between.
            (fields.next()? == at).then(|| fields.skip_while(|field| *field != b"-").nth(1)).flatten()
        })
        .next_back()
}

/// A path as the list of mounts writes it.
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => out.extend_from_slice(format!("\\{byte:03o}").as_bytes()),
            _ => out.push(*byte),
        }
    }
    out
}

fn detach(mountpoint: &Path) {
    if sys::detach(mountpoint).is_ok() {
        return;
    }
    // Only root may; everybody else asks the setuid helper.
    for helper in ["fusermount3", "fusermount"] {
        if Command::new(helper)
            .arg("-u")
            .arg("-z")
            .arg("-q")
            .arg("--")
            .arg(mountpoint)
            .status()
            .is_ok_and(|status| status.success())
        {
            return;
        }
    }
}

fn start_log(arguments: &Arguments, foreground: bool) -> Result<(), Failure> {
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::fmt::writer::BoxMakeWriter;
    let (writer, terminal) = match &arguments.log_file {
        Some(path) => {
            let file =
                File::options().create(true).append(true).open(path).map_err(|error| {
                    Failure::new(format!("{}: cannot log there: {error}", path.display()))
                })?;
            (BoxMakeWriter::new(Arc::new(file)), false)
        }
        None if foreground => {
            (BoxMakeWriter::new(std::io::stderr), std::io::IsTerminal::is_terminal(&std::io::stderr()))
        }
        None => return Ok(()),
    };
    let filter = EnvFilter::try_from_env("RVF_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colour)
        .with_target(false);
    if arguments.log_format == "json" {
        builder.json().init()
    } else {
        builder.init()
    }
    std::panic::set_hook(Box::new(|info| tracing::error!("panic: {info}")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uppermost_mount_of_a_path_counts() {
        let list = b"36 25 0:31 / /mnt/a rw,nosuid shared:1 master:2 - fuse.rvf /a.rvf rw\n\
            37 25 0:32 / /mnt/a rw - tmpfs none rw\n\
            38 25 0:33 / /mnt/my\\040a rw,nosuid - fuse.rvf /a.rvf rw\n\
            39 25 0:34 / /mnt/b rw - tmpfs none rw\n\
            40 25 0:35 / /mnt/b ro - fuse.rvf fuse.rvf ro\n\
            short line\n";
        let kind = |path: &str| top_type(list, Path::new(path));
        assert_eq!(kind("/mnt/a"), Some(&b"tmpfs"[..]));
        assert_eq!(kind("/mnt/my a"), Some(&b"fuse.rvf"[..]));
        assert_eq!(kind("/mnt/b"), Some(&b"fuse.rvf"[..]));
        assert_eq!(kind("/mnt"), None);
        assert_eq!(top_type(b"", Path::new("/mnt/a")), None);
    }
}

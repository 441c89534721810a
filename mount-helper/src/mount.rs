//! `mount.rvf`: what mount(8) runs for `mount -t rvf SOURCE MOUNTPOINT -o OPTIONS` and for fstab lines.
//!
//! It is built as `mount-rvf` and installed as `/sbin/mount.rvf`, where mount(8) looks for it (`install -m 755
//! target/release/mount-rvf /sbin/mount.rvf`).
//!
//! It finds `rvf-mount` beside itself or in the usual places, hands the options over, and becomes it, so that its exit
//! status is the mount's. Everything about the options themselves is decided there.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What mount(8) asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// What to mount.
    pub source: OsString,
    /// Where.
    pub mountpoint: OsString,
    /// The `-o` lists, in order.
    pub options: Vec<OsString>,
    /// `-s`: options that are not known are left out instead of refused.
    pub sloppy: bool,
    /// `-f`: only look whether it would work.
    pub fake: bool,
    /// `-v`: say what is done.
    pub verbose: bool,
    /// `-h` or `--help`: only say how it is used; the rest is empty.
    pub help: bool,
}

/// How the helper is used.
pub const USAGE: &str = "usage: mount.rvf SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]";

/// What `--help` says.
pub const HELP: &str = "\
usage: mount.rvf SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS] [-t TYPE]

Shows an .rvf file, or a directory of them, as files. mount(8) runs it for `mount -t rvf SOURCE MOUNTPOINT`
and for fstab lines of type rvf; it hands everything to rvf-mount.

  -o OPTIONS  separated by commas: ro, rw, allow_other, uid=, gid=, ... (rvf-mount --help); mount(8) does not hand on
              exec: write programs instead
  -r, -w      the same as -o ro, -o rw
  -s          leave out options that are not known instead of refusing them
  -f          only look whether rvf-mount is there; mount nothing
  -n          taken, means nothing any more
  -v          say what is run
  -h, --help  this text

Exit status: 0 mounted, 1 wrong usage or failure, 32 rvf-mount could not be run.
";

/// Reads the arguments that mount(8) gives: source, mountpoint, and flags in any order.
///
/// # Errors
/// One line that says what is wrong.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, String> {
    let mut request = Request::default();
    let mut places: Vec<OsString> = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        let text = argument.to_string_lossy();
        if matches!(&*text, "-h" | "--help") {
            return Ok(Request { help: true, ..Request::default() });
        }
        if matches!(&*text, "--") {
            places.extend(arguments);
            break;
        }
        let Some(flags) = text.strip_prefix('-').filter(|flags| !flags.is_empty()) else {
            places.push(argument);
            continue;
        };
        for (at, flag) in flags.char_indices() {
            match flag {
                's' => request.sloppy = true,
                'f' => request.fake = true,
                'v' => request.verbose = true,
                // Whether /etc/mtab is written is not ours to say any more; namespaces are mount(8)'s own business.
                'n' => {}
                'r' => request.options.push("ro".into()),
                'w' => request.options.push("rw".into()),
                'o' | 't' | 'N' => {
                    let rest = &flags[at + 1..];
                    let value = if rest.is_empty() {
                        arguments.next().ok_or_else(|| format!("-{flag} needs a value; {USAGE}"))?
                    } else {
                        rest.into()
                    };
                    if flag == 'o' {
                        request.options.push(value);
                    }
                    break;
                }
                _ => return Err(format!("unknown flag -{flag}; {USAGE}")),
            }
        }
    }
    let mut places = places.into_iter();
    match (places.next(), places.next(), places.next()) {
        (Some(source), Some(mountpoint), None) => {
            request.source = source;
            request.mountpoint = mountpoint;
            Ok(request)
        }
        _ => Err(USAGE.to_owned()),
    }
}

/// The options that `rvf-mount` knows; with `-s` only these are passed on.
const KNOWN: [&str; 30] = [
    "ro",
    "rw",
    "allow_other",
    "allow_root",
    "default_permissions",
    "auto_unmount",
    "exec",
    "noexec",
    "programs",
    "dev",
    "nodev",
    "suid",
    "nosuid",
    "atime",
    "noatime",
    "relatime",
    "autoindex",
    "noautoindex",
    "fsname",
    "subtype",
    "uid",
    "gid",
    "defaults",
    "nofail",
    "_netdev",
    "user",
    "users",
    "sync",
    "async",
    // Known, and refused: left out, it would be a second mount.
    "remount",
];

/// The arguments for `rvf-mount`.
#[must_use]
pub fn arguments(request: &Request) -> Vec<OsString> {
    let mut out = Vec::new();
    for list in &request.options {
        let list = if request.sloppy { known_only(list) } else { list.clone() };
        if !list.is_empty() {
            out.push("-o".into());
            out.push(list);
        }
    }
    out.push("--".into());
    out.push(request.source.clone());
    out.push(request.mountpoint.clone());
    out
}

fn known_only(list: &OsStr) -> OsString {
    let text = list.to_string_lossy();
    let keep = |word: &&str| {
        let key = word.split_once('=').map_or(*word, |(key, _)| key);
        KNOWN.contains(&key) || key.starts_with("x-") || key.starts_with("X-")
    };
    text.split(',').filter(keep).collect::<Vec<_>>().join(",").into()
}

/// Where `rvf-mount` may be: beside this program, in PATH, and where it is usually installed, for mount(8) runs its
/// helpers with hardly any PATH.
#[must_use]
pub fn candidates(own: Option<&Path>, path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    let beside = own.and_then(Path::parent).map(Path::to_path_buf);
    let in_path = path.map(std::env::split_paths).into_iter().flatten().filter(|dir| dir.is_absolute());
    let usual =
        ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin", "/sbin", "/bin"].map(PathBuf::from);
    for dir in beside.into_iter().chain(in_path).chain(usual) {
        let candidate = dir.join("rvf-mount");
        if !out.contains(&candidate) {
            out.push(candidate);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(words: &[&str]) -> Result<Request, String> {
        parse(words.iter().map(OsString::from))
    }

    #[test]
    fn arguments_as_mount_gives_them() {
        let got = request(&["/a.rvf", "/mnt", "-o", "rw,nofail"]).expect("good");
        assert_eq!(
            (got.source.as_os_str(), got.mountpoint.as_os_str()),
            (OsStr::new("/a.rvf"), OsStr::new("/mnt"))
        );
        assert_eq!(arguments(&got), ["-o", "rw,nofail", "--", "/a.rvf", "/mnt"].map(OsString::from));
        let got = request(&["-sv", "/a", "/b", "-oro,weird,x-y=1,uid=5"]).expect("good");
        assert!(got.sloppy && got.verbose && !got.fake);
        assert_eq!(arguments(&got), ["-o", "ro,x-y=1,uid=5", "--", "/a", "/b"].map(OsString::from));
        let got = request(&["/a", "/b", "-s", "-o", "remount,weird,ro"]).expect("good");
        assert_eq!(arguments(&got), ["-o", "remount,ro", "--", "/a", "/b"].map(OsString::from));
        assert!(request(&["/a", "/b", "-fn", "-t", "rvf"]).expect("good").fake);
    }

    #[test]
    fn mistakes_are_told() {
        assert_eq!(request(&["/a"]), Err(USAGE.to_owned()));
        assert_eq!(request(&["--", "-a", "/b"]).expect("good").source, "-a");
        assert_eq!(request(&["/a", "/b", "/c"]), Err(USAGE.to_owned()));
        assert!(request(&["/a", "/b", "-z"]).expect_err("unknown").starts_with("unknown flag -z"));
        assert!(request(&["/a", "/b", "-o"]).expect_err("no value").starts_with("-o needs a value"));
    }

    #[test]
    fn help_is_given_wherever_it_is_asked_for() {
        for words in [&["--help"][..], &["-h"], &["/a", "/b", "-h"], &["-v", "--help", "-z"]] {
            assert!(request(words).expect("help").help, "{words:?}");
        }
        assert!(HELP.starts_with(USAGE));
    }

    #[test]
    fn the_program_beside_comes_first() {
        let got = candidates(Some(Path::new("/opt/rvf/mount.rvf")), Some(OsStr::new("/x:relative:/usr/bin")));
        assert_eq!(got.first(), Some(&PathBuf::from("/opt/rvf/rvf-mount")));
        assert_eq!(got.get(1), Some(&PathBuf::from("/x/rvf-mount")));
        assert!(!got.contains(&PathBuf::from("relative/rvf-mount")));
        assert_eq!(got.iter().filter(|path| path.starts_with("/usr/bin")).count(), 1);
    }
}

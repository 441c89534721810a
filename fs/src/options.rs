//! The command line of `rvf-mount`, and the `-o` words that mount(8) passes on.

use std::path::PathBuf;

use clap::Parser;

/// Mount a vector store, or a directory of them, as files.
#[derive(Debug, Parser)]
#[command(
    name = "rvf-mount",
    version,
    about = "Mount an .rvf vector store, or a directory of them, as a directory tree",
    after_help = "Exit status: 0 mounted (with --foreground: unmounted again), 1 failure, 2 wrong usage.\n\
                  Unmount with `umount MOUNTPOINT` or `fusermount3 -u MOUNTPOINT`.\n\
                  RVF_LOG sets what is logged, such as RVF_LOG=debug."
)]
pub struct Arguments {
    /// An .rvf file, or a directory of them
    #[arg(value_name = "SOURCE")]
    pub source: PathBuf,
    /// The directory that shows it
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// Mount options, separated by commas, as mount(8) takes them: ro, rw, allow_other, ...
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
    /// Refuse every change
    #[arg(short = 'r', long)]
    pub read_only: bool,
    /// Stay in the foreground and log to standard error
    #[arg(short = 'f', long)]
    pub foreground: bool,
    /// Let other users in (needs user_allow_other in fuse.conf unless root)
    #[arg(long)]
    pub allow_other: bool,
    /// Show the type as `fuse` instead of `fuse.rvf` (some test suites want that)
    #[arg(long)]
    pub no_subtype: bool,
    /// Read files into memory instead of mapping them
    #[arg(long)]
    pub no_mmap: bool,
    /// Read file.rvf through the daemon even where the kernel could read it directly
    #[arg(long)]
    pub no_passthrough: bool,
    /// Build no index in the background when a store without one is queried
    #[arg(long)]
    pub no_auto_index: bool,
    /// Threads that receive the kernel's requests; what takes long, or comes while others wait, runs on further ones
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub threads: u16,
    /// Log to this file
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub log_format: String,
}

/// What the `-o` words ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Words {
    /// `ro` or `rw`, the last one.
    pub read_only: Option<bool>,
    /// `allow_other`.
    pub allow_other: bool,
    /// `allow_root`.
    pub allow_root: bool,
    /// `default_permissions`.
    pub default_permissions: bool,
    /// `auto_unmount`.
    pub auto_unmount: bool,
    /// `noexec` or `exec`.
    pub exec: Option<bool>,
    /// `dev` or `nodev`.
    pub dev: Option<bool>,
    /// `suid` or `nosuid`.
    pub suid: Option<bool>,
    /// `atime` or `noatime`.
    pub atime: Option<bool>,
    /// `autoindex` or `noautoindex`.
    pub auto_index: Option<bool>,
    /// `fsname=`.
    pub fsname: Option<String>,
    /// `subtype=`.
    pub subtype: Option<String>,
    /// `uid=`.
    pub uid: Option<u32>,
    /// `gid=`.
    pub gid: Option<u32>,
}

/// Reads `-o` lists.
///
/// # Errors
/// The word that is not known, or the value that is wrong.
pub fn words(lists: &[String]) -> Result<Words, String> {
    let mut out = Words::default();
    for word in lists.iter().flat_map(|list| list.split(',')).map(str::trim).filter(|word| !word.is_empty()) {
        let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
        let number = |value: Option<&str>| {
            value
                .and_then(|value| value.parse().ok())
                .ok_or_else(|| format!("-o {word}: {key} takes a number"))
        };
        match key {
            "ro" => out.read_only = Some(true),
            "rw" => out.read_only = Some(false),
            "allow_other" => out.allow_other = true,
            "allow_root" => out.allow_root = true,
            "default_permissions" => out.default_permissions = true,
            "auto_unmount" => out.auto_unmount = true,
            // mount(8) keeps `exec` to itself, since it is what it takes for granted.
            "exec" | "programs" => out.exec = Some(true),
            "noexec" => out.exec = Some(false),
            "dev" => out.dev = Some(true),
            "nodev" => out.dev = Some(false),
            "suid" => out.suid = Some(true),
            "nosuid" => out.suid = Some(false),
            "atime" | "relatime" | "strictatime" => out.atime = Some(true),
            "noatime" => out.atime = Some(false),
            "autoindex" => out.auto_index = Some(true),
            "noautoindex" => out.auto_index = Some(false),
            "fsname" => out.fsname = value.map(str::to_owned),
            "subtype" => out.subtype = value.map(str::to_owned),
            "uid" => out.uid = Some(number(value)?),
            "gid" => out.gid = Some(number(value)?),
            // What fstab and mount(8) say to themselves.
            "defaults" | "auto" | "noauto" | "user" | "nouser" | "users" | "owner" | "group" | "nofail"
            | "_netdev" | "sync" | "async" | "dirsync" | "diratime" | "nodiratime" | "norelatime"
            | "lazytime" | "nolazytime" | "comment" | "silent" | "loud" | "iversion" | "noiversion"
            | "mand" | "nomand" => {}
            "remount" => {
                return Err(
                    "-o remount: a mount cannot be changed; unmount it (umount MOUNTPOINT), then mount it anew with other options"
                        .into(),
                );
            }
            _ if key.starts_with("x-") || key.starts_with("X-") => {}
            _ => {
                return Err(format!(
                    "-o {word}: unknown option; there are ro, rw, allow_other, allow_root, default_permissions, auto_unmount, noautoindex, uid=, gid=, fsname=, subtype=, and what mount(8) knows for every filesystem"
                ));
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn words_as_mount_passes_them() {
        let list = |text: &str| words(&[text.to_owned()]);
        assert_eq!(list(""), Ok(Words::default()));
        assert_eq!(
            list("rw,nofail,x-systemd.automount,defaults"),
            Ok(Words { read_only: Some(false), ..Words::default() })
        );
        let got =
            list("ro,allow_other,dev,suid,noexec,noautoindex,uid=5,gid=6,fsname=a b").expect("good options");
        assert_eq!(
            got,
            Words {
                read_only: Some(true),
                allow_other: true,
                dev: Some(true),
                suid: Some(true),
                exec: Some(false),
                auto_index: Some(false),
                uid: Some(5),
                gid: Some(6),
                fsname: Some("a b".into()),
                ..Words::default()
            }
        );
        assert_eq!(words(&["ro".into(), "rw".into()]).map(|words| words.read_only), Ok(Some(false)));
        assert!(list("frob").expect_err("unknown").starts_with("-o frob: unknown option"));
        assert!(list("remount,ro").expect_err("not supported").contains("unmount it"));
        assert_eq!(list("uid=me").expect_err("no number"), "-o uid=me: uid takes a number");
    }
}

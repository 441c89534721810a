//! Branches on filesystems that are not alike: FAT, which keeps no hard links and no modes, tmpfs and ext4.
//!
//! FAT is mounted by the kernel that runs, or, where that has none, by one that is booted for it (`RVF_TEST_KERNEL_DIR`, the
//! directory of an unpacked kernel package) with the two programs in it.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod mounted;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mounted::{has, run_ok};

const GESTURES: &str = include_str!("linkless/gestures.sh");

/// What the booted kernel runs.
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in nls_cp437 nls_ascii fat vfat fuse loop; do insmod /modules/$module.ko; done
losetup /dev/loop0 /disk.img && mount -t vfat /dev/loop0 /disk && sh /gestures.sh /disk /mnt no 2>&1
poweroff -f
";

/// A filesystem in a file or in memory, mounted.
struct Disk {
    dir: tempfile::TempDir,
}

impl Disk {
    /// Why it cannot be, in what the system says.
    fn mount(kind: &str, make: &[&str]) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("disk")).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        let image = dir.path().join("image");
        if make.is_empty() {
            run(Command::new("mount").args(["-t", kind, "none"]).arg(dir.path().join("disk")))?;
        } else {
            make_image(&image, make)?;
            run(Command::new("mount")
                .args(["-o", "loop", "-t", kind])
                .arg(&image)
                .arg(dir.path().join("disk")))?;
        }
        Ok(Self { dir })
    }

    fn gestures(&self, links: &str) {
        let path = self.dir.path();
        let programs = Path::new(env!("CARGO_BIN_EXE_rvf-mount")).parent().unwrap().to_path_buf();
        let before = std::env::var_os("PATH").unwrap_or_default();
        let paths = [programs].into_iter().chain(std::env::split_paths(&before));
        let script = path.join("gestures.sh");
        fs::write(&script, GESTURES).unwrap();
        // A shell that is hung is a failure with a name.
        let output = Command::new("timeout")
            .args(["300", "sh"])
            .arg(&script)
            .args([path.join("disk"), path.join("mnt"), PathBuf::from(links)])
            .env("PATH", std::env::join_paths(paths).unwrap())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("gestures: done"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        for name in ["mnt", "disk"] {
            let _ = Command::new("umount")
                .arg("-l")
                .arg(self.dir.path().join(name))
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn make_image(image: &Path, make: &[&str]) -> Result<(), String> {
    fs::File::create(image).unwrap().set_len(24 << 20).unwrap();
    let [program, options @ ..] = make else { panic!("a program that makes a filesystem") };
    run(Command::new(program).args(options).arg(image))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Says what is missing; with RVF_REQUIRE_TOOLS=1 that is a failure.
fn missing(what: &str) {
    assert!(std::env::var_os("RVF_REQUIRE_TOOLS").is_none(), "{what}, and RVF_REQUIRE_TOOLS is set");
    eprintln!("SKIPPED: {what}");
}

#[test]
fn branches_work_where_there_are_no_hard_links() {
    need_fuse!();
    if !has("mkfs.vfat") {
        return;
    }
    let here = match Disk::mount("vfat", &["mkfs.vfat"]) {
        Ok(disk) => return disk.gestures("no"),
        Err(why) => why,
    };
    if let Err(why) = booted_gestures() {
        missing(&format!("no FAT here ({}), and none in a kernel to boot: {why}", here.trim()));
    }
}

#[test]
fn branches_work_on_other_filesystems() {
    need_fuse!();
    for (kind, make) in [("tmpfs", &[][..]), ("ext4", &["mkfs.ext4", "-q"])] {
        if make.first().is_some_and(|program| !has(program)) {
            continue;
        }
        match Disk::mount(kind, make) {
            Ok(disk) => disk.gestures("yes"),
            Err(why) => missing(&format!("{kind} cannot be mounted: {}", why.trim())),
        }
    }
}

/// The same in a kernel that has FAT, in the emulator: the programs, the tools, their libraries and an image of the
/// filesystem are all in memory.
fn booted_gestures() -> Result<(), String> {
    if !cfg!(target_arch = "x86_64") {
        return Err("only kernels for x86_64 are booted".into());
    }
    for program in ["qemu-system-x86_64", "busybox", "fusermount3", "strip", "ldd"] {
        if !has(program) {
            return Err(format!("{program} is not installed"));
        }
    }
    let packed = std::env::var_os("RVF_TEST_KERNEL_DIR").map(PathBuf::from);
    let packed = packed.ok_or("RVF_TEST_KERNEL_DIR is not set")?;
    let kernel = find(&packed.join("boot"), "vmlinuz").ok_or("no boot/vmlinuz-* in RVF_TEST_KERNEL_DIR")?;
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    for name in ["bin", "dev", "proc", "tmp", "mnt", "disk", "etc", "modules"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    for module in ["nls_cp437", "nls_ascii", "fat", "vfat", "fuse", "loop"] {
        let file = format!("{module}.ko");
        let found = find(&packed.join("lib/modules"), &file).ok_or(format!("no {file} in that kernel"))?;
        fs::copy(found, root.join("modules").join(&file)).unwrap();
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_rvf-mount")).parent().unwrap();
    for name in ["rvf-mount", "rvf"] {
        let to = root.join("bin").join(name);
        run_ok("strip", [Path::new("-o"), &to, &programs.join(name)]);
        libraries(&to, &root);
    }
    let paths = std::env::var_os("PATH").unwrap();
    for name in ["busybox", "cp", "fusermount3"] {
        let from = std::env::split_paths(&paths)
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
            .ok_or(format!("{name} is not installed"))?;
        fs::copy(&from, root.join("bin").join(name)).unwrap();
        libraries(&from, &root);
    }
    symlink("/proc/mounts", root.join("etc/mtab")).unwrap();
    fs::write(root.join("gestures.sh"), GESTURES).unwrap();
    fs::write(root.join("init"), INIT).unwrap();
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755)).unwrap();
    make_image(&root.join("disk.img"), &["mkfs.vfat"])?;
    let packing = format!(
        "cd '{}' && find . | busybox cpio -o -H newc >'{}' 2>/dev/null",
        root.display(),
        dir.path().join("root.cpio").display()
    );
    run(Command::new("sh").args(["-c", &packing]))?;
    let output = Command::new("timeout")
        .args(["280", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-nographic"])
        .args(["-no-reboot", "-nic", "none", "-append", "console=ttyS0 quiet panic=-1", "-kernel"])
        .arg(&kernel)
        .arg("-initrd")
        .arg(dir.path().join("root.cpio"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("gestures: done"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The first file below a directory whose name begins so.
fn find(below: &Path, name: &str) -> Option<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(below).ok()?.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let fits = |path: &Path| path.file_name().unwrap().to_str().is_some_and(|file| file.starts_with(name));
    paths.iter().find(|path| path.is_file() && fits(path)).cloned().or_else(|| {
        paths.iter().filter(|path| path.is_dir() && !path.is_symlink()).find_map(|path| find(path, name))
    })
}

/// Copies what a program is linked with.
fn libraries(program: &Path, root: &Path) {
    let output = Command::new("ldd").arg(program).output().unwrap();
    for word in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        if let Some(inside) = word.strip_prefix('/') {
            let to = root.join(inside);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(word, to).unwrap();
        }
    }
}

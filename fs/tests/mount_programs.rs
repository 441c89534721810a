//! `kernel/`, `ebpf/` and `wasm/` of a mounted store: dropping programs in, what is shown of them, renaming and removing.

mod mounted;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use mounted::Mounted;

/// The fields of a bzImage header that tell what it is, and some code.
fn bz_image(fill: u8) -> Vec<u8> {
    let mut image = vec![fill; 0x1000];
    image[0x1F1] = 1;
    image[0x1F4..0x1F8].copy_from_slice(&192_u32.to_le_bytes());
    image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020F_u16.to_le_bytes());
    image[0x236] = 1;
    image
}

const WASM: &[u8] = b"\0asm\x01\0\0\0";

fn put(m: &Mounted, name: &str, bytes: &[u8]) -> std::path::PathBuf {
    let path = m.source.with_file_name(name);
    fs::write(&path, bytes).expect("a file outside");
    path
}

fn info(m: &Mounted, kind: &str) -> serde_json::Value {
    let segments = m.list("segments");
    let name = segments.iter().rfind(|name| name.ends_with(kind)).expect("a segment of that type");
    let text = fs::read(m.path("segments").join(name).join("info.json")).expect("info.json");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn what_is_copied_in_is_embedded_and_shown() {
    need_fuse!();
    let m = Mounted::new(3);
    for directory in ["kernel", "ebpf", "wasm"] {
        assert_eq!(m.list(directory), ["error"]);
    }
    let image = put(&m, "bzImage", &bz_image(0x90));
    let module = put(&m, "query.wasm", WASM);
    m.sh_ok(&format!("cp {} {}/kernel/", image.display(), m.at.display()));
    m.sh_ok(&format!("cp {} {}/wasm/", module.display(), m.at.display()));
    assert_eq!(m.list("kernel"), ["bzImage", "bzImage.bin", "error"]);
    assert_eq!(m.list("wasm"), ["error", "query", "query.wasm"]);
    m.sh_ok(&format!("cmp {} {}/kernel/bzImage.bin", image.display(), m.at.display()));
    m.sh_ok(&format!("cmp {} {}/wasm/query.wasm", module.display(), m.at.display()));

    let entry = fs::read(m.path("kernel/bzImage")).expect("the entry");
    let meta = fs::metadata(m.path("kernel/bzImage")).expect("stat");
    assert_eq!(meta.len(), entry.len() as u64);
    let entry = rvf_kernel::ExecEntry::parse(&entry).expect("an entry");
    assert_eq!((entry.name.as_str(), entry.kind), ("bzImage", rvf_kernel::ExecKind::Kernel));
    assert_eq!(entry.store, m.source);
    let bytes = fs::read(&m.source).expect("the store");
    let opened = rvf_format::recover::open(&bytes);
    let segment = opened.layout.segment_at_offset(entry.offset).expect("a segment where the entry says");
    assert_eq!(rvf_crypto::sha3_256(segment.payload_of(&bytes)), entry.digest);
    let place = format!("{:06}-kernel", entry.segment);
    assert!(m.list("segments").contains(&place), "{place}");

    let kernel = info(&m, "kernel");
    assert_eq!((&kernel["name"], &kernel["arch"]), (&"bzImage".into(), &"x86_64".into()));
    assert_eq!(kernel["signature"], "unsigned");
    let hex: String = entry.digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(kernel["payload_sha3_256"], hex.as_str());
    for file in ["bzImage", "bzImage.bin"] {
        let out = m.sh_ok(&format!("getfattr --absolute-names -d {}/kernel/{file}", m.at.display()));
        for line in [
            format!("user.rvf.digest=\"sha3-256:{hex}\""),
            "user.rvf.arch=\"x86_64\"".into(),
            "user.rvf.signature=\"unsigned\"".into(),
            "user.rvf.type=\"kernel\"".into(),
        ] {
            assert!(out.lines().any(|l| l == line), "{line} is not in\n{out}");
        }
    }
    // Signed by somebody whom nobody here trusts.
    let key = m.source.with_file_name("key");
    let secret = rvf_crypto::SecretKey::generate(rvf_crypto::Algorithm::Ed25519).expect("a key");
    fs::write(&key, &**secret.to_pem().expect("pem")).expect("the key's file");
    m.sh_ok(&format!(
        "chmod 600 {key} && {rvf} sign {store} -k {key} -s kernel",
        key = key.display(),
        rvf = env!("CARGO_BIN_EXE_rvf"),
        store = m.source.display()
    ));
    mounted::wait_until("the signature shows", || info(&m, "kernel")["signature"] == "untrusted");
    let out = m.sh_ok(&format!(
        "getfattr --absolute-names --only-values -n user.rvf.signature {}/kernel/bzImage",
        m.at.display()
    ));
    assert_eq!(out, "untrusted");
    // The whole tree can be walked, and what is there is what was there.
    m.sh_ok(&format!(
        "find {}/kernel {}/wasm -type f -exec cat {{}} + > /dev/null",
        m.at.display(),
        m.at.display()
    ));
}

#[test]
fn options_come_as_a_file_before_it_or_as_attributes() {
    need_fuse!();
    let m = Mounted::new(1);
    let image = put(&m, "linux", &bz_image(1));
    fs::write(m.path("kernel/linux.json"), r#"{"cmdline": "quiet panic=1", "api_port": 9000, "vcpus": "2"}"#)
        .expect("options");
    assert_eq!(m.list("kernel"), ["error", "linux.json"]);
    m.sh_ok(&format!("cp {} {}/kernel/", image.display(), m.at.display()));
    assert_eq!(m.list("kernel"), ["error", "linux", "linux.bin"]);
    let kernel = info(&m, "kernel");
    assert_eq!((&kernel["cmdline"], &kernel["api_port"]), (&"quiet panic=1".into(), &9000.into()));
    assert_eq!(kernel["vcpus"], 2);

    m.sh_ok(&format!("setfattr -n user.rvf.cmdline -v 'ro nokaslr' {}", image.display()));
    m.sh_ok(&format!("cp --preserve=xattr {} {}/kernel/other", image.display(), m.at.display()));
    assert_eq!(info(&m, "kernel")["cmdline"], "ro nokaslr");

    for (text, word) in [
        ("{\"cmdline\": 3}", "cmdline"),
        ("{\"comandline\": \"\"}", "there are arch, cmdline"),
        ("{\"arch\": \"vax\"}", "x86_64"),
        ("{\"api_port\": 70000}", "65535"),
    ] {
        fs::write(m.path("kernel/bad.json"), text).expect("options that are JSON");
        let before = fs::metadata(&m.source).expect("stat").len();
        let refused = m.write("kernel/bad", bz_image(1)).expect_err("bad options");
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{text}");
        let why = fs::read_to_string(m.path("kernel/error")).expect("error");
        assert!(why.contains(word), "{text}: {why}");
        assert_eq!(fs::metadata(&m.source).expect("stat").len(), before);
        fs::remove_file(m.path("kernel/bad.json")).expect("removed");
    }
    assert!(m.write("kernel/bad.json", "[]").is_err());
    assert_eq!(m.list("kernel"), ["error", "linux", "linux.bin", "other", "other.bin"]);
}

#[test]
fn wrong_things_are_refused_whole() {
    need_fuse!();
    let m = Mounted::new(1);
    let before = fs::metadata(&m.source).expect("stat").len();
    let text = put(&m, "text", b"no program at all");
    for to in ["kernel/x", "ebpf/x.o", "wasm/x.wasm"] {
        let refused = m.write(to, b"no program at all").expect_err(to);
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{to}");
        let directory = to.split('/').next().expect("a directory");
        assert!(!fs::read_to_string(m.path(directory).join("error")).expect("error").is_empty());
        assert_eq!(m.list(directory), ["error"]);
    }
    let object = rvf_bpf::Builtin::Ports.object();
    let table: [(&str, &[u8], &str); 6] = [
        (
            "ebpf/ok.wasm",
            WASM,
            "ok.wasm: a name that ends in .wasm is that of a WASM module, which goes to wasm/\n",
        ),
        (
            "wasm/prog.o",
            object,
            "prog.o: a name that ends in .o is that of an eBPF object, which goes to ebpf/\n",
        ),
        ("kernel/prog", object, "prog: this is an eBPF object, which goes to ebpf/\n"),
        ("kernel/ok", WASM, "ok: this is a WASM module, which goes to wasm/\n"),
        ("ebpf/bzImage", &bz_image(1), "bzImage: this is a kernel image, which goes to kernel/\n"),
        ("wasm/bzImage", &bz_image(1), "bzImage: this is a kernel image, which goes to kernel/\n"),
    ];
    for (to, program, why) in table {
        let refused = m.write(to, program).expect_err(to);
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL), "{to}");
        let directory = to.split('/').next().expect("a directory");
        assert_eq!(fs::read_to_string(m.path(directory).join("error")).expect("error"), why);
    }
    let refused = m.write("wasm/-x", WASM).expect_err("a name that looks like an option");
    assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    assert_eq!(fs::metadata(&m.source).expect("stat").len(), before);
    // A temporary name waits.
    fs::write(m.path("wasm/.m.wasm.Xy12zZ"), WASM).expect("a temporary name");
    assert_eq!(fs::metadata(&m.source).expect("stat").len(), before);
    m.sh_ok(&format!("cd {}/wasm && mv .m.wasm.Xy12zZ m.wasm", m.at.display()));
    assert_eq!(m.list("wasm"), ["error", "m", "m.wasm"]);
    if mounted::has("rsync") {
        m.sh_ok(&format!(
            "rsync -a {}/wasm/m.wasm {}/",
            m.at.display(),
            m.source.parent().unwrap().display()
        ));
        m.sh_ok(&format!(
            "rsync {} {}/wasm/again.wasm",
            text.with_file_name("m.wasm").display(),
            m.at.display()
        ));
        assert_eq!(m.list("wasm"), ["again", "again.wasm", "error", "m", "m.wasm"]);
    }
}

#[test]
fn programs_are_replaced_renamed_and_removed() {
    need_fuse!();
    let m = Mounted::new(1);
    let one = put(&m, "one", &bz_image(1));
    let two = put(&m, "two", &bz_image(2));
    let at = m.at.display().to_string();
    m.sh_ok(&format!("cp {} {at}/kernel/linux && cp {} {at}/kernel/linux", one.display(), two.display()));
    assert_eq!(m.list("kernel"), ["error", "linux", "linux.bin"]);
    assert_eq!(fs::read(m.path("kernel/linux.bin")).expect("image"), bz_image(2));
    m.sh_ok(&format!("cp {} {at}/kernel/linux.bin", one.display()));
    assert_eq!(fs::read(m.path("kernel/linux.bin")).expect("image"), bz_image(1));
    assert_eq!(m.list("kernel"), ["error", "linux", "linux.bin"]);
    assert!(fs::File::options().append(true).open(m.path("kernel/linux")).is_err(), "only whole");

    m.sh_ok(&format!("mv {at}/kernel/linux {at}/kernel/stable"));
    assert_eq!(m.list("kernel"), ["error", "stable", "stable.bin"]);
    m.sh_ok(&format!(
        "cp {} {at}/kernel/next && mv {at}/kernel/next.bin {at}/kernel/stable.bin",
        two.display()
    ));
    assert_eq!(m.list("kernel"), ["error", "stable", "stable.bin"]);
    assert_eq!(fs::read(m.path("kernel/stable.bin")).expect("image"), bz_image(2));
    assert!(fs::rename(m.path("kernel/stable"), m.path("wasm/stable")).is_err());
    assert!(fs::rename(m.path("kernel/stable.bin"), m.path("kernel/plain")).is_err());

    let open = fs::File::open(m.path("kernel/stable.bin")).expect("open");
    m.sh_ok(&format!("rm {at}/kernel/stable.bin"));
    assert_eq!(m.list("kernel"), ["error"]);
    assert_eq!(open.metadata().expect("an open file stays").len(), 0x1000);
    m.sh_ok(&format!("echo compact > {at}/ctl"));
    assert!(!m.list("segments").iter().any(|name| name.ends_with("-kernel")));
    drop(open);
    let check = std::process::Command::new(env!("CARGO_BIN_EXE_rvf")).arg("check").arg(&m.source).output();
    assert!(check.expect("rvf check").status.success());
}

/// Numbers of what is in a program are those of the object and not of its file.
#[test]
fn info_says_what_is_in_a_program() {
    need_fuse!();
    let m = Mounted::new(1);
    let object = rvf_bpf::Builtin::Ports.object();
    fs::write(m.path("ebpf/ports.o"), object).expect("an object");
    let ebpf = info(&m, "ebpf");
    assert_eq!((&ebpf["arch"], &ebpf["image_size"]), (&"bpf".into(), &object.len().into()));
    assert_eq!(ebpf["sections"], serde_json::json!(["socket"]));
    assert_eq!(
        (&ebpf["instructions"], &ebpf["maps"], &ebpf["btf_size"]),
        (&135.into(), &2.into(), &2703.into())
    );
    let digest: String = rvf_bpf::Builtin::Ports.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ebpf["image_hash"], digest.as_str());

    fs::write(m.path("ebpf/bare.json"), r#"{"program_type": "xdp"}"#).expect("options");
    fs::write(m.path("ebpf/bare"), [0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0])
        .expect("instructions");
    let bare = info(&m, "ebpf");
    assert_eq!((&bare["form"], &bare["instructions"]), (&"instructions".into(), &2.into()));
    assert_eq!((bare.get("maps"), bare.get("btf_size")), (None, None), "nothing tells");

    fs::write(m.path("wasm/m.wasm"), WASM).expect("a module");
    let wasm = info(&m, "wasm");
    assert_eq!((&wasm["arch"], &wasm["image_size"]), (&"wasm32".into(), &WASM.len().into()));
    let arch = format!("getfattr --absolute-names --only-values -n user.rvf.arch {}/wasm/m", m.at.display());
    assert_eq!(m.sh_ok(&arch), "wasm32");
}

#[test]
fn entries_are_executable_only_where_that_was_asked_for() {
    need_fuse!();
    let mut m = Mounted::new(1);
    fs::write(m.path("wasm/query.wasm"), WASM).expect("a module");
    let mode = |m: &Mounted| fs::metadata(m.path("wasm/query")).expect("stat").permissions().mode();
    assert_eq!(mode(&m) & 0o111, 0);
    let refused = std::process::Command::new(m.path("wasm/query")).output().expect_err("not allowed");
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    m.unmount();
    m.remount(&["-o", "exec"]);
    assert_eq!(mode(&m) & 0o111, 0o111);
    m.unmount();
    m.remount(&["-o", "exec,ro"]);
    assert_eq!(mode(&m) & 0o777, 0o555);
    let refused = m.write("wasm/other.wasm", WASM).expect_err("read-only");
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
}

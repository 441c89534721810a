//! A store with programs in it, a key, and a place of trust, for tests of `rvf-exec`.
#![allow(dead_code, reason = "each test uses its part")]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rvf_bpf::{ProgramOptions, ProgramPayload, ProgramType};
use rvf_cow::{
    Access, BadRow, Batch, CreateOptions, Embedding, Metric, OpenOptions, SignOptions, Store, Target,
};
use rvf_crypto::{Algorithm, SecretKey, sha3_256};
use rvf_format::checksum::xxh3_128;
use rvf_format::{Entry, SegType, Segment};
use rvf_index::NoProgress;
use rvf_kernel::{ExecEntry, ExecKind, KernelOptions, KernelPayload, WasmOptions, WasmPayload};
use rvf_mount_helper::{Passed, Pick, Refusal, Verified, Wanted, verify};

/// A directory with `a.rvf` and a configuration that trusts [`Place::key`].
pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) key: SecretKey,
}

/// Every kind of program by its segment's type.
pub(crate) const KINDS: [ExecKind; 3] = [ExecKind::Kernel, ExecKind::Ebpf, ExecKind::Wasm];

impl Place {
    /// With vectors 1, 2 and 3.
    pub(crate) fn new() -> Self {
        let place = Self::empty(&CreateOptions { dimension: 3, metric: Metric::L2, profile: 0 });
        ingest(&place.open(), &[1, 2, 3]);
        place
    }

    /// With no vectors yet.
    pub(crate) fn empty(options: &CreateOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = SecretKey::from_seed(Algorithm::Ed25519, &[5; 32]);
        let place = Self { dir, key };
        fs::create_dir_all(place.path("config/rvf/trust")).unwrap();
        for name in ["config", "config/rvf", "config/rvf/trust"] {
            fs::set_permissions(place.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        place.trust("maker", &place.key);
        Store::create(&place.store(), options).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("a.rvf")
    }

    pub(crate) fn trust(&self, name: &str, key: &SecretKey) {
        self.config(&format!("trust/{name}.pub"), &key.public().to_pem().unwrap());
    }

    /// Writes a file that only its owner may write below the configuration.
    pub(crate) fn config(&self, name: &str, text: &str) {
        let path = self.path("config/rvf").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    pub(crate) fn policy(&self, text: &str) {
        self.config("policy.json", text);
    }

    pub(crate) fn open(&self) -> Arc<Store> {
        open(&self.store())
    }

    /// Embeds a payload as it is, and gives its segment's offset.
    pub(crate) fn embed(&self, kind: ExecKind, payload: &[u8]) -> u64 {
        embed(&self.open(), kind, payload, None)
    }

    pub(crate) fn sign(&self, offset: u64, key: &SecretKey, options: &SignOptions) {
        self.open().sign(key, &Target::Segments(vec![offset]), options).unwrap();
    }

    /// Embeds a payload and signs it with the trusted key.
    pub(crate) fn embed_signed(&self, kind: ExecKind, payload: &[u8]) -> u64 {
        self.embed_signed_in(&self.store(), kind, payload, None)
    }

    /// Does so in another store, under a name.
    pub(crate) fn embed_signed_in(
        &self,
        store: &Path,
        kind: ExecKind,
        payload: &[u8],
        name: Option<&str>,
    ) -> u64 {
        let store = open(store);
        let offset = embed(&store, kind, payload, name);
        store.sign(&self.key, &Target::Segments(vec![offset]), &SignOptions::default()).unwrap();
        offset
    }

    /// What an executable entry for a payload of the store says.
    pub(crate) fn entry(&self, kind: ExecKind, offset: u64, payload: &[u8]) -> ExecEntry {
        let store = self.open();
        let view = store.view();
        let at = |entry: &Entry| matches!(entry, Entry::Segment(segment) if segment.offset == offset);
        ExecEntry {
            helper: env!("CARGO_BIN_EXE_rvf-exec").into(),
            store: self.store(),
            kind,
            name: "query".into(),
            segment: view.opened().layout.entries.iter().position(at).unwrap() as u64 + 1,
            offset,
            digest: sha3_256(payload),
        }
    }

    pub(crate) fn wanted(&self, kind: ExecKind) -> Wanted {
        self.wanted_in(&self.store(), kind)
    }

    pub(crate) fn wanted_in(&self, store: &Path, kind: ExecKind) -> Wanted {
        Wanted {
            trust: vec![self.path("config/rvf/trust")],
            policies: vec![self.path("config/rvf/policy.json")],
            ..Wanted::new(store.to_path_buf(), kind, Pick::First)
        }
    }

    pub(crate) fn verify(&self, kind: ExecKind) -> Result<Verified, Refusal> {
        checked(&self.wanted(kind)).1
    }

    /// The number of the step that fails, and why.
    pub(crate) fn refused(&self, kind: ExecKind) -> (u8, String) {
        refused(&self.wanted(kind))
    }

    /// Checks that it is refused at this step, for a reason with this word in it.
    pub(crate) fn refuses(&self, kind: ExecKind, step: u8, word: &str) {
        let (at, reason) = self.refused(kind);
        assert!(at == step && reason.contains(word), "{at} {reason}");
    }

    /// Runs `rvf-exec` with this place's configuration.
    pub(crate) fn exec(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rvf-exec"));
        command.args(arguments).current_dir(self.dir.path());
        self.configure(&mut command);
        command
    }

    /// Gives a command this place's configuration.
    pub(crate) fn configure(&self, command: &mut Command) {
        command.env("XDG_CONFIG_HOME", self.path("config")).env("XDG_CACHE_HOME", self.path("cache"));
    }

    /// Changes bytes of the store in place, behind everybody's back.
    pub(crate) fn poke(&self, at: u64, bytes: &[u8]) {
        fs::File::options().write(true).open(self.store()).unwrap().write_all_at(bytes, at).unwrap();
    }

    pub(crate) fn segment(&self, offset: u64) -> Segment {
        let bytes = fs::read(self.store()).unwrap();
        Segment::at(&bytes, offset).unwrap()
    }

    /// Puts another payload of the same length in the place of a segment's, with the right checksum if so wished.
    pub(crate) fn swap(&self, offset: u64, payload: &[u8], right: bool) {
        let segment = self.segment(offset);
        assert_eq!(segment.header.payload_len(), payload.len() as u64);
        self.poke(segment.payload.start, payload);
        if right {
            self.poke(offset + 0x28, &xxh3_128(payload));
        }
    }
}

pub(crate) fn open(path: &Path) -> Arc<Store> {
    Store::open(path, &OpenOptions { access: Access::ReadWrite, ..OpenOptions::default() }).unwrap()
}

/// Embeds a payload as it is, and gives its segment's offset.
pub(crate) fn embed(store: &Store, kind: ExecKind, payload: &[u8], name: Option<&str>) -> u64 {
    let embedding = Embedding { kind: kind.segment_type(), payload: &[payload], digest: [0; 32], name };
    store.embed(&embedding).unwrap().offset
}

pub(crate) fn ingest(store: &Store, ids: &[u64]) {
    let vectors = ids.iter().flat_map(|id| [*id as f32, 0.0, 1.0]).collect();
    let batch = Batch {
        dimension: 3,
        ids: Some(ids.to_vec()),
        vectors,
        metadata: Vec::new(),
        on_bad_row: BadRow::Refuse,
    };
    store.ingest(&batch, &NoProgress).unwrap();
}

/// Verifies, and gives the notes of what passed too.
pub(crate) fn checked(wanted: &Wanted) -> (Vec<Passed>, Result<Verified, Refusal>) {
    let mut passed = Vec::new();
    let result = verify::verify(wanted, &mut |step| passed.push(step));
    (passed, result)
}

pub(crate) fn refused(wanted: &Wanted) -> (u8, String) {
    let (passed, result) = checked(wanted);
    let refusal = result.expect_err("refused");
    let before: Vec<u8> = passed.iter().map(|p| p.step.number()).collect();
    let want: Vec<u8> = (1..refusal.step.number()).collect();
    assert_eq!(before, want, "every step before it, in order, and none after");
    (refusal.step.number(), refusal.reason)
}

/// The fields of a bzImage header that tell what it is.
pub(crate) fn bz_image() -> Vec<u8> {
    let mut image = vec![0x90; 0x400];
    image[0x1F1] = 1;
    image[0x1F4..0x1F8].copy_from_slice(&0_u32.to_le_bytes());
    image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020F_u16.to_le_bytes());
    image[0x236..0x238].copy_from_slice(&1_u16.to_le_bytes());
    image
}

/// A kernel image for this machine.
pub(crate) fn own_image() -> Vec<u8> {
    image_for(std::env::consts::ARCH)
}

/// A kernel image for another machine.
pub(crate) fn other_image() -> Vec<u8> {
    image_for(if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" })
}

fn image_for(arch: &str) -> Vec<u8> {
    if arch == "x86_64" {
        return bz_image();
    }
    let mut image = vec![0x90; 0x400];
    image[0x38..0x3C].copy_from_slice(if arch == "riscv64" { b"RSC\x05" } else { b"ARM\x64" });
    image
}

pub(crate) fn kernel(image: &[u8], options: &KernelOptions) -> Vec<u8> {
    KernelPayload::new(image, options).unwrap().pieces().concat()
}

/// `(module (func (export "f")))` with a memory.
pub(crate) fn module() -> Vec<u8> {
    let mut out = b"\0asm\x01\0\0\0".to_vec();
    let sections: [(u8, &[u8]); 5] = [
        (1, &[1, 0x60, 0, 0]),
        (3, &[1, 0]),
        (5, &[1, 1, 3, 7]),
        (7, &[2, 1, b'f', 0, 0, 1, b'm', 2, 0]),
        (10, &[1, 2, 0, 0x0B]),
    ];
    for (id, bytes) in sections {
        out.push(id);
        out.push(bytes.len() as u8);
        out.extend_from_slice(bytes);
    }
    out
}

pub(crate) fn wasm(module: &[u8]) -> Vec<u8> {
    WasmPayload::new(module, &WasmOptions::default()).unwrap().pieces().concat()
}

/// `r0 = n; exit`, as bare instructions.
pub(crate) fn ebpf(n: u8) -> Vec<u8> {
    let code = [0xB7, 0, 0, 0, n, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    let options = ProgramOptions { program_type: Some(ProgramType::Xdp), max_dimension: 0 };
    ProgramPayload::new(&code, &options).unwrap().pieces().concat()
}

/// A payload of each kind that nothing is wrong with.
pub(crate) fn sound(kind: ExecKind) -> Vec<u8> {
    match kind {
        ExecKind::Kernel => kernel(
            &own_image(),
            &KernelOptions { cmdline: "console=ttyS0 quiet".into(), ..KernelOptions::default() },
        ),
        ExecKind::Ebpf => ebpf(2),
        ExecKind::Wasm => wasm(&module()),
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Segments of a type, by offset.
pub(crate) fn segments(path: &Path, kind: SegType) -> Vec<u64> {
    let store = open(path);
    let view = store.view();
    view.opened().layout.segments().filter(|s| s.kind() == kind).map(|s| s.offset).collect()
}

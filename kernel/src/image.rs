//! KERNEL payloads.

use crate::error::{Fields, ImageError, header};
use rvf_format::Integrity;

pub(crate) const MAGIC: u32 = 0x5256_4B4E;
pub(crate) const HEADER_LEN: usize = 128;
pub(crate) const BINDING_LEN: usize = 128;
const WHAT: &str = "KERNEL";

const FLAGS: [&str; 15] = [
    "tee",
    "kvm",
    "uefi",
    "networking",
    "query_api",
    "ingest_api",
    "admin_api",
    "attestation_ready",
    "signed",
    "measured",
    "compressed",
    "relocatable",
    "virtio_net",
    "virtio_blk",
    "vsock",
];

/// The 128-byte header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 0 x86_64, 1 aarch64, 2 riscv64, 0xFE universal, 0xFF unknown; the reference's CLI writes one more.
    pub arch: u8,
    /// 0 Hermit, 1 MicroLinux, 2 Asterinas, 3 WASI-P2, 4 custom, 0xFE test stub.
    pub kind: u8,
    /// See [`Header::flag_names`].
    pub flags: u32,
    /// MiB.
    pub min_memory_mb: u32,
    /// Entry address.
    pub entry_point: u64,
    /// Bytes of the image.
    pub image_size: u64,
    /// Bytes of the image as stored.
    pub compressed_size: u64,
    /// 0.
    pub compression: u8,
    /// 0 HTTP, 1 gRPC, 2 vsock, 3 shared memory, 0xFF none.
    pub api_transport: u8,
    /// Port (stored big-endian).
    pub api_port: u16,
    /// 1.
    pub api_version: u32,
    /// See [`Kernel::integrity`].
    pub image_hash: [u8; 32],
    /// Build id.
    pub build_id: [u8; 16],
    /// Build time.
    pub build_timestamp: u64,
    /// Virtual CPUs.
    pub vcpu_count: u32,
    /// What the header says; wrong for plain kernels, see [`Layout`].
    pub cmdline_offset: u64,
    /// Bytes of the command line.
    pub cmdline_length: u32,
}

impl Header {
    fn read(f: &Fields<'_>) -> Self {
        Self {
            arch: f.u8(0x06),
            kind: f.u8(0x07),
            flags: f.u32(0x08),
            min_memory_mb: f.u32(0x0C),
            entry_point: f.u64(0x10),
            image_size: f.u64(0x18),
            compressed_size: f.u64(0x20),
            compression: f.u8(0x28),
            api_transport: f.u8(0x29),
            api_port: u16::from_be_bytes(f.bytes(0x2A)),
            api_version: f.u32(0x2C),
            image_hash: f.bytes(0x30),
            build_id: f.bytes(0x50),
            build_timestamp: f.u64(0x60),
            vcpu_count: f.u32(0x68),
            cmdline_offset: f.u64(0x70),
            cmdline_length: f.u32(0x78),
        }
    }

    /// The architecture by the format's numbers.
    pub fn arch_name(&self) -> &'static str {
        arch_name(self.arch)
    }

    /// The architecture by the numbers of the reference's `embed-kernel`, which are one too high; `None` where it
    /// writes no such number. A reader cannot tell which was meant.
    pub fn arch_name_by_cli(&self) -> Option<&'static str> {
        match self.arch {
            1..=3 => Some(arch_name(self.arch - 1)),
            _ => None,
        }
    }

    /// The kind of kernel.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            0x00 => "hermit",
            0x01 => "microlinux",
            0x02 => "asterinas",
            0x03 => "wasi-p2",
            0x04 => "custom",
            0xFE => "test-stub",
            _ => "unknown",
        }
    }

    /// How the API is reached.
    pub fn transport_name(&self) -> &'static str {
        match self.api_transport {
            0 => "http",
            1 => "grpc",
            2 => "vsock",
            3 => "shm",
            0xFF => "none",
            _ => "unknown",
        }
    }

    /// Names of the set flags, lowest bit first.
    pub fn flag_names(&self) -> Vec<&'static str> {
        FLAGS
            .iter()
            .enumerate()
            .filter(|(bit, _)| self.flags >> bit & 1 == 1)
            .map(|(_, name)| *name)
            .collect()
    }
}

fn arch_name(arch: u8) -> &'static str {
    match arch {
        0x00 => "x86_64",
        0x01 => "aarch64",
        0x02 => "riscv64",
        0xFE => "universal",
        _ => "unknown",
    }
}

/// How image and command line lie after the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Image, then command line, whatever the header's offset says.
    Plain,
    /// Binding, command line, image.
    Bound,
}

/// What a kernel was bound to when it was embedded. The existing tools compare it with nothing; `rvf-exec` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Hash of a manifest.
    pub manifest_root_hash: [u8; 32],
    /// Hash of a policy.
    pub policy_hash: [u8; 32],
    /// Version, not 0.
    pub version: u16,
    /// Smallest runtime version.
    pub min_runtime_version: u16,
    /// One bit a segment type.
    pub allowed_segment_mask: u64,
}

impl Binding {
    pub(crate) fn encode(&self) -> [u8; BINDING_LEN] {
        let mut out = [0; BINDING_LEN];
        out[..0x20].copy_from_slice(&self.manifest_root_hash);
        out[0x20..0x40].copy_from_slice(&self.policy_hash);
        out[0x40..0x42].copy_from_slice(&self.version.to_le_bytes());
        out[0x42..0x44].copy_from_slice(&self.min_runtime_version.to_le_bytes());
        out[0x48..0x50].copy_from_slice(&self.allowed_segment_mask.to_le_bytes());
        out
    }
}

/// A KERNEL payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel<'a> {
    /// The header.
    pub header: Header,
    /// How the rest lies.
    pub layout: Layout,
    /// The binding of a bound kernel.
    pub binding: Option<Binding>,
    /// The image.
    pub image: &'a [u8],
    /// The command line, not checked to be text.
    pub cmdline: &'a [u8],
    /// Everything after the header.
    pub rest: &'a [u8],
}

impl<'a> Kernel<'a> {
    /// Reads a payload. O(1).
    ///
    /// # Errors
    /// [`ImageError`] when header, image and command line (and a binding) do not fill the payload exactly.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ImageError> {
        let (fields, rest) = header(payload, WHAT, HEADER_LEN, MAGIC)?;
        let header = Header::read(&fields);
        let declared = header.image_size.saturating_add(u64::from(header.cmdline_length));
        let found = rest.len() as u64;
        let size = || ImageError::Size { what: WHAT, declared, found };
        let take = |bytes: &'a [u8], len: u64| {
            usize::try_from(len).ok().and_then(|len| bytes.split_at_checked(len)).ok_or_else(size)
        };
        if found == declared {
            let (image, cmdline) = take(rest, header.image_size)?;
            return Ok(Self { header, layout: Layout::Plain, binding: None, image, cmdline, rest });
        }
        if found.checked_sub(BINDING_LEN as u64) != Some(declared) {
            return Err(size());
        }
        let (binding, after) = take(rest, BINDING_LEN as u64)?;
        let (cmdline, image) = take(after, u64::from(header.cmdline_length))?;
        let f = Fields(binding);
        let binding = Binding {
            manifest_root_hash: f.bytes(0),
            policy_hash: f.bytes(0x20),
            version: f.u16(0x40),
            min_runtime_version: f.u16(0x42),
            allowed_segment_mask: f.u64(0x48),
        };
        Ok(Self { header, layout: Layout::Bound, binding: Some(binding), image, cmdline, rest })
    }

    /// Which hash of the image (or of everything after the header, which `verify-attestation` takes) is stored.
    /// O(image).
    pub fn integrity(&self) -> Integrity {
        Integrity::of(&self.header.image_hash, &[self.image, self.rest])
    }
}

//! What may be embedded, and the payloads that hold it.
//!
//! Everything is judged before a byte is written: an image of the wrong kind, for the wrong machine or with a command line
//! that a boot loader could misread is refused here, not by whoever runs it one day.

use crate::error::EmbedError;
use crate::image::{BINDING_LEN, Binding, HEADER_LEN, MAGIC};
use rvf_format::checksum::sha3_256;

/// Largest kernel image, a binding and the command line of a bound one included. The existing tools have the same limit.
pub const MAX_KERNEL_BYTES: u64 = 128 << 20;
/// Longest command line: what x86 Linux takes, less its final zero.
pub const MAX_CMDLINE: usize = 2047;

const NETWORKING_AND_QUERY_API: u32 = 1 << 3 | 1 << 4;

/// Machines that a kernel can be for, by the format's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Arch {
    /// The number in the header.
    pub fn code(self) -> u8 {
        match self {
            Self::X86_64 => 0,
            Self::Aarch64 => 1,
            Self::Riscv64 => 2,
        }
    }

    /// The usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Riscv64 => "riscv64",
        }
    }

    /// From a name, also those that the existing tools and distributions use.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" | "amd64" => Self::X86_64,
            "aarch64" | "arm64" => Self::Aarch64,
            "riscv64" => Self::Riscv64,
            _ => return None,
        })
    }
}

/// What an image was recognized as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageForm {
    /// A Linux boot image: bzImage, or an arm64 or riscv64 `Image`.
    Linux(Arch),
    /// An ELF executable, such as a vmlinux or a unikernel.
    Elf(Arch),
}

impl ImageForm {
    /// The machine.
    pub fn arch(self) -> Arch {
        match self {
            Self::Linux(arch) | Self::Elf(arch) => arch,
        }
    }

    /// Looks at the first bytes of an image; `None` when they are those of no kernel that is known. O(1).
    ///
    /// # Errors
    /// What the image is instead, where that is plain: 32-bit, compressed, an object file, for another machine.
    pub fn of(image: &[u8]) -> Result<Option<Self>, EmbedError> {
        let at = |offset: usize, len: usize| image.get(offset..offset + len).unwrap_or(&[]);
        let half = |offset: usize| match at(offset, 2) {
            [low, high] => u16::from_le_bytes([*low, *high]),
            _ => 0,
        };
        let not = |found: &'static str, mend: &'static str| Err(EmbedError::NotAKernel { found, mend });
        if at(0x202, 4) == b"HdrS" && half(0x1FE) == 0xAA55 {
            // Sectors of the setup code, and after them so many paragraphs of the kernel.
            let sectors = match image.get(0x1F1) {
                Some(0) | None => 4,
                Some(sectors) => u64::from(*sectors),
            };
            let paragraphs = u64::from(half(0x1F4)) | u64::from(half(0x1F6)) << 16;
            if paragraphs > 0 && (image.len() as u64) < (sectors + 1) * 512 + paragraphs * 16 {
                return not("a bzImage without its end", "copy the whole file");
            }
            // Since boot protocol 2.12 the image says whether it has a 64-bit entry.
            return match half(0x206) >= 0x020C && half(0x236) & 1 == 1 {
                true => Ok(Some(Self::Linux(Arch::X86_64))),
                false => {
                    not("a bzImage without a 64-bit entry", "build a 64-bit kernel of Linux 3.8 or later")
                }
            };
        }
        if at(0x38, 4) == b"ARM\x64" {
            return Ok(Some(Self::Linux(Arch::Aarch64)));
        }
        if at(0x38, 4) == b"RSC\x05" {
            return Ok(Some(Self::Linux(Arch::Riscv64)));
        }
        if at(0, 4) == b"\x7fELF" {
            return elf(image.get(4).copied(), image.get(5).copied(), half(0x10), half(0x12)).map(Some);
        }
        if at(0, 2) == b"\x1f\x8b" || at(0, 6) == b"\xfd7zXZ\0" || at(0, 4) == b"\x28\xb5\x2f\xfd" {
            return not("a compressed file", "embed what is in it (gunzip, unxz, unzstd)");
        }
        if at(0, 4) == b"\0asm" {
            return not("a WASM module", "embed it as WASM");
        }
        Ok(None)
    }
}

fn elf(class: Option<u8>, data: Option<u8>, kind: u16, machine: u16) -> Result<ImageForm, EmbedError> {
    let not = |found, mend| Err(EmbedError::NotAKernel { found, mend });
    if (class, data) != (Some(2), Some(1)) {
        return not("an ELF file that is not 64-bit little-endian", "build the kernel for a 64-bit machine");
    }
    let arch = match machine {
        62 => Arch::X86_64,
        183 => Arch::Aarch64,
        243 => Arch::Riscv64,
        247 => return not("an eBPF object", "embed it as eBPF"),
        _ => {
            return not(
                "an ELF file for a machine that the format has no number for",
                "use x86_64, aarch64 or riscv64",
            );
        }
    };
    // ET_EXEC and ET_DYN; ET_REL is an object file that was never linked.
    match kind {
        2 | 3 => Ok(ImageForm::Elf(arch)),
        _ => not("an ELF file that is no executable", "link it first"),
    }
}

/// What is recorded beside a kernel image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// The machine; found from the image where it can be.
    pub arch: Option<Arch>,
    /// Number of the kind, see [`crate::Header::kind_name`]; MicroLinux for Linux boot images, else custom, when not given.
    pub kind: Option<u8>,
    /// See [`crate::Header::flag_names`].
    pub flags: u32,
    /// MiB that it needs; 0 when not known.
    pub min_memory_mb: u32,
    /// Virtual CPUs that it wants; 0 when not known.
    pub vcpu_count: u32,
    /// Port of its HTTP API.
    pub api_port: u16,
    /// Command line: printable ASCII, at most [`MAX_CMDLINE`] bytes.
    pub cmdline: String,
    /// What it is bound to. The existing launcher boots no bound kernel: it takes the binding for the image.
    pub binding: Option<Binding>,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self {
            arch: None,
            kind: None,
            flags: NETWORKING_AND_QUERY_API,
            min_memory_mb: 0,
            vcpu_count: 0,
            api_port: 8080,
            cmdline: String::new(),
            binding: None,
        }
    }
}

/// A payload ready to be written, in pieces so that the image is not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelPayload<'a> {
    head: Vec<u8>,
    image: &'a [u8],
    tail: Vec<u8>,
    /// The machine.
    pub arch: Arch,
    /// Number of the kind.
    pub kind: u8,
    /// SHA3-256 of the image, as in the header.
    pub digest: [u8; 32],
}

impl<'a> KernelPayload<'a> {
    /// Judges an image and puts its payload together: without a binding the image and then the command line, which every
    /// reader takes apart rightly; with one, binding, command line and image. O(image).
    ///
    /// # Errors
    /// [`EmbedError`], which says what to give instead.
    pub fn new(image: &'a [u8], options: &KernelOptions) -> Result<Self, EmbedError> {
        let what = "kernel image";
        if image.is_empty() {
            return Err(EmbedError::Empty { what });
        }
        let cmdline = options.cmdline.as_bytes();
        check_cmdline(cmdline)?;
        let beside = if options.binding.is_some() { BINDING_LEN + cmdline.len() } else { 0 };
        let len = image.len() as u64 + beside as u64;
        if len > MAX_KERNEL_BYTES {
            return Err(EmbedError::TooLarge { what, len, limit: MAX_KERNEL_BYTES });
        }
        if options.binding.as_ref().is_some_and(|binding| binding.version == 0) {
            return Err(EmbedError::BindingVersion);
        }
        let form = ImageForm::of(image)?;
        let arch = match (form.map(ImageForm::arch), options.arch) {
            (Some(found), Some(given)) if found != given => {
                return Err(EmbedError::OtherArch { found: found.name(), given: given.name() });
            }
            (Some(arch), _) | (None, Some(arch)) => arch,
            (None, None) => return Err(EmbedError::UnknownImage),
        };
        let kind = options.kind.unwrap_or(if matches!(form, Some(ImageForm::Linux(_))) { 1 } else { 4 });
        let digest = sha3_256(image);
        let offset = match options.binding {
            Some(_) => (HEADER_LEN + BINDING_LEN) as u64,
            None => HEADER_LEN as u64 + image.len() as u64,
        };
        let mut head = vec![0; HEADER_LEN];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        let size = (image.len() as u64).to_le_bytes();
        put(0x00, &MAGIC.to_le_bytes());
        put(0x04, &1_u16.to_le_bytes());
        put(0x06, &[arch.code(), kind]);
        put(0x08, &options.flags.to_le_bytes());
        put(0x0C, &options.min_memory_mb.to_le_bytes());
        put(0x18, &size);
        put(0x20, &size);
        // The port alone is big-endian.
        put(0x2A, &[(options.api_port >> 8) as u8, options.api_port as u8]);
        put(0x2C, &1_u32.to_le_bytes());
        put(0x30, &digest);
        put(0x68, &options.vcpu_count.to_le_bytes());
        put(0x70, &offset.to_le_bytes());
        put(0x78, &(cmdline.len() as u32).to_le_bytes());
        let tail = match &options.binding {
            Some(binding) => {
                head.extend_from_slice(&binding.encode());
                head.extend_from_slice(cmdline);
                Vec::new()
            }
            None => cmdline.to_vec(),
        };
        Ok(Self { head, image, tail, arch, kind, digest })
    }

    /// The payload's bytes, one piece after the other.
    pub fn pieces(&self) -> [&[u8]; 3] {
        [&self.head, self.image, &self.tail]
    }
}

fn check_cmdline(cmdline: &[u8]) -> Result<(), EmbedError> {
    if cmdline.len() > MAX_CMDLINE {
        return Err(EmbedError::LongCmdline { len: cmdline.len() });
    }
    match cmdline.iter().position(|byte| !(0x20..0x7F).contains(byte)) {
        Some(at) => Err(EmbedError::Cmdline { at, byte: cmdline[at] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Integrity, Kernel, Layout};

    /// The fields of a bzImage header that tell what it is.
    fn bz_image() -> Vec<u8> {
        let mut image = vec![0x90; 0x1000];
        image[0x1F1] = 1;
        image[0x1F4..0x1F8].copy_from_slice(&192_u32.to_le_bytes());
        image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x020F_u16.to_le_bytes());
        image[0x236..0x238].copy_from_slice(&1_u16.to_le_bytes());
        image
    }

    fn elf_image(kind: u16, machine: u16) -> Vec<u8> {
        let mut image = b"\x7fELF\x02\x01\x01".to_vec();
        image.resize(64, 0);
        image[16..18].copy_from_slice(&kind.to_le_bytes());
        image[18..20].copy_from_slice(&machine.to_le_bytes());
        image
    }

    fn image_with(at: usize, magic: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[at..at + magic.len()].copy_from_slice(magic);
        image
    }

    #[test]
    fn images_are_recognized() {
        let table = [
            (bz_image(), ImageForm::Linux(Arch::X86_64)),
            (image_with(0x38, b"ARM\x64"), ImageForm::Linux(Arch::Aarch64)),
            (image_with(0x38, b"RSC\x05"), ImageForm::Linux(Arch::Riscv64)),
            (elf_image(2, 62), ImageForm::Elf(Arch::X86_64)),
            (elf_image(3, 183), ImageForm::Elf(Arch::Aarch64)),
            (elf_image(2, 243), ImageForm::Elf(Arch::Riscv64)),
        ];
        for (image, form) in table {
            assert_eq!(ImageForm::of(&image), Ok(Some(form)));
            let payload = KernelPayload::new(&image, &KernelOptions::default()).expect("a kernel");
            assert_eq!(payload.arch, form.arch());
            assert_eq!(payload.kind, if matches!(form, ImageForm::Linux(_)) { 1 } else { 4 });
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused_with_what_it_is() {
        let mut old = bz_image();
        old[0x236] = 0;
        let mut narrow = elf_image(2, 3);
        narrow[4] = 1;
        for (image, word) in [
            (old, "64-bit"),
            (bz_image()[..0xFFF].to_vec(), "without its end"),
            (narrow, "64-bit"),
            (elf_image(1, 62), "link"),
            (elf_image(1, 247), "eBPF"),
            (elf_image(2, 8), "machine"),
            (image_with(0, b"\x1f\x8b"), "gunzip"),
            (image_with(0, b"\0asm"), "WASM"),
            (vec![], "empty"),
            (vec![7; 100], "arch"),
        ] {
            let error = KernelPayload::new(&image, &KernelOptions::default()).expect_err(word);
            assert!(error.to_string().contains(word), "{error}");
        }
        let given = KernelOptions { arch: Some(Arch::Aarch64), ..KernelOptions::default() };
        let error = KernelPayload::new(&bz_image(), &given).expect_err("another machine");
        assert_eq!(error, EmbedError::OtherArch { found: "x86_64", given: "aarch64" });
        assert_eq!(KernelPayload::new(&[7; 100], &given).map(|payload| payload.kind), Ok(4));
        let huge = vec![0; MAX_KERNEL_BYTES as usize + 1];
        assert!(matches!(KernelPayload::new(&huge, &given), Err(EmbedError::TooLarge { .. })));
        assert!(KernelPayload::new(&huge[1..], &given).is_ok());
    }

    #[test]
    fn command_lines_are_printable_and_short() {
        for (text, ok) in [
            ("console=ttyS0 quiet".to_owned(), true),
            ("x".repeat(MAX_CMDLINE), true),
            ("x".repeat(MAX_CMDLINE + 1), false),
            ("a\nb".to_owned(), false),
            ("a\0b".to_owned(), false),
            ("a\x7f".to_owned(), false),
            ("ä".to_owned(), false),
        ] {
            let options = KernelOptions { cmdline: text.clone(), ..KernelOptions::default() };
            assert_eq!(KernelPayload::new(&bz_image(), &options).is_ok(), ok, "{text:?}");
        }
    }

    #[test]
    fn what_was_written_reads_back_in_both_layouts() {
        let image = bz_image();
        let binding = Binding {
            manifest_root_hash: [1; 32],
            policy_hash: [2; 32],
            version: 1,
            min_runtime_version: 3,
            allowed_segment_mask: 0x0123_4567_89AB_CDEF,
        };
        for binding in [None, Some(binding)] {
            let options = KernelOptions {
                api_port: 9001,
                min_memory_mb: 64,
                vcpu_count: 2,
                cmdline: "console=ttyS0".into(),
                binding: binding.clone(),
                ..KernelOptions::default()
            };
            let written = KernelPayload::new(&image, &options).expect("a kernel");
            let bytes = written.pieces().concat();
            let read = Kernel::parse(&bytes).expect("whole");
            assert_eq!(read.layout, if binding.is_some() { Layout::Bound } else { Layout::Plain });
            assert_eq!(read.binding, binding);
            assert!(read.image == image);
            assert_eq!(read.cmdline, b"console=ttyS0");
            let at = read.header.cmdline_offset as usize;
            assert_eq!(&bytes[at..at + 13], b"console=ttyS0", "the offset says the truth");
            assert_eq!(read.integrity(), Integrity::Sha3);
            assert_eq!(read.header.arch_name(), "x86_64");
            assert_eq!(read.header.flag_names(), ["networking", "query_api"]);
            let header = &read.header;
            assert_eq!((header.api_port, header.min_memory_mb, header.vcpu_count), (9001, 64, 2));
        }
        let unset =
            Binding { version: 0, ..Kernel::parse(&bound(&image)).expect("whole").binding.expect("bound") };
        let options = KernelOptions { binding: Some(unset), ..KernelOptions::default() };
        assert_eq!(KernelPayload::new(&image, &options), Err(EmbedError::BindingVersion));
    }

    fn bound(image: &[u8]) -> Vec<u8> {
        let binding = Binding {
            manifest_root_hash: [0; 32],
            policy_hash: [0; 32],
            version: 1,
            min_runtime_version: 0,
            allowed_segment_mask: 0,
        };
        let options = KernelOptions { binding: Some(binding), ..KernelOptions::default() };
        KernelPayload::new(image, &options).expect("a kernel").pieces().concat()
    }
}

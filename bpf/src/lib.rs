//! Embedded eBPF programs of RVF files: judged and encoded, decoded, measured against their hashes, never loaded. And the
//! programs of ours ([`Builtin`]) with what they agree on with their surroundings: rounded vectors ([`hot`]), packets ([`wire`]),
//! maps ([`maps`]).
//!
//! An EBPF payload is a 64-byte header, the program, and BTF. The program is whatever file was embedded: the
//! reference stores instructions, or an ELF object, or anything else alike; [`Program::form`] looks.

mod builtin;
mod contents;
mod embed;
pub mod hot;
pub mod maps;
mod sections;
pub mod wire;

pub use builtin::Builtin;
pub use contents::Contents;
pub use embed::{EmbedError, MAX_PROGRAM_BYTES, ProgramOptions, ProgramPayload, ProgramType};
pub use rvf_format::Integrity;
pub use sections::for_loader;

const MAGIC: u32 = 0x5256_4250;
const HEADER_LEN: usize = 64;

/// Why a payload is no usable program. All variants are corruption.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// Shorter than its header.
    #[error("EBPF payload of {len} bytes is shorter than its header")]
    Short {
        /// Payload bytes.
        len: usize,
    },
    /// Another magic number.
    #[error("EBPF header starts with {found:#010x}, not its magic number")]
    Magic {
        /// What is there.
        found: u32,
    },
    /// A version that is not known.
    #[error("EBPF header of version {found}; only version 1 is known")]
    Version {
        /// What is there.
        found: u16,
    },
    /// Declared sizes and payload length disagree.
    #[error("EBPF: {declared} bytes declared, {found} present")]
    Size {
        /// Bytes that the header declares.
        declared: u64,
        /// Bytes after the header.
        found: u64,
    },
}

/// What the stored bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An ELF object.
    Elf,
    /// A whole number of 8-byte instructions.
    Instructions,
    /// Neither.
    Other,
}

/// An EBPF payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// 0 XDP, 1 TC, 2 socket filter, 3 tracepoint, 4 kprobe, 5 cgroup skb, 0xFF custom; the reference's CLI has
    /// numbers of its own.
    pub program_type: u8,
    /// 0 XDP ingress, 1 TC ingress, 2 TC egress, 3 socket filter, 4 cgroup ingress, 5 cgroup egress, 0xFF none.
    pub attach_type: u8,
    /// 0.
    pub flags: u32,
    /// Bytes of the program by 8, modulo 65,536: its instructions only where it is nothing else.
    pub insn_count: u16,
    /// Largest dimension that the program handles.
    pub max_dimension: u16,
    /// 0.
    pub map_count: u32,
    /// Hash of the program.
    pub program_hash: [u8; 32],
    /// The program.
    pub program: &'a [u8],
    /// Its type information; empty without.
    pub btf: &'a [u8],
}

impl<'a> Program<'a> {
    /// Reads a payload. O(1). The program itself is not looked into.
    ///
    /// # Errors
    /// [`ProgramError`] when the header is wrong or program and BTF pass the end. More bytes than declared are left
    /// out.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ProgramError> {
        let Some((header, rest)) = payload.split_first_chunk::<HEADER_LEN>() else {
            return Err(ProgramError::Short { len: payload.len() });
        };
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        if word(0) != MAGIC {
            return Err(ProgramError::Magic { found: word(0) });
        }
        if half(4) != 1 {
            return Err(ProgramError::Version { found: half(4) });
        }
        let program_size = u64::from(word(0x10)) | u64::from(word(0x14)) << 32;
        let btf_size = word(0x1C);
        let size = || ProgramError::Size {
            declared: program_size.saturating_add(u64::from(btf_size)),
            found: rest.len() as u64,
        };
        let split = usize::try_from(program_size).ok().and_then(|at| rest.split_at_checked(at));
        let (program, after) = split.ok_or_else(size)?;
        let btf = after.get(..btf_size as usize).ok_or_else(size)?;
        let mut program_hash = [0; 32];
        program_hash.copy_from_slice(&header[0x20..]);
        Ok(Self {
            program_type: header[6],
            attach_type: header[7],
            flags: word(8),
            insn_count: half(0x0C),
            max_dimension: half(0x0E),
            map_count: word(0x18),
            program_hash,
            program,
            btf,
        })
    }

    /// The program type by the format's numbers.
    pub fn type_name(&self) -> &'static str {
        match self.program_type {
            0 => "xdp-distance",
            1 => "tc-filter",
            2 => "socket-filter",
            3 => "tracepoint",
            4 => "kprobe",
            5 => "cgroup-skb",
            0xFF => "custom",
            _ => "unknown",
        }
    }

    /// The program type by the numbers of the reference's `embed-ebpf`; `None` where it writes no such number. A
    /// reader cannot tell which was meant.
    pub fn type_name_by_cli(&self) -> Option<&'static str> {
        match self.program_type {
            1 => Some("socket-filter"),
            2 => Some("xdp"),
            3 => Some("tc"),
            _ => None,
        }
    }

    /// Where it attaches.
    pub fn attach_name(&self) -> &'static str {
        match self.attach_type {
            0 => "xdp-ingress",
            1 => "tc-ingress",
            2 => "tc-egress",
            3 => "socket-filter",
            4 => "cgroup-ingress",
            5 => "cgroup-egress",
            0xFF => "none",
            _ => "unknown",
        }
    }

    /// What the stored bytes look like.
    pub fn form(&self) -> Form {
        if self.program.starts_with(b"\x7fELF") {
            Form::Elf
        } else if !self.program.is_empty() && self.program.len().is_multiple_of(8) {
            Form::Instructions
        } else {
            Form::Other
        }
    }

    /// What the program holds; `None` when it is no ELF object or a damaged one. O(sections + symbols).
    pub fn contents(&self) -> Option<Contents> {
        (self.form() == Form::Elf).then(|| Contents::of(self.program)).flatten()
    }

    /// Whether the instruction count is that of the program, which the writer keeps modulo 65,536.
    pub fn count_matches(&self) -> bool {
        usize::from(self.insn_count) == (self.program.len() / 8) % 65536
    }

    /// Which hash of the program is stored. O(program).
    pub fn integrity(&self) -> Integrity {
        Integrity::of(&self.program_hash, &[self.program])
    }
}

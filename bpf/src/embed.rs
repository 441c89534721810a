//! Programs to be embedded: judged, and described by what is in them.
//!
//! An ELF object is stored as it is, with its type information inside: that is what readers hand to a loader. The field for
//! separate type information stays empty, since the existing tools give program and type information back in one piece.

use object::Endianness;
use object::elf::{EM_BPF, ET_REL, FileHeader64, SHF_EXECINSTR, SHT_PROGBITS};
use object::read::elf::{FileHeader as _, SectionHeader as _};
use rvf_format::checksum::sha3_256;

use crate::{HEADER_LEN, MAGIC};

/// Largest program. The existing tools have the same limit.
pub const MAX_PROGRAM_BYTES: u64 = 16 << 20;

/// Why something is not embedded. All variants are mistakes of the caller, and say what to give instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// Nothing in it.
    #[error("the eBPF program is empty")]
    Empty,
    /// Over the limit of the format.
    #[error("the eBPF program has {len} bytes; {MAX_PROGRAM_BYTES} are the most")]
    TooLarge {
        /// Bytes.
        len: u64,
    },
    /// An ELF file that is no eBPF object.
    #[error("this is {found}, not an eBPF object; compile with clang --target=bpf -c")]
    NotBpf {
        /// What it is.
        found: String,
    },
    /// An ELF file that does not hold together.
    #[error("the ELF object is damaged: {reason}")]
    Damaged {
        /// What the parser says.
        reason: String,
    },
    /// An object without code.
    #[error("the object has no section with instructions, so there is no program in it")]
    NoProgram,
    /// Nothing says what it is.
    #[error(
        "what kind of program this is cannot be told{}; give its program type",
        section.as_ref().map_or_else(String::new, |name| format!(" from its section '{name}'"))
    )]
    UnknownType {
        /// The section with its code, printable.
        section: Option<String>,
    },
    /// Programs of several kinds in one object.
    #[error(
        "the object holds programs of several kinds ({first} and {second}); give the program type that is meant"
    )]
    SeveralTypes {
        /// One.
        first: &'static str,
        /// Another.
        second: &'static str,
    },
    /// Another kind than was said.
    #[error(
        "the object holds a program of type {found}, not {given}; leave the program type out or correct it"
    )]
    OtherType {
        /// By the object.
        found: &'static str,
        /// By the caller.
        given: &'static str,
    },
    /// Neither an object nor instructions.
    #[error("neither an ELF object nor a whole number of 8-byte instructions ({len} bytes)")]
    NotInstructions {
        /// Bytes.
        len: u64,
    },
}

/// Kinds of programs, by the format's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramType {
    /// On packets as a driver receives them.
    Xdp,
    /// Traffic control classifier, on what comes in.
    TcIngress,
    /// The same on what goes out.
    TcEgress,
    /// On what a socket receives.
    Socket,
    /// On a tracepoint.
    Tracepoint,
    /// On a kernel function.
    Kprobe,
    /// On what a control group receives.
    CgroupIngress,
    /// On what a control group sends.
    CgroupEgress,
}

impl ProgramType {
    /// Numbers of program type and attach point in the header.
    pub fn codes(self) -> (u8, u8) {
        match self {
            Self::Xdp => (0, 0),
            Self::TcIngress => (1, 1),
            Self::TcEgress => (1, 2),
            Self::Socket => (2, 3),
            Self::Tracepoint => (3, 0xFF),
            Self::Kprobe => (4, 0xFF),
            Self::CgroupIngress => (5, 4),
            Self::CgroupEgress => (5, 5),
        }
    }

    /// Its name, as [`ProgramType::from_name`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::TcIngress => "tc",
            Self::TcEgress => "tc-egress",
            Self::Socket => "socket-filter",
            Self::Tracepoint => "tracepoint",
            Self::Kprobe => "kprobe",
            Self::CgroupIngress => "cgroup-ingress",
            Self::CgroupEgress => "cgroup-egress",
        }
    }

    /// From a name, also those of the existing tools.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().replace('_', "-").as_str() {
            "xdp" => Self::Xdp,
            "tc" | "tc-classifier" | "tc-ingress" => Self::TcIngress,
            "tc-egress" => Self::TcEgress,
            "socket-filter" | "socket" => Self::Socket,
            "tracepoint" => Self::Tracepoint,
            "kprobe" => Self::Kprobe,
            "cgroup-ingress" => Self::CgroupIngress,
            "cgroup-egress" => Self::CgroupEgress,
            _ => return None,
        })
    }

    /// From the name of a section, by the conventions of libbpf and older loaders.
    fn of_section(name: &str) -> Option<Self> {
        let (head, rest) = name.split_once('/').unwrap_or((name, ""));
        Some(match (head, rest) {
            ("xdp" | "xdp.frags", _) => Self::Xdp,
            ("tc" | "tcx" | "classifier", "egress") => Self::TcEgress,
            ("tc" | "tcx" | "classifier", _) => Self::TcIngress,
            ("socket" | "socket_filter", _) => Self::Socket,
            ("tracepoint" | "tp" | "raw_tp" | "raw_tracepoint", _) => Self::Tracepoint,
            ("kprobe" | "kretprobe", _) => Self::Kprobe,
            ("cgroup_skb", "ingress") => Self::CgroupIngress,
            ("cgroup_skb", "egress") => Self::CgroupEgress,
            _ => return None,
        })
    }
}

/// What is recorded beside a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramOptions {
    /// The kind; found from the object where it can be.
    pub program_type: Option<ProgramType>,
    /// Largest dimension that the program handles; 0 when not known.
    pub max_dimension: u16,
}

/// A payload ready to be written, in pieces so that the program is not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramPayload<'a> {
    head: [u8; HEADER_LEN],
    program: &'a [u8],
    /// The kind.
    pub program_type: ProgramType,
    /// SHA3-256 of the program, as in the header.
    pub digest: [u8; 32],
}

impl<'a> ProgramPayload<'a> {
    /// Judges a program and puts its payload together. Bare instructions are taken when their kind is given. O(program).
    ///
    /// # Errors
    /// [`EmbedError`], which says what to give instead.
    pub fn new(program: &'a [u8], options: &ProgramOptions) -> Result<Self, EmbedError> {
        let len = program.len() as u64;
        if program.is_empty() {
            return Err(EmbedError::Empty);
        }
        if len > MAX_PROGRAM_BYTES {
            return Err(EmbedError::TooLarge { len });
        }
        let program_type = if program.starts_with(b"\x7fELF") {
            type_of_object(program, options.program_type)?
        } else if program.len() % 8 == 0 {
            options.program_type.ok_or(EmbedError::UnknownType { section: None })?
        } else {
            return Err(EmbedError::NotInstructions { len });
        };
        let digest = sha3_256(program);
        let (kind, attach) = program_type.codes();
        let mut head = [0; HEADER_LEN];
        let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
        put(0x00, &MAGIC.to_le_bytes());
        put(0x04, &1_u16.to_le_bytes());
        put(0x06, &[kind, attach]);
        put(0x0C, &(((len / 8) % 65_536) as u16).to_le_bytes());
        put(0x0E, &options.max_dimension.to_le_bytes());
        put(0x10, &len.to_le_bytes());
        put(0x20, &digest);
        Ok(Self { head, program, program_type, digest })
    }

    /// The payload's bytes, one piece after the other.
    pub fn pieces(&self) -> [&[u8]; 2] {
        [&self.head, self.program]
    }
}

fn type_of_object(object: &[u8], given: Option<ProgramType>) -> Result<ProgramType, EmbedError> {
    let damaged = |error: object::Error| EmbedError::Damaged { reason: error.to_string() };
    let not = |found: &str| Err(EmbedError::NotBpf { found: found.to_owned() });
    if object.get(4) != Some(&2) {
        return not("an ELF file that is not 64-bit");
    }
    let header = FileHeader64::<Endianness>::parse(object).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    if endian != Endianness::Little {
        return not("a big-endian ELF file");
    }
    let machine = header.e_machine(endian);
    if machine != EM_BPF {
        return Err(EmbedError::NotBpf { found: format!("an ELF file for machine {}", machine.0) });
    }
    if header.e_type(endian) != ET_REL {
        return not("a linked ELF file");
    }
    let sections = header.sections(endian, object).map_err(damaged)?;
    let mut found: Option<ProgramType> = None;
    let mut unknown: Option<String> = None;
    let mut code = false;
    for section in sections.iter() {
        let executable =
            section.sh_type(endian) == SHT_PROGBITS && section.sh_flags(endian).contains(SHF_EXECINSTR);
        if !executable {
            continue;
        }
        // Code that lies outside of the file, and sizes that no instructions have, would only be met by a loader.
        let bytes = section.data(endian, object).map_err(damaged)?;
        if bytes.len() % 8 != 0 {
            return Err(EmbedError::Damaged {
                reason: "a section of code is no whole number of instructions".into(),
            });
        }
        if bytes.is_empty() {
            continue;
        }
        code = true;
        let name = sections.section_name(endian, section).map_err(damaged)?;
        let name = String::from_utf8_lossy(name);
        match (ProgramType::of_section(&name), found, given) {
            (Some(kind), Some(before), None) if kind != before => {
                return Err(EmbedError::SeveralTypes { first: before.name(), second: kind.name() });
            }
            (Some(kind), _, Some(given)) if kind == given => found = Some(kind),
            (Some(kind), None, _) => found = Some(kind),
            // Functions that programs of other sections call lie in .text.
            (None, _, _) if name != ".text" => unknown = Some(name.escape_default().take(64).collect()),
            _ => {}
        }
    }
    match (found, given) {
        _ if !code => Err(EmbedError::NoProgram),
        (Some(found), Some(given)) if found != given => {
            Err(EmbedError::OtherType { found: found.name(), given: given.name() })
        }
        (Some(kind), _) | (None, Some(kind)) => Ok(kind),
        (None, None) => Err(EmbedError::UnknownType { section: unknown.or_else(|| Some(".text".into())) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Form, Program};
    use rvf_format::Integrity;

    /// An object with one section of code for each name: `r0 = 0; exit`.
    fn object(names: &[&str]) -> Vec<u8> {
        const CODE: [u8; 16] = [0xB7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
        let mut strings = b"\0.shstrtab\0".to_vec();
        let places: Vec<usize> = names
            .iter()
            .map(|name| {
                let at = strings.len();
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
                at
            })
            .collect();
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(64, 0);
        let code_at = out.len() as u64;
        out.extend_from_slice(&CODE);
        let strings_at = out.len() as u64;
        out.extend_from_slice(&strings);
        out.resize(out.len().next_multiple_of(8), 0);
        let table_at = out.len() as u64;
        let mut section = |name: usize, kind: u32, flags: u64, at: u64, size: u64| {
            out.extend_from_slice(&(name as u32).to_le_bytes());
            out.extend_from_slice(&kind.to_le_bytes());
            for word in [flags, 0, at, size, 0, 8, 0] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        };
        section(0, 0, 0, 0, 0);
        section(1, 3, 0, strings_at, strings.len() as u64);
        for place in places {
            section(place, 1, 6, code_at, CODE.len() as u64);
        }
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(16, &1_u16.to_le_bytes());
        put(18, &247_u16.to_le_bytes());
        put(20, &1_u32.to_le_bytes());
        put(40, &table_at.to_le_bytes());
        put(52, &64_u16.to_le_bytes());
        put(58, &64_u16.to_le_bytes());
        put(60, &(names.len() as u16 + 2).to_le_bytes());
        put(62, &1_u16.to_le_bytes());
        out
    }

    #[test]
    fn the_kind_is_told_by_the_section() {
        let table = [
            ("xdp", ProgramType::Xdp, "xdp-distance", "xdp-ingress"),
            ("xdp.frags/knn", ProgramType::Xdp, "xdp-distance", "xdp-ingress"),
            ("classifier", ProgramType::TcIngress, "tc-filter", "tc-ingress"),
            ("tcx/egress", ProgramType::TcEgress, "tc-filter", "tc-egress"),
            ("socket", ProgramType::Socket, "socket-filter", "socket-filter"),
            ("tp/sched/sched_switch", ProgramType::Tracepoint, "tracepoint", "none"),
            ("kprobe/vfs_read", ProgramType::Kprobe, "kprobe", "none"),
            ("cgroup_skb/egress", ProgramType::CgroupEgress, "cgroup-skb", "cgroup-egress"),
        ];
        for (section, kind, type_name, attach_name) in table {
            let bytes = object(&[".text", section]);
            let options = ProgramOptions { max_dimension: 384, ..ProgramOptions::default() };
            let written = ProgramPayload::new(&bytes, &options).expect(section);
            assert_eq!(written.program_type, kind, "{section}");
            let payload = written.pieces().concat();
            let read = Program::parse(&payload).expect("whole");
            assert_eq!((read.type_name(), read.attach_name()), (type_name, attach_name));
            assert_eq!((read.max_dimension, read.btf.len(), read.form()), (384, 0, Form::Elf));
            assert!(read.count_matches());
            assert_eq!(read.program, bytes);
            assert_eq!(read.integrity(), Integrity::Sha3);
            assert_eq!(ProgramType::from_name(kind.name()), Some(kind));
        }
    }

    #[test]
    fn the_given_kind_decides_only_where_the_object_leaves_it_open() {
        let given = |kind| ProgramOptions { program_type: Some(kind), ..ProgramOptions::default() };
        let none = ProgramOptions::default();
        let both = object(&["xdp", "classifier"]);
        assert!(matches!(ProgramPayload::new(&both, &none), Err(EmbedError::SeveralTypes { .. })));
        for kind in [ProgramType::Xdp, ProgramType::TcIngress] {
            assert_eq!(ProgramPayload::new(&both, &given(kind)).map(|p| p.program_type), Ok(kind));
        }
        let wrong = ProgramPayload::new(&both, &given(ProgramType::Socket));
        assert_eq!(wrong, Err(EmbedError::OtherType { found: "xdp", given: "socket-filter" }));
        let odd = object(&["my/own"]);
        assert_eq!(
            ProgramPayload::new(&odd, &none),
            Err(EmbedError::UnknownType { section: Some("my/own".into()) })
        );
        assert!(ProgramPayload::new(&odd, &given(ProgramType::Xdp)).is_ok());
        let bare = [0x95, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(ProgramPayload::new(&bare, &none), Err(EmbedError::UnknownType { section: None }));
        assert!(ProgramPayload::new(&bare, &given(ProgramType::Socket)).is_ok());
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let patched = |at: usize, byte: u8| {
            let mut bytes = object(&["xdp"]);
            bytes[at] = byte;
            bytes
        };
        let none = ProgramOptions::default();
        assert_eq!(ProgramPayload::new(&[], &none), Err(EmbedError::Empty));
        assert_eq!(ProgramPayload::new(&[1; 9], &none), Err(EmbedError::NotInstructions { len: 9 }));
        assert_eq!(ProgramPayload::new(&object(&[]), &none), Err(EmbedError::NoProgram));
        for bytes in [patched(18, 62), patched(4, 1), patched(16, 2), patched(5, 2)] {
            assert!(matches!(ProgramPayload::new(&bytes, &none), Err(EmbedError::NotBpf { .. })));
        }
        let whole = object(&["xdp"]);
        for len in 5..whole.len() {
            assert!(ProgramPayload::new(&whole[..len], &none).is_err(), "cut to {len}");
        }
        let huge = vec![0; MAX_PROGRAM_BYTES as usize + 8];
        assert!(matches!(ProgramPayload::new(&huge, &none), Err(EmbedError::TooLarge { .. })));
    }
}

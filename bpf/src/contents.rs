//! What an object says of itself, to be shown. It is judged when it is embedded and when it is loaded, not here.

use object::Endianness;
use object::elf::{FileHeader64, SHF_EXECINSTR, SHT_PROGBITS, SHT_SYMTAB, STT_OBJECT};
use object::read::elf::{FileHeader as _, SectionHeader as _, SectionTable};

/// Bytes of a section's name that are shown. Names may overlap, so without a bound a small object could ask for much.
const MAX_NAME: usize = 64;

/// What an ELF object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Names of the sections with instructions, in order, of each at most its first 64 bytes.
    pub sections: Vec<String>,
    /// Instructions in them.
    pub instructions: u64,
    /// Maps that it declares, without those that loaders make of its constants and variables; `None` where its
    /// symbols, which tell them apart, are stripped.
    pub maps: Option<usize>,
    /// Bytes of type information.
    pub btf_size: u64,
}

impl Contents {
    /// Looks into a little-endian 64-bit object. O(sections + symbols).
    ///
    /// Returns `None` when it is none, or a table of it or a section that counts lies outside of it.
    pub(crate) fn of(object: &[u8]) -> Option<Self> {
        let header = FileHeader64::<Endianness>::parse(object).ok()?;
        let endian = header.endian().ok().filter(|endian| *endian == Endianness::Little)?;
        let sections = header.sections(endian, object).ok()?;
        let names = sections.section(header.section_strings_index(endian, object).ok()?).ok()?;
        let names = names.data(endian, object).ok()?;
        let mut out = Self { sections: Vec::new(), instructions: 0, maps: None, btf_size: 0 };
        let mut declaring = Vec::new();
        for (index, section) in sections.enumerate() {
            let name = name_at(names, section.sh_name(endian))?;
            let len = || Some(section.data(endian, object).ok()?.len() as u64);
            let code =
                section.sh_type(endian) == SHT_PROGBITS && section.sh_flags(endian).contains(SHF_EXECINSTR);
            match name {
                _ if code && len()? > 0 => {
                    out.sections.push(String::from_utf8_lossy(name).into_owned());
                    out.instructions = out.instructions.checked_add(len()? / 8)?;
                }
                b".BTF" => out.btf_size = len()?,
                b".maps" | b"maps" => declaring.push(index),
                _ => {}
            }
        }
        out.maps = match declaring.as_slice() {
            [] => Some(0),
            [maps] => variables(&sections, endian, object, *maps),
            _ => None,
        };
        Some(out)
    }
}

/// The variables in a section; `None` without symbols.
fn variables(
    sections: &SectionTable<'_, FileHeader64<Endianness>>,
    endian: Endianness,
    object: &[u8],
    section: object::SectionIndex,
) -> Option<usize> {
    let symbols = sections.symbols(endian, object, SHT_SYMTAB).ok().filter(|symbols| !symbols.is_empty())?;
    let mut count = 0;
    for (index, symbol) in symbols.enumerate() {
        let inside = symbols.symbol_section(endian, symbol, index).ok()? == Some(section);
        count += usize::from(inside && symbol.st_type() == STT_OBJECT);
    }
    Some(count)
}

fn name_at(names: &[u8], at: u32) -> Option<&[u8]> {
    let rest = names.get(at as usize..)?;
    let rest = rest.get(..MAX_NAME).unwrap_or(rest);
    Some(rest.split(|byte| *byte == 0).next().unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Builtin;

    #[test]
    fn an_object_tells_its_code_maps_and_types() {
        // By `llvm-readelf -S -s`. Sections of code without an instruction are none.
        let table = [
            (Builtin::Distance, &[".text", "xdp"][..], 0x378 + 0x2160, 3, 0x1AA7),
            (Builtin::Filter, &["classifier"], 0x858, 3, 0xF00),
            (Builtin::Ports, &["socket"], 0x438, 2, 0xA8F),
        ];
        for (builtin, sections, code, maps, btf_size) in table {
            let sections = sections.iter().map(ToString::to_string).collect();
            let wanted = Contents { sections, instructions: code / 8, maps: Some(maps), btf_size };
            assert_eq!(Contents::of(builtin.object()), Some(wanted), "{}", builtin.name());
        }
    }

    /// Without symbols nobody knows how many maps are declared.
    #[test]
    fn maps_of_a_stripped_object_are_not_guessed() {
        let mut object = Builtin::Ports.object().to_vec();
        let header = FileHeader64::<Endianness>::parse(&*object).expect("a header");
        let sections = header.sections(Endianness::Little, &*object).expect("sections");
        let at = sections.iter().position(|section| section.sh_type(Endianness::Little) == SHT_SYMTAB);
        let entry = header.e_shoff(Endianness::Little) as usize + 64 * at.expect("symbols");
        object[entry + 4..entry + 8].copy_from_slice(&1_u32.to_le_bytes());
        let found = Contents::of(&object).expect("an object");
        assert_eq!((found.maps, found.btf_size), (None, 0xA8F));
    }

    #[test]
    fn damage_is_left_out_and_never_guessed() {
        let object = Builtin::Filter.object();
        let whole = Contents::of(object);
        for len in (0..object.len()).step_by(5) {
            assert_eq!(Contents::of(&object[..len]), None, "cut to {len}");
        }
        let mut big_endian = object.to_vec();
        big_endian[5] = 2;
        assert_eq!(Contents::of(&big_endian), None);
        // Wherever a bit is wrong there is an answer.
        for at in 0..object.len() {
            let mut wild = object.to_vec();
            wild[at] ^= 0x80;
            let _ = Contents::of(&wild);
        }
        assert_eq!(Contents::of(object), whole);
    }
}

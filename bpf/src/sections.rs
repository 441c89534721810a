//! Objects whose sections have names that the loader does not know under names that it does.
//!
//! libbpf tells kinds of programs by `tc`, `tcx/ingress` or `socket_filter` where the loader here wants `classifier` and `socket`.
//! Only the names are changed: a longer copy of the string tables goes to the end of the object, and the places that name
//! these sections (the section headers, and the tables of `.BTF.ext`) point into it.

use std::borrow::Cow;

use crate::EmbedError;

/// The loader's name for a section.
fn loader_name(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let (head, rest) = text.split_once('/').unwrap_or((text, ""));
    let kind = match head {
        "tc" | "tcx" => "classifier",
        "socket_filter" => "socket",
        _ => return None,
    };
    // Two sections must not end up under one name.
    let tail: String = format!("{head}_{rest}").chars().map(|c| if c == '/' { '_' } else { c }).collect();
    Some(format!("{kind}/{tail}"))
}

struct Elf<'a> {
    bytes: &'a [u8],
    table: usize,
    count: usize,
    names: usize,
}

#[derive(Clone, Copy)]
struct Section {
    header: usize,
    name: u32,
    at: usize,
    len: usize,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Option<()> {
    bytes.get_mut(at..at.checked_add(value.len())?)?.copy_from_slice(value);
    Some(())
}

/// The string at an offset of a table.
fn string(table: &[u8], at: u32) -> Option<&[u8]> {
    let rest = table.get(at as usize..)?;
    rest.get(..rest.iter().position(|byte| *byte == 0)?)
}

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let table = long(bytes, 0x28)?;
        let (size, count, names) = (half(bytes, 0x3A)?, half(bytes, 0x3C)?, half(bytes, 0x3E)?);
        (size == 64).then_some(Self { bytes, table, count: usize::from(count), names: usize::from(names) })
    }

    fn section(&self, index: usize) -> Option<Section> {
        let header = self.table.checked_add(index.checked_mul(64)?)?;
        self.bytes.get(header..header.checked_add(64)?)?;
        let section = Section {
            header,
            name: word(self.bytes, header)?,
            at: long(self.bytes, header.checked_add(0x18)?)?,
            len: long(self.bytes, header.checked_add(0x20)?)?,
        };
        Some(section)
    }

    fn data(&self, section: Section) -> Option<&'a [u8]> {
        self.bytes.get(section.at..section.at.checked_add(section.len)?)
    }
}

/// The object as the loader takes it: as it is, unless a section has to be named otherwise. O(object).
///
/// # Errors
/// [`EmbedError::Damaged`] when it does not hold together.
pub fn for_loader(object: &[u8]) -> Result<Cow<'_, [u8]>, EmbedError> {
    renamed(object).ok_or_else(|| EmbedError::Damaged {
        reason: "a table of sections passes the end of the object".into(),
    })
}

fn renamed(object: &[u8]) -> Option<Cow<'_, [u8]>> {
    let elf = Elf::parse(object)?;
    let names = elf.section(elf.names)?;
    let strings = elf.data(names)?;
    let mut found = Vec::new();
    let (mut btf, mut ext) = (None, None);
    for index in 0..elf.count {
        let section = elf.section(index)?;
        match string(strings, section.name)? {
            b".BTF" => btf = Some(section),
            b".BTF.ext" => ext = Some(section),
            name => found.extend(loader_name(name).map(|new| (section, name, new))),
        }
    }
    if found.is_empty() {
        return Some(Cow::Borrowed(object));
    }
    let mut out = object.to_vec();
    let mut table = strings.to_vec();
    for (section, _, new) in &found {
        let at = u32::try_from(table.len()).ok()?;
        put(&mut out, section.header, &at.to_le_bytes())?;
        table.extend_from_slice(new.as_bytes());
        table.push(0);
    }
    append(&mut out, names, &table)?;
    if let (Some(btf), Some(ext)) = (btf, ext) {
        // Offsets of the names that BTF has, and of those that it gets.
        let (types, ext_bytes) = (elf.data(btf)?, elf.data(ext)?);
        let strings_at = (word(types, 4)? as usize).checked_add(word(types, 16)? as usize)?;
        let strings_len = word(types, 20)? as usize;
        let old = types.get(strings_at..strings_at.checked_add(strings_len)?)?;
        // Strings come last in every object that compilers make.
        if strings_at + strings_len == types.len() {
            let mut table = types.to_vec();
            let mut moved = Vec::new();
            for (_, name, new) in &found {
                moved.push((*name, u32::try_from(table.len() - strings_at).ok()?));
                table.extend_from_slice(new.as_bytes());
                table.push(0);
            }
            let len = u32::try_from(table.len() - strings_at).ok()?;
            put(&mut table, 20, &len.to_le_bytes())?;
            append(&mut out, btf, &table)?;
            for at in named_sections(ext_bytes)? {
                let name = string(old, word(ext_bytes, at)?)?;
                if let Some((_, new)) = moved.iter().find(|(old, _)| *old == name) {
                    put(&mut out, ext.at.checked_add(at)?, &new.to_le_bytes())?;
                }
            }
        }
    }
    Some(Cow::Owned(out))
}

/// Puts a section's new contents at the end of the object.
fn append(out: &mut Vec<u8>, section: Section, contents: &[u8]) -> Option<()> {
    out.resize(out.len().next_multiple_of(8), 0);
    let at = out.len() as u64;
    out.extend_from_slice(contents);
    put(out, section.header + 0x18, &at.to_le_bytes())?;
    put(out, section.header + 0x20, &(contents.len() as u64).to_le_bytes())
}

/// Where `.BTF.ext` names sections: at the head of each group of its three tables.
fn named_sections(ext: &[u8]) -> Option<Vec<usize>> {
    let head = word(ext, 4)? as usize;
    let mut places = Vec::new();
    for table in [8, 16, 24] {
        if table + 8 > head {
            break;
        }
        let from = head.checked_add(word(ext, table)? as usize)?;
        let end = from.checked_add(word(ext, table + 4)? as usize)?;
        if from == end {
            continue;
        }
        let record = word(ext, from)? as usize;
        let mut at = from.checked_add(4)?;
        while at < end {
            places.push(at);
            let records = word(ext, at.checked_add(4)?)? as usize;
            at = at.checked_add(8)?.checked_add(record.checked_mul(records)?)?;
        }
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Builtin;

    #[test]
    fn known_names_stay_and_nothing_is_copied() {
        for builtin in Builtin::ALL {
            assert!(matches!(for_loader(builtin.object()), Ok(Cow::Borrowed(_))));
        }
    }

    /// The filter with its section called `tc/xxxxxxx`, as long as `classifier`, everywhere.
    #[test]
    fn names_of_libbpf_become_those_of_the_loader() {
        let object = Builtin::Filter.object();
        let mut libbpf = object.to_vec();
        let mut replaced = 0;
        for at in 0..libbpf.len() - 10 {
            if libbpf[at..].starts_with(b"classifier") {
                libbpf[at..at + 10].copy_from_slice(b"tc/ingress");
                replaced += 1;
            }
        }
        // In the names of sections (shared with .relclassifier), and in BTF.
        assert!(replaced >= 2, "{replaced}");
        let got = for_loader(&libbpf).expect("whole").into_owned();
        let names = |bytes: &[u8]| {
            let elf = Elf::parse(bytes).expect("an object");
            let strings = elf.data(elf.section(elf.names).expect("names")).expect("inside");
            let name = |index| {
                let section = elf.section(index).expect("a section");
                String::from_utf8(string(strings, section.name).expect("a name").to_vec()).expect("text")
            };
            (0..elf.count).map(name).collect::<Vec<_>>()
        };
        let found = names(&got);
        assert!(found.contains(&"classifier/tc_ingress".to_owned()), "{found:?}");
        assert_eq!(found.len(), names(object).len());
        // BTF.ext names the section as the section headers do.
        let elf = Elf::parse(&got).expect("an object");
        let by_name = |name: &str| {
            elf.section(found.iter().position(|n| n == name).expect("there")).expect("a section")
        };
        let (btf, ext) =
            (elf.data(by_name(".BTF")).expect("inside"), elf.data(by_name(".BTF.ext")).expect("inside"));
        let strings = &btf[(word(btf, 4).expect("head") + word(btf, 16).expect("strings")) as usize..];
        let places = named_sections(ext).expect("tables");
        assert!(!places.is_empty());
        for at in places {
            let name = string(strings, word(ext, at).expect("a name")).expect("inside");
            assert!(name.starts_with(b"classifier/tc_ingress") || name == b".text", "{name:?}");
        }
        // The same again changes nothing.
        assert!(matches!(for_loader(&got), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn damage_is_an_error() {
        let object = Builtin::Filter.object();
        for len in (0..object.len()).step_by(7) {
            assert!(for_loader(&object[..len]).is_err(), "cut to {len}");
        }
        let mut wild = object.to_vec();
        wild[0x28..0x30].fill(0xFF);
        assert!(for_loader(&wild).is_err());
    }
}

//! The regular files of a branch: what they hold, and where a written copy differs from it.

use std::fmt::Write as _;
use std::io;

use crate::data::npy::{Dtype, write_header};
use crate::errno::Error;
use crate::json;
use crate::snapshot::Snap;

/// A regular file of a branch: together, the whole of what a copy needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// Which state of which branch the directory shows.
    Origin,
    /// Its vectors.
    VectorsNpy,
    /// Their ids.
    IdsNpy,
    /// Their metadata.
    MetadataJsonl,
}

/// Most bytes of an `origin`.
pub const MAX_ORIGIN: usize = 4096;

/// What is compared at a time.
const PIECE: usize = 1 << 20;

impl Member {
    /// All of them, with their names, in listing order.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Origin, "origin"),
        (Self::VectorsNpy, "vectors.npy"),
        (Self::IdsNpy, "ids.npy"),
        (Self::MetadataJsonl, "metadata.jsonl"),
    ];

    /// The member of that very name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(member, _)| *member)
    }

    /// The member that a file will become: of its name, or of a copying tool's temporary name for it (`.NAME.XXXXXX`).
    #[must_use]
    pub fn meant(name: &str) -> Option<Self> {
        Self::named(name).or_else(|| Self::named(meant_name(name)?))
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(member, _)| *member == self).map_or("", |(_, name)| name)
    }

    /// Bytes of it in a state; `origin` is not a part of the state.
    #[must_use]
    pub fn len(self, snap: &Snap) -> u64 {
        // Counting goes through all rows, and only two of the files need it.
        let array = |row_len: u64| {
            let rows = snap.view.resolved().count() as u64;
            rows.saturating_mul(row_len).saturating_add(header(self, snap).len() as u64)
        };
        match self {
            Self::Origin => 0,
            Self::VectorsNpy => array(snap.row_len()),
            Self::IdsNpy => array(8),
            Self::MetadataJsonl => snap.jsonl_len_if_known().unwrap_or_else(|| snap.jsonl().len),
        }
    }

    /// Appends a range of it to `out`.
    ///
    /// # Errors
    /// When a file of the chain was changed underneath.
    pub fn read(self, snap: &Snap, offset: u64, size: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        if self == Self::MetadataJsonl {
            snap.read_jsonl(offset, size, out);
            return Ok(());
        }
        let header = header(self, snap);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(header.len());
        let head = header.get(from..from.saturating_add(size).min(header.len())).unwrap_or(&[]);
        out.extend_from_slice(head);
        let left = size.saturating_sub(head.len());
        if left > 0 {
            // Where something is left the header has ended.
            let at = offset.saturating_add(head.len() as u64).saturating_sub(header.len() as u64);
            match self {
                Self::VectorsNpy => snap.read_rows(at, left, out),
                Self::IdsNpy => snap.read_ids(at, left, out),
                Self::Origin | Self::MetadataJsonl => {}
            }
        }
        Ok(snap.view.check_chain()?)
    }

    /// Whether `data` is what it holds at `offset`.
    ///
    /// # Errors
    /// As [`Member::read`].
    pub fn holds(self, snap: &Snap, offset: u64, data: &[u8]) -> Result<bool, Error> {
        let mut own = Vec::new();
        for (at, piece) in data.chunks(PIECE).enumerate() {
            own.clear();
            self.read(snap, offset.saturating_add((at * PIECE) as u64), piece.len(), &mut own)?;
            if own != piece {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives its first `len` bytes to `each`, piece by piece.
    ///
    /// # Errors
    /// As [`Member::read`].
    pub fn walk(self, snap: &Snap, len: u64, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        let (mut at, mut own) = (0, Vec::new());
        while at < len {
            own.clear();
            self.read(snap, at, usize::try_from(len - at).unwrap_or(PIECE).min(PIECE), &mut own)?;
            if own.is_empty() {
                break;
            }
            each(&own);
            at += own.len() as u64;
        }
        Ok(())
    }
}

/// The name a copying tool's temporary name stands for.
#[must_use]
pub fn meant_name(name: &str) -> Option<&str> {
    let (meant, random) = name.strip_prefix('.')?.rsplit_once('.')?;
    let letters = random.len() == 6 && random.bytes().all(|b| b.is_ascii_alphanumeric());
    // rsync gives links, which it makes in one step, its process number instead.
    let number = (1..=10).contains(&random.len()) && random.bytes().all(|b| b.is_ascii_digit());
    (letters || number).then_some(meant)
}

fn header(member: Member, snap: &Snap) -> Vec<u8> {
    let rows = || snap.view.resolved().count();
    match member {
        Member::VectorsNpy => write_header(Dtype::F32, &[rows(), snap.view.dimension()]),
        Member::IdsNpy => write_header(Dtype::U64, &[rows()]),
        Member::Origin | Member::MetadataJsonl => Vec::new(),
    }
}

/// The text of `origin`: everything in it follows from the state, so the same state has the same text under any name.
#[must_use]
pub fn origin(snap: &Snap) -> String {
    let mut text = String::from("rvf origin 1\n");
    if let Some(located) = &snap.view.opened().manifest {
        if let Some(identity) = &located.manifest.identity {
            text.push_str("file_id: ");
            json::hex(&mut text, &identity.file_id);
            text.push('\n');
        }
        let _ = writeln!(text, "epoch: {}", located.manifest.epoch);
        // The manifest names everything else, so its hash stands for the whole state.
        text.push_str("state: ");
        json::hex(&mut text, &located.segment.header.content_hash);
        text.push('\n');
    }
    text
}

/// The file id in the text of an `origin`.
///
/// # Errors
/// What is wrong with the text.
pub fn file_id_in(text: &[u8]) -> Result<[u8; 16], Error> {
    let wrong = || {
        Error::denied("origin: this is not the origin of a branch; copy the directory whole, origin included")
    };
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let digits = text
        .strip_prefix("rvf origin 1\n")
        .and_then(|rest| rest.lines().find_map(|line| line.strip_prefix("file_id: ")))
        .filter(|digits| digits.len() == 32 && digits.is_ascii())
        .ok_or_else(wrong)?;
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(id)
}

/// `diff.jsonl`: what a branch shows otherwise than the state it was made from, an object a line, ascending by id.
///
/// # Errors
/// When an ancestor cannot be read.
pub fn diff_lines(snap: &Snap) -> Result<String, Error> {
    let mut text = String::new();
    let Some(parent) = snap.view.parent_view() else { return Ok(text) };
    rvf_cow::diff(parent, &snap.view, &mut |difference| {
        difference_line(&difference, &mut text);
        true
    })?;
    Ok(text)
}

/// One line of [`diff_lines`].
pub fn difference_line(difference: &rvf_cow::Difference, text: &mut String) {
    let _ = write!(text, "{{\"id\": {}, \"change\": ", difference.id);
    match &difference.kind {
        rvf_cow::Change::Added => text.push_str("\"added\""),
        rvf_cow::Change::Removed => text.push_str("\"removed\""),
        rvf_cow::Change::Changed { vector, fields } => {
            let _ = write!(text, "\"changed\", \"vector\": {vector}, \"fields\": [");
            for (at, field) in fields.iter().enumerate() {
                if at > 0 {
                    text.push_str(", ");
                }
                json::string(text, field);
            }
            text.push(']');
        }
    }
    text.push_str("}\n");
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// When it cannot be opened or synced.
pub fn sync_directory(path: &std::path::Path) -> Result<(), Error> {
    let sync = || -> io::Result<()> { std::fs::File::open(path)?.sync_all() };
    sync().map_err(|error| Error::io(path.display().to_string(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_names_mean_members() {
        assert_eq!(Member::meant("origin"), Some(Member::Origin));
        assert_eq!(Member::meant(".vectors.npy.AbC123"), Some(Member::VectorsNpy));
        assert_eq!(Member::meant(".metadata.jsonl.x9y8z7"), Some(Member::MetadataJsonl));
        assert_eq!(meant_name(".query.4711"), Some("query"));
        for other in [
            "vectors",
            ".vectors.npy",
            ".vectors.npy.abc",
            "vectors.npy.AbC123",
            ".x.AbC123",
            ".origin.a/c123",
        ] {
            assert_eq!(Member::meant(other), None, "{other}");
        }
        for (member, name) in Member::ALL {
            assert_eq!(member.name(), name);
        }
    }

    #[test]
    fn an_origin_names_a_file() {
        let id = file_id_in(b"rvf origin 1\nfile_id: 000102030405060708090a0b0c0d0e0f\nepoch: 1\n")
            .expect("an origin");
        assert_eq!(id, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        for wrong in [
            &b""[..],
            b"rvf origin 1\n",
            b"rvf origin 1\nfile_id: 00\n",
            b"\xff",
            b"file_id: 000102030405060708090a0b0c0d0e0f\n",
        ] {
            assert!(file_id_in(wrong).is_err());
        }
    }

    #[test]
    fn differences_are_json() {
        let mut text = String::new();
        for kind in [
            rvf_cow::Change::Added,
            rvf_cow::Change::Changed { vector: true, fields: vec!["a\"b".into(), "c".into()] },
        ] {
            difference_line(&rvf_cow::Difference { id: u64::MAX, kind }, &mut text);
        }
        assert_eq!(
            text,
            "{\"id\": 18446744073709551615, \"change\": \"added\"}\n\
             {\"id\": 18446744073709551615, \"change\": \"changed\", \"vector\": true, \"fields\": [\"a\\\"b\", \"c\"]}\n"
        );
    }
}

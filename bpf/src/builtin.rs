//! The programs that come with rvf-mount, compiled: who runs them needs no compiler. Their C sources are in `bpf/programs/`.

use rvf_format::checksum::sha3_256;

use crate::ProgramType;

/// A program of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// XDP: answers queries over the hot vectors where packets arrive.
    Distance,
    /// Traffic control: passes, drops or redirects by port and by whether the store holds a vector.
    Filter,
    /// Socket filter: lets through what goes to allowed ports.
    Ports,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Distance, Self::Filter, Self::Ports];

    /// Its name on the command line and in `ebpf/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Distance => "distance",
            Self::Filter => "filter",
            Self::Ports => "ports",
        }
    }

    /// By name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == name)
    }

    /// The ELF object.
    #[must_use]
    pub fn object(self) -> &'static [u8] {
        match self {
            Self::Distance => include_bytes!("../programs/distance.o"),
            Self::Filter => include_bytes!("../programs/filter.o"),
            Self::Ports => include_bytes!("../programs/ports.o"),
        }
    }

    /// Which one an object is, byte for byte. O(object).
    #[must_use]
    pub fn of(object: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.object() == object)
    }

    /// SHA3-256 of the object.
    #[must_use]
    pub fn digest(self) -> [u8; 32] {
        sha3_256(self.object())
    }

    /// The kind of program.
    #[must_use]
    pub fn program_type(self) -> ProgramType {
        match self {
            Self::Distance => ProgramType::Xdp,
            Self::Filter => ProgramType::TcIngress,
            Self::Ports => ProgramType::Socket,
        }
    }

    /// Largest dimension that it handles; 0 where vectors do not matter to it.
    #[must_use]
    pub fn max_dimension(self) -> u16 {
        match self {
            Self::Distance => crate::hot::MAX_DIMENSION as u16,
            Self::Filter | Self::Ports => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ProgramOptions, ProgramPayload};

    #[test]
    fn each_is_known_again_and_can_be_embedded() {
        for builtin in Builtin::ALL {
            assert_eq!(Builtin::from_name(builtin.name()), Some(builtin));
            assert_eq!(Builtin::of(builtin.object()), Some(builtin));
            let payload =
                ProgramPayload::new(builtin.object(), &ProgramOptions::default()).expect("an object");
            assert_eq!(payload.program_type, builtin.program_type());
            assert_eq!(payload.digest, builtin.digest());
            let mut changed = builtin.object().to_vec();
            if let Some(last) = changed.last_mut() {
                *last ^= 1;
            }
            assert_eq!(Builtin::of(&changed), None);
        }
        assert_eq!(Builtin::from_name("Distance"), None);
    }

    /// No path of the machine that compiled them is in them.
    #[test]
    fn they_tell_nothing_of_where_they_were_compiled() {
        for builtin in Builtin::ALL {
            let object = builtin.object();
            for trace in [&b"/home/"[..], b"/work", b"/root", b"/tmp"] {
                assert!(!object.windows(trace.len()).any(|part| part == trace), "{}", builtin.name());
            }
        }
    }
}

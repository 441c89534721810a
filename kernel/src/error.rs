//! Why a payload is no usable image.

/// A payload that does not hold together. All variants are corruption.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Shorter than its header.
    #[error("{what} payload of {len} bytes is shorter than its header")]
    Short {
        /// `KERNEL`, `WASM` or `DASHBOARD`.
        what: &'static str,
        /// Payload bytes.
        len: usize,
    },
    /// Another magic number.
    #[error("{what} header starts with {found:#010x}, not its magic number")]
    Magic {
        /// `KERNEL`, `WASM` or `DASHBOARD`.
        what: &'static str,
        /// What is there.
        found: u32,
    },
    /// A version that is not known.
    #[error("{what} header of version {found}; only version 1 is known")]
    Version {
        /// `KERNEL`, `WASM` or `DASHBOARD`.
        what: &'static str,
        /// What is there.
        found: u16,
    },
    /// Declared sizes and payload length disagree.
    #[error("{what}: {declared} bytes declared, {found} present")]
    Size {
        /// `KERNEL`, `WASM` or `DASHBOARD`.
        what: &'static str,
        /// Bytes that the header declares.
        declared: u64,
        /// Bytes after the header.
        found: u64,
    },
}

/// Little-endian fields of a header whose length was checked.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(bytes) = self.0.get(at..at + N) {
            out.copy_from_slice(bytes);
        }
        out
    }

    pub(crate) fn u8(&self, at: usize) -> u8 {
        self.bytes::<1>(at)[0]
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }
}

/// Checks length, magic and version of a header.
pub(crate) fn header<'a>(
    payload: &'a [u8],
    what: &'static str,
    len: usize,
    magic: u32,
) -> Result<(Fields<'a>, &'a [u8]), ImageError> {
    let Some((header, rest)) = payload.split_at_checked(len) else {
        return Err(ImageError::Short { what, len: payload.len() });
    };
    let fields = Fields(header);
    match (fields.u32(0), fields.u16(4)) {
        (found, _) if found != magic => Err(ImageError::Magic { what, found }),
        (_, 1) => Ok((fields, rest)),
        (_, found) => Err(ImageError::Version { what, found }),
    }
}

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

/// Why something is not embedded. All variants are mistakes of the caller, and say what to give instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmbedError {
    /// Nothing in it.
    #[error("the {what} is empty")]
    Empty {
        /// What should have been given.
        what: &'static str,
    },
    /// Over the limit of the format.
    #[error("the {what} has {len} bytes with what is stored beside it; {limit} are the most")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Bytes.
        len: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// Something else, or a kernel that cannot be recorded.
    #[error("this is {found}, not a kernel image to embed; {mend}")]
    NotAKernel {
        /// What it is.
        found: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// Not recognized.
    #[error(
        "the machine of this image cannot be told: it is no bzImage, arm64 or riscv64 Image, and no ELF executable; give \
         its arch if it is a kernel all the same"
    )]
    UnknownImage,
    /// For another machine than was said.
    #[error("the image is for {found}, not for {given}; leave the arch out or correct it")]
    OtherArch {
        /// By the image.
        found: &'static str,
        /// By the caller.
        given: &'static str,
    },
    /// A byte that has no place in a command line.
    #[error("byte {byte:#04x} at position {at} of the command line; only printable ASCII is taken")]
    Cmdline {
        /// Position, from 0.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// Longer than a kernel takes.
    #[error("the command line has {len} bytes; {} are the most", crate::MAX_CMDLINE)]
    LongCmdline {
        /// Bytes.
        len: usize,
    },
    /// A binding that readers take for none.
    #[error("a binding of version 0 is taken for none by readers; use version 1")]
    BindingVersion,
    /// Something else.
    #[error("this is no WASM module: it does not start with \\0asm; compile text (.wat) first")]
    NotAModule,
    /// A component, or a module of another version.
    #[error(
        "binary version {version:#x} of WASM; only core modules of version 1 are embedded, not components"
    )]
    ModuleVersion {
        /// Version and layer.
        version: u32,
    },
    /// Not valid.
    #[error("the WASM module is not valid at offset {offset}: {reason}")]
    Module {
        /// Byte of the module.
        offset: u64,
        /// What is wrong.
        reason: String,
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

//! DASHBOARD payloads.

use crate::error::{ImageError, header};
use rvf_format::Integrity;

/// A DASHBOARD payload. The documented file table and entry path are never written; the bundle is served as one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dashboard<'a> {
    /// 0 three.js, 1 React, 2 custom.
    pub framework: u8,
    /// 0.
    pub file_count: u32,
    /// Length of a path that is not stored.
    pub entry_path_len: u16,
    /// Seconds since 1970.
    pub timestamp_s: u64,
    /// Hash of the bundle.
    pub content_hash: [u8; 32],
    /// The bundle.
    pub bundle: &'a [u8],
}

impl<'a> Dashboard<'a> {
    /// Reads a payload. O(1).
    ///
    /// # Errors
    /// [`ImageError`] when the header is wrong or the bundle passes the end. More bytes than declared are left out.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ImageError> {
        let (f, rest) = header(payload, "DASHBOARD", 64, 0x5256_4442)?;
        let declared = f.u64(0x08);
        let bundle = usize::try_from(declared)
            .ok()
            .and_then(|size| rest.get(..size))
            .ok_or(ImageError::Size { what: "DASHBOARD", declared, found: rest.len() as u64 })?;
        Ok(Self {
            framework: f.u8(0x06),
            file_count: f.u32(0x10),
            entry_path_len: f.u16(0x14),
            timestamp_s: f.u64(0x18),
            content_hash: f.bytes(0x20),
            bundle,
        })
    }

    /// The framework.
    pub fn framework_name(&self) -> &'static str {
        ["threejs", "react", "custom"].get(usize::from(self.framework)).unwrap_or(&"unknown")
    }

    /// Which hash of the bundle is stored. O(bundle).
    pub fn integrity(&self) -> Integrity {
        Integrity::of(&self.content_hash, &[self.bundle])
    }
}

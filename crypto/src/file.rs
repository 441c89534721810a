//! Reading key files: what is checked of a file is checked of the very bytes that are read.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pkcs8::der::zeroize::Zeroizing;

/// Largest key file read; an ML-DSA-65 public key is about 2.7 KB.
const MAX_LEN: u64 = 64 << 10;

/// Why a file is not read.
pub(crate) enum Unread {
    /// The system says so.
    Io(io::Error),
    /// It is a directory, a FIFO, a device.
    NotRegular,
    /// It is not a file to take a key from; why, and what mends it.
    Unfit(String),
}

/// Opens a file for [`read`]. The name is looked up once: a file that takes it later is not read.
pub(crate) fn open(path: &Path) -> Result<File, Unread> {
    // Opening a device may do something; a FIFO would block, and O_NONBLOCK is for one that takes the name after this.
    if !std::fs::metadata(path).map_err(Unread::Io)?.is_file() {
        return Err(Unread::NotRegular);
    }
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    File::options().read(true).custom_flags(flags).open(path).map_err(Unread::Io)
}

/// The text of a small regular file that is `fit`.
pub(crate) fn read(
    file: File,
    fit: impl FnOnce(&Metadata) -> Result<(), String>,
) -> Result<Zeroizing<String>, Unread> {
    let meta = file.metadata().map_err(Unread::Io)?;
    if !meta.is_file() {
        return Err(Unread::NotRegular);
    }
    fit(&meta).map_err(Unread::Unfit)?;
    // Room for all of it at once, so that no copy of a secret is left behind by growing.
    let mut text = Zeroizing::new(String::with_capacity(MAX_LEN as usize + 1));
    file.take(MAX_LEN + 1).read_to_string(&mut text).map_err(Unread::Io)?;
    if text.len() as u64 > MAX_LEN {
        return Err(Unread::Unfit(format!("more than {MAX_LEN} bytes are too many for a key")));
    }
    Ok(text)
}

//! The ways to ask a mounted store, as a program would.

#![expect(unsafe_code, reason = "the ioctl has no safe form")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Room for an answer to one query: ten lines, a page as most programs would take.
pub(crate) const ANSWER: usize = 4 << 10;
const HEAD: usize = 24;

/// A request and its answer on one descriptor of `query/in`.
pub(crate) fn transaction(kept: &File, request: &[u8], answer: &mut [u8]) -> io::Result<usize> {
    kept.write_all_at(request, 0)?;
    kept.read_at(answer, 0)
}

/// The two files of a shell: `echo REQUEST > query/in; cat query/out`.
#[derive(Debug)]
pub(crate) struct Opens {
    pub(crate) input: PathBuf,
    pub(crate) output: PathBuf,
}

impl Opens {
    pub(crate) fn ask(&self, truncate: bool, request: &[u8], answer: &mut [u8]) -> io::Result<usize> {
        File::options().write(true).truncate(truncate).open(&self.input)?.write_all(request)?;
        File::open(&self.output)?.read(answer)
    }
}

/// The message of the query ioctl, which is also the buffer of its answer.
pub(crate) fn message(query: &[f32], k: usize) -> Vec<u8> {
    let size = HEAD + (4 * query.len()).max(12 * k);
    let mut out = Vec::with_capacity(size);
    for word in [1, k as u32, 0, query.len() as u32, 0, 0] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend(query.iter().flat_map(|v| v.to_le_bytes()));
    out.resize(size, 0);
    out
}

/// The query ioctl.
pub(crate) fn ioctl(kept: &File, message: &mut [u8]) -> io::Result<()> {
    let number = (3u32 << 30) | ((message.len() as u32 & 0x3FFF) << 16) | (u32::from(b'R') << 8) | 1;
    // SAFETY: the number carries the length of the buffer, so the kernel stays inside of it.
    let done = unsafe { libc::ioctl(kept.as_raw_fd(), libc::Ioctl::from(number), message.as_mut_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The ids in an answer of the ioctl.
pub(crate) fn ids_of_message(message: &[u8]) -> Vec<u64> {
    let word = |at: usize| message.get(at..at + 8).and_then(|b| b.first_chunk::<8>());
    let count = message.first_chunk::<4>().map_or(0, |b| u32::from_le_bytes(*b)) as usize;
    (0..count).filter_map(|n| word(HEAD + 8 * n)).map(|b| u64::from_le_bytes(*b)).collect()
}

/// The ids in a text answer to one query.
pub(crate) fn ids_of_text(text: &[u8]) -> Vec<u64> {
    let text = String::from_utf8_lossy(text);
    text.lines().filter_map(|line| line.split('\t').next()?.parse().ok()).collect()
}

/// Raw little-endian float32.
pub(crate) fn raw(query: &[f32]) -> Vec<u8> {
    query.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Numbers in text, as a script writes them.
pub(crate) fn text(query: &[f32]) -> Vec<u8> {
    let numbers: Vec<String> = query.iter().map(ToString::to_string).collect();
    (numbers.join(",") + "\n").into_bytes()
}

/// A NumPy array of queries.
pub(crate) fn npy(queries: &[f32], dimension: usize) -> Vec<u8> {
    let shape = format!("({}, {dimension})", queries.len() / dimension.max(1));
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = b"\x93NUMPY\x01\x00".to_vec();
    out.extend_from_slice(&(header.len() as u16).to_le_bytes());
    out.extend_from_slice(header.as_bytes());
    out.extend(raw(queries));
    out
}

//! Which Linux an image is.

/// The release of a bzImage, such as `6.1.0-56-cloud-amd64`: what `uname -r` says once it runs, and what its modules' directory
/// is called (x86 boot protocol, `kernel_version`). `None` for other images, which do not say. O(1).
pub fn kernel_release(image: &[u8]) -> Option<&str> {
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = u16::from_le_bytes(image.get(0x20E..0x210)?.try_into().ok()?);
    let at = usize::from(offset) + 0x200;
    let text = image.get(at..)?;
    let text = text.get(..text.len().min(256))?;
    let end = text.iter().position(|b| *b == 0)?;
    let word = std::str::from_utf8(text.get(..end)?).ok()?.split(' ').next()?;
    // It becomes a part of a path.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+' | b'~');
    (!word.is_empty() && !word.starts_with('.') && word.bytes().all(plain)).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_names_come_out() {
        let image = |text: &[u8]| {
            let mut image = vec![0; 0x400];
            image[0x202..0x206].copy_from_slice(b"HdrS");
            image[0x20E..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
            image[0x300..0x300 + text.len()].copy_from_slice(text);
            image
        };
        assert_eq!(
            kernel_release(&image(b"6.1.0-56-cloud-amd64 (x@y) #1 SMP\0")),
            Some("6.1.0-56-cloud-amd64")
        );
        for bad in [&b"../../etc (x)\0"[..], b"a/b\0", b"\0", b"\xff\xfe\0", b". x\0"] {
            assert_eq!(kernel_release(&image(bad)), None, "{bad:?}");
        }
        assert_eq!(kernel_release(b"\x7fELF"), None);
        let mut far = image(b"6.1\0");
        far[0x20E..0x210].copy_from_slice(&0xFFFF_u16.to_le_bytes());
        assert_eq!(kernel_release(&far), None);
    }
}

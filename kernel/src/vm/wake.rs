//! What a machine is told when it goes on after it stood still, perhaps for days, and perhaps as one of several copies.

use std::fmt::Write as _;

/// The word before it, on the machine's console.
const WORD: &str = "wake";
/// What the guest writes before the token, when it did as it was told.
pub const AWAKE_MARKER: &str = "rvf-guest: awake ";
/// Bytes of a seed. A line takes its time on an emulated serial line, so it has no more than is needed.
pub const SEED: usize = 16;

/// The time, which went on, and a seed, since a copy has the random state of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// Tells the answer to this from others.
    pub token: u32,
    /// Milliseconds since 1970.
    pub millis: u64,
    /// For the kernel's random numbers.
    pub seed: [u8; SEED],
}

impl Wake {
    /// As it is typed on the console, without the end of the line.
    pub fn line(&self) -> String {
        let Self { token, millis, seed } = self;
        let mut line = format!("{WORD} {token:08x} {millis} ");
        for byte in seed {
            let _ = write!(line, "{byte:02x}");
        }
        line
    }

    /// Reads such a line; `None` for any other.
    pub fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [WORD, token, millis, seed] = words.as_slice() else { return None };
        let token = u32::from_str_radix(token, 16).ok()?;
        let millis = millis.parse().ok()?;
        let mut bytes = [0; SEED];
        if seed.len() != 2 * SEED || !seed.is_ascii() {
            return None;
        }
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(seed.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self { token, millis, seed: bytes })
    }

    /// The answer, without the end of the line.
    pub fn answer(&self) -> String {
        format!("{AWAKE_MARKER}{:08x}", self.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        let wake = Wake { token: 7, millis: 1_790_000_000_999, seed: [0xA5; SEED] };
        let line = wake.line();
        // A console takes lines of up to 4,095 bytes.
        assert!(line.len() < 64 && !line.chars().any(char::is_control));
        assert_eq!(Wake::parse(&format!(" {line}\r")), Some(wake));
        assert_eq!(wake.answer(), "rvf-guest: awake 00000007");
        let seed = "a5".repeat(SEED);
        for bad in [
            String::new(),
            "poweroff".into(),
            line.replace(WORD, "awake"),
            line.replace("1790000000999", "-1"),
            line.replace(&seed, &seed[2..]),
            line.replace(&seed, &format!("{}zz", &seed[2..])),
            line.replace(&seed, &format!("{}\u{e4}", &seed[2..])),
            format!("{line} x"),
        ] {
            assert_eq!(Wake::parse(&bad), None, "{bad}");
        }
    }
}

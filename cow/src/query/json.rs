//! A pull scanner for JSON text: no tree is built, numbers keep their digits, and every error has a place.
//!
//! Strict RFC 8259 with two additions that other writers make and that callers then judge: `NaN`, `Infinity`
//! and `-Infinity` where a float is asked for, and a leading `+` there. Nesting is skipped without recursion.

use super::error::{DataError, Kind, Place, line_column, printable};
use super::number;
use std::borrow::Cow;

/// Deepest nesting that is skipped over; real rows have two levels.
pub const MAX_DEPTH: usize = 128;

/// A number as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<'a> {
    /// Its digits.
    pub text: &'a str,
    /// Whether it has a point or an exponent.
    pub float: bool,
}

/// A position in a JSON text.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    /// At the start of `bytes`; a UTF-8 byte order mark is passed over.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let at = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Self { bytes, at }
    }

    /// The byte offset.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    /// A syntax error here.
    #[must_use]
    pub fn error(&self, problem: impl Into<String>, mend: impl Into<String>) -> DataError {
        DataError::new(Kind::Syntax, self.place(), problem, mend)
    }

    /// Line and column of the position. O(offset).
    #[must_use]
    pub fn place(&self) -> Place {
        line_column(self.bytes, self.at)
    }

    /// The line number of the position, given that line `line` starts at or before offset `from`.
    #[must_use]
    pub fn line_from(&self, from: usize, line: u64) -> u64 {
        line + self.bytes.get(from..self.at).unwrap_or_default().iter().filter(|b| **b == b'\n').count()
            as u64
    }

    /// Skips blanks and gives the next byte, not taken.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        while let Some(b) = self.bytes.get(self.at) {
            match b {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                other => return Some(*other),
            }
        }
        None
    }

    /// What stands at the position, for messages.
    #[must_use]
    pub fn found(&mut self) -> String {
        match self.peek() {
            None => "the end".into(),
            Some(_) => {
                let rest = self.bytes.get(self.at..).unwrap_or_default();
                let end =
                    rest.iter().position(|b| b.is_ascii_whitespace()).unwrap_or(rest.len()).clamp(1, 16);
                let text = String::from_utf8_lossy(rest.get(..end).unwrap_or_default());
                format!("`{}`", printable(&text, 16))
            }
        }
    }

    /// Takes this byte or fails naming what stands there instead.
    ///
    /// # Errors
    /// Another byte, or the end.
    pub fn expect(&mut self, byte: u8, what: &str) -> Result<(), DataError> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Ok(());
        }
        let found = self.found();
        Err(self.error(format!("expected {what}, found {found}"), ""))
    }

    /// Takes this byte when it is next.
    pub fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// After an element: true when a comma follows (taken), false when `close` does (taken).
    ///
    /// # Errors
    /// Anything else.
    #[inline]
    pub fn more(&mut self, close: u8) -> Result<bool, DataError> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(b) if b == close => {
                self.at += 1;
                Ok(false)
            }
            _ => {
                let found = self.found();
                Err(self.error(format!("expected `,` or `{}`, found {found}", close as char), ""))
            }
        }
    }

    /// Takes a string. Borrowed when it has no escapes.
    ///
    /// # Errors
    /// Not a string, a control character, a bad escape, text that is not UTF-8, or the end.
    pub fn string(&mut self) -> Result<Cow<'a, str>, DataError> {
        self.expect(b'"', "a string")?;
        let start = self.at;
        let mut owned: Option<Vec<u8>> = None;
        let mut run = start;
        loop {
            match self.bytes.get(self.at) {
                None => return Err(self.error("the string does not end", "close it with `\"`")),
                Some(b'"') => {
                    let tail = self.bytes.get(run..self.at).unwrap_or_default();
                    self.at += 1;
                    let utf8 = |s: &Self, e: usize| {
                        let mut at = s.clone();
                        at.at = start + e;
                        at.error("the string is not UTF-8", "convert the text to UTF-8")
                    };
                    return match owned {
                        None => match std::str::from_utf8(tail) {
                            Ok(text) => Ok(Cow::Borrowed(text)),
                            Err(e) => Err(utf8(self, e.valid_up_to())),
                        },
                        Some(mut text) => {
                            text.extend_from_slice(tail);
                            String::from_utf8(text).map(Cow::Owned).map_err(|_| utf8(self, 0))
                        }
                    };
                }
                Some(b'\\') => {
                    let text = owned.get_or_insert_with(Vec::new);
                    text.extend_from_slice(self.bytes.get(run..self.at).unwrap_or_default());
                    self.at += 1;
                    let mut buffer = [0; 4];
                    let c = self.escape()?;
                    if let Some(text) = &mut owned {
                        text.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                    }
                    run = self.at;
                }
                Some(b) if *b < 0x20 => {
                    return Err(
                        self.error("a control character inside a string", "write it as an escape, as \\n")
                    );
                }
                Some(_) => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Result<char, DataError> {
        let simple = match self.bytes.get(self.at) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                let high = self.hex4()?;
                let code = match high {
                    0xd800..=0xdbff if self.bytes.get(self.at..self.at + 2) == Some(b"\\u") => {
                        self.at += 2;
                        let low = self.hex4()?;
                        if !(0xdc00..=0xdfff).contains(&low) {
                            return Err(self.error("half of a surrogate pair", ""));
                        }
                        0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)
                    }
                    other => other,
                };
                return char::from_u32(code).ok_or_else(|| self.error("half of a surrogate pair", ""));
            }
            _ => {
                return Err(self.error(
                    "an unknown escape in a string",
                    "JSON has \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u",
                ));
            }
        };
        self.at += 1;
        Ok(simple)
    }

    fn hex4(&mut self) -> Result<u32, DataError> {
        let digits = self.bytes.get(self.at..self.at + 4).and_then(|d| std::str::from_utf8(d).ok());
        let code = digits.filter(|d| !d.starts_with('+')).and_then(|d| u32::from_str_radix(d, 16).ok());
        let code = code.ok_or_else(|| self.error("\\u needs four hexadecimal digits", ""))?;
        self.at += 4;
        Ok(code)
    }

    /// Takes a number, strictly as JSON writes them.
    ///
    /// # Errors
    /// Not a number, or one that JSON does not allow (`01`, `.5`, `5.`, `+1`).
    pub fn number(&mut self) -> Result<Number<'a>, DataError> {
        self.peek();
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let digits = |from: usize| {
            rest.get(from..).unwrap_or_default().iter().take_while(|b| b.is_ascii_digit()).count()
        };
        let mut end = usize::from(rest.first() == Some(&b'-'));
        let whole = digits(end);
        let leading_zero = whole > 1 && rest.get(end) == Some(&b'0');
        end += whole;
        let mut float = false;
        let mut good = whole > 0 && !leading_zero;
        if rest.get(end) == Some(&b'.') {
            float = true;
            let n = digits(end + 1);
            good &= n > 0;
            end += 1 + n;
        }
        if matches!(rest.get(end), Some(b'e' | b'E')) {
            float = true;
            end += 1;
            end += usize::from(matches!(rest.get(end), Some(b'+' | b'-')));
            let n = digits(end);
            good &= n > 0;
            end += n;
        }
        let ends = !matches!(rest.get(end), Some(b) if b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-'));
        match std::str::from_utf8(rest.get(..end).unwrap_or_default()) {
            Ok(text) if good && ends => {
                self.at += end;
                Ok(Number { text, float })
            }
            _ => {
                let found = self.found();
                Err(self.error(format!("{found} is not a JSON number"), ""))
            }
        }
    }

    /// Takes an unsigned integer.
    ///
    /// # Errors
    /// Anything else, with `what` in the message.
    pub fn u64(&mut self, what: &str) -> Result<u64, DataError> {
        let at = self.clone();
        let bad = |mut s: Self| {
            let found = s.found();
            s.error(format!("{what} must be an integer from 0 to 18446744073709551615, found {found}"), "")
        };
        match self.number() {
            Ok(n) => number::parse_u64(n.text.as_bytes()).ok_or_else(|| bad(at)),
            Err(_) => Err(bad(at)),
        }
    }

    /// Takes `true` or `false`.
    ///
    /// # Errors
    /// Anything else, with `what` in the message.
    pub fn bool(&mut self, what: &str) -> Result<bool, DataError> {
        for (word, value) in [("true", true), ("false", false)] {
            if self.word(word) {
                return Ok(value);
            }
        }
        let found = self.found();
        Err(self.error(format!("{what} must be true or false, found {found}"), ""))
    }

    /// Takes `null` when it is next.
    pub fn null(&mut self) -> bool {
        self.word("null")
    }

    fn word(&mut self, word: &str) -> bool {
        self.peek();
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let there = rest.starts_with(word.as_bytes())
            && !rest.get(word.len()).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
        if there {
            self.at += word.len();
        }
        there
    }

    /// Takes an array of numbers, appended to `out` as float32; returns how many. Numbers that are not finite
    /// are appended as they are: the caller knows the row to blame.
    ///
    /// # Errors
    /// Not an array of numbers.
    pub fn floats(&mut self, out: &mut Vec<f32>) -> Result<usize, DataError> {
        self.expect(b'[', "an array of numbers")?;
        if self.take(b']') {
            return Ok(0);
        }
        let mut count = 0;
        loop {
            let next = self.peek();
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let parsed = if matches!(next, Some(b'.')) { None } else { number::parse_f32(rest) };
            let Some((value, used)) = parsed else {
                let found = self.found();
                return Err(self.error(format!("component {count}: expected a number, found {found}"), ""));
            };
            out.push(value);
            count += 1;
            self.at += used;
            // The common separators, without the general path.
            if self.bytes.get(self.at) == Some(&b',') {
                self.at += 1;
            } else if !self.more(b']')? {
                return Ok(count);
            }
        }
    }

    /// Takes any value and gives its text.
    ///
    /// # Errors
    /// Bad syntax, or nesting deeper than [`MAX_DEPTH`].
    pub fn skip(&mut self) -> Result<&'a [u8], DataError> {
        self.peek();
        let start = self.at;
        let mut open: Vec<u8> = Vec::new();
        loop {
            // A value starts here.
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    if !self.take(b'}') {
                        self.deeper(&mut open, b'}')?;
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if !self.take(b']') {
                        self.deeper(&mut open, b']')?;
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b't' | b'f') => {
                    self.bool("the value")?;
                }
                Some(b'n') if self.null() => {}
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                _ => {
                    let found = self.found();
                    return Err(self.error(format!("expected a value, found {found}"), ""));
                }
            }
            // It ended; close what ends with it.
            loop {
                let Some(close) = open.last().copied() else {
                    return Ok(self.bytes.get(start..self.at).unwrap_or_default());
                };
                if self.more(close)? {
                    if close == b'}' {
                        self.key()?;
                    }
                    break;
                }
                open.pop();
            }
        }
    }

    fn deeper(&self, open: &mut Vec<u8>, close: u8) -> Result<(), DataError> {
        if open.len() >= MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH} levels"), ""));
        }
        open.push(close);
        Ok(())
    }

    /// Takes `"key":`.
    ///
    /// # Errors
    /// Anything else.
    pub fn key(&mut self) -> Result<Cow<'a, str>, DataError> {
        let key = self.string()?;
        self.expect(b':', "`:`")?;
        Ok(key)
    }

    /// Fails unless only blanks are left.
    ///
    /// # Errors
    /// Something follows.
    pub fn end(&mut self) -> Result<(), DataError> {
        match self.peek() {
            None => Ok(()),
            Some(_) => {
                let found = self.found();
                Err(self.error(format!("{found} after the end of the value"), "remove what follows"))
            }
        }
    }
}

/// Whether the brackets of a JSON text that starts with `{` or `[` are closed: `Some(true)` when the text ends
/// with the bracket that opened it, `Some(false)` when more must come, `None` when it closes what was not open
/// or goes on after its end. Several arrays one after another count as closed after each. O(n).
#[must_use]
pub fn balanced(bytes: &[u8]) -> Option<bool> {
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for chunk in bytes.chunks(32) {
        // Most of a request is digits: whole chunks without a bracket, quote or backslash are passed over at once.
        let dull =
            chunk.iter().fold(true, |dull, b| dull & !matches!(b, b'"' | b'[' | b'\\' | b']' | b'{' | b'}'));
        if dull {
            escaped = false;
            continue;
        }
        for b in chunk {
            if in_string {
                match b {
                    _ if escaped => escaped = false,
                    b'\\' => escaped = true,
                    b'"' => in_string = false,
                    _ => {}
                }
                continue;
            }
            match b {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.checked_sub(1)?,
                _ => {}
            }
        }
    }
    Some(depth == 0 && !in_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings() {
        let good = [
            (r#""""#, ""),
            (r#" "abc" "#, "abc"),
            (r#""a\"\\\/\b\f\n\r\t""#, "a\"\\/\u{8}\u{c}\n\r\t"),
            (r#""\u00e9\ud83d\ude00x""#, "\u{e9}\u{1f600}x"),
            ("\"\u{e9}\"", "\u{e9}"),
        ];
        for (text, want) in good {
            assert_eq!(Scanner::new(text.as_bytes()).string().unwrap(), want, "{text}");
        }
        let bad: [&[u8]; 8] = [
            b"\"a",
            b"\"\\x\"",
            b"\"\\u12\"",
            b"\"\\ud800\"",
            b"\"\\ud800\\u0041\"",
            b"\"a\nb\"",
            b"\"\xff\"",
            b"abc",
        ];
        for text in bad {
            assert!(Scanner::new(text).string().is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_are_strict() {
        for (text, float) in
            [("0", false), ("-0", false), ("12", false), ("1.5", true), ("1e5", true), ("-1.5E+3", true)]
        {
            assert_eq!(Scanner::new(text.as_bytes()).number().unwrap(), Number { text, float });
        }
        for text in ["01", ".5", "5.", "+1", "1e", "--1", "NaN", "1x", "1.2.3", ""] {
            assert!(Scanner::new(text.as_bytes()).number().is_err(), "{text}");
        }
    }

    #[test]
    fn skip_takes_one_value() {
        let text = br#" {"a":[1,{"b":[]},"]"],"c":{}} , 5"#;
        let mut s = Scanner::new(text);
        assert_eq!(s.skip().unwrap(), br#"{"a":[1,{"b":[]},"]"],"c":{}}"#);
        assert!(s.take(b','));
        assert_eq!(s.skip().unwrap(), b"5");
        s.end().unwrap();
        for bad in ["{", "[1", "[1,]", "{\"a\"}", "{a:1}", "]", "nul", "[1}", "{\"a\":1,}"] {
            assert!(Scanner::new(bad.as_bytes()).skip().is_err(), "{bad}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_not_an_overflow() {
        let text = vec![b'['; 1_000_000];
        let e = Scanner::new(&text).skip().unwrap_err();
        assert_eq!(e.to_string(), "line 1, column 130: nested deeper than 128 levels");
    }

    #[test]
    fn balance() {
        let cases: [(&str, Option<bool>); 9] = [
            ("[1,2]", Some(true)),
            ("[1,2", Some(false)),
            ("{\"a\":\"]}\"", Some(false)),
            ("{\"a\":\"\\\"}\"}", Some(true)),
            ("[1]\n[2]\n", Some(true)),
            (
                "{\"a\":\"0123456789012345678901\\\"56789]}\", \"b\": [ 1, 2, 3, 4, 5, 6, 7, 8, 9 ] }",
                Some(true),
            ),
            ("[1]]", None),
            ("{\"a", Some(false)),
            ("", Some(true)),
        ];
        for (text, want) in cases {
            assert_eq!(balanced(text.as_bytes()), want, "{text}");
        }
    }
}

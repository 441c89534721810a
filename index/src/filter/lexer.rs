//! Tokens of SQL-like filter text.

use super::error::FilterError;
use super::expr::CompareOp;
use super::value::Num;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Unquoted word: a keyword or a field name.
    Word(String),
    /// Name in double quotes.
    Quoted(String),
    /// Text in single quotes.
    Text(String),
    Number(Num),
    Op(CompareOp),
    /// `::`, between a number and its type.
    Cast,
    Open,
    Close,
    Comma,
    End,
}

const KEYWORDS: [&str; 12] =
    ["AND", "OR", "NOT", "IN", "BETWEEN", "EXISTS", "IS", "NULL", "LIKE", "ILIKE", "TRUE", "FALSE"];

/// True when the word, in any case, is a keyword and needs quotes to be a field name.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.iter().any(|k| k.eq_ignore_ascii_case(word))
}

/// True when a name needs no quotes for its characters.
pub(super) fn is_plain_name(name: &str) -> bool {
    name.starts_with(starts_name) && name.chars().all(continues_name)
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// Reads tokens from the front of a text.
#[derive(Debug)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Byte offset of the next unread character.
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    /// The text between two byte offsets, shortened for a message.
    pub(super) fn excerpt(&self, from: usize, to: usize) -> String {
        let whole = self.text.get(from..to).unwrap_or("");
        let mut short: String =
            whole.chars().take(40).map(|c| if c.is_control() { ' ' } else { c }).collect();
        if short.len() < whole.len() {
            short.push_str("...");
        }
        format!("`{short}`")
    }

    /// Column of a byte offset, in characters from 1.
    pub(super) fn column(&self, at: usize) -> usize {
        self.text.get(..at).map_or(0, |before| before.chars().count()) + 1
    }

    /// Byte offset after the last token read.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    pub(super) fn error(&self, at: usize, expected: &str, found: String, hint: &str) -> FilterError {
        FilterError::Syntax {
            column: self.column(at),
            expected: expected.to_owned(),
            found,
            hint: hint.to_owned(),
        }
    }

    /// The next token and the byte offset where it starts.
    pub(super) fn next(&mut self) -> Result<(Token, usize), FilterError> {
        self.at = self.text.len() - self.rest().trim_start().len();
        let start = self.at;
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok((Token::End, start)) };
        for (symbol, token) in [
            ("::", Token::Cast),
            ("(", Token::Open),
            (")", Token::Close),
            (",", Token::Comma),
            ("<=", Token::Op(CompareOp::Le)),
            (">=", Token::Op(CompareOp::Ge)),
            ("<>", Token::Op(CompareOp::Ne)),
            ("!=", Token::Op(CompareOp::Ne)),
            ("==", Token::Op(CompareOp::Eq)),
            ("=", Token::Op(CompareOp::Eq)),
            ("<", Token::Op(CompareOp::Lt)),
            (">", Token::Op(CompareOp::Gt)),
        ] {
            if rest.starts_with(symbol) {
                self.at += symbol.len();
                return Ok((token, start));
            }
        }
        let token = match first {
            '\'' => Token::Text(self.enclosed('\'')?),
            '"' => {
                let name = self.enclosed('"')?;
                if name.is_empty() {
                    return Err(self.error(start, "a field name in the quotes", "nothing".to_owned(), ""));
                }
                Token::Quoted(name)
            }
            c if starts_name(c) => {
                let len = rest.find(|c| !continues_name(c)).unwrap_or(rest.len());
                self.at += len;
                Token::Word(rest.get(..len).unwrap_or("").to_owned())
            }
            '0'..='9' | '.' | '+' | '-' => Token::Number(self.number()?),
            other => {
                let hint = match other {
                    '!' => "write NOT to negate, != for not equal",
                    '&' => "write AND",
                    '|' => "write OR",
                    _ => "put text in single quotes and unusual field names in double quotes",
                };
                let found = self.excerpt(start, start + other.len_utf8());
                return Err(self.error(start, "a name, a value or an operator", found, hint));
            }
        };
        Ok((token, start))
    }

    /// Text in quotes, with the quote doubled inside.
    fn enclosed(&mut self, quote: char) -> Result<String, FilterError> {
        let start = self.at;
        let mut out = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((i, c)) = chars.next() {
            if c != quote {
                out.push(c);
            } else if chars.next_if(|&(_, next)| next == quote).is_some() {
                out.push(quote);
            } else {
                self.at = start + i + 1;
                return Ok(out);
            }
        }
        let (expected, hint) = if quote == '\'' {
            ("a closing ' for the text that starts here", "a ' inside text is written ''")
        } else {
            ("a closing \" for the name that starts here", "a \" inside a name is written \"\"")
        };
        Err(self.error(start, expected, "end of filter".to_owned(), hint))
    }

    fn number(&mut self) -> Result<Num, FilterError> {
        let start = self.at;
        let bytes = self.rest().as_bytes();
        let byte = |i: usize| bytes.get(i).copied().unwrap_or(0);
        let digits = |mut i: usize| {
            while byte(i).is_ascii_digit() {
                i += 1;
            }
            i
        };
        let signed = usize::from(matches!(byte(0), b'+' | b'-'));
        let mut end = digits(signed);
        let mut any = end > signed;
        let mut float = false;
        if byte(end) == b'.' {
            float = true;
            let after = digits(end + 1);
            any |= after > end + 1;
            end = after;
        }
        if any && matches!(byte(end), b'e' | b'E') {
            let exponent = end + 1 + usize::from(matches!(byte(end + 1), b'+' | b'-'));
            let after = digits(exponent);
            if after > exponent {
                float = true;
                end = after;
            }
        }
        // A letter right after the digits is a mistake such as 2020s or 10MB, not the start of the next word.
        let tail = self.rest().get(end..).unwrap_or("");
        let stuck = tail.find(|c| !continues_name(c)).unwrap_or(tail.len());
        if !any || stuck > 0 {
            let found = self.excerpt(start, start + (end + stuck).max(1));
            let hint = if any {
                "put text in single quotes"
            } else {
                "put text in single quotes, names with a minus or other signs in double quotes"
            };
            return Err(self.error(start, "a number", found, hint));
        }
        self.at = start + end;
        let text = self.text.get(start..self.at).unwrap_or("");
        let unsigned = text.trim_start_matches(['+', '-']);
        if !float {
            if text.starts_with('-') {
                match text.parse() {
                    Ok(0) => return Ok(Num::U64(0)),
                    Ok(v) => return Ok(Num::I64(v)),
                    Err(_) => {}
                }
            } else if let Ok(v) = unsigned.parse() {
                return Ok(Num::U64(v));
            }
        }
        // Integers beyond 64 bits fall through: no stored integer equals them, and as floats they order correctly.
        match text.parse::<f64>() {
            Ok(v) if v.is_finite() => Ok(Num::F64(v)),
            _ => {
                let found = self.excerpt(start, self.at);
                Err(self.error(start, "a number within the range of a 64-bit float", found, ""))
            }
        }
    }
}

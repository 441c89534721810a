//! LIKE patterns: `%` any text, `_` one character, `\` takes the next character literally.

use memchr::memmem::Finder;

/// A pattern made ready to match. Matching is linear in the text, times the longest run between `%` where it holds `_`.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The runs between `%`; a pattern without `%` has one.
    runs: Vec<Run>,
    ignore_case: bool,
}

/// Characters between two `%`, `None` being `_`.
#[derive(Debug)]
struct Run {
    chars: Vec<Option<char>>,
    /// Search of the run as bytes, when it has no `_`.
    literal: Option<Finder<'static>>,
}

impl Run {
    fn new(chars: Vec<Option<char>>) -> Self {
        let text: Option<String> = chars.iter().copied().collect();
        Self { chars, literal: text.map(|t| Finder::new(t.as_bytes()).into_owned()) }
    }

    /// The rest of the text after the run, when the text starts with it.
    fn strip<'t>(&self, text: &'t str) -> Option<&'t str> {
        let mut rest = text.chars();
        for want in &self.chars {
            let got = rest.next()?;
            if want.is_some_and(|c| c != got) {
                return None;
            }
        }
        Some(rest.as_str())
    }

    /// The rest of the text after the first occurrence of the run.
    fn skip_past<'t>(&self, text: &'t str) -> Option<&'t str> {
        if let Some(literal) = &self.literal {
            let at = literal.find(text.as_bytes())?;
            return text.get(at + literal.needle().len()..);
        }
        let mut from = text;
        loop {
            if let Some(rest) = self.strip(from) {
                return Some(rest);
            }
            let mut chars = from.chars();
            chars.next()?;
            from = chars.as_str();
        }
    }

    /// True when the text ends with the run.
    fn ends(&self, text: &str) -> bool {
        let mut rest = text.chars();
        self.chars.iter().rev().all(|want| match (want, rest.next_back()) {
            (Some(c), Some(got)) => *c == got,
            (None, Some(_)) => true,
            (_, None) => false,
        })
    }
}

impl Pattern {
    pub(super) fn new(pattern: &str, ignore_case: bool) -> Self {
        let mut runs = Vec::new();
        let mut run = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let literal = match c {
                '%' => {
                    runs.push(Run::new(std::mem::take(&mut run)));
                    continue;
                }
                '_' => {
                    run.push(None);
                    continue;
                }
                // A backslash at the very end stands for itself.
                '\\' => chars.next().unwrap_or('\\'),
                c => c,
            };
            if ignore_case {
                run.extend(literal.to_lowercase().map(Some));
            } else {
                run.push(Some(literal));
            }
        }
        runs.push(Run::new(run));
        Self { runs, ignore_case }
    }

    /// True when the whole text matches.
    pub(super) fn matches(&self, text: &str) -> bool {
        if self.ignore_case { self.matches_exactly(&lower(text)) } else { self.matches_exactly(text) }
    }

    fn matches_exactly(&self, text: &str) -> bool {
        let (first, middle, last) = match self.runs.as_slice() {
            [] => return text.is_empty(),
            [only] => return only.strip(text).is_some_and(str::is_empty),
            [first, middle @ .., last] => (first, middle, last),
        };
        let Some(mut rest) = first.strip(text) else { return false };
        // Taking the earliest place for each run leaves the most text for those after it.
        for run in middle {
            match run.skip_past(rest) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        last.ends(rest)
    }

    /// The text itself, when the pattern has no wildcard and minds case.
    pub(super) fn exact(&self) -> Option<String> {
        match self.runs.as_slice() {
            [only] if !self.ignore_case => only.chars.iter().copied().collect(),
            _ => None,
        }
    }

    /// Text that every match starts with; empty when case is ignored.
    pub(super) fn prefix(&self) -> String {
        if self.ignore_case {
            return String::new();
        }
        let first = self.runs.first().map_or(&[][..], |run| &run.chars);
        first.iter().map_while(|c| *c).collect()
    }

    /// True when the pattern is its prefix followed by one `%`, so that the prefix decides.
    pub(super) fn is_prefix_only(&self) -> bool {
        match self.runs.as_slice() {
            [first, last] => {
                !self.ignore_case && last.chars.is_empty() && first.chars.iter().all(Option::is_some)
            }
            _ => false,
        }
    }

    /// Search for the longest literal that every match contains; `None` when there is none or case is ignored.
    pub(super) fn needle(&self) -> Option<Finder<'static>> {
        if self.ignore_case {
            return None;
        }
        let fragments = self.runs.iter().flat_map(|run| run.chars.split(Option::is_none));
        let longest = fragments.max_by_key(|f| f.len()).filter(|f| !f.is_empty())?;
        let text: String = longest.iter().flatten().collect();
        Some(Finder::new(text.as_bytes()).into_owned())
    }
}

/// Lower case character by character, so that patterns and text agree whatever stands beside a character.
fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let table = [
            ("", "", true),
            ("", "a", false),
            ("%", "", true),
            ("%", "anything", true),
            ("a%", "abc", true),
            ("a%", "ba", false),
            ("%c", "abc", true),
            ("%b%", "abc", true),
            ("%bc%bc", "bc", false),
            ("%bc%bc", "abcbc", true),
            ("a%a", "a", false),
            ("a%a", "aa", true),
            ("_", "\u{e9}", true),
            ("_", "", false),
            ("__", "a", false),
            ("a_c", "abc", true),
            ("%a_c%e", "xxabcde", true),
            ("%a_c%e", "xxabde", false),
            ("50\\%", "50%", true),
            ("50\\%", "500", false),
            ("a\\_b", "a_b", true),
            ("a\\_b", "axb", false),
            ("a\\", "a\\", true),
            ("a\\\\b", "a\\b", true),
            ("%%a%%", "cat", true),
            ("Abc", "abc", false),
        ];
        for (pattern, text, want) in table {
            assert_eq!(Pattern::new(pattern, false).matches(text), want, "{text:?} LIKE {pattern:?}");
        }
        for (pattern, text, want) in [
            ("LIB%", "libfoo", true),
            ("%\u{c9}t\u{c9}", "l'\u{e9}t\u{e9}", true),
            ("a_C", "ABC", true),
            ("a", "b", false),
        ] {
            assert_eq!(Pattern::new(pattern, true).matches(text), want, "{text:?} ILIKE {pattern:?}");
        }
    }

    #[test]
    fn literals_are_found() {
        let p = Pattern::new("ab%needle%c_", false);
        assert_eq!(p.prefix(), "ab");
        assert_eq!(p.needle().map(|f| f.needle().to_vec()), Some(b"needle".to_vec()));
        assert_eq!(p.exact(), None);
        assert_eq!(Pattern::new("a\\%b", false).exact().as_deref(), Some("a%b"));
        assert!(Pattern::new("ab%", false).is_prefix_only());
        assert!(!Pattern::new("a_%", false).is_prefix_only());
        assert!(Pattern::new("%_%", false).needle().is_none());
        let split = Pattern::new("%_ab_cde_%f%", false).needle();
        assert_eq!(split.map(|f| f.needle().to_vec()), Some(b"cde".to_vec()));
    }
}

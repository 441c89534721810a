//! A deviation or damage in a file, in words.

/// How much a [`Finding`] matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// A deviation without consequences.
    Note,
    /// Something other tools, or a later operation, will stumble over.
    Warning,
    /// Data was lost or is not usable.
    Damage,
}

impl Severity {
    /// `note`, `warning` or `damage`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Damage => "damage",
        }
    }
}

/// One deviation or damage found in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// A stable short word for scripts, for example `"torn-tail"`.
    pub code: &'static str,
    /// File offset it is about.
    pub offset: u64,
    /// One line: what is wrong, what it means.
    pub text: String,
    /// One line: what to do about it, when something can be done.
    pub mend: Option<String>,
}

impl Finding {
    pub(crate) fn note(code: &'static str, offset: u64, text: impl Into<String>) -> Self {
        Self { severity: Severity::Note, code, offset, text: text.into(), mend: None }
    }

    pub(crate) fn warning(code: &'static str, offset: u64, text: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, code, offset, text: text.into(), mend: None }
    }

    pub(crate) fn damage(code: &'static str, offset: u64, text: impl Into<String>) -> Self {
        Self { severity: Severity::Damage, code, offset, text: text.into(), mend: None }
    }

    pub(crate) fn mend(mut self, text: impl Into<String>) -> Self {
        self.mend = Some(text.into());
        self
    }
}

//! The three metrics of the format. Lower is nearer in all of them.

use std::fmt;

/// How far two vectors are apart, as a store's manifest names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Squared Euclidean distance (no root), code 0.
    L2,
    /// Negated dot product, code 1.
    InnerProduct,
    /// One minus the cosine, code 2.
    Cosine,
}

impl Metric {
    /// The metric with this code in the format (0, 1, 2).
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::L2),
            1 => Some(Self::InnerProduct),
            2 => Some(Self::Cosine),
            _ => None,
        }
    }

    /// The code in the format.
    pub fn code(self) -> u8 {
        match self {
            Self::L2 => 0,
            Self::InnerProduct => 1,
            Self::Cosine => 2,
        }
    }

    /// The name as the reference tools print it.
    pub fn name(self) -> &'static str {
        match self {
            Self::L2 => "L2",
            Self::InnerProduct => "InnerProduct",
            Self::Cosine => "Cosine",
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

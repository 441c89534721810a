//! The errors of this crate, in four families.

/// Who or what an error is about, so that callers never report one kind as another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The request is wrong; the same request fails again.
    Caller,
    /// The machine refused (memory, threads); it may work later.
    Environment,
    /// Stored bytes are not what they must be; derived data can be rebuilt.
    Corruption,
    /// Not allowed, or stopped on purpose.
    Policy,
}

/// An error of building or searching an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The query or row has another number of components than the index.
    #[error("vector has {found} components, the index has {expected}")]
    Dimension {
        /// Components per row of the index.
        expected: usize,
        /// Components given.
        found: usize,
    },
    /// A build parameter is out of its range.
    #[error("parameter {name} is {value}, allowed is {allowed}")]
    Parameter {
        /// Name of the parameter.
        name: &'static str,
        /// Value given.
        value: u64,
        /// The allowed range, in words.
        allowed: &'static str,
    },
    /// A query component is NaN or infinite.
    #[error("query component {position} is not a finite number")]
    NotFinite {
        /// Zero-based position of the component.
        position: usize,
    },
    /// A live ordinal does not exist in the row table, or its row is shorter than the dimension.
    #[error("row {ordinal} is missing or too short for {dim} components")]
    Row {
        /// Row ordinal.
        ordinal: u32,
        /// Components per row.
        dim: usize,
    },
    /// The build was cancelled through [`Progress`](crate::Progress).
    #[error("index build was cancelled")]
    Cancelled,
    /// The bytes are not a search image, or one of a version this build does not know.
    #[error("search image at byte {offset}: {what}")]
    Image {
        /// Offset inside the image.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A reference graph contradicts itself or the rows.
    #[error("reference graph: {0}")]
    Graph(String),
    /// A worker could not be started or ended abnormally.
    #[error("index worker failed: {0}")]
    Worker(String),
}

impl IndexError {
    /// The family of the error.
    pub fn family(&self) -> Family {
        match self {
            Self::Dimension { .. } | Self::Parameter { .. } | Self::NotFinite { .. } => Family::Caller,
            Self::Worker(_) => Family::Environment,
            Self::Row { .. } | Self::Image { .. } | Self::Graph(_) => Family::Corruption,
            Self::Cancelled => Family::Policy,
        }
    }
}

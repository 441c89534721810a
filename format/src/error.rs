//! One error type for reading and writing bytes, in four families.

use std::io;

/// Who has to act on an error. Never collapse one family into another: a caller mistake reported as damage sends
/// people hunting corruption that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// The input of the call is wrong; the file is fine.
    Caller,
    /// I/O, space, or a lock held by somebody else.
    Environment,
    /// A checksum or a structure in the file does not hold.
    Corruption,
    /// The operation is possible but not allowed.
    Policy,
}

/// Why a codec, the writer or a mapping refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes of the file do not form what they claim to be.
    #[error("{what} at byte {offset}: {problem}")]
    Corrupt {
        /// Reference error code, see [`codes`].
        code: u16,
        /// The structure that was read, for example `"META payload"`.
        what: &'static str,
        /// Byte offset of the problem, relative to the start of `what`.
        offset: u64,
        /// What does not hold.
        problem: String,
    },
    /// The caller asked for something that cannot be written or is out of range.
    #[error("{problem}")]
    Caller {
        /// Reference error code, see [`codes`].
        code: u16,
        /// What is wrong with the input.
        problem: String,
    },
    /// The store carries a valid signed root page; writing would invalidate the signature.
    #[error("the store is signed; writing would drop the signature (ask for it explicitly to go on)")]
    SignedStore,
    /// An earlier write or sync failed, so what is on disk is not known; open the store again.
    #[error("an earlier write failed ({cause}); open the store again before writing")]
    Poisoned {
        /// The failure that poisoned the writer.
        cause: String,
    },
    /// The operating system refused.
    #[error("{context}")]
    Io {
        /// What was being done.
        context: String,
        /// The reason.
        #[source]
        source: io::Error,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The family, for the choice of errno and exit code.
    pub fn family(&self) -> Family {
        match self {
            Self::Corrupt { .. } => Family::Corruption,
            Self::Caller { .. } => Family::Caller,
            Self::SignedStore => Family::Policy,
            Self::Poisoned { .. } | Self::Io { .. } => Family::Environment,
        }
    }

    /// The reference's error code, where it has one for this case.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Corrupt { code, .. } | Self::Caller { code, .. } => Some(*code),
            Self::SignedStore => Some(codes::READ_ONLY),
            Self::Poisoned { .. } | Self::Io { .. } => None,
        }
    }

    pub(crate) fn corrupt(code: u16, what: &'static str, offset: usize, problem: impl Into<String>) -> Self {
        Self::Corrupt { code, what, offset: offset as u64, problem: problem.into() }
    }

    pub(crate) fn caller(code: u16, problem: impl Into<String>) -> Self {
        Self::Caller { code, problem: problem.into() }
    }

    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::Io { context: context.into(), source }
    }
}

/// The reference's error numbers; the high byte is the category.
#[expect(
    missing_docs,
    reason = "each constant is its name and number; `name` gives the reference's spelling"
)]
pub mod codes {
    macro_rules! codes {
        ($($konst:ident = $value:literal, $name:literal;)*) => {
            $(pub const $konst: u16 = $value;)*
            /// The reference's name of an error code, `"Unknown"` for a number it does not have.
            pub fn name(code: u16) -> &'static str {
                match code {
                    $($value => $name,)*
                    _ => "Unknown",
                }
            }
        };
    }
    codes! {
        OK = 0x0000, "Ok"; OK_PARTIAL = 0x0001, "OkPartial";
        INVALID_MAGIC = 0x0100, "InvalidMagic"; INVALID_VERSION = 0x0101, "InvalidVersion";
        INVALID_CHECKSUM = 0x0102, "InvalidChecksum"; INVALID_SIGNATURE = 0x0103, "InvalidSignature";
        TRUNCATED_SEGMENT = 0x0104, "TruncatedSegment"; INVALID_MANIFEST = 0x0105, "InvalidManifest";
        MANIFEST_NOT_FOUND = 0x0106, "ManifestNotFound"; UNKNOWN_SEGMENT_TYPE = 0x0107, "UnknownSegmentType";
        ALIGNMENT_ERROR = 0x0108, "AlignmentError"; INVALID_METADATA = 0x0109, "InvalidMetadata";
        METADATA_REPLAY_LIMIT = 0x010A, "MetadataReplayLimitExceeded";
        METADATA_ANCESTRY = 0x010B, "MetadataAncestryInvalid";
        DIMENSION_MISMATCH = 0x0200, "DimensionMismatch"; EMPTY_INDEX = 0x0201, "EmptyIndex";
        METRIC_UNSUPPORTED = 0x0202, "MetricUnsupported"; FILTER_PARSE = 0x0203, "FilterParseError";
        K_TOO_LARGE = 0x0204, "KTooLarge"; TIMEOUT = 0x0205, "Timeout";
        FILTER_BUDGET = 0x0206, "FilterBudgetExceeded"; NON_FINITE_QUERY = 0x0207, "NonFiniteQuery";
        LOCK_HELD = 0x0300, "LockHeld"; LOCK_STALE = 0x0301, "LockStale"; DISK_FULL = 0x0302, "DiskFull";
        FSYNC_FAILED = 0x0303, "FsyncFailed"; SEGMENT_TOO_LARGE = 0x0304, "SegmentTooLarge";
        READ_ONLY = 0x0305, "ReadOnly";
        TILE_TRAP = 0x0400, "TileTrap"; TILE_OOM = 0x0401, "TileOom"; TILE_TIMEOUT = 0x0402, "TileTimeout";
        TILE_INVALID_MSG = 0x0403, "TileInvalidMsg"; TILE_UNSUPPORTED_OP = 0x0404, "TileUnsupportedOp";
        KEY_NOT_FOUND = 0x0500, "KeyNotFound"; KEY_EXPIRED = 0x0501, "KeyExpired";
        DECRYPT_FAILED = 0x0502, "DecryptFailed"; ALGO_UNSUPPORTED = 0x0503, "AlgoUnsupported";
        ATTESTATION_INVALID = 0x0504, "AttestationInvalid"; PLATFORM_UNSUPPORTED = 0x0505, "PlatformUnsupported";
        ATTESTATION_EXPIRED = 0x0506, "AttestationExpired"; KEY_NOT_BOUND = 0x0507, "KeyNotBound";
        PARENT_NOT_FOUND = 0x0600, "ParentNotFound"; PARENT_HASH_MISMATCH = 0x0601, "ParentHashMismatch";
        LINEAGE_BROKEN = 0x0602, "LineageBroken"; LINEAGE_CYCLIC = 0x0603, "LineageCyclic";
        COW_MAP_CORRUPT = 0x0700, "CowMapCorrupt"; CLUSTER_NOT_FOUND = 0x0701, "ClusterNotFound";
        PARENT_CHAIN_BROKEN = 0x0702, "ParentChainBroken"; DELTA_THRESHOLD = 0x0703, "DeltaThresholdExceeded";
        SNAPSHOT_FROZEN = 0x0704, "SnapshotFrozen"; MEMBERSHIP_INVALID = 0x0705, "MembershipInvalid";
        GENERATION_STALE = 0x0706, "GenerationStale"; KERNEL_BINDING_MISMATCH = 0x0707, "KernelBindingMismatch";
        DOUBLE_ROOT_CORRUPT = 0x0708, "DoubleRootCorrupt";
        UNSIGNED_MANIFEST = 0x0800, "UnsignedManifest"; CONTENT_HASH_MISMATCH = 0x0801, "ContentHashMismatch";
        UNKNOWN_SIGNER = 0x0802, "UnknownSigner"; EPOCH_DRIFT = 0x0803, "EpochDriftExceeded";
        LEVEL1_SIGNATURE = 0x0804, "Level1InvalidSignature"; STREAM_TRUNCATED = 0x0805, "StreamDescriptorTruncated";
        STREAM_MAGIC = 0x0806, "StreamBadMagic"; STREAM_VERSION = 0x0807, "StreamUnsupportedVersion";
        STREAM_FLAGS = 0x0808, "StreamBadFlags"; STREAM_LIMIT = 0x0809, "StreamLimitExceeded";
        STREAM_TABLE = 0x080A, "StreamTableInvalid"; STREAM_SIGNATURE = 0x080B, "StreamBadSignature";
        STREAM_STALE_EPOCH = 0x080C, "StreamStaleEpoch"; STREAM_EPOCH_CONFLICT = 0x080D, "StreamEpochConflict";
        STREAM_EXPIRED = 0x080E, "StreamExpired"; STREAM_POLICY = 0x080F, "StreamPolicyMismatch";
        STREAM_CHUNK_HASH = 0x0810, "StreamChunkHashMismatch"; STREAM_TABLE_HASH = 0x0811, "StreamTableHashMismatch";
        STREAM_FRAME = 0x0812, "StreamUnexpectedFrame"; STREAM_FRAME_SIZE = 0x0813, "StreamFrameSizeLie";
        STREAM_REQUIREMENTS = 0x0814, "StreamRequirementsUnmet"; STREAM_IDENTITY = 0x0815, "StreamIdentityMismatch";
        STREAM_WEAK_CHECKSUM = 0x0816, "StreamWeakChecksum"; STREAM_POISONED = 0x0817, "StreamPoisoned";
        STREAM_BAD_STATE = 0x0819, "StreamBadState"; STREAM_DUPLICATES = 0x081A, "StreamDuplicateFlood";
        FRESHNESS_REQUIRED = 0x081B, "FreshnessRequired";
        QUALITY_BELOW = 0x0900, "QualityBelowThreshold"; BUDGET_TOKENS = 0x0901, "BudgetTokensExhausted";
        QUERY_BLACKLISTED = 0x0902, "QueryBlacklisted";
    }
}

//! QUANT payloads: quantisers of rvf-quant. Scalar ones say what the codes of columnar vectors mean; the others are shown.

use crate::error::{Result, codes};
use crate::reader::Reader;

/// A quantiser.
#[derive(Clone, Debug, PartialEq)]
pub enum Quantiser {
    /// `code = round(clamp((v - min) / (max - min), 0, 1) * 255)` by component.
    Scalar {
        /// Smallest value, by component.
        min: Vec<f32>,
        /// Largest value, by component.
        max: Vec<f32>,
    },
    /// Product quantiser.
    Product {
        /// Subspaces.
        m: u16,
        /// Centroids of each.
        k: u16,
        /// Components of a subspace.
        sub_dim: u16,
        /// `[m, k, sub_dim]`.
        codebooks: Vec<f32>,
    },
    /// Sign bits: bit d%8 of byte d/8 is set iff component d >= 0.
    Binary,
    /// RaBitQ.
    RabitQ {
        /// Rounds of the random rotation.
        rounds: u8,
        /// Its seed.
        seed: u64,
        /// Power of two.
        padded_dim: u32,
        /// Centroid.
        centroid: Vec<f32>,
    },
    /// A type without a layout.
    Unknown {
        /// Type number.
        kind: u8,
    },
}

/// A QUANT payload.
#[derive(Clone, Debug, PartialEq)]
pub struct Quant {
    /// 0 hot, 1 warm, 2 cold.
    pub tier: u8,
    /// Components of a vector.
    pub dim: u16,
    /// The quantiser.
    pub quantiser: Quantiser,
}

impl Quant {
    /// Reads a payload. O(payload).
    ///
    /// # Errors
    /// [`crate::Error::Corrupt`] when a table passes the end.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut r = Reader::new(payload, "QUANT payload", codes::TRUNCATED_SEGMENT);
        let (kind, tier, dim) = (r.u8()?, r.u8()?, r.u16()?);
        let _version = r.u8()?;
        let rounds = r.u8()?;
        r.u16()?;
        let seed = r.u64()?;
        let padded_dim = r.u32()?;
        r.take(64 - 20)?;
        let width = usize::from(dim);
        let quantiser = match kind {
            0 => Quantiser::Scalar { min: floats(&mut r, width)?, max: floats(&mut r, width)? },
            1 => {
                let (m, k, sub_dim) = (r.u16()?, r.u16()?, r.u16()?);
                let size = usize::from(m) * usize::from(k) * usize::from(sub_dim);
                Quantiser::Product { m, k, sub_dim, codebooks: floats(&mut r, size)? }
            }
            2 => Quantiser::Binary,
            4 => Quantiser::RabitQ { rounds, seed, padded_dim, centroid: floats(&mut r, width)? },
            kind => Quantiser::Unknown { kind },
        };
        Ok(Self { tier, dim, quantiser })
    }

    /// The payload of a scalar quantiser, with one smallest and largest value a component.
    pub fn encode_scalar(tier: u8, min: &[f32], max: &[f32]) -> Vec<u8> {
        let dim = u16::try_from(min.len()).unwrap_or(u16::MAX).to_le_bytes();
        let mut out = vec![0, tier, dim[0], dim[1]];
        out.resize(64, 0);
        out.extend(min.iter().chain(max).flat_map(|value| value.to_le_bytes()));
        out
    }

    /// `scalar`, `product`, `binary`, `rabitq` or `unknown`.
    pub fn kind_name(&self) -> &'static str {
        match self.quantiser {
            Quantiser::Scalar { .. } => "scalar",
            Quantiser::Product { .. } => "product",
            Quantiser::Binary => "binary",
            Quantiser::RabitQ { .. } => "rabitq",
            Quantiser::Unknown { .. } => "unknown",
        }
    }
}

fn floats(r: &mut Reader<'_>, count: usize) -> Result<Vec<f32>> {
    let Some(len) = count.checked_mul(4) else { return r.fail(format!("{count} numbers")) };
    let word = |c: &[u8]| f32::from_le_bytes([c[0], c[1], c[2], c[3]]);
    Ok(r.take(len)?.chunks_exact(4).map(word).collect())
}

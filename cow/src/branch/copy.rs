//! Children with vectors of their own: copied, rounded, or mapped from what the parent shows.

use rvf_format::SegType;
use rvf_format::manifest::Manifest;
use rvf_format::membership::Membership;
use rvf_format::quant::Quant;
use rvf_format::storage::FileStorage;
use rvf_format::vec_seg::{self, Block, Scale};
use rvf_format::writer::{Writer, dir_entry};
use rvf_index::Progress;

use crate::branch::create::{BranchOptions, BranchReport, descent, first_witness};
use crate::branch::resolve::Place;
use crate::error::Error;
use crate::meta_cache::metadata_copy;
use crate::scratch::Scratch;
use crate::view::View;
use crate::write::{SEGMENT_BYTES, format_error, manifest_of};

/// Rows of a columnar block: so few that a block lies in the cache while its columns are put together or taken apart.
const BLOCK_ROWS: usize = 1024;

/// What vectors are rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// IEEE 754 binary16: half the bytes, about three decimal digits.
    F16,
    /// One byte a component: 256 steps between the smallest and the largest value that the component has.
    Int8,
}

impl Precision {
    /// As in the record: `f16` or `int8`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
        }
    }
}

/// A linear map of vectors. What is asked for is done in this order: matrix, bias, truncation, normalisation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Map {
    /// `[dimension, width]`, row-major: a vector `x` becomes `x @ matrix`.
    pub matrix: Option<Vec<f32>>,
    /// Added afterwards, one number a component.
    pub bias: Option<Vec<f32>>,
    /// Only so many leading components are kept.
    pub truncate: Option<usize>,
    /// Vectors are scaled to length 1; zero stays zero.
    pub normalize: bool,
}

impl Map {
    /// Components of a vector of `dim` components afterwards, if the parts fit each other.
    pub(crate) fn width(&self, dim: usize) -> Result<u16, Error> {
        let wrong = |what: String| Error::Invalid { what };
        let mut width = dim;
        if let Some(matrix) = &self.matrix {
            if dim == 0 || matrix.is_empty() || !matrix.len().is_multiple_of(dim) {
                return Err(wrong(format!(
                    "a matrix of {} numbers does not fit dimension {dim}",
                    matrix.len()
                )));
            }
            width = matrix.len() / dim;
        }
        if let Some(bias) = self.bias.as_ref().filter(|bias| bias.len() != width) {
            return Err(wrong(format!("a bias of {} numbers does not fit dimension {width}", bias.len())));
        }
        if self.matrix.iter().chain(&self.bias).flatten().any(|value| !value.is_finite()) {
            return Err(wrong("matrix and bias must be finite numbers".into()));
        }
        if let Some(keep) = self.truncate {
            if keep == 0 || keep > width {
                return Err(wrong(format!("{keep} components cannot be kept of {width}")));
            }
            width = keep;
        }
        u16::try_from(width).map_err(|_| Error::TooLarge { what: format!("dimension {width}") })
    }

    /// How the map is recorded; of matrix and bias a hash of the numbers, so that it can be told which they were.
    pub(crate) fn parameters(&self, dim: usize) -> Vec<(String, String)> {
        let digest = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            rvf_crypto::shake256_256(&bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()
        };
        let mut out = Vec::new();
        let mut put = |key: &str, value: String| out.push((key.to_owned(), value));
        if let Some(matrix) = &self.matrix {
            put(
                "matrix",
                format!("{dim}x{} shake256:{}", matrix.len().checked_div(dim).unwrap_or(0), digest(matrix)),
            );
        }
        if let Some(bias) = &self.bias {
            put("bias", format!("shake256:{}", digest(bias)));
        }
        if let Some(keep) = self.truncate {
            put("truncate", keep.to_string());
        }
        if self.normalize {
            put("normalize", "yes".into());
        }
        out
    }

    /// The image of one vector.
    fn apply(&self, vector: &[u8], width: usize, sums: &mut Vec<f64>) {
        let dim = vector.len() / 4;
        let components = vector.chunks_exact(4).map(|b| f64::from(f32_of(b)));
        sums.clear();
        match &self.matrix {
            Some(matrix) => {
                sums.resize(matrix.len() / dim.max(1), 0.0);
                for (x, row) in components.zip(matrix.chunks_exact(sums.len().max(1))) {
                    for (sum, m) in sums.iter_mut().zip(row) {
                        *sum += x * f64::from(*m);
                    }
                }
            }
            None => sums.extend(components),
        }
        for (sum, b) in sums.iter_mut().zip(self.bias.iter().flatten()) {
            *sum += f64::from(*b);
        }
        sums.truncate(width);
        let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
        if self.normalize && length > 0.0 {
            sums.iter_mut().for_each(|x| *x /= length);
        }
    }
}

/// What the vectors of a copy are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    /// As they are.
    Same,
    /// Rounded, in columns.
    Rounded(Precision),
    /// Mapped.
    Mapped(&'a Map),
}

fn f32_of(bytes: &[u8]) -> f32 {
    bytes.first_chunk::<4>().map_or(0.0, |b| f32::from_le_bytes(*b))
}

/// Writes a child of `view` with vectors of its own into a new file. O(bytes).
pub(crate) fn copy(
    view: &View,
    scratch: &Scratch,
    options: &BranchOptions,
    form: Form<'_>,
    progress: &dyn Progress,
) -> Result<BranchReport, Error> {
    view.complete()?;
    let path = scratch.path();
    let base = manifest_of(view)?;
    let (identity, record) = descent(view, options, true)?;
    let dimension = match form {
        Form::Mapped(map) => map.width(view.dimension())?,
        _ => base.dimension,
    };
    let fail = |error: rvf_format::Error| match error {
        rvf_format::Error::Io { source, .. } => Error::io(path, "write", source),
        other => format_error(other),
    };
    let storage = FileStorage::new(scratch.file()?);
    let mut writer = Writer::create(&storage).map_err(fail)?;
    let mut directory = Vec::new();
    let places = (0..view.resolved().count()).filter_map(|at| view.resolved().at(at)).collect::<Vec<Place>>();
    let mut put = |kind: SegType, parts: &[&[u8]]| -> Result<(), Error> {
        directory.push(dir_entry(&writer.append(kind, parts).map_err(fail)?));
        Ok(())
    };
    let mut reference = Ok(());
    match form {
        Form::Rounded(precision) => {
            let scale = match precision {
                Precision::F16 => None,
                Precision::Int8 => {
                    let (min, max) = extent(view, &places);
                    put(SegType::QUANT, &[&Quant::encode_scalar(0, &min, &max)])?;
                    let scale = Scale::new(&min, &max).ok_or_else(|| Error::Invalid {
                        what: "the vectors spread too far, or are not finite, and cannot be rounded to int8"
                            .into(),
                    })?;
                    Some(scale)
                }
            };
            columns(view, &places, precision, scale.as_ref(), progress, &mut put)?;
            // The existing tools pass over columns without a word; with this they refuse the file.
            put(SegType::MEMBERSHIP, &[&Membership::hiding([]).encode().map_err(format_error)?])?;
            reference = Err(COLUMNS.to_owned());
        }
        Form::Same | Form::Mapped(_) => {
            rows(view, &places, form, dimension, progress, &mut put)?;
        }
    }
    if let Some(payload) = metadata_copy(view)? {
        put(SegType::META, &[&payload])?;
    }
    put(SegType::META_IDX, &[&record.encode()])?;
    put(SegType::WITNESS, &[&first_witness(&record)])?;
    view.check_chain()?;
    let report = BranchReport {
        path: path.to_path_buf(),
        file_id: identity.file_id,
        bytes: 0,
        parent_epoch: record.parent.epoch,
        prefix: record.parent.prefix,
        depth: identity.lineage_depth,
        reference,
    };
    let manifest = Manifest {
        epoch: 0,
        dimension,
        total_vectors: places.len() as u64,
        directory,
        deleted: Vec::new(),
        identity: Some(identity),
        hashes: None,
        ..base
    };
    writer.commit(&manifest).map_err(fail)?;
    let bytes = writer.end();
    Ok(BranchReport { bytes, ..report })
}

/// Why the existing tools cannot read rounded vectors.
pub(crate) const COLUMNS: &str =
    "its vectors are rounded and stored in columns, which the existing tools do not read";

type Put<'p> = dyn FnMut(SegType, &[&[u8]]) -> Result<(), Error> + 'p;

fn rows(
    view: &View,
    places: &[Place],
    form: Form<'_>,
    dimension: u16,
    progress: &dyn Progress,
    put: &mut Put<'_>,
) -> Result<(), Error> {
    let resolved = view.resolved();
    let width = usize::from(dimension);
    let (mut body, mut sums, mut done) = (Vec::new(), Vec::new(), 0);
    for part in places.chunks((SEGMENT_BYTES / vec_seg::row_stride(dimension)).max(1)) {
        body.clear();
        for place in part {
            let (id, vector) = (resolved.id(*place), resolved.vector(*place));
            body.extend_from_slice(&id.to_le_bytes());
            let Form::Mapped(map) = form else {
                body.extend_from_slice(vector);
                continue;
            };
            map.apply(vector, width, &mut sums);
            for value in &sums {
                let value = *value as f32;
                if !value.is_finite() {
                    return Err(Error::Invalid {
                        what: format!("vector {id} would have a number that is not finite"),
                    });
                }
                body.extend_from_slice(&value.to_le_bytes());
            }
        }
        put(SegType::VEC, &[&vec_seg::head(dimension, part.len() as u32), &body])?;
        done += part.len() as u64;
        if !progress.step(done, places.len() as u64) {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

/// The smallest and largest value of each component.
fn extent(view: &View, places: &[Place]) -> (Vec<f32>, Vec<f32>) {
    let resolved = view.resolved();
    let mut min = vec![f32::INFINITY; view.dimension()];
    let mut max = vec![f32::NEG_INFINITY; view.dimension()];
    for place in places {
        for ((low, high), bytes) in min.iter_mut().zip(&mut max).zip(resolved.vector(*place).chunks_exact(4))
        {
            let value = f32_of(bytes);
            *low = low.min(value);
            *high = high.max(value);
        }
    }
    if places.is_empty() {
        return (vec![0.0; view.dimension()], vec![0.0; view.dimension()]);
    }
    (min, max)
}

fn columns(
    view: &View,
    places: &[Place],
    precision: Precision,
    scale: Option<&Scale>,
    progress: &dyn Progress,
    put: &mut Put<'_>,
) -> Result<(), Error> {
    let resolved = view.resolved();
    let dim = view.dimension();
    let dim16 = u16::try_from(dim).map_err(|_| Error::TooLarge { what: format!("dimension {dim}") })?;
    let dtype = match precision {
        Precision::F16 => vec_seg::DTYPE_F16,
        Precision::Int8 => vec_seg::DTYPE_U8,
    };
    let size = vec_seg::element_size(dtype);
    let per_segment = (SEGMENT_BYTES / (8 + dim * size)).max(1);
    let mut done = 0;
    for part in places.chunks(per_segment) {
        let mut blocks = Vec::new();
        for rows in part.chunks(BLOCK_ROWS) {
            let mut data = vec![0u8; rows.len() * dim * size];
            for (row, place) in rows.iter().enumerate() {
                for (component, bytes) in resolved.vector(*place).chunks_exact(4).enumerate() {
                    let value = f32_of(bytes);
                    let at = (component * rows.len() + row) * size;
                    let element = match scale {
                        Some(scale) => [scale.code(component, value), 0],
                        None => vec_seg::f32_to_f16(value)
                            .ok_or_else(|| Error::Invalid {
                                what: format!("vector {}: f16 cannot hold {value}", resolved.id(*place)),
                            })?
                            .to_le_bytes(),
                    };
                    if let (Some(slot), Some(element)) = (data.get_mut(at..at + size), element.get(..size)) {
                        slot.copy_from_slice(element);
                    }
                }
            }
            let ids = rows.iter().map(|place| resolved.id(*place)).collect();
            blocks.push(Block { dim: dim16, dtype, tier: 0, ids, data, crc_ok: true });
        }
        put(SegType::VEC, &[&vec_seg::encode_columnar(&blocks).map_err(format_error)?])?;
        done += part.len() as u64;
        if !progress.step(done, places.len() as u64) {
            return Err(Error::Cancelled);
        }
    }
    Ok(())
}

/// A columnar vector segment with only the rows that `keep` says, by place in the segment; their codes are not touched, so
/// nothing is rounded twice. `None` when nothing is left.
pub(crate) fn thinned(
    payload: &[u8],
    dim: u16,
    keep: &dyn Fn(usize) -> bool,
) -> Result<Option<(Vec<u8>, u32)>, Error> {
    let mut at = 0;
    let mut blocks = Vec::new();
    for block in vec_seg::decode_columnar(payload).map_err(format_error)? {
        if block.dim != dim || block.dtype > vec_seg::DTYPE_U8 {
            continue;
        }
        let count = block.ids.len();
        let kept: Vec<usize> = (0..count).filter(|row| keep(at + row)).collect();
        at += count;
        if kept.is_empty() {
            continue;
        }
        let size = vec_seg::element_size(block.dtype);
        let mut data = Vec::with_capacity(kept.len() * usize::from(dim) * size);
        for column in block.data.chunks_exact((count * size).max(1)) {
            for row in &kept {
                data.extend_from_slice(column.get(row * size..row * size + size).unwrap_or(&[]));
            }
        }
        let ids = kept.iter().filter_map(|row| block.ids.get(*row).copied()).collect();
        blocks.push(Block { ids, data, ..block });
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    let rows = blocks.iter().map(|block| block.ids.len()).sum::<usize>();
    Ok(Some((
        vec_seg::encode_columnar(&blocks).map_err(format_error)?,
        u32::try_from(rows).unwrap_or(u32::MAX),
    )))
}

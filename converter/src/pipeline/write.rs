//! Handles one group at a time: load, passes in order, encode, write. Memory is that of a band of
//! rows, where no pass needs more.

use std::collections::HashMap;
use std::ops::Range;

use pith_format::{DATA_ALIGN_BYTES, Encoding, PassRecord, Progress, Role, TensorId, Writer};

use super::encode::{Deviation, Encoded, LostRows, deviation, encode};
use super::prepare::Prepared;
use crate::checkpoint::rows::{band_rows, decode_rows, read_rows, read_vector};
use crate::error::ConvertError;
use crate::passes::group::place;
use crate::passes::{Codes, Extent, Group, Member, PassReport, Planned};
use crate::report::TensorReport;
use crate::statistics::Statistics;

/// The written tensors, the effect of each pass, and what was lost on the way.
pub(super) struct Written {
    pub(super) tensors: Vec<TensorReport>,
    pub(super) passes: Vec<PassRecord>,
    pub(super) warnings: Vec<String>,
}

/// Writes all tensors of the outline, in its order.
pub(super) fn write_tensors(
    prepared: &Prepared,
    statistics: Option<&Statistics>,
    measure: bool,
    writer: &mut Writer,
    progress: &dyn Progress,
) -> Result<Written, ConvertError> {
    let mut tensors = Vec::with_capacity(prepared.outline.tensors.len() + 1);
    if let Some(blob) = &prepared.vocabulary.tokenizer {
        let (id, bytes) = (TensorId::model(Role::Tokenizer), blob.len() as u64);
        writer.write(id, blob)?;
        tensors.push(TensorReport { id, encoding: None, bytes, repacked: false, relative_error: None });
    }
    let reports = vec![PassReport::default(); prepared.passes.len()];
    let (waiting, lost) = (HashMap::new(), Vec::new());
    let mut run = Run { prepared, statistics, measure, progress, reports, waiting, lost };
    for planned in &prepared.outline.tensors {
        progress.item(&planned.source.tensor);
        tensors.push(run.write(planned, writer)?);
    }
    let acted = prepared.passes.iter().zip(&run.reports).filter(|(_, report)| report.members > 0);
    let passes = acted.map(|(pass, report)| PassRecord {
        name: pass.name().into(),
        zeros: report.zeros,
        bytes_saved: report.bytes_saved,
    });
    let passes = passes.collect();
    let warnings = run.clipped().into_iter().chain(run.lost()).collect();
    Ok(Written { tensors, passes, warnings })
}

/// Some rows of a tensor, ready to be written.
struct Band {
    content: Content,
    repacked: bool,
    deviation: Deviation,
}

/// Content of a band.
enum Content {
    /// Values of a vector, f32.
    Vector(Vec<u8>),
    Matrix(Encoded),
}

impl Content {
    /// Appends the band to its tensor; returns its bytes in the file.
    fn write(&self, id: TensorId, writer: &mut Writer) -> Result<u64, ConvertError> {
        match self {
            Content::Vector(bytes) => {
                writer.write(id, bytes)?;
                Ok(bytes.len() as u64)
            }
            Content::Matrix(Encoded::Tiles { bytes, .. }) => {
                writer.write_tiles(id, bytes)?;
                Ok(bytes.len() as u64)
            }
            Content::Matrix(Encoded::Blocks(blocks)) => {
                blocks.iter().try_for_each(|block| writer.write_block(id, block))?;
                Ok(blocks.iter().map(|block| (block.len() as u64).next_multiple_of(DATA_ALIGN_BYTES)).sum())
            }
        }
    }
}

/// One conversion under way.
struct Run<'a> {
    prepared: &'a Prepared,
    statistics: Option<&'a Statistics>,
    measure: bool,
    progress: &'a dyn Progress,
    /// Effect of each pass so far.
    reports: Vec<PassReport>,
    /// Encoded tensors of an earlier group that wait for their turn in the file.
    waiting: HashMap<TensorId, Band>,
    /// Weights that are lost, by the tensor of the checkpoint.
    lost: Vec<(String, Encoding, LostRows)>,
}

impl Run<'_> {
    fn write(&mut self, planned: &Planned, writer: &mut Writer) -> Result<TensorReport, ConvertError> {
        let rows = planned.source.rows;
        let extent = self.prepared.passes.iter().map(|pass| pass.extent(planned.source.id)).max();
        let band_rows = match extent {
            _ if !planned.is_matrix() => rows,
            None | Some(Extent::Rows) => band_rows(&planned.source),
            Some(Extent::Matrix) => rows,
            Some(Extent::Group) => {
                if !self.waiting.contains_key(&planned.id) {
                    self.encode_group(planned)?;
                }
                rows
            }
        };
        let (mut bytes, mut repacked, mut deviation) = (0, false, Deviation::default());
        for first in (0..rows).step_by(band_rows) {
            let band = match self.waiting.remove(&planned.id) {
                Some(encoded) => encoded,
                None => {
                    let member = self.load(planned, first..rows.min(first + band_rows))?;
                    let members = self.apply(planned, vec![member])?;
                    let member =
                        members.into_iter().next().expect("no pass takes away a tensor of the outline");
                    self.encode(member)?
                }
            };
            bytes += band.content.write(planned.id, writer)?;
            repacked |= band.repacked;
            deviation = deviation.add(band.deviation);
        }
        let relative_error = (self.measure && planned.is_matrix()).then(|| deviation.relative());
        Ok(TensorReport { id: planned.id, encoding: planned.encoding, bytes, repacked, relative_error })
    }

    /// Applies the passes to all matrices that read the same input as `first`.
    fn encode_group(&mut self, first: &Planned) -> Result<(), ConvertError> {
        let prepared = self.prepared;
        let outline = &prepared.outline;
        let input = |planned: &Planned| place(planned.source.id, outline.model.tied_head);
        let together = |planned: &&Planned| {
            planned.id == first.id || (input(first).is_some() && input(planned) == input(first))
        };
        let members = outline.tensors.iter().filter(together);
        let members: Result<Vec<_>, _> =
            members.map(|planned| self.load(planned, 0..planned.source.rows)).collect();
        for member in self.apply(first, members?)? {
            let id = member.id;
            let encoded = self.encode(member)?;
            self.waiting.insert(id, encoded);
        }
        Ok(())
    }

    /// Some rows of a tensor, as stored in the checkpoint.
    fn load(&self, planned: &Planned, rows: Range<usize>) -> Result<Member, ConvertError> {
        if self.progress.is_interrupted() {
            return Err(ConvertError::Interrupted);
        }
        let (checkpoint, source, first_row) = (&self.prepared.checkpoint, &planned.source, rows.start);
        let (mut codes, mut weights) = (None, Vec::new());
        if planned.is_matrix() {
            let stored = read_rows(checkpoint, source, rows.clone())?;
            weights = decode_rows(checkpoint.file_of(&source.tensor), source, first_row, &stored)?;
            let row_bytes = source.row_bytes();
            codes = planned.may_repack.then_some(Codes { dtype: source.dtype, row_bytes, bytes: stored });
        } else {
            weights.extend(read_vector(checkpoint, source)?);
        }
        let before = if first_row == 0 { 0 } else { source.source_bytes_to(first_row) };
        self.progress.advance(source.source_bytes_to(rows.end) - before);
        Ok(Member {
            id: planned.id,
            origin: source.id,
            tensor: source.tensor.clone(),
            encoding: planned.encoding,
            quantizer: planned.quantizer,
            first_row,
            cols: source.cols,
            weights,
            mask: None,
            base: None,
            codes,
            levels: None,
            repacked: false,
        })
    }

    /// Members of one group after all passes.
    fn apply(&mut self, planned: &Planned, members: Vec<Member>) -> Result<Vec<Member>, ConvertError> {
        let input = place(planned.source.id, self.prepared.outline.model.tied_head);
        let mut group = Group { input, input_scales: None, members };
        for (pass, total) in self.prepared.passes.iter().zip(&mut self.reports) {
            let report = pass.apply(&mut group, self.statistics)?;
            if report.members > 0 {
                total.members += report.members;
                total.clipped += report.clipped;
                total.zeros += report.zeros;
                total.bytes_saved += report.bytes_saved;
                group.members.iter().try_for_each(Member::check)?;
            }
        }
        Ok(group.members)
    }

    /// The warning about codes that no encoding has.
    fn clipped(&self) -> Option<String> {
        let count: u64 = self.reports.iter().map(|report| report.clipped).sum();
        (count > 0).then(|| format!("{count} codes of -128, which no encoding has, became -127"))
    }

    /// The warning about weights that are lost, with the largest of them.
    fn lost(&self) -> Option<String> {
        let value = |(_, _, lost): &&(String, Encoding, LostRows)| lost.largest.2.abs();
        let (tensor, encoding, lost) =
            self.lost.iter().max_by(|one, other| value(one).total_cmp(&value(other)))?;
        let rows: usize = self.lost.iter().map(|(_, _, lost)| lost.rows).sum();
        let (row, column, value) = lost.largest;
        Some(format!(
            "the weights of {rows} rows are lost, too small for the f16 numbers of their encodings: the largest is \
             {value:e} in row {row}, column {column} of {tensor:?}, {encoding}; --encoding f32 keeps them"
        ))
    }

    fn encode(&mut self, member: Member) -> Result<Band, ConvertError> {
        let Some(encoding) = member.encoding else {
            let bytes = member.weights.iter().flat_map(|value| value.to_le_bytes()).collect();
            let content = Content::Vector(bytes);
            return Ok(Band { content, repacked: false, deviation: Deviation::default() });
        };
        let (encoded, lost) = encode(&member, encoding)?;
        self.lost.extend(lost.map(|lost| (member.tensor.clone(), encoding, lost)));
        let measured = self.measure.then(|| deviation(&member, encoding, &encoded));
        let content = Content::Matrix(encoded);
        Ok(Band { content, repacked: member.repacked, deviation: measured.unwrap_or_default() })
    }
}

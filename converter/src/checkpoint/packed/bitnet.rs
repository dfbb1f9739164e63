//! Ternary matrices as `transformers` packs them for BitNet.
//!
//! `weight` (U8, a quarter of the outputs × inputs): four outputs per byte, two bits each, which
//! hold the value plus one. Output `r` is in line `r mod lines`, at bits `2 · (r / lines)`.
//! `weight_scale`: one number, by which a `BitLinear` divides and an offline `AutoBitLinear`
//! multiplies. Source: `transformers/integrations/bitnet.py` of 5.23.
//!
//! Both layers round their input to 8 bits with one scale per token; Pith's kernels always round
//! inputs to 8 bits, with one scale per group of 32.

use std::ops::Range;

use super::super::file::SourceFile;
use super::super::{CheckpointError, SourceType, TensorInfo};
use super::part::{FLOATS, Part, Parts};
use super::settings::Settings;
use super::{Band, Layout, Method, Opened};

/// Outputs per byte.
const BYTE_CODES: usize = 4;

/// Settings of the configuration.
pub(super) struct Bitnet {
    /// Whether the scale divides.
    divides: bool,
}

impl Bitnet {
    pub(super) fn new(settings: &Settings<'_>) -> Result<Self, CheckpointError> {
        let divides = match settings.text("linear_class")? {
            None | Some("bitlinear") => true,
            Some("autobitlinear") => false,
            Some(_) => return Err(settings.error("linear_class", "bitlinear or autobitlinear")),
        };
        if settings.text("quantization_mode")?.is_some_and(|mode| mode != "offline") {
            let expected = "offline: weights rounded while they are used have no codes to import";
            return Err(settings.error("quantization_mode", expected));
        }
        if settings.flag("use_rms_norm")? {
            return Err(
                settings.error("use_rms_norm", "false: a norm in every linear layer is not supported")
            );
        }
        Ok(Self { divides })
    }
}

impl Method for Bitnet {
    fn base<'n>(&self, tensor: &'n TensorInfo) -> Option<&'n str> {
        tensor.name.strip_suffix(".weight").filter(|_| tensor.dtype == SourceType::U8)
    }

    fn open(&self, parts: &mut Parts<'_>, base: &str) -> Result<Opened, CheckpointError> {
        let codes = parts.take(base, "weight", &[SourceType::U8])?;
        let scale = parts.take(base, "weight_scale", FLOATS)?;
        parts.check(&scale, 1, 1)?;
        let name = scale.name().into();
        Ok(Opened {
            rows: codes.lines() * BYTE_CODES,
            groups: vec![0; codes.width()],
            group_count: 1,
            scales: name,
            layout: Box::new(Quarters { codes, scale, divides: self.divides, path: parts.path().into() }),
        })
    }

    fn looks_for(&self) -> &'static str {
        "NAME.weight of U8"
    }
}

#[derive(Debug)]
struct Quarters {
    codes: Part,
    scale: Part,
    divides: bool,
    path: std::path::PathBuf,
}

impl Layout for Quarters {
    fn read(&self, files: &[SourceFile], rows: Range<usize>) -> Result<Band, CheckpointError> {
        let (lines, width) = (self.codes.lines(), self.codes.width());
        let stored = self.scale.floats(files, 0..1, 0..1)?[0];
        let scale = if self.divides { 1.0 / stored } else { stored };
        let mut codes = Vec::with_capacity(rows.len() * width);
        // Rows of one quarter are adjacent in the file.
        let mut from = rows.start;
        while from < rows.end {
            let quarter = from / lines;
            let to = rows.end.min((quarter + 1) * lines);
            let bytes = self.codes.window(files, from - quarter * lines..to - quarter * lines, 0..width)?;
            codes.extend(bytes.iter().map(|byte| i16::from(byte >> (2 * quarter) & 3) - 1));
            from = to;
        }
        if let Some(at) = codes.iter().position(|&code| code > 1) {
            let (row, column) = (rows.start + at / width, at % width);
            return Err(CheckpointError::PartValue {
                path: self.path.clone(),
                tensor: self.codes.name().into(),
                found: format!("row {row}, column {column} is 3 in two bits"),
                expected: "0, 1 or 2".into(),
            });
        }
        Ok(Band { codes, zeros: Vec::new(), scales: vec![scale; rows.len()] })
    }
}

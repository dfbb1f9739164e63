//! Matrices rounded with what a calibration knows of their inputs.

use std::path::Path;

use pith_format::{Encoding, Role, TensorId};

use super::PassError;
use super::change::Changes;
use crate::passes::Rounded;
use crate::passes::gptq::{Feedback, Order};
use crate::passes::hqq::hqq;
use crate::passes::nearest::nearest;
use crate::recipe::Quantizer;
use crate::statistics::{Site, Statistics};

/// Added to the Hessian's diagonal, as a share of its mean: the published value.
const DAMPING: f64 = 0.01;

/// For a tied head, whose rows are also looked up: what an error costs there depends on no column. On a model of 5M
/// parameters in q4-nl this share leaves 0.84 of the divergence that [`DAMPING`] does.
const TIED_DAMPING: f64 = 1.0;

/// A site of a layer; of none for the head.
type Place = (Option<usize>, Site);

/// A calibration, and what was made of it for the last matrix: those that read the same come one after the other.
pub(crate) struct Calibrated<'a> {
    calibration: Option<&'a Statistics>,
    scaled: Option<&'a Changes>,
    tied_head: bool,
    importance: Option<(Place, Vec<f32>)>,
    feedback: Option<(Place, Feedback)>,
}

impl<'a> Calibrated<'a> {
    /// `scaled`: what became of the matrices since the calibration.
    pub(crate) fn new(
        calibration: Option<&'a Statistics>,
        scaled: Option<&'a Changes>,
        tied_head: bool,
    ) -> Self {
        Self { calibration, scaled, tied_head, importance: None, feedback: None }
    }

    /// What the matrix reads; `None` for one whose rows are only looked up.
    fn site(&self, id: TensorId) -> Option<Place> {
        match id.role {
            Role::TokenEmbedding => self.tied_head.then_some((None, Site::Head)),
            role => Site::of(role).map(|site| (id.layer, site)),
        }
    }

    /// Makes ready for the rows of a matrix.
    pub(crate) fn enter(&mut self, id: TensorId, cols: usize, quantizer: Quantizer) -> Result<(), PassError> {
        let calibration = match (self.calibration, quantizer) {
            (_, Quantizer::Hqq) => return Ok(()),
            (None, Quantizer::Nearest) => return Ok(()),
            (None, Quantizer::Gptq) => return Err(PassError::NoHessians { id }),
            (Some(calibration), _) => calibration,
        };
        let Some(place) = self.site(id) else { return Ok(()) };
        let (layer, site) = place;
        let found = calibration.cols(layer, site)?;
        if found != cols {
            return Err(PassError::CalibrationCols { id, expected: cols, found });
        }
        // Columns that were multiplied read what was divided.
        let scales = self.scaled.and_then(|changes| changes.col_scales(id));
        if quantizer == Quantizer::Nearest {
            if self.importance.as_ref().is_none_or(|(of, _)| *of != place) {
                let mut squares = calibration.stats(layer, site)?.mean_square;
                if let Some(scales) = scales {
                    squares.iter_mut().zip(&scales[..]).for_each(|(square, scale)| *square /= scale * scale);
                }
                self.importance = Some((place, squares));
            }
            return Ok(());
        }
        if self.feedback.as_ref().is_some_and(|(of, _)| *of == place) {
            return Ok(());
        }
        // Before the next: each is as large as the matrix is wide, squared.
        self.feedback = None;
        let mut gram = calibration.gram(layer, site)?.ok_or(PassError::NoHessians { id })?.to_full();
        if let Some(scales) = scales {
            for (line, row) in gram.chunks_exact_mut(cols).zip(&scales[..]) {
                line.iter_mut().zip(&scales[..]).for_each(|(value, col)| *value /= row * col);
            }
        }
        let damping = if id.role == Role::TokenEmbedding { TIED_DAMPING } else { DAMPING };
        let cross = calibration.cross(layer, site)?;
        let feedback = Feedback::new(&gram, cols, damping, Order::Natural, cross.as_deref());
        let feedback = feedback.map_err(|source| PassError::Hessian { id, source })?;
        self.feedback = Some((place, feedback));
        Ok(())
    }

    /// Whether there is anything to round by but the weights and the nearest levels.
    pub(crate) fn decides(&self, quantizer: Quantizer) -> bool {
        self.calibration.is_some() || quantizer != Quantizer::Nearest
    }

    /// Rounds rows of the matrix that was entered last.
    pub(crate) fn round(
        &self,
        id: TensorId,
        quantizer: Quantizer,
        encoding: Encoding,
        weights: &[f32],
        cols: usize,
    ) -> Rounded {
        match (self.site(id), quantizer) {
            (_, Quantizer::Hqq) => hqq(encoding, weights, cols),
            (None, _) => nearest(encoding, weights, cols, None),
            (Some(_), Quantizer::Nearest) => {
                let importance = &self.importance.as_ref().expect("entered").1;
                nearest(encoding, weights, cols, Some(importance))
            }
            (Some(_), Quantizer::Gptq) => self.feedback.as_ref().expect("entered").1.round(encoding, weights),
        }
    }
}

/// Opens a calibration and checks that it is of the checkpoint and has what the recipe needs.
pub(crate) fn open(path: &Path, checksum: &str) -> Result<Statistics, PassError> {
    let calibration = Statistics::open(path)?;
    calibration.check_model(checksum)?;
    Ok(calibration)
}

//! Rounded matrices, cached in files: rounding costs more than reading back.

use crate::error::SearchError;
use crate::space::Space;
use pith_converter::Rounder;
use pith_format::{ReplaceOptions, replace};
use pith_runtime::Model;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A folder of rounded matrices.
pub(crate) struct Tiles<'a> {
    folder: PathBuf,
    dense: &'a Path,
    space: &'a Space,
    rounder: Rounder<'a>,
}

impl<'a> Tiles<'a> {
    /// `dense`: the file with the matrices to round.
    pub fn new(
        folder: PathBuf,
        dense: &'a Path,
        space: &'a Space,
        rounder: Rounder<'a>,
    ) -> Result<Self, SearchError> {
        fs::create_dir_all(&folder).map_err(SearchError::io(&folder, "create"))?;
        Ok(Self { folder, dense, space, rounder })
    }

    /// A matrix rounded to a choice: read from the cache, or rounded and cached.
    pub fn get(&mut self, tensor: usize, choice: usize) -> Result<Arc<[u8]>, SearchError> {
        let (of, what) = (&self.space.tensors()[tensor], self.space.choices()[choice]);
        let path = self.folder.join(format!("{}.{what}.tiles", of.id));
        match fs::read(&path) {
            Ok(tiles) if tiles.len() as u64 == self.space.matrix_bytes(tensor, choice) => {
                return Ok(tiles.into());
            }
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(SearchError::io(&path, "read")(error));
            }
            _ => {}
        }
        let tiles = what.tiles(&self.rounder, of.id, of.quantizer)?;
        // Replaced atomically: a search may be killed at any time.
        replace(&path, &tiles, ReplaceOptions::FORCE)?;
        Ok(tiles.into())
    }

    /// The time to round a matrix, without the cache.
    pub fn time(&mut self, tensor: usize, choice: usize) -> Result<Duration, SearchError> {
        let (of, what) = (&self.space.tensors()[tensor], self.space.choices()[choice]);
        let started = Instant::now();
        what.tiles(&self.rounder, of.id, of.quantizer)?;
        Ok(started.elapsed())
    }

    /// The dense model with one matrix rounded to a choice.
    pub fn model_of_one(&mut self, tensor: usize, choice: usize) -> Result<Arc<Model>, SearchError> {
        let tiles = self.get(tensor, choice)?;
        let model = Model::open(self.dense)?;
        let id = self.space.tensors()[tensor].id;
        Ok(Arc::new(self.space.choices()[choice].apply(model, id, tiles)?))
    }

    /// The model of an assignment.
    pub fn model(&mut self, assignment: &[u8]) -> Result<Arc<Model>, SearchError> {
        let mut model = Model::open(self.dense)?;
        for (tensor, &choice) in assignment.iter().enumerate() {
            let (id, choice) = (self.space.tensors()[tensor].id, usize::from(choice));
            model = self.space.choices()[choice].apply(model, id, self.get(tensor, choice)?)?;
        }
        Ok(Arc::new(model))
    }
}

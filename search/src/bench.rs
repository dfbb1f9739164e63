//! Divergence of models held in memory, by partial passes.

use crate::error::SearchError;
use crate::random::Random;
use pith_eval::kl::Reference;
use pith_eval::{Logits, Scored, Windows};
use pith_format::Progress;
use pith_runtime::{LayerRun, Model, RuntimeError, SessionOptions};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Tokens whose logits are computed together.
const HEAD_TOKENS: usize = 64;

/// Seed of the windows' order. Fixed, so that journals stay valid.
const WINDOW_SEED: u64 = 0;

/// The windows of the search's text, with the dense model's logits.
pub(crate) struct Bench<'a> {
    dense: Arc<Model>,
    windows: Vec<Vec<u32>>,
    /// References for the first windows, by ascending number; the last covers all.
    stages: Vec<Reference>,
    options: SessionOptions,
    work: PathBuf,
    pub progress: &'a dyn Progress,
}

/// Equal-length windows, ordered so that any prefix covers the text evenly.
pub(crate) fn pick_windows(sequences: &[Vec<u32>], context_len: usize, count: usize) -> Vec<Vec<u32>> {
    let whole: Vec<&Vec<u32>> = sequences.iter().filter(|sequence| sequence.len() == context_len).collect();
    let count = count.min(whole.len());
    let mut picked: Vec<Vec<u32>> =
        (0..count).map(|index| whole[index * whole.len() / count].clone()).collect();
    Random::new(WINDOW_SEED).shuffle(&mut picked);
    picked
}

impl<'a> Bench<'a> {
    /// Runs the dense model over the windows: one or more, all of the same length. `stages`: the
    /// number of windows of each early measurement, ascending; the stage of all windows is added.
    pub fn new(
        dense: Arc<Model>,
        windows: Vec<Vec<u32>>,
        stages: &[usize],
        options: SessionOptions,
        work: PathBuf,
        progress: &'a dyn Progress,
    ) -> Result<Self, SearchError> {
        let context_len = windows[0].len();
        let options = SessionOptions { context_len: Some(context_len), ..options };
        let mut bench = Self { dense, windows, stages: Vec::new(), options, work, progress };
        let mut walk = Walk::new(&bench, Arc::clone(&bench.dense), bench.windows.len())?;
        walk.advance(usize::MAX)?;
        let all = bench.windows.len();
        let mut references = Vec::new();
        for &count in stages.iter().filter(|&&count| count < all).chain([&all]) {
            let windows = Windows::cut(bench.windows[..count].concat(), context_len, None, Scored::All)?;
            references.push(Reference::compute(&mut walk.finished(), windows, None, &())?);
        }
        drop(walk);
        bench.stages = references;
        Ok(bench)
    }

    /// The number of windows of each stage.
    pub fn stages(&self) -> Vec<usize> {
        self.stages.iter().map(|reference| reference.windows().count()).collect()
    }

    /// The number of all windows.
    pub fn window_count(&self) -> usize {
        self.windows.len()
    }

    /// The dense model's perplexity.
    pub fn perplexity(&self) -> f64 {
        self.stages.last().map_or(f64::NAN, |reference| reference.perplexity().value)
    }

    /// The dense model before its first layer.
    pub fn dense_walk(&self) -> Result<Walk<'_>, SearchError> {
        Walk::new(self, Arc::clone(&self.dense), self.windows.len())
    }

    /// Mean divergence of a model on the first `windows` windows; `windows` must be a stage.
    pub fn divergence(&self, model: Arc<Model>, windows: usize) -> Result<f64, SearchError> {
        Walk::new(self, model, windows)?.divergence()
    }
}

/// A model's activations between two layers, for all windows.
pub(crate) struct Walk<'a> {
    bench: &'a Bench<'a>,
    run: LayerRun,
    /// `tokens × hidden_len` for each window.
    hidden: Vec<Vec<f32>>,
    /// Number of layers already run.
    at: usize,
}

impl<'a> Walk<'a> {
    fn new(bench: &'a Bench<'a>, model: Arc<Model>, windows: usize) -> Result<Self, SearchError> {
        let hidden_len = model.config().hidden_len;
        let mut run = LayerRun::new(model, bench.options.clone())?.keep_weights();
        let mut hidden = Vec::with_capacity(windows);
        for tokens in &bench.windows[..windows] {
            let mut embedded = vec![0.0; tokens.len() * hidden_len];
            run.embed(tokens, &mut embedded)?;
            hidden.push(embedded);
        }
        Ok(Self { bench, run, hidden, at: 0 })
    }

    /// Runs the layers before `layer`, or all of them.
    pub fn advance(&mut self, layer: usize) -> Result<(), SearchError> {
        let end = layer.min(self.run.model().config().layers.len());
        while self.at < end {
            for hidden in &mut self.hidden {
                if self.bench.progress.is_interrupted() {
                    return Err(SearchError::Interrupted { work: self.bench.work.clone() });
                }
                self.run.layer_unheard(self.at, hidden)?;
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Continues with another model, which must agree in the layers already run.
    pub fn branch(&self, model: Arc<Model>) -> Result<Self, SearchError> {
        let run = LayerRun::new(model, self.bench.options.clone())?.keep_weights();
        Ok(Self { bench: self.bench, run, hidden: self.hidden.clone(), at: self.at })
    }

    /// Runs the remaining layers and returns the mean divergence.
    pub fn divergence(mut self) -> Result<f64, SearchError> {
        self.advance(usize::MAX)?;
        let count = self.hidden.len();
        let reference = self.bench.stages.iter().find(|reference| reference.windows().count() == count);
        let reference = reference.expect("windows of one of the stages");
        let tokens = reference.compare_tokens(&mut self.finished(), &())?;
        Ok(tokens.iter().map(|token| token.kl).sum::<f64>() / tokens.len() as f64)
    }

    fn finished(&mut self) -> Finished<'_> {
        let vocab_len = self.run.model().config().vocab_len;
        Finished {
            run: &mut self.run,
            hidden: &self.hidden,
            next: 0,
            logits: vec![0.0; HEAD_TOKENS * vocab_len],
        }
    }
}

/// Logits after the last layer, window by window.
struct Finished<'a> {
    run: &'a mut LayerRun,
    hidden: &'a [Vec<f32>],
    next: usize,
    logits: Vec<f32>,
}

impl Logits for Finished<'_> {
    fn vocab_len(&self) -> usize {
        self.run.model().config().vocab_len
    }

    fn logits(
        &mut self,
        tokens: &[u32],
        wanted: Range<usize>,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        let (vocab_len, hidden_len) = (self.vocab_len(), self.run.model().config().hidden_len);
        let hidden = &self.hidden[self.next];
        assert_eq!(hidden.len(), tokens.len() * hidden_len, "the windows in their order");
        self.next += 1;
        for first in wanted.clone().step_by(HEAD_TOKENS) {
            let count = HEAD_TOKENS.min(wanted.end - first);
            let logits = &mut self.logits[..count * vocab_len];
            self.run.logits(&hidden[first * hidden_len..(first + count) * hidden_len], logits)?;
            for (index, logits) in logits.chunks_exact(vocab_len).enumerate() {
                each(first + index, logits);
            }
        }
        Ok(())
    }
}

//! Runs all sequences through the first layer, then through the second, and so on to the head's
//! input.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pith_format::{Encoding, Kind, ModelConfig, Progress, ReplaceOptions, Replacement, Unit};
use pith_runtime::{Inputs, LayerRun, Listener, Model, SessionOptions, Site};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::error::StatisticsError;
use super::file::{StatisticsInfo, Writer, tensor_plan};
use super::hidden::Hidden;
use super::moments::{Cross, Moments};
use super::sites::site_name;
use super::text::{CalibrationText, LEAST_TOKENS};
use crate::identity::identity;

/// Options of collecting activation statistics.
#[derive(Clone, Debug, Default)]
pub struct StatisticsOptions {
    /// Also sum the products of all pairs of a site's columns, which GPTQ needs: `cols²/2` values
    /// per site.
    pub hessians: bool,
    /// Accept a file whose layers are neither f16 nor f32.
    pub any_encoding: bool,
    /// Replace the output if it exists.
    pub force: bool,
    /// Memory limit in bytes. Hidden states that do not fit go to a temporary file beside the
    /// output. `None`: no limit, and all hidden states stay in memory.
    pub memory: Option<u64>,
    /// Threads, CPUs, kernels, batch and cache of the run. The context is the text's window.
    pub session: SessionOptions,
}

/// Result of a collection.
#[derive(Clone, Debug)]
pub struct StatisticsReport {
    /// Metadata of the file.
    pub info: StatisticsInfo,
    /// Length of the file.
    pub file_bytes: u64,
    /// Memory estimated beforehand, weights of a layer included.
    pub memory_bytes: u64,
    /// The hidden states were kept in a temporary file.
    pub spilled: bool,
    /// Time of the collection, without making the text.
    pub elapsed: Duration,
    /// Part of that time for products of pairs of columns.
    pub product_time: Duration,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

/// [`Statistics::collect`](super::Statistics::collect).
pub(super) fn collect(
    model: &Arc<Model>,
    compressed: Option<&Arc<Model>>,
    text: &CalibrationText,
    options: &StatisticsOptions,
    output: &Path,
    progress: &dyn Progress,
) -> Result<StatisticsReport, StatisticsError> {
    let started = Instant::now();
    let inputs: Vec<PathBuf> = [Some(model), compressed]
        .into_iter()
        .flatten()
        .filter_map(|model| Some(model.path()?.into()))
        .collect();
    let replacing = ReplaceOptions { force: options.force, inputs: &inputs };
    replacing.check(output)?;
    if !options.any_encoding {
        check_encodings(model)?;
    }
    let config = model.config();
    let tokens = text.tokens();
    if tokens < LEAST_TOKENS {
        let place = text.file.clone().unwrap_or_else(|| "what the model wrote".into());
        return Err(StatisticsError::TooShort { place, found: tokens, least: LEAST_TOKENS });
    }
    if let Some(compressed) = compressed {
        check_pair(model, compressed)?;
    }
    let session = SessionOptions { context_len: Some(text.window), ..options.session.clone() };
    let mut run = LayerRun::new(Arc::clone(model), session.clone())?;
    let mut compressed_run =
        compressed.map(|compressed| LayerRun::new(Arc::clone(compressed), session)).transpose()?;
    let longest = text.sequences.iter().map(Vec::len).max().unwrap_or(0) * config.hidden_len;
    let values = tokens * config.hidden_len;
    let (memory_bytes, in_memory) = plan_memory(&run, compressed_run.as_ref(), options, values, longest)?;
    let threads = run.threads();
    let pool = ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|error| StatisticsError::Threads { threads, reason: error.to_string() })?;

    let info = StatisticsInfo::new(model, compressed.map(|model| &**model), text, options.hessians);
    let file = Replacement::create(output, replacing)?;
    let mut writer = Writer::new(file, tensor_plan(config, options.hessians, compressed.is_some()), &info)?;
    let folder = super::file::folder(output);
    let mut hidden = Hidden::new(values, longest, in_memory, folder)?;
    let mut compressed_hidden =
        compressed_run.as_ref().map(|_| Hidden::new(values, longest, in_memory, folder)).transpose()?;
    let mut places = Vec::with_capacity(text.sequences.len());
    let mut first = 0;
    for tokens in &text.sequences {
        let len = tokens.len() * config.hidden_len;
        hidden
            .with((first, len), folder, |hidden| run.embed(tokens, hidden).map_err(StatisticsError::from))?;
        if let (Some(run), Some(hidden)) = (&mut compressed_run, &mut compressed_hidden) {
            hidden.with((first, len), folder, |hidden| {
                run.embed(tokens, hidden).map_err(StatisticsError::from)
            })?;
        }
        places.push((first, len));
        first += len;
    }
    let layers = (0..config.layers.len()).map(Some).chain([None]);
    let mut product_time = Duration::ZERO;
    for layer in layers {
        let step =
            layer.map_or("head".into(), |index| format!("layer {} of {}", index + 1, config.layers.len()));
        progress.begin(&step, tokens as u64, Unit::Tokens);
        let mut collector = Collector::new(config, layer, options.hessians, compressed.is_some(), &pool);
        for (sequence, &place) in places.iter().enumerate() {
            if progress.is_interrupted() {
                return Err(StatisticsError::Interrupted);
            }
            match (&mut compressed_run, &mut compressed_hidden) {
                (Some(compressed_run), Some(compressed_hidden)) => {
                    let mut recorder = Recorder(&mut collector);
                    hidden.with(place, folder, |hidden| listen(&mut run, layer, hidden, &mut recorder))?;
                    compressed_hidden.with(place, folder, |hidden| {
                        listen(compressed_run, layer, hidden, &mut collector)
                    })?;
                    collector.compare();
                }
                _ => hidden.with(place, folder, |hidden| listen(&mut run, layer, hidden, &mut collector))?,
            }
            collector.check(sequence)?;
            progress.advance((place.1 / config.hidden_len) as u64);
        }
        product_time += collector.write(&mut writer)?;
    }
    let file_bytes = writer.finish()?;
    let warnings = warnings(config, tokens, options.hessians);
    let (spilled, elapsed) = (!in_memory, started.elapsed());
    Ok(StatisticsReport { info, file_bytes, memory_bytes, spilled, elapsed, product_time, warnings })
}

/// Runs a layer, or the norm before the head where `layer` is `None`; `listener` sees the inputs of
/// the matrices.
fn listen(
    run: &mut LayerRun,
    layer: Option<usize>,
    hidden: &mut [f32],
    listener: &mut dyn Listener,
) -> Result<(), StatisticsError> {
    match layer {
        Some(index) => run.layer(index, hidden, listener)?,
        None => run.head_input(hidden, listener)?,
    }
    Ok(())
}

/// The sums of one layer's sites, or of the head's.
struct Collector<'a> {
    layer: Option<usize>,
    sites: Vec<(Site, Moments)>,
    /// One for each site, where there are two models.
    pairs: Vec<Pair>,
    pool: &'a ThreadPool,
}

/// The activations of two models at one site.
struct Pair {
    /// Rows of the current sequence, of the dense model and of the compressed one.
    rows: [Vec<f32>; 2],
    cross: Cross,
}

/// Listener for the dense model of the two.
struct Recorder<'a, 'b>(&'a mut Collector<'b>);

impl Listener for Recorder<'_, '_> {
    fn input(&mut self, _: Option<usize>, site: Site, inputs: Inputs<'_>) {
        let index = self.0.index(site);
        inputs.rows().for_each(|row| self.0.pairs[index].rows[0].extend_from_slice(row));
    }
}

impl<'a> Collector<'a> {
    fn new(
        config: &ModelConfig,
        layer: Option<usize>,
        hessians: bool,
        pair: bool,
        pool: &'a ThreadPool,
    ) -> Self {
        let sites = Site::all(config, layer).map(|(site, cols)| (site, Moments::new(cols, hessians)));
        let pairs = Site::all(config, layer)
            .filter(|_| pair)
            .map(|(_, cols)| Pair { rows: Default::default(), cross: Cross::new(cols) });
        Self { layer, pairs: pairs.collect(), sites: sites.collect(), pool }
    }

    fn index(&self, site: Site) -> usize {
        self.sites.iter().position(|(own, _)| *own == site).expect("every site of a layer")
    }

    /// Adds the current sequence of both models to the sums.
    fn compare(&mut self) {
        for ((_, moments), pair) in self.sites.iter().zip(&mut self.pairs) {
            let [dense, compressed] = &pair.rows;
            assert_eq!(dense.len(), compressed.len(), "both hear of every token");
            pair.cross.add(dense, compressed.chunks_exact(moments.cols()), self.pool);
            pair.rows.iter_mut().for_each(Vec::clear);
        }
    }

    /// Checks that the sums are finite after this sequence.
    fn check(&self, sequence: usize) -> Result<(), StatisticsError> {
        for (site, moments) in &self.sites {
            if let Some(column) = moments.not_finite() {
                let place = site_name(self.layer, *site);
                return Err(StatisticsError::NotFinite { place, column, sequence });
            }
        }
        Ok(())
    }

    /// Writes every site; returns the time spent on products of pairs.
    fn write(self, writer: &mut Writer) -> Result<Duration, StatisticsError> {
        let mut product_time = Duration::ZERO;
        let mut pairs = self.pairs.into_iter();
        for (_, mut moments) in self.sites {
            for means in moments.means() {
                writer.write(&means)?;
            }
            moments.write_gram(self.pool, |row| writer.write(row))?;
            if let Some(mut pair) = pairs.next() {
                pair.cross.write(moments.tokens, self.pool, |row| writer.write(row))?;
            }
            product_time += moments.product_time;
        }
        Ok(product_time)
    }
}

impl Listener for Collector<'_> {
    fn input(&mut self, layer: Option<usize>, site: Site, inputs: Inputs<'_>) {
        assert_eq!(layer, self.layer);
        let index = self.index(site);
        self.sites[index].1.add(&inputs, self.pool);
        if let Some(pair) = self.pairs.get_mut(index) {
            inputs.rows().for_each(|row| pair.rows[1].extend_from_slice(row));
        }
    }
}

/// Checks that both models are of one checkpoint and of the same shape.
fn check_pair(dense: &Model, compressed: &Model) -> Result<(), StatisticsError> {
    let checksum = |model: &Model| identity(&model.metadata().provenance);
    let (expected, found) = (checksum(dense), checksum(compressed));
    let [a, b] = [dense, compressed].map(Model::config);
    if expected == found && a.layers == b.layers && a.hidden_len == b.hidden_len {
        return Ok(());
    }
    Err(StatisticsError::NoPair { name: compressed.config().name.clone(), expected, found })
}

fn check_encodings(model: &Model) -> Result<(), StatisticsError> {
    let layers = model.index().entries().iter().filter(|entry| entry.id.layer.is_some());
    for entry in layers.filter(|entry| entry.id.role.kind() == Kind::Matrix) {
        match entry.encoding {
            Some(Encoding::F32 | Encoding::F16) | None => {}
            Some(other) => {
                let (tensor, encoding) = (entry.id, other.name());
                return Err(StatisticsError::Quantized { tensor, encoding });
            }
        }
    }
    Ok(())
}

/// Estimated memory in bytes, and whether the hidden states stay in memory.
fn plan_memory(
    run: &LayerRun,
    compressed: Option<&LayerRun>,
    options: &StatisticsOptions,
    values: usize,
    longest: usize,
) -> Result<(u64, bool), StatisticsError> {
    let config = run.model().config();
    let layers = (0..config.layers.len()).map(Some).chain([None]);
    let sums = |hessians: bool| {
        let of_layer = |layer| {
            let of_site = |(_, cols): (Site, usize)| {
                // The rows of the longest sequence are kept for both models.
                let rows = 2 * 4 * (longest / config.hidden_len * cols) as u64;
                let pair = compressed.map_or(0, |_| Cross::bytes(cols) + rows);
                Moments::bytes(cols, hessians, run.threads()) + pair
            };
            Site::all(config, layer).map(of_site).sum::<u64>()
        };
        layers.clone().map(of_layer).max().unwrap_or(0)
    };
    let need = |hessians, in_memory| {
        let (others, states) = compressed.map_or((0, 1), |run| (run.bytes(), 2));
        let hidden = states * Hidden::bytes(values, longest, in_memory);
        run.bytes().saturating_add(sums(hessians)).saturating_add(others) + hidden
    };
    let whole = need(options.hessians, true);
    let Some(limit_bytes) = options.memory.filter(|&limit| limit < whole) else { return Ok((whole, true)) };
    let need_bytes = need(options.hessians, false);
    if need_bytes <= limit_bytes {
        return Ok((need_bytes, false));
    }
    let without = need(false, false);
    let advice = match options.hessians && without <= limit_bytes {
        true => format!("allow so many, or leave the Hessians out, which takes {without}"),
        false => "allow so many, or take fewer threads, a shorter context or a smaller batch".into(),
    };
    Err(StatisticsError::Memory { need_bytes, limit_bytes, advice })
}

fn warnings(config: &ModelConfig, tokens: usize, hessians: bool) -> Vec<String> {
    let layers = (0..config.layers.len()).map(Some).chain([None]);
    let widths = layers.flat_map(|layer| Site::all(config, layer).map(|(_, cols)| cols));
    let widest = widths.max().unwrap_or(0);
    let singular = hessians && tokens < widest;
    let warning = || {
        format!(
            "{tokens} tokens are fewer than the {widest} columns of the widest matrix: its Hessian is singular and will \
            lean on damping; give more text"
        )
    };
    singular.then(warning).into_iter().collect()
}

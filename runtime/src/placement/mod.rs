//! Models larger than memory: which weights are kept, which are streamed for every token, and at
//! what rate.

mod plan;

use crate::buffers::Buffers;
use crate::error::RuntimeError;
use crate::model::Model;
use crate::options::{Resolved, SessionOptions, has_stages};
use crate::sequence::Place;
use crate::storage::merged;
use crate::stream::{Ahead, Circle, Stream, pieces};
use crate::weights::Stored;
use pith_format::TILE_ROWS;
use plan::{Choice, Sizes, place};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// Reserve for stacks, the allocator, and large pages shared by a kept and a streamed part.
const SLACK_BYTES: u64 = 24 << 20;

/// Assumed size of a process without `/proc`.
const PROCESS_BYTES: u64 = 64 << 20;

/// Least speed-up for which announcing pieces is preferred.
const CLEARLY_FASTER: f64 = 1.25;

/// Longest time of a disk measurement.
const PROBE_TIME: Duration = Duration::from_millis(500);

/// Placement of a session's weights: some are kept in memory, the others are streamed from the file
/// for every token.
#[derive(Clone, Debug)]
pub struct Placement {
    /// Limit for everything together.
    pub memory_bytes: u64,
    /// Keys and values of the whole context.
    pub kv_bytes: u64,
    /// Activations, memory that the process already holds, and a reserve.
    pub working_bytes: u64,
    /// Window of the stream: the part in use and the pieces read ahead.
    pub window_bytes: u64,
    /// Parts in the order of use: the layers, then the head, cut into bands no larger than the
    /// largest layer.
    pub parts: Vec<Part>,
    /// Measured rate of reading the streamed parts, if it was measured.
    pub disk: Option<DiskRate>,
    ahead: Ahead,
    /// The head's residual matrix is not among the parts. It does not fit, two-stage logits read
    /// little of it, and the pages they read are released.
    pub(crate) residual_outside: bool,
}

/// A part of a model's weights.
#[derive(Clone, Debug)]
pub struct Part {
    /// `layer 3` or `head 1/4`.
    pub name: String,
    /// Bytes of its matrices.
    pub bytes: u64,
    /// Streamed from the file for every token; otherwise kept.
    pub streamed: bool,
    ranges: Vec<Range<usize>>,
}

/// Measured disk rate: cold pages of the model's own file, read in order through the map with
/// read-ahead.
#[derive(Clone, Copy, Debug)]
pub struct DiskRate {
    /// Bytes read.
    pub bytes: u64,
    /// Time it took.
    pub seconds: f64,
}

impl DiskRate {
    /// Bytes per second.
    pub fn bytes_per_second(self) -> f64 {
        self.bytes as f64 / self.seconds.max(1e-9)
    }
}

impl Placement {
    /// Plans for a session of `options`; [`SessionOptions::memory`] is the limit. Without a limit
    /// everything is kept. A model copied into memory is also kept whole; a limit can only refuse
    /// it.
    pub fn new(model: &Model, options: &SessionOptions) -> Result<Self, RuntimeError> {
        Self::with(model, options, options.resolve(model)?)
    }

    /// [`Placement::new`] with the defaults already filled in.
    pub(crate) fn with(
        model: &Model,
        options: &SessionOptions,
        needs: Resolved,
    ) -> Result<Self, RuntimeError> {
        let config = model.config();
        let memory_bytes = options.memory.unwrap_or(u64::MAX);
        let layer_kv = config.layers.iter().map(|layer| options.kv_type.position_bytes(layer));
        let kv_bytes = layer_kv.sum::<u64>().saturating_mul(needs.context_len as u64);
        // Load the tokenizer now, so that it counts as memory of the process. An error is reported
        // at its use.
        let _ = model.tokenizer();
        let holds = resident_bytes().unwrap_or(PROCESS_BYTES);
        let working = |parts: &[Part]| {
            let weight_bytes: u64 = parts.iter().map(|part| part.bytes).sum();
            let working_bytes = activation_bytes(model, needs.context_len, needs.batch, needs.threads)
                .saturating_add(holds)
                // A page table entry takes 1/512 of its page.
                .saturating_add(SLACK_BYTES + weight_bytes / 512);
            (working_bytes, weight_bytes)
        };
        let mut parts = parts_of(model, true);
        let (mut working_bytes, weight_bytes) = working(&parts);
        let all = kv_bytes.saturating_add(working_bytes).saturating_add(weight_bytes);
        let mapped = model.storage().is_mapped();
        let residual_outside = mapped && options.two_stage_logits && has_stages(model) && all > memory_bytes;
        if residual_outside {
            parts = parts_of(model, false);
            working_bytes = working(&parts).0;
        }
        let bytes: Vec<u64> = parts.iter().map(|part| part.bytes).collect();
        let (layers, head_bands) = bytes.split_at(config.layers.len());
        let fixed = kv_bytes.saturating_add(working_bytes);
        let placed = match mapped {
            true => place(&Sizes { layers, head_bands, fixed }, memory_bytes),
            // Nothing can be streamed: the process already holds all of it, and `fixed` counts it.
            false if fixed > memory_bytes => Err(fixed),
            false => Ok(Choice { streamed: vec![false; parts.len()], window: 0 }),
        };
        let Choice { streamed, window } =
            placed.map_err(|least_bytes| RuntimeError::MemoryLimit { memory_bytes, least_bytes })?;
        let parts = parts.into_iter().zip(streamed).map(|(part, streamed)| Part { streamed, ..part });
        let parts = parts.collect();
        Ok(Self {
            memory_bytes,
            kv_bytes,
            working_bytes,
            window_bytes: window,
            parts,
            disk: None,
            ahead: Ahead::Announced,
            residual_outside,
        })
    }

    /// Bytes of the kept parts.
    pub fn kept_bytes(&self) -> u64 {
        self.parts.iter().filter(|part| !part.streamed).map(|part| part.bytes).sum()
    }

    /// Bytes streamed for every token, or for every batch of a prompt.
    pub fn streamed_bytes(&self) -> u64 {
        self.parts.iter().filter(|part| part.streamed).map(|part| part.bytes).sum()
    }

    /// Upper bound of tokens per second from the disk rate; `None` where nothing is streamed or the
    /// disk was not measured.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let streamed = Some(self.streamed_bytes()).filter(|&bytes| bytes > 0)?;
        Some(self.disk?.bytes_per_second() / streamed as f64)
    }

    /// Measures the disk on the streamed parts, for half a second at most.
    ///
    /// Two ways of reading ahead alternate, because a disk's rate varies with time. The way with
    /// less work for the system is used unless the other is clearly faster.
    pub fn measure(&mut self, model: &Arc<Model>) {
        let ranges = self.streamed_ranges();
        if ranges.is_empty() {
            return;
        }
        let huge = |yes: bool| ranges.iter().all(|range| model.storage().huge(range.clone(), yes));
        let time = |ahead| {
            let circle = Circle::new(Arc::clone(model), ranges.iter().cloned(), ahead, self.window_bytes);
            let (bytes, seconds) = circle.time(PROBE_TIME / 4);
            DiskRate { bytes, seconds }
        };
        let sum =
            |[a, b]: [DiskRate; 2]| DiskRate { bytes: a.bytes + b.bytes, seconds: a.seconds + b.seconds };
        let (mut large, mut announced) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            if huge(true) {
                large.push(time(Ahead::Large));
            }
            huge(false);
            announced.push(time(Ahead::Announced));
        }
        let [large, announced] = [large, announced].map(|rates| <[_; 2]>::try_from(rates).ok().map(sum));
        let fastest = |rate: Option<DiskRate>| rate.map_or(0.0, DiskRate::bytes_per_second);
        if large.is_some() && fastest(announced) < CLEARLY_FASTER * fastest(large) {
            huge(true);
            (self.ahead, self.disk) = (Ahead::Large, large);
        } else {
            (self.ahead, self.disk) = (Ahead::Announced, announced);
        }
    }

    /// Reads the kept parts, locks them where the system permits, and starts the stream.
    ///
    /// `must_lock`: an error where the system does not permit it; all kept parts are then locked,
    /// even where nothing is streamed. Otherwise they are locked only where something is streamed.
    pub(crate) fn enact(
        &mut self,
        model: &Arc<Model>,
        must_lock: bool,
    ) -> Result<(Option<Stream>, Pins), RuntimeError> {
        let streams = self.parts.iter().any(|part| part.streamed);
        let mut pins = Pins { model: Arc::clone(model), locked: Vec::new() };
        if streams {
            // The look-up of one embedding row must not read megabytes around it.
            let looked_up = std::iter::once(&model.embedding).chain(&model.head_residual);
            looked_up.for_each(|stored| model.storage().random(stored.range.clone()));
            self.measure(model);
        }
        if streams || must_lock {
            let kept = self.parts.iter().filter(|part| !part.streamed);
            pins.load(kept.flat_map(|part| part.ranges.iter().cloned()), self.ahead, must_lock)?;
        }
        if !streams {
            return Ok((None, pins));
        }
        let ranges = |part: &Part| part.streamed.then(|| part.ranges.clone());
        let parts: Vec<_> = self.parts.iter().map(ranges).collect();
        Ok((Some(Stream::start(model, &parts, self.ahead, self.window_bytes)?), pins))
    }

    fn streamed_ranges(&self) -> Vec<Range<usize>> {
        let streamed = self.parts.iter().filter(|part| part.streamed);
        streamed.flat_map(|part| part.ranges.iter().cloned()).collect()
    }
}

/// Ranges of a model, locked in memory until dropped.
pub(crate) struct Pins {
    model: Arc<Model>,
    locked: Vec<Range<usize>>,
}

impl Pins {
    fn load(
        &mut self,
        ranges: impl Iterator<Item = Range<usize>>,
        ahead: Ahead,
        must_lock: bool,
    ) -> Result<(), RuntimeError> {
        let storage = self.model.storage();
        let pieces: Vec<_> = ranges.flat_map(|range| pieces(range, storage.origin())).collect();
        if ahead == Ahead::Large {
            pieces.iter().for_each(|piece| {
                storage.huge(piece.clone(), true);
            });
        }
        let mut permitted = true;
        for (index, piece) in pieces.iter().enumerate() {
            // The disk works on the next ranges meanwhile.
            let from = if index == 0 { 0 } else { index + 7 };
            if ahead == Ahead::Announced {
                pieces.iter().take(index + 8).skip(from).for_each(|piece| storage.will_need(piece.clone()));
            }
            if permitted {
                match storage.lock(piece.clone()) {
                    Ok(()) => self.locked.push(piece.clone()),
                    Err(source) if must_lock => {
                        let bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
                        return Err(RuntimeError::Lock { bytes, source });
                    }
                    Err(_) => permitted = false,
                }
            }
            if !permitted {
                storage.touch(piece.clone());
            }
        }
        Ok(())
    }

    /// Bytes locked.
    pub fn locked_bytes(&self) -> u64 {
        self.locked.iter().map(|range| range.len() as u64).sum()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        self.locked.drain(..).for_each(|range| self.model.storage().unlock(range));
    }
}

/// Layers, then the head in bands of whole blocks, with or without the head's residual matrix.
fn parts_of(model: &Model, with_residual: bool) -> Vec<Part> {
    let part = |name: String, ranges: Vec<Range<usize>>| Part {
        name,
        bytes: ranges.iter().map(|range| range.len() as u64).sum(),
        streamed: false,
        ranges,
    };
    let mut parts: Vec<Part> = (0..model.layers.len())
        .map(|index| part(format!("layer {index}"), merged(model.layer_ranges(index))))
        .collect();
    let largest = parts.iter().map(|part| part.bytes).max().unwrap_or(u64::MAX);
    let residual = model.head_residual.as_ref().filter(|_| with_residual);
    let head: Vec<&Stored> = std::iter::once(model.head_matrix()).chain(residual).collect();
    let blocks = head[0].rows.div_ceil(TILE_ROWS);
    let bytes: u64 = head.iter().map(|matrix| matrix.range.len() as u64).sum();
    let count = bytes.div_ceil(largest.max(1)).clamp(1, blocks as u64) as usize;
    parts.extend((0..count).map(|band| {
        let blocks_of_band = head_band(blocks, band, count);
        let ranges = |matrix: &&Stored| {
            let ranges = matrix.of(model.bytes()).block_ranges(blocks_of_band.clone());
            let start = matrix.range.start;
            ranges.map(|range| start + range.start..start + range.end)
        };
        let ranges = head.iter().flat_map(ranges).filter(|range| !range.is_empty());
        part(format!("head {}/{count}", band + 1), ranges.collect())
    }));
    parts
}

/// Blocks of band `band` of `count` bands of a matrix.
pub(crate) fn head_band(blocks: usize, band: usize, count: usize) -> Range<usize> {
    blocks * band / count..blocks * (band + 1) / count
}

/// Size of a session's allocations besides its cache.
fn activation_bytes(model: &Model, context_len: usize, batch: usize, threads: usize) -> u64 {
    let config = model.config();
    let buffers = Buffers::bytes(config, batch);
    let place = Place::bytes(config, context_len, batch, threads);
    let bytes = buffers.zip(place).and_then(|(buffers, place)| buffers.checked_add(place));
    bytes.map_or(u64::MAX, |bytes| bytes as u64 + 4 * config.vocab_len as u64)
}

/// Memory of this process that no file backs; `None` where the system does not report it.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

//! Read-ahead: a thread fetches the streamed parts in the forward pass's order, in a circle, and
//! releases used pages.
//!
//! On its own the system evicts the least recently used pages, which in a circle are exactly the
//! next ones needed. Pages are therefore requested before use and released right after, so that the
//! system never has to choose.

use crate::error::RuntimeError;
use crate::model::Model;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes per disk request.
pub(crate) const PIECE_BYTES: u64 = 4 << 20;

/// Largest page of a cached file that matters here.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Largest gap between neighbouring parts, which is padding.
const NEIGHBOUR_BYTES: usize = 1 << 16;

/// A circle of pieces with running numbers: piece `n` is `pieces[n % pieces.len()]`.
pub(crate) struct Circle {
    model: Arc<Model>,
    pieces: Vec<Range<usize>>,
    ahead: Ahead,
    /// Most bytes requested and not yet released.
    window: u64,
}

/// Method of reading pages before they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// Every piece of the window is announced to the system, then touched.
    Announced,
    /// Pieces are only touched: the system reads ahead by itself, in large pages where the file
    /// system has them. Disk and system then have much less work.
    Large,
}

/// The forward pass's side of the read-ahead.
pub(crate) struct Stream {
    circle: Arc<Circle>,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    /// Pieces of each part within a round. A kept part has an empty range, at the start of the next
    /// streamed part.
    parts: Vec<Range<u64>>,
    pieces_a_round: u64,
    layer_count: usize,
    /// Number of the first piece of the part entered last.
    position: u64,
}

struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Pieces before this one are used up.
    done: u64,
    /// Pieces before this one are in memory, or were.
    ready: u64,
    /// The session is ending, or the thread has ended.
    stop: bool,
}

impl Circle {
    /// A circle of these ranges of the file; none may be empty.
    pub fn new(
        model: Arc<Model>,
        ranges: impl IntoIterator<Item = Range<usize>>,
        ahead: Ahead,
        window: u64,
    ) -> Self {
        let origin = model.storage().origin();
        let pieces = ranges.into_iter().flat_map(|range| pieces(range, origin)).collect();
        Self { model, pieces, ahead, window }
    }

    fn announce(&self, number: u64) {
        if self.ahead == Ahead::Announced {
            self.model.storage().will_need(self.piece(number));
        }
    }

    fn piece(&self, number: u64) -> Range<usize> {
        self.pieces[(number % self.pieces.len() as u64) as usize].clone()
    }

    /// Releases these pieces, neighbours together.
    ///
    /// A large page shared with the previous piece could not be released with it; it is released
    /// now.
    fn release(&self, numbers: Range<u64>) {
        // A full round covers everything.
        let end = numbers.end.min(numbers.start + self.pieces.len() as u64);
        let mut run: Option<Range<usize>> = None;
        if numbers.start < end && numbers.start > 0 {
            let (before, first) = (self.piece(numbers.start - 1), self.piece(numbers.start));
            let shift = (self.model.storage().origin() % LARGE_PAGE_BYTES as u64) as usize;
            let page = ((first.start + shift) / LARGE_PAGE_BYTES * LARGE_PAGE_BYTES).saturating_sub(shift);
            if before.end.next_multiple_of(NEIGHBOUR_BYTES) >= first.start && before.end <= first.start {
                run = Some(page.max(before.start)..first.start);
            }
        }
        for piece in (numbers.start..end).map(|number| self.piece(number)) {
            match &mut run {
                Some(run) if run.end == piece.start => run.end = piece.end,
                _ => {
                    if let Some(run) = run.replace(piece) {
                        self.model.storage().release(run);
                    }
                }
            }
        }
        if let Some(run) = run {
            self.model.storage().release(run);
        }
    }

    /// Reads cold pieces in order, as the thread does, for about `most`. Returns bytes and seconds.
    pub fn time(&self, most: Duration) -> (u64, f64) {
        let count = self.pieces.len() as u64;
        self.release(0..count);
        let started = Instant::now();
        let (mut asked, mut held, mut bytes) = (0, 0, 0);
        for number in 0..count {
            while asked < count && self.has_room(held, self.piece(asked)) {
                self.announce(asked);
                held += self.piece(asked).len() as u64;
                asked += 1;
            }
            self.model.storage().touch(self.piece(number));
            self.release(number..number + 1);
            let piece_bytes = self.piece(number).len() as u64;
            (held, bytes) = (held - piece_bytes, bytes + piece_bytes);
            if started.elapsed() >= most {
                break;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        self.release(0..count);
        (bytes, seconds)
    }

    /// The thread's loop until it is told to stop.
    fn run(&self, shared: &Shared) {
        // Pieces before these numbers were released, requested, and arrived; bytes requested and
        // not yet released.
        let (mut released, mut asked, mut ready, mut held) = (0u64, 0u64, 0u64, 0u64);
        loop {
            let mut progress = shared.lock();
            progress.ready = ready;
            shared.changed.notify_all();
            while !progress.stop
                && progress.done <= released
                && ready == asked
                && !self.has_room(held, self.piece(asked))
            {
                progress = shared.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
            }
            if progress.stop {
                return;
            }
            let done = progress.done;
            drop(progress);
            if done > released {
                let given_back = released..done.min(asked);
                held -= given_back.map(|number| self.piece(number).len() as u64).sum::<u64>();
                // Skipped pieces were never requested.
                (released, asked, ready) = (done, asked.max(done), ready.max(done));
            }
            while self.has_room(held, self.piece(asked)) {
                self.announce(asked);
                held += self.piece(asked).len() as u64;
                asked += 1;
            }
            if ready < asked {
                self.model.storage().touch(self.piece(ready));
                ready += 1;
            }
        }
    }

    fn has_room(&self, held: u64, piece: Range<usize>) -> bool {
        held + piece.len() as u64 <= self.window
    }
}

impl Stream {
    /// Starts to read. `parts`: the ranges of each streamed part, `None` for kept parts; layers
    /// first.
    pub fn start(
        model: &Arc<Model>,
        parts: &[Option<Vec<Range<usize>>>],
        ahead: Ahead,
        window: u64,
    ) -> Result<Self, RuntimeError> {
        let streamed = || parts.iter().flatten().flatten().cloned();
        let circle = Arc::new(Circle::new(Arc::clone(model), streamed(), ahead, window));
        let (mut end, origin) = (0, model.storage().origin());
        let parts = parts.iter().map(|ranges| {
            let each = ranges.iter().flatten().map(|range| pieces(range.clone(), origin).count());
            let count: usize = each.sum();
            end += count as u64;
            end - count as u64..end
        });
        let parts = parts.collect();
        circle.release(0..circle.pieces.len() as u64);
        let shared = Arc::new(Shared { progress: Mutex::default(), changed: Condvar::new() });
        let pieces_a_round = circle.pieces.len() as u64;
        let (ours, theirs) = (Arc::clone(&circle), Arc::clone(&shared));
        let worker = std::thread::Builder::new().name("pith-read".into()).spawn(move || {
            let stop = StopAtEnd(&theirs);
            ours.run(stop.0);
            ours.release(0..pieces_a_round);
        });
        let worker = worker.map_err(|source| RuntimeError::Threads { threads: 1, source })?;
        let layer_count = model.config().layers.len();
        Ok(Self { circle, shared, worker: Some(worker), parts, pieces_a_round, layer_count, position: 0 })
    }

    /// Releases the pieces before a layer and waits until the layer is in memory.
    pub fn enter_layer(&mut self, layer_index: usize) {
        self.enter(layer_index);
    }

    /// [`Stream::enter_layer`] for a band of the head.
    pub fn enter_head(&mut self, band: usize) {
        self.enter(self.layer_count + band);
    }

    /// Number of bands in which the head is read; one where it is kept.
    pub fn head_bands(&self) -> usize {
        let bands = &self.parts[self.layer_count..];
        if bands.iter().all(Range::is_empty) { 1 } else { bands.len() }
    }

    fn enter(&mut self, part: usize) {
        let part = self.parts[part].clone();
        let mut first = self.position / self.pieces_a_round * self.pieces_a_round + part.start;
        if first < self.position {
            first += self.pieces_a_round;
        }
        // Released here, not by the thread, which keeps the disk busy.
        if first > self.position {
            self.circle.release(self.position..first);
            self.shared.lock().done = first;
            self.shared.changed.notify_all();
        }
        self.position = first;
        let mut progress = self.shared.lock();
        while !progress.stop && progress.ready < first + (part.end - part.start) {
            progress = self.shared.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(worker) = self.worker.take() {
            // The result carries nothing, and nobody waits for pieces any more.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }
}

/// Marks the stream as stopped when its thread ends for any reason. Waiting ends then: pages still
/// load on access, only slower.
struct StopAtEnd<'a>(&'a Shared);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Splits a range into pieces of at most [`PIECE_BYTES`], cut at multiples of that size in the
/// file. `origin`: the file offset of the range's zero.
pub(crate) fn pieces(range: Range<usize>, origin: u64) -> impl Iterator<Item = Range<usize>> {
    let (piece_bytes, shift) = (PIECE_BYTES as usize, (origin % PIECE_BYTES) as usize);
    let cut = move |index: usize| (index * piece_bytes).saturating_sub(shift).clamp(range.start, range.end);
    let pieces = (range.start + shift) / piece_bytes..(range.end + shift).div_ceil(piece_bytes);
    pieces.map(move |index| cut(index)..cut(index + 1)).filter(|piece| !piece.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_range_and_end_on_large_pages() {
        let piece = PIECE_BYTES as usize;
        for origin in [0, 1, piece as u64 - 4096, (7 << 40) + 12_345] {
            for range in [0..1, 5..piece, 3..piece + 1, piece..3 * piece, piece - 7..5 * piece + 9] {
                let pieces: Vec<_> = pieces(range.clone(), origin).collect();
                assert_eq!((pieces[0].start, pieces[pieces.len() - 1].end), (range.start, range.end));
                assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
                let end_in_file = |part: &Range<usize>| origin + part.end as u64;
                let (_, cut) = pieces.split_last().unwrap();
                assert!(cut.iter().all(|part| end_in_file(part).is_multiple_of(PIECE_BYTES)));
                assert!(pieces.iter().all(|part| !part.is_empty() && part.len() <= piece));
            }
        }
        assert_eq!(pieces(7..7, 5).count(), 0);
    }
}

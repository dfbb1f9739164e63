//! Reading ahead: a thread that fetches the streamed parts in the forward pass's order, round and round, and lets go of
//! what was used.
//!
//! Left to itself the system evicts what was not used for longest, which in a circle is just what comes next. So pages
//! are asked for before they are needed and given back as soon as they were used, and the system never has to choose.

use super::plan::PIECE_BYTES;
use crate::error::RuntimeError;
use crate::model::Model;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The largest page that a file is cached in, as far as it matters here.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// What lies between two parts that are beside each other: padding.
const NEIGHBOUR_BYTES: usize = 1 << 16;

/// A circle of pieces, numbered on and on: piece `n` is `pieces[n % pieces.len()]`.
pub(super) struct Circle {
    model: Arc<Model>,
    pieces: Vec<Range<usize>>,
    ahead: Ahead,
    /// Most bytes that are asked for and not yet given back.
    window: u64,
}

/// How pages come before they are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ahead {
    /// Every piece of the window is announced to the system, then touched.
    Announced,
    /// Touching is enough: the system reads ahead by itself, in large pages where the file system has them. Where it
    /// does, the disk and the system have much less to do.
    Large,
}

/// The forward pass's side of it.
pub(crate) struct Stream {
    circle: Arc<Circle>,
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    /// Pieces of each part within a round; of a part that is kept, none, where the next streamed one begins.
    parts: Vec<Range<u64>>,
    pieces_a_round: u64,
    layer_count: usize,
    /// Number of the first piece of the part that was entered last.
    position: u64,
}

struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Pieces before this one are done with.
    done: u64,
    /// Pieces before this one are in memory, or were.
    ready: u64,
    /// The session ends, or the thread has ended.
    stop: bool,
}

impl Circle {
    /// A circle of these ranges of the file, which are not empty.
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

    /// Lets go of these pieces, neighbours at once.
    ///
    /// A large page that the piece before shares could not go with it; it goes now.
    fn release(&self, numbers: Range<u64>) {
        // A round is everything.
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

    /// Reads cold pieces in order, as the thread does, for `most` time at the longest: bytes and seconds.
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

    /// The thread's work until it is told to stop.
    fn run(&self, shared: &Shared) {
        // Pieces before these were given back, asked for, and arrived; bytes asked for and not given back.
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
                // What was skipped was never asked for.
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
    /// Starts to read. `parts`: each part's ranges if it is streamed, layers first.
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

    /// Gives back what was read before a layer and waits until the layer is there.
    pub fn enter_layer(&mut self, layer_index: usize) {
        self.enter(layer_index);
    }

    /// The same for a band of the head.
    pub fn enter_head(&mut self, band: usize) {
        self.enter(self.layer_count + band);
    }

    /// In how many bands the head is read; one where it is kept.
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
        // Not by the thread, which is to keep the disk busy.
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
            // It has nothing to say, and whoever waits for pieces stopped waiting.
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

/// Nobody waits for a thread that has ended, however it ended: pages come without it too, slower.
struct StopAtEnd<'a>(&'a Shared);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// A range in pieces of [`PIECE_BYTES`] at most, which end where the file's large pages do. `origin`: where the range's
/// zero is in the file.
pub(super) fn pieces(range: Range<usize>, origin: u64) -> impl Iterator<Item = Range<usize>> {
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

//! The choice between kept and streamed weights, as pure arithmetic.

use crate::stream::PIECE_BYTES;
/// Sizes of a forward pass's parts, in the order of use.
pub(super) struct Sizes<'a> {
    /// Bytes of each layer's matrices.
    pub layers: &'a [u64],
    /// Bytes of the bands in which a streamed head is read.
    pub head_bands: &'a [u64],
    /// Other memory: cache, activations, the process itself.
    pub fixed: u64,
}

/// The choice for each part: layers first, then the head's bands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub streamed: Vec<bool>,
    /// Window of the stream: the part in use and the pieces read ahead. 0 where nothing is
    /// streamed.
    pub window: u64,
}

/// The part in use and half as much read ahead, so that the disk works during computation.
fn wanted_window(largest: u64) -> u64 {
    largest + (largest / 2).max(2 * PIECE_BYTES)
}

/// With a smaller window the disk would wait for the computation every time.
fn least_window(largest: u64) -> u64 {
    largest + PIECE_BYTES
}

/// Keeps as much as `memory` allows. Any kept byte saves a byte of reading per token. So the head,
/// the hardest to stream, is kept first, and the streamed layers are spread evenly between the kept
/// ones, whose computation gives the disk time. The error is the least memory that would suffice.
pub(super) fn place(sizes: &Sizes<'_>, memory: u64) -> Result<Choice, u64> {
    let parts: Vec<u64> = sizes.layers.iter().chain(sizes.head_bands).copied().collect();
    let total: u64 = parts.iter().sum();
    if sizes.fixed.saturating_add(total) <= memory {
        return Ok(Choice { streamed: vec![false; parts.len()], window: 0 });
    }
    let layer_count = sizes.layers.len();
    for window in [wanted_window, least_window] {
        let room = Room { parts: &parts, window, fixed: sizes.fixed, memory };
        let first_fit = |head_streamed: bool| {
            let mut choices = (0..=layer_count).map(|count| {
                let layers = (0..layer_count).map(|index| evenly(index, count, layer_count));
                let head = sizes.head_bands.iter().map(|_| head_streamed);
                layers.chain(head).collect::<Vec<bool>>()
            });
            choices.find(|streamed| room.fits(streamed)).map(|streamed| room.fill(streamed))
        };
        let choices = [first_fit(false), first_fit(true)];
        if let Some(streamed) = choices.into_iter().flatten().min_by_key(|choice| room.streamed_bytes(choice))
        {
            let window = room.window_bytes(&streamed);
            return Ok(Choice { streamed, window });
        }
    }
    Err(sizes.fixed.saturating_add(least_window(parts.iter().copied().max().unwrap_or(0))))
}

/// Whether `index` is one of `count` evenly spread among `of`.
fn evenly(index: usize, count: usize, of: usize) -> bool {
    (index + 1) * count / of > index * count / of
}

/// Memory of a choice, and whether it fits.
struct Room<'a> {
    parts: &'a [u64],
    window: fn(u64) -> u64,
    fixed: u64,
    memory: u64,
}

impl Room<'_> {
    fn sum(&self, streamed: &[bool], which: bool) -> u64 {
        let parts = self.parts.iter().zip(streamed);
        parts.filter(|(_, streamed)| **streamed == which).map(|(bytes, _)| bytes).sum()
    }

    fn streamed_bytes(&self, streamed: &[bool]) -> u64 {
        self.sum(streamed, true)
    }

    fn window_bytes(&self, streamed: &[bool]) -> u64 {
        let parts = self.parts.iter().zip(streamed);
        let largest = parts.filter(|(_, streamed)| **streamed).map(|(bytes, _)| *bytes).max();
        largest.map_or(0, self.window)
    }

    fn fits(&self, streamed: &[bool]) -> bool {
        let used = self.fixed.checked_add(self.sum(streamed, false));
        used.and_then(|used| used.checked_add(self.window_bytes(streamed)))
            .is_some_and(|used| used <= self.memory)
    }

    /// Keeps as many more parts as fit, the largest first.
    fn fill(&self, mut streamed: Vec<bool>) -> Vec<bool> {
        let mut order: Vec<usize> = (0..self.parts.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(self.parts[index]));
        for index in order {
            if std::mem::replace(&mut streamed[index], false) && !self.fits(&streamed) {
                streamed[index] = true;
            }
        }
        streamed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn choose(layers: &[u64], head_bands: &[u64], fixed: u64, memory: u64) -> Result<Choice, u64> {
        place(&Sizes { layers, head_bands, fixed }, memory)
    }

    /// Kept parts, window and fixed memory together never exceed the limit.
    fn used(parts: &[u64], fixed: u64, choice: &Choice) -> u64 {
        let kept = parts.iter().zip(&choice.streamed).filter(|(_, streamed)| !**streamed);
        fixed + choice.window + kept.map(|(bytes, _)| bytes).sum::<u64>()
    }

    #[test]
    fn what_fits_is_left_alone() {
        let choice = choose(&[30 * MB; 4], &[20 * MB; 2], 10 * MB, 170 * MB).unwrap();
        assert_eq!(choice, Choice { streamed: vec![false; 6], window: 0 });
        assert!(choose(&[30 * MB; 4], &[20 * MB; 2], 10 * MB, 170 * MB - 1).unwrap().window > 0);
    }

    #[test]
    fn the_head_is_kept_and_streamed_layers_lie_evenly() {
        // 16 layers of 30 and a head of 120, 20 fixed: 300 are 20 + 120 + a window of 45 + 3
        // layers.
        let choice = choose(&[30 * MB; 16], &[30 * MB; 4], 20 * MB, 300 * MB).unwrap();
        assert_eq!(choice.window, 45 * MB);
        let kept: Vec<usize> = (0..20).filter(|&part| !choice.streamed[part]).collect();
        assert_eq!(kept, [0, 5, 10, 16, 17, 18, 19]);
    }

    #[test]
    fn a_head_that_is_too_large_is_streamed_in_bands() {
        let choice = choose(&[10 * MB; 4], &[10 * MB; 30], 0, 100 * MB).unwrap();
        assert_eq!(choice.window, 18 * MB);
        assert_eq!(choice.streamed[..4], [false; 4], "layers first");
        assert_eq!(choice.streamed.iter().filter(|streamed| **streamed).count(), 26, "bands fill the rest");
    }

    #[test]
    fn little_memory_takes_a_smaller_window() {
        let choice = choose(&[40 * MB; 8], &[40 * MB], 5 * MB, 49 * MB).unwrap();
        assert_eq!((choice.window, choice.streamed), (44 * MB, vec![true; 9]));
    }

    #[test]
    fn too_little_memory_is_told_what_would_do() {
        let least = choose(&[40 * MB, 64 * MB], &[8 * MB], 5 * MB, 70 * MB).unwrap_err();
        assert_eq!(least, (5 + 64 + 4) * MB);
        assert!(choose(&[40 * MB, 64 * MB], &[8 * MB], 5 * MB, least).is_ok());
        assert!(choose(&[40 * MB, 64 * MB], &[8 * MB], 5 * MB, least - 1).is_err());
        assert_eq!(choose(&[MB], &[], u64::MAX - 1, MB).unwrap_err(), u64::MAX);
    }

    #[test]
    fn more_memory_never_streams_more_and_is_never_exceeded() {
        let layers: Vec<u64> = (0..13).map(|index| (20 + index * 7 % 11) * MB).collect();
        let bands = [25 * MB; 6];
        let parts: Vec<u64> = layers.iter().chain(&bands).copied().collect();
        let (mut before, total) = (u64::MAX, parts.iter().sum::<u64>());
        for memory in (0..=total + 12 * MB).step_by(MB as usize) {
            let Ok(choice) = choose(&layers, &bands, 10 * MB, memory) else {
                assert_eq!(before, u64::MAX, "what did once does with more");
                continue;
            };
            assert!(used(&parts, 10 * MB, &choice) <= memory, "{memory}");
            let streamed = parts.iter().zip(&choice.streamed).filter(|(_, streamed)| **streamed);
            let streamed: u64 = streamed.map(|(bytes, _)| bytes).sum();
            // Even spacing and the window's size cost at most one part.
            assert!(streamed <= before.saturating_add(31 * MB), "{memory}: {streamed} after {before}");
            before = streamed;
        }
        assert_eq!(before, 0);
    }
}

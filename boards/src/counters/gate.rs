//! The gate: a counter must count a known amount of traffic before it is used.

use super::TrafficCounter;

/// The smallest and the largest ratio of counted to streamed bytes that pass.
const RATIO: [f64; 2] = [0.9, 1.1];
/// Streams per gate; their median decides.
const STREAMS: usize = 3;

/// A counter that passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Bytes counted per byte streamed: the median of three streams.
    pub ratio: f64,
    /// Bytes of one stream.
    pub streamed_bytes: u64,
}

/// Runs `stream` three times over a buffer far larger than the caches and compares the counter with
/// the bytes that `stream` returns. Fails with the reason if the median ratio is not 0.9 to 1.1.
pub fn gate(counter: &mut dyn TrafficCounter, mut stream: impl FnMut() -> u64) -> Result<Gate, String> {
    let mut ratios = Vec::with_capacity(STREAMS);
    let mut streamed_bytes = 0;
    for _ in 0..STREAMS {
        let before = counter.bytes()?;
        streamed_bytes = stream();
        let after = counter.bytes()?;
        if streamed_bytes == 0 {
            return Err("nothing was streamed to hold the counter against".into());
        }
        let counted =
            after.checked_sub(before).ok_or_else(|| format!("the count fell from {before} to {after}"))?;
        ratios.push(counted as f64 / streamed_bytes as f64);
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[STREAMS / 2];
    let [low, high] = RATIO;
    if (low..=high).contains(&ratio) {
        return Ok(Gate { ratio, streamed_bytes });
    }
    Err(format!(
        "it counted {ratio:.2} of {streamed_bytes} bytes streamed ({:.2} to {:.2} in {STREAMS} streams), expected \
         {low} to {high}",
        ratios[0],
        ratios[STREAMS - 1]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Counts the fraction `share` of the streamed bytes.
    struct Fake {
        streamed: Arc<AtomicU64>,
        share: f64,
    }

    impl TrafficCounter for Fake {
        fn name(&self) -> &str {
            "fake"
        }

        fn system_wide(&self) -> bool {
            true
        }

        fn bytes(&mut self) -> Result<u64, String> {
            if self.share < 0.0 {
                return Err("no counter was free for it".into());
            }
            Ok((self.streamed.load(Ordering::Relaxed) as f64 * self.share) as u64)
        }
    }

    fn passes(share: f64, bytes: u64) -> Result<Gate, String> {
        let streamed = Arc::new(AtomicU64::new(0));
        let mut counter = Fake { streamed: Arc::clone(&streamed), share };
        gate(&mut counter, move || {
            streamed.fetch_add(bytes, Ordering::Relaxed);
            bytes
        })
    }

    #[test]
    fn a_counter_that_sees_what_was_streamed_passes() {
        for share in [0.91, 1.0, 1.09] {
            let Gate { ratio, streamed_bytes } = passes(share, 1 << 30).unwrap();
            assert!((ratio - share).abs() < 1e-6 && streamed_bytes == 1 << 30, "{ratio}");
        }
    }

    #[test]
    fn one_that_sees_less_or_more_or_nothing_is_refused_with_the_ratio() {
        for (share, said) in [(0.5, "0.50"), (3.0, "3.00"), (0.0, "0.00"), (-1.0, "no counter")] {
            let reason = passes(share, 1 << 30).unwrap_err();
            assert!(reason.contains(said), "{reason}");
        }
        assert!(passes(1.0, 0).unwrap_err().contains("nothing was streamed"));
    }
}

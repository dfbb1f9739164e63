//! The log of an external meter that is still writing when the measurement is over.

use crate::time::Time;
use pith_boards::MeasureError;
use pith_boards::meters::PowerLog;
use std::path::Path;
use std::time::Duration;

/// A meter without a new sample for so many of its periods, and for [`STILL`], has ended.
const STILL_PERIODS: f64 = 5.0;

/// Meters may write several samples at once.
const STILL: Duration = Duration::from_secs(1);

/// Shortest time between two looks at the log.
const LOOK: Duration = Duration::from_millis(20);

/// Reads a log, with `shift_seconds` added to its times, once it reaches `end_seconds`: the last
/// sample of a meter is up to one period old.
///
/// Does not wait for a log that is behind by more than `patience`, and no longer than that; nor for
/// one that has ended. The log is then returned as it is, and says itself what it does not hold.
pub fn read_log(
    path: &Path,
    shift_seconds: f64,
    end_seconds: f64,
    patience: Duration,
    time: &mut dyn Time,
) -> Result<PowerLog, MeasureError> {
    let read = || PowerLog::read(path).map(|log| log.shifted(shift_seconds));
    let last = |log: &PowerLog| log.span_seconds()[1];
    let mut log = read()?;
    let begin = time.now();
    let mut moved = begin;
    loop {
        let behind = end_seconds - last(&log);
        let still = STILL.as_secs_f64().max(STILL_PERIODS * log.period_seconds());
        let is_over = time.now() - moved > still || time.now() - begin > patience.as_secs_f64();
        if behind <= 0.0 || behind > patience.as_secs_f64() || is_over {
            return Ok(log);
        }
        let period = Duration::from_secs_f64(log.period_seconds().min(patience.as_secs_f64()));
        time.rest(period.max(LOOK));
        let next = read()?;
        if last(&next) > last(&log) {
            moved = time.now();
        }
        log = next;
    }
}

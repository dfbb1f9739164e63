//! Options for recording a run: the ledger's file, the metrics, and the meters that they need.

use crate::machine::{detect, report_unusable};
use crate::metrics::{self, Publisher};
use crate::output;
use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};
use pith_boards::energy_fit::OWN_PROFILE;
use pith_boards::meters::{ModelMeter, discover};
use pith_boards::profile::{Evidence, Profile};
use pith_boards::{Gauge, Machine};
use pith_format::refuse_inputs;
use pith_report::{Bandwidth, Header, LedgerFormat, LedgerWriter, MachineRecord};
use pith_runtime::{Ledger, Meter, Observer, Session};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Destinations of a run's costs.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Write a line for every token as it is decoded: time, bytes moved, joules, the machine's
    /// state
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ledger: Option<PathBuf>,
    /// Format of the --ledger file [default: csv if its name ends in .csv, otherwise jsonl]
    #[arg(long, value_enum, value_name = "FORM", requires = "ledger")]
    pub ledger_format: Option<FormatArg>,
    /// Write totals as Prometheus text to this file, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub metrics: Option<PathBuf>,
    /// Serve totals as Prometheus text at http://ADDRESS/metrics; a port alone listens on the
    /// loopback interface
    #[arg(long, value_name = "ADDRESS", value_parser = metrics::parse_address)]
    pub metrics_listen: Option<SocketAddr>,
}

/// Formats of a ledger.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArg {
    /// One JSON object per line
    Jsonl,
    /// Comma-separated values
    Csv,
}

impl From<FormatArg> for LedgerFormat {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::Jsonl => Self::Jsonl,
            FormatArg::Csv => Self::Csv,
        }
    }
}

/// The sensors of the machine during a run.
#[derive(Default)]
pub struct Instruments {
    /// Description of the machine.
    pub machine: MachineRecord,
    /// Bandwidth of its memory, if it was probed.
    pub bandwidth: Option<Bandwidth>,
    /// Sources of energy figures.
    pub meters: Vec<Box<dyn Meter>>,
    /// Period of each in milliseconds, if known.
    pub periods: Vec<Option<u64>>,
    /// Source of temperature, clock and throttling.
    pub observer: Option<Box<dyn Observer>>,
}

impl Instruments {
    /// Detects this machine's sensors for a session of `threads` threads. Whatever cannot be
    /// detected is missing. Without a meter, energy is modelled if the machine's profile has a
    /// model.
    pub fn detect(threads: usize) -> Self {
        let root = Path::new("/");
        let mut machine = Machine::detect().ok().map(|machine| MachineRecord {
            processor: machine.processors.first().map(|processor| processor.name.clone()),
            cores: Some(machine.core_count() as u64),
            memory_bytes: machine.memory_bytes,
            board: machine.board,
        });
        let detection =
            Evidence::read(root).map_err(anyhow::Error::from).and_then(|evidence| detect(&evidence, None));
        let profile = detection.map(|detection| detection.profile);
        let profile = profile.map_err(|error| eprintln!("note: no profile of this machine: {error:#}")).ok();
        if let (Some(machine), Some(profile)) = (&mut machine, &profile) {
            machine.board.get_or_insert_with(|| profile.title.clone());
        }
        let discovered = discover(root);
        report_unusable(&discovered.unusable);
        let (mut meters, mut periods) = (Vec::<Box<dyn Meter>>::new(), Vec::new());
        for found in discovered.found {
            meters.push(found.meter);
            periods.push(Some(found.period.as_millis() as u64).filter(|&period| period > 0));
        }
        if meters.is_empty() {
            // A calibrated model is part of the matching profile.
            match profile.as_ref().and_then(|profile| profile.energy_model.clone()) {
                Some(model) if model.joules_per_operation.is_some_and(|cost| cost.value() > 0.0) => {
                    eprintln!(
                        "note: no modelled energy: a ledger counts no operations, and the model asks for them"
                    );
                }
                Some(model) => {
                    meters.push(Box::new(ModelMeter::new(model, None)));
                    periods.push(None);
                }
                None => {}
            }
        }
        Self {
            machine: machine.unwrap_or_default(),
            // Published figures of other machines are no probe of this one.
            bandwidth: profile
                .filter(|profile| profile.name == OWN_PROFILE)
                .and_then(|profile| bandwidth(&profile, threads)),
            meters,
            periods,
            observer: Some(Box::new(Gauge::open(root))),
        }
    }
}

/// The calibrated memory bandwidth for `threads` threads.
fn bandwidth(profile: &Profile, threads: usize) -> Option<Bandwidth> {
    let of =
        |rate: &&pith_boards::profile::Bandwidth| rate.threads.is_some_and(|count| count as usize == threads);
    let rate = profile.bandwidth.iter().find(of)?;
    Some(Bandwidth {
        bytes_per_second: rate.gb_per_s[1] * 1e9,
        threads: rate.threads.map(u64::from),
        source: format!("{}, {}", rate.test, rate.source),
    })
}

/// A ledger and the receivers of its costs.
pub struct Recording {
    /// The ledger of the run; it keeps only sums.
    pub ledger: Ledger,
    file: Option<(PathBuf, SharedWriter)>,
    publisher: Publisher,
}

impl Recording {
    /// Opens all destinations before any work is done.
    ///
    /// None of them may be one of `inputs`, the files that the run reads.
    pub fn begin(args: &LedgerArgs, session: &Session, inputs: &[PathBuf]) -> anyhow::Result<Self> {
        for path in args.ledger.iter().chain(&args.metrics) {
            refuse_inputs(path, inputs)?;
        }
        if let Some(path) = &args.ledger {
            output::refuse_others(path, "a ledger", &[b"{\"pith_ledger\"", b"# {\"pith_ledger\""])?;
        }
        if let Some(path) = &args.metrics {
            output::refuse_others(path, "a file of metrics", &[b"# HELP pith_"])?;
        }
        if args.ledger.is_none() && args.metrics.is_none() && args.metrics_listen.is_none() {
            let ledger = Ledger::new().totals_only();
            return Ok(Self { ledger, file: None, publisher: Publisher::default() });
        }
        let instruments = Instruments::detect(session.threads());
        let mut header = Header::new(session, instruments.machine, &instruments.meters);
        header.bandwidth = instruments.bandwidth;
        for (meter, period) in header.meters.iter_mut().zip(instruments.periods) {
            meter.period_milliseconds = period;
        }
        let mut ledger = Ledger::with_meters(instruments.meters).totals_only();
        if let Some(observer) = instruments.observer {
            ledger = ledger.with_observer(observer);
        }
        let (publisher, mut count) = Publisher::begin(args.metrics.as_deref(), args.metrics_listen, &header)?;
        let file = match &args.ledger {
            Some(path) => Some((path.clone(), writer(path, args.ledger_format, &header)?)),
            None => None,
        };
        let shared = file.as_ref().map(|(_, writer)| Arc::clone(writer));
        let ledger = ledger.with_sink(move |cost| {
            if let Some(writer) = &shared {
                with(writer, |writer| writer.write(cost));
            }
            count(cost);
        });
        Ok(Self { ledger, file, publisher })
    }

    /// Writes buffered lines, since the next one may take a while.
    pub fn flush(&self) {
        if let Some((_, writer)) = &self.file {
            with(writer, LedgerWriter::flush);
        }
    }

    /// Writes the last metrics, and reports errors of earlier writes.
    pub fn finish(self) -> anyhow::Result<()> {
        let published = self.publisher.finish();
        if let Some((path, writer)) = self.file {
            with(&writer, LedgerWriter::flush);
            let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = &mut *writer {
                let error = std::mem::replace(error, io::ErrorKind::Other.into());
                return Err(error).with_context(|| format!("the ledger {} is not complete", path.display()));
            }
        }
        published
    }
}

/// The writer of a ledger's file, or the error that ended it. A full disk ends the file, not the
/// reply.
type SharedWriter = Arc<Mutex<Result<LedgerWriter<File>, io::Error>>>;

fn writer(path: &Path, format: Option<FormatArg>, header: &Header) -> anyhow::Result<SharedWriter> {
    let format = format.map_or_else(|| LedgerFormat::of(path), LedgerFormat::from);
    let place = || path.display().to_string();
    let file = File::create(path).with_context(place)?;
    Ok(Arc::new(Mutex::new(Ok(LedgerWriter::new(file, format, header).with_context(place)?))))
}

/// Calls `work` with the writer, unless it failed before; keeps its error.
fn with(writer: &SharedWriter, work: impl FnOnce(&mut LedgerWriter<File>) -> io::Result<()>) {
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    if let Ok(open) = &mut *writer
        && let Err(error) = work(open)
    {
        *writer = Err(error);
    }
}

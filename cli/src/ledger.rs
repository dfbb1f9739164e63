//! What a run writes down: the ledger's file, metrics, and who reads meters for them.

use crate::board::detect;
use crate::energy::{energy_model, report_unusable};
use crate::metrics::{self, Publisher};
use anyhow::Context;
use clap::{Args, ValueEnum, ValueHint};
use pith_boards::meters::{ModelMeter, discover};
use pith_boards::profile::{Evidence, Profile};
use pith_boards::{Gauge, Machine};
use pith_report::{Bandwidth, Header, LedgerFormat, LedgerWriter, MachineRecord};
use pith_runtime::{Ledger, Meter, Observer, Session, TokenCost};
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// What is written down of a run.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Write a line for every token as it is decoded: time, bytes moved, joules, the machine's state
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ledger: Option<PathBuf>,
    /// Form of the --ledger file [default: csv where its name ends so, otherwise jsonl]
    #[arg(long, value_enum, value_name = "FORM", requires = "ledger")]
    pub ledger_format: Option<FormatArg>,
    /// Keep sums as Prometheus text in this file, for node_exporter's textfile collector
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub metrics: Option<PathBuf>,
    /// Serve sums as Prometheus text at http://ADDRESS/metrics; a port alone is of this machine's loopback
    #[arg(long, value_name = "ADDRESS", value_parser = metrics::parse_address)]
    pub metrics_listen: Option<SocketAddr>,
}

/// Form of a ledger.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArg {
    /// A JSON object a line
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

/// What reads the machine while a model runs.
#[derive(Default)]
pub struct Instruments {
    /// What it is.
    pub machine: MachineRecord,
    /// Its memory's rate, where it was probed.
    pub bandwidth: Option<Bandwidth>,
    /// Sources of energy figures.
    pub meters: Vec<Box<dyn Meter>>,
    /// Source of temperature, clock and throttling.
    pub observer: Option<Box<dyn Observer>>,
}

impl Instruments {
    /// What this machine has, for a session of so many threads. What cannot be found out is missing; without a meter
    /// energy is modelled, where the machine's profile has a model.
    pub fn detect(threads: usize) -> Self {
        let root = Path::new("/");
        let mut machine = Machine::detect().ok().map(|machine| MachineRecord {
            processor: machine.processors.first().map(|processor| processor.name.clone()),
            cores: Some(machine.core_count() as u64),
            memory_bytes: machine.memory_bytes,
            board: machine.board,
        });
        let profile = Evidence::read(root).ok().and_then(|evidence| detect(&evidence, None).ok());
        let profile = profile.map(|detection| detection.profile);
        if let (Some(machine), Some(profile)) = (&mut machine, &profile) {
            machine.board.get_or_insert_with(|| profile.title.clone());
        }
        let discovered = discover(root);
        report_unusable(&discovered.unusable);
        let mut meters: Vec<Box<dyn Meter>> = discovered.found.into_iter().map(|found| found.meter).collect();
        if let (true, Ok(Some(model))) = (meters.is_empty(), energy_model(&None)) {
            meters.push(Box::new(ModelMeter::new(model, None)));
        }
        Self {
            machine: machine.unwrap_or_default(),
            bandwidth: profile.and_then(|profile| bandwidth(&profile, threads)),
            meters,
            observer: Some(Box::new(Gauge::open(root))),
        }
    }
}

/// The rate of memory that a profile has for so many threads, or for as many as its source says nothing of.
fn bandwidth(profile: &Profile, threads: usize) -> Option<Bandwidth> {
    let of = |wanted: Option<usize>| {
        profile.bandwidth.iter().find(move |rate| rate.threads.map(|count| count as usize) == wanted)
    };
    let rate = of(Some(threads)).or_else(|| of(None))?;
    Some(Bandwidth {
        bytes_per_second: rate.gb_per_s[1] * 1e9,
        threads: rate.threads.map(u64::from),
        source: format!("{}, {}", rate.test, rate.source),
    })
}

/// A ledger, and what its costs are handed to.
pub struct Recording {
    /// The ledger of the run; it keeps sums only.
    pub ledger: Ledger,
    file: Option<(PathBuf, Arc<Mutex<Option<io::Error>>>)>,
    publisher: Publisher,
}

impl Recording {
    /// Opens what the options ask for, before any work is done.
    pub fn begin(args: &LedgerArgs, session: &Session) -> anyhow::Result<Self> {
        if args.ledger.is_none() && args.metrics.is_none() && args.metrics_listen.is_none() {
            let ledger = Ledger::new().totals_only();
            return Ok(Self { ledger, file: None, publisher: Publisher::default() });
        }
        let instruments = Instruments::detect(session.threads());
        let mut header = Header::new(session, instruments.machine, &instruments.meters);
        header.bandwidth = instruments.bandwidth;
        let mut ledger = Ledger::with_meters(instruments.meters).totals_only();
        if let Some(observer) = instruments.observer {
            ledger = ledger.with_observer(observer);
        }
        let (publisher, mut count) = Publisher::begin(args.metrics.as_deref(), args.metrics_listen, &header)?;
        let mut write = None;
        let mut file = None;
        if let Some(path) = &args.ledger {
            let failure = Arc::new(Mutex::new(None));
            write = Some(writer(path, args.ledger_format, &header, Arc::clone(&failure))?);
            file = Some((path.clone(), failure));
        }
        let ledger = ledger.with_sink(move |cost| {
            if let Some(write) = &mut write {
                write(cost);
            }
            count(cost);
        });
        Ok(Self { ledger, file, publisher })
    }

    /// Writes the last metrics, and says what could not be written on the way.
    pub fn finish(self) -> anyhow::Result<()> {
        let published = self.publisher.finish();
        if let Some((path, failure)) = self.file
            && let Some(error) = failure.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            return Err(error).with_context(|| format!("the ledger {} is not complete", path.display()));
        }
        published
    }
}

/// Writes each cost as it comes. A disk that fills up ends the file and not the reply.
fn writer(
    path: &PathBuf,
    format: Option<FormatArg>,
    header: &Header,
    failure: Arc<Mutex<Option<io::Error>>>,
) -> anyhow::Result<impl FnMut(&TokenCost) + Send + use<>> {
    let format = format.map_or_else(|| LedgerFormat::of(path), LedgerFormat::from);
    let place = || path.display().to_string();
    let file = File::create(path).with_context(place)?;
    let mut writer = Some(LedgerWriter::new(file, format, header).with_context(place)?);
    Ok(move |cost: &TokenCost| {
        if let Some(open) = &mut writer
            && let Err(error) = open.write(cost)
        {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            writer = None;
        }
    })
}

//! `pith board`

mod calibrate;

use crate::machine::detect;
use crate::output;
use calibrate::{CalibrateArgs, calibrate};
use clap::{Args, Subcommand, ValueHint};
use pith_boards::profile::{Detection, Evidence, Expectation, Origin, Presence, SensorKind, SensorState};
use pith_boards::{
    CacheKind, Choice, CoreClass, Cores, Heat, Machine, Wanted, available_memory_below, cpu_list,
};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// `pith board`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BoardArgs {
    #[command(subcommand)]
    pub command: Option<BoardCommand>,
    /// Use this profile, by name or file, instead of detecting one
    #[arg(long, value_name = "NAME|FILE", value_hint = ValueHint::FilePath)]
    pub profile: Option<String>,
    /// Look at the machine whose /proc and /sys lie in this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true, value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Subcommands of `pith board`
#[derive(Debug, Subcommand)]
pub enum BoardCommand {
    /// Measure memory speed, idle power, and the energy of a byte and an operation; save them as
    /// this machine's profile
    Calibrate(CalibrateArgs),
}

/// Shows this machine, and the evidence for its profile.
pub fn board(args: BoardArgs) -> anyhow::Result<()> {
    if let Some(BoardCommand::Calibrate(args)) = args.command {
        let shipped = detect(&Evidence::read(Path::new("/"))?, None)?.profile.energy_model;
        return calibrate(args, shipped);
    }
    let survey = Survey::of(&args)?;
    output::print(&if args.json { format!("{:#}\n", survey.json()?) } else { survey.text() })?;
    Ok(())
}

/// The shown information.
struct Survey {
    evidence: Evidence,
    detection: Detection,
    machine: Machine,
    available_bytes: Option<u64>,
    cores: Cores,
    choice: Choice,
    sensors: Vec<SensorState>,
    heat: Heat,
}

impl Survey {
    fn of(args: &BoardArgs) -> anyhow::Result<Self> {
        let root = &args.root;
        anyhow::ensure!(root.is_dir(), "--root: {} is no folder", root.display());
        let evidence = Evidence::read(root)?;
        let detection = detect(&evidence, args.profile.as_deref())?;
        let cores = Cores::read(root)?;
        Ok(Self {
            machine: Machine::read(root)?,
            available_bytes: available_memory_below(root)?,
            choice: cores.choose(Wanted::default())?,
            sensors: SensorState::survey(root, &detection.profile),
            heat: Heat::read(root),
            evidence,
            detection,
            cores,
        })
    }

    fn json(&self) -> anyhow::Result<Value> {
        let evidence: Vec<Value> = self
            .evidence
            .lines()
            .into_iter()
            .map(|(path, value)| json!({"path": path, "value": value}))
            .collect();
        Ok(json!({
            "board": self.machine.board,
            "profile": {
                "name": self.detection.profile.name,
                "origin": self.detection.origin,
                "specificity": self.detection.specificity,
                "reasons": self.detection.reasons,
                "others": self.detection.others,
                "content": self.detection.profile,
            },
            "evidence": evidence,
            "classes": self.cores.classes(),
            "cores": self.cores,
            "threads": self.choice,
            "processors": self.machine.processors,
            "caches": self.machine.caches,
            "memory_bytes": self.machine.memory_bytes,
            "available_bytes": self.available_bytes,
            "page_bytes": self.machine.page_bytes,
            "sensors": self.sensors,
            "heat": self.heat,
        }))
    }

    fn text(&self) -> String {
        let mut page = Page::default();
        page.line("board", self.machine.board.clone().unwrap_or_else(|| "says no name".into()));
        self.profile(&mut page);
        self.cores(&mut page);
        self.memory(&mut page);
        self.expectations(&mut page);
        self.sensors(&mut page);
        self.heat(&mut page);
        for note in self.cores.notes.iter().chain(&self.heat.notes) {
            page.line("odd", note.clone());
        }
        page.text
    }

    fn profile(&self, page: &mut Page) {
        let Detection { profile, origin, reasons, .. } = &self.detection;
        let origin = match origin {
            Origin::Shipped => String::new(),
            Origin::File(path) => format!(", from {}", path.display()),
        };
        page.line("profile", format!("{} ({}){origin}", profile.title, profile.name));
        for reason in reasons {
            page.line("because", reason.clone());
        }
        for (path, value) in self.evidence.lines() {
            page.line("read", format!("{path}: {value}"));
        }
        for note in &profile.notes {
            page.line("note", note.clone());
        }
    }

    fn cores(&self, page: &mut Page) {
        let classes = self.cores.classes();
        let mixed = classes.iter().any(|class| !class.big);
        for class in &classes {
            page.line("cores", describe_class(class, mixed, &self.cores));
        }
        if !self.cores.offline.is_empty() {
            page.line("off", format!("CPUs {}", cpu_list(&self.cores.offline)));
        }
        if let Some(allowed) = &self.cores.allowed
            && self.cores.cpus.iter().any(|cpu| !allowed.contains(&cpu.index))
        {
            page.line("allowed", format!("CPUs {} (mask of this process)", cpu_list(allowed)));
        }
        if let Some(quota) = self.cores.quota_cpus {
            page.line("quota", format!("{quota:.2} cores' time (control group)"));
        }
        if let Some(threads) = self.choice.threads {
            let kept = match &self.choice.cpus {
                Some(cpus) => format!(" on CPUs {}", cpu_list(cpus)),
                None => String::new(),
            };
            page.line("threads", format!("{threads}{kept}: {}", self.choice.reason));
        }
        for cache in &self.machine.caches {
            let kind = match cache.kind {
                CacheKind::Data => "d",
                CacheKind::Instruction => "i",
                CacheKind::Unified => "",
            };
            let (level, kib, shared) = (cache.level, cache.bytes / 1024, cache.shared_by);
            page.line("cache", format!("L{level}{kind} {kib} KiB, shared by {shared} (of the first core)"));
        }
    }

    fn memory(&self, page: &mut Page) {
        let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
        if let Some(bytes) = self.machine.memory_bytes {
            let available = self.available_bytes.map(|bytes| format!(", {} of it available", gib(bytes)));
            page.line("memory", gib(bytes) + &available.unwrap_or_default());
        }
        if let Some(bytes) = self.machine.page_bytes {
            page.line("pages", format!("{} KiB", bytes / 1024));
        }
    }

    /// The profile's expected figures, each with its source.
    fn expectations(&self, page: &mut Page) {
        let profile = &self.detection.profile;
        for Expectation { text, source } in profile.expectations() {
            page.line("expected", format!("{text} [{source}]"));
        }
        for Expectation { text, source } in profile.counter_expectations() {
            page.line("counter", format!("{text} [{source}]"));
        }
    }

    fn sensors(&self, page: &mut Page) {
        if self.sensors.is_empty() {
            page.line("sensors", "none of power or energy".into());
        }
        for sensor in &self.sensors {
            let scope = sensor.scope.map(|scope| format!(", {scope:?}").to_lowercase()).unwrap_or_default();
            let rails = match &sensor.rails[..] {
                [] => String::new(),
                rails => format!(" ({})", rails.join(", ")),
            };
            let name = format!("{}{scope}{rails}", sensor_name(sensor));
            page.line(
                "sensor",
                match &sensor.presence {
                    Presence::Present { path } => format!("{name}: present, /{}", path.display()),
                    Presence::Denied { path, remedy } => {
                        format!("{name}: no permission to read /{}; {remedy}", path.display())
                    }
                    Presence::Absent { reason, remedy: Some(remedy) } => {
                        format!("{name}: absent: {reason}; try: {remedy}")
                    }
                    Presence::Absent { reason, remedy: None } => format!("{name}: absent: {reason}"),
                },
            );
        }
    }

    fn heat(&self, page: &mut Page) {
        let Heat { temperature_celsius, frequency_hz, throttle, .. } = &self.heat;
        let celsius = temperature_celsius.map_or("not known".into(), |celsius| format!("{celsius:.1} °C"));
        page.line("heat", celsius);
        if let Some(hz) = frequency_hz {
            page.line("runs at", format!("{} (the fastest core now)", gigahertz(*hz)));
        }
        page.line(
            "throttle",
            match throttle.now {
                Some(true) => format!("slowed down now: {}", throttle.reasons.join("; ")),
                Some(false) => "not slowed down now".into(),
                None => "nothing here tells of this moment".into(),
            },
        );
        if !throttle.since_boot.is_empty() {
            // A server would have a line for each core.
            let (shown, more) =
                (throttle.since_boot.iter().take(4), throttle.since_boot.len().saturating_sub(4));
            let shown: Vec<&str> = shown.map(String::as_str).collect();
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            page.line("earlier", format!("{}{more}", shown.join("; ")));
        }
    }
}

/// Lines of name and value.
#[derive(Default)]
struct Page {
    text: String,
    last: &'static str,
}

impl Page {
    /// Shows a name once for consecutive lines.
    fn line(&mut self, name: &'static str, value: String) {
        let shown = if self.last == name { "" } else { name };
        let _ = writeln!(self.text, "{shown:<9} {value}");
        self.last = name;
    }
}

fn describe_class(class: &CoreClass, mixed: bool, cores: &Cores) -> String {
    let name = class.name.as_deref().unwrap_or("of an unknown kind");
    let mut text = format!("{} × {name}, CPUs {}", class.cpus.len(), cpu_list(&class.cpus));
    if let Some(capacity) = class.capacity {
        let _ = write!(text, ", capacity {capacity}");
    }
    if let Some(hz) = class.max_hz {
        let _ = write!(text, ", up to {}", gigahertz(hz));
    }
    let of_class = cores.cpus.iter().filter(|cpu| class.cpus.contains(&cpu.index));
    if let Some(allowed) = of_class.filter_map(|cpu| cpu.allowed_hz).min()
        && class.max_hz.is_some_and(|hz| allowed < hz)
    {
        let _ = write!(text, ", limited to {} at present", gigahertz(allowed));
    }
    if mixed {
        text += if class.big { ", big" } else { ", small" };
    }
    text
}

fn sensor_name(sensor: &SensorState) -> String {
    match (sensor.kind, &sensor.chip) {
        (SensorKind::Rapl, _) => "RAPL".into(),
        (SensorKind::PiPmic, _) => "PMIC".into(),
        (SensorKind::Hwmon, Some(chip)) => chip.clone(),
        (SensorKind::Hwmon, None) => "hwmon".into(),
        (SensorKind::Battery, _) => "battery".into(),
        (SensorKind::Odpm, _) => "ODPM".into(),
    }
}

fn gigahertz(hz: u64) -> String {
    format!("{:.2} GHz", hz as f64 / 1e9)
}

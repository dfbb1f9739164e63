//! Files of temperature and throttling. Each stays open and is reread from its start, as sysfs
//! allows.

use std::fs::{self, File};
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

/// Plausible temperatures, in °C; others mean a sensor that is off or broken.
const CELSIUS: std::ops::RangeInclusive<f64> = -40.0..=150.0;

/// Plausible core frequencies, in kHz.
const KILOHERTZ: std::ops::RangeInclusive<u64> = 1_000..=20_000_000;

/// The reason for no figure: the fault of the file, or `None` if it vanished or may not be read.
pub(super) type Missing = Option<String>;

/// A file with one number, kept open.
pub(super) struct Open {
    path: PathBuf,
    file: File,
}

impl Open {
    /// `None` if the file does not exist or may not be read.
    pub fn new(path: PathBuf) -> Option<Self> {
        File::open(&path).ok().map(|file| Self { path, file })
    }

    /// Its present content.
    fn text(&mut self) -> Result<String, Missing> {
        let mut bytes = [0; 64];
        let length = self.file.rewind().and_then(|()| self.file.read(&mut bytes)).map_err(|_| None)?;
        Ok(String::from_utf8_lossy(&bytes[..length]).trim().to_string())
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, Missing> {
        let text = self.text()?;
        text.parse().map_err(|_| self.wrong(&text, "a number"))
    }

    fn wrong(&self, found: &str, expected: &str) -> Missing {
        Some(format!("{}: found \"{found}\", expected {expected}", self.path.display()))
    }
}

/// A temperature sensor.
pub(super) struct Temperature {
    pub name: String,
    pub processor: bool,
    open: Open,
}

impl Temperature {
    pub fn celsius(&mut self) -> Result<f64, Missing> {
        let thousandths: i64 = self.open.number()?;
        let celsius = thousandths as f64 / 1000.0;
        if CELSIUS.contains(&celsius) {
            Ok(celsius)
        } else {
            Err(self.open.wrong(&thousandths.to_string(), "-40000 to 150000 thousandths of a degree"))
        }
    }
}

/// The frequency of one core, or of cores that share a clock.
pub(super) struct Frequency(Open);

impl Frequency {
    pub fn hz(&mut self) -> Result<u64, Missing> {
        let kilohertz: u64 = self.0.number()?;
        if KILOHERTZ.contains(&kilohertz) {
            Ok(kilohertz * 1000)
        } else {
            Err(self.0.wrong(&kilohertz.to_string(), "1000 to 20000000 kHz"))
        }
    }
}

/// Source of a limit's state.
pub(super) enum Source {
    /// Bits of a Raspberry Pi's firmware.
    Bits,
    /// A kernel cooling device, by name, that slows the processor down; active above state 0.
    Cooling(String),
    /// An alarm: 1 is set.
    Alarm(&'static str),
    /// A count of events since boot, by name.
    Count { what: String },
}

/// A source that tells whether the machine is throttled.
pub(super) struct Limit {
    pub source: Source,
    open: Open,
}

/// State of a limit.
#[derive(Default)]
pub(super) struct LimitState {
    pub now: Vec<String>,
    pub since_boot: Vec<String>,
    /// For a count, its value.
    pub count: Option<u64>,
    /// For bits, those that stay set since boot.
    pub sticky: u32,
}

/// Meaning of the firmware's bits 0 to 3; bits 16 to 19 tell the same since boot.
const BITS: [&str; 4] = ["under-voltage", "frequency capped", "throttled", "soft temperature limit"];

impl Limit {
    /// A name shared by the same limits of other cores and clusters.
    pub fn kind(&self) -> &str {
        match &self.source {
            Source::Bits => "bits",
            Source::Cooling(name) => name.trim_end_matches(|c: char| c.is_ascii_digit()),
            Source::Alarm(name) => name,
            Source::Count { what } => what.split(' ').next().unwrap_or_default(),
        }
    }

    /// Whether it tells the present state either way. The firmware's flags do, and so do the
    /// kernel's own frequency limits. An unset low-voltage alarm proves nothing, nor does an idle
    /// device that only a PC's firmware tables drive. A count tells of the past.
    pub fn tells(&self, state: &LimitState) -> bool {
        let silent_means_no = match &self.source {
            Source::Bits => true,
            Source::Cooling(name) => name.contains("cpufreq"),
            Source::Alarm(_) | Source::Count { .. } => false,
        };
        silent_means_no || !state.now.is_empty()
    }

    pub fn read(&mut self) -> Result<LimitState, Missing> {
        let mut state = LimitState::default();
        match &self.source {
            Source::Bits => {
                let text = self.open.text()?;
                let digits = text.strip_prefix("0x").unwrap_or(&text);
                let bits = u32::from_str_radix(digits, 16)
                    .map_err(|_| self.open.wrong(&text, "a hexadecimal number"))?;
                let set = |first: usize| {
                    let set = BITS.iter().enumerate().filter(move |(bit, _)| bits >> (first + bit) & 1 == 1);
                    set.map(|(_, name)| format!("{name} (the firmware says {bits:#x})"))
                };
                (state.now, state.since_boot) = (set(0).collect(), set(16).collect());
                state.sticky = bits >> 16;
            }
            Source::Cooling(name) => {
                let level: i64 = self.open.number()?;
                // Powerclamp reports -1 while idle.
                if level > 0 {
                    state.now.push(format!("{name} cools at step {level}"));
                }
            }
            Source::Alarm(name) => {
                if self.open.number::<u8>()? > 0 {
                    state.now.push((*name).to_string());
                }
            }
            Source::Count { what } => {
                let count: u64 = self.open.number()?;
                if count > 0 {
                    state.since_boot.push(format!("{what} was slowed down {count} times"));
                }
                state.count = Some(count);
            }
        }
        Ok(state)
    }
}

/// Every temperature sensor: thermal zones, and processor chips of AMD and Intel, which do not have
/// a zone everywhere.
pub(super) fn temperatures(root: &Path) -> Vec<Temperature> {
    let mut found = Vec::new();
    for folder in folders(&root.join("sys/class/thermal"), "thermal_zone") {
        let Some(open) = Open::new(folder.join("temp")) else { continue };
        let name = short(&folder.join("type")).unwrap_or_else(|| "unnamed zone".into());
        found.push(Temperature { processor: is_processor(&name), name, open });
    }
    for folder in folders(&root.join("sys/class/hwmon"), "hwmon") {
        let Some(name) = short(&folder.join("name")) else { continue };
        if !["k10temp", "zenpower", "coretemp"].contains(&name.as_str()) {
            continue;
        }
        for open in (1..=3).filter_map(|index| Open::new(folder.join(format!("temp{index}_input")))) {
            found.push(Temperature { processor: true, name: name.clone(), open });
        }
    }
    found
}

/// Whether a zone's name identifies it as the processor's.
fn is_processor(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let parts = ["cpu", "x86_pkg_temp", "soc", "bigcore", "littlecore", "tj-thermal"];
    // "cpuss" and "cpu-1-2" are clusters of phones; a charger is not a processor.
    parts.iter().any(|part| name.contains(part)) && !name.contains("charger")
}

/// The frequency of each clock; of each core if the kernel lists no clocks.
pub(super) fn frequencies(root: &Path) -> Vec<Frequency> {
    let cpu = root.join("sys/devices/system/cpu");
    let mut folders_found = folders(&cpu.join("cpufreq"), "policy");
    if folders_found.is_empty() {
        folders_found = folders(&cpu, "cpu").into_iter().map(|folder| folder.join("cpufreq")).collect();
    }
    folders_found
        .iter()
        .filter_map(|folder| Open::new(folder.join("scaling_cur_freq")))
        .map(Frequency)
        .collect()
}

/// Every source that tells whether the processor is throttled.
pub(super) fn limits(root: &Path) -> Vec<Limit> {
    let mut found: Vec<Limit> = Vec::new();
    let mut add = |source: Source, path: PathBuf| {
        found.extend(Open::new(path).map(|open| Limit { source, open }));
    };
    // `soc/soc:firmware` on a Raspberry Pi up to 4, `soc@107c000000/soc@107c000000:firmware` on a
    // 5.
    for soc in folders(&root.join("sys/devices/platform"), "soc") {
        for firmware in folders(&soc, "soc") {
            add(Source::Bits, firmware.join("get_throttled"));
        }
    }
    for folder in folders(&root.join("sys/class/thermal"), "cooling_device") {
        let name = short(&folder.join("type")).unwrap_or_default();
        if ["cpufreq", "thermal-cpufreq", "thermal-idle", "Processor", "intel_powerclamp"]
            .iter()
            .any(|kind| name.starts_with(kind))
        {
            add(Source::Cooling(name), folder.join("cur_state"));
        }
    }
    for folder in folders(&root.join("sys/class/hwmon"), "hwmon") {
        if short(&folder.join("name")).as_deref() == Some("rpi_volt") {
            add(Source::Alarm("under-voltage (rpi_volt)"), folder.join("in0_lcrit_alarm"));
        }
    }
    for folder in folders(&root.join("sys/devices/system/cpu"), "cpu") {
        let cpu = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for part in ["core", "package"] {
            let what = format!("{part} of {cpu}");
            add(Source::Count { what }, folder.join(format!("thermal_throttle/{part}_throttle_count")));
        }
    }
    found
}

/// Folders with a prefix and, except for the platform's, a number; ordered by the number.
fn folders(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u64, String, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(prefix)?;
            let number = rest.parse().ok().or_else(|| (prefix == "soc").then_some(0))?;
            Some((number, name, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(.., path)| path).collect()
}

/// A name in a file.
fn short(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_string())
}

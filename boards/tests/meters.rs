//! Meters on trees of files: they must return the joules of a known load.

#[path = "support/names.rs"]
mod names;
#[path = "support/tree.rs"]
mod tree;

use pith_boards::meters::{Discovered, Found, Integrator, discover, parse_pmic};
use pith_meter::{Joules, Kind, Scope};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

struct Tree(tempfile::TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

fn named<'a>(all: &'a mut Discovered, name: &str) -> &'a mut Found {
    let names: Vec<String> = all.found.iter().map(|found| found.meter.name().to_string()).collect();
    let found = all.found.iter_mut().find(|found| found.meter.name() == name);
    found.unwrap_or_else(|| panic!("{name} is not among {names:?}"))
}

/// Waits until a meter's answer satisfies `holds`.
fn until(found: &mut Found, holds: impl Fn(&Result<Joules, String>) -> bool) -> Result<Joules, String> {
    let started = Instant::now();
    loop {
        let figure = found.meter.energy().map_err(|error| error.reason);
        if holds(&figure) {
            return figure;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{figure:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A sensor of constant power must show it. The bounds hold however late the scheduler runs either
/// thread: time is read before and after each figure, and a figure lost to a late sample is
/// requested again.
fn assert_watts(found: &mut Found, watts: f64) {
    for _ in 0..100 {
        until(found, Result::is_ok).unwrap();
        let begin = Instant::now();
        let before = found.meter.energy();
        let begin = [begin, Instant::now()];
        std::thread::sleep(3 * found.period.max(Duration::from_millis(50)));
        let end = Instant::now();
        let after = found.meter.energy();
        let end = [end, Instant::now()];
        let (Ok(Joules(before)), Ok(Joules(after))) = (before, after) else { continue };
        let least = watts * (end[0] - begin[1]).as_secs_f64();
        let most = watts * (end[1] - begin[0]).as_secs_f64();
        let joules = after - before;
        assert!(0.99 * least <= joules && joules <= 1.01 * most, "{joules} J, {least} J to {most} J");
        return;
    }
    panic!("no figure in 100 attempts");
}

/// Output of a Pi 5's command under a load of `watts`, spread over its twelve rails.
fn pmic(watts: f64) -> String {
    let rails = [
        ("3V7_WL_SW", 3.7, 0.01),
        ("3V3_SYS", 3.3, 0.09),
        ("1V8_SYS", 1.8, 0.08),
        ("DDR_VDD2", 1.1, 0.12),
        ("DDR_VDDQ", 0.6, 0.05),
        ("1V1_SYS", 1.1, 0.06),
        ("0V8_SW", 0.8, 0.07),
        ("VDD_CORE", 0.9, 0.49),
        ("3V3_DAC", 3.3, 0.005),
        ("3V3_ADC", 3.3, 0.005),
        ("0V8_AON", 0.8, 0.01),
        ("HDMI", 5.1, 0.01),
    ];
    let mut text = String::new();
    for (index, (rail, volts, share)) in rails.iter().enumerate() {
        text += &format!(" {rail}_A current({index})={:.8}A\n", watts * share / volts);
    }
    for (index, (rail, volts, _)) in rails.iter().enumerate() {
        text += &format!("{rail}_V volt({})={volts:.8}V\n", 12 + index);
    }
    text + "EXT5V_V volt(24)=5.06788000V\nBATT_V volt(25)=3.01110800V\n"
}

/// A load: rest, prefill, a decode whose power falls slowly as the fan starts, rest.
fn load_watts(seconds: f64) -> f64 {
    match seconds {
        s if s < 10.0 => 2.6,
        s if s < 14.0 => 9.5,
        s if s < 50.0 => 7.2 - 0.02 * (s - 14.0) + 0.4 * (1.7 * s).sin(),
        _ => 2.7,
    }
}

#[test]
fn the_trace_of_a_known_load_on_a_pi_5_gives_its_joules() {
    // The integral at a thousand times the sensor's rate, against the command's resolution and
    // rate.
    let steps = 60 * 5000;
    let truth: f64 = (0..steps).map(|step| load_watts((f64::from(step) + 0.5) / 5000.0) / 5000.0).sum();
    let mut sum = Integrator::new(1.0);
    let mut moment = 0.0;
    let mut jitter = 1u32;
    while moment <= 60.0 {
        sum.push(moment, parse_pmic(&pmic(load_watts(moment))).unwrap());
        jitter = jitter.wrapping_mul(1_103_515_245).wrapping_add(12345);
        moment += 0.19 + f64::from(jitter >> 16 & 0xff) / 255.0 * 0.02;
    }
    let found = sum.energy(60.0).unwrap();
    assert!((found / truth - 1.0).abs() < 0.01, "{found} J, {truth} J");
}

#[cfg(unix)]
#[test]
fn a_pi_5_is_metered_through_its_command() {
    use std::os::unix::fs::PermissionsExt;
    let tree = Tree::new(&[
        ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0"),
        ("pmic.txt", &pmic(5.0)),
    ]);
    let script =
        format!("#!/bin/sh\n[ \"$1\" = pmic_read_adc ] && cat {}\n", tree.root().join("pmic.txt").display());
    tree.write("usr/bin/vcgencmd", &script);
    let command = tree.root().join("usr/bin/vcgencmd");
    fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
    // A process that another test started meanwhile has the script open for writing until it execs.
    let is_busy = |error: std::io::Error| error.kind() == std::io::ErrorKind::ExecutableFileBusy;
    while std::process::Command::new(&command).output().is_err_and(is_busy) {}
    let mut all = discover(tree.root());
    assert!(all.unusable.is_empty(), "{:?}", all.unusable);
    let found = named(&mut all, "pmic");
    assert_eq!((found.meter.scope(), found.meter.kind()), (Scope::Rail, Kind::Measured));
    assert!(found.note.as_ref().unwrap().contains("NVMe"));
    assert_watts(found, 5.0);

    // A broken sensor: figures are missing, with the reason, and return when it does.
    tree.write("pmic.txt", "error=1 error_msg=\"Command not registered\"\n");
    let reason = until(found, Result::is_err).unwrap_err();
    assert!(reason.contains("no sample for") && reason.contains("error_msg"), "{reason}");
    tree.write("pmic.txt", &pmic(5.0));
    until(found, Result::is_ok).unwrap();
}

#[test]
fn a_pi_5_without_its_command_and_a_pi_4_say_what_they_lack() {
    let tree = Tree::new(&[("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")]);
    let all = discover(tree.root());
    assert!(
        all.found.is_empty() && all.unusable[0].reason.contains("sudo apt install"),
        "{:?}",
        all.unusable
    );
    let tree = Tree::new(&[("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0")]);
    let all = discover(tree.root());
    assert!(all.found.is_empty() && all.unusable.is_empty());
}

const PACKAGE: &str = "sys/class/powercap/intel-rapl:0";

#[test]
fn rapl_gives_each_domain_once_and_comes_round_right() {
    let range = 262_143_328_850u64;
    let tree = Tree::new(&[
        ("sys/class/powercap/intel-rapl/name", "control\n"),
        (&format!("{PACKAGE}/name"), "package-0\n"),
        (&format!("{PACKAGE}/energy_uj"), &format!("{}\n", range - 1_000_000)),
        (&format!("{PACKAGE}/max_energy_range_uj"), &format!("{range}\n")),
        (&format!("{PACKAGE}:0/name"), "core\n"),
        (&format!("{PACKAGE}:0/energy_uj"), "5\n"),
        (&format!("{PACKAGE}:1/name"), "dram\n"),
        (&format!("{PACKAGE}:1/energy_uj"), "100\n"),
        (&format!("{PACKAGE}:1/max_energy_range_uj"), "65712999613\n"),
        ("sys/class/powercap/intel-rapl:1/name", "psys\n"),
        ("sys/class/powercap/intel-rapl:1/energy_uj", "7\n"),
        ("sys/class/powercap/intel-rapl:1/max_energy_range_uj", "262143328850\n"),
        ("sys/class/powercap/intel-rapl-mmio:0/name", "package-0\n"),
        ("sys/class/powercap/intel-rapl-mmio:0/energy_uj", "123\n"),
        ("sys/class/powercap/intel-rapl-mmio:0/max_energy_range_uj", "262143328850\n"),
    ]);
    let mut all = discover(tree.root());
    assert!(all.unusable.is_empty(), "{:?}", all.unusable);
    let scopes: Vec<(String, Scope)> =
        all.found.iter().map(|found| (found.meter.name().to_string(), found.meter.scope())).collect();
    let expected =
        [("rapl package-0", Scope::Package), ("rapl dram", Scope::Rail), ("rapl psys", Scope::Board)];
    assert_eq!(scopes, expected.map(|(name, scope)| (name.to_string(), scope)));
    // 30 J from 1 J below the end of the range.
    let package = named(&mut all, "rapl package-0");
    let Joules(before) = package.meter.energy().unwrap();
    tree.write(&format!("{PACKAGE}/energy_uj"), "29000000\n");
    let Joules(after) = package.meter.energy().unwrap();
    assert!((after - before - 30.0).abs() < 0.01 * 30.0, "{}", after - before);
    // A nonsense value costs only its own figure.
    for wrong in ["lots\n", "-5\n", "99999999999999999999999\n", "260000000000\n"] {
        tree.write(&format!("{PACKAGE}/energy_uj"), wrong);
        assert!(package.meter.energy().is_err(), "{wrong}");
    }
    fs::remove_file(tree.root().join(PACKAGE).join("energy_uj")).unwrap();
    let error = package.meter.energy().unwrap_err().to_string();
    assert!(error.contains("rapl package-0") && error.contains("energy_uj"), "{error}");
}

#[test]
fn two_sockets_have_a_domain_of_memory_each() {
    let socket = |index: usize| format!("sys/class/powercap/intel-rapl:{index}");
    let other = "sys/class/powercap/intel-rapl-mmio:0";
    let mut files = Vec::new();
    for index in 0..2 {
        files.push((format!("{}/name", socket(index)), format!("package-{index}\n")));
        files.push((format!("{}:0/name", socket(index)), "dram\n".to_string()));
        files.push((format!("{}/energy_uj", socket(index)), "5\n".to_string()));
        files.push((format!("{}:0/energy_uj", socket(index)), "5\n".to_string()));
    }
    // The first package's memory through another interface.
    files.push((format!("{other}/name"), "package-0\n".to_string()));
    files.push((format!("{other}:0/name"), "dram\n".to_string()));
    files.push((format!("{other}:0/energy_uj"), "5\n".to_string()));
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let all = discover(Tree::new(&files).root());
    assert!(all.unusable.is_empty(), "{:?}", all.unusable);
    let mut names: Vec<&str> = all.found.iter().map(|found| found.meter.name()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["rapl dram of package-0", "rapl dram of package-1", "rapl package-0", "rapl package-1"]
    );
}

#[test]
fn monitors_of_rails_are_known_by_name_and_label() {
    let jetson = "sys/class/hwmon/hwmon3";
    let tree = Tree::new(&[
        (&format!("{jetson}/name"), "ina3221\n"),
        (&format!("{jetson}/in1_label"), "VDD_IN\n"),
        (&format!("{jetson}/in1_input"), "5000\n"),
        (&format!("{jetson}/curr1_input"), "1200\n"),
        (&format!("{jetson}/in2_label"), "VDD_CPU_GPU_CV\n"),
        (&format!("{jetson}/in2_input"), "5000\n"),
        (&format!("{jetson}/curr2_input"), "400\n"),
        (&format!("{jetson}/in3_label"), "VDD_SOC\n"),
        (&format!("{jetson}/in3_enable"), "0\n"),
        (&format!("{jetson}/in3_input"), "5000\n"),
        (&format!("{jetson}/curr3_input"), "0\n"),
        // The first input's shunt and the sum of all currents.
        (&format!("{jetson}/in4_input"), "6\n"),
        (&format!("{jetson}/curr4_input"), "1600\n"),
        ("sys/class/hwmon/hwmon7/name", "ina226\n"),
        ("sys/class/hwmon/hwmon7/power1_input", "3500000\n"),
        ("sys/class/hwmon/hwmon7/in1_input", "5000\n"),
        ("sys/class/hwmon/hwmon7/curr1_input", "700\n"),
        ("sys/class/hwmon/hwmon7/update_interval", "35\n"),
        ("sys/class/hwmon/hwmon8/name", "amd_energy\n"),
        ("sys/class/hwmon/hwmon8/energy1_input", "1000000\n"),
        ("sys/class/hwmon/hwmon8/energy1_label", "Esocket0\n"),
        ("sys/class/hwmon/hwmon9/name", "ina219\n"),
        ("sys/class/hwmon/hwmon9/power1_input", "plenty\n"),
        ("sys/class/hwmon/hwmon10/name", "ina219\n"),
        ("sys/class/hwmon/hwmon10/in1_input", "5000\n"),
        ("sys/class/hwmon/hwmon10/curr1_input", "-700\n"),
        ("sys/class/hwmon/hwmon11/name", "nvme\n"),
        ("sys/class/hwmon/hwmon11/temp1_input", "40000\n"),
    ]);
    let mut all = discover(tree.root());
    let mut names: Vec<&str> = all.found.iter().map(|found| found.meter.name()).collect();
    names.sort_unstable();
    assert_eq!(names, ["amd_energy Esocket0", "ina226 1", "ina3221 VDD_CPU_GPU_CV", "ina3221 VDD_IN"]);
    let mut reasons: Vec<&str> = all.unusable.iter().map(|sensor| sensor.reason.as_str()).collect();
    reasons.sort_unstable();
    assert!(
        reasons.len() == 2 && reasons[0].contains("plenty") && reasons[1].contains("-3.5 W"),
        "{reasons:?}"
    );

    assert_eq!(named(&mut all, "ina226 1").period, Duration::from_millis(35));
    let board = named(&mut all, "ina3221 VDD_IN");
    assert_eq!(board.meter.scope(), Scope::Board);
    assert_watts(board, 6.0);
    assert_eq!(named(&mut all, "ina3221 VDD_CPU_GPU_CV").meter.scope(), Scope::Rail);

    let energy = named(&mut all, "amd_energy Esocket0");
    let Joules(before) = energy.meter.energy().unwrap();
    tree.write("sys/class/hwmon/hwmon8/energy1_input", "3500000\n");
    assert_eq!(energy.meter.energy().unwrap(), Joules(before + 2.5));
    tree.write("sys/class/hwmon/hwmon8/energy1_input", "9000000000000000\n");
    let reason = energy.meter.energy().unwrap_err().reason;
    assert!(reason.contains("rose by 8999999996.5 J in "), "{reason}");
    tree.write("sys/class/hwmon/hwmon8/energy1_input", "9000000001000000\n");
    assert_eq!(energy.meter.energy().unwrap(), Joules(before + 3.5), "and goes on without the leap");
    tree.write("sys/class/hwmon/hwmon8/energy1_input", "10\n");
    assert!(energy.meter.energy().unwrap_err().reason.contains("fell"));
}

#[test]
fn a_laptop_on_battery_is_metered_until_it_is_plugged_in() {
    let battery = "sys/class/power_supply/BAT0";
    let tree = Tree::new(&[
        ("sys/class/power_supply/AC/type", "Mains\n"),
        ("sys/class/power_supply/hidpp_battery_0/type", "Battery\n"),
        ("sys/class/power_supply/hidpp_battery_0/scope", "Device\n"),
        (&format!("{battery}/type"), "Battery\n"),
        (&format!("{battery}/status"), "Discharging\n"),
        (&format!("{battery}/power_now"), "8000000\n"),
    ]);
    let mut all = discover(tree.root());
    assert_eq!((all.found.len(), all.unusable.len()), (1, 0));
    let found = named(&mut all, "battery BAT0");
    assert_eq!(found.meter.scope(), Scope::Board);
    assert_watts(found, 8.0);
    tree.write(&format!("{battery}/status"), "Charging\n");
    let reason = until(found, Result::is_err).unwrap_err();
    assert!(reason.contains("Charging"), "{reason}");
    let all = discover(tree.root());
    assert!(all.found.is_empty() && all.unusable[0].reason.contains("pull the plug"));
}

#[test]
fn a_battery_with_a_hyphen_is_not_metered_as_a_chip() {
    let battery = "sys/class/power_supply/bq27500-0";
    let tree = Tree::new(&[
        (&format!("{battery}/type"), "Battery\n"),
        (&format!("{battery}/status"), "Charging\n"),
        (&format!("{battery}/power_now"), "8000000\n"),
        ("sys/class/hwmon/hwmon0/name", "bq27500_0\n"),
        ("sys/class/hwmon/hwmon0/power1_input", "8000000\n"),
    ]);
    let all = discover(tree.root());
    assert!(all.found.is_empty(), "{}", all.found[0].meter.name());
    assert_eq!(all.unusable.len(), 1);
}

/// A tree, its usable meters, and its unusable ones with the reason.
type Expected = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

#[test]
fn every_recorded_machine_has_its_meters_and_no_others() {
    let expected: [Expected; 6] = [
        ("raspberry-pi-4", &[], &[]),
        // The tree's command is an empty file that cannot be run.
        ("raspberry-pi-5", &[], &[("pmic", "vcgencmd")]),
        ("jetson-orin-nano", &["ina3221 VDD_IN", "ina3221 VDD_CPU_GPU_CV", "ina3221 VDD_SOC"], &[]),
        ("laptop-intel", &["rapl package-0", "rapl psys", "battery BAT0"], &[]),
        ("desktop-amd", &["rapl package-0", "amdgpu PPT"], &[]),
        ("phone-android", &[], &[("battery battery", "Charging")]),
    ];
    assert_eq!(expected.map(|(name, ..)| name), names::TREES);
    for (name, found, unusable) in expected {
        let root = tree::unpack(name);
        let all = discover(root.path());
        let names: Vec<&str> = all.found.iter().map(|found| found.meter.name()).collect();
        assert_eq!(names, found, "{name}");
        let names: Vec<&str> = all.unusable.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, unusable.iter().map(|(sensor, _)| *sensor).collect::<Vec<_>>(), "{name}");
        for (one, (_, reason)) in all.unusable.iter().zip(unusable) {
            assert!(one.reason.contains(reason), "{name}: {one:?}");
        }
    }
}

#[test]
fn a_machine_without_sensors_has_none() {
    let all = discover(Tree::new(&[]).root());
    assert!(all.found.is_empty() && all.unusable.is_empty());
}

//! Recorded trees: each machine is recognised. A damaged or missing file gives a missing figure or
//! an error, never a wrong figure.

#[path = "support/names.rs"]
mod names;
#[path = "support/tree.rs"]
mod tree;

use pith_boards::profile::{Evidence, Library, Presence, SensorKind, SensorState};
use pith_boards::{CacheKind, Cores, Heat, Machine, Wanted, Watch, available_memory_below};
use pith_meter::Scope;
use std::fs;
use std::path::Path;

#[test]
fn each_machine_is_recognised_by_the_right_evidence() {
    for (name, profile, parts) in [
        (
            "raspberry-pi-4",
            "raspberry-pi-4b",
            &["compatible", "raspberrypi,4-model-b", "proc/device-tree/compatible"],
        ),
        (
            "raspberry-pi-5",
            "raspberry-pi-5",
            &["compatible", "raspberrypi,5-model-b", "proc/device-tree/compatible"],
        ),
        ("jetson-orin-nano", "jetson-orin-nano", &["model", "Developer Kit", "proc/device-tree/model"]),
        ("laptop-intel", "laptop-intel", &["vendor", "GenuineIntel", "chassis type 10"]),
        ("desktop-amd", "generic", &["fits every machine", "no other", "better"]),
        ("phone-android", "android-phone", &["Android", "system/bin", "app_process64"]),
    ] {
        let root = tree::unpack(name);
        let detection = Library::shipped().detect(&Evidence::read(root.path()).unwrap());
        assert_eq!(detection.profile.name, profile);
        let reasons = detection.reasons.join("; ");
        assert!(parts.iter().all(|part| reasons.contains(part)), "{name}: {reasons}");
        // No other match is as specific.
        let next = detection.others.first().map(|(_, points)| *points);
        assert!(next < detection.specificity, "{name}: {:?}", detection.others);
    }
}

#[test]
fn machines_are_read_whole() {
    let root = tree::unpack("raspberry-pi-5");
    let machine = Machine::read(root.path()).unwrap();
    assert_eq!((machine.core_count(), machine.page_bytes), (4, Some(16384)));
    assert_eq!(machine.processors[0].name, "Cortex-A76");
    let l3 = machine.caches.iter().find(|cache| cache.level == 3).unwrap();
    assert_eq!((l3.kind, l3.bytes, l3.shared_by), (CacheKind::Unified, 2 << 20, 4));
    let phone = Machine::read(tree::unpack("phone-android").path()).unwrap();
    let kinds: Vec<_> = phone.processors.iter().map(|kind| (kind.name.as_str(), kind.core_count)).collect();
    assert_eq!(kinds, [("Cortex-A520", 2), ("Cortex-A720", 5), ("Cortex-X4", 1)]);
    let desktop = tree::unpack("desktop-amd");
    assert_eq!(available_memory_below(desktop.path()).unwrap(), Some(8_589_934_592 - 1_073_741_824));
}

#[test]
fn threads_go_to_the_big_cores() {
    for (name, threads, cpus) in [
        ("raspberry-pi-4", 4, None),
        ("jetson-orin-nano", 6, None),
        ("laptop-intel", 4, Some(vec![0, 1, 2, 3, 4, 5, 6, 7])),
        // Eight cores; the group allows six.
        ("desktop-amd", 6, None),
        ("phone-android", 6, Some(vec![2, 3, 4, 5, 6, 7])),
    ] {
        let cores = Cores::read(tree::unpack(name).path()).unwrap();
        assert_eq!(cores.notes, [""; 0], "{name}");
        let choice = cores.choose(Wanted::default()).unwrap();
        assert_eq!((choice.threads, choice.cpus), (Some(threads), cpus), "{name}: {}", choice.reason);
    }
    let phone = Cores::read(tree::unpack("phone-android").path()).unwrap();
    let classes = phone.classes();
    let big: Vec<_> =
        classes.iter().map(|class| (class.capacity.unwrap(), class.cpus.len(), class.big)).collect();
    assert_eq!(big, [(325, 2, false), (866, 3, true), (808, 2, true), (1024, 1, true)]);
}

#[test]
fn heat_is_read_from_zones_chips_flags_and_cooling_devices() {
    let heat = |name: &str| Heat::read(tree::unpack(name).path());
    let pi = heat("raspberry-pi-4");
    assert_eq!((pi.temperature_celsius, pi.frequency_hz), (Some(81.303), Some(1_800_000_000)));
    assert_eq!(
        (pi.throttle.now, pi.throttle.reasons.len(), pi.throttle.since_boot.len()),
        (Some(true), 2, 3)
    );
    assert_eq!(heat("raspberry-pi-5").throttle.now, Some(false));
    let jetson = heat("jetson-orin-nano");
    assert_eq!((jetson.temperature_celsius, jetson.throttle.now), (Some(49.125), Some(false)));
    assert_eq!((jetson.frequency_hz, jetson.notes.len()), (Some(1_510_400_000), 1));
    let laptop = heat("laptop-intel");
    assert_eq!((laptop.temperature_celsius, laptop.throttle.now), (Some(63.0), None));
    assert!(!laptop.throttle.since_boot.is_empty());
    // Its counts tell of a period, not of a moment.
    assert_eq!(Watch::begin(tree::unpack("laptop-intel").path()).finish().throttled, Some(false));
    assert_eq!(heat("desktop-amd").temperature_celsius, Some(71.125));
    let phone = heat("phone-android");
    assert_eq!((phone.temperature_celsius, phone.throttle.now), (Some(74.2), Some(true)));
    assert!(phone.throttle.reasons[0].contains("thermal-cpufreq-2"), "{:?}", phone.throttle.reasons);
}

/// The sensors of a tree, by the matching profile.
fn sensors(root: &Path) -> Vec<SensorState> {
    let detection = Library::shipped().detect(&Evidence::read(root).unwrap());
    SensorState::survey(root, &detection.profile)
}

fn present(states: &[SensorState]) -> Vec<(SensorKind, Vec<&str>)> {
    let there = states.iter().filter(|state| matches!(state.presence, Presence::Present { .. }));
    there.map(|state| (state.kind, state.rails.iter().map(String::as_str).collect())).collect()
}

#[test]
fn sensors_are_found_or_missed_for_a_reason() {
    let jetson = sensors(tree::unpack("jetson-orin-nano").path());
    assert_eq!(present(&jetson), [(SensorKind::Hwmon, vec!["VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"])]);
    let laptop = sensors(tree::unpack("laptop-intel").path());
    // The package appears once despite two interfaces; the mouse's battery and the battery's second
    // view do not.
    assert_eq!(
        present(&laptop),
        [
            (SensorKind::Rapl, vec!["package-0"]),
            (SensorKind::Rapl, vec!["psys"]),
            (SensorKind::Battery, vec!["BAT0"])
        ]
    );
    let places: Vec<_> = laptop.iter().map(|state| (state.scope, state.presence.clone())).collect();
    let present_at = |path: &str| Presence::Present { path: path.into() };
    assert_eq!(places[0], (Some(Scope::Package), present_at("sys/class/powercap/intel-rapl:0/energy_uj")));
    assert_eq!(places[1], (Some(Scope::Board), present_at("sys/class/powercap/intel-rapl:1/energy_uj")));
    let pi5 = sensors(tree::unpack("raspberry-pi-5").path());
    assert_eq!((pi5.len(), present(&pi5)[0].0, present(&pi5)[0].1.len()), (1, SensorKind::PiPmic, 12));
    assert!(sensors(tree::unpack("raspberry-pi-4").path()).is_empty());
    let desktop = sensors(tree::unpack("desktop-amd").path());
    let graphics = desktop.iter().find(|state| state.chip.as_deref() == Some("amdgpu")).unwrap();
    assert!(!graphics.expected && graphics.scope.is_none());
    let phone = sensors(tree::unpack("phone-android").path());
    assert!(present(&phone).is_empty());
    let battery = phone.iter().find(|state| state.kind == SensorKind::Battery).unwrap();
    assert!(matches!(&battery.presence, Presence::Absent { reason, .. } if reason.contains("Charging")));

    let root = tree::unpack("raspberry-pi-5");
    fs::remove_file(root.path().join("usr/bin/vcgencmd")).unwrap();
    let Presence::Absent { reason, remedy } = &sensors(root.path())[0].presence else { panic!() };
    assert!(reason.contains("vcgencmd") && remedy.as_ref().unwrap().contains("install"), "{reason}");
    let root = tree::unpack("jetson-orin-nano");
    fs::write(root.path().join("sys/class/hwmon/hwmon1/name"), "other\n").unwrap();
    let states = sensors(root.path());
    let Presence::Absent { reason, remedy } = &states[0].presence else { panic!("{states:?}") };
    assert!(reason.contains("ina3221") && remedy.as_ref().unwrap().contains("modprobe"), "{reason}");
}

/// Every file of every tree in turn is missing, empty, text, negative, huge or not UTF-8. Nothing
/// panics, and each figure stays, is missing, or follows from the other files; none is 0.
#[test]
fn a_damaged_file_never_makes_a_figure() {
    let damages: [Option<&[u8]>; 6] = [
        None,
        Some(b""),
        Some(b"teapot\n"),
        Some(b"-17\n"),
        Some(b"99999999999999999999999\n"),
        Some(b"\xff\xfe\0\x01"),
    ];
    for name in names::TREES {
        let root = tree::unpack(name);
        let (root, mut paths) = (root.path(), tree::files(name));
        let library = Library::shipped();
        let before = (Heat::read(root), Cores::read(root).unwrap(), Machine::read(root).unwrap());
        // One core stands for all with the same files.
        paths.retain(|(path, _)| {
            let number = path.split("/cpu/cpu").nth(1).or_else(|| path.split("/policy").nth(1));
            number.is_none_or(|rest| ["0/", "7/"].iter().any(|kept| rest.starts_with(kept)))
        });
        for (path, content) in &paths {
            let full = root.join(path);
            for damage in damages {
                match damage {
                    None => fs::remove_file(&full).unwrap(),
                    Some(bytes) => fs::write(&full, bytes).unwrap(),
                }
                check(root, &library, &before, &format!("{name}: {path}: {damage:?}"));
            }
            fs::write(&full, content).unwrap();
        }
        assert_eq!(Heat::read(root), before.0, "{name} is whole again");
    }
}

fn check(root: &Path, library: &Library, before: &(Heat, Cores, Machine), place: &str) {
    let heat = Heat::read(root);
    if let Some(celsius) = heat.temperature_celsius {
        // −17 thousandths of a degree are plausible.
        let known = before.0.zones.iter().any(|zone| zone.celsius == celsius) || celsius == -0.017;
        assert!(known, "{place}: {celsius} °C");
    }
    if let Some(hz) = heat.frequency_hz {
        let known = before.1.cpus.iter().any(|cpu| cpu.current_hz == Some(hz))
            || heat.frequency_hz == before.0.frequency_hz;
        assert!(known || hz == 729_600_000, "{place}: {hz} Hz");
    }
    if heat.throttle.now == Some(true) {
        assert_eq!(before.0.throttle.now, Some(true), "{place}: {:?}", heat.throttle);
    }
    Watch::begin(root).finish();
    let cores = Cores::read(root).unwrap();
    for cpu in &cores.cpus {
        let known = before.1.cpus.iter().find(|other| other.index == cpu.index);
        let known = known.unwrap_or_else(|| panic!("{place}: CPU {}", cpu.index));
        let pairs =
            [(cpu.capacity, known.capacity), (cpu.max_hz, known.max_hz), (cpu.current_hz, known.current_hz)];
        assert!(pairs.iter().all(|(now, then)| now.is_none() || now == then), "{place}: {cpu:?}");
    }
    let choice = cores.choose(Wanted::default()).unwrap();
    assert!(
        choice.threads.is_none_or(|threads| threads >= 1 && threads <= before.1.cpus.len()),
        "{place}: {choice:?}"
    );
    assert!(cores.quota_cpus.is_none() || cores.quota_cpus == before.1.quota_cpus, "{place}");
    // An error names the file.
    match Machine::read(root) {
        Ok(machine) => {
            assert!(
                machine.memory_bytes.is_none() || machine.memory_bytes == before.2.memory_bytes,
                "{place}"
            );
            assert!(machine.page_bytes.is_none() || machine.page_bytes == before.2.page_bytes, "{place}");
        }
        Err(error) => assert!(error.to_string().contains(&root.display().to_string()), "{place}: {error}"),
    }
    let detection = library.detect(&Evidence::read(root).unwrap());
    SensorState::survey(root, &detection.profile);
    assert!(!detection.reasons.is_empty(), "{place}");
}

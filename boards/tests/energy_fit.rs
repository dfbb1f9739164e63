//! Energy calibration from a published table.

#[path = "support/names.rs"]
mod names;
#[path = "support/tree.rs"]
mod tree;

use pith_boards::energy_fit::{OWN_PROFILE, OwnProfile, Term, fit, read_table, write_profile};
use pith_boards::profile::{Detection, Evidence, Library, Profile};
use pith_boards::{Ceiling, Machine};
use std::fs;
use std::path::Path;

/// The table of five quantizations on a Raspberry Pi 5; the file names its source.
fn table() -> Vec<pith_boards::energy_fit::Observation> {
    read_table(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sensors/pi5-decode.csv"))).unwrap()
}

#[test]
fn the_table_of_a_raspberry_pi_5_gives_a_fit_with_its_residuals() {
    let observations = table();
    let fit = fit(&observations, None).unwrap();
    // Memory limits decoding: time and bytes are proportional, and the table cannot separate their
    // costs. With both terms the coefficient of a byte would be negative.
    assert!(fit.byte_time_correlation.unwrap() > 0.97, "{:?}", fit.byte_time_correlation);
    assert_eq!(fit.not_shown, [Term::Byte]);
    // Least squares through the origin, by hand: Σ J·t / Σ t².
    let (products, squares) = observations.iter().fold((0.0, 0.0), |(products, squares), seen| {
        (products + seen.joules * seen.seconds, squares + seen.seconds * seen.seconds)
    });
    let watts = fit.coefficient(Term::Time).unwrap();
    assert!(
        (watts.value - products / squares).abs() < 1e-9 && (watts.value - 6.317).abs() < 0.001,
        "{watts:?}"
    );
    let [low, high] = watts.interval95.unwrap();
    assert!(low < 6.2 && high > 6.4 && high - low < 1.5, "{watts:?}");
    assert!((watts.robust - 6.2755).abs() < 0.001, "{watts:?}");

    // The outlier: more joules for a token than the larger Q8_0.
    let furthest = fit.furthest().unwrap();
    assert_eq!((furthest.label.as_str(), furthest.stands_out), ("Q5_K_M", true));
    let percents: Vec<(&str, f64)> =
        fit.residuals.iter().map(|one| (one.label.as_str(), (one.percent * 10.0).round() / 10.0)).collect();
    let expected = [("Q2_K", -0.7), ("Q3_K_M", -4.7), ("Q4_K_M", 5.5), ("Q5_K_M", 10.1), ("Q8_0", -8.0)];
    assert_eq!(percents, expected);
    assert_eq!(fit.residuals.iter().filter(|one| one.stands_out).count(), 1);

    // The alternative: a cost per byte, and none per second.
    let [other] = &fit.alternatives[..] else { panic!("{:?}", fit.alternatives) };
    let [(Term::Byte, each)] = other.terms[..] else { panic!("{other:?}") };
    assert!((each - 0.6169e-9).abs() < 0.0001e-9 && other.rms_percent > fit.rms_percent, "{other:?}");
}

#[test]
fn with_idle_power_known_the_table_gives_a_cost_for_each_byte() {
    let fit = fit(&table(), Some(3.0)).unwrap();
    let byte = fit.coefficient(Term::Byte).unwrap();
    let [low, high] = byte.interval95.unwrap();
    assert!(byte.value > 0.2e-9 && byte.value < 0.45e-9 && low > 0.0 && high < 0.5e-9, "{byte:?}");
    assert_eq!(fit.furthest().unwrap().label, "Q5_K_M");
}

/// The profile of the machine below `root`, saved by a calibration, and the detection after it.
fn saved(root: &Path) -> (Profile, Detection) {
    let rates = [Ceiling { threads: 1, bytes_per_s: 4.321e9 }];
    let machine = Machine::read(root).unwrap();
    let own = OwnProfile::new(root, &machine, &rates, None, vec!["a note".into()]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(format!("{OWN_PROFILE}.toml"));
    write_profile(&path, &own.to_toml()).unwrap();
    let profile = Profile::parse(&fs::read_to_string(&path).unwrap(), &path).unwrap();
    let library = Library::with_folder(folder.path()).unwrap();
    (profile, library.detect(&Evidence::read(root).unwrap()))
}

#[test]
fn a_saved_profile_is_the_one_detected_and_keeps_what_was_known() {
    for name in names::TREES {
        let root = tree::unpack(name);
        let root = root.path();
        let before = Library::shipped().detect(&Evidence::read(root).unwrap()).profile;
        let (profile, detection) = saved(root);
        assert_eq!(detection.profile, profile, "{name}: {:?}", detection.reasons);
        assert_eq!((profile.name.as_str(), &profile.notes[..]), (OWN_PROFILE, &["a note".to_string()][..]));
        assert_eq!((profile.bandwidth.len(), profile.bandwidth[0].gb_per_s), (1, [4.32; 2]), "{name}");
        assert_eq!(profile.energy_model, None, "{name}");
        let of_old = Profile {
            name: before.name.clone(),
            title: before.title.clone(),
            notes: before.notes.clone(),
            detect: before.detect.clone(),
            bandwidth: before.bandwidth.clone(),
            energy_model: before.energy_model.clone(),
            ..profile
        };
        assert_eq!(of_old, before, "{name}");
    }
}

#[test]
fn a_machine_without_a_device_tree_is_known_by_what_rules_look_at() {
    // No name but the part's, which is not in the file, so no rule would find it there.
    let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n\n";
    for cpuinfo in [arm.to_string(), format!("{arm}Hardware\t: Some Chip\n")] {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/cpuinfo"), cpuinfo).unwrap();
        let (profile, detection) = saved(root.path());
        assert_eq!(detection.profile, profile, "{:?}", detection.reasons);
    }
}

#[test]
fn without_new_rates_the_known_ones_stay() {
    let root = tree::unpack("raspberry-pi-5");
    let machine = Machine::read(root.path()).unwrap();
    let text = OwnProfile::new(root.path(), &machine, &[], None, vec![]).to_toml();
    let profile = Profile::parse(&text, Path::new("own")).unwrap();
    let before = Library::shipped().forced("raspberry-pi-5").unwrap().profile;
    assert_eq!(profile.bandwidth, before.bandwidth);
}

//! Memory-traffic counters, on recorded trees and on this machine.

use pith_boards::Streamer;
use pith_boards::counters::{candidates, gate, open};
use std::fs;
use std::path::Path;

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join("sys/bus/event_source/devices").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

#[test]
fn memory_controllers_of_all_makers_are_described() {
    let root = tree(&[
        ("uncore_imc_0/type", "13"),
        ("uncore_imc_0/cpumask", "0"),
        ("uncore_imc_0/format/event", "config:0-7"),
        ("uncore_imc_0/events/data_reads", "event=0x1"),
        ("uncore_imc_0/events/data_reads.scale", "6.103515625e-5"),
        ("uncore_imc_0/events/data_reads.unit", "MiB"),
        ("uncore_imc_0/events/data_writes", "event=0x2"),
        ("uncore_imc_0/events/data_writes.scale", "6.103515625e-5"),
        ("uncore_imc_0/events/data_writes.unit", "MiB"),
        ("rockchip_ddr/type", "10"),
        ("rockchip_ddr/cpumask", "0"),
        ("rockchip_ddr/format/event", "config:0-7"),
        ("rockchip_ddr/events/bytes", "event=0x7"),
        ("rockchip_ddr/events/bytes.scale", "9.536743164e-07"),
        ("rockchip_ddr/events/bytes.unit", "MB"),
        ("amd_umc_0/type", "20"),
        ("amd_umc_0/cpumask", "0"),
        ("amd_umc_0/format/event", "config:0-7"),
        ("amd_umc_1/type", "21"),
        ("amd_umc_1/cpumask", "0"),
        ("amd_umc_1/format/event", "config:0-7"),
        ("amd_df/type", "22"),
        ("amd_df/cpumask", "0"),
        ("amd_df/format/event", "config:0-7,32-37"),
        ("amd_df/format/umask", "config:8-15,24-27"),
        ("armv8_cortex_a76/type", "8"),
        ("armv8_cortex_a76/format/event", "config:0-15"),
        ("armv8_cortex_a76/events/ll_cache_miss_rd", "event=0x37"),
    ]);
    let all = candidates(root.path());
    let seen: Vec<(&str, usize, f64, bool)> = all
        .iter()
        .map(|one| {
            let events = one.events.as_ref().unwrap();
            (one.name.as_str(), events.len(), (one.bytes_per_count * 1e3).round() / 1e3, one.system_wide())
        })
        .collect();
    let expected = [
        ("uncore_imc data_reads + data_writes", 2, 64.0, true),
        ("rockchip-dfi bytes", 1, 1.0, true),
        ("amd_umc umc_cas_cmd.all", 2, 64.0, true),
        ("amd_df dram_channel_data_controller_0 + 1", 2, 64.0, true),
        ("ll_cache_miss_rd × 64 B", 1, 64.0, false),
    ];
    assert_eq!(seen, expected);
    assert_eq!(all[3].events.as_ref().unwrap()[1].config, [0x3847, 0, 0]);
}

#[test]
fn units_that_make_no_sense_are_unusable_with_the_reason() {
    let root = tree(&[
        ("uncore_imc/type", "many"),
        ("uncore_imc/format/event", "config:0-7"),
        ("uncore_imc/events/data_reads", "event=0x1"),
        ("uncore_imc/events/data_writes", "event=0x2"),
    ]);
    let (usable, unusable) = open(root.path());
    assert!(usable.is_empty());
    assert!(unusable[0].reason.contains("many"), "{unusable:?}");
}

#[test]
fn a_machine_without_counters_says_so() {
    let (usable, unusable) = open(tree(&[]).path());
    assert!(usable.is_empty());
    assert!(unusable[0].reason.contains("no unit of this machine"), "{unusable:?}");
}

#[test]
fn every_counter_of_this_machine_is_opened_or_refused_and_one_that_passes_the_gate_goes_on_counting() {
    let (usable, unusable) = open(Path::new("/"));
    println!("{} could be opened, not so: {unusable:?}", usable.len());
    let described: Vec<String> = candidates(Path::new("/")).into_iter().map(|one| one.name).collect();
    let mut told: Vec<&str> = usable.iter().map(|one| one.name()).collect();
    told.extend(unusable.iter().map(|one| one.name.as_str()));
    match described.is_empty() {
        true => assert_eq!(told, ["memory counters"]),
        false => {
            let mut described: Vec<&str> = described.iter().map(String::as_str).collect();
            described.sort_unstable();
            told.sort_unstable();
            assert_eq!(told, described);
        }
    }
    let streamer = Streamer::new(64 << 20);
    for mut counter in usable {
        match gate(counter.as_mut(), || streamer.read(1)) {
            Ok(_) => {
                let before = counter.bytes().unwrap();
                let streamed = streamer.read(1);
                let counted = counter.bytes().unwrap() - before;
                // Other programs only add traffic.
                assert!(counted > streamed / 2, "{}: {counted} of {streamed}", counter.name());
            }
            Err(reason) => println!("{}: {reason}", counter.name()),
        }
    }
}

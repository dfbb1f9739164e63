//! Metrics as a Prometheus server parses them.

use crate::common::{costs, header, meter, plans};
use pith_meter::{Kind, Scope};
use pith_report::Metrics;
use std::collections::HashMap;

/// Samples by full name. Every line must be a comment or a sample; every sample must have a type
/// and be unique.
fn samples(text: &str) -> HashMap<String, f64> {
    let mut samples = HashMap::new();
    let mut types = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            types.push(rest.split(' ').next().unwrap().to_string());
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            assert_eq!(types.last().map(String::as_str), Some(family), "{line}");
            assert!(samples.insert(name.to_string(), value.parse().unwrap()).is_none(), "twice: {line}");
        }
    }
    assert!(text.ends_with('\n'));
    samples
}

#[test]
fn sums_are_those_of_the_costs() {
    let plan = &plans()[0];
    let (header, mut costs) = (header(plan), costs(plan, 50));
    costs[7].energy[0].joules = None;
    let mut metrics = Metrics::new(&header);
    costs.iter().for_each(|cost| metrics.add(cost));
    let samples = samples(&metrics.render());
    let decode = &costs[1..];
    let sum = |value: &dyn Fn(usize) -> f64| (0..decode.len()).map(value).sum::<f64>();
    assert_eq!(samples["pith_tokens_total{phase=\"prefill\"}"], 64.0);
    assert_eq!(samples["pith_tokens_total{phase=\"decode\"}"], sum(&|index| decode[index].tokens as f64));
    assert_eq!(
        samples["pith_kv_read_bytes_total{phase=\"decode\"}"],
        sum(&|index| decode[index].traffic.kv_read_bytes as f64)
    );
    let labels = "{meter=\"pmic, sum\",scope=\"board\",kind=\"measured\",phase=\"decode\"}";
    let joules = sum(&|index| decode[index].energy[0].joules.map_or(0.0, |joules| joules.0));
    assert!((samples[&format!("pith_energy_joules_total{labels}")] - joules).abs() < 1e-9 * joules);
    assert_eq!(samples[&format!("pith_energy_readings_missing_total{labels}")], 1.0);
    assert_eq!(samples["pith_temperature_celsius"], 78.0);
    assert_eq!((samples["pith_throttled"], samples["pith_frequency_hertz"]), (1.0, 2.4e9));
}

#[test]
fn what_is_not_known_has_no_sample() {
    let mut plan = plans().remove(3);
    plan.name = "a \"b\" \\ c\nd";
    let mut metrics = Metrics::new(&header(&plan));
    costs(&plan, 3).iter().for_each(|cost| metrics.add(cost));
    let text = metrics.render();
    assert!(text.contains("model=\"a \\\"b\\\" \\\\ c\\nd\""), "{text}");
    let samples = samples(&text);
    for absent in ["joules", "celsius", "hertz", "throttled"] {
        assert!(!samples.keys().any(|name| name.contains(absent)), "{absent}: {text}");
    }
}

#[test]
fn a_meter_that_never_spoke_has_no_joules_and_twins_are_told_apart() {
    let mut plan = plans().remove(0);
    plan.meters = vec![meter("rail", Scope::Rail, Kind::Measured); 2];
    let mut costs = costs(&plan, 4);
    costs.iter_mut().for_each(|cost| cost.energy[0].joules = None);
    let mut metrics = Metrics::new(&header(&plan));
    costs.iter().for_each(|cost| metrics.add(cost));
    let samples = samples(&metrics.render());
    let name = |meter: &str| {
        format!(
            "pith_energy_joules_total{{meter=\"{meter}\",scope=\"rail\",kind=\"measured\",phase=\"decode\"}}"
        )
    };
    assert!(!samples.contains_key(&name("rail")));
    assert!(samples[&name("rail #2")] > 0.0);
}

//! A profile's figures as text, each with its source.

use super::schema::{Bandwidth, CacheFigure, CoreFigure, Counter, MemoryFigure, Profile};
use crate::cpu::CacheKind;

/// One figure of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation<'a> {
    /// The figure as text.
    pub text: String,
    /// Who published or measured it.
    pub source: &'a str,
}

impl Profile {
    /// The expected board: cores, caches, memory, pages, temperatures.
    pub fn expectations(&self) -> Vec<Expectation<'_>> {
        let cores = self.cores.iter().map(|core| expectation(describe_core(core), &core.source));
        let caches = self.caches.iter().map(|cache| expectation(describe_cache(cache), &cache.source));
        let memory = self.memory.iter().map(|memory| expectation(describe_memory(memory), &memory.source));
        let rates = self.bandwidth.iter().map(|rate| expectation(describe_bandwidth(rate), &rate.source));
        let pages = self.page.iter().map(|page| {
            let sizes: Vec<String> = page.kib.iter().map(u32::to_string).collect();
            expectation(format!("pages of {} KiB", sizes.join(" or ")), &page.source)
        });
        let points = self
            .throttle
            .iter()
            .map(|point| expectation(format!("at {} °C {}", point.celsius, point.effect), &point.source));
        cores.chain(caches).chain(memory).chain(rates).chain(pages).chain(points).collect()
    }

    /// The expected counters of memory traffic.
    pub fn counter_expectations(&self) -> Vec<Expectation<'_>> {
        self.counters.iter().map(|counter| expectation(describe_counter(counter), &counter.source)).collect()
    }
}

fn expectation(text: String, source: &str) -> Expectation<'_> {
    Expectation { text, source }
}

fn describe_core(core: &CoreFigure) -> String {
    let count = core.count.map(|count| format!("{count} × ")).unwrap_or_default();
    let clock = core.mhz.map(|mhz| format!(", {mhz} MHz")).unwrap_or_default();
    let list = |word: &str, names: &[String]| match names {
        [] => String::new(),
        names => format!(", {word} {}", names.join(" ")),
    };
    let (has, lacks) = (list("with", &core.features), list("without", &core.lacks));
    format!("{count}{}{clock}{has}{lacks}", core.name)
}

fn describe_cache(cache: &CacheFigure) -> String {
    let kind = match cache.kind {
        CacheKind::Data => "d",
        CacheKind::Instruction => "i",
        CacheKind::Unified => "",
    };
    let count = cache.count.map(|count| format!("{count} × ")).unwrap_or_default();
    let cores = cache.cores.as_ref().map(|cores| format!(" of {cores}")).unwrap_or_default();
    format!("{count}L{}{kind} {} KiB{cores}", cache.level, cache.kib)
}

fn describe_memory(memory: &MemoryFigure) -> String {
    let bus = memory.bus_bits.map(|bits| format!(", {bits} bits wide")).unwrap_or_default();
    let most = memory.theoretical_gb_per_s.map(|rate| format!(", {rate} GB/s in theory")).unwrap_or_default();
    format!("memory {}{bus}{most}", memory.kind)
}

fn describe_bandwidth(figure: &Bandwidth) -> String {
    let [low, high] = figure.gb_per_s;
    let rate = if low == high { format!("{low} GB/s") } else { format!("{low} to {high} GB/s") };
    let threads = match figure.threads {
        Some(1) => " on 1 thread".into(),
        Some(threads) => format!(" on {threads} threads"),
        None => String::new(),
    };
    let cores = figure.cores.as_ref().map(|cores| format!(" of {cores}")).unwrap_or_default();
    format!("{rate}{threads}{cores}: {}", figure.test)
}

fn describe_counter(counter: &Counter) -> String {
    let bytes = counter.bytes_per_count.map(|bytes| format!(", {bytes} bytes each")).unwrap_or_default();
    let note = counter.note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
    format!("{}: {}{bytes}{note}", counter.name, counter.counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const TEXT: &str = r#"
name = "a-board"
title = "A board"
detect = [{ always = true, source = "s" }]
cores = [{ name = "Big", count = 4, mhz = 2400, features = ["asimddp"], lacks = ["i8mm", "sve"], source = "c" }]
caches = [{ level = 1, kind = "data", kib = 64, count = 4, cores = "Big", source = "k" }]
memory = { kind = "LPDDR4X", bus_bits = 32, theoretical_gb_per_s = 17.1, source = "m" }
bandwidth = [{ threads = 1, cores = "Big", gb_per_s = [14.0, 14.9], test = "read", source = "b" }]
page = { kib = [16, 4], source = "p" }
throttle = [{ celsius = 80, effect = "slows down", source = "t" }]
counters = [{ name = "MISS", counts = "reads", bytes_per_count = 64, note = "may count hits", source = "n" }]
"#;

    #[test]
    fn every_figure_is_said_with_its_source() {
        let profile = Profile::parse(TEXT, Path::new("a-board.toml")).unwrap();
        let all: Vec<(String, &str)> =
            profile.expectations().into_iter().map(|one| (one.text, one.source)).collect();
        let expected = [
            ("4 × Big, 2400 MHz, with asimddp, without i8mm sve", "c"),
            ("4 × L1d 64 KiB of Big", "k"),
            ("memory LPDDR4X, 32 bits wide, 17.1 GB/s in theory", "m"),
            ("14 to 14.9 GB/s on 1 thread of Big: read", "b"),
            ("pages of 16 or 4 KiB", "p"),
            ("at 80 °C slows down", "t"),
        ];
        assert_eq!(all, expected.map(|(text, source)| (text.to_string(), source)));
        let counters = profile.counter_expectations();
        assert_eq!(counters[0].text, "MISS: reads, 64 bytes each; may count hits");
        assert_eq!(counters[0].source, "n");
    }
}

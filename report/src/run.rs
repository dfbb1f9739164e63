//! The runs of a page, one for each ledger.

use crate::reader::LedgerFile;
use crate::statistics::Summary;
use pith_runtime::Phase;
use std::collections::BTreeMap;

/// A ledger with its number, label and sums.
pub(crate) struct Run<'a> {
    /// From 1.
    pub number: usize,
    pub label: String,
    pub ledger: &'a LedgerFile,
    pub prefill: Option<Summary>,
    pub decode: Option<Summary>,
}

impl Run<'_> {
    /// Number and name.
    pub fn numbered(&self) -> String {
        format!("{} {}", self.number, self.label)
    }
}

/// The runs of `ledgers`, in their order. Runs of one model are labelled with their files, too.
pub(crate) fn runs(ledgers: &[LedgerFile]) -> Vec<Run<'_>> {
    let clean = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
    let name = |ledger: &LedgerFile| {
        let model = &ledger.header.model;
        clean(&format!("{} · {}", model.name, model.main_encoding().unwrap_or("no matrices")))
    };
    let mut names = BTreeMap::<String, usize>::new();
    ledgers.iter().for_each(|ledger| *names.entry(name(ledger)).or_default() += 1);
    let label = |ledger: &LedgerFile| {
        let name = name(ledger);
        let stem = ledger.path.file_stem().map(|stem| clean(&stem.to_string_lossy()));
        match (names[&name], stem) {
            (2.., Some(stem)) => format!("{name} · {stem}"),
            _ => name,
        }
    };
    ledgers
        .iter()
        .enumerate()
        .map(|(index, ledger)| Run {
            number: index + 1,
            label: label(ledger),
            ledger,
            prefill: Summary::new(ledger, Phase::Prefill),
            decode: Summary::new(ledger, Phase::Decode),
        })
        .collect()
}

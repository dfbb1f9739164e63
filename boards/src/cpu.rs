//! Cores and caches.

use crate::error::MachineError;
use crate::sysfs::read;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// One kind of core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Processor {
    /// The vendor's name for it.
    pub name: String,
    /// Number of logical cores of this kind.
    pub core_count: usize,
    /// Instruction-set features, by the kernel's names.
    pub features: Vec<String>,
}

/// Content of a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheKind {
    /// Data only.
    Data,
    /// Instructions only.
    Instruction,
    /// Both.
    #[default]
    Unified,
}

/// One cache of the first core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Cache {
    /// 1 is nearest to the core.
    pub level: u32,
    /// Its content.
    pub kind: CacheKind,
    /// Size, in bytes.
    pub bytes: u64,
    /// Number of logical cores that share it.
    pub shared_by: usize,
}

/// Part numbers of cores found on boards, from ARM's main ID register (implementer 0x41).
const ARM_PARTS: [(&str, &str); 25] = [
    ("0xd03", "Cortex-A53"),
    ("0xd04", "Cortex-A35"),
    ("0xd05", "Cortex-A55"),
    ("0xd07", "Cortex-A57"),
    ("0xd08", "Cortex-A72"),
    ("0xd09", "Cortex-A73"),
    ("0xd0a", "Cortex-A75"),
    ("0xd0b", "Cortex-A76"),
    ("0xd0c", "Neoverse-N1"),
    ("0xd0d", "Cortex-A77"),
    ("0xd41", "Cortex-A78"),
    ("0xd42", "Cortex-A78AE"),
    ("0xd44", "Cortex-X1"),
    ("0xd46", "Cortex-A510"),
    ("0xd47", "Cortex-A710"),
    ("0xd48", "Cortex-X2"),
    ("0xd4b", "Cortex-A78C"),
    ("0xd4c", "Cortex-X1C"),
    ("0xd4d", "Cortex-A715"),
    ("0xd4e", "Cortex-X3"),
    ("0xd80", "Cortex-A520"),
    ("0xd81", "Cortex-A720"),
    ("0xd82", "Cortex-X4"),
    ("0xd85", "Cortex-X925"),
    ("0xd87", "Cortex-A725"),
];

/// The kinds of core in `/proc/cpuinfo`, in order of first appearance.
pub(crate) fn processors(root: &Path) -> Result<Vec<Processor>, MachineError> {
    let mut kinds: Vec<Processor> = Vec::new();
    for core in cores(root)? {
        match kinds.iter_mut().find(|kind| kind.name == core.name) {
            Some(kind) => kind.core_count += 1,
            None => {
                let features = core.features.split_whitespace().map(str::to_string).collect();
                kinds.push(Processor { name: core.name, core_count: 1, features });
            }
        }
    }
    Ok(kinds)
}

/// Number and kind of each logical core, from `/proc/cpuinfo`.
pub(crate) fn processor_names(root: &Path) -> Result<Vec<(usize, String)>, MachineError> {
    Ok(cores(root)?.into_iter().filter_map(|core| Some((core.index?, core.name))).collect())
}

/// A paragraph of `/proc/cpuinfo`.
struct Core {
    index: Option<usize>,
    name: String,
    features: String,
}

fn cores(root: &Path) -> Result<Vec<Core>, MachineError> {
    let Some(text) = read(&root.join("proc/cpuinfo"))? else { return Ok(Vec::new()) };
    let core = |paragraph: &str| {
        let field = |name: &str| {
            let mut fields = paragraph.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_string())
        };
        let index = field("processor")?.parse().ok();
        let name = field("model name")
            .or_else(|| arm_name(field("CPU implementer")?, field("CPU part")?))
            .or_else(|| field("uarch"));
        let features = field("flags").or_else(|| field("Features")).or_else(|| field("isa"));
        Some(Core {
            index,
            name: name.unwrap_or_else(|| "unknown".into()),
            features: features.unwrap_or_default(),
        })
    };
    Ok(text.split("\n\n").filter_map(core).collect())
}

fn arm_name(implementer: String, part: String) -> Option<String> {
    let known =
        ARM_PARTS.iter().find(|(number, _)| implementer == "0x41" && part.eq_ignore_ascii_case(number));
    Some(known.map_or_else(|| format!("implementer {implementer} part {part}"), |(_, name)| name.to_string()))
}

/// The caches of the first core.
pub(crate) fn caches(root: &Path) -> Result<Vec<Cache>, MachineError> {
    let mut caches = Vec::new();
    for index in 0..16 {
        let folder = root.join(format!("sys/devices/system/cpu/cpu0/cache/index{index}"));
        let field =
            |name: &str| read(&folder.join(name)).map(|text| text.map(|text| text.trim().to_string()));
        let wrong = |name: &str, found: &str, expected| MachineError::Value {
            path: folder.join(name),
            found: found.to_string(),
            expected,
        };
        let (Some(level), Some(size)) = (field("level")?, field("size")?) else { continue };
        let kind = match field("type")?.as_deref() {
            Some("Data") => CacheKind::Data,
            Some("Instruction") => CacheKind::Instruction,
            _ => CacheKind::Unified,
        };
        caches.push(Cache {
            level: level.parse().map_err(|_| wrong("level", &level, "a number"))?,
            kind,
            bytes: size_bytes(&size).ok_or_else(|| wrong("size", &size, "a size such as 512K"))?,
            shared_by: match field("shared_cpu_list")? {
                Some(list) => {
                    list_len(&list).ok_or_else(|| wrong("shared_cpu_list", &list, "a list such as 0-3,8"))?
                }
                None => 1,
            },
        });
    }
    caches.sort_by_key(|cache| cache.level);
    Ok(caches)
}

fn size_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// The number of processors in a list such as `0-3,8`.
fn list_len(list: &str) -> Option<usize> {
    list.split(',')
        .map(|part| match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
                last.checked_sub(first)?.checked_add(1)
            }
            None => part.parse::<usize>().ok().map(|_| 1),
        })
        .sum()
}

//! The whole machine.

use crate::cpu::{self, Cache, Processor};
use crate::error::MachineError;
use crate::memory::{kilobytes, meminfo};
use crate::sysfs::read;
use serde::Serialize;
use std::path::Path;

/// A machine. An unknown value is `None` or empty, never a guess.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Name of the board or computer: the device tree's model, or the firmware's product name.
    pub board: Option<String>,
    /// Kinds of core, with the number of each.
    pub processors: Vec<Processor>,
    /// Caches of the first core, from the smallest level on.
    pub caches: Vec<Cache>,
    /// Memory managed by the system, in bytes.
    pub memory_bytes: Option<u64>,
    /// Page size, in bytes.
    pub page_bytes: Option<u64>,
}

impl Machine {
    /// The machine this program runs on.
    pub fn detect() -> Result<Self, MachineError> {
        Self::read(Path::new("/"))
    }

    /// The machine whose `/proc` and `/sys` lie below `root`.
    pub fn read(root: &Path) -> Result<Self, MachineError> {
        Ok(Self {
            board: board(root)?,
            processors: cpu::processors(root)?,
            caches: cpu::caches(root)?,
            memory_bytes: meminfo(root, "MemTotal:")?,
            // Every mapping states its page size; a process's first mapping never has huge pages.
            page_bytes: kilobytes(root.join("proc/self/smaps"), "KernelPageSize:")?,
        })
    }

    /// Number of logical cores of all kinds.
    pub fn core_count(&self) -> usize {
        self.processors.iter().map(|processor| processor.core_count).sum()
    }
}

fn board(root: &Path) -> Result<Option<String>, MachineError> {
    for path in
        ["proc/device-tree/model", "sys/firmware/devicetree/base/model", "sys/class/dmi/id/product_name"]
    {
        // Device-tree strings end in a zero byte.
        let text = read(&root.join(path))?;
        let name = text.as_deref().map(|text| text.trim_matches(|c: char| c == '\0' || c.is_whitespace()));
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            return Ok(Some(name.to_string()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::CacheKind;
    use std::fs;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_raspberry_pi_is_recognised() {
        let core = |index: usize| {
            format!(
                "processor\t: {index}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 atomics fphp asimdhp \
                 asimddp\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x4\nCPU part\t: 0xd0b\n\
                 CPU revision\t: 1\n\n"
            )
        };
        let cpuinfo: String =
            (0..4).map(core).collect::<String>() + "Revision\t: c04170\nModel\t\t: Raspberry Pi 5\n";
        let cache = "sys/devices/system/cpu/cpu0/cache";
        let root = tree(&[
            ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0"),
            ("proc/cpuinfo", &cpuinfo),
            ("proc/meminfo", "MemTotal:        8244768 kB\nMemFree: 1 kB\n"),
            ("proc/self/smaps", "5555-6666 r-xp 0 0:0 0 x\nSize: 64 kB\nKernelPageSize:       16 kB\n"),
            (&format!("{cache}/index0/level"), "1\n"),
            (&format!("{cache}/index0/type"), "Data\n"),
            (&format!("{cache}/index0/size"), "64K\n"),
            (&format!("{cache}/index0/shared_cpu_list"), "0\n"),
            (&format!("{cache}/index3/level"), "3\n"),
            (&format!("{cache}/index3/type"), "Unified\n"),
            (&format!("{cache}/index3/size"), "2M\n"),
            (&format!("{cache}/index3/shared_cpu_list"), "0-3\n"),
        ]);
        let machine = Machine::read(root.path()).unwrap();
        assert_eq!(machine.board.as_deref(), Some("Raspberry Pi 5 Model B Rev 1.0"));
        assert_eq!(machine.memory_bytes, Some(8_244_768 * 1024));
        assert_eq!(machine.page_bytes, Some(16 << 10));
        assert_eq!(machine.core_count(), 4);
        let [processor] = &machine.processors[..] else { panic!("{:?}", machine.processors) };
        assert_eq!(processor.name, "Cortex-A76");
        assert!(processor.features.iter().any(|feature| feature == "asimddp"));
        assert_eq!(
            machine.caches,
            [
                Cache { level: 1, kind: CacheKind::Data, bytes: 64 << 10, shared_by: 1 },
                Cache { level: 3, kind: CacheKind::Unified, bytes: 2 << 20, shared_by: 4 },
            ]
        );
    }

    #[test]
    fn two_kinds_of_core_are_told_apart() {
        let part = |part: &str| format!("processor : 0\nCPU implementer : 0x41\nCPU part : {part}\n\n");
        let cpuinfo = part("0xd05").repeat(4) + &part("0xd0b").repeat(2) + &part("0xfff");
        let machine = Machine::read(tree(&[("proc/cpuinfo", &cpuinfo)]).path()).unwrap();
        let kinds: Vec<_> = machine.processors.iter().map(|p| (p.name.as_str(), p.core_count)).collect();
        assert_eq!(kinds, [("Cortex-A55", 4), ("Cortex-A76", 2), ("implementer 0x41 part 0xfff", 1)]);
    }

    #[test]
    fn a_laptop_is_recognised() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Some CPU @ 3.00GHz\nflags\t\t: fpu avx2 fma\n\n".repeat(2);
        let root = tree(&[("proc/cpuinfo", &cpuinfo), ("sys/class/dmi/id/product_name", "Book 13\n")]);
        let machine = Machine::read(root.path()).unwrap();
        assert_eq!(machine.board.as_deref(), Some("Book 13"));
        assert_eq!(machine.processors[0].name, "Some CPU @ 3.00GHz");
        assert_eq!((machine.core_count(), machine.memory_bytes), (2, None));
    }

    #[test]
    fn an_empty_tree_tells_nothing() {
        let machine = Machine::read(tree(&[]).path()).unwrap();
        let (processors, caches) = (vec![], vec![]);
        assert_eq!(
            machine,
            Machine { board: None, processors, caches, memory_bytes: None, page_bytes: None }
        );
    }

    #[test]
    fn nonsense_is_named_with_its_file() {
        let error =
            Machine::read(tree(&[("proc/meminfo", "MemTotal: lots\n")]).path()).unwrap_err().to_string();
        assert!(error.contains("proc/meminfo") && error.contains("lots"), "{error}");
        let cache = "sys/devices/system/cpu/cpu0/cache/index0";
        let root = tree(&[(&format!("{cache}/level"), "1"), (&format!("{cache}/size"), "wide")]);
        let error = Machine::read(root.path()).unwrap_err().to_string();
        assert!(error.contains("index0/size") && error.contains("wide"), "{error}");
    }
}

//! Large pages of a process's memory, as Linux reports them.

use std::fs;
use std::ops::Range;

/// Whether the system gives large pages to memory that asks for them.
pub(crate) fn has_large_pages() -> bool {
    let setting = fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled");
    setting.is_ok_and(|setting| is_on(&setting))
}

/// Number of these bytes that lie in large pages; `None` where the system does not tell. Counts
/// whole mappings, which the bytes should be made of.
pub(crate) fn large_bytes(bytes: &[u8]) -> Option<u64> {
    let start = bytes.as_ptr() as usize;
    Some(large_bytes_in(&fs::read_to_string("/proc/self/smaps").ok()?, start..start + bytes.len()))
}

/// Whether a setting such as `always [madvise] never` is another than `never`.
fn is_on(setting: &str) -> bool {
    ["[always]", "[madvise]"].iter().any(|chosen| setting.contains(chosen))
}

/// Sums the large pages, anonymous and of files, of the mappings that touch these addresses.
fn large_bytes_in(smaps: &str, addresses: Range<usize>) -> u64 {
    let (mut within, mut bytes) = (false, 0);
    for line in smaps.lines() {
        if let Some(range) = mapping(line) {
            within = range.start < addresses.end && addresses.start < range.end;
        } else if within
            && let Some((name, value)) = line.split_once(':')
            && matches!(name, "AnonHugePages" | "FilePmdMapped" | "ShmemPmdMapped")
        {
            let kilobytes = value.trim().trim_end_matches("kB").trim().parse::<u64>();
            bytes += 1024 * kilobytes.unwrap_or(0);
        }
    }
    bytes
}

/// The addresses of a mapping, if the line begins one: `7f6bf1000000-7f6bf1108000 r--s …`.
fn mapping(line: &str) -> Option<Range<usize>> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
7f6bf1000000-7f6bf1400000 r--s 00000000 fe:00 5308561                    /models/a b.pith
Size:               4096 kB
AnonHugePages:         0 kB
FilePmdMapped:      2048 kB
VmFlags: rd mr me ms hg 
7f6bf1400000-7f6bf2000000 rw-p 00000000 00:00 0 
AnonHugePages:     12288 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
";

    #[test]
    fn large_pages_of_the_mappings_that_are_touched_count() {
        let bytes = |range| large_bytes_in(SMAPS, range);
        assert_eq!(bytes(0x7f6bf1000000..0x7f6bf1400000), 2 << 20);
        assert_eq!(bytes(0x7f6bf1400000..0x7f6bf1800000), 12 << 20);
        assert_eq!(bytes(0x7f6bf13fffff..0x7f6bf1400001), 14 << 20);
        assert_eq!(bytes(0x1000..0x2000), 0);
    }

    #[test]
    fn a_setting_is_on_unless_it_is_never() {
        assert!(is_on("always [madvise] never\n") && is_on("[always] madvise never\n"));
        assert!(!is_on("always madvise [never]\n") && !is_on(""));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_own_memory_is_found() {
        let bytes = vec![1u8; 64 << 10];
        assert!(large_bytes(&bytes).is_some());
    }
}

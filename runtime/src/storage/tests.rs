use super::*;

/// Every storage of the same bytes: the whole file mapped, an odd offset of a longer file, a copy,
/// and memory.
fn all(folder: &Path, content: &[u8]) -> Vec<Storage> {
    let whole = folder.join("whole");
    std::fs::write(&whole, content).unwrap();
    let longer = folder.join("longer");
    let offset = 4096 + 17;
    std::fs::write(&longer, [&vec![0xaa; offset], content, &[0xbb; 5000]].concat()).unwrap();
    let part = Extent { offset: offset as u64, len: content.len() as u64 };
    let file = |path| open_file(path).unwrap();
    let ((file_a, extent), (file_b, _)) = (file(&whole), file(&longer));
    let shared: Arc<[u8]> = content.into();
    vec![
        Storage::open("whole", file_a.try_clone().unwrap(), extent).unwrap(),
        Storage::open("longer", file_b.try_clone().unwrap(), part).unwrap(),
        Storage::copy("whole", &file_a, extent).unwrap(),
        Storage::copy("longer", &file_b, part).unwrap(),
        Storage::Bytes(content.to_vec().into()),
        Storage::Bytes(shared.into()),
    ]
}

#[test]
fn pages_come_and_go_and_the_bytes_stay() {
    let folder = tempfile::tempdir().unwrap();
    for len in [0, 3, 100_000] {
        let content: Vec<u8> = (0..len).map(|index| (index * 31 % 251) as u8).collect();
        for storage in all(folder.path(), &content) {
            assert_eq!(&storage[..], content);
            for range in [0..len, 4096..8192, 5..6, 70_000..100_000, 7..7, 5..usize::MAX] {
                storage.will_need(range.clone());
                storage.random(range.clone());
                assert!(!storage.huge(range.clone(), true) || range.end <= content.len());
                storage.huge(range.clone(), false);
                storage.touch(range.clone());
                // The system decides whether locking is permitted.
                let locked = storage.lock(range.clone()).is_ok();
                assert!(!locked || range.end <= content.len());
                storage.unlock(range.clone());
                storage.release(range);
                assert_eq!(&storage[..], content);
            }
            storage.check("the file").unwrap();
        }
    }
}

#[test]
fn bytes_that_are_given_away_begin_on_a_cache_line() {
    for len in [0usize, 1, 63, 64, 65, 200_000] {
        for front in 0..3 {
            let content: Vec<u8> = (0..len + front).map(|index| (index % 251) as u8).collect();
            // A vector with some spare capacity.
            let mut bytes = Vec::with_capacity(len + 50 * front);
            bytes.extend_from_slice(&content[front..]);
            let storage = Storage::Bytes(bytes.into());
            assert_eq!(&storage[..], &content[front..]);
            assert!(len == 0 || storage.as_ptr().align_offset(LINE_BYTES) == 0);
        }
    }
}

#[test]
fn a_part_that_the_file_does_not_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("short");
    std::fs::write(&path, [0; 100]).unwrap();
    for (offset, len, end) in [(0, 101, 101), (90, 11, 101), (u64::MAX, 2, u64::MAX)] {
        let extent = Extent { offset, len };
        let copy = |name: &str, file: File, extent| Storage::copy(name, &file, extent);
        for make in [Storage::open, copy] {
            let error = make("short", open_file(&path).unwrap().0, extent).err().unwrap();
            let RuntimeError::FileTooShort { expected_bytes, found_bytes: 100, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(expected_bytes, end);
        }
    }
}

#[test]
fn a_file_that_shrinks_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("private");
    std::fs::write(&path, [1; 10_000]).unwrap();
    let (file, extent) = open_file(&path).unwrap();
    let storage = Storage::open("private", file, extent).unwrap();
    storage.check("private").unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(9_999).unwrap();
    let message = storage.check("private").unwrap_err().to_string();
    assert!(
        message.contains("private") && message.contains("10000") && message.contains("9999"),
        "{message}"
    );
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = open_file(&folder.path().join("missing.pith")).unwrap_err().to_string();
    assert!(message.contains("missing.pith: open:"), "{message}");
    let (file, extent) = open_file(folder.path()).unwrap();
    let message = Storage::open("folder", file, extent).err().unwrap().to_string();
    assert!(message.contains("directory"), "{message}");
}

//! Reading a part of a file into memory.

use std::fs::File;
use std::io;

/// Bytes that a thread reads at a time: several large pages, so that no two threads share one.
#[cfg(unix)]
const PIECE_BYTES: usize = 8 << 20;

/// Most threads that read. A few copy faster than memory takes it.
#[cfg(unix)]
const MOST_THREADS: usize = 4;

/// Fills `out` from `offset` on. Where the system can read at an offset, several threads share the
/// pieces: most of the time goes into new pages and copying.
#[cfg(unix)]
pub fn read(file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    use std::sync::Mutex;
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get()).min(MOST_THREADS);
    let pieces = Mutex::new(out.chunks_mut(PIECE_BYTES).enumerate());
    let work = || loop {
        let next = pieces.lock().map_err(|_| io::ErrorKind::Other)?.next();
        let Some((index, piece)) = next else { return Ok(()) };
        file.read_exact_at(piece, offset + (index * PIECE_BYTES) as u64)?;
    };
    std::thread::scope(|scope| {
        // A thread that cannot be started is done without.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let own = work();
        let join = |other: std::thread::ScopedJoinHandle<'_, io::Result<()>>| {
            other.join().unwrap_or(Err(io::ErrorKind::Other.into()))
        };
        others.into_iter().map(join).fold(own, io::Result::and)
    })
}

/// Fills `out` from `offset` on.
#[cfg(not(unix))]
pub fn read(mut file: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
    use std::io::{Read, Seek, SeekFrom};
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_read_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bytes");
        let bytes: Vec<u8> = (0..20 << 20).map(|i: u32| (i ^ (i >> 11)) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        let mut out = vec![0; bytes.len() - 77];
        read(&file, 77, &mut out).unwrap();
        assert!(out == bytes[77..]);
        let error = read(&file, 78, &mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! A directory that outlives the process: one append-only file per partition, and one for everything else.
//!
//! ```text
//! DIR/lock                             held by the one process that has the cluster open
//! DIR/meta.log                         entries: topics, epochs, transactions, committed offsets
//! DIR/partitions/TOPIC-ID/PARTITION.log    records
//!
//! file  = magic "kstream" + kind 'M' or 'P' (8 bytes), format version u32 = 1, frames
//! frame = length u32, CRC-32 (IEEE) of the payload u32, payload (see `codec`)
//! ```
//!
//! Written with plain writes and never synced: what was written survives the end of the process, however it ends, but
//! not necessarily that of the machine. Records wait in a buffer until somebody is told that they are there; the meta
//! log is only written when every record before it is. So after a crash each file is a prefix of what was written,
//! and no offset or decision is known of records that are lost.
//!
//! Everything is held in memory as well; the directory is only read when it is opened.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::client::embedded::codec::Entry;
use crate::client::embedded::log::Stored;
use crate::error::{Error, ErrorKind, Result};

const VERSION: u32 = 1;
const HEADER: usize = 12;
const FRAME: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Meta,
    Partition,
}

impl Kind {
    fn header(self) -> [u8; HEADER] {
        let mut header = *b"kstream?\0\0\0\0";
        header[7] = match self {
            Kind::Meta => b'M',
            Kind::Partition => b'P',
        };
        header[8..].copy_from_slice(&VERSION.to_le_bytes());
        header
    }
}

#[derive(Debug)]
pub(super) struct Storage {
    directory: PathBuf,
    meta: LogFile,
    partitions: HashMap<(Uuid, i32), LogFile>,
    /// Partitions with records in their buffer.
    dirty: Vec<(Uuid, i32)>,
    /// After a failed write memory and directory differ: nothing more is taken.
    failed: Option<String>,
    payload: Vec<u8>,
    /// Held until the process ends or the cluster is dropped.
    _lock: File,
}

#[derive(Debug)]
struct LogFile {
    file: BufWriter<File>,
    bytes: u64,
    is_dirty: bool,
}

impl Storage {
    /// Locks the directory, creating it if need be, and gives what the meta log holds.
    pub(super) fn open(directory: &Path) -> Result<(Storage, Vec<Entry>)> {
        let failed = |error| cannot_open(directory, "the directory cannot be written to", error);
        fs::create_dir_all(directory.join("partitions")).map_err(failed)?;
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).open(directory.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => Error::new(
                ErrorKind::Unavailable,
                format!(
                    "could not open the embedded cluster in {}: another cluster has it open, in this process or in \
                     another one: close that one, or name another directory",
                    directory.display()
                ),
            ),
            TryLockError::Error(error) => failed(error),
        })?;
        let (meta, payloads) = LogFile::open(&directory.join("meta.log"), Kind::Meta)?;
        let entries = payloads.iter().map(|payload| Entry::decode(payload)).collect::<Result<_>>();
        let entries = entries.map_err(|error| damaged(&directory.join("meta.log")).with_source(error))?;
        let storage = Storage {
            directory: directory.to_owned(),
            meta,
            partitions: HashMap::new(),
            dirty: Vec::new(),
            failed: None,
            payload: Vec::new(),
            _lock: lock,
        };
        Ok((storage, entries))
    }

    /// Opens a partition's file, a new one if need be, and gives its records.
    pub(super) fn open_partition(&mut self, topic: Uuid, partition: i32) -> Result<Vec<Stored>> {
        let path = self.path(topic, partition);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| cannot_open(&path, "its directory cannot be created", error))?;
        }
        let (file, payloads) = LogFile::open(&path, Kind::Partition)?;
        self.partitions.insert((topic, partition), file);
        let records = payloads.iter().map(|payload| Stored::decode(payload)).collect::<Result<Vec<_>>>();
        records.map_err(|error| damaged(&path).with_source(error))
    }

    /// Removes the files of topics that are no more.
    pub(super) fn remove_topics_except(&mut self, keep: impl Fn(Uuid) -> bool) {
        self.partitions.retain(|(topic, _), _| keep(*topic));
        self.dirty.retain(|(topic, _)| keep(*topic));
        let Ok(entries) = fs::read_dir(self.directory.join("partitions")) else { return };
        for entry in entries.flatten() {
            let id = entry.file_name().to_str().and_then(|name| Uuid::try_parse(name).ok());
            if id.is_some_and(|id| !keep(id)) {
                // A file that stays is removed the next time: nothing refers to it.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Fails after a write has failed.
    pub(super) fn check(&self) -> Result<()> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(Error::new(
                ErrorKind::Closed,
                format!(
                    "the embedded cluster in {} takes nothing more since a write failed ({why}): make room and open \
                     it anew",
                    self.directory.display()
                ),
            )),
        }
    }

    /// Buffers a record; [`flush`](Storage::flush) makes it last.
    pub(super) fn append(&mut self, topic: Uuid, partition: i32, record: &Stored) -> Result<()> {
        self.check()?;
        let key = (topic, partition);
        let Some(file) = self.partitions.get_mut(&key) else {
            let context = format!("the file of partition {partition} of topic {topic} is not open");
            return Err(Error::new(ErrorKind::Internal, context));
        };
        self.payload.clear();
        record.encode(&mut self.payload);
        if !file.is_dirty {
            file.is_dirty = true;
            self.dirty.push(key);
        }
        let written = file.append(&self.payload);
        self.note(written)
    }

    /// Hands what is buffered to the operating system: it survives this process from now on.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.check()?;
        let mut written = Ok(());
        for key in self.dirty.drain(..) {
            if let Some(file) = self.partitions.get_mut(&key) {
                file.is_dirty = false;
                written = written.and(file.file.flush());
            }
        }
        self.note(written)
    }

    /// Writes an entry, after all records that were appended before it.
    pub(super) fn write(&mut self, entry: &Entry) -> Result<()> {
        self.flush()?;
        self.payload.clear();
        entry.encode(&mut self.payload);
        let written = self.meta.append(&self.payload).and_then(|()| self.meta.file.flush());
        self.note(written)
    }

    /// Whether the meta log is mostly history.
    pub(super) fn wants_snapshot(&self) -> bool {
        self.meta.bytes > 16 << 20
    }

    /// Puts a new meta log in the place of the old one.
    pub(super) fn replace_meta(&mut self, entries: &[Entry]) -> Result<()> {
        self.flush()?;
        let payloads = entries.iter().map(|entry| |out: &mut Vec<u8>| entry.encode(out));
        let written = LogFile::replace(&self.directory.join("meta.log"), Kind::Meta, payloads);
        let written = written.map(|file| self.meta = file);
        self.note(written)
    }

    /// Puts new records in the place of a partition's file.
    pub(super) fn replace_partition<'a>(
        &mut self,
        topic: Uuid,
        partition: i32,
        records: impl Iterator<Item = &'a Stored>,
    ) -> Result<()> {
        self.flush()?;
        let payloads = records.map(|record| |out: &mut Vec<u8>| record.encode(out));
        let written = LogFile::replace(&self.path(topic, partition), Kind::Partition, payloads);
        let written = written.map(|file| {
            self.partitions.insert((topic, partition), file);
        });
        self.note(written)
    }

    /// How long a partition's file is.
    pub(super) fn bytes(&self, topic: Uuid, partition: i32) -> u64 {
        self.partitions.get(&(topic, partition)).map_or(0, |file| file.bytes)
    }

    fn path(&self, topic: Uuid, partition: i32) -> PathBuf {
        self.directory.join("partitions").join(topic.to_string()).join(format!("{partition}.log"))
    }

    fn note(&mut self, written: io::Result<()>) -> Result<()> {
        written.map_err(|error| {
            self.failed = Some(error.to_string());
            let context = format!("could not write to the embedded cluster in {}", self.directory.display());
            Error::new(ErrorKind::Unavailable, context).with_source(error)
        })
    }
}

impl LogFile {
    /// Opens a file for appending, cuts a torn tail off, and gives the payloads before it.
    fn open(path: &Path, kind: Kind) -> Result<(LogFile, Vec<Vec<u8>>)> {
        let failed = |error| cannot_open(path, "the file cannot be read and written", error);
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error)),
        };
        if bytes.len() < HEADER {
            // New, or torn while its header was written: it never held a frame.
            let file = LogFile::replace(path, kind, std::iter::empty::<fn(&mut Vec<u8>)>()).map_err(failed)?;
            return Ok((file, Vec::new()));
        }
        if bytes.get(..HEADER) != Some(&kind.header()[..]) {
            return Err(Error::corrupted(format!(
                "could not open {}: it is no file of an embedded cluster, or of another version than {VERSION}",
                path.display()
            )));
        }
        let (payloads, end) = frames(&bytes).ok_or_else(|| damaged(path))?;
        let file = OpenOptions::new().append(true).open(path).map_err(failed)?;
        if end < bytes.len() {
            tracing::warn!(file = %path.display(), offset = end, bytes = bytes.len() - end, "a torn tail is cut off");
            file.set_len(end as u64).map_err(failed)?;
        }
        Ok((LogFile::new(file, end as u64), payloads))
    }

    fn new(file: File, bytes: u64) -> LogFile {
        LogFile { file: BufWriter::with_capacity(32 << 10, file), bytes, is_dirty: false }
    }

    /// Writes a file beside and moves it into place: a crash leaves the old one or the new one.
    fn replace<E: FnOnce(&mut Vec<u8>)>(
        path: &Path,
        kind: Kind,
        payloads: impl Iterator<Item = E>,
    ) -> io::Result<LogFile> {
        let beside = path.with_extension("new");
        let mut new = LogFile::new(File::create(&beside)?, HEADER as u64);
        new.file.write_all(&kind.header())?;
        let mut payload = Vec::new();
        for encode in payloads {
            payload.clear();
            encode(&mut payload);
            new.append(&payload)?;
        }
        new.file.flush()?;
        fs::rename(&beside, path)?;
        Ok(new)
    }

    fn append(&mut self, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).map_err(|_| io::Error::other("a record is beyond 4 GiB"))?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&crc32(payload).to_le_bytes())?;
        self.file.write_all(payload)?;
        self.bytes += (FRAME + payload.len()) as u64;
        Ok(())
    }
}

/// The payloads, and where the torn tail begins. None when bytes in the middle are damaged: a crash only tears the end.
fn frames(bytes: &[u8]) -> Option<(Vec<Vec<u8>>, usize)> {
    let (mut payloads, mut at) = (Vec::new(), HEADER);
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?));
    while let (Some(length), Some(crc)) = (word(at), word(at + 4)) {
        let end = at + FRAME + length as usize;
        let Some(payload) = bytes.get(at + FRAME..end) else { break };
        if crc32(payload) != crc {
            let is_torn = end == bytes.len();
            return is_torn.then_some((payloads, at));
        }
        if payload.is_empty() {
            // No payload is empty: zeros that a file system put behind the last write.
            let is_torn = bytes.get(at..)?.iter().all(|byte| *byte == 0);
            return is_torn.then_some((payloads, at));
        }
        payloads.push(payload.to_vec());
        at = end;
    }
    Some((payloads, at))
}

fn cannot_open(path: &Path, why: &str, error: io::Error) -> Error {
    let context = format!("could not open the embedded cluster in {}: {why}", path.display());
    Error::new(ErrorKind::Unavailable, context).with_source(error)
}

fn damaged(path: &Path) -> Error {
    Error::corrupted(format!(
        "could not read {}: bytes in its middle are damaged: move the cluster's directory away to begin anew",
        path.display()
    ))
}

/// CRC-32 as in zlib.
fn crc32(bytes: &[u8]) -> u32 {
    #[expect(clippy::indexing_slicing, reason = "run by the compiler")]
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte: u32 = 0;
        while byte < 256 {
            let (mut value, mut bit) = (byte, 0);
            while bit < 8 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[byte as usize] = value;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| {
        let index = (crc ^ u32::from(*byte)) & 0xff;
        TABLE.get(index as usize).copied().unwrap_or_default() ^ (crc >> 8)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry::NextTransaction { transaction: number }
    }

    #[test]
    fn a_checksum_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn a_torn_tail_is_cut_off_and_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.log");
        let (mut storage, _) = Storage::open(directory.path()).unwrap();
        storage.write(&entry(1)).unwrap();
        let whole = fs::read(&path).unwrap().len();
        storage.write(&entry(2)).unwrap();
        drop(storage);
        let bytes = fs::read(&path).unwrap();
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let (mut storage, entries) = Storage::open(directory.path()).unwrap();
            assert_eq!(entries, if length < whole { vec![] } else { vec![entry(1)] }, "{length} bytes");
            storage.write(&entry(3)).unwrap();
            drop(storage);
            let (_, entries) = Storage::open(directory.path()).unwrap();
            assert_eq!(entries.last(), Some(&entry(3)), "{length} bytes");
        }
    }

    #[test]
    fn damage_in_the_middle_is_told_and_nothing_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("meta.log");
        let (mut storage, _) = Storage::open(directory.path()).unwrap();
        storage.write(&entry(1)).unwrap();
        storage.write(&entry(2)).unwrap();
        drop(storage);
        let mut bytes = fs::read(&path).unwrap();
        bytes[HEADER + FRAME + 2] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = Storage::open(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
        assert!(error.to_string().contains("meta.log"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        fs::write(&path, b"something else entirely").unwrap();
        assert_eq!(Storage::open(directory.path()).unwrap_err().kind(), ErrorKind::Corrupted);
    }

    #[test]
    fn a_directory_that_cannot_be_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "x").unwrap();
        let error = Storage::open(&file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_and_nothing_more_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let (mut storage, _) = Storage::open(directory.path()).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        storage.meta = LogFile::new(full, 0);
        let error = storage.write(&entry(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.report().contains("No space left"), "{}", error.report());
        let error = storage.write(&entry(2)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
    }

    #[test]
    fn a_directory_is_opened_once_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let (storage, _) = Storage::open(directory.path()).unwrap();
        let error = Storage::open(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains(&directory.path().display().to_string()), "{error}");
        drop(storage);
        Storage::open(directory.path()).unwrap();
    }
}

//! Record batches as brokers keep them (format 2), decoded where they lie.
//!
//! ```text
//!   base offset i64 | length i32 | leader epoch i32 | magic i8 | CRC-32C u32 | attributes i16 | last offset delta i32
//!   | base timestamp i64 | max timestamp i64 | producer id i64 | producer epoch i16 | base sequence i32 | count i32 | records
//!
//!   record: length | attributes i8 | timestamp delta | offset delta | key | value | headers      lengths and deltas: zigzag
//! ```
//!
//! The length counts what is behind it, the checksum covers what is behind *it*, and compression only the records. After a
//! compaction a batch may have lost any of its records and keeps its offsets.
//!
//! Anybody may have written the bytes: a decoder gives a value or says what is wrong with them.

use super::super::codec::{Malformed, Result};
use super::aborted::Aborted;
use crate::client::Isolation;
use crate::client::kafka::sys::Lz4;
use crate::record::{Headers, RecordBatch};

const HEADER_BYTES: usize = 61;
/// Up to the length, which does not count it.
const PREFIX_BYTES: usize = 12;
const MAGIC_AT: usize = 16;
const CHECKED_FROM: usize = 21;

/// A batch that unpacks to more is none that a broker has taken from a producer.
const UNPACKED_BYTES_MAX: usize = 1 << 30;

const LOG_APPEND_TIME: i16 = 1 << 3;
const TRANSACTIONAL: i16 = 1 << 4;
const CONTROL: i16 = 1 << 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Lz4,
    /// One of those that are not unpacked here.
    Other,
}

/// The head of a batch that is there as a whole.
#[derive(Debug, Clone, Copy)]
struct Head {
    base_offset: i64,
    last_offset: i64,
    epoch: i32,
    checksum: u32,
    attributes: i16,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: i64,
    count: u32,
    /// Of the whole batch.
    bytes: usize,
}

impl Head {
    fn compression(&self) -> Compression {
        match self.attributes & 7 {
            0 => Compression::None,
            3 => Compression::Lz4,
            _ => Compression::Other,
        }
    }

    fn has(&self, flag: i16) -> bool {
        self.attributes & flag != 0
    }
}

/// What stands at the start of bytes.
#[derive(Debug)]
enum Ahead {
    Batch(Head),
    /// Fewer bytes than the batch has: brokers cut their answers anywhere.
    Cut,
    /// A format before 2.
    Older,
}

fn look(bytes: &[u8]) -> Result<Ahead> {
    if bytes.len() <= MAGIC_AT {
        return Ok(Ahead::Cut);
    }
    let mut reader = Fixed(bytes);
    let base_offset = i64::from_be_bytes(reader.take()?);
    let length = i32::from_be_bytes(reader.take()?);
    let epoch = i32::from_be_bytes(reader.take()?);
    match i8::from_be_bytes(reader.take()?) {
        0 | 1 => return Ok(Ahead::Older),
        2 => {}
        _ => return Err(Malformed("a batch has a format that is not known")),
    }
    let bytes_of_it = usize::try_from(length).map_err(|_| Malformed("a batch has a negative length"))? + PREFIX_BYTES;
    if bytes_of_it < HEADER_BYTES {
        return Err(Malformed("a batch is shorter than its head"));
    }
    if bytes_of_it > bytes.len() {
        return Ok(Ahead::Cut);
    }
    let checksum = u32::from_be_bytes(reader.take()?);
    let attributes = i16::from_be_bytes(reader.take()?);
    let last_delta = i32::from_be_bytes(reader.take()?);
    let base_timestamp = i64::from_be_bytes(reader.take()?);
    let max_timestamp = i64::from_be_bytes(reader.take()?);
    let producer = i64::from_be_bytes(reader.take()?);
    // Producer epoch and base sequence.
    let _: [u8; 6] = reader.take()?;
    let count = i32::from_be_bytes(reader.take()?);
    let last_offset = base_offset.checked_add(i64::from(last_delta)).filter(|last| last_delta >= 0 && *last < i64::MAX);
    Ok(Ahead::Batch(Head {
        base_offset,
        last_offset: last_offset.filter(|_| base_offset >= 0).ok_or(Malformed("a batch has no good offsets"))?,
        epoch,
        checksum,
        attributes,
        base_timestamp,
        max_timestamp,
        producer,
        count: u32::try_from(count).map_err(|_| Malformed("a batch counts less than nothing"))?,
        bytes: bytes_of_it,
    }))
}

struct Fixed<'a>(&'a [u8]);

impl Fixed<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or(CUT)?;
        self.0 = rest;
        Ok(*head)
    }
}

const CUT: Malformed = Malformed("a record ends too early");

/// What the records of an answer come to, without a look into the batches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Survey {
    /// So many bytes are whole batches that can be read here.
    pub(super) bytes: usize,
    /// The offset after them, and the leader epoch of the last one.
    pub(super) end: Option<(i64, i32)>,
    pub(super) then: Then,
}

/// What stands behind the batches that can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing, or the beginning of a batch.
    Nothing,
    /// A batch of an older format or another compression.
    Foreign,
}

/// Looks over the records of an answer.
pub(super) fn survey(bytes: &[u8]) -> Result<Survey> {
    let mut survey = Survey { bytes: 0, end: None, then: Then::Nothing };
    loop {
        match look(bytes.get(survey.bytes..).unwrap_or_default())? {
            Ahead::Batch(head) if head.compression() != Compression::Other => {
                survey.bytes += head.bytes;
                let next = head.last_offset + 1;
                if survey.end.is_some_and(|(end, _)| next <= end) {
                    return Err(Malformed("its batches are not in order"));
                }
                survey.end = Some((next, head.epoch));
            }
            Ahead::Batch(_) | Ahead::Older => {
                survey.then = Then::Foreign;
                return Ok(survey);
            }
            Ahead::Cut => return Ok(survey),
        }
    }
}

/// Whole batches of one partition, from one answer, and how far they are read.
#[derive(Debug)]
pub(super) struct Chunk {
    bytes: Vec<u8>,
    /// Where the next batch begins.
    at: usize,
    /// The offset after all of them.
    end: i64,
    aborted: Aborted,
    open: Option<OpenBatch>,
    /// The records of the open batch, if it was compressed.
    unpacked: Vec<u8>,
}

/// A batch of which not all records have been given.
#[derive(Debug)]
struct OpenBatch {
    head: Head,
    is_packed: bool,
    /// The next record, and the end of the last one, in the chunk or in what is unpacked.
    at: usize,
    end: usize,
    left: u32,
}

/// What every chunk is read with.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) isolation: Isolation,
    pub(super) lz4: Lz4,
}

impl Chunk {
    /// Whole batches, as [`survey`] has found them, up to the offset `end`. `unpacked` is memory to use.
    pub(super) fn new(bytes: Vec<u8>, end: i64, aborted: Aborted, unpacked: Vec<u8>) -> Chunk {
        Chunk { bytes, at: 0, end, aborted, open: None, unpacked }
    }

    /// The memory.
    pub(super) fn into_parts(self) -> [Vec<u8>; 2] {
        [self.bytes, self.unpacked]
    }

    /// Appends up to `records_max` records from `position` on, which goes behind all that is given or skipped. True: nothing
    /// is left.
    ///
    /// # Errors
    /// The batch at `position` is damaged; what was given before is good.
    pub(super) fn read(
        &mut self,
        position: &mut i64,
        records_max: usize,
        tools: &mut Tools,
        batch: &mut RecordBatch,
    ) -> Result<bool> {
        let full = batch.len().saturating_add(records_max);
        loop {
            if batch.len() >= full {
                return Ok(false);
            }
            let Some(open) = &mut self.open else {
                if !self.open_next(position, tools)? {
                    *position = self.end.max(*position);
                    return Ok(true);
                }
                continue;
            };
            let payload = if open.is_packed { &self.unpacked } else { &self.bytes };
            let payload = payload.get(open.at..open.end).unwrap_or_default();
            open.at = open.end - open.give(payload, position, full, batch)?;
            if open.left == 0 {
                if open.at != open.end {
                    return Err(Malformed("a batch holds more than its records"));
                }
                *position = (open.head.last_offset + 1).max(*position);
                self.open = None;
            }
        }
    }

    /// Opens the next batch that has records to give. False: there is none.
    fn open_next(&mut self, position: &mut i64, tools: &mut Tools) -> Result<bool> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Ahead::Batch(head) = look(rest)? else { return Ok(false) };
            let whole = rest.get(..head.bytes).unwrap_or_default();
            if crc32c::crc32c(whole.get(CHECKED_FROM..).unwrap_or_default()) != head.checksum {
                return Err(Malformed("the checksum of a batch is wrong"));
            }
            let records = whole.get(HEADER_BYTES..).unwrap_or_default();
            let (start, end) = (self.at + HEADER_BYTES, self.at + head.bytes);
            self.at = end;
            let is_aborted = tools.isolation == Isolation::ReadCommitted
                && head.producer >= 0
                && is_aborted(&mut self.aborted, &head, records)?;
            if is_aborted || head.has(CONTROL) || head.last_offset < *position {
                *position = (head.last_offset + 1).max(*position);
                continue;
            }
            let is_packed = head.compression() == Compression::Lz4;
            let (at, end) = if is_packed {
                self.unpacked.clear();
                tools.lz4.unpack(records, &mut self.unpacked, UNPACKED_BYTES_MAX).map_err(Malformed)?;
                (0, self.unpacked.len())
            } else {
                (start, end)
            };
            self.open = Some(OpenBatch { head, is_packed, at, end, left: head.count });
            return Ok(true);
        }
    }
}

/// Whether the batch is of a transaction that was aborted, or the end of any. As Java's `CompletedFetch`.
fn is_aborted(aborted: &mut Aborted, head: &Head, records: &[u8]) -> Result<bool> {
    aborted.advance(head.last_offset);
    if !head.has(CONTROL) {
        return Ok(head.has(TRANSACTIONAL) && aborted.has(head.producer));
    }
    if head.count > 0 && is_abort_marker(&Fields(records).record()?)? {
        aborted.ended(head.producer);
    }
    Ok(true)
}

impl OpenBatch {
    /// Gives records from the start of `payload` until `batch` has `full`. How many bytes are left.
    fn give(&mut self, payload: &[u8], position: &mut i64, full: usize, batch: &mut RecordBatch) -> Result<usize> {
        let mut fields = Fields(payload);
        let is_appended = self.head.has(LOG_APPEND_TIME);
        while self.left > 0 && batch.len() < full {
            let record = fields.record()?;
            self.left -= 1;
            let offset = self.head.base_offset.saturating_add(record.offset_delta);
            if offset > self.head.last_offset || record.offset_delta < 0 {
                return Err(Malformed("a record lies outside of its batch"));
            }
            if offset < *position {
                continue;
            }
            let timestamp = match is_appended {
                true => self.head.max_timestamp,
                false => self.head.base_timestamp.wrapping_add(record.timestamp_delta),
            };
            let headers = record.headers()?;
            let too_long = |_| Malformed("a record is longer than any may be");
            batch.push(offset, timestamp, record.key, record.value, headers).map_err(too_long)?;
            *position = offset + 1;
        }
        Ok(fields.0.len())
    }
}

/// A record; its headers are read when they are wanted.
struct Record<'a> {
    timestamp_delta: i64,
    offset_delta: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [u8],
}

impl Record<'_> {
    fn headers(&self) -> Result<Headers> {
        let mut fields = Fields(self.headers);
        let mut headers = Headers::new();
        let count = fields.varlong()?;
        if count < 0 {
            return Err(Malformed("a record counts less headers than none"));
        }
        for _ in 0..count {
            let key = fields.bytes()?.ok_or(Malformed("a header has no key"))?;
            let value = fields.bytes()?;
            headers.push(String::from_utf8_lossy(key).into_owned(), value.map(<[u8]>::to_vec));
        }
        if !fields.0.is_empty() {
            return Err(Malformed("a record is longer than its fields"));
        }
        Ok(headers)
    }
}

fn is_abort_marker(record: &Record<'_>) -> Result<bool> {
    let mut key = Fixed(record.key.unwrap_or_default());
    let (_version, kind) = (i16::from_be_bytes(key.take()?), i16::from_be_bytes(key.take()?));
    Ok(kind == 0)
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    #[inline]
    fn record(&mut self) -> Result<Record<'a>> {
        let length = usize::try_from(self.varlong()?).map_err(|_| CUT)?;
        let mut fields = Fields(self.slice(length)?);
        // Attributes, of which there are none.
        fields.slice(1)?;
        Ok(Record {
            timestamp_delta: fields.varlong()?,
            offset_delta: fields.varlong()?,
            key: fields.bytes()?,
            value: fields.bytes()?,
            headers: fields.0,
        })
    }

    #[inline]
    fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok(head)
    }

    /// A negative length is null.
    #[inline]
    fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match usize::try_from(self.varlong()?) {
            Ok(length) => self.slice(length).map(Some),
            Err(_) => Ok(None),
        }
    }

    #[inline]
    fn varlong(&mut self) -> Result<i64> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let (byte, rest) = self.0.split_first().ok_or(CUT)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
            shift += 7;
            if shift > 63 {
                return Err(Malformed("a number has more than ten bytes"));
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests;

use super::*;
use proptest::prelude::*;

/// Offset and time deltas, key, value.
type Plain = (i64, i64, Option<&'static [u8]>, Option<&'static [u8]>);

/// A batch as producers write it, from what differs between the cases.
struct Written {
    base: i64,
    attributes: i16,
    producer: i64,
    last_delta: i32,
    records: Vec<Plain>,
    header: bool,
}

impl Written {
    fn new(base: i64, records: &[Plain]) -> Written {
        let last_delta = records.last().map_or(0, |record| i32::try_from(record.0).unwrap());
        Written { base, attributes: 0, producer: -1, last_delta, records: records.to_vec(), header: false }
    }

    fn marker(base: i64, producer: i64, kind: &'static [u8]) -> Written {
        let records = [(0, 0, Some(kind), Some(&b"\0\0\0\0\0\0"[..]))];
        Written { attributes: CONTROL | TRANSACTIONAL, producer, ..Written::new(base, &records) }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut records = Vec::new();
        for (offset, time, key, value) in &self.records {
            let mut record = vec![0];
            number(&mut record, *time);
            number(&mut record, *offset);
            for part in [key, value] {
                number(&mut record, part.map_or(-1, |part| i64::try_from(part.len()).unwrap()));
                record.extend_from_slice(part.unwrap_or_default());
            }
            if self.header {
                // `h` with a null value.
                record.extend_from_slice(&[2, 2, b'h', 1]);
            } else {
                record.push(0);
            }
            number(&mut records, i64::try_from(record.len()).unwrap());
            records.extend_from_slice(&record);
        }
        framed(self, &records)
    }
}

fn framed(written: &Written, records: &[u8]) -> Vec<u8> {
    let mut checked = Vec::new();
    checked.extend_from_slice(&written.attributes.to_be_bytes());
    checked.extend_from_slice(&written.last_delta.to_be_bytes());
    checked.extend_from_slice(&1000i64.to_be_bytes());
    checked.extend_from_slice(&5000i64.to_be_bytes());
    checked.extend_from_slice(&written.producer.to_be_bytes());
    checked.extend_from_slice(&[0; 6]);
    checked.extend_from_slice(&i32::try_from(written.records.len()).unwrap().to_be_bytes());
    checked.extend_from_slice(records);
    let mut batch = written.base.to_be_bytes().to_vec();
    batch.extend_from_slice(&i32::try_from(checked.len() + 9).unwrap().to_be_bytes());
    batch.extend_from_slice(&3i32.to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&crc32c::crc32c(&checked).to_be_bytes());
    batch.extend_from_slice(&checked);
    batch
}

fn number(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
}

fn tools(isolation: Isolation) -> Tools {
    Tools { isolation, lz4: Lz4::new().unwrap() }
}

fn chunk(bytes: &[u8], aborted: Vec<(i64, i64)>) -> Chunk {
    let survey = survey(bytes).unwrap();
    let (end, _) = survey.end.unwrap();
    Chunk::new(bytes[..survey.bytes].to_vec(), end, Aborted::new(aborted), Vec::new())
}

/// Offsets and values from a position on, and the position behind them.
fn read(bytes: &[u8], aborted: Vec<(i64, i64)>, isolation: Isolation, mut position: i64) -> (Vec<(i64, String)>, i64) {
    let (mut chunk, mut tools) = (chunk(bytes, aborted), tools(isolation));
    let (mut batch, mut is_done) = (RecordBatch::default(), false);
    while !is_done {
        // One at a time, so that batches stay open in between.
        is_done = chunk.read(&mut position, 1, &mut tools, &mut batch).unwrap();
    }
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap_or(b"null").to_vec()).unwrap();
    (batch.iter(0).map(|record| (record.offset, text(record.value))).collect(), position)
}

fn plain(base: i64, values: &[&'static str]) -> Written {
    let records: Vec<_> = (0..).zip(values).map(|(at, value)| (at, at, None, Some(value.as_bytes()))).collect();
    Written::new(base, &records)
}

/// A batch of records without keys.
pub(in super::super) fn batch(base: i64, values: &[&'static str]) -> Vec<u8> {
    plain(base, values).bytes()
}

fn of(producer: i64, written: Written) -> Vec<u8> {
    Written { producer, attributes: TRANSACTIONAL, ..written }.bytes()
}

#[test]
fn nulls_headers_and_times_are_told() {
    let records = [(0, 5, Some(&b"k"[..]), None), (1, -3, None, Some(&b""[..]))];
    let written = Written { header: true, ..Written::new(40, &records) };
    let (mut chunk, mut batch) = (chunk(&written.bytes(), vec![]), RecordBatch::default());
    let mut position = 40;
    assert!(!chunk.read(&mut position, 2, &mut tools(Isolation::ReadCommitted), &mut batch).unwrap());
    let read: Vec<_> = batch.iter(0).map(|r| (r.offset, r.timestamp, r.key, r.value, r.headers.last("h"))).collect();
    assert_eq!(read, [(40, 1005, Some(&b"k"[..]), None, Some(None)), (41, 997, None, Some(&b""[..]), Some(None))]);
    assert_eq!(position, 42);
}

#[test]
fn the_time_of_appending_counts_for_all_records() {
    let written = Written { attributes: LOG_APPEND_TIME, ..plain(0, &["a"]) };
    let mut batch = RecordBatch::default();
    chunk(&written.bytes(), vec![]).read(&mut 0, 9, &mut tools(Isolation::ReadCommitted), &mut batch).unwrap();
    assert_eq!(batch.get(0, 0).unwrap().timestamp, 5000);
}

#[test]
fn compression_is_undone() {
    // A frame of one stored block: magic, 64 KiB blocks without checksums, the length with the bit for "stored", the end.
    let inner = plain(7, &["a", "b"]).bytes();
    let records = &inner[HEADER_BYTES..];
    let mut frame = b"\x04\x22\x4d\x18\x60\x40\x82".to_vec();
    frame.extend_from_slice(&(u32::try_from(records.len()).unwrap() | 1 << 31).to_le_bytes());
    frame.extend_from_slice(records);
    frame.extend_from_slice(&[0; 4]);
    let written = Written { attributes: 3, ..plain(7, &["a", "b"]) };
    let bytes = framed(&written, &frame);
    let (records, position) = read(&bytes, vec![], Isolation::ReadCommitted, 0);
    assert_eq!(records, [(7, "a".to_owned()), (8, "b".to_owned())]);
    assert_eq!(position, 9);

    let cut = framed(&written, &frame[..frame.len() - 8]);
    let result = chunk(&cut, vec![]).read(&mut 7, 9, &mut tools(Isolation::ReadCommitted), &mut RecordBatch::default());
    assert!(result.is_err());
}

#[test]
fn records_before_the_position_and_batches_without_records_are_passed_over() {
    let emptied = Written { last_delta: 4, ..Written::new(3, &[]) };
    let tail = Written { last_delta: 3, ..plain(8, &["d"]) };
    let bytes = [plain(0, &["a", "b", "c"]).bytes(), emptied.bytes(), tail.bytes()].concat();
    let (records, position) = read(&bytes, vec![], Isolation::ReadCommitted, 1);
    assert_eq!(records, [(1, "b".to_owned()), (2, "c".to_owned()), (8, "d".to_owned())]);
    assert_eq!(position, 12, "what compaction has left out at the end of a batch is behind it");
}

#[test]
fn aborted_records_are_passed_over_until_their_marker() {
    let bytes = [
        of(1, plain(0, &["aborted"])),
        of(2, plain(1, &["committed"])),
        plain(2, &["plain"]).bytes(),
        Written::marker(3, 1, b"\0\0\0\0").bytes(),
        Written::marker(4, 2, b"\0\0\0\x01").bytes(),
        of(1, plain(5, &["later"])),
    ]
    .concat();
    let (records, position) = read(&bytes, vec![(0, 1)], Isolation::ReadCommitted, 0);
    let values: Vec<_> = records.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!((values, position), (vec!["committed", "plain", "later"], 6));
    let (records, _) = read(&bytes, vec![], Isolation::ReadUncommitted, 0);
    assert_eq!(records.len(), 4);
}

#[test]
fn a_cut_batch_and_what_is_not_read_here_end_a_survey() {
    let whole = plain(0, &["a"]).bytes();
    let next = plain(1, &["b"]).bytes();
    let cut = [&whole[..], &next[..next.len() - 1]].concat();
    let expected = Survey { bytes: whole.len(), end: Some((1, 3)), then: Then::Nothing };
    assert_eq!(survey(&cut).unwrap(), expected);
    let zipped = Written { attributes: 1, ..plain(1, &["b"]) };
    let foreign = [&whole[..], &zipped.bytes()].concat();
    assert_eq!(survey(&foreign).unwrap(), Survey { then: Then::Foreign, ..expected });
    let mut old = next;
    old[MAGIC_AT] = 1;
    assert_eq!(survey(&old).unwrap(), Survey { bytes: 0, end: None, then: Then::Foreign });
    assert!(survey(&[whole.clone(), whole].concat()).is_err(), "batches go up");
}

#[test]
fn a_flipped_bit_is_found_by_the_checksum() {
    let mut bytes = plain(0, &["a"]).bytes();
    *bytes.last_mut().unwrap() ^= 1;
    let result =
        chunk(&bytes, vec![]).read(&mut 0, 9, &mut tools(Isolation::ReadCommitted), &mut RecordBatch::default());
    assert_eq!(result, Err(Malformed("the checksum of a batch is wrong")));
}

/// Makes the checksum of the first batch right again.
fn healed(bytes: &mut [u8]) {
    let Some(length) = bytes.get(8..12).map(|length| u32::from_be_bytes(length.try_into().unwrap()) as usize) else {
        return;
    };
    if let Some(checked) = bytes.get(CHECKED_FROM..length.saturating_add(PREFIX_BYTES)) {
        let checksum = crc32c::crc32c(checked);
        bytes[17..21].copy_from_slice(&checksum.to_be_bytes());
    }
}

proptest! {
    #[test]
    fn no_damaged_batch_ends_the_process(
        place in 0usize..400, byte in any::<u8>(), cut in 1usize..400, is_packed in any::<bool>(), is_committed in any::<bool>(),
    ) {
        let attributes = if is_packed { 3 } else { TRANSACTIONAL };
        let first = Written { attributes, producer: 1, header: true, ..plain(0, &["one", "two", "three"]) };
        let mut bytes = [first.bytes(), Written::marker(3, 1, b"\0\0\0\0").bytes()].concat();
        let length = bytes.len();
        bytes[place % length] = byte;
        bytes.truncate(cut);
        healed(&mut bytes);
        if let Ok(Survey { bytes: whole, end: Some((end, _)), .. }) = survey(&bytes) {
            let aborted = Aborted::new(vec![(1, 1)]);
            let mut chunk = Chunk::new(bytes[..whole].to_vec(), end, aborted, Vec::new());
            let mut tools = tools(if is_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted });
            let (mut position, mut batch) = (0, RecordBatch::default());
            while let Ok(false) = chunk.read(&mut position, 2, &mut tools, &mut batch) {}
            prop_assert!(batch.len() <= 8);
        }
    }
}

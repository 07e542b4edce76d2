//! The changelog of a suppressed table in the formats that Kafka Streams has written since 2.1.
//!
//! ```text
//!   header v          value
//!   none (2.1)        time 8 | change                         the context is that of the changelog's record
//!   1    (2.2)        time 8 | context | bytes change
//!   2    (2.3)        context | bytes change | prior | time 8
//!   3    (2.4 on)     context | prior | old | new | time 8    BufferValue, as it is kept here
//!
//!   change            old | new                               each: length 4 (-1: null) | bytes
//! ```
//!
//! 2.4.0, 2.4.1 and 2.5.0 wrote format 3 and called it 2: what cannot be read as the one is read as the other.

use super::buffer_value::{BufferValue, damaged, read_context, read_nullable, take};
use crate::error::{Error, Result};
use crate::record::{ConsumerRecord, Headers};

/// What was logged as a row of the store. `before` is the row of its key so far, which knows what was there before the
/// first update that waits: formats 0 and 1 do not say it.
pub(super) fn row_of(record: &ConsumerRecord<'_>, value: &[u8], topic: &str, before: Option<&[u8]>) -> Result<Vec<u8>> {
    let prior = || before.map_or(Ok(None), |row| BufferValue::read(row).map(|(before, _)| before.prior));
    match record.headers.last("v") {
        None => {
            let (time, change) = value.split_first_chunk().ok_or_else(damaged)?;
            let Change { old, new } = Change::read(change)?;
            let (timestamp, offset, partition) = (record.timestamp, record.offset, record.partition);
            let (headers, prior) = (record.headers.clone(), prior()?.or(old));
            row(&BufferValue { timestamp, offset, topic, partition, headers, prior, old, new }, *time)
        }
        Some(Some([1])) => {
            let (time, mut rest) = value.split_first_chunk().ok_or_else(damaged)?;
            let (context, Change { old, new }) = in_context(&mut rest)?;
            row(&BufferValue { prior: prior()?.or(old), old, new, ..context }, *time)
        }
        Some(Some([2])) => second(value).or_else(|_| third(value)),
        Some(Some([3])) => third(value),
        Some(_) => Err(Error::corrupted("the header v names no format of a suppressed table that is known")),
    }
}

fn second(value: &[u8]) -> Result<Vec<u8>> {
    let mut rest = value;
    let (context, Change { old, new }) = in_context(&mut rest)?;
    let prior = read_nullable(&mut rest)?;
    row(&BufferValue { prior, old, new, ..context }, take(&mut rest)?)
}

fn third(value: &[u8]) -> Result<Vec<u8>> {
    let (_, time) = BufferValue::read(value)?;
    if time.len() == 8 { Ok(value.to_vec()) } else { Err(damaged()) }
}

/// A value without its rows, and the change behind it.
fn in_context<'a>(rest: &mut &'a [u8]) -> Result<(BufferValue<'a>, Change<'a>)> {
    let context = read_context(rest)?;
    let change = read_nullable(rest)?.ok_or_else(damaged)?;
    Ok((context, Change::read(change)?))
}

fn row(value: &BufferValue<'_>, time: [u8; 8]) -> Result<Vec<u8>> {
    let mut row = Vec::new();
    value.write(&mut row)?;
    row.extend_from_slice(&time);
    Ok(row)
}

struct Change<'a> {
    old: Option<&'a [u8]>,
    new: Option<&'a [u8]>,
}

impl<'a> Change<'a> {
    fn read(mut bytes: &'a [u8]) -> Result<Change<'a>> {
        let (old, new) = (read_nullable(&mut bytes)?, read_nullable(&mut bytes)?);
        Ok(Change { old, new })
    }
}

/// Whether a changelog record has to be converted: nearly none has.
pub(super) fn is_of_today(headers: &Headers) -> bool {
    headers.last("v") == Some(Some(&[3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ts 1000, offset 5, topic in, partition 2, header h: 01.
    const CONTEXT: &[u8] =
        b"\0\0\0\0\0\0\x03\xe8\0\0\0\0\0\0\0\x05\0\0\0\x02in\0\0\0\x02\0\0\0\x01\0\0\0\x01h\0\0\0\x01\x01";
    const TIME: &[u8] = b"\0\0\0\0\0\0\x07\xd0";
    /// old "p", new "nn".
    const CHANGE: &[u8] = b"\0\0\0\x01p\0\0\0\x02nn";
    const CHANGE_LENGTH: &[u8] = b"\0\0\0\x0b";
    const NULL: &[u8] = b"\xff\xff\xff\xff";

    fn read(version: Option<u8>, value: &[u8], before: Option<&[u8]>) -> Result<Vec<u8>> {
        let mut headers = Headers::new();
        if let Some(version) = version {
            headers.add("v", [version]);
        }
        let (partition, offset, timestamp) = (7, 9, 11);
        let record =
            ConsumerRecord { partition, offset, timestamp, key: Some(b"k"), value: Some(value), headers: &headers };
        row_of(&record, value, "log", before)
    }

    /// Old and new are "p" and "nn".
    fn expected(context: &[u8], prior_and_old: &[u8]) -> Vec<u8> {
        [context, prior_and_old, b"\0\0\0\x02nn", TIME].concat()
    }

    const PRIOR_IS_OLD: &[u8] = b"\0\0\0\x01p\xff\xff\xff\xfe";
    const OTHER_PRIOR: &[u8] = b"\0\0\0\x02aa\0\0\0\x01p";

    #[test]
    fn format_0_takes_its_context_from_the_changelog() {
        let value = [TIME, CHANGE].concat();
        let context = b"\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x09\0\0\0\x03log\0\0\0\x07\0\0\0\0";
        assert_eq!(read(None, &value, None).unwrap(), expected(context, PRIOR_IS_OLD));
        let before = expected(CONTEXT, OTHER_PRIOR);
        assert_eq!(read(None, &value, Some(&before)).unwrap(), expected(context, OTHER_PRIOR));
        let deleted = [TIME, NULL, NULL].concat();
        let row = [&context[..], NULL, NULL, NULL, TIME].concat();
        assert_eq!(read(None, &deleted, None).unwrap(), row);
    }

    #[test]
    fn format_1_has_a_context_behind_its_time() {
        let value = [TIME, CONTEXT, CHANGE_LENGTH, CHANGE].concat();
        assert_eq!(read(Some(1), &value, None).unwrap(), expected(CONTEXT, PRIOR_IS_OLD));
        let before = expected(CONTEXT, OTHER_PRIOR);
        assert_eq!(read(Some(1), &value, Some(&before)).unwrap(), expected(CONTEXT, OTHER_PRIOR));
    }

    #[test]
    fn format_2_has_the_prior_row_behind_its_change() {
        let value = [CONTEXT, CHANGE_LENGTH, CHANGE, b"\0\0\0\x02aa", TIME].concat();
        assert_eq!(read(Some(2), &value, None).unwrap(), expected(CONTEXT, OTHER_PRIOR));
        let value = [CONTEXT, CHANGE_LENGTH, CHANGE, NULL, TIME].concat();
        assert_eq!(read(Some(2), &value, None).unwrap(), expected(CONTEXT, b"\xff\xff\xff\xff\0\0\0\x01p"));
    }

    #[test]
    fn format_3_is_the_row_by_either_number() {
        for prior_and_old in [PRIOR_IS_OLD, OTHER_PRIOR] {
            let value = expected(CONTEXT, prior_and_old);
            assert_eq!(read(Some(3), &value, None).unwrap(), value);
            assert_eq!(read(Some(2), &value, None).unwrap(), value, "as 2.4.0 wrote it");
        }
    }

    #[test]
    fn what_is_cut_off_or_of_an_unknown_format_is_an_error() {
        let change = [CHANGE_LENGTH, CHANGE].concat();
        let first = [TIME, CONTEXT, &change].concat();
        let second = [CONTEXT, &change, NULL, TIME].concat();
        let values = [(None, [TIME, CHANGE].concat()), (Some(1), first), (Some(2), second)];
        for (version, value) in values {
            assert!(read(version, &value, None).is_ok());
            for end in 0..value.len() {
                assert!(read(version, &value[..end], None).is_err(), "{version:?} up to {end}");
            }
        }
        assert!(read(Some(4), &expected(CONTEXT, OTHER_PRIOR), None).is_err());
    }
}

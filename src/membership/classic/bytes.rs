//! Big-endian numbers and counted things, one after the other.

use crate::error::{Error, ErrorKind, Result};
use crate::topology::TaskId;

/// Reads from the front of bytes that anybody may have written.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Reader<'a> {
        Reader { rest: bytes, what }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(|| self.broken("it ends too early"))?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn i8(&mut self) -> Result<i8> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    /// How many things follow, each of at least one byte.
    pub(super) fn count(&mut self) -> Result<usize> {
        let count = usize::try_from(self.i32()?).map_err(|_| self.broken("it has a negative count"))?;
        if count > self.rest.len() {
            return Err(self.broken("it counts more than it holds"));
        }
        Ok(count)
    }

    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.broken("it ends too early"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn text(&mut self, length: usize) -> Result<&'a str> {
        let bytes = self.slice(length)?;
        std::str::from_utf8(bytes).map_err(|error| self.broken("it has text that is not UTF-8").with_source(error))
    }

    /// Java's `writeUTF`: the length in two bytes.
    pub(super) fn utf(&mut self) -> Result<&'a str> {
        let length = usize::from(self.array().map(u16::from_be_bytes)?);
        self.text(length)
    }

    pub(super) fn task(&mut self) -> Result<TaskId> {
        let sub_topology = usize::try_from(self.i32()?).map_err(|_| self.broken("it has a negative sub-topology"))?;
        Ok(TaskId { sub_topology, partition: self.i32()? })
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.broken("it has a number that is too large"))
    }

    /// How many things follow, each of at least one byte.
    pub(super) fn short_count(&mut self) -> Result<usize> {
        let count = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if count > self.rest.len() {
            return Err(self.broken("it counts more than it holds"));
        }
        Ok(count)
    }

    #[cold]
    pub(super) fn broken(&self, why: &str) -> Error {
        Error::new(ErrorKind::Corrupted, format!("could not read {}: {why}", self.what))
    }
}

pub(super) fn put_count(count: usize, out: &mut Vec<u8>) -> Result<()> {
    let count = i32::try_from(count).map_err(|error| too_long().with_source(error))?;
    out.extend_from_slice(&count.to_be_bytes());
    Ok(())
}

pub(super) fn put_varint(number: u64, out: &mut Vec<u8>) {
    let mut rest = number;
    while rest >= 0x80 {
        let [low, ..] = rest.to_le_bytes();
        out.push(low | 0x80);
        rest >>= 7;
    }
    let [low, ..] = rest.to_le_bytes();
    out.push(low);
}

/// What [`Reader::short_count`] reads.
pub(super) fn put_short_count(count: usize, out: &mut Vec<u8>) {
    put_varint(count as u64, out);
}

pub(super) fn put_utf(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let length = u16::try_from(text.len()).map_err(|error| too_long().with_source(error))?;
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

pub(super) fn put_task(task: TaskId, out: &mut Vec<u8>) -> Result<()> {
    put_count(task.sub_topology, out)?;
    out.extend_from_slice(&task.partition.to_be_bytes());
    Ok(())
}

fn too_long() -> Error {
    Error::invalid("what a member has to tell its group is too long")
}

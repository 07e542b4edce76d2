//! Headers inside a row: Java's format of stores that keep them (KIP-1271).

use super::{read_varint, write_varint};
use crate::error::{Error, ErrorKind, Result};
use crate::record::Headers;

/// Writes headers in front of what a row holds otherwise.
///
/// ```text
///   size varint | [ count varint { length varint, key, length varint (-1: null), value }* ]   the rest of the row
/// ```
///
/// Varints are zig-zag; without headers the size is 0 and there is no count.
pub(crate) fn write_row_headers(headers: &Headers, row: &mut Vec<u8>) -> Result<()> {
    let encoded = headers_bytes(headers)?;
    write_varint(length(encoded.len())?, row);
    row.extend_from_slice(&encoded);
    Ok(())
}

/// The headers alone; nothing when there are none.
pub(crate) fn headers_bytes(headers: &Headers) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if headers.is_empty() {
        return Ok(bytes);
    }
    write_varint(length(headers.len())?, &mut bytes);
    for (key, value) in headers.iter() {
        write_varint(length(key.len())?, &mut bytes);
        bytes.extend_from_slice(key.as_bytes());
        match value {
            None => write_varint(-1, &mut bytes),
            Some(value) => {
                write_varint(length(value.len())?, &mut bytes);
                bytes.extend_from_slice(value);
            }
        }
    }
    Ok(bytes)
}

/// The headers of a row, and the rest of it.
///
/// # Errors
/// `Corrupted` for a row that is no such thing.
pub(crate) fn read_row_headers(row: &[u8]) -> Result<(Headers, &[u8])> {
    let mut rest = row;
    let size = usize::try_from(varint(&mut rest)?).map_err(|_| broken())?;
    let (mut encoded, rest) = rest.split_at_checked(size).ok_or_else(broken)?;
    let mut headers = Headers::new();
    if size > 0 {
        let count = varint(&mut encoded)?;
        for _ in 0..count {
            let key = part(&mut encoded)?.ok_or_else(broken)?;
            let key = std::str::from_utf8(key).map_err(|_| broken())?;
            match part(&mut encoded)? {
                Some(value) => headers.add(key, value),
                None => headers.add_null(key),
            }
        }
        if !encoded.is_empty() || count < 0 {
            return Err(broken());
        }
    }
    Ok((headers, rest))
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    let length = varint(rest)?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| broken())?;
    let (part, behind) = rest.split_at_checked(length).ok_or_else(broken)?;
    *rest = behind;
    Ok(Some(part))
}

fn varint(rest: &mut &[u8]) -> Result<i32> {
    let (number, behind) = read_varint(rest).ok_or_else(broken)?;
    *rest = behind;
    Ok(number)
}

fn length(length: usize) -> Result<i32> {
    i32::try_from(length).map_err(|error| Error::invalid("the headers of a row are too long").with_source(error))
}

#[cold]
fn broken() -> Error {
    Error::new(ErrorKind::Corrupted, "could not read the headers of a row")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_stand_in_front_of_the_row_and_hostile_bytes_are_refused() {
        let mut headers = Headers::new();
        headers.add("h", [1, 2]);
        headers.add_null("n");
        let mut row = Vec::new();
        write_row_headers(&headers, &mut row).unwrap();
        assert_eq!(row, b"\x12\x04\x02h\x04\x01\x02\x02n\x01");
        row.push(b'v');
        let (read, rest) = read_row_headers(&row).unwrap();
        assert_eq!((read, rest), (headers, &b"v"[..]));
        assert!((0..row.len() - 1).all(|end| read_row_headers(&row[..end]).is_err()));
        for at in 0..row.len() {
            for change in [0xff, 0x80, 0x7f, 0x01] {
                let mut changed = row.clone();
                changed[at] ^= change;
                let _ = read_row_headers(&changed);
            }
        }
        assert_eq!(read_row_headers(b"\0v").unwrap(), (Headers::new(), &b"v"[..]));
    }
}

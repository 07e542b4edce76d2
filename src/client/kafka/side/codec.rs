//! Kafka's compact encoding, written and read by hand: counts are varints plus one (0 is null), and every structure ends with
//! tagged fields.
//!
//! Not the `kafka-protocol` crate: it makes room for as many elements as a response claims to have before it reads one, so
//! that six bytes of a hostile or confused broker end the process, and it brings 80,000 lines of messages for these eleven.

use std::fmt;

/// Bytes that are no message of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

pub(super) type Result<T> = std::result::Result<T, Malformed>;

const TOO_SHORT: Malformed = Malformed("it ends too early");
const NO_UTF8: Malformed = Malformed("a string is not UTF-8");

/// Reads from the front of bytes that anybody may have written. Reserves no room that the bytes do not fill.
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk().ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn i8(&mut self) -> Result<i8> {
        self.fixed().map(i8::from_be_bytes)
    }

    pub(super) fn bool(&mut self) -> Result<bool> {
        Ok(self.i8()? != 0)
    }

    pub(super) fn i16(&mut self) -> Result<i16> {
        self.fixed().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.fixed().map(i64::from_be_bytes)
    }

    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(TOO_SHORT)?;
        self.0 = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<usize> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.fixed()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return usize::try_from(value).map_err(|_| Malformed("a count is too large"));
            }
        }
        Err(Malformed("a count has more than five bytes"))
    }

    pub(super) fn optional_bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match self.varint()?.checked_sub(1) {
            None => Ok(None),
            Some(length) => self.slice(length).map(Some),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        Ok(self.optional_bytes()?.unwrap_or_default())
    }

    pub(super) fn optional_text(&mut self) -> Result<Option<String>> {
        self.optional_bytes()?.map(text).transpose()
    }

    /// Null is read as empty: some coordinators send null where the schema wants a string.
    pub(super) fn text(&mut self) -> Result<String> {
        Ok(self.optional_text()?.unwrap_or_default())
    }

    /// A string that stays where it is; null is read as empty.
    pub(super) fn str(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| NO_UTF8)
    }

    /// None is null.
    pub(super) fn optional_list<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Option<Vec<T>>> {
        match self.varint()?.checked_sub(1) {
            None => Ok(None),
            Some(count) => self.items(count, item).map(Some),
        }
    }

    /// Null is read as empty.
    pub(super) fn list<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        Ok(self.optional_list(item)?.unwrap_or_default())
    }

    /// `count` elements, each of at least one byte.
    fn items<T>(&mut self, count: usize, mut item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        if count > self.0.len() {
            return Err(Malformed("it counts more than it holds"));
        }
        // Not collected by its size hint: the elements may be a hundred times as large as a byte of a false count.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// The tagged fields at the end of a structure; what is unknown is skipped.
    pub(super) fn tags(&mut self) -> Result<()> {
        self.tagged(|_, _| {})
    }

    /// The tagged fields at the end of a structure: each tag and its bytes.
    pub(super) fn tagged(&mut self, mut field: impl FnMut(usize, &'a [u8])) -> Result<()> {
        for _ in 0..self.varint()? {
            let (tag, length) = (self.varint()?, self.varint()?);
            field(tag, self.slice(length)?);
        }
        Ok(())
    }

    /// A list of the older encoding: the count has four bytes, -1 is null.
    pub(super) fn plain_list<T>(&mut self, item: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let count = usize::try_from(self.i32()?).unwrap_or(0);
        self.items(count, item)
    }

    /// A string of the older encoding: the length has two bytes, -1 is null.
    pub(super) fn plain_text(&mut self) -> Result<String> {
        let length = usize::try_from(self.i16()?).unwrap_or(0);
        text(self.slice(length)?)
    }

    /// Bytes of the older encoding: the length has four bytes, -1 is null.
    pub(super) fn plain_bytes(&mut self) -> Result<&'a [u8]> {
        let length = usize::try_from(self.i32()?).unwrap_or(0);
        self.slice(length)
    }
}

fn text(bytes: &[u8]) -> Result<String> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| NO_UTF8)
}

/// Writes both encodings.
///
/// Lengths beyond the encoding cannot happen to what a process holds in memory and its broker takes (a megabyte); they are
/// cut to the largest one, which the broker refuses.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn i8(&mut self, value: i8) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.i8(i8::from(value));
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    #[expect(clippy::cast_possible_truncation, reason = "seven bits of it are wanted")]
    fn varint(&mut self, value: usize) {
        let mut rest = value;
        while rest >= 0x80 {
            self.0.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.varint(value.len() + 1);
        self.0.extend_from_slice(value);
    }

    pub(super) fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    pub(super) fn optional_text(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.text(value),
            None => self.varint(0),
        }
    }

    pub(super) fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        self.varint(items.len() + 1);
        for value in items {
            item(self, value);
        }
    }

    pub(super) fn null_list(&mut self) {
        self.varint(0);
    }

    pub(super) fn no_tags(&mut self) {
        self.varint(0);
    }

    pub(super) fn plain_list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.i32(i32::try_from(items.len()).unwrap_or(i32::MAX));
        for value in items {
            item(self, value);
        }
    }

    pub(super) fn plain_text(&mut self, value: &str) {
        self.i16(i16::try_from(value.len()).unwrap_or(i16::MAX));
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(super) fn plain_bytes(&mut self, value: &[u8]) {
        self.i32(i32::try_from(value.len()).unwrap_or(i32::MAX));
        self.0.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Writer::default();
        out.text(&"x".repeat(300));
        out.optional_text(None);
        out.list([1, 2].iter(), |out, value| out.i32(*value));
        out.no_tags();
        out.plain_text("plain");
        out.plain_bytes(b"bytes");
        let mut reader = Reader::new(&out.0);
        assert_eq!(reader.text().unwrap().len(), 300);
        assert_eq!(reader.optional_text().unwrap(), None);
        assert_eq!(reader.list(Reader::i32).unwrap(), [1, 2]);
        reader.tags().unwrap();
        assert_eq!(reader.plain_text().unwrap(), "plain");
        assert_eq!(reader.plain_bytes().unwrap(), b"bytes");
        assert!(reader.rest().is_empty());
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_before_room_is_made() {
        let mut reader = Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]);
        assert_eq!(reader.list(Reader::i64), Err(Malformed("it counts more than it holds")));
        let mut reader = Reader::new(&[0x7f, 0xff, 0xff, 0xff]);
        assert_eq!(reader.plain_list(Reader::i64), Err(Malformed("it counts more than it holds")));
    }

    #[test]
    fn unknown_tagged_fields_are_skipped() {
        let mut reader = Reader::new(&[2, 0, 3, b'a', b'b', b'c', 7, 0, 9]);
        reader.tags().unwrap();
        assert_eq!(reader.rest(), [9]);
    }

    #[test]
    fn a_varint_of_six_bytes_is_refused() {
        assert!(Reader::new(&[0xff; 8]).bytes().is_err());
    }
}

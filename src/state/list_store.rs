//! Several values under one key: what an outer join remembers of records that have not found a partner yet.

use crate::error::{Error, Result};
use crate::serdes::Serde;

/// Java's list of items of any length: `1 | count 4 | (length 4 | bytes)*`, where the length -1 stands for a null.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ByteLists;

impl ByteLists {
    const VARIABLE_SIZE: u8 = 1;

    /// Appends an item to the bytes of a list, of which nothing may be there yet.
    pub(crate) fn append(list: &mut Vec<u8>, item: &[u8]) -> Result<()> {
        let too_long = |_| Error::invalid("a list has more than 2^31 bytes or items");
        if list.is_empty() {
            list.extend_from_slice(&[Self::VARIABLE_SIZE, 0, 0, 0, 0]);
        }
        let length = i32::try_from(item.len()).map_err(too_long)?;
        let count = list.get_mut(1..5).and_then(|count| count.first_chunk_mut()).ok_or_else(short_list)?;
        *count = i32::from_be_bytes(*count).saturating_add(1).to_be_bytes();
        list.extend_from_slice(&length.to_be_bytes());
        list.extend_from_slice(item);
        Ok(())
    }

    /// The items of a list; a null has no bytes.
    pub(crate) fn items(list: &[u8]) -> Result<Vec<&[u8]>> {
        let (&[kind, count @ ..], mut rest) = list.split_first_chunk::<5>().ok_or_else(short_list)?;
        if kind != Self::VARIABLE_SIZE {
            return Err(Error::corrupted("a list is not one of items of any length"));
        }
        let mut items = Vec::new();
        for _ in 0..i32::from_be_bytes(count) {
            let (length, behind) = rest.split_first_chunk().ok_or_else(short_list)?;
            let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
            let (item, behind) = behind.split_at_checked(length).ok_or_else(short_list)?;
            items.push(item);
            rest = behind;
        }
        if rest.is_empty() { Ok(items) } else { Err(Error::corrupted("a list is longer than it says")) }
    }
}

#[cold]
fn short_list() -> Error {
    Error::corrupted("a list is too short")
}

impl Serde for ByteLists {
    type Item = Vec<Vec<u8>>;

    fn serialize(&self, items: &Self::Item, bytes: &mut Vec<u8>) -> Result<()> {
        let mut list = vec![Self::VARIABLE_SIZE, 0, 0, 0, 0];
        items.iter().try_for_each(|item| ByteLists::append(&mut list, item))?;
        bytes.append(&mut list);
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Self::Item> {
        Ok(ByteLists::items(bytes)?.into_iter().map(<[u8]>::to_vec).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_javas_bytes() {
        let items = vec![vec![1, 0x41], vec![1, 0x42, 0x42]];
        let mut bytes = Vec::new();
        ByteLists.serialize(&items, &mut bytes).unwrap();
        assert_eq!(bytes, b"\x01\0\0\0\x02\0\0\0\x02\x01\x41\0\0\0\x03\x01\x42\x42");
        assert_eq!(ByteLists.deserialize(&bytes).unwrap(), items);
        for end in 0..bytes.len() {
            assert!(ByteLists.deserialize(&bytes[..end]).is_err());
        }
    }
}

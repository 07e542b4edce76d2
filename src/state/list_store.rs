//! Several values under one key: what an outer join remembers of records that have not found a partner yet.

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use super::store::{Rows, StoreContext};
use crate::error::{Error, Result};
use crate::serdes::{DynSerde, Serde};

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

/// A list of values for each key, in the hands of one operator. Rows and changelog hold whole lists.
pub(crate) struct ListStore<K, V> {
    index: usize,
    key: DynSerde<K>,
    value: DynSerde<V>,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
}

#[cfg_attr(not(test), allow(dead_code, reason = "for outer joins"))]
impl<K: 'static, V: 'static> ListStore<K, V> {
    pub(crate) fn new(index: usize, key: DynSerde<K>, value: DynSerde<V>) -> Self {
        ListStore { index, key, value, key_bytes: Vec::new(), value_bytes: Vec::new() }
    }

    /// Appends a value to the list of a key.
    pub(crate) fn append(&mut self, ctx: &mut impl StoreContext, key: &K, value: &V) -> Result<()> {
        self.encode_key(key)?;
        self.value_bytes.clear();
        self.value.serialize(value, &mut self.value_bytes)?;
        let (stores, context) = ctx.stores();
        let mut list = stores.get(self.index, &self.key_bytes)?.unwrap_or_default().to_vec();
        ByteLists::append(&mut list, &self.value_bytes)?;
        stores.put(self.index, &self.key_bytes, Some(&list), context)
    }

    /// Deletes the list of a key, if there is one: otherwise nothing is logged.
    pub(crate) fn delete(&mut self, ctx: &mut impl StoreContext, key: &K) -> Result<()> {
        self.encode_key(key)?;
        let (stores, context) = ctx.stores();
        if stores.get(self.index, &self.key_bytes)?.is_some() {
            stores.put(self.index, &self.key_bytes, None, context)?;
        }
        Ok(())
    }

    /// The values of a key.
    pub(crate) fn get(&mut self, ctx: &mut impl StoreContext, key: &K) -> Result<Vec<V>> {
        self.encode_key(key)?;
        let Some(list) = ctx.stores().0.get(self.index, &self.key_bytes)? else { return Ok(Vec::new()) };
        ByteLists::items(list)?.into_iter().map(|item| self.value.deserialize(item)).collect()
    }

    /// Every key with its values, in the byte order of the keys, from a key on.
    pub(crate) fn rows_from(&self, key: Option<&K>) -> Result<Rows<K, Vec<V>>> {
        let from = match key {
            Some(key) => {
                let mut bytes = Vec::new();
                self.key.serialize(key, &mut bytes)?;
                Bound::Included(bytes)
            }
            None => Bound::Unbounded,
        };
        let value: DynSerde<Vec<V>> = Arc::new(ListOf(Arc::clone(&self.value)));
        Ok(Rows::new(self.index, Arc::clone(&self.key), value, from, Bound::Unbounded, false))
    }

    fn encode_key(&mut self, key: &K) -> Result<()> {
        self.key_bytes.clear();
        self.key.serialize(key, &mut self.key_bytes)
    }
}

impl<K, V> fmt::Debug for ListStore<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListStore").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Lists of one type.
struct ListOf<V>(DynSerde<V>);

impl<V: 'static> Serde for ListOf<V> {
    type Item = Vec<V>;

    fn serialize(&self, items: &Vec<V>, bytes: &mut Vec<u8>) -> Result<()> {
        let mut item_bytes = Vec::new();
        let mut list = vec![ByteLists::VARIABLE_SIZE, 0, 0, 0, 0];
        for item in items {
            item_bytes.clear();
            self.0.serialize(item, &mut item_bytes)?;
            ByteLists::append(&mut list, &item_bytes)?;
        }
        bytes.append(&mut list);
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Vec<V>> {
        ByteLists::items(bytes)?.into_iter().map(|item| self.0.deserialize(item)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serdes::Utf8;
    use crate::state::task_stores::{RecordContext, TaskStores};
    use crate::state::tests::spec;
    use crate::state::{StoreContext, StoreKind};

    struct Task(TaskStores, RecordContext);

    impl StoreContext for Task {
        fn stores(&mut self) -> (&mut TaskStores, &RecordContext) {
            (&mut self.0, &self.1)
        }
    }

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

    #[test]
    fn the_changelog_gets_the_whole_list() {
        let stores = TaskStores::in_memory(&[spec("l", StoreKind::KeyValue, false)], 0);
        let mut task = Task(stores, RecordContext::default());
        let mut store = ListStore::new(0, Arc::new(Utf8), Arc::new(Utf8));
        let key = "k".to_owned();
        store.delete(&mut task, &key).unwrap();
        for value in ["a", "b"] {
            store.append(&mut task, &key, &value.to_owned()).unwrap();
        }
        assert_eq!(store.get(&mut task, &key).unwrap(), ["a", "b"]);
        let rows = store.rows_from(None).unwrap().collect(&mut task).unwrap();
        assert_eq!(rows, [(key.clone(), vec!["a".to_owned(), "b".to_owned()])]);
        assert!(store.rows_from(Some(&"l".to_owned())).unwrap().collect(&mut task).unwrap().is_empty());
        store.delete(&mut task, &key).unwrap();
        let values: Vec<_> = task.0.changelog().map(|record| record.value.map(<[u8]>::len)).collect();
        assert_eq!(values, [Some(10), Some(15), None]);
    }
}

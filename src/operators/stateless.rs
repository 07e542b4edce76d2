//! Operators that keep nothing.

use super::{ForEachAction, KeySelector, KeyValueMapper, Predicate, ValueMapper};
use crate::error::Result;
use crate::record::Record;
use crate::topology::{Processor, ProcessorContext};

/// Keeps the records for which the predicate holds.
pub(crate) struct Filter<K, V> {
    pub keep: Predicate<K, V>,
}

impl<K: 'static, V: 'static> Processor<K, V> for Filter<K, V> {
    type KeyOut = K;
    type ValueOut = V;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, V>) -> Result<()> {
        if (self.keep)(&record.key, &record.value) { ctx.forward(record) } else { Ok(()) }
    }
}

/// Gives every record a new key and value. They come by value, so that a function can reuse their memory.
pub(crate) struct Map<K, V, K2, V2> {
    pub map: KeyValueMapper<K, V, (K2, V2)>,
}

impl<K: 'static, V: 'static, K2: 'static, V2: 'static> Processor<K, V> for Map<K, V, K2, V2> {
    type KeyOut = K2;
    type ValueOut = V2;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K2, V2>) -> Result<()> {
        let (key, value) = (self.map)(record.key, record.value);
        ctx.forward(Record { key, value, timestamp: record.timestamp, headers: record.headers })
    }
}

/// Gives every record a new value.
pub(crate) struct MapValues<K, V, V2> {
    pub map: ValueMapper<K, V, V2>,
}

impl<K: 'static, V: 'static, V2: 'static> Processor<K, V> for MapValues<K, V, V2> {
    type KeyOut = K;
    type ValueOut = V2;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, V2>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        let value = (self.map)(&key, value);
        ctx.forward(Record { key, value, timestamp, headers })
    }
}

/// Gives every record a new key.
pub(crate) struct SelectKey<K, V, K2> {
    pub select: KeySelector<K, V, K2>,
}

impl<K: 'static, V: 'static, K2: 'static> Processor<K, V> for SelectKey<K, V, K2> {
    type KeyOut = K2;
    type ValueOut = V;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K2, V>) -> Result<()> {
        let key = (self.select)(&record.key, &record.value);
        ctx.forward(record.with_key(key))
    }
}

/// Makes any number of records of one, in the order of the iterator.
pub(crate) struct FlatMap<K, V, I> {
    pub map: KeyValueMapper<K, V, I>,
}

impl<K, V, K2, V2, I> Processor<K, V> for FlatMap<K, V, I>
where
    K: 'static,
    V: 'static,
    K2: 'static,
    V2: 'static,
    I: IntoIterator<Item = (K2, V2)> + 'static,
{
    type KeyOut = K2;
    type ValueOut = V2;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K2, V2>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        for (key, value) in (self.map)(key, value) {
            ctx.forward(Record { key, value, timestamp, headers: headers.clone() })?;
        }
        Ok(())
    }
}

/// The same with the key kept.
pub(crate) struct FlatMapValues<K, V, I> {
    pub map: ValueMapper<K, V, I>,
}

impl<K, V, I> Processor<K, V> for FlatMapValues<K, V, I>
where
    K: Clone + 'static, // each of the records needs the key
    V: 'static,
    I: IntoIterator<Item: 'static> + 'static,
{
    type KeyOut = K;
    type ValueOut = I::Item;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, I::Item>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        let mut values = (self.map)(&key, value).into_iter();
        let Some(mut value) = values.next() else { return Ok(()) };
        for next in values {
            let record = Record { key: key.clone(), value, timestamp, headers: headers.clone() };
            ctx.forward(record)?;
            value = next;
        }
        // The last one takes the key and the headers with it.
        ctx.forward(Record { key, value, timestamp, headers })
    }
}

/// Gives some records a new value and drops the others.
pub(crate) struct FilterMapValues<K, V, V2> {
    pub map: ValueMapper<K, V, Option<V2>>,
}

impl<K: 'static, V: 'static, V2: 'static> Processor<K, V> for FilterMapValues<K, V, V2> {
    type KeyOut = K;
    type ValueOut = V2;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, V2>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        match (self.map)(&key, value) {
            Some(value) => ctx.forward(Record { key, value, timestamp, headers }),
            None => Ok(()),
        }
    }
}

/// Shows every record to a function and passes it on. Without a child it is the end of a stream: `for_each`.
pub(crate) struct Peek<K, V> {
    pub action: ForEachAction<K, V>,
}

impl<K: 'static, V: 'static> Processor<K, V> for Peek<K, V> {
    type KeyOut = K;
    type ValueOut = V;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, V>) -> Result<()> {
        (self.action)(&record.key, &record.value);
        ctx.forward(record)
    }
}

/// Changes nothing: a merge, which is only a name for several parents, or a branch.
pub(crate) struct PassThrough;

impl<K: 'static, V: 'static> Processor<K, V> for PassThrough {
    type KeyOut = K;
    type ValueOut = V;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, V>) -> Result<()> {
        ctx.forward(record)
    }
}

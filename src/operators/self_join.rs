//! Joins a stream with itself, in one store: what the optimisation `single.store.self.join` makes of such a join (KIP-862).

use std::any::Any;
use std::sync::Arc;

use super::stream_stream_join::{Bounds, StreamJoiner};
use super::windowed::ObservedTime;
use crate::error::{Error, ErrorKind, Result};
use crate::record::Record;
use crate::serdes::DynSerde;
use crate::state::WindowStore;
use crate::topology::{Processor, ProcessorContext};

/// Joins each record with those of its stream before it, as either side, and with itself. Sends what an inner join of two
/// stores sends, in its order. `VO` is `V` by the name that the right side gave it.
pub(crate) struct SelfJoin<K, V, VO, VR> {
    pub name: Arc<str>,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    pub bounds: Bounds,
    pub retention_ms: i64,
    pub rows: WindowStore<K, V>,
    pub time: ObservedTime,
    pub joiner: StreamJoiner<K, V, VO, VR>,
}

impl<K: Clone + 'static, V: 'static, VO: 'static, VR: 'static> Processor<K, V> for SelfJoin<K, V, VO, VR> {
    type KeyOut = K;
    type ValueOut = VR;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, VR>) -> Result<()> {
        if self.key.is_null(&record.key) || self.value.is_null(&record.value) {
            ctx.task.drop_record(&self.name, "its key or value is null");
            return Ok(());
        }
        let Record { key, value, timestamp, headers } = record;
        let joined =
            |left: &V, right: &V| -> Result<Option<VR>> { Ok((self.joiner)(&key, Some(left), Some(as_other(right)?))) };
        let forward = |value: Option<VR>, timestamp: i64, ctx: &mut ProcessorContext<'_, K, VR>| match value {
            Some(value) => ctx.forward(Record { key: key.clone(), value, timestamp, headers: headers.clone() }),
            None => Ok(()),
        };
        let mut with_itself = None;
        if timestamp > self.time.observe(timestamp) - self.retention_ms + 1 {
            with_itself = joined(&value, &value)?;
        }

        let (from, to) = self.bounds.around(timestamp);
        let mut others = self.rows.fetch_range(&key, from, to)?;
        while let Some((other_time, other)) = others.next(ctx.task)? {
            forward(joined(&value, &other)?, timestamp.max(other_time), ctx)?;
        }
        let (from, to) = self.bounds.reversed().around(timestamp);
        let mut others = self.rows.fetch_range(&key, from, to)?;
        while let Some((other_time, other)) = others.next(ctx.task)? {
            if other_time > timestamp {
                forward(with_itself.take(), timestamp, ctx)?;
            }
            forward(joined(&other, &value)?, timestamp.max(other_time), ctx)?;
        }
        match with_itself {
            Some(value) => ctx.forward(Record { key, value, timestamp, headers }),
            None => Ok(()),
        }
    }
}

/// Both sides are one stream, so their values are of one type.
fn as_other<V: 'static, VO: 'static>(value: &V) -> Result<&VO> {
    let value: &dyn Any = value;
    value.downcast_ref().ok_or_else(|| Error::new(ErrorKind::Internal, "the sides of a self-join have two types"))
}

//! Joins two tables on a key that the rows of the left one have of the right one (KIP-213, KIP-775).
//!
//! ```text
//!   left change -> SubscriptionSend ==topic==> SubscriptionReceive -> SubscriptionJoin -+
//!                  "I want row fk"             remembers fk | pk      reads row fk      |
//!                                                                                       +==topic==> ResponseJoin -> result
//!   right change -------------------------------> ForeignTableJoin --------------------+           reads left row pk
//!                                                 all who want row fk
//! ```
//! The first topic sends a left row to the task of its foreign key, the second one sends the right row back. An answer
//! carries the hash of the left row that has asked: by the time it arrives the row may be another, which has asked anew.

use std::rc::Rc;
use std::sync::Arc;

use super::stream_table_join::JoinKind;
use super::table::View;
use super::table_join::TableJoiner;
use crate::error::Result;
use crate::record::{Change, Headers, Record, ValueAndTimestamp};
use crate::serdes::{
    Answer, Bytes, DynSerde, Instruction, Response, Serde, Subscriber, SubscriberSerde, Subscription, Timestamped,
    ValueHash, combined_key, murmur3_128,
};
use crate::state::{KeyValueStore, StoreContext, TimestampedKeyValueStore};
use crate::topology::{Processor, ProcessorContext};

/// The foreign key in a row; none: the row refers to nothing.
pub(crate) type ForeignKey<K, V, KO> = Arc<dyn Fn(&K, &V) -> Option<KO> + Send + Sync>;

/// Subscriptions by foreign and primary key.
pub(crate) type SubscriptionStore = TimestampedKeyValueStore<Vec<u8>, Subscription>;

const OUT_OF_ORDER: &str = "a newer row of its versioned table has been joined";
const NO_FOREIGN_KEY: &str = "its foreign key is null";

/// Tells the right table which row a left row wants.
pub(crate) struct SubscriptionSend<K, V, KO> {
    pub name: Arc<str>,
    pub kind: JoinKind,
    pub foreign_key: ForeignKey<K, V, KO>,
    pub key: DynSerde<K>,
    pub value: DynSerde<V>,
    pub foreign: DynSerde<KO>,
    pub is_versioned: bool,
    /// What a subscription says of the partition to answer to; releases before 3.4 knew none.
    pub primary_partition: Option<i32>,
    /// Scratch to compare keys and to hash rows in.
    pub bytes: Vec<u8>,
    pub other_bytes: Vec<u8>,
}

impl<K: 'static, V: 'static, KO: 'static> Processor<K, Change<V>> for SubscriptionSend<K, V, KO> {
    type KeyOut = Option<KO>;
    type ValueOut = Subscription;

    fn process(
        &mut self,
        record: Record<K, Change<V>>,
        ctx: &mut ProcessorContext<'_, Option<KO>, Subscription>,
    ) -> Result<()> {
        let Record { key, value: Change { old, new, is_latest }, timestamp, headers } = record;
        if self.is_versioned && !is_latest {
            ctx.task.drop_record(&self.name, OUT_OF_ORDER);
            return Ok(());
        }
        let hash = new.as_ref().map(|row| self.hash(row)).transpose()?;
        let (old_key, new_key) = (self.foreign_key(&key, old.as_ref()), self.foreign_key(&key, new.as_ref()));
        let is_same = self.is_same(old_key.as_ref(), new_key.as_ref())?;
        let request = Request { key, hash, timestamp, headers };
        if self.kind == JoinKind::Left {
            if old.is_none() && new.is_none() {
                return Ok(());
            }
            if let Some(old_key) = old_key.filter(|_| !is_same) {
                self.send(&request, Some(old_key), Instruction::DeleteKeyNoPropagate, request.headers.clone(), ctx)?;
            }
            return self.send_last(request, new_key, Instruction::PropagateNullIfNoFkValAvailable, ctx);
        }
        match (old_key, new_key) {
            (old_key, None) => {
                if new.is_some() {
                    ctx.task.drop_record(&self.name, NO_FOREIGN_KEY);
                }
                match old_key {
                    Some(old_key) => self.send_last(request, Some(old_key), Instruction::DeleteKeyAndPropagate, ctx),
                    None => Ok(()),
                }
            }
            (Some(old_key), Some(new_key)) if !is_same => {
                self.send(&request, Some(old_key), Instruction::DeleteKeyNoPropagate, request.headers.clone(), ctx)?;
                self.send_last(request, Some(new_key), Instruction::PropagateNullIfNoFkValAvailable, ctx)
            }
            (_, new_key) => self.send_last(request, new_key, Instruction::PropagateOnlyIfFkValAvailable, ctx),
        }
    }
}

/// What the subscriptions of one change have in common.
struct Request<K> {
    key: K,
    hash: Option<ValueHash>,
    timestamp: i64,
    headers: Headers,
}

impl<K: 'static, V: 'static, KO: 'static> SubscriptionSend<K, V, KO> {
    fn foreign_key(&self, key: &K, row: Option<&V>) -> Option<KO> {
        (self.foreign_key)(key, row?).filter(|foreign_key| !self.foreign.is_null(foreign_key))
    }

    fn hash(&mut self, row: &V) -> Result<ValueHash> {
        self.bytes.clear();
        self.value.serialize(row, &mut self.bytes)?;
        Ok(murmur3_128(&self.bytes))
    }

    /// Equal keys have equal bytes, so keys need not be `Eq`.
    fn is_same(&mut self, old: Option<&KO>, new: Option<&KO>) -> Result<bool> {
        let (Some(old), Some(new)) = (old, new) else { return Ok(old.is_none() && new.is_none()) };
        self.bytes.clear();
        self.other_bytes.clear();
        self.foreign.serialize(old, &mut self.bytes)?;
        self.foreign.serialize(new, &mut self.other_bytes)?;
        Ok(self.bytes == self.other_bytes)
    }

    fn send_last(
        &self,
        mut request: Request<K>,
        foreign_key: Option<KO>,
        instruction: Instruction,
        ctx: &mut ProcessorContext<'_, Option<KO>, Subscription>,
    ) -> Result<()> {
        let headers = std::mem::take(&mut request.headers);
        self.send(&request, foreign_key, instruction, headers, ctx)
    }

    fn send(
        &self,
        request: &Request<K>,
        foreign_key: Option<KO>,
        instruction: Instruction,
        headers: Headers,
        ctx: &mut ProcessorContext<'_, Option<KO>, Subscription>,
    ) -> Result<()> {
        let mut primary_key = Vec::new();
        self.key.serialize(&request.key, &mut primary_key)?;
        let (hash, primary_partition) = (request.hash, self.primary_partition);
        let value = Subscription { hash, instruction, primary_key, primary_partition };
        ctx.forward(Record { key: foreign_key, value, timestamp: request.timestamp, headers })
    }
}

/// Remembers who wants which row.
pub(crate) struct SubscriptionReceive<KO> {
    pub name: Arc<str>,
    pub foreign: DynSerde<KO>,
    pub store: SubscriptionStore,
    /// Scratch for the key of a subscription.
    pub combined: Vec<u8>,
}

impl<KO: 'static> Processor<Option<KO>, Subscription> for SubscriptionReceive<KO> {
    type KeyOut = Option<KO>;
    type ValueOut = Subscription;

    fn process(
        &mut self,
        record: Record<Option<KO>, Subscription>,
        ctx: &mut ProcessorContext<'_, Option<KO>, Subscription>,
    ) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        let Some(foreign_key) = &key else {
            // A left row that wants nothing gets its answer all the same, but there is nothing to remember.
            if value.instruction != Instruction::PropagateNullIfNoFkValAvailable {
                ctx.task.drop_record(&self.name, NO_FOREIGN_KEY);
                return Ok(());
            }
            return ctx.forward(Record { key, value, timestamp, headers });
        };
        // The one store of a table whose changelog carries headers, as Java's does.
        ctx.task.record.headers.clone_from(&headers);
        self.combined.clear();
        combined_key(&*self.foreign, foreign_key, &value.primary_key, &mut self.combined)?;
        let value = match value.instruction {
            Instruction::DeleteKeyNoPropagate | Instruction::DeleteKeyAndPropagate => {
                let (stores, context) = ctx.stores();
                stores.put(self.store.index(), &self.combined, None, context)?;
                value
            }
            Instruction::PropagateNullIfNoFkValAvailable | Instruction::PropagateOnlyIfFkValAvailable => {
                let row = ValueAndTimestamp { value, timestamp };
                self.store.put(ctx, &self.combined, &row)?;
                row.value
            }
        };
        ctx.forward(Record { key, value, timestamp, headers })
    }
}

/// Answers a subscription with the row as it is.
pub(crate) struct SubscriptionJoin<KO, VO> {
    pub foreign_table: Box<dyn View<KO, VO>>,
    pub value: DynSerde<VO>,
    /// Scratch to encode rows in.
    pub bytes: Vec<u8>,
}

impl<KO: 'static, VO: 'static> Processor<Option<KO>, Subscription> for SubscriptionJoin<KO, VO> {
    type KeyOut = Vec<u8>;
    type ValueOut = Answer;

    fn process(
        &mut self,
        record: Record<Option<KO>, Subscription>,
        ctx: &mut ProcessorContext<'_, Vec<u8>, Answer>,
    ) -> Result<()> {
        let Record { key, value: subscription, timestamp, headers } = record;
        let Subscription { hash, instruction, primary_key, primary_partition } = subscription;
        let row = match key {
            Some(foreign_key) if instruction != Instruction::DeleteKeyNoPropagate => {
                self.foreign_table.get(ctx.task, &foreign_key)?
            }
            Some(_) | None => None,
        };
        let timestamp = row.as_ref().map_or(timestamp, |row| row.timestamp.max(timestamp));
        let row = row.map(|row| encoded(&self.value, &row.value, &mut self.bytes)).transpose()?.flatten();
        let foreign_value = match (instruction, row) {
            (Instruction::DeleteKeyNoPropagate, _) => return Ok(()),
            (Instruction::PropagateOnlyIfFkValAvailable, None) => return Ok(()),
            (Instruction::DeleteKeyAndPropagate, _) => None,
            (Instruction::PropagateNullIfNoFkValAvailable | Instruction::PropagateOnlyIfFkValAvailable, row) => row,
        };
        let value = Answer { hash, foreign_value, primary_partition };
        ctx.forward(Record { key: primary_key, value, timestamp, headers })
    }
}

/// Tells all who want a row of the right table that it has changed.
pub(crate) struct ForeignTableJoin<KO, VO> {
    pub name: Arc<str>,
    pub foreign: DynSerde<KO>,
    pub value: DynSerde<VO>,
    pub subscribers: TimestampedKeyValueStore<Vec<u8>, Subscriber>,
    pub is_versioned: bool,
    /// Scratch for the beginning of the keys of all subscriptions to a row, and for the row.
    pub prefix: Vec<u8>,
    pub bytes: Vec<u8>,
}

/// The subscriptions as [`ForeignTableJoin`] reads them.
pub(crate) fn subscribers(store: &SubscriptionStore) -> TimestampedKeyValueStore<Vec<u8>, Subscriber> {
    KeyValueStore::new(store.index(), Arc::new(Bytes), Arc::new(Timestamped(SubscriberSerde)))
}

impl<KO: 'static, VO: 'static> Processor<KO, Change<VO>> for ForeignTableJoin<KO, VO> {
    type KeyOut = Vec<u8>;
    type ValueOut = Answer;

    fn process(
        &mut self,
        record: Record<KO, Change<VO>>,
        ctx: &mut ProcessorContext<'_, Vec<u8>, Answer>,
    ) -> Result<()> {
        let Record { key, value: Change { new, is_latest, .. }, timestamp, headers } = record;
        if self.is_versioned && !is_latest {
            ctx.task.drop_record(&self.name, OUT_OF_ORDER);
            return Ok(());
        }
        self.prefix.clear();
        combined_key(&*self.foreign, &key, &[], &mut self.prefix)?;
        let mut rows = self.subscribers.prefix_scan(&self.prefix, &Bytes)?;
        let mut next = rows.next(ctx)?;
        if next.is_none() {
            return Ok(());
        }
        let foreign_value = new.map(|row| encoded(&self.value, &row, &mut self.bytes)).transpose()?.flatten();
        while let Some((mut combined, ValueAndTimestamp { value: subscriber, .. })) = next {
            let primary_key = combined.split_off(self.prefix.len());
            let Subscriber { hash, primary_partition } = subscriber;
            let value = Answer { hash, foreign_value: foreign_value.as_ref().map(Rc::clone), primary_partition };
            ctx.forward(Record { key: primary_key, value, timestamp, headers: headers.clone() })?;
            next = rows.next(ctx)?;
        }
        Ok(())
    }
}

/// None for a row that its serde takes for a null.
fn encoded<T: 'static>(serde: &DynSerde<T>, row: &T, bytes: &mut Vec<u8>) -> Result<Option<Rc<[u8]>>> {
    bytes.clear();
    let length = crate::serdes::encode(&**serde, row, bytes)?;
    Ok(length.map(|_| Rc::from(bytes.as_slice())))
}

/// Joins an answer with the left row, if that is still the row that has asked.
pub(crate) struct ResponseJoin<K, V, VO, VR> {
    pub kind: JoinKind,
    pub table: Box<dyn View<K, V>>,
    pub value: DynSerde<V>,
    pub joiner: TableJoiner<V, VO, VR>,
    /// Scratch to hash rows in.
    pub bytes: Vec<u8>,
}

impl<K, V, VO, VR> Processor<K, Response<VO>> for ResponseJoin<K, V, VO, VR>
where
    K: 'static,
    V: 'static,
    VO: 'static,
    VR: 'static,
{
    type KeyOut = K;
    type ValueOut = Option<VR>;

    fn process(
        &mut self,
        record: Record<K, Response<VO>>,
        ctx: &mut ProcessorContext<'_, K, Option<VR>>,
    ) -> Result<()> {
        let Record { key, value: Response { hash, foreign_value }, timestamp, headers } = record;
        let row = self.table.get(ctx.task, &key)?.map(|row| row.value);
        self.bytes.clear();
        row.iter().try_for_each(|row| self.value.serialize(row, &mut self.bytes))?;
        let current = row.as_ref().map(|_| murmur3_128(&self.bytes));
        if current != hash {
            ctx.task.drop_silently(); // no news while rows change: the row of now has asked as well
            return Ok(());
        }
        let is_deleted = foreign_value.is_none() && (self.kind == JoinKind::Inner || row.is_none());
        let value = if is_deleted { None } else { (self.joiner)(row, foreign_value) };
        ctx.forward(Record { key, value, timestamp, headers })
    }
}

//! One family per file. An operator is a plain struct with a [`Processor`](crate::Processor) implementation.

pub(crate) mod aggregate;
mod fixed_key;
mod fold;
pub(crate) mod foreign_key_join;
pub(crate) mod global_join;
pub(crate) mod grace_join;
pub(crate) mod map_values_async;
pub(crate) mod outer_join_store;
pub(crate) mod print;
pub(crate) mod self_join;
pub(crate) mod split;
pub(crate) mod stateless;
pub(crate) mod stream_stream_join;
pub(crate) mod stream_table_join;
pub(crate) mod suppress;
pub(crate) mod suppress_buffer;
pub(crate) mod table;
pub(crate) mod table_aggregate;
pub(crate) mod table_join;
pub(crate) mod table_store;
pub(crate) mod table_transform;
pub(crate) mod windowed;

use std::sync::Arc;

pub(crate) use fixed_key::FixedKey;
pub use fixed_key::{FixedKeyContext, FixedKeyProcessor, FixedKeyRecord};
pub(crate) use fold::Fold;
pub use map_values_async::AsyncOrder;
pub use table_transform::{TransformContext, ValueTransformerWithKey};
pub use windowed::changes::EmitStrategy;

/// The user's functions, by Java's names. Behind a pointer, so that there is one `Filter` per pair of types and not one
/// per call: 1 ns more per hop, a third of the compile time and of the code.
pub(crate) type Predicate<K, V> = Arc<dyn Fn(&K, &V) -> bool + Send + Sync>;
pub(crate) type KeyValueMapper<K, V, R> = Arc<dyn Fn(K, V) -> R + Send + Sync>;
pub(crate) type KeySelector<K, V, K2> = Arc<dyn Fn(&K, &V) -> K2 + Send + Sync>;
pub(crate) type ValueMapper<K, V, V2> = Arc<dyn Fn(&K, V) -> V2 + Send + Sync>;
pub(crate) type ForEachAction<K, V> = Arc<dyn Fn(&K, &V) + Send + Sync>;
/// Of a table: none deletes the row.
pub(crate) type RowMapper<K, V, V2> = Arc<dyn Fn(&K, &V) -> Option<V2> + Send + Sync>;
/// Of a stream and a table: none joins nothing.
pub(crate) type ValueJoiner<K, V, VT, VR> = Arc<dyn Fn(&K, V, Option<VT>) -> Option<VR> + Send + Sync>;
pub(crate) type Initializer<A> = Arc<dyn Fn() -> A + Send + Sync>;
/// Gets the row as it was, none at first; none deletes it.
pub(crate) type Aggregator<K, V, A> = Arc<dyn Fn(&K, V, Option<A>) -> Option<A> + Send + Sync>;

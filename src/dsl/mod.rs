//! Typed handles that append nodes. A handle is a node's index and the types it forwards; nothing runs here.

mod branch;
mod builder;
mod cogrouped;
mod foreign_key_join;
mod foreign_key_nodes;
mod global_table;
mod grouped;
mod join;
mod joined;
mod kstream;
mod ktable;
mod options;
mod process;
mod repartition;
mod stream_join;
mod stream_joined;
mod suppressed;
mod table_join;
mod table_node;
mod table_transform;
mod windowed;
mod windowed_store;

pub use branch::{Branched, BranchedKStream};
pub use builder::StreamsBuilder;
pub use cogrouped::{CogroupedKStream, SessionWindowedCogroupedKStream, TimeWindowedCogroupedKStream};
pub use foreign_key_join::TableJoined;
pub use global_table::GlobalKTable;
pub use grouped::{KGroupedStream, KGroupedTable};
pub use joined::Joined;
pub use kstream::KStream;
pub use ktable::KTable;
pub use options::{Grouped, Materialized, Printed, Processed, Repartitioned};
pub use stream_joined::StreamJoined;
pub use suppressed::{BufferConfig, BufferFull, EmitEarly, ShutDown, Suppressed};
pub use windowed::{SessionWindowedKStream, TimeWindowedKStream, Windows};

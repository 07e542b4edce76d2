//! Queries: where they begin, and what a stream thread does for them.

use std::sync::Arc;

use super::kafka_streams::KafkaStreams;
use super::state::State;
use super::stream_thread::StreamThread;
use crate::error::{Error, ErrorKind, Result};
use crate::query::{Query, QueryableStore, QueryableStoreType, RawStores, StateQueryRequest, StateQueryResult};
use crate::state::StoreSpec;

impl KafkaStreams {
    /// A store of this instance, to be asked by any thread: Java's `store`. What is committed is read, by default of tasks
    /// that run here: so it is as old as [`commit_interval`](crate::Config::commit_interval), 100 ms exactly once and 30 s at
    /// least once unless it is set.
    ///
    /// # Errors
    /// `Invalid`: the topology has no store of this name, or it is of another kind. `Closed`: the client is not started.
    ///
    /// # Examples
    /// ```
    /// use kstreams::{Config, Consumed, EmbeddedCluster, Grouped, I64, KafkaStreams, Materialized, Position};
    /// use kstreams::{QueryableStoreTypes, State, StreamsBuilder, Utf8};
    /// use std::time::Duration;
    ///
    /// # fn main() -> kstreams::Result<()> {
    /// let builder = StreamsBuilder::new();
    /// let words = builder.stream("words", Consumed::with(Utf8, Utf8));
    /// words.group_by_key(Grouped::with(Utf8, Utf8)).count(Materialized::named("counts"));
    ///
    /// let cluster = EmbeddedCluster::new();
    /// cluster.create_topic("words", 1)?;
    /// let (partition, offset) = cluster.produce("words", Some(b"stream"), Some(b""), None)?;
    /// let config = Config::new("counts", "embedded://").cluster(&cluster).exactly_once();
    /// let streams = KafkaStreams::new(builder.build()?, config)?;
    /// streams.start()?;
    /// # while streams.state() != State::Running { std::thread::yield_now(); }
    /// let counts = streams.store("counts", QueryableStoreTypes::key_value(Utf8, I64))?;
    /// let written = Position::at("words", partition, offset);
    /// let counts = counts.with_position_bound(&written, Duration::from_secs(30));
    /// assert_eq!(counts.get(&"stream".to_owned())?, Some(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn store<S: 'static>(&self, name: &str, store_type: QueryableStoreType<S>) -> Result<QueryableStore<S>> {
        let (spec, store) = self.unchecked_store(name, store_type)?;
        store.checked(spec.kind)
    }

    fn unchecked_store<S: 'static>(
        &self,
        name: &str,
        store_type: QueryableStoreType<S>,
    ) -> Result<(&Arc<StoreSpec>, QueryableStore<S>)> {
        let spec = self.topology().store(name).ok_or_else(|| {
            Error::invalid(format!("there is no store {name}: name it where it is made, with Materialized::named"))
        })?;
        if self.state() == State::Created {
            let context = format!("store {name} cannot be asked before the client is started");
            return Err(Error::new(ErrorKind::Closed, context));
        }
        let local = Arc::clone(&self.board.lags.local);
        Ok((spec, QueryableStore::new(local, Arc::clone(&spec.name), store_type)))
    }

    /// Asks a store of this instance partition by partition: Java's `query` (KIP-796), with its queries and reasons of
    /// failure. What is committed is read.
    ///
    /// # Errors
    /// `Invalid`: the topology has no store of this name. `Closed`: the client is not started. What goes wrong with a
    /// partition is in its result.
    ///
    /// # Examples
    /// ```no_run
    /// use kstreams::{I64, KafkaStreams, KeyQuery, Position, QueryableStoreTypes, Result, StateQueryRequest, Utf8};
    ///
    /// fn total(streams: &KafkaStreams, customer: &str, seen: &Position) -> Result<Option<i64>> {
    ///     let request = StateQueryRequest::in_store("sums", QueryableStoreTypes::key_value(Utf8, I64))
    ///         .with_query(KeyQuery::with_key(customer.to_owned()))
    ///         .with_position_bound(seen)
    ///         .require_active();
    ///     let found = streams.query(&request)?.only_partition_result()?;
    ///     Ok(found.and_then(|found| found.into_result().ok().flatten()))
    /// }
    /// ```
    pub fn query<S: 'static, Q: Query<S>>(
        &self,
        request: &StateQueryRequest<S, Q>,
    ) -> Result<StateQueryResult<Q::Answer>> {
        let (_, store) = self.unchecked_store(request.store(), request.store_type().clone())?;
        Ok(request.ask(&store, self.board.whereabouts.partitions_of(request.store())))
    }

    /// The stores of this instance by their names, with keys and values as bytes: for a server in front of it. To be had
    /// before the start, too; nothing is there then.
    pub fn raw_stores(&self) -> RawStores {
        let topology = self.topology();
        let sub_topologies = (0..topology.sub_topology_count()).map(|number| topology.sub_topology(number));
        let specs = sub_topologies.flat_map(|nodes| topology.stores(&nodes));
        let mut stores: Vec<_> = specs.map(|spec| (Arc::clone(&spec.name), spec.kind)).collect();
        stores.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        stores.dedup_by(|(one, _), (other, _)| one == other);
        RawStores::new(Arc::clone(&self.board.lags.local), stores.into_iter())
    }
}

impl StreamThread {
    /// Answers reads of what is not committed, and lets others read rows in memory that they have asked for.
    pub(super) fn serve_queries(&mut self) -> Result<()> {
        for (task, read) in self.inbox.take() {
            // Unread, it tells by its end that the task is not here.
            if let Some(running) = self.tasks.iter_mut().find(|running| running.task.id() == task) {
                running.task.stores()?.only_read(read);
            }
        }
        let mut is_shared = false;
        for running in &mut self.tasks {
            is_shared |= running.task.stores()?.share_if_wanted();
        }
        if is_shared {
            self.app.lags.local.shared();
        }
        Ok(())
    }

    /// What is committed now, and can be read.
    pub(super) fn tell_positions(&self) {
        for running in &self.tasks {
            self.app.lags.local.committed(running.task.id(), running.task.committed_positions());
        }
    }
}

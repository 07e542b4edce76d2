//! Stores that a topic feeds: global ones, and those of KIP-813.

use std::sync::Arc;

use super::builder::TopologyBuilder;
use super::io::{Consumed, OffsetReset};
use super::node_spec::NodeSpec;
use super::processor::{Processor, ProcessorInit};
use crate::error::Result;
use crate::state::{Changelog, StoreBuilder, StoreSpec};

impl TopologyBuilder {
    /// Adds a store that every instance holds whole and every processor can read: a processor of its own writes what a
    /// topic says, and is the only one that may. It has no changelog, and its processor forwards to nobody.
    ///
    /// Processors ask for it as for any store, of any kind, without being connected. Rows of a store by time expire by what
    /// its own processor puts. It is not synchronised with the records of other
    /// topics. Timestamps are those of the records; an extractor of `consumed` is not asked.
    pub fn add_global_store<S, K, V, P>(
        &mut self,
        store: &StoreBuilder<S>,
        source: &str,
        topic: &str,
        consumed: Consumed<K, V>,
        processor: &str,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
    ) -> &mut Self
    where
        K: 'static,
        V: 'static,
        P: Processor<K, V>,
    {
        let node = NodeSpec::processor::<K, V, _>(processor, make);
        self.append_global(&store.spec, source, topic, consumed, node);
        self
    }

    /// Adds a store that holds what a topic says (KIP-813): partitioned like any store, written only by the processor
    /// given here, and restored from the topic itself instead of a changelog.
    ///
    /// The processor has to write each record as it is: that is what a restored store gets. Reading begins with the oldest
    /// record. Others that are [connected](TopologyBuilder::connect) should only read the store.
    pub fn add_read_only_store<S, K, V, P>(
        &mut self,
        store: &StoreBuilder<S>,
        source: &str,
        topic: &str,
        consumed: Consumed<K, V>,
        processor: &str,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
    ) -> &mut Self
    where
        K: 'static,
        V: 'static,
        P: Processor<K, V>,
    {
        let consumed = consumed.with_offset_reset(OffsetReset::Earliest);
        let changelog = Changelog::Source { topic: topic.into(), readable: consumed.readable() };
        let source = self.append(NodeSpec::source(source, &[topic], consumed), &[]);
        let name = Arc::clone(&store.spec.name);
        self.append(NodeSpec::processor::<K, V, _>(processor, make).with_stores([Arc::clone(&name)]), &[source]);
        self.add_store(Arc::clone(&store.spec));
        self.refuse_ttl(&store.spec);
        self.back_by(&name, changelog);
        self
    }

    /// What feeds such a store would bring rows back that have expired.
    fn refuse_ttl(&mut self, spec: &StoreSpec) {
        if spec.ttl_ms.is_some() {
            self.mistake(format!(
                "store {} holds what its topic says, so its rows cannot expire: leave with_ttl out",
                spec.name
            ));
        }
    }

    /// A source and a processor that write a global store.
    pub(crate) fn append_global<K: 'static, V: 'static>(
        &mut self,
        store: &Arc<StoreSpec>,
        source: &str,
        topic: &str,
        consumed: Consumed<K, V>,
        processor: NodeSpec,
    ) {
        // Readers see what has been written, so nothing is held back; and the topic is the changelog.
        let spec = StoreSpec { caching: false, changelog: Changelog::Off, ..StoreSpec::clone(store) };
        let name = Arc::clone(&spec.name);
        if spec.custom.is_some() {
            self.mistake(format!(
                "store {name} has an engine of its own, which one task owns: a global store cannot, leave with_engine out"
            ));
        }
        self.refuse_ttl(&spec);
        let source = self.append(NodeSpec::source(source, &[topic], consumed.at_record_time()), &[]);
        let writer = Arc::clone(&processor.0.name);
        self.append(processor.with_stores([Arc::clone(&name)]), &[source]);
        self.add_store(Arc::new(spec));
        self.global_stores.insert(name, writer);
    }
}

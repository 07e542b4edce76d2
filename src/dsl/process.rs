//! Processors of the user's.

use std::sync::Arc;

use super::{KStream, Processed};
use crate::error::Result;
use crate::operators::{FixedKey, FixedKeyProcessor};
use crate::topology::{NodeSpec, Processor, ProcessorInit};

impl<K: 'static, V: 'static> KStream<K, V> {
    /// A processor of the user's, with stores and schedules. `make` runs for every task, and again after a failure.
    ///
    /// The key is taken for changed: grouping or joining repartitions. See [`Processor`] for an example, and
    /// [`process_values`](KStream::process_values) for processors that leave the key alone.
    pub fn process<P: Processor<K, V>>(
        self,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
        processed: Processed,
    ) -> KStream<P::KeyOut, P::ValueOut> {
        self.attach_processor("KSTREAM-PROCESSOR-", make, processed).with_new_key()
    }

    /// A processor of the user's that cannot change the key, so that nothing has to be repartitioned behind it. See
    /// [`FixedKeyProcessor`] for an example.
    pub fn process_values<P: FixedKeyProcessor<K, V>>(
        self,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
        processed: Processed,
    ) -> KStream<K, P::ValueOut> {
        self.attach_processor("KSTREAM-PROCESSVALUES-", move |init| make(init).map(FixedKey), processed)
            .with_new_value()
    }

    fn attach_processor<P: Processor<K, V>>(
        mut self,
        prefix: &str,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<P> + Send + Sync + 'static,
        processed: Processed,
    ) -> KStream<P::KeyOut, P::ValueOut> {
        let given = self.take_given();
        let Processed { connected, own } = processed;
        let mut graph = self.graph.borrow_mut();
        // Unlike other operators, a named processor uses up no number.
        let name = match given {
            Some(given) => graph.checked(given),
            None => graph.name(prefix),
        };
        own.iter().for_each(|store| graph.add_store(Arc::clone(store)));
        graph.note_open_stores(&connected);
        drop(graph);
        let stores = connected.into_iter().chain(own.iter().map(|store| Arc::clone(&store.name)));
        self.attach(NodeSpec::processor(&name, make).with_stores(stores))
    }
}

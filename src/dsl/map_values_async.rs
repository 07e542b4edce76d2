//! Values that come from calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::KStream;
use crate::error::Result;
use crate::operators::map_values_async::{AsyncMapper, AsyncOrder, CallPlan, MapValuesAsync};

/// How [`map_values_async`](KStream::map_values_async) calls: how many records at once, in which order their results go on,
/// how long a call may take, and how often it is tried again.
#[derive(Debug, Clone, Copy)]
pub struct AsyncCalls(CallPlan);

impl AsyncCalls {
    /// At most this many records of each task wait for their calls (at least one). Results go on in the order of the
    /// records; a call may take 5 s, and is not tried again.
    pub fn at_most(in_flight: usize) -> AsyncCalls {
        let (order, timeout, retries) = (AsyncOrder::Partition, Duration::from_secs(5), 0);
        AsyncCalls(CallPlan { in_flight_max: in_flight.max(1), order, timeout, retries })
    }

    /// The order in which results go on.
    #[must_use]
    pub fn with_order(self, order: AsyncOrder) -> AsyncCalls {
        AsyncCalls(CallPlan { order, ..self.0 })
    }

    /// How long each try may take; then it is given up, and dropped.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> AsyncCalls {
        AsyncCalls(CallPlan { timeout, ..self.0 })
    }

    /// How often a call that failed or took too long is tried again, at once.
    #[must_use]
    pub fn with_retries(self, retries: u32) -> AsyncCalls {
        AsyncCalls(CallPlan { retries, ..self.0 })
    }
}

impl<K: PartialEq + 'static, V: 'static> KStream<K, V> {
    /// Gives each record the value that a call has as its result, without waiting for one call before the next begins. The
    /// function begins a call, which takes with it what it needs; calls run on threads of their own, within tokio.
    ///
    /// Results go on in the thread of their task, as if each record were in hand again, and all of them before a commit: so
    /// exactly once holds for what the application writes. The calls themselves may be made again after a failure. A commit
    /// waits for the calls that are on their way, so timeout and retries together should be well below the transaction
    /// timeout.
    ///
    /// A call that fails for good goes to the [processing handler](crate::Config::processing_handler), which may skip its
    /// record. Under the test driver each call is run to its end before the next one begins.
    ///
    /// Differs from Kafka Streams, which has nothing of the kind.
    ///
    /// ```
    /// # use kstreams::*;
    /// async fn town_of(customer: String) -> Result<String> {
    ///     Ok(format!("the town of {customer}")) // asks another service
    /// }
    ///
    /// let builder = StreamsBuilder::new();
    /// builder
    ///     .stream("customers", Consumed::with(Utf8, Utf8))
    ///     .map_values_async(|_id, customer: &String| town_of(customer.clone()), AsyncCalls::at_most(100).with_retries(2))
    ///     .to("towns", Produced::with(Utf8, Utf8));
    ///
    /// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
    /// driver.create_input_topic("customers", Utf8, Utf8).pipe(&mut driver, "1", "ada")?;
    /// let towns = driver.create_output_topic("towns", Utf8, Utf8).read_key_values(&mut driver)?;
    /// assert_eq!(towns, [("1".to_owned(), "the town of ada".to_owned())]);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn map_values_async<V2, F>(
        self,
        call: impl Fn(&K, &V) -> F + Send + Sync + 'static,
        calls: AsyncCalls,
    ) -> KStream<K, V2>
    where
        V2: Send + 'static,
        F: Future<Output = Result<V2>> + Send + 'static,
    {
        let call: AsyncMapper<K, V, V2> = Arc::new(move |key, value| Box::pin(call(key, value)));
        let stream = self.append("KSTREAM-MAPVALUESASYNC-", move |init| {
            init.expect_calls();
            Ok(MapValuesAsync {
                name: init.node_name(),
                call: Arc::clone(&call),
                plan: calls.0,
                runner: Arc::clone(&init.task.environment.calls),
                in_flight: VecDeque::new(),
                next: 0,
                results: channel(),
            })
        });
        stream.with_new_value()
    }
}

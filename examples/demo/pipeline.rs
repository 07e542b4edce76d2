//! The topology: orders and payments meet the customers table, and become totals per customer.
//!
//! ```text
//!   orders ------ by customer --- join ---+
//!                                  |      +--- totals per customer --- customer-totals
//!   customers ---- table ----------+      |
//!                                  |      |
//!   payments ---- by customer --- join ---+
//! ```

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kstreams::{
    Config, Consumed, EmbeddedCluster, Grouped, Joined, Json, Materialized, Produced, Result, StreamsBuilder, Topology,
    Utf8,
};

use crate::model::{Booking, CUSTOMERS, Customer, ORDERS, Order, PAYMENTS, Payment, TOTALS, Totals};

const PARTITIONS: i32 = 3;

/// Long enough to see that the results come commit by commit.
const COMMIT_INTERVAL: Duration = Duration::from_millis(500);

/// What the joins gave since this process began: for people, and no state. A restart begins at zero.
#[derive(Debug, Clone, Default)]
pub(crate) struct Joins(Arc<Mutex<(u64, Option<Booking>)>>);

impl Joins {
    pub(crate) fn count_and_last(&self) -> (u64, Option<Booking>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn saw(&self, booking: &Booking) {
        let mut joins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *joins = (joins.0 + 1, Some(booking.clone()));
    }
}

pub(crate) fn topology(joins: &Joins) -> Result<Topology> {
    let builder = StreamsBuilder::new();
    let customers =
        builder.table(CUSTOMERS, Consumed::with(Utf8, Json::<Customer>::new()), Materialized::named("customers"));

    // Orders and payments have keys of their own. A new key sends them through a topic to the task of their customer.
    let ordered = builder
        .stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()))
        .select_key(|_id, order| order.customer.clone())
        .join(
            &customers,
            |order, customer| Booking::Ordered { order, customer },
            Joined::with(Utf8, Json::new()).named("orders-by-customer"),
        );
    let paid = builder
        .stream(PAYMENTS, Consumed::with(Utf8, Json::<Payment>::new()))
        .select_key(|_id, payment| payment.customer.clone())
        .join(
            &customers,
            |payment, customer| Booking::Paid { payment, customer },
            Joined::with(Utf8, Json::new()).named("payments-by-customer"),
        );

    let joins = joins.clone();
    ordered
        .merge(paid)
        .peek(move |_customer, booking| joins.saw(booking))
        .group_by_key(Grouped::with(Utf8, Json::new()))
        .aggregate(
            Totals::default,
            |_customer, booking, totals| totals.add(booking),
            // Every booking gives an update; with a cache there would be one per customer and commit.
            Materialized::named("totals").with_value_serde(Json::new()).without_caching(),
        )
        .to_stream()
        .to(TOTALS, Produced::with(Utf8, Json::<Totals>::new()));
    builder.build()
}

pub(crate) fn config(cluster: &EmbeddedCluster, state: &Path) -> Config {
    Config::new("demo", "embedded://")
        .cluster(cluster)
        .exactly_once()
        .threads(2)
        .commit_interval(COMMIT_INTERVAL)
        // So little may be in memory only that RocksDB writes files in a demo of seconds.
        .write_buffer_bytes(16 * 1024)
        .state_dir(state)
}

pub(crate) fn create_topics(cluster: &EmbeddedCluster) -> Result<()> {
    cluster.create_topic_with(CUSTOMERS, PARTITIONS, [("cleanup.policy", "compact")])?;
    for topic in [ORDERS, PAYMENTS, TOTALS] {
        cluster.create_topic(topic, PARTITIONS)?;
    }
    Ok(())
}

//! Enrichment: a validated order, its payment and its customer become one record, and customers have totals.
//!
//! ```text
//!   orders (VALIDATED) --+
//!                        +-- join of streams -- by customer --+
//!   payments ------------+                                    +-- join -- orders-enriched
//!                                               customers ----+      \-- customer-totals (store)
//! ```

use std::time::Duration;

use kstreams::{
    Consumed, Grouped, JoinWindows, Joined, Json, Materialized, Produced, Repartitioned, Result, StreamJoined,
    StreamsBuilder, Topology, Utf8,
};

use super::model::{
    CUSTOMERS, Customer, EnrichedOrder, ORDERS, ORDERS_ENRICHED, Order, OrderState, PAYMENTS, Payment, Totals,
};

/// The store with what each customer has bought.
pub(crate) const CUSTOMER_TOTALS: &str = "customer-totals";
/// Between an order and its payment, and how long a payment may be under way.
const PAID_WITHIN: Duration = Duration::from_secs(3600);
const LATE_MAX: Duration = Duration::from_secs(24 * 3600);

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    let customers =
        builder.table(CUSTOMERS, Consumed::with(Utf8, Json::<Customer>::new()), Materialized::named("customers"));
    let payments = builder.stream(PAYMENTS, Consumed::with(Utf8, Json::<Payment>::new()));
    let enriched = builder
        .stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()))
        .filter(|_id, order| order.state == OrderState::Validated)
        .join_stream(
            payments,
            |order, payment| EnrichedOrder { order: order.clone(), payment: payment.clone(), customer: None },
            JoinWindows::of_time_difference_and_grace(PAID_WITHIN, LATE_MAX),
            StreamJoined::with(Utf8, Json::new(), Json::new()).named("paid").with_store_name("paid"),
        )
        .select_key(|_id, enriched| enriched.order.customer.clone())
        .repartition(Repartitioned::with(Utf8, Json::new()).named("paid-by-customer"))
        .left_join(
            &customers,
            |enriched, customer| EnrichedOrder { customer, ..enriched },
            Joined::with(Utf8, Json::new()).named("with-customer"),
        );
    enriched.clone().group_by_key(Grouped::with(Utf8, Json::new())).aggregate(
        Totals::default,
        |_customer, enriched, totals: Totals| Totals {
            orders: totals.orders + 1,
            cents: totals.cents + enriched.payment.cents,
        },
        Materialized::named(CUSTOMER_TOTALS).with_value_serde(Json::new()),
    );
    enriched
        .select_key(|_customer, enriched| enriched.order.id.clone())
        .to(ORDERS_ENRICHED, Produced::with(Utf8, Json::<EnrichedOrder>::new()));
    builder.build()
}

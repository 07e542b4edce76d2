//! The validator: an order whose three checks are there is decided, once.
//!
//! ```text
//!   orders ---------------- open orders (table) ---+
//!                                                  |
//!   order-validations -+--- inventory   (table) ---+--- join --- orders (VALIDATED or FAILED)
//!                      +--- fraud       (table) ---+
//!                      +--- details     (table) ---+
//! ```
//!
//! A join of tables has its result whichever side comes last, be it a day later: no window closes before a service that was
//! down has caught up. The four sides have the same key and as many partitions, so nothing is sent anywhere.

use kstreams::{Consumed, Json, KStream, KTable, Materialized, Produced, Result, StreamsBuilder, Topology, Utf8};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::model::{Check, ORDER_VALIDATIONS, ORDERS, Order, OrderState, Validation};

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    // An order that is decided is deleted here, by the record that says so.
    let open: KTable<String, Order> = builder
        .stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()))
        .map_values(|order| Some(order).filter(|order| order.state == OrderState::Created))
        .to_table(table("open-orders"));
    let validations = builder.stream(ORDER_VALIDATIONS, Consumed::with(Utf8, Json::<Validation>::new()));
    let inventory = of(validations.clone(), Check::Inventory, "inventory-checks");
    let fraud = of(validations.clone(), Check::Fraud, "fraud-checks");
    let details = of(validations, Check::Details, "details-checks");
    open.join(&inventory, object)
        .join(&fraud, object)
        .join(&details, object)
        .to_stream()
        .flat_map_values(|order| order.map(decided))
        .to(ORDERS, Produced::with(Utf8, Json::<Order>::new()));
    builder.build()
}

fn of(validations: KStream<String, Validation>, check: Check, name: &str) -> KTable<String, Validation> {
    validations.filter(move |_id, validation| validation.check == check).to_table(table(name))
}

/// Each result is the one there is: a cache that keeps the last of several would only make it late.
fn table<T: Serialize + DeserializeOwned + Send + Sync + 'static>(name: &str) -> Materialized<String, T> {
    Materialized::with(Utf8, Json::<T>::new()).with_name(name).without_caching()
}

fn object(order: Order, validation: Validation) -> Order {
    let mut order = order;
    order.reasons.extend(validation.objection);
    order
}

fn decided(order: Order) -> Order {
    let state = if order.reasons.is_empty() { OrderState::Validated } else { OrderState::Failed };
    Order { state, ..order }
}

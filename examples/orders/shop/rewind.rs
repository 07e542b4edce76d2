//! The next version of the view, of another shape: it replays the log of orders from its first record, beside the version
//! that runs, and is asked when it has caught up. Its application id is another one, and nothing else is needed.

use kstreams::{Consumed, Grouped, Json, Materialized, Result, StreamsBuilder, Topology, Utf8};
use serde::{Deserialize, Serialize};

use super::model::{ORDERS, Order, OrderState, Totals};

pub(crate) const APPLICATION_ID: &str = "orders-v2";
/// The stores: states by order, and totals by customer, straight from the log.
pub(crate) const STATES: &str = "states-v2";
pub(crate) const CUSTOMERS: &str = "customers-v2";

/// An order in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) state: OrderState,
    /// How often it was decided: once.
    pub(crate) decisions: u32,
    pub(crate) cents: i64,
}

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    let orders = builder.stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()));
    orders.clone().group_by_key(Grouped::with(Utf8, Json::new())).aggregate(
        || Line { state: OrderState::Created, decisions: 0, cents: 0 },
        |_id, order: Order, line: Line| match order.state.is_final() {
            true => Line { state: order.state, decisions: line.decisions + 1, cents: order.cents },
            false => Line { cents: order.cents, ..line },
        },
        Materialized::named(STATES).with_value_serde(Json::new()),
    );
    orders
        .filter(|_id, order| order.state == OrderState::Validated)
        .group_by(|_id, order| order.customer.clone(), Grouped::with(Utf8, Json::new()).named("by-customer-v2"))
        .aggregate(
            Totals::default,
            |_customer, order: Order, totals: Totals| Totals {
                orders: totals.orders + 1,
                cents: totals.cents + order.cents,
            },
            Materialized::named(CUSTOMERS).with_value_serde(Json::new()),
        );
    builder.build()
}

//! Payments: a validated order is paid for.

use kstreams::{Consumed, Json, Produced, Result, StreamsBuilder, Topology, Utf8};

use super::model::{ORDERS, Order, OrderState, PAYMENTS, Payment};

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    builder
        .stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()))
        .filter(|_id, order| order.state == OrderState::Validated)
        .map_values(|order| Payment { order: order.id, customer: order.customer, cents: order.cents })
        .to(PAYMENTS, Produced::with(Utf8, Json::<Payment>::new()));
    builder.build()
}

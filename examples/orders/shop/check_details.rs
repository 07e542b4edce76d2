//! The check of an order's details: a function, and nothing else. Lightweight services look like this.

use kstreams::{Consumed, Json, Produced, Result, StreamsBuilder, Topology, Utf8};

use super::model::{Check, ORDER_VALIDATIONS, ORDERS, Order, OrderState, Validation, price_cents};

const QUANTITY_MAX: i64 = 1_000;

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    builder
        .stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()))
        .filter(|_id, order| order.state == OrderState::Created)
        .map_values(|order| Validation { check: Check::Details, objection: objection(&order) })
        .to(ORDER_VALIDATIONS, Produced::with(Utf8, Json::<Validation>::new()));
    builder.build()
}

fn objection(order: &Order) -> Option<String> {
    let Some(price) = price_cents(&order.product) else {
        return Some(format!("there is no product {}", order.product));
    };
    if !(1..=QUANTITY_MAX).contains(&order.quantity) {
        return Some(format!("{} pieces cannot be ordered", order.quantity));
    }
    (order.cents != order.quantity * price).then(|| "the price is another one".to_owned())
}

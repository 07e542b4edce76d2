//! E-mails: what customers are told of their orders, as a log. A real service would send what it reads here.

use kstreams::{Consumed, Json, Produced, Result, StreamsBuilder, Topology, Utf8};

use super::model::{EMAILS, EnrichedOrder, ORDERS, ORDERS_ENRICHED, Order, OrderState};

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    let paid = builder
        .stream(ORDERS_ENRICHED, Consumed::with(Utf8, Json::<EnrichedOrder>::new()))
        .map_values(|enriched| thanks(&enriched));
    builder
        .stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()))
        .filter(|_id, order| order.state == OrderState::Failed)
        .map_values(|order| regret(&order))
        .merge(paid)
        .to(EMAILS, Produced::with(Utf8, Utf8));
    builder.build()
}

fn thanks(enriched: &EnrichedOrder) -> String {
    let EnrichedOrder { order, payment, customer } = enriched;
    let (name, address) = match customer {
        Some(customer) => (customer.name.as_str(), customer.email.as_str()),
        None => (order.customer.as_str(), "nobody"),
    };
    format!(
        "to {address}: {name}, {} x {} is on its way. {} cents are paid.",
        order.quantity, order.product, payment.cents
    )
}

fn regret(order: &Order) -> String {
    format!("to {}: order {} cannot be met: {}.", order.customer, order.id, order.reasons.join("; "))
}

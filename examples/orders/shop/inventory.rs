//! The inventory check: pieces are reserved for an order while it is checked, and go out or come free when it is decided.
//!
//! ```text
//!   orders --- by product ---+--- stock, reservations ---+--- by order --- order-validations
//!                            |                           |
//!   warehouse-deliveries ----+                           +--- stock-levels
//! ```
//!
//! Orders meet deliveries in the task of their product, one at a time, so what is free is never promised twice: no lock and
//! no database transaction. Reservation, answer and offsets commit as one.

use kstreams::{
    Consumed, Json, KeyValueStore, Processed, Processor, ProcessorContext, Produced, Record, Repartitioned, Result,
    Stores, StreamsBuilder, Topology, Utf8,
};
use serde::{Deserialize, Serialize};

use super::model::{
    Check, ORDER_VALIDATIONS, ORDERS, Order, OrderState, STOCK_LEVELS, Stock, Validation, WAREHOUSE_DELIVERIES,
};

/// The stores: what is there by product, and the pieces that are held back by order.
pub(crate) const STOCK: &str = "stock";
pub(crate) const RESERVATIONS: &str = "reservations";

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Movement {
    Delivery(i64),
    Order(Order),
}

/// What a movement leads to.
#[derive(Debug, Clone)]
struct Outcome {
    /// For the order of this id.
    answer: Option<(String, Validation)>,
    stock: Stock,
}

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    let orders = builder
        .stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()))
        .map(|_id, order| (order.product.clone(), Movement::Order(order)))
        .repartition(Repartitioned::with(Utf8, Json::new()).named("orders-by-product"));
    let deliveries =
        builder.stream(WAREHOUSE_DELIVERIES, Consumed::with(Utf8, Json::<i64>::new())).map_values(Movement::Delivery);

    let (stock, reservations) =
        (Stores::key_value(STOCK, Utf8, Json::new()), Stores::key_value(RESERVATIONS, Utf8, Json::new()));
    let processed = Processed::default().with_store(&stock).with_store(&reservations);
    let outcomes = orders.merge(deliveries).named("warehouse").process(
        move |init| Ok(Warehouse { stock: init.store(&stock)?, reservations: init.store(&reservations)? }),
        processed,
    );
    outcomes
        .clone()
        .flat_map(|_product, outcome| outcome.answer)
        .to(ORDER_VALIDATIONS, Produced::with(Utf8, Json::<Validation>::new()));
    outcomes.map_values(|outcome| outcome.stock).to(STOCK_LEVELS, Produced::with(Utf8, Json::<Stock>::new()));
    builder.build()
}

struct Warehouse {
    stock: KeyValueStore<String, Stock>,
    /// Pieces by order.
    reservations: KeyValueStore<String, i64>,
}

impl Processor<String, Movement> for Warehouse {
    type KeyOut = String;
    type ValueOut = Outcome;

    fn process(
        &mut self,
        record: Record<String, Movement>,
        ctx: &mut ProcessorContext<'_, String, Outcome>,
    ) -> Result<()> {
        let before = self.stock.get(ctx, &record.key)?.unwrap_or_default();
        let mut stock = before;
        let mut answer = None;
        match &record.value {
            Movement::Delivery(pieces) => stock.on_hand = stock.on_hand.saturating_add((*pieces).max(0)),
            Movement::Order(order) if order.state == OrderState::Created => {
                let is_short = order.quantity > stock.free();
                if order.quantity > 0 && !is_short {
                    stock.reserved += order.quantity;
                    self.reservations.put(ctx, &order.id, &order.quantity)?;
                }
                // What is no number of pieces is for the check of the details to say; here it only gets none.
                let objection = is_short.then(|| format!("there is not enough of {}", record.key));
                answer = Some((order.id.clone(), Validation { check: Check::Inventory, objection }));
            }
            // The decision. Nothing was held back for an order that this check has refused.
            Movement::Order(order) => {
                let Some(pieces) = self.reservations.get(ctx, &order.id)? else { return Ok(()) };
                self.reservations.delete(ctx, &order.id)?;
                stock.reserved -= pieces;
                if order.state == OrderState::Validated {
                    stock.on_hand -= pieces;
                    stock.sold += pieces;
                }
            }
        }
        // What nobody has ever delivered needs no row, however many ask for it.
        if stock != before {
            self.stock.put(ctx, &record.key, &stock)?;
        }
        ctx.forward(record.with_value(Outcome { answer, stock }))
    }
}

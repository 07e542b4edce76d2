//! The fraud check: what a customer orders in one sitting is added up, and too much of it is suspicious.
//!
//! ```text
//!   orders (CREATED) --- by customer --- session windows: cents --- by order --- order-validations
//! ```

use std::time::Duration;

use kstreams::{
    Consumed, Grouped, Json, Materialized, Produced, Result, SessionWindows, StreamsBuilder, Topology, Utf8,
};
use serde::{Deserialize, Serialize};

use super::model::{Check, ORDER_VALIDATIONS, ORDERS, Order, OrderState, Validation};

/// What a customer may order without a pause.
pub(crate) const SITTING_CENTS_MAX: i64 = 200_000;
/// A pause after which a sitting is over.
const PAUSE: Duration = Duration::from_secs(30);
/// How late an order may come and still be added up.
const LATE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The orders of one sitting.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Sitting {
    last_order: String,
    cents: i64,
}

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    builder
        .stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new()))
        .filter(|_id, order| order.state == OrderState::Created)
        .group_by(|_id, order| order.customer.clone(), Grouped::with(Utf8, Json::new()).named("by-customer"))
        .windowed_by(SessionWindows::of_inactivity_gap_and_grace(PAUSE, LATE_MAX))
        // Nobody may wait for an answer that never comes.
        .on_late(|late| {
            let too_late = |_: &_, order: Order| (order.id, validation(Some("it comes too late".to_owned())));
            late.map(move |customer, order| too_late(&customer, order))
                .to(ORDER_VALIDATIONS, Produced::with(Utf8, Json::<Validation>::new()));
        })
        .aggregate(
            Sitting::default,
            // What is negative is the other check's business, and buys nobody any room here.
            |_customer, order, sitting| Sitting {
                last_order: order.id,
                cents: sitting.cents.saturating_add(order.cents.max(0)),
            },
            |_customer, one, other| Sitting { cents: one.cents.saturating_add(other.cents), ..other },
            // Each order has to be answered: with a cache there would be one result of a sitting for each commit.
            Materialized::named("sittings").with_value_serde(Json::new()).without_caching(),
        )
        // A sitting that goes on in a longer one is deleted first: none.
        .to_stream()
        .flat_map(|_sitting, sitting| sitting.map(|sitting| (sitting.last_order.clone(), judged(&sitting))))
        .to(ORDER_VALIDATIONS, Produced::with(Utf8, Json::<Validation>::new()));
    builder.build()
}

fn judged(sitting: &Sitting) -> Validation {
    validation((sitting.cents > SITTING_CENTS_MAX).then(|| "too much was ordered in one sitting".to_owned()))
}

fn validation(objection: Option<String>) -> Validation {
    Validation { check: Check::Fraud, objection }
}

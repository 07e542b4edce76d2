//! The order service: takes requests, each once, and has the view of all orders.
//!
//! ```text
//!   order-requests ---+--- one order per id --- orders (CREATED)
//!                     |        |
//!   orders -----------+    view: orders-view      asked for over HTTP by order id
//! ```
//!
//! Requests and orders come into one task because they have the same key and as many partitions. So one store is the list
//! of what was asked for already and the view that is read, and a reader who waits for the position of a request sees it.

use kstreams::{
    Consumed, FixedKeyContext, FixedKeyProcessor, FixedKeyRecord, Json, KeyValueStore, Processed, Produced, Result,
    StoreBuilder, Stores, StreamsBuilder, Topology, Utf8,
};
use serde::{Deserialize, Serialize};

use super::model::{ORDER_REQUESTS, ORDERS, Order, OrderRequest, OrderState};

/// The store that is asked for orders.
pub(crate) const ORDERS_VIEW: &str = "orders-view";

/// An order as its customer sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderView {
    pub(crate) order: Order,
    /// Its states so far, with the time (ms) at which each was known here.
    pub(crate) history: Vec<(OrderState, i64)>,
    /// How often the customer has asked for it: retries of one request are one order.
    pub(crate) requests: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum Input {
    Request(OrderRequest),
    Order(Order),
}

pub(crate) fn view() -> StoreBuilder<KeyValueStore<String, OrderView>> {
    Stores::key_value(ORDERS_VIEW, Utf8, Json::new())
}

pub(crate) fn topology() -> Result<Topology> {
    let builder = StreamsBuilder::new();
    let requests =
        builder.stream(ORDER_REQUESTS, Consumed::with(Utf8, Json::<OrderRequest>::new())).map_values(Input::Request);
    let orders = builder.stream(ORDERS, Consumed::with(Utf8, Json::<Order>::new())).map_values(Input::Order);
    let view = view();
    let processed = Processed::default().with_store(&view);
    requests
        .merge(orders)
        .named("view")
        .process_values(move |init| Ok(View { view: init.store(&view)? }), processed)
        .to(ORDERS, Produced::with(Utf8, Json::<Order>::new()));
    builder.build()
}

struct View {
    view: KeyValueStore<String, OrderView>,
}

impl FixedKeyProcessor<String, Input> for View {
    type ValueOut = Order;

    fn process(
        &mut self,
        record: FixedKeyRecord<String, Input>,
        ctx: &mut FixedKeyContext<'_, '_, String, Order>,
    ) -> Result<()> {
        let known = self.view.get(ctx, record.key())?;
        match (record.value.clone(), known) {
            // Asked again: the order is there, whatever this request says. Who waits for it compares the two.
            (Input::Request(_), Some(mut known)) => {
                known.requests += 1;
                self.view.put(ctx, record.key(), &known)
            }
            (Input::Request(request), None) => {
                let order = Order::created(record.key(), request);
                let history = vec![(OrderState::Created, record.timestamp)];
                let first = OrderView { order: order.clone(), history, requests: 1 };
                self.view.put(ctx, record.key(), &first)?;
                ctx.forward(record.with_value(order))
            }
            (Input::Order(order), Some(mut known)) if order.state.is_final() => {
                known.history.push((order.state, record.timestamp));
                known.order = order;
                self.view.put(ctx, record.key(), &known)
            }
            // Our own `Created` comes back, or somebody else has written an order: then its first record is the request.
            (Input::Order(_), Some(_)) => Ok(()),
            (Input::Order(order), None) => {
                let history = vec![(order.state, record.timestamp)];
                self.view.put(ctx, record.key(), &OrderView { order, history, requests: 0 })
            }
        }
    }
}

//! What the services say to each other: the topics, and the records in them. Money is in cents.

use serde::{Deserialize, Serialize};

/// By order id: what customers have asked for, repetitions included.
pub(crate) const ORDER_REQUESTS: &str = "order-requests";
/// By order id: `Created` once, and later `Validated` or `Failed` once.
pub(crate) const ORDERS: &str = "orders";
/// By order id: one of each check.
pub(crate) const ORDER_VALIDATIONS: &str = "order-validations";
/// By order id: what was paid for a validated order.
pub(crate) const PAYMENTS: &str = "payments";
/// By order id: a paid order with its customer.
pub(crate) const ORDERS_ENRICHED: &str = "orders-enriched";
/// By order id: what was written to the customer.
pub(crate) const EMAILS: &str = "emails";
/// By customer id.
pub(crate) const CUSTOMERS: &str = "customers";
/// By product: pieces that have come into the warehouse.
pub(crate) const WAREHOUSE_DELIVERIES: &str = "warehouse-deliveries";
/// By product: what is there after each change.
pub(crate) const STOCK_LEVELS: &str = "stock-levels";

/// All of them, with as many partitions: what is joined meets in one task.
pub(crate) const TOPICS: [&str; 9] = [
    ORDER_REQUESTS,
    ORDERS,
    ORDER_VALIDATIONS,
    PAYMENTS,
    ORDERS_ENRICHED,
    EMAILS,
    CUSTOMERS,
    WAREHOUSE_DELIVERIES,
    STOCK_LEVELS,
];

/// What is sold, with the price of a piece.
pub(crate) const CATALOGUE: [(&str, i64); 6] =
    [("teapot", 18_90), ("kettle", 34_50), ("cup", 5_20), ("tea", 7_99), ("scone", 2_45), ("lamp", 49_99)];

pub(crate) fn price_cents(product: &str) -> Option<i64> {
    CATALOGUE.iter().find(|(name, _)| *name == product).map(|(_, cents)| *cents)
}

/// What a customer asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderRequest {
    pub(crate) customer: String,
    pub(crate) product: String,
    pub(crate) quantity: i64,
    /// What the customer is willing to pay for all of it.
    pub(crate) cents: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum OrderState {
    Created,
    Validated,
    Failed,
}

impl OrderState {
    pub(crate) fn is_final(self) -> bool {
        self != OrderState::Created
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    pub(crate) state: OrderState,
    pub(crate) customer: String,
    pub(crate) product: String,
    pub(crate) quantity: i64,
    pub(crate) cents: i64,
    /// Why it has failed.
    #[serde(default)]
    pub(crate) reasons: Vec<String>,
}

impl Order {
    pub(crate) fn created(id: &str, request: OrderRequest) -> Order {
        let OrderRequest { customer, product, quantity, cents } = request;
        let (id, state) = (id.to_owned(), OrderState::Created);
        Order { id, state, customer, product, quantity, cents, reasons: Vec::new() }
    }

    /// Whether it was made of this request.
    pub(crate) fn is_of(&self, request: &OrderRequest) -> bool {
        (&self.customer, &self.product, self.quantity, self.cents)
            == (&request.customer, &request.product, request.quantity, request.cents)
    }
}

/// Who has looked at an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum Check {
    Inventory,
    Fraud,
    Details,
}

/// What a check has found; no objection: it passes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Validation {
    pub(crate) check: Check,
    pub(crate) objection: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payment {
    pub(crate) order: String,
    pub(crate) customer: String,
    pub(crate) cents: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Customer {
    pub(crate) name: String,
    pub(crate) email: String,
}

/// A paid order and whose it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EnrichedOrder {
    pub(crate) order: Order,
    pub(crate) payment: Payment,
    /// None: nobody knows the customer.
    pub(crate) customer: Option<Customer>,
}

/// What a customer has bought, and what each product has brought in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) orders: i64,
    pub(crate) cents: i64,
}

/// What the warehouse has of a product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stock {
    /// On the shelves, reserved pieces included.
    pub(crate) on_hand: i64,
    /// Promised to orders that are still being checked.
    pub(crate) reserved: i64,
    /// Gone out.
    pub(crate) sold: i64,
}

impl Stock {
    pub(crate) fn free(self) -> i64 {
        self.on_hand - self.reserved
    }
}

//! The shop: its records, and a generator that always gives the same ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) const CUSTOMERS: &str = "customers";
pub(crate) const ORDERS: &str = "orders";
pub(crate) const PAYMENTS: &str = "payments";
pub(crate) const TOTALS: &str = "customer-totals";

/// Orders of one run; about two thirds are paid.
pub(crate) const ORDER_COUNT: u64 = 3_000;

const SEED: u64 = 20_260_401;
/// An order is paid this many orders later.
const PAYMENT_DELAY: u64 = 25;
/// 2026-04-01T08:00:00Z, in milliseconds.
const OPENING: i64 = 1_775_030_400_000;
/// Event time between two orders, in milliseconds.
const ORDER_INTERVAL_MS: u64 = 12_000;

const PEOPLE: [(&str, &str, &str); 8] = [
    ("c1", "Ada", "London"),
    ("c2", "Barbara", "Boston"),
    ("c3", "Claude", "Ann Arbor"),
    ("c4", "Donald", "Stanford"),
    ("c5", "Edsger", "Rotterdam"),
    ("c6", "Frances", "New York"),
    ("c7", "Grace", "Arlington"),
    ("c8", "Hedy", "Vienna"),
];
/// Orders, but is not in the customers table: an inner join leaves the orders out.
const STRANGER: &str = "c0";
const ARTICLES: [(&str, u64); 6] =
    [("teapot", 1_890), ("kettle", 3_450), ("cup", 520), ("tea", 799), ("scone", 245), ("lamp", 4_999)];

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Customer {
    pub(crate) name: String,
    pub(crate) city: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    pub(crate) customer: String,
    pub(crate) article: String,
    pub(crate) quantity: u64,
    pub(crate) cents: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Payment {
    pub(crate) order: u64,
    pub(crate) customer: String,
    pub(crate) cents: u64,
}

/// An order or a payment together with the row of its customer: what the joins give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Booking {
    Ordered { order: Order, customer: Customer },
    Paid { payment: Payment, customer: Customer },
}

/// What the pipeline keeps per customer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Totals {
    pub(crate) name: String,
    pub(crate) orders: u64,
    pub(crate) ordered_cents: u64,
    pub(crate) payments: u64,
    pub(crate) paid_cents: u64,
}

impl Totals {
    pub(crate) fn add(mut self, booking: Booking) -> Totals {
        match booking {
            Booking::Ordered { order, customer } => {
                self.name = customer.name;
                self.orders += 1;
                self.ordered_cents += order.cents;
            }
            Booking::Paid { payment, customer } => {
                self.name = customer.name;
                self.payments += 1;
                self.paid_cents += payment.cents;
            }
        }
        self
    }

    /// How many bookings these totals are made of. Each update counts one more: a gap or a repetition shows.
    pub(crate) fn bookings(&self) -> u64 {
        self.orders + self.payments
    }
}

/// One thing that happens in the shop, with its time in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) timestamp: i64,
    pub(crate) what: What,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Customer(String, Customer),
    Order(Order),
    Payment(Payment),
}

/// Everything that happens, in order. The same list every time, so that a restarted worker goes on where the topics end.
pub(crate) fn events() -> Vec<Event> {
    let mut events: Vec<Event> = PEOPLE
        .iter()
        .map(|(id, name, city)| {
            let customer = Customer { name: (*name).to_owned(), city: (*city).to_owned() };
            Event { timestamp: OPENING, what: What::Customer((*id).to_owned(), customer) }
        })
        .collect();
    for number in 0..ORDER_COUNT + PAYMENT_DELAY {
        let timestamp = OPENING + i64::try_from((number + 1) * ORDER_INTERVAL_MS).unwrap_or(i64::MAX);
        if number < ORDER_COUNT {
            events.push(Event { timestamp, what: What::Order(order(number)) });
        }
        if let Some(payment) = number.checked_sub(PAYMENT_DELAY).and_then(payment) {
            events.push(Event { timestamp: timestamp + 1, what: What::Payment(payment) });
        }
    }
    events
}

/// What the totals must be in the end, straight from the generator: no topic, no join, no store.
pub(crate) fn expected() -> BTreeMap<String, Totals> {
    let mut totals = BTreeMap::<String, Totals>::new();
    for (id, name, _) in PEOPLE {
        totals.insert(id.to_owned(), Totals { name: name.to_owned(), ..Totals::default() });
    }
    for number in 0..ORDER_COUNT {
        let order = order(number);
        let Some(totals) = totals.get_mut(&order.customer) else { continue };
        totals.orders += 1;
        totals.ordered_cents += order.cents;
        if let Some(payment) = payment(number) {
            totals.payments += 1;
            totals.paid_cents += payment.cents;
        }
    }
    totals
}

fn order(number: u64) -> Order {
    // Some people order more than others, and now and then it is a stranger.
    let stranger = (STRANGER, "", "");
    let (customer, ..) = match pick(number, 1, 40) {
        0 => stranger,
        _ => choose(&PEOPLE, pick(number, 2, 8).min(pick(number, 6, 8) + 3)),
    };
    let (article, price) = choose(&ARTICLES, pick(number, 3, 6));
    let quantity = 1 + pick(number, 4, 5);
    Order { id: number, customer: customer.to_owned(), article: article.to_owned(), quantity, cents: quantity * price }
}

fn payment(number: u64) -> Option<Payment> {
    let Order { id, customer, cents, .. } = order(number);
    match pick(number, 5, 6) {
        0 | 1 => None,
        2 => Some(Payment { order: id, customer, cents: cents / 2 }),
        _ => Some(Payment { order: id, customer, cents }),
    }
}

fn choose<T: Copy, const N: usize>(from: &[T; N], number: u64) -> T {
    let number = usize::try_from(number).unwrap_or_default();
    #[expect(clippy::indexing_slicing, reason = "below the length, and no list is empty")]
    from[number % N]
}

/// A number below `bound` that depends on the seed, the order and what it is for only (splitmix64).
fn pick(number: u64, purpose: u64, bound: u64) -> u64 {
    let mut z = SEED.wrapping_add((number * 8 + purpose).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % bound
}

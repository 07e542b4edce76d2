//! The services of `examples/orders`, each alone: a service knows the others by their topics only.

#[path = "../../examples/orders/shop/mod.rs"]
#[allow(dead_code, clippy::disallowed_methods, reason = "the example uses the rest")]
mod shop;

use kstreams::{Json, Serde, TestInputTopic, TestOutputTopic, TopologyTestDriver, Utf8};
use serde::Serialize;
use serde::de::DeserializeOwned;

use shop::Service;
use shop::model::*;

const MINUTE: i64 = 60_000;

struct Alone(TopologyTestDriver);

impl Alone {
    fn new(service: Service) -> Alone {
        Alone(TopologyTestDriver::new(&service.topology().unwrap()).unwrap())
    }

    fn write<V: Serialize + DeserializeOwned + Send + Sync + 'static>(
        &mut self,
        topic: &str,
        key: &str,
        value: V,
        at: i64,
    ) {
        let input: TestInputTopic<String, V> = self.0.create_input_topic(topic, Utf8, Json::new());
        input.pipe_at(&mut self.0, key.to_owned(), value, at).unwrap();
    }

    fn read<V: Serialize + DeserializeOwned + Send + Sync + 'static>(&mut self, topic: &str) -> Vec<(String, V)> {
        self.read_as(topic, Json::<V>::new())
    }

    fn read_as<V: 'static>(&mut self, topic: &str, serde: impl Serde<Item = V>) -> Vec<(String, V)> {
        let output: TestOutputTopic<String, V> = self.0.create_output_topic(topic, Utf8, serde);
        output.read_key_values(&mut self.0).unwrap()
    }

    /// The objections to orders, by order.
    fn objections(&mut self) -> Vec<(String, Option<String>)> {
        let validations = self.read::<Validation>(ORDER_VALIDATIONS);
        validations.into_iter().map(|(id, validation)| (id, validation.objection)).collect()
    }
}

fn request(customer: &str, product: &str, quantity: i64) -> OrderRequest {
    let cents = quantity * price_cents(product).unwrap_or(1);
    OrderRequest { customer: customer.to_owned(), product: product.to_owned(), quantity, cents }
}

fn order(id: &str, customer: &str, product: &str, quantity: i64) -> Order {
    Order::created(id, request(customer, product, quantity))
}

fn decided(order: &Order, state: OrderState) -> Order {
    Order { state, ..order.clone() }
}

#[test]
fn a_repeated_request_is_one_order_and_its_view_follows_its_states() {
    let mut orders = Alone::new(Service::Orders);
    let asked = request("ada", "cup", 2);
    for at in [1_000, 2_000, 3_000] {
        orders.write(ORDER_REQUESTS, "1", asked.clone(), at);
    }
    let made = orders.read::<Order>(ORDERS);
    assert_eq!(made, [("1".to_owned(), order("1", "ada", "cup", 2))]);
    orders.write(ORDERS, "1", decided(&made[0].1, OrderState::Validated), 4_000);
    assert_eq!(orders.read::<Order>(ORDERS), []);
    let mut store = orders.0.store(&shop::orders::view()).unwrap();
    let view = store.get(&mut orders.0, &"1".to_owned()).unwrap().unwrap();
    assert_eq!(view.history, [(OrderState::Created, 1_000), (OrderState::Validated, 4_000)]);
    assert_eq!((view.requests, view.order.state), (3, OrderState::Validated));
    assert!(view.order.is_of(&asked));
}

#[test]
fn pieces_are_promised_once_and_come_free_when_an_order_fails() {
    let mut inventory = Alone::new(Service::Inventory);
    inventory.write(WAREHOUSE_DELIVERIES, "lamp", 10_i64, 0);
    let [first, second, third] = [("1", 6), ("2", 6), ("3", 4)].map(|(id, pieces)| order(id, "ada", "lamp", pieces));
    for order in [&first, &second, &third] {
        inventory.write(ORDERS, &order.id, order.clone(), 1_000);
    }
    let refused = Some("there is not enough of lamp".to_owned());
    let expected = [("1", None), ("2", refused), ("3", None)].map(|(id, why)| (id.to_owned(), why));
    assert_eq!(inventory.objections(), expected);
    inventory.write(ORDERS, "1", decided(&first, OrderState::Validated), 2_000);
    inventory.write(ORDERS, "2", decided(&second, OrderState::Failed), 2_000);
    inventory.write(ORDERS, "3", decided(&third, OrderState::Failed), 2_000);
    let levels = inventory.read::<Stock>(STOCK_LEVELS);
    assert_eq!(levels.last().unwrap().1, Stock { on_hand: 4, reserved: 0, sold: 6 });
    assert!(levels.iter().all(|(_, stock)| stock.free() >= 0));
}

#[test]
fn who_orders_too_much_in_one_sitting_is_stopped_until_a_pause() {
    let mut fraud = Alone::new(Service::Fraud);
    for (id, quantity, at) in [("1", 30, 0), ("2", 30, 1_000), ("3", 1, MINUTE + 1_000)] {
        fraud.write(ORDERS, id, order(id, "eve", "lamp", quantity), at);
    }
    // Another customer's sitting is another one; so late that nothing is kept of its time, an order is refused.
    fraud.write(ORDERS, "4", order("4", "ada", "cup", 1), 3 * 24 * 60 * MINUTE);
    fraud.write(ORDERS, "5", order("5", "ada", "cup", 1), 0);
    let stopped = Some("too much was ordered in one sitting".to_owned());
    let late = Some("it comes too late".to_owned());
    let expected = [("1", None), ("2", stopped), ("3", None), ("4", None), ("5", late)];
    assert_eq!(fraud.objections(), expected.map(|(id, why)| (id.to_owned(), why)));
}

#[test]
fn an_order_that_cannot_be_is_told_why() {
    let mut details = Alone::new(Service::Details);
    let cheap = Order { cents: 1, ..order("4", "ada", "cup", 1) };
    for order in [order("1", "ada", "cup", 1), order("2", "ada", "moon", 1), order("3", "ada", "cup", 0), cheap] {
        details.write(ORDERS, &order.id.clone(), order, 0);
    }
    let why: Vec<_> = details.objections().into_iter().map(|(_, why)| why.unwrap_or_default()).collect();
    assert_eq!(why, ["", "there is no product moon", "0 pieces cannot be ordered", "the price is another one"]);
}

#[test]
fn an_order_is_decided_once_when_the_last_of_its_checks_is_there_whatever_comes_last() {
    let order = order("1", "ada", "cup", 2);
    let check = |check, objection: Option<&str>| Validation { check, objection: objection.map(str::to_owned) };
    for last in 0..4 {
        let mut validator = Alone::new(Service::Validator);
        for at in (0..4).filter(|at| *at != last).chain([last]) {
            assert_eq!(validator.read::<Order>(ORDERS), []);
            match at {
                0 => validator.write(ORDERS, "1", order.clone(), 0),
                1 => validator.write(ORDER_VALIDATIONS, "1", check(Check::Inventory, None), 0),
                2 => validator.write(ORDER_VALIDATIONS, "1", check(Check::Fraud, Some("eve")), 0),
                _ => validator.write(ORDER_VALIDATIONS, "1", check(Check::Details, Some("moon")), 0),
            }
        }
        let decisions = validator.read::<Order>(ORDERS);
        assert_eq!(decisions.len(), 1);
        assert_eq!(decisions[0].1.state, OrderState::Failed);
        assert_eq!(decisions[0].1.reasons, ["eve", "moon"]);
    }
}

#[test]
fn a_paid_order_meets_its_payment_and_its_customer_and_is_told_of() {
    let mut enrichment = Alone::new(Service::Enrichment);
    let ada = Customer { name: "Ada".to_owned(), email: "ada@example.org".to_owned() };
    enrichment.write(CUSTOMERS, "ada", ada, 0);
    let order = decided(&order("1", "ada", "cup", 2), OrderState::Validated);
    let mut payments = Alone::new(Service::Payments);
    payments.write(ORDERS, "1", order.clone(), 1_000);
    let paid = payments.read::<Payment>(PAYMENTS);
    assert_eq!(paid[0].1.cents, 10_40);
    enrichment.write(PAYMENTS, "1", paid[0].1.clone(), 1_000);
    enrichment.write(ORDERS, "1", order.clone(), 1_000);
    let enriched = enrichment.read::<EnrichedOrder>(ORDERS_ENRICHED);
    let mut emails = Alone::new(Service::Emails);
    emails.write(ORDERS_ENRICHED, "1", enriched[0].1.clone(), 1_000);
    let failed = Order { reasons: vec!["no cups".to_owned()], ..decided(&order, OrderState::Failed) };
    emails.write(ORDERS, "2", Order { id: "2".to_owned(), ..failed }, 1_000);
    let texts: Vec<_> = emails.read_as(EMAILS, Utf8).into_iter().map(|(_, text)| text).collect();
    let thanks = "to ada@example.org: Ada, 2 x cup is on its way. 1040 cents are paid.";
    assert_eq!(texts, [thanks, "to ada: order 2 cannot be met: no cups."]);
}

#[test]
fn the_next_version_of_the_view_says_the_same_of_the_log() {
    let mut driver = TopologyTestDriver::new(&shop::rewind::topology().unwrap()).unwrap();
    let input = driver.create_input_topic(ORDERS, Utf8, Json::<Order>::new());
    let order = order("1", "ada", "cup", 2);
    for order in [order.clone(), decided(&order, OrderState::Validated)] {
        input.pipe(&mut driver, "1", order).unwrap();
    }
    let mut totals = driver.timestamped_key_value_store(shop::rewind::CUSTOMERS, Utf8, Json::<Totals>::new()).unwrap();
    let of_ada = totals.get(&mut driver, &"ada".to_owned()).unwrap().unwrap().value;
    assert_eq!(of_ada, Totals { orders: 1, cents: 10_40 });
    let states = driver.timestamped_key_value_store(shop::rewind::STATES, Utf8, Json::<shop::rewind::Line>::new());
    let line = states.unwrap().get(&mut driver, &"1".to_owned()).unwrap().unwrap().value;
    assert_eq!((line.state, line.decisions, line.cents), (OrderState::Validated, 1, 10_40));
}

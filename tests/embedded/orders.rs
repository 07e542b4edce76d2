//! The order service of `examples/orders`, whole: thousands of orders over HTTP while its services are killed, and what the
//! log tells afterwards.

#![allow(clippy::disallowed_methods, reason = "callers are tasks of a runtime of the test's own")]

#[path = "../../examples/orders/shop/mod.rs"]
#[allow(dead_code, reason = "the example uses the rest")]
mod shop;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use kstreams::{
    EmbeddedCluster, Json, KafkaStreams, KeyValueStore, Position, QueryableStore, QueryableStoreTypes, State, Utf8,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::application::{PARTITIONS, PATIENCE, wait_until};
use shop::Service;
use shop::client::Client;
use shop::ecosystem::{Listens, Running, Shop};
use shop::load;
use shop::model::*;
use shop::orders::OrderView;
use shop::rest::{IDEMPOTENCY_KEY, POSITION};

const ORDERS_SENT: u64 = 2_000;
const PIECES: i64 = 100;

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

fn shop(cluster: &EmbeddedCluster, state: &Path) -> Shop {
    let shop = Shop::embedded(cluster, state.to_owned()).tuned(|config| {
        let config = config.commit_interval(Duration::from_millis(50)).transaction_timeout(Duration::from_secs(5));
        config.session_timeout(Duration::from_secs(4))
    });
    shop.create_topics(PARTITIONS).unwrap();
    shop
}

/// The committed records of a topic, in the order of their partitions.
fn read<V: DeserializeOwned>(cluster: &EmbeddedCluster, topic: &str) -> Vec<(String, V)> {
    let records = cluster.read_committed(topic).unwrap().into_iter();
    let read = |bytes: Option<Vec<u8>>| bytes.unwrap();
    records
        .map(|record| {
            (String::from_utf8(read(record.key)).unwrap(), serde_json::from_slice(&read(record.value)).unwrap())
        })
        .collect()
}

fn store<V: Serialize + DeserializeOwned + Send + Sync + 'static>(
    streams: &KafkaStreams,
    name: &str,
) -> QueryableStore<KeyValueStore<String, V>> {
    streams.store(name, QueryableStoreTypes::key_value(Utf8, Json::new())).unwrap()
}

fn rows<V: 'static>(store: &QueryableStore<KeyValueStore<String, V>>) -> BTreeMap<String, V> {
    store.all().map(|rows| rows.filter_map(Result::ok).collect()).unwrap_or_default()
}

#[test]
fn every_order_ends_once_through_kills_and_repetitions_and_a_rewind_tells_the_same() {
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    let shop = shop(&cluster, folder.path());
    load::set_up(&shop.config("set-up", "0"), PIECES).unwrap();
    block_on(async {
        let mut running = Running::new();
        for service in Service::ALL {
            let listens = if service == Service::Orders { Listens::anywhere() } else { Listens::No };
            running.insert((service, "a"), shop.start(service, "a", listens).await.unwrap());
        }
        let second = shop.start(Service::Orders, "b", Listens::anywhere()).await.unwrap();
        running.insert((Service::Orders, "b"), second);
        let addresses: Vec<String> = running.values().filter_map(|instance| instance.address.clone()).collect();
        assert_eq!(addresses.len(), 2);

        let done = Arc::new(AtomicU64::new(0));
        let sending = {
            let (addresses, done) = (addresses.clone(), Arc::clone(&done));
            tokio::task::spawn(async move { load::send(&addresses, "e2e", 0..ORDERS_SENT, 8, &done).await })
        };
        let victims = [
            (Service::Inventory, "a"),
            (Service::Orders, "b"),
            (Service::Fraud, "a"),
            (Service::Validator, "a"),
            (Service::Payments, "a"),
            (Service::Enrichment, "a"),
            (Service::Orders, "a"),
        ];
        let share = ORDERS_SENT / (victims.len() as u64 + 1);
        for (number, victim) in (1..).zip(victims) {
            while done.load(Ordering::Relaxed) < number * share && !sending.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let killed = running.remove(&victim).unwrap();
            let listens = match &killed.address {
                Some(address) => Listens::At { address: address.clone(), with_page: false },
                None => Listens::No,
            };
            killed.kill().await.unwrap();
            running.insert(victim, shop.start(victim.0, victim.1, listens).await.unwrap());
        }
        sending.await.unwrap().unwrap();
        let views = decided(&addresses).await;
        tokio::task::block_in_place(|| check(&cluster, &shop, &running, &views));
        for instance in running.into_values() {
            instance.close().await.unwrap();
        }
    });
}

/// What the views say of each order when it is decided, asked for on either instance.
async fn decided(addresses: &[String]) -> BTreeMap<String, OrderView> {
    let mut asking = JoinSet::new();
    for caller in 0..8 {
        let mut client = Client::new(addresses);
        (0..caller).for_each(|_| client.turn());
        asking.spawn(async move {
            let mut views = Vec::new();
            for number in (caller..ORDERS_SENT).step_by(8) {
                let id = load::asked("e2e", number).id();
                views.push((id.clone(), load::decided(&mut client, &id, 100).await.unwrap()));
                client.turn();
            }
            views
        });
    }
    asking.join_all().await.into_iter().flatten().collect()
}

fn check(cluster: &EmbeddedCluster, shop: &Shop, running: &Running, views: &BTreeMap<String, OrderView>) {
    // The log: each order once, decided once.
    let log = read::<Order>(cluster, ORDERS);
    let expected: BTreeSet<String> = (0..ORDERS_SENT).map(|number| load::asked("e2e", number).id()).collect();
    let created = log.iter().filter(|(_, order)| order.state == OrderState::Created);
    let created: Vec<&String> = created.map(|(id, _)| id).collect();
    assert_eq!(created.len() as u64, ORDERS_SENT, "an order is there twice, or is missing");
    assert_eq!(created.into_iter().cloned().collect::<BTreeSet<_>>(), expected);
    let decisions: Vec<_> = log.into_iter().filter(|(_, order)| order.state.is_final()).collect();
    let decided: BTreeMap<String, Order> = decisions.iter().cloned().collect();
    assert_eq!((decisions.len() as u64, decided.len() as u64), (ORDERS_SENT, ORDERS_SENT), "decided twice, or never");
    for (id, order) in &decided {
        let view = &views[id];
        assert_eq!(&view.order, order, "the view of {id}");
        assert_eq!(view.history.len(), 2, "{id}: {:?}", view.history);
        assert!(view.requests >= 1);
    }
    let validated: BTreeMap<&String, &Order> =
        decided.iter().filter(|(_, order)| order.state == OrderState::Validated).collect();
    let cents: i64 = validated.values().map(|order| order.cents).sum();
    assert!(!validated.is_empty() && validated.len() < decided.len(), "both ends are seen");
    let objections: BTreeSet<_> =
        decided.values().flat_map(|order| order.reasons.iter().map(|why| &why[..5])).collect();
    assert!(objections.len() >= 4, "{objections:?}");

    // Money: each validated order is paid once, met once, and told of once.
    wait_until("every order is told of", || cluster.read_committed(EMAILS).unwrap().len() as u64 >= ORDERS_SENT);
    let payments = read::<Payment>(cluster, PAYMENTS);
    assert_eq!(payments.len(), validated.len());
    assert_eq!(payments.iter().map(|(_, payment)| payment.cents).sum::<i64>(), cents);
    let enriched = read::<EnrichedOrder>(cluster, ORDERS_ENRICHED);
    assert_eq!(enriched.iter().map(|(id, _)| id).collect::<BTreeSet<_>>(), validated.keys().copied().collect());
    assert_eq!((enriched.len(), enriched.iter().map(|(_, order)| order.payment.cents).sum()), (validated.len(), cents));
    assert_eq!(cluster.read_committed(EMAILS).unwrap().len() as u64, ORDERS_SENT);
    let known = |order: &EnrichedOrder| order.customer.is_some() == (order.order.customer != "nobody");
    assert!(enriched.iter().all(|(_, order)| known(order)));

    // Pieces: never fewer than none, and none lost.
    let levels = read::<Stock>(cluster, STOCK_LEVELS);
    assert!(levels.iter().all(|(_, stock)| stock.on_hand >= 0 && stock.reserved >= 0 && stock.free() >= 0));
    let sold = |product: &str| -> i64 {
        validated.values().filter(|order| order.product == product).map(|order| order.quantity).sum()
    };
    let stock = store::<Stock>(&running[&(Service::Inventory, "a")].streams, shop::inventory::STOCK);
    for (product, _) in CATALOGUE {
        let sold = sold(product);
        let expected = Stock { on_hand: PIECES - sold, reserved: 0, sold };
        wait_until(&format!("the stock of {product} is {expected:?}: {:?}", rows(&stock)), || {
            stock.get(&product.to_owned()).is_ok_and(|stock| stock == Some(expected))
        });
    }
    let reservations = store::<i64>(&running[&(Service::Inventory, "a")].streams, shop::inventory::RESERVATIONS);
    assert_eq!(rows(&reservations), BTreeMap::new());
    let mut totals = BTreeMap::<String, Totals>::new();
    for order in validated.values() {
        let total = totals.entry(order.customer.clone()).or_default();
        (total.orders, total.cents) = (total.orders + 1, total.cents + order.cents);
    }
    let kept = store::<Totals>(&running[&(Service::Enrichment, "a")].streams, shop::enrichment::CUSTOMER_TOTALS);
    wait_until("the totals are those of the log", || rows(&kept) == totals);

    // Rewind: the next version reads the log from its first record, beside the one that runs.
    let config = shop.config(shop::rewind::APPLICATION_ID, "a");
    let next = KafkaStreams::new(shop::rewind::topology().unwrap(), config).unwrap();
    next.start().unwrap();
    wait_until("the next version runs", || next.state() == State::Running);
    let end = cluster
        .read_committed(ORDERS)
        .unwrap()
        .into_iter()
        .fold(Position::new(), |end, record| end.with(ORDERS, record.partition, record.offset));
    let states = store::<shop::rewind::Line>(&next, shop::rewind::STATES).with_position_bound(&end, PATIENCE);
    let states = rows(&states);
    assert_eq!(states.len() as u64, ORDERS_SENT);
    for (id, order) in &decided {
        let line = &states[id];
        assert_eq!((line.state, line.decisions, line.cents), (order.state, 1, order.cents), "{id}");
    }
    let again = store::<Totals>(&next, shop::rewind::CUSTOMERS);
    wait_until("the next version has the same totals", || rows(&again) == totals);
    next.close(Duration::from_secs(30)).unwrap();
}

/// Two instances of the order service, and nobody who decides.
async fn two(shop: &Shop) -> (Running, Vec<String>) {
    let mut running = Running::new();
    for name in ["a", "b"] {
        let instance = shop.start(Service::Orders, name, Listens::anywhere()).await.unwrap();
        running.insert((Service::Orders, name), instance);
    }
    let addresses = running.values().filter_map(|instance| instance.address.clone()).collect();
    (running, addresses)
}

#[test]
fn a_request_is_seen_on_the_other_instance_at_its_position_and_repeated_it_is_the_same_order() {
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    let shop = shop(&cluster, folder.path());
    block_on(async {
        let (running, addresses) = two(&shop).await;
        let mut client = Client::new(&addresses);
        let body = |quantity: i64| {
            let request =
                OrderRequest { customer: "ada".into(), product: "cup".into(), quantity, cents: 5_20 * quantity };
            serde_json::to_vec(&request).unwrap()
        };
        for number in 0..100 {
            let key = format!("k{number}");
            let headers = [(IDEMPOTENCY_KEY, key.as_str())];
            let posted = client.until_answered(Method::POST, "/v1/orders", &headers, &body(1), 200).await.unwrap();
            assert_eq!(posted.status, StatusCode::ACCEPTED, "{:?}", posted.body);
            let (place, position) = (posted.header("location").unwrap(), posted.header(POSITION).unwrap());
            assert_eq!(place, format!("/v1/orders/ada:{key}"));
            client.turn();
            let seen = client.until_answered(Method::GET, place, &[(POSITION, position)], b"", 200).await.unwrap();
            assert_eq!(seen.status, StatusCode::OK, "{:?}", seen.body);
            let view: OrderView = seen.json().unwrap();
            assert_eq!((view.order.state, view.requests), (OrderState::Created, 1));
        }
        let again = |quantity| body(quantity);
        for (quantity, status) in [(1, StatusCode::CREATED), (2, StatusCode::CONFLICT), (1, StatusCode::CREATED)] {
            client.turn();
            let headers = [(IDEMPOTENCY_KEY, "k0")];
            let path = "/v1/orders?wait=accepted";
            let answer = client.until_answered(Method::POST, path, &headers, &again(quantity), 200).await.unwrap();
            assert_eq!(answer.status, status, "{:?}", answer.body);
        }
        assert_eq!(cluster.read_committed(ORDERS).unwrap().len(), 100);
        let nothing = client.until_answered(Method::GET, "/v1/orders/ada:none", &[], b"", 200).await.unwrap();
        assert_eq!(nothing.status, StatusCode::NOT_FOUND);
        // Nobody decides here: the wait ends with its time, and says how far the order is.
        let short = [("x-kstreams-timeout-ms", "300")];
        let open = client.until_answered(Method::GET, "/v1/orders/ada:k1?wait=final", &short, b"", 200).await.unwrap();
        assert_eq!(open.json::<OrderView>().unwrap().order.state, OrderState::Created);
        for instance in running.into_values() {
            instance.close().await.unwrap();
        }
    });
}

#[test]
fn nothing_that_the_description_allows_or_forbids_gets_another_answer_than_it_says() {
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    let shop = shop(&cluster, folder.path());
    let long = "x".repeat(300);
    let texts =
        ["", "0", "-1", "ada:k1", "%00", "%ff", "%2e%2e%2f", "a%20b", "9999999999999999999999", &long, "%F0%9F%AB%96"];
    let bodies = [
        r#"{"customer":"ada","product":"cup","quantity":1,"cents":520}"#.to_owned(),
        r#"{"customer":"ada","product":"cup","quantity":-9223372036854775808,"cents":9223372036854775807}"#.to_owned(),
        r#"{"customer":"ada","product":"cup","quantity":1e400,"cents":1}"#.to_owned(),
        r#"{"customer":"a/b","product":"cup","quantity":1,"cents":1}"#.to_owned(),
        r#"{"customer":"ada","product":"cup","quantity":1,"cents":1,"more":1}"#.to_owned(),
        "{}".to_owned(),
        "[".repeat(2_000),
        format!("\"{}\"", "x".repeat(5_000)),
        String::new(),
    ];
    block_on(async {
        let (running, addresses) = two(&shop).await;
        let mut client = Client::new(&addresses);
        let body = bodies[0].as_bytes();
        let there = client.until_answered(Method::POST, "/v1/orders?wait=accepted", &[], body, 200).await.unwrap();
        assert_eq!(there.status, StatusCode::CREATED);
        let described = client.until_answered(Method::GET, "/v1/shop.json", &[], b"", 20).await.unwrap();
        let described: serde_json::Value = described.json().unwrap();
        let mut seen = BTreeSet::new();
        for (path, methods) in described["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let documented: BTreeSet<u16> =
                    operation["responses"].as_object().unwrap().keys().map(|status| status.parse().unwrap()).collect();
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let method: Method = method.to_uppercase().parse().unwrap();
                let of = |place: &str| -> Vec<String> {
                    let those = parameters.iter().filter(|parameter| parameter["in"] == place);
                    those.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
                };
                let none = vec![String::new(); 12];
                let bodies = if method == Method::POST { bodies.as_slice() } else { none.as_slice() };
                for (number, (text, body)) in
                    texts.iter().flat_map(|text| bodies.iter().map(move |body| (text, body))).enumerate()
                {
                    // An empty id is another path.
                    let id = if text.is_empty() { "none" } else { text };
                    let mut path = path.replace("{id}", id);
                    let names = of("query");
                    if let Some(name) = names.get(number % (names.len() + 1)) {
                        path = format!("{path}?{name}={text}");
                    }
                    let names = of("header");
                    let hostile = names.get(number % (names.len() + 1)).map(|name| (name.as_str(), *text));
                    let hostile: Vec<_> = hostile.into_iter().chain([("content-type", "application/json")]).collect();
                    let Ok(answer) = client.once(method.clone(), &path, &hostile, body.as_bytes()).await else {
                        panic!("{method} {path} {hostile:?} was not answered");
                    };
                    let status = answer.status.as_u16();
                    let what = format!("{method} {path} {hostile:?} {body:.80}: {status} {:?}", answer.body);
                    assert!(documented.contains(&status), "not documented: {what}");
                    assert!(status < 500 || status == 503 || status == 504, "{what}");
                    seen.insert(status);
                }
            }
        }
        assert!(seen.is_superset(&BTreeSet::from([200, 202, 400, 404, 413])), "{seen:?}");
        for instance in running.into_values() {
            instance.close().await.unwrap();
        }
    });
}

/// The page in a browser, where the machine has one; in `ORDERS_SCREENSHOT`, a file for a look at it.
#[test]
fn the_page_shows_orders_in_the_state_that_they_have_come_to() {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let is_there =
        |browser: &&&str| Command::new(browser).arg("--version").output().is_ok_and(|said| said.status.success());
    let Some(browser) = browsers.iter().find(is_there) else {
        assert!(std::env::var_os("CI").is_none(), "CI looks at the page of the order service: install Chromium");
        println!("the page is not looked at: there is no Chromium");
        return;
    };
    let (cluster, folder) = (EmbeddedCluster::new(), tempfile::tempdir().unwrap());
    let shop = shop(&cluster, folder.path());
    load::set_up(&shop.config("set-up", "0"), 1_000).unwrap();
    block_on(async {
        let mut running = Running::new();
        for service in Service::ALL {
            let is_asked = service == Service::Orders;
            let listens =
                if is_asked { Listens::At { address: "127.0.0.1:0".to_owned(), with_page: true } } else { Listens::No };
            running.insert((service, "a"), shop.start(service, "a", listens).await.unwrap());
        }
        let address = running[&(Service::Orders, "a")].address.clone().unwrap();
        load::send(std::slice::from_ref(&address), "page", 0..40, 4, &Arc::default()).await.unwrap();
        let mut client = Client::new(std::slice::from_ref(&address));
        let mut validated = 0;
        for number in 0..40 {
            let view = load::decided(&mut client, &load::asked("page", number).id(), 100).await.unwrap();
            validated += u32::from(view.order.state == OrderState::Validated);
        }
        let profile = folder.path().join("browser");
        let look = |what: &[String]| {
            let mut command = Command::new(browser);
            command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
            command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
            command.arg(format!("--user-data-dir={}", profile.display())).args(["--window-size=1280,860"]);
            command.arg("--virtual-time-budget=4000").args(what).arg(format!("http://{address}/")).output().unwrap()
        };
        tokio::task::block_in_place(|| {
            let wanted = format!("Validated <b>{validated}</b>");
            let mut seen = String::new();
            wait_until("the page shows how many orders are validated", || {
                seen = String::from_utf8_lossy(&look(&["--dump-dom".to_owned()]).stdout).into_owned();
                seen.contains(&wanted)
            });
            assert!(seen.contains("40 orders so far") && seen.contains("is on its way"), "{seen}");
            if let Ok(file) = std::env::var("ORDERS_SCREENSHOT") {
                look(&[format!("--screenshot={file}")]);
            }
        });
        for instance in running.into_values() {
            instance.close().await.unwrap();
        }
    });
}

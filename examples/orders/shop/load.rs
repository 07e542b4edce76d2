//! The customers: always the same ones, who now and then send a request twice, as programs do that got no answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use axum::http::{Method, StatusCode};
use kstreams::{Config, TopicClient};
use tokio::task::JoinSet;

use super::client::Client;
use super::model::{CATALOGUE, CUSTOMERS, Customer, OrderRequest, WAREHOUSE_DELIVERIES};
use super::orders::OrderView;
use super::rest::IDEMPOTENCY_KEY;

const PEOPLE: [&str; 12] =
    ["ada", "barbara", "claude", "donald", "edsger", "frances", "grace", "hedy", "ida", "john", "kathleen", "leslie"];
/// Orders, but is not among the customers.
const STRANGER: &str = "nobody";
const TRIES_MAX: usize = 200;

/// A caller's order and the key it is sent under, each time.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) key: String,
    pub(crate) request: OrderRequest,
    /// How often it is sent, if all goes well.
    pub(crate) times: u64,
}

impl Asked {
    pub(crate) fn id(&self) -> String {
        format!("{}:{}", self.request.customer, self.key)
    }
}

/// The order of a number: a run of the same name asks the same.
pub(crate) fn asked(run: &str, number: u64) -> Asked {
    let (product, price) = *choose(&CATALOGUE, pick(number, 1));
    let customer = match pick(number, 2) % 40 {
        0 => STRANGER,
        _ => choose(&PEOPLE, pick(number, 3)),
    };
    // Some order much at once, and a few what cannot be.
    let quantity = match pick(number, 4) % 25 {
        0 => 0,
        1 => 60,
        other => i64::try_from(other % 4).unwrap_or_default() + 1,
    };
    let wrong = i64::from(pick(number, 5).is_multiple_of(50));
    let request = OrderRequest {
        customer: customer.to_owned(),
        product: product.to_owned(),
        quantity,
        cents: quantity * price + wrong,
    };
    let times = if pick(number, 6).is_multiple_of(4) { 2 } else { 1 };
    Asked { key: format!("{run}-{number}"), request, times }
}

/// Customers, and pieces in the warehouse.
pub(crate) fn set_up(config: &Config, pieces: i64) -> Result<()> {
    let mut topics = TopicClient::connect(config)?;
    for id in PEOPLE {
        let mut name = id.to_owned();
        name.get_mut(..1).into_iter().for_each(str::make_ascii_uppercase);
        let customer = Customer { name, email: format!("{id}@example.org") };
        topics.write(CUSTOMERS, Some(id.as_bytes()), Some(&serde_json::to_vec(&customer)?))?;
    }
    deliver(&mut topics, pieces)
}

pub(crate) fn deliver(topics: &mut TopicClient, pieces: i64) -> Result<()> {
    for (product, _) in CATALOGUE {
        topics.write(WAREHOUSE_DELIVERIES, Some(product.as_bytes()), Some(&serde_json::to_vec(&pieces)?))?;
    }
    Ok(topics.flush()?)
}

/// Sends orders from a number on, by so many callers at once: each request until it is answered, and some once more, by way
/// of another instance. `done` counts those that are in the log.
pub(crate) async fn send(
    addresses: &[String],
    run: &str,
    numbers: std::ops::Range<u64>,
    callers: usize,
    done: &Arc<AtomicU64>,
) -> Result<()> {
    let next = Arc::new(AtomicU64::new(numbers.start));
    let mut work = JoinSet::new();
    for caller in 0..callers {
        let (next, done, run, end) = (Arc::clone(&next), Arc::clone(done), run.to_owned(), numbers.end);
        let mut client = Client::new(addresses);
        (0..caller).for_each(|_| client.turn());
        work.spawn(async move {
            loop {
                // Relaxed: a number each, and nothing else.
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= end {
                    return Ok::<(), anyhow::Error>(());
                }
                let asked = asked(&run, number);
                let body = serde_json::to_vec(&asked.request)?;
                let headers = [(IDEMPOTENCY_KEY, asked.key.as_str()), ("content-type", "application/json")];
                for time in 0..asked.times {
                    // The last of them waits until it sees its order, whichever instance has it.
                    let path = if number.is_multiple_of(8) && time + 1 == asked.times {
                        "/v1/orders?wait=accepted"
                    } else {
                        "/v1/orders"
                    };
                    let answer = client.until_answered(Method::POST, path, &headers, &body, TRIES_MAX).await?;
                    let is_fine = [StatusCode::CREATED, StatusCode::ACCEPTED].contains(&answer.status);
                    ensure!(is_fine, "order {} was answered with {} {:?}", asked.id(), answer.status, answer.body);
                    client.turn();
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = work.join_next().await {
        ended??;
    }
    Ok(())
}

/// The order when it is decided.
pub(crate) async fn decided(client: &mut Client, id: &str, tries_max: usize) -> Result<OrderView> {
    let (path, patience) = (format!("/v1/orders/{id}?wait=final"), [("x-kstreams-timeout-ms", "10000")]);
    for _ in 0..tries_max {
        let answer = client.until_answered(Method::GET, &path, &patience, b"", TRIES_MAX).await?;
        if answer.status == StatusCode::NOT_FOUND {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        ensure!(answer.status == StatusCode::OK, "{id} was answered with {} {:?}", answer.status, answer.body);
        let view: OrderView = answer.json()?;
        if view.order.state.is_final() {
            return Ok(view);
        }
    }
    anyhow::bail!("order {id} is not decided")
}

fn choose<T>(from: &[T], number: u64) -> &T {
    let at = usize::try_from(number % from.len() as u64).unwrap_or_default();
    #[expect(clippy::indexing_slicing, reason = "below the length, and no list is empty")]
    &from[at]
}

/// A number that depends on the order and what it is for only (splitmix64).
fn pick(number: u64, purpose: u64) -> u64 {
    let mut z = (number * 8 + purpose + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

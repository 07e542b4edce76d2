//! The order service over HTTP: orders are posted and asked for on any instance.
//!
//! ```text
//!   POST /v1/orders ── write to order-requests ── where it is (position)     wait=… : then as GET
//!   GET  /v1/orders/{id} ── here, or one hop to the instance that has it ── wait until the view has come to the position,
//!                                                                           and the order to its end
//! ```

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use axum::response::Html;
use axum::routing::{get, post};
use kstreams::{
    Config, ErrorKind, Forwarder, Gateway, IdempotencyKey, Json, KafkaStreams, Position, Problem, ProblemCode,
    QueryServer, QueryableStoreTypes, RequestTopic, Result, StateWatch, Utf8, Watched,
};
use serde_json::json;
use tokio::time::Instant;

use super::feed::Feed;
use super::model::{ORDER_REQUESTS, OrderRequest};
use super::openapi;
use super::orders::{ORDERS_VIEW, OrderView};

pub(crate) const POSITION: &str = "x-kstreams-position";
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An order has some hundred bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// Of a customer's id and a product's name.
const NAME_BYTES_MAX: usize = 64;
const ID_BYTES_MAX: usize = 256;
/// Left for the way back when a wait ends with the time of a request.
const WAY_BACK: Duration = Duration::from_millis(100);

/// What the handlers share.
pub(crate) struct Rest {
    requests: RequestTopic<String, OrderRequest>,
    views: StateWatch<String, OrderView>,
    forwarder: Forwarder,
    feed: Option<Feed>,
    /// Last: it is what the others go through.
    _gateway: Gateway,
}

impl Rest {
    /// Of a client that has been started.
    pub(crate) fn open(
        streams: &KafkaStreams,
        config: &Config,
        server: &QueryServer,
        feed: Option<Feed>,
    ) -> Result<Rest> {
        let gateway = Gateway::open(config)?;
        let requests = gateway.topic(ORDER_REQUESTS, Utf8, Json::new())?;
        let views = gateway.watch(streams.store(ORDERS_VIEW, QueryableStoreTypes::key_value(Utf8, Json::new()))?)?;
        Ok(Rest { requests, views, forwarder: server.forwarder(), feed, _gateway: gateway })
    }
}

/// The routes of the shop, to be merged with those of the query server.
pub(crate) fn router(rest: Rest) -> Router {
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/v1/orders", post(post_order))
        .route("/v1/orders/{id}", get(get_order))
        .route("/v1/events", get(get_events))
        .route("/v1/shop.json", get(async || as_json(StatusCode::OK, openapi::description().to_string())))
        .with_state(Arc::new(rest))
}

async fn post_order(State(rest): State<Arc<Rest>>, request: Request) -> std::result::Result<Response<Body>, Problem> {
    let (parts, body) = request.into_parts();
    let wait = Wait::asked_for(&parts.uri)?;
    let body = to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|_| Problem::new(ProblemCode::BodyTooLarge, format!("an order has at most {BODY_BYTES_MAX} bytes")))?;
    let asked: OrderRequest = serde_json::from_slice(&body).map_err(|error| malformed(format!("no order: {error}")))?;
    for (what, name) in [("customer", &asked.customer), ("product", &asked.product)] {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_fine) {
            return Err(malformed(format!("the {what} has 1 to {NAME_BYTES_MAX} letters, digits, '.', '_' and '-'")));
        }
    }
    let key = match parts.headers.get(IDEMPOTENCY_KEY) {
        Some(key) => key.to_str().unwrap_or_default().parse().map_err(Problem::from)?,
        None => IdempotencyKey::random(),
    };
    // The same request has the same id, on every instance, so that it is the same order.
    let id = key.id_for(&asked.customer);
    let written = rest.requests.write(&id, &asked, Some(&key)).await.map_err(|error| {
        let is_for_later = error.kind() == ErrorKind::Unavailable;
        if is_for_later { Problem::new(ProblemCode::Overloaded, error.report()) } else { Problem::from(error) }
    })?;
    let place = format!("/v1/orders/{id}");
    let mut answer = match wait {
        None => as_json(StatusCode::ACCEPTED, json!({ "id": id, "position": written.to_string() }).to_string()),
        Some(wait) => {
            // From here on it is a GET with a bound, and answered where the order is.
            let mut asking = Request::new(Bytes::new());
            *asking.method_mut() = Method::GET;
            *asking.uri_mut() = format!("{place}?wait={}", wait.name()).parse().map_err(|_| malformed("no such id"))?;
            *asking.headers_mut() = parts.headers;
            asking.headers_mut().remove(header::CONTENT_LENGTH);
            set(asking.headers_mut(), POSITION, &written.to_string());
            let answer = rest.order(&id, &asking).await?;
            if answer.status() != StatusCode::OK {
                return Ok(answer);
            }
            let (mut parts, body) = answer.into_parts();
            let body = to_bytes(body, usize::MAX).await.map_err(|_| malformed("the answer has broken off"))?;
            let view: std::result::Result<OrderView, _> = serde_json::from_slice(&body);
            if view.is_ok_and(|view| !view.order.is_of(&asked)) {
                let detail = format!("idempotency key {key} was used for another order: take a new one");
                return Err(Problem::new(ProblemCode::Conflict, detail));
            }
            parts.status = StatusCode::CREATED;
            Response::from_parts(parts, Body::from(body))
        }
    };
    set(answer.headers_mut(), header::LOCATION.as_str(), &place);
    set(answer.headers_mut(), POSITION, &written.to_string());
    Ok(answer)
}

async fn get_order(
    State(rest): State<Arc<Rest>>,
    Path(id): Path<String>,
    request: Request,
) -> std::result::Result<Response<Body>, Problem> {
    let (parts, _) = request.into_parts();
    rest.order(&id, &Request::from_parts(parts, Bytes::new())).await
}

impl Rest {
    /// The view of an order, asked for here or on the instance that has it.
    async fn order(&self, id: &str, request: &Request<Bytes>) -> std::result::Result<Response<Body>, Problem> {
        if id.len() > ID_BYTES_MAX {
            return Err(Problem::new(ProblemCode::KeyTooLong, format!("an order id has at most {ID_BYTES_MAX} bytes")));
        }
        let wait = Wait::asked_for(request.uri())?;
        let bound = match request.headers().get(POSITION) {
            Some(bound) => bound.to_str().unwrap_or("?").parse().map_err(Problem::from)?,
            None => Position::new(),
        };
        let deadline = self.forwarder.deadline(request.headers())?;
        let here = |partition| self.order_here(id, partition, &bound, wait, deadline);
        self.forwarder.at_owner(ORDERS_VIEW, id.as_bytes(), request, here).await
    }

    async fn order_here(
        &self,
        id: &str,
        partition: Option<i32>,
        bound: &Position,
        wait: Option<Wait>,
        deadline: Instant,
    ) -> std::result::Result<Response<Body>, Problem> {
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(WAY_BACK);
        let until = move |view: Option<&OrderView>| match wait {
            None => true,
            Some(Wait::Accepted) => view.is_some(),
            Some(Wait::Final) => view.is_some_and(|view| view.order.state.is_final()),
        };
        match self.views.until(id.to_owned(), partition, bound, until, left).await {
            // A wait that has ended early is no failure: the answer says what the order is, and who wants more asks again.
            Ok(Watched::Reached(Some(view)) | Watched::TimedOut(Some(view))) => {
                let text = serde_json::to_string(&view)
                    .map_err(|error| Problem::new(ProblemCode::Internal, error.to_string()))?;
                Ok(as_json(StatusCode::OK, text))
            }
            Ok(Watched::Reached(None) | Watched::TimedOut(None)) => {
                Err(Problem::new(ProblemCode::NoSuchKey, format!("there is no order {id}")))
            }
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() + WAY_BACK >= deadline => {
                Err(Problem::new(ProblemCode::BehindPosition, error.report()))
            }
            Err(error) => Err(Problem::from(error)),
        }
    }
}

async fn get_events(State(rest): State<Arc<Rest>>, uri: Uri) -> std::result::Result<Response<Body>, Problem> {
    let after = match parameter(&uri, "after") {
        Some(after) => after.parse().map_err(|_| malformed("after is the number of an event"))?,
        None => 0,
    };
    let events = rest.feed.as_ref().map_or_else(|| json!({ "events": [] }), |feed| feed.after(after));
    Ok(as_json(StatusCode::OK, events.to_string()))
}

/// What a caller waits for.
#[derive(Debug, Clone, Copy)]
enum Wait {
    /// The order is in the view.
    Accepted,
    /// It is validated or has failed.
    Final,
}

impl Wait {
    fn asked_for(uri: &Uri) -> std::result::Result<Option<Wait>, Problem> {
        match parameter(uri, "wait") {
            None => Ok(None),
            Some("accepted") => Ok(Some(Wait::Accepted)),
            Some("final") => Ok(Some(Wait::Final)),
            Some(_) => Err(malformed("wait is accepted or final")),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Wait::Accepted => "accepted",
            Wait::Final => "final",
        }
    }
}

fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let mut pairs = uri.query().unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn malformed(detail: impl Into<String>) -> Problem {
    Problem::new(ProblemCode::MalformedRequest, detail)
}

fn as_json(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(Body::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(value)) = (header::HeaderName::try_from(name), HeaderValue::from_str(value)) {
        headers.insert(name, value);
    }
}

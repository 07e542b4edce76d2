//! What all requests of a server share, and what is done before and after each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use super::ask::Ask;
use super::forwarder::Forwarder;
use super::problem::{Problem, ProblemCode};
use super::routes::{Endpoint, Route};
use super::served::ServedStore;
use super::{headers, health, keys, metadata, openapi, scatter};

/// How much later than its deadline a request is ended from outside: what it does says better what it waits for.
const GRACE: Duration = Duration::from_millis(250);

pub(super) type Authenticate = dyn Fn(&HeaderMap) -> Result<(), Problem> + Send + Sync;

pub(super) struct Site {
    pub forwarder: Forwarder,
    pub stores: BTreeMap<Arc<str>, ServedStore>,
    pub authenticate: Option<Arc<Authenticate>>,
    pub of_clients: Semaphore,
    pub of_instances: Semaphore,
}

impl Site {
    /// The store of a request.
    pub(super) fn store(&self, ask: &Ask) -> Result<&ServedStore, Problem> {
        let name = ask.text("store").unwrap_or_default();
        self.stores.get(name).ok_or_else(|| {
            Problem::new(ProblemCode::NoSuchStore, format!("there is no store {name} that is served: see /v1/stores"))
        })
    }

    pub(super) async fn answer(self: Arc<Site>, route: &'static Route, request: Request<Body>) -> Response {
        let answer = self.checked(route, request).await;
        let mut answer = answer.unwrap_or_else(IntoResponse::into_response);
        if let Some(own) = self.forwarder.view().own()
            && !answer.headers().contains_key(headers::SERVED_BY)
        {
            headers::set(answer.headers_mut(), headers::SERVED_BY, &own.to_string());
        }
        // Rows change, and who may read them differs.
        answer.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        answer
    }

    async fn checked(self: &Arc<Site>, route: &'static Route, request: Request<Body>) -> Result<Response, Problem> {
        let is_open = matches!(route.endpoint, Endpoint::Live | Endpoint::Ready);
        if let Some(authenticate) = self.authenticate.as_ref().filter(|_| !is_open) {
            authenticate(request.headers())?;
        }
        // IMPORTANT: two bounds, or instances whose clients take every place would wait for each other.
        let places = if request.headers().contains_key(headers::HOP) { &self.of_instances } else { &self.of_clients };
        let place = if is_open { None } else { Some(places.try_acquire().map_err(|_| overloaded())?) };
        let ask = Ask::read(route, &self.forwarder, request).await?;
        let deadline = ask.deadline + GRACE;
        let late = |_| Err(Problem::new(ProblemCode::DeadlineExceeded, "the time of the request is over"));
        let answer = timeout_at(deadline, self.done(route.endpoint, &ask)).await.unwrap_or_else(late);
        drop(place);
        answer
    }

    async fn done(self: &Arc<Site>, endpoint: Endpoint, ask: &Ask) -> Result<Response, Problem> {
        match endpoint {
            Endpoint::Key | Endpoint::Windows | Endpoint::Sessions => keys::read(self, endpoint, ask).await,
            Endpoint::Range | Endpoint::Prefix => scatter::read(self, endpoint, ask).await,
            Endpoint::Metadata => metadata::of_store(self, ask),
            Endpoint::KeyMetadata => metadata::of_key(self, ask),
            Endpoint::Live => health::live(self),
            Endpoint::Ready => health::ready(self),
            Endpoint::Stores => {
                let stores = self.stores.values();
                let stores: Vec<Value> =
                    stores.map(|store| json!({ "name": &*store.name, "kind": metadata::kind(self, store) })).collect();
                Ok(in_json(&json!({ "stores": stores })))
            }
            Endpoint::Description => {
                let names: Vec<&str> = self.stores.keys().map(|name| &**name).collect();
                Ok(in_json(&openapi::description(&names)))
            }
        }
    }
}

pub(super) fn in_json(body: &Value) -> Response {
    let mut answer = Response::new(Body::from(body.to_string()));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

fn overloaded() -> Problem {
    Problem::new(ProblemCode::Overloaded, "the server has as many requests as it takes: ask again in a second")
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site").field("stores", &self.stores.keys()).finish_non_exhaustive()
    }
}

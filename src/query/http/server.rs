//! The server in the hands of a service.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, header};
use axum::routing::get;
use tokio::sync::Semaphore;

use super::forwarder::Forwarder;
use super::limits::HttpLimits;
use super::peer::Peer;
use super::problem::{Problem, ProblemCode};
use super::routes::ROUTES;
use super::served::ServedStore;
use super::site::{Authenticate, Site};
use crate::error::Result;
use crate::query::QueryFailure;
use crate::runtime::{KafkaStreams, StreamsView};

/// Serves the state of an application: any instance answers for any key.
///
/// It is a [`Router`] to be mounted in the service's own ([`router`](QueryServer::router)), or listens by itself
/// ([`serve`](QueryServer::serve), [`serve_at`](QueryServer::serve_at)); nothing listens unless it is asked to. All
/// instances serve the same stores at the same paths, each at its [`application_server`](crate::Config::application_server),
/// by which they find each other. Without one, an instance answers for what it has.
///
/// # Examples
/// ```no_run
/// use kstreams::{I64, KafkaStreams, QueryServer, ServedStore, Utf8};
///
/// # async fn serve(streams: KafkaStreams) -> kstreams::Result<()> {
/// let server = QueryServer::new(&streams)
///     .with_store(ServedStore::new("word-counts", Utf8, I64))?;
/// // curl http://127.0.0.1:8080/v1/stores/word-counts/keys/kafka
/// tokio::select! {
///     ended = streams.run_until_signal() => ended,
///     served = server.serve_at(8080) => served,
/// }
/// # }
/// ```
#[must_use]
pub struct QueryServer {
    pub(super) view: StreamsView,
    pub(super) limits: HttpLimits,
    stores: BTreeMap<Arc<str>, ServedStore>,
    authenticate: Option<Arc<Authenticate>>,
    #[cfg(feature = "query-https")]
    pub(super) tls: Option<Tls>,
}

/// How this server shows who it is, and how it knows the others.
#[cfg(feature = "query-https")]
#[derive(Clone)]
pub(super) struct Tls {
    pub server: Arc<rustls::ServerConfig>,
    client: Arc<rustls::ClientConfig>,
}

impl QueryServer {
    /// Of a client in any state. Nothing is served but what is added.
    pub fn new(streams: &KafkaStreams) -> QueryServer {
        let limits = HttpLimits::default();
        QueryServer {
            view: streams.view(),
            limits,
            stores: BTreeMap::new(),
            authenticate: None,
            #[cfg(feature = "query-https")]
            tls: None,
        }
    }

    /// Serves a store.
    ///
    /// # Errors
    /// `Invalid`: the application has no such store.
    pub fn with_store(mut self, store: ServedStore) -> Result<QueryServer> {
        self.view.stores().open(&store.name).map_err(QueryFailure::into_error)?;
        self.stores.insert(Arc::clone(&store.name), store);
        Ok(self)
    }

    /// Other bounds.
    pub fn with_limits(self, limits: HttpLimits) -> QueryServer {
        QueryServer { limits, ..self }
    }

    /// Asks every request but those for health for this token (`Authorization: Bearer …`). Instances send on what their
    /// clients have sent, so all have the same.
    pub fn with_bearer_token(self, token: &str) -> QueryServer {
        let expected = format!("Bearer {token}").into_bytes();
        self.with_authentication(move |headers| {
            let said = headers.get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes).unwrap_or_default();
            if is_same(said, &expected) {
                return Ok(());
            }
            Err(Problem::new(ProblemCode::Unauthorized, "the request names no token, or a wrong one"))
        })
    }

    /// Asks a function whether a request may be answered, by its headers; those that other instances send on have the same
    /// ones. Not asked for health. Refuse with [`ProblemCode::Unauthorized`] or [`ProblemCode::Forbidden`].
    pub fn with_authentication(
        self,
        authenticate: impl Fn(&HeaderMap) -> Result<(), Problem> + Send + Sync + 'static,
    ) -> QueryServer {
        QueryServer { authenticate: Some(Arc::new(authenticate)), ..self }
    }

    /// Listens with TLS, and asks other instances over TLS: all have it, or none. With certificates that name the hosts of
    /// [`application_server`](crate::Config::application_server). A router that is mounted elsewhere only asks.
    #[cfg(feature = "query-https")]
    pub fn with_tls(self, server: rustls::ServerConfig, client: rustls::ClientConfig) -> QueryServer {
        QueryServer { tls: Some(Tls { server: Arc::new(server), client: Arc::new(client) }), ..self }
    }

    /// What sends requests of other handlers to the owners of their keys.
    pub fn forwarder(&self) -> Forwarder {
        Forwarder::new(self.view.clone(), self.limits.clone(), self.peer())
    }

    fn peer(&self) -> Peer {
        #[cfg(feature = "query-https")]
        if let Some(tls) = &self.tls {
            return Peer::encrypted(self.limits.answer_bytes_max, Arc::clone(&tls.client));
        }
        Peer::new(self.limits.answer_bytes_max)
    }

    /// The routes, all of them below `/v1`.
    pub fn router(&self) -> Router {
        let site = Arc::new(Site {
            forwarder: self.forwarder(),
            stores: self.stores.clone(),
            authenticate: self.authenticate.clone(),
            of_clients: Semaphore::new(self.limits.requests_max),
            of_instances: Semaphore::new(self.limits.requests_max),
        });
        let route = |router: Router, route: &'static super::routes::Route| {
            let site = Arc::clone(&site);
            router.route(route.path, get(move |request| site.answer(route, request)))
        };
        ROUTES.iter().fold(Router::new(), route).method_not_allowed_fallback(|| async {
            Problem::new(ProblemCode::MethodNotAllowed, "state is read with GET; write events to change it")
        })
    }
}

/// In a time that says nothing about where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}

impl fmt::Debug for QueryServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryServer").field("stores", &self.stores.keys()).finish_non_exhaustive()
    }
}

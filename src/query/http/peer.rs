//! Requests to other instances, over connections that are kept.

use std::fmt;
#[cfg(feature = "query-https")]
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::problem::{Problem, ProblemCode};
#[cfg(feature = "query-https")]
use super::tls::Connector;
use crate::config::HostInfo;

/// Below what a server waits for the next request, so that who closes first is who would use the connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections that are kept to each instance.
const IDLE_MAX: usize = 64;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A client for all instances.
#[derive(Clone)]
pub(super) struct Peer {
    client: Client<Connector, Full<Bytes>>,
    answer_bytes_max: usize,
    scheme: &'static str,
}

#[cfg(not(feature = "query-https"))]
type Connector = HttpConnector;

impl Peer {
    pub(super) fn new(answer_bytes_max: usize) -> Peer {
        #[cfg(feature = "query-https")]
        let connector = Connector { tcp: tcp(), tls: None };
        #[cfg(not(feature = "query-https"))]
        let connector = tcp();
        Peer::over(connector, answer_bytes_max, "http")
    }

    /// Over TLS.
    #[cfg(feature = "query-https")]
    pub(super) fn encrypted(answer_bytes_max: usize, tls: Arc<rustls::ClientConfig>) -> Peer {
        let mut tcp = tcp();
        tcp.enforce_http(false);
        Peer::over(Connector { tcp, tls: Some(tls) }, answer_bytes_max, "https")
    }

    fn over(connector: Connector, answer_bytes_max: usize, scheme: &'static str) -> Peer {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_MAX)
            .build(connector);
        Peer { client, answer_bytes_max, scheme }
    }

    /// Sends a request with a path to a host.
    ///
    /// # Errors
    /// `Unreachable`: no answer, or not all of it; `DeadlineExceeded`: not in time.
    pub(super) async fn send(
        &self,
        host: &HostInfo,
        mut request: Request<Bytes>,
        deadline: Instant,
    ) -> Result<Response<Bytes>, Problem> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri: Result<Uri, _> = format!("{}://{host}{path}", self.scheme).parse();
        *request.uri_mut() = uri.map_err(|_| Problem::malformed(format!("could not ask {host} for \"{path}\"")))?;
        *request.version_mut() = Version::HTTP_11;
        let exchange = async {
            let unreachable = |why: &dyn fmt::Display| {
                Problem::new(ProblemCode::Unreachable, format!("could not ask the instance at {host}: {why}"))
            };
            let answer = self.client.request(request.map(Full::new)).await.map_err(|error| unreachable(&error))?;
            let (parts, body) = answer.into_parts();
            let body =
                Limited::new(body, self.answer_bytes_max).collect().await.map_err(|error| unreachable(&error))?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        let late = || Problem::new(ProblemCode::DeadlineExceeded, format!("the instance at {host} has not answered"));
        timeout_at(deadline, exchange).await.unwrap_or_else(|_| Err(late()))
    }
}

fn tcp() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").finish_non_exhaustive()
    }
}

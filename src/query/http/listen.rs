//! Connections: how many, how long, and how they end.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
#[cfg(feature = "query-https")]
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::guarded::Guarded;
use super::limits::HttpLimits;
use super::problem::{Problem, ProblemCode};
use super::server::QueryServer;
use crate::error::{Error, ErrorKind, Result};

/// The head of a request: our paths and keys are far below.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long requests that are under way may take when the server ends.
const DRAIN: Duration = Duration::from_secs(10);

/// After a connection could not be accepted: when there are no descriptors left, at once would be as often as possible.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl QueryServer {
    /// Listens on 127.0.0.1, for ever.
    ///
    /// # Errors
    /// `Unavailable`: the port is taken.
    pub async fn serve_at(self, port: u16) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
            let context = format!("could not listen on 127.0.0.1:{port} for queries");
            Error::new(ErrorKind::Unavailable, context).with_source(error)
        })?;
        self.serve(listener).await;
        Ok(())
    }

    /// Listens where the service likes, for ever.
    pub async fn serve(self, listener: TcpListener) {
        self.serve_until(listener, std::future::pending::<()>()).await;
    }

    /// Listens until the future is ready; requests that are under way are answered, for 10 s at most.
    pub async fn serve_until<T>(self, listener: TcpListener, end: impl Future<Output = T>) {
        let no_such_route =
            || async { Problem::new(ProblemCode::NoSuchRoute, "there is no such path: see /v1/openapi.json") };
        let router = self.router().fallback(no_such_route);
        let connections = Connections {
            router,
            places: Arc::new(Semaphore::new(self.limits.connections_max)),
            limits: self.limits,
            ends: watch::Sender::new(false),
            #[cfg(feature = "query-https")]
            tls: self.tls.map(|tls| TlsAcceptor::from(tls.server)),
        };
        connections.accept(listener, end).await;
    }
}

struct Connections {
    router: Router,
    limits: HttpLimits,
    places: Arc<Semaphore>,
    ends: watch::Sender<bool>,
    #[cfg(feature = "query-https")]
    tls: Option<TlsAcceptor>,
}

impl Connections {
    fn serve(&self, stream: TcpStream) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let (router, limits, ends) = (self.router.clone(), self.limits.clone(), self.ends.subscribe());
        #[cfg(feature = "query-https")]
        let tls = self.tls.clone();
        async move {
            stream.set_nodelay(true)?;
            #[cfg(feature = "query-https")]
            if let Some(tls) = tls {
                let stream = timeout(limits.idle_timeout, tls.accept(stream)).await??;
                return exchange(stream, router, limits, ends).await;
            }
            exchange(stream, router, limits, ends).await
        }
    }

    async fn accept<T>(self, listener: TcpListener, end: impl Future<Output = T>) {
        let mut connections = JoinSet::new();
        tokio::pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                _ = &mut end => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!("could not accept a connection for queries: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => {
                    let served = self.serve(stream);
                    connections.spawn(async move {
                        if let Err(error) = served.await {
                            tracing::debug!("a connection for queries has ended: {error}");
                        }
                        drop(place);
                    });
                }
                Err(_) => refuse(&stream),
            }
        }
        drop(listener);
        self.ends.send_replace(true);
        let drained = async { while connections.join_next().await.is_some() {} };
        if timeout(DRAIN, drained).await.is_err() {
            connections.shutdown().await;
        }
    }
}

/// Without waiting: it fits into the buffer of any socket.
fn refuse(stream: &TcpStream) {
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nx-kstreams-problem: overloaded\r\n\
        content-length: 0\r\nconnection: close\r\n\r\n";
    // Who does not read it finds the connection closed.
    let _ = stream.try_write(answer);
}

/// Answers the requests of a connection, until the client or the server ends.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    router: Router,
    limits: HttpLimits,
    mut ends: watch::Receiver<bool>,
) -> io::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move { router.oneshot(request.map(Body::new)).await.map_err(|never: Infallible| match never {}) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(Guarded::new(stream, limits.idle_timeout)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // The sender outlives the connection, or it is all over.
        () = async { let _ = ends.wait_for(|ends| *ends).await; } => {
            connection.as_mut().graceful_shutdown();
            connection.as_mut().await
        }
    };
    ended.map_err(io::Error::other)
}

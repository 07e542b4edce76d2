//! An instance that counts clicks, answers for all counts, and takes clicks: what a service with an API of its own is.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use kstreams::{
    Consumed, Gateway, Grouped, I64, KafkaStreams, Materialized, Problem, ProblemCode, QueryServer, RequestTopic,
    ServedStore, StreamsBuilder, Topology, Utf8,
};
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::instance::{Told, run};

/// Its name, for the test harness.
pub(crate) const SERVED: &str = "served::an_instance_that_answers_for_another_test";

pub(crate) const STORE: &str = "counts";

pub(crate) const POSITION: &str = "x-kstreams-position";

pub(crate) fn clicks_of(name: &str) -> String {
    format!("{name}-clicks")
}

fn topology(name: &str) -> Topology {
    let builder = StreamsBuilder::new();
    let clicks = builder.stream(&clicks_of(name), Consumed::with(Utf8, Utf8));
    clicks.group_by_key(Grouped::with(Utf8, Utf8)).count(Materialized::named(STORE));
    builder.build().unwrap()
}

/// Does nothing by itself: see `instance`. Answers at the port that it is told, and takes clicks at the next one.
#[test]
fn an_instance_that_answers_for_another_test() {
    let Some(Told { name, config, port }) = Told::read() else { return };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bind = |port| runtime.block_on(TcpListener::bind(("127.0.0.1", port))).unwrap();
    let (answers, takes) = (bind(port), bind(port + 1));
    let config = config.application_server(format!("127.0.0.1:{port}")).num_standby_replicas(1);
    let (end, ended) = oneshot::channel::<()>();
    let mut serving = None;
    let serve = |streams: &KafkaStreams| {
        let server = QueryServer::new(streams).with_store(ServedStore::new(STORE, Utf8, I64)).unwrap();
        serving = Some(runtime.spawn(server.serve_until(answers, ended)));
        let gateway = Gateway::open(&config).unwrap();
        let clicks = gateway.topic(&clicks_of(&name), Utf8, Utf8).unwrap();
        runtime.spawn(take(takes, gateway, clicks));
    };
    run(&runtime, || topology(&name), &config, serve);
    drop(end);
    runtime.block_on(serving.unwrap()).unwrap();
}

async fn take(listener: TcpListener, _gateway: Gateway, clicks: RequestTopic<String, String>) {
    let router = Router::new().route("/clicks/{key}", post(click)).with_state(Arc::new(clicks));
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn click(
    State(clicks): State<Arc<RequestTopic<String, String>>>,
    Path(key): Path<String>,
) -> Result<Response, Problem> {
    let written = clicks.write(&key, &"click".to_owned(), None).await;
    let written = written.map_err(|error| Problem::new(ProblemCode::Overloaded, error.report()))?;
    Ok((StatusCode::ACCEPTED, [(POSITION, written.to_string())]).into_response())
}

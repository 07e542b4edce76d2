//! The services of the shop, started, asked, ended and killed one by one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use kstreams::{Config, EmbeddedCluster, HttpLimits, Json, KafkaStreams, QueryServer, ServedStore, TopicClient, Utf8};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::Service;
use super::enrichment::CUSTOMER_TOTALS;
use super::feed::Feed;
use super::inventory::{RESERVATIONS, STOCK};
use super::model::{Stock, TOPICS, Totals};
use super::orders::{ORDERS_VIEW, OrderView};
use super::rest::{self, Rest};

const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// More wait until one of them ends.
const CONNECTIONS_MAX: usize = 4_096;
/// Between two requests of a connection.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// What all services of a shop have in common.
#[derive(Clone)]
pub(crate) struct Shop {
    bootstrap: String,
    cluster: Option<EmbeddedCluster>,
    /// A folder for each instance of each service.
    state: PathBuf,
    tune: fn(Config) -> Config,
}

impl Shop {
    /// On a Kafka.
    pub(crate) fn on(bootstrap: &str, state: PathBuf) -> Shop {
        Shop { bootstrap: bootstrap.to_owned(), cluster: None, state, tune: |config| config }
    }

    /// On a cluster inside this process.
    pub(crate) fn embedded(cluster: &EmbeddedCluster, state: PathBuf) -> Shop {
        Shop { cluster: Some(cluster.clone()), ..Shop::on("embedded://", state) }
    }

    /// With other settings in each service.
    pub(crate) fn tuned(self, tune: fn(Config) -> Config) -> Shop {
        Shop { tune, ..self }
    }

    pub(crate) fn create_topics(&self, partitions: i32) -> Result<()> {
        let mut topics = TopicClient::connect(&self.config("set-up", "0"))?;
        TOPICS.iter().try_for_each(|topic| topics.create_topic(topic, partitions))?;
        Ok(())
    }

    /// Of an application's instance.
    pub(crate) fn config(&self, application_id: &str, instance: &str) -> Config {
        let config = Config::new(application_id, &self.bootstrap)
            .exactly_once()
            .commit_interval(COMMIT_INTERVAL)
            .state_dir(self.state.join(instance));
        let config = match &self.cluster {
            Some(cluster) => config.cluster(cluster),
            None => config,
        };
        (self.tune)(config)
    }

    /// Starts an instance of a service. Where it listens, its stores are asked for, and orders are taken.
    pub(crate) async fn start(&self, service: Service, instance: &str, listens: Listens) -> Result<Instance> {
        let listener = match &listens {
            Listens::No => None,
            Listens::At { address, .. } => {
                Some(TcpListener::bind(address).await.with_context(|| format!("could not listen on {address}"))?)
            }
        };
        let mut config = self.config(service.name(), instance);
        let address = listener.as_ref().map(TcpListener::local_addr).transpose()?.map(|address| address.to_string());
        if let Some(address) = &address {
            config = config.application_server(address.as_str());
        }
        let topology = service.topology()?;
        let starting = config.clone();
        let streams = tokio::task::spawn_blocking(move || -> kstreams::Result<KafkaStreams> {
            let streams = KafkaStreams::new(topology, starting)?;
            streams.start()?;
            Ok(streams)
        });
        let streams = streams.await??;
        let mut serving = None;
        if let Some(listener) = listener {
            let mut server = QueryServer::new(&streams).with_limits(HttpLimits::default());
            for store in served(service) {
                server = server.with_store(store)?;
            }
            let mut router = server.router();
            if service == Service::Orders {
                let has_feed = matches!(listens, Listens::At { with_page: true, .. });
                let feed = has_feed.then(|| Feed::start(&config)).transpose()?;
                router = router.merge(rest::router(Rest::open(&streams, &config, &server, feed)?));
            }
            serving = Some(tokio::task::spawn(serve(listener, router)));
        }
        Ok(Instance { service, streams, address, serving })
    }
}

/// Ends with all its connections when it is dropped.
async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let mut http = http1::Builder::new();
                http.timer(TokioTimer::new()).header_read_timeout(IDLE_MAX);
                connections
                    .spawn(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone())));
            }
            Err(error) => {
                tracing::warn!("could not accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// What is asked for by name, below `/v1/stores`.
fn served(service: Service) -> Vec<ServedStore> {
    let all = [
        (Service::Orders, ServedStore::new(ORDERS_VIEW, Utf8, Json::<OrderView>::new())),
        (Service::Inventory, ServedStore::new(STOCK, Utf8, Json::<Stock>::new())),
        (Service::Inventory, ServedStore::new(RESERVATIONS, Utf8, Json::<i64>::new())),
        (Service::Enrichment, ServedStore::new(CUSTOMER_TOTALS, Utf8, Json::<Totals>::new())),
    ];
    all.into_iter().filter(|(of, _)| *of == service).map(|(_, store)| store).collect()
}

/// Whether an instance answers over HTTP.
#[derive(Debug, Clone)]
pub(crate) enum Listens {
    No,
    At { address: String, with_page: bool },
}

impl Listens {
    /// On a port that is free.
    pub(crate) fn anywhere() -> Listens {
        Listens::At { address: "127.0.0.1:0".to_owned(), with_page: false }
    }
}

/// An instance of a service that runs.
pub(crate) struct Instance {
    pub(crate) service: Service,
    pub(crate) streams: KafkaStreams,
    pub(crate) address: Option<String>,
    serving: Option<JoinHandle<()>>,
}

impl Instance {
    /// The way a power cut ends it: nothing is committed or told to anybody.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.hang_up().await;
        let streams = self.streams;
        Ok(tokio::task::spawn_blocking(move || streams.crash()).await?)
    }

    pub(crate) async fn close(mut self) -> Result<()> {
        self.hang_up().await;
        let streams = self.streams;
        Ok(tokio::task::spawn_blocking(move || streams.close(Duration::from_secs(30))).await??)
    }

    async fn hang_up(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }
}

/// What runs, by service and instance.
pub(crate) type Running = BTreeMap<(Service, &'static str), Instance>;

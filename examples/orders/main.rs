//! An order service made of eight small applications that know each other by their topics only.
//!
//!     cargo run --example orders                            all of it, on a Kafka cluster inside this process
//!     cargo run --example orders -- --bootstrap localhost:9092 --service inventory       one of them, on a real Kafka
//!
//! `README.md` beside this file says which part shows which pattern.

#![allow(clippy::disallowed_methods, reason = "an example shows a person what happens, as it happens")]

#[allow(dead_code, reason = "its tests use the rest")]
mod shop;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kstreams::{EmbeddedCluster, State};

use shop::Service;
use shop::client::Client;
use shop::ecosystem::{Instance, Listens, Shop};
use shop::load;

const HELP: &str = "\
An order service made of small applications: orders [OPTIONS]

Without options all of it runs in this process, on a cluster of its own, with orders coming in; the page is printed.

  --bootstrap SERVERS   a Kafka, as in localhost:9092; each service is a process of its own then
  --service NAME        orders, inventory, fraud, details, validator, payments, enrichment or emails
  --listen ADDRESS      where it answers over HTTP; default: 127.0.0.1:8080 without --bootstrap
  --set-up              create the topics (4 partitions each), customers and a full warehouse, and end
  --load ADDRESSES      send orders to these instances of the order service, with commas between, and end
  --orders N            how many orders are sent; default: for ever, 25 a second; with --load 1000
  --state-dir DIR       where state is kept; default: a folder for temporary files
  --instance NAME       tells instances of a service on one machine apart; default: 0
  --help                this text
";

const PARTITIONS: i32 = 4;
const PIECES: i64 = 2_000;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .init();
    let run = || -> Result<()> {
        let Some(options) = Options::parse(std::env::args().skip(1))? else { return say(HELP.trim_end()) };
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(&options))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("orders: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<()> {
    if let Some(addresses) = &options.load {
        return send(addresses, options.orders.unwrap_or(1_000)).await;
    }
    let temporary = tempfile::tempdir().context("could not make a temporary directory")?;
    let state = options.state_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let Some(bootstrap) = &options.bootstrap else { return everything(options, state).await };
    let shop = Shop::on(bootstrap, state);
    if options.is_set_up {
        shop.create_topics(PARTITIONS)?;
        load::set_up(&shop.config("set-up", "0"), PIECES)?;
        return say("the topics, the customers and the warehouse are there");
    }
    let service = options.service.context("--service says which one is to run: see --help")?;
    let listens = match &options.listen {
        Some(address) => Listens::At { address: address.clone(), with_page: true },
        None => Listens::No,
    };
    let instance = shop.start(service, &options.instance, listens).await?;
    match &instance.address {
        Some(address) => say(&format!("{service} runs and listens on http://{address}"))?,
        None => say(&format!("{service} runs"))?,
    }
    until_signal_or_failure(&[&instance]).await?;
    instance.close().await
}

/// All services, on a cluster inside this process.
async fn everything(options: &Options, state: PathBuf) -> Result<()> {
    let shop = Shop::embedded(&EmbeddedCluster::new(), state);
    shop.create_topics(PARTITIONS)?;
    load::set_up(&shop.config("set-up", "0"), PIECES)?;
    let address = options.listen.clone().unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let mut instances = Vec::new();
    for service in Service::ALL {
        let is_asked = service == Service::Orders;
        let listens = if is_asked { Listens::At { address: address.clone(), with_page: true } } else { Listens::No };
        instances.push(shop.start(service, &options.instance, listens).await?);
    }
    let address = instances.iter().find_map(|instance| instance.address.clone()).context("nobody listens")?;
    say(&format!("eight services run; their orders move on http://{address}"))?;

    let running: Vec<&Instance> = instances.iter().collect();
    let customers = async {
        match options.orders {
            Some(orders) => send(&[address], orders).await,
            None => trickle(&address, &shop).await,
        }
    };
    tokio::select! {
        ended = until_signal_or_failure(&running) => ended?,
        ended = customers => ended?,
    }
    for instance in instances {
        instance.close().await?;
    }
    Ok(())
}

/// Orders until each is decided, and what became of them.
async fn send(addresses: &[String], orders: u64) -> Result<()> {
    let (run, done) = (format!("load-{}", std::process::id()), Arc::new(AtomicU64::new(0)));
    load::send(addresses, &run, 0..orders, 16, &done).await?;
    say(&format!("{orders} orders are taken"))?;
    let mut client = Client::new(addresses);
    let (mut validated, mut cents) = (0, 0);
    for number in 0..orders {
        let view = load::decided(&mut client, &load::asked(&run, number).id(), 100).await?;
        if view.order.reasons.is_empty() {
            validated += 1;
            cents += view.order.cents;
        }
    }
    say(&format!(
        "{validated} are validated, {} have failed; {}.{:02} come in",
        orders - validated,
        cents / 100,
        cents % 100
    ))
}

/// A few orders a second, and a delivery now and then.
async fn trickle(address: &str, shop: &Shop) -> Result<()> {
    let (run, done, addresses) = ("page", Arc::new(AtomicU64::new(0)), [address.to_owned()]);
    let mut topics = kstreams::TopicClient::connect(&shop.config("deliveries", "0"))?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let from = done.load(Ordering::Relaxed);
        load::send(&addresses, run, from..from + 25, 4, &done).await?;
        if from % 1_000 == 975 {
            load::deliver(&mut topics, 300)?;
        }
    }
}

async fn until_signal_or_failure(instances: &[&Instance]) -> Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = ticks.tick() => {}
        }
        for instance in instances {
            if matches!(instance.streams.state(), State::Error | State::NotRunning) {
                let error = instance.streams.take_error().map(|error| error.report()).unwrap_or_default();
                bail!("{} has ended: {error}", instance.service);
            }
        }
    }
}

/// Nobody reading is no reason to stop.
fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

struct Options {
    bootstrap: Option<String>,
    service: Option<Service>,
    listen: Option<String>,
    is_set_up: bool,
    load: Option<Vec<String>>,
    orders: Option<u64>,
    state_dir: Option<PathBuf>,
    instance: String,
}

impl Options {
    /// None: help is wanted.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Options>> {
        let mut options = Options {
            bootstrap: None,
            service: None,
            listen: None,
            is_set_up: false,
            load: None,
            orders: None,
            state_dir: None,
            instance: "0".to_owned(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value: see --help"));
            match word.as_str() {
                "--bootstrap" => options.bootstrap = Some(value()?),
                "--service" => {
                    let name = value()?;
                    let service =
                        Service::named(&name).with_context(|| format!("there is no service {name}: see --help"));
                    options.service = Some(service?);
                }
                "--listen" => options.listen = Some(value()?),
                "--set-up" => options.is_set_up = true,
                "--load" => options.load = Some(value()?.split(',').map(str::to_owned).collect()),
                "--orders" => options.orders = Some(value()?.parse().context("--orders needs a number")?),
                "--state-dir" => options.state_dir = Some(value()?.into()),
                "--instance" => options.instance = value()?,
                "--help" | "-h" => return Ok(None),
                _ => bail!("unknown option {word}: see --help"),
            }
        }
        let needs_kafka = options.service.is_some() || options.is_set_up;
        ensure!(!needs_kafka || options.bootstrap.is_some(), "a part of the shop needs a Kafka: --bootstrap");
        Ok(Some(options))
    }
}

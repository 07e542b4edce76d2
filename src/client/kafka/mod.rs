//! The client on librdkafka.
//!
//! ```text
//!   KafkaMembership ── handle that only is a member ──┐
//!   KafkaConsumer   ── handle that only reads ────────┼── one Waker: the stream thread waits for both
//!   KafkaProducer   ── handle per stream thread
//!   KafkaAdmin      ── handle that only administers
//!   side            ── no librdkafka: connections of our own to the group's coordinator, and to read changelogs
//! ```
//!
//! `unsafe` is in [`sys`] alone. One function says what an error means: [`failure::classify`].
#![expect(clippy::wildcard_enum_match_arm, reason = "librdkafka has some 200 error codes, and gets more")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::admin::KafkaAdmin;
use self::consumer::KafkaConsumer;
use self::failure::Failure;
use self::group::KafkaMembership;
use self::group_admin::KafkaGroupAdmin;
use self::producer::{KafkaProducer, Predecessor};
use self::settings::{ClientKind, Settings, fix};
use self::side::{ChangelogReader, MakeFallback, SideCoordinator, SideOffsets, SideSettings, SideStreams};
use self::sys::Client;
use self::wake::Waker;
use crate::client::{Admin, Cluster, Consumer, ConsumerSpec, GroupAdmin, GroupSpec, Producer, ProducerSpec, Topics};
use crate::error::{Error, ErrorKind, Result};
use crate::membership::Membership;
use crate::membership::classic::protocol::{GroupCoordinator, GroupOffsets};
use crate::membership::streams::protocol::StreamsCoordinator;

mod admin;
mod consumer;
mod failure;
mod group;
mod group_admin;
mod offsets;
mod producer;
mod settings;
mod side;
mod sys;
#[cfg(test)]
mod tests;
mod wake;

/// How long a broker may take to answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long one look at the transactions of an earlier producer may take; it goes on with the next one.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the first broker may take to answer at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a delivery may take before it has failed, as in Java.
const DELIVERY_TIMEOUT_MS: &str = "120000";

/// A real Kafka cluster.
#[derive(Debug)]
pub(crate) struct KafkaCluster {
    settings: Settings,
    group: String,
}

impl KafkaCluster {
    /// A cluster for an application, with settings of librdkafka passed through.
    ///
    /// A setting's name may begin with `consumer.`, `producer.`, `admin.` or `restore.consumer.` to reach that client only.
    ///
    /// # Errors
    /// `Invalid`, naming a setting that librdkafka does not know, cannot take, or that the library decides itself.
    pub(crate) fn new(
        bootstrap: &str,
        application_id: &str,
        overrides: BTreeMap<String, String>,
    ) -> Result<KafkaCluster> {
        Ok(KafkaCluster { settings: Settings::new(bootstrap, overrides)?, group: application_id.to_string() })
    }
}

impl Cluster for KafkaCluster {
    fn join(&self, spec: &GroupSpec) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)> {
        let waker = Arc::new(Waker::default());
        let mut member = self.settings.conf(ClientKind::Consumer, &spec.client_id)?;
        if !self.settings.given(ClientKind::Consumer, "heartbeat.interval.ms") {
            // A member hears of a rebalance with its next heartbeat.
            fix(&mut member, "heartbeat.interval.ms", "500")?;
        }
        let membership = KafkaMembership::join(member, spec, Arc::clone(&waker))?;
        let mut reader = self.settings.isolated(ClientKind::Consumer, &spec.client_id, spec.isolation)?;
        // Never joins and never commits: librdkafka reads nothing without a group's name.
        fix(&mut reader, "group.id", &spec.group)?;
        let consumer = KafkaConsumer::new(reader, &spec.client_id, waker)?;
        Ok((Box::new(membership), Box::new(consumer)))
    }

    fn consumer(&self, spec: &ConsumerSpec) -> Result<Box<dyn Consumer>> {
        if spec.topics == Topics::Changelogs
            && let Some(reader) = self.changelog_reader(spec)?
        {
            return Ok(Box::new(reader));
        }
        Ok(Box::new(self.settings.reader(spec, &self.group, Waker::default())?))
    }

    fn producer(&self, spec: &ProducerSpec) -> Result<Box<dyn Producer>> {
        let conf = match &spec.transactional_id {
            Some(id) => self.settings.transactional(&spec.client_id, id, spec.transaction_timeout)?,
            None => {
                let mut conf = self.settings.conf(ClientKind::Producer, &spec.client_id)?;
                if !self.settings.given(ClientKind::Producer, "message.timeout.ms") {
                    fix(&mut conf, "message.timeout.ms", DELIVERY_TIMEOUT_MS)?;
                }
                conf
            }
        };
        let predecessor = spec.transactional_id.as_ref().and_then(|id| self.predecessor(id, spec));
        Ok(Box::new(KafkaProducer::new(conf, &spec.client_id, self.settings.bootstrap(), predecessor)?))
    }

    fn admin(&self) -> Result<Box<dyn Admin>> {
        Ok(Box::new(self.kafka_admin()?))
    }

    fn coordinator(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupCoordinator>> {
        Ok(Box::new(SideCoordinator::new(self.side(client_id)?, group, client_id)?))
    }

    fn streams_coordinator(&self, group: &str, client_id: &str) -> Result<Box<StreamsCoordinator>> {
        Ok(Box::new(SideStreams::new(self.side(client_id)?, group, client_id)?))
    }

    fn group_offsets(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupOffsets>> {
        Ok(Box::new(SideOffsets::new(self.side(client_id)?, group, client_id)?))
    }

    fn group_admin(&self, group: &str, client_id: &str) -> Result<Box<dyn GroupAdmin>> {
        let side = SideOffsets::new(self.side(client_id)?, group, client_id)?;
        Ok(Box::new(KafkaGroupAdmin::new(side, self.kafka_admin()?.client())))
    }
}

impl KafkaCluster {
    /// None where only librdkafka does as the settings say.
    fn changelog_reader(&self, spec: &ConsumerSpec) -> Result<Option<ChangelogReader>> {
        if let Some(name) = self.settings.only_librdkafka_reads_so() {
            tracing::debug!("changelogs are read through librdkafka, which alone follows the setting {name}");
            return Ok(None);
        }
        let (settings, group, wanted) = (self.settings.clone(), self.group.clone(), spec.clone());
        let other: MakeFallback =
            Box::new(move |wake| Ok(Box::new(settings.reader(&wanted, &group, Waker::beside(wake))?)));
        let conf = self.settings.conf(ClientKind::Restore, &spec.client_id)?;
        let who = (&*spec.client_id, spec.isolation);
        match ChangelogReader::new(self.settings.bootstrap(), &|name| conf.get(name), who, other) {
            Ok(reader) => Ok(Some(reader)),
            Err(error) if error.kind() == ErrorKind::Invalid => {
                tracing::debug!("changelogs are read through librdkafka: {}", error.report());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn kafka_admin(&self) -> Result<KafkaAdmin> {
        let client_id = format!("{}-admin", self.group);
        let conf = self.settings.conf(ClientKind::Admin, &client_id)?;
        KafkaAdmin::new(conf, &client_id, self.settings.bootstrap(), CONNECT_TIMEOUT)
    }

    /// None where the side connection does not speak the security settings.
    #[expect(clippy::disallowed_methods, reason = "bounds a wait of the outer rim, no result depends on it")]
    fn predecessor(&self, id: &str, spec: &ProducerSpec) -> Option<Predecessor> {
        let side = self.side(&spec.client_id).ok()?;
        let side = SideOffsets::with_patience(side, &self.group, &spec.client_id, SETTLE_TIMEOUT).ok()?;
        Some(Predecessor { side, id: id.to_owned(), outputs: Arc::clone(&spec.outputs), since: Instant::now() })
    }

    /// What the side connections take over from librdkafka's consumer.
    fn side(&self, client_id: &str) -> Result<SideSettings> {
        let conf = self.settings.conf(ClientKind::Consumer, client_id)?;
        SideSettings::new(self.settings.bootstrap(), &|name| conf.get(name))
    }
}

/// Waits until a broker has answered.
///
/// # Errors
/// `Unavailable` with what the connections said; `Invalid` at once when the broker refuses the credentials.
#[expect(clippy::disallowed_methods, reason = "bounds a wait of the outer rim, no result depends on it")]
fn connect(client: &Client, bootstrap: &str, timeout: Duration) -> Result<()> {
    let started = Instant::now();
    client.forget_errors();
    loop {
        let left = timeout.saturating_sub(started.elapsed());
        // In slices, so that refused credentials are not waited for.
        let Err(failure) = client.metadata(None, left.min(Duration::from_millis(500))) else {
            client.forget_errors();
            return Ok(());
        };
        client.poll(Duration::ZERO);
        let last = client.last_error();
        if let Some(refused) = last.clone().filter(Failure::is_denied_access) {
            return Err(refused.while_doing(format_args!("could not connect to {bootstrap}")));
        }
        if left.is_zero() {
            let reason = last.unwrap_or(failure);
            let context = format!(
                "no broker answers at {bootstrap}: check the address, whether the broker runs, and security.protocol"
            );
            return Err(Error::new(ErrorKind::Unavailable, context).with_source(reason));
        }
    }
}

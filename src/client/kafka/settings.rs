//! The settings of librdkafka: our defaults, what the user passes through, and what the library decides itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::consumer::KafkaConsumer;
use super::sys::{Conf, SetError};
use super::wake::Waker;
use crate::client::{ConsumerSpec, Isolation};
use crate::error::{Error, Result};

/// Which of an application's clients a setting is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientKind {
    /// Reads the partitions of a stream thread, and the member of the group beside it.
    Consumer,
    /// Reads changelogs and global tables.
    Restore,
    Producer,
    Admin,
}

impl ClientKind {
    /// The prefixes whose settings reach this client, the later one wins.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            ClientKind::Consumer => &["consumer."],
            ClientKind::Restore => &["consumer.", "restore.consumer."],
            ClientKind::Producer => &["producer."],
            ClientKind::Admin => &["admin."],
        }
    }
}

const ALL_PREFIXES: [&str; 4] = ["restore.consumer.", "consumer.", "producer.", "admin."];

/// Settings on which the guarantees of the library stand, each with what to do instead.
const FIXED: [(&str, &str); 20] = [
    ("bootstrap.servers", "give the servers to Config::new"),
    ("metadata.broker.list", "give the servers to Config::new"),
    ("group.id", "the application id is the group"),
    ("group.instance.id", "static membership is set in Config"),
    ("group.protocol", "the library chooses the group protocol"),
    ("group.remote.assignor", "the library assigns tasks itself"),
    ("partition.assignment.strategy", "the library assigns tasks itself"),
    ("enable.auto.commit", "the library commits"),
    ("auto.commit.enable", "the library commits"),
    ("auto.commit.interval.ms", "set the commit interval in Config"),
    ("enable.auto.offset.store", "the library commits"),
    ("enable.partition.eof", "the library needs to know where a partition ends"),
    ("auto.offset.reset", "set where a source starts in Config or Consumed"),
    ("isolation.level", "it follows from the guarantee set in Config"),
    ("transactional.id", "it follows from the guarantee set in Config"),
    ("transaction.timeout.ms", "set the transaction timeout in Config"),
    ("enable.idempotence", "producers are always idempotent"),
    ("partitioner", "keys are partitioned as in Java; choose partitions with Produced"),
    ("allow.auto.create.topics", "create the topics, or let the library create its internal ones"),
    ("delivery.report.only.error", "the library needs every delivery report"),
];

/// What a Java user may bring along, and the name it has here.
const JAVA_NAMES: [(&str, &str); 10] = [
    ("sasl.jaas.config", "use sasl.username and sasl.password"),
    ("ssl.truststore.location", "use ssl.ca.location with a PEM file"),
    ("ssl.truststore.password", "use ssl.ca.location with a PEM file"),
    ("ssl.keystore.type", "use ssl.keystore.location with a PKCS#12 file, or ssl.certificate.location"),
    ("max.poll.records", "set the buffered records per partition in Config"),
    ("buffer.memory", "use queue.buffering.max.kbytes"),
    ("max.block.ms", "use message.timeout.ms"),
    ("fetch.max.wait.ms", "use fetch.wait.max.ms"),
    ("metrics.recording.level", "metrics are read through the metrics crate"),
    ("interceptor.classes", "there are no interceptors"),
];

const COMMON: [(&str, &str); 8] = [
    // A topic that is made by a look at it has the wrong number of partitions.
    ("allow.auto.create.topics", "false"),
    // librdkafka would derive it from the transaction timeout: a dead broker is noticed sooner.
    ("socket.timeout.ms", "10000"),
    ("socket.keepalive.enable", "true"),
    ("socket.nagle.disable", "true"),
    ("log.connection.close", "false"),
    // A transaction begun right after a commit meets CONCURRENT_TRANSACTIONS for some milliseconds; the default waits 100.
    ("retry.backoff.ms", "5"),
    // As in Java. librdkafka's own 10 s are how long a broker that is back goes unnoticed.
    ("reconnect.backoff.max.ms", "1000"),
    // A partition whose broker has named no leader stood still until the next look at all topics, which is five minutes away
    // by default.
    ("topic.metadata.refresh.interval.ms", "10000"),
];

const CONSUMER: [(&str, &str); 7] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("auto.offset.reset", "error"),
    // The default of a second, taken whenever a partition's queue was full, costs a factor of 2.5 in throughput.
    ("fetch.queue.backoff.ms", "5"),
    // An empty answer tells that a partition has nothing more: a join must not wait half a second for it.
    ("fetch.wait.max.ms", "100"),
    // The limit of each partition's queue.
    ("queued.max.messages.kbytes", "4096"),
];

const PRODUCER: [(&str, &str); 8] = [
    ("enable.idempotence", "true"),
    ("linger.ms", "5"),
    ("batch.size", "1000000"),
    ("batch.num.messages", "10000"),
    ("compression.codec", "lz4"),
    ("queue.buffering.max.messages", "1000000"),
    ("queue.buffering.max.kbytes", "65536"),
    // A call that librdkafka has forgotten goes on when some connection changes: see `send_offsets`. Brokers close idle ones
    // after ten minutes.
    ("connections.max.idle.ms", "120000"),
];

/// What the library's own reader of changelogs follows, or has no use for.
const READER: [&str; 13] = [
    "check.crcs",
    "client.id",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "max.partition.fetch.bytes",
    "queued.max.messages.kbytes",
    "receive.message.max.bytes",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "max.poll.interval.ms",
];

/// What it does not, under every prefix that reaches it: other addresses, other replicas, code of somebody else.
const ONLY_LIBRDKAFKA: [&str; 8] = [
    "client.dns.lookup",
    "client.rack",
    "fetch.error.backoff.ms",
    "plugin.library.paths",
    "resolve.canonical.bootstrap.servers",
    "socket.max.fails",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
];

/// How brokers are reached and who we are, which all of the library's own connections follow.
fn is_of_connections(bare: &str) -> bool {
    bare == "security.protocol"
        || bare.starts_with("sasl.")
        || bare.starts_with("ssl.")
        || bare.starts_with("enable.ssl.")
        || bare.starts_with("enable.sasl.")
        || bare.starts_with("reconnect.backoff.")
        || bare.starts_with("broker.address.")
        || matches!(bare, "socket.timeout.ms" | "socket.connection.setup.timeout.ms")
}

/// The settings of one application, checked.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    bootstrap: String,
    overrides: BTreeMap<String, String>,
}

impl Settings {
    /// Checks every override against librdkafka and against what the library decides.
    ///
    /// # Errors
    /// `Invalid`, naming the setting.
    pub(super) fn new(bootstrap: &str, overrides: BTreeMap<String, String>) -> Result<Settings> {
        let settings = Settings { bootstrap: bootstrap.to_string(), overrides };
        let mut scratch = Conf::new();
        for (name, value) in &settings.overrides {
            let bare = bare_name(name);
            if let Some((_, remedy)) = FIXED.iter().find(|(fixed, _)| *fixed == bare) {
                return Err(Error::invalid(format!("the setting {name} is decided by the library: {remedy}")));
            }
            set(&mut scratch, name, bare, value)?;
        }
        Ok(settings)
    }

    pub(super) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// A configuration with the defaults of its kind under the user's settings.
    pub(super) fn conf(&self, kind: ClientKind, client_id: &str) -> Result<Conf> {
        let mut conf = Conf::new();
        fix(&mut conf, "bootstrap.servers", &self.bootstrap)?;
        fix(&mut conf, "client.id", client_id)?;
        let own: &[(&str, &str)] = match kind {
            ClientKind::Consumer | ClientKind::Restore => &CONSUMER,
            ClientKind::Producer => &PRODUCER,
            ClientKind::Admin => &[],
        };
        for (name, value) in COMMON.iter().chain(own) {
            fix(&mut conf, name, value)?;
        }
        if kind == ClientKind::Restore {
            fix(&mut conf, "queued.max.messages.kbytes", "16384")?;
        }
        for (name, value) in self.of(kind) {
            set(&mut conf, name, bare_name(name), value)?;
        }
        Ok(conf)
    }

    pub(super) fn isolated(&self, kind: ClientKind, client_id: &str, isolation: Isolation) -> Result<Conf> {
        let mut conf = self.conf(kind, client_id)?;
        let level = match isolation {
            Isolation::ReadUncommitted => "read_uncommitted",
            Isolation::ReadCommitted => "read_committed",
        };
        fix(&mut conf, "isolation.level", level)?;
        Ok(conf)
    }

    /// librdkafka refuses a transaction timeout that is shorter than the time it waits for an answer.
    pub(super) fn transactional(&self, client_id: &str, id: &str, timeout: Duration) -> Result<Conf> {
        let mut conf = self.conf(ClientKind::Producer, client_id)?;
        fix(&mut conf, "transactional.id", id)?;
        fix(&mut conf, "transaction.timeout.ms", &timeout.as_millis().to_string())?;
        if !self.given(ClientKind::Producer, "socket.timeout.ms") {
            fix(&mut conf, "socket.timeout.ms", &timeout.as_millis().clamp(100, 10_000).to_string())?;
        }
        Ok(conf)
    }

    /// A consumer outside of any group.
    pub(super) fn reader(&self, spec: &ConsumerSpec, group: &str, waker: Waker) -> Result<KafkaConsumer> {
        let mut conf = self.isolated(ClientKind::Restore, &spec.client_id, spec.isolation)?;
        // Never joins and never commits: librdkafka reads nothing without a group's name.
        fix(&mut conf, "group.id", group)?;
        KafkaConsumer::new(conf, &spec.client_id, Arc::new(waker))
    }

    /// A setting that was given and that the library's own reader of changelogs does not follow.
    pub(super) fn only_librdkafka_reads_so(&self) -> Option<&str> {
        let mut given = self.of(ClientKind::Restore).map(|(name, _)| name.as_str());
        given.find(|name| match name.strip_prefix("restore.consumer.") {
            Some(bare) => !READER.contains(&bare) && !is_of_connections(bare),
            None => ONLY_LIBRDKAFKA.contains(&bare_name(name)),
        })
    }

    pub(super) fn given(&self, kind: ClientKind, bare: &str) -> bool {
        self.of(kind).any(|(name, _)| bare_name(name) == bare)
    }

    /// The settings of a kind of client, those without prefix first.
    fn of(&self, kind: ClientKind) -> impl Iterator<Item = (&String, &String)> {
        let plain = self.overrides.iter().filter(|(name, _)| bare_name(name) == name.as_str());
        let prefixed = kind
            .prefixes()
            .iter()
            .flat_map(|prefix| self.overrides.iter().filter(move |(name, _)| prefix_of(name) == Some(*prefix)));
        plain.chain(prefixed)
    }
}

fn prefix_of(name: &str) -> Option<&'static str> {
    ALL_PREFIXES.into_iter().find(|prefix| name.starts_with(prefix))
}

fn bare_name(name: &str) -> &str {
    prefix_of(name).and_then(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
}

/// Sets what the library decides.
pub(super) fn fix(conf: &mut Conf, name: &str, value: &str) -> Result<()> {
    set(conf, name, name, value)
}

fn set(conf: &mut Conf, given: &str, name: &str, value: &str) -> Result<()> {
    conf.set(name, value).map_err(|error| {
        if let Some((_, hint)) = JAVA_NAMES.iter().find(|(java, _)| *java == name) {
            return Error::invalid(format!("the setting {given} is one of the Java client: {hint}"));
        }
        match error {
            SetError::Unknown => Error::invalid(format!(
                "the setting {given} is not known to librdkafka; see its CONFIGURATION.md, and the prefixes consumer., \
                 producer., admin. and restore.consumer."
            )),
            // The value is not printed: it may be a password.
            SetError::Invalid(reason) => {
                let remedy = match reason.contains("not available at build time") || reason.contains("OpenSSL") {
                    true => ": build kstreams with its feature tls",
                    false => "",
                };
                Error::invalid(format!("the setting {given} has a value that cannot be used{remedy}"))
                    .with_source(reason)
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn settings(pairs: &[(&str, &str)]) -> Result<Settings> {
        let overrides = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        Settings::new("localhost:9092", overrides)
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let error = settings(&[("consumer.sessoin.timeout.ms", "6000")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("consumer.sessoin.timeout.ms"), "{error}");
    }

    #[test]
    fn a_setting_of_the_java_client_gets_a_hint() {
        let error = settings(&[("sasl.jaas.config", "x")]).unwrap_err();
        assert!(error.to_string().contains("sasl.username"), "{error}");
    }

    #[test]
    fn a_setting_that_the_library_decides_is_refused_under_every_prefix() {
        for name in ["enable.auto.commit", "consumer.isolation.level", "producer.transactional.id", "group.id"] {
            let error = settings(&[(name, "true")]).unwrap_err();
            assert!(error.to_string().contains(name) && error.to_string().contains("decided"), "{error}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_without_printing_it() {
        let error = settings(&[("session.timeout.ms", "secret")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn prefixed_settings_reach_one_kind_of_client_and_win() {
        let settings = settings(&[
            ("linger.ms", "1"),
            ("producer.linger.ms", "20"),
            ("consumer.fetch.wait.max.ms", "7"),
            ("restore.consumer.fetch.wait.max.ms", "8"),
        ])
        .unwrap();
        let value = |kind, name| settings.conf(kind, "c").unwrap().get(name);
        assert_eq!(value(ClientKind::Producer, "linger.ms").as_deref(), Some("20"));
        assert_eq!(value(ClientKind::Admin, "linger.ms").as_deref(), Some("1"));
        assert_eq!(value(ClientKind::Consumer, "fetch.wait.max.ms").as_deref(), Some("7"));
        assert_eq!(value(ClientKind::Restore, "fetch.wait.max.ms").as_deref(), Some("8"));
        assert_eq!(value(ClientKind::Producer, "fetch.wait.max.ms").as_deref(), Some("500"));
    }

    #[test]
    fn what_only_librdkafka_follows_in_reading_changelogs_is_named() {
        let found = |name| settings(&[(name, "1000")]).unwrap().only_librdkafka_reads_so().map(str::to_owned);
        for name in ["restore.consumer.client.rack", "consumer.client.rack", "restore.consumer.queued.min.messages"] {
            assert_eq!(found(name).as_deref(), Some(name));
        }
        let followed =
            ["restore.consumer.fetch.max.bytes", "restore.consumer.socket.timeout.ms", "producer.client.rack"];
        for name in followed.into_iter().chain(["consumer.queued.min.messages", "queued.max.messages.kbytes"]) {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn a_short_transaction_timeout_shortens_the_wait_for_an_answer() {
        let conf = settings(&[]).unwrap().transactional("c", "t", Duration::from_secs(2)).unwrap();
        assert_eq!(conf.get("socket.timeout.ms").as_deref(), Some("2000"));
    }
}

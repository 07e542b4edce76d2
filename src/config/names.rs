//! Settings by the names that Kafka Streams gives them.

use std::str::FromStr;
use std::time::Duration;

use super::{Config, GroupProtocol, Guarantee, StoreFormat, TopicCreation};
use crate::error::{Error, Result};
use crate::topology::{ErrorHandler, OffsetReset};

/// Prefixes of client settings and the ones they have here.
const CLIENTS: [(&str, &str); 5] = [
    ("main.consumer.", "consumer."),
    ("restore.consumer.", "restore.consumer."),
    ("consumer.", "consumer."),
    ("producer.", "producer."),
    ("admin.", "admin."),
];

/// Settings of every client that Java passes on without a prefix.
const SECURITY: [&str; 3] = ["security.", "sasl.", "ssl."];

pub(super) fn set(mut config: Config, name: &str, value: &str) -> Result<Config> {
    if let Some(name) = name.strip_prefix("topic.") {
        return Ok(config.topic(name, value));
    }
    if let Some(tag) = name.strip_prefix("client.tag.") {
        return Ok(config.client_tag(tag, value));
    }
    if let Some((prefix, ours)) = CLIENTS.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        let bare = name.strip_prefix(prefix).unwrap_or(name);
        return match bare {
            // Decided by the application, whichever way they are written.
            "metadata.max.age.ms"
            | "auto.offset.reset"
            | "session.timeout.ms"
            | "max.poll.interval.ms"
            | "group.instance.id"
            | "transaction.timeout.ms" => set(config, bare, value),
            _ => Ok(config.kafka(&format!("{ours}{bare}"), value)),
        };
    }
    if SECURITY.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(config.kafka(name, value));
    }
    match name {
        "application.id" => config.application_id = value.to_owned(),
        "bootstrap.servers" => config.bootstrap = value.to_owned(),
        "processing.guarantee" => {
            config.guarantee = match value {
                "at_least_once" => Guarantee::AtLeastOnce,
                "exactly_once_v2" => Guarantee::ExactlyOnce,
                _ => return Err(refused(name, value, "at_least_once or exactly_once_v2")),
            }
        }
        "num.stream.threads" => config.threads = number(name, value)?,
        "commit.interval.ms" => config.commit_interval = Some(millis(name, value)?),
        "state.dir" => config.state_dir = Some(value.into()),
        "state.cleanup.delay.ms" => config.state_cleanup_delay = millis(name, value)?,
        "repartition.purge.interval.ms" => config.repartition_purge_interval = millis(name, value)?,
        "statestore.cache.max.bytes" | "cache.max.bytes.buffering" => config.cache_bytes = number(name, value)?,
        "statestore.uncommitted.max.bytes" => config.uncommitted_bytes = number(name, value)?,
        "max.task.idle.ms" if value == "-1" => config.max_task_idle = None,
        "max.task.idle.ms" => config.max_task_idle = Some(millis(name, value)?),
        "__emit.interval.ms.kstreams.windowed.aggregation__" => config.window_emit_interval = millis(name, value)?,
        "__emit.interval.ms.kstreams.outer.join.spurious.results.fix__" => {
            config.outer_join_emit_interval = millis(name, value)?;
        }
        "buffered.records.per.partition" => config.buffered_records_per_partition = number(name, value)?,
        "metadata.max.age.ms" => config.metadata_max_age = millis(name, value)?,
        "auto.offset.reset" => config.offset_reset = offset_reset(name, value)?,
        "default.deserialization.exception.handler" | "deserialization.exception.handler" => {
            config.handlers.deserialization = handler(name, value)?;
        }
        "processing.exception.handler" => config.handlers.processing = handler(name, value)?,
        "processing.exception.handler.global.enabled" => config.global_processing_handler = number(name, value)?,
        "default.production.exception.handler" | "production.exception.handler" => {
            config.handlers.production = handler(name, value)?;
        }
        "errors.dead.letter.queue.topic.name" => config.handlers.dead_letter_topic = Some(value.into()),
        "ensure.explicit.internal.resource.naming" => config.require_names = number(name, value)?,
        "upgrade.from" => config.upgrade_from = Some(release(name, value)?),
        "topology.optimization" => config.optimization = value.parse()?,
        "default.dsl.store" | "dsl.store.suppliers.class" => {
            let in_memory = match value.rsplit(['.', '$']).next().unwrap_or(value) {
                "in_memory" | "InMemoryDslStoreSuppliers" => true,
                "rocksDB" | "RocksDBDslStoreSuppliers" => false,
                _ => return Err(refused(name, value, "rocksDB or in_memory, or the class of Java that stands for it")),
            };
            config = config.stores_in_memory(in_memory);
        }
        "dsl.store.format" => {
            config.store_format = match value.to_ascii_lowercase().as_str() {
                "default" => StoreFormat::Default,
                "headers" => StoreFormat::Headers,
                _ => return Err(refused(name, value, "default or headers")),
            }
        }
        "replication.factor" if value == "-1" => config.replication_factor = None,
        "replication.factor" => config.replication_factor = Some(number(name, value)?),
        "client.id" => config.client_id = Some(value.to_owned()),
        "group.instance.id" => config.group_instance_id = Some(value.to_owned()),
        "application.server" => config = config.application_server(value),
        "rack.aware.assignment.tags" => {
            let tags = value.split(',').map(str::trim).filter(|tag| !tag.is_empty());
            config = config.rack_aware_assignment_tags(tags);
        }
        "num.standby.replicas" => config.num_standby_replicas = number(name, value)?,
        "max.warmup.replicas" => config.max_warmup_replicas = number(name, value)?,
        "acceptable.recovery.lag" => config.acceptable_recovery_lag = number(name, value)?,
        "session.timeout.ms" => config.session_timeout = millis(name, value)?,
        "max.poll.interval.ms" => config.max_poll_interval = millis(name, value)?,
        "internal.leave.group.on.close" => config.leave_on_close = number(name, value)?,
        "transaction.timeout.ms" => config.transaction_timeout = millis(name, value)?,
        "auto.create.topics.enable" => {
            let create: bool = number(name, value)?;
            config.topic_creation = if create { TopicCreation::Internal } else { TopicCreation::Nothing };
        }
        "group.protocol" => match value.to_ascii_lowercase().as_str() {
            // Which of the two that speak it is said by Config::group_protocol.
            "classic" if config.group_protocol == GroupProtocol::Streams => {
                config.group_protocol = GroupProtocol::Sticky;
            }
            "classic" => {}
            "streams" => config.group_protocol = GroupProtocol::Streams,
            _ => return Err(refused(name, value, "classic or streams")),
        },
        _ => {
            return Err(Error::invalid(format!(
                "the setting {name} is not known: a setting of the Kafka client is given with Config::kafka or the \
                 prefix consumer., producer. or admin., one of created topics with Config::topic or the prefix topic."
            )));
        }
    }
    Ok(config)
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let kind = if std::any::type_name::<T>() == "bool" { "true or false" } else { "a whole number" };
    value.trim().parse().map_err(|error| refused(name, value, kind).with_source(error))
}

fn release(name: &str, value: &str) -> Result<(u16, u16)> {
    let mut parts = value.split('.').map(|part| part.parse::<u16>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(refused(name, value, "a release such as 3.4")),
    }
}

fn millis(name: &str, value: &str) -> Result<Duration> {
    let millis = value.trim().parse();
    millis.map(Duration::from_millis).map_err(|error| refused(name, value, "milliseconds").with_source(error))
}

/// Java 4: `by_duration:PT30S`; only hours, minutes and seconds of ISO 8601, and days.
fn offset_reset(name: &str, value: &str) -> Result<OffsetReset> {
    let known = "earliest, latest, none, or by_duration: with a duration such as PT1H30M";
    match value.to_ascii_lowercase().as_str() {
        "earliest" => Ok(OffsetReset::Earliest),
        "latest" => Ok(OffsetReset::Latest),
        "none" => Ok(OffsetReset::None),
        other => {
            let duration = other.strip_prefix("by_duration:").and_then(iso_duration);
            duration.map(OffsetReset::ByDuration).ok_or_else(|| refused(name, value, known))
        }
    }
}

/// `p2dt3h4m5.5s`, in lower case.
fn iso_duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('p')?;
    let (days, time) = text.split_once('t').unwrap_or((text, ""));
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let days = if days.is_empty() { 0 } else { days.strip_suffix('d')?.parse::<u64>().ok()? };
    let mut seconds = days as f64 * 86_400.0;
    let mut rest = time;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, unit) = rest.split_at(end);
        let number = number.parse::<f64>().ok()?;
        seconds += match unit.chars().next()? {
            'h' => number * 3600.0,
            'm' => number * 60.0,
            's' => number,
            _ => return None,
        };
        rest = unit.get(1..)?;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// Java's classes by their last word; a handler of one's own is given to the builder.
fn handler(name: &str, value: &str) -> Result<ErrorHandler> {
    match value.rsplit('.').next().unwrap_or(value) {
        "LogAndFailExceptionHandler" | "LogAndFailProcessingExceptionHandler" | "DefaultProductionExceptionHandler" => {
            Ok(ErrorHandler::log_and_fail())
        }
        "LogAndContinueExceptionHandler" | "LogAndContinueProcessingExceptionHandler" => {
            Ok(ErrorHandler::log_and_continue())
        }
        _ => Err(refused(
            name,
            value,
            "the name of Java's LogAndFail or LogAndContinue handler, or use Config's methods",
        )),
    }
}

fn refused(name: &str, value: &str, expected: &str) -> Error {
    Error::invalid(format!("the setting {name} cannot be \"{value}\": give {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("app", "embedded://")
    }

    #[test]
    fn a_java_name_sets_what_the_method_sets() {
        let config = config()
            .set("commit.interval.ms", "70")
            .unwrap()
            .set("processing.guarantee", "exactly_once_v2")
            .unwrap()
            .set("statestore.cache.max.bytes", "0")
            .unwrap()
            .set("max.task.idle.ms", "-1")
            .unwrap()
            .set("auto.offset.reset", "by_duration:P1DT2H0.5S")
            .unwrap()
            .set("ensure.explicit.internal.resource.naming", "true")
            .unwrap();
        assert_eq!(config.commit_interval_or_default(), Duration::from_millis(70));
        assert_eq!(config.guarantee(), Guarantee::ExactlyOnce);
        assert_eq!((config.cache_bytes, config.max_task_idle, config.require_names), (0, None, true));
        assert_eq!(config.offset_reset, OffsetReset::ByDuration(Duration::from_millis(26 * 3_600_000 + 500)));
    }

    #[test]
    fn the_group_protocol_has_javas_names() {
        let protocol = |config: &Config| config.group_protocol;
        let streams = config().set("group.protocol", "STREAMS").unwrap();
        assert_eq!(protocol(&streams), GroupProtocol::Streams);
        assert_eq!(protocol(&streams.set("group.protocol", "classic").unwrap()), GroupProtocol::Sticky);
        let range = config().group_protocol(GroupProtocol::Range).set("group.protocol", "classic").unwrap();
        assert_eq!(protocol(&range), GroupProtocol::Range);
        assert!(config().set("group.protocol", "consumer").unwrap_err().to_string().contains("streams"));
    }

    #[test]
    fn client_and_topic_settings_are_passed_on() {
        let config = config()
            .set("topic.retention.ms", "5")
            .unwrap()
            .set("main.consumer.fetch.min.bytes", "9")
            .unwrap()
            .set("consumer.session.timeout.ms", "7000")
            .unwrap()
            .set("security.protocol", "SSL")
            .unwrap();
        assert_eq!(config.topic_settings.get("retention.ms").map(String::as_str), Some("5"));
        let kafka: Vec<_> = config.kafka_settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(kafka, [("consumer.fetch.min.bytes", "9"), ("security.protocol", "SSL")]);
        assert_eq!(config.session_timeout, Duration::from_secs(7));
    }

    #[test]
    fn an_unknown_name_or_value_is_refused_by_name() {
        let wrong = [
            ("commit.interval", "1", "commit.interval"),
            ("commit.interval.ms", "soon", "soon"),
            ("auto.offset.reset", "by_duration:1h", "by_duration:1h"),
            ("num.standby.replicas", "-1", "num.standby.replicas"),
            ("processing.exception.handler", "com.example.Mine", "com.example.Mine"),
        ];
        for (name, value, named) in wrong {
            let error = config().set(name, value).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

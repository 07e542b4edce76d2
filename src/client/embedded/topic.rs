//! A topic: its partitions and the settings the in-process cluster heeds.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::client::embedded::log::Log;
use crate::error::{Error, Result};

#[derive(Debug)]
pub(super) struct Topic {
    /// New whenever a topic of this name is created.
    pub(super) id: Uuid,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) config: TopicConfig,
    pub(super) partitions: Vec<Log>,
    /// Where the next record without key and partition goes.
    pub(super) next_partition: i32,
}

impl Topic {
    pub(super) fn new(id: Uuid, partitions: i32, settings: BTreeMap<String, String>, config: TopicConfig) -> Topic {
        let partitions = (0..partitions).map(|_| Log::default()).collect();
        Topic { id, settings, config, partitions, next_partition: 0 }
    }

    pub(super) fn partition_count(&self) -> i32 {
        i32::try_from(self.partitions.len()).unwrap_or(i32::MAX)
    }

    pub(super) fn log(&self, partition: i32) -> Option<&Log> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    pub(super) fn log_mut(&mut self, partition: i32) -> Option<&mut Log> {
        self.partitions.get_mut(usize::try_from(partition).ok()?)
    }
}

/// Kafka's topic settings that change what this cluster does; the others are kept and ignored.
///
/// Differs from Kafka: nothing grows old unless `retention.ms` is given. Examples and tests write records of long ago.
#[derive(Debug, Clone)]
pub(super) struct TopicConfig {
    pub(super) compact: bool,
    pub(super) delete: bool,
    pub(super) retention_ms: Option<i64>,
    pub(super) retention_bytes: Option<u64>,
    pub(super) delete_retention_ms: i64,
    pub(super) message_bytes_max: usize,
}

impl TopicConfig {
    pub(super) fn new(topic: &str, settings: &BTreeMap<String, String>) -> Result<TopicConfig> {
        let number = |name: &str, default: i64| match settings.get(name) {
            None => Ok(default),
            Some(text) => text.trim().parse::<i64>().map_err(|error| {
                let context = format!("could not create topic {topic}: {name} is \"{text}\": give a whole number");
                Error::invalid(context).with_source(error)
            }),
        };
        let policy = settings.get("cleanup.policy").map_or("delete", String::as_str);
        let (mut compact, mut delete) = (false, false);
        for word in policy.split(',').map(|word| word.trim_matches(['[', ']', ' '])) {
            match word {
                "compact" => compact = true,
                "delete" => delete = true,
                _ => {
                    return Err(Error::invalid(format!(
                        "could not create topic {topic}: cleanup.policy is \"{policy}\": give compact, delete or both"
                    )));
                }
            }
        }
        Ok(TopicConfig {
            compact,
            delete,
            retention_ms: Some(number("retention.ms", -1)?).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(number("retention.bytes", -1)?).ok(),
            delete_retention_ms: number("delete.retention.ms", 86_400_000)?.max(0),
            message_bytes_max: usize::try_from(number("max.message.bytes", 1_048_588)?).unwrap_or(0),
        })
    }
}

/// Kafka's rule for names.
pub(super) fn check_name(name: &str) -> Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
        return Err(Error::invalid(format!(
            "could not create topic \"{name}\": a name has 1 to 249 letters, digits, dots, underscores and hyphens"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_or_refused_by_name() {
        let settings = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let config = TopicConfig::new("t", &settings(&[("cleanup.policy", "[compact, delete]")])).unwrap();
        assert!(config.compact && config.delete && config.retention_ms.is_none());
        let config = TopicConfig::new("t", &settings(&[("retention.ms", "5"), ("other", "x")])).unwrap();
        assert!(!config.compact && config.retention_ms == Some(5));
        for (name, value) in [("cleanup.policy", "keep"), ("retention.ms", "soon")] {
            let error = TopicConfig::new("t", &settings(&[(name, value)])).unwrap_err();
            assert!(error.to_string().contains(name) && error.to_string().contains(value), "{error}");
        }
    }

    #[test]
    fn a_name_that_kafka_refuses_is_refused() {
        for name in ["", ".", "..", "a b", "a/b", "ä", &"x".repeat(250)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("app-KSTREAM-AGGREGATE-STATE-STORE-0000000003-changelog").unwrap();
    }
}

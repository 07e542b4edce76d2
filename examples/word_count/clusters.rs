//! The ends of the topology: lines go in, counts come out. The library itself has no plain producer and consumer, so on
//! a real Kafka this program uses rdkafka for them.

use std::collections::HashMap;

use anyhow::{Context, Result};
use kstreams::{EmbeddedCluster, I64, Serde};

pub(crate) enum Lines {
    Embedded(Embedded),
    #[cfg(feature = "kafka")]
    Kafka(kafka::Kafka),
}

impl Lines {
    pub(crate) fn connect(bootstrap: &str, application_id: &str) -> Result<Lines> {
        if bootstrap.starts_with("embedded://") {
            let cluster = EmbeddedCluster::named(bootstrap)?;
            let (group, counts) = (application_id.to_owned(), HashMap::new());
            return Ok(Lines::Embedded(Embedded { cluster, group, written: 0, counts }));
        }
        #[cfg(feature = "kafka")]
        return Ok(Lines::Kafka(kafka::Kafka::connect(bootstrap, application_id)?));
        #[cfg(not(feature = "kafka"))]
        anyhow::bail!("{bootstrap} is a Kafka: build this example with the feature `kafka`");
    }

    /// Writes a line. Its key only spreads lines over the partitions.
    pub(crate) fn write(&mut self, line: &str) -> Result<()> {
        match self {
            Lines::Embedded(cluster) => cluster.write(line),
            #[cfg(feature = "kafka")]
            Lines::Kafka(kafka) => kafka.write(line),
        }
    }

    /// Waits until every line is in the topic.
    pub(crate) fn flush(&mut self) -> Result<()> {
        match self {
            Lines::Embedded(_) => Ok(()),
            #[cfg(feature = "kafka")]
            Lines::Kafka(kafka) => kafka.flush(),
        }
    }

    /// Whether the application has committed every line.
    pub(crate) fn are_taken(&mut self) -> Result<bool> {
        match self {
            Lines::Embedded(cluster) => cluster.are_taken(),
            #[cfg(feature = "kafka")]
            Lines::Kafka(kafka) => kafka.are_taken(),
        }
    }

    /// Takes what is new among the committed counts.
    pub(crate) fn read_counts(&mut self) -> Result<()> {
        match self {
            Lines::Embedded(cluster) => cluster.read_counts(),
            #[cfg(feature = "kafka")]
            Lines::Kafka(kafka) => kafka.read_counts(),
        }
    }

    pub(crate) fn counts(&self) -> &HashMap<String, i64> {
        match self {
            Lines::Embedded(cluster) => &cluster.counts,
            #[cfg(feature = "kafka")]
            Lines::Kafka(kafka) => &kafka.counts,
        }
    }
}

pub(crate) struct Embedded {
    cluster: EmbeddedCluster,
    group: String,
    written: u64,
    counts: HashMap<String, i64>,
}

impl Embedded {
    fn write(&mut self, line: &str) -> Result<()> {
        self.written += 1;
        self.cluster.produce("lines", Some(self.written.to_string().as_bytes()), Some(line.as_bytes()), None)?;
        Ok(())
    }

    fn are_taken(&self) -> Result<bool> {
        for partition in 0..self.cluster.partitions("lines")?.unwrap_or(0) {
            let taken = self.cluster.committed_offset(&self.group, "lines", partition)?.unwrap_or(0);
            if taken < self.cluster.end_offset("lines", partition)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_counts(&mut self) -> Result<()> {
        // Every read copies the topic: not before there is something to see.
        if !self.are_taken()? {
            return Ok(());
        }
        for record in self.cluster.read_committed("counts")? {
            take(&mut self.counts, record.key.as_deref(), record.value.as_deref())?;
        }
        Ok(())
    }
}

fn take(counts: &mut HashMap<String, i64>, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<()> {
    let word = String::from_utf8(key.context("a count has no word")?.to_vec())?;
    counts.insert(word, I64.deserialize(value.context("a word has no count")?)?);
    Ok(())
}

#[cfg(feature = "kafka")]
mod kafka {
    use std::collections::HashMap;
    use std::time::Duration;

    use anyhow::{Context, Result, ensure};
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::error::{KafkaError, RDKafkaErrorCode};
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

    const PATIENCE: Duration = Duration::from_secs(30);

    pub(crate) struct Kafka {
        producer: BaseProducer,
        /// Asks for the application's committed offsets, and reads nothing.
        offsets: BaseConsumer,
        results: BaseConsumer,
        written: u64,
        pub counts: HashMap<String, i64>,
    }

    impl Kafka {
        pub(crate) fn connect(bootstrap: &str, application_id: &str) -> Result<Kafka> {
            let client = |group: &str| {
                let mut config = ClientConfig::new();
                config.set("bootstrap.servers", bootstrap).set("group.id", group);
                config.set("enable.auto.commit", "false").set("isolation.level", "read_committed");
                config
            };
            let mut producer = ClientConfig::new();
            producer.set("bootstrap.servers", bootstrap).set("enable.idempotence", "true").set("linger.ms", "5");
            let results: BaseConsumer = client(&format!("{application_id}-results")).create()?;
            let mut all = TopicPartitionList::new();
            for partition in 0..partitions(&results, "counts")? {
                all.add_partition_offset("counts", partition, Offset::Beginning)?;
            }
            results.assign(&all)?;
            Ok(Kafka {
                producer: producer.create()?,
                offsets: client(application_id).create()?,
                results,
                written: 0,
                counts: HashMap::new(),
            })
        }

        pub(crate) fn write(&mut self, line: &str) -> Result<()> {
            self.written += 1;
            let key = self.written.to_string();
            let mut record = BaseRecord::to("lines").key(&key).payload(line);
            loop {
                match self.producer.send(record) {
                    Ok(()) => return Ok(()),
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), full)) => {
                        self.producer.poll(Duration::from_millis(100));
                        record = full;
                    }
                    Err((error, _)) => return Err(error).context("could not write a line to the topic lines"),
                }
            }
        }

        pub(crate) fn flush(&mut self) -> Result<()> {
            self.producer.flush(PATIENCE).context("could not write all lines to the topic lines")
        }

        pub(crate) fn are_taken(&self) -> Result<bool> {
            let mut wanted = TopicPartitionList::new();
            for partition in 0..partitions(&self.offsets, "lines")? {
                wanted.add_partition("lines", partition);
            }
            for committed in self.offsets.committed_offsets(wanted, PATIENCE)?.elements() {
                let (start, end) = self.offsets.fetch_watermarks("lines", committed.partition(), PATIENCE)?;
                if committed.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(start) < end {
                    return Ok(false);
                }
            }
            Ok(true)
        }

        pub(crate) fn read_counts(&mut self) -> Result<()> {
            // A first record may take a while; whatever follows is here.
            let mut patience = Duration::from_millis(500);
            while let Some(message) = self.results.poll(patience) {
                let message = message.context("could not read the topic counts")?;
                super::take(&mut self.counts, message.key(), message.payload())?;
                patience = Duration::from_millis(20);
            }
            Ok(())
        }
    }

    fn partitions(client: &BaseConsumer, topic: &str) -> Result<i32> {
        let metadata = client.fetch_metadata(Some(topic), PATIENCE)?;
        let count = metadata.topics().iter().map(|topic| topic.partitions().len()).sum::<usize>();
        ensure!(count > 0, "topic {topic} does not exist");
        Ok(i32::try_from(count)?)
    }
}

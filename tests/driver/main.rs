//! Topologies of the DSL without a broker: one file per behaviour. Names and bytes are those of Java's vectors, see
//! `tests/conformance`; here is what they do not say.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic in its helpers"
)]

mod aggregates;
mod async_calls;
mod bad_input;
mod branches;
mod caching;
mod count_windows;
mod dead_letters;
mod engines;
mod foreign_key_joins;
mod globals;
mod grouped_tables;
mod interceptors;
mod joins;
mod mistakes;
mod names;
mod operator_times;
mod optimisations;
mod order_of_emission;
mod orders;
mod processors;
mod properties;
mod stateless;
mod stream_joins;
mod table_joins;
mod tables;
mod time_to_live;
mod transformed_tables;
mod versioned_tables;
mod windows;

use kstreams::*;

/// Sends text through a topology and shows what comes out as `topic key value @timestamp`, `-` for a null. What goes to
/// topics of the library's own is left out.
struct Driver {
    inner: TopologyTestDriver,
    seen: usize,
}

impl Driver {
    /// Nothing is held back: each update goes on at once.
    fn new(builder: StreamsBuilder) -> Driver {
        Driver::with_cache(builder, 0)
    }

    fn with_cache(builder: StreamsBuilder, cache_bytes_max: usize) -> Driver {
        let config = Config::new("app", "embedded://").cache_bytes(cache_bytes_max);
        let topology = builder.build().expect("builds");
        Driver { inner: TopologyTestDriver::with_config(&topology, &config).expect("starts"), seen: 0 }
    }

    fn pipe(&mut self, topic: &str, key: &str, value: &str, at: i64) -> Vec<String> {
        self.pipe_raw(topic, Some(key.as_bytes()), Some(value.as_bytes()), at).expect("processes")
    }

    fn delete(&mut self, topic: &str, key: &str, at: i64) -> Vec<String> {
        self.pipe_raw(topic, Some(key.as_bytes()), None, at).expect("processes")
    }

    fn pipe_raw(&mut self, topic: &str, key: Option<&[u8]>, value: Option<&[u8]>, at: i64) -> Result<Vec<String>> {
        self.inner.pipe_raw(topic, key, value, at, Headers::new())?;
        Ok(self.drain())
    }

    /// Processes without a commit.
    fn hold(&mut self, topic: &str, key: &str, value: Option<&str>, at: i64) -> Vec<String> {
        self.inner
            .enqueue(topic, Some(key.as_bytes()), value.map(str::as_bytes), at, Headers::new())
            .and_then(|()| self.inner.process_without_commit())
            .expect("processes");
        self.drain()
    }

    fn commit(&mut self) -> Vec<String> {
        self.inner.commit().expect("commits");
        self.drain()
    }

    fn drain(&mut self) -> Vec<String> {
        let lines = self.inner.produced()[self.seen..].iter().filter(|record| !record.topic.starts_with("app-"));
        let lines = lines.map(show).collect();
        self.seen = self.inner.produced().len();
        lines
    }
}

fn show(record: &TestRecord) -> String {
    let text = |bytes: Option<&[u8]>| match bytes.map(<[u8; 8]>::try_from) {
        Some(Ok(long)) if long[0] == 0 || long[0] == 0xff => i64::from_be_bytes(long).to_string(),
        Some(_) => String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned(),
        None => "-".to_owned(),
    };
    let (key, value) = (text(record.key.as_deref()), text(record.value.as_deref()));
    format!("{} {key} {value} @{}", record.topic, record.timestamp)
}

fn text() -> Consumed<String, String> {
    Consumed::with(Utf8, Utf8)
}

fn to_text() -> Produced<String, String> {
    Produced::with(Utf8, Utf8)
}

fn grouped() -> Grouped<String, String> {
    Grouped::with(Utf8, Utf8)
}

fn build_error(builder: StreamsBuilder) -> String {
    builder.build().expect_err("is refused").to_string()
}

//! What the page shows: the last events of the shop, read from its topics like any other consumer would.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use kstreams::{Config, Result, TopicClient};
use serde_json::{Value, json};

use super::model::{EMAILS, ORDERS, STOCK_LEVELS};

/// Events that are kept for pages, and that one answer has.
const EVENTS_MAX: usize = 1_000;
const ANSWER_MAX: usize = 250;
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) struct Feed {
    shown: Arc<Shown>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shown {
    events: Mutex<Events>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Events {
    last: VecDeque<(u64, Value)>,
    /// Of the last one; they are numbered from 1.
    number: u64,
    /// Orders that have been in each state.
    counts: BTreeMap<String, u64>,
}

impl Feed {
    pub(crate) fn start(config: &Config) -> Result<Feed> {
        let mut topics = TopicClient::connect(config)?;
        let shown = Arc::new(Shown::default());
        let showing = Arc::clone(&shown);
        let thread = std::thread::spawn(move || {
            // Relaxed: it orders nothing; the thread is joined.
            while !showing.is_over.load(Ordering::Relaxed) {
                for topic in [ORDERS, STOCK_LEVELS, EMAILS] {
                    let read = topics.read(topic, Duration::ZERO, |record| {
                        let text =
                            |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                        let value = text(record.value);
                        let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
                        showing.events().add(topic, &text(record.key), &value);
                    });
                    if let Err(error) = read {
                        tracing::warn!("the page misses something: {}", error.report());
                    }
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
        });
        Ok(Feed { shown, thread: Some(thread) })
    }

    /// What came after an event, and how many orders there have been in each state.
    pub(crate) fn after(&self, number: u64) -> Value {
        let events = self.shown.events();
        let later = events.last.iter().filter(|(at, _)| *at > number).take(ANSWER_MAX);
        let shown: Vec<_> = later.map(|(at, event)| json!({ "number": at, "event": event })).collect();
        json!({ "events": shown, "counts": events.counts, "last": events.number })
    }
}

impl Shown {
    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    fn add(&mut self, topic: &str, key: &str, value: &Value) {
        if topic == ORDERS {
            let state = value.get("state").and_then(Value::as_str).unwrap_or_default();
            *self.counts.entry(state.to_owned()).or_default() += 1;
        }
        self.number += 1;
        self.last.push_back((self.number, json!({ "topic": topic, "key": key, "value": value })));
        if self.last.len() > EVENTS_MAX {
            self.last.pop_front();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shown.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

//! Runs one case and says what differs.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use kstreams::{
    Bytes, Config, Error, ErrorHandler, ErrorKind, HandlerResponse, Headers, TestRecord, TopologyTestDriver,
};
use serde_json::{Value as Json, json};

use crate::build::{NotBuilt, text};
use crate::compare::{self, Differences};
use crate::outcome::{Outcome, Stop, missing};
use crate::value::{Codec, hex};
use crate::{dsl, final_rows, low_level};

pub(crate) fn run(case: &Json) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| run_guarded(case)));
    match result {
        Ok(Ok(differences)) if differences.is_empty() => Outcome::Passed,
        Ok(Ok(differences)) => Outcome::Failed(differences),
        Ok(Err(stop)) => stop.into(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Outcome::Failed(vec![format!("panicked: {}", text.unwrap_or("no message"))])
        }
    }
}

fn run_guarded(case: &Json) -> Result<Differences, Stop> {
    let config = config(case)?;
    let expected = case.get("error");
    let built = match case["api"].as_str() {
        Some("topology") => low_level::build(case),
        _ => dsl::build(case),
    };
    let built = match built {
        Ok(built) => built,
        Err(NotBuilt::Stop(stop)) => return Err(stop),
        Err(NotBuilt::Error(error)) => return Ok(expect_error(expected, &["build", "config"], &error)),
    };
    let mut differences = Differences::new();
    let started =
        TopologyTestDriver::with_config_at(&built.topology, &config, case["wall_clock_ms"].as_i64().unwrap_or(0));
    let mut driver = match (started, expected) {
        (Ok(driver), None) => driver,
        (Ok(_), Some(error)) => return Ok(vec![format!("no error, expected {error}")]),
        (Err(error), expected) => return Ok(expect_error(expected, &["start", "config"], &error)),
    };
    compare::branches(case, &built.branches, &mut differences);
    compare::map("queryable", &case["queryable"], &json!(built.queryable), &mut differences);
    compare::description(text(case, "describe"), &built.topology.describe(), &mut differences);
    compare::sub_topologies(&case["subtopologies"], &built.topology.sub_topologies("app"), &mut differences);
    let mut run = Run { case, internal: BTreeMap::new(), differences };
    for (number, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
        run.step(number, step, &mut driver)?;
        if step.get("error").is_some() {
            return Ok(run.differences); // the driver is of no further use
        }
    }
    run.end(&mut driver)?;
    Ok(run.differences)
}

struct Run<'a> {
    case: &'a Json,
    /// What was written to internal topics.
    internal: BTreeMap<String, Vec<Json>>,
    differences: Differences,
}

impl Run<'_> {
    fn step(&mut self, number: usize, step: &Json, driver: &mut TopologyTestDriver) -> Result<(), Stop> {
        let (written, dropped) = (driver.produced().len(), driver.dropped_records());
        let result = self.act(step, driver)?;
        match (result, step.get("error")) {
            (Ok(()), None) => {}
            (Ok(()), Some(error)) => self.differences.push(format!("step {number}: no error, expected {error}")),
            (Err(error), None) => self.differences.push(format!("step {number}: {}", error.report())),
            (Err(error), expected @ Some(_)) => {
                let differences = expect_error(expected, &["step"], &error);
                self.differences.extend(differences.into_iter().map(|line| format!("step {number}: {line}")));
            }
        }
        let mut out = Vec::new();
        for record in driver.produced().iter().skip(written) {
            if is_internal(&record.topic) {
                let records = self.internal.entry(record.topic.to_string()).or_default();
                records.push(internal_record(number, record));
            } else {
                out.push(self.external_record(record)?);
            }
        }
        compare::records(number, &step["out"], &out, &mut self.differences);
        let dropped = driver.dropped_records() - dropped;
        if dropped != step["dropped"].as_u64().unwrap_or(0) {
            self.differences.push(format!("step {number}: dropped {dropped}, expected {}", step["dropped"]));
        }
        Ok(())
    }

    /// The outer result: what the runner cannot do. The inner one: what the application fails with.
    fn act(&self, step: &Json, driver: &mut TopologyTestDriver) -> Result<Result<(), Error>, Stop> {
        if let Some(record) = step.get("pipe") {
            return Ok(self.enqueue(record, driver)?.and_then(|()| driver.process()));
        }
        if let Some(millis) = step["advance_wall_clock_ms"].as_u64() {
            return Ok(driver.advance_wall_clock(Duration::from_millis(millis)));
        }
        if let Some(records) = step["batch"].as_array() {
            for record in records {
                if let Err(error) = self.enqueue(record, driver)? {
                    return Ok(Err(error));
                }
            }
            return Ok(match text(step, "commit") {
                "each" => driver.process(),
                "none" => driver.process_without_commit(),
                _ => driver.process_without_commit().and_then(|()| driver.commit()),
            });
        }
        if step["commit"] == Json::Bool(true) {
            return Ok(driver.commit());
        }
        Err(missing(format!("step {step}")))
    }

    fn enqueue(&self, record: &Json, driver: &mut TopologyTestDriver) -> Result<Result<(), Error>, Stop> {
        let topic = text(record, "topic");
        let (key, value) = self.codecs(topic)?;
        let (key, value) = (key.bytes_of(&record["key"])?, value.bytes_of(&record["value"])?);
        let timestamp = record["timestamp"].as_i64().unwrap_or(0);
        let headers = headers(&record["headers"]);
        Ok(driver.enqueue(topic, key.as_deref(), value.as_deref(), timestamp, headers))
    }

    fn codecs(&self, topic: &str) -> Result<(Codec, Codec), Stop> {
        let codecs = &self.case["topics"][topic];
        Ok((Codec::of(&codecs[0])?, Codec::of(&codecs[1])?))
    }

    fn external_record(&self, record: &TestRecord) -> Result<Json, Stop> {
        let (key, value) = self.codecs(&record.topic)?;
        let mut shown = json!({
            "topic": &*record.topic,
            "key": key.show(record.key.as_deref()),
            "value": value.show(record.value.as_deref()),
            "timestamp": record.timestamp,
        });
        let fields = shown.as_object_mut().expect("it is one");
        if matches!(key, Codec::TimeWindowed(..) | Codec::SessionWindowed(_)) {
            fields.insert("key_hex".to_owned(), record.key.as_deref().map_or(Json::Null, |key| json!(hex(key))));
        }
        if let Some(partition) = record.partition {
            fields.insert("partition".to_owned(), json!(partition));
        }
        let text = |value: Option<&[u8]>| value.map(|value| String::from_utf8_lossy(value).into_owned());
        let headers: Vec<Json> = record.headers.iter().map(|(key, value)| json!([key, text(value)])).collect();
        if !headers.is_empty() {
            fields.insert("headers".to_owned(), json!(headers));
        }
        Ok(shown)
    }

    fn end(&mut self, driver: &mut TopologyTestDriver) -> Result<(), Stop> {
        let Run { case, internal, differences } = self;
        let dropped = driver.dropped_records();
        if let Some(expected) = case["dropped"].as_u64()
            && expected != dropped
        {
            differences.push(format!("dropped {dropped} in all, expected {expected}"));
        }
        for query in case["queries"]["list"].as_array().into_iter().flatten() {
            final_rows::query(query, driver, differences);
        }
        for (name, store) in case["stores"].as_object().into_iter().flatten() {
            stored(name, store, driver, differences)?;
        }
        compare::internal(&case["internal"], internal, differences);
        if let Some(expected) = case.get("committed") {
            let committed = crate::patterns::committed(case, driver.committed());
            compare::map("committed", expected, &json!(committed), differences);
        }
        Ok(())
    }
}

/// Rows are compared as bytes: the text or number that is expected says how they should be written.
fn stored(
    name: &str,
    store: &Json,
    driver: &mut TopologyTestDriver,
    differences: &mut Differences,
) -> Result<(), Stop> {
    let rows: Result<Vec<_>, Error> = match text(store, "type") {
        "kv" => driver.key_value_store(name, Bytes, Bytes).and_then(|rows| {
            let rows = rows.all().collect(driver)?;
            Ok(rows.into_iter().map(|(key, value)| (key, value, None)).collect())
        }),
        // The rows of foreign-key subscriptions have headers in Java's stores; here they are only in the changelog.
        "timestamped_kv" | "timestamped_kv_headers" => match driver.timestamped_key_value_store(name, Bytes, Bytes) {
            Ok(rows) => rows
                .all()
                .collect(driver)
                .map(|rows| rows.into_iter().map(|(key, row)| (key, row.value, Some(row.timestamp))).collect()),
            // Java shows a plain store behind a table as one with the time -1.
            Err(_) => driver.key_value_store(name, Bytes, Bytes).and_then(|rows| {
                let rows = rows.all().collect(driver)?;
                Ok(rows.into_iter().map(|(key, value)| (key, value, Some(-1))).collect())
            }),
        },
        "window"
        | "timestamped_window"
        | "session"
        | "window_headers"
        | "timestamped_window_headers"
        | "session_headers" => {
            return final_rows::windowed(name, store, driver, differences);
        }
        // What is in it is asked for in `queries`.
        "versioned_kv" => return Ok(()),
        other => return Err(missing(format!("store type {other}"))),
    };
    match rows {
        Ok(rows) => compare::rows(name, &store["rows"], &rows, differences),
        Err(error) => differences.push(format!("store {name}: {}", error.report())),
    }
    Ok(())
}

fn internal_record(step: usize, record: &TestRecord) -> Json {
    let show = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(hex);
    let (key, value) = (show(&record.key), show(&record.value));
    let mut shown = json!({"step": step, "key": key, "value": value, "timestamp": record.timestamp});
    let fields = shown.as_object_mut().expect("it is one");
    let headers: Vec<Json> = record.headers.iter().map(|(key, value)| json!([key, value.map(hex)])).collect();
    if !headers.is_empty() {
        fields.insert("headers".to_owned(), json!(headers));
    }
    if let Some(partition) = record.partition.filter(|_| !record.topic.ends_with("-changelog")) {
        fields.insert("partition".to_owned(), json!(partition));
    }
    shown
}

fn is_internal(topic: &str) -> bool {
    let is_of_fk_join = topic.contains("KTABLE-FK-JOIN-") || topic.ends_with("-subscription-registration-topic");
    let is_of_fk_join = is_of_fk_join || topic.ends_with("-subscription-response-topic");
    topic.starts_with("app-") && (topic.ends_with("-changelog") || topic.ends_with("-repartition") || is_of_fk_join)
}

fn headers(json: &Json) -> Headers {
    let mut headers = Headers::new();
    for header in json.as_array().into_iter().flatten() {
        let key = header[0].as_str().unwrap_or_default();
        match header[1].as_str() {
            Some(value) => headers.add(key, value.as_bytes()),
            None => headers.add_null(key),
        }
    }
    headers
}

/// Our kinds, which say what a caller can do, against Java's classes of exceptions:
///
/// | phase | the format's kind | ours |
/// |---|---|---|
/// | build, config, start | any | `Invalid`: the program has to change |
/// | step | `streams` from `other: boom …` | `User` |
/// | step | `streams` from anything else | `User`, `Corrupted` |
/// | step | `unsupported`, `illegal_state`, `illegal_argument`, `null`, `class_cast` | `User`, `Invalid` |
fn expect_error(expected: Option<&Json>, phases: &[&str], error: &Error) -> Differences {
    let Some(expected) = expected else { return vec![error.report()] };
    let (phase, kind) = (text(expected, "phase"), text(expected, "kind"));
    if !phases.contains(&phase) {
        return vec![format!("failed in phase {}: {}; expected {expected}", phases[0], error.report())];
    }
    let cause = expected["causes"][0].as_str().unwrap_or_default();
    let allowed: &[ErrorKind] = match (phase, kind) {
        ("build" | "config" | "start", _) => &[ErrorKind::Invalid],
        (_, "streams") if cause.starts_with("other: boom") => &[ErrorKind::User],
        (_, "streams") => &[ErrorKind::User, ErrorKind::Corrupted],
        _ => &[ErrorKind::User, ErrorKind::Invalid],
    };
    if allowed.contains(&error.kind()) {
        return Vec::new();
    }
    vec![format!("{:?} error {}; expected {expected}", error.kind(), error.report())]
}

fn config(case: &Json) -> Result<Config, Stop> {
    let mut config = Config::new("app", "embedded://");
    for (key, value) in case["config"].as_object().into_iter().flatten() {
        let shown = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        config = match (key.as_str(), shown.as_str()) {
            // Part of how the topology is built.
            ("ensure.explicit.internal.resource.naming" | "default.timestamp.extractor" | "dsl.store.suppliers", _) => {
                config
            }
            ("outer.join.emit.interval.ms", millis) => {
                let millis = millis.parse().map_err(|_| missing(format!("an interval of {millis}")))?;
                config.outer_join_emit_interval(Duration::from_millis(millis))
            }
            ("window.emit.interval.ms", millis) => {
                config.window_emit_interval(Duration::from_millis(millis.parse().unwrap_or(0)))
            }
            (handler, "log_and_fail" | "log_and_continue" | "continue") => {
                let decides = match shown.as_str() {
                    "log_and_fail" => ErrorHandler::log_and_fail(),
                    // A handler of its own, which builds no dead letter.
                    "continue" => ErrorHandler::new(|_, _| HandlerResponse::Discard),
                    _ => ErrorHandler::log_and_continue(),
                };
                match handler {
                    "deserialization.exception.handler" => config.deserialization_handler(decides),
                    "processing.exception.handler" => config.processing_handler(decides),
                    "production.exception.handler" => config.production_handler(decides),
                    other => return Err(missing(format!("handler {other}"))),
                }
            }
            (key, value) => config.set(key, value).map_err(|_| missing(format!("configuration {key}={value}")))?,
        };
    }
    Ok(config)
}

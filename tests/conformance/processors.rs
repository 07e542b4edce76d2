//! The processors that cases name (section 8 of the format).

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use kstreams::{
    Error, FixedKeyContext, FixedKeyProcessor, FixedKeyRecord, Headers, Processor, ProcessorContext, ProcessorInit,
    Punctuation, PunctuationType, Record, RecordMetadata, Result, TaskContext,
};
use serde_json::Value as Json;

use crate::functions::Call;
use crate::key::Key;
use crate::outcome::{Stop, missing};
use crate::store_commands;
use crate::stores::{Opened, StoreDecl, Stores};
use crate::value::Val;
use crate::windowed_commands;

type Context<'a> = ProcessorContext<'a, Val, Val>;

const PROCESSORS: &[&str] = &[
    "forward",
    "sink",
    "upper",
    "set_key",
    "multi",
    "dedup",
    "every_n",
    "count_in_store",
    "count_flush",
    "ttl",
    "punctuate",
    "punctuate_anchored",
    "punctuate_times",
    "schedule_on_record",
    "punctuate_metadata",
    "punctuate_fail",
    "route",
    "add_header",
    "add_header_copy",
    "remove_header",
    "clear_headers",
    "headers_to_value",
    "metadata",
    "shift_ts",
    "ts_from_value",
    "fail_on",
    "fail_after_forward",
    "fail_after_put",
    "commit_request",
    "put",
    "put_upper",
    "put_timestamped",
    "lookup",
    "undeclared_store",
    "kv_ops",
    "timestamped_kv_ops",
    "window_ops",
    "session_ops",
    "versioned_ops",
];

/// Those whose first argument is a store.
const WITH_STORE: &[&str] = &[
    "dedup",
    "every_n",
    "count_in_store",
    "count_flush",
    "ttl",
    "fail_after_put",
    "put",
    "put_upper",
    "put_timestamped",
    "lookup",
    "undeclared_store",
    "kv_ops",
    "timestamped_kv_ops",
    "window_ops",
    "session_ops",
    "versioned_ops",
    "append_count",
];

const FIXED_KEY: &[&str] = &["upper", "append_count", "metadata", "add_header", "shift_ts", "multi", "drop"];

/// A processor as a case describes it: what its maker captures.
#[derive(Clone)]
pub(crate) struct Script {
    call: Arc<Call>,
    store: Option<StoreDecl>,
}

impl Script {
    pub(crate) fn parse(json: &Json, stores: &Stores) -> Result<Script, Stop> {
        Script::known(json, stores, PROCESSORS, "processor")
    }

    pub(crate) fn parse_fixed_key(json: &Json, stores: &Stores) -> Result<Script, Stop> {
        Script::known(json, stores, FIXED_KEY, "fixed-key processor")
    }

    fn known(json: &Json, stores: &Stores, names: &[&str], kind: &str) -> Result<Script, Stop> {
        let call = Call::parse(json)?;
        if !names.contains(&call.name.as_str()) {
            return Err(missing(format!("{kind} {}", call.name)));
        }
        let uses = WITH_STORE.contains(&call.name.as_str());
        let store = uses.then(|| stores.get(&call.text(0))).transpose()?;
        Ok(Script { call: Arc::new(call), store })
    }

    pub(crate) fn make(&self, init: &mut ProcessorInit<'_>) -> Result<Scripted> {
        let call = Arc::clone(&self.call);
        let store = self.store.as_ref().map(|store| store.open(init)).transpose()?;
        let mut schedules = Vec::new();
        let mut schedule = |kind: &str, interval: i64| -> Result<()> {
            let punctuation = init.schedule(millis(interval), clock(kind));
            schedules.push(Schedule { punctuation, label: format!("{kind}/{interval}"), left: i64::MAX });
            Ok(())
        };
        let number = |at| call.number(at);
        match call.name.as_str() {
            "punctuate" => {
                for pair in call.args.chunks(2) {
                    schedule(pair[0].as_str().unwrap_or_default(), pair[1].as_i64().unwrap_or(0))?;
                }
            }
            "punctuate_metadata" | "punctuate_fail" => schedule(&call.text(0), number(1))?,
            "count_flush" => schedule(&call.text(1), number(2))?,
            "ttl" => schedule("stream_time", number(2))?,
            "punctuate_times" => {
                schedule(&call.text(0), number(1))?;
                schedules.iter_mut().for_each(|schedule| schedule.left = number(2));
            }
            "punctuate_anchored" => {
                let punctuation = init.schedule_from(number(1), millis(number(2)), clock(&call.text(0)));
                schedules.push(Schedule { punctuation, label: "anchored".to_owned(), left: i64::MAX });
            }
            _ => {}
        }
        Ok(Scripted { call, store, schedules })
    }
}

pub(crate) struct Scripted {
    call: Arc<Call>,
    store: Option<Opened>,
    schedules: Vec<Schedule>,
}

struct Schedule {
    punctuation: Punctuation,
    label: String,
    left: i64,
}

impl Processor<Val, Val> for Scripted {
    type KeyOut = Val;
    type ValueOut = Val;

    fn process(&mut self, mut record: Record<Val, Val>, ctx: &mut Context<'_>) -> Result<()> {
        let call = Arc::clone(&self.call);
        let (text, last) = (call.text(0), call.text(call.args.len().saturating_sub(1)));
        match call.name.as_str() {
            "sink" => Ok(()),
            "upper" => {
                let upper = upper(&record.value);
                ctx.forward(record.with_value(upper))
            }
            "set_key" => ctx.forward(record.with_key(Val::text(text))),
            "multi" => (0..call.number(0)).try_for_each(|n| {
                let value = Val::text(format!("{}#{n}", record.value.show()));
                ctx.forward(record.clone().with_value(value))
            }),
            "dedup" => match self.store().kv()?.put_if_absent(ctx, &record.key, &record.value)? {
                None => ctx.forward(record),
                Some(_) => Ok(()),
            },
            "every_n" => {
                let count = self.store().count(ctx, &record.key)?;
                if count % call.number(1) == 0 { ctx.forward(record.with_value(Val::Long(count))) } else { Ok(()) }
            }
            "count_in_store" | "count_flush" => self.store().count(ctx, &record.key).map(|_| ()),
            "ttl" => {
                self.store().put_timestamped(ctx, &record)?;
                ctx.forward(record)
            }
            "schedule_on_record" => {
                let kind = call.text(0);
                let punctuation = ctx.schedule(millis(call.number(1)), clock(&kind));
                self.schedules.push(Schedule { punctuation, label: record.value.show(), left: i64::MAX });
                ctx.forward(record)
            }
            "route" => match record.value.show().split_once(':') {
                Some((child, rest)) => ctx.forward_to(child, record.clone().with_value(Val::text(rest))),
                None => ctx.forward(record),
            },
            "add_header" | "add_header_copy" => {
                record.headers.add(text, last.into_bytes());
                ctx.forward(record)
            }
            "remove_header" => {
                record.headers.remove(&text);
                ctx.forward(record)
            }
            "clear_headers" => ctx.forward(record.with_headers(Headers::new())),
            "headers_to_value" => {
                let value = format!("{}{{{}}}", record.value.show(), show_headers(&record.headers));
                ctx.forward(record.with_value(Val::text(value)))
            }
            "metadata" => {
                let value = format!(
                    "{}@{} st={} wc={} task={}",
                    metadata(ctx.record_metadata()),
                    record.timestamp,
                    ctx.stream_time().unwrap_or(-1),
                    ctx.wall_clock_ms(),
                    ctx.task_id()
                );
                ctx.forward(record.with_value(Val::text(value)))
            }
            "shift_ts" => {
                let timestamp = record.timestamp + call.number(0);
                ctx.forward(record.with_timestamp(timestamp))
            }
            "ts_from_value" => {
                let timestamp = record.value.number();
                ctx.forward(record.with_timestamp(timestamp))
            }
            "fail_on" if record.value.show() == text => Err(boom(&text)),
            "fail_after_forward" => {
                let fails = record.value.show() == text;
                ctx.forward(record)?;
                if fails { Err(boom(&text)) } else { Ok(()) }
            }
            "fail_after_put" => {
                self.store().put(ctx, &record)?;
                if record.value.show() == last { Err(boom(&last)) } else { ctx.forward(record) }
            }
            "commit_request" => {
                ctx.request_commit();
                ctx.forward(record)
            }
            "put" => self.store().put(ctx, &record),
            "put_timestamped" => self.store().put_timestamped(ctx, &record),
            "put_upper" => {
                let upper = upper(&record.value);
                self.store().put(ctx, &record.with_value(upper))
            }
            "lookup" => {
                let stored = self.store().get_shown(ctx, &record.key)?;
                let value = Val::text(format!("{}/{stored}", record.value.show()));
                ctx.forward(record.with_value(value))
            }
            "kv_ops" => {
                let answer = store_commands::kv(self.store().kv()?, ctx, &record)?;
                ctx.forward(record.with_value(Val::text(answer)))
            }
            "timestamped_kv_ops" => {
                let answer = store_commands::timestamped_kv(self.store().timestamped()?, ctx, &record)?;
                ctx.forward(record.with_value(Val::text(answer)))
            }
            "window_ops" | "session_ops" | "versioned_ops" => {
                let answer = match self.store() {
                    Opened::Window(store) => windowed_commands::window(store, ctx, &record)?,
                    Opened::TimestampedWindow(store) => windowed_commands::timestamped_window(store, ctx, &record)?,
                    Opened::Session(store) => windowed_commands::session(store, ctx, &record)?,
                    Opened::Versioned(store) => windowed_commands::versioned(store, ctx, &record)?,
                    Opened::KeyValue(_) | Opened::Timestamped(_) => return Err(boom("store")),
                };
                ctx.forward(record.with_value(Val::text(answer)))
            }
            _ => ctx.forward(record),
        }
    }

    fn punctuate(&mut self, punctuation: Punctuation, timestamp: i64, ctx: &mut Context<'_>) -> Result<()> {
        let call = Arc::clone(&self.call);
        let forward = |ctx: &mut Context<'_>, key: String, value: String| {
            ctx.forward(Record::new(Val::text(key), Val::text(value), timestamp))
        };
        match call.name.as_str() {
            "count_flush" => {
                let store = self.store().kv()?;
                for (key, count) in store.all().collect(ctx)? {
                    ctx.forward(Record::new(key.clone(), count, timestamp))?;
                    store.delete(ctx, &key)?;
                }
                Ok(())
            }
            "ttl" => {
                let age = call.number(1);
                let store = self.store().timestamped()?;
                for (key, row) in store.all().collect(ctx)? {
                    if row.timestamp + age <= timestamp {
                        store.delete(ctx, &key)?;
                        ctx.forward(Record::new(key, Val::Null, timestamp))?;
                    }
                }
                Ok(())
            }
            "punctuate_metadata" => {
                let (at, wall_clock) = (ctx.stream_time().unwrap_or(-1), ctx.wall_clock_ms());
                let value = format!("{} st={at} wc={wall_clock}", metadata(ctx.record_metadata()));
                forward(ctx, "meta".to_owned(), value)
            }
            "punctuate_fail" if timestamp >= call.number(2) => Err(boom("punctuate")),
            name => {
                let Some(schedule) = self.schedules.iter_mut().find(|known| known.punctuation == punctuation) else {
                    return Err(Error::user("a punctuation nobody has scheduled"));
                };
                if name != "punctuate_times" {
                    return forward(ctx, schedule.label.clone(), format!("at {timestamp}"));
                }
                let left = schedule.left;
                schedule.left -= 1;
                forward(ctx, "punct".to_owned(), format!("at {timestamp} left {left}"))?;
                if left == 1 {
                    ctx.cancel(punctuation);
                }
                Ok(())
            }
        }
    }
}

impl Scripted {
    fn store(&mut self) -> &mut Opened {
        self.store.as_mut().expect("the parser knows which processors have a store")
    }
}

/// A processor behind a stream whose keys may have windows; what it forwards has keys of one type.
pub(crate) struct AnyKey<K>(Scripted, PhantomData<fn(K)>);

pub(crate) fn with_windows<K: Key>(scripted: Scripted) -> AnyKey<K> {
    AnyKey(scripted, PhantomData)
}

impl<K: Key> Processor<K, Val> for AnyKey<K> {
    type KeyOut = Val;
    type ValueOut = Val;

    fn process(&mut self, record: Record<K, Val>, ctx: &mut Context<'_>) -> Result<()> {
        let Record { key, value, timestamp, headers } = record;
        Processor::process(&mut self.0, Record { key: key.val(), value, timestamp, headers }, ctx)
    }

    fn punctuate(&mut self, punctuation: Punctuation, now: i64, ctx: &mut Context<'_>) -> Result<()> {
        Processor::punctuate(&mut self.0, punctuation, now, ctx)
    }
}

impl<K: Key> FixedKeyProcessor<K, Val> for Scripted {
    type ValueOut = Val;

    fn process(&mut self, mut record: FixedKeyRecord<K, Val>, ctx: &mut FixedKeyContext<'_, '_, K, Val>) -> Result<()> {
        let call = Arc::clone(&self.call);
        match call.name.as_str() {
            "upper" => ctx.forward(record.map_value(|_, value| upper(&value))),
            "append_count" => {
                let count = self.store().count(ctx, &record.key().val())?;
                ctx.forward(record.map_value(|_, value| Val::text(format!("{}#{count}", value.show()))))
            }
            "metadata" => {
                let task: &TaskContext = ctx;
                let place = metadata(task.record_metadata());
                let time = task.stream_time().unwrap_or(-1);
                let value = format!("{} {place}@{} st={time}", record.key().val().show(), record.timestamp);
                ctx.forward(record.with_value(Val::text(value)))
            }
            "add_header" => {
                record.headers.add(call.text(0), call.text(1).into_bytes());
                ctx.forward(record)
            }
            "shift_ts" => {
                let timestamp = record.timestamp + call.number(0);
                ctx.forward(record.with_timestamp(timestamp))
            }
            "multi" => (0..call.number(0)).try_for_each(|n| {
                ctx.forward(record.clone().map_value(|_, value| Val::text(format!("{}#{n}", value.show()))))
            }),
            _ => Ok(()),
        }
    }
}

fn boom(what: &str) -> Error {
    Error::user(format!("boom {what}"))
}

fn upper(value: &Val) -> Val {
    if value.is_null() { Val::Null } else { Val::text(value.show().to_uppercase()) }
}

/// Inside a punctuation Java has metadata with nothing in it; we have none.
fn metadata(metadata: Option<RecordMetadata<'_>>) -> String {
    metadata.map_or("null/-1/-1".to_owned(), |at| format!("{}/{}/{}", at.topic, at.partition, at.offset))
}

pub(crate) fn show_headers(headers: &Headers) -> String {
    let show = |value: Option<&[u8]>| value.map_or("null".into(), String::from_utf8_lossy).into_owned();
    headers.iter().map(|(key, value)| format!("{key}={}", show(value))).collect::<Vec<_>>().join(";")
}

fn clock(kind: &str) -> PunctuationType {
    if kind == "wall_clock" { PunctuationType::WallClockTime } else { PunctuationType::StreamTime }
}

fn millis(interval: i64) -> Duration {
    Duration::from_millis(interval.unsigned_abs())
}

//! The functions that cases name (section 7 of the format). A user failure is a panic whose message begins with `boom`.

use std::sync::Arc;

use kstreams::{Outgoing, TimestampExtractor, TopicNameExtractor};
use serde_json::Value as Json;

use crate::key::Key;
use crate::outcome::{Stop, inexpressible, missing};
use crate::value::Val;

pub(crate) type Predicate = Arc<dyn Fn(&Val, &Val) -> bool + Send + Sync>;
/// Key and value to a value or to a key.
pub(crate) type Mapper = Arc<dyn Fn(&Val, &Val) -> Val + Send + Sync>;
pub(crate) type PairMapper = Arc<dyn Fn(&Val, &Val) -> (Val, Val) + Send + Sync>;
pub(crate) type FlatMapper = Arc<dyn Fn(&Val, &Val) -> Vec<(Val, Val)> + Send + Sync>;
/// Key, left, right; or key, value, aggregate.
pub(crate) type Three = Arc<dyn Fn(&Val, &Val, &Val) -> Val + Send + Sync>;
pub(crate) type Two = Arc<dyn Fn(&Val, &Val) -> Val + Send + Sync>;
pub(crate) type Partitioner = Arc<dyn Fn(&str, &Val, &Val, i32) -> Option<Vec<i32>> + Send + Sync>;

/// A function with its arguments: `"upper"` or `["append", "x"]`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) args: Vec<Json>,
}

impl Call {
    pub(crate) fn parse(json: &Json) -> Result<Call, Stop> {
        let text = |json: &Json| json.as_str().map(str::to_owned).ok_or_else(|| missing(format!("function {json}")));
        match json {
            Json::Array(parts) => {
                let (name, args) = parts.split_first().ok_or_else(|| missing("a function without a name"))?;
                Ok(Call { name: text(name)?, args: args.to_vec() })
            }
            other => Ok(Call { name: text(other)?, args: Vec::new() }),
        }
    }

    pub(crate) fn text(&self, at: usize) -> String {
        match self.args.get(at) {
            Some(Json::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }

    pub(crate) fn number(&self, at: usize) -> i64 {
        self.args.get(at).and_then(Json::as_i64).unwrap_or(0)
    }

    pub(crate) fn value(&self, at: usize) -> Val {
        self.args.get(at).map_or(Val::Null, Val::of_argument)
    }

    fn unknown(&self, kind: &str) -> Stop {
        missing(format!("{kind} {}", self.name))
    }
}

pub(crate) fn boom(what: &str) -> ! {
    panic!("boom {what}")
}

pub(crate) fn predicate(json: &Json) -> Result<Predicate, Stop> {
    let call = Call::parse(json)?;
    let (text, number) = (call.text(0), call.number(0));
    let of_value = |test: Box<dyn Fn(&str) -> bool + Send + Sync>| -> Predicate {
        Arc::new(move |_, value| !value.is_null() && test(&value.show()))
    };
    Ok(match call.name.as_str() {
        "true" => Arc::new(|_, _| true),
        "false" => Arc::new(|_, _| false),
        "value_contains" => of_value(Box::new(move |value| value.contains(&text))),
        "value_starts" => of_value(Box::new(move |value| value.starts_with(&text))),
        "value_equals" => of_value(Box::new(move |value| value == text)),
        "value_longer_than" => of_value(Box::new(move |value| value.chars().count() as i64 > number)),
        "value_gt" => Arc::new(move |_, value| !value.is_null() && value.number() > number),
        "value_even" => Arc::new(|_, value| !value.is_null() && value.number() % 2 == 0),
        "value_null" => Arc::new(|_, value| value.is_null()),
        "key_equals" => Arc::new(move |key, _| !key.is_null() && key.show() == text),
        "key_null" => Arc::new(|key, _| key.is_null()),
        "fail_on_value" => Arc::new(move |_, value| if value.show() == text { boom(&text) } else { true }),
        _ => return Err(call.unknown("predicate")),
    })
}

pub(crate) fn value_mapper(json: &Json) -> Result<Mapper, Stop> {
    let call = Call::parse(json)?;
    let (text, number, argument) = (call.text(0), call.number(0), call.value(0));
    let of_text = |map: Box<dyn Fn(&str) -> Val + Send + Sync>| -> Mapper {
        Arc::new(move |_, value| if value.is_null() { Val::Null } else { map(&value.show()) })
    };
    Ok(match call.name.as_str() {
        "identity" => Arc::new(|_, value| value.clone()),
        "upper" => of_text(Box::new(|value| Val::text(value.to_uppercase()))),
        "append" => of_text(Box::new(move |value| Val::text(format!("{value}{text}")))),
        "show" => Arc::new(|_, value| Val::text(value.show())),
        "length" => of_text(Box::new(|value| Val::Long(value.chars().count() as i64))),
        "to_string" => of_text(Box::new(|value| Val::text(value))),
        "parse_long" => of_text(Box::new(|value| Val::Long(Val::text(value).number()))),
        "plus" => Arc::new(move |_, value| match value {
            Val::Null => Val::Null,
            value => Val::Long(value.number() + number),
        }),
        "const" => Arc::new(move |_, _| argument.clone()),
        "null" => Arc::new(|_, _| Val::Null),
        "null_if" => Arc::new(move |_, value| if value.show() == text { Val::Null } else { value.clone() }),
        "key_and_value" => Arc::new(|key, value| Val::text(format!("{}:{}", key.show(), value.show()))),
        "before_bar" => Arc::new(|_, value| before_bar(value)),
        "after_bar" => Arc::new(|_, value| after_bar(value)),
        "fail_on" => Arc::new(move |_, value| if value.show() == text { boom(&text) } else { value.clone() }),
        _ => return Err(call.unknown("value mapper")),
    })
}

pub(crate) fn key_selector(json: &Json) -> Result<Mapper, Stop> {
    let call = Call::parse(json)?;
    let (text, argument) = (call.text(0), call.value(0));
    Ok(match call.name.as_str() {
        "key" => Arc::new(|key, _| key.clone()),
        "value" => Arc::new(|_, value| value.clone()),
        "first_word" => Arc::new(|_, value| first_word(value)),
        "first_char" => Arc::new(|_, value| match value {
            Val::Null => Val::Null,
            value => value.show().chars().next().map_or(Val::Null, |first| Val::text(first.to_string())),
        }),
        "key_append" => Arc::new(move |key, _| match key {
            Val::Null => Val::Null,
            key => Val::text(format!("{}{text}", key.show())),
        }),
        "const" => Arc::new(move |_, _| argument.clone()),
        "null" => Arc::new(|_, _| Val::Null),
        "null_if_value" => Arc::new(move |key, value| if value.show() == text { Val::Null } else { key.clone() }),
        "before_bar" => Arc::new(|_, value| before_bar(value)),
        "key_before_colon" => Arc::new(|key, _| match key {
            Val::Null => Val::Null,
            key => Val::text(key.show().split(':').next().unwrap_or_default()),
        }),
        "windowed_inner" => Arc::new(|key, _| match key {
            Val::Windowed { key, .. } => (**key).clone(),
            key => key.clone(),
        }),
        "fail_on_value" => Arc::new(move |key, value| if value.show() == text { boom(&text) } else { key.clone() }),
        _ => return Err(call.unknown("key selector")),
    })
}

pub(crate) fn pair_mapper(json: &Json) -> Result<PairMapper, Stop> {
    let call = Call::parse(json)?;
    let argument = call.value(0);
    let upper = |value: &Val| if value.is_null() { Val::Null } else { Val::text(value.show().to_uppercase()) };
    Ok(match call.name.as_str() {
        "identity" => Arc::new(|key, value| (key.clone(), value.clone())),
        "swap" => Arc::new(|key, value| (value.clone(), key.clone())),
        "upper_both" => Arc::new(move |key, value| (upper(key), upper(value))),
        "first_word_key" => Arc::new(|_, value| (first_word(value), value.clone())),
        "null_key" => Arc::new(|_, value| (Val::Null, value.clone())),
        "null_value" => Arc::new(|key, _| (key.clone(), Val::Null)),
        "const_key" => Arc::new(move |_, value| (argument.clone(), value.clone())),
        "before_bar_key" => Arc::new(|_, value| (before_bar(value), after_bar(value))),
        "before_bar_key_null_payload" => Arc::new(|_, value| match after_bar(value) {
            Val::Text(payload) if payload == "-" => (before_bar(value), Val::Null),
            payload => (before_bar(value), payload),
        }),
        "value_key_long_one" => Arc::new(|_, value| (value.clone(), Val::Long(1))),
        "key_suffix_long" => Arc::new(|_, value| match after_bar(value) {
            Val::Null => (before_bar(value), Val::Null),
            payload => (before_bar(value), Val::Long(payload.number())),
        }),
        "return_null" => return Err(inexpressible("mapping_to_no_pair")),
        _ => return Err(call.unknown("pair mapper")),
    })
}

pub(crate) fn flat_mapper(json: &Json) -> Result<FlatMapper, Stop> {
    let call = Call::parse(json)?;
    let number = call.number(0);
    Ok(match call.name.as_str() {
        "words" => Arc::new(|_, value| words(value).map(|word| (Val::text(&word), Val::text(word))).collect()),
        "words_as_keys" => Arc::new(|key, value| words(value).map(|word| (Val::text(word), key.clone())).collect()),
        "repeat" => Arc::new(move |key, value| repeat(value, number).map(|value| (key.clone(), value)).collect()),
        "empty" => Arc::new(|_, _| Vec::new()),
        "return_null" => return Err(inexpressible("mapping_to_no_pair")),
        _ => return Err(call.unknown("flat mapper")),
    })
}

/// The keys of the pairs are not looked at.
pub(crate) fn flat_value_mapper(json: &Json) -> Result<FlatMapper, Stop> {
    let call = Call::parse(json)?;
    let number = call.number(0);
    let pair = |value: Val| (Val::Null, value);
    Ok(match call.name.as_str() {
        "words" => Arc::new(move |_, value| words(value).map(|word| pair(Val::text(word))).collect()),
        "key_words" => Arc::new(move |key, value| {
            words(value).map(|word| pair(Val::text(format!("{}:{word}", key.show())))).collect()
        }),
        "repeat" => Arc::new(move |_, value| repeat(value, number).map(pair).collect()),
        "value_and_null" => Arc::new(move |_, value| vec![pair(value.clone()), pair(Val::Null)]),
        "empty" => Arc::new(|_, _| Vec::new()),
        "return_null" => return Err(inexpressible("mapping_to_no_pair")),
        _ => return Err(call.unknown("flat value mapper")),
    })
}

pub(crate) fn joiner(json: &Json) -> Result<Three, Stop> {
    let call = Call::parse(json)?;
    let text = call.text(0);
    let concat = |left: &Val, right: &Val| Val::text(format!("{}+{}", left.show(), right.show()));
    Ok(match call.name.as_str() {
        "concat" => Arc::new(move |_, left, right| concat(left, right)),
        "concat_key" => {
            Arc::new(|key, left, right| Val::text(format!("{}:{}+{}", key.show(), left.show(), right.show())))
        }
        "nested" => Arc::new(|_, left, right| Val::text(format!("({},{})", left.show(), right.show()))),
        "left" => Arc::new(|_, left, _| left.clone()),
        "right" => Arc::new(|_, _, right| right.clone()),
        "sum" => Arc::new(|_, left, right| Val::Long(left.number() + right.number())),
        "null" => Arc::new(|_, _, _| Val::Null),
        "null_if_left" => {
            Arc::new(move |_, left, right| if left.show() == text { Val::Null } else { concat(left, right) })
        }
        _ => return Err(call.unknown("joiner")),
    })
}

pub(crate) fn initial(json: &Json) -> Result<Val, Stop> {
    let call = Call::parse(json)?;
    Ok(match call.name.as_str() {
        "empty" => Val::text(""),
        "zero" => Val::Long(0),
        "null" => Val::Null,
        "const" => call.value(0),
        _ => return Err(call.unknown("initialiser")),
    })
}

pub(crate) fn aggregator(json: &Json) -> Result<Three, Stop> {
    let call = Call::parse(json)?;
    let text = call.text(0);
    let append =
        |aggregate: &Val, sign: &str, value: &Val| Val::text(format!("{}{sign}{}", aggregate.show(), value.show()));
    Ok(match call.name.as_str() {
        "append" => Arc::new(move |_, value, aggregate| append(aggregate, "+", value)),
        "remove" => Arc::new(move |_, value, aggregate| append(aggregate, "-", value)),
        "append_key" => {
            Arc::new(|key, value, aggregate| Val::text(format!("{}+{}:{}", aggregate.show(), key.show(), value.show())))
        }
        "sum" => Arc::new(|_, value, aggregate| Val::Long(aggregate.number() + value.number())),
        "subtract" => Arc::new(|_, value, aggregate| Val::Long(aggregate.number() - value.number())),
        "sum_length" => {
            Arc::new(|_, value, aggregate| Val::Long(aggregate.number() + value.show().chars().count() as i64))
        }
        // What `count` adds and takes away.
        "plus_one" => Arc::new(|_, _, aggregate| Val::Long(aggregate.number() + 1)),
        "minus_one" => Arc::new(|_, _, aggregate| Val::Long(aggregate.number() - 1)),
        "max" => Arc::new(|_, value, aggregate| extreme(aggregate, value, i64::max)),
        "min" => Arc::new(|_, value, aggregate| extreme(aggregate, value, i64::min)),
        "last" => Arc::new(|_, value, _| value.clone()),
        "first" => Arc::new(|_, value, aggregate| if aggregate.is_null() { value } else { aggregate }.clone()),
        "null" => Arc::new(|_, _, _| Val::Null),
        "append_null_on" => Arc::new(
            move |_, value, aggregate| {
                if value.show() == text { Val::Null } else { append(aggregate, "+", value) }
            },
        ),
        "remove_null_on" => Arc::new(
            move |_, value, aggregate| {
                if value.show() == text { Val::Null } else { append(aggregate, "-", value) }
            },
        ),
        "fail_on" => Arc::new(
            move |_, value, aggregate| {
                if value.show() == text { boom(&text) } else { append(aggregate, "+", value) }
            },
        ),
        _ => return Err(call.unknown("aggregator")),
    })
}

/// Current, incoming.
pub(crate) fn reducer(json: &Json) -> Result<Two, Stop> {
    let call = Call::parse(json)?;
    let text = call.text(0);
    let concat =
        |current: &Val, sign: &str, incoming: &Val| Val::text(format!("{}{sign}{}", current.show(), incoming.show()));
    Ok(match call.name.as_str() {
        "concat" => Arc::new(move |current, incoming| concat(current, "+", incoming)),
        "remove" => Arc::new(move |current, incoming| concat(current, "-", incoming)),
        "sum" => Arc::new(|current, incoming| Val::Long(current.number() + incoming.number())),
        "subtract" => Arc::new(|current, incoming| Val::Long(current.number() - incoming.number())),
        "max" => Arc::new(|current, incoming| extreme(current, incoming, i64::max)),
        "min" => Arc::new(|current, incoming| extreme(current, incoming, i64::min)),
        "last" => Arc::new(|_, incoming| incoming.clone()),
        "first" => Arc::new(|current, _| current.clone()),
        "null" => Arc::new(|_, _| Val::Null),
        "null_on" => Arc::new(
            move |current, incoming| {
                if incoming.show() == text { Val::Null } else { concat(current, "+", incoming) }
            },
        ),
        _ => return Err(call.unknown("reducer")),
    })
}

/// Of two sessions: what has been merged, and the next one.
pub(crate) fn merger(json: &Json) -> Result<Two, Stop> {
    let call = Call::parse(json)?;
    Ok(match call.name.as_str() {
        "concat" => Arc::new(|one, other| Val::text(format!("({}&{})", one.show(), other.show()))),
        "sum" => Arc::new(|one, other| Val::Long(one.number() + other.number())),
        "left" => Arc::new(|one, _| one.clone()),
        "right" => Arc::new(|_, other| other.clone()),
        "null" => Arc::new(|_, _| Val::Null),
        _ => return Err(call.unknown("merger")),
    })
}

/// The extractor of a source.
pub(crate) fn extractor(json: &Json) -> Result<TimestampExtractor<Val, Val>, Stop> {
    let call = Call::parse(json)?;
    let number = call.number(0);
    Ok(match call.name.as_str() {
        "fail_on_invalid" => TimestampExtractor::fail_on_invalid(),
        "log_and_skip_on_invalid" => TimestampExtractor::log_and_skip_on_invalid(),
        "use_partition_time_on_invalid" => TimestampExtractor::use_partition_time_on_invalid(),
        "const" => TimestampExtractor::of(move |_| number),
        "value_prefix" => TimestampExtractor::of(|incoming| match incoming.value {
            Val::Null => -1,
            value => Val::text(value.show().split(':').next().unwrap_or_default()).number(),
        }),
        "plus" => TimestampExtractor::of(move |incoming| incoming.timestamp + number),
        "partition_time" => TimestampExtractor::of(|incoming| incoming.partition_time),
        "throw" => TimestampExtractor::of(|_| boom("extractor")),
        _ => return Err(call.unknown("timestamp extractor")),
    })
}

pub(crate) fn partitioner(json: &Json) -> Result<Partitioner, Stop> {
    let call = Call::parse(json)?;
    let (number, text) = (call.number(0), call.text(0));
    Ok(match call.name.as_str() {
        "const" => Arc::new(move |_, _, _, _| Some(vec![number as i32])),
        "none" => Arc::new(|_, _, _, _| Some(Vec::new())),
        "default" => Arc::new(|_, _, _, _| None),
        "all" => Arc::new(|_, _, _, partitions| Some((0..partitions).collect())),
        "drop_value" => Arc::new(move |_, _, value, _| Some(if value.show() == text { vec![] } else { vec![0] })),
        _ => return Err(call.unknown("partitioner")),
    })
}

pub(crate) fn topic_function<K: Key>(json: &Json) -> Result<TopicNameExtractor<K, Val>, Stop> {
    let call = Call::parse(json)?;
    let header = call.text(0);
    type Choose<K> = Box<dyn Fn(&Outgoing<'_, K, Val>) -> String + Send + Sync>;
    let choose: Choose<K> = match call.name.as_str() {
        "by_value" => Box::new(|record| match record.value {
            Val::Null => "out-null".to_owned(),
            value => format!("out-{}", value.show().chars().take(1).collect::<String>()),
        }),
        "by_key" => Box::new(|record| format!("out-{}", record.key.val().show())),
        "by_source" => Box::new(|record| {
            let topic = record.metadata.map_or("none", |metadata| metadata.topic);
            format!("{topic}-copy")
        }),
        "by_header" => Box::new(move |record| match record.headers.last(&header).flatten() {
            Some(value) => format!("out-{}", String::from_utf8_lossy(value)),
            None => "out-none".to_owned(),
        }),
        "by_timestamp_parity" => {
            Box::new(|record| if record.timestamp % 2 == 0 { "out-even" } else { "out-odd" }.to_owned())
        }
        _ => return Err(call.unknown("topic function")),
    };
    Ok(TopicNameExtractor::new(&call.name, move |record| choose(record)))
}

fn before_bar(value: &Val) -> Val {
    if value.is_null() {
        return Val::Null;
    }
    let text = value.show();
    let before = text.split('|').next().unwrap_or_default();
    if before.is_empty() { Val::Null } else { Val::text(before) }
}

fn after_bar(value: &Val) -> Val {
    if value.is_null() {
        return Val::Null;
    }
    let text = value.show();
    text.split_once('|').map_or(Val::Null, |(_, after)| Val::text(after))
}

fn first_word(value: &Val) -> Val {
    if value.is_null() {
        return Val::Null;
    }
    Val::text(value.show().split(' ').next().unwrap_or_default())
}

fn words(value: &Val) -> impl Iterator<Item = String> {
    let text = if value.is_null() { String::new() } else { value.show() };
    text.split_whitespace().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

fn repeat(value: &Val, times: i64) -> impl Iterator<Item = Val> {
    let text = value.show();
    (0..times).map(move |n| Val::text(format!("{text}#{n}")))
}

/// A null takes the other one.
fn extreme(current: &Val, incoming: &Val, choose: fn(i64, i64) -> i64) -> Val {
    if current.is_null() {
        return incoming.clone();
    }
    Val::Long(choose(current.number(), incoming.number()))
}

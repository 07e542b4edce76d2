//! Formats of joins of tables.

use kstreams::{Wire, WireSubscription};
use serde_json::Value as Json;

use crate::value::{hex, unhex};

pub(crate) const LISTS: &[&str] = &["murmur3_128", "subscription_wrapper", "subscription_response", "combined_key"];

const INSTRUCTIONS: [&str; 4] = [
    "DELETE_KEY_NO_PROPAGATE",
    "DELETE_KEY_AND_PROPAGATE",
    "PROPAGATE_NULL_IF_NO_FK_VAL_AVAILABLE",
    "PROPAGATE_ONLY_IF_FK_VAL_AVAILABLE",
];

pub(crate) fn check(list: &str, entry: &Json, mut same: impl FnMut(&str, &str, &str)) {
    let text = |field: &str| entry[field].as_str().unwrap_or_default();
    let hash = entry["hash"].as_str().map(unhex);
    let expected = text("bytes");
    match list {
        "murmur3_128" => same("hash", text("hash"), &hex(&Wire::murmur3_128(&unhex(expected)))),
        "combined_key" => {
            let key = Wire::combined_key(text("foreign_key").as_bytes(), text("primary_key").as_bytes());
            same("bytes", expected, &hex(&key.unwrap()));
        }
        "subscription_wrapper" => {
            let instruction = INSTRUCTIONS.iter().position(|name| *name == text("instruction"));
            let subscription = WireSubscription {
                hash,
                instruction: instruction.unwrap() as u8,
                primary_key: text("primary_key").into(),
                primary_partition: entry["primary_partition"].as_i64().map(|partition| partition as i32),
            };
            same("bytes", expected, &hex(&Wire::subscription(&subscription).unwrap()));
            let read = Wire::read_subscription(&unhex(expected)).unwrap();
            same("read", &format!("{subscription:?}"), &format!("{read:?}"));
        }
        _ => {
            let value = entry["foreign_value"].as_str().map(|value| value.as_bytes().to_vec());
            same("bytes", expected, &hex(&Wire::subscription_response(hash.as_deref(), value.as_deref()).unwrap()));
            let read = Wire::read_subscription_response(&unhex(expected)).unwrap();
            // An empty row cannot be told from none.
            let value = value.filter(|value| !value.is_empty());
            same("read", &format!("{:?}", (hash, value)), &format!("{read:?}"));
        }
    }
}

//! Tables whose changes are held back.

use kstreams::{BufferConfig, EmitEarly, ShutDown, Suppressed};
use serde_json::Value as Json;

use crate::build::text;
use crate::dsl::{Builder, Handle, Table};
use crate::key::Key;
use crate::outcome::{Stop, inexpressible, missing};
use crate::windowed::duration;

pub(crate) fn suppress<K: Key>(_: &mut Builder<'_>, input: Table<K>, op: &Json) -> Result<Handle, Stop> {
    let Table { table, codecs } = input;
    let mut suppressed = match (text(op, "until"), text(op, "full")) {
        ("window_closes", "emit_early") => return Err(inexpressible("emitting_a_final_result_early")),
        ("window_closes", _) => K::until_window_closes(strict(op))?,
        ("time_limit", "emit_early") => Suppressed::until_time_limit(duration(&op["ms"])?, early(op)),
        ("time_limit", _) => Suppressed::until_time_limit(duration(&op["ms"])?, strict(op)),
        (other, _) => return Err(missing(format!("suppress until {other}"))),
    };
    if let Some(name) = op["name"].as_str() {
        suppressed = suppressed.with_name(name);
    }
    let table = table.suppress(suppressed.with_value_serde(codecs.1.clone()));
    Ok(K::table(Table { table, codecs }))
}

fn strict(op: &Json) -> BufferConfig<ShutDown> {
    let mut buffer = BufferConfig::unbounded();
    if let Some(records) = op["max_records"].as_u64() {
        buffer = buffer.with_max_records(records as usize);
    }
    if let Some(bytes) = op["max_bytes"].as_u64() {
        buffer = buffer.with_max_bytes(bytes as usize);
    }
    if op["logging"] == Json::Bool(false) { buffer.without_logging() } else { buffer }
}

fn early(op: &Json) -> BufferConfig<EmitEarly> {
    strict(op).emit_early_when_full()
}

//! Joins of streams with streams and with tables.

use kstreams::Joined;
use serde_json::Value as Json;

use crate::build::text;
use crate::dsl::{Builder, Handle, Stream};
use crate::functions;
use crate::outcome::{Stop, missing};
use crate::value::{Codec, Val};

pub(crate) fn stream_join(_: &mut Builder<'_>, _: &Json) -> Result<Handle, Stop> {
    Err(missing("op stream_join"))
}

pub(crate) fn stream_table_join(builder: &mut Builder<'_>, op: &Json) -> Result<Handle, Stop> {
    if op.get("grace").is_some() {
        return Err(missing("grace of a stream-table join"));
    }
    let Stream { stream, .. } = builder.stream_of(text(op, "left"))?;
    let right = builder.table_of(text(op, "right"))?.table;
    let mut joined = Joined::with(Codec::of(&op["key"])?, Codec::of(&op["value"])?);
    if let Some(name) = op["name"].as_str() {
        joined = joined.named(name);
    }
    let joiner = functions::joiner(&op["joiner"])?;
    let stream = match text(op, "type") {
        "inner" => stream.join_with_key(&right, move |key, left, right| joiner(key, &left, &right), joined),
        "left" => stream.left_join_with_key(
            &right,
            move |key, left, right| joiner(key, &left, &right.unwrap_or(Val::Null)),
            joined,
        ),
        other => return Err(missing(format!("{other} stream-table join"))),
    };
    Ok(Handle::Stream(Stream { stream, codecs: (Codec::of(&op["key"])?, Codec::Text) }))
}

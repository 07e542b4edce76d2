//! Windowed aggregations.

use kstreams::KGroupedStream;
use serde_json::Value as Json;

use crate::dsl::{Builder, Codecs, Handle};
use crate::outcome::{Stop, missing};
use crate::value::Val;

#[derive(Clone)]
pub(crate) struct Windows;

pub(crate) fn window(_: &mut Builder<'_>, _: KGroupedStream<Val, Val>, _: Codecs, _: &Json) -> Result<Handle, Stop> {
    Err(missing("op window"))
}

pub(crate) fn aggregate(_: &mut Builder<'_>, _: Windows, _: &Json) -> Result<Handle, Stop> {
    Err(missing("aggregate of windows"))
}

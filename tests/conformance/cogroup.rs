//! Aggregations of several grouped streams into one table.

use serde_json::Value as Json;

use crate::dsl::{Builder, Handle};
use crate::outcome::{Stop, missing};

#[derive(Clone)]
pub(crate) struct Cogrouped;

pub(crate) fn cogroup(_: &mut Builder<'_>, _: &Json) -> Result<Handle, Stop> {
    Err(missing("op cogroup"))
}

pub(crate) fn aggregate(_: &mut Builder<'_>, _: Cogrouped, _: &Json) -> Result<Handle, Stop> {
    Err(missing("aggregate of a cogroup"))
}

//! Global tables and stores.

use serde_json::Value as Json;

use crate::dsl::{Builder, Handle};
use crate::outcome::{Stop, missing};

/// A table that every task has whole.
#[derive(Clone)]
pub(crate) struct GlobalTable;

impl GlobalTable {
    pub(crate) fn queryable_name(&self) -> Option<&str> {
        None
    }
}

pub(crate) fn global_table(_: &mut Builder<'_>, _: &Json) -> Result<Handle, Stop> {
    Err(missing("op global_table"))
}

pub(crate) fn add_global_store(_: &mut Builder<'_>, _: &Json) -> Result<(), Stop> {
    Err(missing("op add_global_store"))
}

pub(crate) fn global_join(_: &mut Builder<'_>, _: &Json) -> Result<Handle, Stop> {
    Err(missing("op global_join"))
}

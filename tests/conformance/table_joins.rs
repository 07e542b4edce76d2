//! Joins of tables, by key and by foreign key.

use serde_json::Value as Json;

use crate::dsl::{Builder, Handle};
use crate::outcome::{Stop, missing};

pub(crate) fn table_join(_: &mut Builder<'_>, _: &Json) -> Result<Handle, Stop> {
    Err(missing("op table_join"))
}

pub(crate) fn fk_join(_: &mut Builder<'_>, _: &Json) -> Result<Handle, Stop> {
    Err(missing("op fk_join"))
}

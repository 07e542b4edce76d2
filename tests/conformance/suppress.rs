//! Tables whose changes are held back.

use serde_json::Value as Json;

use crate::dsl::{Builder, Handle, Table};
use crate::key::Key;
use crate::outcome::{Stop, missing};

pub(crate) fn suppress<K: Key>(_: &mut Builder<'_>, _: Table<K>, _: &Json) -> Result<Handle, Stop> {
    Err(missing("op suppress"))
}

//! Values as queries see them, whatever stands in front of them in a row.

use std::sync::Arc;

use super::row_format::RowFormat;
use super::spec::StoreKind;
use crate::error::{Error, ErrorKind, Result};
use crate::record::ValueAndTimestamp;
use crate::serdes::{DynSerde, Serde};

/// The value alone.
struct ValueOnly<V> {
    format: RowFormat,
    value: DynSerde<V>,
}

/// The value with its time, which every row has.
struct WithTimestamp<V> {
    format: RowFormat,
    value: DynSerde<V>,
}

/// Reads the values of a kind of store without what the library keeps beside them.
pub(crate) fn values<V: 'static>(kind: StoreKind, value: DynSerde<V>) -> DynSerde<V> {
    match kind.row_format() {
        RowFormat::Value => value,
        format @ (RowFormat::Timestamped | RowFormat::HeadersAndTimestamp | RowFormat::Headers) => {
            Arc::new(ValueOnly { format, value })
        }
    }
}

/// Reads values with their times; none: the kind of store has no times.
pub(crate) fn timestamped_values<V: 'static>(
    kind: StoreKind,
    value: DynSerde<V>,
) -> Option<DynSerde<ValueAndTimestamp<V>>> {
    let format = kind.row_format();
    match format {
        RowFormat::Timestamped | RowFormat::HeadersAndTimestamp => Some(Arc::new(WithTimestamp { format, value })),
        RowFormat::Value | RowFormat::Headers => None,
    }
}

impl<V: 'static> Serde for ValueOnly<V> {
    type Item = V;

    fn serialize(&self, _: &V, _: &mut Vec<u8>) -> Result<()> {
        Err(read_only())
    }
    fn deserialize(&self, row: &[u8]) -> Result<V> {
        self.value.deserialize(self.format.split(row)?.value)
    }
}

impl<V: 'static> Serde for WithTimestamp<V> {
    type Item = ValueAndTimestamp<V>;

    fn serialize(&self, _: &ValueAndTimestamp<V>, _: &mut Vec<u8>) -> Result<()> {
        Err(read_only())
    }
    fn deserialize(&self, row: &[u8]) -> Result<ValueAndTimestamp<V>> {
        let row = self.format.split(row)?;
        Ok(ValueAndTimestamp { value: self.value.deserialize(row.value)?, timestamp: row.timestamp.unwrap_or(-1) })
    }
}

#[cold]
fn read_only() -> Error {
    Error::new(ErrorKind::User, "a store that was asked for by a query can only be read")
}

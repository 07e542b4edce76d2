//! Stateful mapping of the rows of a table.

use std::sync::Arc;

use super::ktable::TRANSFORM_VALUES;
use super::{KTable, Materialized, Processed};
use crate::error::Result;
use crate::operators::ValueTransformerWithKey;
use crate::operators::table::{View, ViewMaker};
use crate::operators::table_transform::{TableTransformValues, TransformedView, TransformerMaker};
use crate::topology::ProcessorInit;

impl<K: 'static, V: 'static> KTable<K, V> {
    /// Maps each row with a function that has stores, schedules and the time of the row: see [`ValueTransformerWithKey`] for
    /// an example. Unlike [`map_values`](KTable::map_values) it is called for deleted rows, too.
    ///
    /// `make` runs for every task, again after a failure, and once for each reader of a result without a store: a reader's
    /// transformer has the stores of the reader only.
    pub fn transform_values<T: ValueTransformerWithKey<K, V>>(
        self,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<T> + Send + Sync + 'static,
        processed: Processed,
    ) -> KTable<K, T::ValueOut> {
        self.transform_with(Arc::new(make), processed, None)
    }

    /// The same with a store of its own.
    pub fn transform_values_materialized<T: ValueTransformerWithKey<K, V>>(
        self,
        make: impl Fn(&mut ProcessorInit<'_>) -> Result<T> + Send + Sync + 'static,
        processed: Processed,
        materialized: Materialized<K, T::ValueOut>,
    ) -> KTable<K, T::ValueOut> {
        self.transform_with(Arc::new(make), processed, Some(materialized))
    }

    fn transform_with<T: ValueTransformerWithKey<K, V>>(
        self,
        make: TransformerMaker<T>,
        processed: Processed,
        materialized: Option<Materialized<K, T::ValueOut>>,
    ) -> KTable<K, T::ValueOut> {
        let (parent, for_reader) = (Arc::clone(&self.table.view), Arc::clone(&make));
        let view: ViewMaker<K, T::ValueOut> = Arc::new(move |init| {
            let (parent, transformer) = (parent(init)?, for_reader(init)?);
            let view: Box<dyn View<K, T::ValueOut>> = Box::new(TransformedView { parent, transformer });
            Ok(view)
        });
        self.derive(TRANSFORM_VALUES, materialized, None, processed, view, move |init, rows| {
            let sends_old_values = init.sends_old_values();
            Ok(TableTransformValues { transformer: make(init)?, rows, sends_old_values })
        })
    }
}

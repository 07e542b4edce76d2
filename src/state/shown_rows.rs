//! All of a store at once, for tests that compare what two runs have left.

use std::ops::Bound;

use super::merge::Rows;
use super::task_stores::TaskStores;
use super::versions;
use crate::error::Result;

impl TaskStores {
    /// What reads show of a store, as bytes. A row that may have duplicates comes without the number that keeps it apart
    /// from them: after a restart the numbers are others.
    pub(crate) fn shown_rows(&mut self, index: usize) -> Result<Rows> {
        let mut rows = self.page(index, Bound::Unbounded, Bound::Unbounded, false, usize::MAX)?;
        let Some(store) = self.stores.get(index) else { return Ok(rows) };
        if let Some(history) = &store.history {
            rows.retain(|(key, row)| !versions::has_expired(key, row, history.start()));
        }
        let Some(retention) = &store.retention else { return Ok(rows) };
        rows.retain(|(key, _)| retention.shows(key));
        if store.spec.kind.retains_duplicates() {
            for (key, _) in &mut rows {
                let row = std::mem::take(key);
                if let Some(parts) = retention.keys.decode(&row) {
                    *key = [&parts.time.to_be_bytes(), parts.key].concat();
                }
            }
            rows.sort();
        }
        Ok(rows)
    }
}

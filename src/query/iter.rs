//! Rows of a query, a page at a time.

use std::collections::VecDeque;
use std::fmt;

use super::store::QueryContext;
use super::tasks::LocalTask;
use crate::error::Result;
use crate::state::{Rows, VersionRows, VersionedRecord, WindowRows, WindowValues};
use crate::window::Windowed;

/// Rows that are read in one go: of one moment, and a task that is closed waits for them.
pub(super) const PAGE: usize = 256;

/// The rows that a query has found, partition by partition, each in the order of its store.
///
/// Up to 256 rows at once are of one moment; what is committed meanwhile may be in those that follow. Nothing has to be
/// closed: an iterator that is kept, or forgotten, holds a page and no store open. When a task goes elsewhere before its
/// rows were read, or its copy is older than the query allows, the iterator gives the rows of the page that it has and ends
/// with an error of kind [`Unavailable`](crate::ErrorKind::Unavailable): ask again.
pub struct QueryIter<T> {
    /// What is left, the one that is being read first.
    tasks: VecDeque<(Box<dyn Cursor<T>>, LocalTask)>,
    read: Box<ReadPage<T>>,
    page: std::vec::IntoIter<T>,
}

/// Reads the next rows of a task; fewer than a page: there are no more.
type ReadPage<T> = dyn Fn(&LocalTask, &mut dyn Cursor<T>) -> Result<Vec<T>>;

/// Rows of one store, read while the store is at hand.
pub(super) trait Cursor<T> {
    fn next(&mut self, ctx: &mut QueryContext<'_>) -> Result<Option<T>>;
}

impl<K: 'static, V: 'static> Cursor<(K, V)> for Rows<K, V> {
    fn next(&mut self, ctx: &mut QueryContext<'_>) -> Result<Option<(K, V)>> {
        Rows::next(self, ctx)
    }
}

impl<K: 'static, V: 'static> Cursor<(Windowed<K>, V)> for WindowRows<K, V> {
    fn next(&mut self, ctx: &mut QueryContext<'_>) -> Result<Option<(Windowed<K>, V)>> {
        WindowRows::next(self, ctx)
    }
}

impl<V: 'static> Cursor<VersionedRecord<V>> for VersionRows<V> {
    fn next(&mut self, ctx: &mut QueryContext<'_>) -> Result<Option<VersionedRecord<V>>> {
        VersionRows::next(self, ctx)
    }
}

impl<V: 'static> Cursor<(i64, V)> for WindowValues<V> {
    fn next(&mut self, ctx: &mut QueryContext<'_>) -> Result<Option<(i64, V)>> {
        WindowValues::next(self, ctx)
    }
}

impl<T> QueryIter<T> {
    pub(super) fn new(tasks: Vec<(Box<dyn Cursor<T>>, LocalTask)>, read: Box<ReadPage<T>>) -> QueryIter<T> {
        QueryIter { tasks: tasks.into(), read, page: Vec::new().into_iter() }
    }

    /// Rows that were read.
    pub(super) fn of(rows: Vec<T>) -> QueryIter<T> {
        QueryIter { tasks: VecDeque::new(), read: Box::new(|_, _| Ok(Vec::new())), page: rows.into_iter() }
    }
}

impl<T> Iterator for QueryIter<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(row) = self.page.next() {
                return Some(Ok(row));
            }
            let (cursor, task) = self.tasks.front_mut()?;
            match (self.read)(task, &mut **cursor) {
                Ok(page) => {
                    if page.len() < PAGE {
                        self.tasks.pop_front();
                    }
                    self.page = page.into_iter();
                }
                Err(error) => {
                    self.tasks.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

impl<T> fmt::Debug for QueryIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryIter").field("tasks", &self.tasks.len()).finish_non_exhaustive()
    }
}

//! Splits a stream.

use std::sync::Arc;

use super::Predicate;
use crate::error::Result;
use crate::record::Record;
use crate::topology::{Processor, ProcessorContext};

/// Sends a record to the branch of the first predicate that holds; a default branch is a predicate that always does.
pub(crate) struct Split<K, V> {
    pub predicates: Arc<[Predicate<K, V>]>,
}

impl<K: 'static, V: 'static> Processor<K, V> for Split<K, V> {
    type KeyOut = K;
    type ValueOut = V;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, V>) -> Result<()> {
        match self.predicates.iter().position(|holds| holds(&record.key, &record.value)) {
            Some(branch) => ctx.forward_to_nth(branch, record),
            None => Ok(()), // Java does not count it as dropped
        }
    }
}

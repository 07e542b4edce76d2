//! Which records of an answer are of transactions that were aborted.

/// The aborted transactions that an answer overlaps, as the broker tells them with it.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    /// First offset and producer, the first transaction last.
    ahead: Vec<(i64, i64)>,
    /// Producers whose transaction has begun and not ended.
    open: Vec<i64>,
}

impl Aborted {
    /// Of first offsets and producers in any order.
    pub(super) fn new(mut transactions: Vec<(i64, i64)>) -> Aborted {
        transactions.sort_unstable_by(|a, b| b.cmp(a));
        Aborted { ahead: transactions, open: Vec::new() }
    }

    /// Goes on to a batch with this last offset.
    pub(super) fn advance(&mut self, last_offset: i64) {
        while let Some((_, producer)) = self.ahead.pop_if(|(first, _)| *first <= last_offset) {
            if !self.open.contains(&producer) {
                self.open.push(producer);
            }
        }
    }

    pub(super) fn has(&self, producer: i64) -> bool {
        self.open.contains(&producer)
    }

    /// An abort marker was met.
    pub(super) fn ended(&mut self, producer: i64) {
        self.open.retain(|open| *open != producer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_is_aborted_from_its_first_offset_to_its_marker() {
        let mut aborted = Aborted::new(vec![(7, 1), (3, 1), (5, 2)]);
        aborted.advance(2);
        assert!(!aborted.has(1));
        aborted.advance(5);
        assert!(aborted.has(1) && aborted.has(2));
        aborted.ended(1);
        assert!(!aborted.has(1) && aborted.has(2));
        aborted.advance(9);
        assert!(aborted.has(1), "of its second transaction");
    }
}

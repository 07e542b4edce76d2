//! Windows by number: so many records of a key, one after the other.

use std::fmt;

/// Windows of so many records of one key, in the order in which they arrive in their partition; times have no part in it.
/// Not in Kafka Streams.
///
/// The records of a key are numbered from 0. Tumbling windows follow each other: of `tumbling(3)`, the records 0 to 2 are
/// one, 3 to 5 the next. Hopping windows begin each `advance` records, so a record is in several:
/// of `hopping(3, 1)`, record 2 is in those that begin with 0, 1 and 2. `build` refuses a size or an advance of zero, and
/// an advance that is larger than the size.
///
/// ```
/// use kstreams::*;
///
/// // The mean of each three readings of a sensor.
/// let builder = StreamsBuilder::new();
/// builder
///     .stream("readings", Consumed::with(Utf8, F64))
///     .group_by_key(Grouped::with(Utf8, F64))
///     .windowed_by(CountWindows::tumbling(3))
///     .emit_strategy(EmitStrategy::OnWindowClose)
///     .reduce(|sum, reading| sum + reading, Materialized::named("sums"))
///     .map_values(|sum| sum / 3.0)
///     .to_stream()
///     .to("means", Produced::with(CountedSerde::new(Utf8, 3), F64));
///
/// let mut driver = TopologyTestDriver::new(&builder.build()?)?;
/// let readings = driver.create_input_topic("readings", Utf8, F64);
/// for (time, reading) in [(0, 1.0), (10, 2.0), (20, 6.0), (30, 9.0)] {
///     readings.pipe_at(&mut driver, "kitchen", reading, time)?;
/// }
/// let means = driver.create_output_topic("means", CountedSerde::new(Utf8, 3), F64).read_key_values(&mut driver)?;
/// assert_eq!(means, [(Counted { key: "kitchen".to_owned(), first: 0, size: 3 }, 3.0)]);
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountWindows {
    size: i64,
    advance: i64,
}

impl CountWindows {
    /// Windows of `size` records, one behind the other.
    pub fn tumbling(size: u64) -> CountWindows {
        CountWindows::hopping(size, size)
    }

    /// Windows of `size` records, of which one begins with each `advance` records: above zero, and at most the size. For
    /// each key, up to `size / advance` of them, rounded up, are open and stored.
    pub fn hopping(size: u64, advance: u64) -> CountWindows {
        let number = |records| i64::try_from(records).unwrap_or(i64::MAX);
        CountWindows { size: number(size), advance: number(advance) }
    }

    pub(crate) fn size(&self) -> i64 {
        self.size
    }

    /// The first records of the windows that a record is in, the earliest first.
    pub(crate) fn firsts(&self, number: i64) -> impl Iterator<Item = i64> + use<> {
        let CountWindows { size, advance } = *self;
        let advance = advance.max(1);
        // Not by division of the difference alone: the sum can be beyond the last number.
        let reach = number.saturating_sub(size).saturating_add(advance).max(0);
        let first = reach / advance * advance;
        std::iter::successors(Some(first), move |first| first.checked_add(advance))
            .take_while(move |first| *first <= number)
    }

    /// Whether a record is the last of the window that begins with another.
    pub(crate) fn is_last(&self, number: i64, first: i64) -> bool {
        number - first >= self.size - 1
    }

    /// A sentence for `build` where the numbers make no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        let CountWindows { size, advance } = *self;
        if size <= 0 {
            return Err("count windows have a size of zero: take at least one record".to_owned());
        }
        if size == i64::MAX {
            return Err(format!("count windows are too large: take less than {size} records"));
        }
        if advance <= 0 || advance > size {
            return Err(format!(
                "count windows of {size} records advance by {advance}: let them advance by more than zero and at most their \
                 size"
            ));
        }
        Ok(())
    }
}

/// A key together with a window by number: what the rows of tables over [`CountWindows`] are found by.
///
/// ```
/// use kstreams::Counted;
///
/// let readings = Counted { key: "kitchen", first: 30, size: 10 };
/// assert_eq!(readings.to_string(), "[kitchen#30+10]");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counted<K> {
    /// The key of the records.
    pub key: K,
    /// The number of the first record; the first of a key is 0.
    pub first: i64,
    /// How many records the window holds when it is full.
    pub size: i64,
}

impl<K: fmt::Display> fmt::Display for Counted<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}#{}+{}]", self.key, self.first, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_that_contains_a_record_is_named_once() {
        for (size, advance) in [(1, 1), (10, 10), (10, 3), (10, 1), (7, 5)] {
            let windows = CountWindows::hopping(size, advance);
            let (size, advance) = (i64::try_from(size).unwrap(), i64::try_from(advance).unwrap());
            for number in 0..60 {
                let named: Vec<_> = windows.firsts(number).collect();
                let firsts = (0..=60).map(|n| n * advance);
                let containing: Vec<_> = firsts.filter(|first| *first <= number && number < first + size).collect();
                assert_eq!(named, containing, "size {size}, advance {advance}, number {number}");
                assert!(i64::try_from(named.len()).unwrap() <= (size + advance - 1) / advance);
            }
        }
    }

    #[test]
    fn sizes_without_sense_are_told() {
        assert!(CountWindows::tumbling(1).check().is_ok());
        for (size, advance, part) in [(0, 0, "size of zero"), (10, 0, "advance by 0"), (10, 11, "advance by 11")] {
            assert!(CountWindows::hopping(size, advance).check().unwrap_err().contains(part));
        }
        assert!(CountWindows::tumbling(u64::MAX).check().unwrap_err().contains("too large"));
    }
}

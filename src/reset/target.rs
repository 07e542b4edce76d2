//! Where inputs are read from after a reset.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::{Admin, Watermarks};
use crate::error::{Error, Result};
use crate::record::TopicPartition;

/// Where an [`ApplicationReset`](crate::ApplicationReset) sets the offsets of inputs. An offset before the log or behind its end
/// becomes the one or the other.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// The first record that is there (`--to-earliest`).
    Earliest,
    /// Behind the last record (`--to-latest`).
    Latest,
    /// This offset, in every partition (`--to-offset`).
    Offset(i64),
    /// The first record of this time or a later one, in milliseconds since the epoch (`--to-datetime`); behind the last
    /// record where there is none.
    Timestamp(i64),
    /// As `Timestamp`, so long before now (`--by-duration`).
    Ago(Duration),
    /// So many records on from the committed offset, or back (`--shift-by`). Where none is committed it counts from the
    /// earliest one.
    ShiftBy(i64),
    /// An offset for each partition (`--from-file`). Every partition of an input has to be named.
    Offsets(Vec<(TopicPartition, i64)>),
}

impl ResetTo {
    /// The offsets asked for, in the order of the partitions, wherever the logs begin and end.
    pub(super) fn offsets(
        &self,
        admin: &mut dyn Admin,
        partitions: &[TopicPartition],
        marks: &[Watermarks],
        committed: &BTreeMap<TopicPartition, i64>,
    ) -> Result<Vec<i64>> {
        let of_each = |offset: &dyn Fn(&TopicPartition, &Watermarks) -> i64| {
            partitions.iter().zip(marks).map(|(partition, marks)| offset(partition, marks)).collect()
        };
        Ok(match self {
            ResetTo::Earliest => of_each(&|_, marks| marks.start),
            ResetTo::Latest => of_each(&|_, marks| marks.end),
            ResetTo::Offset(offset) => of_each(&|_, _| *offset),
            ResetTo::ShiftBy(by) => of_each(&|partition, marks| {
                committed.get(partition).copied().unwrap_or(marks.start).saturating_add(*by)
            }),
            ResetTo::Timestamp(time) => admin.offsets_for_time(partitions, *time)?,
            ResetTo::Ago(ago) => {
                let ago_ms = i64::try_from(ago.as_millis()).unwrap_or(i64::MAX);
                admin.offsets_for_time(partitions, now_ms().saturating_sub(ago_ms).max(0))?
            }
            ResetTo::Offsets(named) => named_offsets(named, partitions)?,
        })
    }
}

fn named_offsets(named: &[(TopicPartition, i64)], partitions: &[TopicPartition]) -> Result<Vec<i64>> {
    let mut left: BTreeMap<&TopicPartition, i64> =
        named.iter().map(|(partition, offset)| (partition, *offset)).collect();
    if left.len() < named.len() {
        return Err(Error::invalid("could not set the offsets: a partition is named twice"));
    }
    let offset = |partition| {
        let missing = || Error::invalid(format!("could not set the offsets: {partition} is missing, name it as well"));
        left.remove(partition).ok_or_else(missing)
    };
    let offsets = partitions.iter().map(offset).collect::<Result<Vec<_>>>()?;
    match left.keys().next() {
        Some(other) => {
            Err(Error::invalid(format!("could not set the offsets: {other} is not of an input, or not there")))
        }
        None => Ok(offsets),
    }
}

#[expect(clippy::disallowed_methods, reason = "a reset counts back from now, as its user does")]
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_by_name_are_complete_and_of_inputs_only() {
        let partition = |number| TopicPartition::new("t", number);
        let named =
            |numbers: &[i32]| -> Vec<_> { numbers.iter().map(|n| (partition(*n), i64::from(*n) * 10)).collect() };
        let inputs = [partition(1), partition(0)];
        assert_eq!(named_offsets(&named(&[0, 1]), &inputs).unwrap(), [10, 0]);
        for (numbers, says) in [(&[0][..], "t[1] is missing"), (&[0, 1, 2], "t[2] is not"), (&[0, 1, 1], "twice")] {
            let error = named_offsets(&named(numbers), &inputs).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

//! Tasks as few bytes: partitions of one sub-topology lie close together, so what is written is the gaps.

use super::bytes::{Reader, put_short_count, put_varint};
use crate::error::Result;
use crate::topology::TaskId;

/// How many records the state of a task lacks; none: there is state, but nobody knows how old it is.
pub(crate) type Lag = Option<u64>;

/// ```text
///   sub-topologies { gap, partitions { gap, lag + 1 (0: not known), in a list with lags }* }*
///
///   gap   of the first: the number itself; afterwards: the distance to the one before, less one
/// ```
///
/// All numbers are varints: a task of a hundred members is one byte, its lag one to three. Written in order and once each,
/// whatever the order given.
pub(super) fn put_tasks(tasks: &[TaskId], out: &mut Vec<u8>) {
    let mut tasks = tasks.to_vec();
    tasks.sort_unstable();
    tasks.dedup();
    put(&tasks, |task| *task, out, |_, _| {});
}

/// Lags, one for each task. Of several for one task the first counts.
pub(super) fn put_lags(lags: &[(TaskId, Lag)], out: &mut Vec<u8>) {
    let mut lags = lags.to_vec();
    lags.sort_by_key(|(task, _)| *task);
    lags.dedup_by_key(|(task, _)| *task);
    put(
        &lags,
        |(task, _)| *task,
        out,
        |(_, lag), out| {
            put_varint(lag.map_or(0, |lag| lag.saturating_add(1)), out);
        },
    );
}

fn put<T>(sorted: &[T], task: impl Fn(&T) -> TaskId, out: &mut Vec<u8>, then: impl Fn(&T, &mut Vec<u8>)) {
    let groups = || sorted.chunk_by(|a, b| task(a).sub_topology == task(b).sub_topology);
    put_short_count(groups().count(), out);
    let mut next = 0;
    for group in groups() {
        let Some(sub_topology) = group.first().map(|first| task(first).sub_topology) else { continue };
        put_varint((sub_topology - next) as u64, out);
        next = sub_topology + 1;
        put_short_count(group.len(), out);
        let mut next = 0;
        for entry in group {
            // Never negative: a partition has no such number.
            let partition = u64::try_from(task(entry).partition).unwrap_or_default();
            put_varint(partition.saturating_sub(next), out);
            next = partition + 1;
            then(entry, out);
        }
    }
}

pub(super) fn tasks(reader: &mut Reader<'_>) -> Result<Vec<TaskId>> {
    read(reader, |task, _| Ok(task))
}

pub(super) fn lags(reader: &mut Reader<'_>) -> Result<Vec<(TaskId, Lag)>> {
    read(reader, |task, reader| Ok((task, reader.varint()?.checked_sub(1))))
}

fn read<T>(reader: &mut Reader<'_>, entry: impl Fn(TaskId, &mut Reader<'_>) -> Result<T>) -> Result<Vec<T>> {
    let mut entries = Vec::new();
    let mut next = 0_u32;
    for _ in 0..reader.short_count()? {
        let sub_topology = gap(reader, &mut next)?;
        let mut next = 0_u32;
        for _ in 0..reader.short_count()? {
            let partition = gap(reader, &mut next)?;
            let partition = i32::try_from(partition).map_err(|_| reader.broken("it has a partition out of bounds"))?;
            entries.push(entry(TaskId { sub_topology: sub_topology as usize, partition }, reader)?);
        }
    }
    Ok(entries)
}

fn gap(reader: &mut Reader<'_>, next: &mut u32) -> Result<u32> {
    let gap = u32::try_from(reader.varint()?).ok();
    let number = gap.and_then(|gap| next.checked_add(gap)).filter(|number| *number < u32::MAX);
    let number = number.ok_or_else(|| reader.broken("it has a task out of bounds"))?;
    *next = number + 1;
    Ok(number)
}

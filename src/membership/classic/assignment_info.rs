//! What the leader of a group tells a member: its tasks, and who has which partition.

use std::collections::BTreeMap;

use super::bytes::{Reader, put_count, put_task, put_utf};
use super::subscription_info::known;
use crate::error::Result;
use crate::record::TopicPartition;
use crate::topology::TaskId;

/// The partitions of each host, by name and port.
pub(crate) type HostPartitions = BTreeMap<(String, i32), Vec<TopicPartition>>;

/// Java's `AssignmentInfo`.
///
/// ```text
///   version 4 | commonly supported version 4
///   active { task }* | standby { task, { topic utf, partition 4 }* }*
///   topics { index 4, topic utf }*
///   twice, of active and of standby tasks: { host utf, port 4, { index 4, partition 4 }* }*
///   error 4 | v7+: next rebalance 8
///
///   task  sub-topology 4, partition 4, v10+: length 4 of a name in UTF-16, 0
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AssignmentInfo {
    pub version: i32,
    pub commonly_supported_version: i32,
    pub active: Vec<TaskId>,
    pub standby: BTreeMap<TaskId, Vec<TopicPartition>>,
    pub active_by_host: HostPartitions,
    pub standby_by_host: HostPartitions,
    pub error_code: i32,
    /// When the member is to join again, in milliseconds since the epoch; `i64::MAX`: never.
    pub next_rebalance_ms: i64,
}

impl AssignmentInfo {
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend_from_slice(&known(self.version)?.to_be_bytes());
        out.extend_from_slice(&self.commonly_supported_version.to_be_bytes());
        put_count(self.active.len(), &mut out)?;
        self.active.iter().try_for_each(|task| self.put_task(*task, &mut out))?;
        put_count(self.standby.len(), &mut out)?;
        for (task, partitions) in &self.standby {
            self.put_task(*task, &mut out)?;
            put_count(partitions.len(), &mut out)?;
            for partition in partitions {
                put_utf(&partition.topic, &mut out)?;
                out.extend_from_slice(&partition.partition.to_be_bytes());
            }
        }
        let hosts = [&self.active_by_host, &self.standby_by_host];
        let mut topics: Vec<&str> = Vec::new();
        for partition in hosts.iter().flat_map(|hosts| hosts.values()).flatten() {
            if !topics.contains(&&*partition.topic) {
                topics.push(&partition.topic);
            }
        }
        put_count(topics.len(), &mut out)?;
        for (index, topic) in topics.iter().enumerate() {
            put_count(index, &mut out)?;
            put_utf(topic, &mut out)?;
        }
        for hosts in hosts {
            put_count(hosts.len(), &mut out)?;
            for ((host, port), partitions) in hosts {
                put_utf(host, &mut out)?;
                out.extend_from_slice(&port.to_be_bytes());
                put_count(partitions.len(), &mut out)?;
                for partition in partitions {
                    let index = topics.iter().position(|topic| **topic == *partition.topic).unwrap_or_default();
                    put_count(index, &mut out)?;
                    out.extend_from_slice(&partition.partition.to_be_bytes());
                }
            }
        }
        out.extend_from_slice(&self.error_code.to_be_bytes());
        if self.version >= 7 {
            out.extend_from_slice(&self.next_rebalance_ms.to_be_bytes());
        }
        Ok(out)
    }

    fn put_task(&self, task: TaskId, out: &mut Vec<u8>) -> Result<()> {
        put_task(task, out)?;
        if self.version >= 10 {
            out.extend_from_slice(&[0; 4]); // no named topology
        }
        Ok(())
    }

    /// # Errors
    /// `Corrupted` for bytes that are no such thing, `Invalid` for another version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<AssignmentInfo> {
        let mut reader = Reader::new(bytes, "the assignment of a member");
        let version = known(reader.i32()?)?;
        let commonly_supported_version = reader.i32()?;
        let mut active = Vec::new();
        for _ in 0..reader.count()? {
            active.push(task(&mut reader, version)?);
        }
        let mut standby = BTreeMap::new();
        for _ in 0..reader.count()? {
            let task = task(&mut reader, version)?;
            let mut partitions = Vec::new();
            for _ in 0..reader.count()? {
                let topic = reader.utf()?;
                partitions.push(TopicPartition::new(topic, reader.i32()?));
            }
            standby.insert(task, partitions);
        }
        let mut topics: BTreeMap<i32, &str> = BTreeMap::new();
        for _ in 0..reader.count()? {
            let index = reader.i32()?;
            topics.insert(index, reader.utf()?);
        }
        let active_by_host = hosts(&mut reader, &topics)?;
        let standby_by_host = hosts(&mut reader, &topics)?;
        let error_code = reader.i32()?;
        let next_rebalance_ms = if version >= 7 { reader.i64()? } else { i64::MAX };
        Ok(AssignmentInfo {
            version,
            commonly_supported_version,
            active,
            standby,
            active_by_host,
            standby_by_host,
            error_code,
            next_rebalance_ms,
        })
    }
}

fn task(reader: &mut Reader<'_>, version: i32) -> Result<TaskId> {
    let task = reader.task()?;
    if version >= 10 {
        // The name of a named topology; there are none here.
        let characters = reader.count()?;
        reader.slice(2 * characters)?;
    }
    Ok(task)
}

fn hosts(reader: &mut Reader<'_>, topics: &BTreeMap<i32, &str>) -> Result<HostPartitions> {
    let mut hosts = HostPartitions::new();
    for _ in 0..reader.count()? {
        let host = reader.utf()?.to_owned();
        let port = reader.i32()?;
        let mut partitions = Vec::new();
        for _ in 0..reader.count()? {
            let index = reader.i32()?;
            let topic = topics.get(&index).ok_or_else(|| reader.broken("it names a topic that it does not list"))?;
            partitions.push(TopicPartition::new(*topic, reader.i32()?));
        }
        hosts.insert((host, port), partitions);
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::super::VERSIONS;
    use super::*;

    fn info(version: i32) -> AssignmentInfo {
        let task = |sub_topology, partition| TaskId { sub_topology, partition };
        let at = |topic: &str, partition| TopicPartition::new(topic, partition);
        AssignmentInfo {
            version,
            commonly_supported_version: 11,
            active: vec![task(0, 1), task(2, 0)],
            standby: BTreeMap::from([(task(1, 0), vec![at("x", 0), at("y", 3)])]),
            active_by_host: BTreeMap::from([(("h".to_owned(), 80), vec![at("in", 1), at("other", 0)])]),
            standby_by_host: BTreeMap::from([(("i".to_owned(), 81), vec![at("in", 2)])]),
            error_code: 4,
            next_rebalance_ms: if version >= 7 { 5_000 } else { i64::MAX },
        }
    }

    #[test]
    fn what_was_written_is_read() {
        for version in VERSIONS {
            assert_eq!(AssignmentInfo::decode(&info(version).encode().unwrap()).unwrap(), info(version));
        }
        assert!(AssignmentInfo { version: 5, ..info(11) }.encode().is_err());
    }

    #[test]
    fn bytes_that_are_cut_off_or_changed_are_refused_or_read_without_a_panic() {
        for version in VERSIONS {
            let bytes = info(version).encode().unwrap();
            assert!((0..bytes.len()).all(|end| AssignmentInfo::decode(&bytes[..end]).is_err()));
            for at in 0..bytes.len() {
                for change in [0xff, 0x80, 0x7f, 0x01] {
                    let mut changed = bytes.clone();
                    changed[at] ^= change;
                    let _ = AssignmentInfo::decode(&changed);
                }
            }
        }
    }
}

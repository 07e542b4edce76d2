//! What a member tells the leader of its group: which tasks it has state of.

use std::collections::BTreeMap;

use super::VERSIONS;
use super::bytes::{Reader, put_count, put_task};
use crate::error::{Error, Result};
use crate::topology::TaskId;

/// Java's `SubscriptionInfo`.
///
/// ```text
///   version 4 | latest version 4 | process 16
///   v6:    active { task 8 }* | standby { task 8 }*
///   endpoint { length 4, text }
///   v7-9:  { sub-topology 4, { partition 4, offset sum 8 }* }*
///   v10+:  { sub-topology 4, partition 4, offset sum 8, name length 2 = -1 }*
///   v8+:   unique 1     v9+: error 4     v11: tags { key, value, each with length 4 }*
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriptionInfo {
    pub version: i32,
    pub latest_version: i32,
    pub process_id: [u8; 16],
    /// `host:port` of interactive queries.
    pub endpoint: Option<String>,
    /// How far the state of each task is; [`RUNNING`](SubscriptionInfo::RUNNING) and
    /// [`UNKNOWN`](SubscriptionInfo::UNKNOWN) are no sums.
    pub offset_sums: BTreeMap<TaskId, i64>,
    /// Makes two subscriptions of one member differ.
    pub unique: i8,
    pub error_code: i32,
    pub tags: BTreeMap<String, String>,
}

impl SubscriptionInfo {
    /// The task runs here.
    pub(crate) const RUNNING: i64 = -2;
    /// There is state, but nobody knows how much.
    pub(crate) const UNKNOWN: i64 = -3;

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.extend_from_slice(&known(self.version)?.to_be_bytes());
        out.extend_from_slice(&self.latest_version.to_be_bytes());
        out.extend_from_slice(&self.process_id);
        if self.version < 7 {
            let (active, standby): (Vec<_>, Vec<_>) =
                self.offset_sums.iter().partition(|(_, sum)| **sum == SubscriptionInfo::RUNNING);
            for tasks in [active, standby] {
                put_count(tasks.len(), &mut out)?;
                tasks.into_iter().try_for_each(|(task, _)| put_task(*task, &mut out))?;
            }
        }
        put_text(self.endpoint.as_deref().unwrap_or_default(), &mut out)?;
        match self.version {
            ..7 => {}
            7..10 => self.encode_grouped(&mut out)?,
            _ => {
                put_count(self.offset_sums.len(), &mut out)?;
                for (task, sum) in &self.offset_sums {
                    put_task(*task, &mut out)?;
                    out.extend_from_slice(&sum.to_be_bytes());
                    out.extend_from_slice(&(-1_i16).to_be_bytes()); // no named topology
                }
            }
        }
        if self.version >= 8 {
            out.extend_from_slice(&self.unique.to_be_bytes());
        }
        if self.version >= 9 {
            out.extend_from_slice(&self.error_code.to_be_bytes());
        }
        if self.version >= 11 {
            put_count(self.tags.len(), &mut out)?;
            for text in self.tags.iter().flat_map(|(key, value)| [key, value]) {
                put_text(text, &mut out)?;
            }
        }
        Ok(out)
    }

    fn encode_grouped(&self, out: &mut Vec<u8>) -> Result<()> {
        let mut groups: BTreeMap<usize, Vec<(i32, i64)>> = BTreeMap::new();
        for (task, sum) in &self.offset_sums {
            groups.entry(task.sub_topology).or_default().push((task.partition, *sum));
        }
        put_count(groups.len(), out)?;
        for (sub_topology, sums) in groups {
            put_count(sub_topology, out)?;
            put_count(sums.len(), out)?;
            for (partition, sum) in sums {
                out.extend_from_slice(&partition.to_be_bytes());
                out.extend_from_slice(&sum.to_be_bytes());
            }
        }
        Ok(())
    }

    /// # Errors
    /// `Corrupted` for bytes that are no such thing, `Invalid` for another version.
    pub(crate) fn decode(bytes: &[u8]) -> Result<SubscriptionInfo> {
        let mut reader = Reader::new(bytes, "the subscription of a member");
        let version = known(reader.i32()?)?;
        let (latest_version, process_id) = (reader.i32()?, reader.array()?);
        let mut offset_sums = BTreeMap::new();
        if version < 7 {
            for sum in [SubscriptionInfo::RUNNING, SubscriptionInfo::UNKNOWN] {
                for _ in 0..reader.count()? {
                    offset_sums.insert(reader.task()?, sum);
                }
            }
        }
        let endpoint = Some(text(&mut reader)?).filter(|endpoint| !endpoint.is_empty());
        match version {
            ..7 => {}
            7..10 => {
                for _ in 0..reader.count()? {
                    let number = reader.i32()?;
                    let sub_topology =
                        usize::try_from(number).map_err(|_| reader.broken("it has a negative sub-topology"))?;
                    for _ in 0..reader.count()? {
                        let partition = reader.i32()?;
                        offset_sums.insert(TaskId { sub_topology, partition }, reader.i64()?);
                    }
                }
            }
            _ => {
                for _ in 0..reader.count()? {
                    let (task, sum) = (reader.task()?, reader.i64()?);
                    // A named topology has tasks of its own; there are none here.
                    let name = reader.i16()?;
                    reader.slice(usize::try_from(name).unwrap_or(0))?;
                    offset_sums.insert(task, sum);
                }
            }
        }
        let unique = if version >= 8 { reader.i8()? } else { 0 };
        let error_code = if version >= 9 { reader.i32()? } else { 0 };
        let mut tags = BTreeMap::new();
        if version >= 11 {
            for _ in 0..reader.count()? {
                let key = text(&mut reader)?;
                tags.insert(key, text(&mut reader)?);
            }
        }
        Ok(SubscriptionInfo { version, latest_version, process_id, endpoint, offset_sums, unique, error_code, tags })
    }
}

pub(super) fn known(version: i32) -> Result<i32> {
    if VERSIONS.contains(&version) {
        return Ok(version);
    }
    Err(Error::invalid(format!(
        "a member of the group speaks version {version} of the assignor: those of Kafka Streams 2.4 and later are known"
    )))
}

fn put_text(text: &str, out: &mut Vec<u8>) -> Result<()> {
    put_count(text.len(), out)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn text(reader: &mut Reader<'_>) -> Result<String> {
    let length = reader.count()?;
    reader.text(length).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(version: i32) -> SubscriptionInfo {
        let task = |sub_topology, partition| TaskId { sub_topology, partition };
        SubscriptionInfo {
            version,
            latest_version: 11,
            process_id: *b"0123456789abcdef",
            endpoint: Some("host:80".to_owned()),
            offset_sums: BTreeMap::from([(task(0, 1), SubscriptionInfo::RUNNING), (task(1, 0), 42)]),
            unique: 7,
            error_code: 3,
            tags: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        }
    }

    #[test]
    fn what_was_written_is_read_as_far_as_the_version_has_it() {
        assert_eq!(SubscriptionInfo::decode(&info(11).encode().unwrap()).unwrap(), info(11));
        for version in VERSIONS {
            let read = SubscriptionInfo::decode(&info(version).encode().unwrap()).unwrap();
            assert_eq!((read.version, &read.endpoint), (version, &info(version).endpoint));
            let sums: Vec<_> = read.offset_sums.values().copied().collect();
            assert_eq!(sums, if version == 6 { [-2, -3] } else { [-2, 42] });
        }
        assert!(SubscriptionInfo { version: 12, ..info(11) }.encode().is_err());
    }

    #[test]
    fn bytes_that_are_cut_off_or_changed_are_refused_or_read_without_a_panic() {
        for version in VERSIONS {
            let bytes = info(version).encode().unwrap();
            assert!((0..bytes.len()).all(|end| SubscriptionInfo::decode(&bytes[..end]).is_err()));
            for at in 0..bytes.len() {
                for change in [0xff, 0x80, 0x7f, 0x01] {
                    let mut changed = bytes.clone();
                    changed[at] ^= change;
                    let _ = SubscriptionInfo::decode(&changed);
                }
            }
        }
    }
}

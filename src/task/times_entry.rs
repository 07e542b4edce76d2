//! The times of operators in the commit metadata, exactly once only.
//!
//! Java's metadata has a map of names and numbers, in which it keeps what it does not know. One entry of it is ours:
//!
//! ```text
//!   name     kstreams/times/1( hash=value)*      hexadecimal: 32 bits of the time's name, and the time in ms
//!   value    FNV-1a over (topic 0 | partition 4 | offset 8) of all inputs, as they are committed with it
//! ```
//!
//! No store has such a name: topics have no slash. The entry is the same at every input, and every input is committed with
//! it. When Java has gone on with the task, it has copied the entry, but offsets have moved: the value tells that the times
//! are not those of the offsets any more, and they are not used.

use std::fmt::Write;
use std::sync::Arc;

use super::commit_point::CommitPoint;
use crate::record::TopicPartition;
use crate::topology::{CommittedTimes, fnv1a};

const PREFIX: &str = "kstreams/times/";
const VERSION: &str = "1";

/// Of the entry's name. It goes to the cluster with every commit of every input.
const NAME_BYTES_MAX: usize = 1_024;
/// Of all that is committed for an input: in Base64 it is within the broker's `offset.metadata.max.bytes`, 4096.
const METADATA_BYTES_MAX: usize = 3_000;

/// Puts the times into the points of all inputs; false: there is no room for them.
pub(super) fn add(times: &CommittedTimes, inputs: &[TopicPartition], points: &mut [(usize, CommitPoint)]) -> bool {
    let mut name = format!("{PREFIX}{VERSION}");
    for (hash, time) in times {
        // Writing to a string does not fail.
        let _ = write!(name, " {hash:x}={time:x}");
    }
    let others =
        points.first().map_or(0, |(_, point)| point.processor_metadata.keys().map(|store| 12 + store.len()).sum());
    if name.len() > NAME_BYTES_MAX || others + name.len() > METADATA_BYTES_MAX {
        return false;
    }
    let value = place(inputs, points.iter().map(|(_, point)| point.offset));
    let name: Arc<str> = name.into();
    for (_, point) in points {
        point.processor_metadata.insert(Arc::clone(&name), value);
    }
    true
}

/// The times that were committed with exactly these offsets, if there are such.
pub(super) fn find(inputs: &[TopicPartition], points: &[CommitPoint]) -> Option<CommittedTimes> {
    let value = place(inputs, points.iter().map(|point| point.offset));
    let mut entries = points.iter().map(|point| {
        let mut ours = point.processor_metadata.iter().filter(|(name, _)| is_entry(name));
        ours.find(|(_, found)| **found == value).map(|(name, _)| name)
    });
    let first = entries.next()??;
    if !entries.all(|entry| entry == Some(first)) {
        return None;
    }
    let times = first.strip_prefix(PREFIX)?.strip_prefix(VERSION)?;
    times.split_ascii_whitespace().map(read).collect()
}

fn read(time: &str) -> Option<(u32, i64)> {
    let (hash, time) = time.split_once('=')?;
    Some((u32::from_str_radix(hash, 16).ok()?, u64::from_str_radix(time, 16).ok()?.cast_signed()))
}

/// Whether it is ours, of whatever version.
pub(super) fn is_entry(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Where all inputs are.
fn place(inputs: &[TopicPartition], offsets: impl Iterator<Item = i64>) -> i64 {
    let mut bytes = Vec::new();
    for (input, offset) in inputs.iter().zip(offsets) {
        bytes.extend_from_slice(input.topic.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&input.partition.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
    }
    fnv1a(&bytes).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Vec<TopicPartition> {
        ["left", "right"].map(|topic| TopicPartition::new(topic, 3)).to_vec()
    }

    /// As they come back from the cluster.
    fn committed(points: &[(usize, CommitPoint)]) -> Vec<CommitPoint> {
        points.iter().map(|(_, point)| CommitPoint::decode(&point.encode())).collect()
    }

    fn points(offsets: [i64; 2]) -> Vec<(usize, CommitPoint)> {
        offsets.into_iter().map(CommitPoint::starting_at).enumerate().collect()
    }

    fn times() -> CommittedTimes {
        CommittedTimes::from([(0xa, 1_700_000_000_000), (0x0b0b_0b0b, -1), (0xffff_ffff, i64::MAX)])
    }

    #[test]
    fn the_format_stays_what_it_is() {
        let mut points = points([100, 200]);
        let counts = ("counts".into(), 90_000);
        points.iter_mut().for_each(|(_, point)| point.processor_metadata.extend([counts.clone()]));
        assert!(add(&times(), &inputs(), &mut points));
        let name = "kstreams/times/1 a=18bcfe56800 b0b0b0b=ffffffffffffffff ffffffff=7fffffffffffffff";
        for (_, point) in &points {
            let entries: Vec<_> = point.processor_metadata.iter().map(|(name, value)| (&**name, *value)).collect();
            assert_eq!(entries, [("counts", 90_000), (name, PLACE)]);
        }
        assert_eq!(points[0].1.encode().metadata, METADATA);
        assert_eq!(find(&inputs(), &committed(&points)), Some(times()));
    }

    #[test]
    fn an_entry_that_others_have_taken_along_is_not_used() {
        let mut points = points([100, 200]);
        assert!(add(&times(), &inputs(), &mut points));
        let committed = committed(&points);
        // Java has committed the first input alone: the places of the two are the same, and so it could be by chance.
        for moved in [101, 200] {
            let mut later = committed.clone();
            later[0].offset = moved;
            assert_eq!(find(&inputs(), &later), None);
        }
        let mut elsewhere = committed.clone();
        elsewhere[1].processor_metadata.clear();
        assert_eq!(find(&inputs(), &elsewhere), None, "it was not committed with all inputs");
        let mut others = inputs();
        others.reverse();
        assert_eq!(find(&others, &committed), None);
    }

    #[test]
    fn an_entry_of_another_version_is_known_as_ours_and_not_read() {
        let mut points = points([1, 2]);
        assert!(add(&CommittedTimes::new(), &inputs(), &mut points));
        let of = |name: &str| {
            let entry = |(_, point): &(usize, CommitPoint)| {
                let value = point.processor_metadata.values().next().copied().unwrap();
                CommitPoint { processor_metadata: [(name.into(), value)].into(), ..point.clone() }
            };
            find(&inputs(), &points.iter().map(entry).collect::<Vec<_>>())
        };
        assert_eq!(of("kstreams/times/1"), Some(CommittedTimes::new()));
        assert_eq!(of("kstreams/times/1 a=5"), Some(CommittedTimes::from([(10, 5)])));
        for name in ["kstreams/times/2 a=5", "kstreams/times/1 a=5 b", "kstreams/times/1 a=x"] {
            assert!(is_entry(name));
            assert_eq!(of(name), None, "{name}");
        }
        assert!(!is_entry("counts"));
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let times: CommittedTimes = (0..70).map(|hash| (u32::MAX - hash, 1_700_000_000_000)).collect();
        let mut points = points([1, 2]);
        assert!(!add(&times, &inputs(), &mut points));
        assert!(points.iter().all(|(_, point)| point.processor_metadata.is_empty()));
        let few = times.into_iter().take(45).collect();
        let store = "s".repeat(2_500).as_str().into();
        assert!(add(&few, &inputs(), &mut points));
        assert!(points[0].1.encode().metadata.len() < 4_096);
        let point = CommitPoint { processor_metadata: [(store, 5)].into(), ..CommitPoint::starting_at(1) };
        let mut points = [(0, point.clone()), (1, point)];
        assert!(!add(&few, &inputs(), &mut points), "Java's part comes first");
        assert_eq!(points[0].1.processor_metadata.len(), 1);
    }

    const PLACE: i64 = -7_890_575_110_986_114_550;
    const METADATA: &str = concat!(
        "Av//////////AAAAAgAAAAZjb3VudHMAAAAAAAFfkAAAAFFrc3RyZWFtcy90aW1lcy8xIGE9MThiY2ZlNTY4",
        "MDAgYjBiMGIwYj1mZmZmZmZmZmZmZmZmZmZmIGZmZmZmZmZmPTdmZmZmZmZmZmZmZmZmZmaSfwu+HCJaCg==",
    );
}

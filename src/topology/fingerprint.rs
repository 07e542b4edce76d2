//! Whether two instances run the same topology.

use super::Topology;

/// Hashes of a topology's description. They go over the network, so they are the same in every build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TopologyFingerprint {
    pub whole: u64,
    /// Of each sub-topology, by number.
    pub parts: Vec<u32>,
}

impl Topology {
    /// What instances compare: nodes, topics and stores by name, as [`describe`](Topology::describe) shows them.
    pub(crate) fn fingerprint(&self) -> TopologyFingerprint {
        let part = |number| {
            let [.., a, b, c, d] = fnv1a(self.described(number).as_bytes()).to_be_bytes();
            u32::from_be_bytes([a, b, c, d])
        };
        TopologyFingerprint {
            whole: fnv1a(self.describe().as_bytes()),
            parts: (0..self.sub_topology_count()).map(part).collect(),
        }
    }
}

/// FNV-1a: no hash of the standard library promises to stay what it is.
pub(crate) fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serdes::Utf8;
    use crate::topology::{Consumed, TopologyBuilder};

    fn fingerprint(first: &str, second: &str) -> TopologyFingerprint {
        let mut builder = TopologyBuilder::new();
        builder.add_source("one", &[first], Consumed::with(Utf8, Utf8));
        builder.add_source("two", &[second], Consumed::with(Utf8, Utf8));
        builder.build().unwrap().fingerprint()
    }

    #[test]
    fn a_hash_is_the_same_in_every_build() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn another_topic_changes_its_sub_topology_and_the_whole() {
        let (before, after) = (fingerprint("a", "b"), fingerprint("a", "c"));
        assert_eq!(before, fingerprint("a", "b"));
        assert_ne!(before.whole, after.whole);
        assert_eq!((before.parts.len(), before.parts[0]), (2, after.parts[0]));
        assert_ne!(before.parts[1], after.parts[1]);
    }
}

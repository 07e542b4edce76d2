//! The partition of a key.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::serdes::DynSerde;

/// How the keys of a store are partitioned, where that is not the default: by a key's bytes, of so many partitions.
#[derive(Clone)]
pub(crate) struct KeyPartitioner(Arc<Choose>);

type Choose = dyn Fn(&[u8], i32) -> Result<i32> + Send + Sync;

impl KeyPartitioner {
    /// By keys as `serde` reads them.
    pub(crate) fn new<K: 'static>(
        serde: DynSerde<K>,
        choose: impl Fn(&K, i32) -> i32 + Send + Sync + 'static,
    ) -> KeyPartitioner {
        KeyPartitioner(Arc::new(move |key, partitions| Ok(choose(&serde.deserialize(key)?, partitions))))
    }

    /// # Errors
    /// Those of the serde.
    pub(crate) fn partition(&self, key: &[u8], partitions: i32) -> Result<i32> {
        (self.0)(key, partitions)
    }
}

impl PartialEq for KeyPartitioner {
    fn eq(&self, other: &KeyPartitioner) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for KeyPartitioner {}

impl fmt::Debug for KeyPartitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPartitioner")
    }
}

/// Java's default partitioner: the same key is in the same partition whoever writes it (W2 of the wire formats).
pub(crate) fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions.max(1)
}

/// Java's `Utils.murmur2`.
pub(crate) fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    #[expect(clippy::cast_possible_truncation, reason = "the hash takes the length modulo 2^32, as Java's int")]
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut chunks = key.chunks_exact(4);
    for chunk in chunks.by_ref() {
        let mut k = chunk.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_hash_as_in_java() {
        let expected: [(&[u8], i32); 6] = [
            (b"", 275_646_681),
            (b"a", -1_563_381_124),
            (b"ab", 316_155_434),
            (b"abc", 479_470_107),
            (b"abcd", -1_323_649_548),
            (b"a-little-bit-long-string", -985_981_536),
        ];
        for (key, hash) in expected {
            assert_eq!(murmur2(key).cast_signed(), hash, "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(partition_for_key(b"foobar", 10), 6);
    }
}

//! The hash of a row in a foreign-key join.

/// The seed of Kafka's `Murmur3`.
const SEED: u64 = 104_729;
const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// MurmurHash3 x64 128, both halves big endian as Java writes them.
pub(crate) fn murmur3_128(bytes: &[u8]) -> [u8; 16] {
    let (mut h1, mut h2) = (SEED, SEED);
    let (blocks, tail) = bytes.as_chunks::<16>();
    for block in blocks {
        let block = u128::from_le_bytes(*block);
        let (k1, k2) = halves(block);
        h1 ^= mix_k1(k1);
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= mix_k2(k2);
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let last = tail.iter().rev().fold(0u128, |last, byte| (last << 8) | u128::from(*byte));
    let (k1, k2) = halves(last);
    // A half without bytes is 0, and mixes into nothing.
    h2 ^= mix_k2(k2);
    h1 ^= mix_k1(k1);

    let length = bytes.len() as u64;
    h1 ^= length;
    h2 ^= length;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    h1 = finish(h1);
    h2 = finish(h2);
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    ((u128::from(h1) << 64) | u128::from(h2)).to_be_bytes()
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn halves(block: u128) -> (u64, u64) {
    (block as u64, (block >> 64) as u64)
}

fn mix_k1(k1: u64) -> u64 {
    k1.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2)
}

fn mix_k2(k2: u64) -> u64 {
    k2.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1)
}

fn finish(mut h: u64) -> u64 {
    h ^= h >> 33;
    h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^= h >> 33;
    h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use super::murmur3_128;

    #[test]
    fn hashes_are_those_of_kafka() {
        let expected: [(&[u8], u128); 6] = [
            (b"", 0x9d27_64a0_18e3_2942_8c3c_f3b0_3593_8518),
            (b"a", 0x3361_634e_7e0f_5188_e9c7_dda2_4eae_326b),
            (b"abc", 0x8cc6_6bdf_24a3_b65e_e942_bed9_d38b_ee40),
            (b"left-value", 0x133c_c412_dea2_ee93_d862_5941_2971_d170),
            (b"0123456789abcdef", 0x1a6e_941e_c6a7_6967_d7d8_2808_f505_d6b1),
            (b"\xff\x80\xfe", 0x589f_47c1_14bb_83a3_0a74_feb5_f92e_7d3f),
        ];
        for (bytes, hash) in expected {
            assert_eq!(u128::from_be_bytes(murmur3_128(bytes)), hash, "{bytes:?}");
        }
    }
}

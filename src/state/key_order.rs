//! Sorts rows by their keys.
//!
//! ```text
//!   key-000000012345     what all keys begin with is skipped ...
//!              |------|  ... and the next eight bytes, as a number, decide most comparisons without a look at the key
//! ```

/// A row on its way into order: eight bytes of its key, and what the row is known by.
pub(super) type Place = (u64, u32);

/// Rows of the same eight bytes that are compared as they are; of more, the next eight bytes are looked at.
const COMPARED_MAX: usize = 32;

/// How often the next eight bytes are looked at before keys are compared as they are.
const DEPTH_MAX: usize = 16;

/// Sorts rows by their keys; rows of one key by what they are known by. Afterwards rows of one key have the same number.
pub(super) fn sort<'a>(rows: &mut [Place], key: impl Fn(u32) -> &'a [u8]) {
    sort_from(rows, &key, 0, DEPTH_MAX);
}

/// Sorts rows whose keys are the same up to a place, behind the end of a key as if there were zeros.
fn sort_from<'a>(rows: &mut [Place], key: &impl Fn(u32) -> &'a [u8], mut at: usize, depth: usize) {
    if rows.len() < 2 {
        return;
    }
    let mut shortest;
    let mut longest;
    loop {
        let (mut differing, mut first) = (0, None);
        (shortest, longest) = (usize::MAX, 0);
        for (number, row) in rows.iter_mut() {
            let key = key(*row);
            (shortest, longest) = (shortest.min(key.len()), longest.max(key.len()));
            *number = eight_bytes(key, at);
            differing |= *number ^ *first.get_or_insert(*number);
        }
        // Whole bytes that are the same in all keys.
        let shared = differing.leading_zeros() as usize / 8;
        if shared < 2 || at + 8 >= longest {
            break;
        }
        at += shared;
    }
    rows.sort_unstable();
    let end = at + 8;
    if longest <= end && shortest == longest {
        return;
    }
    for same in rows.chunk_by_mut(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
        if longest > end && same.len() > COMPARED_MAX && depth > 0 {
            sort_from(same, key, end, depth - 1);
        } else {
            let rest = |row: u32| key(row).get(end..).unwrap_or_default();
            // Of keys that only differ in zeros at their ends, the shorter one is first.
            let len = |row: u32| key(row).len();
            same.sort_unstable_by(|a, b| {
                rest(a.1).cmp(rest(b.1)).then_with(|| len(a.1).cmp(&len(b.1))).then(a.1.cmp(&b.1))
            });
        }
    }
}

/// Eight bytes as a number, so that numbers are in the order of the bytes.
#[inline]
fn eight_bytes(key: &[u8], at: usize) -> u64 {
    let rest = key.get(at..).unwrap_or_default();
    match rest.first_chunk() {
        Some(chunk) => u64::from_be_bytes(*chunk),
        None => (0..8).fold(0, |number, at| number << 8 | u64::from(rest.get(at).copied().unwrap_or(0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[Vec<u8>]) {
        let mut rows: Vec<Place> = (0..u32::try_from(keys.len()).unwrap()).map(|row| (0, row)).collect();
        sort(&mut rows, |row| &keys[row as usize]);
        let mut expected: Vec<(&[u8], u32)> = keys.iter().zip(0..).map(|(key, row)| (&key[..], row)).collect();
        expected.sort();
        let sorted: Vec<_> = rows.iter().map(|(_, row)| (&keys[*row as usize][..], *row)).collect();
        assert_eq!(sorted, expected);
        let same_numbers =
            |pair: &[Place]| keys[pair[0].1 as usize] != keys[pair[1].1 as usize] || pair[0].0 == pair[1].0;
        assert!(rows.windows(2).all(same_numbers));
    }

    fn mixed(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
    }

    #[test]
    fn keys_of_one_length_with_much_in_common_are_sorted() {
        check(&(0..5_000).map(|n| format!("key-{:012}", mixed(n) % 3_000).into_bytes()).collect::<Vec<_>>());
        check(
            &(0..5_000)
                .map(|n| format!("{:03}-{:012}-{:03}", n % 7, mixed(n) % 99, n % 11).into_bytes())
                .collect::<Vec<_>>(),
        );
    }

    #[test]
    fn short_keys_and_zeros_at_their_ends_are_sorted() {
        let keys: [&[u8]; 8] = [b"b", b"\0\0", b"", b"\0", b"aaaaaaaa", b"a", b"aaaaaaaa\0", b"a"];
        check(&keys.map(<[u8]>::to_vec));
        let zeros = (0..900_usize)
            .map(|n| [&b"same-prefix"[..], &vec![0; n % 41], &vec![u8::from(n % 2 == 1); n % 3]].concat());
        check(&zeros.collect::<Vec<_>>());
    }

    #[test]
    fn long_keys_that_differ_late_are_sorted() {
        let late = (0..3_000).map(|n: u64| {
            format!("{:>1$}", mixed(n) % 700, [8, 48, 88, 128, 168][usize::try_from(n % 5).unwrap()]).into_bytes()
        });
        check(&late.collect::<Vec<_>>());
        // Each the beginning of the next: every eight bytes tell one row from the others.
        check(&(0..400).rev().map(|n| vec![7; n * 8]).collect::<Vec<_>>());
        check(&[vec![], vec![]]);
        check(&[]);
    }
}

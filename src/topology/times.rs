//! The times that operators remember from one life of a task to the next.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::fingerprint::fnv1a;

/// Times (ms), by the hash of their name: what is committed of them is short.
pub(crate) type CommittedTimes = BTreeMap<u32, i64>;

/// What operators have asked to be remembered. Each time has one place, which its operator writes and a commit reads.
#[derive(Debug, Default)]
pub(crate) struct RememberedTimes {
    committed: CommittedTimes,
    places: Vec<(u32, Rc<Cell<i64>>)>,
}

impl RememberedTimes {
    pub(crate) fn new(committed: &CommittedTimes) -> RememberedTimes {
        RememberedTimes { committed: committed.clone(), places: Vec::new() }
    }

    /// The time of a name that is nobody else's in the task. It goes on from the last commit; where that does not tell it,
    /// from the largest guess of those who ask for it.
    pub(crate) fn named(&mut self, name: &str, guess: i64) -> Rc<Cell<i64>> {
        let hash = time_hash(name);
        let known = self.places.iter().find(|(known, _)| *known == hash).map(|(_, place)| Rc::clone(place));
        let is_new = known.is_none();
        let place = known.unwrap_or_else(|| Rc::new(Cell::new(self.committed(hash).unwrap_or(guess))));
        if is_new {
            self.places.push((hash, Rc::clone(&place)));
        } else if self.committed(hash).is_none() {
            place.set(place.get().max(guess));
        }
        place
    }

    /// What the last commit says.
    pub(crate) fn committed(&self, hash: u32) -> Option<i64> {
        self.committed.get(&hash).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, i64)> {
        self.places.iter().map(|(hash, place)| (*hash, place.get()))
    }
}

/// Part of what is committed: it stays the same from build to build.
pub(crate) fn time_hash(name: &str) -> u32 {
    let [.., a, b, c, d] = fnv1a(name.as_bytes()).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_counts_more_than_a_guess() {
        let mut times = RememberedTimes::new(&CommittedTimes::from([(time_hash("known"), 7)]));
        assert_eq!(times.named("known", 9).get(), 7);
        assert_eq!(times.named("known", 10).get(), 7);
        let place = times.named("guessed", 3);
        assert_eq!(times.named("guessed", 5).get(), 5);
        place.set(20);
        assert_eq!(times.iter().collect::<Vec<_>>(), [(time_hash("known"), 7), (time_hash("guessed"), 20)]);
    }
}

//! Which sessions keys have, as far as their last records have shown it: a lookup in memory in place of a range of the
//! store for most records.

use std::collections::HashMap;

use rustc_hash::FxBuildHasher;

use crate::window::Window;

/// The sessions of the keys that came last. Two generations: keys of the older one go when the newer one is full, and move
/// over when they are asked for.
///
/// Only right for the one operator that writes the store. It is made anew with it, so an abort forgets it.
#[derive(Debug, Default)]
pub(crate) struct RecentSessions {
    hot: Keys,
    old: Keys,
    /// Others write the store as well, as in a cogroup: nothing is known for longer than a record.
    is_shared: bool,
}

type Keys = HashMap<Box<[u8]>, Known, FxBuildHasher>;

/// Every session of a key that ends at a time or later, by their ends.
#[derive(Debug)]
pub(crate) struct Known {
    complete_from: i64,
    sessions: Vec<Window>,
}

/// Keys of one generation: some 3 MiB of short keys with a session each, 10 MiB at most.
const KEYS_MAX: usize = 32 * 1024;
/// A key with more sessions than these forgets its earliest.
const SESSIONS_MAX: usize = 8;
/// Longer keys are looked for in the store.
const KEY_BYTES_MAX: usize = 128;

impl RecentSessions {
    /// Of a store that this operator has for itself, or shares with others.
    pub(crate) fn new(is_shared: bool) -> RecentSessions {
        RecentSessions { is_shared, ..RecentSessions::default() }
    }

    /// The sessions of a key, if all that end at a time or later are known.
    pub(crate) fn of(&mut self, key: &[u8], earliest_end: i64) -> Option<&mut Known> {
        if !self.hot.contains_key(key) {
            let (key, known) = self.old.remove_entry(key)?;
            self.insert(key, known);
        }
        self.hot.get_mut(key).filter(|known| known.complete_from <= earliest_end)
    }

    /// All sessions of a key that end at a time or later are these.
    pub(crate) fn learn(&mut self, key: &[u8], earliest_end: i64, sessions: Vec<Window>) {
        if self.is_shared || key.len() > KEY_BYTES_MAX {
            return;
        }
        self.old.remove(key);
        let mut known = Known { complete_from: earliest_end, sessions };
        known.trim();
        self.insert(key.into(), known);
    }

    fn insert(&mut self, key: Box<[u8]>, known: Known) {
        if self.hot.len() >= KEYS_MAX {
            self.old = std::mem::take(&mut self.hot);
        }
        self.hot.insert(key, known);
    }

    /// A session has come, gone, or taken the place of others.
    pub(crate) fn update(&mut self, key: &[u8], gone: impl Fn(Window) -> bool, come: Option<Window>) {
        if let Some(known) = self.hot.get_mut(key) {
            known.sessions.retain(|session| !gone(*session));
            if let Some(session) = come.filter(|session| session.end >= known.complete_from) {
                let place =
                    known.sessions.partition_point(|other| (other.end, other.start) < (session.end, session.start));
                known.sessions.insert(place, session);
                known.trim();
            }
        }
    }
}

impl Known {
    /// By their ends, those that begin at a time or earlier.
    pub(crate) fn find(&self, earliest_end: i64, latest_start: i64) -> impl Iterator<Item = Window> {
        let sessions = self.sessions.iter().copied();
        sessions.filter(move |session| session.end >= earliest_end && session.start <= latest_start)
    }

    fn trim(&mut self) {
        let surplus = self.sessions.len().saturating_sub(SESSIONS_MAX);
        if let Some(last) = self.sessions.drain(..surplus).next_back() {
            self.complete_from = self.complete_from.max(last.end.saturating_add(1));
        }
        // Of two sessions that end together one may be left of what is not complete any more: it is only one too many.
        let complete_from = self.complete_from;
        self.sessions.retain(|session| session.end >= complete_from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(start: i64, end: i64) -> Window {
        Window { start, end }
    }

    fn found(recent: &mut RecentSessions, earliest_end: i64) -> Option<Vec<Window>> {
        Some(recent.of(b"k", earliest_end)?.find(earliest_end, i64::MAX).collect())
    }

    #[test]
    fn sessions_are_known_from_the_end_that_was_looked_for() {
        let mut recent = RecentSessions::default();
        assert_eq!(found(&mut recent, 0), None);
        recent.learn(b"k", 10, vec![session(5, 12), session(20, 30)]);
        assert_eq!(found(&mut recent, 9), None);
        assert_eq!(found(&mut recent, 10).unwrap(), [session(5, 12), session(20, 30)]);
        recent.update(b"k", |other| other.start == 20, Some(session(20, 35)));
        assert_eq!(found(&mut recent, 13).unwrap(), [session(20, 35)]);
        let known = recent.of(b"k", 10).unwrap();
        assert_eq!(known.find(10, 19).collect::<Vec<_>>(), [session(5, 12)]);
    }

    #[test]
    fn the_earliest_sessions_of_a_key_are_forgotten_with_the_time_before() {
        let mut recent = RecentSessions::default();
        recent.learn(b"k", 0, Vec::new());
        for end in 0..20 {
            recent.update(b"k", |_| false, Some(session(end, end)));
        }
        assert_eq!(found(&mut recent, 11), None);
        assert_eq!(found(&mut recent, 12).unwrap().len(), SESSIONS_MAX);
    }

    #[test]
    fn keys_that_are_not_asked_for_are_forgotten() {
        let mut recent = RecentSessions::default();
        recent.learn(b"k", 0, Vec::new());
        for n in 0..KEYS_MAX + 1 {
            recent.learn(&n.to_be_bytes(), 0, Vec::new());
        }
        assert_eq!(found(&mut recent, 0), Some(Vec::new()));
        for n in 0..3 * KEYS_MAX {
            recent.learn(&n.to_be_bytes(), 0, Vec::new());
            assert!(recent.hot.len() + recent.old.len() <= 2 * KEYS_MAX);
        }
        assert_eq!(found(&mut recent, 0), None);
    }
}

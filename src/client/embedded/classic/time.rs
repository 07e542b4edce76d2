//! What becomes due in a classic group when nobody asks anything: rounds and sessions end.

use crate::client::embedded::classic::{ClassicGroup, Phase};

enum Due {
    Join,
    Sync,
    Session(String),
}

impl ClassicGroup {
    /// Does what has become due, the earliest first. Whether there was anything.
    pub(in crate::client::embedded) fn pass_time(&mut self, now: i64) -> bool {
        let mut any = false;
        while let Some(due) = self.due(now) {
            any = true;
            match due {
                Due::Join => self.complete_join(now),
                Due::Sync => self.sync_is_over(now),
                Due::Session(id) => {
                    self.session_is_over(&id, now);
                }
            }
        }
        any
    }

    fn due(&self, now: i64) -> Option<Due> {
        let given_out = self.pending.iter().map(|(id, at)| (*at, id));
        let sessions = self.members.iter().filter_map(|(id, member)| Some((member.expires?, id)));
        let session = given_out.chain(sessions).min().map(|(at, id)| (at, Some(id)));
        let sync = self.sync_until.map(|at| (at, None));
        match (self.phase, sync.into_iter().chain(session).min().filter(|(at, _)| *at <= now)) {
            (Phase::Preparing { until }, earliest) if until <= now && earliest.is_none_or(|(at, _)| until <= at) => {
                Some(Due::Join)
            }
            (_, Some((_, Some(id)))) => Some(Due::Session(id.clone())),
            (_, Some((_, None))) => Some(Due::Sync),
            (_, None) => None,
        }
    }

    /// Members that have not asked for their assignment are taken out.
    fn sync_is_over(&mut self, now: i64) {
        self.sync_until = None;
        let owing: Vec<_> = self.ids(|member| member.owes_sync).collect();
        owing.iter().for_each(|id| self.remove(id));
        self.prepare(now);
    }

    /// Nothing has been heard of the member for too long. Whether there was one.
    pub(in crate::client::embedded) fn session_is_over(&mut self, id: &str, now: i64) -> bool {
        if self.pending.contains_key(id) {
            self.remove(id);
            if matches!(self.phase, Phase::Preparing { .. }) {
                self.complete_join_if_all(now);
            }
            return true;
        }
        let Some(member) = self.members.get_mut(id) else { return false };
        let waits = member.joining.is_some() || member.syncing.is_some();
        if waits && !member.is_new {
            member.expires = None;
        } else {
            self.remove(id);
            self.rebalance(now);
        }
        true
    }

    /// When the round that begins now goes on without those who have not joined, or not synced. A round that nobody
    /// joins begins anew each time: never at the same instant.
    pub(super) fn rebalance_until(&self, now: i64) -> i64 {
        let longest = self.members.values().map(|member| member.rebalance_ms).max().unwrap_or(0);
        now.saturating_add(longest.max(1))
    }
}

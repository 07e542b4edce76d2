//! What follows from each answer.

use std::collections::BTreeSet;

use super::{Fit, Member, MemberOutput, Millis, Phase, STRAY, UnderWay};
use crate::error::ErrorKind;
use crate::membership::classic::protocol::{GroupAnswer, GroupError, GroupMember, GroupRequest, RequestKind};
use crate::topology::TaskId;

impl Member {
    pub(super) fn answered(&mut self, answer: GroupAnswer, now: Millis) {
        let kind = match &answer {
            GroupAnswer::Joined { .. } => RequestKind::Join,
            GroupAnswer::Synced { .. } => RequestKind::Sync,
            GroupAnswer::Alive => RequestKind::Heartbeat,
            GroupAnswer::Left => RequestKind::Leave,
            GroupAnswer::Refused { request, .. } | GroupAnswer::Disconnected(request) => *request,
        };
        let slot = match kind {
            RequestKind::Join | RequestKind::Sync => &mut self.asking,
            RequestKind::Heartbeat | RequestKind::Leave => &mut self.beating,
        };
        // What nobody has asked for is an answer that came twice.
        let Some(asked) = slot.take_if(|asked| asked.kind == kind) else { return };
        match answer {
            GroupAnswer::Joined { generation, member, leader, skip_assignment, members } => {
                let members = (leader == member && !skip_assignment).then_some(members);
                self.joined(generation, member, members, now);
            }
            GroupAnswer::Synced { user_data, .. } => self.synced(asked, &user_data, now),
            GroupAnswer::Alive => self.alive = self.alive.max(asked.sent),
            GroupAnswer::Left => self.end(),
            GroupAnswer::Refused { request, error } => match request {
                RequestKind::Join => self.join_refused(error, now),
                RequestKind::Sync => self.sync_refused(asked, error, now),
                RequestKind::Heartbeat => self.heartbeat_refused(asked, error, now),
                RequestKind::Leave => self.end(),
            },
            GroupAnswer::Disconnected(request) => self.disconnected(request, now),
        }
    }

    fn joined(&mut self, generation: i32, id: String, members: Option<Vec<GroupMember>>, now: Millis) {
        if self.is_ending() {
            return;
        }
        // IMPORTANT: a group that went on without this member, or begins anew, has given its tasks away. What it claims
        // is held for it from one generation to the next and no longer.
        let follows = generation == self.generation || generation == self.generation.wrapping_add(1);
        if !self.owned.is_empty() && !follows {
            tracing::warn!("the group went from generation {} to {generation} without this member", self.generation);
            self.lose_everything();
        }
        (self.join, self.id, self.generation) = (None, id, generation);
        if self.owned.is_empty() {
            self.alive = now;
        }
        self.publish();
        if self.phase != Phase::Joining {
            // There is something newer to tell the group by now, by another join.
            return;
        }
        let assignments = members.map(|members| self.assignor.assign(&self.id, generation, &members));
        let assignments = assignments.unwrap_or_default();
        let (member, instance) = (self.id.clone(), self.settings.instance.clone());
        self.sync = Some(GroupRequest::Sync { generation, member, instance, assignments });
        self.phase = Phase::Syncing { at: now };
    }

    fn synced(&mut self, asked: UnderWay, user_data: &[u8], now: Millis) {
        if !matches!(self.phase, Phase::Syncing { .. }) || asked.generation != self.generation {
            return;
        }
        let decision = match self.assignor.read(user_data) {
            Ok(decision) if decision.generation == self.generation => decision,
            // NOTE: an assignment of another generation may give what somebody else has by now.
            Ok(decision) => {
                tracing::warn!("an assignment of generation {} came in {}", decision.generation, self.generation);
                let at = self.after_pause(now);
                return self.rejoin_at(at);
            }
            Err(error) if error.kind() == ErrorKind::Invalid => return self.fail(ErrorKind::Invalid, error.report()),
            Err(error) => {
                tracing::error!("could not read what the leader has assigned: {}", error.report());
                let at = self.after_pause(now);
                return self.rejoin_at(at);
            }
        };
        // NOTE: a process that is started again finds the word that ended its last run.
        let is_outdated = decision.fit == Fit::Outdated || decision.shuts_down;
        if is_outdated && !self.has_synced {
            // After a restart in place the leader was told nothing. Once, so that two that disagree do not go on for ever.
            self.has_synced = true;
            return self.join_again(now);
        }
        self.has_synced = true;
        if decision.shuts_down {
            self.outputs.push_back(MemberOutput::ShutDown);
        }
        self.is_settled = false;
        self.backoff = super::BACKOFF_MIN;
        self.sync = None;
        self.phase = Phase::Stable;
        self.stand_by(&decision.active, decision.standby, decision.warmup);
        self.target = Some(decision.active);
        self.fence = decision.fence;
        self.is_alone = decision.is_alone;
    }

    fn stand_by(&mut self, active: &BTreeSet<TaskId>, standby: BTreeSet<TaskId>, warmup: BTreeSet<TaskId>) {
        self.warmup = warmup;
        if standby != self.standby {
            let becoming_active = self.standby.intersection(active);
            let tasks = standby.iter().chain(becoming_active).copied().collect();
            self.outputs.push_back(MemberOutput::Standby { tasks });
            self.standby = standby;
        }
    }

    fn join_refused(&mut self, error: GroupError, now: Millis) {
        if self.is_ending() {
            return;
        }
        match error {
            GroupError::MemberIdRequired(id) => {
                self.id = id;
                self.join_again(now);
            }
            GroupError::UnknownMemberId => {
                let was_known = !self.id.is_empty();
                self.forget_id();
                let at = if was_known { now } else { self.after_pause(now) };
                self.rejoin_at(at);
            }
            GroupError::InconsistentProtocol => {
                tracing::warn!(
                    "the group has members that speak another protocol (another library, or group_protocol set otherwise): \
                     this one joins when they have gone"
                );
                let at = self.after_pause(now);
                self.rejoin_at(at);
            }
            GroupError::IllegalGeneration | GroupError::RebalanceInProgress | GroupError::Other(..) => {
                tracing::debug!("could not join the group, trying again: {error:?}");
                let at = self.after_pause(now);
                self.rejoin_at(at);
            }
            GroupError::FencedInstance => self.replaced(now),
            GroupError::InvalidSessionTimeout | GroupError::MaxSizeReached | GroupError::Denied(_) => {
                self.refused_for_good(error);
            }
        }
    }

    fn sync_refused(&mut self, asked: UnderWay, error: GroupError, now: Millis) {
        if !matches!(self.phase, Phase::Syncing { .. }) || asked.generation != self.generation {
            return;
        }
        match error {
            GroupError::RebalanceInProgress => self.join_again(now),
            GroupError::IllegalGeneration => {
                self.lose_everything();
                self.join_again(now);
            }
            GroupError::UnknownMemberId => {
                self.forget_id();
                self.join_again(now);
            }
            GroupError::Other(code, reason) => {
                // Among others: assignments that are too large for the broker's log.
                tracing::error!("the coordinator refused the assignment with code {code}, {reason}: trying again");
                self.join = None;
                let at = self.after_pause(now);
                self.rejoin_at(at);
            }
            GroupError::InconsistentProtocol | GroupError::MemberIdRequired(_) => self.join_again(now),
            GroupError::FencedInstance => self.replaced(now),
            GroupError::InvalidSessionTimeout | GroupError::MaxSizeReached | GroupError::Denied(_) => {
                self.refused_for_good(error);
            }
        }
    }

    fn heartbeat_refused(&mut self, asked: UnderWay, error: GroupError, now: Millis) {
        if asked.generation != self.generation {
            // It was about a generation that is over.
            return;
        }
        let is_joining = matches!(self.phase, Phase::Joining | Phase::Unjoined { .. });
        match error {
            GroupError::RebalanceInProgress => {
                self.alive = self.alive.max(asked.sent);
                // Before the assignment has come, the answer to the sync says the same.
                if self.phase == Phase::Stable {
                    self.join_again(now);
                }
            }
            // The answer to the join says which generation it is, and whether the tasks are lost.
            GroupError::IllegalGeneration | GroupError::UnknownMemberId if is_joining => {}
            GroupError::IllegalGeneration => {
                tracing::warn!("the group went on without this member after generation {}", self.generation);
                self.lose_everything();
                self.join_again(now);
            }
            GroupError::UnknownMemberId => {
                tracing::warn!("the group has removed this member after generation {}", self.generation);
                self.forget_id();
                self.join_again(now);
            }
            GroupError::FencedInstance => self.replaced(now),
            GroupError::Denied(_) => self.refused_for_good(error),
            GroupError::MemberIdRequired(_)
            | GroupError::InvalidSessionTimeout
            | GroupError::InconsistentProtocol
            | GroupError::MaxSizeReached
            | GroupError::Other(..) => {
                tracing::debug!("a heartbeat was refused: {error:?}");
            }
        }
    }

    fn forget_id(&mut self) {
        self.lose_everything();
        self.id.clear();
    }

    fn disconnected(&mut self, request: RequestKind, now: Millis) {
        match (request, self.phase) {
            (RequestKind::Join, Phase::Joining) => {
                (self.strays, self.strayed) = (self.strays.saturating_add(1), now);
                let at = self.after_pause(now);
                self.rejoin_at(at);
            }
            (RequestKind::Sync, Phase::Syncing { .. }) => {
                let at = self.after_pause(now);
                self.phase = Phase::Syncing { at };
            }
            (RequestKind::Heartbeat, _) => {
                let soon = now.saturating_add(super::BACKOFF_MIN);
                self.next_beat = self.next_beat.min(soon).max(now.saturating_add(1));
            }
            (RequestKind::Leave, _) => self.end(),
            (RequestKind::Join | RequestKind::Sync, _) => {}
        }
    }

    /// The group has another member of this instance: another process, or this one by a join that came late. Each of those
    /// replaces the member once.
    fn replaced(&mut self, now: Millis) {
        if now.saturating_sub(self.strayed) > STRAY {
            self.strays = 0;
        }
        let Some(strays) = self.strays.checked_sub(1) else {
            return self.refused_for_good(GroupError::FencedInstance);
        };
        self.strays = strays;
        tracing::warn!(
            "a join that was given up came late, and has replaced this member after generation {}",
            self.generation
        );
        self.forget_id();
        self.join_again(now);
    }

    fn refused_for_good(&mut self, error: GroupError) {
        let (kind, reason) = match error {
            GroupError::FencedInstance => (
                ErrorKind::Fenced,
                format!(
                    "another process has joined the group as instance {}: give each process its own state directory and \
                     group_instance_id",
                    self.settings.instance.as_deref().unwrap_or_default()
                ),
            ),
            GroupError::InvalidSessionTimeout => (
                ErrorKind::Invalid,
                format!(
                    "the broker does not allow a session timeout of {} ms: set session_timeout between its \
                     group.min.session.timeout.ms and group.max.session.timeout.ms",
                    self.settings.session_timeout.as_millis()
                ),
            ),
            GroupError::MaxSizeReached => (
                ErrorKind::Invalid,
                "the group has as many members as the broker's group.max.size allows: run fewer instances, or raise it"
                    .to_owned(),
            ),
            GroupError::Denied(reason) => {
                (ErrorKind::Invalid, format!("the broker denies access to the group, allow READ on it: {reason}"))
            }
            other @ (GroupError::MemberIdRequired(_)
            | GroupError::UnknownMemberId
            | GroupError::IllegalGeneration
            | GroupError::RebalanceInProgress
            | GroupError::InconsistentProtocol
            | GroupError::Other(..)) => (ErrorKind::Internal, format!("the coordinator refused with {other:?}")),
        };
        self.fail(kind, reason);
    }
}

//! What follows from each answer.

use super::{Phase, StreamsMember, StreamsOutput, UnderWay};
use crate::error::ErrorKind;
use crate::membership::classic::member::Millis;
use crate::membership::streams::protocol::{Heard, HeartbeatAnswer, JOINING, LEAVING, Status, StreamsError, Taken};
use crate::topology::TaskId;

impl StreamsMember {
    pub(super) fn answered(&mut self, answer: HeartbeatAnswer, now: Millis) {
        // Any other one came twice, or was given up.
        let Some(asked) = self.under_way.take_if(|asked| asked.number == answer.number) else { return };
        if matches!(self.phase, Phase::Leaving { .. }) {
            // What else it was about does not matter any more; the leave is sent next.
            if asked.epoch == LEAVING && answer.heard != Heard::Disconnected {
                self.end();
            }
            return;
        }
        if let Phase::Aside { .. } = self.phase {
            // What else was asked does not matter any more either.
            match answer.heard {
                Heard::Disconnected => self.unanswered(now),
                Heard::Taken(_) | Heard::Refused(..) => {
                    self.phase = Phase::Aside { is_told: asked.epoch == LEAVING };
                    self.next_beat = now;
                }
            }
            return;
        }
        match answer.heard {
            Heard::Taken(taken) => self.taken(asked, taken, now),
            Heard::Refused(error, words) => self.refused(error, &words, now),
            Heard::Disconnected => self.unanswered(now),
        }
    }

    /// Nobody can say whether the coordinator has heard the last heartbeat: the next one says everything again.
    pub(super) fn unanswered(&mut self, now: Millis) {
        self.may_have_missed = self.phase == Phase::Member;
        self.reported = None;
        self.told_progress.clear();
        let at = self.after_pause(now);
        (self.next_beat, self.not_before) = (at, at);
        if let Phase::Out { .. } = self.phase {
            self.phase = Phase::Out { at };
        }
    }

    fn taken(&mut self, asked: UnderWay, taken: Taken, now: Millis) {
        if let Some(stranger) =
            taken.tasks.iter().flat_map(|tasks| tasks.iter()).find(|task| !self.known.contains(task))
        {
            return self.fail(
                ErrorKind::Invalid,
                format!(
                    "the broker gave it task {stranger}, which its topology does not have: run the same program in all \
                     instances; if a topic has got more partitions, start them again, and reset the application when it \
                     has state"
                ),
            );
        }
        self.may_have_missed &= asked.epoch != JOINING && taken.tasks.is_none();
        if std::mem::take(&mut self.is_asking_anew) {
            if asked.epoch == JOINING && taken.epoch != self.epoch {
                // It may have been thrown out in between, and others may have had what it has.
                self.lose_everything(now);
            } else {
                self.publish();
            }
        }
        if let (Some(tasks), Some(told)) = (&taken.tasks, &asked.owned) {
            // IMPORTANT: what it has taken since it told what it has is somebody else's already if it shall not have it.
            let is_gone = |task: &&TaskId| !tasks.active.contains(task) && !told.active.contains(task);
            self.lose(self.owned.iter().filter(is_gone).copied().collect());
        }
        self.backoff = super::BACKOFF_MIN;
        self.endpoint_epoch = taken.endpoint_epoch;
        if let Some(addresses) = taken.addresses {
            (self.addresses)(addresses);
        }
        if taken.interval_ms > 0 {
            self.interval = taken.interval_ms.into();
        }
        self.progress_interval = taken.progress_interval_ms.max(0).into();
        if asked.owned.is_some() {
            // What a join says is the same for all members: it is told again, as Java does.
            self.reported = asked.owned.filter(|_| asked.epoch != JOINING);
        }
        if self.epoch != taken.epoch {
            if asked.epoch == JOINING {
                tracing::info!("joined the group as {} in epoch {}", self.id, taken.epoch);
            }
            self.epoch = taken.epoch;
            self.publish();
            self.is_restless(now);
        }
        self.phase = Phase::Member;
        if let Some(tasks) = taken.tasks.filter(|tasks| self.target.as_ref() != Some(tasks)) {
            let had = |task: &TaskId| self.owned.contains(task) || self.standby.contains(task);
            let is_gone = |task: &&TaskId| !tasks.iter().any(|given| given == *task) && !had(task);
            let was_never_taken = self.target.as_ref().is_some_and(|before| before.iter().any(|task| is_gone(&task)));
            self.target = Some(tasks);
            if was_never_taken {
                // What it has does not change, and the coordinator waits to hear that this is not among it.
                self.reported = None;
            }
            self.is_settled = false;
            self.is_restless(now);
        }
        self.heed(taken.statuses, now);
    }

    fn heed(&mut self, statuses: Vec<(Status, String)>, now: Millis) {
        if statuses.iter().any(|(status, _)| status.is_waiting()) {
            self.is_settled = false;
            self.is_restless(now);
        }
        if statuses == self.statuses {
            return;
        }
        for (status, words) in &statuses {
            match status {
                Status::StaleTopology => tracing::warn!("another instance runs a newer topology: {words}"),
                Status::MissingSourceTopics => {
                    tracing::warn!("no tasks are given out before all source topics are there, create them: {words}");
                }
                Status::MissingInternalTopics => {
                    tracing::info!("no tasks are given out before the broker has made all internal topics: {words}");
                }
                Status::AssignmentDelayed => tracing::info!("the broker waits before it gives out tasks: {words}"),
                Status::Other(code) => tracing::warn!("the group has status {code}: {words}"),
                Status::IncorrectlyPartitionedTopics => {
                    return self.fail(
                        ErrorKind::Invalid,
                        format!(
                            "topics that are read together have different numbers of partitions, give them the same \
                             one: {words}"
                        ),
                    );
                }
                Status::ShutdownApplication => {
                    if !std::mem::replace(&mut self.has_shut_down, true) {
                        self.outputs.push_back(StreamsOutput::ShutDown);
                    }
                }
            }
        }
        self.statuses = statuses;
    }

    fn refused(&mut self, error: StreamsError, words: &str, now: Millis) {
        let (kind, reason) = match error {
            StreamsError::UnknownMember | StreamsError::FencedEpoch => {
                let was_member = self.phase == Phase::Member;
                if was_member {
                    tracing::warn!("the group went on without this member after epoch {}: {words}", self.epoch);
                }
                let at = if was_member { now } else { self.after_pause(now) };
                return self.lose_everything(at);
            }
            StreamsError::OtherGroup => {
                tracing::warn!(
                    "the group has members of another protocol (group_protocol set otherwise, another library), this one \
                     joins when they have gone: {words}"
                );
                let at = self.after_pause(now);
                return self.lose_everything(at);
            }
            StreamsError::TopicsDenied => {
                tracing::warn!(
                    "the broker denies rights on topics; grant READ and DESCRIBE on source topics, and CREATE on those \
                     that begin with the application id: {words}"
                );
                return self.unanswered(now);
            }
            StreamsError::Other(code) => {
                tracing::warn!("the coordinator refused a heartbeat with code {code}, trying again: {words}");
                return self.unanswered(now);
            }
            StreamsError::InvalidRequest if words.contains("opology") => (
                ErrorKind::Invalid,
                format!(
                    "the group was made with another topology, which stays as long as the group does: run the same program \
                     with the same settings of topics in all instances; to change it, end all of them, delete the \
                     group, and reset the application or give it a new application id: {words}"
                ),
            ),
            StreamsError::InvalidRequest => {
                (ErrorKind::Invalid, format!("the broker does not understand this member: {words}"))
            }
            StreamsError::InvalidTopology => (ErrorKind::Invalid, format!("the broker refuses the topology: {words}")),
            StreamsError::MaxSizeReached => (
                ErrorKind::Invalid,
                format!(
                    "the group has as many members as the broker's group.streams.max.size allows: run fewer instances, \
                     or raise it: {words}"
                ),
            ),
            StreamsError::Denied => {
                (ErrorKind::Invalid, format!("the broker denies access to the group, allow READ on it: {words}"))
            }
            StreamsError::Unsupported => (
                ErrorKind::Invalid,
                format!(
                    "the broker does not have streams groups: it needs Kafka 4.2 with the feature streams.version 1, or \
                     set GroupProtocol::Sticky: {words}"
                ),
            ),
        };
        self.fail(kind, reason);
    }
}

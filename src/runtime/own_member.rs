//! The process's member of its group with its line to the coordinator, whichever protocol the two speak.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::membership::classic::member::{Member, MemberInput, MemberOutput, Millis};
use crate::membership::classic::protocol::GroupCoordinator;
use crate::membership::streams::member::{StreamsInput, StreamsMember};
use crate::membership::streams::protocol::StreamsCoordinator;

/// What follows for this process; requests are sent already.
pub(super) type MemberEvent = MemberOutput<Infallible>;

pub(super) enum OwnMember {
    Sticky { member: Box<Member>, coordinator: Box<dyn GroupCoordinator> },
    Streams { member: Box<StreamsMember>, coordinator: Box<StreamsCoordinator> },
}

impl OwnMember {
    pub(super) fn on(&mut self, input: MemberInput, now: Millis) {
        match self {
            OwnMember::Sticky { member, .. } => member.on(input, now),
            OwnMember::Streams { member, .. } => {
                let input = match input {
                    MemberInput::Closed(tasks) => StreamsInput::Closed(tasks),
                    MemberInput::WarmedUp(_) => StreamsInput::WarmedUp,
                    MemberInput::Leave(mode) => StreamsInput::Leave(mode),
                    MemberInput::Tell => StreamsInput::Tell,
                    MemberInput::HandOver => StreamsInput::HandOver,
                    MemberInput::Abandon(_) => StreamsInput::Abandon,
                    // Other topics come by patterns alone, which are refused before a streams group is joined.
                    MemberInput::Tick | MemberInput::Answer(_) | MemberInput::Subscribe(..) => StreamsInput::Tick,
                };
                member.on(input, now);
            }
        }
    }

    /// Takes an answer of the coordinator, if there is one.
    pub(super) fn hear(&mut self, now: Millis) -> bool {
        match self {
            OwnMember::Sticky { member, coordinator } => {
                coordinator.poll().map(|answer| member.on(MemberInput::Answer(answer), now)).is_some()
            }
            OwnMember::Streams { member, coordinator } => {
                coordinator.poll().map(|answer| member.on(StreamsInput::Answer(answer), now)).is_some()
            }
        }
    }

    pub(super) fn poll_event(&mut self) -> Option<MemberEvent> {
        match self {
            OwnMember::Sticky { member, coordinator } => event(|| member.poll_output(), |r| coordinator.send(r)),
            OwnMember::Streams { member, coordinator } => event(|| member.poll_output(), |r| coordinator.send(r)),
        }
    }

    pub(super) fn deadline(&self) -> Millis {
        match self {
            OwnMember::Sticky { member, .. } => member.deadline(),
            OwnMember::Streams { member, .. } => member.deadline(),
        }
    }

    pub(super) fn wait(&mut self, timeout: Duration) {
        match self {
            OwnMember::Sticky { coordinator, .. } => coordinator.wait(timeout),
            OwnMember::Streams { coordinator, .. } => coordinator.wait(timeout),
        }
    }

    pub(super) fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        match self {
            OwnMember::Sticky { coordinator, .. } => coordinator.waker(),
            OwnMember::Streams { coordinator, .. } => coordinator.waker(),
        }
    }
}

/// The next output that is no request; those are sent on the way.
fn event<R>(mut poll: impl FnMut() -> Option<MemberOutput<R>>, mut send: impl FnMut(R)) -> Option<MemberEvent> {
    loop {
        return Some(match poll()? {
            MemberOutput::Send(request) => {
                send(request);
                continue;
            }
            MemberOutput::Publish(place) => MemberOutput::Publish(place),
            MemberOutput::Assigned { tasks, fence } => MemberOutput::Assigned { tasks, fence },
            MemberOutput::Standby { tasks } => MemberOutput::Standby { tasks },
            MemberOutput::Revoked { tasks } => MemberOutput::Revoked { tasks },
            MemberOutput::Lost { tasks } => MemberOutput::Lost { tasks },
            MemberOutput::Settled => MemberOutput::Settled,
            MemberOutput::HandedOver => MemberOutput::HandedOver,
            MemberOutput::ShutDown => MemberOutput::ShutDown,
            MemberOutput::Failed(kind, reason) => MemberOutput::Failed(kind, reason),
            MemberOutput::Ended => MemberOutput::Ended,
        });
    }
}

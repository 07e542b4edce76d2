//! The error codes of brokers: their names, and what can be done about them.

use std::fmt;

use crate::error::ErrorKind;
use crate::membership::classic::protocol::GroupError;
use crate::membership::streams::protocol::StreamsError;

/// An error code of a response. 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) i16);

impl Code {
    pub(super) const NONE: Code = Code(0);
    pub(super) const UNKNOWN_SERVER_ERROR: Code = Code(-1);
    pub(super) const OFFSET_OUT_OF_RANGE: Code = Code(1);
    pub(super) const UNKNOWN_TOPIC_OR_PARTITION: Code = Code(3);
    pub(super) const LEADER_NOT_AVAILABLE: Code = Code(5);
    pub(super) const NOT_LEADER_OR_FOLLOWER: Code = Code(6);
    pub(super) const REQUEST_TIMED_OUT: Code = Code(7);
    pub(super) const BROKER_NOT_AVAILABLE: Code = Code(8);
    pub(super) const REPLICA_NOT_AVAILABLE: Code = Code(9);
    pub(super) const OFFSET_METADATA_TOO_LARGE: Code = Code(12);
    pub(super) const NETWORK_EXCEPTION: Code = Code(13);
    pub(super) const COORDINATOR_LOAD_IN_PROGRESS: Code = Code(14);
    pub(super) const COORDINATOR_NOT_AVAILABLE: Code = Code(15);
    pub(super) const NOT_COORDINATOR: Code = Code(16);
    pub(super) const NOT_ENOUGH_REPLICAS: Code = Code(19);
    pub(super) const NOT_ENOUGH_REPLICAS_AFTER_APPEND: Code = Code(20);
    pub(super) const ILLEGAL_GENERATION: Code = Code(22);
    pub(super) const INCONSISTENT_GROUP_PROTOCOL: Code = Code(23);
    pub(super) const INVALID_GROUP_ID: Code = Code(24);
    pub(super) const UNKNOWN_MEMBER_ID: Code = Code(25);
    pub(super) const INVALID_SESSION_TIMEOUT: Code = Code(26);
    pub(super) const REBALANCE_IN_PROGRESS: Code = Code(27);
    pub(super) const INVALID_COMMIT_OFFSET_SIZE: Code = Code(28);
    pub(super) const TOPIC_AUTHORIZATION_FAILED: Code = Code(29);
    pub(super) const GROUP_AUTHORIZATION_FAILED: Code = Code(30);
    pub(super) const CLUSTER_AUTHORIZATION_FAILED: Code = Code(31);
    pub(super) const UNSUPPORTED_SASL_MECHANISM: Code = Code(33);
    pub(super) const ILLEGAL_SASL_STATE: Code = Code(34);
    pub(super) const UNSUPPORTED_VERSION: Code = Code(35);
    pub(super) const INVALID_REQUEST: Code = Code(42);
    pub(super) const INVALID_PRODUCER_EPOCH: Code = Code(47);
    pub(super) const INVALID_TRANSACTION_TIMEOUT: Code = Code(50);
    pub(super) const CONCURRENT_TRANSACTIONS: Code = Code(51);
    pub(super) const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Code = Code(53);
    pub(super) const KAFKA_STORAGE_ERROR: Code = Code(56);
    pub(super) const SASL_AUTHENTICATION_FAILED: Code = Code(58);
    pub(super) const GROUP_ID_NOT_FOUND: Code = Code(69);
    pub(super) const FENCED_LEADER_EPOCH: Code = Code(74);
    pub(super) const UNKNOWN_LEADER_EPOCH: Code = Code(75);
    pub(super) const OFFSET_NOT_AVAILABLE: Code = Code(78);
    pub(super) const MEMBER_ID_REQUIRED: Code = Code(79);
    pub(super) const GROUP_MAX_SIZE_REACHED: Code = Code(81);
    pub(super) const FENCED_INSTANCE_ID: Code = Code(82);
    pub(super) const UNSTABLE_OFFSET_COMMIT: Code = Code(88);
    pub(super) const PRODUCER_FENCED: Code = Code(90);
    pub(super) const TRANSACTIONAL_ID_NOT_FOUND: Code = Code(105);
    pub(super) const FENCED_MEMBER_EPOCH: Code = Code(110);
    pub(super) const STALE_MEMBER_EPOCH: Code = Code(113);

    /// The broker asked does not coordinate (any more): it has to be looked for again.
    pub(super) fn is_elsewhere(self) -> bool {
        matches!(self, Code::COORDINATOR_NOT_AVAILABLE | Code::NOT_COORDINATOR)
    }

    /// Nothing was done, and the same request does better a little later.
    pub(super) fn passes(self) -> bool {
        self.is_elsewhere()
            || matches!(
                self,
                Code::COORDINATOR_LOAD_IN_PROGRESS
                    | Code::REQUEST_TIMED_OUT
                    | Code::NETWORK_EXCEPTION
                    | Code::NOT_ENOUGH_REPLICAS
                    | Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            )
    }

    /// A partition cannot be read there for now: it has another leader, or gets one, or its disk is gone.
    pub(super) fn passes_with_a_leader(self) -> bool {
        matches!(
            self,
            Code::LEADER_NOT_AVAILABLE
                | Code::NOT_LEADER_OR_FOLLOWER
                | Code::REQUEST_TIMED_OUT
                | Code::BROKER_NOT_AVAILABLE
                | Code::REPLICA_NOT_AVAILABLE
                | Code::NETWORK_EXCEPTION
                | Code::KAFKA_STORAGE_ERROR
                | Code::FENCED_LEADER_EPOCH
                | Code::UNKNOWN_LEADER_EPOCH
                | Code::OFFSET_NOT_AVAILABLE
                | Code::UNKNOWN_SERVER_ERROR
        )
    }

    /// What the broker denies this principal, with the remedy.
    pub(super) fn denial(self) -> Option<&'static str> {
        Some(match self {
            Code::TOPIC_AUTHORIZATION_FAILED => {
                "the principal lacks rights on a topic; grant READ and DESCRIBE on the source topics"
            }
            Code::GROUP_AUTHORIZATION_FAILED => {
                "the principal lacks rights on the group; grant READ on the application id"
            }
            Code::CLUSTER_AUTHORIZATION_FAILED => {
                "the principal lacks rights on the cluster; grant CREATE, IDEMPOTENT_WRITE"
            }
            Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => {
                "the principal lacks rights on the transactional id; grant WRITE on ids that begin with the application id"
            }
            Code::UNSUPPORTED_SASL_MECHANISM => "the broker does not offer this sasl.mechanism",
            Code::SASL_AUTHENTICATION_FAILED | Code::ILLEGAL_SASL_STATE => {
                "the broker refused the credentials; check security.protocol, sasl.mechanism, sasl.username, sasl.password"
            }
            _ => return None,
        })
    }

    /// What the caller of [`GroupOffsets`](crate::membership::classic::protocol::GroupOffsets) can do.
    pub(super) fn kind(self) -> ErrorKind {
        match self {
            Code::ILLEGAL_GENERATION
            | Code::UNKNOWN_MEMBER_ID
            | Code::FENCED_INSTANCE_ID
            | Code::FENCED_MEMBER_EPOCH
            | Code::STALE_MEMBER_EPOCH => ErrorKind::Fenced,
            Code::UNKNOWN_TOPIC_OR_PARTITION
            | Code::OFFSET_METADATA_TOO_LARGE
            | Code::INVALID_COMMIT_OFFSET_SIZE
            | Code::INVALID_GROUP_ID
            | Code::UNSUPPORTED_VERSION
            | Code::INVALID_REQUEST
            | Code::INVALID_TRANSACTION_TIMEOUT => ErrorKind::Invalid,
            code if code.denial().is_some() => ErrorKind::Invalid,
            _ => ErrorKind::Unavailable,
        }
    }

    /// Why a member was refused. `member` is the id that a response to a join carries.
    pub(super) fn refusal(self, member: &str) -> GroupError {
        match self {
            Code::MEMBER_ID_REQUIRED => GroupError::MemberIdRequired(member.to_owned()),
            Code::UNKNOWN_MEMBER_ID => GroupError::UnknownMemberId,
            Code::ILLEGAL_GENERATION => GroupError::IllegalGeneration,
            Code::FENCED_INSTANCE_ID => GroupError::FencedInstance,
            Code::REBALANCE_IN_PROGRESS => GroupError::RebalanceInProgress,
            Code::INVALID_SESSION_TIMEOUT => GroupError::InvalidSessionTimeout,
            Code::INCONSISTENT_GROUP_PROTOCOL => GroupError::InconsistentProtocol,
            Code::GROUP_MAX_SIZE_REACHED => GroupError::MaxSizeReached,
            code => match code.denial() {
                Some(text) => GroupError::Denied(text.to_owned()),
                None => GroupError::Other(code.0, code.name().to_owned()),
            },
        }
    }

    /// Why a member of a streams group was refused.
    pub(super) fn streams_refusal(self) -> StreamsError {
        match self {
            Code::UNKNOWN_MEMBER_ID => StreamsError::UnknownMember,
            Code::FENCED_MEMBER_EPOCH => StreamsError::FencedEpoch,
            // GROUP_ID_NOT_FOUND: there is a group of this name, of another kind.
            Code(69) | Code::INCONSISTENT_GROUP_PROTOCOL => StreamsError::OtherGroup,
            Code::INVALID_REQUEST => StreamsError::InvalidRequest,
            Code(130..=132) => StreamsError::InvalidTopology,
            Code::GROUP_MAX_SIZE_REACHED => StreamsError::MaxSizeReached,
            Code::TOPIC_AUTHORIZATION_FAILED | Code::CLUSTER_AUTHORIZATION_FAILED => StreamsError::TopicsDenied,
            Code::GROUP_AUTHORIZATION_FAILED | Code::INVALID_GROUP_ID => StreamsError::Denied,
            Code::UNSUPPORTED_VERSION => StreamsError::Unsupported,
            other => StreamsError::Other(other.0),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Code::UNKNOWN_SERVER_ERROR => "unknown server error",
            Code::UNKNOWN_TOPIC_OR_PARTITION => "unknown topic or partition",
            Code::LEADER_NOT_AVAILABLE => "leader not available",
            Code::NOT_LEADER_OR_FOLLOWER => "not leader or follower",
            Code::REQUEST_TIMED_OUT => "request timed out",
            Code::OFFSET_METADATA_TOO_LARGE => "offset metadata too large",
            Code::NETWORK_EXCEPTION => "network exception",
            Code::COORDINATOR_LOAD_IN_PROGRESS => "coordinator load in progress",
            Code::COORDINATOR_NOT_AVAILABLE => "coordinator not available",
            Code::NOT_COORDINATOR => "not coordinator",
            Code::NOT_ENOUGH_REPLICAS | Code::NOT_ENOUGH_REPLICAS_AFTER_APPEND => "not enough replicas",
            Code::ILLEGAL_GENERATION => "illegal generation",
            Code::INCONSISTENT_GROUP_PROTOCOL => "inconsistent group protocol",
            Code::INVALID_GROUP_ID => "invalid group id",
            Code::UNKNOWN_MEMBER_ID => "unknown member id",
            Code::INVALID_SESSION_TIMEOUT => "invalid session timeout",
            Code::REBALANCE_IN_PROGRESS => "rebalance in progress",
            Code::INVALID_COMMIT_OFFSET_SIZE => "invalid commit offset size",
            Code::TOPIC_AUTHORIZATION_FAILED => "topic authorization failed",
            Code::GROUP_AUTHORIZATION_FAILED => "group authorization failed",
            Code::CLUSTER_AUTHORIZATION_FAILED => "cluster authorization failed",
            Code::UNSUPPORTED_SASL_MECHANISM => "unsupported sasl mechanism",
            Code::ILLEGAL_SASL_STATE => "illegal sasl state",
            Code::UNSUPPORTED_VERSION => "unsupported version",
            Code::INVALID_REQUEST => "invalid request",
            Code::INVALID_PRODUCER_EPOCH => "invalid producer epoch",
            Code::INVALID_TRANSACTION_TIMEOUT => "invalid transaction timeout",
            Code::CONCURRENT_TRANSACTIONS => "concurrent transactions",
            Code::TRANSACTIONAL_ID_AUTHORIZATION_FAILED => "transactional id authorization failed",
            Code::SASL_AUTHENTICATION_FAILED => "sasl authentication failed",
            Code::GROUP_ID_NOT_FOUND => "group id not found",
            Code::MEMBER_ID_REQUIRED => "member id required",
            Code::GROUP_MAX_SIZE_REACHED => "group max size reached",
            Code::FENCED_INSTANCE_ID => "fenced instance id",
            Code::UNSTABLE_OFFSET_COMMIT => "unstable offset commit",
            Code::PRODUCER_FENCED => "producer fenced",
            Code::TRANSACTIONAL_ID_NOT_FOUND => "transactional id not found",
            Code::FENCED_MEMBER_EPOCH => "fenced member epoch",
            Code::STALE_MEMBER_EPOCH => "stale member epoch",
            Code::OFFSET_OUT_OF_RANGE => "offset out of range",
            Code::BROKER_NOT_AVAILABLE => "broker not available",
            Code::REPLICA_NOT_AVAILABLE => "replica not available",
            Code::KAFKA_STORAGE_ERROR => "storage error",
            Code::FENCED_LEADER_EPOCH => "fenced leader epoch",
            Code::UNKNOWN_LEADER_EPOCH => "unknown leader epoch",
            Code::OFFSET_NOT_AVAILABLE => "offset not available",
            _ => "an error of the broker",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_place_in_the_group_is_fenced_and_a_lack_of_rights_invalid() {
        assert_eq!(Code::ILLEGAL_GENERATION.kind(), ErrorKind::Fenced);
        assert_eq!(Code::GROUP_AUTHORIZATION_FAILED.kind(), ErrorKind::Invalid);
        assert_eq!(Code::COORDINATOR_LOAD_IN_PROGRESS.kind(), ErrorKind::Unavailable);
        assert_eq!(Code(12_345).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn a_refusal_carries_what_a_member_acts_upon() {
        assert_eq!(Code::MEMBER_ID_REQUIRED.refusal("m"), GroupError::MemberIdRequired("m".to_owned()));
        assert!(
            matches!(Code::GROUP_AUTHORIZATION_FAILED.refusal(""), GroupError::Denied(text) if text.contains("READ"))
        );
        assert!(matches!(Code(12_345).refusal(""), GroupError::Other(12_345, _)));
    }

    /// By Kafka's numbers: 74 and 75 are of leader epochs, 76 is an unknown compression.
    #[test]
    fn epochs_of_leaders_pass_and_compressions_do_not() {
        let passing: Vec<i16> = (70..80).filter(|number| Code(*number).passes_with_a_leader()).collect();
        assert_eq!(passing, [74, 75, 78]);
    }
}

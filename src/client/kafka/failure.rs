//! What librdkafka reports when something fails, and what the caller can do about it.

use std::fmt;

use rdkafka_sys::RDKafkaErrorCode as Code;

use crate::error::{Error, ErrorKind};

/// One error of librdkafka.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) code: Code,
    pub(super) text: String,
    /// The handle is dead.
    pub(super) fatal: bool,
    /// The open transaction must be aborted.
    pub(super) requires_abort: bool,
    /// The same call may be repeated.
    pub(super) retriable: bool,
}

impl Failure {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into(), fatal: false, requires_abort: false, retriable: false }
    }

    /// What was being done goes in front, what can be done about it behind.
    pub(super) fn while_doing(self, doing: impl fmt::Display) -> Error {
        let kind = classify(&self);
        let context = match remedy(self.code) {
            Some(remedy) => format!("{doing}: {remedy}"),
            None => doing.to_string(),
        };
        Error::new(kind, context).with_source(self)
    }

    /// The same call may be repeated, and nothing else is wrong.
    pub(super) fn only_repeat(&self) -> bool {
        self.retriable && !self.fatal && !self.requires_abort
    }

    /// Nobody answered: what the connections said last tells why.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self.code,
            Code::OperationTimedOut
                | Code::MessageTimedOut
                | Code::TimedOutQueue
                | Code::RequestTimedOut
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::WaitingForCoordinator
                | Code::Retry
        )
    }

    pub(super) fn is_denied_access(&self) -> bool {
        matches!(
            self.code,
            Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::UnsupportedSASLMechanism
                | Code::IllegalSASLState
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::SSL
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.text, self.code)
    }
}

impl std::error::Error for Failure {}

/// What the caller can do. The order of the checks is librdkafka's own rule (rdkafka.h, "Handling of other errors").
pub(super) fn classify(failure: &Failure) -> ErrorKind {
    if failure.fatal {
        // No new producer changes what a principal may do.
        if failure.is_denied_access() {
            return ErrorKind::Invalid;
        }
        // A twin, or the coordinator timed the transaction out and raised the epoch (librdkafka does not speak KIP-588),
        // or a broker with transaction version 2 aborted it under us (INVALID_TXN_STATE), or the producer's id has
        // expired: the handle is dead, the open transaction is lost, and a new producer finds out what became of it.
        return ErrorKind::Fenced;
    }
    if failure.requires_abort {
        // A record was not delivered, or the member has lost its generation: the transaction cannot commit any more, the
        // producer can go on.
        return ErrorKind::Aborted;
    }
    if failure.retriable {
        // The call goes on in the background; the same call waits for it.
        return ErrorKind::Unavailable;
    }
    if failure.is_denied_access() {
        return ErrorKind::Invalid;
    }
    match failure.code {
        // The group has gone on without this member: its tasks are somebody else's.
        Code::IllegalGeneration
        | Code::UnknownMemberId
        | Code::FencedInstanceId
        | Code::AssignmentLost
        | Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::FencedMemberEpoch
        | Code::StaleMemberEpoch => ErrorKind::Fenced,
        // Something that the user named or configured does not exist or does not fit.
        Code::UnknownTopic
        | Code::UnknownPartition
        | Code::UnknownTopicOrPartition
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidReplicaAssignment
        | Code::InvalidConfig
        | Code::InvalidArgument
        | Code::InvalidRequest
        | Code::InvalidTransactionTimeout
        | Code::InvalidSessionTimeout
        | Code::InvalidTimestamp
        | Code::InvalidRecord
        | Code::InconsistentGroupProtocol
        | Code::InvalidGroupId
        | Code::MessageSizeTooLarge
        | Code::InvalidMessageSize
        | Code::PolicyViolation
        | Code::TopicDeletionDisabled
        | Code::UnsupportedFeature
        | Code::UnsupportedVersion
        | Code::OffsetMetadataTooLarge => ErrorKind::Invalid,
        // Not even tried, because something before it in the transaction has failed.
        Code::PurgeQueue | Code::PurgeInflight => ErrorKind::Aborted,
        // Calls in the wrong order, or a handle that is being closed: ours to mend.
        Code::State | Code::Conflict | Code::InProgress | Code::NotImplemented | Code::UnknownGroup => {
            ErrorKind::Internal
        }
        Code::InvalidMessage | Code::BadMessage | Code::BadCompression => ErrorKind::Corrupted,
        // Elections, restarts, timeouts, rebalances, full queues: they pass.
        _ => ErrorKind::Unavailable,
    }
}

fn remedy(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::Authentication | Code::SaslAuthenticationFailed => {
            "the broker refused the credentials; check security.protocol, sasl.mechanism, sasl.username, sasl.password"
        }
        Code::UnsupportedSASLMechanism => "the broker does not offer this sasl.mechanism",
        Code::SSL => "the TLS handshake failed; check security.protocol and ssl.ca.location",
        Code::TopicAuthorizationFailed => "the principal lacks rights on the topic; grant READ, WRITE and DESCRIBE",
        Code::GroupAuthorizationFailed => "the principal lacks rights on the group; grant READ on the application id",
        Code::ClusterAuthorizationFailed => "the principal lacks rights on the cluster; grant CREATE, IDEMPOTENT_WRITE",
        Code::TransactionalIdAuthorizationFailed => {
            "the principal lacks rights on the transactional id; grant WRITE on ids that begin with the application id"
        }
        Code::UnknownTopic | Code::UnknownTopicOrPartition => "it does not exist; create the topic",
        Code::UnknownPartition => "the topic has fewer partitions",
        Code::InvalidReplicationFactor => "there are fewer brokers than replicas; lower the replication factor",
        Code::InvalidSessionTimeout => {
            "session.timeout.ms is outside of the broker's group.min.session.timeout.ms and group.max.session.timeout.ms"
        }
        Code::InvalidTransactionTimeout => "the transaction timeout exceeds the broker's transaction.max.timeout.ms",
        Code::InconsistentGroupProtocol => "other members of the group use another protocol or assignor; stop them",
        Code::MessageSizeTooLarge => "raise message.max.bytes of the topic and the producer",
        Code::FencedInstanceId => "another process uses the same group instance id",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: Code, flags: &str) -> Failure {
        Failure {
            fatal: flags.contains('f'),
            requires_abort: flags.contains('a'),
            retriable: flags.contains('r'),
            ..Failure::new(code, "text")
        }
    }

    #[test]
    fn a_fatal_error_outranks_abort_and_retry() {
        assert_eq!(classify(&failure(Code::Fenced, "far")), ErrorKind::Fenced);
        assert_eq!(classify(&failure(Code::InvalidTransactionalState, "f")), ErrorKind::Fenced);
        assert_eq!(classify(&failure(Code::TransactionalIdAuthorizationFailed, "f")), ErrorKind::Invalid);
    }

    #[test]
    fn an_abortable_error_outranks_retry_and_its_own_code() {
        assert_eq!(classify(&failure(Code::IllegalGeneration, "ar")), ErrorKind::Aborted);
        assert_eq!(classify(&failure(Code::MessageTimedOut, "a")), ErrorKind::Aborted);
    }

    #[test]
    fn a_retriable_error_is_unavailable() {
        assert_eq!(classify(&failure(Code::OperationTimedOut, "r")), ErrorKind::Unavailable);
    }

    #[test]
    fn a_plain_error_is_told_by_its_code() {
        for (code, kind) in [
            (Code::UnknownMemberId, ErrorKind::Fenced),
            (Code::UnknownTopicOrPartition, ErrorKind::Invalid),
            (Code::SaslAuthenticationFailed, ErrorKind::Invalid),
            (Code::NotEnoughReplicas, ErrorKind::Unavailable),
            (Code::RebalanceInProgress, ErrorKind::Unavailable),
            (Code::State, ErrorKind::Internal),
        ] {
            assert_eq!(classify(&failure(code, "")), kind, "{code:?}");
        }
    }

    #[test]
    fn the_message_names_what_was_done_and_the_remedy() {
        let error = failure(Code::UnknownTopicOrPartition, "").while_doing("could not read orders[3]");
        assert_eq!(error.to_string(), "could not read orders[3]: it does not exist; create the topic");
        assert_eq!(error.report(), format!("{error}: text (UnknownTopicOrPartition)"));
    }
}

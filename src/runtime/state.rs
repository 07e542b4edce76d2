//! The states of a client.

use std::fmt;

/// What a [`KafkaStreams`](crate::KafkaStreams) client is doing, as in Java.
///
/// ```text
///   Created -> Rebalancing <-> Running
///      |           |              |
///      +-----------+--------------+--> PendingShutdown -> NotRunning
///                  +--------------+--> PendingError    -> Error
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Not started.
    Created,
    /// Tasks are being assigned or restored; those that are ready process records.
    Rebalancing,
    /// Every task of this instance is restored and processes records.
    Running,
    /// Closing.
    PendingShutdown,
    /// Closed. Cannot be started again.
    NotRunning,
    /// Closing after a fatal error.
    PendingError,
    /// Ended by a fatal error. Cannot be started again.
    Error,
}

impl State {
    /// Whether nothing follows this state.
    pub fn is_terminal(self) -> bool {
        matches!(self, State::NotRunning | State::Error)
    }

    /// Whether the client works or begins to.
    pub fn is_running_or_rebalancing(self) -> bool {
        matches!(self, State::Running | State::Rebalancing)
    }

    /// Java's number of the state, for metrics.
    pub(super) fn number(self) -> f64 {
        f64::from(self as u8)
    }

    pub(super) fn may_become(self, next: State) -> bool {
        match self {
            State::Created => matches!(next, State::Rebalancing | State::PendingShutdown),
            State::Rebalancing => matches!(next, State::Running | State::PendingShutdown | State::PendingError),
            State::Running => matches!(next, State::Rebalancing | State::PendingShutdown | State::PendingError),
            State::PendingShutdown => next == State::NotRunning,
            State::PendingError => next == State::Error,
            State::NotRunning | State::Error => false,
        }
    }
}

/// Java's names: `PENDING_SHUTDOWN`.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Created => "CREATED",
            State::Rebalancing => "REBALANCING",
            State::Running => "RUNNING",
            State::PendingShutdown => "PENDING_SHUTDOWN",
            State::NotRunning => "NOT_RUNNING",
            State::PendingError => "PENDING_ERROR",
            State::Error => "ERROR",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_a_terminal_state() {
        let all = [
            State::Created,
            State::Rebalancing,
            State::Running,
            State::PendingShutdown,
            State::NotRunning,
            State::PendingError,
            State::Error,
        ];
        for state in all {
            assert_eq!(all.iter().any(|next| state.may_become(*next)), !state.is_terminal(), "{state}");
        }
        assert!(!State::PendingError.may_become(State::Running));
    }
}

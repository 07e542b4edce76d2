//! The cluster's time, and the caller's patience.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What gives records their time, ends transactions that take too long and lets records grow old.
#[derive(Debug, Clone, Copy)]
pub(super) enum Clock {
    Real,
    /// Moves only when it is told to.
    Virtual {
        now_ms: i64,
    },
}

impl Clock {
    /// Milliseconds since the epoch.
    #[expect(clippy::disallowed_methods, reason = "the clock of a broker: nothing of a task reads it")]
    pub(super) fn now(self) -> i64 {
        match self {
            Clock::Real => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| ms(since).min(i64::MAX - 1)),
            Clock::Virtual { now_ms } => now_ms,
        }
    }

    pub(super) fn advance(&mut self, by: Duration) {
        if let Clock::Virtual { now_ms } = self {
            *now_ms = now_ms.saturating_add(ms(by));
        }
    }
}

/// How long a call may still block, always by the machine's clock: a virtual one stands still while a thread waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience(Option<Instant>);

impl Patience {
    #[expect(clippy::disallowed_methods, reason = "a call that blocks ends by the machine's clock")]
    pub(super) fn new(timeout: Duration) -> Patience {
        // None: the timeout is beyond what the clock can count, so it never ends.
        Patience(Instant::now().checked_add(timeout))
    }

    /// What is left; none when it has run out.
    #[expect(clippy::disallowed_methods, reason = "a call that blocks ends by the machine's clock")]
    pub(super) fn left(self) -> Option<Duration> {
        match self.0 {
            Some(until) => until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()),
            None => Some(Duration::MAX),
        }
    }
}

pub(super) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

//! The one clock. A thread reads it once a turn and hands the time on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What time it is, twice: by the calendar, which may jump, and for measuring, which does not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Milliseconds since the epoch.
    pub wall_ms: i64,
    at: Instant,
}

impl Now {
    #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
    pub(super) fn read() -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX), at: Instant::now() }
    }

    pub(super) fn system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(u64::try_from(self.wall_ms).unwrap_or(0))
    }

    pub(super) fn since(self, earlier: Now) -> Duration {
        self.at.saturating_duration_since(earlier.at)
    }
}

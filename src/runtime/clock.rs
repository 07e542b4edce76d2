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
        #[cfg(all(test, feature = "testing"))]
        if let Some(now) = simulated::now() {
            return now;
        }
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

/// The time of a simulation: that of one thread, which does the work of all the others in it.
#[cfg(all(test, feature = "testing"))]
pub(super) mod simulated {
    use std::cell::Cell;

    use super::{Duration, Instant, Now};

    thread_local! {
        static NOW: Cell<Option<Now>> = const { Cell::new(None) };
        /// How far the calendar of the machine at work is off, in ms.
        static JUMPED: Cell<i64> = const { Cell::new(0) };
    }

    pub(super) fn now() -> Option<Now> {
        NOW.get().map(|now| Now { wall_ms: now.wall_ms + JUMPED.get(), ..now })
    }

    /// By the calendar of the machine at work; 0 outside of a simulation.
    pub(in crate::runtime) fn wall_ms() -> i64 {
        now().map_or(0, |now| now.wall_ms)
    }

    /// Sets a machine's calendar; how far that of the machine before it was off.
    pub(in crate::runtime) fn jump(to_ms: i64) -> i64 {
        JUMPED.replace(to_ms)
    }

    /// Stops the thread's clock, until the guard is dropped.
    #[expect(clippy::disallowed_methods, reason = "any instant will do to count from")]
    pub(in crate::runtime) fn begin(wall_ms: i64) -> Simulated {
        NOW.set(Some(Now { wall_ms, at: Instant::now() }));
        Simulated
    }

    pub(in crate::runtime) fn advance(by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        NOW.set(NOW.get().map(|Now { wall_ms, at }| Now { wall_ms: wall_ms + by_ms, at: at + by }));
    }

    #[derive(Debug)]
    pub(in crate::runtime) struct Simulated;

    impl Drop for Simulated {
        fn drop(&mut self) {
            NOW.set(None);
            JUMPED.set(0);
        }
    }
}

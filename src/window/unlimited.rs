//! One window for everything.

use super::Window;

/// A window without an end, for all records from its start on; earlier records are in no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnlimitedWindows {
    start_ms: i64,
}

impl UnlimitedWindows {
    /// From the epoch on.
    pub fn of() -> UnlimitedWindows {
        UnlimitedWindows { start_ms: 0 }
    }

    /// From this time on, in milliseconds since the epoch; not negative.
    #[must_use]
    pub fn start_on(self, start_ms: i64) -> UnlimitedWindows {
        UnlimitedWindows { start_ms }
    }

    /// The window of a record; none before the start.
    pub(crate) fn window_for(&self, timestamp: i64) -> Option<Window> {
        (timestamp >= self.start_ms).then_some(Window::new(self.start_ms, i64::MAX))
    }

    /// A sentence for `build` where the start makes no sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.start_ms < 0 {
            return Err(format!("a window begins at {}, before the epoch: let it begin at 0 or later", self.start_ms));
        }
        Ok(())
    }
}

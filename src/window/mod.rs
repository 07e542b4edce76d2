//! Windows: finite pieces of a stream's time, and which of them a record belongs to.
//!
//! | kind | contains | windows of a record |
//! |---|---|---|
//! | [`TimeWindows`] | `start ≤ t < end` | those of a fixed grid: one (tumbling), or several (hopping) |
//! | [`SlidingWindows`] | `start ≤ t ≤ end` | those that begin or end at a record |
//! | [`SessionWindows`] | `start ≤ t ≤ end` | one; it grows while no gap is longer than the inactivity gap |
//! | [`UnlimitedWindows`] | `start ≤ t` | one |
//! | [`CountWindows`] | `first ≤ number < first + size` | those of a grid of record numbers |
//! | [`JoinWindows`] | `t - before ≤ other ≤ t + after` | its own, to look for partners in |
//!
//! Sizes that make no sense (zero, an advance longer than the window) are told by `build`, with the other mistakes of a
//! topology.

mod count;
mod join_windows;
mod session;
mod sliding;
mod time;
mod unlimited;

use std::fmt;
use std::time::Duration;

pub use count::{CountWindows, Counted};
pub use join_windows::JoinWindows;
pub use session::SessionWindows;
pub use sliding::SlidingWindows;
pub use time::TimeWindows;
pub use unlimited::UnlimitedWindows;

/// A window: milliseconds since the epoch. Whether a record at `end` is inside depends on the kind of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first millisecond.
    pub start: i64,
    /// The first millisecond after it (time windows), or the last one inside (sliding and session windows).
    pub end: i64,
}

impl Window {
    /// The window from `start` to `end`, in milliseconds since the epoch.
    pub fn new(start: i64, end: i64) -> Window {
        Window { start, end }
    }
}

/// A key together with a window: what the rows of windowed tables are found by.
///
/// ```
/// use kstreams::{Window, Windowed};
///
/// let clicks = Windowed { key: "home", window: Window::new(60_000, 120_000) };
/// assert_eq!(clicks.to_string(), "[home@60000/120000]");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Windowed<K> {
    /// The key of the records.
    pub key: K,
    /// The time they are of.
    pub window: Window,
}

impl<K> Windowed<K> {
    /// A key in a window.
    pub fn new(key: K, window: Window) -> Windowed<K> {
        Windowed { key, window }
    }
}

impl<K: fmt::Display> fmt::Display for Windowed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}@{}/{}]", self.key, self.window.start, self.window.end)
    }
}

/// Windows that a window store has rows for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoredWindows {
    Time(TimeWindows),
    Sliding(SlidingWindows),
    Unlimited(UnlimitedWindows),
}

impl StoredWindows {
    /// From the start of a window to its end.
    pub(crate) fn size_ms(&self) -> i64 {
        match self {
            StoredWindows::Time(windows) => windows.size_ms(),
            StoredWindows::Sliding(windows) => windows.difference_ms(),
            StoredWindows::Unlimited(_) => i64::MAX,
        }
    }

    pub(crate) fn grace_ms(&self) -> i64 {
        match self {
            StoredWindows::Time(windows) => windows.grace_ms(),
            StoredWindows::Sliding(windows) => windows.grace_ms(),
            StoredWindows::Unlimited(_) => 0,
        }
    }

    /// How long the store has to keep rows behind its time. A sliding window is needed until the last one that it may be
    /// copied to has closed.
    pub(crate) fn retention_ms_min(&self) -> i64 {
        let windows = match self {
            StoredWindows::Sliding(windows) => windows.difference_ms().saturating_mul(2),
            StoredWindows::Time(_) | StoredWindows::Unlimited(_) => self.size_ms(),
        };
        windows.saturating_add(self.grace_ms())
    }
}

/// Milliseconds of a duration; a part of one is cut off, and what does not fit is the longest there is, which
/// [`check_fits`] refuses.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A sentence for `build` where a length cannot be added to a time.
pub(crate) fn check_fits(what: &str, millis: i64) -> Result<(), String> {
    if millis == i64::MAX {
        return Err(format!("{what} is too long: take one of less than {} ms", i64::MAX));
    }
    Ok(())
}

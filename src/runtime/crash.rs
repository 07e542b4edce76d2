//! Places where a test can end everything, to see what a restart finds.

#[cfg(feature = "testing")]
pub(super) use named::CrashPoint;
#[cfg(not(feature = "testing"))]
pub(super) use nowhere::CrashPoint;

/// The places, in the order of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Records were processed and handed to the producer; nothing was said about offsets.
    Drained,
    Confirmed,
    OffsetsSent,
    /// The transaction is committed and no store knows of it.
    Committed,
    /// One task has applied the commit, the others have not.
    AppliedOne,
}

#[cfg(not(feature = "testing"))]
mod nowhere {
    use super::Step;
    use crate::config::Config;
    use crate::error::Result;

    /// Compiled to nothing.
    #[derive(Debug, Default)]
    pub(in crate::runtime) struct CrashPoint;

    impl CrashPoint {
        pub(in crate::runtime) fn new(_: &Config) -> CrashPoint {
            CrashPoint
        }

        #[inline]
        pub(in crate::runtime) fn pass(&self, _: Step) -> Result<()> {
            Ok(())
        }

        pub(in crate::runtime) fn has_crashed(&self) -> bool {
            false
        }
    }
}

#[cfg(feature = "testing")]
mod named {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::Step;
    use crate::config::Config;
    use crate::error::{Error, ErrorKind, Result};

    /// The variable that ends the whole process at a step: `KSTREAMS_CRASH_AT=committed`, or `committed:3` for the third
    /// time it is passed.
    const VARIABLE: &str = "KSTREAMS_CRASH_AT";

    /// Where this application ends, if anywhere. The threads stop without closing, committing or aborting anything.
    #[derive(Debug, Default)]
    pub(in crate::runtime) struct CrashPoint {
        step: Option<(String, u64)>,
        ends_process: bool,
        passed: AtomicU64,
        crashed: AtomicBool,
    }

    impl CrashPoint {
        pub(in crate::runtime) fn new(config: &Config) -> CrashPoint {
            let variable = std::env::var(VARIABLE).ok();
            let ends_process = config.crash_at.is_none() && variable.is_some();
            let step = config.crash_at.clone().or(variable).map(|step| match step.split_once(':') {
                Some((name, times)) => (name.to_owned(), times.parse().unwrap_or(1)),
                None => (step, 1),
            });
            CrashPoint { step, ends_process, ..CrashPoint::default() }
        }

        pub(in crate::runtime) fn pass(&self, step: Step) -> Result<()> {
            let Some((name, times)) = &self.step else { return Ok(()) };
            let is_here = *name == name_of(step) && self.passed.fetch_add(1, Ordering::SeqCst) + 1 == *times;
            if is_here && self.ends_process {
                std::process::abort();
            }
            if is_here {
                self.crashed.store(true, Ordering::SeqCst);
            }
            if self.has_crashed() {
                return Err(Error::new(ErrorKind::Closed, format!("crashed on purpose at step {name}")));
            }
            Ok(())
        }

        pub(in crate::runtime) fn has_crashed(&self) -> bool {
            self.crashed.load(Ordering::SeqCst)
        }
    }

    fn name_of(step: Step) -> &'static str {
        match step {
            Step::Drained => "drained",
            Step::Confirmed => "confirmed",
            Step::OffsetsSent => "offsets-sent",
            Step::Committed => "committed",
            Step::AppliedOne => "applied-one",
        }
    }
}

//! What a case comes to.

use std::fmt;

/// Why a case cannot be run to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stop {
    /// Something the library does not have yet, by name.
    Missing(String),
    /// Something that Rust's types rule out: the case of `tests/compile_errors` that stands in.
    Inexpressible(&'static str),
}

pub(crate) fn missing(what: impl Into<String>) -> Stop {
    Stop::Missing(what.into())
}

pub(crate) fn inexpressible(compile_error: &'static str) -> Stop {
    Stop::Inexpressible(compile_error)
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    Passed,
    /// What differs, one line each.
    Failed(Vec<String>),
    Unsupported(String),
    /// Our own documented outcome holds.
    Deviating(String),
    /// The compiler says it instead: in this case of `tests/compile_errors`, until the list has given the reason.
    Inexpressible(String),
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Outcome {
        match stop {
            Stop::Missing(what) => Outcome::Unsupported(what),
            Stop::Inexpressible(compile_error) => Outcome::Inexpressible(compile_error.to_owned()),
        }
    }
}

/// How many cases of a folder came to what.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) unsupported: usize,
    pub(crate) deviating: usize,
    pub(crate) inexpressible: usize,
}

impl Tally {
    pub(crate) fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Unsupported(_) => self.unsupported += 1,
            Outcome::Deviating(_) => self.deviating += 1,
            Outcome::Inexpressible(_) => self.inexpressible += 1,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { passed, failed, unsupported, deviating, inexpressible } = self;
        write!(
            f,
            "{passed} passed, {failed} failed, {unsupported} unsupported, {deviating} deviating, {inexpressible} \
             inexpressible"
        )
    }
}

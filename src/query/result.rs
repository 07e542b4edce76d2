//! What a query has given, partition by partition (KIP-796).

use std::collections::BTreeMap;

use super::failure::{FailureReason, QueryFailure};
use super::position::Position;
use crate::error::{Error, Result};

/// The answers to a [`StateQueryRequest`](crate::StateQueryRequest).
#[derive(Debug)]
pub struct StateQueryResult<R> {
    partitions: BTreeMap<i32, QueryResult<R>>,
    global: Option<QueryResult<R>>,
}

/// What one partition has answered.
#[derive(Debug)]
pub struct QueryResult<R> {
    outcome: Result<R, QueryFailure>,
    is_nothing: bool,
    position: Position,
    info: Vec<String>,
}

impl<R> StateQueryResult<R> {
    pub(super) fn new(
        partitions: BTreeMap<i32, QueryResult<R>>,
        global: Option<QueryResult<R>>,
    ) -> StateQueryResult<R> {
        StateQueryResult { partitions, global }
    }

    /// By partition; nothing of a global store.
    pub fn partition_results(&self) -> &BTreeMap<i32, QueryResult<R>> {
        &self.partitions
    }

    /// The same, to be taken apart.
    pub fn into_partition_results(self) -> BTreeMap<i32, QueryResult<R>> {
        self.partitions
    }

    /// Of a global store.
    pub fn global_result(&self) -> Option<&QueryResult<R>> {
        self.global.as_ref()
    }

    /// The one that has found something, for a query of a key; none: nothing was found. A global store counts as one.
    ///
    /// # Errors
    /// Where a partition has failed, and none has found anything: its error, of kind `Unavailable` when the same query may
    /// be answered later. `Invalid`: several have found something.
    pub fn only_partition_result(self) -> Result<Option<QueryResult<R>>> {
        let mut found = None;
        let mut failure = None;
        for result in self.partitions.into_values().chain(self.global) {
            match result.outcome {
                Err(failed) => failure = failure.or(Some(failed)),
                Ok(_) if result.is_nothing => {}
                Ok(_) if found.is_some() => {
                    return Err(Error::invalid(
                        "several partitions have an answer: ask one of them, or take all results",
                    ));
                }
                Ok(_) => found = Some(result),
            }
        }
        match (found, failure) {
            (Some(found), _) => Ok(Some(found)),
            (None, Some(failure)) => Err(failure.into_error()),
            (None, None) => Ok(None),
        }
    }

    /// How far the states were that have answered: a bound for the next query that sees no less.
    pub fn position(&self) -> Position {
        let results = self.partitions.values().chain(&self.global);
        results.fold(Position::new(), |position, result| position.merge(&result.position))
    }
}

impl<R> QueryResult<R> {
    pub(super) fn answered(answer: R, is_nothing: bool, position: Position) -> QueryResult<R> {
        QueryResult { outcome: Ok(answer), is_nothing, position, info: Vec::new() }
    }

    pub(super) fn failed(failure: QueryFailure) -> QueryResult<R> {
        QueryResult { outcome: Err(failure), is_nothing: true, position: Position::new(), info: Vec::new() }
    }

    pub(super) fn with_info(mut self, line: String) -> QueryResult<R> {
        self.info.push(line);
        self
    }

    /// Whether there is an answer.
    pub fn is_success(&self) -> bool {
        self.outcome.is_ok()
    }

    /// The answer; none: it has failed.
    pub fn result(&self) -> Option<&R> {
        self.outcome.as_ref().ok()
    }

    /// The answer, to be kept.
    ///
    /// # Errors
    /// Why there is none.
    pub fn into_result(self) -> Result<R, QueryFailure> {
        self.outcome
    }

    /// Why there is no answer; none: there is one.
    pub fn failure_reason(&self) -> Option<FailureReason> {
        self.outcome.as_ref().err().map(QueryFailure::reason)
    }

    /// The same in words, with the remedy.
    pub fn failure_message(&self) -> Option<String> {
        self.outcome.as_ref().err().map(ToString::to_string)
    }

    /// How far the state was at least; of copies nobody knows.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// How it came about, if that was asked for.
    pub fn execution_info(&self) -> &[String] {
        &self.info
    }
}

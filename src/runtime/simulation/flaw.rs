//! Broken on purpose: a simulation that finds nothing must have looked, so each of these has to be found by some seed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::scenario::Scenario;
use super::world::World;

/// What would be wrong with the library, as the rest of the world would see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Offsets are sent in the name of the group alone, which nothing fences.
    NamesNoMember,
    /// A commit that nobody has heard of is taken for one.
    BelievesCommits,
    /// A commit that nobody has heard of is taken for none: it is aborted, and processed again.
    TakesSilenceForNo,
    /// Stores take rows before their transaction has committed.
    AppliesBeforeCommit,
    /// What was not delivered is forgotten.
    IgnoresFailures,
    /// What is read again after an abort begins where it was.
    RewindsNothing,
    /// The dead are not fenced, and what they have left open is not waited for.
    SkipsFencing,
    /// A member does not say which tasks it has while others are dealt.
    ClaimsNothing,
    /// A task that was asked back is given away before it has committed.
    AcknowledgesFirst,
    /// Stores are restored with records that may never be committed.
    RestoresUncommitted,
    /// A copy of a store is taken as it is, though there is more in its changelog.
    TrustsStaleCopies,
    /// How far time is gets lost with the task.
    ForgetsTimes,
    /// A store's offset is not in the same batch as its rows.
    OffsetAhead,
    /// A store that was not used for long goes on, though its changelog has forgotten deletions.
    TrustsOldStores,
    /// The offsets of a commit are those of what was fetched, not of what was processed.
    CommitsTooFar,
}

/// Seeds that are tried for a flaw.
const SEEDS: u64 = 400;

#[track_caller]
fn assert_found(flaw: Flaw, scenario: Scenario) {
    let goes_wrong = |seed: &u64| {
        let world = || drop(World::new(*seed, scenario, Some(flaw)).run());
        catch_unwind(AssertUnwindSafe(world)).is_err()
    };
    let found = (0..SEEDS).find(goes_wrong);
    assert!(found.is_some(), "{flaw:?} is not found");
    eprintln!("{flaw:?} is found by seed {found:?}");
}

#[test]
fn offsets_that_name_no_member_are_found_out() {
    assert_found(Flaw::NamesNoMember, Scenario::Repartition);
}

#[test]
fn a_commit_that_is_believed_without_an_answer_is_found_out() {
    assert_found(Flaw::BelievesCommits, Scenario::Repartition);
}

#[test]
fn a_commit_that_is_disbelieved_without_an_answer_is_found_out() {
    assert_found(Flaw::TakesSilenceForNo, Scenario::Counts);
}

#[test]
fn rows_that_are_applied_before_their_commit_are_found_out() {
    assert_found(Flaw::AppliesBeforeCommit, Scenario::Counts);
}

#[test]
fn records_that_were_not_delivered_and_are_forgotten_are_found_out() {
    assert_found(Flaw::IgnoresFailures, Scenario::Repartition);
}

#[test]
fn a_rewind_that_keeps_its_place_is_found_out() {
    assert_found(Flaw::RewindsNothing, Scenario::Repartition);
}

#[test]
fn the_dead_that_are_not_fenced_are_found_out() {
    assert_found(Flaw::SkipsFencing, Scenario::Counts);
}

#[test]
fn a_member_that_claims_nothing_is_found_out() {
    assert_found(Flaw::ClaimsNothing, Scenario::Counts);
}

#[test]
fn a_task_that_is_given_away_before_its_commit_is_found_out() {
    assert_found(Flaw::AcknowledgesFirst, Scenario::Counts);
}

#[test]
fn uncommitted_records_in_a_restored_store_are_found_out() {
    assert_found(Flaw::RestoresUncommitted, Scenario::Counts);
}

#[test]
fn a_stale_copy_that_is_taken_as_it_is_is_found_out() {
    assert_found(Flaw::TrustsStaleCopies, Scenario::Counts);
}

#[test]
fn a_task_that_forgets_how_late_it_is_is_found_out() {
    assert_found(Flaw::ForgetsTimes, Scenario::Windows);
}

#[test]
fn an_offset_that_outlives_its_rows_is_found_out() {
    assert_found(Flaw::OffsetAhead, Scenario::Counts);
}

#[test]
fn deleted_rows_that_come_back_are_found_out() {
    assert_found(Flaw::TrustsOldStores, Scenario::Deletions);
}

#[test]
fn a_commit_of_what_was_not_processed_is_found_out() {
    assert_found(Flaw::CommitsTooFar, Scenario::Counts);
}

#[test]
fn records_that_were_not_delivered_and_are_forgotten_without_transactions_are_found_out() {
    assert_found(Flaw::IgnoresFailures, Scenario::AtLeastOnce);
}

#[test]
fn offsets_before_their_records_are_found_out() {
    assert_found(Flaw::CommitsTooFar, Scenario::AtLeastOnce);
}

#[test]
fn a_state_behind_its_offsets_is_found_out() {
    assert_found(Flaw::TrustsStaleCopies, Scenario::AtLeastOnce);
}

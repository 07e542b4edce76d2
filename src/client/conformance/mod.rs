//! The behaviour both clusters share, as functions over [`Cluster`]: each panics where a cluster behaves otherwise.
//!
//! [`conformance_tests!`] makes one test of each, [`coordinator_tests!`] of those that speak to a group by requests.
//! Nothing here knows which cluster it talks to: names of topics, groups and transactional ids are new in every call, and
//! whatever may take a cluster some time is asked for until it is so.

mod coordinator;
mod groups;
mod outside;
pub(crate) mod party;
mod reading;
mod steps;
mod topics;
mod transactions;

pub(crate) use coordinator::*;
pub(crate) use groups::*;
pub(crate) use outside::*;
pub(crate) use reading::*;
pub(crate) use topics::*;
pub(crate) use transactions::*;

/// Of clusters that can speak to a coordinator: one `#[test]` per case, as [`conformance_tests!`].
macro_rules! coordinator_tests {
    ($cluster:expr) => {
        $crate::client::conformance::conformance_tests! { @ $cluster;
            a_dynamic_member_is_given_an_id_before_it_joins,
            a_static_member_joins_at_once,
            a_join_waits_until_the_others_have_joined,
            the_leader_deals_and_everybody_is_told,
            only_other_bytes_of_a_follower_start_a_rebalance,
            a_leader_that_joins_again_starts_a_rebalance,
            members_of_another_protocol_are_not_mixed,
            a_session_timeout_out_of_bounds_is_refused,
            blobs_beyond_a_megabyte_are_refused_at_the_sync,
            a_follower_that_restarts_keeps_its_place,
            a_leader_that_restarts_skips_the_assignment,
            changed_bytes_of_a_member_that_restarts_wait_for_the_next_rebalance,
            the_older_of_two_twins_is_fenced,
            a_twin_that_waits_for_its_join_is_fenced_at_once,
            a_restart_between_join_and_sync_starts_another_rebalance,
            a_leaving_member_starts_a_rebalance,
            a_static_member_is_taken_out_by_its_instance_id,
            a_dynamic_member_that_joins_too_late_is_out,
            a_static_member_that_joins_too_late_stays_listed,
            who_is_not_in_the_group_is_refused,
            commits_are_checked_by_generation_member_and_instance,
            commits_go_on_in_a_rebalance,
            what_is_committed_is_read_back_by_anybody,
            fencing_ends_what_a_producer_has_left_open,
            committed_offsets_wait_for_a_transaction_that_is_open,
            a_waker_ends_a_wait,
            positions_are_set_from_outside_while_a_group_is_empty,
            a_member_is_taken_out_from_outside,
            positions_seen_from_outside_wait_for_an_open_transaction,
        }
    };
}
pub(crate) use coordinator_tests;

/// One `#[test]` per case. The expression is an `Option` of a cluster; none skips the case and says so.
macro_rules! conformance_tests {
    ($cluster:expr) => {
        $crate::client::conformance::conformance_tests! { @ $cluster;
            records_come_back_in_order_with_nulls_headers_and_timestamps,
            a_key_finds_its_partition_by_murmur2,
            a_partition_is_moved_to_another_offset,
            an_unassigned_partition_is_not_read,
            the_position_moves_past_control_records,
            lag_is_unknown_then_behind_then_caught_up,
            a_position_outside_of_the_log_is_out_of_range,
            read_committed_skips_aborted_records,
            read_committed_waits_for_an_open_transaction,
            a_transaction_spans_topics,
            an_empty_transaction_commits,
            an_older_producer_of_a_transactional_id_is_fenced,
            a_transaction_past_its_timeout_is_aborted,
            tracked_records_tell_the_end_offset,
            partitions_of_a_missing_topic_are_invalid,
            a_plain_commit_is_read_back,
            offsets_are_visible_only_with_their_transaction,
            committed_waits_for_a_pending_transaction,
            offsets_of_an_old_generation_are_refused,
            offsets_of_an_unknown_member_are_refused,
            two_members_share_the_partitions,
            a_leaving_member_hands_its_tasks_over,
            a_join_wakes_the_other_member,
            creating_an_existing_topic_leaves_it_alone,
            a_topic_created_again_has_another_id,
            watermarks_follow_appends_and_deletes,
            offsets_for_a_time_are_found,
        }
    };
    (@ $cluster:expr; $($case:ident),* $(,)?) => {
        $(#[test]
        fn $case() {
            match $cluster {
                Some(cluster) => $crate::client::conformance::$case(&cluster),
                None => eprintln!("{} skipped: there is no cluster", stringify!($case)),
            }
        })*
    };
}
pub(crate) use conformance_tests;

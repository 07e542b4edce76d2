//! The behaviour both clusters share, as functions over [`Cluster`]: each panics where a cluster behaves otherwise.
//!
//! [`conformance_tests!`] makes one test of each. Nothing here knows which cluster it talks to: names of topics, groups
//! and transactional ids are new in every call, and whatever may take a cluster some time is asked for until it is so.

mod groups;
mod reading;
mod steps;
mod topics;
mod transactions;

pub(crate) use groups::*;
pub(crate) use reading::*;
pub(crate) use topics::*;
pub(crate) use transactions::*;

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

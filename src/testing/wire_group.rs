//! The formats of groups and rows, for the recorded vectors.

use std::collections::BTreeMap;

use super::wire::Wire;
use crate::error::Result;
use crate::membership::classic::{AssignmentInfo, HostPartitions, SubscriptionInfo};
use crate::query::Position;
use crate::record::{Headers, TopicPartition};
use crate::serdes::{headers_bytes, read_row_headers, write_row_headers};
use crate::topology::TaskId;

/// What a member tells the leader of its group.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct WireSubscriptionInfo {
    pub version: i32,
    pub latest_version: i32,
    pub process_id: [u8; 16],
    pub endpoint: Option<String>,
    pub offset_sums: BTreeMap<TaskId, i64>,
    pub unique: i8,
    pub error_code: i32,
    pub tags: BTreeMap<String, String>,
}

/// What the leader tells a member.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct WireAssignmentInfo {
    pub version: i32,
    pub commonly_supported_version: i32,
    pub active: Vec<TaskId>,
    pub standby: BTreeMap<TaskId, Vec<TopicPartition>>,
    pub active_by_host: HostPartitions,
    pub standby_by_host: HostPartitions,
    pub error_code: i32,
    pub next_rebalance_ms: i64,
}

#[doc(hidden)]
impl Wire {
    /// The headers of a row alone, those of a row with a timestamp, and those of an aggregate.
    pub fn row_headers(headers: &Headers, value: &[u8], timestamp: i64) -> Result<[Vec<u8>; 3]> {
        let (mut timestamped, mut aggregate) = (Vec::new(), Vec::new());
        write_row_headers(headers, &mut timestamped)?;
        aggregate.extend_from_slice(&timestamped);
        timestamped.extend_from_slice(&timestamp.to_be_bytes());
        timestamped.extend_from_slice(value);
        aggregate.extend_from_slice(value);
        Ok([headers_bytes(headers)?, timestamped, aggregate])
    }

    /// The headers of a row, and the rest of it.
    pub fn read_row_headers(row: &[u8]) -> Result<(Headers, Vec<u8>)> {
        read_row_headers(row).map(|(headers, rest)| (headers, rest.to_vec()))
    }

    /// How far a store is in its inputs.
    pub fn position(offsets: &[(&str, i32, i64)]) -> Result<Vec<u8>> {
        let with =
            |position: Position, (topic, partition, offset): &(&str, _, _)| position.with(topic, *partition, *offset);
        offsets.iter().fold(Position::new(), with).encode()
    }

    /// What [`position`](Wire::position) has written.
    pub fn read_position(bytes: &[u8]) -> Result<Vec<(String, i32, i64)>> {
        let position = Position::decode(bytes)?;
        Ok(position.iter().map(|(at, offset)| (at.topic.to_string(), at.partition, offset)).collect())
    }

    /// The number of partitions of a group of topics that are read together: see
    /// `runtime/partition_counts.rs` for its notation.
    pub fn copartition(group: &str) -> Result<i32> {
        crate::runtime::copartition_of(group)
    }

    /// The user data of a subscription.
    pub fn subscription_info(info: &WireSubscriptionInfo) -> Result<Vec<u8>> {
        let WireSubscriptionInfo {
            version,
            latest_version,
            process_id,
            endpoint,
            offset_sums,
            unique,
            error_code,
            tags,
        } = info.clone();
        let info =
            SubscriptionInfo { version, latest_version, process_id, endpoint, offset_sums, unique, error_code, tags };
        info.encode()
    }

    /// What [`subscription_info`](Wire::subscription_info) has written.
    pub fn read_subscription_info(bytes: &[u8]) -> Result<WireSubscriptionInfo> {
        let SubscriptionInfo { version, latest_version, process_id, endpoint, offset_sums, unique, error_code, tags } =
            SubscriptionInfo::decode(bytes)?;
        Ok(WireSubscriptionInfo {
            version,
            latest_version,
            process_id,
            endpoint,
            offset_sums,
            unique,
            error_code,
            tags,
        })
    }

    /// The user data of an assignment.
    pub fn assignment_info(info: &WireAssignmentInfo) -> Result<Vec<u8>> {
        let info = info.clone();
        let info = AssignmentInfo {
            version: info.version,
            commonly_supported_version: info.commonly_supported_version,
            active: info.active,
            standby: info.standby,
            active_by_host: info.active_by_host,
            standby_by_host: info.standby_by_host,
            error_code: info.error_code,
            next_rebalance_ms: info.next_rebalance_ms,
        };
        info.encode()
    }

    /// What [`assignment_info`](Wire::assignment_info) has written.
    pub fn read_assignment_info(bytes: &[u8]) -> Result<WireAssignmentInfo> {
        let info = AssignmentInfo::decode(bytes)?;
        Ok(WireAssignmentInfo {
            version: info.version,
            commonly_supported_version: info.commonly_supported_version,
            active: info.active,
            standby: info.standby,
            active_by_host: info.active_by_host,
            standby_by_host: info.standby_by_host,
            error_code: info.error_code,
            next_rebalance_ms: info.next_rebalance_ms,
        })
    }
}

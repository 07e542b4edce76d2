//! A group from outside: what a tool sees of it, and what it may change.

use std::sync::Arc;

use crate::client::conformance::coordinator::ask_while_a_transaction_ends;
use crate::client::conformance::party::*;
use crate::client::conformance::steps::*;
use crate::client::{Cluster, GroupAdmin, GroupMembers};
use crate::error::ErrorKind;
use crate::membership::classic::protocol::{GroupError, RequestKind};
use crate::record::{OffsetAndMetadata, TopicPartition};

fn sorted(admin: &mut dyn GroupAdmin) -> Vec<(TopicPartition, OffsetAndMetadata)> {
    let mut committed = admin.committed().unwrap();
    committed.sort_by(|(a, _), (b, _)| a.cmp(b));
    committed
}

fn ids(admin: &mut dyn GroupAdmin) -> Vec<String> {
    match admin.members().unwrap() {
        GroupMembers::Listed(members) => members.into_iter().map(|member| member.id).collect(),
        GroupMembers::OfProtocol(protocol) => panic!("a group of protocol {protocol}"),
    }
}

pub(crate) fn positions_are_set_from_outside_while_a_group_is_empty(cluster: &dyn Cluster) {
    let party = Party::new(cluster);
    let mut admin = cluster.group_admin(&party.group, "client").unwrap();
    let [zero, one] = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&party.topic), partition));
    assert_eq!((ids(&mut *admin), sorted(&mut *admin)), (Vec::new(), Vec::new()), "there is no such group");
    let set = [(zero.clone(), at(3, "")), (one.clone(), at(0, ""))];
    admin.set_committed(&set).unwrap();
    assert_eq!(sorted(&mut *admin), set);
    until("the group is listed", || admin.groups().unwrap().contains(&party.group));

    let mut client = party.client(Some("one"), b"");
    client.joined();
    client.synced_as_leader(&[&client.member.clone()]);
    assert_eq!(ids(&mut *admin), [client.member.clone()]);
    let error = admin.set_committed(&[(zero, at(7, ""))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{}", error.report());
    assert_eq!(sorted(&mut *admin), set);
}

pub(crate) fn a_member_is_taken_out_from_outside(cluster: &dyn Cluster) {
    for instance in [Some("one"), None] {
        let party = Party::new(cluster);
        let mut client = party.client(instance, b"");
        client.fetch_id();
        client.joined();
        client.synced_as_leader(&[&client.member.clone()]);
        let mut admin = cluster.group_admin(&party.group, "client").unwrap();
        for _ in 0..2 {
            admin.remove_member(&client.member).unwrap();
        }
        assert_eq!(ids(&mut *admin), [""; 0]);
        assert_eq!(client.heartbeat(), refused(RequestKind::Heartbeat, GroupError::UnknownMemberId));
    }
}

pub(crate) fn positions_seen_from_outside_wait_for_an_open_transaction(cluster: &dyn Cluster) {
    // NOTE: asked for all it has, a broker does not speak of a partition whose first position is the pending one.
    ask_while_a_transaction_ends(cluster, Some(5), |group, partition| {
        let mut admin = cluster.group_admin(group, "client").unwrap();
        assert_eq!(sorted(&mut *admin), [(partition, at(9, ""))]);
    });
}

//! Members of a classic group, one request at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::client::conformance::steps::*;
use crate::client::{Cluster, GroupMetadata};
use crate::error::ErrorKind;
use crate::membership::classic::protocol::{
    GroupAnswer, GroupCoordinator, GroupError, GroupMember, GroupRequest, MemberAssignment, RequestKind,
};
use crate::record::TopicPartition;

/// A group, and the topic its members read.
pub(crate) struct Party<'a> {
    pub(crate) cluster: &'a dyn Cluster,
    pub(crate) group: String,
    pub(crate) topic: Arc<str>,
    pub(crate) rebalance_timeout: Duration,
}

impl<'a> Party<'a> {
    pub(crate) fn new(cluster: &'a dyn Cluster) -> Party<'a> {
        let (group, topic) = (unique("group"), new_topic(cluster, 2, &[]));
        Party { cluster, group, topic, rebalance_timeout: Duration::from_secs(60) }
    }

    pub(crate) fn client(&self, instance: Option<&str>, user_data: &[u8]) -> Client {
        Client {
            coordinator: self.cluster.coordinator(&self.group, "client").unwrap(),
            group: self.group.clone(),
            topics: vec![Arc::clone(&self.topic)],
            instance: instance.map(str::to_owned),
            user_data: user_data.to_vec(),
            session_timeout: Duration::from_secs(30),
            rebalance_timeout: self.rebalance_timeout,
            member: String::new(),
            generation: -1,
            unread: VecDeque::new(),
        }
    }

    /// A leader and a follower, each with its partition.
    pub(crate) fn pair(&self, instances: [Option<&str>; 2]) -> (Client, Client) {
        let (mut leader, mut follower) = self.joined(instances);
        leader.synced_as_leader(&[&leader.member.clone(), &follower.member]);
        let own = dealt(&self.topic, 1, &follower.member);
        assert_eq!(follower.ask(follower.sync_request(vec![])), own);
        (leader, follower)
    }

    /// A leader and a follower, static ones, in a generation that is not dealt.
    pub(crate) fn joined_pair(&self) -> (Client, Client) {
        self.joined([Some("one"), Some("two")])
    }

    fn joined(&self, instances: [Option<&str>; 2]) -> (Client, Client) {
        let [mut leader, mut follower] = [self.client(instances[0], b"leader"), self.client(instances[1], b"follower")];
        leader.fetch_id();
        leader.joined();
        leader.synced_as_leader(&[&leader.member.clone()]);
        follower.fetch_id();
        follower.send(follower.join_request());
        leader.hears_of_a_rebalance();
        leader.joined();
        follower.take_joined();
        (leader, follower)
    }

    /// Commits without a transaction.
    pub(crate) fn commit(&self, by: &GroupMetadata) -> Result<(), ErrorKind> {
        let mut offsets = self.cluster.group_offsets(&self.group, &unique("client")).unwrap();
        let partition = TopicPartition::new(Arc::clone(&self.topic), 0);
        offsets.commit(&[(partition, at(1, ""))], by).map_err(|error| error.kind())
    }

    pub(crate) fn commit_in_transaction(&self, by: &GroupMetadata) -> Result<(), ErrorKind> {
        let mut producer = transactional_producer(self.cluster, &unique("tx"));
        let partition = TopicPartition::new(Arc::clone(&self.topic), 0);
        producer.begin_transaction().unwrap();
        let sent = producer.send_offsets(&[(partition, at(1, ""))], by).map_err(|error| error.kind());
        match sent {
            Ok(()) => producer.commit_transaction(CALL).unwrap(),
            Err(_) => producer.abort_transaction(CALL).unwrap(),
        }
        sent
    }
}

/// One member, or who wants to be one.
pub(crate) struct Client {
    coordinator: Box<dyn GroupCoordinator>,
    group: String,
    pub(crate) topics: Vec<Arc<str>>,
    pub(crate) instance: Option<String>,
    pub(crate) user_data: Vec<u8>,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) member: String,
    pub(crate) generation: i32,
    /// Answers to other requests than the one that was waited for.
    unread: VecDeque<GroupAnswer>,
}

/// The answer to a join that was accepted.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) member: String,
    pub(crate) leader: String,
    pub(crate) skip_assignment: bool,
    pub(crate) members: Vec<GroupMember>,
}

impl Joined {
    pub(crate) fn listed(&self) -> Vec<(&str, &[u8])> {
        self.members.iter().map(|member| (member.id.as_str(), &member.user_data[..])).collect()
    }

    /// What the members say of themselves, by instance id, or in the order of the bytes.
    pub(crate) fn listed_data(&self) -> Vec<&[u8]> {
        let mut members: Vec<_> = self.members.iter().collect();
        members.sort_by_key(|member| (member.instance.clone(), member.user_data.clone()));
        members.iter().map(|member| &member.user_data[..]).collect()
    }
}

impl Client {
    pub(crate) fn join_request(&self) -> GroupRequest {
        GroupRequest::Join {
            member: self.member.clone(),
            instance: self.instance.clone(),
            session_timeout: self.session_timeout,
            rebalance_timeout: self.rebalance_timeout,
            topics: self.topics.clone(),
            user_data: self.user_data.clone(),
        }
    }

    pub(crate) fn sync_request(&self, assignments: Vec<MemberAssignment>) -> GroupRequest {
        let (generation, member, instance) = (self.generation, self.member.clone(), self.instance.clone());
        GroupRequest::Sync { generation, member, instance, assignments }
    }

    pub(crate) fn heartbeat_request(&self) -> GroupRequest {
        let (generation, member, instance) = (self.generation, self.member.clone(), self.instance.clone());
        GroupRequest::Heartbeat { generation, member, instance }
    }

    pub(crate) fn leave_request(&self) -> GroupRequest {
        GroupRequest::Leave { member: self.member.clone(), instance: self.instance.clone() }
    }

    pub(crate) fn metadata(&self) -> GroupMetadata {
        GroupMetadata {
            group: self.group.clone(),
            generation: self.generation,
            member: self.member.clone(),
            instance: self.instance.clone(),
        }
    }

    pub(crate) fn send(&mut self, request: GroupRequest) {
        self.coordinator.send(request);
    }

    /// The next answer, to whichever request.
    pub(crate) fn poll(&mut self) -> Option<GroupAnswer> {
        self.unread.pop_front().or_else(|| self.coordinator.poll())
    }

    /// Takes over what an answer says of the member.
    pub(crate) fn heed(&mut self, answer: &GroupAnswer) {
        if let GroupAnswer::Joined { generation, member, .. } = answer {
            (self.generation, self.member) = (*generation, member.clone());
        }
        if let GroupAnswer::Refused { error: GroupError::MemberIdRequired(id), .. } = answer {
            self.member.clone_from(id);
        }
        if let GroupAnswer::Refused { error: GroupError::UnknownMemberId, .. } = answer {
            self.member.clear();
        }
    }

    /// The answer to a request. What a connection loses is asked again.
    pub(crate) fn ask(&mut self, request: GroupRequest) -> GroupAnswer {
        let kind = request.kind();
        self.send(request.clone());
        let answer = self.take(kind);
        if answer == GroupAnswer::Disconnected(kind) { self.ask(request) } else { answer }
    }

    /// Waits for the answer to a request of that kind.
    pub(crate) fn take(&mut self, kind: RequestKind) -> GroupAnswer {
        let mut answer = None;
        until("the request is answered", || {
            answer = self.peek(kind);
            if answer.is_none() {
                self.coordinator.wait(Duration::from_millis(10));
            }
            answer.is_some()
        });
        answer.unwrap()
    }

    /// The answer to a request of that kind, if it has come.
    pub(crate) fn peek(&mut self, kind: RequestKind) -> Option<GroupAnswer> {
        while let Some(answer) = self.coordinator.poll() {
            self.unread.push_back(answer);
        }
        let place = self.unread.iter().position(|answer| kind_of(answer) == kind)?;
        self.unread.remove(place)
    }

    /// A dynamic member gets its id.
    pub(crate) fn fetch_id(&mut self) {
        if self.instance.is_none() {
            let answer = self.ask(self.join_request());
            self.heed(&answer);
            assert_eq!(answer, refused(RequestKind::Join, GroupError::MemberIdRequired(self.member.clone())));
        }
    }

    pub(crate) fn joined(&mut self) -> Joined {
        if self.member.is_empty() {
            self.fetch_id();
        }
        let answer = self.ask(self.join_request());
        self.as_joined(answer)
    }

    /// The answer to a join that was sent before.
    pub(crate) fn take_joined(&mut self) -> Joined {
        let answer = self.take(RequestKind::Join);
        self.as_joined(answer)
    }

    fn as_joined(&mut self, answer: GroupAnswer) -> Joined {
        self.heed(&answer);
        let GroupAnswer::Joined { generation, member, leader, skip_assignment, members } = answer else {
            panic!("{answer:?}")
        };
        Joined { generation, member, leader, skip_assignment, members }
    }

    /// Gives each member the partition of its place in the list.
    pub(crate) fn synced_as_leader(&mut self, members: &[&str]) {
        let topic = Arc::clone(&self.topics[0]);
        let place = members.iter().position(|member| *member == self.member).unwrap();
        let answer = self.ask(self.sync_request(plan_of(&topic, members)));
        assert_eq!(answer, dealt(&topic, i32::try_from(place).unwrap(), &self.member));
    }

    pub(crate) fn heartbeat(&mut self) -> GroupAnswer {
        self.ask(self.heartbeat_request())
    }

    pub(crate) fn hears_of_a_rebalance(&mut self) {
        let news = refused(RequestKind::Heartbeat, GroupError::RebalanceInProgress);
        until("the member hears of a rebalance", || {
            let answer = self.heartbeat();
            assert!(answer == news || answer == GroupAnswer::Alive, "{answer:?}");
            answer == news
        });
    }
}

pub(crate) fn kind_of(answer: &GroupAnswer) -> RequestKind {
    match answer {
        GroupAnswer::Joined { .. } => RequestKind::Join,
        GroupAnswer::Synced { .. } => RequestKind::Sync,
        GroupAnswer::Alive => RequestKind::Heartbeat,
        GroupAnswer::Left => RequestKind::Leave,
        GroupAnswer::Refused { request, .. } | GroupAnswer::Disconnected(request) => *request,
    }
}

pub(crate) fn refused(request: RequestKind, error: GroupError) -> GroupAnswer {
    GroupAnswer::Refused { request, error }
}

/// To each member the partition of its place, and its id as data.
pub(crate) fn plan_of(topic: &Arc<str>, members: &[&str]) -> Vec<MemberAssignment> {
    let one = |(partition, member): (i32, &&str)| MemberAssignment {
        member: (*member).to_owned(),
        partitions: vec![TopicPartition::new(Arc::clone(topic), partition)],
        user_data: member.as_bytes().to_vec(),
    };
    (0..).zip(members).map(one).collect()
}

/// What a member is told by such a plan.
pub(crate) fn dealt(topic: &Arc<str>, partition: i32, member: &str) -> GroupAnswer {
    let partitions = vec![TopicPartition::new(Arc::clone(topic), partition)];
    GroupAnswer::Synced { partitions, user_data: member.as_bytes().to_vec() }
}

/// The request as another one would send it.
pub(crate) fn with_member(mut request: GroupRequest, id: &str, name: Option<&str>) -> GroupRequest {
    match &mut request {
        GroupRequest::Join { member, instance, .. }
        | GroupRequest::Sync { member, instance, .. }
        | GroupRequest::Heartbeat { member, instance, .. }
        | GroupRequest::Leave { member, instance } => {
            (*member, *instance) = (id.to_owned(), name.map(str::to_owned));
        }
    }
    request
}

pub(crate) fn with_generation(mut request: GroupRequest, other: i32) -> GroupRequest {
    if let GroupRequest::Sync { generation, .. } | GroupRequest::Heartbeat { generation, .. } = &mut request {
        *generation = other;
    }
    request
}

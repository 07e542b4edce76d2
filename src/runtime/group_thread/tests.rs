use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::membership::classic::member::{Claim, Decision, Fit};
use crate::membership::classic::protocol::{
    GroupAnswer, GroupError, GroupMember, GroupRequest, MemberAssignment, RequestKind,
};
use crate::topology::TaskId;

/// A group of one, which is given what the script says.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Scripted>>);

#[derive(Default)]
struct Scripted {
    answers: VecDeque<GroupAnswer>,
    generation: i32,
    given: BTreeSet<TaskId>,
    /// The answer to the next heartbeat.
    refusal: Option<GroupError>,
    /// What the stream threads' connection was asked, in order.
    asked: Vec<String>,
}

impl GroupCoordinator for Script {
    fn send(&mut self, request: GroupRequest) {
        let mut script = self.0.lock().unwrap();
        let answer = match request {
            GroupRequest::Join { .. } => {
                script.generation += 1;
                let (member, leader) = ("a-1".to_owned(), "b-1".to_owned());
                let (generation, members) = (script.generation, Vec::new());
                GroupAnswer::Joined { generation, member, leader, skip_assignment: false, members }
            }
            GroupRequest::Sync { .. } => GroupAnswer::Synced { partitions: Vec::new(), user_data: Vec::new() },
            GroupRequest::Heartbeat { .. } => match script.refusal.take() {
                None => GroupAnswer::Alive,
                Some(error) => GroupAnswer::Refused { request: RequestKind::Heartbeat, error },
            },
            GroupRequest::Leave { .. } => GroupAnswer::Left,
        };
        script.answers.push_back(answer);
    }

    fn poll(&mut self) -> Option<GroupAnswer> {
        self.0.lock().unwrap().answers.pop_front()
    }

    fn wait(&mut self, timeout: Duration) {
        std::thread::park_timeout(timeout.min(Duration::from_millis(1)));
    }

    fn waker(&self) -> Waker {
        Arc::new(|| {})
    }
}

impl Assignor for Script {
    fn subscribe(&mut self, _claim: &Claim<'_>) -> Vec<u8> {
        Vec::new()
    }

    fn assign(&mut self, _leader: &str, _generation: i32, _members: &[GroupMember]) -> Vec<MemberAssignment> {
        Vec::new()
    }

    fn read(&mut self, _user_data: &[u8]) -> Result<Decision> {
        let script = self.0.lock().unwrap();
        let (generation, active) = (script.generation, script.given.clone());
        let (standby, warmup) = (BTreeSet::new(), BTreeSet::new());
        Ok(Decision {
            generation,
            active,
            standby,
            warmup,
            fence: vec!["dead-1".to_owned()],
            is_alone: false,
            shuts_down: false,
            fit: Fit::Current,
        })
    }
}

impl GroupOffsets for Script {
    fn committed(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<OffsetAndMetadata>>> {
        self.0.lock().unwrap().asked.push("committed".to_owned());
        Ok(vec![None; partitions.len()])
    }

    fn commit(&mut self, _: &[(TopicPartition, OffsetAndMetadata)], as_member: &GroupMetadata) -> Result<()> {
        self.0.lock().unwrap().asked.push(format!("commit in {}", as_member.generation));
        Ok(())
    }

    fn fence(&mut self, transactional_ids: &[String], _outputs: &[Arc<str>]) -> Result<()> {
        self.0.lock().unwrap().asked.push(format!("fence {}", transactional_ids.join(" ")));
        Ok(())
    }
}

fn tasks(partitions: impl IntoIterator<Item = i32>) -> BTreeSet<TaskId> {
    partitions.into_iter().map(|partition| TaskId { sub_topology: 0, partition }).collect()
}

/// One thread with two tasks in generation 1.
fn start() -> (Script, Driver, Box<dyn Membership>) {
    let script = Script::default();
    script.0.lock().unwrap().given = tasks([0, 1]);
    let settings = MemberSettings {
        instance: None,
        // Its fifth is the time between two heartbeats.
        session_timeout: Duration::from_millis(2000),
        rebalance_timeout: Duration::from_secs(60),
    };
    let (group, mut driver) = GroupThread::assemble(GroupStart {
        name: "group".to_owned(),
        group: "app".to_owned(),
        settings,
        topics: Vec::new(),
        threads: 1,
        assignor: Box::new(script.clone()),
        coordinator: Box::new(script.clone()),
    });
    let mut thread = group.seat(1, Box::new(script.clone()), Arc::default(), Arc::new(|| {}));
    assert_eq!(thread.group_metadata().unwrap(), None, "no member yet");
    assert_eq!(hear(&mut driver, &mut *thread), MembershipEvent::Assigned { active: tasks([0, 1]) });
    (script, driver, thread)
}

fn hear(driver: &mut Driver, thread: &mut dyn Membership) -> MembershipEvent {
    loop {
        driver.step();
        driver.member.wait(WAIT_MAX);
        if let Some(event) = thread.poll().unwrap() {
            return event;
        }
    }
}

fn generation(thread: &mut dyn Membership) -> Option<i32> {
    thread.group_metadata().unwrap().map(|metadata| metadata.generation)
}

fn an_offset() -> [(TopicPartition, OffsetAndMetadata); 1] {
    [(TopicPartition::new("in", 0), OffsetAndMetadata { offset: 1, metadata: String::new() })]
}

#[test]
fn a_task_that_is_asked_back_commits_in_the_new_generation_until_it_is_closed() {
    let (script, mut driver, mut thread) = start();
    script.0.lock().unwrap().given = tasks([0]);
    script.0.lock().unwrap().refusal = Some(GroupError::RebalanceInProgress);
    assert_eq!(hear(&mut driver, &mut *thread), MembershipEvent::Revoked { tasks: tasks([1]) });
    assert_eq!(generation(&mut *thread), Some(2));
    thread.acknowledge().unwrap();
    // The group hears that it is free, and everybody is told who has what.
    assert_eq!(hear(&mut driver, &mut *thread), MembershipEvent::Assigned { active: tasks([]) });
    assert_eq!(generation(&mut *thread), Some(3));
}

#[test]
fn nothing_is_committed_while_a_thread_has_a_task_that_the_group_has_taken() {
    let (script, mut driver, mut thread) = start();
    script.0.lock().unwrap().refusal = Some(GroupError::IllegalGeneration);
    // It is a member of the next generation before it has closed what it had in the last one.
    assert_eq!(hear(&mut driver, &mut *thread), MembershipEvent::Lost { tasks: tasks([0, 1]) });
    while driver.shared.state().place.membership.is_none() {
        driver.step();
    }
    assert_eq!(generation(&mut *thread), None);
    assert_eq!(thread.commit(&an_offset()).unwrap_err().kind(), ErrorKind::Fenced);
    thread.acknowledge().unwrap();
    assert_eq!(hear(&mut driver, &mut *thread), MembershipEvent::Assigned { active: tasks([0, 1]) });
    thread.commit(&an_offset()).unwrap();
    assert_eq!(script.0.lock().unwrap().asked, ["commit in 2"]);
}

#[test]
fn the_dead_are_fenced_once_and_before_offsets_are_read() {
    let (script, _driver, mut thread) = start();
    thread.committed(&[]).unwrap();
    thread.committed(&[]).unwrap();
    assert_eq!(script.0.lock().unwrap().asked, ["fence dead-1", "committed", "committed"]);
}

#[test]
fn every_thread_hears_why_there_is_no_member_any_more() {
    let (script, mut driver, mut thread) = start();
    script.0.lock().unwrap().refusal = Some(GroupError::FencedInstance);
    while driver.step() != Next::End {
        driver.member.wait(WAIT_MAX);
    }
    let error = thread.poll().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert_eq!(generation(&mut *thread), None);
}

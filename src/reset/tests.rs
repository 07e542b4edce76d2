//! Resets of groups that are not as they should be, and what a second run makes of them.

use std::collections::VecDeque;

use super::*;
use crate::client::embedded::EmbeddedCluster;
use crate::client::{Cluster, ListedMember};
use crate::record::{Headers, ProducerRecord, TopicPartition};

/// An application with two inputs' offsets, a changelog and a state folder.
struct Case {
    cluster: EmbeddedCluster,
    folder: tempfile::TempDir,
}

fn partition(number: i32) -> TopicPartition {
    TopicPartition::new("orders", number)
}

impl Case {
    fn new() -> Case {
        let case = Case { cluster: EmbeddedCluster::new(), folder: tempfile::tempdir().unwrap() };
        case.cluster.create_topic("orders", 2).unwrap();
        case.cluster.create_topic("app-sums-changelog", 2).unwrap();
        let (topic, headers) = ("orders".into(), Headers::new());
        for number in 0..10 {
            let (partition, timestamp) = (Some(number % 2), Some(1_000 + i64::from(number)));
            let record =
                ProducerRecord { topic: &topic, partition, key: None, value: None, timestamp, headers: &headers };
            case.cluster.produce_record(record).unwrap();
        }
        let told = |offset| OffsetAndMetadata { offset, metadata: "AgAAAYvP5WgA".to_owned() };
        case.group().set_committed(&[(partition(0), told(4)), (partition(1), told(2))]).unwrap();
        std::fs::create_dir_all(case.folder.path().join("app/0_1")).unwrap();
        case
    }

    fn group(&self) -> Box<dyn GroupAdmin> {
        self.cluster.group_admin("app", "test").unwrap()
    }

    fn reset(&self) -> ApplicationReset {
        ApplicationReset::new(Config::new("app", "embedded://").cluster(&self.cluster).state_dir(self.folder.path()))
    }

    fn committed(&self) -> Vec<(i32, i64, String)> {
        let committed = self.group().committed().unwrap();
        let mut committed: Vec<_> =
            committed.into_iter().map(|(partition, at)| (partition.partition, at.offset, at.metadata)).collect();
        committed.sort();
        committed
    }

    fn has_state(&self) -> bool {
        self.folder.path().join("app/0_1").exists()
    }

    fn run_on(&self, reset: &ApplicationReset, group: &mut dyn GroupAdmin) -> Result<ResetPlan> {
        reset.run_on(self.cluster.admin().unwrap().as_mut(), group)
    }
}

/// The real group, but for what is told of its members, and who has joined in the last moment.
struct Restless {
    group: Box<dyn GroupAdmin>,
    members: VecDeque<Vec<&'static str>>,
    removed: Vec<String>,
    joins_late: bool,
}

impl Restless {
    fn new<const N: usize>(case: &Case, members: [Vec<&'static str>; N]) -> Restless {
        Restless { group: case.group(), members: members.into(), removed: Vec::new(), joins_late: false }
    }
}

impl GroupAdmin for Restless {
    fn members(&mut self) -> Result<GroupMembers> {
        let member = |id: &str| ListedMember { id: id.to_owned(), host: "there".to_owned() };
        let ids = self.members.pop_front().unwrap_or_default();
        Ok(GroupMembers::Listed(ids.into_iter().map(member).collect()))
    }

    fn remove_member(&mut self, id: &str) -> Result<()> {
        self.removed.push(id.to_owned());
        Ok(())
    }

    fn committed(&mut self) -> Result<Vec<(TopicPartition, OffsetAndMetadata)>> {
        self.group.committed()
    }

    fn set_committed(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) -> Result<()> {
        if self.joins_late {
            return Err(Error::new(ErrorKind::Fenced, "not a member"));
        }
        self.group.set_committed(offsets)
    }

    fn groups(&mut self) -> Result<Vec<String>> {
        self.group.groups()
    }
}

#[test]
fn offsets_lose_their_metadata_and_topics_and_state_go() {
    let case = Case::new();
    let done = case.reset().run().unwrap();
    assert_eq!(case.committed(), [(0, 0, String::new()), (1, 0, String::new())]);
    assert_eq!((case.cluster.topics().unwrap(), case.has_state()), (vec!["orders".to_owned()], false));
    assert_eq!(done.deleted_topics, ["app-sums-changelog"]);
    assert_eq!(done.local_state, Some(case.folder.path().join("app")));
    let again = case.reset().run().unwrap();
    assert_eq!((again.deleted_topics.len(), again.local_state), (0, None));
    assert_eq!(case.committed(), [(0, 0, String::new()), (1, 0, String::new())]);
}

#[test]
fn a_member_that_joins_in_the_last_moment_leaves_offsets_for_the_next_run() {
    let case = Case::new();
    let before = case.committed();
    let reset = case.reset().to(ResetTo::ShiftBy(-1));
    let mut group = Restless { joins_late: true, ..Restless::new(&case, []) };
    let error = case.run_on(&reset, &mut group).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    let text = error.to_string();
    assert!(text.contains("offsets unchanged") && text.contains("run it again"), "{text}");
    assert_eq!(case.committed(), before);

    group.joins_late = false;
    case.run_on(&reset, &mut group).unwrap();
    let offsets: Vec<_> = case.committed().into_iter().map(|(_, offset, _)| offset).collect();
    assert_eq!(offsets, [3, 1], "once");
}

#[test]
fn members_are_named_and_nothing_is_changed() {
    let case = Case::new();
    let before = case.committed();
    let error = case.run_on(&case.reset(), &mut Restless::new(&case, [vec!["one", "two"]])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("one at there, two at there"), "{error}");
    assert!(error.to_string().contains("until its session times out"), "{error}");
    assert_eq!((case.committed(), case.has_state()), (before, true));
    assert_eq!(case.cluster.topics().unwrap(), ["app-sums-changelog", "orders"]);
}

#[test]
fn members_that_have_stopped_are_taken_out() {
    let case = Case::new();
    let mut group = Restless::new(&case, [vec!["one"], vec![]]);
    let done = case.run_on(&case.reset().remove_members(), &mut group).unwrap();
    assert_eq!((done.members, group.removed), (vec!["one at there".to_owned()], vec!["one".to_owned()]));
    assert!(!case.has_state());
}

#[test]
fn members_that_come_back_are_said_to_run_and_nothing_is_changed() {
    let case = Case::new();
    let before = case.committed();
    let mut group = Restless::new(&case, [vec!["one"], vec![], vec![], vec!["two"]]);
    let error = case.run_on(&case.reset().remove_members(), &mut group).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("two at there; stop every instance"), "{error}");
    assert_eq!((case.committed(), case.has_state()), (before, true));
    assert_eq!(case.cluster.topics().unwrap(), ["app-sums-changelog", "orders"]);
}

#[test]
fn topics_of_an_application_whose_id_is_longer_are_left_alone() {
    let case = Case::new();
    case.cluster.create_topic("app-v2-sums-changelog", 1).unwrap();
    let newer = Config::new("app-v2", "embedded://").cluster(&case.cluster);
    ApplicationReset::new(newer).input_topics(["orders"]).internal_topics([""; 0]).keep_local_state().run().unwrap();
    let done = case.reset().run().unwrap();
    assert_eq!(done.deleted_topics, ["app-sums-changelog"]);
    assert_eq!(
        (&*done.spared_topics[0].topic, &*done.spared_topics[0].application_id),
        ("app-v2-sums-changelog", "app-v2")
    );
    assert!(done.to_string().contains("keep    app-v2-sums-changelog"), "{done}");
    // Who names it means it.
    let done = case.reset().internal_topics(["app-v2-sums-changelog"]).run().unwrap();
    assert_eq!(done.deleted_topics, ["app-v2-sums-changelog"]);
}

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::membership::streams::declaration::TopologyDeclaration;
use crate::membership::streams::protocol::{Heard, StreamsError, Taken};

pub(super) fn tasks(partitions: impl IntoIterator<Item = i32>) -> BTreeSet<TaskId> {
    partitions.into_iter().map(|partition| TaskId { sub_topology: 0, partition }).collect()
}

fn active(partitions: impl IntoIterator<Item = i32>) -> Tasks {
    Tasks { active: tasks(partitions), ..Tasks::default() }
}

pub(super) fn member(id: &str) -> StreamsMember {
    let introduction = Introduction {
        topology: TopologyDeclaration::default(),
        rebalance_timeout: Duration::from_secs(60),
        process: format!("process-{id}"),
        endpoint: None,
        tags: Vec::new(),
    };
    let progress = || vec![Progress { task: TaskId { sub_topology: 0, partition: 9 }, offset: 5, end: 7 }];
    let settings = StreamsSettings {
        member: id.to_owned(),
        introduction,
        known: tasks(0..10),
        progress: Box::new(progress),
        shuts_down: Box::new(|| false),
        addresses: Box::new(|_| {}),
    };
    StreamsMember::new(settings, 0)
}

/// A member that is told what the coordinator says, word by word.
struct Told {
    member: StreamsMember,
    now: Millis,
    sent: Vec<Heartbeat>,
    events: Vec<String>,
}

impl Told {
    fn new() -> Told {
        let mut told = Told { member: member("a"), now: 0, sent: Vec::new(), events: Vec::new() };
        told.on(StreamsInput::Tick);
        told
    }

    /// In epoch 2 with these tasks, which the coordinator knows of.
    fn with(partitions: impl IntoIterator<Item = i32>) -> Told {
        let mut told = Told::new();
        told.hear(Taken { epoch: 2, interval_ms: 5000, tasks: Some(active(partitions)), ..Taken::default() });
        if told.member.under_way.is_some() {
            told.hear(Taken { epoch: 2, ..Taken::default() });
        }
        told.events.clear();
        told
    }

    fn on(&mut self, input: StreamsInput) {
        self.member.on(input, self.now);
        while let Some(output) = self.member.poll_output() {
            let names = |tasks: BTreeSet<TaskId>| {
                tasks.iter().map(|task| task.partition.to_string()).collect::<Vec<_>>().join(",")
            };
            self.events.push(match output {
                StreamsOutput::Send(heartbeat) => {
                    self.sent.push(heartbeat);
                    continue;
                }
                StreamsOutput::Publish(place) => {
                    format!("@{:?} {}", place.membership.map(|(epoch, _)| epoch), names(place.owned))
                }
                StreamsOutput::Assigned { tasks, .. } => format!("+{}", names(tasks)),
                StreamsOutput::Standby { tasks } => format!("~{}", names(tasks)),
                StreamsOutput::Revoked { tasks } => format!("-{}", names(tasks)),
                StreamsOutput::Lost { tasks } => format!("!{}", names(tasks)),
                StreamsOutput::Settled => "settled".to_owned(),
                StreamsOutput::HandedOver => "handed over".to_owned(),
                StreamsOutput::ShutDown => "shut down".to_owned(),
                StreamsOutput::Failed(kind, reason) => format!("failed {kind:?} {reason}"),
                StreamsOutput::Ended => "ended".to_owned(),
            });
        }
    }

    fn answer(&mut self, heard: Heard) {
        let number = self.member.under_way.as_ref().expect("a heartbeat is under way").number;
        self.on(StreamsInput::Answer(HeartbeatAnswer { number, heard }));
    }

    fn hear(&mut self, taken: Taken) {
        self.answer(Heard::Taken(taken));
    }

    fn close(&mut self, partitions: impl IntoIterator<Item = i32>) {
        self.on(StreamsInput::Closed(tasks(partitions)));
    }

    fn refuse(&mut self, error: StreamsError, words: &str) {
        self.answer(Heard::Refused(error, words.to_owned()));
    }

    /// Until the next heartbeat is due.
    fn wait(&mut self) {
        self.now = self.member.deadline();
        self.on(StreamsInput::Tick);
    }

    fn last(&self) -> &Heartbeat {
        self.sent.last().unwrap()
    }

    fn events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }
}

#[test]
fn a_join_tells_everything_and_owns_nothing() {
    let told = Told::new();
    let join = told.last();
    assert_eq!((join.epoch, join.owned.as_ref()), (0, Some(&Tasks::default())));
    assert_eq!(join.introduction.as_ref().unwrap().process, "process-a");
}

#[test]
fn what_is_assigned_is_taken_and_told_at_once() {
    let mut told = Told::new();
    told.hear(Taken { epoch: 2, interval_ms: 5000, tasks: Some(active([0, 1])), ..Taken::default() });
    assert_eq!(told.events(), ["@Some(2) ", "@Some(2) 0,1", "+0,1", "settled"]);
    assert_eq!((told.last().epoch, told.last().owned.clone()), (2, Some(active([0, 1]))));
    assert_eq!(told.last().introduction, None);
    told.hear(Taken { epoch: 2, ..Taken::default() });
    told.wait();
    assert_eq!(told.last().owned, None, "nothing has changed");
}

#[test]
fn a_task_that_is_asked_back_is_owned_until_it_is_closed() {
    let mut told = Told::with([0, 1]);
    told.wait();
    told.hear(Taken { epoch: 2, tasks: Some(active([0])), ..Taken::default() });
    assert_eq!(told.events(), ["-1"]);
    told.wait();
    assert_eq!(told.last().owned, None, "there is nothing to tell before it is closed");
    told.hear(Taken { epoch: 2, ..Taken::default() });
    told.on(StreamsInput::Closed(tasks([1])));
    assert_eq!(told.events(), ["@Some(2) 0", "settled"]);
    assert_eq!(told.last().owned, Some(active([0])));
    told.hear(Taken { epoch: 3, ..Taken::default() });
    assert_eq!(told.events(), ["@Some(3) 0"]);
}

#[test]
fn after_a_heartbeat_without_an_answer_everything_is_told_again_in_the_same_epoch() {
    let mut told = Told::with([0]);
    told.wait();
    assert_eq!(told.last().owned, None);
    told.answer(Heard::Disconnected);
    told.wait();
    assert_eq!((told.last().epoch, told.last().owned.clone()), (2, Some(active([0]))));
    told.hear(Taken { epoch: 3, ..Taken::default() });
    assert_eq!(told.events(), ["@Some(3) 0", "@None 0"]);
}

#[test]
fn pauses_between_tries_grow() {
    let mut told = Told::new();
    let mut times = Vec::new();
    for _ in 0..7 {
        told.answer(Heard::Disconnected);
        times.push(told.member.deadline() - told.now);
        told.wait();
    }
    assert_eq!(times, [100, 200, 400, 800, 1600, 2000, 2000]);
    assert!(told.sent.iter().all(|heartbeat| heartbeat.introduction.is_some()));
}

#[test]
fn an_answer_that_comes_twice_or_late_counts_once() {
    let mut told = Told::with([0]);
    told.wait();
    let number = told.last().number;
    let late = Taken { epoch: 2, tasks: Some(active([])), ..Taken::default() };
    told.hear(Taken { epoch: 3, tasks: Some(active([0, 1])), ..Taken::default() });
    let events = told.events();
    told.on(StreamsInput::Answer(HeartbeatAnswer { number, heard: Heard::Taken(late) }));
    assert_eq!((events.last().unwrap().as_str(), told.events()), ("settled", vec![]));
}

#[test]
fn a_heartbeat_that_nobody_answers_is_given_up() {
    let mut told = Told::with([0]);
    told.wait();
    let count = told.sent.len();
    told.wait();
    told.wait();
    assert_eq!(told.sent.len(), count + 1);
    assert_eq!(told.last().owned, Some(active([0])));
}

#[test]
fn who_was_removed_loses_its_tasks_and_joins_again() {
    for error in [StreamsError::UnknownMember, StreamsError::FencedEpoch] {
        let mut told = Told::with([0, 1]);
        told.wait();
        told.refuse(error, "gone");
        assert_eq!(told.events(), ["@None ", "!0,1"]);
        assert_eq!((told.last().epoch, told.last().introduction.is_some()), (0, true));
        // What it still has open is not opened a second time.
        told.hear(Taken { epoch: 5, tasks: Some(active([0, 2])), ..Taken::default() });
        assert_eq!(told.events(), ["@Some(5) ", "@Some(5) 2", "+2"]);
        told.on(StreamsInput::Closed(tasks([0, 1])));
        assert_eq!(told.events(), ["@Some(5) 0,2", "+0", "settled"]);
        assert_eq!(told.last().owned, Some(active([0, 2])));
    }
}

#[test]
fn standbys_are_told_before_what_else_changes_and_acknowledged_at_once() {
    let mut told = Told::with([0, 1]);
    told.wait();
    let given = Tasks { active: tasks([0]), standby: tasks([1]), warmup: tasks([2]) };
    told.hear(Taken { epoch: 2, tasks: Some(given.clone()), ..Taken::default() });
    assert_eq!(told.events(), ["~1,2", "-1"]);
    told.on(StreamsInput::Closed(tasks([1])));
    assert_eq!(told.last().owned, Some(given));
    told.events();
    // One that becomes active is a standby until it does.
    told.hear(Taken { epoch: 3, tasks: Some(active([0, 2])), ..Taken::default() });
    assert_eq!(told.events(), ["@Some(3) 0", "~2", "@Some(3) 0,2", "+2", "settled"]);
}

#[test]
fn the_progress_of_stores_is_told_when_the_broker_wants_it_and_it_has_changed() {
    let mut told = Told::with([0]);
    assert!(told.sent.iter().all(|heartbeat| heartbeat.progress.is_none()));
    told.wait();
    told.hear(Taken { epoch: 2, progress_interval_ms: 1, ..Taken::default() });
    told.wait();
    assert_eq!(told.last().progress.as_ref().unwrap().len(), 1);
    told.hear(Taken { epoch: 2, progress_interval_ms: 1, ..Taken::default() });
    told.wait();
    assert_eq!(told.last().progress, None);
}

#[test]
fn a_group_that_waits_is_asked_often_and_is_not_settled() {
    let mut told = Told::new();
    let waiting = |status| Taken {
        epoch: 1,
        interval_ms: 5000,
        tasks: Some(active([])),
        statuses: vec![(status, "words".to_owned())],
        ..Taken::default()
    };
    for status in [Status::MissingInternalTopics, Status::AssignmentDelayed, Status::MissingSourceTopics] {
        for _ in 0..2 {
            if told.member.under_way.is_none() {
                told.wait();
            }
            told.hear(waiting(status));
        }
        assert_eq!(told.member.deadline() - told.now, RESTLESS_INTERVAL);
    }
    told.wait();
    assert!(!told.events().contains(&"settled".to_owned()));
    told.hear(Taken { epoch: 2, tasks: Some(active([0])), ..Taken::default() });
    assert_eq!(told.events().last().unwrap(), "settled");
    // Later on, as often as is needed to hear of others in time.
    for _ in 0..100 {
        told.wait_and_hear();
    }
    let before = told.now;
    told.wait_and_hear();
    assert_eq!(told.now - before, 1000);
}

impl Told {
    fn wait_and_hear(&mut self) {
        if self.member.under_way.is_none() {
            self.wait();
        }
        self.hear(Taken { epoch: 2, interval_ms: 5000, ..Taken::default() });
    }
}

#[test]
fn what_cannot_work_ends_the_member_with_a_remedy() {
    let refusals = [
        (StreamsError::InvalidRequest, "Topology updates are not supported yet.", "same program"),
        (StreamsError::InvalidRequest, "no", "does not understand"),
        (StreamsError::InvalidTopology, "no source", "no source"),
        (StreamsError::MaxSizeReached, "", "group.streams.max.size"),
        (StreamsError::Denied, "", "READ"),
        (StreamsError::Unsupported, "", "GroupProtocol::Sticky"),
    ];
    for (error, words, remedy) in refusals {
        let mut told = Told::with([0]);
        told.wait();
        told.refuse(error, words);
        let events = told.events();
        assert_eq!(events[..2], ["@None ", "!0"]);
        assert!(events[2].starts_with("failed Invalid") && events[2].contains(remedy), "{events:?}");
    }
    let mut told = Told::new();
    let statuses = vec![(Status::IncorrectlyPartitionedTopics, "in and other".to_owned())];
    told.hear(Taken { epoch: 1, statuses, ..Taken::default() });
    assert!(told.events().last().unwrap().contains("in and other"));
    let mut told = Told::new();
    told.hear(Taken { epoch: 1, tasks: Some(active([10])), ..Taken::default() });
    assert!(told.events().last().unwrap().contains("task 0_10"));
}

#[test]
fn what_somebody_may_put_right_is_tried_again() {
    for error in [StreamsError::TopicsDenied, StreamsError::Other(-1)] {
        let mut told = Told::with([0]);
        told.wait();
        told.refuse(error, "no");
        told.wait();
        assert_eq!((told.events(), told.last().epoch), (vec![], 2));
    }
    let mut told = Told::new();
    told.refuse(StreamsError::OtherGroup, "not a streams group");
    told.wait();
    assert_eq!((told.last().epoch, told.sent.len()), (0, 2));
}

#[test]
fn who_leaves_says_so_once_and_who_stays_says_nothing() {
    let mut told = Told::with([]);
    told.on(StreamsInput::Leave(LeaveMode::Leave));
    assert_eq!(told.last().epoch, -1);
    told.hear(Taken { epoch: -1, ..Taken::default() });
    assert_eq!(told.events().last().unwrap(), "ended");
    let mut told = Told::with([]);
    told.on(StreamsInput::Leave(LeaveMode::Leave));
    told.answer(Heard::Disconnected);
    told.wait();
    assert_eq!(told.events().last().unwrap(), "ended", "the last word is not waited for without an end");
    let mut told = Told::with([]);
    told.on(StreamsInput::Leave(LeaveMode::Stay));
    assert_ne!(told.last().epoch, -1);
    assert_eq!(told.events().last().unwrap(), "ended");
}

#[test]
fn a_word_that_ends_all_instances_is_passed_on_once_and_asked_for_by_who_wants_it() {
    let mut told = Told::with([0]);
    told.member.shuts_down = Box::new(|| true);
    told.on(StreamsInput::Tell);
    assert!(told.last().shuts_down);
    for _ in 0..2 {
        let statuses = vec![(Status::ShutdownApplication, String::new())];
        told.hear(Taken { epoch: 2, statuses, ..Taken::default() });
        told.wait();
    }
    assert_eq!(told.events(), ["shut down"]);
    let mut joining = Told::new();
    joining.member.shuts_down = Box::new(|| true);
    joining.answer(Heard::Disconnected);
    joining.wait();
    assert!(!joining.last().shuts_down, "a join is refused with it");
}

#[test]
fn there_is_nobody_to_hand_over_to_before_the_leave() {
    let mut told = Told::with([0]);
    told.on(StreamsInput::HandOver);
    assert_eq!(told.events(), ["handed over"]);
}

#[test]
fn a_leave_waits_for_the_heartbeat_before_it() {
    let mut told = Told::with([]);
    told.wait();
    told.on(StreamsInput::Leave(LeaveMode::Leave));
    assert_ne!(told.last().epoch, -1);
    told.hear(Taken { epoch: 2, ..Taken::default() });
    assert_eq!(told.last().epoch, -1);
}

#[test]
fn after_a_lost_answer_a_member_asks_what_it_has_and_commits_nothing_meanwhile() {
    let mut told = Told::with([0, 1]);
    told.wait();
    told.answer(Heard::Disconnected);
    told.wait();
    told.hear(Taken { epoch: 2, ..Taken::default() });
    told.on(StreamsInput::Tick);
    assert_eq!((told.last().epoch, told.last().owned.clone()), (JOINING, Some(Tasks::default())));
    assert_eq!(told.events(), ["@None 0,1"]);
    told.hear(Taken { epoch: 2, tasks: Some(active([0, 1, 2])), ..Taken::default() });
    assert_eq!(told.events(), ["@Some(2) 0,1", "@Some(2) 0,1,2", "+2", "settled"]);
}

#[test]
fn a_member_that_was_told_anew_in_another_epoch_has_lost_what_it_had() {
    let mut told = Told::with([0, 1]);
    told.wait();
    told.answer(Heard::Disconnected);
    told.wait();
    told.hear(Taken { epoch: 2, ..Taken::default() });
    told.on(StreamsInput::Tick);
    told.events.clear();
    told.hear(Taken { epoch: 4, tasks: Some(active([0])), ..Taken::default() });
    assert_eq!(told.events(), ["@None ", "!0,1", "@Some(4) "]);
    told.on(StreamsInput::Closed(tasks([0, 1])));
    assert_eq!(told.events(), ["@Some(4) 0", "+0", "settled"]);
}

#[test]
fn a_process_that_hangs_leaves_and_joins_again_when_it_has_closed_what_it_had() {
    let mut told = Told::with([1, 2]);
    told.on(StreamsInput::Abandon);
    assert_eq!(told.events, ["@None ", "!1,2"]);
    assert_eq!(told.sent.last().unwrap().epoch, LEAVING);
    let sent = told.sent.len();
    told.on(StreamsInput::Abandon);
    // The word that it leaves was lost: it is said again.
    told.answer(Heard::Disconnected);
    told.now = told.member.deadline();
    told.on(StreamsInput::Tick);
    assert_eq!((told.sent.len(), told.sent.last().unwrap().epoch), (sent + 1, LEAVING));
    told.hear(Taken { epoch: LEAVING, ..Taken::default() });
    assert_eq!(told.member.deadline(), Millis::MAX);
    told.close([1]);
    assert_eq!(told.sent.len(), sent + 1, "a store is open");
    told.close([2]);
    assert_eq!(told.sent.last().unwrap().epoch, JOINING);
    told.hear(Taken { epoch: 5, tasks: Some(active([2])), ..Taken::default() });
    assert!(told.events.contains(&"+2".to_owned()), "{:?}", told.events);
}

#[test]
fn who_hangs_while_an_answer_is_under_way_leaves_after_it_and_may_end_meanwhile() {
    let mut told = Told::with([1]);
    told.now = told.member.deadline();
    told.on(StreamsInput::Tick);
    let beats = told.sent.len();
    told.on(StreamsInput::Abandon);
    assert_eq!(told.sent.len(), beats);
    told.hear(Taken { epoch: 3, tasks: Some(active([1, 2])), ..Taken::default() });
    assert_eq!(told.sent.last().unwrap().epoch, LEAVING);
    assert_eq!(told.events, ["@None ", "!1"], "what it is given then it does not take");
    told.refuse(StreamsError::UnknownMember, "");
    told.on(StreamsInput::Leave(LeaveMode::Leave));
    assert_eq!(told.events.last().unwrap(), "ended");
}

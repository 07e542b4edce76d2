//! A member by hand: every answer lost, late, or twice, by a clock of its own.

use super::*;
use crate::error::Error;
use crate::membership::classic::protocol::GroupError;

/// Tasks as text: `generation:0_1,0_2;!` with `!` for an assignment made for another program,
/// `.` for one that says that nobody else stays, and `$` for one that ends everybody.
struct Spoken;

fn spoken(generation: i32, tasks: &[i32]) -> Vec<u8> {
    let tasks: Vec<_> = tasks.iter().map(i32::to_string).collect();
    format!("{generation}:{}", tasks.join(",")).into_bytes()
}

fn heard(user_data: &[u8]) -> (i32, BTreeSet<TaskId>) {
    let text = String::from_utf8(user_data.to_vec()).unwrap();
    let text = text.split('+').next().unwrap_or_default();
    let (generation, tasks) = text.trim_end_matches(['!', '.', '$']).split_once(':').unwrap();
    let tasks =
        tasks.split(',').filter(|task| !task.is_empty()).map(|task| task.parse().unwrap()).collect::<Vec<i32>>();
    (generation.parse().unwrap(), numbered(&tasks))
}

fn numbered(tasks: &[i32]) -> BTreeSet<TaskId> {
    tasks.iter().map(|partition| TaskId { sub_topology: 0, partition: *partition }).collect()
}

impl Assignor for Spoken {
    fn subscribe(&mut self, claim: &Claim<'_>) -> Vec<u8> {
        let tasks: Vec<_> = claim.owned.iter().map(|task| task.partition).collect();
        let farewell = if claim.is_leaving { " leaving" } else { "" };
        [&spoken(claim.generation, &tasks)[..], format!("#{}{farewell}", claim.joins).as_bytes()].concat()
    }

    /// Four tasks, dealt in the order of the members.
    fn assign(&mut self, _leader: &str, generation: i32, members: &[GroupMember]) -> Vec<MemberAssignment> {
        let dealt = |index: usize| (0..4).filter(|task| *task as usize % members.len() == index).collect::<Vec<i32>>();
        let given = members.iter().enumerate().map(|(index, member)| MemberAssignment {
            member: member.id.clone(),
            partitions: Vec::new(),
            user_data: spoken(generation, &dealt(index)),
        });
        given.collect()
    }

    fn read(&mut self, user_data: &[u8]) -> Result<Decision> {
        if user_data == b"broken" {
            return Err(Error::corrupted("broken"));
        }
        let (generation, active) = heard(user_data);
        let fit = if user_data.ends_with(b"!") { Fit::Outdated } else { Fit::Current };
        // What comes here once it is warm stands behind a plus.
        let text = String::from_utf8(user_data.to_vec()).unwrap();
        let warmup: BTreeSet<_> = text.split('+').skip(1).flat_map(|task| numbered(&[task.parse().unwrap()])).collect();
        let (standby, fence) = (warmup.clone(), vec!["gone-1".to_owned()]);
        let (is_alone, shuts_down) = (text.ends_with('.'), text.ends_with('$'));
        Ok(Decision { generation, active, standby, warmup, fence, is_alone, shuts_down, fit })
    }
}

struct Scene {
    member: Member,
    now: Millis,
}

impl Scene {
    fn new(instance: Option<&str>) -> Scene {
        let settings = MemberSettings {
            instance: instance.map(str::to_owned),
            session_timeout: Duration::from_secs(6),
            rebalance_timeout: Duration::from_secs(60),
        };
        Scene { member: Member::new(settings, vec!["in".into()], Box::new(Spoken), 0), now: 0 }
    }

    fn on(&mut self, input: MemberInput) -> Vec<MemberOutput> {
        self.member.on(input, self.now);
        std::iter::from_fn(|| self.member.poll_output()).collect()
    }

    fn answer(&mut self, answer: GroupAnswer) -> Vec<MemberOutput> {
        self.on(MemberInput::Answer(answer))
    }

    /// Ticks up to a time, and what was said meanwhile.
    fn until(&mut self, time: Millis) -> Vec<MemberOutput> {
        let mut outputs = Vec::new();
        while self.member.deadline() <= time {
            self.now = self.member.deadline().max(self.now);
            outputs.extend(self.on(MemberInput::Tick));
        }
        self.now = time;
        outputs
    }

    /// A follower with these tasks, in generation 5.
    fn follower(tasks: &[i32]) -> Scene {
        let mut scene = Scene::new(Some("a"));
        scene.on(MemberInput::Tick);
        scene.answer(joined(5));
        let outputs = scene.answer(synced(5, tasks));
        assert!(outputs.contains(&MemberOutput::Settled), "{outputs:?}");
        scene.answer(GroupAnswer::Alive);
        scene
    }

    fn refuse_heartbeat(&mut self, error: GroupError) -> Vec<MemberOutput> {
        self.until(self.now + 1000);
        self.answer(GroupAnswer::Refused { request: RequestKind::Heartbeat, error })
    }
}

fn joined(generation: i32) -> GroupAnswer {
    let (member, leader) = ("a-1".to_owned(), "b-1".to_owned());
    GroupAnswer::Joined { generation, member, leader, skip_assignment: false, members: Vec::new() }
}

fn synced(generation: i32, tasks: &[i32]) -> GroupAnswer {
    GroupAnswer::Synced { partitions: Vec::new(), user_data: spoken(generation, tasks) }
}

fn refused(request: RequestKind, error: GroupError) -> GroupAnswer {
    GroupAnswer::Refused { request, error }
}

fn requests(outputs: &[MemberOutput]) -> Vec<RequestKind> {
    let kind = |output: &MemberOutput| {
        let MemberOutput::Send(request) = output else { return None };
        Some(match request {
            GroupRequest::Join { .. } => RequestKind::Join,
            GroupRequest::Sync { .. } => RequestKind::Sync,
            GroupRequest::Heartbeat { .. } => RequestKind::Heartbeat,
            GroupRequest::Leave { .. } => RequestKind::Leave,
        })
    };
    outputs.iter().filter_map(kind).collect()
}

fn join_of(outputs: &[MemberOutput]) -> (String, String) {
    let found = outputs.iter().find_map(|output| {
        let MemberOutput::Send(GroupRequest::Join { member, user_data, .. }) = output else { return None };
        Some((member.clone(), String::from_utf8(user_data.clone()).unwrap()))
    });
    found.unwrap_or_else(|| panic!("no join among {outputs:?}"))
}

fn place(outputs: &[MemberOutput]) -> Option<Place> {
    outputs.iter().rev().find_map(|output| {
        let MemberOutput::Publish(place) = output else { return None };
        Some(place.clone())
    })
}

fn revoked(tasks: &[i32]) -> MemberOutput {
    MemberOutput::Revoked { tasks: numbered(tasks) }
}

fn lost(tasks: &[i32]) -> MemberOutput {
    MemberOutput::Lost { tasks: numbered(tasks) }
}

fn assigned(tasks: &[i32]) -> MemberOutput {
    MemberOutput::Assigned { tasks: numbered(tasks), fence: vec!["gone-1".to_owned()] }
}

fn in_generation(generation: i32, owned: &[i32]) -> Option<Place> {
    Some(Place { membership: Some((generation, "a-1".to_owned())), owned: numbered(owned) })
}

#[test]
fn a_member_joins_syncs_and_takes_what_it_is_given() {
    let mut scene = Scene::new(Some("a"));
    assert_eq!(join_of(&scene.on(MemberInput::Tick)), (String::new(), "-1:#1".to_owned()));
    let outputs = scene.answer(joined(5));
    assert_eq!(place(&outputs), in_generation(5, &[]));
    assert_eq!(requests(&outputs), [RequestKind::Sync, RequestKind::Heartbeat]);
    let outputs = scene.answer(synced(5, &[0, 2]));
    assert_eq!(place(&outputs), in_generation(5, &[0, 2]));
    assert_eq!(outputs[1..], [assigned(&[0, 2]), MemberOutput::Settled]);
}

#[test]
fn a_leader_decides_for_everybody_unless_it_is_told_to_skip_that() {
    for (skip_assignment, decided) in [(false, vec![spoken(1, &[0, 2]), spoken(1, &[1, 3])]), (true, Vec::new())] {
        let mut scene = Scene::new(None);
        scene.on(MemberInput::Tick);
        let other = |id: &str| GroupMember { id: id.into(), instance: None, topics: Vec::new(), user_data: Vec::new() };
        let members = vec![other("a-1"), other("b-1")];
        let (member, leader) = ("a-1".to_owned(), "a-1".to_owned());
        let outputs = scene.answer(GroupAnswer::Joined { generation: 1, member, leader, skip_assignment, members });
        let Some(MemberOutput::Send(GroupRequest::Sync { assignments, .. })) =
            outputs.iter().find(|output| matches!(output, MemberOutput::Send(GroupRequest::Sync { .. })))
        else {
            panic!("{outputs:?}")
        };
        assert_eq!(assignments.iter().map(|given| given.user_data.clone()).collect::<Vec<_>>(), decided);
    }
}

#[test]
fn a_dynamic_member_joins_again_with_the_id_it_is_given() {
    let mut scene = Scene::new(None);
    scene.on(MemberInput::Tick);
    let outputs = scene.answer(refused(RequestKind::Join, GroupError::MemberIdRequired("a-7".to_owned())));
    assert_eq!(join_of(&outputs).0, "a-7");
}

#[test]
fn a_rebalance_takes_no_task_away_that_stays() {
    let mut scene = Scene::follower(&[0, 1, 2]);
    let outputs = scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    assert_eq!(join_of(&outputs), ("a-1".to_owned(), "5:0,1,2#2".to_owned()));
    // The new generation counts for commits before the assignment has come.
    assert_eq!(place(&scene.answer(joined(6))), in_generation(6, &[0, 1, 2]));
    let outputs = scene.answer(synced(6, &[0, 1]));
    assert_eq!(outputs, [revoked(&[2])]);
    // It is ours, and nobody else's, until it is closed; then the leader is told.
    let outputs = scene.on(MemberInput::Closed(numbered(&[2])));
    assert_eq!(place(&outputs), in_generation(6, &[0, 1]));
    assert_eq!(join_of(&outputs).1, "6:0,1#3");
    scene.answer(joined(7));
    assert_eq!(scene.answer(synced(7, &[0, 1])), [MemberOutput::Settled]);
}

#[test]
fn a_task_that_is_asked_back_and_given_again_meanwhile_comes_back_after_it_was_closed() {
    let mut scene = Scene::follower(&[0, 1]);
    scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    scene.answer(joined(6));
    assert_eq!(scene.answer(synced(6, &[0])), [revoked(&[1])]);
    scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    scene.answer(joined(7));
    assert_eq!(scene.answer(synced(7, &[0, 1])), []);
    let outputs = scene.on(MemberInput::Closed(numbered(&[1])));
    assert_eq!(outputs.iter().filter(|output| **output == assigned(&[1])).count(), 1);
    assert_eq!(place(&outputs), in_generation(7, &[0, 1]));
    assert_eq!(requests(&outputs), []);
}

#[test]
fn a_claim_that_is_no_longer_true_is_taken_back_by_another_join() {
    let mut scene = Scene::follower(&[0, 1]);
    scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    scene.answer(joined(6));
    scene.answer(synced(6, &[0]));
    // The join says that task 1 is here, and while it waits it is closed.
    assert_eq!(join_of(&scene.refuse_heartbeat(GroupError::RebalanceInProgress)).1, "6:0,1#3");
    scene.on(MemberInput::Closed(numbered(&[1])));
    scene.answer(joined(7));
    assert_eq!(join_of(&scene.answer(synced(7, &[0]))).1, "7:0#4");
}

#[test]
fn a_group_that_went_on_without_the_member_has_its_tasks() {
    let mut scene = Scene::follower(&[0, 1]);
    let outputs = scene.refuse_heartbeat(GroupError::IllegalGeneration);
    assert_eq!(place(&outputs), Some(Place::default()));
    assert!(outputs.contains(&lost(&[0, 1])), "{outputs:?}");
    assert_eq!(join_of(&outputs), ("a-1".to_owned(), "-1:#2".to_owned()));
    scene.answer(joined(7));
    // Given again, they wait until they are closed.
    assert_eq!(scene.answer(synced(7, &[0, 1])), []);
    let outputs = scene.on(MemberInput::Closed(numbered(&[0, 1])));
    assert!(outputs.contains(&assigned(&[0, 1])), "{outputs:?}");
}

#[test]
fn a_claim_counts_for_the_next_generation_only() {
    for (generation, is_kept) in [(5, true), (6, true), (7, false), (1, false)] {
        let mut scene = Scene::follower(&[0]);
        scene.refuse_heartbeat(GroupError::RebalanceInProgress);
        let outputs = scene.answer(joined(generation));
        assert_eq!(!outputs.contains(&lost(&[0])), is_kept, "{generation}: {outputs:?}");
        let owned: &[i32] = if is_kept { &[0] } else { &[] };
        assert_eq!(place(&outputs), in_generation(generation, owned));
    }
}

#[test]
fn a_removed_member_joins_as_a_new_one() {
    let mut scene = Scene::follower(&[0]);
    let outputs = scene.refuse_heartbeat(GroupError::UnknownMemberId);
    assert!(outputs.contains(&lost(&[0])), "{outputs:?}");
    assert_eq!(join_of(&outputs), (String::new(), "-1:#2".to_owned()));
}

#[test]
fn a_twin_ends_the_member() {
    let mut scene = Scene::follower(&[0]);
    let outputs = scene.refuse_heartbeat(GroupError::FencedInstance);
    assert_eq!(place(&outputs), Some(Place::default()));
    assert!(matches!(outputs.last(), Some(MemberOutput::Failed(ErrorKind::Fenced, _))), "{outputs:?}");
    assert_eq!(scene.on(MemberInput::Tick), []);
}

/// The broker was busy: it takes the first join after the second one.
#[test]
fn a_join_that_was_given_up_may_replace_the_member_once() {
    let mut scene = Scene::new(Some("a"));
    scene.on(MemberInput::Tick);
    scene.answer(GroupAnswer::Disconnected(RequestKind::Join));
    assert_eq!(requests(&scene.until(1_000)), [RequestKind::Join]);
    scene.answer(joined(5));
    scene.answer(synced(5, &[0]));
    scene.answer(GroupAnswer::Alive);
    let outputs = scene.refuse_heartbeat(GroupError::FencedInstance);
    assert!(outputs.contains(&lost(&[0])), "{outputs:?}");
    assert_eq!(join_of(&outputs).0, "");
    scene.answer(joined(6));
    scene.answer(synced(6, &[0]));
    scene.answer(GroupAnswer::Alive);
    let outputs = scene.refuse_heartbeat(GroupError::FencedInstance);
    assert!(matches!(outputs.last(), Some(MemberOutput::Failed(ErrorKind::Fenced, _))), "{outputs:?}");
}

#[test]
fn a_twin_is_told_long_after_a_join_was_given_up() {
    let mut scene = Scene::new(Some("a"));
    scene.on(MemberInput::Tick);
    scene.answer(GroupAnswer::Disconnected(RequestKind::Join));
    scene.until(1_000);
    scene.answer(joined(5));
    scene.answer(synced(5, &[0]));
    // Beats are answered for long.
    for _ in 0..70 {
        scene.answer(GroupAnswer::Alive);
        scene.until(scene.now + 1_000);
    }
    let outputs = scene.refuse_heartbeat(GroupError::FencedInstance);
    assert!(matches!(outputs.last(), Some(MemberOutput::Failed(ErrorKind::Fenced, _))), "{outputs:?}");
}

#[test]
fn what_the_broker_does_not_allow_is_said_with_the_remedy() {
    for (error, remedy) in [
        (GroupError::InvalidSessionTimeout, "session_timeout"),
        (GroupError::MaxSizeReached, "group.max.size"),
        (GroupError::Denied("no READ".to_owned()), "no READ"),
    ] {
        let mut scene = Scene::new(Some("a"));
        scene.on(MemberInput::Tick);
        let outputs = scene.answer(refused(RequestKind::Join, error));
        let Some(MemberOutput::Failed(ErrorKind::Invalid, reason)) = outputs.last() else { panic!("{outputs:?}") };
        assert!(reason.contains(remedy), "{reason}");
    }
}

#[test]
fn a_member_that_hears_nothing_for_the_session_timeout_gives_up_what_it_has() {
    let mut scene = Scene::follower(&[0]);
    // Every heartbeat is answered late by being cut off: nothing of it counts.
    let mut outputs = Vec::new();
    while scene.now < 5900 {
        outputs.extend(scene.until(scene.now + 100));
        outputs.extend(scene.answer(GroupAnswer::Disconnected(RequestKind::Heartbeat)));
    }
    assert!(!outputs.contains(&lost(&[0])));
    assert!(requests(&outputs).len() > 5, "it goes on asking");
    let outputs = scene.until(6000);
    assert!(outputs.contains(&lost(&[0])), "{outputs:?}");
    assert_eq!(requests(&outputs), [RequestKind::Join]);
}

#[test]
fn an_answer_that_waited_for_a_stopped_process_does_not_count() {
    let mut scene = Scene::follower(&[0]);
    scene.until(1000);
    scene.now = 20_000;
    let outputs = scene.answer(GroupAnswer::Alive);
    assert!(outputs.contains(&lost(&[0])), "{outputs:?}");
}

#[test]
fn a_member_stays_alive_while_its_join_waits_for_others() {
    let mut scene = Scene::follower(&[0]);
    let mut outputs = scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    while scene.now < 30_000 {
        outputs.extend(scene.refuse_heartbeat(GroupError::RebalanceInProgress));
    }
    assert_eq!(requests(&outputs).iter().filter(|kind| **kind == RequestKind::Join).count(), 1);
    assert!(!outputs.contains(&lost(&[0])));
    // The join's answer may come behind that of a heartbeat which the new generation has refused.
    assert_eq!(scene.refuse_heartbeat(GroupError::IllegalGeneration), []);
    assert_eq!(place(&scene.answer(joined(6))), in_generation(6, &[0]));
}

#[test]
fn a_refusal_of_a_generation_that_is_over_says_nothing() {
    let mut scene = Scene::follower(&[0]);
    scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    scene.until(scene.now + 1000);
    scene.answer(joined(6));
    scene.answer(synced(6, &[0]));
    for error in [GroupError::RebalanceInProgress, GroupError::IllegalGeneration] {
        assert_eq!(scene.answer(refused(RequestKind::Heartbeat, error)), []);
    }
}

#[test]
fn an_answer_that_comes_twice_counts_once() {
    let mut scene = Scene::follower(&[0]);
    for answer in [joined(5), synced(5, &[1]), refused(RequestKind::Join, GroupError::UnknownMemberId), joined(6)] {
        assert_eq!(scene.answer(answer), []);
    }
    // One to a join that is repeated is met by the generation in the assignment.
    scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    scene.answer(joined(6));
    assert_eq!(scene.answer(synced(5, &[0, 1])), []);
    assert_eq!(requests(&scene.until(scene.now + 100)), [RequestKind::Join]);
}

#[test]
fn a_lost_join_is_repeated_with_the_same_bytes_and_a_lost_sync_as_it_was() {
    let mut scene = Scene::follower(&[0]);
    let first = join_of(&scene.refuse_heartbeat(GroupError::RebalanceInProgress));
    assert_eq!(scene.answer(GroupAnswer::Disconnected(RequestKind::Join)), []);
    assert_eq!(join_of(&scene.until(scene.now + 100)), first);
    scene.answer(joined(6));
    assert_eq!(scene.answer(GroupAnswer::Disconnected(RequestKind::Sync)), []);
    assert!(requests(&scene.until(scene.now + 500)).contains(&RequestKind::Sync));
    assert_eq!(scene.answer(synced(6, &[0])), [MemberOutput::Settled]);
}

#[test]
fn a_sync_that_another_rebalance_overtakes_joins_again_and_loses_nothing() {
    let mut scene = Scene::follower(&[0]);
    scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    scene.answer(joined(6));
    let outputs = scene.answer(refused(RequestKind::Sync, GroupError::RebalanceInProgress));
    assert_eq!(join_of(&outputs).1, "6:0#3");
    assert_eq!(place(&scene.answer(joined(7))), in_generation(7, &[0]));
}

#[test]
fn what_cannot_be_read_is_asked_for_again() {
    let mut scene = Scene::follower(&[0]);
    scene.refuse_heartbeat(GroupError::RebalanceInProgress);
    scene.answer(joined(6));
    let broken = GroupAnswer::Synced { partitions: Vec::new(), user_data: b"broken".to_vec() };
    assert_eq!(scene.answer(broken), []);
    assert_eq!(requests(&scene.until(scene.now + 100)), [RequestKind::Join]);
}

#[test]
fn a_restarted_member_that_finds_an_assignment_for_another_program_tells_the_leader_once() {
    let mut scene = Scene::new(Some("a"));
    scene.on(MemberInput::Tick);
    for (generation, is_first) in [(5, true), (6, false)] {
        scene.answer(joined(generation));
        let user_data = [&spoken(generation, &[0])[..], b"!"].concat();
        let outputs = scene.answer(GroupAnswer::Synced { partitions: Vec::new(), user_data });
        assert_eq!(requests(&outputs).contains(&RequestKind::Join), is_first, "{outputs:?}");
        assert_eq!(outputs.contains(&assigned(&[0])), !is_first, "{outputs:?}");
    }
}

#[test]
fn a_member_of_another_kind_of_group_waits_for_it_to_go() {
    let mut scene = Scene::new(Some("a"));
    scene.on(MemberInput::Tick);
    for _ in 0..10 {
        assert_eq!(scene.answer(refused(RequestKind::Join, GroupError::InconsistentProtocol)), []);
        assert_eq!(requests(&scene.until(scene.now + BACKOFF_MAX)), [RequestKind::Join]);
    }
}

#[test]
fn leaving_says_so_and_staying_says_nothing() {
    let mut scene = Scene::follower(&[]);
    assert_eq!(requests(&scene.on(MemberInput::Leave(LeaveMode::Leave))), [RequestKind::Leave]);
    assert_eq!(scene.answer(GroupAnswer::Left), [MemberOutput::Ended]);
    let mut scene = Scene::follower(&[]);
    let outputs = scene.on(MemberInput::Leave(LeaveMode::Stay));
    assert_eq!((requests(&outputs), outputs.last()), (Vec::new(), Some(&MemberOutput::Ended)));
}

#[test]
fn a_coordinator_that_does_not_answer_the_farewell_holds_nobody_up() {
    let mut scene = Scene::follower(&[]);
    scene.on(MemberInput::Leave(LeaveMode::Leave));
    assert_eq!(scene.until(scene.now + LEAVE_TIMEOUT), [MemberOutput::Ended]);
}

#[test]
fn other_topics_are_told_to_the_group_and_every_task_stays() {
    let mut scene = Scene::follower(&[0]);
    let outputs = scene.on(MemberInput::Subscribe(vec!["in".into(), "new".into()], Box::new(Spoken)));
    assert_eq!(join_of(&outputs).1, "5:0#2");
    // Even while a join is under way: its answer is the place from which the next one starts.
    scene.on(MemberInput::Subscribe(vec!["newer".into()], Box::new(Spoken)));
    let outputs = scene.answer(joined(6));
    assert_eq!(place(&outputs), in_generation(6, &[0]));
    assert_eq!(requests(&outputs), [RequestKind::Join]);
    assert_eq!(place(&scene.answer(joined(7))), in_generation(7, &[0]));
}

/// With a standby that the group waits for.
fn warming(generation: i32, tasks: &[i32], warmup: i32) -> GroupAnswer {
    let user_data = [&spoken(generation, tasks)[..], format!("+{warmup}").as_bytes()].concat();
    GroupAnswer::Synced { partitions: Vec::new(), user_data }
}

#[test]
fn a_standby_that_has_warmed_up_is_told_to_the_group_once() {
    let mut scene = Scene::new(Some("a"));
    scene.on(MemberInput::Tick);
    scene.answer(joined(5));
    let outputs = scene.answer(warming(5, &[0], 7));
    assert!(outputs.contains(&MemberOutput::Standby { tasks: numbered(&[7]) }), "{outputs:?}");
    scene.answer(GroupAnswer::Alive);
    assert_eq!(requests(&scene.on(MemberInput::WarmedUp(numbered(&[8])))), []);
    assert_eq!(requests(&scene.on(MemberInput::WarmedUp(numbered(&[7])))), [RequestKind::Join]);
    scene.answer(joined(6));
    assert_eq!(scene.answer(warming(6, &[0], 7)), [MemberOutput::Settled]);
}

#[test]
fn a_standby_that_warms_up_while_the_group_decides_is_told_by_another_join() {
    let mut scene = Scene::new(Some("a"));
    scene.on(MemberInput::Tick);
    scene.answer(joined(5));
    scene.on(MemberInput::WarmedUp(numbered(&[7])));
    assert_eq!(requests(&scene.answer(warming(5, &[0], 7))), [RequestKind::Join]);
}

#[test]
fn a_standby_that_becomes_active_is_one_until_it_does() {
    let mut scene = Scene::new(Some("a"));
    scene.on(MemberInput::Tick);
    scene.answer(joined(5));
    scene.answer(warming(5, &[0], 7));
    scene.answer(GroupAnswer::Alive);
    scene.on(MemberInput::WarmedUp(numbered(&[7])));
    scene.answer(joined(6));
    let outputs = scene.answer(synced(6, &[0, 7]));
    let is_standby = |output: &MemberOutput| *output == MemberOutput::Standby { tasks: numbered(&[7]) };
    let is_assigned = |output: &MemberOutput| matches!(output, MemberOutput::Assigned { .. });
    let (kept, given) = (outputs.iter().position(is_standby), outputs.iter().position(is_assigned));
    assert!(kept.is_some() && kept < given, "{outputs:?}");
}

#[test]
fn what_is_abandoned_is_claimed_no_more_and_taken_again_when_it_is_closed() {
    let mut scene = Scene::follower(&[0, 1]);
    let outputs = scene.on(MemberInput::Abandon(numbered(&[0])));
    assert_eq!((place(&outputs), outputs.contains(&lost(&[0]))), (in_generation(5, &[1]), true));
    assert_eq!(join_of(&outputs).1, "5:1#2");
    scene.answer(joined(6));
    let outputs = scene.answer(synced(6, &[0, 1]));
    assert_eq!(outputs, [MemberOutput::Settled], "its stores are open");
    let outputs = scene.on(MemberInput::Closed(numbered(&[0])));
    assert!(outputs.contains(&assigned(&[0])), "{outputs:?}");
}

#[test]
fn who_hands_over_goes_on_until_it_has_nothing_left() {
    let mut scene = Scene::follower(&[0, 1]);
    assert_eq!(join_of(&scene.on(MemberInput::HandOver)).1, "5:0,1#2 leaving");
    scene.answer(joined(6));
    assert_eq!(scene.answer(synced(6, &[1])), [revoked(&[0])]);
    let outputs = scene.on(MemberInput::Closed(numbered(&[0])));
    assert_eq!(join_of(&outputs).1, "6:1#3 leaving");
    scene.answer(joined(7));
    assert_eq!(scene.answer(synced(7, &[])), [revoked(&[1])]);
    let outputs = scene.on(MemberInput::Closed(numbered(&[1])));
    assert_eq!(outputs.iter().filter(|output| **output == MemberOutput::HandedOver).count(), 1);
    scene.answer(joined(8));
    assert!(!scene.answer(synced(8, &[])).contains(&MemberOutput::HandedOver), "it is told once");
}

#[test]
fn who_is_alone_hands_nothing_over() {
    let mut scene = Scene::follower(&[0, 1]);
    scene.on(MemberInput::HandOver);
    scene.answer(joined(6));
    let user_data = [&spoken(6, &[0, 1])[..], b"."].concat();
    let outputs = scene.answer(GroupAnswer::Synced { partitions: Vec::new(), user_data });
    assert_eq!(outputs, [MemberOutput::Settled, MemberOutput::HandedOver]);
}

#[test]
fn a_process_that_is_started_again_is_not_ended_by_the_word_that_ended_its_last_run() {
    let end = |generation| {
        let user_data = [&spoken(generation, &[0])[..], b"$"].concat();
        GroupAnswer::Synced { partitions: Vec::new(), user_data }
    };
    let mut scene = Scene::new(Some("a"));
    scene.on(MemberInput::Tick);
    scene.answer(joined(5));
    let outputs = scene.answer(end(5));
    assert_eq!(requests(&outputs), [RequestKind::Join], "it asks once more");
    scene.answer(joined(6));
    assert!(scene.answer(end(6)).contains(&MemberOutput::ShutDown));
}

use super::*;
use crate::membership::classic::user_data::ASSIGNOR_VERSION;

fn task(sub_topology: usize, partition: i32) -> TaskId {
    TaskId { sub_topology, partition }
}

fn process(number: u8) -> Uuid {
    // As random as real ones, which have no bytes in common.
    let mut next = number.wrapping_mul(31);
    Uuid::from_bytes(std::array::from_fn(|_| {
        next = next.wrapping_add(1);
        next
    }))
}

fn catalog(sub_topologies: usize, partitions: i32) -> TaskCatalog {
    let id = move |sub_topology| (0..partitions).map(move |partition| task(sub_topology, partition));
    let of = |id: TaskId| CatalogTask {
        id,
        is_stateful: true,
        inputs: vec![TopicPartition::new(format!("input-{}", id.sub_topology), id.partition)],
    };
    TaskCatalog {
        topology: TopologyFingerprint { whole: 1, parts: (10..).take(sub_topologies).collect() },
        tasks: (0..sub_topologies).flat_map(id).map(of).collect(),
    }
}

fn told(number: u8, catalog: &TaskCatalog) -> Subscription {
    Subscription {
        understands: VERSION,
        assignor_version: ASSIGNOR_VERSION,
        process: process(number),
        started_ms: 0,
        joins: 1,
        generation: -1,
        is_leaving: false,
        is_impaired: false,
        shuts_down: false,
        workers: 2,
        topology: catalog.topology.clone(),
        endpoint: None,
        transactional_id_prefix: format!("app-{}", process(number)),
        tags: Vec::new(),
        active: Vec::new(),
        promised: Vec::new(),
        standby: Vec::new(),
        lags: Vec::new(),
        sizes: Vec::new(),
    }
}

fn member(number: u8, user_data: Vec<u8>) -> GroupMember {
    let topics = vec!["input-0".into(), "input-1".into()];
    GroupMember { id: format!("m{number}"), instance: None, topics, user_data }
}

fn planned(members: &[GroupMember], catalog: &TaskCatalog, known: &[Host], assignor: &AssignorSettings) -> Plan {
    let bytes_max = PlanSettings::BYTES_MAX;
    plan(members, catalog, &PlanSettings { leader: "m0", generation: 5, known, assignor, bytes_max })
}

fn read(plan: &Plan) -> Vec<Assignment> {
    plan.assignments.iter().map(|given| Assignment::decode(&given.user_data).unwrap()).collect()
}

#[test]
fn everybody_hears_of_its_tasks_and_of_the_others() {
    let catalog = catalog(1, 4);
    let members: Vec<_> = (0..2)
        .map(|number| {
            let endpoint = (number == 0).then(|| "host:1".to_owned());
            member(number, Subscription { endpoint, ..told(number, &catalog) }.encode())
        })
        .collect();
    let plan = planned(&members, &catalog, &[], &AssignorSettings { num_standby: 1, ..AssignorSettings::default() });
    let given = read(&plan);
    assert!(plan.is_settled && plan.refused.is_empty());
    assert_eq!((given[0].active.len(), given[1].active.len()), (2, 2));
    assert_eq!(given[0].active, given[1].standby);
    assert_eq!((given[0].generation, given[0].topology, given[0].follow_up), (5, 1, false));
    let inputs: Vec<_> = given[1].active.iter().map(|task| TopicPartition::new("input-0", task.partition)).collect();
    assert_eq!(plan.assignments[1].partitions, inputs);
    // What the other one has is not told: nobody could ask it.
    let hosts: Vec<_> =
        given[1].hosts.iter().map(|host| (host.process, host.active.len(), host.standby.len())).collect();
    let mut expected = vec![(process(0), 2, 2), (process(1), 0, 0)];
    expected.sort_unstable();
    assert_eq!((hosts, given[1].detail), (expected, HostDetail::Whole));
}

#[test]
fn a_task_that_moves_is_kept_as_a_standby_until_it_is_let_go() {
    let catalog = catalog(1, 2);
    let owner = Subscription { active: vec![task(0, 0), task(0, 1)], generation: 4, ..told(0, &catalog) };
    let heir = Subscription { lags: vec![(task(0, 1), Some(0))], ..told(1, &catalog) };
    let members = [member(0, owner.encode()), member(1, heir.encode())];
    let plan = planned(&members, &catalog, &[], &AssignorSettings::default());
    let given = read(&plan);
    assert_eq!((&given[0].active[..], plan.is_settled), (&[task(0, 0)][..], false));
    assert_eq!((&given[1].awaiting, &given[1].standby), (&vec![task(0, 1)], &vec![task(0, 1)]));
    assert!(plan.assignments[1].partitions.is_empty());
}

#[test]
fn members_that_are_not_understood_or_run_something_else_are_told_and_the_others_go_on() {
    let catalog = catalog(2, 2);
    let mut other = catalog.topology.clone();
    (other.whole, other.parts[1]) = (2, 99);
    let changed =
        Subscription { topology: other, active: vec![task(0, 0), task(1, 0)], generation: 4, ..told(2, &catalog) };
    let twin = Subscription { started_ms: 1, generation: 4, ..told(0, &catalog) };
    let members = [
        member(0, twin.encode()),
        member(1, b"garbage".to_vec()),
        member(2, changed.encode()),
        member(3, told(0, &catalog).encode()),
    ];
    let plan = planned(&members, &catalog, &[], &AssignorSettings::default());
    let standings = [Standing::Member, Standing::Unreadable, Standing::OtherTopology, Standing::Superseded];
    let given = read(&plan);
    assert_eq!(given.iter().map(|given| given.standing).collect::<Vec<_>>(), standings);
    // It keeps what is the same for both. The others wait until it has let go of the rest, whatever that reads.
    assert_eq!(given[2].active, [task(0, 0)]);
    assert_eq!((&given[0].active[..], &given[0].awaiting[..]), (&[][..], &[task(0, 1), task(1, 0), task(1, 1)][..]));
    assert!(given[1].active.is_empty() && given[3].active.is_empty());
    assert_eq!((plan.refused.len(), plan.is_settled), (3, false));
    assert_eq!(given[0].hosts.len(), 2);

    let twin = Subscription { promised: given[0].awaiting.clone(), ..twin };
    let changed = Subscription { active: given[2].active.clone(), ..changed };
    let members = [member(0, twin.encode()), member(2, changed.encode())];
    let plan = planned(&members, &catalog, &[], &AssignorSettings::default());
    assert_eq!((&read(&plan)[0].active, plan.is_settled), (&given[0].awaiting, true));
}

#[test]
fn members_of_a_later_build_take_part_by_what_all_understand() {
    let catalog = catalog(1, 2);
    let later = Subscription { understands: 9, ..told(1, &catalog) }.encode();
    let later = [&[9, 1], &later[2..], b"and what is new in 9"].concat();
    let members = [member(0, told(0, &catalog).encode()), member(1, later)];
    let given = read(&planned(&members, &catalog, &[], &AssignorSettings::default()));
    assert_eq!(given.iter().map(|given| given.active.len()).collect::<Vec<_>>(), [1, 1]);
    assert!(given.iter().all(|given| given.standing == Standing::Member && given.common_version == VERSION));
}

#[test]
fn who_takes_over_from_a_dead_process_is_to_fence_it() {
    let catalog = catalog(1, 4);
    let claim = |number, active: Vec<TaskId>| Subscription { active, generation: 4, ..told(number, &catalog) };
    let members =
        [member(0, claim(0, vec![task(0, 0), task(0, 1)]).encode()), member(1, claim(1, vec![task(0, 2)]).encode())];
    let host = |number, active| Host {
        process: process(number),
        workers: 2,
        transactional_id_prefix: format!("app-{number}"),
        endpoint: None,
        active,
        standby: Vec::new(),
    };
    let known = [host(0, Vec::new()), host(8, vec![task(0, 3)]), host(9, vec![task(7, 7)])];
    let given = read(&planned(&members, &catalog, &known, &AssignorSettings::default()));
    assert!(given[0].fence.is_empty());
    let ids: Vec<_> = given[1].fence.iter().flat_map(Fence::transactional_ids).collect();
    assert_eq!(
        (&given[1].active[..], ids),
        (&[task(0, 2), task(0, 3)][..], vec!["app-8-1".to_owned(), "app-8-2".to_owned()])
    );
}

/// The figures of the documentation of `user_data`.
#[test]
fn a_hundred_members_with_ten_thousand_tasks_fit_into_a_record() {
    let catalog = catalog(20, 500);
    let settings = AssignorSettings { num_standby: 1, ..AssignorSettings::default() };
    for (has_endpoints, detail, most) in [(true, HostDetail::Processes, 740), (false, HostDetail::Whole, 460)] {
        let subscription = |number: u8| Subscription {
            endpoint: has_endpoints.then(|| format!("worker-{number}.service.local:8080")),
            ..told(number, &catalog)
        };
        let mut members: Vec<GroupMember> =
            (0..100).map(|number| member(number, subscription(number).encode())).collect();
        let mut plan = planned(&members, &catalog, &[], &settings);
        // And again, with everything claimed and a lag of each standby.
        for (number, assignment) in (0_u8..).zip(read(&plan)) {
            let claim = Subscription {
                lags: assignment.standby.iter().map(|task| (*task, Some(1000))).collect(),
                sizes: assignment.active.iter().map(|task| (*task, Some(1_000_000))).collect(),
                active: assignment.active,
                standby: assignment.standby,
                generation: 5,
                ..subscription(number)
            };
            members[usize::from(number)].user_data = claim.encode();
        }
        plan = planned(&members, &catalog, &[], &settings);
        let given = plan.assignments.iter();
        let assignments: usize = given.map(|given| given.user_data.len() + size_of_partitions(&given.partitions)).sum();
        let bytes = assignments + members.iter().map(size_of_member).sum::<usize>();
        assert_eq!(plan.detail, detail);
        assert!(bytes < most * 1024, "{} KiB", bytes / 1024);
        assert!(bytes > (most - 60) * 1024, "{} KiB: less than is said", bytes / 1024);
        let given = read(&plan);
        assert!(given[0].hosts.iter().all(|host| host.active.len() == if has_endpoints { 100 } else { 0 }));
    }
}

#[test]
fn a_group_that_is_too_large_for_the_table_hears_of_its_leader() {
    let catalog = catalog(1, 100);
    let members: Vec<GroupMember> = (0..10)
        .map(|number| {
            member(number, Subscription { endpoint: Some("h:1".to_owned()), ..told(number, &catalog) }.encode())
        })
        .collect();
    let assignor = AssignorSettings::default();
    let settings = PlanSettings { leader: "m3", generation: 5, known: &[], assignor: &assignor, bytes_max: 1000 };
    let given = read(&plan(&members, &catalog, &settings));
    assert_eq!((given[3].detail, given[3].hosts.len()), (HostDetail::Whole, 10));
    assert_eq!((given[4].detail, given[4].hosts.len(), given[4].hosts[0].process), (HostDetail::Leader, 1, process(3)));
}

#[test]
fn who_leaves_hears_when_nobody_stays() {
    let catalog = catalog(1, 2);
    let leaving = |number| Subscription { is_leaving: true, ..told(number, &catalog) }.encode();
    let is_alone = |members: &[GroupMember]| -> Vec<bool> {
        let plan = planned(members, &catalog, &[], &AssignorSettings::default());
        read(&plan).iter().map(|given| given.is_alone).collect()
    };
    assert_eq!(is_alone(&[member(0, leaving(0)), member(1, leaving(1))]), [true, true]);
    assert_eq!(is_alone(&[member(0, leaving(0)), member(1, told(1, &catalog).encode())]), [false, false]);
}

#[test]
fn who_is_impaired_keeps_what_it_has_and_gets_more_only_where_nobody_else_can() {
    let catalog = catalog(1, 4);
    let impaired = Subscription { is_impaired: true, active: vec![task(0, 0)], generation: 4, ..told(0, &catalog) };
    let members = [member(0, impaired.encode()), member(1, told(1, &catalog).encode())];
    let given = read(&planned(&members, &catalog, &[], &AssignorSettings::default()));
    assert_eq!((&given[0].active[..], given[1].active.len()), (&[task(0, 0)][..], 3));
    assert_eq!((given[0].standing, given[0].shuts_down), (Standing::Member, false));
    let given = read(&planned(&members[..1], &catalog, &[], &AssignorSettings::default()));
    assert_eq!(given[0].active.len(), 4);
}

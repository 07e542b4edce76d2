use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

fn task(sub_topology: usize, partition: i32) -> TaskId {
    TaskId { sub_topology, partition }
}

fn subscription() -> Subscription {
    Subscription {
        understands: 1,
        assignor_version: 1,
        process: Uuid::from_bytes(*b"0123456789abcdef"),
        started_ms: 300,
        joins: 2,
        generation: 7,
        is_leaving: false,
        is_impaired: false,
        shuts_down: false,
        workers: 4,
        topology: TopologyFingerprint { whole: 0x0102_0304_0506_0708, parts: vec![9, 10] },
        endpoint: Some("host:80".to_owned()),
        transactional_id_prefix: "app-1".to_owned(),
        tags: vec![("zone".to_owned(), "a".to_owned())],
        active: vec![task(0, 1), task(0, 3), task(2, 0)],
        promised: vec![task(0, 2)],
        standby: vec![task(1, 300)],
        lags: vec![(task(0, 2), None), (task(1, 0), Some(0)), (task(1, 300), Some(1000))],
        sizes: vec![(task(0, 1), Some(200))],
    }
}

fn assignment() -> Assignment {
    let process = Uuid::from_bytes([1; 16]);
    let host = Host {
        process,
        workers: 2,
        transactional_id_prefix: format!("app-{process}"),
        endpoint: Some("h:1".to_owned()),
        active: vec![task(0, 0)],
        standby: vec![],
    };
    let other = Uuid::from_bytes([2; 16]);
    let second =
        Host { process: other, transactional_id_prefix: format!("app-{other}"), endpoint: None, ..host.clone() };
    Assignment {
        common_version: 1,
        standing: Standing::OtherTopology,
        follow_up: true,
        is_alone: false,
        shuts_down: false,
        generation: 7,
        topology: 0x0102_0304_0506_0708,
        active: vec![task(0, 0)],
        awaiting: vec![task(0, 1)],
        standby: vec![task(0, 2)],
        warmup: vec![task(0, 5), task(0, 6)],
        detail: HostDetail::Active,
        hosts: vec![host, second],
        fence: vec![Fence { transactional_id_prefix: "dead".to_owned(), workers: 3 }],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_bytes_of_a_subscription_are_the_ones_of_version_1() {
    let expected = [
        "01010101",                         // versions
        "30313233343536373839616263646566", // process
        "ac02",                             // started
        "02",                               // joins
        "00000007",                         // generation
        "00",                               // flags
        "04",                               // workers
        "0102030405060708",                 // topology
        "02000000090000000a",               // its parts
        "07686f73743a3830",                 // endpoint
        "056170702d31",                     // transactional id prefix
        "01047a6f6e650161",                 // tags
        "0200020101010100",                 // active: 0 { 1, 3 }, 2 { 0 }
        "01000102",                         // promised: 0 { 2 }
        "010101ac02",                       // standby: 1 { 300 }
        "0200010200",                       // lags: 0 { 2: unknown },
        "00020001ab02e907",                 // 1 { 0: 0, 300: 1000 }
        "01000101c901",                     // sizes: 0 { 1: 200 }
    ];
    assert_eq!(hex(&subscription().encode()), expected.concat());
}

#[test]
fn the_bytes_of_an_assignment_are_the_ones_of_version_1() {
    let expected = [
        "0101010101",       // versions, standing, flags
        "00000007",         // generation
        "0102030405060708", // topology
        "01000100",         // active
        "01000101",         // awaiting
        "01000102",         // standby
        "0100020500",       // warm-up
        "0202",             // detail, hosts
        "01010101010101010101010101010101",
        "0201046170702d",   // workers, prefix
        "03683a3101000100", // endpoint, active
        "00",               // standby
        "02020202020202020202020202020202",
        "0203",       // workers, prefix as before
        "0001000100", // no endpoint, active
        "00",
        "01046465616403", // fence
    ];
    assert_eq!(hex(&assignment().encode()), expected.concat());
}

#[test]
fn a_later_version_is_read_as_far_as_it_is_known() {
    for (bytes, is_read) in [
        (
            subscription().encode(),
            (|bytes| Subscription::decode(bytes).unwrap() == subscription()) as fn(&[u8]) -> bool,
        ),
        (assignment().encode(), |bytes| Assignment::decode(bytes).unwrap() == assignment()),
    ] {
        let later: Vec<u8> = [&[9, 1], &bytes[2..], b"and something new"].concat();
        assert!(is_read(&bytes) && is_read(&later));
    }
}

#[test]
fn what_a_later_build_does_not_let_this_one_read_is_refused_with_the_remedy() {
    let later = [&[9, 2], &subscription().encode()[2..]].concat();
    let error = Subscription::decode(&later).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("upgrade this instance"), "{error}");
    for versions in [[0, 0], [1, 0], [1, 2]] {
        let error = Assignment::decode(&[&versions, &assignment().encode()[2..]].concat()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupted);
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    assert!(Subscription::decode(&[subscription().encode(), vec![0]].concat()).is_err());
    assert!(Assignment::decode(&[assignment().encode(), vec![0]].concat()).is_err());
}

#[test]
fn a_standing_that_a_newer_leader_invents_is_no_full_membership() {
    let mut bytes = assignment().encode();
    bytes[3] = 77;
    let read = Assignment::decode(&bytes).unwrap();
    assert_eq!(read.standing, Standing::Other(77));
    assert!(read.standing.error().unwrap().to_string().contains("code 77"));
    assert!(Standing::Member.error().is_none());
}

#[test]
fn a_dead_process_has_a_transactional_id_for_each_worker() {
    let ids: Vec<_> = assignment().fence[0].transactional_ids().collect();
    assert_eq!(ids, ["dead-1", "dead-2", "dead-3"]);
}

fn tasks_strategy() -> impl Strategy<Value = Vec<TaskId>> {
    let number = prop_oneof![Just(0..4_usize), Just(0..100_000)].prop_flat_map(|range| range);
    let partition = prop_oneof![Just(0..4), Just(0..i32::MAX)].prop_flat_map(|range| range);
    proptest::collection::btree_set((number, partition).prop_map(|(s, p)| task(s, p)), 0..20)
        .prop_map(|tasks| tasks.into_iter().collect())
}

fn lags_strategy() -> impl Strategy<Value = Vec<(TaskId, Lag)>> {
    let lag = proptest::option::of(prop_oneof![Just(0), 0..1_000_u64, 0..u64::MAX]);
    (tasks_strategy(), vec(lag, 20)).prop_map(|(tasks, lags)| tasks.into_iter().zip(lags).collect())
}

fn subscriptions() -> impl Strategy<Value = Subscription> {
    let numbers = (any::<[u8; 16]>(), any::<u64>(), any::<u64>(), any::<i32>(), any::<bool>(), any::<u32>());
    let texts = (proptest::option::of("[a-z:0-9]{1,20}"), ".{0,20}", vec((".{0,5}", ".{0,5}"), 0..4));
    let topology = (any::<u64>(), vec(any::<u32>(), 0..5));
    let tasks = (tasks_strategy(), tasks_strategy(), tasks_strategy(), lags_strategy(), lags_strategy());
    (numbers, texts, topology, tasks).prop_map(|(numbers, texts, (whole, parts), tasks)| {
        let (process, started_ms, joins, generation, is_leaving, workers) = numbers;
        let (endpoint, transactional_id_prefix, tags) = texts;
        let (active, promised, standby, lags, sizes) = tasks;
        Subscription {
            understands: 1,
            assignor_version: 1,
            process: Uuid::from_bytes(process),
            started_ms,
            joins,
            generation,
            is_leaving,
            is_impaired: !is_leaving,
            shuts_down: is_leaving,
            workers,
            topology: TopologyFingerprint { whole, parts },
            endpoint,
            transactional_id_prefix,
            tags,
            active,
            promised,
            standby,
            lags,
            sizes,
        }
    })
}

fn assignments() -> impl Strategy<Value = Assignment> {
    let host = (any::<[u8; 16]>(), any::<u32>(), any::<bool>(), "[ab]?", tasks_strategy(), tasks_strategy());
    let host = host.prop_map(|(process, workers, is_usual, text, active, standby)| {
        let process = Uuid::from_bytes(process);
        let transactional_id_prefix = if is_usual { format!("{text}{process}") } else { text.clone() };
        let endpoint = Some(text).filter(|text| !text.is_empty());
        Host { process, workers, transactional_id_prefix, endpoint, active, standby }
    });
    let fence = (".{0,9}", any::<u32>())
        .prop_map(|(transactional_id_prefix, workers)| Fence { transactional_id_prefix, workers });
    let tasks = (tasks_strategy(), tasks_strategy(), tasks_strategy(), tasks_strategy());
    let numbers = (any::<i32>(), any::<u64>(), 0..9_u8, 0..4_usize, any::<bool>(), any::<bool>());
    (tasks, numbers, vec(host, 0..5), vec(fence, 0..3)).prop_map(|(tasks, numbers, hosts, fence)| {
        let (active, awaiting, standby, warmup) = tasks;
        let (generation, topology, standing, detail, follow_up, is_alone) = numbers;
        let details = [HostDetail::Leader, HostDetail::Processes, HostDetail::Active, HostDetail::Whole];
        Assignment {
            common_version: 1,
            standing: Standing::of(standing),
            follow_up,
            is_alone,
            shuts_down: !is_alone,
            generation,
            topology,
            active,
            awaiting,
            standby,
            warmup,
            detail: details[detail],
            hosts,
            fence,
        }
    })
}

proptest! {
    #[test]
    fn a_subscription_is_read_as_it_was_written(mut wanted in subscriptions()) {
        let read = Subscription::decode(&wanted.encode()).unwrap();
        // The one lag that has no room beside "not known".
        wanted.lags.iter_mut().chain(&mut wanted.sizes).for_each(|(_, lag)| *lag = lag.map(|lag| lag.min(u64::MAX - 1)));
        prop_assert_eq!(read, wanted);
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written(wanted in assignments()) {
        prop_assert_eq!(Assignment::decode(&wanted.encode()).unwrap(), wanted);
    }

    #[test]
    fn bytes_that_were_changed_are_read_or_refused(
        subscription in subscriptions(),
        assignment in assignments(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        for mut bytes in [subscription.encode(), assignment.encode()] {
            prop_assert!(Subscription::decode(&bytes[..end.index(bytes.len())]).is_err());
            prop_assert!(Assignment::decode(&bytes[..end.index(bytes.len())]).is_err());
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = (Subscription::decode(&bytes), Assignment::decode(&bytes));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in vec(any::<u8>(), 0..200), is_headed in any::<bool>()) {
        if is_headed && bytes.len() > 1 {
            bytes[..2].copy_from_slice(&[1, 1]);
        }
        let _ = (Subscription::decode(&bytes), Assignment::decode(&bytes));
    }
}

#[test]
fn flags_that_came_later_are_bits_that_older_builds_leave_alone() {
    let leaving = Subscription { is_leaving: true, is_impaired: true, shuts_down: true, ..subscription() }.encode();
    let flags = subscription()
        .encode()
        .iter()
        .zip(&leaving)
        .filter(|(a, b)| a != b)
        .map(|(_, flags)| *flags)
        .collect::<Vec<_>>();
    assert_eq!(flags, [7]);
    let alone = Assignment { is_alone: true, shuts_down: true, ..assignment() }.encode();
    assert_eq!(alone[4], 7);
}

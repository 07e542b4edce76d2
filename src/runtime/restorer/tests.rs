use super::*;
use crate::client::embedded::EmbeddedCluster;
use crate::runtime::start;
use crate::{Config, Consumed, Grouped, Materialized, StreamsBuilder, Utf8};

const CHANGELOG: &str = "app-n-changelog";

/// Two tasks, each with a store in memory.
struct Bed {
    cluster: EmbeddedCluster,
    app: Arc<Application>,
    restorer: Restorer,
    _folder: tempfile::TempDir,
}

fn task(partition: i32) -> TaskId {
    TaskId { sub_topology: 0, partition }
}

impl Bed {
    fn new() -> Bed {
        Bed::with(Materialized::named("n").in_memory())
    }

    fn with(counts: Materialized<String, i64>) -> Bed {
        let builder = StreamsBuilder::new();
        let grouped = builder.stream("in", Consumed::with(Utf8, Utf8)).group_by_key(Grouped::with(Utf8, Utf8));
        grouped.count(counts);
        let cluster = EmbeddedCluster::new();
        cluster.create_topic("in", 2).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = Config::new("app", "embedded://").cluster(&cluster).exactly_once().state_dir(folder.path());
        // So that stores on disk collect small runs.
        let config = config.write_buffer_bytes(256 << 10);
        let app = start::application(&builder.build().unwrap(), &config, None, Arc::default()).unwrap();
        let inbox = Arc::new(Inbox::new(Arc::new(|| {})));
        let restorer = Restorer::new(Arc::clone(&app), 1, app.state_home(), inbox);
        Bed { cluster, app, restorer, _folder: folder }
    }

    fn log(&self, partition: i32, rows: std::ops::Range<u64>) {
        for row in rows {
            let key = format!("row-{row}");
            let record = crate::ProducerRecord {
                topic: &CHANGELOG.into(),
                partition: Some(partition),
                key: Some(key.as_bytes()),
                value: Some(&row.to_be_bytes()),
                timestamp: Some(1),
                headers: &crate::Headers::new(),
            };
            self.cluster.produce_record(record).unwrap();
        }
    }

    /// What the restorer says next.
    fn report(&mut self) -> RestoreReport {
        for _ in 0..10_000 {
            if let Some(report) = self.restorer.report() {
                return report;
            }
            self.restorer.step(Now::read());
        }
        panic!("nothing is reported");
    }

    /// Lets it work until there is nothing to do, or stores to be taken.
    fn settle(&mut self) {
        loop {
            match self.restorer.report() {
                Some(report @ (RestoreReport::Restored { .. } | RestoreReport::Failed(_))) => {
                    return self.restorer.put_back(report);
                }
                Some(RestoreReport::Warm(_) | RestoreReport::AskLimits(_)) => {}
                None if self.restorer.step(Now::read()) == Stepped::Idle => return,
                None => {}
            }
        }
    }

    /// Of the first changelog.
    fn delete_before(&self, offset: i64) {
        let before = [(TopicPartition::new(CHANGELOG, 0), offset)];
        self.app.with_admin(|admin| admin.delete_records(&before)).unwrap();
    }

    fn restore(&mut self, partition: i32, ticket: u64, stores: Option<TaskStores>) {
        let committed = vec![CommitPoint::starting_at(0)];
        self.restorer.order(RestoreOrder::Restore { task: task(partition), ticket, stores, committed });
    }

    fn stand_by(&mut self, tasks: &[i32], at_work: &[i32]) {
        let set = |partitions: &[i32]| partitions.iter().map(|partition| task(*partition)).collect();
        self.restorer.order(RestoreOrder::StandBy { tasks: set(tasks), at_work: set(at_work) });
    }

    /// The lag of each store that is not at work.
    fn lags(&self) -> Vec<(i32, i64, u64)> {
        let lags = self.app.lags.of_stores();
        lags.iter().map(|lag| (lag.partition, lag.position, lag.lag())).collect()
    }
}

fn restored(report: RestoreReport) -> (TaskId, u64, TaskStores) {
    match report {
        RestoreReport::Restored { task, ticket, stores, .. } => (task, ticket, *stores),
        RestoreReport::Failed(error) => panic!("{}", error.report()),
        RestoreReport::Warm(_) | RestoreReport::AskLimits(_) => panic!("no stores"),
    }
}

#[test]
fn stores_come_back_with_the_ticket_of_their_order_once_all_is_read() {
    let mut bed = Bed::new();
    bed.log(1, 0..20_000);
    bed.restore(1, 7, None);
    let (id, ticket, stores) = restored(bed.report());
    assert_eq!((id, ticket, stores.offset(0)), (task(1), 7, Some(20_000)));
}

#[test]
fn a_standby_that_is_promoted_stays_open_and_goes_on_where_it_was() {
    let mut bed = Bed::new();
    bed.log(0, 0..100);
    bed.stand_by(&[0], &[]);
    assert!(matches!(bed.report(), RestoreReport::Warm(tasks) if tasks == BTreeSet::from([task(0)])));
    bed.settle();
    assert_eq!(bed.lags(), [(0, 100, 0)]);
    bed.restorer.order(RestoreOrder::Promote(task(0)));
    assert_eq!(bed.lags(), [], "a standby no more");
    // In memory: had it been opened again, it would be read from the start of what there is, which is only the rest.
    bed.delete_before(100);
    bed.log(0, 100..130);
    bed.restore(0, 1, None);
    let (_, _, stores) = restored(bed.report());
    assert_eq!((stores.offset(0), stores.approximate_len(0)), (Some(130), 130));
}

#[test]
fn standbys_are_read_while_tasks_wait_for_their_stores() {
    let mut bed = Bed::new();
    bed.log(0, 0..200_000);
    bed.log(1, 0..30_000);
    bed.stand_by(&[1], &[]);
    bed.restore(0, 1, None);
    let mut report = bed.report();
    while matches!(report, RestoreReport::Warm(_)) {
        report = bed.report();
    }
    let (_, _, stores) = restored(report);
    assert_eq!(stores.offset(0), Some(200_000));
    let standby = bed.lags().into_iter().find(|(partition, ..)| *partition == 1);
    assert!(standby.is_some_and(|(_, position, _)| position > 10_000), "{standby:?}");
}

#[test]
fn a_task_that_goes_elsewhere_is_kept_if_it_is_to_be_a_standby_and_closed_if_not() {
    for is_kept in [true, false] {
        let mut bed = Bed::new();
        bed.log(0, 0..100_000);
        bed.restore(0, 1, None);
        bed.restorer.step(Now::read());
        bed.restorer.step(Now::read());
        if is_kept {
            bed.stand_by(&[0], &[0]);
        }
        bed.restorer.order(RestoreOrder::Release(task(0)));
        bed.settle();
        let expected = if is_kept { vec![(0, 100_000, 0)] } else { Vec::new() };
        assert_eq!(bed.lags(), expected);
        assert_eq!(bed.restorer.is_empty(), !is_kept);
    }
}

#[test]
fn stores_that_were_on_their_way_when_their_task_was_taken_away_serve_its_next_life() {
    let mut bed = Bed::new();
    bed.log(0, 0..50);
    bed.restore(0, 1, None);
    let (id, _, stores) = restored(bed.report());
    // It was taken away before it was heard of, and it comes again.
    bed.restorer.order(RestoreOrder::Release(id));
    bed.restore(0, 2, None);
    bed.restorer.order(RestoreOrder::Keep(id, Some(stores)));
    bed.delete_before(50);
    let (_, ticket, stores) = restored(bed.report());
    assert_eq!((ticket, stores.offset(0), stores.approximate_len(0)), (2, Some(50), 50));
}

#[test]
fn what_is_at_work_is_not_opened_as_a_standby_before_it_is_handed_over() {
    let mut bed = Bed::new();
    bed.log(0, 0..50);
    bed.restore(0, 1, None);
    let (id, _, stores) = restored(bed.report());
    bed.stand_by(&[0], &[0]);
    bed.settle();
    assert!(bed.restorer.is_empty());
    bed.restorer.order(RestoreOrder::Keep(id, Some(stores)));
    bed.settle();
    assert_eq!(bed.lags(), [(0, 50, 0)]);
}

#[test]
fn while_it_is_paused_or_nobody_hears_it_nothing_is_read() {
    let mut bed = Bed::new();
    bed.log(0, 0..50);
    bed.log(1, 0..50);
    bed.app.board.set_paused(true);
    bed.restore(0, 1, None);
    bed.settle();
    assert_eq!(bed.lags(), []);
    bed.app.board.set_paused(false);
    bed.settle();
    // The report of the first task waits.
    bed.restore(1, 2, None);
    bed.settle();
    assert!(bed.lags().iter().all(|(partition, ..)| *partition == 0));
    let (first, ..) = restored(bed.report());
    let (second, ..) = restored(bed.report());
    assert_eq!((first, second), (task(0), task(1)));
}

#[test]
fn what_cannot_be_restored_is_said_once_with_its_task() {
    let mut bed = Bed::new();
    bed.log(0, 0..50);
    bed.cluster.delete_topic(CHANGELOG).unwrap();
    bed.restore(1, 1, None);
    let RestoreReport::Failed(error) = bed.report() else { panic!("it is restored") };
    assert!(error.to_string().contains("0_1"), "{error}");
    bed.restore(0, 2, None);
    bed.settle();
    assert!(bed.restorer.report().is_none(), "the other task is not restored any more");
}

#[cfg(feature = "rocksdb")]
#[test]
fn a_task_that_goes_elsewhere_takes_the_rows_with_it_that_are_just_being_written() {
    use crate::runtime::run_thread::RunThread;

    const ROWS: u64 = 60_000;
    let mut bed = Bed::with(Materialized::named("n"));
    let runs = RunThread::start("app-restore-1-runs").unwrap();
    bed.restorer.set_work_queue(runs.queue());
    bed.log(0, 0..ROWS);
    bed.restore(0, 1, None);
    // One run is being written, perhaps, and another one is collected.
    for _ in 0..4 {
        let _ = bed.restorer.step(Now::read());
    }
    bed.restorer.order(RestoreOrder::Release(task(0)));
    assert_eq!(bed.lags(), []);
    bed.restore(0, 2, None);
    let begun = Now::read();
    let report = loop {
        if let Some(report) = bed.restorer.report() {
            break report;
        }
        if bed.restorer.step(Now::read()) == Stepped::Idle {
            bed.restorer.wait();
        }
        assert!(Now::read().since(begun) < Duration::from_secs(60), "nothing is reported");
    };
    let (id, ticket, mut stores) = restored(report);
    assert_eq!((id, ticket, stores.offset(0)), (task(0), 2, Some(ROWS as i64)));
    let rows = stores.page(0, std::ops::Bound::Unbounded, std::ops::Bound::Unbounded, false, usize::MAX).unwrap();
    assert_eq!(rows.len() as u64, ROWS);
}

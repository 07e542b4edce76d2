//! An application that is reset begins anew.

use std::time::Duration;

use kstreams::{
    ApplicationReset, CloseOptions, Config, EmbeddedCluster, ErrorKind, Headers, ProducerRecord, ResetTo, State,
    TopicPartition,
};

use crate::application::{cluster, config, counts, last_counts, start, wait_for, wait_until, write};

const TEXT: [&str; 2] = ["to be or not to be", "that is the question"];

/// Runs until there are so many counts of "be" in the output, caches off.
fn run_until_counted(cluster: &EmbeddedCluster, config: Config, times: usize) {
    let streams = start(config.cache_bytes(0));
    wait_until("all is counted", || counts(cluster).get("be").is_some_and(|all| all.len() == times));
    wait_for(&streams, State::Running);
    streams.close(CloseOptions::default().leave_group()).unwrap();
}

#[test]
fn everything_is_counted_again_from_the_beginning() {
    let cluster = cluster();
    let config = config(&cluster);
    write(&cluster, &TEXT);
    run_until_counted(&cluster, config.clone(), 2);
    let done = ApplicationReset::new(config.clone()).run().unwrap();
    assert_eq!(done.deleted_topics, ["word-count-by-word-repartition", "word-count-word-counts-changelog"]);
    assert_eq!(done.offsets.len(), 4, "all partitions of lines, and none of the repartition topic: {done}");
    assert!(done.offsets.iter().all(|set| set.to == 0), "{done}");
    assert_eq!(cluster.topics().unwrap(), ["counts", "lines"]);
    run_until_counted(&cluster, config, 4);
    assert_eq!(counts(&cluster)["be"], [1, 2, 1, 2]);
    assert_eq!(counts(&cluster)["question"], [1, 1]);
}

/// As on another machine, where nobody has removed it.
#[test]
fn state_that_stays_is_not_taken_for_that_of_the_new_changelogs() {
    let cluster = cluster();
    let config = config(&cluster);
    write(&cluster, &TEXT);
    run_until_counted(&cluster, config.clone(), 2);
    ApplicationReset::new(config.clone()).keep_local_state().run().unwrap();
    run_until_counted(&cluster, config, 4);
    assert_eq!(counts(&cluster)["be"], [1, 2, 1, 2]);
    assert_eq!(counts(&cluster)["question"], [1, 1]);
}

#[test]
fn a_reset_to_the_end_counts_only_what_comes() {
    let cluster = cluster();
    let config = config(&cluster);
    write(&cluster, &TEXT);
    run_until_counted(&cluster, config.clone(), 2);
    ApplicationReset::new(config.clone()).to(ResetTo::Latest).run().unwrap();
    write(&cluster, &["be"]);
    run_until_counted(&cluster, config, 3);
    assert_eq!(counts(&cluster)["be"], [1, 2, 1]);
}

#[test]
fn an_application_that_runs_is_not_reset_and_does_not_notice() {
    let cluster = cluster();
    // So long that a member which stays is there for the whole test.
    let own = config(&cluster).session_timeout(Duration::from_secs(600));
    write(&cluster, &TEXT);
    let streams = start(own.clone());
    wait_until("all is counted", || last_counts(&cluster).len() == 8);
    wait_for(&streams, State::Running);
    #[cfg(feature = "rocksdb")]
    {
        let error = ApplicationReset::new(own.clone()).run().unwrap_err();
        assert!(error.to_string().contains("could not lock the state directory"), "{error}");
    }
    let reset = ApplicationReset::new(own).keep_local_state();
    let error = reset.run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("its group has members"), "{error}");
    let plan = reset.plan().unwrap();
    assert_eq!((plan.members.len(), plan.deleted_topics.len()), (1, 2));
    write(&cluster, &["be"]);
    wait_until("one more is counted", || last_counts(&cluster).get("be") == Some(&3));

    streams.close(CloseOptions::default().stay_in_group()).unwrap();
    let error = reset.run().unwrap_err();
    assert!(error.to_string().contains("or is taken out by force"), "{error}");
    reset.remove_members().run().unwrap();
    assert_eq!(cluster.topics().unwrap(), ["counts", "lines"]);
}

/// Two partitions with ten records each, at 1000, 1001, ….
fn orders() -> EmbeddedCluster {
    let cluster = EmbeddedCluster::new();
    cluster.create_topic("orders", 2).unwrap();
    let (topic, headers) = ("orders".into(), Headers::new());
    for number in 0..20 {
        let (partition, timestamp) = (Some(number % 2), Some(1_000 + i64::from(number / 2)));
        let record = ProducerRecord { topic: &topic, partition, key: None, value: None, timestamp, headers: &headers };
        cluster.produce_record(record).unwrap();
    }
    cluster
}

fn reset(cluster: &EmbeddedCluster) -> ApplicationReset {
    ApplicationReset::new(Config::new("app", "embedded://").cluster(cluster))
        .keep_local_state()
        .input_topics(["orders"])
}

fn committed(cluster: &EmbeddedCluster) -> [Option<i64>; 2] {
    [0, 1].map(|partition| cluster.committed_offset("app", "orders", partition).unwrap())
}

#[test]
fn every_target_is_found_and_kept_within_the_log() {
    let cluster = orders();
    let named = |offsets: [i64; 2]| {
        ResetTo::Offsets((0..).zip(offsets).map(|(n, offset)| (TopicPartition::new("orders", n), offset)).collect())
    };
    for (to, expected) in [
        (ResetTo::ShiftBy(2), [2, 2]),
        (ResetTo::ShiftBy(-1), [1, 1]),
        (ResetTo::ShiftBy(-5), [0, 0]),
        (ResetTo::Latest, [10, 10]),
        (ResetTo::Earliest, [0, 0]),
        (ResetTo::Offset(7), [7, 7]),
        (ResetTo::Offset(70), [10, 10]),
        (ResetTo::Timestamp(1_004), [4, 4]),
        (ResetTo::Timestamp(2_000), [10, 10]),
        (named([3, 9]), [3, 9]),
        (ResetTo::ShiftBy(i64::MAX), [10, 10]),
        (ResetTo::Ago(Duration::ZERO), [10, 10]),
        (ResetTo::Ago(Duration::MAX), [0, 0]),
    ] {
        let before = committed(&cluster);
        let planned = reset(&cluster).to(to.clone()).plan().unwrap();
        assert_eq!(committed(&cluster), before, "a plan changes nothing");
        let done = reset(&cluster).to(to.clone()).run().unwrap();
        assert_eq!(done, planned);
        assert_eq!(committed(&cluster), expected.map(Some), "{to:?}");
    }
    let done = reset(&cluster).to(ResetTo::Offset(70)).plan().unwrap();
    assert!(done.to_string().contains("orders[1]: 0 -> 10 (offset 70 is not in the log)"), "{done}");
}

#[test]
fn an_input_that_is_not_there_is_refused_before_anything_is_changed() {
    let cluster = orders();
    reset(&cluster).to(ResetTo::Offset(5)).run().unwrap();
    cluster.create_topic("app-sums-changelog", 1).unwrap();
    let error = reset(&cluster).input_topics(["orders", "ordres"]).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("do not exist: ordres"), "{error}");
    let error = reset(&cluster).internal_topics(["orders"]).run().unwrap_err();
    assert!(error.to_string().contains("orders is not an internal topic of it"), "{error}");
    assert_eq!((committed(&cluster), cluster.topics().unwrap().len()), ([Some(5), Some(5)], 2));
}

#[test]
fn an_input_that_looks_internal_is_kept() {
    let cluster = orders();
    for topic in ["app-orders-changelog", "app-sums-changelog"] {
        cluster.create_topic(topic, 1).unwrap();
    }
    let done = reset(&cluster).input_topics(["orders", "app-orders-changelog"]).run().unwrap();
    assert_eq!(done.deleted_topics, ["app-sums-changelog"]);
    assert_eq!(cluster.topics().unwrap(), ["app-orders-changelog", "orders"]);
}

#[cfg(feature = "cli")]
mod command {
    use std::path::Path;
    use std::process::{Command, Output};

    use super::*;

    fn kstreams(cluster: &Path, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kstreams"));
        command.args(["reset", "--application-id", "app", "--bootstrap-server"]);
        command.arg(format!("embedded://{}", cluster.display())).args(arguments.split_whitespace()).output().unwrap()
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn a_dry_run_tells_what_the_run_then_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster");
        let cluster = EmbeddedCluster::open(&path).unwrap();
        for topic in ["orders", "app-sums-changelog"] {
            cluster.create_topic(topic, 1).unwrap();
        }
        cluster.produce("orders", None, Some(b"1"), Some(1_000)).unwrap();
        drop(cluster);
        let state = folder.path().join("state");
        std::fs::create_dir_all(state.join("app/0_0")).unwrap();

        let arguments = format!("--input-topics orders --to-latest --state-dir {}", state.display());
        let dry = kstreams(&path, &format!("{arguments} --dry-run"));
        assert!(dry.status.success(), "{}", text(&dry.stderr));
        let told = text(&dry.stdout);
        for line in
            ["would reset application app", "orders[0]: none -> 1", "delete  app-sums-changelog", "nothing is changed"]
        {
            assert!(told.contains(line), "{told}");
        }
        assert!(state.join("app/0_0").exists());

        let run = kstreams(&path, &arguments);
        assert!(run.status.success(), "{}", text(&run.stderr));
        assert!(text(&run.stdout).contains("has reset application app"));
        let cluster = EmbeddedCluster::open(&path).unwrap();
        assert_eq!(cluster.committed_offset("app", "orders", 0).unwrap(), Some(1));
        assert_eq!((cluster.topics().unwrap(), state.join("app/0_0").exists()), (vec!["orders".to_owned()], false));
    }

    #[test]
    fn a_failure_and_a_wrong_option_have_their_exit_codes() {
        let folder = tempfile::tempdir().unwrap();
        let failed = kstreams(folder.path(), "--input-topics ordres --keep-state");
        assert_eq!(failed.status.code(), Some(1));
        assert!(text(&failed.stderr).contains("do not exist: ordres"), "{}", text(&failed.stderr));
        let wrong = kstreams(folder.path(), "--to-erliest");
        assert_eq!(wrong.status.code(), Some(2));
        assert!(text(&wrong.stderr).contains("there is no option --to-erliest"), "{}", text(&wrong.stderr));
    }
}

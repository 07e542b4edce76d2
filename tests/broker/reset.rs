//! An application that is reset on a real Kafka, with Kafka's own tool as the witness.

use std::time::Duration;

use kstreams::{ApplicationReset, CloseOptions, Config, ErrorKind, ResetTo, State};

use crate::cluster::TestKafka;
use crate::word_count::{Application, wait_until};

const INTERNAL: [&str; 2] = ["again-by-word-repartition", "again-word-counts-changelog"];

/// The topics that begin with the application's name.
fn topics(kafka: &TestKafka) -> Vec<String> {
    let listed = kafka.topics(&["--list"]).unwrap();
    listed.lines().filter(|topic| topic.starts_with("again-")).map(str::to_owned).collect()
}

#[test]
fn an_application_is_reset_and_counts_everything_again() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "again");
    app.write(40);
    let streams = app.start(app.config());
    app.wait_until_counted(Some(&streams));
    streams.close(CloseOptions::default().leave_group()).unwrap();

    // What would be done is what Kafka's tool would do.
    let plan = ApplicationReset::new(app.config()).to(ResetTo::Offset(5)).plan().unwrap();
    assert_eq!((plan.members.len(), plan.deleted_topics.as_slice()), (0, &INTERNAL.map(str::to_owned)[..]), "{plan}");
    let arguments = ["--input-topics", "again-lines", "--to-offset", "5", "--dry-run"];
    let told = kafka.reset_tool("again", &arguments).unwrap();
    assert!(plan.offsets.len() == 2 && told.contains("inferred internal topics ["), "{told}\n{plan}");
    for set in &plan.offsets {
        let (partition, to) = (set.partition.partition, set.to);
        assert!(told.contains(&format!("Topic: again-lines Partition: {partition} Offset: {to}")), "{told}\n{plan}");
    }
    assert!(INTERNAL.iter().all(|topic| told.contains(topic)), "{told}");

    // So long that a member which stays is there for the whole test; librdkafka takes 300 s at most.
    let config = app.config().session_timeout(Duration::from_secs(250));
    let streams = app.start(config.clone());
    wait_until("it runs", || streams.state() == State::Running);
    let reset = ApplicationReset::new(config);
    let error = reset.run().unwrap_err();
    assert!(error.to_string().contains("could not lock the state directory"), "{error}");
    let error = reset.clone().keep_local_state().run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("its group has members"), "{error}");
    app.write(1);
    app.wait_until_counted(Some(&streams));
    streams.close(CloseOptions::default().stay_in_group()).unwrap();
    let error = reset.run().unwrap_err();
    assert!(error.to_string().contains("its group has members") && error.to_string().contains("127.0.0.1"), "{error}");

    // Those of an application whose id begins with this one's are left alone.
    kafka.topics(&["--create", "--topic", "again-v2-sums-changelog", "--partitions", "1"]).unwrap();
    let newer = Config::new("again-v2", kafka.bootstrap());
    let newer = ApplicationReset::new(newer).keep_local_state().input_topics(["again-lines"]).internal_topics([""; 0]);
    newer.to(ResetTo::Latest).run().unwrap();
    let done = reset.remove_members().run().unwrap();
    assert_eq!((done.members.len(), done.deleted_topics.as_slice()), (1, &INTERNAL.map(str::to_owned)[..]), "{done}");
    assert_eq!(done.spared_topics.len(), 1, "{done}");
    assert_eq!(topics(kafka), ["again-counts", "again-lines", "again-v2-sums-changelog"]);

    let streams = app.start(app.config());
    wait_until("all is counted twice", || app.counted() >= 2 * 2 * 41);
    streams.close(CloseOptions::default().leave_group()).unwrap();
    let mut all = Vec::new();
    // A reader that gets no word in time on a busy machine sees less.
    wait_until("another reader sees all of it", || {
        let counted = kafka.committed_counts("again-counts").unwrap();
        all = counted.into_iter().filter(|(word, _)| word == "all").map(|(_, count)| count).collect::<Vec<i64>>();
        all.len() >= 2 * 41
    });
    let once = 1..=41;
    assert_eq!(all, once.clone().chain(once).collect::<Vec<i64>>());
}

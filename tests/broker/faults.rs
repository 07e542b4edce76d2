//! Instances that come and go, and a broker that dies under load.

use std::time::Duration;

use kstreams::State;

use crate::cluster::TestKafka;
use crate::word_count::{Application, wait_until};

const CLOSE: Duration = Duration::from_secs(60);

#[test]
fn two_instances_share_the_partitions_and_one_takes_over_from_the_other() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "shared-work");
    let first = app.start(app.config());
    app.write(100);
    app.wait_until_counted(Some(&first));
    let second = app.start(app.config().state_dir(app.folder.path().join("second")));
    wait_until("both work", || {
        app.write(4);
        second.processed_total() > 0 && first.state() == State::Running && second.state() == State::Running
    });
    let before = first.processed_total();
    wait_until("the first one still works", || {
        app.write(4);
        first.processed_total() > before
    });
    app.send(200);
    first.close(CLOSE).unwrap();
    app.write(50);
    app.wait_until_counted(Some(&second));
    second.close(CLOSE).unwrap();
    app.assert_exact();
}

#[test]
fn an_application_goes_on_when_its_broker_is_killed_and_restarted_under_load() {
    let Some(kafka) = TestKafka::start(1) else { return };
    let mut app = Application::new(&kafka.bootstrap(), "power-cut");
    let streams = app.start(app.config());
    app.write(50);
    app.wait_until_counted(Some(&streams));
    for _ in 0..2 {
        let counted = app.counted();
        wait_until("it counts", || {
            app.send(20);
            app.counted() > counted
        });
        app.send(200);
        kafka.kill(1).unwrap();
        kafka.restart(1).unwrap();
        app.write(50);
        app.wait_until_counted(Some(&streams));
    }
    streams.close(CLOSE).unwrap();
    app.assert_exact();
}

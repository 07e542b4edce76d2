//! Instances that end in the midst of a commit, and what their successors find.

use std::time::Duration;

use kstreams::State;

use crate::cluster::TestKafka;
use crate::word_count::{Application, assert_resumed, wait_until};

const CLOSE: Duration = Duration::from_secs(60);

/// Threads end where they stand: no close, no commit, no abort.
#[test]
fn a_crash_at_any_step_of_a_commit_loses_nothing_and_doubles_nothing_and_wipes_nothing() {
    let Some(kafka) = TestKafka::shared() else { return };
    let bootstrap = kafka.bootstrap();
    std::thread::scope(|scope| {
        for step in ["drained", "confirmed", "offsets-sent", "committed", "applied-one"] {
            let bootstrap = &bootstrap;
            scope.spawn(move || crash_at(bootstrap, step));
        }
    });
}

fn crash_at(bootstrap: &str, step: &str) {
    let mut app = Application::new(bootstrap, &format!("crash-{step}"));
    app.write(100);
    let streams = app.start(app.config());
    app.wait_until_counted(Some(&streams));
    streams.close(CLOSE).unwrap();
    let databases = app.databases();
    let stored = app.changelog_ends();

    let streams = app.start(app.config().crash_at(&format!("{step}:2")));
    wait_until(&format!("it has crashed at {step}"), || {
        app.write(4);
        streams.state() == State::Error
    });
    drop(streams);

    app.write(20);
    let (streams, resumed) = app.start_noting();
    app.wait_until_counted(Some(&streams));
    streams.close(CLOSE).unwrap();
    app.assert_exact();
    assert_resumed(&app.name, &resumed.lock().unwrap(), &stored);
    assert_eq!(app.databases(), databases, "{step}: the databases are the same ones");
}

#[test]
fn at_least_once_a_crash_loses_nothing() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "at-least-once");
    let config = app.config().at_least_once().commit_interval(Duration::from_millis(100));
    app.write(100);
    let streams = app.start(config.clone().crash_at("drained:3"));
    wait_until("it has crashed", || {
        app.write(4);
        streams.state() == State::Error
    });
    drop(streams);
    app.write(20);
    let streams = app.start(config);
    wait_until("everything is counted", || app.is_complete());
    streams.close(CLOSE).unwrap();
    assert!(app.is_complete());
}

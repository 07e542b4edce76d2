//! Instances that share a group by the protocol of our own: one member per process, tasks that stay where they are.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use kstreams::{CloseOptions, Config, GroupProtocol, KafkaStreams, State};

use crate::cluster::TestKafka;
use crate::word_count::{Application, wait_until, word_count};

/// What an instance has told of its state.
type Told = Arc<Mutex<Vec<State>>>;

struct Instance {
    streams: KafkaStreams,
    told: Told,
}

impl Instance {
    fn start(app: &Application, number: usize, config: impl FnOnce(Config) -> Config) -> Instance {
        let told = Told::default();
        let sink = Arc::clone(&told);
        let folder = app.folder.path().join(number.to_string());
        let config = config(app.config().group_protocol(GroupProtocol::Sticky).state_dir(folder));
        let streams = KafkaStreams::new(word_count(&app.name), config).unwrap();
        let streams = streams.on_state_change(move |state, _| sink.lock().unwrap().push(state));
        streams.start().unwrap();
        wait_until("it runs", || streams.state() == State::Running);
        Instance { streams, told }
    }
}

fn wait_until_it_works(app: &mut Application, instance: &Instance) {
    let before = instance.streams.processed_total();
    wait_until("it works", || {
        app.write(4);
        instance.streams.processed_total() > before
    });
}

#[test]
fn a_restart_in_place_is_noticed_by_nobody() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "in-place");
    let patient = |config: Config| config.session_timeout(Duration::from_secs(300));
    let mut instances = vec![Instance::start(&app, 0, patient), Instance::start(&app, 1, patient)];
    for instance in &instances {
        wait_until_it_works(&mut app, instance);
    }
    // The leader of the group and a follower, closed and crashed.
    for (number, is_clean) in [(0, true), (1, true), (0, false), (1, false)] {
        let other = 1 - number;
        instances[other].told.lock().unwrap().clear();
        let streams = instances.remove(number).streams;
        if is_clean {
            streams.close(CloseOptions::default()).unwrap()
        } else {
            streams.crash()
        }
        instances.insert(number, Instance::start(&app, number, patient));
        app.write(20);
        app.wait_until_counted(None);
        wait_until_it_works(&mut app, &instances[number]);
        assert_eq!(*instances[other].told.lock().unwrap(), [], "restarted {number}, closed {is_clean}");
    }
    app.wait_until_counted(None);
    drop(instances);
    app.assert_exact();
}

#[test]
fn what_a_dead_instance_has_left_open_is_in_nobodys_way() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "left-open");
    // Much longer than this test waits.
    let slow = |config: Config| config.transaction_timeout(Duration::from_secs(600));
    let (first, second) = (Instance::start(&app, 0, slow), Instance::start(&app, 1, slow));
    wait_until_it_works(&mut app, &first);
    wait_until_it_works(&mut app, &second);
    app.send(200);
    first.streams.crash();
    app.write(50);
    app.wait_until_counted(Some(&second.streams));
    second.streams.close(CloseOptions::default()).unwrap();
    app.assert_exact();
}

#[test]
fn three_instances_share_the_tasks_and_the_rest_takes_over_from_one_that_leaves() {
    let Some(kafka) = TestKafka::shared() else { return };
    let mut app = Application::new(&kafka.bootstrap(), "of-three");
    let patient = |config: Config| config.session_timeout(Duration::from_secs(300));
    let mut instances: Vec<_> = (0..3).map(|number| Instance::start(&app, number, patient)).collect();
    for instance in &instances {
        wait_until_it_works(&mut app, instance);
    }
    for _ in 0..2 {
        app.send(100);
        let leaving = instances.remove(0);
        leaving.streams.close(CloseOptions::default().leave_group()).unwrap();
        app.write(20);
        app.wait_until_counted(None);
    }
    drop(instances);
    app.assert_exact();
}

//! Topics and watermarks.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::conformance::steps::*;
use crate::client::{Cluster, NewTopic, Watermarks};
use crate::record::{Headers, TopicPartition};

pub(crate) fn creating_an_existing_topic_leaves_it_alone(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[("cleanup.policy", "compact")]);
    let mut admin = cluster.admin().unwrap();
    let before = admin.topics(&[Arc::clone(&topic), unique("missing").into()]).unwrap();
    assert_eq!(
        before.iter().map(|info| info.as_ref().map(|info| info.partitions)).collect::<Vec<_>>(),
        [Some(2), None]
    );
    let other: Arc<str> = unique("topic").into();
    let new = |name: &Arc<str>, partitions| NewTopic {
        name: Arc::clone(name),
        partitions,
        replication: None,
        config: BTreeMap::new(),
    };
    admin.create_topics(&[new(&topic, 5), new(&other, 1)]).unwrap();
    until("the other topic is there", || admin.topics(std::slice::from_ref(&other)).unwrap()[0].is_some());
    assert_eq!(admin.topics(&[topic]).unwrap()[0], before[0]);
}

pub(crate) fn a_topic_created_again_has_another_id(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 1, &[]);
    let mut admin = cluster.admin().unwrap();
    let names = [Arc::clone(&topic)];
    let before = admin.topics(&names).unwrap()[0].clone().unwrap();
    admin.delete_topics(&names).unwrap();
    until("the topic is gone", || admin.topics(&names).unwrap()[0].is_none());
    let new = NewTopic { name: topic, partitions: 3, replication: None, config: BTreeMap::new() };
    until("the topic is back", || {
        // A broker that still deletes it takes the new one for the old one.
        admin.create_topics(std::slice::from_ref(&new)).unwrap();
        admin.topics(&names).unwrap()[0].is_some()
    });
    let after = admin.topics(&names).unwrap()[0].clone().unwrap();
    assert_eq!(after.partitions, 3);
    if before.id.is_some() {
        assert_ne!(after.id, before.id);
    }
}

pub(crate) fn watermarks_follow_appends_and_deletes(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let all = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let mut admin = cluster.admin().unwrap();
    until("the partitions are empty", || {
        admin.watermarks(&all).is_ok_and(|marks| marks == [Watermarks { start: 0, end: 0 }; 2])
    });
    let mut producer = transactional_producer(cluster, &unique("tx"));
    producer.begin_transaction().unwrap();
    for _ in 0..4 {
        write(producer.as_mut(), &topic, 1, "x");
    }
    confirm(producer.as_mut());
    // The high watermark, not the last stable offset.
    until("the open records count", || admin.watermarks(&all).unwrap()[1] == Watermarks { start: 0, end: 4 });
    producer.commit_transaction(CALL).unwrap();
    until("the control record counts", || admin.watermarks(&all).unwrap()[1] == Watermarks { start: 0, end: 5 });
    admin.delete_records(&[(all[1].clone(), 2)]).unwrap();
    assert_eq!(admin.watermarks(&all).unwrap(), [Watermarks { start: 0, end: 0 }, Watermarks { start: 2, end: 5 }]);
    let missing = TopicPartition::new(unique("missing"), 0);
    assert!(admin.watermarks(&[missing]).is_err());
}

pub(crate) fn offsets_for_a_time_are_found(cluster: &dyn Cluster) {
    let topic = new_topic(cluster, 2, &[]);
    let all = [0, 1].map(|partition| TopicPartition::new(Arc::clone(&topic), partition));
    let base = now_ms();
    let mut producer = plain_producer(cluster);
    for time in [0, 10, 20, 30] {
        producer.send(seen(None, Some("v"), base + time, Headers::new()).to(&topic, 0), false).unwrap();
        confirm(producer.as_mut());
    }
    let mut admin = cluster.admin().unwrap();
    for (time, offset) in [(0, 0), (1, 1), (10, 1), (11, 2), (30, 3), (31, 4)] {
        assert_eq!(admin.offsets_for_time(&all, base + time).unwrap(), [offset, 0], "at {time} ms");
    }
}

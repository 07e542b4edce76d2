//! What the compiler cannot see: edges wired by name, topics read twice, stores nobody has added.

use std::collections::HashMap;
use std::sync::Arc;

use super::builder::TopologyBuilder;
use super::{FanOut, NodeKind};

pub(super) fn check(builder: &mut TopologyBuilder) {
    let mistakes = [edges(builder), topics(builder), stores(builder), partitions(builder)].concat();
    mistakes.into_iter().for_each(|mistake| builder.mistake(mistake));
}

fn edges(builder: &TopologyBuilder) -> Vec<String> {
    let mut mistakes = Vec::new();
    for node in &builder.nodes {
        if matches!(node.fan_out, FanOut::Only) && node.children.len() > 1 {
            mistakes.push(format!("node {} has several children but its records are not Clone", node.name));
        }
        for parent in node.parents.iter().filter_map(|parent| builder.nodes.get(parent.0)) {
            let (Some(takes), forwards) = (node.input, parent.output) else { continue };
            match forwards {
                None => mistakes.push(format!("node {} has the sink {} as a parent", node.name, parent.name)),
                Some(forwards) if takes.id != forwards.id => mistakes.push(format!(
                    "node {} takes {}, but its parent {} forwards {}",
                    node.name, takes.name, parent.name, forwards.name
                )),
                Some(_) => {}
            }
        }
    }
    mistakes
}

fn topics(builder: &TopologyBuilder) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut readers: HashMap<&Arc<str>, &Arc<str>> = HashMap::new();
    for node in &builder.nodes {
        let NodeKind::Source { topics, pattern, .. } = &node.kind else { continue };
        if topics.is_empty() && pattern.is_none() {
            mistakes.push(format!("source {} has no topic: name at least one", node.name));
        }
        for topic in topics {
            if let Some(other) = readers.insert(topic, &node.name) {
                mistakes.push(format!("topic {topic} is read by {other} and by {}: read it once", node.name));
            }
        }
    }
    let patterns = builder.nodes.iter().filter_map(|node| Some((&node.name, node.pattern()?)));
    for (name, pattern) in patterns {
        for (topic, other) in readers.iter().filter(|(topic, _)| pattern.matches(topic)) {
            mistakes.push(format!(
                "topic {topic} is read by {other} and matches the pattern {pattern} of {name}: read it once"
            ));
        }
    }
    mistakes
}

fn stores(builder: &TopologyBuilder) -> Vec<String> {
    let mut mistakes = Vec::new();
    for node in &builder.nodes {
        for store in node.stores.iter().filter(|store| !builder.stores.contains_key(*store)) {
            mistakes.push(format!("store {store} of {} is not added yet: call add_state_store", node.name));
        }
        for store in &node.stores {
            if builder.global_stores.get(store).is_some_and(|writer| *writer != node.name) {
                mistakes.push(format!(
                    "global store {store} is there for every processor: do not connect it to {}",
                    node.name
                ));
            }
        }
    }
    mistakes
}

/// What is known of partition counts before there is a broker: those that were given to repartition topics.
fn partitions(builder: &TopologyBuilder) -> Vec<String> {
    let mut mistakes = Vec::new();
    for group in &builder.copartitions {
        let given = |topic: &Arc<str>| Some((Arc::clone(topic), builder.repartition_topics.get(topic)?.partitions?));
        let given: Vec<_> = group.iter().filter_map(given).collect();
        for pair in given.windows(2) {
            if let [(one, count), (other, other_count)] = pair
                && count != other_count
            {
                mistakes.push(format!(
                    "{one} and {other} are joined, but have {count} and {other_count} partitions: give both the same number"
                ));
            }
        }
    }
    mistakes
}

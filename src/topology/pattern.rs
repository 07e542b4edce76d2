//! Sources that read whatever topics have a name of some form.

use std::fmt;
use std::sync::Arc;

use regex::Regex;

use super::{Node, NodeKind, Parts, Topology};
use crate::error::{Error, Result};

/// A regular expression that a topic's whole name has to match.
#[derive(Clone)]
pub(crate) struct TopicPattern {
    /// As it was given, for people.
    text: Arc<str>,
    regex: Regex,
}

impl TopicPattern {
    /// # Errors
    /// `Invalid` for text that is no regular expression.
    pub(crate) fn new(text: &str) -> Result<TopicPattern> {
        let regex = Regex::new(&format!("^(?:{text})$")).map_err(|error| {
            let context = format!("\"{text}\" is no pattern of topics: give a regular expression without look-around");
            Error::invalid(context).with_source(error)
        })?;
        Ok(TopicPattern { text: text.into(), regex })
    }

    pub(crate) fn matches(&self, topic: &str) -> bool {
        self.regex.is_match(topic)
    }
}

impl PartialEq for TopicPattern {
    fn eq(&self, other: &TopicPattern) -> bool {
        self.text == other.text
    }
}

impl fmt::Display for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Node {
    pub(crate) fn pattern(&self) -> Option<&TopicPattern> {
        match &self.kind {
            NodeKind::Source { pattern, .. } => pattern.as_ref(),
            NodeKind::Processor | NodeKind::Sink { .. } => None,
        }
    }
}

impl Topology {
    /// Whether which topics are read depends on which there are.
    pub(crate) fn has_patterns(&self) -> bool {
        self.parts.nodes.iter().any(|node| node.pattern().is_some())
    }

    /// The patterns that match no topic yet; to be asked once they are [resolved](Topology::resolved).
    pub(crate) fn unmatched_patterns(&self) -> Vec<&TopicPattern> {
        let waiting = self.parts.nodes.iter().filter(|node| node.source_topics().is_empty());
        waiting.filter_map(Node::pattern).collect()
    }

    /// The same with every pattern replaced by the topics that match it now. What another source reads, and the topics of
    /// the library's own (full names that begin with the application's), are left alone.
    pub(crate) fn resolved(&self, application_id: &str, existing: &[Arc<str>]) -> Topology {
        if !self.has_patterns() {
            return self.clone();
        }
        let fixed: Vec<Arc<str>> = {
            let named = self.parts.nodes.iter().filter(|node| node.pattern().is_none());
            named.flat_map(Node::source_topics).map(Arc::clone).collect()
        };
        let own = format!("{application_id}-");
        let is_own =
            |topic: &str| topic.starts_with(&own) && (topic.ends_with("-repartition") || topic.ends_with("-changelog"));
        let mut free: Vec<Arc<str>> =
            existing.iter().filter(|topic| !fixed.contains(topic) && !is_own(topic)).cloned().collect();
        free.sort();
        let mut parts = Parts::clone(&self.parts);
        for node in &mut parts.nodes {
            if let NodeKind::Source { topics, pattern: Some(pattern), .. } = &mut node.kind {
                // The first source that matches a topic has it.
                *topics = free.extract_if(.., |topic| pattern.matches(topic)).collect();
            }
        }
        Topology { parts: Arc::new(parts) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serdes::Utf8;
    use crate::topology::{Consumed, TopologyBuilder};

    #[test]
    fn a_pattern_is_for_the_whole_name() {
        let pattern = TopicPattern::new("in-\\d+|x").unwrap();
        assert!(pattern.matches("in-12") && pattern.matches("x"));
        assert!(!pattern.matches("in-12a") && !pattern.matches("xx") && !pattern.matches("an in-1"));
        assert!(TopicPattern::new("in-(").unwrap_err().to_string().contains("in-("));
    }

    #[test]
    fn topics_of_our_own_match_nothing_and_those_of_others_are_refused() {
        let build = |pattern: &str| {
            let mut builder = TopologyBuilder::new();
            builder.add_source("named", &["in-0"], Consumed::with(Utf8, Utf8));
            builder.add_source_matching("matched", pattern, Consumed::with(Utf8, Utf8));
            builder.build()
        };
        assert!(build("in-.*").unwrap_err().to_string().contains("topic in-0 is read by named"));
        let topology = build("in-[1-9]|app-.*").unwrap();
        let existing: Vec<Arc<str>> =
            ["in-2", "in-0", "in-1", "app-x-changelog", "app-y", "other"].map(Arc::from).into();
        let topology = topology.resolved("app", &existing);
        let nodes: Vec<_> = topology.nodes().collect();
        assert_eq!(topology.source_topics(&nodes), ["in-0", "app-y", "in-1", "in-2"].map(Arc::<str>::from));
        assert!(topology.describe().contains("matched (topics: in-[1-9]|app-.*)"));
    }
}

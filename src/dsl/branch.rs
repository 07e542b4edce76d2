use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::KStream;
use crate::operators::Predicate;
use crate::operators::split::Split;
use crate::operators::stateless::PassThrough;
use crate::topology::NodeSpec;

/// What is known of a branch.
#[derive(Debug, Clone, Default)]
pub struct Branched {
    name: Option<String>,
}

impl Branched {
    /// The branch's key in the map, behind the prefix of the split; otherwise its number, from 1 (0: the default branch).
    pub fn named(name: &str) -> Branched {
        Branched { name: Some(name.to_owned()) }
    }
}

/// A stream being split: [`KStream::split`]. Each record goes to the first branch whose predicate holds, so nothing is
/// asked to be `Clone`.
pub struct BranchedKStream<K, V> {
    stream: KStream<K, V>,
    prefix: String,
    branches: Vec<(String, Predicate<K, V>)>,
}

impl<K: 'static, V: 'static> BranchedKStream<K, V> {
    pub(super) fn new(stream: KStream<K, V>, prefix: String) -> Self {
        BranchedKStream { stream, prefix, branches: Vec::new() }
    }

    /// Takes the records for which the predicate holds and no earlier one did.
    #[must_use = "the branches are made by default_branch or no_default_branch"]
    pub fn branch(self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static, branched: Branched) -> Self {
        let number = self.branches.len() + 1;
        self.add(number, Arc::new(predicate), branched)
    }

    /// Takes what no branch took. The streams by name: prefix and name or number, without anything between them.
    pub fn default_branch(self, branched: Branched) -> BTreeMap<String, KStream<K, V>> {
        self.add(0, Arc::new(|_, _| true), branched).no_default_branch()
    }

    /// Drops what no branch took. The streams by name, as those of [`default_branch`](BranchedKStream::default_branch).
    pub fn no_default_branch(self) -> BTreeMap<String, KStream<K, V>> {
        let (names, predicates): (Vec<_>, Vec<_>) = self.branches.into_iter().unzip();
        let predicates: Arc<[Predicate<K, V>]> = predicates.into();
        let make = move |_: &mut crate::ProcessorInit<'_>| Ok(Split { predicates: Arc::clone(&predicates) });
        let split: KStream<K, V> = self.stream.attach(NodeSpec::processor::<K, V, _>(&self.prefix, make));
        split.graph.borrow_mut().chooses(split.node);
        let branch = |name: String| {
            let stream = split.another().attach(NodeSpec::processor::<K, V, _>(&name, |_| Ok(PassThrough)));
            (name, stream)
        };
        names.into_iter().map(branch).collect()
    }

    fn add(mut self, number: usize, predicate: Predicate<K, V>, branched: Branched) -> Self {
        let mut graph = self.stream.graph.borrow_mut();
        graph.name("KSTREAM-BRANCH-"); // Java counts on, though the name is made of the prefix
        let name = branched.name.unwrap_or_else(|| number.to_string());
        let name = graph.checked(format!("{}{name}", self.prefix));
        drop(graph);
        self.branches.push((name, predicate));
        self
    }
}

impl<K, V> fmt::Debug for BranchedKStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.branches.iter().map(|(name, _)| name).collect();
        f.debug_struct("BranchedKStream").field("branches", &names).finish_non_exhaustive()
    }
}

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::KStream;
use crate::operators::Predicate;
use crate::operators::split::Split;
use crate::operators::stateless::PassThrough;
use crate::topology::NodeSpec;

/// What becomes of a branch: the stream that the map has for it, if any.
type Chain<K, V> = Box<dyn FnOnce(KStream<K, V>) -> Option<KStream<K, V>>>;

/// What is known of a branch.
///
/// ```
/// # use kstreams::*;
/// let builder = StreamsBuilder::new();
/// let branches = builder
///     .stream("numbers", Consumed::with(Utf8, I64))
///     .named("numbers-")
///     .split()
///     .branch(|_, n| *n < 0, Branched::named("negative").with_function(|negative| negative.map_values(|n: i64| -n)))
///     .branch(|_, n| *n == 0, Branched::default().with_consumer(|zeros| zeros.to("zeros", Produced::with(Utf8, I64))))
///     .default_branch(Branched::named("positive"));
/// assert_eq!(branches.into_keys().collect::<Vec<_>>(), ["numbers-negative", "numbers-positive"]);
/// # builder.build()?;
/// # Ok::<(), Error>(())
/// ```
pub struct Branched<K, V> {
    name: Option<String>,
    chain: Option<Chain<K, V>>,
}

impl<K, V> Branched<K, V> {
    /// The branch's key in the map, behind the prefix of the split; otherwise its number, from 1 (0: the default branch).
    pub fn named(name: &str) -> Self {
        Branched { name: Some(name.to_owned()), chain: None }
    }

    /// Has the map contain what the function makes of the branch.
    #[must_use]
    pub fn with_function(self, chain: impl FnOnce(KStream<K, V>) -> KStream<K, V> + 'static) -> Self {
        Branched { chain: Some(Box::new(|branch| Some(chain(branch)))), ..self }
    }

    /// Gives the branch to a function, which sees to the rest: the map is without it.
    #[must_use]
    pub fn with_consumer(self, chain: impl FnOnce(KStream<K, V>) + 'static) -> Self {
        let chain: Chain<K, V> = Box::new(|branch| {
            chain(branch);
            None
        });
        Branched { chain: Some(chain), ..self }
    }
}

impl<K, V> Default for Branched<K, V> {
    fn default() -> Self {
        Branched { name: None, chain: None }
    }
}

impl<K, V> fmt::Debug for Branched<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branched").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A stream being split: [`KStream::split`]. Each record goes to the first branch whose predicate holds, so nothing is
/// asked to be `Clone`.
pub struct BranchedKStream<K, V> {
    split: KStream<K, V>,
    prefix: String,
    /// Those of the node, which is there before its branches: what is made of a branch may come before the next one.
    predicates: Arc<Mutex<Vec<Predicate<K, V>>>>,
    branches: BTreeMap<String, KStream<K, V>>,
}

impl<K: 'static, V: 'static> BranchedKStream<K, V> {
    pub(super) fn new(stream: KStream<K, V>, prefix: String) -> Self {
        let predicates: Arc<Mutex<Vec<Predicate<K, V>>>> = Arc::default();
        let chosen = Arc::clone(&predicates);
        let make = move |_: &mut crate::ProcessorInit<'_>| {
            let predicates = chosen.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(Split { predicates: predicates.as_slice().into() })
        };
        let split: KStream<K, V> = stream.attach(NodeSpec::processor::<K, V, _>(&prefix, make));
        split.graph.borrow_mut().chooses(split.node);
        BranchedKStream { split, prefix, predicates, branches: BTreeMap::new() }
    }

    /// Takes the records for which the predicate holds and no earlier one did.
    #[must_use = "the branches are made by default_branch or no_default_branch"]
    pub fn branch(self, predicate: impl Fn(&K, &V) -> bool + Send + Sync + 'static, branched: Branched<K, V>) -> Self {
        let number = self.len() + 1;
        self.add(number, Arc::new(predicate), branched)
    }

    /// Takes what no branch took. The streams by name: prefix and name or number, without anything between them.
    pub fn default_branch(self, branched: Branched<K, V>) -> BTreeMap<String, KStream<K, V>> {
        self.add(0, Arc::new(|_, _| true), branched).no_default_branch()
    }

    /// Drops what no branch took. The streams by name, as those of [`default_branch`](BranchedKStream::default_branch).
    pub fn no_default_branch(self) -> BTreeMap<String, KStream<K, V>> {
        self.branches
    }

    fn len(&self) -> usize {
        self.predicates.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn add(mut self, number: usize, predicate: Predicate<K, V>, branched: Branched<K, V>) -> Self {
        let Branched { name, chain } = branched;
        let mut graph = self.split.graph.borrow_mut();
        graph.name("KSTREAM-BRANCH-"); // Java counts on, though the name is made of the prefix
        let name = name.unwrap_or_else(|| number.to_string());
        let name = graph.checked(format!("{}{name}", self.prefix));
        drop(graph);
        self.predicates.lock().unwrap_or_else(PoisonError::into_inner).push(predicate);
        let branch = self.split.another().attach(NodeSpec::processor::<K, V, _>(&name, |_| Ok(PassThrough)));
        let branch = match chain {
            Some(chain) => chain(branch),
            None => Some(branch),
        };
        self.branches.extend(branch.map(|branch| (name, branch)));
        self
    }
}

impl<K, V> fmt::Debug for BranchedKStream<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.branches.keys().collect();
        f.debug_struct("BranchedKStream").field("branches", &names).finish_non_exhaustive()
    }
}

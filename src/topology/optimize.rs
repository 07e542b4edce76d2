//! The rewrites of a graph before it runs: functions over the arena, each listed in [`optimize`].
//!
//! What they have to know of a node is its [`Role`], and what the DSL has noted while it appended ([`Notes`]). They are
//! Java's (`InternalStreamsBuilder.optimizeTopology`), because they decide about the names of topics.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::builder::TopologyBuilder;
use super::self_joins::{StreamJoinNodes, rewrite_self_joins};
use super::{FanOut, NodeId};
use crate::error::{Error, Result};
use crate::state::Changelog;

/// Which rewrites are made of a topology before it runs (`topology.optimization`); none unless told otherwise.
///
/// They change which internal topics there are: on an application that runs already, its state has to be reset.
///
/// ```
/// # use kstreams::*;
/// let builder = StreamsBuilder::new();
/// builder.table("customers", Consumed::with(Utf8, Utf8), Materialized::named("customers"));
/// let config = Config::new("app", "embedded://").optimization(Optimization::all());
/// let topology = builder.build_with(&config)?;
/// // The source topic holds all that the store needs, so it has no changelog of its own.
/// assert!(topology.sub_topologies("app")[0].changelog_topics.is_empty());
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Optimization {
    pub(crate) reuse_source_topics: bool,
    pub(crate) merge_repartition_topics: bool,
    pub(crate) single_store_self_join: bool,
}

impl Optimization {
    /// The topology as it was written: the default.
    pub fn none() -> Optimization {
        Optimization::default()
    }

    /// All that there are.
    pub fn all() -> Optimization {
        Optimization { reuse_source_topics: true, merge_repartition_topics: true, single_store_self_join: true }
    }

    /// The store of a [`table`](crate::StreamsBuilder::table) is restored from the table's own topic and has no changelog
    /// (`reuse.ktable.source.topics`). The topic has to keep all rows, so it should be compacted.
    #[must_use]
    pub fn reuse_source_topics(self) -> Optimization {
        Optimization { reuse_source_topics: true, ..self }
    }

    /// Groupings and joins behind one change of the key share one repartition topic (`merge.repartition.topics`).
    #[must_use]
    pub fn merge_repartition_topics(self) -> Optimization {
        Optimization { merge_repartition_topics: true, ..self }
    }

    /// A stream that is joined with itself is stored once (`single.store.self.join`).
    #[must_use]
    pub fn single_store_self_join(self) -> Optimization {
        Optimization { single_store_self_join: true, ..self }
    }
}

/// Java's text: `none`, `all`, or a list such as `merge.repartition.topics,single.store.self.join`.
impl FromStr for Optimization {
    type Err = Error;

    fn from_str(text: &str) -> Result<Optimization> {
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let refused = || {
            Error::invalid(format!(
                "the setting topology.optimization cannot be \"{text}\": give none, all, or a list of \
                 reuse.ktable.source.topics, merge.repartition.topics and single.store.self.join"
            ))
        };
        match words.as_slice() {
            ["none"] => Ok(Optimization::none()),
            ["all"] => Ok(Optimization::all()),
            words => words.iter().try_fold(Optimization::none(), |chosen, word| match *word {
                "reuse.ktable.source.topics" => Ok(chosen.reuse_source_topics()),
                "merge.repartition.topics" => Ok(chosen.merge_repartition_topics()),
                "single.store.self.join" => Ok(chosen.single_store_self_join()),
                _ => Err(refused()),
            }),
        }
    }
}

/// What a node does, as far as the rewrites ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Role {
    #[default]
    Other,
    ChangesKey,
    ChangesValue,
    Merges,
    /// A left or outer join: it wants records with a null key (KIP-962).
    WantsNullKeys,
}

/// What the DSL has noted for the rewrites.
#[derive(Default)]
pub(crate) struct Notes {
    pub(super) repartitions: Vec<RepartitionNodes>,
    /// The stores of tables and aggregations.
    pub(super) table_stores: Vec<Arc<str>>,
    /// Stores that processors of the user's may write.
    pub(super) open_stores: Vec<Arc<str>>,
    /// The store of each table that is read from a topic, and that topic as its changelog.
    pub(super) source_tables: Vec<(Arc<str>, Changelog)>,
    /// Joins of streams of one type: of one stream, perhaps.
    pub(super) stream_joins: Vec<StreamJoinNodes>,
}

/// A way through a repartition topic, in nodes.
pub(crate) struct RepartitionNodes {
    pub filter: NodeId,
    pub sink: NodeId,
    pub source: NodeId,
    pub topic: Arc<str>,
    /// Whether it may become one with others: not where the user has asked for this very topic.
    pub can_merge: bool,
    /// Read by the filter's maker.
    pub keeps_null_keys: Arc<AtomicBool>,
}

/// Rewrites the graph; called once, when it is built.
pub(super) fn optimize(builder: &mut TopologyBuilder, optimization: Optimization) {
    if optimization.reuse_source_topics {
        reuse_source_topics(builder);
    }
    if optimization.merge_repartition_topics {
        merge_repartition_topics(builder);
    }
    if optimization.single_store_self_join {
        rewrite_self_joins(builder);
    }
    keep_null_keys_for_joins(builder);
}

/// Tables are restored from their topics, whatever was said of logging. Not those whose rows expire: their topics would
/// bring them back.
fn reuse_source_topics(builder: &mut TopologyBuilder) {
    for (store, changelog) in std::mem::take(&mut builder.notes.source_tables) {
        if !builder.expires(&store) {
            builder.back_by(&store, changelog);
        }
    }
}

/// A null key has no partition, so the filter before a repartition topic drops it: not where a left or outer join is
/// somewhere behind it (Java's `rewriteRepartitionNodes`).
fn keep_null_keys_for_joins(builder: &TopologyBuilder) {
    let mut wanted: Vec<bool> = builder.nodes.iter().map(|node| node.role == Role::WantsNullKeys).collect();
    // Children stand behind their parents, but for the source of a repartition topic, which has none: hence the jump.
    for id in (0..builder.nodes.len()).rev() {
        let repartition = builder.notes.repartitions.iter().find(|repartition| repartition.sink.0 == id);
        let jump = repartition.map(|repartition| repartition.source);
        let children = builder.nodes.get(id).map(|node| node.children.as_slice()).unwrap_or_default();
        let is_wanted = children.iter().copied().chain(jump).any(|child| wanted.get(child.0) == Some(&true));
        if let Some(wanted) = wanted.get_mut(id) {
            *wanted |= is_wanted;
        }
    }
    for repartition in &builder.notes.repartitions {
        if wanted.get(repartition.sink.0) == Some(&true) {
            // Relaxed: makers run after the build, which hands the topology over.
            repartition.keeps_null_keys.store(true, Ordering::Relaxed);
        }
    }
}

/// Every change of a key is followed by at most one repartition topic, right behind it. What stood between the change and
/// a topic stands behind the topic afterwards.
fn merge_repartition_topics(builder: &mut TopologyBuilder) {
    let groups = Merging { builder }.groups();
    let mut order: Vec<usize> = (0..builder.nodes.len()).collect();
    let mut removed = Vec::new();
    for (changer, members) in groups {
        let Some(merged) = Merged::begin(builder, changer, &members) else { continue };
        for member in &members {
            merged.take_over(builder, *member);
        }
        removed.extend(members.into_iter().skip(1).map(|member| (member, Arc::clone(&merged.topic))));
        for id in [merged.filter, merged.sink, merged.source] {
            if let Some(place) = order.get_mut(id.0) {
                *place = changer.0;
            }
        }
    }
    removed.sort();
    for (member, merged) in removed.into_iter().rev() {
        let RepartitionNodes { filter, sink, source, topic, .. } = builder.notes.repartitions.remove(member);
        builder.replace_repartition_topic(&topic, &merged);
        for id in [filter, sink, source] {
            if let Some(place) = order.get_mut(id.0) {
                *place = usize::MAX;
            }
        }
    }
    reorder(builder, &order);
}

/// Puts the nodes into the order of the given places, those at `MAX` nowhere. An edge still leads to a later node: a
/// merged topic takes the place of the change of the key, and everything behind it was behind that, too.
pub(super) fn reorder(builder: &mut TopologyBuilder, places: &[usize]) {
    let mut kept: Vec<(usize, usize)> =
        places.iter().copied().zip(0..).filter(|(place, _)| *place < usize::MAX).collect();
    kept.sort_unstable();
    let mut now = vec![None; places.len()];
    for (new, (_, old)) in kept.iter().enumerate() {
        if let Some(now) = now.get_mut(*old) {
            *now = Some(NodeId(new));
        }
    }
    let renumber =
        |ids: &[NodeId]| -> Vec<NodeId> { ids.iter().filter_map(|id| now.get(id.0).copied().flatten()).collect() };
    let mut nodes: Vec<_> = std::mem::take(&mut builder.nodes).into_iter().map(Some).collect();
    for (_, old) in kept {
        let Some(mut node) = nodes.get_mut(old).and_then(Option::take) else { continue };
        node.parents = renumber(&node.parents);
        node.children = renumber(&node.children);
        // Records go to the children in the order in which these were added.
        node.children.sort_unstable();
        builder.nodes.push(node);
    }
    for nodes in &mut builder.notes.repartitions {
        for id in [&mut nodes.filter, &mut nodes.sink, &mut nodes.source] {
            if let Some(now) = now.get(id.0).copied().flatten() {
                *id = now;
            }
        }
    }
    for join in &mut builder.notes.stream_joins {
        for id in join.ids() {
            if let Some(now) = now.get(id.0).copied().flatten() {
                *id = now;
            }
        }
    }
}

/// Which repartitions become one.
struct Merging<'a> {
    builder: &'a TopologyBuilder,
}

impl Merging<'_> {
    /// Java's `maybeAddNodeForOptimizationMetadata` and `maybeUpdateKeyChangingRepartitionNodeMap`: the nodes behind which a
    /// topic is put, each with the repartitions that it replaces, in order.
    fn groups(&self) -> Vec<(NodeId, Vec<usize>)> {
        let with_role = |role| {
            let nodes = self.builder.nodes.iter().enumerate();
            nodes.filter(move |(_, node)| node.role == role).map(|(id, _)| NodeId(id))
        };
        let mut groups: Vec<(NodeId, Vec<usize>)> = with_role(Role::ChangesKey).map(|id| (id, Vec::new())).collect();
        for (number, repartition) in self.builder.notes.repartitions.iter().enumerate() {
            let changer = repartition.can_merge.then(|| self.key_changer(repartition.filter)).flatten();
            if let Some((_, members)) = groups.iter_mut().find(|(id, _)| Some(*id) == changer) {
                members.push(number);
            }
        }
        let mut behind_merges = Vec::new();
        let mut replaced = BTreeSet::new();
        for merge in with_role(Role::Merges) {
            let mut members = Vec::new();
            for (changer, own) in &groups {
                let all_behind = own.iter().all(|number| self.is_behind(*number, merge));
                if all_behind && self.step_below(merge, *changer).is_some() {
                    members.extend(own);
                    replaced.insert(*changer);
                }
            }
            members.sort_unstable();
            members.dedup();
            behind_merges.push((merge, members));
        }
        groups.retain(|(changer, _)| !replaced.contains(changer));
        // What is behind two merges goes to the first of them that took it.
        let mut taken = BTreeSet::new();
        for (_, members) in &mut behind_merges {
            members.retain(|number| taken.insert(*number));
        }
        groups.extend(behind_merges);
        groups.into_iter().flat_map(|(changer, members)| self.of_one_type(changer, members)).collect()
    }

    /// A topic holds one type of records: a member that maps them on the way keeps its own topic.
    fn of_one_type(&self, changer: NodeId, members: Vec<usize>) -> Vec<(NodeId, Vec<usize>)> {
        let output = |id: NodeId| self.builder.nodes.get(id.0).and_then(|node| node.output).map(|output| output.id);
        let source = |number: &usize| self.builder.notes.repartitions.get(*number).map(|nodes| nodes.source);
        let is_same = |number: &usize| source(number).is_some_and(|source| output(source) == output(changer));
        let (same, others): (Vec<usize>, Vec<usize>) = members.into_iter().partition(is_same);
        let is_direct = |number: &usize| {
            let filter = self.builder.notes.repartitions.get(*number).map(|nodes| nodes.filter);
            filter.is_some_and(|filter| self.parents(filter).contains(&changer))
        };
        let alone = others.into_iter().filter(is_direct).map(|number| (changer, vec![number]));
        std::iter::once((changer, same)).chain(alone).collect()
    }

    /// The change of the key before a node, if no value is changed in between.
    fn key_changer(&self, node: NodeId) -> Option<NodeId> {
        let role = |id: NodeId| self.builder.nodes.get(id.0).map(|node| node.role);
        let key = self.find(node, &|id| role(id) == Some(Role::ChangesKey))?;
        let either = self.find(node, &|id| matches!(role(id), Some(Role::ChangesKey | Role::ChangesValue)));
        (either == Some(key)).then_some(key)
    }

    fn is_behind(&self, repartition: usize, node: NodeId) -> bool {
        let nodes = self.builder.notes.repartitions.get(repartition);
        nodes.is_some_and(|nodes| self.step_below(nodes.filter, node).is_some())
    }

    /// The node on the way from `node` up to `ancestor` that is a child of it.
    fn step_below(&self, node: NodeId, ancestor: NodeId) -> Option<NodeId> {
        self.find(node, &|id| self.parents(id).contains(&ancestor))
    }

    /// Java's `findParentNodeMatching`: a node itself, else a parent, else what the last parent finds.
    fn find(&self, node: NodeId, is_meant: &dyn Fn(NodeId) -> bool) -> Option<NodeId> {
        if is_meant(node) {
            return Some(node);
        }
        let mut found = None;
        for parent in self.parents(node) {
            if is_meant(parent) {
                return Some(parent);
            }
            found = self.find(parent, is_meant);
        }
        found
    }

    /// The parents, across repartition topics.
    fn parents(&self, node: NodeId) -> Vec<NodeId> {
        let repartition = self.builder.notes.repartitions.iter().find(|repartition| repartition.source == node);
        let node = repartition.map_or(node, |repartition| repartition.filter);
        self.builder.nodes.get(node.0).map(|node| node.parents.clone()).unwrap_or_default()
    }
}

/// The topic that takes the place of several.
struct Merged {
    changer: NodeId,
    filter: NodeId,
    sink: NodeId,
    source: NodeId,
    topic: Arc<str>,
}

impl Merged {
    /// The nodes of the first member become those of all, named after its topic.
    fn begin(builder: &mut TopologyBuilder, changer: NodeId, members: &[usize]) -> Option<Merged> {
        let RepartitionNodes { filter, sink, source, ref topic, .. } =
            *builder.notes.repartitions.get(*members.first()?)?;
        let merged = Merged { changer, filter, sink, source, topic: Arc::clone(topic) };
        let fan_out = builder.nodes.get(changer.0)?.fan_out.clone();
        for (id, part) in [(filter, "filter"), (sink, "sink"), (source, "source")] {
            builder.nodes.get_mut(id.0)?.name = format!("{}-{part}", merged.topic).into();
        }
        // What was several children of the change is behind the topic now, and gets copies there.
        if let Some(source) = builder.nodes.get_mut(source.0).filter(|_| matches!(fan_out, FanOut::Each(_))) {
            source.fan_out = fan_out;
        }
        Some(merged)
    }

    /// Moves what is between the change of the key and a member behind the merged topic, and what is behind the member to
    /// where the member was.
    fn take_over(&self, builder: &mut TopologyBuilder, member: usize) {
        let Some(RepartitionNodes { filter, source, .. }) = builder.notes.repartitions.get(member) else { return };
        let (filter, source) = (*filter, *source);
        let is_first = source == self.source;
        let node = |id: NodeId| builder.nodes.get(id.0);
        let behind = node(source).map(|node| node.children.clone()).unwrap_or_default();
        let before = node(filter).map(|node| node.parents.clone()).unwrap_or_default();
        let step = Merging { builder }.step_below(filter, self.changer);
        if step == Some(filter) {
            if !is_first {
                unlink(builder, self.changer, filter);
                behind.iter().for_each(|child| relink(builder, *child, source, &[self.source]));
            }
            return;
        }
        before.iter().for_each(|parent| unlink(builder, *parent, filter));
        behind.iter().for_each(|child| relink(builder, *child, source, &before));
        // None: another member was behind the same step, and has moved it.
        if let Some(step) = step {
            relink(builder, step, self.changer, &[self.source]);
        }
        if is_first {
            link(builder, self.changer, filter);
        }
    }
}

fn link(builder: &mut TopologyBuilder, parent: NodeId, child: NodeId) {
    if let Some(node) = builder.nodes.get_mut(parent.0).filter(|node| !node.children.contains(&child)) {
        node.children.push(child);
    }
    if let Some(node) = builder.nodes.get_mut(child.0).filter(|node| !node.parents.contains(&parent)) {
        node.parents.push(parent);
    }
}

fn unlink(builder: &mut TopologyBuilder, parent: NodeId, child: NodeId) {
    if let Some(node) = builder.nodes.get_mut(parent.0) {
        node.children.retain(|id| *id != child);
    }
    if let Some(node) = builder.nodes.get_mut(child.0) {
        node.parents.retain(|id| *id != parent);
    }
}

fn relink(builder: &mut TopologyBuilder, child: NodeId, from: NodeId, to: &[NodeId]) {
    unlink(builder, from, child);
    to.iter().for_each(|parent| link(builder, *parent, child));
}

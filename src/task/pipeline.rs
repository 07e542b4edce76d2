//! The live instance of a sub-topology in one task.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::record::{ConsumerRecord, Position, SourceRecord};
use crate::state::{GlobalStores, RecordContext, TaskStores};
use crate::topology::{
    CommittedTimes, Live, Made, NodeId, ProcessorInit, ProcessorMetadata, PunctuationType, Source, TaskContext,
    TaskEnvironment, TopicPattern, Topology,
};

/// Sources, nodes and what they share. Stays on its thread; its stores do not have to.
pub(crate) struct Pipeline {
    /// The source of each input, by place in `sources`.
    inputs: Vec<usize>,
    sources: Vec<Box<dyn Source>>,
    /// Those with a pattern in place of topics.
    #[cfg_attr(
        not(any(test, feature = "testing")),
        expect(dead_code, reason = "topics come to a running task in tests only")
    )]
    patterns: Vec<(TopicPattern, usize)>,
    nodes: HashMap<NodeId, Rc<RefCell<dyn Live>>>,
    /// What flushes each store's cache, in the order of the stores; none: the store writes through by itself.
    flushes: Vec<Option<NodeId>>,
    task: TaskContext,
    /// Whether records are kept as they were read: somebody may hold back what they lead to, and wants dead letters.
    keeps_sources: bool,
    failed: bool,
}

/// What a pipeline is made of, apart from its stores.
pub(crate) struct Blueprint<'a> {
    pub topology: &'a Topology,
    pub nodes: &'a [NodeId],
    /// Topics of the inputs without prefix, in the order of the task's inputs.
    pub topics: &'a [Arc<str>],
    pub environment: &'a TaskEnvironment,
    pub stream_time: Option<i64>,
    /// What operators have committed with the offsets.
    pub processor_metadata: &'a ProcessorMetadata,
    /// The times of operators at the last commit.
    pub times: &'a CommittedTimes,
    pub wall_clock_ms: i64,
}

impl Pipeline {
    /// Calls the makers, children first. After a failure, another one is made from the stores of this one.
    ///
    /// # Errors
    /// What a maker of the user returned; the stores are lost to the caller, who opens them again.
    pub(super) fn make(blueprint: &Blueprint<'_>, stores: TaskStores) -> Result<Pipeline> {
        let Blueprint { topology, nodes: ids, topics, environment, stream_time, wall_clock_ms, .. } = *blueprint;
        let full_name = |topic: &Arc<str>| topology.full_name(&environment.application_id, topic);
        let mut task = TaskContext::new(environment.clone(), stores, topics.iter().map(full_name).collect());
        (task.stream_time, task.wall_clock_ms) = (stream_time, wall_clock_ms);
        task.stores.set_time(stream_time);
        task.processor_metadata.clone_from(blueprint.processor_metadata);
        task.resume_times(blueprint.times);
        let mut sources: Vec<Box<dyn Source>> = Vec::new();
        let mut source_of: HashMap<&Arc<str>, usize> = HashMap::new();
        let mut patterns: Vec<(TopicPattern, usize)> = Vec::new();
        let mut inputs: HashMap<NodeId, Box<dyn Any>> = HashMap::new();
        let mut nodes: HashMap<NodeId, Rc<RefCell<dyn Live>>> = HashMap::new();
        let mut flushes: Vec<Option<NodeId>> = task.stores.specs().map(|_| None).collect();
        for id in ids.iter().rev().copied() {
            let node = topology.node(id);
            let children = node.children.iter();
            let children =
                children.filter_map(|child| Some((Arc::clone(&topology.node(*child).name), &**inputs.get(child)?)));
            let children = children.collect();
            match (node.make)(&mut ProcessorInit { id, topology, children, task: &mut task })? {
                Made::Source(source) => {
                    source_of.extend(node.source_topics().iter().map(|topic| (topic, sources.len())));
                    patterns.extend(node.pattern().map(|pattern| (pattern.clone(), sources.len())));
                    sources.push(source);
                }
                Made::Node { input, live } => {
                    inputs.insert(id, input);
                    nodes.insert(id, live);
                }
            }
            // The node that has just said so when it was made forwards the rows that the store's cache holds back.
            for store in node.stores.iter().filter_map(|store| task.stores.index(store)) {
                if let Some(flush) =
                    flushes.get_mut(store).filter(|flush| flush.is_none() && task.stores.forwards(store))
                {
                    *flush = Some(id);
                }
            }
        }
        let source = |topic: &Arc<str>| source_of.get(topic).copied().or_else(|| matching(&patterns, topic));
        let inputs = topics.iter().map(|topic| source(topic).unwrap_or(usize::MAX)).collect();
        task.calls.nodes.sort_unstable(); // parents first
        let holds_back = !task.calls.nodes.is_empty() || flushes.iter().any(Option::is_some);
        let keeps_sources = holds_back && environment.handlers.dead_letter_topic.is_some();
        Ok(Pipeline { inputs, sources, patterns, nodes, flushes, task, keeps_sources, failed: false })
    }

    /// One more input, of a topic that matches the pattern of a source; whether one does.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn add_input(&mut self, topic: &Arc<str>) -> bool {
        let Some(source) = matching(&self.patterns, topic) else { return false };
        self.inputs.push(source);
        self.task.topics.push(Arc::clone(topic));
        true
    }

    /// Reads the record at the head of an input: its timestamp, or none when it is to be skipped.
    pub(super) fn prepare(
        &mut self,
        input: usize,
        record: &ConsumerRecord<'_>,
        partition_time: i64,
    ) -> Result<Option<i64>> {
        self.guarded(|pipeline| {
            pipeline.task.record.position = Some(position(input, record));
            let source = pipeline.inputs.get(input).and_then(|source| pipeline.sources.get_mut(*source));
            let source = source.ok_or_else(no_source)?;
            source.prepare(input, record, partition_time, &mut pipeline.task)
        })
    }

    /// Deletes up to so many rows that have expired at the time of the record that is next; how many there were. Fewer: no
    /// row is left that has.
    ///
    /// # Errors
    /// As [`process`](Pipeline::process).
    pub(super) fn expire(&mut self, timestamp: i64, rows_max: usize) -> Result<usize> {
        let now = self.task.stream_time.map_or(timestamp, |time| time.max(timestamp));
        self.task.stores.set_time(Some(now));
        if !self.task.stores.may_expire(now) {
            return Ok(0);
        }
        self.guarded(|pipeline| {
            let task = &mut pipeline.task;
            task.stream_time = Some(now);
            task.record = RecordContext { timestamp: now, ..RecordContext::default() };
            task.stores.set_expired_max(rows_max);
            for at in 0..task.stores.expiring().len() {
                let Some(store) = pipeline.task.stores.expiring().get(at).copied() else { break };
                match pipeline.flushes.get(store).copied().flatten().and_then(|id| pipeline.nodes.get(&id)) {
                    Some(node) => node.borrow_mut().expire(&mut pipeline.task)?,
                    None => pipeline.task.expire(store)?,
                }
            }
            // No record has led to them.
            pipeline.task.output.complete_dead_letters_from(0, (None, None));
            Ok(rows_max - pipeline.task.stores.expired_max())
        })
    }

    /// Takes the record that was read last at an input through everything behind its source, then runs what its
    /// timestamp has made due.
    ///
    /// # Errors
    /// The error of a serde or a processor, with the name of its node. From then on the pipeline refuses work.
    pub(super) fn process(&mut self, input: usize, record: &ConsumerRecord<'_>, timestamp: i64) -> Result<()> {
        self.guarded(|pipeline| {
            let task = &mut pipeline.task;
            let stream_time = task.stream_time.map_or(timestamp, |time| time.max(timestamp));
            task.stream_time = Some(stream_time);
            task.record.position = Some(position(input, record));
            task.record.timestamp = timestamp;
            task.record.source = pipeline.keeps_sources.then(|| Arc::new(SourceRecord::of(record)));
            let source = pipeline.inputs.get(input).and_then(|source| pipeline.sources.get_mut(*source));
            let source = source.ok_or_else(no_source)?;
            let result = source.release(input, timestamp, record.headers, &mut pipeline.task);
            pipeline.task.output.complete_dead_letters(record);
            result?;
            pipeline.punctuate(PunctuationType::StreamTime, stream_time).map(|_| ())
        })
    }

    /// Tells the task what time it is and runs what has become due; whether anything was.
    ///
    /// # Errors
    /// As [`process`](Pipeline::process).
    pub(super) fn advance_wall_clock(&mut self, wall_clock_ms: i64) -> Result<bool> {
        self.guarded(|pipeline| {
            pipeline.task.wall_clock_ms = wall_clock_ms;
            pipeline.punctuate(PunctuationType::WallClockTime, wall_clock_ms)
        })
    }

    /// Forwards the results of calls that have ended; whether there were any.
    ///
    /// # Errors
    /// As [`process`](Pipeline::process).
    pub(super) fn finish_calls(&mut self) -> Result<bool> {
        if self.task.calls.in_flight == 0 {
            return Ok(false);
        }
        self.guarded(|pipeline| {
            let before = pipeline.task.calls.ended;
            for id in pipeline.task.calls.nodes.clone() {
                if let Some(node) = pipeline.nodes.get(&id) {
                    node.borrow_mut().finish(&mut pipeline.task)?;
                }
            }
            Ok(pipeline.task.calls.ended > before)
        })
    }

    /// Forwards everything that is held back: waits for calls, then store by store in the order in which they were added,
    /// and again as long as that has led to calls.
    ///
    /// # Errors
    /// As [`process`](Pipeline::process).
    pub(super) fn flush(&mut self) -> Result<()> {
        self.guarded(|pipeline| {
            loop {
                for id in pipeline.task.calls.nodes.clone() {
                    if let Some(node) = pipeline.nodes.get(&id) {
                        node.borrow_mut().flush(&mut pipeline.task)?;
                    }
                }
                for store in 0..pipeline.flushes.len() {
                    match pipeline.flushes.get(store).copied().flatten().and_then(|id| pipeline.nodes.get(&id)) {
                        Some(node) => node.borrow_mut().flush(&mut pipeline.task)?,
                        None => pipeline.task.stores.flush(store)?,
                    }
                }
                pipeline.task.output.complete_dead_letters_from(0, (None, None));
                if pipeline.task.calls.in_flight == 0 {
                    return Ok(());
                }
            }
        })
    }

    pub(super) fn task(&self) -> &TaskContext {
        &self.task
    }

    pub(super) fn context(&mut self) -> &mut TaskContext {
        &mut self.task
    }

    pub(super) fn is_failed(&self) -> bool {
        self.failed
    }

    /// Tells every processor that its task ends, and gives the stores back.
    pub(super) fn close(mut self) -> TaskStores {
        for node in self.nodes.values() {
            // A panic while closing must not keep the stores from being closed as well.
            let closed = catch_unwind(AssertUnwindSafe(|| node.borrow_mut().close()));
            if closed.is_err() {
                tracing::error!(task = %self.task.task_id(), "a processor panicked while it was closed");
            }
        }
        std::mem::take(&mut self.task.stores)
    }

    /// Drops the operators, whatever state they are in, and gives the stores back.
    pub(super) fn into_stores(mut self) -> TaskStores {
        std::mem::take(&mut self.task.stores)
    }

    fn punctuate(&mut self, kind: PunctuationType, now: i64) -> Result<bool> {
        let mut punctuated = false;
        while let Some((node, punctuation)) = self.task.schedules.take_due(kind, now) {
            punctuated = true;
            // The last record has nothing to do with it.
            self.task.record = RecordContext { timestamp: now, ..RecordContext::default() };
            if let Some(node) = self.nodes.get(&node) {
                node.borrow_mut().punctuate(punctuation, now, &mut self.task)?;
            }
            self.task.schedules.put_back(punctuation, now);
        }
        // No record has led to them.
        self.task.output.complete_dead_letters_from(0, (None, None));
        Ok(punctuated)
    }

    /// IMPORTANT: after an error or a panic the operators may have seen half a record. Nothing may go through them
    /// again, or a later commit would hold that half.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Pipeline) -> Result<T>) -> Result<T> {
        if self.failed {
            return Err(Error::new(ErrorKind::Closed, "the pipeline has failed and must be made anew"));
        }
        self.failed = true;
        let result = catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map(String::as_str);
            let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Error::new(ErrorKind::User, format!("a function of a source panicked: {message}")))
        });
        self.failed = result.is_err();
        result
    }
}

/// Makes every sub-topology once, over empty stores, and throws it away: a processor that asks for a store it is not
/// connected to shows before any thread runs and before any record is taken.
///
/// # Errors
/// What a maker returned, with its node.
pub(crate) fn try_makers(topology: &Topology, environment: &TaskEnvironment) -> Result<()> {
    let mut globals = GlobalStores::default();
    for number in topology.globals() {
        globals.add(&TaskStores::shared_in_memory(&topology.stores(&topology.sub_topology(number))));
    }
    for sub_topology in 0..topology.sub_topology_count() {
        let nodes = topology.sub_topology(sub_topology);
        let topics = topology.source_topics(&nodes);
        let mut stores = TaskStores::in_memory(&topology.stores(&nodes), 0);
        globals.attach(&mut stores);
        let (nodes, topics) = (&*nodes, &*topics);
        let (processor_metadata, times) = (&ProcessorMetadata::new(), &CommittedTimes::new());
        let (stream_time, wall_clock_ms) = (None, 0);
        let blueprint =
            Blueprint { topology, nodes, topics, environment, stream_time, processor_metadata, times, wall_clock_ms };
        let made = catch_unwind(AssertUnwindSafe(|| Pipeline::make(&blueprint, stores).map(|_| ())));
        made.unwrap_or_else(|_| {
            let context = format!("a maker of sub-topology {sub_topology} panicked: return its error instead");
            Err(Error::invalid(context))
        })?;
    }
    Ok(())
}

fn matching(patterns: &[(TopicPattern, usize)], topic: &str) -> Option<usize> {
    patterns.iter().find(|(pattern, _)| pattern.matches(topic)).map(|(_, source)| *source)
}

fn position(input: usize, record: &ConsumerRecord<'_>) -> Position {
    Position { topic: input, partition: record.partition, offset: record.offset }
}

#[cold]
fn no_source() -> Error {
    Error::new(ErrorKind::Internal, "a task has an input without a source")
}

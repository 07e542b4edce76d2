//! A node at work: the typed edges of a pipeline.
//!
//! A pipeline is made from the last node to the first: a node asks for the inputs of its children, and that is the only
//! downcast an edge ever sees. A graph without cycles, walked depth first, never enters a node twice at once, so the
//! `RefCell` of a node is never found borrowed.

use std::any::{Any, type_name};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use super::context::TaskContext;
use super::interceptor::{CallKind, Interception};
use super::processor::{Processor, ProcessorContext};
use super::schedules::Punctuation;
use super::{FanOut, NodeId};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{ConsumerRecord, Headers, Record};

/// The typed end of an edge.
pub(crate) trait Receive<K, V> {
    fn receive(&mut self, record: Record<K, V>, task: &mut TaskContext) -> Result<()>;
}

/// A node, as its parents hold it. More than one parent may: that is all there is to a diamond or a merge.
pub(crate) type Input<K, V> = Rc<RefCell<dyn Receive<K, V>>>;

/// A node, as the task holds it.
pub(crate) trait Live {
    fn punctuate(&mut self, punctuation: Punctuation, timestamp: i64, task: &mut TaskContext) -> Result<()>;

    /// Forwards what the node has held back.
    fn flush(&mut self, task: &mut TaskContext) -> Result<()>;

    /// Deletes rows that have expired, and forwards that.
    fn expire(&mut self, task: &mut TaskContext) -> Result<()>;

    /// Forwards what has become ready since.
    fn finish(&mut self, task: &mut TaskContext) -> Result<()>;

    fn close(&mut self);
}

/// The first node: raw bytes in, typed records out. In two steps, because a record's timestamp decides when it is its
/// turn, and an extractor may want the typed record for it.
pub(crate) trait Source {
    /// Reads the record at the head of an input and keeps it. Its timestamp, or none when it is to be skipped.
    fn prepare(
        &mut self,
        input: usize,
        record: &ConsumerRecord<'_>,
        partition_time: i64,
        task: &mut TaskContext,
    ) -> Result<Option<i64>>;

    /// Sends the record that `prepare` kept on its way.
    fn release(&mut self, input: usize, timestamp: i64, headers: &Headers, task: &mut TaskContext) -> Result<()>;
}

/// What a maker returns.
pub(crate) enum Made {
    Source(Box<dyn Source>),
    Node { input: Box<dyn Any>, live: Rc<RefCell<dyn Live>> },
}

impl Made {
    pub(crate) fn node<K: 'static, V: 'static, P: Processor<K, V>>(node: Rc<RefCell<Node<K, V, P>>>) -> Made {
        let input: Input<K, V> = Rc::clone(&node) as _;
        Made::Node { input: Box::new(input), live: node }
    }
}

/// Copies a record for a further child. Exists for types that are `Clone`; nobody else can have a further child.
pub(crate) type Duplicate<K, V> = fn(&Record<K, V>) -> Record<K, V>;

/// The way from a node to its children, in the order in which they were attached.
pub(crate) struct Port<K, V> {
    children: Vec<Input<K, V>>,
    names: Vec<Arc<str>>,
    duplicate: Option<Duplicate<K, V>>,
}

impl<K: 'static, V: 'static> Port<K, V> {
    pub(crate) fn connect(children: &[(Arc<str>, &dyn Any)], fan_out: &FanOut) -> Result<Port<K, V>> {
        let mismatch = || Error::invalid(format!("a child does not take {}", type_name::<Record<K, V>>()));
        let inputs = children.iter().map(|(_, child)| child.downcast_ref::<Input<K, V>>().map(Rc::clone));
        let inputs = inputs.collect::<Option<_>>().ok_or_else(mismatch)?;
        let duplicate = match fan_out {
            FanOut::Each(duplicate) => Some(*duplicate.downcast_ref::<Duplicate<K, V>>().ok_or_else(mismatch)?),
            FanOut::Only | FanOut::Chosen => None,
        };
        let names = children.iter().map(|(name, _)| Arc::clone(name)).collect();
        Ok(Port { children: inputs, names, duplicate })
    }
}

impl<K, V> Port<K, V> {
    /// The last child gets the record itself: a chain never clones.
    #[inline]
    pub(crate) fn forward(&self, record: Record<K, V>, task: &mut TaskContext) -> Result<()> {
        let Some((last, others)) = self.children.split_last() else { return Ok(()) };
        if !others.is_empty() {
            self.copy_to(others, &record, task)?;
        }
        last.borrow_mut().receive(record, task)
    }

    /// Apart, so that `forward` stays small enough to become part of its caller: most nodes have one child.
    #[inline(never)]
    fn copy_to(&self, others: &[Input<K, V>], record: &Record<K, V>, task: &mut TaskContext) -> Result<()> {
        let Some(duplicate) = self.duplicate else { return Ok(()) };
        others.iter().try_for_each(|child| child.borrow_mut().receive(duplicate(record), task))
    }

    #[inline]
    pub(crate) fn forward_to(&self, child: usize, record: Record<K, V>, task: &mut TaskContext) -> Result<()> {
        match self.children.get(child) {
            Some(child) => child.borrow_mut().receive(record, task),
            None => Err(Error::new(ErrorKind::Internal, format!("forwards to child {child}, which is not there"))),
        }
    }

    /// The place of a child, by its name.
    pub(crate) fn child(&self, name: &str) -> Result<usize> {
        self.names.iter().position(|child| **child == *name).ok_or_else(|| {
            let children = self.names.join(", ");
            Error::new(ErrorKind::User, format!("forwards to {name}, which is not a child: these are: {children}"))
        })
    }
}

/// A processor with its children. What fails here, error or panic, learns the name of the innermost node, and the
/// processing handler decides about it.
pub(crate) struct Node<K, V, P: Processor<K, V>> {
    pub processor: P,
    pub out: Port<P::KeyOut, P::ValueOut>,
    pub id: NodeId,
    pub name: Arc<str>,
    /// Whether updates of a store need the headers of the record that makes them: they wait for the commit, or are logged
    /// with them.
    pub needs_headers: bool,
    pub types: std::marker::PhantomData<fn(K, V)>,
}

impl<K, V, P: Processor<K, V>> Node<K, V, P> {
    /// Runs user code. A panic is a failure like any other: only this node's record is lost, if the handler says so.
    #[inline]
    fn guarded(
        &mut self,
        kind: CallKind,
        task: &mut TaskContext,
        work: impl FnOnce(&mut P, &mut ProcessorContext<'_, P::KeyOut, P::ValueOut>) -> Result<()>,
    ) -> Result<()> {
        if task.environment.handlers.interceptor.0.is_some() {
            return self.intercepted(kind, task, work);
        }
        let Node { processor, out, id, .. } = self;
        let result = catch_unwind(AssertUnwindSafe(|| work(processor, &mut ProcessorContext { task, out, node: *id })));
        self.settle(result, task)
    }

    /// The same inside what the application wants around it. Apart, so that others do not pay for it.
    #[inline(never)]
    fn intercepted(
        &mut self,
        kind: CallKind,
        task: &mut TaskContext,
        work: impl FnOnce(&mut P, &mut ProcessorContext<'_, P::KeyOut, P::ValueOut>) -> Result<()>,
    ) -> Result<()> {
        let Some(interceptor) = task.environment.handlers.interceptor.0.clone() else { return Ok(()) };
        let Node { processor, out, id, name, .. } = self;
        let at = Interception { task: task.task_id(), node: name, kind, timestamp: task.record.timestamp };
        let mut work = Some(work);
        let mut call = || match work.take() {
            Some(work) => work(processor, &mut ProcessorContext { task, out, node: *id }),
            None => Err(Error::user("an interceptor has made a call twice")),
        };
        let result = catch_unwind(AssertUnwindSafe(|| interceptor.intercept(&at, &mut call)));
        self.settle(result, task)
    }

    #[inline]
    fn settle(&self, result: std::thread::Result<Result<()>>, task: &mut TaskContext) -> Result<()> {
        match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => self.failed(error, task),
            Err(panic) => self.failed(from_panic(&*panic), task),
        }
    }

    #[cold]
    fn failed(&self, error: Error, task: &mut TaskContext) -> Result<()> {
        let headers = std::mem::take(&mut task.headers_in_hand);
        let result = task.processing_failed(&self.name, &headers, error);
        task.headers_in_hand = headers;
        result
    }
}

impl<K: 'static, V: 'static, P: Processor<K, V>> Receive<K, V> for Node<K, V, P> {
    fn receive(&mut self, record: Record<K, V>, task: &mut TaskContext) -> Result<()> {
        // Changelog records of this subtree get this record's timestamp, those behind it again the parent's.
        let outer = std::mem::replace(&mut task.record.timestamp, record.timestamp);
        if self.needs_headers {
            task.record.headers.clone_from(&record.headers);
        }
        let outer_headers = task.take_headers(&record.headers);
        let result = self.guarded(CallKind::Record, task, |processor, ctx| processor.process(record, ctx));
        if let Some(headers) = outer_headers {
            task.headers_in_hand = headers;
        }
        task.record.timestamp = outer;
        result
    }
}

impl<K, V, P: Processor<K, V>> Live for Node<K, V, P> {
    fn punctuate(&mut self, punctuation: Punctuation, timestamp: i64, task: &mut TaskContext) -> Result<()> {
        self.guarded(CallKind::Punctuation, task, |processor, ctx| processor.punctuate(punctuation, timestamp, ctx))
    }

    fn flush(&mut self, task: &mut TaskContext) -> Result<()> {
        self.guarded(CallKind::Flush, task, |processor, ctx| processor.flush(ctx))
    }

    fn expire(&mut self, task: &mut TaskContext) -> Result<()> {
        self.guarded(CallKind::Flush, task, |processor, ctx| processor.expire(ctx))
    }

    fn finish(&mut self, task: &mut TaskContext) -> Result<()> {
        self.guarded(CallKind::Flush, task, |processor, ctx| processor.finish(ctx))
    }

    fn close(&mut self) {
        self.processor.close();
    }
}

#[cold]
fn from_panic(panic: &(dyn Any + Send)) -> Error {
    let message = panic.downcast_ref::<String>().map(String::as_str);
    let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    Error::new(ErrorKind::User, format!("a user function panicked: {message}"))
}

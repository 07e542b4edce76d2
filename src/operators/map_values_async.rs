//! Maps values by calls that take their time: to another service, to a database.
//!
//! ```text
//!   process    record -> in flight, its call begins            results -> channel
//!   finish     channel -> records that are done go on          in order, on the thread that owns the task
//!   flush      waits until nothing is in flight                before a commit
//! ```

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::record::Record;
use crate::state::RecordContext;
use crate::topology::{CallRunner, Processor, ProcessorContext, RunningCall};

/// The user's function.
pub(crate) type AsyncMapper<K, V, V2> =
    Arc<dyn Fn(&K, &V) -> Pin<Box<dyn Future<Output = Result<V2>> + Send>> + Send + Sync>;

/// The order in which the results of calls go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum AsyncOrder {
    /// As the records came. The default.
    #[default]
    Partition,
    /// As the records of their key came; those of different keys overtake each other.
    Key,
}

/// How records are called for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CallPlan {
    pub in_flight_max: usize,
    pub order: AsyncOrder,
    pub timeout: Duration,
    pub retries: u32,
}

/// Gives each record the value that a call has as its result. The records of a task that are in flight are a bounded number.
pub(crate) struct MapValuesAsync<K, V, V2> {
    pub name: Arc<str>,
    pub call: AsyncMapper<K, V, V2>,
    pub plan: CallPlan,
    pub runner: Arc<dyn CallRunner>,
    /// In the order in which they came.
    pub in_flight: VecDeque<InFlight<K, V, V2>>,
    pub next: u64,
    pub results: (Sender<Report<V2>>, Receiver<Report<V2>>),
}

/// A record and its call.
pub(crate) struct InFlight<K, V, V2> {
    number: u64,
    record: Record<K, V>,
    context: RecordContext,
    retries_left: u32,
    /// The call that runs is dropped with the record.
    state: CallState<V2>,
}

enum CallState<V2> {
    Running(#[expect(dead_code, reason = "held, so that the call goes on")] RunningCall),
    Done(Result<V2>),
}

/// What came of a call; none: it was given up.
pub(crate) struct Report<V2> {
    number: u64,
    result: Option<Result<V2>>,
}

/// Reports in any case, also when the call is dropped: its time was over, or it panicked.
struct Reporter<V2> {
    number: u64,
    result: Option<Result<V2>>,
    results: Sender<Report<V2>>,
}

impl<V2> Reporter<V2> {
    fn report(mut self, result: Result<V2>) {
        self.result = Some(result);
    }
}

impl<V2> Drop for Reporter<V2> {
    fn drop(&mut self) {
        // Nobody listens when the pipeline is gone.
        let _ = self.results.send(Report { number: self.number, result: self.result.take() });
    }
}

impl<K: PartialEq + 'static, V: 'static, V2: Send + 'static> Processor<K, V> for MapValuesAsync<K, V, V2> {
    type KeyOut = K;
    type ValueOut = V2;

    fn process(&mut self, record: Record<K, V>, ctx: &mut ProcessorContext<'_, K, V2>) -> Result<()> {
        while self.in_flight.len() >= self.plan.in_flight_max {
            self.wait()?;
            self.forward_done(ctx)?;
        }
        let (number, context) = (self.next, ctx.task.record.clone());
        self.next += 1;
        let state = CallState::Running(self.start(number, &record));
        self.in_flight.push_back(InFlight { number, record, context, retries_left: self.plan.retries, state });
        ctx.task.calls.in_flight += 1;
        self.report_full(ctx);
        self.finish(ctx)
    }

    fn finish(&mut self, ctx: &mut ProcessorContext<'_, K, V2>) -> Result<()> {
        while let Ok(report) = self.results.1.try_recv() {
            self.take(report);
        }
        self.forward_done(ctx)
    }

    fn flush(&mut self, ctx: &mut ProcessorContext<'_, K, V2>) -> Result<()> {
        self.finish(ctx)?;
        while !self.in_flight.is_empty() {
            self.wait()?;
            self.forward_done(ctx)?;
        }
        Ok(())
    }
}

impl<K: PartialEq + 'static, V: 'static, V2: Send + 'static> MapValuesAsync<K, V, V2> {
    fn start(&self, number: u64, record: &Record<K, V>) -> RunningCall {
        let reporter = Reporter { number, result: None, results: self.results.0.clone() };
        let call = catch_unwind(AssertUnwindSafe(|| (self.call)(&record.key, &record.value)));
        // After a panic the reporter is dropped, and says so.
        let Ok(call) = call else { return Box::new(()) };
        let call = async move { reporter.report(call.await) };
        self.runner.start(Box::pin(call), self.plan.timeout)
    }

    /// Until some call has ended: each does, in its time.
    fn wait(&mut self) -> Result<()> {
        let report = self.results.1.recv().map_err(|error| Error::user("no call will end").with_source(error))?;
        self.take(report);
        Ok(())
    }

    fn take(&mut self, Report { number, result }: Report<V2>) {
        let Some(place) = self.in_flight.iter().position(|waiting| waiting.number == number) else { return };
        let timeout = self.plan.timeout;
        let result = result.unwrap_or_else(|| {
            Err(Error::user(format!("a call did not end within {timeout:?}, or panicked: allow more time or retries")))
        });
        let Some(waiting) = self.in_flight.get(place) else { return };
        let is_last = result.is_ok() || waiting.retries_left == 0;
        let state = match is_last {
            true => CallState::Done(result),
            false => CallState::Running(self.start(number, &waiting.record)),
        };
        if let Some(waiting) = self.in_flight.get_mut(place) {
            waiting.state = state;
            waiting.retries_left = waiting.retries_left.saturating_sub(1);
        }
    }

    /// Sends on what is done and has nothing before it that it has to wait for.
    fn forward_done(&mut self, ctx: &mut ProcessorContext<'_, K, V2>) -> Result<()> {
        let mut forwarded = Ok(());
        while let Some(done) = self.next_done().and_then(|place| self.in_flight.remove(place)) {
            ctx.task.calls.in_flight = ctx.task.calls.in_flight.saturating_sub(1);
            ctx.task.calls.ended += 1;
            let InFlight { record, context, state, .. } = done;
            let CallState::Done(result) = state else { continue };
            let outer = ctx.task.take_up(context);
            forwarded = match result {
                Ok(value) => ctx.forward(record.with_value(value)),
                // Decided here, where the record is in hand again: others are not to be lost with it.
                Err(error) => ctx.task.processing_failed(&self.name, &record.headers, error),
            };
            ctx.task.put_back(outer);
            if forwarded.is_err() {
                break;
            }
        }
        self.report_full(ctx);
        forwarded
    }

    fn next_done(&self) -> Option<usize> {
        let is_done = |waiting: &InFlight<K, V, V2>| matches!(waiting.state, CallState::Done(_));
        match self.plan.order {
            AsyncOrder::Partition => self.in_flight.front().filter(|first| is_done(first)).map(|_| 0),
            AsyncOrder::Key => {
                let is_first = |place: usize, key: &K| self.in_flight.iter().take(place).all(|w| w.record.key != *key);
                let mut waiting = self.in_flight.iter().enumerate();
                waiting.find(|(place, w)| is_done(w) && is_first(*place, &w.record.key)).map(|(place, _)| place)
            }
        }
    }

    fn report_full(&mut self, ctx: &mut ProcessorContext<'_, K, V2>) {
        let is_full = self.in_flight.len() >= self.plan.in_flight_max;
        ctx.task.calls.set_full(&self.name, is_full);
    }
}

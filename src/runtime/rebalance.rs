//! What a thread does when the group gives it tasks or takes them away.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::Now;
use super::commit::Failure;
use super::positions::start_points;
use super::restore::{Found, Restoration, Share, changelogs};
use super::running_task::RunningTask;
use super::stream_thread::StreamThread;
use super::task_layout::Inputs;
use crate::client::Consumer;
use crate::error::{Error, ErrorKind, Result};
use crate::membership::MembershipEvent;
use crate::metrics::{Owner, TaskMetrics};
use crate::record::TopicPartition;
use crate::state::TaskStores;
use crate::task::{CommitPoint, MaxTaskIdle, Task, TaskSpec};
use crate::topology::TaskId;

impl StreamThread {
    /// Hears what the group has to say, and does it; whether there was anything.
    pub(super) fn rebalance(&mut self) -> Result<bool, Failure> {
        let mut heard = false;
        loop {
            let event = match self.membership.poll() {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(heard),
                Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(heard),
                Err(error) => return Err(Failure::Fatal(error)),
            };
            heard = true;
            match event {
                MembershipEvent::Assigned { active } => {
                    tracing::info!(tasks = list(active.iter()), "assigned");
                    self.is_assigned = true;
                    for task in active {
                        let consumer = self.restore_consumer.as_deref_mut();
                        let stores = self.standbys.promote(&self.app, task, consumer).map_err(Failure::Fatal)?;
                        self.opening.insert(task, stores);
                    }
                }
                MembershipEvent::Standby { tasks } => {
                    tracing::info!(tasks = list(tasks.iter()), "standbys");
                    self.stand_by(tasks)?;
                }
                MembershipEvent::Revoked { tasks } => {
                    tracing::info!(tasks = list(tasks.iter()), "revoked");
                    self.is_assigned = false;
                    self.report_phase();
                    // A commit that fails is no reason to keep the tasks: they go on from the last one elsewhere.
                    if let Err(failure) = self.commit(Now::read()) {
                        self.recover(failure)?;
                    }
                    self.close_tasks(|task| tasks.contains(task))?;
                    self.membership.acknowledge().map_err(Failure::Fatal)?;
                }
                MembershipEvent::Lost { tasks } => {
                    tracing::warn!(tasks = list(tasks.iter()), "lost: what was not committed is done elsewhere");
                    self.is_assigned = false;
                    self.report_phase();
                    self.close_tasks(|task| tasks.contains(task))?;
                    let lost = Error::new(ErrorKind::Aborted, "tasks were lost to another instance");
                    match self.committer.abort() {
                        Ok(()) => self.recover(Failure::Rewind(lost))?,
                        Err(error) => self.recover(Failure::Doubt(error))?,
                    }
                    self.membership.acknowledge().map_err(Failure::Fatal)?;
                }
            }
        }
    }

    /// Opens tasks that were assigned: their positions, their stores, the plan to restore them.
    ///
    /// # Errors
    /// `Unavailable`: to be called again.
    pub(super) fn open_tasks(&mut self) -> Result<()> {
        if self.opening.is_empty() {
            return Ok(());
        }
        self.app.look_at_awaited_topics()?;
        let mut inputs: BTreeMap<TaskId, Vec<TopicPartition>> = BTreeMap::new();
        for task in self.opening.keys() {
            let own = self.app.layout.inputs(*task).ok_or_else(|| unknown_task(*task))?;
            inputs.insert(*task, own.partitions);
        }
        let partitions: Vec<_> = inputs.values().flatten().cloned().collect();
        // NOTE: waits for open transactions to be decided, so what the changelogs hold afterwards is decided too.
        let committed = self.membership.committed(&partitions)?;
        let now = Now::read();
        let points = start_points(&self.app, &partitions, &committed, now)?;
        let mut points = points.into_iter();
        self.ready_restore_consumer()?;
        while let Some((task, stores)) = self.opening.pop_first() {
            let count = inputs.get(&task).map_or(0, Vec::len);
            let committed: Vec<_> = points.by_ref().take(count).collect();
            match self.open_task(task, stores, committed, now) {
                Ok(restoration) => self.restoring.push(restoration),
                Err(error) => {
                    self.opening.insert(task, None);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    pub(super) fn ready_restore_consumer(&mut self) -> Result<()> {
        if self.restore_consumer.is_none() {
            let spec = self.app.restore_consumer_spec(self.index);
            self.restore_consumer = Some(self.app.cluster.consumer(&spec)?);
        }
        Ok(())
    }

    /// The stores of a task: those that are open, or as they are on disk.
    pub(super) fn open_stores(&self, task: TaskId, open: Option<TaskStores>, now: Now) -> Result<(TaskStores, Found)> {
        if let Some(mut stores) = open {
            self.app.lags.local.opened(task, &mut stores, &self.inbox);
            return Ok((stores, Found::Open));
        }
        self.app.look_at_awaited_topics()?;
        let specs = self.app.stores_of(task);
        let mut stores = TaskStores::open(&self.home, task, &specs, now.wall_ms)?;
        if let Some(globals) = self.app.globals() {
            globals.attach(&mut stores);
        }
        self.app.lags.local.opened(task, &mut stores, &self.inbox);
        Ok((stores, Found::OnDisk))
    }

    fn open_task(
        &mut self,
        task: TaskId,
        stores: Option<TaskStores>,
        committed: Vec<CommitPoint>,
        now: Now,
    ) -> Result<Restoration> {
        let stores = self.open_stores(task, stores, now)?;
        let Some(consumer) = self.restore_consumer.as_deref_mut() else { return Err(no_restore_consumer()) };
        Restoration::begin(&self.app, self.index, task, stores, committed, consumer, now)
    }

    /// A step of every restoration; tasks whose stores are ready begin to run. How many records there were.
    pub(super) fn restore(&mut self, now: Now) -> Result<u64, Failure> {
        let Some(consumer) = self.restore_consumer.as_deref_mut() else { return Ok(0) };
        let mut taken = 0;
        let mut ready = Vec::new();
        let mut share = Share::of_turn(self.tasks.len());
        // Whose turn it was first is last the next time.
        if !self.restoring.is_empty() {
            self.restoring.rotate_left(1);
        }
        for mut restoration in std::mem::take(&mut self.restoring) {
            match restoration.step(&self.app, consumer, &mut self.restore_batch, &mut share, now) {
                Ok(records) => taken += records,
                Err(error) if error.kind() == ErrorKind::Corrupted => {
                    let task = restoration.task;
                    tracing::warn!("task {task} is restored from the start: {}", error.report());
                    restoration.suspend(&self.app, consumer).map_err(Failure::Fatal)?;
                    self.opening.insert(task, None);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => {}
                Err(error) => return Err(Failure::Fatal(error)),
            }
            if restoration.is_done() { ready.push(restoration) } else { self.restoring.push(restoration) }
        }
        for restoration in ready {
            self.run_task(restoration, now).map_err(Failure::Fatal)?;
        }
        Ok(taken)
    }

    fn run_task(&mut self, restoration: Restoration, now: Now) -> Result<()> {
        let Restoration { task: id, stores, committed, .. } = restoration;
        let Inputs { nodes, topics, partitions: inputs } =
            self.app.layout.inputs(id).ok_or_else(|| unknown_task(id))?;
        let config = &self.app.config;
        let spec = TaskSpec {
            topology: self.app.topology.clone(),
            nodes: nodes.to_vec(),
            environment: self.app.environment(id),
            topics,
            inputs: inputs.clone(),
            idle: match config.max_task_idle {
                None => MaxTaskIdle::Never,
                Some(idle) => MaxTaskIdle::WaitMs(i64::try_from(idle.as_millis()).unwrap_or(i64::MAX)),
            },
            replay: config.guarantee.into(),
        };
        let changelogs = changelogs(self.app.id(), id, &stores);
        let (thread, client) = (self.app.thread_name(self.index), self.app.client_id(self.index, "consumer"));
        let owner = Owner { thread: &thread, client: &client, task: &id.to_string() };
        let metrics = TaskMetrics::new(&owner, &inputs, stores.specs().map(|spec| (&*spec.name, spec.is_on_disk())));
        let written = vec![false; changelogs.len()];
        self.app.lags.running(std::iter::once((id, records_of(&stores))));
        let task = Task::new(spec, stores, committed, now.wall_ms)?;
        let positions: Vec<_> = task.committed_positions().map(|(input, offset)| (input.clone(), offset)).collect();
        self.consumer.assign(&positions)?;
        self.app.lags.local.runs(id, task.committed_positions());
        let span = tracing::info_span!("task", task = %id);
        let at = self.tasks.partition_point(|running| running.task.id() < id);
        self.tasks.insert(at, RunningTask { task, inputs, changelogs, written, dropped: 0, metrics, span });
        self.metrics.task_created_total.increment(1);
        tracing::info!(task = %id, from = positions_text(&positions), "task runs");
        Ok(())
    }

    /// Ends tasks, wherever they are; what is not committed of them is dropped. The stores of those that become standbys
    /// stay open.
    pub(super) fn close_tasks(&mut self, is_meant: impl Fn(&TaskId) -> bool) -> Result<(), Failure> {
        for task in self.opening.keys().copied().filter(|task| is_meant(task)).collect::<Vec<_>>() {
            let stores = self.opening.remove(&task).flatten();
            self.end_stores(task, stores);
        }
        let (closing, rest) = std::mem::take(&mut self.restoring).into_iter().partition(|r| is_meant(&r.task));
        self.restoring = rest;
        for restoration in closing {
            let restoration: Restoration = restoration;
            let Some(consumer) = self.restore_consumer.as_deref_mut() else { break };
            let task = restoration.task;
            let stores = restoration.suspend(&self.app, consumer).map_err(Failure::Fatal)?;
            self.end_stores(task, Some(stores));
        }
        for mut running in self.tasks.extract_if(.., |running| is_meant(&running.task.id())).collect::<Vec<_>>() {
            running.end_metrics();
            self.consumer.unassign(&running.inputs).map_err(Failure::Fatal)?;
            let (id, stores) = running.close();
            self.end_stores(id, stores);
            self.metrics.task_closed_total.increment(1);
        }
        Ok(())
    }

    fn end_stores(&mut self, task: TaskId, stores: Option<TaskStores>) {
        if self.standbys.wants(task) {
            return self.standbys.keep(&self.app, task, stores);
        }
        self.app.lags.closed(task);
        stores.into_iter().for_each(|stores| close_stores(task, stores));
    }

    /// Opens every running task again, keeping its stores: they are at some commit, and the changelogs know the rest.
    pub(super) fn reopen_tasks(&mut self) -> Result<(), Failure> {
        for mut running in std::mem::take(&mut self.tasks) {
            running.end_metrics();
            self.consumer.unassign(&running.inputs).map_err(Failure::Fatal)?;
            let (id, stores) = running.close();
            self.opening.insert(id, stores);
        }
        Ok(())
    }
}

/// As many records as the changelogs of these stores may hold.
pub(super) fn records_of(stores: &TaskStores) -> u64 {
    let offsets = (0..stores.specs().count()).filter_map(|store| stores.offset(store));
    offsets.filter_map(|offset| u64::try_from(offset).ok()).sum()
}

/// What cannot be written to disk is in the changelog: the next start reads it from there.
pub(super) fn close_stores(task: TaskId, stores: TaskStores) {
    if let Err(error) = stores.close() {
        tracing::warn!("could not write the stores of task {task} while closing them: {}", error.report());
    }
}

#[cold]
fn no_restore_consumer() -> Error {
    Error::new(ErrorKind::Internal, "a task was opened without a restore consumer")
}

fn unknown_task(task: TaskId) -> Error {
    Error::invalid(format!(
        "the group gave this instance task {task}, which its topology does not have: all instances need the same topology"
    ))
}

fn list<'a>(tasks: impl Iterator<Item = &'a TaskId>) -> String {
    let names: Vec<_> = tasks.map(TaskId::to_string).collect();
    names.join(" ")
}

fn positions_text(positions: &[(TopicPartition, i64)]) -> String {
    let names: Vec<_> = positions.iter().map(|(partition, offset)| format!("{partition}@{offset}")).collect();
    names.join(" ")
}

/// How long a thread that restores waits for more of a changelog.
pub(super) const RESTORE_WAIT: Duration = Duration::from_millis(5);

pub(super) fn wait_for_changelogs(consumer: Option<&mut (dyn Consumer + 'static)>) -> Result<()> {
    consumer.map_or(Ok(()), |consumer| consumer.wait(RESTORE_WAIT))
}

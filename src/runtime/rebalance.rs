//! What a thread does when the group gives it tasks or takes them away.

use std::collections::BTreeMap;

use super::clock::Now;
use super::commit::Failure;
use super::positions::start_points;
use super::restore::changelogs;
use super::restorer::{RestoreOrder, RestoreReport};
use super::running_task::RunningTask;
use super::stream_thread::StreamThread;
use super::task_layout::Inputs;
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
                        if self.standbys.remove(&task) {
                            self.restorer.order(RestoreOrder::Promote(task));
                        }
                        self.opening.insert(task, None);
                    }
                }
                MembershipEvent::Standby { tasks } => {
                    tracing::info!(tasks = list(tasks.iter()), "standbys");
                    let at_work = self.tasks.iter().map(|running| running.task.id());
                    let at_work = at_work.chain(self.opening.keys().copied()).chain(self.restoring.keys().copied());
                    let at_work = at_work.collect();
                    self.standbys = tasks.clone();
                    self.restorer.order(RestoreOrder::StandBy { tasks, at_work });
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

    /// Asks where the inputs of assigned tasks go on, and leaves their stores to the restorer.
    ///
    /// # Errors
    /// `Unavailable`: to be called again.
    pub(super) fn order_restores(&mut self) -> Result<()> {
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
        let points = start_points(&self.app, &partitions, &committed, Now::read())?;
        let mut points = points.into_iter();
        for (task, stores) in std::mem::take(&mut self.opening) {
            let count = inputs.get(&task).map_or(0, Vec::len);
            let committed = points.by_ref().take(count).collect();
            let ticket = self.next_ticket;
            self.next_ticket += 1;
            self.restoring.insert(task, ticket);
            self.restorer.order(RestoreOrder::Restore { task, ticket, stores, committed });
        }
        Ok(())
    }

    /// Hears of the restorer; tasks whose stores are ready begin to run. Whether there was anything.
    pub(super) fn take_restored(&mut self) -> Result<bool, Failure> {
        let mut heard = false;
        while let Some(report) = self.restorer.report() {
            heard = true;
            match report {
                RestoreReport::Restored { task, ticket, stores, committed } => {
                    if self.restoring.get(&task) == Some(&ticket) {
                        self.restoring.remove(&task);
                        self.run_task(task, *stores, committed, Now::read()).map_err(Failure::Fatal)?;
                    } else {
                        // IMPORTANT: it was taken away meanwhile. If it is to come back, what is committed of its inputs may
                        // be something else by now.
                        self.restorer.order(RestoreOrder::Keep(task, Some(*stores)));
                    }
                }
                RestoreReport::Warm(tasks) => self.membership.warmed_up(&tasks),
                RestoreReport::AskLimits(inputs) => match self.membership.committed_so_far(&inputs) {
                    Ok(committed) => {
                        let limits = inputs.into_iter().zip(committed).collect();
                        self.restorer.order(RestoreOrder::Limits(limits));
                    }
                    Err(error) => tracing::debug!("could not ask how far inputs are processed: {}", error.report()),
                },
                RestoreReport::Failed(error) => return Err(Failure::Fatal(error)),
            }
        }
        Ok(heard)
    }

    fn run_task(&mut self, id: TaskId, stores: TaskStores, committed: Vec<CommitPoint>, now: Now) -> Result<()> {
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
            // Its standby may have ended for it.
            self.restorer.order(RestoreOrder::Release(task));
            self.end_stores(task, stores);
        }
        for task in self.restoring.keys().copied().filter(|task| is_meant(task)).collect::<Vec<_>>() {
            self.restoring.remove(&task);
            self.restorer.order(RestoreOrder::Release(task));
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
        if self.standbys.contains(&task) {
            return self.restorer.order(RestoreOrder::Keep(task, stores));
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

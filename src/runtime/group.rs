//! How this process takes part in its group: by a member of its own, or by the client library's, one per thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::application::Application;
use super::clock::Now;
use super::declaration::declare;
use super::fencing::Fencing;
use super::group_thread::{GroupStart, GroupThread, StreamsStart};
use super::task_layout::TaskLayout;
use crate::client::{Consumer, ConsumerSpec, Topics};
use crate::config::{GroupProtocol, HostInfo};
use crate::error::{ErrorKind, Result};
use crate::membership::Membership;
use crate::membership::classic::assignor::AssignorSettings;
use crate::membership::classic::member::{Assignor, MemberSettings};
use crate::membership::classic::plan::{CatalogTask, TaskCatalog};
use crate::membership::classic::task_assignor::{Instance, LocalState, TaskAssignor};
use crate::membership::classic::user_data::Host;
use crate::membership::streams::member::StreamsSettings;
use crate::membership::streams::protocol::{Address, Introduction};
use crate::topology::TaskId;

/// How long the group waits for members to join a rebalance. They do so at once, whatever their threads are doing.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);

/// The process's member, where the settings ask for it and the cluster can be spoken to.
///
/// # Errors
/// `Unavailable` when the system gives no more threads.
pub(super) fn start(app: &Application) -> Result<Option<GroupThread>> {
    if app.config.group_protocol == GroupProtocol::Streams {
        return GroupThread::start_streams(streams(app)?).map(Some);
    }
    plan(app)?.map(GroupThread::start).transpose()
}

/// What the process's member of a streams group is made of.
///
/// # Errors
/// `Invalid` on a cluster that has none.
fn streams(app: &Application) -> Result<StreamsStart> {
    if app.config.num_standby_replicas > 0 {
        tracing::warn!(
            "num_standby_replicas is not heeded in a streams group: set streams.num.standby.replicas of the group \
             (kafka-configs --entity-type groups)"
        );
    }
    if app.config.group_instance_id.is_some() {
        tracing::warn!("group_instance_id is not heeded in a streams group: what comes back is known by its state_dir");
    }
    let host = app.config.own_host();
    let tags = app.config.client_tags.iter().map(|(key, value)| (key.clone(), value.clone()));
    let told = Arc::clone(&app.board);
    let (lags, board, layout) = (Arc::clone(&app.lags), Arc::clone(&app.board), Arc::clone(&app.layout));
    let settings = StreamsSettings {
        member: app.process_id.clone(),
        introduction: Introduction {
            topology: declare(&app.topology, &app.config),
            rebalance_timeout: REBALANCE_TIMEOUT,
            process: app.process_id.clone(),
            endpoint: host.map(|host| (host.host, host.port)),
            tags: tags.collect(),
        },
        known: app.layout.tasks_with_inputs().into_iter().map(|(task, _)| task).collect(),
        progress: Box::new(move || lags.progress()),
        shuts_down: Box::new(move || told.shuts_down()),
        addresses: Box::new(move |addresses| board.whereabouts.set_hosts(&hosts(&addresses, &layout))),
    };
    let fencing = match app.is_exactly_once() {
        true => {
            let offsets = app.cluster.group_offsets(app.id(), &format!("{}-fencing", app.own_client_id()))?;
            Some(Fencing::start(&format!("{}-fencing", app.id()), app.process_id.clone(), app.outputs(), offsets)?)
        }
        false => None,
    };
    Ok(StreamsStart {
        fencing,
        name: format!("{}-group", app.id()),
        group: app.id().to_owned(),
        settings,
        threads: app.config.threads,
        coordinator: app.cluster.streams_coordinator(app.id(), &format!("{}-group", app.own_client_id()))?,
    })
}

/// Nothing else is known of a process than its address and what is there. Java has several members at one.
fn hosts(addresses: &[Address], layout: &TaskLayout) -> Vec<Host> {
    let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
    for address in addresses {
        let endpoint = HostInfo { host: address.host.clone(), port: address.port }.to_string();
        let host = hosts.entry(endpoint.clone()).or_insert_with(|| Host {
            process: Uuid::nil(),
            workers: 0,
            transactional_id_prefix: String::new(),
            endpoint: Some(endpoint),
            active: Vec::new(),
            standby: Vec::new(),
        });
        host.active.extend(layout.readers_of(&address.active));
        host.standby.extend(layout.readers_of(&address.standby));
    }
    hosts.into_values().collect()
}

/// What the process's member is made of.
pub(super) fn plan(app: &Application) -> Result<Option<GroupStart>> {
    if app.config.group_protocol == GroupProtocol::Range {
        if app.config.num_standby_replicas > 0 {
            tracing::warn!("there are no standbys with group_protocol Range: set it to Sticky in all instances");
        }
        return Ok(None);
    }
    let client_id = format!("{}-group", app.own_client_id());
    let coordinator = match app.cluster.coordinator(app.id(), &client_id) {
        Ok(coordinator) => coordinator,
        Err(error) if error.kind() == ErrorKind::Invalid => {
            tracing::warn!("the group is joined by the client library, with range: {}", error.report());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Ok(Some(GroupStart {
        name: format!("{}-group", app.id()),
        group: app.id().to_owned(),
        settings: MemberSettings {
            instance: app.instance_id(),
            session_timeout: app.config.session_timeout,
            rebalance_timeout: REBALANCE_TIMEOUT,
        },
        topics: app.layout.topics(),
        threads: app.config.threads,
        assignor: assignor(app),
        coordinator,
    }))
}

/// What this process tells the group, and decides as its leader.
pub(super) fn assignor(app: &Application) -> Box<dyn Assignor> {
    let process = Uuid::parse_str(&app.process_id).unwrap_or_else(|_| Uuid::new_v4());
    let found = app.directory.as_ref().and_then(|directory| directory.tasks().ok()).unwrap_or_default();
    let prefix = format!("{}-{}", app.id(), app.process_id);
    let tasks = app.layout.tasks_with_inputs().into_iter();
    let has_state = |id| app.stores_of(id).iter().any(|store| store.changelog.is_some());
    let tasks = tasks.map(|(id, inputs)| CatalogTask { id, is_stateful: has_state(id), inputs }).collect();
    let instance = Instance {
        process,
        started_ms: u64::try_from(Now::read().wall_ms).unwrap_or(0),
        endpoint: app.config.own_host().map(|host| host.to_string()),
        tags: app.config.client_tags.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        transactional_id_prefix: if app.is_exactly_once() { prefix } else { String::new() },
        catalog: TaskCatalog { topology: app.topology.fingerprint(), tasks },
        found: found.iter().filter_map(|name| task_of(name)).collect(),
    };
    let settings = AssignorSettings {
        num_standby: app.config.num_standby_replicas,
        max_warmups: app.config.max_warmup_replicas,
        acceptable_lag: app.config.acceptable_recovery_lag,
        rack_tags: app.config.rack_tags.clone(),
    };
    let (board, told) = (Arc::clone(&app.board), Arc::clone(&app.board));
    let look = move || LocalState {
        workers: board.workers(),
        is_impaired: board.is_impaired(),
        shuts_down: board.shuts_down(),
        ..board.lags.look()
    };
    Box::new(
        TaskAssignor::new(instance, settings, Box::new(look)).telling(move |hosts| told.whereabouts.set_hosts(hosts)),
    )
}

/// A thread's place in the group, and the consumer that reads what it is given.
pub(super) fn join(
    app: &Application,
    group: Option<&GroupThread>,
    index: usize,
) -> Result<(Box<dyn Membership>, Box<dyn Consumer>)> {
    let Some(group) = group else { return app.cluster.join(&app.group_spec(index)) };
    let client_id = app.client_id(index, "consumer");
    let offsets = app.cluster.group_offsets(app.id(), &client_id)?;
    let consumer =
        app.cluster.consumer(&ConsumerSpec { client_id, isolation: app.isolation(), topics: Topics::Any })?;
    Ok((group.seat(index, offsets, app.outputs(), consumer.waker()), consumer))
}

fn task_of(name: &str) -> Option<TaskId> {
    let (sub_topology, partition) = name.split_once('_')?;
    Some(TaskId { sub_topology: sub_topology.parse().ok()?, partition: partition.parse().ok()? })
}

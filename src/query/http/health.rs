//! Whether this instance lives, and whether it is ready.

use axum::response::Response;
use serde_json::{Value, json};

use super::problem::{Problem, ProblemCode};
use super::site::{Site, in_json};
use crate::runtime::State;

/// # Errors
/// `ShuttingDown`: the client has ended, or is about to.
pub(super) fn live(site: &Site) -> Result<Response, Problem> {
    let state = site.forwarder.view().state();
    match state {
        State::Created | State::Rebalancing | State::Running => Ok(in_json(&json!({ "state": state.to_string() }))),
        State::PendingShutdown | State::NotRunning | State::PendingError | State::Error => {
            Err(Problem::new(ProblemCode::ShuttingDown, format!("the state of the client is {state}")))
        }
    }
}

/// # Errors
/// `NotReady`: tasks are being assigned or restored; `ShuttingDown`.
pub(super) fn ready(site: &Site) -> Result<Response, Problem> {
    let view = site.forwarder.view();
    let state = view.state();
    let tasks = || -> Vec<Value> {
        let threads = view.threads().into_iter();
        let thread = |thread: crate::runtime::ThreadMetadata| {
            let active: Vec<String> = thread.active_tasks.iter().map(|known| known.task.to_string()).collect();
            let standby: Vec<String> = thread.standby_tasks.iter().map(ToString::to_string).collect();
            json!({ "name": &*thread.name, "running": thread.is_running, "active": active, "standby": standby })
        };
        threads.map(thread).collect()
    };
    let lags = || -> Vec<Value> {
        let lags = view.lags().into_iter();
        lags.map(|lag| json!({ "store": &*lag.store, "partition": lag.partition, "lag": lag.lag() })).collect()
    };
    match state {
        State::Running => Ok(in_json(&json!({ "state": state.to_string(), "threads": tasks(), "lags": lags() }))),
        State::Created | State::Rebalancing => {
            let behind: u64 = view.lags().iter().map(crate::runtime::StoreLag::lag).sum();
            let detail = format!("the state of the client is {state}, with {behind} records to restore");
            Err(Problem::new(ProblemCode::NotReady, detail))
        }
        State::PendingShutdown | State::NotRunning | State::PendingError | State::Error => {
            Err(Problem::new(ProblemCode::ShuttingDown, format!("the state of the client is {state}")))
        }
    }
}

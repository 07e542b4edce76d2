//! Who has what, as this instance knows it.

use axum::response::Response;
use serde_json::{Value, json};

use super::ask::Ask;
use super::problem::{Problem, ProblemCode};
use super::served::ServedStore;
use super::site::{Site, in_json};
use crate::config::HostInfo;
use crate::query::RawKind;
use crate::runtime::Owners;

/// # Errors
/// `NoSuchStore`, `NotReady`, `ShuttingDown`.
pub(super) fn of_store(site: &Site, ask: &Ask) -> Result<Response, Problem> {
    let store = site.store(ask)?;
    let placement = site.forwarder.placement(&store.name)?;
    let partitions: Vec<Value> =
        placement.partitions.iter().enumerate().map(|(number, owners)| partition(number, owners)).collect();
    Ok(in_json(&json!({
        "store": &*store.name,
        "kind": kind(site, store),
        "version": placement.version,
        "global": placement.is_global,
        "partitions": partitions,
    })))
}

/// # Errors
/// `NotReady`: it moves; those of [`of_store`].
pub(super) fn of_key(site: &Site, ask: &Ask) -> Result<Response, Problem> {
    let store = site.store(ask)?;
    let key = store.key(ask.text("key").unwrap_or_default(), ask.is_raw())?;
    let placement = site.forwarder.placement(&store.name)?;
    let own = || site.forwarder.view().own().map(ToString::to_string);
    let Some(number) = store.partition(&placement, &key)? else {
        return Ok(in_json(&json!({ "store": &*store.name, "active": own(), "standbys": [], "global": true })));
    };
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let owners = placement.partitions.get(number).ok_or_else(|| {
        let detail = format!("store {} has no partition yet: ask again", store.name);
        Problem::new(ProblemCode::NotReady, detail)
    })?;
    let mut body = partition(number, owners);
    if let Some(body) = body.as_object_mut() {
        body.insert("store".to_owned(), json!(&*store.name));
        body.insert("version".to_owned(), json!(placement.version));
        body.insert("global".to_owned(), json!(false));
    }
    Ok(in_json(&body))
}

/// What is in its rows, and so what it can be asked.
pub(super) fn kind(site: &Site, store: &ServedStore) -> Option<&'static str> {
    let store = site.forwarder.view().stores().open(&store.name).ok()?;
    Some(match store.kind() {
        RawKind::KeyValue | RawKind::TimestampedKeyValue => "key_value",
        RawKind::Window | RawKind::TimestampedWindow => "window",
        RawKind::Session => "session",
        RawKind::Versioned => "versioned",
    })
}

fn partition(number: usize, owners: &Owners) -> Value {
    let standbys: Vec<String> = owners.standbys.iter().map(HostInfo::to_string).collect();
    let active = owners.active.as_ref().map(HostInfo::to_string);
    json!({ "partition": number, "active": active, "standbys": standbys })
}

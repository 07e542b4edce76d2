//! Rows as they are written into answers.

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::ask::Ask;
use super::headers;
use super::problem::{Problem, ProblemCode};
use super::served::{Page, ServedStore};
use super::site::in_json;
use crate::query::{Position, RawRow};

/// `{"topic": {"partition": offset}}`.
pub(super) fn position_json(position: &Position) -> Value {
    let mut topics: Map<String, Value> = Map::new();
    for (at, offset) in position.iter() {
        let partitions = topics.entry(&*at.topic).or_insert_with(|| json!({}));
        if let Some(partitions) = partitions.as_object_mut() {
            partitions.insert(at.partition.to_string(), json!(offset));
        }
    }
    Value::Object(topics)
}

/// # Errors
/// Bytes that the serde refuses.
pub(super) fn row_json(store: &ServedStore, row: &RawRow, is_raw: bool) -> Result<Map<String, Value>, Problem> {
    let mut body = Map::new();
    body.insert("key".to_owned(), store.key_text(&row.key, is_raw)?);
    body.insert("value".to_owned(), store.value_text(&row.value, is_raw)?);
    let (start, end) = (row.window.map(|window| window.start), row.window.map(|window| window.end));
    let times = [("timestamp", row.timestamp), ("start", start), ("end", end), ("valid_to", row.valid_to)];
    for (name, time) in times {
        if let Some(time) = time {
            body.insert(name.to_owned(), json!(time));
        }
    }
    Ok(body)
}

/// What every answer says of the state that it is from.
pub(super) fn mark(answer: &mut Response, position: &Position, lag: Option<u64>) {
    if position.iter().next().is_some() {
        headers::set(answer.headers_mut(), headers::POSITION, &position.to_string());
    }
    if let Some(lag) = lag {
        headers::set(answer.headers_mut(), headers::STALE, &lag.to_string());
    }
}

/// The row of a key.
///
/// # Errors
/// `NoSuchKey`, with the position; `UnreadableRow`.
pub(super) fn one(store: &ServedStore, ask: &Ask, partition: Option<i32>, page: &Page) -> Result<Response, Problem> {
    let Some(row) = page.rows.first() else {
        let problem = Problem::new(ProblemCode::NoSuchKey, format!("store {} has no row of the key", store.name));
        let problem = problem.with_header(headers::POSITION, &page.position.to_string());
        return Err(match page.lag {
            Some(lag) => problem.with_header(headers::STALE, &lag.to_string()),
            None => problem,
        });
    };
    let mut answer = if ask.is_octets {
        let mut answer = Response::new(Body::from(row.value.clone()));
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        answer
    } else {
        let mut body = row_json(store, row, ask.is_raw())?;
        about(&mut body, store, page);
        body.insert("partition".to_owned(), json!(partition));
        in_json(&Value::Object(body))
    };
    mark(&mut answer, &page.position, page.lag);
    Ok(answer)
}

/// A page of rows, and what asks for the next one.
///
/// # Errors
/// `UnreadableRow`.
pub(super) fn many(
    store: &ServedStore,
    is_raw: bool,
    page: &Page,
    next: Option<&str>,
    missing: &[i32],
) -> Result<Response, Problem> {
    let rows = page.rows.iter().map(|row| row_json(store, row, is_raw).map(Value::Object));
    let mut body = Map::new();
    body.insert("rows".to_owned(), Value::Array(rows.collect::<Result<_, _>>()?));
    body.insert("more".to_owned(), json!(page.more));
    body.insert("next".to_owned(), json!(next));
    body.insert("missing".to_owned(), json!(missing));
    about(&mut body, store, page);
    let mut answer = in_json(&Value::Object(body));
    mark(&mut answer, &page.position, page.lag);
    Ok(answer)
}

fn about(body: &mut Map<String, Value>, store: &ServedStore, page: &Page) {
    body.insert("store".to_owned(), json!(&*store.name));
    body.insert("position".to_owned(), position_json(&page.position));
    body.insert("stale".to_owned(), json!(page.lag.is_some()));
    body.insert("lag".to_owned(), json!(page.lag.unwrap_or(0)));
}

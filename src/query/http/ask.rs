//! What a request asks for, read once and refused where it cannot be read.

use std::collections::BTreeMap;

use axum::RequestExt;
use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, Query, RawPathParams};
use axum::http::{HeaderMap, Request, header};
use tokio::time::Instant;

use super::forwarder::Forwarder;
use super::headers;
use super::problem::{Problem, ProblemCode};
use super::routes::{ParamKind, Place, Route};
use crate::query::Position;

/// How the bytes of rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Base64,
}

/// Whether a copy may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Staleness {
    /// When the owner does not, and marked.
    Hedge,
    Never,
    /// At once, if it is so many records behind at most.
    Within(u64),
}

#[derive(Debug)]
pub(super) struct Ask {
    params: BTreeMap<String, String>,
    /// As it goes on to others: the path that the client asked for, and all headers.
    pub request: Request<Bytes>,
    pub format: Format,
    /// The answer is the value and nothing else.
    pub is_octets: bool,
    pub position: Position,
    pub staleness: Staleness,
    pub deadline: Instant,
    /// Another instance has sent it here.
    pub is_sent: bool,
}

impl Ask {
    /// # Errors
    /// `MalformedRequest`, saying what; `KeyTooLong`.
    pub(super) async fn read(route: &Route, forwarder: &Forwarder, mut request: Request<Body>) -> Result<Ask, Problem> {
        let mut params = BTreeMap::new();
        let in_path: RawPathParams = request
            .extract_parts()
            .await
            .map_err(|_| Problem::malformed("the path is no UTF-8 when its signs are decoded"))?;
        for (name, value) in &in_path {
            params.insert(name.to_owned(), value.to_owned());
        }
        let Query(in_query): Query<Vec<(String, String)>> =
            request.extract_parts().await.map_err(|_| Problem::malformed("the query of the address cannot be read"))?;
        for (name, value) in in_query {
            let known = |place| matches!(place, Place::Query | Place::Required);
            if !route.params().any(|param| param.name == name && known(param.place)) {
                return Err(Problem::malformed(format!("there is no parameter \"{name}\": see openapi.json")));
            }
            if params.insert(name.clone(), value).is_some() {
                return Err(Problem::malformed(format!("parameter \"{name}\" is there twice")));
            }
        }
        let key_bytes_max = forwarder.limits().key_bytes_max;
        for (name, value) in &params {
            if value.len() > key_bytes_max {
                let detail = format!("\"{name}\" has {} bytes, and {key_bytes_max} are taken", value.len());
                return Err(Problem::new(ProblemCode::KeyTooLong, detail));
            }
        }
        for param in route.params() {
            let value = params.get(param.name);
            if param.place == Place::Required && value.is_none() {
                return Err(Problem::malformed(format!("parameter \"{}\" is missing", param.name)));
            }
            let is_fine = value.is_none_or(|value| match param.kind {
                // Whoever reads them says better what is wrong with their form.
                ParamKind::Text | ParamKind::Form(_) => true,
                ParamKind::Integer => value.parse::<i64>().is_ok(),
                ParamKind::AtLeast(least) => value.parse().is_ok_and(|number: i64| number >= least),
                ParamKind::Flag => matches!(value.as_str(), "true" | "false"),
                ParamKind::Word(words) => words.contains(&value.as_str()),
            });
            if !is_fine {
                return Err(Problem::malformed(format!("parameter \"{}\" is none of what it may be", param.name)));
            }
        }
        let original: Result<OriginalUri, _> = request.extract_parts().await;
        let mut sent = Request::new(Bytes::new());
        *sent.method_mut() = request.method().clone();
        *sent.uri_mut() = original.map_or_else(|_| request.uri().clone(), |OriginalUri(uri)| uri);
        *sent.headers_mut() = std::mem::take(request.headers_mut());
        let fields = sent.headers();
        let in_header = |name: &str| -> Result<Option<&str>, Problem> {
            let read = fields.get(name).map(|value| value.to_str());
            read.transpose().map_err(|_| Problem::malformed(format!("header {name} is no text")))
        };
        let position = match params.get("position").map(String::as_str) {
            None => in_header(headers::POSITION.as_str())?,
            some => some,
        };
        let position: Position = position.unwrap_or_default().parse()?;
        let stale = match in_header(headers::STALE.as_str())? {
            None => params.get("stale").map(String::as_str),
            some => some,
        };
        let is_octets = fields.get(header::ACCEPT).is_some_and(|accept| accept == "application/octet-stream");
        let is_sent = fields.contains_key(headers::HOP);
        let format =
            if params.get("format").is_some_and(|format| format == "base64") { Format::Base64 } else { Format::Json };
        let staleness = staleness(stale)?;
        let deadline = deadline(&params, forwarder, fields)?;
        Ok(Ask { params, format, is_octets, position, staleness, deadline, is_sent, request: sent })
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.params.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    pub(super) fn is_raw(&self) -> bool {
        self.format == Format::Base64
    }

    /// The rows of a page.
    ///
    /// # Errors
    /// `MalformedRequest`: none.
    pub(super) fn rows_max(&self, forwarder: &Forwarder) -> Result<usize, Problem> {
        let most = forwarder.limits().page_rows_max;
        match self.number("limit").map(usize::try_from) {
            None => Ok(most),
            Some(Ok(rows)) if rows > 0 => Ok(rows.min(most)),
            Some(_) => Err(Problem::malformed("parameter \"limit\" is at least 1")),
        }
    }
}

fn staleness(said: Option<&str>) -> Result<Staleness, Problem> {
    match said {
        None => Ok(Staleness::Hedge),
        Some("false") => Ok(Staleness::Never),
        Some("true") => Ok(Staleness::Within(u64::MAX)),
        Some(number) => number
            .parse()
            .map(Staleness::Within)
            .map_err(|_| Problem::malformed("parameter \"stale\" is true, false, or a number of records")),
    }
}

fn deadline(params: &BTreeMap<String, String>, forwarder: &Forwarder, fields: &HeaderMap) -> Result<Instant, Problem> {
    // An instance that sends a request on says in the header what is left of its time.
    let Some(said) = params.get("timeout_ms").filter(|_| !fields.contains_key(headers::HOP)) else {
        return forwarder.deadline(fields);
    };
    let mut field = HeaderMap::new();
    headers::set(&mut field, headers::TIMEOUT_MS, said);
    forwarder.deadline(&field)
}

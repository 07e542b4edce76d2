//! The headers that are ours, and those that end at each hop.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// Of a request: the state has to be there; of an answer: it is at least there.
pub(super) const POSITION: HeaderName = HeaderName::from_static("x-kstreams-position");
/// How long the request may take, in ms. Not a time of day: clocks of machines differ.
pub(super) const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-kstreams-timeout-ms");
/// Sent on by an instance, which it names: it is not sent on again.
pub(super) const HOP: HeaderName = HeaderName::from_static("x-kstreams-hop");
/// Of an answer from a copy: how many records it was behind.
pub(super) const STALE: HeaderName = HeaderName::from_static("x-kstreams-stale");
/// The code of a refusal.
pub(super) const PROBLEM: HeaderName = HeaderName::from_static("x-kstreams-problem");
/// How often the routing table of the instance that answers has changed.
pub(super) const ROUTING: HeaderName = HeaderName::from_static("x-kstreams-routing");
/// Who has answered.
pub(super) const SERVED_BY: HeaderName = HeaderName::from_static("x-kstreams-served-by");

/// RFC 9110, 7.6.1, and what the next connection says for itself.
const OF_ONE_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
];

/// What goes on with a request or an answer.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in OF_ONE_HOP.iter().chain(&named) {
        kept.remove(name);
    }
    kept
}

/// Left out if it has signs that headers may not have.
pub(super) fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_one_connection_ends_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("connection", "close, x-own"), ("x-own", "1"), ("authorization", "Bearer a")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(end_to_end(&headers).keys().collect::<Vec<_>>(), ["authorization"]);
    }
}

//! The routes: one table, from which both the router and its description are made.

use super::problem::ProblemCode;

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Stores,
    Key,
    Range,
    Prefix,
    Windows,
    Sessions,
    Metadata,
    KeyMetadata,
    Live,
    Ready,
    Description,
}

/// A path and what it takes.
pub(super) struct Route {
    pub endpoint: Endpoint,
    pub path: &'static str,
    pub summary: &'static str,
    pub params: &'static [&'static [Param]],
    pub problems: &'static [&'static [ProblemCode]],
}

impl Route {
    pub(super) fn params(&self) -> impl Iterator<Item = &'static Param> {
        self.params.iter().copied().flatten()
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = ProblemCode> {
        self.problems.iter().copied().flatten().copied()
    }
}

pub(super) struct Param {
    pub name: &'static str,
    pub place: Place,
    pub kind: ParamKind,
    pub about: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    /// Of the query, and there has to be one.
    Required,
    Header,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParamKind {
    Text,
    /// Text of this form, as a pattern of ECMA-262.
    Form(&'static str),
    Integer,
    AtLeast(i64),
    Flag,
    /// One of these words.
    Word(&'static [&'static str]),
}

const fn param(name: &'static str, place: Place, kind: ParamKind, about: &'static str) -> Param {
    Param { name, place, kind, about }
}

const STORE: Param = param("store", Place::Path, ParamKind::Text, "The name of a store that is served.");
const KEY: Param = param(
    "key",
    Place::Path,
    ParamKind::Text,
    "The key: plain text if its type is read from a JSON string, otherwise JSON; base64 of URLs with format=base64.",
);
const FORMAT: Param = param(
    "format",
    Place::Query,
    ParamKind::Word(&["json", "base64"]),
    "How keys and values are written: through the serdes of the store, or as their bytes.",
);
const IS_POSITION: ParamKind =
    ParamKind::Form("^([A-Za-z0-9._-]+:[0-9]{1,9}:[0-9]{1,18}(,[A-Za-z0-9._-]+:[0-9]{1,9}:[0-9]{1,18})*)?$");
const POSITION: Param = param(
    "position",
    Place::Query,
    IS_POSITION,
    "Answers only from a state that has these records: topic:partition:offset, with commas between.",
);
const STALE: Param = param(
    "stale",
    Place::Query,
    ParamKind::Form("^(true|false|[0-9]{1,18})$"),
    "true: also copies; a number: also copies that are at most so many records behind; false: never a copy.",
);
const TIMEOUT: Param = param(
    "timeout_ms",
    Place::Query,
    ParamKind::AtLeast(0),
    "How long the answer may take, within the server's bounds.",
);
const LIMIT: Param = param("limit", Place::Query, ParamKind::AtLeast(1), "Rows of a page, within the server's bounds.");
const PAGE: Param = param(
    "page",
    Place::Query,
    ParamKind::Text,
    "From the `next` of the page before, which is a parameter of the next request.",
);
const REVERSE: Param = param("reverse", Place::Query, ParamKind::Flag, "Last row first.");
const PARTIAL: Param =
    param("partial", Place::Query, ParamKind::Flag, "Rows of those partitions that answer, and the others named.");
const TIMEOUT_HEADER: Param =
    param("x-kstreams-timeout-ms", Place::Header, ParamKind::AtLeast(0), "As the parameter timeout_ms.");
const POSITION_HEADER: Param = param("x-kstreams-position", Place::Header, IS_POSITION, "As the parameter position.");

/// What every read takes, wherever its rows are.
const READ: &[Param] = &[FORMAT, POSITION, STALE, TIMEOUT, POSITION_HEADER, TIMEOUT_HEADER];

/// What rows of all partitions take besides.
const PAGED: &[Param] = &[REVERSE, LIMIT, PAGE, PARTIAL];

/// Of everything that is looked at before the route.
const GUARDED: &[ProblemCode] =
    &[ProblemCode::MalformedRequest, ProblemCode::Unauthorized, ProblemCode::Forbidden, ProblemCode::Overloaded];

const OF_STORES: &[ProblemCode] = &[
    ProblemCode::NoSuchStore,
    ProblemCode::KeyTooLong,
    ProblemCode::NotReady,
    ProblemCode::ShuttingDown,
    ProblemCode::Internal,
];

const OF_ROWS: &[ProblemCode] = &[ProblemCode::WrongKind, ProblemCode::DeadlineExceeded, ProblemCode::UnreadableRow];

/// Of rows that one instance has.
const OF_OWNERS: &[ProblemCode] = &[ProblemCode::NotOwner, ProblemCode::BehindPosition, ProblemCode::Unreachable];

/// All of them.
pub(super) const ROUTES: &[Route] = &[
    Route {
        endpoint: Endpoint::Stores,
        path: "/v1/stores",
        summary: "The stores that are served, with their kinds.",
        params: &[],
        problems: &[GUARDED],
    },
    Route {
        endpoint: Endpoint::Key,
        path: "/v1/stores/{store}/keys/{key}",
        summary: "The row of a key. With `Accept: application/octet-stream` the answer is the value's bytes.",
        params: &[
            &[
                STORE,
                KEY,
                param(
                    "as_of",
                    Place::Query,
                    ParamKind::Integer,
                    "Of a versioned store: the version of this time, in ms.",
                ),
            ],
            READ,
        ],
        problems: &[GUARDED, OF_STORES, OF_ROWS, OF_OWNERS, &[ProblemCode::NoSuchKey]],
    },
    Route {
        endpoint: Endpoint::Range,
        path: "/v1/stores/{store}/range",
        summary: "Rows of a key-value store, of all partitions, in the order of the keys' bytes.",
        params: &[
            &[
                STORE,
                param("from", Place::Query, ParamKind::Text, "The first key."),
                param("to", Place::Query, ParamKind::Text, "The last key."),
            ],
            PAGED,
            READ,
        ],
        problems: &[GUARDED, OF_STORES, OF_ROWS, &[ProblemCode::Incomplete]],
    },
    Route {
        endpoint: Endpoint::Prefix,
        path: "/v1/stores/{store}/prefix",
        summary: "Rows of a key-value store whose keys' bytes begin with those of a text.",
        params: &[
            &[STORE, param("prefix", Place::Required, ParamKind::Text, "The text, or bytes with format=base64.")],
            PAGED,
            READ,
        ],
        problems: &[GUARDED, OF_STORES, OF_ROWS, &[ProblemCode::Incomplete]],
    },
    Route {
        endpoint: Endpoint::Windows,
        path: "/v1/stores/{store}/windows/{key}",
        summary: "The windows of a key, by their starts.",
        params: &[
            &[
                STORE,
                KEY,
                param("from", Place::Query, ParamKind::Integer, "The first start, in ms."),
                param("to", Place::Query, ParamKind::Integer, "The last start, in ms."),
                REVERSE,
                LIMIT,
            ],
            READ,
        ],
        problems: &[GUARDED, OF_STORES, OF_ROWS, OF_OWNERS],
    },
    Route {
        endpoint: Endpoint::Sessions,
        path: "/v1/stores/{store}/sessions/{key}",
        summary: "The sessions of a key, by their ends.",
        params: &[
            &[
                STORE,
                KEY,
                param("from", Place::Query, ParamKind::Integer, "Sessions that end then or later, in ms."),
                param("to", Place::Query, ParamKind::Integer, "Sessions that begin then or earlier, in ms."),
                LIMIT,
            ],
            READ,
        ],
        problems: &[GUARDED, OF_STORES, OF_ROWS, OF_OWNERS],
    },
    Route {
        endpoint: Endpoint::Metadata,
        path: "/v1/metadata/{store}",
        summary: "Who has the partitions of a store, as this instance knows it.",
        params: &[&[STORE]],
        problems: &[GUARDED, OF_STORES],
    },
    Route {
        endpoint: Endpoint::KeyMetadata,
        path: "/v1/metadata/{store}/keys/{key}",
        summary: "Who has the row of a key, as this instance knows it.",
        params: &[&[STORE, KEY, FORMAT]],
        problems: &[GUARDED, OF_STORES],
    },
    Route {
        endpoint: Endpoint::Live,
        path: "/v1/live",
        summary: "200 while the client can go on; without authentication.",
        params: &[],
        problems: &[&[ProblemCode::MalformedRequest, ProblemCode::ShuttingDown]],
    },
    Route {
        endpoint: Endpoint::Ready,
        path: "/v1/ready",
        summary: "200 when every task of this instance is at work, with its tasks and lags; without authentication.",
        params: &[],
        problems: &[&[ProblemCode::MalformedRequest, ProblemCode::NotReady, ProblemCode::ShuttingDown]],
    },
    Route {
        endpoint: Endpoint::Description,
        path: "/v1/openapi.json",
        summary: "This description.",
        params: &[],
        problems: &[GUARDED],
    },
];

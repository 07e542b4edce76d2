//! The bounds of a query server.

use std::time::Duration;

/// What a query server takes and holds at most. Every queue, page and wait of it has its bound here.
///
/// ```
/// use std::time::Duration;
///
/// let limits = kstreams::HttpLimits::default().requests_max(64).timeout_max(Duration::from_secs(10));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct HttpLimits {
    pub(super) key_bytes_max: usize,
    pub(super) page_rows_max: usize,
    pub(super) page_bytes_max: usize,
    pub(super) answer_bytes_max: usize,
    pub(super) requests_max: usize,
    pub(super) connections_max: usize,
    pub(super) timeout: Duration,
    pub(super) timeout_max: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) hedge_after: Option<Duration>,
    pub(super) hedge_lag_max: u64,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            key_bytes_max: 4 << 10,
            page_rows_max: 1_000,
            page_bytes_max: 4 << 20,
            answer_bytes_max: 16 << 20,
            requests_max: 512,
            connections_max: 4_096,
            timeout: Duration::from_secs(5),
            timeout_max: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(20),
            hedge_after: Some(Duration::from_millis(300)),
            hedge_lag_max: 10_000,
        }
    }
}

impl HttpLimits {
    /// Bytes of a key, as they are in the path or a parameter: 4 KiB.
    pub fn key_bytes_max(self, bytes: usize) -> HttpLimits {
        HttpLimits { key_bytes_max: bytes, ..self }
    }

    /// Rows of a page: 1,000, and at least one.
    pub fn page_rows_max(self, rows: usize) -> HttpLimits {
        HttpLimits { page_rows_max: rows.max(1), ..self }
    }

    /// Bytes of keys and values that end a page: 4 MiB. A row that is larger is a page of its own.
    pub fn page_bytes_max(self, bytes: usize) -> HttpLimits {
        HttpLimits { page_bytes_max: bytes, ..self }
    }

    /// Bytes of an answer that is taken from another instance: 16 MiB.
    pub fn answer_bytes_max(self, bytes: usize) -> HttpLimits {
        HttpLimits { answer_bytes_max: bytes, ..self }
    }

    /// Requests at once: 512 of clients, and as many that other instances send on, so that instances whose clients keep
    /// them busy still answer each other. Those above are refused (`overloaded`).
    pub fn requests_max(self, requests: usize) -> HttpLimits {
        HttpLimits { requests_max: requests.max(1), ..self }
    }

    /// Connections at once, idle ones too: 4,096, of some 10 KiB each. Those above are closed at once.
    pub fn connections_max(self, connections: usize) -> HttpLimits {
        HttpLimits { connections_max: connections.max(1), ..self }
    }

    /// How long a request may take that does not say so: 5 s.
    pub fn timeout(self, timeout: Duration) -> HttpLimits {
        HttpLimits { timeout, ..self }
    }

    /// How long it may take whatever it says: 30 s.
    pub fn timeout_max(self, timeout: Duration) -> HttpLimits {
        HttpLimits { timeout_max: timeout, ..self }
    }

    /// How long a connection may take for the head of its next request, and may take no byte of an answer: 20 s.
    pub fn idle_timeout(self, timeout: Duration) -> HttpLimits {
        HttpLimits { idle_timeout: timeout, ..self }
    }

    /// After how long a copy is asked when the owner of a key does not answer: 300 ms. Its answer says that it is stale.
    /// None: never, unless a request wants it.
    pub fn hedge_after(self, after: Option<Duration>) -> HttpLimits {
        HttpLimits { hedge_after: after, ..self }
    }

    /// How many records such a copy may be behind, as far as that is known: 10,000.
    pub fn hedge_lag_max(self, records: u64) -> HttpLimits {
        HttpLimits { hedge_lag_max: records, ..self }
    }
}

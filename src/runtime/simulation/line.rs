//! What is between a process and the coordinator of its group: two connections, on which things get lost and come late.

use std::sync::Arc;
use std::time::Duration;

use super::Shared;
use crate::client::Cluster;
use crate::membership::classic::protocol::{GroupAnswer, GroupCoordinator, GroupRequest, RequestKind};

/// How late an answer, or the end of a connection, may be heard of.
const LATE_MS: u64 = 400;

pub(super) struct Line {
    shared: Arc<Shared>,
    process: String,
    /// Joins and syncs.
    rounds: Connection,
    /// Heartbeats and farewells.
    pulse: Connection,
    /// What is on its way back, and when it arrives.
    late: Vec<(i64, GroupAnswer)>,
}

struct Connection {
    coordinator: Box<dyn GroupCoordinator>,
    asked: Option<RequestKind>,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>, process: String) -> Line {
        let (rounds, pulse) = (connect(&shared, &process), connect(&shared, &process));
        Line { shared, process, rounds, pulse, late: Vec::new() }
    }

    fn is_rounds(kind: RequestKind) -> bool {
        matches!(kind, RequestKind::Join | RequestKind::Sync)
    }

    fn connection(&mut self, kind: RequestKind) -> &mut Connection {
        if Line::is_rounds(kind) { &mut self.rounds } else { &mut self.pulse }
    }

    fn arrives_at(&self) -> i64 {
        let now = self.shared.cluster.now().unwrap();
        now + i64::try_from(self.shared.below(LATE_MS)).unwrap()
    }

    /// The answer to what is under way is never heard of, whether it was done or not.
    fn break_connection(&mut self, kind: RequestKind) {
        let again = connect(&self.shared, &self.process);
        let broken = std::mem::replace(self.connection(kind), again);
        if let Some(asked) = broken.asked {
            let at = self.arrives_at();
            self.late.push((at, GroupAnswer::Disconnected(asked)));
        }
    }
}

impl GroupCoordinator for Line {
    fn send(&mut self, request: GroupRequest) {
        let kind = request.kind();
        let (is_stormy, is_cut_off) = (self.shared.is_stormy(), self.shared.is_cut_off(&self.process));
        let is_lost = is_stormy && (is_cut_off || self.shared.one_in(20));
        let is_unanswered = is_stormy && self.shared.one_in(20);
        let connection = self.connection(kind);
        connection.asked = Some(kind);
        if !is_lost {
            connection.coordinator.send(request);
        }
        if is_lost || is_unanswered {
            self.break_connection(kind);
        }
    }

    fn poll(&mut self) -> Option<GroupAnswer> {
        for kind in [RequestKind::Join, RequestKind::Heartbeat] {
            while let Some(answer) = self.connection(kind).coordinator.poll() {
                self.connection(kind).asked = None;
                let is_late = self.shared.is_stormy() && self.shared.one_in(4);
                let at = if is_late { self.arrives_at() } else { i64::MIN };
                self.late.push((at, answer));
            }
        }
        let now = self.shared.cluster.now().unwrap();
        let next = self.late.iter().position(|(at, _)| *at <= now)?;
        Some(self.late.remove(next).1)
    }

    fn wait(&mut self, _timeout: Duration) {}

    fn waker(&self) -> Arc<dyn Fn() + Send + Sync> {
        Arc::new(|| {})
    }
}

fn connect(shared: &Shared, process: &str) -> Connection {
    Connection { coordinator: shared.cluster.coordinator("app", &format!("{process}-group")).unwrap(), asked: None }
}

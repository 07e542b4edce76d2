//! What is between a process and the coordinator of its group: two connections, on which things get lost and come late.

use std::sync::Arc;
use std::time::Duration;

use super::flaw::Flaw;
use super::shared::Shared;
use crate::client::Cluster;
use crate::membership::classic::protocol::{GroupAnswer, GroupCoordinator, GroupRequest, RequestKind};
use crate::membership::classic::user_data::Subscription;

/// How late an answer, or the end of a connection, may be heard of.
const LATE_MS: u64 = 400;

/// How late a request may arrive that was sent twice.
const TWICE_MS: u64 = 5_000;

/// What a process tells others of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Build {
    Ours,
    /// A later one: its user data has a version and fields that we do not know.
    Later,
}

pub(super) struct Line {
    shared: Arc<Shared>,
    process: String,
    /// Joins and syncs.
    rounds: Connection,
    /// Heartbeats and farewells.
    pulse: Connection,
    /// What is on its way back, and when it arrives.
    late: Vec<(i64, GroupAnswer)>,
    /// Requests that arrive a second time, and when.
    twice: Vec<(i64, GroupRequest)>,
    build: Build,
    /// The broker that these connections lead to.
    broker: u64,
}

struct Connection {
    coordinator: Box<dyn GroupCoordinator>,
    asked: Option<RequestKind>,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>, process: String, build: Build) -> Line {
        let (rounds, pulse) = (connect(&shared, &process), connect(&shared, &process));
        let (late, twice, broker) = (Vec::new(), Vec::new(), shared.coordinators());
        Line { shared, process, rounds, pulse, late, twice, build, broker }
    }

    /// The request as this build writes it.
    fn written(&self, mut request: GroupRequest) -> GroupRequest {
        if let GroupRequest::Join { user_data, .. } = &mut request
            && self.shared.is_flawed(Flaw::ClaimsNothing)
        {
            let mut subscription = Subscription::decode(user_data).unwrap();
            (subscription.active, subscription.promised) = (Vec::new(), Vec::new());
            *user_data = subscription.encode();
        }
        if self.build == Build::Later {
            self.shared.note("a later build takes part");
            match &mut request {
                GroupRequest::Join { user_data, .. } => written_later(user_data),
                GroupRequest::Sync { assignments, .. } => {
                    assignments.iter_mut().for_each(|assignment| written_later(&mut assignment.user_data));
                }
                GroupRequest::Heartbeat { .. } | GroupRequest::Leave { .. } => {}
            }
        }
        request
    }

    /// Who moved away does not answer any more.
    fn notice_the_move(&mut self) {
        let broker = self.shared.coordinators();
        if std::mem::replace(&mut self.broker, broker) != broker {
            self.break_connection(RequestKind::Join);
            self.break_connection(RequestKind::Heartbeat);
        }
    }

    fn let_arrive_again(&mut self) {
        let now = self.shared.now();
        for (_, request) in self.twice.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            self.shared.note("a request arrives twice");
            if matches!(request, GroupRequest::Join { .. }) {
                // The name of a member may be another one's from now on.
                self.shared.may_work_twice();
            }
            connect(&self.shared, &self.process).coordinator.send(request);
        }
    }

    fn is_rounds(kind: RequestKind) -> bool {
        matches!(kind, RequestKind::Join | RequestKind::Sync)
    }

    fn connection(&mut self, kind: RequestKind) -> &mut Connection {
        if Line::is_rounds(kind) { &mut self.rounds } else { &mut self.pulse }
    }

    fn arrives_at(&self) -> i64 {
        self.shared.after(Duration::from_millis(self.shared.below(LATE_MS)))
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
        self.notice_the_move();
        let (kind, request) = (request.kind(), self.written(request));
        let (is_stormy, is_cut_off) = (self.shared.is_stormy(), self.shared.is_cut_off(&self.process));
        let is_lost = is_stormy && (is_cut_off || self.shared.one_in(20));
        let is_unanswered = is_stormy && self.shared.one_in(20);
        if is_stormy && self.shared.one_in(40) {
            let at = self.shared.after(Duration::from_millis(self.shared.below(TWICE_MS)));
            self.twice.push((at, request.clone()));
        }
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
        self.notice_the_move();
        self.let_arrive_again();
        for kind in [RequestKind::Join, RequestKind::Heartbeat] {
            while let Some(answer) = self.connection(kind).coordinator.poll() {
                self.connection(kind).asked = None;
                let is_late = self.shared.is_stormy() && self.shared.one_in(4);
                let at = if is_late { self.arrives_at() } else { i64::MIN };
                self.late.push((at, answer));
            }
        }
        let now = self.shared.now();
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

/// As a build writes it that is one version ahead, and can be read by ours.
fn written_later(user_data: &mut Vec<u8>) {
    if let Some(version) = user_data.first_mut() {
        *version += 1;
        user_data.extend_from_slice(b"what we know nothing of");
    }
}

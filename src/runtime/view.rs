//! What a client shows to those that serve its state: theirs to keep when the client has been given away to run.

use std::fmt;
use std::sync::Arc;

use super::board::Board;
use super::kafka_streams::KafkaStreams;
use super::lags::StoreLag;
use super::metadata::{Placement, ThreadMetadata};
use super::state::State;
use super::status::Status;
use crate::config::HostInfo;
use crate::error::{Error, ErrorKind, Result};
use crate::query::RawStores;

/// Of one client; a clone is the same.
#[derive(Clone)]
pub(crate) struct StreamsView {
    stores: RawStores,
    status: Arc<Status>,
    board: Arc<Board>,
    own: Option<HostInfo>,
}

impl StreamsView {
    pub(crate) fn state(&self) -> State {
        self.status.current()
    }

    /// Where this instance says it can be asked.
    pub(crate) fn own(&self) -> Option<&HostInfo> {
        self.own.as_ref()
    }

    /// What this instance has.
    pub(crate) fn stores(&self) -> &RawStores {
        &self.stores
    }

    /// # Errors
    /// `Invalid`: there is no such store. `Unavailable`: the client has not started.
    pub(crate) fn placement(&self, store: &str) -> Result<Placement> {
        if self.state() == State::Created {
            let context = format!("store {store} cannot be asked before the client is started");
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        self.board.whereabouts.placement(store)
    }

    pub(crate) fn lags(&self) -> Vec<StoreLag> {
        self.board.lags.of_stores()
    }

    pub(crate) fn threads(&self) -> Vec<ThreadMetadata> {
        self.board.threads().values().cloned().collect()
    }
}

impl KafkaStreams {
    pub(crate) fn view(&self) -> StreamsView {
        let own = self.config.own_host();
        let (status, board) = (Arc::clone(&self.status), Arc::clone(&self.board));
        StreamsView { stores: self.raw_stores(), status, board, own }
    }
}

impl fmt::Debug for StreamsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamsView").field("state", &self.state()).finish_non_exhaustive()
    }
}

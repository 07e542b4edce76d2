//! A process that is killed under a driver, and what it finds when it starts again. For tests of this crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{TestRecord, TopologyTestDriver};
use crate::config::{Config, Guarantee};
use crate::error::{Error, ErrorKind, Result};
use crate::record::RecordBatch;
use crate::state::{
    CacheBudget, ChangelogIdentity, GlobalStores, LogState, StateDirectory, StateHome, StateMemory, StateMemoryLimits,
    StoreSpec, StoreToOpen, TaskStores,
};
use crate::task::{CommitPoint, Task};
use crate::topology::{TaskId, Topology, changelog_topic};

/// Where the stores of a driver are.
pub(super) enum Home {
    Memory {
        cache_bytes: usize,
    },
    Disk {
        cache_bytes: usize,
        /// Holds a folder for every life of the process.
        folder: PathBuf,
        life: u32,
    },
}

/// The name of a store and its rows.
type StoreRows = (String, Vec<(Vec<u8>, Vec<u8>)>);

/// The only task of a driver.
const TASK: TaskId = TaskId { sub_topology: 0, partition: 0 };

impl Home {
    pub(super) fn open(&self, application_id: &str, specs: &[Arc<StoreSpec>]) -> Result<TaskStores> {
        let (cache_bytes, folder, life) = match self {
            Home::Memory { cache_bytes } => return Ok(TaskStores::in_memory(specs, *cache_bytes)),
            Home::Disk { cache_bytes, folder, life } => (cache_bytes, folder, life),
        };
        let home = StateHome {
            directory: Some(StateDirectory::open(&folder.join(life.to_string()), application_id)?),
            memory: StateMemory::new(StateMemoryLimits::default()),
            cache: CacheBudget::new(*cache_bytes),
        };
        let changelog = |spec: &Arc<StoreSpec>| ChangelogIdentity {
            topic: changelog_topic(application_id, &spec.name),
            topic_id: None,
            partition: 0,
        };
        let stores = specs.iter().map(|spec| {
            let changelog = spec.is_logged().then(|| changelog(spec));
            StoreToOpen { spec: Arc::clone(spec), changelog }
        });
        TaskStores::open(&home, TASK, &stores.collect::<Vec<_>>(), 1)
    }

    /// What files there are at this moment is what the next life finds.
    fn die(&mut self) -> Result<()> {
        let Home::Disk { folder, life, .. } = self else { return Ok(()) };
        let (old, new) = (folder.join(life.to_string()), folder.join((*life + 1).to_string()));
        *life += 1;
        copy(&old, &new).map_err(|error| {
            Error::new(ErrorKind::Unavailable, format!("could not copy {}", old.display())).with_source(error)
        })
    }
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, to) = (entry?, to.to_owned());
        let to = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => drop(fs::copy(entry.path(), to)?),
        }
    }
    Ok(())
}

impl TopologyTestDriver {
    /// As [`with_config`](TopologyTestDriver::with_config), with the stores on disk that an application would have there.
    ///
    /// # Errors
    /// As `with_config`, and a folder that cannot be written.
    #[doc(hidden)]
    pub fn with_state_in(folder: &Path, topology: &Topology, config: &Config) -> Result<TopologyTestDriver> {
        let home = Home::Disk { cache_bytes: config.cache_bytes, folder: folder.to_owned(), life: 0 };
        TopologyTestDriver::start(topology, config, home, 0)
    }

    /// Ends the task as a kill of its process does, and makes it again over stores that are restored from their
    /// changelogs. What was piped since the [committed](TopologyTestDriver::committed) offsets is to be piped again. Global
    /// stores, which are another thread's, stay as they are.
    ///
    /// Exactly once: the transaction that was open is aborted. At least once: what was written stays.
    ///
    /// # Errors
    /// What the maker of a processor returned, and stores that cannot be read.
    #[doc(hidden)]
    pub fn crash(&mut self, guarantee: Guarantee) -> Result<()> {
        if guarantee == Guarantee::ExactlyOnce {
            self.produced.truncate(self.produced_committed);
        }
        self.produced_committed = self.produced.all().len();
        let specs: Vec<_> = self.task.stores()?.specs().map(Arc::clone).collect();
        self.home.die()?;
        let mut stores = self.home.open(&self.application_id, &specs)?;
        self.restore(&mut stores)?;
        let mut globals = GlobalStores::default();
        for global in &mut self.globals {
            globals.add(global.task.stores()?);
        }
        globals.attach(&mut stores);
        let spec = self.task.spec().clone();
        let point = |input| {
            let committed = self.committed.get(input);
            committed.map_or_else(|| CommitPoint::starting_at(0), CommitPoint::decode)
        };
        let committed: Vec<_> = spec.inputs.iter().map(point).collect();
        let offsets: Vec<_> = committed.iter().map(|point| point.offset).collect();
        self.task = Task::new(spec, stores, committed, self.wall_clock_ms)?;
        for (input, offset) in offsets.into_iter().enumerate() {
            self.task.set_caught_up(input, Some(true));
            if let Some(end) = self.ends.get_mut(input) {
                *end = offset;
            }
        }
        self.read_again()
    }

    /// Reads changelogs into stores, from where these are.
    fn restore(&self, stores: &mut TaskStores) -> Result<()> {
        for (index, changelog) in self.changelogs.iter().enumerate() {
            let Some(topic) = changelog else { continue };
            let end = self.produced.end(topic).unwrap_or(0);
            let from = match &self.home {
                Home::Memory { .. } => 0,
                Home::Disk { .. } => {
                    stores.begin_restore(index, &LogState { start: 0, end, delete_retention_ms: None }, 1)?
                }
            };
            let mut batch = RecordBatch::default();
            for (offset, record) in (0..).zip(self.produced.of(topic)).skip(usize::try_from(from).unwrap_or(0)) {
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                batch.push(offset, record.timestamp, key, value, record.headers.clone())?;
            }
            if from < end {
                stores.restore(index, &batch, end)?;
            }
        }
        Ok(())
    }

    /// Queues what the topology has written to its inputs and not read.
    fn read_again(&mut self) -> Result<()> {
        for input in 0..self.inputs.len() {
            let Some(topic) = self.inputs.get(input).map(Arc::clone) else { continue };
            let unread = self.ends.get(input).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
            let unread: Vec<TestRecord> = self.produced.of(&topic).skip(unread).cloned().collect();
            for TestRecord { key, value, timestamp, headers, .. } in unread {
                self.enqueue(&topic, key.as_deref(), value.as_deref(), timestamp, headers)?;
            }
        }
        Ok(())
    }

    /// What reads show of each store, as bytes.
    ///
    /// # Errors
    /// Stores that cannot be read.
    #[doc(hidden)]
    pub fn rows(&mut self) -> Result<Vec<StoreRows>> {
        let stores = self.task.stores()?;
        let names: Vec<_> = stores.specs().map(|spec| spec.name.to_string()).collect();
        names.into_iter().enumerate().map(|(index, name)| Ok((name, stores.shown_rows(index)?))).collect()
    }
}

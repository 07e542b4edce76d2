//! The state directory of an application: one process at a time, one folder per task.
//!
//! ```text
//!   <state.dir>/<application id>/
//!     .lock                             held while the process runs
//!     kafka-streams-process-metadata    {"processId": "…"}, the same after a restart
//!     0_3/                              a task
//!       db/                             its database
//!       damaged                         left when damage was met while running: set aside at the next open
//!     0_3.corrupt-1700000000000/        set aside, the newest one only
//! ```

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};

/// The state directory of one application, held by this process. A cheap handle.
#[derive(Debug, Clone)]
pub(crate) struct StateDirectory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    process_id: Uuid,
    /// Tasks that this process has open.
    open: Mutex<HashSet<String>>,
    lock: File,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Closing the file would not do: a child process that was started a moment ago has copies of all files until it is
        // another program. What cannot be given back here is free when the process ends.
        let _ = self.lock.unlock();
    }
}

pub(super) const LOCK: &str = ".lock";
/// Java's file, so that a Java application that is moved over keeps its identity.
pub(super) const PROCESS_METADATA: &str = "kafka-streams-process-metadata";
const DAMAGED: &str = "damaged";
const SET_ASIDE: &str = ".corrupt-";

#[derive(Debug, Serialize, Deserialize)]
struct ProcessMetadata {
    #[serde(rename = "processId")]
    process_id: String,
}

impl StateDirectory {
    /// Takes the directory of an application below `state_dir`, and creates what is missing.
    ///
    /// # Errors
    /// `Unavailable` when another process holds it, or when it cannot be written.
    pub(crate) fn open(state_dir: &Path, application_id: &str) -> Result<StateDirectory> {
        let path = state_dir.join(application_id);
        fs::create_dir_all(&path).map_err(|error| unavailable("create", &path, error))?;
        let lock = lock(&path, application_id)?;
        let process_id = process_id(&path)?;
        Ok(StateDirectory(Arc::new(Inner { path, process_id, open: Mutex::default(), lock })))
    }

    /// Names this installation of the application: the same after a restart.
    pub(crate) fn process_id(&self) -> Uuid {
        self.0.process_id
    }

    /// Takes the folder of a task, which is created if need be. What was damaged before is set aside.
    ///
    /// # Errors
    /// `Unavailable` when the task is open already, or when the folder cannot be written.
    pub(super) fn claim(&self, task: &str, now_ms: i64) -> Result<TaskDirectory> {
        if !self.opened().insert(task.into()) {
            let context =
                format!("could not open the state of task {task}: it is open in another thread of this process");
            return Err(Error::new(ErrorKind::Unavailable, context));
        }
        let directory = TaskDirectory { parent: self.clone(), task: task.into() };
        if directory.damage_mark().exists() {
            directory.set_aside("damage was met while it was in use", now_ms)?;
        }
        directory.create()?;
        Ok(directory)
    }

    /// Tasks with state here, open or not.
    pub(crate) fn tasks(&self) -> Result<Vec<String>> {
        let is_task = |name: &String| name.split_once('_').is_some_and(|(a, b)| [a, b].into_iter().all(is_number));
        Ok(self.names()?.into_iter().filter(is_task).collect())
    }

    /// Removes the state of tasks that are not open and have not been written for `delay`, and returns their names.
    pub(crate) fn remove_unused(&self, now: SystemTime, delay: Duration) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for task in self.tasks()? {
            // Held until it is gone: nobody opens the task meanwhile.
            let open = self.opened();
            let path = self.0.path.join(&task);
            let unused = last_written(&path).and_then(|written| now.duration_since(written).ok());
            if !open.contains(&task) && unused.is_some_and(|unused| unused > delay) {
                fs::remove_dir_all(&path).map_err(|error| unavailable("remove", &path, error))?;
                tracing::info!(task, "removed the state of a task that has moved away");
                removed.push(task);
            }
        }
        Ok(removed)
    }

    fn names(&self) -> Result<Vec<String>> {
        let read = |path: &Path| -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(path)? {
                names.extend(entry?.file_name().into_string());
            }
            names.sort();
            Ok(names)
        };
        read(&self.0.path).map_err(|error| unavailable("list", &self.0.path, error))
    }

    fn opened(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder of a task that this process has open; free again when it is dropped.
#[derive(Debug)]
pub(super) struct TaskDirectory {
    parent: StateDirectory,
    task: String,
}

impl TaskDirectory {
    fn path(&self) -> PathBuf {
        self.parent.0.path.join(&self.task)
    }

    pub(super) fn database(&self) -> PathBuf {
        self.path().join("db")
    }

    pub(super) fn damage_mark(&self) -> PathBuf {
        self.path().join(DAMAGED)
    }

    pub(super) fn create(&self) -> Result<()> {
        let path = self.path();
        fs::create_dir_all(&path).map_err(|error| unavailable("create", &path, error))
    }

    /// Renames the folder, so that somebody may look at it, and removes the one that was set aside before.
    pub(super) fn set_aside(&self, why: &str, now_ms: i64) -> Result<()> {
        let (path, prefix) = (self.path(), format!("{}{SET_ASIDE}", self.task));
        let aside = self.parent.0.path.join(format!("{prefix}{now_ms}"));
        for former in self.parent.names()?.into_iter().filter(|name| name.starts_with(&prefix)) {
            let former = self.parent.0.path.join(former);
            fs::remove_dir_all(&former).map_err(|error| unavailable("remove", &former, error))?;
        }
        fs::rename(&path, &aside).map_err(|error| unavailable("set aside", &path, error))?;
        tracing::error!(
            task = self.task, aside = %aside.display(), why,
            "the state of a task is damaged: set aside, and restored from its changelogs"
        );
        Ok(())
    }
}

impl Drop for TaskDirectory {
    fn drop(&mut self) {
        self.parent.opened().remove(&self.task);
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The newest time of a folder and what it holds.
fn last_written(path: &Path) -> Option<SystemTime> {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified()).unwrap_or(UNIX_EPOCH);
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let inside = entries.filter_map(|entry| last_written(&entry.path()));
    Some(inside.fold(modified, SystemTime::max))
}

/// Takes the lock of an application's folder, which must be there; it is free again when the file is unlocked.
///
/// # Errors
/// `Unavailable` when another process holds it, or when it cannot be written.
pub(super) fn lock(path: &Path, application_id: &str) -> Result<File> {
    let lock_path = path.join(LOCK);
    let options = File::options().create(true).truncate(false).write(true).clone();
    let lock = options.open(&lock_path).map_err(|error| unavailable("open", &lock_path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::Error(error)) => Err(unavailable("lock", &lock_path, error)),
        Err(TryLockError::WouldBlock) => {
            let context = format!(
                "could not lock the state directory {}: another process of application {application_id} uses it; stop \
                 that one, or give each instance a state directory of its own",
                path.display()
            );
            Err(Error::new(ErrorKind::Unavailable, context))
        }
    }
}

fn process_id(directory: &Path) -> Result<Uuid> {
    let path = directory.join(PROCESS_METADATA);
    if let Ok(text) = fs::read(&path) {
        let metadata = serde_json::from_slice(&text).ok();
        match metadata.and_then(|metadata: ProcessMetadata| Uuid::parse_str(&metadata.process_id).ok()) {
            Some(id) => return Ok(id),
            // A new identity costs one rebalance, and nothing else hangs on it.
            None => tracing::warn!(path = %path.display(), "could not read the process id: a new one is made"),
        }
    }
    let id = Uuid::new_v4();
    let metadata = ProcessMetadata { process_id: id.to_string() };
    write_durably(&path, &metadata).map_err(|error| unavailable("write", &path, error))?;
    Ok(id)
}

/// After a crash there is the old file, the new one or none, never a half.
fn write_durably(path: &Path, metadata: &ProcessMetadata) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(metadata)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cold]
pub(super) fn unavailable(doing: &str, path: &Path, error: io::Error) -> Error {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the list is the standard library's, and long")]
    let remedy = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the disk",
        io::ErrorKind::ReadOnlyFilesystem => "mount the file system for writing, or choose another state directory",
        io::ErrorKind::PermissionDenied => "give this user the right to write, or choose another state directory",
        _ => "see the cause",
    };
    let context = format!("could not {doing} {}: {remedy}", path.display());
    Error::new(ErrorKind::Unavailable, context).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_which_directory_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDirectory::open(folder.path(), "app").unwrap();
        let error = StateDirectory::open(folder.path(), "app").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("app"), "{error}");
        assert!(error.to_string().contains("state directory of its own"), "{error}");
        StateDirectory::open(folder.path(), "other").unwrap();
        drop(first);
        StateDirectory::open(folder.path(), "app").unwrap();
    }

    #[test]
    fn a_copy_of_the_lock_does_not_keep_it() {
        let folder = tempfile::tempdir().unwrap();
        let first = StateDirectory::open(folder.path(), "app").unwrap();
        let copy = first.0.lock.try_clone().unwrap();
        drop(first);
        StateDirectory::open(folder.path(), "app").unwrap();
        drop(copy);
    }

    #[test]
    fn the_process_id_survives_a_restart_and_is_in_javas_file() {
        let folder = tempfile::tempdir().unwrap();
        let id = StateDirectory::open(folder.path(), "app").unwrap().process_id();
        assert_eq!(StateDirectory::open(folder.path(), "app").unwrap().process_id(), id);
        let text = fs::read_to_string(folder.path().join("app").join(PROCESS_METADATA)).unwrap();
        assert_eq!(text, format!("{{\"processId\":\"{id}\"}}"));
        fs::write(folder.path().join("app").join(PROCESS_METADATA), "half a fi").unwrap();
        assert_ne!(StateDirectory::open(folder.path(), "app").unwrap().process_id(), id);
    }

    #[test]
    fn a_task_is_open_once_and_unused_ones_are_removed_after_the_delay() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(folder.path(), "app").unwrap();
        let open = state.claim("0_1", 1).unwrap();
        assert_eq!(state.claim("0_1", 1).unwrap_err().kind(), ErrorKind::Unavailable);
        drop(state.claim("1_0", 1).unwrap());
        fs::create_dir(folder.path().join("app/global")).unwrap();
        assert_eq!(state.tasks().unwrap(), ["0_1", "1_0"]);
        let written = last_written(&folder.path().join("app")).unwrap();
        let delay = Duration::from_secs(600);
        assert!(state.remove_unused(written + delay / 2, delay).unwrap().is_empty());
        assert_eq!(state.remove_unused(written + delay * 2, delay).unwrap(), ["1_0"]);
        drop(open);
        assert_eq!(state.remove_unused(written + delay * 2, delay).unwrap(), ["0_1"]);
    }

    #[test]
    fn damaged_state_is_set_aside_and_only_the_newest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(folder.path(), "app").unwrap();
        for now_ms in [1, 2] {
            let task = state.claim("0_1", now_ms).unwrap();
            fs::write(task.damage_mark(), "why").unwrap();
            drop(task);
            assert!(!state.claim("0_1", now_ms).unwrap().damage_mark().exists());
            let aside: Vec<_> = state.names().unwrap().into_iter().filter(|name| name.contains(SET_ASIDE)).collect();
            assert_eq!(aside, [format!("0_1.corrupt-{now_ms}")]);
        }
    }
}

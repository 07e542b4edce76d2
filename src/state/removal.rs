//! The state of an application that is reset or cleaned up: removed while no process uses it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::state::directory::{LOCK, PROCESS_METADATA, lock, unavailable};

/// The folder of an application that does not run. It stays locked, so that none starts on it meanwhile.
#[derive(Debug)]
pub(crate) struct IdleState {
    path: PathBuf,
    lock: File,
}

impl IdleState {
    /// Where an application has state below `state_dir`; none if it has none. In use or not: nothing is locked.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be read.
    pub(crate) fn find(state_dir: &Path, application_id: &str) -> Result<Option<PathBuf>> {
        let path = state_dir.join(application_id);
        let exists = path.try_exists().map_err(|error| unavailable("look for", &path, error))?;
        Ok(if exists && !contents(&path)?.is_empty() { Some(path) } else { None })
    }

    /// Takes the folder that [`find`](IdleState::find) finds.
    ///
    /// # Errors
    /// `Unavailable` when a process uses it, or when it cannot be read and written.
    pub(crate) fn hold(state_dir: &Path, application_id: &str) -> Result<Option<IdleState>> {
        let hold = |path: PathBuf| Ok(IdleState { lock: lock(&path, application_id)?, path });
        IdleState::find(state_dir, application_id)?.map(hold).transpose()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes everything but the lock: a folder without it could be taken by two processes at once.
    ///
    /// # Errors
    /// `Unavailable` when something cannot be removed; what is left is removed the next time.
    pub(crate) fn remove(&self) -> Result<()> {
        self.remove_but(&[])
    }

    /// Removes what the stores hold. The installation keeps its identity: whoever starts next is the same member of the
    /// group, and nobody waits for the session of the one before to be over.
    ///
    /// # Errors
    /// As [`remove`](IdleState::remove).
    pub(crate) fn remove_stores(&self) -> Result<()> {
        self.remove_but(&[PROCESS_METADATA])
    }

    fn remove_but(&self, kept: &[&str]) -> Result<()> {
        let is_kept = |path: &Path| path.file_name().is_some_and(|name| kept.iter().any(|kept| name == *kept));
        for path in contents(&self.path)?.into_iter().filter(|path| !is_kept(path)) {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|error| unavailable("remove", &path, error))?;
        }
        Ok(())
    }
}

impl Drop for IdleState {
    fn drop(&mut self) {
        // As for a `StateDirectory`: closing the file would not do while a child process has a copy of it.
        let _ = self.lock.unlock();
    }
}

fn contents(path: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| unavailable("list", path, error);
    let mut contents = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name() != LOCK {
            contents.push(entry.path());
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::state::StateDirectory;

    #[test]
    fn everything_but_the_lock_is_removed_and_that_twice() {
        let folder = tempfile::tempdir().unwrap();
        assert!(IdleState::hold(folder.path(), "app").unwrap().is_none());
        let id = StateDirectory::open(folder.path(), "app").unwrap().process_id();
        fs::create_dir_all(folder.path().join("app/0_1/db")).unwrap();
        for file in ["app/0_1/db/rows", "app/.checkpoint"] {
            fs::write(folder.path().join(file), "rows").unwrap();
        }
        IdleState::hold(folder.path(), "app").unwrap().unwrap().remove().unwrap();
        assert!(IdleState::hold(folder.path(), "app").unwrap().is_none());
        let left: Vec<_> = fs::read_dir(folder.path().join("app")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, [".lock"]);
        assert_ne!(StateDirectory::open(folder.path(), "app").unwrap().process_id(), id);
    }

    #[test]
    fn state_that_is_in_use_is_neither_held_nor_lent() {
        let folder = tempfile::tempdir().unwrap();
        let running = StateDirectory::open(folder.path(), "app").unwrap();
        let error = IdleState::hold(folder.path(), "app").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("stop that one"), "{error}");
        drop(running);
        let idle = IdleState::hold(folder.path(), "app").unwrap().unwrap();
        assert_eq!(StateDirectory::open(folder.path(), "app").unwrap_err().kind(), ErrorKind::Unavailable);
        drop(idle);
        StateDirectory::open(folder.path(), "app").unwrap();
    }
}

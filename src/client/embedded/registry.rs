//! Clusters by name: `embedded://NAME` in the place of bootstrap servers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::client::embedded::EmbeddedCluster;
use crate::client::embedded::state::Shared;
use crate::error::{Error, ErrorKind, Result};

const SCHEME: &str = "embedded://";

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { named: BTreeMap::new(), directories: BTreeMap::new() });

struct Registry {
    /// Those in memory stay as long as the process: nothing else holds what is in them.
    named: BTreeMap<String, EmbeddedCluster>,
    /// Those in a directory are closed with their last handle, and opened again from the directory.
    directories: BTreeMap<PathBuf, Weak<Shared>>,
}

impl EmbeddedCluster {
    /// The cluster that a bootstrap string means, the same one everywhere in this process.
    ///
    /// | bootstrap | cluster |
    /// |---|---|
    /// | `embedded://` | the default one, in memory |
    /// | `embedded://NAME` | the one of that name, in memory |
    /// | `embedded:///abs/dir`, `embedded://./rel/dir` | the one kept in that directory: see [`open`](EmbeddedCluster::open) |
    ///
    /// ```
    /// use kstreams::EmbeddedCluster;
    ///
    /// # fn main() -> kstreams::Result<()> {
    /// EmbeddedCluster::named("embedded://shop")?.create_topic("orders", 4)?;
    /// assert_eq!(EmbeddedCluster::named("embedded://shop")?.topics()?, ["orders"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `Invalid` for a string of another form; as [`open`](EmbeddedCluster::open) for a directory.
    pub fn named(bootstrap: &str) -> Result<EmbeddedCluster> {
        let Some(name) = bootstrap.strip_prefix(SCHEME) else {
            return Err(Error::invalid(format!(
                "\"{bootstrap}\" does not name an embedded cluster: write embedded://NAME, or embedded:///DIRECTORY"
            )));
        };
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        if name.starts_with(['/', '.']) {
            return registry.directory(Path::new(name));
        }
        if name.contains('/') {
            return Err(Error::invalid(format!(
                "\"{bootstrap}\" has a slash in the name: a directory begins with / or ./, as in embedded://./{name}"
            )));
        }
        Ok(registry.named.entry(name.to_owned()).or_default().clone())
    }
}

impl Registry {
    fn directory(&mut self, directory: &Path) -> Result<EmbeddedCluster> {
        let cannot = |error| {
            let context = format!("could not open the embedded cluster in {}", directory.display());
            Error::new(ErrorKind::Unavailable, context).with_source(error)
        };
        // The same directory may be written in many ways.
        fs::create_dir_all(directory).map_err(cannot)?;
        let path = fs::canonicalize(directory).map_err(cannot)?;
        if let Some(shared) = self.directories.get(&path).and_then(Weak::upgrade) {
            return Ok(EmbeddedCluster { shared });
        }
        let cluster = EmbeddedCluster::open(&path)?;
        self.directories.insert(path, Arc::downgrade(&cluster.shared));
        Ok(cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_same_cluster_everywhere() {
        let one = EmbeddedCluster::named("embedded://registry-test").unwrap();
        one.create_topic("t", 1).unwrap();
        assert_eq!(EmbeddedCluster::named("embedded://registry-test").unwrap().topics().unwrap(), ["t"]);
        assert!(EmbeddedCluster::named("embedded://registry-other").unwrap().topics().unwrap().is_empty());
    }

    #[test]
    fn a_directory_means_the_same_cluster_until_its_last_handle_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("embedded://{}", directory.path().display());
        let other_url = format!("embedded://{}/./", directory.path().display());
        let one = EmbeddedCluster::named(&url).unwrap();
        one.create_topic("t", 1).unwrap();
        let two = EmbeddedCluster::named(&other_url).unwrap();
        assert!(Arc::ptr_eq(&one.shared, &two.shared));
        drop((one, two));
        let again = EmbeddedCluster::open(directory.path()).unwrap();
        assert_eq!(again.topics().unwrap(), ["t"]);
    }

    #[test]
    fn other_strings_are_refused_with_the_right_form() {
        for url in ["localhost:9092", "embedded:shop", "embedded://a/b"] {
            let error = EmbeddedCluster::named(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains("embedded://"), "{error}");
        }
    }
}

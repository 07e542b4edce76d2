use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Serde;
use crate::error::{Error, ErrorKind, Result};

/// JSON of any type that serde knows: `Json::<Order>::new()`.
///
/// ```
/// use kstreams::{Json, Serde};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Order {
///     id: u64,
/// }
/// let order = Json::<Order>::new().deserialize(br#"{"id": 7}"#)?;
/// assert_eq!(order.id, 7);
/// # Ok::<(), kstreams::Error>(())
/// ```
pub struct Json<T>(PhantomData<fn() -> T>);

impl<T> Json<T> {
    /// A serde of `T`.
    pub fn new() -> Json<T> {
        Json(PhantomData)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Serde for Json<T> {
    type Item = T;

    fn serialize(&self, item: &T, bytes: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(bytes, item).map_err(cannot_write)
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(cannot_read)
    }
}

fn cannot_write(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Corrupted, "could not write as JSON").with_source(error)
}

fn cannot_read(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::corrupted("could not read as JSON").with_source(error)
}

impl<T> Default for Json<T> {
    fn default() -> Self {
        Json::new()
    }
}

impl<T> Clone for Json<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Json<T> {}

impl<T> fmt::Debug for Json<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Json")
    }
}

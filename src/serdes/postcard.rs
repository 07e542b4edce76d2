use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Serde;
use crate::error::{Error, ErrorKind, Result};

/// Postcard (feature `postcard`): compact, with a written and stable format.
pub struct Postcard<T>(PhantomData<fn() -> T>);

impl<T> Postcard<T> {
    /// A serde of `T`.
    pub fn new() -> Postcard<T> {
        Postcard(PhantomData)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Serde for Postcard<T> {
    type Item = T;

    fn serialize(&self, item: &T, bytes: &mut Vec<u8>) -> Result<()> {
        let encoded = ::postcard::to_allocvec(item).map_err(cannot_write)?;
        bytes.extend_from_slice(&encoded);
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<T> {
        ::postcard::from_bytes(bytes).map_err(cannot_read)
    }
}

fn cannot_write(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Corrupted, "could not write as postcard").with_source(error)
}

fn cannot_read(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::corrupted("could not read as postcard").with_source(error)
}

impl<T> Default for Postcard<T> {
    fn default() -> Self {
        Postcard::new()
    }
}

impl<T> Clone for Postcard<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Postcard<T> {}

impl<T> fmt::Debug for Postcard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Postcard")
    }
}

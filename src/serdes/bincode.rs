use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Serde;
use crate::error::{Error, ErrorKind, Result};

/// bincode 2 with its standard configuration (feature `bincode`).
///
/// The `bincode` crate is no longer maintained (RUSTSEC-2025-0141): it is here for topics that hold it already. Take
/// [`Json`](crate::Json) or `Postcard` for new ones.
pub struct Bincode<T>(PhantomData<fn() -> T>);

impl<T> Bincode<T> {
    /// A serde of `T`.
    pub fn new() -> Bincode<T> {
        Bincode(PhantomData)
    }
}

impl<T: Serialize + DeserializeOwned + 'static> Serde for Bincode<T> {
    type Item = T;

    fn serialize(&self, item: &T, bytes: &mut Vec<u8>) -> Result<()> {
        ::bincode::serde::encode_into_std_write(item, bytes, ::bincode::config::standard()).map_err(cannot_write)?;
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<T> {
        let (item, read) =
            ::bincode::serde::decode_from_slice(bytes, ::bincode::config::standard()).map_err(cannot_read)?;
        if read == bytes.len() {
            return Ok(item);
        }
        Err(Error::corrupted(format!("{} bytes behind the end of a bincode item", bytes.len() - read)))
    }
}

fn cannot_write(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Corrupted, "could not write as bincode").with_source(error)
}

fn cannot_read(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::corrupted("could not read as bincode").with_source(error)
}

impl<T> Default for Bincode<T> {
    fn default() -> Self {
        Bincode::new()
    }
}

impl<T> Clone for Bincode<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Bincode<T> {}

impl<T> fmt::Debug for Bincode<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bincode")
    }
}

use std::fmt;
use std::marker::PhantomData;

use super::Serde;
use crate::error::Result;

/// A serde made of two functions, see [`serde_fn`].
pub struct SerdeFn<T, W, R> {
    write: W,
    read: R,
    item: PhantomData<fn(T) -> T>,
}

/// Makes a serde of a function that appends the bytes of an item and one that reads it from all of them.
pub fn serde_fn<T, W, R>(write: W, read: R) -> SerdeFn<T, W, R>
where
    T: 'static,
    W: Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync + 'static,
    R: Fn(&[u8]) -> Result<T> + Send + Sync + 'static,
{
    SerdeFn { write, read, item: PhantomData }
}

impl<T, W, R> Serde for SerdeFn<T, W, R>
where
    T: 'static,
    W: Fn(&T, &mut Vec<u8>) -> Result<()> + Send + Sync + 'static,
    R: Fn(&[u8]) -> Result<T> + Send + Sync + 'static,
{
    type Item = T;

    fn serialize(&self, item: &T, bytes: &mut Vec<u8>) -> Result<()> {
        (self.write)(item, bytes)
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<T> {
        (self.read)(bytes)
    }
}

impl<T, W, R> fmt::Debug for SerdeFn<T, W, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SerdeFn")
    }
}

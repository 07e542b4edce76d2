//! Serdes of any type that serde knows, one for each format: they differ in two calls and a name.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Serde;
use crate::error::{Error, Result};

/// A format with the two calls that make it: `write(item, bytes)` and `read(bytes)`, each with its own error.
macro_rules! format {
    ($(#[$doc:meta])* $name:ident, $text:literal, $write:expr, $read:expr) => {
        $(#[$doc])*
        pub struct $name<T>(PhantomData<fn() -> T>);

        impl<T> $name<T> {
            #[doc = concat!("A serde of `T` as ", $text, ".")]
            pub fn new() -> $name<T> {
                $name(PhantomData)
            }
        }

        impl<T: Serialize + DeserializeOwned + 'static> Serde for $name<T> {
            type Item = T;

            fn serialize(&self, item: &T, bytes: &mut Vec<u8>) -> Result<()> {
                $write(item, bytes).map_err(|error| Error::corrupted(concat!("could not write as ", $text)).with_source(error))
            }
            fn deserialize(&self, bytes: &[u8]) -> Result<T> {
                $read(bytes).map_err(|error| Error::corrupted(concat!("could not read as ", $text)).with_source(error))
            }
        }

        impl<T> Default for $name<T> {
            fn default() -> Self {
                $name::new()
            }
        }

        impl<T> Clone for $name<T> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl<T> Copy for $name<T> {}

        impl<T> fmt::Debug for $name<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    };
}

format! {
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
    Json, "JSON", |item: &T, bytes: &mut Vec<u8>| serde_json::to_writer(bytes, item), serde_json::from_slice
}

#[cfg(feature = "postcard")]
format! {
    /// Postcard (feature `postcard`): compact, with a written and stable format.
    Postcard,
    "postcard",
    // Not straight into `bytes`: the crate takes a vector away, and keeps it when it fails.
    |item: &T, bytes: &mut Vec<u8>| postcard::to_allocvec(item).map(|encoded| bytes.extend_from_slice(&encoded)),
    postcard::from_bytes
}

#[cfg(feature = "bincode")]
format! {
    /// bincode 2 with its standard configuration (feature `bincode`).
    ///
    /// The `bincode` crate is no longer maintained (RUSTSEC-2025-0141): it is here for topics that hold it already. Take
    /// [`Json`] or `Postcard` for new ones.
    Bincode,
    "bincode",
    |item: &T, bytes: &mut Vec<u8>| {
        bincode::serde::encode_into_std_write(item, bytes, bincode::config::standard()).map(|_written| ())
    },
    read_bincode
}

/// All of the bytes: an item that ends before them is another type.
#[cfg(feature = "bincode")]
fn read_bincode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, bincode::error::DecodeError> {
    let (item, read) = bincode::serde::decode_from_slice(bytes, bincode::config::standard())?;
    if read == bytes.len() {
        return Ok(item);
    }
    Err(bincode::error::DecodeError::OtherString(std::format!(
        "{} bytes behind the end of the item",
        bytes.len() - read
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(serde: &impl Serde<Item = (u32, String)>) -> Vec<u8> {
        let item = (300, "text".to_owned());
        let mut bytes = b"before".to_vec();
        serde.serialize(&item, &mut bytes).unwrap();
        let bytes = bytes.split_off(6);
        assert_eq!(serde.deserialize(&bytes).unwrap(), item);
        assert!(serde.deserialize(&bytes[..bytes.len() - 1]).is_err());
        bytes
    }

    #[test]
    fn json_is_text() {
        assert_eq!(there_and_back(&Json::new()), br#"[300,"text"]"#);
    }

    #[cfg(feature = "postcard")]
    #[test]
    fn postcard_writes_varints() {
        assert_eq!(there_and_back(&Postcard::new()), b"\xac\x02\x04text");
    }

    #[cfg(feature = "bincode")]
    #[test]
    fn bincode_reads_all_of_its_bytes() {
        let mut bytes = there_and_back(&Bincode::new());
        assert_eq!(bytes, b"\xfb\x2c\x01\x04text");
        bytes.push(0);
        let error = Bincode::<(u32, String)>::new().deserialize(&bytes).unwrap_err();
        assert!(error.report().contains("1 bytes behind the end of the item"), "{}", error.report());
    }
}

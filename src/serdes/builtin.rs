use super::Serde;
use crate::error::{Error, Result};

/// Text: `String` as UTF-8, Java's `StringSerializer`.
#[derive(Debug, Clone, Copy)]
pub struct Utf8;

impl Serde for Utf8 {
    type Item = String;

    fn serialize(&self, item: &String, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.extend_from_slice(item.as_bytes());
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<String> {
        let text = std::str::from_utf8(bytes).map_err(|error| Error::corrupted("not UTF-8").with_source(error))?;
        Ok(text.to_owned())
    }
}

/// Bytes as they are: `Vec<u8>`.
#[derive(Debug, Clone, Copy)]
pub struct Bytes;

impl Serde for Bytes {
    type Item = Vec<u8>;

    fn serialize(&self, item: &Vec<u8>, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.extend_from_slice(item);
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(bytes.to_vec())
    }
}

/// `uuid::Uuid` as 36 characters of text, Java's `UUIDSerializer`.
#[derive(Debug, Clone, Copy)]
pub struct Uuid;

impl Serde for Uuid {
    type Item = uuid::Uuid;

    fn serialize(&self, item: &uuid::Uuid, bytes: &mut Vec<u8>) -> Result<()> {
        bytes.extend_from_slice(item.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
        Ok(())
    }
    fn deserialize(&self, bytes: &[u8]) -> Result<uuid::Uuid> {
        uuid::Uuid::try_parse_ascii(bytes)
            .map_err(|error| Error::corrupted("not the text of a uuid").with_source(error))
    }
}

/// Numbers of a fixed width, big endian as Java writes them.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $item:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl Serde for $name {
            type Item = $item;

            fn serialize(&self, item: &$item, bytes: &mut Vec<u8>) -> Result<()> {
                bytes.extend_from_slice(&item.to_be_bytes());
                Ok(())
            }
            fn deserialize(&self, bytes: &[u8]) -> Result<$item> {
                let wanted = size_of::<$item>();
                bytes.try_into().map(<$item>::from_be_bytes).map_err(|error| {
                    Error::corrupted(format!("{} bytes where {wanted} make a number", bytes.len())).with_source(error)
                })
            }
        }
    };
}

number! {
    /// `i16`, two bytes, Java's `ShortSerializer`.
    I16, i16
}
number! {
    /// `i32`, four bytes, Java's `IntegerSerializer`.
    I32, i32
}
number! {
    /// `i64`, eight bytes, Java's `LongSerializer`.
    I64, i64
}
number! {
    /// `f32`, four bytes, Java's `FloatSerializer`.
    F32, f32
}
number! {
    /// `f64`, eight bytes, Java's `DoubleSerializer`.
    F64, f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "a test reads better without references")]
    fn bytes_of<S: Serde>(serde: S, item: S::Item) -> Vec<u8> {
        let mut bytes = Vec::new();
        serde.serialize(&item, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn numbers_are_big_endian_as_in_java() {
        assert_eq!(bytes_of(I16, 1), [0, 1]);
        assert_eq!(bytes_of(I32, -2), [255, 255, 255, 254]);
        assert_eq!(bytes_of(I64, 258), [0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(bytes_of(F64, 1.0), [0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(I64.deserialize(&[0, 0, 0, 0, 0, 0, 1, 2]).unwrap(), 258);
    }

    #[test]
    fn wrong_bytes_are_refused_by_name() {
        assert_eq!(I64.deserialize(b"abc").unwrap_err().to_string(), "3 bytes where 8 make a number");
        assert_eq!(Utf8.deserialize(&[0xff]).unwrap_err().to_string(), "not UTF-8");
        assert!(Uuid.deserialize(b"x").is_err());
    }

    #[test]
    fn a_uuid_is_text() {
        let uuid = uuid::Uuid::nil();
        assert_eq!(bytes_of(Uuid, uuid), b"00000000-0000-0000-0000-000000000000");
        assert_eq!(Uuid.deserialize(&bytes_of(Uuid, uuid)).unwrap(), uuid);
    }
}

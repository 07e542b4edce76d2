//! A position as text, for headers and parameters.

use std::fmt;
use std::str::FromStr;

use super::position::Position;
use crate::error::{Error, Result};

/// `topic:partition:offset`, with commas between; nothing for nothing. Names of topics have neither sign in them.
///
/// ```
/// use kstreams::Position;
///
/// let position = Position::at("orders", 3, 41).with("orders", 4, 7);
/// assert_eq!(position.to_string(), "orders:3:41,orders:4:7");
/// assert_eq!("orders:3:41,orders:4:7".parse::<Position>().unwrap(), position);
/// ```
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (at, offset)) in self.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            write!(f, "{comma}{}:{}:{offset}", at.topic, at.partition)?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Position> {
        let mut position = Position::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let fields: Vec<&str> = part.split(':').collect();
            let read = match fields.as_slice() {
                [topic, partition, offset] if !topic.is_empty() => partition.parse().ok().zip(offset.parse().ok()),
                _ => None,
            };
            let (Some((partition, offset)), Some(topic)) = (read, fields.first()) else {
                return Err(Error::invalid(format!("\"{part}\" is no position: write it as topic:partition:offset")));
            };
            position = position.with(topic, partition, offset);
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_position_is_refused() {
        for text in ["orders", "orders:1", "orders:a:1", ":1:1", "orders:1:2:3", "orders:1:99999999999999999999"] {
            assert!(text.parse::<Position>().is_err(), "{text}");
        }
        assert_eq!("".parse::<Position>().unwrap(), Position::new());
    }
}

//! The one dynamic type that all cases run on, and its codecs.

use kstreams::{Error, ErrorKind, Result, Serde};
use serde_json::{Value as Json, json};

use crate::outcome::{Stop, missing};

/// A key or a value of any case. `Null` is Kafka's null.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Val {
    Null,
    Text(String),
    Long(i64),
    Int(i32),
    Double(f64),
    Bytes(Vec<u8>),
    Windowed { key: Box<Val>, start: i64, end: i64 },
}

impl Val {
    pub(crate) fn text(text: impl Into<String>) -> Val {
        Val::Text(text.into())
    }

    pub(crate) fn is_null(&self) -> bool {
        *self == Val::Null
    }

    /// A null is no row.
    pub(crate) fn row(self) -> Option<Val> {
        Some(self).filter(|value| !value.is_null())
    }

    /// As the functions of the cases show it.
    pub(crate) fn show(&self) -> String {
        match self {
            Val::Null => "null".to_owned(),
            Val::Text(text) => text.clone(),
            Val::Long(number) => number.to_string(),
            Val::Int(number) => number.to_string(),
            Val::Double(number) => format!("{number:?}"),
            Val::Bytes(bytes) => hex(bytes),
            Val::Windowed { key, start, end } => format!("{}@{start}/{end}", key.show()),
        }
    }

    /// As a number; a null counts as 0.
    pub(crate) fn number(&self) -> i64 {
        match self {
            Val::Long(number) => *number,
            Val::Int(number) => i64::from(*number),
            Val::Double(number) => *number as i64,
            Val::Text(text) => text.parse().unwrap_or_else(|_| panic!("boom {text} is no number")),
            Val::Null | Val::Bytes(_) | Val::Windowed { .. } => 0,
        }
    }

    /// An argument of a function.
    pub(crate) fn of_argument(argument: &Json) -> Val {
        match argument {
            Json::Null => Val::Null,
            Json::Number(number) => number.as_i64().map_or(Val::Null, Val::Long),
            Json::String(text) => Val::text(text),
            other => Val::text(other.to_string()),
        }
    }

    pub(crate) fn to_json(&self) -> Json {
        match self {
            Val::Null => Json::Null,
            Val::Text(text) => json!(text),
            Val::Long(number) => json!(number),
            Val::Int(number) => json!(number),
            Val::Double(number) => json!(number),
            Val::Bytes(bytes) => json!(hex(bytes)),
            Val::Windowed { key, start, end } => json!({"key": key.to_json(), "start": start, "end": end}),
        }
    }
}

/// How a value is bytes: the codecs of the format.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Codec {
    Text,
    Long,
    Int,
    Double,
    Bytes,
    /// As `Text`, but refuses the text `bad`.
    Picky,
    /// The inner key, then the start; the size is only known to the reader.
    TimeWindowed(Box<Codec>, i64),
    SessionWindowed(Box<Codec>),
}

impl Codec {
    pub(crate) fn parse(text: &str) -> Result<Codec, Stop> {
        if let Some(rest) = text.strip_prefix("time_windowed:") {
            let (inner, size) = rest.rsplit_once(':').ok_or_else(|| missing(format!("codec {text}")))?;
            let size = size.parse().map_err(|_| missing(format!("codec {text}")))?;
            return Ok(Codec::TimeWindowed(Box::new(Codec::parse(inner)?), size));
        }
        if let Some(inner) = text.strip_prefix("session_windowed:") {
            return Ok(Codec::SessionWindowed(Box::new(Codec::parse(inner)?)));
        }
        Ok(match text {
            "string" => Codec::Text,
            "long" => Codec::Long,
            "int" => Codec::Int,
            "double" => Codec::Double,
            "bytes" => Codec::Bytes,
            "picky" => Codec::Picky,
            _ => return Err(missing(format!("codec {text}"))),
        })
    }

    /// The codec in a field of an op; the default where it is absent.
    pub(crate) fn of(field: &Json) -> Result<Codec, Stop> {
        field.as_str().map_or(Ok(Codec::Text), Codec::parse)
    }

    /// The bytes of a piped key or value; none is a null.
    pub(crate) fn bytes_of(&self, json: &Json) -> Result<Option<Vec<u8>>, Stop> {
        if json.is_null() {
            return Ok(None);
        }
        if let Some(raw) = json.get("hex").and_then(Json::as_str) {
            return Ok(Some(unhex(raw)));
        }
        let value = self.read(json).ok_or_else(|| missing(format!("{json} in codec {self:?}")))?;
        let mut bytes = Vec::new();
        self.serialize(&value, &mut bytes).map_err(|error| missing(error.report()))?;
        Ok(Some(bytes))
    }

    fn read(&self, json: &Json) -> Option<Val> {
        Some(match self {
            Codec::Text | Codec::Picky => Val::text(json.as_str()?),
            Codec::Long => Val::Long(json.as_i64()?),
            Codec::Int => Val::Int(json.as_i64()?.try_into().ok()?),
            Codec::Double => Val::Double(json.as_f64()?),
            Codec::Bytes => Val::Bytes(unhex(json.as_str()?)),
            Codec::TimeWindowed(inner, _) | Codec::SessionWindowed(inner) => {
                let key = Box::new(inner.read(&json["key"])?);
                Val::Windowed { key, start: json["start"].as_i64()?, end: json["end"].as_i64()? }
            }
        })
    }

    /// What is in a topic, as the format writes it.
    pub(crate) fn show(&self, bytes: Option<&[u8]>) -> Json {
        let Some(bytes) = bytes else { return Json::Null };
        self.deserialize(bytes).map_or_else(|_| json!({"hex": hex(bytes)}), |value| value.to_json())
    }
}

impl Serde for Codec {
    type Item = Val;

    fn serialize(&self, item: &Val, bytes: &mut Vec<u8>) -> Result<()> {
        match (self, item) {
            (Codec::Picky, Val::Text(text)) if text == "bad" => return Err(Error::user("picky codec refuses bad")),
            (Codec::Text | Codec::Picky, Val::Text(text)) => bytes.extend_from_slice(text.as_bytes()),
            (Codec::Long, Val::Long(number)) => bytes.extend_from_slice(&number.to_be_bytes()),
            (Codec::Int, Val::Int(number)) => bytes.extend_from_slice(&number.to_be_bytes()),
            (Codec::Double, Val::Double(number)) => bytes.extend_from_slice(&number.to_be_bytes()),
            (Codec::Bytes, Val::Bytes(value)) => bytes.extend_from_slice(value),
            (Codec::TimeWindowed(inner, _), Val::Windowed { key, start, .. }) => {
                inner.serialize(key, bytes)?;
                bytes.extend_from_slice(&start.to_be_bytes());
            }
            (Codec::SessionWindowed(inner), Val::Windowed { key, start, end }) => {
                inner.serialize(key, bytes)?;
                bytes.extend_from_slice(&end.to_be_bytes());
                bytes.extend_from_slice(&start.to_be_bytes());
            }
            _ => return Err(Error::user(format!("codec {self:?} cannot write {item:?}"))),
        }
        Ok(())
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<Val> {
        let corrupted = || Error::new(ErrorKind::Corrupted, format!("codec {self:?} cannot read {}", hex(bytes)));
        let long = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).map_err(|_| corrupted());
        let split = |at: usize| bytes.len().checked_sub(at).map(|at| bytes.split_at(at)).ok_or_else(corrupted);
        Ok(match self {
            Codec::Text | Codec::Picky => Val::text(String::from_utf8_lossy(bytes)),
            Codec::Long => Val::Long(long(bytes)?),
            Codec::Int => Val::Int(bytes.try_into().map(i32::from_be_bytes).map_err(|_| corrupted())?),
            Codec::Double => Val::Double(bytes.try_into().map(f64::from_be_bytes).map_err(|_| corrupted())?),
            Codec::Bytes => Val::Bytes(bytes.to_vec()),
            Codec::TimeWindowed(inner, size) => {
                let (key, start) = split(8)?;
                let start = long(start)?;
                Val::Windowed { key: Box::new(inner.deserialize(key)?), start, end: start.saturating_add(*size) }
            }
            Codec::SessionWindowed(inner) => {
                let (key, times) = split(16)?;
                let (end, start) = times.split_at(8);
                Val::Windowed { key: Box::new(inner.deserialize(key)?), start: long(start)?, end: long(end)? }
            }
        })
    }

    fn null(&self) -> Option<Val> {
        Some(Val::Null)
    }

    fn is_null(&self, item: &Val) -> bool {
        item.is_null()
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(|at| digit(at).unwrap_or_else(|| panic!("{text} is not hex"))).collect()
}

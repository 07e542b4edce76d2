//! What the two tables of a foreign-key join send each other (KIP-213, KIP-775), byte by byte Java's.

use std::rc::Rc;

use super::{DynSerde, Serde, encode};
use crate::error::{Error, ErrorKind, Result};

/// `murmur3_128` of a row of the left table: tells whether an answer still belongs to the row.
pub(crate) type ValueHash = [u8; 16];

/// What a subscription asks of the right table. The numbers are those of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// Forget the subscription.
    DeleteKeyNoPropagate = 0,
    /// Forget the subscription, and answer that there is no row.
    DeleteKeyAndPropagate = 1,
    /// Remember the subscription, and answer in any case.
    PropagateNullIfNoFkValAvailable = 2,
    /// Remember the subscription, and answer if there is a row.
    PropagateOnlyIfFkValAvailable = 3,
}

impl Instruction {
    pub(crate) fn of(byte: u8) -> Option<Instruction> {
        Some(match byte {
            0 => Instruction::DeleteKeyNoPropagate,
            1 => Instruction::DeleteKeyAndPropagate,
            2 => Instruction::PropagateNullIfNoFkValAvailable,
            3 => Instruction::PropagateOnlyIfFkValAvailable,
            _ => return None,
        })
    }
}

/// A row of the left table tells the right one which row it wants. Java's `SubscriptionWrapper`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// None: the left row was deleted.
    pub hash: Option<ValueHash>,
    pub instruction: Instruction,
    /// As the serde of the left keys has written it; the right side need not know more.
    pub primary_key: Vec<u8>,
    /// Where the answer is to be sent; none in the format of releases before 3.4.
    pub primary_partition: Option<i32>,
}

/// The bit of the first byte that says that there is no hash; the others are the version.
const NO_HASH: u8 = 0x80;

/// The versions of a subscription: the second one has a partition.
const WITH_PARTITION: u8 = 1;

/// ```text
///   version, 0x80 without hash | instruction | hash 16 | primary key | primary partition 4 (version 1)
/// ```
#[derive(Debug, Clone, Copy)]
pub(crate) struct SubscriptionSerde;

impl Serde for SubscriptionSerde {
    type Item = Subscription;

    fn serialize(&self, item: &Subscription, bytes: &mut Vec<u8>) -> Result<()> {
        let version = if item.primary_partition.is_some() { WITH_PARTITION } else { 0 };
        write_head(version, item.hash.as_ref(), Some(item.instruction), bytes);
        bytes.extend_from_slice(&item.primary_key);
        bytes.extend(item.primary_partition.into_iter().flat_map(i32::to_be_bytes));
        Ok(())
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<Subscription> {
        let (Subscriber { hash, primary_partition }, instruction, primary_key) = read_subscription(bytes)?;
        Ok(Subscription { hash, instruction, primary_key: primary_key.to_vec(), primary_partition })
    }
}

/// What an answer needs to know of a subscription in the store; the key is part of the store's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub hash: Option<ValueHash>,
    pub primary_partition: Option<i32>,
}

/// Reads what [`SubscriptionSerde`] has written, without a copy of the key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SubscriberSerde;

impl Serde for SubscriberSerde {
    type Item = Subscriber;

    fn serialize(&self, _: &Subscriber, _: &mut Vec<u8>) -> Result<()> {
        Err(Error::new(ErrorKind::Internal, "a subscriber is only read"))
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<Subscriber> {
        read_subscription(bytes).map(|(subscriber, ..)| subscriber)
    }
}

fn read_subscription(bytes: &[u8]) -> Result<(Subscriber, Instruction, &[u8])> {
    let broken = || Error::corrupted("a subscription of a foreign-key join is cut short");
    let (head, rest) = bytes.split_first().ok_or_else(broken)?;
    let version = version(*head, WITH_PARTITION, "subscription")?;
    let (instruction, rest) = rest.split_first().ok_or_else(broken)?;
    let instruction = Instruction::of(*instruction).ok_or_else(|| {
        Error::corrupted(format!("a subscription of a foreign-key join has the unknown instruction {instruction}"))
    })?;
    let (hash, rest) = read_hash(*head, rest).ok_or_else(broken)?;
    let (primary_key, primary_partition) = match version {
        WITH_PARTITION => {
            let (key, partition) = rest.split_last_chunk().ok_or_else(broken)?;
            (key, Some(i32::from_be_bytes(*partition)))
        }
        _ => (rest, None),
    };
    Ok((Subscriber { hash, primary_partition }, instruction, primary_key))
}

/// The right table's answer on its way. Java's `SubscriptionResponseWrapper`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub hash: Option<ValueHash>,
    /// Encoded once for all that have subscribed to the row. None: there is no row.
    pub foreign_value: Option<Rc<[u8]>>,
    /// Not part of the bytes.
    pub primary_partition: Option<i32>,
}

/// ```text
///   version 0, 0x80 without hash | hash 16 | row of the right table, or nothing
/// ```
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerSerde;

impl Serde for AnswerSerde {
    type Item = Answer;

    fn serialize(&self, item: &Answer, bytes: &mut Vec<u8>) -> Result<()> {
        write_head(0, item.hash.as_ref(), None, bytes);
        bytes.extend_from_slice(item.foreign_value.as_deref().unwrap_or_default());
        Ok(())
    }

    fn deserialize(&self, _: &[u8]) -> Result<Answer> {
        Err(Error::new(ErrorKind::Internal, "an answer is read as a response"))
    }
}

/// The right table's answer as it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response<VO> {
    pub hash: Option<ValueHash>,
    pub foreign_value: Option<VO>,
}

/// Reads what [`AnswerSerde`] has written.
pub(crate) struct ResponseSerde<VO>(pub DynSerde<VO>);

impl<VO: 'static> Serde for ResponseSerde<VO> {
    type Item = Response<VO>;

    fn serialize(&self, item: &Response<VO>, bytes: &mut Vec<u8>) -> Result<()> {
        write_head(0, item.hash.as_ref(), None, bytes);
        if let Some(value) = &item.foreign_value {
            encode(&*self.0, value, bytes)?;
        }
        Ok(())
    }

    fn deserialize(&self, bytes: &[u8]) -> Result<Response<VO>> {
        let broken = || Error::corrupted("a response of a foreign-key join is cut short");
        let (head, rest) = bytes.split_first().ok_or_else(broken)?;
        version(*head, 0, "response")?;
        let (hash, value) = read_hash(*head, rest).ok_or_else(broken)?;
        // Java cannot tell a row without bytes from none.
        let foreign_value = if value.is_empty() { None } else { Some(self.0.deserialize(value)?) };
        Ok(Response { hash, foreign_value })
    }
}

fn write_head(version: u8, hash: Option<&ValueHash>, instruction: Option<Instruction>, bytes: &mut Vec<u8>) {
    bytes.push(if hash.is_some() { version } else { version | NO_HASH });
    bytes.extend(instruction.map(|instruction| instruction as u8));
    bytes.extend_from_slice(hash.map_or(&[], <[u8; 16]>::as_slice));
}

fn read_hash(head: u8, rest: &[u8]) -> Option<(Option<ValueHash>, &[u8])> {
    if head & NO_HASH != 0 {
        return Some((None, rest));
    }
    let (hash, rest) = rest.split_first_chunk()?;
    Some((Some(*hash), rest))
}

fn version(head: u8, newest: u8, what: &str) -> Result<u8> {
    let version = head & !NO_HASH;
    if version > newest {
        return Err(Error::corrupted(format!(
            "a {what} of a foreign-key join has the version {version}, of a newer release: upgrade every instance"
        )));
    }
    Ok(version)
}

/// The key of a subscription in its store: `length of the foreign key 4 | foreign key | primary key`. All that subscribe
/// to a row stand together.
pub(crate) fn combined_key<KO: 'static>(
    serde: &dyn Serde<Item = KO>,
    foreign_key: &KO,
    primary_key: &[u8],
    bytes: &mut Vec<u8>,
) -> Result<()> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    serde.serialize(foreign_key, bytes)?;
    let length = i32::try_from(bytes.len() - start - 4);
    let length = length.map_err(|error| Error::invalid("a foreign key is too long").with_source(error))?;
    if let Some(place) = bytes.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    bytes.extend_from_slice(primary_key);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::serdes::{Bytes, Utf8};

    fn instruction() -> impl Strategy<Value = Instruction> {
        (0u8..4).prop_map(|byte| Instruction::of(byte).unwrap())
    }

    proptest! {
        #[test]
        fn a_subscription_is_read_as_it_was_written(
            hash: Option<[u8; 16]>, instruction in instruction(), primary_key: Vec<u8>, primary_partition: Option<i32>,
        ) {
            let item = Subscription { hash, instruction, primary_key, primary_partition };
            let mut bytes = Vec::new();
            SubscriptionSerde.serialize(&item, &mut bytes).unwrap();
            prop_assert_eq!(SubscriberSerde.deserialize(&bytes).unwrap(), Subscriber { hash, primary_partition });
            prop_assert_eq!(SubscriptionSerde.deserialize(&bytes).unwrap(), item);
        }

        #[test]
        fn an_answer_arrives_as_a_response(hash: Option<[u8; 16]>, row in "[a-z]{0,3}") {
            let (mut bytes, foreign_value) = (Vec::new(), Some(row.as_bytes().into()));
            AnswerSerde.serialize(&Answer { hash, foreign_value, primary_partition: Some(3) }, &mut bytes).unwrap();
            let response = ResponseSerde(Arc::new(Utf8)).deserialize(&bytes).unwrap();
            prop_assert_eq!(response, Response { hash, foreign_value: Some(row).filter(|row| !row.is_empty()) });
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = SubscriptionSerde.deserialize(&bytes);
            let _ = ResponseSerde(Arc::new(Bytes)).deserialize(&bytes);
        }
    }

    #[test]
    fn a_newer_version_is_refused_with_the_remedy() {
        let error = SubscriptionSerde.deserialize(&[2, 0]).unwrap_err();
        assert!(error.to_string().contains("upgrade every instance"), "{error}");
    }
}

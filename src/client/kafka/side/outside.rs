//! A group as a tool sees and changes it: who is in it, who is taken out, what it has committed.
//!
//! ```text
//!   DescribeGroups ── a classic group ──> its members
//!         └── dead ──> ListGroups ── one of a newer protocol? ──> its name and state
//! ```

use std::sync::Arc;

use super::SideOffsets;
use super::code::Code;
use super::codec::{Reader, Result, Writer};
use super::offsets::{UNDECIDED_PAUSE, Verdict, judged};
use super::requests::{Api, Pending, Request, encode_metadata, encode_offset_fetch};
use super::security::Address;
use super::{gone, responses};
use crate::client::{GroupMembers, GroupMetadata, ListedMember};
use crate::error;
use crate::record::{OffsetAndMetadata, TopicPartition};

/// What is asked by who is no member.
#[derive(Debug, Clone)]
pub(super) enum Inquiry {
    Describe,
    /// All groups of the broker.
    List,
    Committed,
    /// All brokers.
    Brokers,
    /// Those of the application that a broker coordinates.
    OpenTransactions(Address),
    /// The members of a streams group.
    StreamsMembers,
    /// By its id; the broker takes static members as well.
    Remove(String),
}

impl Inquiry {
    pub(super) fn api(&self) -> Api {
        match self {
            Inquiry::Describe => Api::DescribeGroups,
            Inquiry::List => Api::ListGroups,
            Inquiry::Committed => Api::OffsetFetch,
            Inquiry::Brokers => Api::Metadata,
            Inquiry::OpenTransactions(_) => Api::ListTransactions,
            Inquiry::StreamsMembers => Api::StreamsGroupDescribe,
            Inquiry::Remove(_) => Api::LeaveGroup,
        }
    }

    pub(super) fn broker(&self) -> Option<&Address> {
        match self {
            Inquiry::OpenTransactions(broker) => Some(broker),
            Inquiry::Describe
            | Inquiry::List
            | Inquiry::Committed
            | Inquiry::Brokers
            | Inquiry::StreamsMembers
            | Inquiry::Remove(_) => None,
        }
    }

    /// The body without its tags.
    pub(super) fn encode(&self, group: &str, version: i16, out: &mut Writer) {
        match self {
            Inquiry::Describe | Inquiry::StreamsMembers => {
                out.list([group].into_iter(), Writer::text);
                // Not what this principal may do with it.
                out.bool(false);
            }
            Inquiry::List => {
                // In any state, of any kind.
                for _ in 4..=version {
                    out.list([(); 0].into_iter(), |_, ()| {});
                }
            }
            Inquiry::Brokers => encode_metadata(&[], out),
            Inquiry::OpenTransactions(_) => gone::encode_list(group, version, out),
            Inquiry::Committed => encode_offset_fetch(None, Pending::Refused, group, version, out),
            Inquiry::Remove(member) => {
                out.text(group);
                out.list([member].into_iter(), |out, member| {
                    out.text(member);
                    out.optional_text(None);
                    if version >= 5 {
                        out.optional_text(Some("the application is reset"));
                    }
                    out.no_tags();
                });
            }
        }
    }
}

/// A group that the coordinator describes: its error, its state and its members.
pub(super) fn described(body: &[u8]) -> Result<Option<(Code, String, Vec<ListedMember>)>> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let groups = reader.list(|reader| {
        let error = Code(reader.i16()?);
        reader.text()?;
        let state = reader.text()?;
        // The protocol's type and name.
        reader.text()?;
        reader.text()?;
        let members = reader.list(|reader| {
            let id = reader.text()?;
            reader.optional_text()?;
            reader.text()?;
            let host = reader.text()?;
            // Subscription and assignment.
            reader.bytes()?;
            reader.bytes()?;
            reader.tags()?;
            Ok(ListedMember { id, host: host.trim_start_matches('/').to_owned() })
        })?;
        reader.i32()?;
        reader.tags()?;
        Ok((error, state, members))
    })?;
    Ok(groups.into_iter().next())
}

/// A group in a broker's list; what the version does not tell is empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ListedGroup {
    name: String,
    state: String,
    kind: String,
}

pub(super) fn listed(version: i16, body: &[u8]) -> Result<(Code, Vec<ListedGroup>)> {
    let mut reader = Reader::new(body);
    reader.i32()?;
    let error = Code(reader.i16()?);
    let groups = reader.list(|reader| {
        let name = reader.text()?;
        reader.text()?;
        let state = if version >= 4 { reader.text()? } else { String::new() };
        let kind = if version >= 5 { reader.text()? } else { String::new() };
        reader.tags()?;
        Ok(ListedGroup { name, state, kind })
    })?;
    Ok((error, groups))
}

impl SideOffsets {
    pub(in crate::client::kafka) fn members(&mut self) -> error::Result<GroupMembers> {
        let judge = |_, body: &[u8]| {
            Ok(match described(body)? {
                // Dead: there is none, or it is one of a newer protocol.
                Some((Code::NONE, state, members)) => Verdict::Is((state != "Dead").then_some(members)),
                None | Some((Code::GROUP_ID_NOT_FOUND, ..)) => Verdict::Is(None),
                Some((code, ..)) => judged(code, String::new()),
            })
        };
        match self.call(Request::Outside(Inquiry::Describe), "list the members of the group", judge)? {
            Some(members) => Ok(GroupMembers::Listed(members)),
            None => self.members_of_newer_protocol(),
        }
    }

    fn members_of_newer_protocol(&mut self) -> error::Result<GroupMembers> {
        let group = Arc::clone(&self.group);
        let judge = |version, body: &[u8]| {
            let (error, groups) = listed(version, body)?;
            if error != Code::NONE {
                return Ok(judged(error, String::new()));
            }
            let own = groups.into_iter().find(|listed| *listed.name == *group);
            let is_empty = |own: &ListedGroup| matches!(own.state.as_str(), "" | "Empty" | "Dead");
            Ok(Verdict::Is(match own.filter(|own| !is_empty(own)) {
                Some(own) => GroupMembers::OfProtocol(own.kind.to_lowercase()),
                None => GroupMembers::Listed(Vec::new()),
            }))
        };
        self.call(Request::Outside(Inquiry::List), "list the groups of the coordinator", judge)
    }

    pub(in crate::client::kafka) fn remove_member(&mut self, id: &str) -> error::Result<()> {
        let judge = |_, body: &[u8]| {
            Ok(match responses::removed(body)? {
                Code::NONE | Code::UNKNOWN_MEMBER_ID => Verdict::Is(()),
                code => judged(code, format!(" {id}")),
            })
        };
        self.call(Request::Outside(Inquiry::Remove(id.to_owned())), "remove a member", judge)
    }

    pub(in crate::client::kafka) fn all_committed(
        &mut self,
    ) -> error::Result<Vec<(TopicPartition, OffsetAndMetadata)>> {
        let judge = |version, body: &[u8]| {
            let (error, fetched) = responses::offset_fetch(version, body)?;
            if !matches!(error, Code::NONE | Code::GROUP_ID_NOT_FOUND) {
                return Ok(judged(error, String::new()));
            }
            let wrong = fetched.iter().find(|(_, (code, _))| *code != Code::NONE);
            Ok(match wrong {
                Some((_, (code @ Code::UNSTABLE_OFFSET_COMMIT, _))) => Verdict::Again(*code, Some(UNDECIDED_PAUSE)),
                Some((partition, (code, _))) => judged(*code, format!(" of {partition}")),
                None => {
                    let position = |(partition, (_, position))| Some((partition, position?));
                    Verdict::Is(fetched.into_iter().filter_map(position).collect())
                }
            })
        };
        self.call(Request::Outside(Inquiry::Committed), "ask for committed offsets", judge)
    }

    pub(in crate::client::kafka) fn set_committed(
        &mut self,
        offsets: &[(TopicPartition, OffsetAndMetadata)],
    ) -> error::Result<()> {
        let nobody = GroupMetadata::from_outside(&self.group);
        crate::membership::classic::protocol::GroupOffsets::commit(self, offsets, &nobody)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn encoded(inquiry: Inquiry, version: i16) -> String {
        hex(&Request::Outside(inquiry).encode("g", version))
    }

    /// A classic group with a static member and a dynamic one.
    const DESCRIBED: &[u8] = b"\0\0\0\0\x02\0\0\x02g\x07Stable\x09consumer\x02p\x03\
        \x02a\0\x02c\x06/host\x02\x07\x01\0\x02b\x02i\x02c\x03/h\x01\x01\0\x80\0\0\0\0\0";

    const LISTED: &[u8] = b"\0\0\0\0\0\0\x03\x02a\x09consumer\x06Empty\x08Classic\0\
        \x02g\x08streams\x07Stable\x08Streams\0\0";

    #[test]
    fn requests_have_the_bytes_of_their_versions() {
        assert_eq!(encoded(Inquiry::Describe, 5), "0202670000");
        assert_eq!(encoded(Inquiry::List, 3), "00");
        assert_eq!(encoded(Inquiry::List, 5), "010100");
        assert_eq!(encoded(Inquiry::Committed, 7), "0267000100");
        assert_eq!(encoded(Inquiry::Committed, 9), "02026700ffffffff00000100");
        assert_eq!(encoded(Inquiry::Remove("m".to_owned()), 4), "026702026d000000");
    }

    #[test]
    fn members_are_read_with_where_they_run() {
        let (code, state, members) = described(DESCRIBED).unwrap().unwrap();
        assert_eq!((code, state.as_str()), (Code::NONE, "Stable"));
        let named: Vec<_> = members.iter().map(|member| (member.id.as_str(), member.host.as_str())).collect();
        assert_eq!(named, [("a", "host"), ("b", "h")]);
    }

    #[test]
    fn a_list_tells_state_and_kind_of_each_group() {
        let (code, groups) = listed(5, LISTED).unwrap();
        assert_eq!(code, Code::NONE);
        let group = |name: &str, state: &str, kind: &str| ListedGroup {
            name: name.into(),
            state: state.into(),
            kind: kind.into(),
        };
        assert_eq!(groups, [group("a", "Empty", "Classic"), group("g", "Stable", "Streams")]);
    }

    proptest! {
        #[test]
        fn no_damaged_response_ends_the_process(
            place in 0usize..80, byte in any::<u8>(), cut in 1usize..80, which in any::<bool>(),
        ) {
            let mut whole = if which { DESCRIBED } else { LISTED }.to_vec();
            let length = whole.len();
            whole[place % length] = byte;
            whole.truncate(cut);
            let _ = described(&whole);
            for version in [3, 4, 5] {
                let _ = listed(version, &whole);
            }
        }
    }
}

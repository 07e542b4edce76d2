//! Membership in a streams group (KIP-1071): the broker decides who has which task, from the topology that all members
//! declare alike.
//!
//! `protocol` is what a member and its coordinator say to each other, `declaration` what is declared of a topology, `member`
//! takes part in a group.

pub(crate) mod declaration;
pub(crate) mod member;
pub(crate) mod protocol;

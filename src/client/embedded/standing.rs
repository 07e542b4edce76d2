//! Who may speak for a group: the checks of every request and every commit, the same whoever deals the partitions.

use crate::client::GroupMetadata;
use crate::membership::classic::protocol::GroupError;

/// What a group knows of somebody who claims a member id, and maybe an instance id.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) generation: i32,
    pub(super) round: Round,
    /// Whether there is a member of that id.
    pub(super) is_member: bool,
    pub(super) instance: Instance,
}

/// How far a group is, as far as commits ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// There are no members.
    Empty,
    /// The generation has begun, and nobody has been told its partitions.
    Completing,
    /// Dealt, or asked back.
    Running,
}

/// What stands behind the instance id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Instance {
    NotClaimed,
    Unknown,
    OfTheMember,
    OfAnother,
}

impl Instance {
    pub(super) fn new(member: &str, instance: Option<&str>, holder: Option<&str>) -> Instance {
        match (instance, holder) {
            (None, _) => Instance::NotClaimed,
            (Some(_), None) => Instance::Unknown,
            (Some(_), Some(holder)) if holder == member => Instance::OfTheMember,
            (Some(_), Some(_)) => Instance::OfAnother,
        }
    }
}

/// By what a commit comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Commit {
    Plain,
    InTransaction,
}

impl Standing {
    pub(super) fn check_member(&self) -> Result<(), GroupError> {
        match self.instance {
            Instance::OfAnother => Err(GroupError::FencedInstance),
            Instance::Unknown => Err(GroupError::UnknownMemberId),
            Instance::NotClaimed | Instance::OfTheMember if !self.is_member => Err(GroupError::UnknownMemberId),
            Instance::NotClaimed | Instance::OfTheMember => Ok(()),
        }
    }

    pub(super) fn check_generation(&self, generation: i32) -> Result<(), GroupError> {
        self.check_member()?;
        if generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    /// Refuses a commit of who has lost its place (R11.2).
    pub(super) fn check_commit(&self, by: &GroupMetadata, commit: Commit) -> Result<(), GroupError> {
        let names_nobody = by.generation < 0 && by.member.is_empty() && by.instance.is_none();
        match (self.round, commit) {
            // From tools and from consumers without a group.
            (Round::Empty, _) if by.generation < 0 => return Ok(()),
            // Fenced by nothing, as the first versions of the request had no member: for that reason we never send it.
            (_, Commit::InTransaction) if names_nobody => return Ok(()),
            _ => self.check_generation(by.generation)?,
        }
        match (self.round, commit) {
            (Round::Completing, Commit::Plain) => Err(GroupError::RebalanceInProgress),
            _ => Ok(()),
        }
    }
}

//! What will run: an arena of nodes, addressed by index.

use std::fmt;

/// One sub-topology on one partition: the unit that is assigned, committed and restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    /// The number of the sub-topology, as in `describe()`.
    pub sub_topology: usize,
    /// The partition of its source topics.
    pub partition: i32,
}

/// Java's form: `0_3`.
impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.sub_topology, self.partition)
    }
}

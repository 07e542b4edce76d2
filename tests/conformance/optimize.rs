//! `topology.optimization` of a case.

use crate::dsl::Builder;
use crate::outcome::{Stop, missing};

pub(crate) fn configure(builder: &mut Builder<'_>) -> Result<(), Stop> {
    match builder.case["optimize"].as_str() {
        None | Some("none") => Ok(()),
        Some(other) => Err(missing(format!("topology.optimization {other}"))),
    }
}
